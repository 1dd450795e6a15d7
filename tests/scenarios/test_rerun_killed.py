"""A merge that runs jobs again, killed at every change it makes to the disk; the next ordinary merge goes on."""

import subprocess
from pathlib import Path

import pytest

from tests.faults import Faults, Point, sample
from tests.kit import RepoKit, Wt, eventually, processes_of
from tests.merging import tree_files
from tests.scenarios.test_policies import adds, jobs, spawn
from worktrees.boss import Boss

MERGE = ("merge", "--on-conflict", "rerun")
PARTS = {"repo", "home", "repo.worktrees"}


class Again:
    """Two jobs that conflict, before the merge that has the second run again; to be put back as often as needed."""

    def __init__(self, repo: RepoKit, wt: Wt, scratch: Path) -> None:
        self.repo, self.wt, self.scratch = repo, wt, scratch
        for name in ("one", "two"):
            spawn(wt, name, adds(5, name))
        repo.write("README.md", "dirty\n")
        self.at_rest()
        self.parts = [path for path in repo.path.parent.iterdir() if path.name in PARTS]
        (scratch / "copy").mkdir(parents=True)
        subprocess.run(["cp", "-a", *self.parts, scratch / "copy"], check=True)
        (scratch / "wt.py").write_text("from worktrees.cli import main\nmain()\n")
        self.faults = Faults(scratch / "faults", scratch / "wt.py")
        self.arguments = ["-C", str(repo.path), *MERGE]
        self.before = repo.head(), repo.git("ls-files", "-s"), tree_files(repo.path)
        self.points = self.faults.points(*self.arguments)
        self.at_rest()

    def at_rest(self) -> None:
        """The worker that ran again goes on without whoever started it, and so does what empties the trash."""
        eventually(lambda: not processes_of(self.repo.path.parent), what="nobody is at work any more")

    def kill_at(self, point: Point) -> str:
        for part in self.parts:
            subprocess.run(["rm", "-rf", part], check=True)
        copies = [self.scratch / "copy" / part.name for part in self.parts]
        subprocess.run(["cp", "-a", *copies, self.repo.path.parent], check=True)
        self.faults.kill(point, *self.arguments)
        self.at_rest()
        seen = jobs(self.wt)
        assert {"one", "two"} <= seen.keys(), point
        self.wt("doctor", "--fix", "--json", status=0)
        self.at_rest()
        landed = self.repo.head() != self.before[0]
        if not landed:
            assert (self.repo.head(), self.repo.git("ls-files", "-s"), tree_files(self.repo.path)) == self.before, point
            assert not any(job["landedBy"] for job in jobs(self.wt).values()), point
            self.wt(*MERGE, "--json", status=0)
        assert self.repo.read("src/app.py").splitlines()[4] == b"line 5 one two", point
        assert self.repo.text("status", "--porcelain") == "M README.md", point
        assert all(jobs(self.wt)[name]["landedBy"] for name in ("one", "two")), point
        self.at_rest()
        self.repo.assert_sound()
        assert Boss(self.repo.path).doctor().findings == [], point
        self.wt("undo", status=0)
        assert (self.repo.head(), self.repo.git("ls-files", "-s"), tree_files(self.repo.path)) == self.before, point
        self.at_rest()
        return "after" if landed else "before"


@pytest.fixture
def again(repo: RepoKit, wt: Wt, tmp_path: Path) -> Again:
    return Again(repo, wt, tmp_path / "scratch")


def test_s21_a_rerun_is_killed_at_some_points(again: Again) -> None:
    for point in sample(again.points, 2):
        again.kill_at(point)


@pytest.mark.torture
def test_s21_a_rerun_is_killed_at_every_point(again: Again) -> None:
    ends = [again.kill_at(point) for point in sample(again.points)]
    print(f"rerun: {len(ends)} points, {ends.count('before')} before, {ends.count('after')} after")
