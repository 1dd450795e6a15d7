"""Events by cursor and raw logs, of running and of finished jobs alike.

A cursor is opaque: the job's id and a byte offset into its events. The same cursor always gives the same events, so no
reader misses or repeats one, whoever died meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from worktrees.errors import Usage
from worktrees.jobs import settlement
from worktrees.jobs.liveness import is_abandoned
from worktrees.jobs.watching import Watch
from worktrees.store import read_json, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worktrees.model import Event, JobId
    from worktrees.store import State

Stream = Literal["stdout", "stderr"]

_LOOK_SECONDS = 5.0
_AGAIN = "leave the cursor out to begin with the first event"


@dataclass(frozen=True, slots=True)
class Page:
    """Some events; `done` when the `final` one is among them or was before."""

    events: list[Event]
    next_cursor: str
    done: bool


def events(state: State, job: JobId, cursor: str | None = None, *, most: int = 1000) -> Page:
    """Events after a cursor, at most 4 MiB of them and at least one if there is one.

    Raises: Usage for a cursor of another job, beyond the end, or of no event.
    """
    from worktrees.model import Event

    if most < 1:
        raise Usage(f"a page must hold at least one event, not {most}", hint="--max 100")
    directory = state.find_job_dir(job)
    offset = _offset(job, cursor)
    try:
        lines, position = read_lines(directory / "events.jsonl", offset, most=most)
    except Usage as error:
        raise Usage(error.message, hint=_AGAIN) from None
    found = [Event(type=line["type"], content=line["content"], timestamp=line["timestamp"]) for line in lines]
    # At the end without anything new: was the last one read before the final one?
    done = found[-1].type == "final" if found else offset > 0 and settlement.has_final(directory)
    return Page(found, _cursor(job, position), done)


def _cursor(job: JobId, offset: int) -> str:
    return base64.urlsafe_b64encode(f"{job}:{offset}".encode()).decode().rstrip("=")


def _offset(job: JobId, cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    owner, _, digits = text.rpartition(":")
    if not (digits.isdigit() and owner and len(digits) < 20):
        raise Usage(f"`{cursor}` is no cursor", hint=_AGAIN)
    if owner != job:
        raise Usage(f"the cursor belongs to `{owner}`, not to `{job}`", hint=_AGAIN)
    return int(digits)


def follow_events(
    state: State, job: JobId, cursor: str | None = None, *, when_lost: Callable[[], object] | None = None
) -> Iterator[Page]:
    """Pages as they come until the job's `final` event.

    `when_lost` is called when the job's supervisor is gone, and should reconcile; without it the stream ends there.
    Raises: Usage as `events`.
    """
    directory = state.find_job_dir(job)
    page = events(state, job, cursor)  # a wrong cursor is refused at the first step
    mended = -_LOOK_SECONDS
    with Watch([directory], content=True) as watch:
        while True:
            if page.events or page.done:
                yield page
                watch.moved()
            if page.done:
                return
            if not page.events:
                if when_lost is not None and _is_lost(directory) and time.monotonic() - mended >= _LOOK_SECONDS:
                    when_lost()  # may fail, and wakes us itself
                    mended = time.monotonic()
                if _state(directory) == "done" or (when_lost is None and _is_lost(directory)):
                    page = events(state, job, page.next_cursor)
                    if page.events:
                        continue
                    return
                watch.wait(_LOOK_SECONDS)
            page = events(state, job, page.next_cursor)


def _is_lost(directory: Path) -> bool:
    """Whether nobody is at work on a job any more."""
    return _state(directory) == "starting" and is_abandoned(os.fspath(directory))


def _state(directory: Path) -> str:
    return str((read_json(directory / "job.json") or {}).get("state"))


def log(state: State, job: JobId, stream: Stream = "stdout", offset: int = 0, *, most_bytes: int = 1 << 20) -> bytes:
    """Raw output from a byte offset."""
    try:
        with open(state.find_job_dir(job) / f"{stream}.log", "rb") as file:
            file.seek(offset)
            return file.read(most_bytes)
    except FileNotFoundError:
        return b""


def follow_log(state: State, job: JobId, stream: Stream = "stdout", offset: int = 0) -> Iterator[bytes]:
    """Raw output as it comes until the worker is gone."""
    directory = state.find_job_dir(job)
    with Watch([directory], content=True) as watch:
        while True:
            # In this order: what it wrote before it was gone is read after.
            gone = (directory / "exit.json").exists() or _state(directory) == "done" or _is_lost(directory)
            while piece := log(state, job, stream, offset):
                offset += len(piece)
                watch.moved()
                yield piece
            if gone:
                return
            watch.wait(_LOOK_SECONDS)
