"""Job records as values: finding jobs by word, changing fields under the workflow lock.

What lies on disk and how a state is derived from it is `ledger`'s; readers take no lock.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from worktrees.errors import NotFound, StateBroken
from worktrees.jobs import ledger
from worktrees.jobs.ledger import derived, slot, witness
from worktrees.store import write_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from worktrees.jobs.ledger import Row
    from worktrees.model import Job, JobId, WorkflowName
    from worktrees.store import State

__all__ = [
    "as_stored", "changed", "decided", "derived", "is_closed", "load", "load_all", "resolve", "rows", "slot", "stored",
    "update", "witness", "write",
]  # fmt: skip


# ---------------------------------------------------------------------------------------------------- reading
def rows(
    state: State, workflow: WorkflowName | None = None, *, closed: bool = False, damaged: list[str] | None = None
) -> list[Row]:
    """Jobs as the contract's JSON, oldest first; see `ledger.rows`."""
    return ledger.rows(os.fspath(state.workflows), workflow, closed=closed, damaged=damaged)


def stored(state: State, workflow: str, damaged: list[str] | None = None) -> list[tuple[Row, str]]:
    """Records of a workflow's jobs as they are on disk, with their directories; see `ledger.stored`."""
    return ledger.stored(os.fspath(state.workflows), workflow, damaged)


def is_closed(state: State, workflow: str) -> bool:
    """Whether a workflow is closed, or never came to be."""
    return ledger.is_closed(os.fspath(state.workflows), workflow)


def load(state: State, job: JobId) -> Job:
    """One job, its state derived. Raises: NotFound, StateBroken."""
    directory = state.find_job_dir(job)
    record = ledger.read(directory)
    if record is None:
        raise NotFound(f"no job `{job}`", hint="wt list --all")
    if not ledger.is_record(record, os.fspath(directory)):
        raise _damaged(str(job))
    row = derived(record, os.fspath(directory))
    if row["state"] == "queued":
        workflow = str(row["workflowId"])
        others = [derived(other, place) for other, place in stored(state, workflow) if other["jobId"] != job]
        ledger.explain_queue([row, *others], os.fspath(state.workflows), workflow)
    return _job(row)


def load_all(
    state: State, workflow: WorkflowName | None = None, *, closed: bool = False, damaged: list[str] | None = None
) -> list[Job]:
    """Jobs, oldest first, without those whose records cannot be understood, which are named in `damaged`."""
    found = []
    for row in rows(state, workflow, closed=closed, damaged=damaged):
        try:
            found.append(_job(row))
        except StateBroken:
            if damaged is not None:
                damaged.append(os.fspath(state.job_dir(row["workflowId"], row["jobId"]) / "job.json"))
    return found


def _job(row: Row) -> Job:
    from worktrees.model import Job

    try:
        return Job.model_validate(row)
    except ValueError as error:  # pydantic's own is one
        raise _damaged(row.get("jobId")) from error


def _damaged(job: object) -> StateBroken:
    return StateBroken(f"the record of `{job}` cannot be understood", hint="wt doctor")


# ---------------------------------------------------------------------------------------------------- finding
def resolve(state: State, words: Iterable[str], workflow: WorkflowName | None = None) -> list[Job]:
    """Jobs by id, name or unique prefix of either, in the order of the words, each once.

    A whole id or name goes before a prefix, a job of an open workflow before one of a closed one, and one that was not
    dropped before one that was. Raises: NotFound `not-found`, `ambiguous`.
    """
    damaged: list[str] = []
    everybody = rows(state, workflow, closed=True, damaged=damaged)
    is_open = {name: not is_closed(state, name) for name in {str(row["workflowId"]) for row in everybody}}
    chosen: dict[str, Row] = {}
    for word in words:
        try:
            row = _find(everybody, word, is_open)
        except NotFound:
            for path in damaged:
                if path.endswith(f"/{word}/job.json"):
                    raise _damaged(word) from None
            raise
        chosen.setdefault(str(row["jobId"]), row)
    return [_job(row) for row in chosen.values()]


def _find(everybody: list[Row], word: str, is_open: dict[str, bool]) -> Row:
    fitting = [row for row in everybody if word in (row["jobId"], row["name"])]
    if not fitting and word:
        fitting = [row for row in everybody if row["jobId"].startswith(word) or (row["name"] or "").startswith(word)]
    if not fitting:
        raise NotFound(f"no job `{word}`", hint="wt list --all", details={"word": word})
    fitting = [row for row in fitting if is_open[row["workflowId"]]] or fitting
    fitting = [row for row in fitting if row["droppedBy"] is None] or fitting
    if len(fitting) > 1:
        names = [f"{row['jobId']}" + (f" ({row['name']})" if row["name"] else "") for row in fitting]
        raise NotFound(
            f"`{word}` fits {len(fitting)} jobs: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}",
            code="ambiguous",
            hint="write more of the name, or the whole id: wt list --all",
            details={"word": word, "jobs": [row["jobId"] for row in fitting]},
        )
    return fitting[0]


# ---------------------------------------------------------------------------------------------------- changing
def write(directory: Path, job: Job, *, durable: bool = False) -> None:
    """Writes a job's record; the caller holds the workflow lock."""
    write_json(directory / "job.json", job.dump(), durable=durable)


def as_stored(directory: Path) -> Job | None:
    """A job as it was decided, nothing derived."""
    record = ledger.read(directory)
    return _job(record) if record is not None else None


def decided(directory: Path) -> Job:
    """`as_stored` of a job that must be there. Raises: NotFound."""
    job = as_stored(directory)
    if job is None:
        raise NotFound(f"no job `{directory.name}`", hint="wt list --all")
    return job


def changed(job: Job, **changes: Any) -> Job:
    """A job with some fields replaced, checked."""
    return type(job).model_validate({**job.model_dump(), **changes})


def update(state: State, job: JobId, **changes: Any) -> Job:
    """Changes fields of a job's record under its workflow's lock; names as in `model.Job`. For doors and landings."""
    directory = state.find_job_dir(job)
    workflow = directory.parent.parent.name
    with state.lock(f"workflow-{workflow}", purpose=f"change the record of {job}"):
        write(directory, changed(decided(directory), **changes), durable=True)
    return load(state, job)
