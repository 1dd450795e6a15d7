"""The whole of a checkout as one commit in wt's own store: files, untracked ones too, and the index beside them.

    state commit       tree: every file that is not ignored; parents: HEAD if there is one, and the index commit
    index commit       tree: the index; parent: HEAD

The user's index is copied, never written. What a state holds and HEAD does not is packed into the store, objects
the user already has included, so that no gc of the user's can take it. Ignored files and repositories inside the
checkout are spared: they are neither recorded nor ever removed.

Cost of a clean checkout: one `git status` and three small processes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worktrees.errors import Refused
from worktrees.git import ObjectStore, Repo, read_commit, temporary_place
from worktrees.landing.checkout import Look, copy_index, look, with_store
from worktrees.model import Oid, RepoPath


@dataclass(frozen=True, slots=True)
class Shape:
    """What a checkout holds, as trees: its files and its index. `holder` is the index commit of a state."""

    files: Oid
    index: Oid
    holder: Oid | None = None

    @property
    def plain(self) -> bool:
        """Whether files and index are the same."""
        return self.files == self.index


@dataclass(frozen=True, slots=True)
class Captured:
    """A checkout written into the store; nothing names it yet."""

    seen: Look
    shape: Shape

    @property
    def head(self) -> Oid | None:
        """The commit HEAD stood on."""
        return self.seen.commit


def capture(store: ObjectStore, repo: Repo, index: Path) -> Captured:
    """Writes all files and the index of a checkout into the store; `index`, a file of ours, then describes the files.

    Raises: Refused `operation-in-progress` for an index with conflicts; GitFailed for a file that cannot be read.
    """
    copy_index(repo, index)
    seen = look(repo, index, untracked=True)
    if seen.unmerged:
        raise Refused(
            "the index holds unresolved conflicts", code="operation-in-progress", hint="git status, and resolve them"
        )
    env = with_store(store)
    if seen.staged or seen.commit is None:
        staged = Oid(repo.git("write-tree", index=index, env=env).text)
    else:
        staged = repo.tree_of(seen.commit)
    # A name that ends in a slash is a repository inside this one.
    touched = sorted(seen.unstaged) + [path for path in seen.untracked if not path.endswith(b"/")]
    files = staged
    if touched:
        listed = b"".join(path + b"\0" for path in touched)
        repo.git("update-index", "--add", "--remove", "--replace", "-z", "--stdin", index=index, stdin=listed, env=env)
        files = Oid(repo.git("write-tree", index=index, env=env).text)
    return Captured(seen, Shape(files, staged))


def name_state(store: ObjectStore, captured: Captured, message: str, *, ref: str | None = None) -> Oid:
    """The state commit of what was captured, durable and safe from the user's gc."""
    shape, parents = captured.shape, [captured.head] if captured.head else []
    index = store.commit(shape.index, parents, f"index of: {message}")
    state = store.commit(shape.files, [*parents, index], message)
    if captured.head is None or not shape.plain or captured.seen.staged or captured.seen.unstaged:
        keep(store, [state], known=parents)
    if ref is not None:
        store.set_ref(ref, state, durable=True)
    else:
        store.make_durable()
    return state


def checkpoint(store: ObjectStore, repo: Repo, message: str, *, ref: str | None = None) -> Oid:
    """A state commit of everything in a checkout but ignored files, named by a ref of the store if one is given.

    Durable when it returns. Raises: Refused `operation-in-progress`; GitFailed for a file that cannot be read.
    """
    store.ensure(repo)
    with tempfile.TemporaryDirectory(prefix="wt-checkpoint-", dir=temporary_place()) as scratch:
        captured = capture(store, repo, Path(scratch, "index"))
    return name_state(store, captured, message, ref=ref)


def shape_of(store: ObjectStore, commit: Oid, state: Oid | None) -> Shape:
    """What a checkout holds at a state, or, without one, at a commit when nothing is dirty."""
    if state is None:
        tree = read_commit(store.path, commit).tree
        return Shape(tree, tree)
    found = read_commit(store.path, state)
    holder = found.parents[-1]
    return Shape(found.tree, read_commit(store.path, holder).tree, holder)


def head_of(store: ObjectStore, state: Oid) -> Oid | None:
    """The commit HEAD stood on at a state."""
    parents = read_commit(store.path, state).parents
    return parents[0] if len(parents) > 1 else None


def keep(store: ObjectStore, wanted: Sequence[Oid], *, known: Sequence[Oid]) -> None:
    """Makes the store hold all that commits lead to and others do not, whatever becomes of the user's objects."""
    asked = "".join([*(f"{oid}\n" for oid in wanted), *(f"^{oid}\n" for oid in known)]).encode()
    base = os.fspath(store.path / "objects" / "pack" / "pack")
    store.git("pack-objects", "--revs", "-q", base, stdin=asked, durable=True)


def ignored_at(repo: Repo, store: ObjectStore, tree: Oid, paths: Sequence[RepoPath]) -> set[RepoPath]:
    """Which of these paths are ignored under the `.gitignore` files of a tree and the user's own excludes."""
    listed = store.git("ls-tree", "-r", "-z", "--full-tree", tree).records
    rules = [record.partition(b"\t") for record in listed if record.endswith((b"/.gitignore", b"\t.gitignore"))]
    with tempfile.TemporaryDirectory(prefix="wt-ignored-", dir=temporary_place()) as scratch:
        for fields, _, path in rules:
            mode, _, oid = fields.decode("ascii").split(" ")
            if mode.startswith("100"):
                target = Path(scratch, os.fsdecode(path))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(store.git("cat-file", "blob", oid).stdout)
        there = Repo(repo.common_dir, repo.git_dir, Path(scratch), repo.object_format, repo.bare)
        # It knows no literal names; with `./` in front none can be taken for anything else.
        done = there.git(
            "check-ignore", "--no-index", "-z", "--stdin",
            index=Path(scratch, ".index"), env={"GIT_LITERAL_PATHSPECS": "0"}, expect=(0, 1),
            stdin=b"".join(b"./" + path + b"\0" for path in paths),
        )  # fmt: skip
        return {RepoPath(path.removeprefix(b"./")) for path in done.records}
