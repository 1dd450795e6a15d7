"""Makes what git wrote survive a power cut: git syncs files when told to, and never the directories that name them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def sync_filesystem(path: Path | str) -> None:
    """Everything written to the file system that holds `path` is on disk when this returns.

    0.2-5 ms where little is dirty.
    """
    import ctypes  # most commands do without

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(path))
    finally:
        os.close(fd)
