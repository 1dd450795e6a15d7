"""Where a landing goes: a branch, where it stands, and the work tree that has it checked out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from worktrees.errors import NotFound, Refused
from worktrees.git import Repo
from worktrees.model import Oid


@dataclass(frozen=True, slots=True)
class Target:
    """A branch to land on: its full ref, where it stands, and the work tree that has it checked out (None: nowhere)."""

    ref: str
    before: Oid
    repo: Repo | None

    @property
    def branch(self) -> str:
        """The short branch name."""
        return self.ref.removeprefix("refs/heads/")


def find_target(repo: Repo, into: str | None = None) -> Target:
    """The branch checked out here, or the named one wherever it is.

    Raises: Refused `detached-head`, `unborn-branch`, `operation-in-progress`, `not-checked-out` where the work tree
    that has it is gone; NotFound for no such branch.
    """
    if into is None:
        head = repo.head()
        if (under_way := repo.operation_in_progress()) is not None:
            name, end = under_way
            raise Refused(f"a {name} is in progress here", code="operation-in-progress", hint=f"finish it, or: {end}")
        if head.ref is None:
            raise Refused(
                "HEAD is detached, so there is no branch to move",
                code="detached-head",
                hint="git switch BRANCH, or: wt merge --into BRANCH",
            )
        if head.commit is None:
            raise Refused(
                f"the branch `{head.branch}` has no commit yet", code="unborn-branch", hint="git commit --allow-empty"
            )
        return Target(head.ref, head.commit, repo)
    ref = into if into.startswith("refs/heads/") else f"refs/heads/{into}"
    # A branch may be another name of one (`git symbolic-ref refs/heads/old refs/heads/new`); that one moves.
    ref = repo.git("symbolic-ref", "--quiet", ref, expect=(0, 1, 128)).text or ref
    before = repo.ref(ref)
    if before is None:
        raise NotFound(f"no branch `{into}`", hint="git branch --list")
    _refuse_held(repo, ref)
    found = repo.worktree_of_branch(ref)
    if found is None:
        return Target(ref, before, None)
    if not found.path.is_dir():
        # It may be on a disk that comes back, and would then hold the files of another commit.
        raise Refused(
            f"`{ref.removeprefix('refs/heads/')}` is checked out in `{found.path}`, which is not there",
            code="not-checked-out",
            hint=f"bring it back, or: git worktree remove --force --force {found.path}",
            details={"worktree": str(found.path)},
        )
    there = repo if repo.work_tree is not None and found.path == repo.work_tree else repo.at(found.path)
    if (under_way := there.operation_in_progress()) is not None:
        raise Refused(
            f"a {under_way[0]} is in progress in `{found.path}`",
            code="operation-in-progress",
            hint=f"finish it, or: {under_way[1]}",
        )
    return Target(ref, before, there)


def _refuse_held(repo: Repo, ref: str) -> None:
    """A branch under rebase or bisect is nobody's HEAD, yet git will write it when that ends."""
    entries = repo.common_dir / "worktrees"
    for place in (repo.common_dir, *(entries.iterdir() if entries.is_dir() else ())):
        for file in ("rebase-merge/head-name", "rebase-apply/head-name", "BISECT_START"):
            with contextlib.suppress(OSError):
                name = (place / file).read_text("utf-8", "surrogateescape").strip()
                if ref in {name, f"refs/heads/{name}"}:
                    raise Refused(
                        f"`{ref.removeprefix('refs/heads/')}` is being rebased or bisected",
                        code="operation-in-progress",
                        hint="finish it first; git worktree list shows where",
                    )


def moved(target: Target, expected: Oid) -> Refused:
    """The branch stands elsewhere than it was expected to."""
    return Refused(
        f"`{target.branch}` moved meanwhile: expected {expected[:10]}, found {target.before[:10]}",
        code="branch-moved",
        hint=f"look at it with `git log {target.branch}`, then: wt log",
        details={"ref": target.ref, "expected": expected, "found": target.before},
    )


def not_checked_out(target: Target, consequence: str) -> Refused:
    """There are no files of this branch."""
    return Refused(
        f"`{target.branch}` is not checked out anywhere, so {consequence}",
        code="not-checked-out",
        hint=f"git switch {target.branch}",
    )
