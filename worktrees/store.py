"""The state on disk: layout, atomic durable writes, append-only JSON lines, locks, clock and ids.

Owns `<git-common-dir>/wt-state/`. Knows no git and not what a job means. Plain files that anyone may `cat`; one
writer per file; readers take no lock: a JSON record arrives by rename, a line arrives whole or is not read yet.

    format                              integer; a newer one is refused, naming the version needed
    store.git/                          wt's own bare object store (made by `git`, kept here)
    locks/<name>.lock, .holder          cross-process locks and who holds them; never cleaned
    journal/<job>.json                  intents of `isolation`: what to undo if the maker died
    ops/000017.json                     operation log
    workflows/<wf>/workflow.json
    workflows/<wf>/jobs/<job>/          job.json spec.json launch.json alive supervisor.json worker.json exit.json
                                        lease.json cancel.json stdout.log stderr.log events.jsonl changes.json
    requests/<digest>                   the job that a call made which may come twice
    trash/                              removed workspaces on their way out

This module imports only the standard library at the top, and little of that, because `wt list` loads it; the lock
library is imported where a lock is taken.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time

from worktrees.errors import Busy, NotFound, StateBroken, Usage

TYPE_CHECKING = False  # `typing` itself takes a third as long to load as Python
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

FORMAT = 1
DIRECTORY = "wt-state"
# No 0/o, 1/l/i: ids are read aloud and typed.
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
LOCK_TIMEOUT_SECONDS = 30.0


# ---------------------------------------------------------------------- clock and ids
def now() -> str:
    """The time as ISO 8601 UTC with milliseconds."""
    return timestamp(time.time())


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 UTC with milliseconds."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(stamp: str) -> float:
    """The inverse of `timestamp`."""
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()


def new_id(prefix: str) -> str:
    """A fresh id such as `j-7k2mq4xa`; 31^8 of them, so a clash is a bug and not bad luck."""
    # Bytes beyond the last whole round of the alphabet would make its first letters likelier.
    usable = [byte for byte in os.urandom(64) if byte < 256 - 256 % len(_ALPHABET)]
    return f"{prefix}-" + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in usable[:8])


def boot_id() -> str:
    """Names this boot of the machine, so that a pid of an earlier one is never mistaken for a live process."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        import psutil

        return f"boot-{psutil.boot_time():.0f}"


def start_ticks(pid: int) -> int | None:
    """When a process started, in ticks since boot; None when there is no such process or it is a zombie.

    With the pid and the boot id this names one process for ever; creation times in seconds move with the clock.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        if not os.path.exists("/proc/self/stat"):
            import psutil

            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time() * 100)
        return None
    return None if fields[0] in b"ZX" else int(fields[19])


def identity(pid: int) -> dict[str, Any]:
    """The record that names a process: pid, start ticks, boot id."""
    return {"pid": pid, "startTicks": start_ticks(pid), "bootId": boot_id()}


def is_alive(record: dict[str, Any] | None) -> bool:
    """Whether the process an `identity` record names is still the one that runs."""
    if not record or record.get("startTicks") is None or record.get("bootId") != boot_id():
        return False
    return bool(start_ticks(int(record["pid"])) == record["startTicks"])


# ---------------------------------------------------------------------------------------------------------------- files
def sync_file(path: Path | str) -> None:
    """Makes the content of a file durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path | str) -> None:
    """Makes the names in a directory durable; file systems that cannot say so are let be."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def write_bytes(path: Path | str, content: bytes, *, durable: bool = False) -> None:
    """Replaces a file whole: a reader sees the old one or the new one, a failure leaves the old one.

    `durable` also survives a power cut (1-4 ms more).
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_directory(directory or ".")


