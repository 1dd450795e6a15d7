"""Keeps a worker's ignored files, within a limit, when its workspace goes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from worktrees.changes.desk import desk
from worktrees.changes.scan import measure
from worktrees.model import IgnoredFile, Oid, path_base64, path_bytes, path_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from worktrees.git import ObjectStore
    from worktrees.model import JobId

# Wins over every `.gitattributes`: what is kept comes back byte for byte.
_AS_IT_IS = b"* -text -filter -ident -working-tree-encoding\n"


def keep_ignored(
    store: ObjectStore, workspace: Path, ignored: Sequence[IgnoredFile], *, ref: str, job: JobId, limit_bytes: int
) -> list[IgnoredFile]:
    """Copies ignored files into a commit `<ref>-ignored` of the store, in order while `limit_bytes` last; durable.

    Returns the same list, those that were kept marked so, and unmarked what git cannot hold of them: the `.git` of a
    repository inside, special files, what cannot be read, names that pass for `.git`. Of a directory beyond the limit
    nothing is kept. Modes are git's: of a mode only the x survives. What was kept before stays as the parent.
    """
    kept: list[IgnoredFile] = []
    paths: list[bytes] = []
    lost: list[bytes] = []
    left = limit_bytes
    for item in ignored:
        path = path_bytes(item.path, item.path_base64)
        files, left_out = _files(os.fsencode(workspace), path.rstrip(b"/")) if item.size_bytes <= left else ([], [])
        if files:
            left -= item.size_bytes
            paths += files
            lost += left_out
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
            held = set(own.git("ls-files", "-z").records)  # some names it passes over with status 0
            tree = Oid(own.git("write-tree").text)
        lost += [path for path in paths if path not in held]
        before = store.ref(f"{ref}-ignored")
        commit = store.commit(tree, [before] if before else [], f"wt ignored files of {job}\n")
        store.adopt(commit, None)
        store.make_durable()
        store.set_ref(f"{ref}-ignored", commit, durable=True)
    return kept + [_not_kept(workspace, path) for path in lost]


def _not_kept(workspace: Path, path: bytes) -> IgnoredFile:
    root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        size = measure(root, os.fsdecode(path))
    finally:
        os.close(root)
    return IgnoredFile(path=path_text(path), path_base64=path_base64(path), size_bytes=size[1] if size else 0)


def _files(workspace: bytes, path: bytes) -> tuple[list[bytes], list[bytes]]:
    """Readable files and symlinks at or below a path, and what else is there."""
    files: list[bytes] = []
    others: list[bytes] = []
    waiting = [path]
    while waiting:
        place = waiting.pop()
        full = os.path.join(workspace, place)
        try:
            mode = os.lstat(full).st_mode
            if place.endswith(b"/.git"):
                others.append(place)
            elif stat.S_ISDIR(mode):
                waiting += [place + b"/" + name for name in os.listdir(full)]
            elif stat.S_ISLNK(mode) or (stat.S_ISREG(mode) and os.access(full, os.R_OK)):
                files.append(place)
            else:
                others.append(place)
        except FileNotFoundError:
            continue
        except OSError:
            others.append(place)
    return files, others
