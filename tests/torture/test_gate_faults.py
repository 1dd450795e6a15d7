"""A checked merge killed at every change it makes to the disk: the next commands find nothing half-done and go on."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults import Faults, Point, needs_strace, sample
from tests.kit import RepoKit, Wt, eventually, processes_of
from worktrees import Boss
from worktrees.isolation.place import SLOTS
from worktrees.store import State

CHECK = "test ! -e bad.txt"
WORDS = ("merge", "--check", CHECK, "--on-red", "skip")
DRIVER = "from worktrees.cli import main\nmain()\n"


class Stage:
    """A repository with three finished jobs, one of them bad, to be put back as often as needed."""

    def __init__(self, kit: RepoKit, scratch: Path, *, used: bool) -> None:
        self.kit = kit
        self.wt = Wt(kit.path)
        self.state = State(kit.path / ".git")
        boss = Boss(kit.path)
        for name in ("one", "bad", "two"):
            job = boss.spawn(name=name)
            (Path(job.workspace or "") / f"{name}.txt").write_text(f"{name}\n")
            boss.settle(name)
        self.root = boss.place.root
        if used:  # there is a worktree to be moved, with what a check left in it
            self.wt("merge", "one", "--check", "echo > stray; echo changed > README.md; false", "--no-cache", status=1)
        self.quiet()
        scratch.mkdir()
        (scratch / "wt.py").write_text(DRIVER)
        self.faults = Faults(scratch / "faults", scratch / "wt.py")
        self.parts = {kit.path: scratch / "repo", self.root: scratch / "root"}
        for there, kept in self.parts.items():
            subprocess.run(["cp", "-a", there, kept], check=True)
        self.before = kit.head()
        self.arguments = ["-C", str(kit.path), *WORDS]
        # The driver ends with 1, because one job does not pass.
        self.points = self._points()

    def _points(self) -> list[Point]:
        found = self.faults.points(*self.arguments, status=1)
        self.quiet()
        self.after = self.tree()
        assert sorted(path.name for path in self.kit.path.glob("*.txt")) == ["one.txt", "two.txt"]
        return found

    def tree(self) -> str:
        return self.kit.text("rev-parse", "HEAD^{tree}")

    def quiet(self) -> None:
        top = self.kit.path.parent
        eventually(lambda: not processes_of(top), what="nobody is at work any more")

    def put_back(self) -> None:
        self.quiet()
        for there, kept in self.parts.items():
            shutil.rmtree(there, ignore_errors=True)
            subprocess.run(["cp", "-a", kept, there], check=True)

    def check(self, what: Point) -> bool:
        """After a look and a mending nothing is wrong, and the merge goes on. Whether it had landed already."""
        kit = self.kit
        self.quiet()
        kit.git("worktree", "list")
        self.wt("list", status=0)
        fixed = self.wt("doctor", "--fix", "--json", status=0)
        self.quiet()
        assert Boss(kit.path).doctor().findings == [], (what, fixed.data)
        assert self.litter() == [], (what, fixed.data)
        kit.git("gc", "--quiet", "--prune=now")
        kit.assert_sound()
        landed = kit.head() != self.before
        if not landed:
            assert not kit.git("status", "--porcelain"), what
            answer = self.wt(*WORDS, "--json", status=1)
            assert answer.code == "check-failed", what
            assert answer.data["landed"] is True, what
        assert self.tree() == self.after, what
        assert not kit.git("status", "--porcelain"), what
        return landed

    def litter(self) -> list[str]:
        found = [*self.state.journal.iterdir(), *(self.root / ".tmp").glob("*")]
        found += [path for path in self.state.operations.iterdir() if path.suffix != ".json"]
        for path in (self.kit.path / ".git").rglob("*"):
            if path.suffix in {".lock", ".keep", ".new", ".tmp", ".wt"} and path.parent.name != "locks":
                found.append(path)
        entries = {path.name for path in (self.kit.path / ".git/worktrees").glob("j-gate*")}
        places = {path.name for path in self.root.glob("j-gate*")}
        if entries != places or not entries <= set(SLOTS):
            found.append(Path(f"{sorted(entries)} and {sorted(places)}"))
        return [os.fspath(path) for path in found]


@pytest.fixture
def traced() -> None:
    needs_strace()


def killed_at(stage: Stage, points: list[Point]) -> dict[bool, int]:
    ends = {False: 0, True: 0}
    for point in points:
        stage.put_back()
        stage.faults.kill(point, *stage.arguments)
        ends[stage.check(point)] += 1
    return ends


def of_the_gate(points: list[Point]) -> list[Point]:
    """Points of the processes that the gate starts, and of our own."""
    return [point for point in points if point.git.partition("-")[0] in {"python", "read", "index", "pack", "ls"}]


@pytest.mark.usefixtures("traced")
def test_s27_a_checked_merge_is_killed_at_some_points(repo: RepoKit, tmp_path: Path) -> None:
    stage = Stage(repo, tmp_path / "scratch", used=True)
    killed_at(stage, sample(of_the_gate(stage.points), 3))


@pytest.mark.torture
@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("used", [False, True])
def test_s27_a_checked_merge_is_killed_at_every_point(repo: RepoKit, tmp_path: Path, used: bool) -> None:
    stage = Stage(repo, tmp_path / "scratch", used=used)
    ends = killed_at(stage, sample(stage.points))
    print(f"{len(stage.points)} points, landed before it was killed: {ends}")
    assert ends[False]
    assert ends[True]
