"""Sleeping until something happens to some jobs: by notification where the system can, else by polling with back-off.

A wake-up is a hint and never the truth: who wakes looks at the records. So are the ends of supervisors, which a poll on
a process descriptor tells at once; without one a look every few seconds finds them.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import TYPE_CHECKING, Any, Self

from worktrees.jobs import records
from worktrees.store import is_alive

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.5


class Watch:
    """Watches the directories of jobs; `content` also what is written into their files, not only new records."""

    def __init__(self, directories: Sequence[Path], *, content: bool = False) -> None:
        self._directories = list(directories)
        self._poll = select.poll()
        self._supervisors: dict[int, Path] = {}
        self._pause = _FIRST_PAUSE
        self._notifier: Any = _notifier(self._directories, content=content)
        if self._notifier is not None:
            self._poll.register(self._notifier.fileno(), select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._supervisors:
            os.close(fd)
        if self._notifier is not None:
            self._notifier.close()

    def wait(self, seconds: float) -> None:
        """Sleeps until something happened, at most `seconds`."""
        self._find_supervisors()
        if self._notifier is None:
            seconds = min(seconds, self._pause)
            self._pause = min(self._pause * 1.5, _LONGEST_PAUSE)
        # Rounded up: the last look is not before the end.
        for fd, _ in self._poll.poll(seconds * 1000 + 1):
            if fd in self._supervisors:
                self._poll.unregister(fd)
                os.close(fd)
                del self._supervisors[fd]
            else:
                self._notifier.read(timeout=0)

    def moved(self) -> None:
        """Something did happen: look again soon where there is no notification."""
        self._pause = _FIRST_PAUSE

    def _find_supervisors(self) -> None:
        watched = set(self._supervisors.values())
        for directory in self._directories:
            if directory in watched or not hasattr(os, "pidfd_open"):
                continue
            record = records.witness(directory, "supervisor.json")
            if record is None or not is_alive(record):
                continue
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(int(record["pid"]))
                if is_alive(record):
                    self._supervisors[fd] = directory
                    self._poll.register(fd, select.POLLIN)
                else:
                    os.close(fd)


def _notifier(directories: Sequence[Path], *, content: bool) -> Any:
    """An inotify object, or None: not this system, or the user has no more of them to give."""
    try:
        from inotify_simple import INotify, flags
    except (ImportError, OSError):
        return None
    try:
        notifier = INotify()
    except OSError:
        return None
    mask = flags.MOVED_TO | (flags.MODIFY | flags.CREATE if content else 0)
    try:
        for directory in directories:
            notifier.add_watch(directory, mask)
    except OSError:
        notifier.close()
        return None
    return notifier
