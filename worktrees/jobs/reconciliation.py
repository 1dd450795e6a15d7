"""Settles jobs whose supervisor is gone, and whatever else only the next command can do.

A job's `alive` lock is held from before it is `starting` until it is `done`. Where a `starting` job's lock is free,
whoever was at it died:

- before anything could run: back into the queue
- a supervisor (SIGKILL, out of memory, reboot): what it left is killed, the job is `lost`, its work captured
- the settling stage: the exit record is exact, settling goes on

Open jobs whose lease ran out or whose holder is gone end here too, and queued ones start when a slot is free. Whoever
takes the lock does it, the others go on.

A worker never reconciles, and nobody does it for a supervisor of another pid namespace: its processes cannot be seen
from here. `cancel` and `settle` of that very job still work.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from worktrees.errors import WorktreesError
from worktrees.jobs import admission, holders, leases, records, settlement
from worktrees.jobs.liveness import is_abandoned
from worktrees.jobs.workflow import load_workflow
from worktrees.store import AliveLock, read_json

if TYPE_CHECKING:
    from worktrees.isolation import Place
    from worktrees.model import Job, Result, WorkflowName


def reconcile(place: Place) -> list[Job]:
    """Settles what a crash, a reboot or an expired lease left, and starts what may run; returns what it changed.

    Cheap when there is nothing to do. Never raises for one job: what could not be settled stays `settling` with its
    reason, and is in the answer.
    """
    state = place.state
    if os.environ.get("WT_JOB") or not state.exists():
        return []
    touched: list[Job] = []
    for name in state.workflow_names():
        if records.is_closed(state, name):
            continue
        queued = False
        for record, directory in records.stored(state, name):
            queued |= record["state"] == "queued"
            if record["state"] == "open" and leases.is_over(directory):
                touched += _settle(place, Path(directory), ending="expired")
            elif record["state"] == "open" and holders.is_gone(directory):
                touched += _settle(place, Path(directory), ending="succeeded")
            elif record["state"] == "starting" and is_abandoned(directory):
                touched += _settle(place, Path(directory), ending=None)
        if queued or touched:
            touched += _admit(place, name)
    return touched


def _settle(place: Place, directory: Path, *, ending: Result | None) -> list[Job]:
    """One job, if nobody else is at it; [] when there was nothing left to do. `ending` is how an open job ends."""
    lock = AliveLock(directory / "alive").take()
    if lock is None:
        return []
    try:
        # Only now it cannot change under us.
        record = read_json(directory / "job.json")
        if record is None or record["state"] == "done" or (record["state"] == "open" and ending is None):
            return []
        if record["state"] == "starting" and not admission.has_run(directory):
            if record["command"] is None:
                reason = "the command that was opening it was killed"
                admission.take_back(place, records.decided(directory))
                with place.state.lock(f"workflow-{record['workflowId']}", purpose=f"end {directory.name}"):
                    return [settlement.refuse(place, directory, reason)]
            again = admission.requeue(place, directory)
            return [again] if again is not None else []
        return [settlement.settle_held(place, directory, lock, ending=ending or "succeeded")]
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one job must not stop every command
        from worktrees.model import JobId

        with contextlib.suppress(WorktreesError):  # its record is what is wrong, and `doctor` names it
            job = records.load(place.state, JobId(directory.name))
            return [job.model_copy(update={"reason": job.reason or str(error) or type(error).__name__})]
        return []
    finally:
        os.close(lock)


def _admit(place: Place, name: str) -> list[Job]:
    try:
        return admission.admit(place, load_workflow(place.state, _workflow(name)))
    except (WorktreesError, OSError):
        return []  # whoever looks next tries again


def _workflow(name: str) -> WorkflowName:
    from worktrees.model import WorkflowName

    return WorkflowName(name)
