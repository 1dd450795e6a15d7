"""A landing, a rollback and an undo stopped at every change they make to the disk, by SIGKILL and by errors."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults import Faults, Point, sample
from tests.kit import RepoKit
from tests.merging import Desk, Edits, tree_files
from worktrees.landing import operations, recover, undo

VERBS = ("land", "stage", "rollback", "undo")
EDITS: Edits = {
    "README.md": "merged\n",
    "src/app.py": "".join(f"merged line {number}\n" for number in range(2000)),
    "docs/guide.md": None,
    "new/deep/file": "new\n",
    "new/program": ("100755", "#!/bin/sh\n"),
    "new/link": ("120000", "../README.md"),
    "swap": None,
    "swap/in": "a directory now\n",
    "turn/a": None,
    "turn/b": None,
    "turn": "a file now\n",
}
DRIVER = Path(__file__).parent.parent / "landing_driver.py"


class Picture(NamedTuple):
    """All that must be wholly one thing or wholly the other."""

    branch: str
    staged: bytes
    status: bytes
    files: dict[str, bytes | str]

    @classmethod
    def of(cls, kit: RepoKit) -> "Picture":
        return cls(kit.head(), kit.git("ls-files", "-s"), kit.git("status", "--porcelain=v2"), tree_files(kit.path))


class Stage:
    """A repository set up for one verb, to be put back as often as needed."""

    def __init__(self, kit: RepoKit, verb: str, scratch: Path) -> None:
        self.kit = kit
        kit.write("swap", "a file\n")
        kit.write("turn/a", "1\n")
        kit.write("turn/b", "2\n")
        kit.commit("third")
        self.desk = desk = Desk(kit)
        kit.write("tool.sh", "dirty\n")
        kit.write("src/staged.py", "staged\n")
        kit.git("add", "src/staged.py")
        kit.write("notes.txt", "untracked\n")
        kit.write("kept.log", "ignored\n")
        record: dict[str, object] = {}
        workflow = desk.workflow()
        jobs = [desk.job(EDITS), desk.job({"other.txt": "other\n"})]
        if verb in {"land", "stage"}:
            record = desk.plan(jobs).dump()
        else:
            desk.land(jobs)
            if verb == "rollback":
                record = workflow.dump()
                kit.write("late.txt", "untracked and late\n")
                kit.write("src/util.py", "dirty and late\n")
                kit.write("src/staged.py", "staged, then edited\n")
        self.arguments = [str(kit.path), verb]
        if record:
            (scratch / "record.json").write_text(json.dumps(record))
            self.arguments.append(str(scratch / "record.json"))
        self.copy = scratch / "copy"
        shutil.copytree(kit.path, self.copy, symlinks=True)
        self.faults = Faults(scratch / "faults", DRIVER)
        self.missed = 0
        self.before = Picture.of(kit)
        self.points = self.faults.points(*self.arguments)
        self.after = Picture.of(kit)
        assert self.before != self.after

    def reset(self) -> None:
        shutil.rmtree(self.kit.path)
        shutil.copytree(self.copy, self.kit.path, symlinks=True)

    def check(self, what: object) -> str:
        """The next command settles it; then everything is in order and goes on."""
        desk = self.desk
        recover(desk.place)
        seen = Picture.of(self.kit)
        assert seen in (self.before, self.after), (what, _difference(seen, self.before, self.after))
        assert not list((self.kit.path / ".git").glob("*.lock")), what
        assert not list((self.kit.path / ".git/refs").rglob("*.lock")), what
        assert {each.suffix for each in desk.place.state.operations.iterdir()} <= {".json"}, what
        assert not list((self.kit.path / ".git/objects/pack").glob("*.keep")), what
        assert all(each.state != "prepared" for each in operations(desk.place.state)), what
        self.kit.assert_sound()
        if seen == self.after:
            undo(desk.place)
            assert Picture.of(self.kit) == self.before, what
            return "after"
        assert self.faults._run(self.arguments, "none", "", []).status == 0, what
        assert Picture.of(self.kit) == self.after, what
        return "before"


def _difference(seen: Picture, *known: Picture) -> list[str]:
    lines = []
    for each in known:
        for name, one, other in zip(Picture._fields, seen, each, strict=True):
            if one != other:
                lines.append(f"{name}: {one!r:.600} instead of {other!r:.600}")
        lines.append("---")
    return lines


@pytest.fixture
def stage(repo: RepoKit, tmp_path: Path) -> Callable[[str], Stage]:
    return lambda verb: Stage(repo, verb, tmp_path)


def killed_at(held: Stage, points: list[Point]) -> dict[str, int]:
    ends = {"before": 0, "after": 0}
    for point in points:
        held.reset()
        ended = held.faults.kill(point, *held.arguments)
        held.missed += ended.status >= 0  # git does not make every call every time
        ends[held.check(point)] += 1
    return ends


def failed_at(held: Stage, points: list[Point], error: str, *, for_ever: bool = False) -> dict[str, int]:
    """The call fails, or with the error `KILL` its process alone is killed."""
    ends = {"before": 0, "after": 0}
    for point in points:
        held.reset()
        if error == "KILL":
            ended = held.faults.kill(point, *held.arguments, alone=True)
        else:
            ended = held.faults.fail(point, error, *held.arguments, for_ever=for_ever)
        if ended.status:
            last = ended.stderr.strip().rpartition("\n")[2]
            silent = for_ever and point.git == "python"  # Python cannot say so either
            assert silent or last.startswith("worktrees.errors."), (point, ended.stderr)
        end = held.check(point)
        assert ended.status or end == "after", (point, ended)
        ends[end] += 1
    return ends


@pytest.mark.parametrize("verb", VERBS)
def test_s24_stopped_at_some_points(stage: Callable[[str], Stage], verb: str) -> None:
    held = stage(verb)
    killed_at(held, sample(held.points, 5))
    failed_at(held, sample(held.points, 1), "ENOSPC", for_ever=False)
    failed_at(held, sample(held.points, 1), "EIO", for_ever=True)
    failed_at(held, sample([point for point in held.points if point.git != "python"], 1), "KILL")


@pytest.mark.torture
@pytest.mark.parametrize("verb", VERBS)
def test_s24_killed_at_every_point(stage: Callable[[str], Stage], verb: str) -> None:
    held = stage(verb)
    ends = killed_at(held, sample(held.points))
    print(f"{verb}: {len(held.points)} points, {held.missed} missed, {ends}")
    assert held.missed <= len(held.points) // 10
    assert ends["before"]
    assert ends["after"]


@pytest.mark.torture
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("error", "for_ever"), [("ENOSPC", True), ("EIO", False), ("EACCES", True)])
def test_s24_the_disk_fails_at_every_point(
    stage: Callable[[str], Stage], verb: str, error: str, for_ever: bool
) -> None:
    held = stage(verb)
    ends = failed_at(held, sample(held.points), error, for_ever=for_ever)
    print(f"{verb}: {len(held.points)} points of {error}, {ends}")


@pytest.mark.torture
@pytest.mark.parametrize("verb", VERBS)
def test_s24_git_alone_is_killed_at_every_point(stage: Callable[[str], Stage], verb: str) -> None:
    held = stage(verb)
    points = [point for point in held.points if point.git != "python"]
    ends = failed_at(held, sample(points), "KILL")
    print(f"{verb}: {len(points)} points of git alone, {ends}")
