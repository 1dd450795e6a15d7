"""Records of jobs as they lie on disk, for readers that must be quick: `wt list` lives on this file.

`job.json` says what was decided (`queued`, `starting`, `open`, `done`); the files beside it say what happened since. A
reader derives: `starting` with `worker.json` is `running`, with `exit.json` it is `settling`. Readers take no lock.

A finished job hardly ever changes, so what a door says of it is kept ready in `workflows/<wf>/finished.<kind>`: a line
for each job with the inode and change time of its directory. Whatever is written about a job is a file renamed into
that directory or made in it, which changes its time; then the line counts no more and the record is read. The file is
written whole, by whoever has read many records, and may be deleted at any time.

`os` and `json` alone are loaded here; a command that finds nothing wrong never needs more.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, TypeAlias

    Row: TypeAlias = dict[str, Any]
    # Name, inode and change time of a job's directory, its workspace, when it was made, and the caller's texts.
    Line: TypeAlias = list[str]

_NEEDED = {
    "jobId", "name", "workflowId", "command", "access", "state", "result", "workspace", "createdAt", "startedAt",
    "finishedAt", "reason", "waiting", "snapshot", "changedFiles", "landedBy", "droppedBy",
}  # fmt: skip
# A buffer of more would cost more to make than the record to read.
_RECORD_BYTES = 1 << 14
# Below this the file is not worth its keep; above, it is written anew when an eighth of it is missing.
_MANY = 64
# Longer than the grain of any clock that a file system stamps a directory with.
_GRAIN_NS = 2_000_000_000
# What parts lines and their texts.
_NEVER_KEPT = frozenset("\t\n")


# ---------------------------------------------------------------------------------------------------- records
def rows(
    workflows: str, workflow: str | None = None, *, closed: bool = False, damaged: list[str] | None = None
) -> list[Row]:
    """Jobs as the contract's JSON, oldest first; `closed` also those of closed workflows.

    Records that cannot be understood are left out and named in `damaged`. Cost: about 10 µs a job.
    """
    found = []
    damaged = [] if damaged is None else damaged
    for name in [workflow] if workflow else workflow_names(workflows):
        if is_closed(workflows, name, damaged) and not closed and workflow is None:
            continue
        mine = [derived(record, directory) for record, directory in stored(workflows, name, damaged)]
        explain_queue(mine, workflows, name)
        found += mine
    return sorted(found, key=age)


def workflow_names(workflows: str) -> list[str]:
    """Names of all recorded workflows, sorted."""
    try:
        with os.scandir(workflows) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def stored(workflows: str, workflow: str, damaged: list[str] | None = None) -> list[tuple[Row, str]]:
    """Records of a workflow's jobs as they are on disk, with their directories; unsorted.

    Those that cannot be understood are left out and named in `damaged`: one of them must not stop every command.
    """
    jobs = os.path.join(workflows, workflow, "jobs")
    try:
        names = os.listdir(jobs)
    except FileNotFoundError:
        return []
    return _stored([f"{jobs}/{name}" for name in names], [] if damaged is None else damaged)


def _stored(directories: Iterable[str], damaged: list[str]) -> list[tuple[Row, str]]:
    there, contents = [], []
    for directory in directories:
        # No record yet: its submitter is at it, or died at it; an empty one is what a power cut makes of that.
        if content := _content(f"{directory}/job.json"):
            there.append(directory)
            contents.append(content)
    try:
        # All at once: parsing each would take half as long again.
        found = json.loads(b"[" + b",".join(contents) + b"]")
    except ValueError:
        found = []
    if len(found) != len(contents):
        found = [witness(directory, "job.json") for directory in there]
    whole = []
    for record, directory in zip(found, there, strict=True):
        if is_record(record, directory):
            whole.append((record, directory))
        else:
            damaged.append(f"{directory}/job.json")
    return whole


def is_record(record: object, directory: str) -> bool:
    """Whether this is the record of the job whose directory it is, with all that readers here go by."""
    return (
        isinstance(record, dict)
        and record.keys() >= _NEEDED
        and record["jobId"] == os.path.basename(directory)
        and isinstance(record["createdAt"], str)
        and isinstance(record["workspace"], str | None)
    )


def left_out(path: str) -> dict[str, str]:
    """What to say of a record that is in `damaged`."""
    return {"code": "record-damaged", "message": f"`{path}` cannot be understood and is left out; see: wt doctor"}


def _content(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        content = os.read(fd, _RECORD_BYTES)
        while content and len(content) % _RECORD_BYTES == 0 and (more := os.read(fd, _RECORD_BYTES)):
            content += more
    finally:
        os.close(fd)
    return content


def _record(path: str) -> Row | None:
    """`store.read_json`, which is loaded when there is something to complain about."""
    content = _content(path)
    if content is None:
        return None
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value
    from worktrees.store import read_json

    return read_json(path)


def read(directory: str | os.PathLike[str]) -> Row | None:
    """A job's record as it was decided, None when there is none yet."""
    path = os.path.join(directory, "job.json")
    return _record(path) if _content(path) else None


