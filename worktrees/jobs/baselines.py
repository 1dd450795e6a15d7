"""Where a job starts: a commit, and what becomes of the boss's uncommitted edits.

The boss's checkout, index and stash are only read. Edits that are carried over become a commit in wt's own store,
made through a copy of the index; the worker then sees them as the boss does, as uncommitted edits.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from worktrees.errors import Refused, Usage
from worktrees.model import Baseline, DirtyPolicy, Oid
from worktrees.store import new_id

if TYPE_CHECKING:
    from worktrees.git import Repo
    from worktrees.isolation import Place

_ADD = {"tracked": "--update", "all": "--all"}


def baseline(place: Place, revision: str | None, policy: DirtyPolicy) -> Baseline:
    """The baseline for a start at `revision` (None: HEAD) under a policy.

    `ignore` leaves uncommitted edits out, `tracked` carries those of tracked files over, `all` also untracked files;
    `fail` refuses a dirty checkout. Costs one `git status`; carrying over costs one `git add` on a copy of the index.

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
    tracked, untracked = dirty_counts(repo)
    dirty = tracked + untracked
    if policy == "fail" and dirty:
        raise Refused(
            f"the checkout has {dirty} uncommitted path{'' if dirty == 1 else 's'}",
            code="dirty-worktree",
            hint="commit them, or: wt spawn --dirty ignore",
            details={"dirtyCount": dirty},
        )
    carried = {"tracked": tracked, "all": dirty}.get(policy, 0)
    if carried and commit != head.commit:
        raise Usage(
            f"uncommitted edits belong to HEAD and cannot be carried to `{revision}`",
            hint="leave out --base, or: wt spawn --dirty ignore",
        )
    return Baseline(
        commit=commit,
        branch=head.branch,
        dirty_policy=policy,
        dirty_count=dirty,
        left_out=dirty - carried,
        snapshot=_snapshot(place, commit, _ADD[policy]) if carried else None,
    )


def dirty_counts(repo: Repo) -> tuple[int, int]:
    """How many tracked paths differ from HEAD, and how many paths are untracked and not ignored."""
    status = repo.git("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames").records
    untracked = sum(record.startswith(b"??") for record in status)
    return len(status) - untracked, untracked


def _snapshot(place: Place, commit: Oid, add: str) -> Oid:
    """A commit in wt's own store of the checkout's files, as `git add` would take them."""
    repo, store = place.repo, place.store
    place.state.prepare()
    store.ensure(repo)
    index = place.state.root / f"{new_id('index')}.tmp"
    # New objects go to our store; the repository's own are read as alternates of it.
    env = {"GIT_OBJECT_DIRECTORY": str(store.path / "objects")}
    try:
        shutil.copyfile(repo.git_dir / "index", index)
        repo.git("add", add, "--", ".", index=index, env=env, config=("advice.addEmbeddedRepo=false",))
        tree = Oid(repo.git("write-tree", index=index, env=env).text)
    finally:
        index.unlink(missing_ok=True)
    return store.commit(tree, [commit], "wt baseline: the checkout with its uncommitted edits", durable=True)
