"""The processes of a job: found in `/proc`, named by pid and start time, signalled through a descriptor.

A pid alone may name another process by the time the signal is sent; pid and start ticks together do not.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import namedtuple

# `typing.NamedTuple` would load `typing`, half as long as all the rest.
Process = namedtuple("Process", ("pid", "parent", "group", "session", "start"))  # noqa: PYI024


def processes() -> dict[int, Process]:
    """Every live process by pid; zombies are dead."""
    found = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit() and (process := look(int(name))) is not None:
            found[process.pid] = process
    return found


def look(pid: int) -> Process | None:
    """One live process, None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if len(fields) < 20 or fields[0] in b"ZX":
        return None
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def boot_id() -> str:
    """Names this boot, as `store.boot_id` does."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


def pid_namespace() -> str:
    """Names the namespace whose pids we see."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "unknown"


def identity(pid: int) -> dict[str, int | str | None]:
    """The record that names a process, as `store.identity` does."""
    process = look(pid)
    return {"pid": pid, "startTicks": process.start if process else None, "bootId": boot_id()}


def descendants(root: int) -> list[Process]:
    """Live processes below a process."""
    everybody = processes()
    children: dict[int, list[Process]] = {}
    for process in everybody.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += [process.pid for process in below]
    return found


def survivors(job: str, worker: dict[str, int | str | None] | None) -> list[Process]:
    """Live processes of a job whose supervisor is dead, with everything below them.

    They carry the job's id in their environment, or are in the session or group of its worker. The session's number
    may have been given to somebody else since: then its leader is another process than the recorded one.
    """
    everybody = processes()
    number = worker["pid"] if worker and worker.get("bootId") == boot_id() else None
    leader = everybody.get(number) if isinstance(number, int) else None
    if worker and leader is not None and leader.start != worker.get("startTicks"):
        number = None
    marker = b"WT_JOB=" + os.fsencode(job)
    mine = {
        process.pid
        for process in everybody.values()
        if (number is not None and number in (process.session, process.group)) or _has_variable(process.pid, marker)
    }
    growing = True
    while growing:
        below = {process.pid for process in everybody.values() if process.parent in mine} - mine
        mine |= below
        growing = bool(below)
    return [everybody[pid] for pid in mine if pid != os.getpid()]


def _has_variable(pid: int, marker: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return marker in file.read().split(b"\0")
    except OSError:
        return False  # gone, or another user's


def send(process: Process, number: int) -> bool:
    """Signals a process if it is still the same one; False when it may not be signalled."""
    try:
        fd = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        fd = -1
    try:
        now = look(process.pid)
        if now is None or now.start != process.start:
            return True
        if fd >= 0:
            signal.pidfd_send_signal(fd, number)
        else:
            os.kill(process.pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True


def send_all(processes: list[Process], number: int) -> int:
    """Signals processes; returns how many may not be signalled."""
    return sum(not send(process, number) for process in processes)


def kill_all(processes: list[Process]) -> int:
    """Kills processes below this one; returns how many may not be killed.

    Whole groups go at one blow first, because the kernel lets nobody fork out of that. They are all the job's: nobody
    can join a group of another session, and those of the job's sessions were made below us.
    """
    for group in {process.group for process in processes} - {os.getpgid(0)}:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    return send_all(processes, signal.SIGKILL)
