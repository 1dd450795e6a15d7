"""The check gate, through the real command: what lands, what does not, what is run and what of it is left."""

import json
import os
import shlex
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.kit import Answer, Gate, RepoKit, Wt, eventually
from worktrees import Boss, sandbox
from worktrees.isolation.place import SLOTS


class Bench:
    """Jobs that add files, and checks that count their runs."""

    def __init__(self, repo: RepoKit, wt: Wt, scratch: Path) -> None:
        self.repo = repo
        self.wt = wt
        self.counter = scratch / "counter"
        self.counter.touch()

    def job(self, name: str, readme: str | None = None) -> str:
        """A finished job that adds a file of its name, and perhaps writes the README."""
        boss = Boss(self.repo.path)
        job = boss.spawn(name=name)
        workspace = Path(job.workspace or "")
        (workspace / f"{name}.txt").write_text(f"{name}\n")
        if readme is not None:
            (workspace / "README.md").write_text(readme)
        return boss.settle(name).job_id

    def counting(self, script: str) -> str:
        """A check that notes the files it saw, and runs a script."""
        return f"echo $(ls) >> {shlex.quote(str(self.counter))}; {script}"

    def runs(self) -> list[str]:
        return self.counter.read_text().splitlines()

    def merge(self, *words: str, status: int = 0) -> Answer:
        return self.wt("merge", *words, "--json", status=status)

    def outcomes(self, answer: Answer) -> dict[str, str]:
        return {step["name"]: step["outcome"] for step in answer.data["steps"]}


@pytest.fixture
def bench(repo: RepoKit, wt: Wt, tmp_path: Path) -> Bench:
    return Bench(repo, wt, tmp_path)


def test_s27_exactly_the_tree_that_passed_lands(bench: Bench) -> None:
    for name in ("one", "two"):
        bench.job(name)
    # What a check finds: the merged commit, its index and files, all clean, and what only workers have.
    check = (
        'git diff --exit-code HEAD && test -z "$(git status --porcelain)" && test -e one.txt -a -e two.txt && '
        'git rev-parse HEAD^{tree} && test -n "$WT_JOB" && test -z "$A_SECRET_TOKEN" && '
        "! git commit --allow-empty -qm x"
    )
    answer = bench.wt("merge", "--check", check, "--json", env={"A_SECRET_TOKEN": "x"}, status=0)
    tree = bench.repo.text("rev-parse", "HEAD^{tree}")
    checked = answer.data["check"]
    assert answer.data["landed"] is True
    assert checked["command"] == check
    (run,) = checked["runs"]
    assert (run["exitCode"], run["tree"], run["cached"], run["timedOut"]) == (0, tree, False, False)
    assert run["jobs"] == [step["jobId"] for step in answer.data["steps"]]
    assert run["seconds"] > 0
    assert tree in Path(run["log"]).read_text()
    assert tree in answer.stderr
    assert "check 1/1: one, two" in answer.stderr
    # On record, beside the operation.
    lines = (bench.repo.path / ".git/wt-state/gate/runs.jsonl").read_text().splitlines()
    assert [(json.loads(line)["tree"], json.loads(line)["exitCode"]) for line in lines] == [(tree, 0)]
    assert not bench.repo.git("status", "--porcelain")


