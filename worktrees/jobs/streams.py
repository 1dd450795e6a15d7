"""Events by cursor and raw logs.

(skeleton: signatures only)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worktrees.model import Event, JobId
    from worktrees.store import State

Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class Page:
    """Some events; `done` when the `final` one is among them or was before."""

    events: list[Event]
    next_cursor: str
    done: bool


def events(state: State, job: JobId, cursor: str | None = None, *, most: int = 1000) -> Page:
    """Events after a cursor. Raises: Usage for a cursor of another job, beyond the end, or of no event."""
    raise NotImplementedError


def follow_events(state: State, job: JobId, cursor: str | None = None) -> Iterator[Page]:
    """Pages as they come until the job's `final` one."""
    raise NotImplementedError


def log(state: State, job: JobId, stream: Stream = "stdout", offset: int = 0, *, most_bytes: int = 1 << 20) -> bytes:
    """Raw output from a byte offset."""
    raise NotImplementedError


def follow_log(state: State, job: JobId, stream: Stream = "stdout", offset: int = 0) -> Iterator[bytes]:
    """Raw output as it comes until the worker is gone."""
    raise NotImplementedError
