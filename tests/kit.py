"""What tests are made of: a repository, the command line, gates for workers, facts to wait for.

Nothing here knows how `worktrees` works inside; a test that needs more than these reads like a transcript of git and
`wt` commands. Everything lives below the test's own temporary directory, which also is how processes that outlive a
test are told from everybody else's: the directory is named in their environment.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil

from tests.nursery import NURSERY

T = TypeVar("T")
PathLike = str | bytes | os.PathLike[str]

OUR_AREAS = ("objects", "wt-state", "worktrees")
"""Directories below `.git` that `wt`, or git on its behalf, may write to."""


PATIENCE_SECONDS = 120
"""How long to wait for what must come; only a test that fails waits so long, and a busy machine is no failure."""


def eventually(predicate: Callable[[], T], timeout: float = PATIENCE_SECONDS, what: str = "") -> T:
    """The first truthy answer of `predicate`, asked again and again for `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.002
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() > deadline:
            message = f"not within {timeout} s: {what or getattr(predicate, '__name__', predicate)}; last: {answer!r}"
            raise AssertionError(message)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


# ---------------------------------------------------------------------------------------------------- repository


class RepoKit:
    """A repository to work on, with its checkout at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken_on_purpose = False
        """Set by a test that damages the repository: the `git fsck` at its end is left out."""
        self._clock = 1_700_000_000

    @classmethod
    def make(cls, path: Path) -> Self:
        """A new repository with two commits: text, a program, a directory, a binary file, a file that is ignored."""
        path.mkdir(parents=True)
        kit = cls(path)
        kit.git("init", "--quiet", "--initial-branch=main")
        kit.write("README.md", "# sample\n\nA repository for tests.\n")
        kit.write("src/app.py", "".join(f"line {number}\n" for number in range(1, 31)))
        kit.write("src/util.py", "def add(a, b):\n    return a + b\n")
        kit.commit("first")
        kit.write(".gitignore", "*.log\nbuild/\n")
        kit.write("docs/guide.md", "guide\n")
        kit.write("tool.sh", "#!/bin/sh\necho tool\n", mode=0o755)
        kit.write("data.bin", bytes(range(256)))
        kit.commit("second")
        return kit

    def git(
        self,
        *args: PathLike,
        input: bytes | str | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: PathLike | None = None,
    ) -> bytes:
        """Standard output of one git command in the checkout; with `check`, any status but 0 fails the test."""
        self._clock += 1
        date = f"{self._clock} +0000"
        done = subprocess.run(
            ["git", *args],
            cwd=cwd or self.path,
            input=input.encode() if isinstance(input, str) else input,
            stdin=subprocess.DEVNULL if input is None else None,
            env={**os.environ, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date, **(env or {})},
            capture_output=True,
            check=False,
            timeout=120,
        )
        if check and done.returncode:
            words = " ".join(shlex.quote(os.fsdecode(arg)) for arg in args)
            message = f"git {words}: status {done.returncode}\n{done.stderr.decode(errors='replace')}"
            raise AssertionError(message)
        return done.stdout

    def text(self, *args: PathLike) -> str:
        """`git` for answers that are one line of text."""
        return self.git(*args).decode().strip()

    def write(self, path: PathLike, content: bytes | str, mode: int | None = None) -> Path:
        """Write a file of the checkout, parent directories included."""
        target = self.path / os.fsdecode(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        if mode is not None:
            target.chmod(mode)
        return target

    def read(self, path: PathLike) -> bytes:
        """The content of a file of the checkout."""
        return (self.path / os.fsdecode(path)).read_bytes()

    def commit(self, message: str) -> str:
        """Commit everything there is (empty commits too); the id of the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.head()

    def head(self, rev: str = "HEAD") -> str:
        """The commit that `rev` names."""
        return self.text("rev-parse", "--verify", f"{rev}^{{commit}}")

    def tree(self, rev: str = "HEAD") -> dict[bytes, tuple[str, str]]:
        """Every path of a commit's tree with its mode and object id, as git lists it."""
        entries: dict[bytes, tuple[str, str]] = {}
        for line in self.git("ls-tree", "-r", "-z", "--full-tree", rev).split(b"\0")[:-1]:
            fields, path = line.split(b"\t", 1)
            mode, _kind, oid = fields.decode().split()
            entries[path] = (mode, oid)
        return entries

    def fingerprint(self, ignore_refs: Iterable[str] = ()) -> dict[str, tuple[object, ...]]:
        """Everything of the user's that could change, to be compared before and after.

        Keys: `git:` files below `.git` (index, config, hooks, reflogs, stash, refs...), `ref:` refs as git lists them,
        `file:` the checkout. `ignore_refs` are patterns (`refs/wt/*`) of refs left out, their reflogs too.
        """
        ignored = tuple(ignore_refs)

        def ignores(name: str) -> bool:
            return any(fnmatch(name, pattern) for pattern in ignored)

        answer: dict[str, tuple[object, ...]] = {}
        common = self.path / ".git"
        for name, value in _walk(common, skip=OUR_AREAS):
            if not ignores(name.removeprefix("logs/")):
                answer[f"git:{name}"] = value
        for line in self.git("for-each-ref", "--format=%(refname) %(objectname) %(symref)").decode().splitlines():
            name, *rest = line.split(" ")
            if not ignores(name):
                answer[f"ref:{name}"] = tuple(rest)
        for name, value in _walk(self.path, skip=(".git",)):
            answer[f"file:{name}"] = value
        return answer

    def assert_sound(self) -> None:
        """`git fsck` finds nothing broken."""
        done = subprocess.run(
            ["git", "fsck", "--full", "--no-dangling", "--no-progress"],
            cwd=self.path,
            capture_output=True,
            check=False,
            timeout=300,
        )
        noise = (b"notice:", b"hint:")  # an unborn branch, no reflog, a sparse index: not damage
        lines = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith(noise)]
        assert done.returncode == 0, (done.returncode, lines)
        assert not lines, lines


def _walk(root: Path, skip: Sequence[str]) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Every file below `root` but those in the top directories `skip`: mode with its digest or target."""
    for directory, names, files in os.walk(root):
        if Path(directory) == root:
            names[:] = [name for name in names if name not in skip]
            files = [name for name in files if name not in skip]  # noqa: PLW2901 - `.git` may be a file
        links = [name for name in names if (Path(directory) / name).is_symlink()]
        for name in (*files, *links):
            path = Path(directory) / name
            info = path.lstat()
            content = ""
            if stat.S_ISREG(info.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            yield str(path.relative_to(root)), (info.st_mode, content)


# ---------------------------------------------------------------------------------------------------- command line


@dataclass(frozen=True)
class Answer:
    """What one `wt` command said."""

    argv: tuple[str, ...]
    status: int
    """As a shell sees it: 128 + n when ended by signal n."""
    stdout: str
    stderr: str

    @functools.cached_property
    def json(self) -> Any:
        """The one document of `--json`; anything else on standard output fails the test."""
        try:
            return json.loads(self.stdout)
        except ValueError as error:
            raise AssertionError(f"not one JSON document ({error}):\n{self}") from None

    @property
    def data(self) -> Any:
        """`data` of the JSON document."""
        return self.json["data"]

    @property
    def code(self) -> str | None:
        """`error.code` of the JSON document, None when there is no error."""
        error = self.json["error"]
        return None if error is None else str(error["code"])

    def __str__(self) -> str:
        words = " ".join(shlex.quote(word) for word in self.argv)
        return f"$ wt {words}\n{self.stdout}------- stderr -------\n{self.stderr}[exit status: {self.status}]"


@dataclass(frozen=True)
class Wt:
    """The real command line, in a process of its own; forked from one that has loaded it (`tests.nursery`)."""

    cwd: Path

    def argv(self, *args: PathLike) -> list[str]:
        """The command as it is started; -P keeps modules of the repository under test out of the import path."""
        return [sys.executable, "-P", "-m", "worktrees", *(os.fsdecode(arg) for arg in args)]

    def __call__(
        self,
        *args: PathLike,
        cwd: PathLike | None = None,
        env: Mapping[str, str | None] | None = None,
        input: bytes | str | None = None,
        timeout: float = PATIENCE_SECONDS,
        status: int | None = None,
        anew: bool = False,
    ) -> Answer:
        """Run `wt ARGS`; in `env`, None removes a variable; with `status`, any other one fails the test.

        `anew` starts the program, as a child of the test; otherwise it is forked from one that has it loaded.
        """
        given = input.encode() if isinstance(input, str) else input
        where, everything = os.fsdecode(cwd or self.cwd), environment(env)
        if anew or "PYTHONPATH" in everything:
            nothing = subprocess.DEVNULL if given is None else None
            done = subprocess.run(
                self.argv(*args),
                cwd=where,
                env=everything,
                input=given,
                stdin=nothing,
                capture_output=True,
                check=False,
                timeout=timeout,
            )
        else:
            words = [os.fsdecode(arg) for arg in args]
            done = NURSERY.run(words, cwd=where, env=everything, stdin=given, timeout=timeout)
        answer = Answer(
            argv=tuple(os.fsdecode(arg) for arg in args),
            status=done.returncode if done.returncode >= 0 else 128 - done.returncode,
            stdout=done.stdout.decode(errors="surrogateescape"),
            stderr=done.stderr.decode(errors="surrogateescape"),
        )
        assert "Traceback (most recent call last)" not in answer.stderr, str(answer)
        assert status is None or answer.status == status, str(answer)
        return answer

    def start(
        self, *args: PathLike, cwd: PathLike | None = None, env: Mapping[str, str | None] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start `wt ARGS` with its output in pipes, for tests that kill it or run many at once."""
        return subprocess.Popen(
            self.argv(*args),
            cwd=cwd or self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(env),
        )


def environment(changes: Mapping[str, str | None] | None) -> dict[str, str]:
    """The environment with `changes`; None removes a variable."""
    merged: dict[str, str | None] = {**os.environ, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def ssh_key(place: Path) -> Path:
    """A new key to sign with, at this place; skips, with the reason, where there is no ssh."""
    if shutil.which("ssh-keygen") is None:
        import pytest

        pytest.skip("ssh-keygen is not installed")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "boss", "-f", place], check=True)
    return place


# ---------------------------------------------------------------------------------------------------- gates


class Gate:
    """A place where workers say that they have arrived and wait until the test lets them on.

    Two FIFOs in the directory `path`, both held open by the test, so a worker never blocks on its announcement, and
    goes on by itself (with status 97) should the test die. One byte lets one worker pass.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True)
        self.path = path
        self.arrived: list[str] = []
        os.mkfifo(path / "arrivals")
        os.mkfifo(path / "gate")
        self._arrivals = os.open(path / "arrivals", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._gate = os.open(path / "gate", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""
        self._closed = False

    def shell(self, label: str = "${WT_JOB:-$$}") -> str:
        """Shell commands for a worker: announce `label` (the shell expands it), then wait to be let on."""
        arrivals, gate = (shlex.quote(str(self.path / name)) for name in ("arrivals", "gate"))
        return f'echo "{label}" > {arrivals}; read -r _ < {gate} || exit 97'

    def wait_arrivals(self, count: int, timeout: float = PATIENCE_SECONDS) -> list[str]:
        """Wait until `count` workers have arrived since the gate was made; their labels in order of arrival."""
        eventually(lambda: self._count() >= count, timeout, f"{count} arrivals at {self.path.name}: {self.arrived}")
        return list(self.arrived)

    def open_for(self, count: int) -> None:
        """Let exactly `count` workers on, those waiting or the next to come."""
        os.write(self._gate, b"\n" * count)

    def release(self) -> None:
        """Let everybody on, now and later."""
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self._gate, b"\n" * 4096)

    def waiting(self) -> int:
        """How many passes are still unused, which is 0 once as many workers went on as were let on."""
        answer = fcntl.ioctl(self._gate, termios.FIONREAD, b"\0" * 4)
        return int.from_bytes(answer, sys.byteorder)

    def close(self) -> None:
        """Let everybody on and be gone."""
        if not self._closed:
            self.release()
            self._closed = True
            os.close(self._gate)
            os.close(self._arrivals)

    def _count(self) -> int:
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._arrivals, 65536):
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                self.arrived += [line.decode() for line in lines]
        return len(self.arrived)


# ---------------------------------------------------------------------------------------------------- processes


def processes_of(directory: Path) -> list[psutil.Process]:
    """Living processes other than this one with `directory` in a value of their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if any(str(directory) in value for value in process.environ().values()):
                found.append(process)
    return found


def sweep(directory: Path, grace: float = 30) -> list[str]:
    """Processes of a test that are still there after `grace` seconds, killed; a line for each."""
    deadline = time.monotonic() + grace
    while (found := processes_of(directory)) and time.monotonic() < deadline:
        time.sleep(0.02)
    survivors = []
    for process in found:
        with contextlib.suppress(psutil.Error):
            job = process.environ().get("WT_JOB", "no job")
            survivors.append(f"{process.pid} ({job}): {shlex.join(process.cmdline())}")
            process.send_signal(signal.SIGKILL)
    return survivors
