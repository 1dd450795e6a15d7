"""A job run once more: what was asked of it, kept beside its record for as long as the record.

`again.json` is the specification as it was given, variables of the call (`--env`) included; the text on standard input
stays as `stdin`. The boss's own environment is not kept: a job that runs again gets that of whoever has it run.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from worktrees.jobs import records
from worktrees.store import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from worktrees.model import Job, JobId, JobSpec
    from worktrees.store import State

_RECORD = "again.json"
_ON_RECORD = ("task", "agent", "command", "access", "isolation", "ttl_seconds", "idle_seconds", "timeout_seconds")


def keep(directory: Path, spec: JobSpec) -> None:
    """Writes down what was asked of a job, apart from what is another job's to have: name, request, start.

    One that resumed another has all of its specification; run again, on another start, it begins anew.
    """
    left = {"name", "workflow", "base", "dirty", "stdin", "request_key", "resume"}
    write_json(directory / _RECORD, spec.model_dump(mode="json", exclude=left), durable=True)


def is_rerunnable(job: Job) -> bool:
    """Whether there is anything to run again: an open workspace is the work of whoever stood in it."""
    return job.command is not None


def specification(state: State, job: Job) -> JobSpec:
    """What to submit so that a job runs again, under a name of its own."""
    from worktrees.model import JobSpec

    directory = state.find_job_dir(job.job_id)
    stdin = directory / "stdin"
    wishes: dict[str, Any] = {name: getattr(job, name) for name in _ON_RECORD}  # all there is of jobs made before
    wishes |= read_json(directory / _RECORD) or {}
    if job.agent is None and stdin.exists():
        wishes["stdin"] = os.fspath(stdin)
    return JobSpec(**{**wishes, "name": _name(state, job), "workflow": job.workflow_id})


def _name(state: State, job: Job) -> str | None:
    """`fix-rerun`, `fix-rerun-2`, … : the first that nobody has."""
    if job.name is None:
        return None
    taken = {record["name"] for record, _ in records.stored(state, job.workflow_id)}
    first = f"{job.name[:80].partition('-rerun')[0] or job.name[:80]}-rerun"
    number, name = 1, first
    while name in taken:
        number += 1
        name = f"{first}-{number}"
    return name


def replaced(jobs: list[Job]) -> set[JobId]:
    """Those of the jobs for which another one stands.

    One that runs again, or did so with success; and what ran again for one that has landed as it was after all.
    """
    landed = {job.job_id for job in jobs if job.landed_by}
    first_tries = {
        job.rerun_of
        for job in jobs
        if job.rerun_of and not job.dropped_by and (job.state != "done" or job.result == "succeeded")
    }
    return first_tries | {job.job_id for job in jobs if job.rerun_of in landed and not job.landed_by}
