"""Ending a job: audit, scan, capture, record, admit the next. Also the last stage of a supervisor (`-m`).

(skeleton: signatures only)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worktrees.isolation import Place
    from worktrees.model import Job, JobId


def settle(place: Place, job: JobId) -> Job:
    """Brings a job whose worker is dead, or an open job, to `done`; idempotent.

    Raises: Refused `job-running`; whatever capturing raises, and then the job stays as it is for the next try.
    """
    raise NotImplementedError