def test_s27_red_lands_nothing_and_names_the_culprits(bench: Bench) -> None:
    ids = {name: bench.job(name) for name in ("a", "bad", "c", "worse", "e")}
    before = bench.repo.fingerprint(ignore_refs=["refs/wt/*"])
    check = bench.counting("test ! -e bad.txt && test ! -e worse.txt")
    answer = bench.merge("--check", check, status=1)
    assert answer.code == "check-failed"
    assert answer.json["error"]["message"] == f"`bad`, `worse` fail the check `{check}`; nothing moved"
    # Typed as it is said, the rest is checked, too.
    assert answer.json["error"]["hint"].endswith(f"or land the rest: wt merge --check '{check}' --on-red skip")
    assert bench.repo.fingerprint(ignore_refs=["refs/wt/*"]) == before
    assert answer.data["landed"] is False
    assert answer.data["after"] == answer.data["before"]
    assert bench.outcomes(answer) == {
        "a": "skipped", "bad": "failed-check", "c": "skipped", "worse": "failed-check", "e": "skipped",
    }  # fmt: skip
    assert answer.data["check"]["culprits"] == [ids["bad"], ids["worse"]]
    # 1 + E (log2 N + 1), the ground not tried because `a` is good.
    ran = bench.runs()
    assert len(ran) == len(set(ran)) <= 1 + 2 * (3 + 1)
    assert len(ran) == len(answer.data["check"]["runs"])
    # The good subset lands, and as it was tried as a whole already, nothing is run.
    skipped = bench.merge("--check", check, "--on-red", "skip", status=1)
    assert skipped.code == "check-failed"
    assert bench.outcomes(skipped) == {
        "a": "landed", "bad": "failed-check", "c": "landed", "worse": "failed-check", "e": "landed",
    }  # fmt: skip
    assert all(run["cached"] for run in skipped.data["check"]["runs"])
    assert bench.runs() == ran
    landed = bench.repo.text("rev-parse", "HEAD^{tree}")
    assert {"tree": landed, "exitCode": 0}.items() <= skipped.data["check"]["runs"][-1].items()
    assert sorted(path.name for path in bench.repo.path.glob("*.txt")) == ["a.txt", "c.txt", "e.txt"]
    rows = Boss(bench.repo.path).list(closed=True)
    assert [job.name for job in rows if job.landed_by] == ["a", "c", "e"]


def test_s27_the_rest_lands_as_the_hint_says(bench: Bench) -> None:
    """With the jobs and the check of the call: else what had just failed would land unchecked."""
    for name in ("good", "bad", "uninvited"):
        bench.job(name)
    for name in ("one", "two"):
        bench.job(name, readme=f"{name}\n")
    for status, words in ((1, ["good", "bad", "--check", "test ! -e bad.txt"]), (3, ["one", "two", "-n"])):
        said = bench.wt("merge", *words, status=status).stderr.splitlines()[-1]
        bench.wt(*shlex.split(said.rpartition("land the rest: wt ")[2]), status=status)
    landed = {name: (bench.repo.path / f"{name}.txt").exists() for name in ("good", "bad", "one", "two", "uninvited")}
    assert landed == {"good": True, "bad": False, "one": True, "two": False, "uninvited": False}


def test_s27_a_pair_that_only_fails_together_costs_the_later_one(bench: Bench) -> None:
    for name in ("left", "x", "right", "y"):
        bench.job(name)
    answer = bench.merge("--check", "! test -e left.txt -a -e right.txt", "--on-red", "skip", status=1)
    assert bench.outcomes(answer) == {"left": "landed", "x": "landed", "right": "failed-check", "y": "landed"}


def test_s27_a_branch_that_fails_itself_blames_nobody(bench: Bench) -> None:
    bench.job("one")
    bench.job("two")
    answer = bench.merge("--check", "test -e never", "--on-red", "skip", status=1)
    assert answer.code == "check-failed"
    assert "`main` itself fails" in answer.json["error"]["message"]
    assert answer.data["check"]["branchFails"] is True
    assert answer.data["check"]["culprits"] == []
    assert answer.data["check"]["runs"][-1]["jobs"] == []
    assert set(bench.outcomes(answer).values()) == {"skipped"}


@pytest.mark.parametrize("strategy", ["rebase", "squash"])
def test_s27_every_strategy_passes_the_gate(bench: Bench, strategy: str) -> None:
    for name in ("a", "bad", "c"):
        bench.job(name)
    answer = bench.merge("--strategy", strategy, "--check", "test ! -e bad.txt", "--on-red", "skip", status=1)
    assert bench.outcomes(answer) == {"a": "landed", "bad": "failed-check", "c": "landed"}
    assert answer.data["check"]["runs"][-1]["tree"] == bench.repo.text("rev-parse", "HEAD^{tree}")


def test_s27_who_conflicted_with_a_culprit_gets_another_chance(bench: Bench) -> None:
    bench.job("bad", "bad\n")
    bench.job("other", "other\n")
    bench.job("fine")
    words = ("--check", "test ! -e bad.txt", "--on-conflict", "skip")
    answer = bench.merge(*words, status=3)
    assert bench.outcomes(answer) == {"bad": "failed-check", "other": "conflict", "fine": "skipped"}
    answer = bench.merge(*words, "--on-red", "skip", status=1)
    assert bench.outcomes(answer) == {"bad": "failed-check", "other": "landed", "fine": "landed"}
    assert bench.repo.read("README.md") == b"other\n"


