"""What a conflict leads to, through the real command: run again one by one, take everything back."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit import Gate, RepoKit, Wt, eventually
from tests.merging import tree_files
from worktrees.boss import Boss

LINES = [f"line {number}\n" for number in range(1, 31)]
SET_LINE = """
import pathlib, sys
path, number, text = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
lines = path.read_text().splitlines(keepends=True)
lines[number - 1] = lines[number - 1].rstrip("\\n") + " " + text + "\\n"
path.write_text("".join(lines))
"""


def adds(number: int, text: str) -> str:
    """A worker that adds a word to a line of `src/app.py`: alone it merges with nobody who touches the same line."""
    return shlex.join([sys.executable, "-c", SET_LINE, "src/app.py", str(number), text])


def spawn(wt: Wt, name: str, script: str, task: str | None = None) -> None:
    """A job that is over when this returns, so that the order of completion is that of the calls."""
    boss = Boss(wt.cwd)
    boss.spawn(["sh", "-c", script], name=name, task=task)
    boss.wait(name, timeout_seconds=60)


def jobs(wt: Wt) -> dict[str, Any]:
    return {job["name"]: job for job in wt("list", "--all", "--json", status=0).data["jobs"]}


def outcomes(merged: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["outcome"] for step in merged["steps"]}


def test_s21_conflicting_jobs_run_again_one_after_another(repo: RepoKit, wt: Wt, gate: Gate, tmp_path: Path) -> None:
    once = tmp_path / "once"
    for name in ("one", "two", "three"):
        # The second time a job comes by it stops at the gate, with its line as it found it in its own file.
        again = f"sed -n 5p src/app.py > {name}.txt; {gate.shell(name)}"
        spawn(wt, name, f"if mkdir {once}-{name}; then :; else {again}; fi; {adds(5, name)}", f"add {name}")
    spawn(wt, "apart", "echo apart > apart.txt")
    baseline = repo.head(), repo.git("status", "--porcelain=v2"), tree_files(repo.path)

    merging = wt.start("merge", "--on-conflict", "rerun", "--json")

    for number in (1, 2):
        gate.wait_arrivals(number)
        # One runs, nothing of the others has reached the branch: it is what was recorded when the workflow began.
        running = [job for job in jobs(wt).values() if job["state"] == "running"]
        assert [job["name"] for job in running] == [["two-rerun"], ["three-rerun"]][number - 1]
        assert (repo.head(), repo.git("status", "--porcelain=v2"), tree_files(repo.path)) == baseline
        gate.open_for(1)
    stdout, stderr = merging.communicate(timeout=60)
    merged = json.loads(stdout)["data"]

    assert merging.returncode == 0, stderr
    assert outcomes(merged) == dict.fromkeys(["one", "apart", "two-rerun", "three-rerun"], "landed")
    assert [(each["name"], each["result"]) for each in merged["reruns"]] == [
        ("two-rerun", "succeeded"), ("three-rerun", "succeeded"),
    ]  # fmt: skip
    # Each had the result of the one before.
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 one two three"
    assert (repo.read("two.txt"), repo.read("three.txt")) == (b"line 5 one\n", b"line 5 one two\n")
    assert repo.read("apart.txt") == b"apart\n"
    assert "two does not merge: running it again on" in stderr.decode()
    # One operation, and everybody is in it; the first tries are kept.
    assert [item["kind"] for item in wt("log", "--json", status=0).data["operations"]] == ["merge"]
    found = jobs(wt)
    assert {job["landedBy"] for job in found.values()} == {merged["operationId"]}
    assert found["two-rerun"]["rerunOf"] == found["two"]["jobId"]
    assert found["two-rerun"]["task"] == "add two"
    (changed,) = wt("diff", "two", "--json", status=0).data["changeSet"]["files"]
    assert changed["path"] == "src/app.py"
    message = repo.text("log", "-1", "--format=%B")
    assert message.startswith("Merge job three-rerun: add three\n\nWt-Job: ")

    wt("undo", status=0)
    assert repo.head() == baseline[0]
    # What ran again stands for the first try also after an undo.
    wt("merge", status=0)
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 one two three"


@pytest.mark.parametrize("strategy", ["rebase", "squash"])
def test_s21_with_the_other_strategies(repo: RepoKit, wt: Wt, strategy: str) -> None:
    for name in ("one", "two"):
        spawn(wt, name, adds(5, name))
    wt("merge", "--on-conflict", "rerun", "--strategy", strategy, status=0)
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 one two"
    assert repo.text("rev-list", "--count", "HEAD") == {"rebase": "4", "squash": "3"}[strategy]


def test_a_rerun_that_fails_lands_nothing_and_loses_nothing(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    once = tmp_path / "once"
    spawn(wt, "one", adds(5, "one"))
    spawn(wt, "two", adds(5, "two"))
    spawn(wt, "three", f"mkdir {once} || exit 7; {adds(5, 'three')}")
    before = repo.fingerprint(["refs/wt/*"])

    answer = wt("merge", "--on-conflict", "rerun", "--json", status=3)

    assert repo.fingerprint(["refs/wt/*"]) == before
    assert answer.code == "conflict"
    assert "the re-run `three-rerun` failed" in answer.json["error"]["message"]
    assert answer.json["error"]["hint"] == "wt result three-rerun --full"
    assert outcomes(answer.data) == {"one": "skipped", "two-rerun": "skipped", "three": "conflict"}
    assert [each["result"] for each in answer.data["reruns"]] == ["succeeded", "failed"]
    # The next merge goes on from there: what succeeded counts, what failed is the first try again.
    merged = wt("merge", "--on-conflict", "skip", "--json", status=3).data
    assert outcomes(merged) == {"one": "landed", "two-rerun": "landed", "three": "conflict"}
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 one two"
    assert jobs(wt)["three"]["landedBy"] is None


def test_a_boss_killed_while_a_job_runs_again(repo: RepoKit, wt: Wt, gate: Gate, tmp_path: Path) -> None:
    """The re-run goes on without it, and the next merge takes it."""
    spawn(wt, "one", adds(5, "one"))
    spawn(wt, "two", f"mkdir {tmp_path / 'once'} || {{ {gate.shell('two')}; }}; {adds(5, 'two')}")
    before = repo.fingerprint(["refs/wt/*"])
    merging = wt.start("merge", "--on-conflict", "rerun")
    gate.wait_arrivals(1)
    merging.kill()
    merging.communicate(timeout=30)
    assert repo.fingerprint(["refs/wt/*"]) == before

    # Meanwhile neither it nor what it is to replace is taken.
    waiting = wt("merge", "-n", "--json", status=0)
    assert outcomes(waiting.data) == {"one": "landed"}
    assert [notice["code"] for notice in waiting.json["warnings"]] == ["left-out"]
    gate.release()
    wt("wait", status=0)
    merged = wt("merge", "--json", status=0).data

    assert outcomes(merged) == {"one": "landed", "two-rerun": "landed"}
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 one two"
    assert {job["landedBy"] for job in jobs(wt).values()} == {merged["operationId"]}
    assert wt("workflow", "list", "--json", status=0).data["workflows"] == []


def test_a_job_runs_again_with_what_it_was_told(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    (tmp_path / "input").write_text("from stdin\n")
    spawn(wt, "one", adds(5, "one"))
    script = f"cat > src/input; echo $WORD >> src/input; test ! -e docs || exit 9; {adds(5, 'two')}"
    told = {"environment": {"WORD": "told"}, "stdin": str(tmp_path / "input"), "sparse": ["src"]}
    (tmp_path / "jobs").write_text(json.dumps({"name": "two", "command": ["sh", "-c", script], **told}) + "\n")
    wt("spawn", "--from-file", tmp_path / "jobs", status=0)
    wt("wait", status=0)
    (tmp_path / "input").unlink()

    wt("merge", "--on-conflict", "rerun", status=0)

    assert repo.read("src/input") == b"from stdin\ntold\n"
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 one two"


def test_what_was_done_by_hand_cannot_run_again(repo: RepoKit, wt: Wt) -> None:
    spawn(wt, "one", adds(5, "one"))
    place = Path(wt("spawn", "--name", "mine", "--json", status=0).data["jobs"][0]["workspace"])
    (place / "src/app.py").write_text("all mine\n")
    wt("settle", "mine", status=0)
    before = repo.fingerprint()

    answer = wt("merge", "--on-conflict", "rerun", "--json", status=4)

    assert answer.code == "not-rerunnable"
    assert "`mine`" in answer.json["error"]["message"]
    assert answer.json["error"]["hint"]
    assert repo.fingerprint() == before
    assert len(jobs(wt)) == 2


def test_no_more_jobs_run_again_than_allowed(repo: RepoKit, wt: Wt) -> None:
    for name in ("one", "two", "three"):
        spawn(wt, name, adds(5, name))
    before = repo.fingerprint()
    answer = wt("merge", "--on-conflict", "rerun", "--max-reruns", "1", "--json", status=3)
    assert [notice["code"] for notice in answer.json["warnings"]] == ["too-many-reruns"]
    assert repo.fingerprint() == before
    assert len(jobs(wt)) == 3


def test_s21_everything_back_to_the_baseline(repo: RepoKit, wt: Wt) -> None:
    """The other way A2 names: branch, index and files as they were recorded, and what was there can be brought back."""
    repo.write("notes.txt", "untracked at the start\n")
    spawn(wt, "early", "echo early > early.txt")
    recorded = repo.head(), repo.git("status", "--porcelain=v2"), tree_files(repo.path)
    spawn(wt, "one", adds(5, "one"))
    spawn(wt, "two", adds(5, "two"))
    wt("merge", "early", status=0)
    repo.write("notes.txt", "edited since\n")
    late = repo.head(), repo.git("status", "--porcelain=v2"), tree_files(repo.path)

    answer = wt("merge", "--on-conflict", "rollback", "--json", status=3)

    assert (repo.head(), repo.git("status", "--porcelain=v2"), tree_files(repo.path)) == recorded
    assert answer.data["landed"] is False
    assert answer.data["after"] == recorded[0]
    rollback = answer.data["rolledBackBy"]
    assert answer.json["error"]["hint"] == f"what was there comes back by: wt undo {rollback}"
    assert outcomes(answer.data) == {"one": "skipped", "two": "conflict"}
    wt("undo", rollback, status=0)
    assert (repo.head(), repo.git("status", "--porcelain=v2"), tree_files(repo.path)) == late


def test_without_a_conflict_every_policy_just_lands(repo: RepoKit, wt: Wt) -> None:
    for policy in ("rerun", "rollback"):
        spawn(wt, policy, f"echo {policy} > {policy}.txt")
        merged = wt("merge", "--on-conflict", policy, "--json", status=0).data
        assert (merged["landed"], merged["reruns"], merged["rolledBackBy"]) == (True, [], None)


# ---------------------------------------------------------------------------------------------------- order, authorship
def test_the_order_that_lands_most_is_found_when_something_conflicts(repo: RepoKit, wt: Wt) -> None:
    """`wide` touches all that the others touch, and was through first: without it three land."""
    spawn(wt, "wide", "; ".join(adds(number, "wide") for number in (3, 13, 23)))
    for number, name in ((3, "a"), (13, "b"), (23, "c")):
        spawn(wt, name, adds(number, name))

    # Nothing is to land, or an order was asked for: as it was completed.
    stopped = wt("merge", "-n", "--json", status=3).data
    assert [step["name"] for step in stopped["steps"]] == ["wide", "a", "b", "c"]
    asked = wt("merge", "-n", "--order", "completion", "--on-conflict", "skip", "--json", status=3).data
    assert outcomes(asked) == {"wide": "landed", "a": "conflict", "b": "conflict", "c": "conflict"}

    merged = wt("merge", "--on-conflict", "skip", "--json", status=3).data

    assert outcomes(merged) == {"a": "landed", "b": "landed", "c": "landed", "wide": "conflict"}
    lines = repo.read("src/app.py").splitlines()
    assert [lines[number - 1] for number in (3, 13, 23)] == [b"line 3 a", b"line 13 b", b"line 23 c"]


def test_orders_one_can_ask_for(wt: Wt) -> None:
    spawn(wt, "zeta", "echo 1 > z1")
    spawn(wt, "many", f"for n in 1 2 3; do echo $n > many$n; done; {adds(3, 'many')}")
    spawn(wt, "alpha", f"echo 1 > a1; echo 2 > a2; {adds(25, 'alpha')}")

    def order(*words: str) -> list[str]:
        return [step["name"] for step in wt("merge", "-n", *words, "--json", status=0).data["steps"]]

    assert order() == order("--order", "completion") == order("--order", "created") == ["zeta", "many", "alpha"]
    assert order("--order", "name") == ["alpha", "many", "zeta"]
    assert order("--order", "size") == ["zeta", "alpha", "many"]
    assert order("--order", "fewest-overlaps") == ["zeta", "many", "alpha"]
    assert order("alpha", "zeta") == order("alpha", "zeta", "--order", "given") == ["alpha", "zeta"]
    plan = wt("merge", "-n", "--order", "name", status=0).stdout
    assert [line.split()[:2] for line in plan.splitlines()[1:4]] == [["1.", "alpha"], ["2.", "many"], ["3.", "zeta"]]


@pytest.mark.parametrize("strategy", ["three-way", "rebase", "squash"])
def test_whose_name_and_words_a_commit_bears(repo: RepoKit, wt: Wt, strategy: str) -> None:
    repo.git("config", "commit.template", "no-such-file")  # git looks at it only where a person is to write the message
    spawn(wt, "one", "echo one > one", "say one\n\nwith reasons")
    job = jobs(wt)["one"]
    wt("merge", "--strategy", strategy, "--author", "A Worker <worker@example.com>", status=0)

    shown = [f"%(trailers:key=Wt-{name},valueonly,separator=)" for name in ("Job", "Workflow")]
    span = f"{job['baseline']['commit']}..HEAD"
    log = repo.text("log", "--format=" + "|".join(["%an <%ae>", "%cn", "%s", *shown]), span)
    boss = repo.text("log", "-1", "--format=%cn")
    trailers = f"{job['jobId']}|{job['workflowId']}"
    work = f"A Worker <worker@example.com>|{boss}|" + ("Merge jobs one" if strategy == "squash" else "say one")
    rows = log.splitlines()
    assert rows[-1] == f"{work}|{trailers}"
    if strategy == "three-way":
        assert rows[0].split("|")[1:] == [boss, "Merge job one: say one", *trailers.split("|")]
        assert "worker@" not in rows[0]
    assert len(rows) == (2 if strategy == "three-way" else 1)


def test_the_author_may_be_a_setting_and_trailers_stand_together(repo: RepoKit, wt: Wt) -> None:
    repo.git("config", "wt.author", "Setting <setting@example.com>")
    spawn(wt, "one", "echo one > one")
    wt("merge", "--strategy", "rebase", "-m", "One\n\nSigned-off-by: Boss <boss@example.com>", status=0)
    assert repo.text("log", "-1", "--format=%an") == "Setting"
    trailers = repo.text("log", "-1", "--format=%(trailers:only)").splitlines()
    assert [line.partition(":")[0] for line in trailers] == ["Signed-off-by", "Wt-Job", "Wt-Workflow"]


def test_a_branch_that_moves_meanwhile_is_planned_for_again_and_said_so(repo: RepoKit, wt: Wt, gate: Gate) -> None:
    """While a job runs again the boss commits; what lands is merged with that."""
    spawn(wt, "one", adds(5, "one"))
    script = f"test -e moved || grep -q 'line 5$' src/app.py || {{ {gate.shell('two')}; }}; {adds(5, 'two')}"
    spawn(wt, "two", script)
    merging = wt.start("merge", "--on-conflict", "rerun", "--json")
    gate.wait_arrivals(1)
    repo.write("moved", "meanwhile\n")
    moved = repo.commit("meanwhile")
    gate.release()
    stdout, stderr = merging.communicate(timeout=60)

    assert merging.returncode == 0, stderr
    answer = json.loads(stdout)
    assert answer["data"]["before"] == moved
    assert [notice["code"] for notice in answer["warnings"]] == ["planned-again"]
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 one two"
    assert eventually(lambda: jobs(wt)["two"]["landedBy"])
