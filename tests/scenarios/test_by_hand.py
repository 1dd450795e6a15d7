"""A conflict resolved by hand in the integration worktree, with git's own tools; the checkout never sees any of it."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.faults import Faults, sample
from tests.kit import Answer, RepoKit, Wt
from tests.merging import tree_files
from tests.scenarios.test_policies import adds, jobs, outcomes, spawn
from worktrees.boss import Boss

WT = "from worktrees.cli import main\nmain()\n"


def laid_out(wt: Wt, *words: str) -> tuple[Path, RepoKit, Answer]:
    """A merge that stops for its boss: where it is laid out, and the answer."""
    answer = wt("merge", "--on-conflict", "manual", *words, "--json", status=3)
    assert answer.code == "conflict"
    place = Path(answer.data["resolveIn"])
    return place, RepoKit(place), answer


def three(wt: Wt) -> None:
    """`one` merges, `two` and `three` conflict with it, `apart` with nobody."""
    for name in ("one", "two", "three"):
        spawn(wt, name, adds(5, name))
    spawn(wt, "apart", "echo apart > apart.txt")


def resolve(there: RepoKit, text: str) -> None:
    lines = there.git("show", "HEAD:src/app.py").decode().splitlines(keepends=True)
    lines[4] = text + "\n"
    there.write("src/app.py", "".join(lines))
    there.git("add", "src/app.py")


def test_s22_a_conflict_is_resolved_in_the_integration_worktree(repo: RepoKit, wt: Wt) -> None:
    three(wt)
    repo.write("README.md", "dirty\n")
    before = repo.fingerprint()
    files = tree_files(repo.path)

    place, there, answer = laid_out(wt)

    assert repo.fingerprint() == before
    assert outcomes(answer.data) == {"one": "skipped", "two": "conflict", "three": "skipped", "apart": "skipped"}
    assert not place.is_relative_to(repo.path)
    # As after `git merge`: markers with names, three stages, a merge under way.
    assert b"<<<<<<< HEAD\nline 5 one\n=======\nline 5 two\n>>>>>>> two\n" in there.read("src/app.py")
    assert there.text("status", "--porcelain") == "UU src/app.py"
    stages = [line.split()[2] for line in there.text("ls-files", "-u").splitlines()]
    assert stages == ["1", "2", "3"]
    assert "fix conflicts" in there.text("status")
    there.git("checkout", "--ours", "src/app.py")
    assert there.read("src/app.py").splitlines()[4] == b"line 5 one"
    there.git("checkout", "--merge", "src/app.py")
    tool = "printf 'line 5 one two\\n' > by-tool; sed '5s/.*/line 5 one two/' \"$LOCAL\" > \"$MERGED\"; rm by-tool"
    there.git("-c", f"mergetool.ours.cmd={tool}", "-c", "mergetool.ours.trustExitCode=true",
              "-c", "mergetool.keepBackup=false", "mergetool", "--tool=ours", "--no-prompt")  # fmt: skip
    assert there.text("status", "--porcelain") == "M  src/app.py"

    # `three` conflicts with what came of it: it stops again, in the same place.
    again = wt("merge", "--continue", "--json", status=3, cwd=place)
    assert again.data["resolveIn"] == str(place)
    assert outcomes(again.data) == {"one": "skipped", "two": "skipped", "three": "conflict", "apart": "skipped"}
    assert b"<<<<<<< HEAD\nline 5 one two\n=======\nline 5 three\n>>>>>>> three\n" in there.read("src/app.py")
    assert repo.fingerprint() == before
    resolve(there, "line 5 all three")
    there.git("commit", "--quiet", "--no-edit")  # git's own way to end it will do as well

    merged = wt("merge", "--continue", "--json", status=0).data

    assert outcomes(merged) == dict.fromkeys(["one", "two", "three", "apart"], "landed")
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 all three"
    assert repo.read("README.md") == b"dirty\n"
    assert tree_files(repo.path).keys() - files.keys() == {"apart.txt"}
    assert not place.exists()
    assert not (repo.path / ".git/wt-state/merging").exists()
    assert [each["kind"] for each in wt("log", "--json", status=0).data["operations"]] == ["merge"]
    # History says who did what: `two` is the second parent of the commit that holds the resolution.
    subjects = repo.text("log", "--first-parent", "--format=%s", "-5").splitlines()
    assert subjects[:4] == ["Merge job apart", "Merge job three", "Merge job two", "Merge job one"]
    assert repo.text("show", "HEAD~2^2:src/app.py").splitlines()[4] == "line 5 two"

    wt("undo", status=0)
    assert (repo.head(), tree_files(repo.path)) == (merged["before"], files)


@pytest.mark.parametrize("strategy", ["rebase", "squash"])
def test_s22_with_the_other_strategies(repo: RepoKit, wt: Wt, strategy: str) -> None:
    for name in ("one", "two"):
        spawn(wt, name, adds(5, name))
    _, there, _ = laid_out(wt, "--strategy", strategy, "-m", "Both")
    resolve(there, "line 5 both")
    wt("merge", "--continue", status=0)
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 both"
    assert repo.text("log", "-1", "--format=%s %p") == f"Both {repo.text('rev-parse', '--short', 'HEAD^')}"
    assert repo.text("rev-list", "--count", "HEAD") == {"rebase": "4", "squash": "3"}[strategy]


def test_what_is_not_resolved_is_refused_by_path(repo: RepoKit, wt: Wt) -> None:
    for name in ("one", "two"):
        spawn(wt, name, adds(5, name))
    place, there, _ = laid_out(wt)
    before = repo.fingerprint()

    def refused(code: str) -> None:
        answer = wt("merge", "--continue", "--json", status=4)
        assert answer.code == code
        assert "`src/app.py`" in answer.json["error"]["message"] or code == "resolution-gone"
        assert answer.json["error"]["hint"]
        assert repo.fingerprint() == before

    refused("unresolved")
    there.git("add", "src/app.py")
    refused("markers-left")
    resolve(there, "line 5 both")
    with (place / "src/app.py").open("a") as file:
        file.write("one more thought\n")
    refused("unstaged-edits")
    there.git("reset", "--quiet", "--hard")
    refused("resolution-gone")

    # Lines that look like markers and were there before are no markers.
    wt("merge", "--abort", status=0)
    assert repo.fingerprint() == before


def test_a_second_merge_meanwhile_is_refused_and_everybody_says_why(repo: RepoKit, wt: Wt) -> None:
    for name in ("one", "two"):
        spawn(wt, name, adds(5, name))
    place, _, _ = laid_out(wt)

    for words in (("merge",), ("merge", "one"), ("merge", "--on-conflict", "manual")):
        answer = wt(*words, "--json", status=4)
        assert answer.code == "operation-in-progress"
        assert answer.json["error"]["hint"] == "wt merge --continue, or: wt merge --abort"
        assert str(place) in answer.json["error"]["message"]
    for words in (("list",), ("status",)):
        assert [each["code"] for each in wt(*words, "--json", status=0).json["warnings"]] == ["merge-waits"]
    found = wt("doctor", "--json", status=1).data["findings"]
    assert [(each["code"], each["path"]) for each in found] == [("merge-waits", str(place))]
    # Looking and spawning go on.
    wt("merge", "-n", "--json", status=3)
    spawn(wt, "late", "true")
    wt("merge", "--abort", status=0)
    assert wt("doctor", "--json", status=0).data["findings"] == []


@pytest.mark.parametrize("words", [["--continue"], ["--abort"]])
def test_nothing_waits(repo: RepoKit, wt: Wt, words: list[str]) -> None:
    assert wt("merge", *words, "--json", status=4).code == "not-found"
    spawn(wt, "one", "echo 1 > one")
    answer = wt("merge", *words, "--json", status=4)
    assert (answer.code, answer.json["error"]["hint"]) == ("not-found", "wt merge --on-conflict manual")
    assert wt("merge", *words, "one", "--json", status=2).code == "usage"
    assert wt("merge", "--continue", "--abort", "--json", status=2).code == "usage"


def test_going_on_goes_by_what_was_asked_and_by_nothing_else(repo: RepoKit, wt: Wt) -> None:
    """An option beside it would be lost without a word; `--dry-run` even went on."""
    for name in ("one", "two"):
        spawn(wt, name, adds(5, name))
    before, (_, there, _) = repo.fingerprint(), laid_out(wt)
    resolve(there, "line 5 both")

    for words in (
        ["-n"],
        ["--check", "true"],
        ["--no-gpg-sign"],
        ["--into", "main"],
        ["one"],
        ["--strategy", "squash"],
    ):
        for word in ("--continue", "--abort"):
            answer = wt("merge", word, *words, "--json", status=2)
            assert (answer.code, answer.json["error"]["hint"]) == ("usage", f"wt merge {word}")
    said = "`--continue` stands alone, without `--dry-run`, `--author`: the merge that waits knows what was asked"
    assert wt("merge", "--continue", "-n", "--author", "", status=2).stderr.startswith(f"wt: error: {said}\n")

    assert repo.fingerprint() == before
    assert wt("merge", "--continue", "--json", status=0).data["landed"]
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 both"


def test_an_abort_keeps_what_was_there(repo: RepoKit, wt: Wt) -> None:
    for name in ("one", "two"):
        spawn(wt, name, adds(5, name))
    before = repo.fingerprint()
    place, there, _ = laid_out(wt)
    there.write("src/app.py", "half resolved\n")
    there.write("thoughts.txt", "untracked\n")

    kept = wt("merge", "--abort", "--json", status=0).data["kept"]

    assert not place.exists()
    assert repo.fingerprint() == before
    store = ("--git-dir", repo.path / ".git/wt-state/store.git")
    assert repo.git(*store, "show", f"{kept}:src/app.py") == b"half resolved\n"
    assert repo.git(*store, "show", f"{kept}:thoughts.txt") == b"untracked\n"
    assert kept in repo.text(*store, "for-each-ref", "--format=%(objectname)")
    assert {job["landedBy"] for job in jobs(wt).values()} == {None}
    laid_out(wt)
    wt("merge", "--abort", status=0)


def test_recorded_resolutions_are_applied_and_new_ones_recorded(repo: RepoKit, wt: Wt) -> None:
    repo.git("config", "rerere.enabled", "true")
    for name in ("one", "two"):
        spawn(wt, name, adds(5, name))
    _, there, _ = laid_out(wt)
    resolve(there, "line 5 both")
    wt("merge", "--continue", status=0)
    assert list((repo.path / ".git/rr-cache").glob("*/postimage"))
    wt("undo", status=0)

    _, there, _ = laid_out(wt)
    assert there.read("src/app.py").splitlines()[4] == b"line 5 both"
    there.git("add", "src/app.py")
    wt("merge", "--continue", status=0)
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 both"


def test_nothing_of_a_worker_runs_while_a_conflict_is_resolved(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    """Hooks in the tree, hooks of the repository, filters and drivers that a worker's attributes call for."""
    trap = tmp_path / "trapped"
    repo.write(".hooks/post-checkout", "#!/bin/sh\ntrue\n", mode=0o755)
    repo.commit("hooks in the tree")
    repo.git("config", "core.hooksPath", ".hooks")
    for key in ("filter.trap.smudge", "filter.trap.clean", "merge.trap.driver", "diff.trap.textconv"):
        repo.git("config", key, f"touch {trap}; cat")
    spawn(wt, "one", adds(5, "one"))
    hooks = ("post-checkout", "pre-commit", "commit-msg", "post-index-change", "post-commit")
    planted = "; ".join(
        f"printf '#!/bin/sh\\ntouch {trap}\\n' > .hooks/{name}; chmod +x .hooks/{name}" for name in hooks
    )
    spawn(wt, "two", f"{planted}; echo '* filter=trap merge=trap diff=trap' > .gitattributes; {adds(5, 'two')}")

    trap.unlink(missing_ok=True)  # the filters are the user's own, and a capture may run them

    _, there, answer = laid_out(wt)
    assert not trap.exists()
    assert "attributes-off" in [each["code"] for each in answer.json["warnings"]]
    there.git("status")
    there.git("diff")
    resolve(there, "line 5 both")
    there.git("commit", "--quiet", "-m", "resolved")
    assert not trap.exists()
    wt("merge", "--abort", status=0)
    assert not trap.exists()