def witness(directory: str | os.PathLike[str], name: str) -> Row | None:
    """A record that only matters while this boot lasts; damaged by a power cut it is as good as none."""
    content = _content(os.path.join(directory, name))
    try:
        value = json.loads(content) if content else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


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
        record["sandbox"] = worker.get("sandbox", "none")
    if os.path.exists(f"{directory}/exit.json"):
        record["state"] = "settling"
        if why := _content(f"{directory}/settle-error"):
            record["reason"] = why.decode()


def explain_queue(mine: Sequence[Row], workflows: str, workflow: str) -> None:
    """Says of each queued job of a workflow why it waits; rows of finished jobs may be left out."""
    queued = sorted((row for row in mine if row["state"] == "queued"), key=age)
    if not queued:
        return
    limits = witness(os.path.join(workflows, workflow), "workflow.json") or {}
    for kind, limit in (("read", limits.get("kRead", 0)), ("write", limits.get("kWrite", 0))):
        busy = [row for row in mine if row["state"] in ("starting", "running") and slot(row) == kind]
        waiting = [row for row in queued if slot(row) == kind]
        for place, row in enumerate(waiting):
            if limit and len(busy) >= limit:
                names = ", ".join(str(holder["name"] or holder["jobId"]) for holder in sorted(busy, key=age)[:3])
                more = f" and {len(busy) - 3} more" if len(busy) > 3 else ""
                row["waiting"] = f"{limit} of {limit} {kind} slots taken by {names}{more}; {place} before it"
            else:
                row["waiting"] = "a slot is free; the next `wt` command starts it"


def slot(row: Row) -> str:
    """The kind of slot a job needs."""
    return "read" if row["access"] == "read-only" else "write"


def age(row: Row) -> tuple[str, str]:
    """What jobs are sorted by, the oldest first."""
    return row["createdAt"], row["jobId"]


def is_closed(workflows: str, workflow: str, damaged: list[str] | None = None) -> bool:
    """Whether a workflow is closed, or never came to be; one whose record cannot be understood may be open."""
    directory = os.path.join(workflows, workflow)
    record = witness(directory, "workflow.json")
    if record is not None and "closedAt" in record:
        return record["closedAt"] is not None
    path = os.path.join(directory, "workflow.json")
    if damaged is not None and os.path.exists(path):
        damaged.append(path)
    return not os.path.exists(path)


# ---------------------------------------------------------------------------------------------------- kept ready
def lines(
    workflows: str, workflow: str, texts: Callable[[Row], list[str]], *, kind: str, key: str, now_ns: int
) -> tuple[list[Line], list[Row]]:
    """A line for each job of a workflow, unsorted, and the rows of those that are not done.

    `texts` makes what the caller says of a row; of a finished job it must be the same at any time, but for what depends
    on its workspace being there. `kind` names what is made, `key` (one line) how: what another version left is not
    taken. Cost: about 5 µs for a job that is kept ready. Raises: ValueError for a record that cannot be understood.
    """
    path = os.path.join(workflows, workflow, f"finished.{kind}")
    kept = _kept(path, key)
    found: list[Line] = []
    marks: dict[str, str] = {}
    jobs = os.path.join(workflows, workflow, "jobs")
    try:
        fd = os.open(jobs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return [], []
    try:
        # By descriptor, so that nobody walks down the whole path again for each of them.
        with os.scandir(fd) as entries:
            for entry in entries:
                name, status = entry.name, entry.stat(follow_symlinks=False)
                mark = f"{name}\t{status.st_ino}\t{status.st_ctime_ns}\t"
                if name in kept and kept[name].startswith(mark):
                    found.append(kept[name].split("\t"))
                else:
                    # Taken before the record is read: what is written in between makes the line invalid.
                    marks[f"{jobs}/{name}"] = mark
    finally:
        os.close(fd)
    damaged: list[str] = []
    rows = [(derived(record, directory), marks[directory]) for record, directory in _stored(marks, damaged)]
    if damaged:
        raise ValueError(damaged[0])
    explain_queue([row for row, _ in rows], workflows, workflow)
    settled = []
    for row, mark in rows:
        line = [*mark.split("\t")[:-1], row["workspace"] or "", row["createdAt"], *texts(row)]
        found.append(line)
        old = row["state"] == "done" and row["finishedAt"] and int(line[2]) < now_ns - _GRAIN_NS
        if old and not _NEVER_KEPT.intersection("".join(line)):
            settled.append(line)
    if len(settled) >= max(_MANY, len(kept) // 8):
        _keep(path, key, [*found[: len(found) - len(rows)], *settled])
    return found, [row for row, _ in rows if row["state"] != "done"]


def _kept(path: str, key: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            content = file.read()
    except (OSError, UnicodeDecodeError):
        return {}
    header, *kept = content.split("\n")
    # It is not synced, so a power cut may leave it short, or with holes.
    if header != key or not kept or kept.pop() or "\0" in content:
        return {}
    return {line[: line.index("\t")]: line for line in kept}


def _keep(path: str, key: str, found: list[Line]) -> None:
    from worktrees.store import write_bytes

    content = "".join(["\t".join(line) + "\n" for line in found])
    try:
        write_bytes(path, f"{key}\n{content}".encode("utf-8", "backslashreplace"))
    except OSError:
        return  # a full or read-only disk: the next reader reads the records again
