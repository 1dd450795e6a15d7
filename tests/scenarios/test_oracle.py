"""git is the oracle: merged by us in memory and by git in a checkout, in the same order, the outcome is the same.

The checkout's own `git merge --no-ff` and `git cherry-pick` say what is right: the same tree, or a conflict on the same
paths. `WT_TEST_SEED` tells other stories; a story that fails prints itself.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests import stories
from tests.kit import RepoKit
from tests.merging import Desk
from tests.stories import Story
from worktrees.errors import GitFailed
from worktrees.merge import Candidate, Rebase, ThreeWay
from worktrees.model import Baseline, JobId, Oid, Step
from worktrees.store import new_id

SEED = os.environ.get("WT_TEST_SEED", "23")
GIT_ERROR = "error"
"""What the oracle says of a git that ends with anything but 0 or 1."""


@dataclass(frozen=True)
class Verdict:
    """What git made of one step: the tree, or the paths left unmerged and the words about them."""

    tree: str | None
    unmerged: frozenset[str] = frozenset()
    words: str = ""


class Oracle:
    """A checkout in which git itself merges or picks the same commits."""

    def __init__(self, kit: RepoKit) -> None:
        self.kit = kit

    def put(self, onto: str, snapshots: Sequence[str], *, pick: bool, afresh: bool = True) -> list[Verdict]:
        """Each snapshot onto the result so far; what does not merge is left out."""
        git = self.kit.git
        if afresh:  # what is there was written under other attributes
            for there in self.kit.path.iterdir():
                if there.name != ".git":
                    shutil.rmtree(there) if there.is_dir() and not there.is_symlink() else there.unlink()
            (self.kit.path / ".git/index").unlink(missing_ok=True)
        git("checkout", "--quiet", "--force", "--detach", onto)
        verdicts: list[Verdict] = []
        for snapshot in snapshots:
            if not pick and not self.kit.git("diff-tree", f"{snapshot}^", snapshot):
                verdicts.append(Verdict(""))  # a job that changed nothing: git would merge where it began
                git("commit", "--quiet", "--allow-empty", "-m", "nothing")
                continue
            words = ["cherry-pick", "--keep-redundant-commits"] if pick else [
                "merge", "--no-ff", "--allow-unrelated-histories", "-m", "merge"
            ]  # fmt: skip
            # What is checked out just now is as git left it, also where it would be stored otherwise.
            os.utime(self.kit.path / ".git/index", (4e9, 4e9))
            status, said = self._run(*words, snapshot)
            if status == 0:
                verdicts.append(Verdict(""))
                continue
            stages = git("ls-files", "-u", "-z").split(b"\0")[:-1]
            unmerged = frozenset(os.fsdecode(stage.split(b"\t", 1)[1]) for stage in stages)
            if status != 1 or not (unmerged or "CONFLICT (" in said):
                verdicts.append(Verdict(GIT_ERROR, words=f"status {status}: {said}"))
                (self.kit.path / ".git/index.lock").unlink(missing_ok=True)  # a git that aborts leaves it behind
                git("reset", "--quiet", "--hard")
                break
            verdicts.append(Verdict(None, unmerged, said))
            git("reset", "--quiet", "--hard")
            git("clean", "-qfdx")
        trees = iter(self.kit.text("log", "--first-parent", "--reverse", "--format=%T", f"{onto}..HEAD").splitlines())
        return [Verdict(next(trees)) if verdict.tree == "" else verdict for verdict in verdicts]

    def _run(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(["git", *words], cwd=self.kit.path, capture_output=True, check=False, timeout=120)
        return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def plain(path: str) -> str:
    """A path without the name of a side, which is HEAD there and a commit here."""
    return path.split("~", maxsplit=1)[0]


def differences(steps: Sequence[Step] | None, verdicts: Sequence[Verdict], start: str | None = None) -> list[str]:
    """How our steps differ from git's; `start` is the tree merged onto. `steps` None: ours ended with an error."""
    if steps is None:
        return [] if verdicts and verdicts[-1].tree == GIT_ERROR else ["an error of ours alone"]
    found: list[str] = []
    before = start
    for number, (step, verdict) in enumerate(zip(steps, verdicts, strict=False)):
        named = {plain(each.path) for each in step.conflicts}
        unmerged = {plain(path) for path in verdict.unmerged}
        about = " ".join(line for line in verdict.words.splitlines() if not line.startswith("Auto-merging"))
        if verdict.tree == GIT_ERROR:
            # git 2.39 dies of some conflicts when it writes them into the index, which we never do.
            if not named:
                found.append(f"job {number}: {step.outcome} but git: {verdict.words}")
            return found
        if bool(named) != (verdict.tree is None):
            found.append(f"job {number}: {step.conflicts or step.outcome} but git: {verdict.words or 'clean'}")
        elif not unmerged <= named:
            found.append(f"job {number}: not named: {sorted(unmerged - named)}; git: {verdict.words}")
        elif strange := {path for path in named - unmerged if path not in about}:
            found.append(f"job {number}: named by us alone: {sorted(strange)}; git: {verdict.words}")
        elif step.tree and step.tree != verdict.tree:
            found.append(f"job {number}: tree {step.tree} but git: {verdict.tree}")
        elif step.outcome == "empty" and before not in (None, verdict.tree):
            found.append(f"job {number}: empty, but git made {verdict.tree} of {before}")
        before = verdict.tree or before
    return found