def test_s27_nothing_is_checked_where_a_conflict_stops_it(bench: Bench) -> None:
    bench.job("one", "one\n")
    bench.job("two", "two\n")
    answer = bench.merge("--check", bench.counting("true"), status=3)
    assert answer.data["check"]["runs"] == []
    assert bench.runs() == []


def test_s27_what_was_resolved_by_hand_is_checked_before_it_lands(bench: Bench) -> None:
    repo = bench.repo
    bench.job("one", "one\n")
    two = bench.job("two", "two\n")
    check = bench.counting("! grep -x bad README.md")
    before = repo.fingerprint()
    place = Path(bench.merge("--on-conflict", "manual", "--check", check, status=3).data["resolveIn"])
    assert bench.runs() == []

    def resolved(text: str, status: int) -> Answer:
        (place / "README.md").write_text(text)
        repo.git("add", "README.md", cwd=place)
        return bench.merge("--continue", status=status)

    red = resolved("bad\n", 1)
    assert (red.code, red.data["check"]["culprits"]) == ("check-failed", [two])
    assert red.json["error"]["hint"].endswith("resolve it better, then: wt merge --continue")
    assert repo.fingerprint() == before
    # It still waits, with what was resolved so far.
    assert bench.merge(status=4).code == "operation-in-progress"
    assert (place / "README.md").read_text() == "bad\n"
    green = resolved("good\n", 0)
    assert bench.outcomes(green) == {"one": "landed", "two": "landed"}
    assert green.data["check"]["runs"][-1]["tree"] == repo.text("rev-parse", "HEAD^{tree}")
    assert repo.read("README.md") == b"good\n"
    assert not place.exists()


def test_s27_a_flaky_check_may_be_given_another_try(bench: Bench, tmp_path: Path) -> None:
    bench.job("one")
    flag = shlex.quote(str(tmp_path / "flag"))
    check = f"test -e {flag} || {{ touch {flag}; false; }}"
    answer = bench.merge("--check", check, "--check-retry", "1")
    assert [run["exitCode"] for run in answer.data["check"]["runs"]] == [1, 0]
    assert [warning["code"] for warning in answer.json["warnings"]] == ["flaky-check"]
    assert answer.data["landed"] is True


def test_s27_a_check_that_takes_too_long_has_failed_and_is_not_remembered(bench: Bench) -> None:
    bench.job("one")
    script = bench.counting("case $(ls) in *one.txt*) trap '' TERM; sleep 3600 & wait; sleep 3600;; esac")
    for _ in range(2):
        answer = bench.wt(
            "merge", "--check", script, "--check-timeout", "0.3s", "--json", env={"WT_GRACE_SECONDS": "0.1s"}, status=1
        )
        first = answer.data["check"]["runs"][0]
        assert (first["timedOut"], first["exitCode"]) == (True, 124)
        assert answer.data["check"]["culprits"]
    assert sum("one.txt" in line for line in bench.runs()) == 2


def test_s27_what_one_run_leaves_behind_the_next_does_not_find(bench: Bench) -> None:
    bench.repo.write("kept/file", "kept\n")
    bench.repo.commit("a directory")
    for name in ("one", "two"):
        bench.job(name)
    mess = (
        "echo changed > README.md; rm data.bin; echo > stray.txt; mkdir -p kept/.git build/x; echo > build/x/y; "
        "chmod -x tool.sh; ln -sfn / src/link; rm -r docs; ln -s /tmp docs; printf x > .git; chmod 0 build/x; "
    )
    look = (
        'test "$(cat README.md)" != changed && test -e data.bin -a -x tool.sh -a -f docs/guide.md -a -d docs && '
        "test ! -e stray.txt -a ! -e build -a ! -L src/link -a ! -L docs -a ! -e kept/.git && "
        'test -z "$(git status --porcelain --ignored)" && '
    )
    for _ in range(2):
        bench.merge("--check", bench.counting(look + mess + "false"), "--no-cache", status=1)
    answer = bench.merge("one", "--check", look + mess + "true", "--check", look + mess + "true", "-n")
    assert answer.data["check"]["runs"] == []
    answer = bench.merge("--check", look + mess + "true", "--check", look + mess + ":")
    assert [run["exitCode"] for run in answer.data["check"]["runs"]] == [0, 0]


