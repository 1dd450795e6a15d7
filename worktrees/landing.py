"""The only mover of the boss's refs and files: land, rollback, undo, recover a torn operation.

(skeleton: signatures only)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worktrees.git import ObjectStore, Repo
from worktrees.model import Finding, JobId, MergePlan, Oid, Operation, OperationId, Workflow, WorkflowName
from worktrees.store import State

if TYPE_CHECKING:
    from worktrees.isolation import Place


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

    Raises: Refused `detached-head`, `unborn-branch`, `operation-in-progress`; NotFound for no such branch.
    """
    raise NotImplementedError


def land(
    place: Place,
    plan: MergePlan,
    *,
    target: Target,
    jobs: Sequence[JobId],
    workflow: WorkflowName | None,
    message: str,
    no_commit: bool = False,
) -> Operation:
    """Moves branch, index and files from `plan.before` to `plan.after`; wholly or not at all.

    Raises: Refused `would-overwrite` (details.paths), `branch-moved`, `operation-in-progress`, `dirty-index`; Busy.
    """
    raise NotImplementedError


def rollback(place: Place, workflow: Workflow, to: OperationId | None = None) -> Operation:
    """Branch, index and files back to the workflow's recorded state, or to what they were before operation `to`."""
    raise NotImplementedError


def undo(place: Place, operation: OperationId | None = None) -> Operation:
    """Reverses an operation, the last one by default; an undo can be undone."""
    raise NotImplementedError


def operations(state: State) -> list[Operation]:
    """The operation log, oldest first."""
    raise NotImplementedError


def recover(place: Place) -> list[Finding]:
    """Settles an operation whose process died: wholly before or wholly after. Runs at the start of every mutating verb."""
    raise NotImplementedError


def checkpoint(store: ObjectStore, repo: Repo, message: str, *, ref: str | None = None) -> Oid:
    """A commit in wt's own store of everything in a checkout but ignored files; its second parent holds the index."""
    raise NotImplementedError
