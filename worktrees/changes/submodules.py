"""Where a submodule of the baseline stands now, by plain file reads.

A submodule's git directory may be a worker's, so git is not run in it: HEAD is read as a file, and whether the files
are those of that commit is asked at a desk that only borrows its objects.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from worktrees.changes.desk import Desk, desk
from worktrees.changes.plain import git_dir_of, head_commit, read
from worktrees.changes.scan import measure

if TYPE_CHECKING:
    from pathlib import Path

    from worktrees.changes.scan import Notes


def measured(place: Path) -> list[int] | None:
    """Number, bytes and newest change of a submodule's files, its repository aside."""
    root = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return measure(root, ".", without=".git")
    finally:
        os.close(root)


def commit_now(
    own: Desk, modules: Path, workspace: Path, path: str, oid: str, size: list[int] | None, notes: Notes
) -> str:
    """The commit a checked-out submodule stands on; notes whether it moved, and whether all of it could be told.

    `modules` is where the user's repository keeps its submodules.
    """
    place = workspace / path
    git_dir = git_dir_of(place)
    common = git_dir
    if git_dir is not None and (shared := read(git_dir / "commondir")):
        common = git_dir / os.fsdecode(shared.rstrip(b"\n"))
    now = head_commit(git_dir, common) if git_dir is not None else None
    if now is None or git_dir is None or common is None or len(now) != len(oid):
        notes.add(
            "submodule-edited", path, "where the submodule {} stands cannot be told; its old commit stands for it"
        )
        return oid
    if now != oid:
        notes.add("submodule-moved", path, f"the submodule {{}} stands on {now[:10]}, not on {oid[:10]}")
        if not _is_kept(own, modules, path, now):
            notes.add("submodule-edited", path, f"the commit {now[:10]} of the submodule {{}} is only in the workspace")
    if measured(place) != size and not _is_clean(own, place, common / "objects", now):
        notes.add("submodule-edited", path, "the submodule {} has edits of its own, which are not captured")
    return now


def _is_kept(own: Desk, modules: Path, path: str, oid: str) -> bool:
    """Whether the user's own copy of the submodule has a commit."""
    objects = modules / path / "objects"
    if not objects.is_dir():
        return False
    with desk(own.path, own.object_format, objects, own.path) as other:
        return other.git("cat-file", "-e", f"{oid}^{{commit}}", expect=None).status == 0


def _is_clean(own: Desk, place: Path, objects: Path, oid: str) -> bool:
    """Whether a submodule's files are those of a commit, its ignored files aside."""
    with desk(own.path, own.object_format, objects, place, config=own.config) as other:
        if other.git("read-tree", oid, expect=None).status != 0:
            return False
        done = other.git(
            "ls-files", "--modified", "--deleted", "--others", "--exclude-per-directory=.gitignore", "-z", expect=None
        )
        return done.status == 0 and not done.stdout
