"""The only door to git.

Owns every git process and every use of pygit2. `door` runs git with a scrubbed environment and neutralised
configuration; `repository` knows the boss's repository; `objects` reads objects and compares trees (pygit2 where it
can open the repository, git itself where it cannot, with the same answers); `odb` is wt's own object store, where
snapshots and candidate merges live.

Invariants: git is never run with discovery in a worker's tree; whatever git says is read from exit status and
NUL-separated formats, never from message text; every ref move names the value it expects; paths are bytes.

git itself does merges, filters, refs, index and checkout, because libgit2's merge differs from git's; pygit2 only
reads.

`objects` and `odb` are imported on first use (PEP 562): `wt list` does without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from worktrees.git.door import Completed, Process, distrust, inherited, run, temporary_place, version
from worktrees.git.durability import sync_filesystem
from worktrees.git.repository import Head, LinkedWorktree, Repo, discover

if TYPE_CHECKING:
    from worktrees.git.objects import Commit, TreeEntry, read_blob, read_commit, reader, tree_changes
    from worktrees.git.odb import ObjectStore

_PLACES = {
    "objects": ("Commit", "TreeEntry", "read_blob", "read_commit", "reader", "tree_changes"),
    "odb": ("ObjectStore",),
}

__all__ = [
    "Commit",
    "Completed",
    "Head",
    "LinkedWorktree",
    "ObjectStore",
    "Process",
    "Repo",
    "TreeEntry",
    "discover",
    "distrust",
    "inherited",
    "read_blob",
    "read_commit",
    "reader",
    "run",
    "sync_filesystem",
    "temporary_place",
    "tree_changes",
    "version",
]


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"worktrees.git.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
