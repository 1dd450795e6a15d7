"""Files as old as their index: git, whose clock counts seconds, cannot tell an edit of theirs from the checkout. They
are all seen, and not all of them read.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.changing import JOB, Bench
from tests.kit import RepoKit
from worktrees import changes
from worktrees.changes import snapshot

FILES = 40


@pytest.fixture
def opened(repo: RepoKit, tmp_path: Path) -> Callable[[], Bench]:
    for number in range(FILES):
        repo.write(f"many/{number}", f"content {number:04}\n")
    repo.commit("many")
    return Bench(repo, tmp_path / "spaces" / "j-sample22", tmp_path / "records").open


def edit_unseen(path: Path) -> None:
    """Other content of the same size in the same file, its time put back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("clock", ["fine", "coarse"])
@pytest.mark.parametrize("live", [True, False])
def test_an_edit_in_the_second_of_the_checkout_is_seen(
    opened: Callable[[], Bench], clock: str, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if clock == "coarse":
        monkeypatch.setattr(snapshot, "_young", lambda _workspace: None)
    bench = opened()
    edit_unseen(bench.path / "many" / "3")
    assert bench.statuses(live=live) == {"many/3": "M"}
    edit_unseen(bench.path / "many" / "4")
    assert bench.statuses(live=live) == {"many/3": "M", "many/4": "M"}


def test_so_it_is_where_only_some_paths_can_have_changed(opened: Callable[[], Bench]) -> None:
    bench = opened()
    edit_unseen(bench.path / "many" / "3")
    oid, scan = bench.capture(candidates=[b"many/3", b"many/4"])
    found = changes.change_set(bench.store, JOB, bench.baseline.start, oid, scan=scan)
    assert [file.path for file in found.files] == ["many/3"]


def test_an_edit_after_the_capture_is_seen(opened: Callable[[], Bench]) -> None:
    bench = opened()
    assert bench.statuses() == {}
    edit_unseen(bench.path / "many" / "3")
    found = changes.edited_since(bench.store, bench.repo, bench.path, bench.index)
    assert [finding.path for finding in found] == ["many/3"]


def test_what_was_not_touched_is_not_read_again(opened: Callable[[], Bench]) -> None:
    bench = opened()
    files = sorted((bench.path / "many").iterdir())
    before = {file.name: file.stat().st_atime_ns for file in files}
    assert bench.statuses(live=True) == {}
    assert {file.name: file.stat().st_atime_ns for file in files} == before
    files[0].read_bytes()
    if files[0].stat().st_atime_ns == before[files[0].name]:
        pytest.skip("this file system does not note when a file was read")
