"""Submitting jobs and starting as many as may run.

(skeleton: signatures only)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worktrees.config import Settings
    from worktrees.isolation import Place
    from worktrees.model import Baseline, Job, JobSpec, Workflow


def submit(
    place: Place,
    workflow: Workflow,
    spec: JobSpec,
    settings: Settings,
    env: Mapping[str, str],
    *,
    baseline: Baseline | None = None,
) -> Job:
    """Records a job: `queued` with a command, `open` (workspace made before it returns) without one. Starts nothing.

    `baseline` is the workflow's own unless the job has another base. Raises: Refused `name-taken`.
    """
    raise NotImplementedError


def admit(place: Place, workflow: Workflow) -> list[Job]:
    """Starts queued jobs while slots are free; returns what was started or failed to."""
    raise NotImplementedError
