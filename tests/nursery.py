"""`wt` in processes forked from one that has loaded it: the tests run it thousands of times, and loading takes longer
than most of what they ask.

A call has everything a started program has: arguments, environment, directory, standard streams, an end of its own.
What starting anew shows is seen by those that use `Wt.start`, the transcripts and the installed program.

As a program this is the one that forks. It is sent a byte and five descriptors for each call: a request, the standard
streams, and a pipe for the process id and the wait status, which come as lines.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO

_ROOM = tempfile.gettempdir()  # before any test says otherwise
_LOADED = (
    "worktrees.boss",
    "worktrees.cli.app",
    "worktrees.cli.options",
    "worktrees.cli.session",
    "worktrees.model.answers",
    "worktrees.render.answers",
)


class Nursery:
    """The process that forks, started at the first call; it ends with this one."""

    def __init__(self) -> None:
        self._door: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            cwd=_ROOM,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},  # nothing by which it would be a test's
        )
        theirs.close()
        return ours

    def run(
        self, words: Sequence[str], *, cwd: str, env: Mapping[str, str], stdin: bytes | None, timeout: float
    ) -> "subprocess.CompletedProcess[bytes]":
        """Like `subprocess.run` with the streams captured."""
        door = self._door = self._door or self._start()
        with contextlib.ExitStack() as stack:

            def file(content: bytes = b"") -> IO[bytes]:
                made = stack.enter_context(tempfile.TemporaryFile(dir=_ROOM))
                made.write(content)
                made.seek(0)
                return made

            request = file(json.dumps([list(words), cwd, dict(env)]).encode())
            given = file(stdin) if stdin is not None else stack.enter_context(open(os.devnull, "rb"))
            out, err = file(), file()
            told, tell = os.pipe()
            answer = stack.enter_context(os.fdopen(told, "rb", buffering=0))
            streams = [each.fileno() for each in (request, given, out, err)]
            socket.send_fds(door, [b"."], [*streams, tell])
            os.close(tell)
            process = int(answer.readline())
            soon = select.poll()  # `select` knows no descriptor beyond 1023
            soon.register(answer, select.POLLIN)
            if not soon.poll(timeout * 1000):
                os.kill(process, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), timeout)
            status = os.waitstatus_to_exitcode(int(answer.readline()))
            for stream in (out, err):
                stream.seek(0)
            return subprocess.CompletedProcess(list(words), status, out.read(), err.read())


def _serve(door: socket.socket) -> bool:
    """Forks for every call. Returns True in a process that is to be the command, False when nobody calls any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        _, streams, _, _ = socket.recv_fds(door, 1, 5)
        if not streams:
            return False
        if os.fork() == 0:
            door.close()
            return _attend(*streams)
        for stream in streams:
            os.close(stream)


def _attend(request: int, stdin: int, stdout: int, stderr: int, answer: int) -> bool:
    """Forks the command and tells how it ends; True in the command itself."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if process:
        for stream in (request, stdin, stdout, stderr):
            os.close(stream)
        os.write(answer, b"%d\n" % process)
        _, status = os.waitpid(process, 0)
        os.write(answer, b"%d\n" % status)
        os._exit(0)
    with os.fdopen(request, "rb") as file:
        words, cwd, environment = json.load(file)
    for number, stream in enumerate((stdin, stdout, stderr)):
        os.dup2(stream, number)
    for stream in {stdin, stdout, stderr, answer} - {0, 1, 2}:
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["wt", *words]
    return True


if __name__ == "__main__":
    for name in _LOADED:
        importlib.import_module(name)
    if _serve(socket.socket(fileno=int(sys.argv[1]))):
        from worktrees.cli import main

        main()
