"""Waiting for jobs by record, not by pipe; it costs no measurable CPU and survives whatever happens to supervisors."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from worktrees.jobs import leases, records
from worktrees.jobs.liveness import is_abandoned
from worktrees.jobs.reconciliation import reconcile
from worktrees.jobs.watching import Watch
from worktrees.store import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from worktrees.isolation import Place
    from worktrees.model import Job, JobId

# How often a waiter does what nobody may be left to do: start queued jobs, end leases of open ones.
_LOOK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Waited:
    """What a wait saw: for `any` the earliest finished job not acknowledged before, for `all` every finished one."""

    completed: list[Job]
    pending: list[Job]
    timed_out: bool


def wait(
    place: Place,
    jobs: Sequence[JobId],
    *,
    mode: Literal["all", "any"] = "all",
    timeout_seconds: float | None = None,
    acknowledge: bool = True,
) -> Waited:
    """Blocks until all or any are done; a time-out answers `timed_out` and cancels nothing.

    `any` returns at once, with nothing completed, when every job is done and acknowledged. `acknowledge` marks what
    `any` returned, so that no other wait returns it. Raises: Usage for a time-out that is not positive; NotFound.
    """
    leases.check_positive("a time-out", timeout_seconds)
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    directories = {job: place.state.find_job_dir(job) for job in dict.fromkeys(jobs)}
    # Before the first look, so that nothing falls between look and sleep.
    with Watch(list(directories.values())) as watch:
        looked = -_LOOK_SECONDS
        tried: set[JobId] = set()  # an attempt to settle one may fail, and wakes us itself
        while True:
            lost = _lost(directories)
            if time.monotonic() - looked >= _LOOK_SECONDS or lost - tried:
                reconcile(place)
                looked, tried = time.monotonic(), lost
            done, pending = _sorted_out(directories)
            timed_out = deadline is not None and time.monotonic() >= deadline
            if mode == "all":
                if not pending or timed_out:
                    return _answer(place, done, pending, timed_out=bool(pending))
            else:
                first = _first_unacknowledged(done, directories, acknowledge=acknowledge)
                if first or not pending or timed_out:
                    return _answer(place, first, pending, timed_out=not first and bool(pending))
            remaining = _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, deadline - time.monotonic())
            watch.wait(max(remaining, 0.0))


def _lost(directories: dict[JobId, Path]) -> set[JobId]:
    """Jobs that nobody is at work on any more."""
    found = set()
    for job, directory in directories.items():
        record = read_json(directory / "job.json")
        if record is not None and record["state"] == "starting" and is_abandoned(os.fspath(directory)):
            found.add(job)
    return found


def _sorted_out(directories: dict[JobId, Path]) -> tuple[list[JobId], list[JobId]]:
    """Jobs that are done, the earliest finished first, and those that are not."""
    done: list[tuple[str, JobId]] = []
    pending: list[JobId] = []
    for job, directory in directories.items():
        record = read_json(directory / "job.json")
        if record is not None and record["state"] == "done":
            done.append((record["finishedAt"] or "", job))
        elif record is not None:
            pending.append(job)
    return [job for _, job in sorted(done)], pending


def _first_unacknowledged(done: list[JobId], directories: dict[JobId, Path], *, acknowledge: bool) -> list[JobId]:
    for job in done:
        path = directories[job] / "acknowledged"
        if not acknowledge:
            if not path.exists():
                return [job]
            continue
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            continue  # returned before, or to another waiter just now
        return [job]
    return []


def _answer(place: Place, done: list[JobId], pending: list[JobId], *, timed_out: bool) -> Waited:
    return Waited(
        completed=[records.load(place.state, job) for job in done],
        pending=[records.load(place.state, job) for job in pending],
        timed_out=timed_out,
    )
