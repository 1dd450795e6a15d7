"""Runs git: one hardened call for short commands, one process object for long conversations.

The environment is scrubbed of every inherited `GIT_*` variable but the user's choice of configuration files, identity
and the like: whoever calls `wt` from a hook exports `GIT_DIR` and `GIT_INDEX_FILE`, and they must not redirect us.
Configuration that could run a program behind our back (hooks, fsmonitor, submodule recursion, automatic gc, external
diff, pager, editor) is off in every call.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Self, cast

from worktrees.errors import GitFailed, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

# 2.39 is the first with `merge-tree --write-tree --stdin`, which merges N results in one process.
MINIMUM_VERSION = (2, 39)

_KEPT_VARIABLES = frozenset(
    {
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_SYSTEM",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_AUTHOR_NAME",
        "GIT_AUTHOR_EMAIL",
        "GIT_COMMITTER_NAME",
        "GIT_COMMITTER_EMAIL",
        "GIT_EXEC_PATH",
        # Who keeps large files as pointers must not have them fetched.
        "GIT_LFS_SKIP_SMUDGE",
    }
)
_SETTINGS = (
    "core.hooksPath=/dev/null",
    # Hooks that configuration names; these are the events of what we run. What this leaves: `_silenced`.
    "hook.post-index-change.enabled=false",
    "hook.reference-transaction.enabled=false",
    "core.fsmonitor=false",
    "core.alternateRefsCommand=",
    "core.pager=cat",
    "core.editor=false",
    "core.filesRefLockTimeout=5000",
    "core.packedRefsTimeout=10000",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "submodule.recurse=false",
    "diff.external=",
    "diff.ignoreSubmodules=dirty",
    "status.submoduleSummary=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
    "advice.detachedHead=false",
)
# Of what we run, what runs no hook.
_HOOKLESS = frozenset(
    {
        "cat-file", "commit-tree", "config", "diff-files", "diff-tree", "for-each-ref", "hash-object", "index-pack",
        "log", "ls-files", "ls-tree", "merge-base", "merge-tree", "pack-objects", "rev-list", "rev-parse",
        "unpack-objects", "var",
    }
)  # fmt: skip
_SECTIONS = re.compile(rb"\[(?:hook|include)", re.IGNORECASE)
_ARGUMENTS = tuple(word for setting in _SETTINGS for word in ("-c", setting))
# Objects, refs and index reach the disk before the call returns; the caller still syncs directories
# (`ObjectStore.make_durable`).
_DURABLE = ("-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync")

# Settings that stand in for the user's; None where his configuration is trusted.
_stand_ins: ContextVar[Mapping[str, str] | None] = ContextVar("stand_ins", default=None)
_inherited: ContextVar[tuple[int, ...]] = ContextVar("inherited", default=())


@contextlib.contextmanager
def inherited(fd: int) -> Iterator[None]:
    """Every git process started in this block holds a descriptor too, to its end.

    With a `flock` on it, whoever comes after our death can wait until the last of them is gone.
    """
    token = _inherited.set((*_inherited.get(), fd))
    try:
        yield
    finally:
        _inherited.reset(token)


def distrust(stand_ins: Mapping[str, str] | None) -> None:
    """From here on in this context these settings go before the user's, and git fetches nothing; None ends that."""
    _stand_ins.set(stand_ins)


@dataclass(frozen=True, slots=True)
class Completed:
    """What a git command answered."""

    command: list[str]
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Stdout as text without the last newline; only for ids and names of our own."""
        return self.stdout.decode("utf-8", "surrogateescape").rstrip("\n")

    @property
    def records(self) -> list[bytes]:
        """NUL-terminated records of a `-z` answer."""
        records = self.stdout.split(b"\0")
        if records and not records[-1]:
            records.pop()
        return records


def environment(
    extra: Mapping[str, str] | None = None, *, settings: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """The environment git runs in; `settings` go before the user's."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT_VARIABLES
    }
    clean.update(
        LC_ALL="C",
        GIT_TERMINAL_PROMPT="0",
        GIT_OPTIONAL_LOCKS="0",
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_LITERAL_PATHSPECS="1",
        GIT_EDITOR="false",
        GIT_ATTR_NOSYSTEM="1" if "GIT_CONFIG_NOSYSTEM" in os.environ else "0",
    )
    if (stand_ins := _stand_ins.get()) is not None:
        clean.update(GIT_ALLOW_PROTOCOL="none", GIT_NO_LAZY_FETCH="1")
        settings = {**stand_ins, **settings}
    if settings:
        # Not as arguments: those split at the first `=`, which may be part of a name.
        clean["GIT_CONFIG_COUNT"] = str(len(settings))
        for number, (name, value) in enumerate(settings.items()):
            clean.update({f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value})
    if extra:
        clean.update(extra)
    return clean


