"""`wt` in processes forked from one that has loaded it: the tests run it thousands of times, and loading takes longer
than most of what they ask.

A call has everything a started program has: arguments, environment, directory, standard streams, an end of its own.
What starting anew shows is seen by those that use `Wt.start`, the transcripts and the installed program.

As a program this is the one that forks. It is sent a byte and five descriptors for each call: a request, the standard
streams, and a pipe for the process id and the wait status, which come as lines.

A call may run another program than `wt`, and may be traced: `strace` comes when all is loaded, for under it that would
take ten times as long.
"""

import contextlib
import ctypes
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
        self,
        words: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        stdin: bytes | None = None,
        timeout: float,
        script: str | None = None,
        tracer: Sequence[str] = (),
    ) -> "subprocess.CompletedProcess[bytes]":
        """Like `subprocess.run` with the streams captured; `script` instead of `wt`, `tracer` attached to it.

        What is traced reads nothing.
        """
        door = self._door = self._door or self._start()
        with contextlib.ExitStack() as stack:

            def file(content: bytes = b"") -> IO[bytes]:
                made = stack.enter_context(tempfile.TemporaryFile(dir=_ROOM))
                made.write(content)
                made.seek(0)
                return made

            request = file(json.dumps([list(words), cwd, dict(env), script, bool(tracer)]).encode())
            given = file(stdin) if stdin is not None else stack.enter_context(open(os.devnull, "rb"))
            held, let_go = os.pipe()
            traced = stack.enter_context(os.fdopen(held, "rb"))
            out, err = file(), file()
            told, tell = os.pipe()
            answer = stack.enter_context(os.fdopen(told, "rb", buffering=0))
            streams = [each.fileno() for each in (request, traced if tracer else given, out, err)]
            socket.send_fds(door, [b"."], [*streams, tell])
            os.close(tell)
            process = int(answer.readline())
            try:
                if tracer:
                    stack.enter_context(_attached(tracer, process))
                    os.write(let_go, b".")
            finally:
                os.close(let_go)
            soon = select.poll()  # `select` knows no descriptor beyond 1023
            soon.register(answer, select.POLLIN)
            if not soon.poll(timeout * 1000):
                os.kill(process, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), timeout)
            status = os.waitstatus_to_exitcode(int(answer.readline()))
            for stream in (out, err):
                stream.seek(0)
            return subprocess.CompletedProcess(list(words), status, out.read(), err.read())


NURSERY = Nursery()


@contextlib.contextmanager
def _attached(tracer: Sequence[str], process: int) -> Iterator[None]:
    """With a `strace` at work on a process: once it says so, no call goes by unseen."""
    with subprocess.Popen([*tracer, "-p", str(process)], stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        said = strace.stderr.readline()
        assert b" attached" in said, said
        yield


def _serve(door: socket.socket) -> str | None:
    """Forks for every call. Returns the script, or `wt`, in a process that is to be it; None when nobody calls."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        _, streams, _, _ = socket.recv_fds(door, 1, 5)
        if not streams:
            return None
        if os.fork() == 0:
            door.close()
            return _attend(*streams)
        for stream in streams:
            os.close(stream)


def _attend(request: int, stdin: int, stdout: int, stderr: int, answer: int) -> str:
    """Forks the command and tells how it ends; in the command itself it returns what that is."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if process:
        for stream in (request, stdin, stdout, stderr):
            os.close(stream)
        _, status = os.waitpid(process, 0)
        os.write(answer, b"%d\n" % status)
        os._exit(0)
    with os.fdopen(request, "rb") as file:
        words, cwd, environment, script, traced = json.load(file)
    if traced:
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1))  # PR_SET_PTRACER, where only a parent may
    os.write(answer, b"%d\n" % os.getpid())
    for number, stream in enumerate((stdin, stdout, stderr)):
        os.dup2(stream, number)
    for stream in {stdin, stdout, stderr, answer} - {0, 1, 2}:
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    tempfile.tempdir = None
    sys.argv = [script or "wt", *words]
    if traced and not os.read(0, 1):
        os._exit(125)  # no strace came
    return script or "wt"


def _run_script(path: str) -> None:
    sys.path[:0] = [os.path.dirname(path), *filter(None, os.environ.get("PYTHONPATH", "").split(":"))]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    for name in _LOADED:
        importlib.import_module(name)
    program = _serve(socket.socket(fileno=int(sys.argv[1])))
    if program == "wt":
        from worktrees.cli import main

        main()
    elif program is not None:
        _run_script(program)