def test_a_branch_that_moved_is_merged_with(repo: RepoKit, wt: Wt) -> None:
    for name in ("one", "two"):
        spawn(wt, name, adds(5, name))
    _, there, _ = laid_out(wt)
    resolve(there, "line 5 both")
    repo.write("README.md", "moved\n")
    repo.write("src/app.py", repo.read("src/app.py").decode().replace("line 25\n", "line 25 moved\n"))
    moved = repo.commit("the boss went on")

    merged = wt("merge", "--continue", "--json", status=0).data

    assert merged["before"] == moved
    lines = repo.read("src/app.py").splitlines()
    assert (lines[4], lines[24], repo.read("README.md")) == (b"line 5 both", b"line 25 moved", b"moved\n")


def test_a_landing_that_is_refused_keeps_the_resolution(repo: RepoKit, wt: Wt) -> None:
    for name in ("one", "two"):
        spawn(wt, name, adds(5, name))
    _, there, _ = laid_out(wt)
    resolve(there, "line 5 both")
    clean = repo.read("src/app.py")
    repo.write("src/app.py", "in the way\n")
    for _ in range(2):
        assert wt("merge", "--continue", "--json", status=4).code == "would-overwrite"
    repo.write("src/app.py", clean)
    wt("merge", "--continue", status=0)
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 both"


