"""One call of the command: where it stands, how it answers, how it fails."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worktrees.errors import GitFailed, Refused, StateBroken, WorktreesError
from worktrees.render.envelope import encode, envelope
from worktrees.render.text import shown, terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from worktrees.boss import Boss
    from worktrees.model import Value
    from worktrees.render.text import Terminal

INTERRUPTED = 130
BROKEN_PIPE = 141
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
# What git gave up again by failing, and a little more.
_NO_ROOM_BYTES = 1 << 16


class ReaderGone(Exception):
    """A broken pipe by another name: click makes an end of its own of the system's."""


class Session:
    """State of one call: the command's name, whether it answers in JSON, and what it has to warn of."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.command = ""
        # Known before parsing, because a call that cannot be parsed answers in JSON too.
        self.json = "--json" in (words[: words.index("--")] if "--" in words else words)
        self.notices: list[Mapping[str, Any]] = []
        self._boss: Boss | None = None

    # -------------------------------------------------------------------------------------------------- where we are
    def boss(self, **settings: Any) -> Boss:
        """The verbs for the repository around the current directory."""
        if self._boss is None:
            from worktrees.boss import Boss

            self._boss = Boss(".", **settings)
        return self._boss

    @property
    def common_dir(self) -> Path | None:
        """The repository's directory, when we know by now which it is."""
        return self._boss.repo.common_dir if self._boss is not None else None

    @property
    def out(self) -> Terminal:
        """How to write to standard output."""
        return terminal(sys.stdout)

    # ----------------------------------------------------------------------------------------------------- answering
    def answer(
        self,
        data: Value | Mapping[str, Any] | None,
        text: str | None = None,
        *,
        error: WorktreesError | None = None,
    ) -> int:
        """Prints an answer, its warnings and, where the answer is a no, the error; returns the exit status."""
        if self.json:
            dumped = data if data is None or isinstance(data, dict) else data.dump()  # type: ignore[union-attr]
            self.write(encode(envelope(self.command, dumped, warnings=self._all_notices(), error=error)))
        else:
            if text:
                self.say(text)
            for notice in self._all_notices():
                self.narrate(f"warning: {notice['message']}", "yellow")
            if error is not None:
                self._print_error(error)
        return error.exit_status if error is not None else 0

    def fail(self, error: WorktreesError) -> int:
        """Prints an error instead of an answer."""
        return self.answer(None, error=error)

    def interrupted(self) -> int:
        """Says so after ^C; returns the exit status."""
        if self.json:
            self.fail(WorktreesError("interrupted", code="interrupted", hint="wt status"))
        else:
            sys.stderr.write("\n")
            self.narrate("interrupted; workers that were started run on, see: wt status")
        return INTERRUPTED

    def say(self, text: str) -> None:
        """A piece of the answer for people."""
        self.write((text.rstrip("\n") + "\n").encode("utf-8", "backslashreplace"))

    def write(self, content: bytes, *, to_stderr: bool = False) -> None:
        """Bytes to standard output."""
        stream = sys.stderr if to_stderr else sys.stdout
        stream.flush()
        stream.buffer.write(content)
        stream.buffer.flush()

    @contextlib.contextmanager
    def progress(self, doing: str, total: int | None) -> Iterator[Callable[[int, int], None] | None]:
        """A progress bar on standard error, on a terminal and for work that takes long; None elsewhere."""
        if self.json or not sys.stderr.isatty() or total == 1:
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(doing, total=total)
            yield lambda done, of: bar.update(task, completed=done, total=of)

    def narrate(self, text: str, *styles: str) -> None:
        """A line on standard error."""
        out = terminal(sys.stderr)
        sys.stderr.write(out.paint("wt:", "dim") + " " + out.paint(shown(text), *styles) + "\n")

    def _all_notices(self) -> Iterable[Mapping[str, Any]]:
        found = list(self.notices)
        if self._boss is not None:
            found += [notice.dump() for notice in self._boss.notices]
        return found

    def _print_error(self, error: WorktreesError) -> None:
        out = terminal(sys.stderr)
        sys.stderr.write(f"{out.paint('wt: error:', 'red', 'bold')} {shown(error.message)}\n")
        if error.hint:
            sys.stderr.write(f"{out.paint('hint:', 'cyan')} {shown(error.hint)}\n")


