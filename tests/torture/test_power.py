"""The power is cut while a command works, or as soon as it has answered: what was recorded is whole, or not there.

Three things are to be durable when they are said: a baseline, a snapshot, a landing. Every cut loses all that no sync
has brought to the disk; see `tests.torture.disk`.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import Faults, Point, needs_strace, sample
from tests.kit import RepoKit
from tests.torture.disk import Disk, small_disk
from tests.torture.test_commands import VERBS, WT, Stage, World
from worktrees.boss import Boss
from worktrees.model import Job


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    needs_strace()
    with small_disk(tmp_path) as made:
        # Whoever is at work there is known by what its environment names.
        monkeypatch.setenv("HOME", str(made.mount / "home"))
        monkeypatch.setenv("XDG_STATE_HOME", str(made.mount / "home/.local/state"))
        (made.mount / "home").mkdir()
        shutil.copy(tmp_path / "home" / ".gitconfig", made.mount / "home")
        yield made


def assert_whole(kit: RepoKit) -> None:
    """The user's git works, and no ref of the repository or of our store leads to anything that is not there."""
    kit.git("status")
    kit.git("worktree", "list")
    kit.git("gc", "--quiet", "--prune=now")
    kit.assert_sound()
    store = kit.path / ".git/wt-state/store.git"
    if (store / "objects").is_dir():
        kit.git("--git-dir", store, "fsck", "--full", "--no-dangling", "--no-progress")


class Desk:
    """A repository on such a disk, with an open job `mine` and a settled one, `ready`."""

    def __init__(self, disk: Disk, scratch: Path) -> None:
        self.disk = disk
        self.kit = RepoKit.make(disk.mount / "repo")
        boss = Boss(self.kit.path)
        for name in ("mine", "ready"):
            workspace = Path(boss.spawn(name=name, workflow="main").workspace or "")
            (workspace / f"{name}.txt").write_text(f"{name}\n")
        boss.settle("ready")
        self.kit.write("README.md", "dirty\n")
        disk.sync()
        script = scratch / "wt.py"
        script.write_text(WT)
        self.faults = Faults(scratch / "faults", script)

    def killed(self, point: Point, *words: str) -> None:
        """The power is cut before the call of a `wt` command."""
        ended = self.faults.kill(point, "-C", str(self.kit.path), *words)
        assert ended.status == -9, ended
        self.disk.cut()

    def jobs(self) -> dict[str, Job]:
        """After what the next commands mend; everything is in order."""
        boss = Boss(self.kit.path)
        boss.list()
        boss.doctor(fix=True)
        assert {finding.code for finding in boss.doctor().findings} <= {"outside-edit"}
        assert_whole(self.kit)
        self.disk.sync()  # the user's own `gc` is not durable
        return {str(job.name): job for job in boss.list(closed=True)}


def test_a_power_cut_before_a_command_has_said_it_and_after(disk: Disk, tmp_path: Path) -> None:
    desk = Desk(disk, tmp_path)
    kit, store = desk.kit, desk.kit.path / ".git/wt-state/store.git"
    # A baseline with what was not committed.
    spawn = ("spawn", "--workflow", "fresh", "--name", "new", "--dirty", "all")
    desk.killed(Point("python", "syncfs", 1), *spawn)
    assert desk.jobs().keys() == {"mine", "ready"}
    Boss(kit.path).spawn(workflow="fresh", name="new", dirty="all")
    disk.cut()
    new = desk.jobs()["new"]
    assert kit.git("--git-dir", store, "show", f"{new.baseline.snapshot}:README.md") == b"dirty\n"
    assert kit.head("refs/wt/fresh/base") == kit.head()
    # A snapshot.
    (Path(desk.jobs()["mine"].workspace or "") / "late.txt").write_text("late\n")
    disk.sync()
    desk.killed(Point("python", "syncfs", 1), "settle", "mine")
    assert desk.jobs()["mine"].state == "open"
    Boss(kit.path).settle("mine")
    disk.cut()
    mine = desk.jobs()["mine"]
    assert (mine.state, mine.result) == ("done", "succeeded")
    found = {file.path: file.status for file in Boss(kit.path).diff("mine").change_set.files}
    assert found == {"late.txt": "A", "mine.txt": "A"}
    # A landing.
    before = kit.head()
    desk.killed(Point("python", "syncfs", 1), "merge", "ready", "--workflow", "main")
    assert desk.jobs()["ready"].landed_by is None
    assert kit.head() == before
    landed = Boss(kit.path).merge("ready", "mine", workflow="main")
    disk.cut()
    assert {desk.jobs()[name].landed_by for name in ("ready", "mine")} == {landed.operation_id}
    assert kit.head() == landed.after
    assert kit.text("status", "--porcelain") == "M README.md"
    assert (kit.read("mine.txt"), kit.read("late.txt")) == (b"mine\n", b"late\n")


@pytest.mark.torture
@pytest.mark.parametrize("verb", VERBS)
def test_a_power_cut_at_every_point(disk: Disk, tmp_path: Path, verb: str) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    stage = Stage(World(RepoKit.make(disk.mount / "repo"), scratch), verb)
    stage.power = True
    points = sample(stage.points)
    ends = {"before": 0, "between": 0, "after": 0}
    wrong = []
    for point in [*points, None]:
        stage.world.put_back()
        disk.sync()
        if point is None:
            ended = stage.faults._run(stage.arguments, "none", "", [])
            assert ended.status == 0, ended
        else:
            stage.faults.kill(point, *stage.arguments)
        disk.cut()
        try:
            end = stage.check(point)
            assert_whole(stage.world.kit)
            if point is None and verb == "spawn":  # the job is durable; what its worker wrote on its way is not
                assert end == "after" or stage.is_unfinished(stage.seen["new"])
            elif point is None and verb != "clean":  # workspaces that come back are no loss
                assert end == "after", "what it had answered is not durable"
            ends[end] += 1
        except AssertionError as error:
            wrong.append(f"{point}: {error}")
    assert not wrong, "\n".join([f"{verb}: {len(wrong)} of {len(points) + 1}", *wrong[:20]])
    print(f"{verb}: {len(points)} of {len(stage.points)} points and the end, {ends}")
