"""What checks said: `wt-state/gate/`, kept so that a finished check is not run again.

    results/<key>.json    the outcome of one command on one tree under the same circumstances, durable
    logs/<run>.log        what a run printed, the beginning and the end of it
    runs.jsonl            every run there ever was, appended and durable

A key is made of everything we know that decides an outcome: the tree, the text of the command, the setup commands
before it, the environment (but for what differs from one terminal to the next), the confinement, and the files brought
along from the boss's checkout by size and time. What we do not see (network, clock, installed programs, what a linked
directory holds) is the reason for `--no-cache`. A run whose time was up says nothing about the tree and is not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import deque
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from worktrees.errors import StateBroken
from worktrees.store import append_line, new_id, now, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from worktrees.model import CheckRun, Oid
    from worktrees.store import State

KEPT_RUNS = 200
_HEAD_BYTES = 256 << 10
_TAIL_BYTES = 768 << 10
# Differ from one terminal or one run to the next and decide nothing.
_PASSING = (
    "_", "COLORTERM", "COLUMNS", "DBUS_*", "DESKTOP_*", "DISPLAY", "GIT_CONFIG_*", "GPG_TTY", "INVOCATION_ID",
    "JOURNAL_STREAM", "LINES", "OLDPWD", "PWD", "SHLVL", "SSH_*", "STY", "TEMP", "TERM", "TERM_*", "TMP", "TMPDIR",
    "TMUX*", "VTE_*", "WAYLAND_*", "WINDOW*", "WT_*", "XDG_*",
)  # fmt: skip


def key(tree: Oid, command: str, circumstances: Mapping[str, Any]) -> str:
    """Names an outcome."""
    whole = json.dumps([tree, command, circumstances], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def lasting(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that may decide an outcome."""
    return {
        name: value
        for name, value in environment.items()
        if not any(fnmatchcase(name, pattern) for pattern in _PASSING)
    }


def brought(work_tree: Path, paths: Iterable[bytes]) -> list[list[str | int]]:
    """Files of the boss's checkout that come along, as they are now."""
    found: list[list[str | int]] = []
    for path in paths:
        with contextlib.suppress(OSError):
            seen = os.lstat(os.path.join(os.fsencode(work_tree), path))
            found.append([path.hex(), seen.st_mode, seen.st_size, seen.st_mtime_ns])
    return found


class Results:
    """The results of one repository."""

    def __init__(self, state: State) -> None:
        self.root = state.root / "gate"

    def prepare(self) -> None:
        """Makes the directories."""
        for directory in (self.root, self.root / "results", self.root / "logs"):
            directory.mkdir(mode=0o700, exist_ok=True)

    def recall(self, name: str) -> dict[str, Any] | None:
        """An outcome, None when there is none that can be understood."""
        with contextlib.suppress(StateBroken):
            found = read_json(self.root / "results" / f"{name}.json")
            if found is not None and isinstance(found.get("exitCode"), int):
                return found
        return None

    def remember(self, name: str, run: CheckRun, *, tries: int) -> None:
        """Keeps an outcome; on disk when this returns. `tries` is how often the command was run for it."""
        record = {"exitCode": run.exit_code, "seconds": run.seconds, "log": run.log, "tries": tries, "at": now()}
        write_json(self.root / "results" / f"{name}.json", record, durable=True)
        self._forget_old("results", ".json")

    def note(self, run: CheckRun) -> None:
        """Adds a run to the record of all; on disk when this returns."""
        append_line(self.root / "runs.jsonl", {"at": now(), **run.dump()}, durable=True)

    def log(self) -> Log:
        """A new log."""
        self._forget_old("logs", ".log")
        return Log(self.root / "logs" / f"{new_id('c')}.log")

    def _forget_old(self, directory: str, suffix: str) -> None:
        """Of each kind a bounded number is kept."""
        with contextlib.suppress(OSError), os.scandir(self.root / directory) as found:
            files = [each for each in found if each.name.endswith(suffix) and not each.name.startswith(".")]
            for each in sorted(files, key=lambda each: each.stat().st_mtime)[: -KEPT_RUNS or None]:
                os.unlink(each.path)


class Log:
    """What a run prints: as it comes to the file up to a limit, then only the end of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("xb", buffering=0)
        self._room = _HEAD_BYTES
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._left_out = 0

    def write(self, piece: bytes) -> None:
        """Takes in a piece."""
        head, rest = piece[: self._room], piece[self._room :]
        self._file.write(head)
        self._room -= len(head)
        if rest:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
        while self._tail_bytes - len(self._tail[0] if self._tail else b"") > _TAIL_BYTES:
            gone = self._tail.popleft()
            self._tail_bytes -= len(gone)
            self._left_out += len(gone)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            if self._left_out:
                self._file.write(f"\n[wt: {self._left_out} bytes are left out here]\n".encode())
            self._file.write(b"".join(self._tail))
