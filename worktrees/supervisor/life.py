"""`run`: one worker, from fork to exit record.

In this order:
1. read the launch, become its own process (the caller is not our parent), reserve the place of the exit record
2. signal handlers, then `supervisor.json`; whoever finds it may signal. A cancel recorded before is seen in step 3
3. fork the worker; it waits until `worker.json` is written, then starts its program behind the first wall that
   stands; `worker.json` says which
4. the ready byte: the caller goes on
5. pump events; keep cancel, lease, idle and wall-clock limit; TERM, grace, KILL
6. the worker is dead: kill what it left, until nothing is below us
7. `exit.json`, durable; the rest of the events; `final`
8. become the settling program, which still holds the lock

SIGTERM means cancel, SIGUSR1 cancel by force, SIGUSR2 that the lease changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import time

from worktrees.supervisor import disk, kernel, tree
from worktrees.supervisor.pump import Pump, timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE)
# How long growing files are left alone, so that events are written in batches.
_BATCH_SECONDS = 0.004
# No sleep is longer while a limit counts down: the clock of `poll` stops in suspend, that of the limits does not.
_LONGEST_SLEEP = 5.0
_SLOWEST_POLL = 0.25
_HELD_UP_SECONDS = 1.0
# How long what cannot be killed (another user's, stuck in a dead disk) is tried.
_KILL_SECONDS = 10.0
_RECORD_SECONDS = 30.0
# A wall that takes longer than this does not stand.
_WALL_SECONDS = 20.0


def run(job_dir: str, alive: int, ready: int) -> NoReturn:
    """Supervises the job of a directory; ends by becoming the settling program."""
    os.set_inheritable(alive, False)
    os.set_inheritable(ready, False)
    launch = disk.read_record(os.path.join(job_dir, "launch.json"))
    if launch is None:
        raise SystemExit(f"no launch record in {job_dir}")
    if os.fork():
        os._exit(0)
    os.chdir("/")
    Life(job_dir, launch, ready).live()
    kernel.adopt_orphans(wanted=False)
    for number in _HANDLED[:3]:  # a late request must not end the settling program
        signal.signal(number, signal.SIG_IGN)
    if launch["settle"]:
        os.set_inheritable(alive, True)
        os.execv(launch["settle"][0], [*launch["settle"], str(alive)])
    os._exit(0)


class Life:
    """The state of one supervised worker."""

    def __init__(self, job_dir: str, launch: dict[str, Any], ready: int) -> None:
        self.job_dir = job_dir
        self.launch = launch
        self.ready = ready
        self.exit_record = disk.Reserved(self._path("exit.json"))
        self.pump = Pump(job_dir, launch.get("dialect"))
        self.notifier = kernel.Notifier([self._path("stdout.log"), self._path("stderr.log")])
        self.cancelled = self.forced = self.lease_changed = False
        self.why: str | None = None
        self.killed = False
        self.kill_at: float | None = None
        self.worker = 0
        self.level = "none"
        self.end_report = -1
        self.exec_error: tuple[str, int] | None = None
        self.status: int | None = None
        self.max_rss_bytes: int | None = None
        self.left: set[tree.Process] = set()
        self.unkillable = 0
        self.pump_again_at = 0.0

    def _path(self, name: str) -> str:
        return os.path.join(self.job_dir, name)

    def live(self) -> None:
        """The whole life; returns when the record is exact and the events are complete, as far as the disk allows."""
        kernel.adopt_orphans()
        self._listen()
        disk.write_record(
            self._path("supervisor.json"),
            {
                **tree.identity(os.getpid()),
                "pidNamespace": tree.pid_namespace(),
                "directory": disk.inode(self.job_dir),
                "startedAt": timestamp(),
            },
        )
        self._look_for_cancel()
        self.began = kernel.boottime()
        if self.why is None:
            self._start_worker()
        with contextlib.suppress(BrokenPipeError):  # whoever started us was killed meanwhile; the job goes on
            os.write(self.ready, b"1")
        os.close(self.ready)
        if self.worker:
            self._watch()
            self._sweep()
        self._record()
        self._finish_events()

    # ------------------------------------------------------------------------------------------------ start
    def _listen(self) -> None:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.wake = reading
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, self._on_signal)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, _: object) -> None:
        self.cancelled |= number == signal.SIGTERM
        self.forced |= number == signal.SIGUSR1
        self.lease_changed |= number == signal.SIGUSR2

    def _look_for_cancel(self) -> None:
        """A cancel recorded before there was anybody to signal."""
        if record := disk.read_record(self._path("cancel.json")):
            self.why = "force" if record.get("force") else "cancel"

    def _start_worker(self) -> None:
        """Behind the first wall that stands; when none does, there is no worker and the record says so."""
        walls = self.launch.get("walls") or [{"level": "none", "words": []}]
        fallen: list[str] = []
        for wall in walls:
            self.level = str(wall["level"])
            begin = self._fork(wall["words"], fallen)
            standing = self._hear(begin, walled=bool(wall["words"]))
            os.close(begin)
            if standing:
                break
            fallen.append(self.level)
            with contextlib.suppress(OSError):
                os.kill(self.worker, signal.SIGKILL)
            os.waitpid(self.worker, 0)
            os.close(self.end_report)
            self.worker, self.end_report = 0, -1
        else:
            self.exec_error = ("sandbox", errno.EPERM)
        self.last_growth = kernel.boottime()
        self.sizes = (0, 0)
        self.lease_changed = True

    def _fork(self, words: list[str], fallen: list[str]) -> int:
        """Starts the worker as far as its program; returns where to hear how that goes."""
        go_reading, go_writing = os.pipe()
        begin_reading, begin_writing = os.pipe()  # closed by a successful exec
        end_reading, end_writing = os.pipe()
        append = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        out, err = os.open(self._path("stdout.log"), append), os.open(self._path("stderr.log"), append)
        supervisor = os.getpid()
        self.worker = os.fork()
        if self.worker == 0:
            os.close(go_writing)
            self._become_worker(supervisor, go_reading, begin_writing, end_writing, out, err, words)
        for fd in (go_reading, begin_writing, end_writing, out, err):
            os.close(fd)
        os.set_blocking(end_reading, False)
        self.end_report = end_reading
        record = {**tree.identity(self.worker), "startedAt": timestamp(), "sandbox": self.level, "fallen": fallen}
        disk.write_record(self._path("worker.json"), record)
        with contextlib.suppress(BrokenPipeError):
            os.write(go_writing, b"1")
        os.close(go_writing)
        return begin_reading

    def _hear(self, begin: int, *, walled: bool) -> bool:
        """Until the program runs or will not; whether the wall it was to run behind stood."""
        text = b""
        poller = select.poll()
        poller.register(begin, select.POLLIN)
        deadline = kernel.boottime() + _WALL_SECONDS
        while len(text) < 256:
            if walled and not poller.poll(max(0.0, deadline - kernel.boottime()) * 1000):
                return False
            if not (more := os.read(begin, 64)):
                break
            text += more
        lines = text.decode(errors="replace").splitlines()
        stood = not walled or "sandboxed" in lines
        for line in lines:
            stage, _, number = line.partition(" ")
            # Before the wall it is the wall that cannot be started, unless the program has too many words for both.
            if number.isdigit() and (stood or stage != "program" or int(number) == errno.E2BIG):
                self.exec_error = (stage, int(number))
        return stood or self.exec_error is not None

    def _become_worker(
        self, supervisor: int, go: int, begin: int, end: int, out: int, err: int, words: list[str]
    ) -> NoReturn:
        stage = "session"
        try:
            os.setsid()
            kernel.die_with_parent(signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            for number in (*_HANDLED, *_IGNORED, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            # Nothing of the worker's runs before its record is on disk, and nothing at all without a parent.
            if os.read(go, 1) != b"1" or os.getppid() != supervisor:
                os._exit(125)
            with contextlib.suppress(OSError):  # when memory runs out, the worker goes before its supervisor
                fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
                os.write(fd, b"300")
            stage = "stdin"
            stdin = os.open(self.launch.get("stdin") or os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            for target, fd in enumerate((stdin, out, err)):
                os.dup2(fd, target)
            stage = "directory"
            os.chdir(self.launch["cwd"])
            stage = "program"
            argv = self.launch["argv"]
            if words:
                argv = [*words, str(begin), str(end), *argv]
                os.set_inheritable(begin, True)
                os.set_inheritable(end, True)
            os.execvpe(argv[0], argv, self.launch["env"])
        except OSError as error:
            os.write(begin, f"{stage} {error.errno}\n".encode())
        except BaseException:  # noqa: BLE001 - a forked child must never return
            os.write(begin, f"{stage} {errno.EINVAL}\n".encode())
        os._exit(127)

    # ------------------------------------------------------------------------------------------------ run
    def _watch(self) -> None:
        """Until the worker is dead and, when it was asked to stop, so is its tree or its time is up."""
        poller = select.poll()
        poller.register(self.wake, select.POLLIN)
        waker = select.poll()
        waker.register(self.wake, select.POLLIN)
        if self.notifier.fd >= 0:
            poller.register(self.notifier.fd, select.POLLIN)
        pause = _BATCH_SECONDS
        while True:
            has_children = self._reap()
            now = kernel.boottime()
            if self.status is not None and (self.kill_at is None or not has_children or now >= self.kill_at):
                return
            self._look_at_requests(now)
            grew = self._pump(now)
            remaining = self._keep_limits(now)
            if grew:
                # Growing: leave it alone for a moment, but not deaf.
                waker.poll(_BATCH_SECONDS * 1000)
                pause = _BATCH_SECONDS
            else:
                if self.pump_again_at:
                    remaining = min(_HELD_UP_SECONDS, _HELD_UP_SECONDS if remaining is None else remaining)
                if self.notifier.fd < 0:
                    pause = min(pause * 2, _SLOWEST_POLL)
                    remaining = pause if remaining is None else min(pause, remaining)
                poller.poll(None if remaining is None else remaining * 1000 + 1)
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 4096)
            if self.notifier.fd >= 0:
                self.notifier.drain()

    def _reap(self) -> bool:
        """Collects the dead; whether any child is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.worker:
                self.status = status
                self.ended = kernel.boottime()
                # Kilobytes on Linux, bytes on macOS.
                self.max_rss_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def _look_at_requests(self, now: float) -> None:
        if self.forced and self.why != "force":
            self.why = self.why if self.why not in (None, "cancel") else "force"
            self.kill_at = now
            self.forced = False
        elif self.cancelled and self.why is None:
            self._stop("cancel", now)
        if self.lease_changed:
            self.lease_changed = False
            self.lease_until = self._lease_deadline()

    def _lease_deadline(self) -> float | None:
        lease = disk.read_record(self._path("lease.json"))
        if lease is None or lease.get("bootId") != tree.boot_id():
            return None
        deadline = lease.get("deadlineBoottime")
        return float(deadline) if deadline is not None else None

    def _keep_limits(self, now: float) -> float | None:
        """Ends what is over its time; returns in how many seconds to look again, None: when something happens."""
        if self.kill_at is not None:
            if now >= self.kill_at:
                self.killed = True
                self._kill()
                return 0.02
            return min(self.kill_at - now, _LONGEST_SLEEP)
        if self.why is not None:
            return None
        deadlines = {
            "ttl": self.lease_until,
            "idle": self._after(self.last_growth, "idleSeconds"),
            "timeout": self._after(self.began, "timeoutSeconds"),
        }
        left = {why: deadline - now for why, deadline in deadlines.items() if deadline is not None}
        if not left:
            return None
        first = min(left, key=left.__getitem__)
        if left[first] > 0:
            return min(left[first], _LONGEST_SLEEP)
        if first == "ttl" and (extended := self._lease_deadline()) != self.lease_until:
            self.lease_until = extended  # its signal has not come through yet
            return 0
        self._stop(first, now)
        return 0

    def _after(self, start: float, limit: str) -> float | None:
        seconds = self.launch.get(limit)
        return start + float(seconds) if seconds else None

    def _pump(self, now: float) -> bool:
        sizes = self.pump.sizes()
        if sizes != self.sizes:
            self.sizes = sizes
            self.last_growth = now
        if now < self.pump_again_at:
            return False
        self.pump_again_at = 0.0
        try:
            return self.pump.step()
        except OSError as error:
            # A full disk, most likely the worker's doing: its output stays in the logs until there is room.
            _complain(f"events are held up: {error}")
            self.pump_again_at = now + _HELD_UP_SECONDS
            return False

    # ------------------------------------------------------------------------------------------------ end
    def _stop(self, why: str, now: float) -> None:
        """Asks the whole tree to end; stopped processes are woken to hear it."""
        self.why = why
        self.kill_at = now + float(self.launch["graceSeconds"])
        below = tree.descendants(os.getpid())
        if self.level == "bubblewrap":  # with which everything behind it would end at once
            below = [process for process in below if process.pid != self.worker]
        for number in (signal.SIGTERM, signal.SIGCONT):
            tree.send_all(below, number)
            if not below and self.status is None:  # no /proc here
                with contextlib.suppress(OSError):
                    os.killpg(self.worker, number)

    def _kill(self) -> list[tree.Process]:
        below = tree.descendants(os.getpid())
        self.unkillable = tree.kill_all(below)
        if not below and self.status is None:
            with contextlib.suppress(OSError):
                os.killpg(self.worker, signal.SIGKILL)
        return below

    def _sweep(self) -> None:
        """Kills what the worker left until nothing is below us; what cannot be killed is counted."""
        deadline = kernel.boottime() + _KILL_SECONDS
        pause = 0.001
        while self._reap():
            below = self._kill()
            self.left.update(below)
            if kernel.boottime() > deadline:
                self.unkillable = len(below)
                return
            time.sleep(pause)
            pause = min(pause * 2, 0.1)
        self.unkillable = 0

    def _ended(self) -> tuple[int | None, int]:
        """Status of the program, negative for a signal, and how many processes it left behind.

        What wraps it in a namespace only hands on 128 + n; whoever watched it within told more, unless it was killed.
        """
        if self.status is None:
            return None, 0
        code, left = os.waitstatus_to_exitcode(self.status), len(self.left)
        if self.level != "bubblewrap":
            return code, left
        told = b""
        with contextlib.suppress(OSError):
            told = os.read(self.end_report, 256)
        lines = dict(line.split(" ", 1) for line in told.decode(errors="replace").splitlines() if " " in line)
        if lines.get("left", "").isdigit():
            left = int(lines["left"])
        for word, most, sign in (("exit", 255, 1), ("signal", 64, -1)):
            if lines.get(word, "").isdigit() and int(lines[word]) <= most:
                return sign * int(lines[word]), left
        return (128 - code if code > 128 else code), left

    def _record(self) -> None:
        code, left = self._ended()
        out, err = self.pump.sizes()
        failed = self.exec_error
        if failed is not None and failed[0] == "sandbox":
            code = 125
        elif failed is not None:
            code = 126 if failed[1] in (errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.E2BIG) else 127
        record = {
            "exitCode": code if code is not None and code >= 0 else None,
            "signal": -code if code is not None and code < 0 else None,
            "execErrno": failed[1] if failed else None,
            "execStage": failed[0] if failed else None,
            "why": self.why,
            "killed": self.killed,
            "leftBehind": left,
            "unkillable": self.unkillable,
            "finishedAt": timestamp(),
            "wallSeconds": round(self.ended - self.began, 3) if self.status is not None else 0.0,
            "maxRssBytes": self.max_rss_bytes,
            "stdoutBytes": out,
            "stderrBytes": err,
        }
        deadline = kernel.boottime() + _RECORD_SECONDS
        while True:
            try:
                self.exit_record.write(record)
            except OSError as error:
                _complain(f"the exit record is held up: {error}")
                if kernel.boottime() > deadline:
                    return
                time.sleep(1)
            else:
                return

    def _finish_events(self) -> None:
        error = None
        if self.exec_error is not None:
            stage, number = self.exec_error
            what = {
                "program": self.launch["argv"][0],
                "directory": self.launch["cwd"],
                "stdin": self.launch.get("stdin"),
                "sandbox": "the sandbox",
            }
            error = f"cannot start `{what.get(stage, stage)}`: {os.strerror(number)}"
        try:
            self.pump.finish(error)
        except OSError as failure:
            _complain(f"events are not complete: {failure}")  # whoever settles completes them


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{timestamp()} {text}\n".encode(errors="backslashreplace"))
