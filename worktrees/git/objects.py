"""Reads objects and compares trees.

pygit2 answers in microseconds where libgit2 can open the repository; git itself answers where it cannot (partial
clone, sha256, reftable). `reader` chooses; both give the same answers, which a test checks on every kind of
repository. Cost: pygit2 takes about 50 ms to import, so one-shot callers who read a handful of objects ask for
`native=False`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from worktrees.errors import NotFound
from worktrees.git import door
from worktrees.model import Oid, RepoPath

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TREE_MODE = "040000"
SUBMODULE_MODE = "160000"


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit points at."""

    oid: Oid
    tree: Oid
    parents: tuple[Oid, ...]
    message: str


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A path of a tree: six-digit octal mode and object id."""

    mode: str
    oid: Oid


class Reader(Protocol):
    """Reads from one object database; use as a context manager."""

    def commit(self, oid: Oid) -> Commit:
        """A commit. Raises: NotFound, GitFailed."""

    def blob(self, oid: Oid) -> bytes:
        """A blob's whole content."""

    def tree(self, oid: Oid) -> dict[bytes, TreeEntry]:
        """The direct entries of a tree by name."""

    def close(self) -> None:
        """Ends the reader."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class _Native:
    """libgit2 by pygit2."""

    def __init__(self, git_dir: Path | str) -> None:
        import pygit2
        from pygit2.enums import RepositoryOpenFlag

        self._repository = pygit2.Repository(os.fspath(git_dir), RepositoryOpenFlag.NO_SEARCH)
        # libgit2 opens a partial clone that has no `extensions.partialClone`, and then misses what git would fetch.
        if any(entry.name.endswith(".promisor") for entry in self._repository.config):
            raise pygit2.GitError("a partial clone")

    def _object(self, oid: Oid, kind: str) -> object:
        found = self._repository.get(oid)
        if found is None:
            raise NotFound(f"no object `{oid}`")
        if found.type_str != kind:
            raise NotFound(f"object `{oid}` is a {found.type_str}, not a {kind}")
        return found

    def commit(self, oid: Oid) -> Commit:
        found = self._object(oid, "commit")
        message = found.raw_message.decode("utf-8", "replace")  # type: ignore[attr-defined]
        parents = tuple(Oid(str(parent)) for parent in found.parent_ids)  # type: ignore[attr-defined]
        return Commit(oid, Oid(str(found.tree_id)), parents, message)  # type: ignore[attr-defined]

    def blob(self, oid: Oid) -> bytes:
        return bytes(self._object(oid, "blob").data)  # type: ignore[attr-defined]

    def tree(self, oid: Oid) -> dict[bytes, TreeEntry]:
        found = self._object(oid, "tree")
        return {
            entry.raw_name: TreeEntry(f"{entry.filemode:06o}", Oid(str(entry.id)))
            for entry in found  # type: ignore[attr-defined]
        }

    def close(self) -> None:
        self._repository.free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Plain:
    """git by one `cat-file --batch` process, started when the first object is asked for."""

    def __init__(self, git_dir: Path | str) -> None:
        self._git_dir = git_dir
        self._process: door.Process | None = None

    def _object(self, oid: Oid, kind: str) -> bytes:
        if self._process is None:
            self._process = door.Process("cat-file", "--batch", git_dir=self._git_dir)
        self._process.write(oid.encode() + b"\n")
        fields = self._process.read_until(b"\n").split(b" ")
        if len(fields) != 3:
            raise NotFound(f"no object `{oid}`")
        content = self._process.read(int(fields[2]) + 1)[:-1]
        if fields[1].decode() != kind:
            raise NotFound(f"object `{oid}` is a {fields[1].decode()}, not a {kind}")
        return content

    def commit(self, oid: Oid) -> Commit:
        head, _, message = self._object(oid, "commit").partition(b"\n\n")
        tree, parents = "", []
        for line in head.split(b"\n"):
            name, _, value = line.partition(b" ")
            if name == b"tree":
                tree = value.decode()
            elif name == b"parent":
                parents.append(Oid(value.decode()))
            else:
                break
        return Commit(oid, Oid(tree), tuple(parents), message.decode("utf-8", "replace"))

    def blob(self, oid: Oid) -> bytes:
        return self._object(oid, "blob")

    def tree(self, oid: Oid) -> dict[bytes, TreeEntry]:
        content = self._object(oid, "tree")
        size = len(oid) // 2
        entries = {}
        position = 0
        while position < len(content):
            space = content.index(b" ", position)
            end = content.index(b"\0", space)
            mode = content[position:space].decode().zfill(6)
            entries[content[space + 1 : end]] = TreeEntry(mode, Oid(content[end + 1 : end + 1 + size].hex()))
            position = end + 1 + size
        return entries

    def close(self) -> None:
        if self._process is not None:
            self._process.__exit__(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reader(git_dir: Path | str, *, native: bool = True) -> Reader:
    """A reader of a repository's objects, alternates included.

    `native=False` never loads pygit2. A repository libgit2 cannot open is read through git.
    """
    if native:
        import pygit2

        try:
            return _Native(git_dir)
        except pygit2.GitError:
            pass  # an extension libgit2 does not know
    return _Plain(git_dir)


def read_commit(git_dir: Path | str, oid: Oid) -> Commit:
    """One commit, without pygit2."""
    with reader(git_dir, native=False) as objects:
        return objects.commit(oid)


def read_blob(git_dir: Path | str, oid: Oid) -> bytes:
    """One blob, without pygit2."""
    with reader(git_dir, native=False) as objects:
        return objects.blob(oid)


def tree_changes(
    objects: Reader, old: Oid | None, new: Oid | None, prefix: bytes = b""
) -> Iterator[tuple[RepoPath, TreeEntry | None, TreeEntry | None]]:
    """Paths that differ between two trees with their entries before and after; no rename detection.

    Cost: reads only subtrees that differ.
    """
    if old == new:
        return
    before = objects.tree(old) if old is not None else {}
    after = objects.tree(new) if new is not None else {}
    for name in sorted(before.keys() | after.keys()):
        left, right = before.get(name), after.get(name)
        if left == right:
            continue
        path = prefix + name
        left_tree = left.oid if left is not None and left.mode == TREE_MODE else None
        right_tree = right.oid if right is not None and right.mode == TREE_MODE else None
        left_file = left if left_tree is None else None
        right_file = right if right_tree is None else None
        if left_file is not None or right_file is not None:
            yield RepoPath(path), left_file, right_file
        if left_tree is not None or right_tree is not None:
            yield from tree_changes(objects, left_tree, right_tree, path + b"/")