@cache
def executable() -> str:
    """The git program. Raises: Refused `git-missing`."""
    found = shutil.which("git")
    if found is None:
        raise Refused("`git` is not installed or not on PATH", code="git-missing", hint="install git 2.39 or newer")
    return found


@cache
def version() -> tuple[int, ...]:
    """Git's version. Raises: Refused `git-too-old` below 2.39."""
    text = subprocess.run([executable(), "version"], capture_output=True, check=True, env=environment()).stdout.decode()
    word = text.split()[2]
    number = tuple(int(part) for part in word.split(".") if part.isdigit())
    if number < MINIMUM_VERSION:
        raise Refused(
            f"git {word} is too old, `wt` needs {'.'.join(map(str, MINIMUM_VERSION))} or newer",
            code="git-too-old",
            hint="upgrade git",
        )
    return number


def temporary_place() -> str:
    """Where temporary files go: the first of TMPDIR and the system's places that can be written to.

    To be named in every call of `tempfile`, which else finds one by writing to place after place, and the last of them
    is the current directory: the boss's checkout.
    """
    named = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
    places = [place for place in (*named, "/tmp", "/var/tmp") if os.path.isabs(place)]  # noqa: S108
    # Where there is none, the first says why not.
    return next((place for place in places if os.access(place, os.W_OK | os.X_OK)), places[0])


def _silenced(word: str | bytes, git_dir: Path | str | None) -> dict[str, str]:
    """Settings that turn off hooks one by one, by the names that configuration gives them.

    Git 2.54 knows no other way. Newer ones turn off an event, but not where a command is configured under the event's
    own name: what a worker may write, so the repository's configuration is looked at before every call.
    """
    if word in _HOOKLESS or version() < (2, 54):
        return {}
    if version() >= (2, 55) and (git_dir is None or not _may_name_hooks(os.fspath(git_dir))):
        return {}
    done = run("config", "--null", "--name-only", "--get-regexp", r"^hook\..*\.", git_dir=git_dir, expect=(0, 1))
    return {f"{os.fsdecode(name.rpartition(b'.')[0])}.enabled": "false" for name in done.records}


def _may_name_hooks(git_dir: str) -> bool:
    """Whether a repository's configuration has hooks in it, or more files; names of sections know no escapes."""
    common = git_dir
    with contextlib.suppress(OSError), open(os.path.join(git_dir, "commondir"), "rb") as file:
        common = os.path.join(git_dir, os.fsdecode(file.read().rstrip(b"\n")))
    for path in (os.path.join(common, "config"), os.path.join(git_dir, "config.worktree")):
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            continue
        except OSError:
            return True  # git says what is wrong with it
        if _SECTIONS.search(content):
            return True
    return False


def _place(
    word: str | bytes,
    git_dir: Path | str | None,
    work_tree: Path | str | None,
    index: Path | str | None,
    env: Mapping[str, str] | None,
) -> dict[str, str]:
    extra = dict(env or {})
    if git_dir is not None:
        extra["GIT_DIR"] = os.fspath(git_dir)
    if work_tree is not None:
        extra["GIT_WORK_TREE"] = os.fspath(work_tree)
    if index is not None:
        extra["GIT_INDEX_FILE"] = os.fspath(index)
    return environment(extra, settings=_silenced(word, git_dir))


def _command(args: Sequence[str | bytes], config: Iterable[str], *, durable: bool) -> list[str | bytes]:
    settings: list[str] = [word for setting in config for word in ("-c", setting)]
    return [executable(), *_ARGUMENTS, *(_DURABLE if durable else ()), *settings, *args]


def _shown(args: Sequence[str | bytes]) -> list[str]:
    return [os.fsdecode(word) for word in args]


def run(
    *args: str | bytes,
    git_dir: Path | str | None,
    work_tree: Path | str | None = None,
    index: Path | str | None = None,
    cwd: Path | str | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    config: Iterable[str] = (),
    expect: tuple[int, ...] | None = (0,),
    durable: bool = False,
) -> Completed:
    """Runs one git command to its end.

    `git_dir` None means discovery from `cwd` and is for `discover` alone. `expect` lists the statuses the caller
    understands, None any. With a `work_tree` git itself goes there; the process starts in `/` so that nothing
    relative is found by accident.

    Raises: GitFailed for any other status, a signal included.
    """
    command = _command(args, config, durable=durable)
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=cwd if cwd is not None else "/",
        env=_place(args[0], git_dir, work_tree, index, env),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        check=False,
        pass_fds=_inherited.get(),
    )
    if logging := sys.modules.get("logging"):  # nobody listens who has not loaded it
        seconds = time.perf_counter() - began
        logging.getLogger("worktrees.git").debug(
            "$ git %s (%s, %.1f ms, %d)", " ".join(_shown(args)), git_dir, seconds * 1e3, done.returncode
        )
    if expect is not None and done.returncode not in expect:
        raise GitFailed(_shown(args), done.returncode, done.stderr)
    return Completed(_shown(args), done.returncode, done.stdout, done.stderr)


