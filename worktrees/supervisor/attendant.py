"""`attend`: one command that is to die with whoever waits for it, and with it everything it started.

    attend HOLD RESULT [KEPT…]      descriptors; the launch is one JSON document on stdin

The opposite of `life`: no record, no detaching. The command writes where our own output goes, into a pipe of the
caller's. When the caller dies or closes its end of HOLD, when the time is up, or when the command has ended, the whole
tree below us is ended: TERM and a grace where it still runs, then KILL until nothing is left. Then one JSON document
goes to RESULT. KEPT are locks of the caller's that are held until then, and that the command does not get.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time

from worktrees.supervisor import kernel, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE)
_LONGEST_SLEEP = 5.0
_KILL_SECONDS = 10.0


def attend(hold: int, result: int, *kept: int) -> None:
    """Runs the command of the launch on stdin to the end of its whole tree, and says how it ended."""
    for fd in (hold, result, *kept):
        os.set_inheritable(fd, False)
    launch = json.loads(sys.stdin.buffer.read())
    kernel.adopt_orphans()
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    began = kernel.boottime()
    command = os.fork()
    if command == 0:
        _become(launch)
    status, why = _watch(command, hold, woken, launch, began)
    seconds = kernel.boottime() - began
    left = _sweep()
    answer = {"code": os.waitstatus_to_exitcode(status), "why": why, "seconds": seconds, "left": left}
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        os.write(result, json.dumps(answer).encode())


def _become(launch: dict[str, Any]) -> NoReturn:
    try:
        os.setsid()
        kernel.die_with_parent(signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (*_IGNORED, signal.SIGCHLD, signal.SIGTERM, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # when memory runs out, the command goes before anybody of ours
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, b"300")
        os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
        os.chdir(launch["cwd"])
        os.execvpe(launch["argv"][0], launch["argv"], launch["env"])
    except OSError as error:
        os.write(2, f"wt: cannot run `{launch['argv'][0]}`: {error}\n".encode())
    finally:
        os._exit(127)  # a forked child must never return


def _watch(command: int, hold: int, woken: int, launch: dict[str, Any], began: float) -> tuple[int, str | None]:
    """Until the command itself is dead: its wait status, and why it was ended."""
    poller = select.poll()
    poller.register(woken, select.POLLIN)
    poller.register(hold, select.POLLIN)
    why: str | None = None
    limit = launch.get("timeoutSeconds")
    deadline = began + limit if limit else None
    while True:
        if (status := _reap(command)) is not None:
            return status, why
        now = kernel.boottime()
        if deadline is not None and now >= deadline:
            below = tree.descendants(os.getpid())
            if why is None:
                why, deadline = "timeout", now + launch["graceSeconds"]
                _ask(below, command)
                continue
            _kill(below, command)
            deadline = now + 0.02
        wait = _LONGEST_SLEEP if deadline is None else min(max(deadline - now, 0), _LONGEST_SLEEP)
        ready = dict(poller.poll(wait * 1000 + 1))
        told = b""
        with contextlib.suppress(BlockingIOError):
            told = os.read(woken, 4096)
        if why is None and (hold in ready or signal.SIGTERM in told):
            why, deadline = "abandoned", kernel.boottime() + launch["graceSeconds"]
            _ask(tree.descendants(os.getpid()), command)
        if hold in ready:
            poller.unregister(hold)


def _reap(command: int) -> int | None:
    """Collects the dead; the wait status of the command once it is one of them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (dead := os.waitpid(-1, os.WNOHANG))[0]:
            if dead[0] == command:
                found = dead[1]
    return found


def _ask(below: list[tree.Process], command: int) -> None:
    for number in (signal.SIGTERM, signal.SIGCONT):
        tree.send_all(below, number)
        if not below:  # no /proc here
            with contextlib.suppress(OSError):
                os.killpg(command, number)


def _kill(below: list[tree.Process], command: int) -> None:
    tree.kill_all(below)
    if not below:
        with contextlib.suppress(OSError):
            os.killpg(command, signal.SIGKILL)


def _sweep() -> int:
    """Kills what the command left until nothing is below us; how many could not be killed."""
    deadline = kernel.boottime() + _KILL_SECONDS
    pause = 0.001
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        below = tree.descendants(os.getpid())
        if not below or kernel.boottime() > deadline:
            return len(below)
        tree.kill_all(below)
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