def guarded(session: Session, call: Callable[[Session], int]) -> int:
    """Runs a call to its exit status; nothing gets past it but a signal."""
    try:
        return _caught(session, call)
    except (BrokenPipeError, ReaderGone):
        # The reader has gone. Python would complain again when it flushes at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _caught(session: Session, call: Callable[[Session], int]) -> int:
    try:
        return call(session)
    except KeyboardInterrupt:
        return session.interrupted()
    except (BrokenPipeError, ReaderGone):
        raise
    except GitFailed as error:
        return session.fail(disk_trouble_of_git(error, session.common_dir))
    except WorktreesError as error:
        return session.fail(error)
    except OSError as error:
        return session.fail(of_the_system(error))
    except Exception as error:  # noqa: BLE001 - a bug; its report must not be lost
        return session.fail(report_bug(error, session.words))


def of_the_system(error: OSError) -> WorktreesError:
    """What the operating system refused, as an error with a hint."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    where = f" at `{name}`" if name else ""
    details = {"errno": error.errno, "path": name or None}
    if error.errno in _DISK_FULL:
        return StateBroken(
            f"the disk is full{where}", code="disk-full", hint="make room, then run: wt doctor", details=details
        )
    if error.errno == errno.EROFS:
        return StateBroken(
            f"the file system is read-only{where}", code="read-only-disk", hint="make it writable, then run: wt doctor",
            details=details,
        )  # fmt: skip
    if error.errno in (errno.EACCES, errno.EPERM):
        return Refused(
            f"not permitted{where}", code="not-permitted", hint="look at the owner and mode: ls -ld", details=details
        )
    said = (error.strerror or str(error)).lower()
    return StateBroken(f"the system said `{said}`{where}", code="disk-failed", hint="wt doctor", details=details)


def disk_trouble_of_git(error: GitFailed, common_dir: Path | None = None) -> WorktreesError:
    """The same for what git met. git has no status of its own for it: its words choose the hint, never the outcome.

    Of a ref it could not write it says just that, so then the disk of `common_dir` is asked.
    """
    for number in (errno.ENOSPC, errno.EROFS):
        if os.strerror(number).encode() in error.stderr or (number == errno.ENOSPC and _is_full(common_dir)):
            found = of_the_system(OSError(number, os.strerror(number)))
            found.details = {**error.details, **found.details}
            return found
    return error


def _is_full(directory: Path | None) -> bool:
    if directory is None:
        return False
    try:
        disk = os.statvfs(directory)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _NO_ROOM_BYTES or (disk.f_files > 0 and disk.f_favail == 0)


def report_bug(error: BaseException, words: list[str]) -> WorktreesError:
    """Writes a report of an unexpected exception; the message names the file. Environment values are left out."""
    import platform
    import traceback

    from worktrees import __version__

    lines = [
        f"wt {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"command: {['wt', *words]!r}",
        f"directory: {os.getcwd() if os.path.isdir('.') else '(gone)'}",
        "",
        *traceback.format_exception(error),
    ]
    name = f"report-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}.txt"
    state_home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    where = "nowhere could it be written"
    for directory in (Path(state_home) / "wt" / "reports", Path(os.environ.get("TMPDIR") or "/tmp")):  # noqa: S108
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            (directory / name).write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        where = f"the report is in `{directory / name}`"
        break
    said = str(error).partition("\n")[0]
    return StateBroken(
        f"a bug in `wt`: {type(error).__name__}: {said}; {where}",
        code="bug",
        hint="read the report, then run: wt doctor",
    )
