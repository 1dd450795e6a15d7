"""Workflows: the jobs, baseline and board of one orchestration.

(skeleton: signatures only)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worktrees.isolation import Place
    from worktrees.model import Baseline, Oid, Workflow, WorkflowName
    from worktrees.store import State


def open_workflow(
    place: Place, baseline: Baseline, *, name: str | None = None, boss_state: Oid | None = None
) -> Workflow:
    """Opens a workflow at a baseline, pinned and durable; an open one of that name is returned as it is.

    Raises: Usage for a name that is no ref component; Refused `name-taken` when a closed one has it.
    """
    raise NotImplementedError


def workflows(state: State, *, closed: bool = False) -> list[Workflow]:
    """Open workflows, or all, oldest first."""
    raise NotImplementedError


def load_workflow(state: State, name: WorkflowName) -> Workflow:
    """One workflow. Raises: NotFound."""
    raise NotImplementedError


def current_workflow(state: State, name: str | None = None) -> Workflow | None:
    """The named open workflow, or the only open one; None when none is open.

    Raises: NotFound for a name without an open workflow; Refused `ambiguous` when several are open and none is named.
    """
    raise NotImplementedError


def update_workflow(state: State, name: WorkflowName, **changes: Any) -> Workflow:
    """Changes fields of a workflow's record under its lock."""
    raise NotImplementedError


def close_workflow(place: Place, name: WorkflowName, *, only_if_finished: bool = False) -> Workflow:
    """Closes a workflow and lets go of its baseline; `only_if_finished` does nothing unless every job has landed or
    was dropped.

    Raises: Refused `jobs-unfinished` while a job is not done.
    """
    raise NotImplementedError