class Bench:
    """One repository for many stories."""

    def __init__(self, kit: RepoKit, told: Sequence[Story]) -> None:
        self.kit = kit
        self.desk = Desk(kit)
        self.oracle = Oracle(kit)
        self.config = (kit.path / ".git/config").read_text()
        self.oids = stories.write(kit, told)
        self.conflicts = self.clean = 0

    def check(self, story: Story) -> list[str]:
        """How the outcome of a story differs from git's, by either strategy."""
        oids = self.oids[story.number]
        self.configure(story.settings)
        (self.kit.path / ".git/info/attributes").write_text(f"{story.info}\n")
        found = []
        snapshots = [oids[snapshot] for _, snapshot in story.jobs]
        for pick in (False, True):
            if story.planted:
                # By the merged file's attributes git would renormalise; a worker's must not do that.
                self.configure(story.settings, "merge.renormalize")
            verdicts = self.oracle.put(oids[story.onto], snapshots, pick=pick)
            ours = story.planted or [snapshot for _, snapshot in story.jobs]
            self.configure(story.settings)
            candidates = [
                candidate(oids[start], oids[snapshot]) for (start, _), snapshot in zip(story.jobs, ours, strict=True)
            ]
            try:
                steps = self.plan(candidates, oids[story.onto], pick=pick)
            except GitFailed as error:
                steps, said = None, [f"{error.message} {error.details}"]
            else:
                said = []
            if story.planted and steps:
                steps, verdicts = self.unplanted(steps, verdicts)
            self.conflicts += sum(bool(verdict.unmerged) for verdict in verdicts)
            self.clean += sum(verdict.tree is not None for verdict in verdicts)
            name = "rebase" if pick else "three-way"
            found += [f"{name}: {line}" for line in (*differences(steps, verdicts), *said)]
        return found

    def configure(self, settings: Mapping[str, str], without: str = "") -> None:
        """Writes the repository's configuration."""
        sections = "".join(
            "[{0}]\n\t{1} = {value}\n".format(*name.split("."), value=value)
            for name, value in settings.items()
            if name != without
        )
        (self.kit.path / ".git/config").write_text(self.config + sections)

    def plan(self, candidates: Sequence[Candidate], onto: str, *, pick: bool) -> list[Step] | None:
        strategy = Rebase() if pick else ThreeWay()
        return self.desk.plan(candidates, strategy=strategy, onto=onto, on_conflict="skip").steps

    def unplanted(self, steps: list[Step], verdicts: list[Verdict]) -> tuple[list[Step], list[Verdict]]:
        """Both without what the workers planted, which the oracle never saw."""

        def strip(tree: str) -> str:
            listed = self.desk.store.git("ls-tree", "-r", "-z", "--full-tree", tree).records
            return str([record for record in listed if not record.endswith(b"\t.gitattributes")])

        return (
            [step.model_copy(update={"tree": step.tree and strip(step.tree)}) for step in steps],
            [
                verdict if verdict.tree in (None, GIT_ERROR) else replace(verdict, tree=strip(verdict.tree or ""))
                for verdict in verdicts
            ],
        )


def candidate(start: str, snapshot: str) -> Candidate:
    return Candidate(JobId(new_id("j")), None, None, Baseline(commit=Oid(start)), Oid(snapshot))


def check_stories(kit: RepoKit, numbers: range) -> Bench:
    """Tells stories and compares; what differs is told with its script."""
    with (Path.home() / ".gitconfig").open("a", encoding="utf-8") as config:
        config.write(stories.GLOBAL_CONFIG)
    told = [stories.tell(SEED, number) for number in numbers]
    bench = Bench(kit, told)
    checked = [(story, bench.check(story)) for story in told]
    wrong = ["\n".join([str(story), *found]) for story, found in checked if found]
    assert not wrong, f"{len(wrong)} of {len(numbers)} stories:\n\n" + "\n\n".join(wrong[:10])
    return bench


def test_s23_made_up_histories_merge_as_git_merges_them(repo: RepoKit) -> None:
    bench = check_stories(repo, range(30))
    assert bench.conflicts > 30 < bench.clean


@pytest.mark.torture
@pytest.mark.parametrize("block", range(8))
def test_s23_many_made_up_histories_merge_as_git_merges_them(repo: RepoKit, block: int) -> None:
    check_stories(repo, range(30 + block * 50, 80 + block * 50))


# ------------------------------------------------------------------------------------------------- real histories
Replay = tuple[str, list[tuple[str, str]]]
"""What is merged onto, and the jobs as pairs of baseline and snapshot."""


