"""Records on disk, written whole; the same guarantees as `store`, without what it loads."""

from __future__ import annotations

import contextlib
import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RESERVED_BYTES = 4096


def read_record(path: str) -> dict[str, Any] | None:
    """A JSON object, or None when there is none or it is damaged."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_record(path: str, value: dict[str, Any]) -> None:
    """Replaces a record whole. Not durable: what only matters while this boot lasts."""
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, _encode(value))
    finally:
        os.close(fd)
    os.rename(temporary, path)


def inode(path: str) -> str:
    """Names a directory itself, wherever it is moved; a copy has another name."""
    found = os.stat(path)
    return f"{found.st_dev}:{found.st_ino}"


class Reserved:
    """A record whose blocks are taken when the job starts, so that it can be written on a full disk."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.reserved")
        self._fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Not every file system can; then a full disk makes the job `lost`, which is still true.
        with contextlib.suppress(OSError):
            os.posix_fallocate(self._fd, 0, RESERVED_BYTES)

    def write(self, value: dict[str, Any]) -> None:
        """Writes the record, durable. Raises: OSError; may be tried again."""
        content = _encode(value)
        written = 0
        while written < len(content):
            written += os.pwrite(self._fd, content[written:], written)
        os.ftruncate(self._fd, len(content))
        os.fsync(self._fd)
        os.rename(self._temporary, self.path)
        directory = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