class Process:
    """A git command one talks to: write a request, read its answer, close. For `cat-file --batch`, `merge-tree
    --stdin`.

    The caller must read an answer before it writes requests larger than a pipe, and uses it as a context manager.
    """

    def __init__(
        self,
        *args: str | bytes,
        git_dir: Path | str,
        work_tree: Path | str | None = None,
        index: Path | str | None = None,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        config: Iterable[str] = (),
    ) -> None:
        self.args = _shown(args)
        # A file, not a pipe: nobody reads warnings during the conversation, and a full pipe would stop it.
        self._stderr = tempfile.TemporaryFile(dir=temporary_place())  # noqa: SIM115 - lives as long as the process
        # GIT_FLUSH: answers come when asked for, not when a buffer is full.
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            _command(args, config, durable=False),
            cwd=cwd if cwd is not None else "/",
            env=_place(args[0], git_dir, work_tree, index, {"GIT_FLUSH": "1", **(env or {})}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            pass_fds=_inherited.get(),
        )
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)

    def write(self, request: bytes) -> None:
        """Sends a request. Raises: GitFailed when git is gone."""
        try:
            self._requests.write(request)
            self._requests.flush()
        except BrokenPipeError:
            self.fail()

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises: GitFailed when git ends before."""
        content = self._answers.read(size)
        if len(content) < size:
            self.fail()
        return content

    def read_until(self, end: bytes) -> bytes:
        """Bytes up to and without `end` (one byte). Raises: GitFailed when git ends before."""
        if end == b"\n":
            line = self._answers.readline()
            if not line.endswith(b"\n"):
                self.fail()
            return line[:-1]
        content = bytearray()
        while (byte := self._answers.read(1)) != end:
            if not byte:
                self.fail()
            content += byte
        return bytes(content)

    def fail(self) -> None:
        """Ends the process and raises GitFailed with what it said."""
        status, stderr = self._end()
        raise GitFailed(self.args, status, stderr)

    def _end(self) -> tuple[int, bytes]:
        if self._stderr.closed:
            return self._process.returncode, b""
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.communicate(timeout=30)
        self._process.wait(30)
        with self._stderr:
            self._stderr.seek(0)
            return self._process.returncode, self._stderr.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        status, stderr = self._end()
        if kind is None and status != 0:
            raise GitFailed(self.args, status, stderr)


def pipe(
    producer: Sequence[str | bytes],
    consumer: Sequence[str | bytes],
    *,
    producer_git_dir: Path | str,
    consumer_git_dir: Path | str,
    stdin: bytes,
    producer_env: Mapping[str, str] | None = None,
    durable: bool = False,
) -> Completed:
    """Runs two git commands, one's output into the other's input, without holding the stream in memory.

    Returns the consumer's answer. Raises: GitFailed when either ends with anything but 0.
    """
    first = subprocess.Popen(
        _command(producer, (), durable=False),
        cwd="/",
        env=_place(producer[0], producer_git_dir, None, None, producer_env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=_inherited.get(),
    )
    first_input = cast("IO[bytes]", first.stdin)
    first_output = cast("IO[bytes]", first.stdout)
    first_errors = cast("IO[bytes]", first.stderr)
    second = subprocess.Popen(
        _command(consumer, (), durable=durable),
        cwd="/",
        env=_place(consumer[0], consumer_git_dir, None, None, None),
        stdin=first_output,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=_inherited.get(),
    )
    first_output.close()
    try:
        first_input.write(stdin)
        first_input.close()
    except BrokenPipeError:
        pass  # its exit status tells why
    answer, second_stderr = second.communicate()
    first_stderr = first_errors.read()
    first_errors.close()
    if first.wait() != 0:
        raise GitFailed(_shown(producer), first.returncode, first_stderr)
    if second.returncode != 0:
        raise GitFailed(_shown(consumer), second.returncode, second_stderr)
    return Completed(_shown(consumer), second.returncode, answer, second_stderr)
