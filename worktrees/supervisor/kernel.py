"""What the kernel does for a supervisor: adopt orphans, end workers with it, tell of file changes, count time.

Everything here has a fallback for kernels that cannot: no adoption, no notification, a clock that stops in suspend.
"""

from __future__ import annotations

import ctypes
import os
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IN_MODIFY = 0x2
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans(*, wanted: bool = True) -> None:
    """Makes this process the parent of descendants whose parent dies; survives `exec`."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def die_with_parent(signal_number: int) -> None:
    """Has the kernel send this process a signal when its parent ends."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)


def boottime() -> float:
    """Seconds since boot, suspend included; nobody can set this clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Notifier:
    """Tells when one of some files grows; `fd` is readable then, or -1 where the system cannot say."""

    def __init__(self, paths: list[str]) -> None:
        self.fd = -1
        if not hasattr(_libc, "inotify_init1"):
            return
        fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            return  # too many instances of this user: poll instead
        for path in paths:
            if _libc.inotify_add_watch(fd, os.fsencode(path), _IN_MODIFY) < 0:
                os.close(fd)
                return
        self.fd = fd

    def drain(self) -> None:
        """Forgets what was told so far."""
        try:
            while len(os.read(self.fd, 1 << 16)) > 1 << 15:
                pass
        except BlockingIOError:
            pass
