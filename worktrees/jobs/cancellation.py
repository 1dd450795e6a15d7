"""Ending jobs on request.

(skeleton: signatures only)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worktrees.isolation import Place
    from worktrees.model import Job, JobId


def cancel(place: Place, job: JobId, *, force: bool = False) -> Job:
    """Asks a job to end and returns at once; a queued one is done when this returns. No-op on a done job."""
    raise NotImplementedError