def write_json(path: Path | str, value: Any, *, durable: bool = False) -> None:
    """Replaces a JSON record whole; see `write_bytes`."""
    write_bytes(path, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n", durable=durable)


def read_json(path: Path | str) -> dict[str, Any] | None:
    """A JSON record, or None when there is none.

    Raises: StateBroken for what is not a JSON object.
    """
    try:
        # Two system calls cheaper than Path.read_bytes, and this runs once per job in `wt list`.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        content = b""
        while chunk := os.read(fd, 1 << 16):
            content += chunk
            if len(chunk) < 1 << 16:
                break
    finally:
        os.close(fd)
    try:
        value = json.loads(content)
    except ValueError as error:
        raise StateBroken(f"the record `{path}` is damaged", hint="move it aside and run: wt doctor") from error
    if not isinstance(value, dict):
        raise StateBroken(f"the record `{path}` is not an object", hint="move it aside and run: wt doctor")
    return value


def append_line(path: Path | str, value: Any, *, durable: bool = False) -> None:
    """Appends one JSON line in one write, whole or not at all. Raises: OSError."""
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        written = os.write(fd, line)
        if written < len(line):  # a full disk takes what there is room for, and says nothing
            os.ftruncate(fd, os.fstat(fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        if durable:
            os.fdatasync(fd)
    finally:
        os.close(fd)


def read_lines(path: Path | str, offset: int, *, most: int = 1000, most_bytes: int = 1 << 22) -> tuple[list[Any], int]:
    """JSON lines from a byte offset, and the offset after the last whole one; a torn last line is not read yet.

    Raises: Usage when the offset is beyond the end or inside a line.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if offset:
            raise Usage(f"the cursor {offset} is beyond the end of the stream") from None
        return [], 0
    try:
        size = os.fstat(fd).st_size
        if offset > size:
            raise Usage(f"the cursor {offset} is beyond the end of the stream")
        if offset and os.pread(fd, 1, offset - 1) != b"\n":
            raise Usage(f"the cursor {offset} does not stand at the start of a line")
        values: list[Any] = []
        rest = b""
        position = offset
        read_to = offset
        while len(values) < most:
            chunk = os.pread(fd, 1 << 18, read_to)
            if not chunk:
                break
            read_to += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if len(values) == most:
                    break
                values.append(json.loads(line))
                position += len(line) + 1
            if position - offset >= most_bytes:
                break
        return values, position
    finally:
        os.close(fd)


def supervisor_of(job_dir: Path | str) -> dict[str, Any] | None:
    """The record by which a job's supervisor names itself; damaged by a power cut it is as good as none."""
    try:
        return read_json(os.path.join(job_dir, "supervisor.json"))
    except StateBroken:
        return None


# ---------------------------------------------------------------------------------------------------------------- locks
class AliveLock:
    """The lock a supervisor holds for its whole life; that it is held *is* the liveness of the job.

    A bare `flock`, because it must be inherited over `exec` and dropped by the kernel on any death. Probes take it
    shared, so they never disturb each other, and let go at once.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = os.fspath(path)

    def take(self) -> int | None:
        """Takes the lock for ever; returns the descriptor, or None when somebody lives.

        A probe may hold it shared for an instant, so it is tried for half a second.
        """
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(50):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._supervisor_wrote_itself():
                    break
                time.sleep(0.01)
            else:
                return fd
        os.close(fd)
        return None

    def _supervisor_wrote_itself(self) -> bool:
        return is_alive(supervisor_of(os.path.dirname(self.path)))

    def is_held(self) -> bool:
        """Whether a live process holds the lock; costs two system calls."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


class State:
    """The state directory of one repository. Making the object touches nothing; `prepare` makes the directory."""

    def __init__(self, common_dir: Path) -> None:
        self.common_dir = common_dir
        self.root = common_dir / DIRECTORY
        self.store = self.root / "store.git"
        self.operations = self.root / "ops"
        self.journal = self.root / "journal"
        self.trash = self.root / "trash"
        self.workflows = self.root / "workflows"
        self._checked = False

    def exists(self) -> bool:
        """Whether `wt` was used here before; checks the format number."""
        if self._checked:
            return True
        try:
            text = (self.root / "format").read_text()
        except FileNotFoundError:
            return False
        self._check_format(text)
        self._checked = True
        return True

    def _check_format(self, text: str) -> None:
        try:
            number = int(text)
        except ValueError:
            raise StateBroken(f"`{self.root / 'format'}` holds no number", hint="wt doctor") from None
        if number > FORMAT:
            raise StateBroken(
                f"the state in `{self.root}` has format {number}, this program reads up to {FORMAT}",
                hint="pip install --upgrade agent-worktrees",
            )

    def prepare(self) -> None:
        """Makes the directory and its format number; safe for many at once."""
        if self.exists():
            return
        for directory in (self.root, self.operations, self.journal, self.workflows, self.trash, self.root / "locks"):
            directory.mkdir(mode=0o700, exist_ok=True)
        # Written last and whole: whoever sees it sees the directories too.
        write_bytes(self.root / "format", f"{FORMAT}\n".encode(), durable=True)
        self._checked = True

    # ---------------------------------------------------------------------- places
    def workflow_dir(self, workflow: str) -> Path:
        """Where a workflow's records live."""
        return self.workflows / workflow

    def job_dir(self, workflow: str, job: str) -> Path:
        """Where a job's records live."""
        return self.workflows / workflow / "jobs" / job

    def workflow_names(self) -> list[str]:
        """Names of all recorded workflows, sorted."""
        return sorted(_subdirectories(self.workflows))

    def job_dirs(self, workflow: str | None = None) -> Iterator[Path]:
        """Directories of recorded jobs, one workflow's or all; unsorted, no lock."""
        for name in [workflow] if workflow else self.workflow_names():
            jobs = self.workflows / name / "jobs"
            for job in _subdirectories(jobs):
                yield jobs / job

    def find_job_dir(self, job: str) -> Path:
        """A job's directory by its full id.

        Raises: NotFound.
        """
        for name in self.workflow_names():
            directory = self.workflows / name / "jobs" / job
            if directory.is_dir():
                return directory
        raise NotFound(f"no job `{job}`", hint="wt list --all")

    def operation_path(self, number: int) -> Path:
        """The record of an operation."""
        return self.operations / f"{number:06d}.json"

    def operation_numbers(self) -> list[int]:
        """Numbers of all recorded operations, ascending."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(
                int(name[:-5]) for name in os.listdir(self.operations) if name.endswith(".json") and name[:-5].isdigit()
            )
        return []

    # ------------------------------------------------------------------------------------------------------------ locks
    @contextlib.contextmanager
    def lock(self, name: str, *, purpose: str, timeout_seconds: float = LOCK_TIMEOUT_SECONDS) -> Iterator[None]:
        """Holds a named cross-process lock: `repository` (worktree entries), `landing`, or `workflow-<wf>`.

        Taken in that order when several are needed, never the other way round. Dropped by the kernel when the holder
        dies.

        Raises: Busy, naming the holder.
        """
        from filelock import Timeout, UnixFileLock

        path = self.root / "locks" / f"{name}.lock"
        holder = path.with_suffix(".holder")
        lock = UnixFileLock(path, timeout=timeout_seconds, poll_interval=0.01, mode=0o600, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            raise Busy(
                f"the {name} lock was not free within {timeout_seconds:g} s; {_holder_text(holder)}",
                hint=f"wait for it and try again; the lock file is `{path}`",
                details={"lock": name, "path": str(path)},
            ) from None
        try:
            with contextlib.suppress(OSError):
                write_json(holder, {**identity(os.getpid()), "purpose": purpose, "since": now()})
            yield
        finally:
            with contextlib.suppress(OSError):
                holder.unlink()
            lock.release()


def _holder_text(path: Path) -> str:
    with contextlib.suppress(StateBroken, OSError):
        if record := read_json(path):
            dead = "" if is_alive(record) else " (no longer alive)"
            return f"held by process {record['pid']}{dead} for `{record['purpose']}` since {record['since']}"
    return "its holder left no name"


def _subdirectories(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