def test_s27_nor_does_it_where_the_worktrees_are_on_another_disk(bench: Bench) -> None:
    """What goes is renamed, so it stays on its own disk: in the trash beside the worktrees, not in one of them."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == bench.repo.path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=other) as root:
        bench.repo.git("config", "wt.worktreesDirectory", root)
        bench.job("one")
        check = 'test -z "$(find . -name .trash)"; clean=$?; echo > src/stray; echo > $TMPDIR/stray; exit $clean'
        answer = bench.merge("--check", check, "--check", f"{check}; :")
        assert [run["exitCode"] for run in answer.data["check"]["runs"]] == [0, 0]
        (top,) = Path(root).iterdir()
        assert not (top / ".tmp").exists()
        bench.wt("clean", "--all", status=0)
        eventually(lambda: not list(Path(root).rglob("stray")), what="the trash is emptied")


def test_s27_the_worktree_of_checks_is_ours_and_no_job(bench: Bench) -> None:
    repo, wt = bench.repo, bench.wt
    bench.job("one")
    bench.merge("--check", "false", status=1)
    (line,) = [line for line in repo.text("worktree", "list").splitlines() if SLOTS[0] in line]
    assert line.endswith("locked")
    assert [job.name for job in Boss(repo.path).list(closed=True)] == ["one"]
    repo.git("gc", "--quiet", "--prune=now")
    repo.assert_sound()
    assert Boss(repo.path).doctor().findings == []
    path = line.split(" ")[0]
    assert wt("merge", "--json", cwd=path, status=4).code == "not-boss"
    # The user removes it by hand: named, mended, made again.
    repo.git("worktree", "remove", "--force", "--force", path)
    os.makedirs(path)
    bench.merge("--check", "test -e one.txt && test ! -e stray", "--no-cache")
    assert Boss(repo.path).clean(dry_run=True).checkers == [path]
    assert wt("clean", "--json", status=0).data["checkers"] == [path]
    assert SLOTS[0] not in repo.text("worktree", "list")
    assert not os.path.exists(path)
    assert Boss(repo.path).doctor().findings == []


def test_s27_a_check_of_the_repository_file_needs_consent(bench: Bench) -> None:
    bench.repo.write(".wt.toml", 'check = ["test -e one.txt"]\n')
    bench.repo.commit("a check")
    bench.job("one")
    answer = bench.merge(status=4)
    assert answer.code == "check-unapproved"
    assert bench.merge("--dry-run").data["check"] == {
        "command": "test -e one.txt", "runs": [], "culprits": [], "branchFails": False,
    }  # fmt: skip
    listed = bench.wt("setup", "--approve", "--json", status=0).data["commands"]
    assert listed == [{"command": "test -e one.txt", "approved": True, "purpose": "check"}]
    answer = bench.merge()
    assert [run["command"] for run in answer.data["check"]["runs"]] == ["test -e one.txt"]
    bench.job("two")
    assert bench.merge("--no-check").data["check"] is None


def test_s27_the_branch_moves_while_the_check_runs(bench: Bench, gate: Gate) -> None:
    bench.job("one")
    script = bench.counting(f"test -e late.txt || {{ {gate.shell()}; }}")
    merging = bench.wt.start("merge", "--check", script, "--json")
    gate.wait_arrivals(1)
    bench.repo.write("late.txt", "late\n")
    late = bench.repo.commit("the boss went on")
    gate.release()
    out, err = merging.communicate(timeout=60)
    answer = Answer((), merging.returncode, out.decode(), err.decode())
    assert merging.returncode == 0, str(answer)
    assert [warning["code"] for warning in answer.json["warnings"]] == ["planned-again"]
    assert "planning and checking again" in answer.stderr
    trees = [run["tree"] for run in answer.data["check"]["runs"]]
    assert len(trees) == len(set(trees)) == 2
    assert trees[1] == bench.repo.text("rev-parse", "HEAD^{tree}")
    assert bench.repo.head("HEAD^1") == late


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.torture), signal.SIGKILL]
)
def test_s27_a_merge_that_is_ended_leaves_nobody_and_goes_on_from_there(bench: Bench, gate: Gate, number: int) -> None:
    bench.job("one")
    first = bench.counting("true")
    second = f"{gate.shell('$$')}; true"
    env: dict[str, Any] = {"WT_GRACE_SECONDS": "0.1s"}
    merging = bench.wt.start("merge", "--check", first, "--check", second, "--json", env=env)
    (pid,) = gate.wait_arrivals(1)
    before = bench.repo.head()
    # A look meanwhile is not disturbed by what goes on.
    assert Boss(bench.repo.path).doctor().findings == []
    merging.send_signal(number)
    merging.communicate(timeout=60)
    assert merging.returncode != 0
    eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the check is gone")
    assert bench.repo.head() == before
    gate.release()
    answer = bench.merge("--check", first, "--check", second)
    assert [run["cached"] for run in answer.data["check"]["runs"]] == [True, False]
    assert len(bench.runs()) == 1
    assert Boss(bench.repo.path).doctor().findings == []


def test_s27_two_merges_are_checked_at_the_same_time(bench: Bench, gate: Gate) -> None:
    bench.job("one")
    bench.job("two")
    check = f"test -e one.txt -a -e two.txt || {{ {gate.shell()}; }}"
    merging = [bench.wt.start("merge", name, "--check", check, "--json") for name in ("one", "two")]
    gate.wait_arrivals(2)
    gate.release()
    answers = [Answer((), each.returncode, *map(bytes.decode, each.communicate(timeout=60))) for each in merging]
    assert [each.returncode for each in merging] == [0, 0], "\n".join(map(str, answers))
    assert sorted(path.name for path in bench.repo.path.glob("*.txt")) == ["one.txt", "two.txt"]
    runs = [run["tree"] for answer in answers for run in answer.data["check"]["runs"]]
    assert bench.repo.text("rev-parse", "HEAD^{tree}") in runs


def test_s27_checks_get_what_workers_get(bench: Bench) -> None:
    bench.repo.write(".worktreeinclude", "secret.log\n")
    bench.repo.commit("include")
    bench.repo.write("secret.log", "brought\n")
    bench.job("one")
    check = bench.counting('test "$(cat secret.log)" = brought && test "$(cat setup.log)" = ready')
    settings = {"WT_SETUP_COMMANDS": "echo ready > setup.log"}
    words = ("merge", "--check", check, "--json")
    assert bench.wt(*words, env={"WT_SETUP_COMMANDS": "true"}, status=1).data["check"]["branchFails"]
    tried = len(bench.runs())
    bench.repo.write("secret.log", "brought\n", mode=0o600)
    assert bench.wt(*words, env=settings, status=0).data["landed"] is True
    assert len(bench.runs()) == tried + 1


def test_s27_a_check_runs_behind_the_same_walls_as_a_worker(bench: Bench, tmp_path: Path) -> None:
    if "none" in (found := sandbox.probe(None).available)[:1]:
        pytest.skip(f"no sandbox can be put up here, only {found}")
    bench.job("one")
    outside = shlex.quote(str(bench.repo.path / "escaped"))
    # What the user lets workers write, checks may write too.
    home = Path(os.environ["HOME"])
    (home / "shared").mkdir()
    (home / "closed").mkdir()
    check = (
        f"echo x > inside.txt && ! echo x > {outside} && ! ls .git/wt-state/workflows/* && git status --short && "
        "echo x > ~/shared/noted && ! echo x > ~/closed/noted"
    )
    env = {"WT_SANDBOX": None, "WT_SANDBOX_WRITABLE": "~/shared"}
    answer = bench.wt("merge", "--check", check, "--json", env=env, status=0)
    assert (os.listdir(home / "shared"), os.listdir(home / "closed")) == (["noted"], [])
    (run,) = answer.data["check"]["runs"]
    assert (run["exitCode"], run["sandbox"]) == (0, found[0])
    assert not (bench.repo.path / "escaped").exists()
