"""Leases: how long a job may go on.

(skeleton: signatures only)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worktrees.isolation import Place
    from worktrees.model import Job, JobId


def extend_lease(place: Place, job: JobId, ttl_seconds: float) -> Job:
    """Lets a job go on for `ttl_seconds` from now. Raises: Refused `job-done`."""
    raise NotImplementedError
