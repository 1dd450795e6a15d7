"""What the operating system refused, and what is a bug, as errors with a code and a hint."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from worktrees.errors import Refused, StateBroken

if TYPE_CHECKING:
    from worktrees.errors import GitFailed, WorktreesError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
# What git gave up again by failing, and a little more.
_NO_ROOM_BYTES = 1 << 16


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
        f"command: {words!r}",
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
