"""Starts workers so that they outlive their caller, and says how they are; or, by `attend`, so that they do not.

`Runner` is the seam; `LocalRunner` starts one supervisor per job on this machine. It knows a job's directory, not
what a job means. Liveness is the lock `alive` of that directory: taken before the supervisor exists, inherited by it,
dropped by the kernel whatever kills it. Pid, start ticks and boot id are only used to signal.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from worktrees.errors import Busy, StateBroken
from worktrees.store import AliveLock, is_alive, start_ticks, supervisor_of, write_bytes

Liveness = Literal["not-started", "alive", "exited", "lost"]

_SUPERVISOR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "supervisor", "__main__.py")


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything a supervisor needs; a limit of None or 0 means none.

    `walls` are levels of protection with the words that go before the program's own, to be tried in order: the first
    that stands is in force and on record. Words end in a program that takes two descriptors (`sandbox.launcher`).
    `settle` is the program a supervisor becomes at its end, with the number of the inherited lock as one more word.
    `dialect` names how the worker's stdout is read: None for lines of text.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    stdin: str | None = None
    grace_seconds: float = 5.0
    idle_seconds: float | None = None
    timeout_seconds: float | None = None
    settle: Sequence[str] = field(default=())
    walls: Sequence[tuple[str, Sequence[str]]] = (("none", ()),)
    dialect: str | None = None


@dataclass(frozen=True, slots=True)
class Handle:
    """A started supervisor."""

    pid: int


class Runner(Protocol):
    """Runs workers somewhere."""

    name: str

    def start(self, job_dir: Path, launch: Launch, *, alive: int | None = None) -> Handle:
        """Starts the job of a directory once; returns when its program runs or could not be started.

        `alive` is the job's lock if the caller holds it already; the caller lets go of it afterwards.
        Raises: Busy when somebody else runs it; StateBroken when the supervisor does not come up.
        """
        ...

    def poll(self, job_dir: Path) -> Liveness:
        """How it stands; a few system calls."""
        ...

    def signal(self, job_dir: Path, *, force: bool = False) -> bool:
        """Asks to end; False when there is nobody to ask."""
        ...

    def lease_changed(self, job_dir: Path) -> None:
        """Has the supervisor read the lease again."""
        ...

    def finish(self, job_dir: Path, alive: int) -> None:
        """Completes the records of a job whose supervisor is gone and ends what it left; the caller keeps `alive`.

        Raises: StateBroken, and then it can be tried again.
        """
        ...


class LocalRunner:
    """One detached supervisor per job on this machine."""

    name = "local"

    def start(self, job_dir: Path, launch: Launch, *, alive: int | None = None) -> Handle:
        """Starts the job of a directory; see `Runner.start`."""
        lock = os.dup(alive) if alive is not None else AliveLock(job_dir / "alive").take()
        if lock is None:
            raise Busy(f"the job `{job_dir.name}` runs already", hint="wt status")
        try:
            if (job_dir / "supervisor.json").exists():
                raise Busy(f"the job `{job_dir.name}` was started before", hint="wt status")
            self._write_launch(job_dir, launch)
            return self._start(job_dir, lock)
        finally:
            os.close(lock)

    @staticmethod
    def _write_launch(job_dir: Path, launch: Launch) -> None:
        record = {
            "argv": list(launch.argv),
            "env": dict(launch.env),
            "cwd": launch.cwd,
            "stdin": launch.stdin,
            "graceSeconds": launch.grace_seconds,
            "idleSeconds": launch.idle_seconds,
            "timeoutSeconds": launch.timeout_seconds,
            "settle": list(launch.settle),
            "walls": [{"level": level, "words": list(words)} for level, words in launch.walls],
            "dialect": launch.dialect,
        }
        # ASCII, because words and values that are not UTF-8 hold surrogates.
        write_bytes(job_dir / "launch.json", json.dumps(record).encode("ascii"))

    @staticmethod
    def _start(job_dir: Path, lock: int) -> Handle:
        reading, writing = os.pipe()
        try:
            with _log(job_dir) as log:
                process = subprocess.Popen(
                    _supervisor("run", job_dir, lock, writing),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    env=_environment(),
                    pass_fds=(lock, writing),
                    start_new_session=True,
                )
            os.close(writing)
            writing = -1
            # The process we started forks the supervisor and ends at once: nobody of ours has to wait for that one.
            process.wait()
            ready = os.read(reading, 1)
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)
        record = supervisor_of(job_dir)
        if not ready or record is None:
            raise StateBroken(
                f"the supervisor of `{job_dir.name}` did not come up", hint=f"look at `{job_dir / 'supervisor.log'}`"
            )
        return Handle(int(record["pid"]))

    def poll(self, job_dir: Path) -> Liveness:
        """How it stands; see `Runner.poll`."""
        if (job_dir / "exit.json").exists():
            return "exited"
        if AliveLock(job_dir / "alive").is_held():
            return "alive"
        # In this order: it may have ended between the two looks.
        if (job_dir / "exit.json").exists():
            return "exited"
        return "lost" if (job_dir / "launch.json").exists() else "not-started"

    def signal(self, job_dir: Path, *, force: bool = False) -> bool:
        """Asks the supervisor to end its worker."""
        return self._signal(job_dir, signal.SIGUSR1 if force else signal.SIGTERM)

    def lease_changed(self, job_dir: Path) -> None:
        """Has the supervisor read the lease again."""
        self._signal(job_dir, signal.SIGUSR2)

    @staticmethod
    def _signal(job_dir: Path, number: int) -> bool:
        record = supervisor_of(job_dir)
        if record is not None and record.get("directory") != _inode(job_dir):
            return False  # a copy; the original is not ours to end
        # Once the exit record is there the process is settling and takes no requests.
        if record is None or (job_dir / "exit.json").exists() or not is_alive(record):
            return False
        pid = int(record["pid"])
        try:
            fd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
        except OSError:
            return False
        try:
            # The descriptor names whoever has the pid now; only then is the look at its start time final.
            if start_ticks(pid) != record["startTicks"]:
                return False
            if fd >= 0:
                signal.pidfd_send_signal(fd, number)
            else:
                os.kill(pid, number)
        except ProcessLookupError:
            return False
        finally:
            if fd >= 0:
                os.close(fd)
        return True

    def finish(self, job_dir: Path, alive: int) -> None:
        """Completes the records of a dead supervisor; see `Runner.finish`."""
        with _log(job_dir) as log:
            done = subprocess.run(
                _supervisor("finish", job_dir, alive),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=_environment(),
                pass_fds=(alive,),
                start_new_session=True,
                cwd="/",
                check=False,
            )
        if done.returncode != 0:
            raise StateBroken(
                f"the records of `{job_dir.name}` could not be completed",
                hint=f"look at `{job_dir / 'supervisor.log'}`",
            )


# ----------------------------------------------------------------------------------------------------------- attended
@dataclass(frozen=True, slots=True)
class Attended:
    """How an attended command ended; `exit_code` is as a shell says it: 128+n for signal n, 124 when its time was up.

    `left` counts processes of it that could not be killed.
    """

    exit_code: int
    timed_out: bool
    seconds: float
    left: int


def attend(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    hear: Callable[[bytes], object],
    timeout_seconds: float | None = None,
    grace_seconds: float = 5.0,
    keep: Sequence[int] = (),
) -> Attended:
    """Runs a command to its end and hands on its output, both streams as one, as it comes.

    It has a session of its own. When this returns, or raises what came from outside (^C, or what `hear` raises), nobody
    it started is alive; when we are killed, they are ended within the grace, and the locks `keep` are held until then.
    Raises: StateBroken when it could not be started or watched.
    """
    launch = {"argv": list(argv), "env": dict(env), "cwd": os.fspath(cwd), "graceSeconds": grace_seconds}
    launch["timeoutSeconds"] = timeout_seconds
    hold_there, hold = os.pipe()
    result, result_there = os.pipe()
    output, output_there = os.pipe()
    theirs = (hold_there, result_there)
    try:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", _SUPERVISOR, "attend", *map(str, (*theirs, *keep))],
                stdin=subprocess.PIPE,
                stdout=output_there,
                stderr=output_there,
                # What the command may not see of ours shall not stand in the environment of its parent either.
                env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
                cwd="/",
                pass_fds=(*theirs, *keep),
                start_new_session=True,
            )
        finally:
            for end in (*theirs, output_there):
                os.close(end)
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin or contextlib.nullcontext() as requests:
                # ASCII, because words and values that are not UTF-8 hold surrogates.
                requests.write(json.dumps(launch).encode("ascii"))  # type: ignore[union-attr]
            answer = _listen(output, result, hear)
        finally:
            os.close(hold)  # from here on whatever still runs is ended
            hold = -1
            process.wait()
    finally:
        for end in (result, output, *([hold] if hold >= 0 else [])):
            os.close(end)
    if not answer:
        raise StateBroken("the process that attends a command died", hint="run the command again")
    found = json.loads(answer)
    timed_out = found["why"] == "timeout"
    code = found["code"] if found["code"] >= 0 else 128 - found["code"]
    return Attended(124 if timed_out else code, timed_out, found["seconds"], found["left"])


def _listen(output: int, result: int, hear: Callable[[bytes], object]) -> bytes:
    """Hands on what comes until the result is there, which is when nobody writes any more; the result."""
    poller = select.poll()
    poller.register(output, select.POLLIN)
    poller.register(result, select.POLLIN)
    answer, over = b"", False
    while not over:
        ready = {fd for fd, _ in poller.poll()}
        if result in ready:
            piece = os.read(result, 1 << 12)
            answer, over = answer + piece, not piece
        if output in ready and not over:
            if piece := os.read(output, 1 << 16):
                hear(piece)
            else:
                poller.unregister(output)
    os.set_blocking(output, False)
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(output, 1 << 16):
            hear(piece)
    return answer


def _environment() -> dict[str, str]:
    """What a supervisor runs in: the caller's, but it is nobody's worker, even where a worker's call starts it."""
    return {name: value for name, value in os.environ.items() if name not in ("WT_JOB", "WT_WORKFLOW", "WT_WORKSPACE")}


def _inode(path: Path) -> str:
    found = path.stat()
    return f"{found.st_dev}:{found.st_ino}"


def _supervisor(mode: str, job_dir: Path, *descriptors: int) -> list[str]:
    return [sys.executable, "-I", "-S", _SUPERVISOR, mode, os.fspath(job_dir.absolute()), *map(str, descriptors)]


@contextlib.contextmanager
def _log(job_dir: Path) -> Iterator[int]:
    fd = os.open(job_dir / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
