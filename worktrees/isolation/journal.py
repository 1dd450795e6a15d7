"""What is under way and what stands: intents of the living, records of workspaces.

An intent (`wt-state/journal/<job>.json`) is written before the first step of making or taking away a workspace and
goes after the last. Its maker holds a `flock` on it, so the kernel says whether the maker lives, in any pid namespace,
and only one process at a time can act on a job's workspace. Half-made and half-taken workspaces are dealt with alike:
exactly the directories the intent names are taken away. No worker has run in a half-made one, and a half-taken one was
captured before.

A record (`wt-state/workspaces/<job>.json`) is there as long as the workspace stands and says what it was when it was
opened, so that later something else in its place is not mistaken for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from worktrees.errors import Busy, StateBroken
from worktrees.isolation.entry import points_at, read_small
from worktrees.isolation.place import Place
from worktrees.model import JobId, Oid
from worktrees.store import identity, read_json, write_json

_UNKNOWN = 0  # no directory has this inode


@dataclass(frozen=True, slots=True)
class Record:
    """A workspace as it was opened.

    `entry` names git's own directory of a worktree that somebody else made (see `adopted`); ours is named by the job.
    A `private` one has a repository of its own instead (see `private`).
    """

    job: JobId
    path: Path
    inode: int
    commit: Oid
    sparse: tuple[str, ...] = ()
    entry: str | None = None
    private: bool = False


@dataclass(frozen=True, slots=True)
class Intent:
    """What somebody set out to do to a workspace."""

    job: JobId
    path: Path
    phase: Literal["adding", "removing"]


# ------------------------------------------------------------------------------------------------------------ records
def write_record(place: Place, record: Record, *, durable: bool = False) -> None:
    """Notes that a workspace stands."""
    place.records.mkdir(mode=0o700, exist_ok=True)
    write_json(_record_path(place, record.job), {**asdict(record), "path": os.fspath(record.path)}, durable=durable)


def record_of(place: Place, job: JobId) -> Record | None:
    """The record of a job's workspace, None when none stands.

    That of a workspace of ours is not synced, so a power cut may leave it empty; git's entry, which is, then says where
    the workspace is.
    """
    try:
        found = read_json(_record_path(place, job))
        if found is None:
            return None
        return Record(
            JobId(found["job"]),
            Path(found["path"]),
            found["inode"],
            Oid(found["commit"]),
            tuple(found.get("sparse", ())),
            found.get("entry"),
            found.get("private", False),
        )
    except (StateBroken, KeyError, TypeError):
        git_dir = place.entries / job
        path, head = points_at(git_dir), read_small(git_dir / "HEAD")
        return Record(job, path, _UNKNOWN, Oid((head or b"").decode().strip())) if path else None


def is_damaged(record: Record) -> bool:
    """Whether a record had to be worked out from git's entry."""
    return record.inode == _UNKNOWN


def records(place: Place) -> Iterator[Record]:
    """All workspaces that stand."""
    for job in _names(place.records):
        if record := record_of(place, job):
            yield record


def forget(place: Place, job: JobId) -> None:
    """Removes a record, and what a kill while it was written left beside it."""
    _record_path(place, job).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(place.records):
            if name.startswith(f".{job}.json."):
                (place.records / name).unlink(missing_ok=True)


def _record_path(place: Place, job: JobId) -> Path:
    return place.records / f"{job}.json"


def _names(directory: Path) -> list[JobId]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(JobId(name[:-5]) for name in os.listdir(directory) if name.endswith(".json") and name[0] != ".")
    return []


# ------------------------------------------------------------------------------------------------------------ intents
@dataclass(slots=True)
class Claim:
    """The sole right to act on a job's workspace; `pending` is what was set out to be done and is not done yet."""

    fd: int
    pending: Intent | None

    def write(self, intent: Intent) -> None:
        """Says what is going to happen; before this nothing may be done."""
        content = {
            "job": intent.job,
            "path": os.fspath(intent.path),
            "phase": intent.phase,
            "by": identity(os.getpid()),
        }
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, json.dumps(content).encode(), 0)
        self.pending = intent

    def settle(self) -> None:
        """Says that everything has happened, or has been undone."""
        self.pending = None


@contextlib.contextmanager
def claim(place: Place, job: JobId) -> Iterator[Claim]:
    """Claims a job's workspace, with what a dead process left pending; the intent goes at the end, unless pending.

    Raises: Busy while another process has it.
    """
    path = place.state.journal / f"{job}.json"
    fd = _locked(path)
    if fd is None:
        raise Busy(f"another process is at work on the workspace of `{job}`", hint="wait for it and try again")
    try:
        held = Claim(fd, _parse(fd))
        try:
            yield held
        finally:
            if held.pending is None:
                path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def intended(place: Place) -> list[JobId]:
    """Jobs with an intent, of makers dead or alive."""
    return _names(place.state.journal)


def _locked(path: Path) -> int | None:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, fd):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # whoever had it before was done and has removed it


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def _parse(fd: int) -> Intent | None:
    """An intent that was written whole; of a torn one nothing was done yet."""
    try:
        found = json.loads(os.pread(fd, 1 << 16, 0))
        return Intent(JobId(found["job"]), Path(found["path"]), found["phase"])
    except (ValueError, KeyError, TypeError):
        return None
