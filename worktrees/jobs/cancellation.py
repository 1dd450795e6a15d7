"""Ending jobs on request.

A cancel is a record first (`cancel.json`) and a signal second, so that a supervisor that is just starting sees it too.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from worktrees.jobs import admission, records, settlement
from worktrees.jobs.workflow import load_workflow
from worktrees.store import AliveLock, now, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from worktrees.isolation import Place
    from worktrees.model import Job, JobId


def cancel(place: Place, job: JobId, *, force: bool = False) -> Job:
    """Asks a job to end and returns at once; a queued or open one is done when this returns. No-op on a done job.

    `force` kills the whole tree without asking, and marks the work as not to be trusted.
    """
    from worktrees.runner import LocalRunner

    state = place.state
    directory = state.find_job_dir(job)
    stored = records.load(state, job)
    if stored.state == "queued" and _cancel_queued(place, directory):
        admission.admit(place, load_workflow(state, stored.workflow_id))
    elif stored.state == "open":
        return settlement.settle(place, job, ending="cancelled")
    elif stored.state not in ("done", "settling"):
        write_json(directory / "cancel.json", {"force": force, "at": now(), "by": os.getpid()})
        if not LocalRunner().signal(directory, force=force) and not AliveLock(directory / "alive").is_held():
            # Nobody is there to be asked: its supervisor died.
            return settlement.settle(place, job)
    return records.load(state, job)


def _cancel_queued(place: Place, directory: Path) -> bool:
    """Ends a queued job; False when somebody started it meanwhile."""
    with place.state.lock(f"workflow-{directory.parent.parent.name}", purpose=f"cancel {directory.name}"):
        stored = records.as_stored(directory)
        if stored is None or stored.state != "queued":
            return False
        settlement.refuse(place, directory, "cancelled before it started", result="cancelled")
    return True
