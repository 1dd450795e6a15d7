"""Leases: how long a job may go on.

`lease.json` is written under the workflow lock. The deadline counts on the clock since boot, suspend included, which
nobody can set; the wall-clock time beside it is for people, and for judging after a reboot. The supervisor of a running
job enforces it; that of an open job is enforced by whoever looks next (`reconcile`).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from worktrees.errors import Refused, Usage
from worktrees.jobs import records
from worktrees.store import boot_id, now, seconds_of, timestamp, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from worktrees.isolation import Place
    from worktrees.model import Job, JobId


def since_boot() -> float:
    """Seconds since boot, suspend included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def grant(directory: Path, ttl_seconds: float | None) -> None:
    """Starts a job's lease now; nothing is written where there is no end."""
    if ttl_seconds is None:
        return
    write_json(
        directory / "lease.json",
        {
            "ttlSeconds": ttl_seconds,
            "expiresAt": timestamp(time.time() + ttl_seconds),
            "deadlineBoottime": since_boot() + ttl_seconds,
            "bootId": boot_id(),
        },
    )


def is_over(directory: str | Path) -> bool:
    """Whether a job's lease has run out."""
    lease = records.witness(directory, "lease.json")
    if lease is None:
        return False
    if lease["bootId"] == boot_id():
        return bool(since_boot() >= lease["deadlineBoottime"])
    return seconds_of(lease["expiresAt"]) <= seconds_of(now())


def check_positive(name: str, seconds: float | None) -> None:
    """Raises: Usage for a duration that is not longer than nothing."""
    if seconds is not None and not seconds > 0:
        raise Usage(f"{name} must be longer than nothing, not {seconds:g} s", hint="write it like 90s, 30m or 1h30m")


def extend_lease(place: Place, job: JobId, ttl_seconds: float) -> Job:
    """Lets a job go on for `ttl_seconds` from now; a queued one from its start.

    Raises: Usage; Refused `job-done` when it is too late.
    """
    from worktrees.runner import LocalRunner

    check_positive("a lease", ttl_seconds)
    state = place.state
    directory = state.find_job_dir(job)
    with state.lock(f"workflow-{directory.parent.parent.name}", purpose=f"extend the lease of {job}"):
        stored = records.as_stored(directory)
        ended = stored is None or stored.state == "done" or os.path.exists(directory / "exit.json")
        if stored is None or ended:
            raise Refused(f"`{job}` is over, there is nothing to extend", code="job-done", hint=f"wt result {job}")
        records.write(directory, records.changed(stored, ttl_seconds=ttl_seconds), durable=True)
        if stored.state != "queued":
            grant(directory, ttl_seconds)
    if stored.state == "starting":
        LocalRunner().lease_changed(directory)
    return records.load(state, job)
