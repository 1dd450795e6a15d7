"""Calls that may come twice: which job a request made.

A host repeats a call whose answer it never got. Such a call carries a key; the file `requests/<key>` names the job it
made. It is written before the job's own record and counts only when that record is there, so whoever dies in between
has made neither. Looking and making happen under the `requests` lock, which is taken before any other.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from worktrees.jobs import ledger
from worktrees.store import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from worktrees.model import JobId
    from worktrees.store import State


def find(state: State, key: str) -> JobId | None:
    """The job that the request of this key made, None when there is none yet."""
    from worktrees.model import JobId

    try:
        with open(_path(state, key), encoding="utf-8") as file:
            workflow, _, job = file.read().strip().partition("/")
    except FileNotFoundError:
        return None
    return JobId(job) if job and ledger.read(state.job_dir(workflow, job)) is not None else None


def note(state: State, key: str, directory: Path) -> None:
    """Remembers that the request of this key makes the job of this directory; before its record is written."""
    path = _path(state, key)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    write_bytes(path, f"{directory.parent.parent.name}/{directory.name}\n".encode(), durable=True)


def serialised(state: State, *, timeout_seconds: float) -> AbstractContextManager[None]:
    """Nobody else looks for a request or makes its job meanwhile. Raises: Busy."""
    return state.lock("requests", purpose="make the job of a request", timeout_seconds=timeout_seconds)


def _path(state: State, key: str) -> str:
    return os.path.join(state.root, "requests", hashlib.sha256(key.encode()).hexdigest()[:40])
