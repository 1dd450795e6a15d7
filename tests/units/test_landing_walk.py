"""Random walks: whatever was dirty, an undo leads back exactly, and so does a rollback, and neither loses anything."""

import os
import random
from collections.abc import Callable

import pytest

from tests.kit import RepoKit
from tests.merging import Desk, Edit, tree_files
from worktrees.errors import Refused
from worktrees.landing import recover, rollback, undo
from worktrees.model import Operation, Workflow

NAMES = [f"{place}{name}" for place in ("", "lib/", "src/deep/") for name in ("a", "b", "c.log")]


def picture(kit: RepoKit) -> tuple[str, bytes, dict[str, bytes | str]]:
    """Branch, index, files; ignored ones too."""
    return kit.head(), kit.git("ls-files", "-s"), tree_files(kit.path)


def without_ignored(
    kit: RepoKit, seen: tuple[str, bytes, dict[str, bytes | str]]
) -> tuple[str, bytes, dict[str, bytes | str]]:
    tracked = {line.split("\t", 1)[1] for line in seen[1].decode().splitlines()}
    return (
        *seen[:2],
        {path: content for path, content in seen[2].items() if not path.endswith(".log") or path in tracked},
    )


class Walk:
    """One boss who does one thing after another."""

    def __init__(self, kit: RepoKit, chance: random.Random) -> None:
        self.kit = kit
        self.chance = chance
        for name in NAMES:
            if not name.endswith(".log"):
                kit.write(name, "".join(f"{name} {number}\n" for number in range(8)))
        kit.commit("base")
        self.desk = Desk(kit)
        self.workflow: Workflow = self.desk.workflow()
        self.recorded = picture(kit)

    def soil(self) -> None:
        """One uncommitted change."""
        path = self.kit.path / (name := self.chance.choice(NAMES))
        if not path.parent.is_dir() or path.parent.is_symlink() or path.is_dir():
            return
        match self.chance.randrange(6):
            case 0 | 1:
                path.unlink(missing_ok=True)
                path.write_text(f"dirty {self.chance.randrange(100)}\n")
            case 2:
                path.unlink(missing_ok=True)
            case 3:
                path.unlink(missing_ok=True)
                path.symlink_to("nowhere")
            case 4:
                self.kit.git("add", "--all", "--", name, check=False)
            case _:
                self.kit.git("rm", "--quiet", "--cached", "--", name, check=False)

    def edits(self) -> dict[str, Edit]:
        edits: dict[str, Edit] = {}
        for name in self.chance.sample(NAMES, self.chance.randint(1, 3)):
            match self.chance.randrange(5):
                case 0 | 1:
                    edits[name] = f"merged {self.chance.randrange(100)}\n"
                case 2:
                    edits[name] = None
                case 3:
                    edits[name] = ("100755", "program\n")
                case _:
                    edits[name] = None
                    edits[f"{name}/inside"] = "inside\n"
        return edits

    def there_and_back(self, operate: Callable[[], Operation]) -> bool:
        """An operation, its undo, and the undo of that; or, and then False, a refusal that changed nothing."""
        before = picture(self.kit)
        try:
            operate()
        except Refused as refused:
            if refused.code not in {"would-overwrite", "nothing-to-land"}:
                raise
            assert picture(self.kit) == before
            return False
        after = picture(self.kit)
        undo(self.desk.place)
        assert picture(self.kit) == before
        undo(self.desk.place)
        assert picture(self.kit) == after
        return True

    def step(self) -> None:
        for _ in range(self.chance.randrange(4)):
            self.soil()
        match self.chance.randrange(5):
            case 0 | 1:
                self.there_and_back(lambda: self.desk.land([self.desk.job(self.edits())]))
            case 2:
                self.there_and_back(lambda: self.desk.land([self.desk.job(self.edits())], no_commit=True))
            case 3:
                self.kit.commit("the boss commits")
                self.workflow, self.recorded = self.desk.workflow(), picture(self.kit)
            case _:
                if self.there_and_back(lambda: rollback(self.desk.place, self.workflow)):
                    assert without_ignored(self.kit, picture(self.kit)) == without_ignored(self.kit, self.recorded)


@pytest.mark.parametrize("seed", range(3))
def test_s26_a_walk_always_leads_back(repo: RepoKit, seed: int) -> None:
    walk = Walk(repo, random.Random(f"{os.environ.get('WT_TEST_SEED', '1')}-{seed}"))
    for _ in range(8):
        walk.step()
    assert recover(walk.desk.place) == []
    assert {path.suffix for path in walk.desk.place.state.operations.iterdir()} <= {".json"}


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(200))
def test_s26_many_walks_lead_back(repo: RepoKit, seed: int) -> None:
    walk = Walk(repo, random.Random(f"many-{seed}"))
    for _ in range(15):
        walk.step()
    assert recover(walk.desk.place) == []
