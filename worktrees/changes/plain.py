"""Reads git's own files without git: where a HEAD stands, what refs there are.

Worker-made repositories are looked at this way, since git obeys the configuration of whatever it stands in.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_OID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# No ref or pointer is longer; a worker can put anything there, also a file without end.
_MOST = 1 << 16


def as_key(name: str) -> str:
    """A file's name as text that every JSON file takes; `from_key` gives the name back, whatever its bytes."""
    return os.fsencode(name).decode("latin-1")


def from_key(key: str) -> str:
    """The inverse of `as_key`."""
    return os.fsdecode(key.encode("latin-1"))


def read(path: Path | str, most: int = _MOST) -> bytes | None:
    """The first bytes of a regular file, None when there is none or it cannot be read; never waits on a FIFO."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.read(fd, most)
    except OSError:
        return None
    finally:
        os.close(fd)


def packed_refs(common_dir: Path) -> dict[str, str]:
    """Refs of `packed-refs`."""
    content = read(common_dir / "packed-refs", 1 << 30) or b""
    pairs = (line.split(b" ", 1) for line in content.split(b"\n") if line[:1] not in (b"#", b"^", b""))
    return {os.fsdecode(pair[1]): pair[0].decode("ascii", "replace") for pair in pairs if len(pair) == 2}


def loose_refs(directory: Path, top: str) -> dict[str, str]:
    """Refs kept as files below `top` of a git directory; of a symbolic one what it says."""
    found: dict[str, str] = {}
    waiting = [top]
    while waiting:
        place = waiting.pop()
        try:
            entries = list(os.scandir(directory / place))
        except OSError:
            continue
        for entry in entries:
            name = f"{place}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                waiting.append(name)
            elif not name.endswith(".lock"):
                value = (
                    os.readlink(entry.path)
                    if entry.is_symlink()
                    else (read(entry.path) or b"").decode("ascii", "replace")
                )
                found[name] = value.strip()
    return found


def all_refs(common_dir: Path) -> dict[str, str]:
    """Every ref of a repository that keeps them in files."""
    return packed_refs(common_dir) | loose_refs(common_dir, "refs")


def head_commit(git_dir: Path, common_dir: Path | None = None) -> str | None:
    """What HEAD points at, None when that cannot be told by reading files."""
    content = (read(git_dir / "HEAD") or b"").strip()
    for _ in range(5):
        if _OID.fullmatch(content):
            return content.decode()
        if not content.startswith(b"ref: ") or b".." in content:
            return None
        name = os.fsdecode(content[5:].strip())
        for place in (git_dir, common_dir or git_dir):
            if (found := read(place / name)) is not None:
                content = found.strip()
                break
        else:
            packed = packed_refs(common_dir or git_dir).get(name)
            return packed if packed and _OID.fullmatch(packed.encode()) else None
    return None


def git_dir_of(work_tree: Path) -> Path | None:
    """The git directory a nested work tree's `.git` names, as its files say."""
    pointer = work_tree / ".git"
    if pointer.is_dir():
        return pointer
    content = read(pointer) or b""
    if not content.startswith(b"gitdir: "):
        return None
    return work_tree / os.fsdecode(content[8:].rstrip(b"\r\n"))
