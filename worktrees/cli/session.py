"""One call of the command: where it stands, how it answers, how it fails."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from worktrees.errors import GitFailed, WorktreesError
from worktrees.render.envelope import encode, envelope
from worktrees.render.failures import disk_trouble_of_git, of_the_system, report_bug
from worktrees.render.text import shown, terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from worktrees.boss import Boss
    from worktrees.model import Value
    from worktrees.render.text import Terminal

INTERRUPTED = 130
BROKEN_PIPE = 141


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

    def pass_on(self, piece: bytes) -> None:
        """What somebody else's program prints, to standard error; on a terminal without what could move its cursor."""
        if sys.stderr.isatty():
            lines = piece.decode("utf-8", "backslashreplace").replace("\r\n", "\n").split("\n")
            piece = "\n".join(shown(line.replace("\t", "    ")) for line in lines).encode("utf-8", "backslashreplace")
        with contextlib.suppress(BrokenPipeError):  # nobody listens; the answer goes elsewhere
            self.write(piece, to_stderr=True)

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
        return session.fail(report_bug(error, ["wt", *session.words]))
