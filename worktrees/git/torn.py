"""What a power cut left of the objects in wt's own store, put aside before anything is written there again.

git syncs no loose object unless told to, and live looks and plans do not tell it: nothing that is recorded needs them.
So a cut may leave a name with nothing, or with half, behind it. Nobody refers to such an object, but git takes the name
for the object: the next snapshot with the same content would not write it, and lead to nothing. Therefore, once after
every start of the machine, before this store is used:

1. under a lock, what was written in the last hour before the newest object is read, and checked against its own sum
2. what is torn goes to `torn/` of the store; it is not deleted
3. the file `boot` says for which start of the machine that was done
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Iterator
    from pathlib import Path

# The kernel writes out what is older than half a minute; ten minutes on a laptop that saves its disk.
_WINDOW_SECONDS = 3600
_CHUNK = 1 << 20
_OBJECT = re.compile(r"[0-9a-f]{38}|[0-9a-f]{62}")


def put_torn_aside(store: Path) -> list[str]:
    """Puts torn objects aside if the machine was started since that was last done; their names.

    Costs two small reads where it was done. A store that may not be written, or is not there, is let be.
    """
    with contextlib.suppress(OSError):
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            boot = file.read().strip()
        mark = store / "boot"
        with contextlib.suppress(FileNotFoundError):
            if mark.read_text("utf-8", "replace") == boot:
                return []
        import fcntl  # once after a start

        fd = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.read(fd, _CHUNK).decode(errors="replace") == boot:
                return []  # somebody else did it meanwhile
            moved = _put_aside(store)
            os.ftruncate(fd, 0)
            os.pwrite(fd, boot.encode(), 0)
        finally:
            os.close(fd)
        return moved
    return []


def _put_aside(store: Path) -> list[str]:
    objects, aside = store / "objects", store / "torn"
    loose = [path for path in objects.glob("[0-9a-f][0-9a-f]/*") if _OBJECT.fullmatch(path.name)]
    times = {path: path.stat().st_mtime for path in (*loose, *objects.glob("pack/pack-*.*"))}
    if not times:
        return []
    since = max(times.values()) - _WINDOW_SECONDS
    torn = [path for path, time in sorted(times.items()) if time >= since and not _is_whole(path)]
    torn += [path for path in times if path.parent.name == "pack" and path.with_suffix(".pack") in torn]
    moved = []
    for path in dict.fromkeys(torn):
        name = path.name if path.parent.name == "pack" else path.parent.name + path.name
        aside.mkdir(exist_ok=True)
        os.replace(path, aside / name)
        moved.append(name)
    return moved


def _is_whole(path: Path) -> bool:
    if path.parent.name != "pack":
        return _sum_of_object(path) == path.parent.name + path.name
    if path.suffix not in (".pack", ".idx", ".rev"):
        return True
    return _ends_in_its_sum(path)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _sum_of_object(path: Path) -> str | None:
    """The name of the object in a loose file, None where there is none."""
    import zlib

    found = _algorithm(len(path.parent.name + path.name))
    inflated = zlib.decompressobj()
    try:
        for chunk in _chunks(path):
            rest = chunk
            while rest:
                found.update(inflated.decompress(rest, _CHUNK))
                rest = inflated.unconsumed_tail
        found.update(inflated.flush())
    except zlib.error:
        return None
    return found.hexdigest() if inflated.eof else None


def _ends_in_its_sum(path: Path) -> bool:
    """Packs and their indexes end in the sum of all that is before it."""
    digits = len(path.stem.removeprefix("pack-"))
    found, kept, size = _algorithm(digits), b"", digits // 2
    for chunk in _chunks(path):
        kept += chunk
        found.update(kept[:-size])
        kept = kept[-size:]
    return found.digest() == kept


def _algorithm(digits: int) -> hashlib._Hash:
    import hashlib

    return hashlib.sha256() if digits == 64 else hashlib.sha1(usedforsecurity=False)