def replays(kit: RepoKit, most: int) -> Iterator[Replay]:
    """The merges of a history as they were made; then, for commits spread over it: the next ones, onto its revert."""
    lines = kit.text("log", "--merges", f"--max-count={most}", "--format=%P", "origin/HEAD").splitlines()
    for ours, *others in (line.split() for line in lines):
        starts = [(kit.text("rev-list", "--parents", "-1", other).split()[1:], other) for other in others]
        if all(len(parents) == 1 for parents, _ in starts):
            yield ours, [(parents[0], other) for parents, other in starts]
    line = kit.text("rev-list", "--first-parent", "--reverse", "origin/HEAD").splitlines()
    for number in range(1, len(line) - 3, max(1, len(line) // most)):
        before, base, *after = line[number - 1 : number + 4]
        snapshots = [kit.text("commit-tree", "-m", "after", "-p", base, f"{commit}^{{tree}}") for commit in after]
        yield (
            kit.text("commit-tree", "-m", "reverted", "-p", base, f"{before}^{{tree}}"),
            [(base, snapshot) for snapshot in snapshots],
        )


def check_history(source: Path, kit: RepoKit, most: int) -> int:
    """Replays a real history; how many merges were compared."""
    origin = RepoKit(source)
    objects = origin.text("rev-parse", "--path-format=absolute", "--git-path", "objects")
    (kit.path / ".git/objects/info/alternates").write_text(f"{objects}\n")
    kit.git("update-ref", "refs/remotes/origin/HEAD", origin.head())
    desk, oracle = Desk(kit), Oracle(kit)
    compared = 0
    for onto, jobs in replays(kit, most):
        for pick in (False, True):
            verdicts = oracle.put(onto, [snapshot for _, snapshot in jobs], pick=pick)
            candidates = [candidate(start, snapshot) for start, snapshot in jobs]
            steps = desk.plan(
                candidates, strategy=Rebase() if pick else ThreeWay(), onto=onto, on_conflict="skip"
            ).steps
            assert not differences(steps, verdicts), (source, onto, jobs, pick)
            compared += len(jobs)
    return compared


def test_s23_this_projects_own_history_merges_as_git_merges_it(repo: RepoKit) -> None:
    here = Path(__file__).parents[2]
    if not (here / ".git").exists() or int(RepoKit(here).text("rev-list", "--count", "HEAD")) < 20:
        pytest.skip("these sources come without their history")
    assert check_history(here, repo, 4) >= 12


@pytest.mark.torture
def test_s23_real_histories_merge_as_git_merges_them(make_repo: Callable[[str], RepoKit]) -> None:
    """`WT_TEST_HISTORIES` names more repositories, separated by colons."""
    here = Path(__file__).parents[2]
    sources = [Path(name) for name in os.environ.get("WT_TEST_HISTORIES", "").split(":") if name]
    if (here / ".git").exists():
        sources.append(here)
    if not sources:
        pytest.skip("these sources come without their history, and WT_TEST_HISTORIES names no other")
    for number, source in enumerate(sources):
        assert check_history(source, make_repo(f"history{number}"), 60)


# ------------------------------------------------------------------------------------------------- submodules
@pytest.mark.parametrize("checked_out", [True, False], ids=["checked out", "not checked out"])
@pytest.mark.parametrize(
    ("one", "other"),
    [("next", "last"), ("last", "next"), ("next", "aside"), ("next", "unknown"), ("next", "removed"), ("next", "next")],
)
def test_s23_submodules_merge_as_in_the_checkout(
    make_repo: Callable[[str], RepoKit], one: str, other: str, checked_out: bool
) -> None:
    """Git asks a submodule that is checked out which commit comes after the other, and so do we."""
    inner, kit = make_repo("inner"), make_repo("outer")
    first = inner.head()
    commits = {"next": inner.commit("next"), "last": inner.commit("last"), "unknown": "1" * 40}
    inner.git("checkout", "--quiet", "-b", "aside", first)
    commits["aside"] = inner.commit("aside")
    if checked_out:
        (kit.path / ".git/modules").mkdir()
        kit.git("clone", "--quiet", "--separate-git-dir", ".git/modules/module", inner.path, "lib/module")
        kit.write("lib/module/.git", "gitdir: ../../.git/modules/module\n")  # as `git submodule` does
    kit.git("update-index", "--add", "--cacheinfo", f"160000,{first},lib/module")
    kit.git("commit", "--quiet", "-m", "with a submodule")
    desk = Desk(kit)
    jobs = [desk.job({"lib/module": ("160000", commits[name]) if name in commits else None}) for name in (one, other)]
    (kit.path / ".git/objects/info/alternates").write_text(f"{desk.store.path}/objects\n")
    oracle = Oracle(kit)
    clean = one == other or (checked_out and {one, other} == {"next", "last"})
    for pick in (False, True):
        steps = desk.plan(jobs, strategy=Rebase() if pick else ThreeWay(), onto="main", on_conflict="skip").steps
        verdicts = oracle.put("main", [job.snapshot for job in jobs], pick=pick, afresh=False)
        assert not differences(steps, verdicts)
        assert [bool(step.conflicts) for step in steps] == [False, not clean]
