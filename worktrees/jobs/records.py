"""Job records: reading them, deriving the state, finding jobs by word, changing fields under the workflow lock.

`job.json` says what was decided (`queued`, `starting`, `open`, `done`); the files beside it say what happened since. A
reader derives: `starting` with `worker.json` is `running`, with `exit.json` it is `settling`. Readers take no lock and
never load pydantic for `rows`, which is what `wt list` lives on.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from worktrees.errors import NotFound, StateBroken
from worktrees.store import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from worktrees.model import Job, JobId, WorkflowName
    from worktrees.store import State

Row = dict[str, Any]
# A buffer of more would cost more to make than the record to read.
_RECORD_BYTES = 1 << 14


# ---------------------------------------------------------------------------------------------------- reading
def rows(state: State, workflow: WorkflowName | None = None, *, closed: bool = False) -> list[Row]:
    """Jobs as the contract's JSON, oldest first; `closed` also those of closed workflows.

    Cost: about 10 µs a job.
    """
    found = []
    for name in [workflow] if workflow else state.workflow_names():
        if not closed and workflow is None and is_closed(state, name):
            continue
        mine = [derived(record, directory) for record, directory in stored(state, name)]
        explain_queue(mine, state, name)
        found += mine
    return sorted(found, key=_age)


def stored(state: State, workflow: str) -> list[tuple[Row, str]]:
    """Records of a workflow's jobs as they are on disk, with their directories; unsorted.

    Raises: StateBroken, naming the record that cannot be read.
    """
    jobs = os.path.join(state.workflows, workflow, "jobs")
    try:
        names = os.listdir(jobs)
    except FileNotFoundError:
        return []
    directories, contents = [], []
    for name in names:
        # No record yet: its submitter is at it, or died at it; an empty one is what a power cut makes of that.
        if content := _content(f"{jobs}/{name}/job.json"):
            directories.append(f"{jobs}/{name}")
            contents.append(content)
    try:
        # All at once: parsing each would take half as long again.
        found = json.loads(b"[" + b",".join(contents) + b"]")
    except ValueError:
        found = []
    if len(found) != len(contents):
        found = [read_json(f"{directory}/job.json") for directory in directories]
    return list(zip(found, directories, strict=True))


def _content(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    try:
        content = os.read(fd, _RECORD_BYTES)
        while len(content) % _RECORD_BYTES == 0 and (more := os.read(fd, _RECORD_BYTES)):
            content += more
    finally:
        os.close(fd)
    return content


def _read(directory: str | Path) -> Row | None:
    path = os.path.join(directory, "job.json")
    return read_json(path) if _content(path) else None


def witness(directory: str | Path, name: str) -> Row | None:
    """A record that only matters while this boot lasts; damaged by a power cut it is as good as none."""
    with contextlib.suppress(StateBroken):
        return read_json(os.path.join(directory, name))
    return None


def derived(record: Row, directory: str) -> Row:
    """A record with what the files beside it say."""
    if record["state"] == "done":
        record["acknowledged"] = os.access(f"{directory}/acknowledged", os.F_OK)
    else:
        if record["state"] == "starting":
            _derive_running(record, directory)
        if (lease := witness(directory, "lease.json")) is not None:
            record["leaseExpiresAt"] = lease.get("expiresAt")
            record["ttlSeconds"] = lease.get("ttlSeconds")
    workspace = record.get("workspace")
    record["workspacePresent"] = workspace is not None and os.access(workspace, os.F_OK)
    return record


def _derive_running(record: Row, directory: str) -> None:
    if (worker := witness(directory, "worker.json")) is not None:
        record["state"] = "running"
        record["startedAt"] = worker.get("startedAt")
    if os.path.exists(f"{directory}/exit.json"):
        record["state"] = "settling"
        with contextlib.suppress(OSError), open(f"{directory}/settle-error", encoding="utf-8") as file:
            record["reason"] = file.read()


def explain_queue(mine: list[Row], state: State, workflow: str) -> None:
    """Says of each queued job of a workflow why it waits."""
    queued = sorted((row for row in mine if row["state"] == "queued"), key=_age)
    if not queued:
        return
    limits = read_json(state.workflow_dir(workflow) / "workflow.json") or {}
    for kind, limit in (("read", limits.get("kRead", 0)), ("write", limits.get("kWrite", 0))):
        busy = [row for row in mine if row["state"] in ("starting", "running") and slot(row) == kind]
        waiting = [row for row in queued if slot(row) == kind]
        for place, row in enumerate(waiting):
            if limit and len(busy) >= limit:
                names = ", ".join(str(holder["name"] or holder["jobId"]) for holder in sorted(busy, key=_age)[:3])
                more = f" and {len(busy) - 3} more" if len(busy) > 3 else ""
                row["waiting"] = f"{limit} of {limit} {kind} slots taken by {names}{more}; {place} before it"
            else:
                row["waiting"] = "a slot is free; the next `wt` command starts it"


def slot(row: Row) -> str:
    """The kind of slot a job needs."""
    return "read" if row["access"] == "read-only" else "write"


def _age(row: Row) -> tuple[str, str]:
    return row["createdAt"], row["jobId"]


def is_closed(state: State, workflow: str) -> bool:
    """Whether a workflow is closed, or never came to be."""
    record = read_json(state.workflow_dir(workflow) / "workflow.json")
    return record is None or record.get("closedAt") is not None


def load(state: State, job: JobId) -> Job:
    """One job, its state derived. Raises: NotFound."""
    directory = state.find_job_dir(job)
    record = _read(directory)
    if record is None:
        raise NotFound(f"no job `{job}`", hint="wt list --all")
    row = derived(record, os.fspath(directory))
    if row["state"] == "queued":
        workflow = str(row["workflowId"])
        others = [derived(other, place) for other, place in stored(state, workflow) if other["jobId"] != job]
        explain_queue([row, *others], state, workflow)
    return _job(row)


def load_all(state: State, workflow: WorkflowName | None = None, *, closed: bool = False) -> list[Job]:
    """Jobs, oldest first."""
    return [_job(row) for row in rows(state, workflow, closed=closed)]


def _job(row: Row) -> Job:
    from worktrees.model import Job

    return Job.model_validate(row)


# ---------------------------------------------------------------------------------------------------- finding
def resolve(state: State, words: Iterable[str], workflow: WorkflowName | None = None) -> list[Job]:
    """Jobs by id, name or unique prefix of either, in the order of the words, each once.

    A whole id or name goes before a prefix, a job of an open workflow before one of a closed one, and one that was not
    dropped before one that was. Raises: NotFound `not-found`, `ambiguous`.
    """
    everybody = rows(state, workflow, closed=True)
    is_open = {name: not is_closed(state, name) for name in {str(row["workflowId"]) for row in everybody}}
    chosen: dict[str, Row] = {}
    for word in words:
        row = _find(everybody, word, is_open)
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
    record = _read(directory)
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
