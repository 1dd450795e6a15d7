"""Landing, rollback, undo: wholly before or wholly after, and nothing of the user's lost."""

from pathlib import Path

import pytest

from tests.kit import RepoKit
from tests.merging import Desk, tree_files
from worktrees.landing import checkpoint, find_target, land, landed, operations, recover, rollback, undo


@pytest.fixture
def desk(repo: RepoKit) -> Desk:
    return Desk(repo)


def test_land_moves_branch_index_and_files(desk: Desk) -> None:
    kit = desk.kit
    kit.write("notes.txt", "untracked\n")
    job = desk.job({"src/new.py": "new\n", "README.md": "changed\n", "docs/guide.md": None}, name="one")
    before = kit.head()
    operation = desk.land([job])
    assert operation.state == "done"
    assert kit.head() == operation.after
    assert kit.text("status", "--porcelain") == "?? notes.txt"
    assert kit.read("src/new.py") == b"new\n"
    assert not (kit.path / "docs").exists()
    assert kit.text("reflog", "-1", "--format=%gs") == "wt merge: one"
    assert kit.text("rev-parse", "main@{1}") == before
    assert not (kit.path / ".git/index.lock").exists()
    assert [each.name for each in desk.place.state.operations.iterdir()] == ["000001.json"]


def test_undo_and_redo(desk: Desk) -> None:
    kit = desk.kit
    job = desk.job({"src/new.py": "new\n", "README.md": "changed\n", "docs/guide.md": None}, name="one")
    before, files = kit.head(), tree_files(kit.path)
    first = desk.land([job])
    after_files = tree_files(kit.path)
    assert landed(operations(desk.place.state)) == {job.job_id: first.operation_id}
    back = undo(desk.place)
    assert (kit.head(), tree_files(kit.path), kit.text("status", "--porcelain")) == (before, files, "")
    assert back.undoes == first.operation_id
    assert landed(operations(desk.place.state)) == {}
    undo(desk.place)
    assert (kit.head(), tree_files(kit.path), kit.text("status", "--porcelain")) == (first.after, after_files, "")
    assert landed(operations(desk.place.state)) == {job.job_id: first.operation_id}
