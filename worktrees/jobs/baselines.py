"""Where a job starts: a commit, and what becomes of the boss's uncommitted edits.

The boss's checkout, index and stash are only read. Edits that are carried over become a commit in wt's own store,
made through a copy of the index; the worker then sees them as the boss does, as uncommitted edits.

A repository inside the checkout, such as somebody's worktree below it, is no edit: it is neither counted nor carried.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worktrees.errors import Refused, Usage
from worktrees.model import Baseline, DirtyPolicy, Oid
from worktrees.store import new_id

if TYPE_CHECKING:
    from worktrees.git import Repo
    from worktrees.isolation import Place


@dataclass(frozen=True, slots=True)
class Edits:
    """Paths of uncommitted edits: `tracked` differ from HEAD or the index, `unstaged` from the index alone.

    A path that was taken out of the index and whose file is still there is tracked and untracked at once.
    """

    tracked: set[bytes] = field(default_factory=set)
    unstaged: set[bytes] = field(default_factory=set)
    untracked: set[bytes] = field(default_factory=set)

    @property
    def all(self) -> set[bytes]:
        """Every path that is dirty."""
        return self.tracked | self.untracked


def baseline(place: Place, revision: str | None, policy: DirtyPolicy) -> Baseline:
    """The baseline for a start at `revision` (None: HEAD) under a policy.

    `ignore` leaves uncommitted edits out, `tracked` carries those of tracked files over, `all` also untracked files;
    `fail` refuses a dirty checkout. Costs one `git status`; carrying over costs hashing what is carried.

    Raises: Refused `unborn-branch`, `operation-in-progress`, `dirty-worktree`; NotFound for no such revision; Usage.
    """
    repo = place.repo
    head = repo.head()
    under_way = repo.operation_in_progress()
    if under_way:
        raise Refused(
            f"a {under_way[0]} is in progress, so the checkout is no state to start from or to come back to",
            code="operation-in-progress",
            hint=f"finish it, or: {under_way[1]}",
        )
    commit = repo.resolve(revision) if revision is not None else head.commit
    if commit is None:
        raise Refused(
            f"the branch `{head.branch}` has no commit yet, so there is nothing to start from",
            code="unborn-branch",
            hint="git commit --allow-empty -m start",
        )
    edits = uncommitted(repo)
    dirty = len(edits.all)
    if policy == "fail" and dirty:
        raise Refused(
            f"the checkout has {dirty} uncommitted path{'' if dirty == 1 else 's'}",
            code="dirty-worktree",
            hint="commit them, or: wt spawn --dirty ignore",
            details={"dirtyCount": dirty},
        )
    carried = {"tracked": edits.tracked, "all": edits.all}.get(policy, set())
    if carried and commit != head.commit:
        raise Usage(
            f"uncommitted edits belong to HEAD and cannot be carried to `{revision}`",
            hint="leave out --base, or: wt spawn --dirty ignore",
        )
    wanted = edits.unstaged | (edits.untracked if policy == "all" else set())
    return Baseline(
        commit=commit,
        branch=head.branch,
        dirty_policy=policy,
        dirty_count=dirty,
        left_out=len(edits.all - carried),
        snapshot=_snapshot(place, commit, wanted) if carried else None,
    )


def adopted(repo: Repo, revision: str | None) -> tuple[Baseline, int]:
    """The baseline of a worktree that somebody else made, and how many uncommitted paths it has; those are work.

    It is `revision`, which must be behind the worktree's HEAD: what HEAD lacks would count as taken out. None: HEAD.

    Raises: Refused `unborn-branch`, `not-an-ancestor`, `sparse-checkout`; NotFound for no such revision.
    """
    head = repo.head()
    if head.commit is None:
        raise Refused(
            f"the branch `{head.branch}` of the worktree has no commit yet",
            code="unborn-branch",
            hint="git commit --allow-empty -m start",
        )
    commit = head.commit if revision is None else repo.resolve(revision)
    if not repo.is_ancestor(commit, head.commit):
        common = repo.merge_bases(commit, head.commit)
        raise Refused(
            f"`{revision}` holds commits that the worktree does not build on",
            code="not-an-ancestor",
            hint=f"wt setup --base {common[0][:10]}" if common else "wt setup, without --base",
            details={"base": commit, "head": head.commit, "mergeBases": common},
        )
    if commit != head.commit and any(entry[:2] == b"S " for entry in repo.git("ls-files", "-t", "-z").records):
        raise Refused(
            "the worktree is a sparse checkout, so what lies outside of it can be compared with its own HEAD only",
            code="sparse-checkout",
            hint="wt setup, without --base",
        )
    return Baseline(commit=commit, branch=head.branch), len(uncommitted(repo).all)


def uncommitted(repo: Repo) -> Edits:
    """The uncommitted edits of a checkout, ignored files aside; costs one `git status`."""
    edits = Edits()
    words = ("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
    for record in repo.git(*words).records:
        state, path = record[:2], record[3:]
        if state == b"??":
            if not path.endswith(b"/"):  # else a repository inside
                edits.untracked.add(path)
            continue
        edits.tracked.add(path)
        if state[1:] != b" ":
            edits.unstaged.add(path)
    return edits


def _snapshot(place: Place, commit: Oid, paths: set[bytes]) -> Oid:
    """A commit in wt's own store of the index, with the files at `paths` as they are, as `git add` would take them."""
    repo, store = place.repo, place.store
    place.state.prepare()
    store.ensure(repo)
    index = place.state.root / f"{new_id('index')}.tmp"
    # New objects go to our store; the repository's own are read as alternates of it.
    env = {"GIT_OBJECT_DIRECTORY": os.fspath(store.path / "objects")}
    try:
        with contextlib.suppress(FileNotFoundError):
            # With its time: by it git knows which entries it must not trust the clock for.
            shutil.copy2(repo.git_dir / "index", index)
        if paths:
            listed = b"".join(path + b"\0" for path in sorted(paths))
            words = ("update-index", "--add", "--remove", "--replace", "-z", "--stdin")
            repo.git(*words, index=index, env=env, stdin=listed)
        tree = Oid(repo.git("write-tree", index=index, env=env).text)
    finally:
        index.unlink(missing_ok=True)
    made = store.commit(tree, [commit], "wt baseline: the checkout with its uncommitted edits", durable=True)
    # What was staged before stands in the user's objects alone, where nothing holds it.
    store.adopt(made, commit)
    return made
