"""Keeps a worker's ignored files, within a limit, when its workspace goes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from worktrees.changes.desk import desk
from worktrees.model import Oid, path_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from worktrees.git import ObjectStore
    from worktrees.model import IgnoredFile, JobId

# Wins over every `.gitattributes`: what is kept comes back byte for byte.
_AS_IT_IS = b"* -text -filter -ident -working-tree-encoding\n"


def keep_ignored(
    store: ObjectStore, workspace: Path, ignored: Sequence[IgnoredFile], *, ref: str, job: JobId, limit_bytes: int
) -> list[IgnoredFile]:
    """Copies ignored files into a commit `<ref>-ignored` of the store, in order while `limit_bytes` last; durable.

    Returns the same list, those that were kept marked so. A directory is kept whole or not at all. Repositories inside,
    special files and what cannot be read are left out. Modes are git's: of a mode only the x survives.
    """
    kept: list[IgnoredFile] = []
    paths: list[bytes] = []
    left = limit_bytes
    for item in ignored:
        path = path_bytes(item.path, item.path_base64)
        files = list(_files(os.fsencode(workspace), path.rstrip(b"/"))) if item.size_bytes <= left else []
        if files:
            left -= item.size_bytes
            paths += files
        kept.append(item.model_copy(update={"kept": bool(files)}))
    if paths:
        object_format = store.git("rev-parse", "--show-object-format").text
        with desk(
            store.path.parent, object_format, store.path / "objects", workspace, info_attributes=_AS_IT_IS
        ) as own:
            own.git(
                "update-index",
                "--add",
                "--replace",
                "--remove",
                "-z",
                "--stdin",
                stdin=b"".join(path + b"\0" for path in paths),
            )
            tree = Oid(own.git("write-tree").text)
        commit = store.commit(tree, [], f"wt ignored files of {job}\n")
        store.adopt(commit, None)
        store.make_durable()
        store.set_ref(f"{ref}-ignored", commit, durable=True)
    return kept


def _files(workspace: bytes, path: bytes) -> Iterator[bytes]:
    """Readable files and symlinks at or below a path."""
    waiting = [path]
    while waiting:
        place = waiting.pop()
        full = os.path.join(workspace, place)
        try:
            mode = os.lstat(full).st_mode
            if stat.S_ISDIR(mode):
                names = os.listdir(full)
                if b".git" not in names:
                    waiting += [place + b"/" + name for name in names]
            elif stat.S_ISLNK(mode) or (stat.S_ISREG(mode) and os.access(full, os.R_OK)):
                yield place
        except OSError:
            continue
