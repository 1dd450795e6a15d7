"""Refs of ours (`refs/wt/…`): removed without git's help, and freed from the locks of a git that was killed.

`git update-ref -d` takes the lock on *all* packed refs, and a kill in that moment leaves it: from then on the user's
own `gc`, `pack-refs` and `branch -d` fail. So a ref goes by git's protocol, under locks that say whose they are:

1. `packed-refs.lock`, only where the ref is packed: a hard link to a file that reads `wt`, with a `flock` on it. It
   counts as long as that is held; after our death whoever comes next takes it away
2. `packed-refs` is replaced whole, without the ref; the lock goes, and both are on disk before it goes on: a lock that
   comes back after a power cut would stop the user's `gc`
3. the ref's own lock, its file, its reflog, the lock; directories that are empty now

Nobody but us writes these refs, so a lock on one of them that stays the same for longer than any git command takes was
left by a dead one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from worktrees.errors import Busy

PATIENCE_SECONDS = 1.0
_LOCK_SECONDS = 10.0
_OURS = b"wt\n"
_ASIDE = "packed-refs.wt-"


def break_dead(*locks: Path) -> list[Path]:
    """Removes those of the locks that do not change for `PATIENCE_SECONDS`; costs one `lstat` each where there is none.

    For locks that only we take: of refs of ours, and of our own store.
    """
    found = {path: mark for path in locks if (mark := _mark(path))}
    if not found:
        return []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while found and time.monotonic() < deadline:
        time.sleep(0.02)
        found = {path: mark for path, mark in found.items() if _mark(path) == mark}
    for path in found:
        path.unlink(missing_ok=True)
    return list(found)


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        held = path.lstat()
    except OSError:
        return None
    return held.st_ino, held.st_mtime_ns


def break_dead_packed(common_dir: Path) -> bool:
    """Removes a lock on all packed refs if it is ours and we died, and what else that left; whether there was one."""
    for aside in common_dir.glob(f"{_ASIDE}*"):
        if not _runs(aside.name.removeprefix(_ASIDE).partition("-")[0]):
            aside.unlink(missing_ok=True)
    if not is_dead_packed(common_dir):
        return False
    (common_dir / "packed-refs.lock").unlink(missing_ok=True)
    return True


def is_dead_packed(common_dir: Path) -> bool:
    """Whether there is a lock on all packed refs that is ours, and we died."""
    lock = common_dir / "packed-refs.lock"
    try:
        return lock.stat().st_size == len(_OURS) and lock.read_bytes() == _OURS and not _is_held(lock)
    except OSError:
        return False


def _is_held(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True


def _aside(common_dir: Path) -> tuple[Path, int]:
    """A file of ours beside the packed refs, open; its name says whose it is."""
    path = common_dir / f"{_ASIDE}{os.getpid()}-{os.urandom(4).hex()}"
    return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def delete(common_dir: Path, name: str) -> None:
    """Removes a ref of ours from a repository that keeps refs in files. Raises: Busy, OSError."""
    if _packed_without(common_dir, name) is not None:
        with _packed_lock(common_dir):
            content = _packed_without(common_dir, name)
            if content is not None:
                _replace(common_dir / "packed-refs", content)
    place, lock = common_dir / name, common_dir / f"{name}.lock"
    if place.is_file():
        break_dead(lock)
        _wait_for(lock, lambda: _make(lock))
        try:
            place.unlink(missing_ok=True)
        finally:
            lock.unlink(missing_ok=True)
    (common_dir / "logs" / name).unlink(missing_ok=True)
    for top in (common_dir, common_dir / "logs"):
        for above in (top / name).relative_to(top).parents:
            if len(above.parts) > 1:
                with contextlib.suppress(OSError):  # others have theirs in it
                    (top / above).rmdir()


def _packed_without(common_dir: Path, name: str) -> bytes | None:
    """The packed refs without one; None when it is not among them."""
    try:
        lines = (common_dir / "packed-refs").read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return None
    wanted = b" " + name.encode() + b"\n"
    kept, gone = [], False
    for line in lines:
        if line.startswith(b"^") and gone:  # what the tag before points at
            continue
        gone = line.endswith(wanted) and not line.startswith(b"#")
        if not gone:
            kept.append(line)
    return b"".join(kept) if len(kept) < len(lines) else None


@contextlib.contextmanager
def _packed_lock(common_dir: Path) -> Iterator[None]:
    lock = common_dir / "packed-refs.lock"
    aside, fd = _aside(common_dir)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(fd, _OURS)
        os.fsync(fd)  # a power cut may leave the lock, and it must still say whose it is
        _wait_for(lock, lambda: _link(aside, lock) or (break_dead_packed(common_dir) and _link(aside, lock)))
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            _sync(common_dir)  # what was replaced under the lock, and that it is gone
    finally:
        aside.unlink(missing_ok=True)
        os.close(fd)


def _wait_for(lock: Path, take: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while not take():
        if time.monotonic() > deadline:
            raise Busy(
                f"`{lock}` exists: another git command is at work on the refs, or one died there",
                hint=f"when no git command runs any more: rm {lock}",
                details={"path": os.fspath(lock)},
            )
        time.sleep(0.02)


def _make(lock: Path) -> bool:
    try:
        os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def _link(aside: Path, lock: Path) -> bool:
    try:
        os.link(aside, lock)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}:
            raise
        # No hard links on this file system; a kill just here leaves a lock that only its user can judge.
        return _make(lock)
    return True


def _replace(path: Path, content: bytes) -> None:
    """Replaces a file of git's whole, with the mode it has; durable once its directory is synced."""
    fresh, fd = _aside(path.parent)
    try:
        os.fchmod(fd, path.stat().st_mode & 0o777)
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
        os.rename(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
