"""What the tools answer, and how it is kept below the size that hosts pass on whole.

The job tools' shapes are those of the codex job server, with fields of our own added; the others are the contract's
answers with what paging needs. Sizes are characters of compact JSON, which is what hosts count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from worktrees.errors import Usage
from worktrees.model import (
    Diff,
    Event,
    Job,
    JobId,
    Jobs,
    Merged,
    Notice,
    OperationLog,
    Overlaps,
    Recorded,
    Removed,
    SetUp,
    Value,
)

T = TypeVar("T")

MOST_CHARACTERS = 11_500
"""Of one answer: Codex cuts the middle out of more than about 12,000, its own frame included (measured, 0.169.0)."""

Status = Literal["running", "done", "failed", "canceled"]


def status_of(job: Job) -> Status:
    """A job's state in the four words of the codex job server."""
    if job.state != "done":
        return "running"
    words: dict[str | None, Status] = {"succeeded": "done", "cancelled": "canceled"}
    return words.get(job.result, "failed")


# --------------------------------------------------------------------------------------------------------- job tools
class SpawnedJob(Value):
    """A job that was started, or that the same call started before."""

    job_id: JobId
    name: str | None = None
    workflow_id: str
    status: Status
    state: str
    workspace: str | None = None
    warnings: list[Notice] = []


class GroupMember(Value):
    """One job of a group: `jobId`, or `error` when it could not be made. `events` only with a handshake."""

    label: str | None = None
    job_id: JobId | None = None
    name: str | None = None
    status: Status | None = None
    error: str | None = None
    code: str | None = None
    events: list[Event] = []
    next_cursor: str | None = None


class Group(Value):
    """The jobs of a group, in the order asked for."""

    results: list[GroupMember] = []
    warnings: list[Notice] = []
    omitted: dict[str, int] = {}


class JobStatus(Value):
    """Where a job stands: `status` in the codex job server's words, `state` and `result` in ours."""

    job_id: JobId
    name: str | None = None
    status: Status
    started_at: str | None = None
    finished_at: str | None = None
    exit_code: int | None = None
    state: str
    result: str | None = None
    reason: str | None = None
    waiting: str | None = None
    workspace: str | None = None
    changed_files: int | None = None
    landed_by: str | None = None

    @classmethod
    def of(cls, job: Job) -> JobStatus:
        """The status of a job."""
        fields = {name: getattr(job, name) for name in cls.model_fields if name != "status"}
        return cls(status=status_of(job), **fields)


class JobResult(JobStatus):
    """How a job ended. `nextOffset` continues a final message that did not fit; tails only with `view` full."""

    final_message: str | None = None
    next_offset: int | None = None
    modified_files: list[str] = []
    reported_but_untouched: list[str] = []
    touched_but_unreported: list[str] = []
    verified: bool | None = None
    findings: list[str] = []
    stdout_tail: str | None = None
    stderr_tail: str | None = None
    omitted: dict[str, int] = {}


class CutEvent(Event):
    """An event; `omitted` counts characters cut off the end of one that is longer than a page."""

    omitted: int = 0


class Events(Value):
    """Events after a cursor; `done` only with the last page."""

    events: list[CutEvent] = []
    next_cursor: str
    done: bool


class WaitedAny(Value):
    """`completedJobId` is the earliest finished job not returned before; `finished` all that are done by now."""

    completed_job_id: JobId | None = None
    timed_out: bool
    status: Status | None = None
    pending: list[JobId] = []
    finished: list[JobId] = []
    missing_job_ids: list[str] = []


class Cancelled(Value):
    """Whether the job is ending or had ended; it is over when `status` is not `running` any more."""

    success: bool
    job_id: JobId
    status: Status
    state: str


# --------------------------------------------------------------------------------------------------------- wt tools
class JobsPage(Jobs):
    """Jobs, the oldest first."""

    next_cursor: str | None = None
    total: int = 0


class DiffPage(Diff):
    """A page of a change set's files, or of its patch."""

    total_files: int = 0
    next_cursor: str | None = None
    omitted: dict[str, int] = {}


class OverlapsPage(Overlaps):
    """A page of overlaps and conflicts; the cursor goes through the conflicts first, the plan last."""

    total_overlaps: int = 0
    total_conflicts: int = 0
    next_cursor: str | None = None


class MergeAnswer(Merged):
    """A merge; `hint` says what to do about a conflict."""

    hint: str | None = None
    warnings: list[Notice] = []
    omitted: dict[str, int] = {}


class Operated(Recorded):
    """A rollback or an undo, and the jobs concerned."""

    warnings: list[Notice] = []
    omitted: dict[str, int] = {}


class Dropped(Removed):
    """Jobs given up; their work stays as a snapshot."""

    warnings: list[Notice] = []
    omitted: dict[str, int] = {}


class LogPage(OperationLog):
    """Operations, the newest first."""

    next_cursor: str | None = None


class Opened(SetUp):
    """A workspace for the caller, or one that ended."""

    warnings: list[Notice] = []


# ------------------------------------------------------------------------------------------------------------- sizes
def characters(value: Any) -> int:
    """Of the value as compact JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def fit(answer: dict[str, Any], *lists: str, most: int = MOST_CHARACTERS) -> dict[str, Any]:
    """The answer with the ends of its longest lists taken off until it fits; `omitted` counts what is gone.

    `lists` are dotted places, `changeSet.ignoredCreated`.
    """
    while (total := characters(answer)) > most:
        place = max(lists, key=lambda name: characters(_at(answer, name)))
        found = _at(answer, place)
        if not found:
            break
        excess = (total - most) / max(characters(found), 1)
        gone = min(max(int(len(found) * excess), 1), len(found))
        del found[-gone:]
        answer["omitted"][place] = answer["omitted"].get(place, 0) + gone
    return answer


def _at(answer: dict[str, Any], place: str) -> list[Any]:
    value: Any = answer
    for name in place.split("."):
        value = (value or {}).get(name)
    return value if isinstance(value, list) else []


def page(items: Sequence[T], cursor: str | None, dump: Callable[[T], Any], *, most: int) -> tuple[list[T], str | None]:
    """As many items from a cursor on as fit, at least one, and the cursor of the rest."""
    start = offset_of(cursor)
    if start > len(items):
        raise Usage(f"the cursor `{cursor}` is beyond the end", hint="leave the cursor out to begin again")
    used = 0
    taken: list[T] = []
    for item in items[start:]:
        used += characters(dump(item)) + 1
        if taken and used > most:
            break
        taken.append(item)
    after = start + len(taken)
    return taken, str(after) if after < len(items) else None


def offset_of(cursor: str | None) -> int:
    """The number in a cursor. Raises: Usage."""
    if not cursor:
        return 0
    if not (cursor.isascii() and cursor.isdigit()) or len(cursor) > 18:
        raise Usage(f"`{cursor}` is no cursor", hint="leave the cursor out to begin again")
    return int(cursor)


def piece(text: str, offset: int, *, most: int) -> tuple[str, int | None]:
    """As much of a text from an offset on as fits when written as JSON, and where the rest begins."""
    part = text[offset : offset + most]
    while part and characters(part) > most:
        part = part[: int(len(part) * most / characters(part))]
    end = offset + len(part)
    return part, end if end < len(text) else None
