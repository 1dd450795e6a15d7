"""Job records: reading, deriving the state, resolving words, changing fields under the workflow lock.

(skeleton: signatures only)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worktrees.model import Job, JobId, WorkflowName
    from worktrees.store import State


def rows(state: State, workflow: WorkflowName | None = None, *, closed: bool = False) -> list[dict[str, Any]]:
    """Jobs as the contract's JSON, oldest first, without loading pydantic; `closed` also those of closed workflows."""
    raise NotImplementedError


def load(state: State, job: JobId) -> Job:
    """One job, its state derived. Raises: NotFound."""
    raise NotImplementedError


def load_all(state: State, workflow: WorkflowName | None = None, *, closed: bool = False) -> list[Job]:
    """Jobs, oldest first."""
    raise NotImplementedError


def resolve(state: State, words: Iterable[str], workflow: WorkflowName | None = None) -> list[Job]:
    """Jobs by id, name or unique prefix of either, in the order of the words, each once.

    Raises: NotFound `not-found`, `ambiguous`.
    """
    raise NotImplementedError


def update(state: State, job: JobId, **changes: Any) -> Job:
    """Changes fields of a job's record under its workflow's lock; names as in `model.Job`. For doors and landings."""
    raise NotImplementedError