# ------------------------------------------------------------------------------------------------------------- killed
VERBS = {
    "manual": ("merge", "--on-conflict", "manual"),
    "continue": ("merge", "--continue"),
    "continue-stops": ("merge", "--continue"),
    "abort": ("merge", "--abort"),
}


class Stand:
    """A merge before one of its commands, to be put back as often as needed."""

    def __init__(self, repo: RepoKit, wt: Wt, verb: str, scratch: Path) -> None:
        self.repo, self.wt, self.verb, self.scratch = repo, wt, verb, scratch
        names = ("one", "two", "three") if verb == "continue-stops" else ("one", "two")
        for name in names:
            spawn(wt, name, adds(5, name))
        self.names = names
        if verb != "manual":
            _, there, _ = laid_out(wt)
            resolve(there, "line 5 both")
        self.parts = [path for path in repo.path.parent.iterdir() if path.name in {"repo", "home", "repo.worktrees"}]
        (scratch / "copy").mkdir(parents=True)
        subprocess.run(["cp", "-a", *self.parts, scratch / "copy"], check=True)
        (scratch / "wt.py").write_text(WT)
        self.faults = Faults(scratch / "faults", scratch / "wt.py")
        self.arguments = ["-C", str(repo.path), *VERBS[verb]]
        self.before = repo.head(), tree_files(repo.path)
        # The first run must end with 0; one that stops at a conflict does with 3.
        self.points = self.faults.points(*self.arguments, status=3 if verb in ("manual", "continue-stops") else 0)

    def put_back(self) -> None:
        for part in self.parts:
            subprocess.run(["rm", "-rf", part], check=True)
        subprocess.run(
            ["cp", "-a", *(self.scratch / "copy" / part.name for part in self.parts), self.repo.path.parent], check=True
        )

    def kill_at(self, point: object) -> None:
        self.put_back()
        self.faults.kill(point, *self.arguments)  # type: ignore[arg-type]
        seen = wt_data(self.wt("list", "--all", "--json", status=0))
        assert {job["name"] for job in seen["jobs"]} == set(self.names), point
        landed = self.repo.head() != self.before[0]
        if not landed:
            assert (self.repo.head(), tree_files(self.repo.path)) == self.before or self.settled(), point
        self.finish(point)
        self.repo.assert_sound()
        self.wt("doctor", "--fix", "--json", status=0)
        assert Boss(self.repo.path).doctor().findings == [], point

    def settled(self) -> bool:
        self.wt("doctor", "--fix")
        return (self.repo.head(), tree_files(self.repo.path)) == self.before or self.repo.head() != self.before[0]

    def finish(self, point: object) -> None:
        """From wherever it died the ordinary commands lead to the end; what was resolved is not asked again."""
        for _ in range(4):
            answer = self.wt("merge", "--continue", "--json")
            if answer.status == 0:
                break
            if answer.code == "not-found":
                if all(job["landedBy"] for job in jobs(self.wt).values()):
                    break
                answer = self.wt("merge", "--on-conflict", "manual", "--json", status=3)
            place = next(link.parent for part in self.parts for link in part.rglob("merging/.git"))
            if answer.code in ("conflict", "unresolved"):
                assert self.verb != "continue", (point, answer)
                resolve(RepoKit(place), "line 5 both")
        assert self.repo.read("src/app.py").splitlines()[4] == b"line 5 both", point
        assert all(job["landedBy"] for job in jobs(self.wt).values()), point
        assert self.repo.text("status", "--porcelain") == "", point
        assert len(wt_data(self.wt("log", "--json", status=0))["operations"]) == 1, point


def wt_data(answer: Answer) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads(answer.stdout)["data"]
    return found


@pytest.mark.parametrize("verb", ["manual", "continue", "abort"])
def test_s22_killed_at_some_points(repo: RepoKit, wt: Wt, tmp_path: Path, verb: str) -> None:
    stand = Stand(repo, wt, verb, tmp_path / "scratch")
    for point in sample(stand.points, 3):
        stand.kill_at(point)


@pytest.mark.torture
@pytest.mark.parametrize("verb", VERBS)
def test_s22_killed_at_every_point(repo: RepoKit, wt: Wt, tmp_path: Path, verb: str) -> None:
    stand = Stand(repo, wt, verb, tmp_path / "scratch")
    for point in sample(stand.points):
        stand.kill_at(point)
    print(f"{verb}: {len(stand.points)} points")
