"""Takes things away at once and removes them later.

What goes is renamed into a trash directory of its own file system, which costs the same for one file and a million,
and a detached `remover` empties the trash. If that dies, `sweep` of any later command starts the next one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from pathlib import Path

from worktrees.isolation import remover
from worktrees.isolation.place import TRASH, Place

_SHELL = "/bin/sh"


def discard(place: Place, path: Path, top: Path | None = None) -> bool:
    """Renames something of ours into a trash, one in `top` (its own directory) where the state is on another disk.

    False when there is nothing.
    """
    name = f"{path.name}.{os.urandom(4).hex()}"
    try:
        return _move(path, place.state.trash / name)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    beside = (top or path.parent) / TRASH
    beside.mkdir(mode=0o700, exist_ok=True)
    return _move(path, beside / name)


def _move(path: Path, to: Path) -> bool:
    for attempt in range(2):
        try:
            os.rename(path, to)
            return True
        except FileNotFoundError:
            if os.path.lexists(path):
                raise
            return False
        except PermissionError:
            # A directory that its owner may not write cannot be moved, for its `..` changes.
            if attempt or path.is_symlink() or not path.is_dir():
                raise
            path.chmod(0o700)
    return False


def trashes(place: Place) -> list[Path]:
    """Trash directories with something in them."""
    found = []
    for directory in (place.state.trash, place.root / TRASH):
        with contextlib.suppress(OSError):
            if os.listdir(directory):
                found.append(directory)
    return found


def sweep(place: Place) -> None:
    """Starts the removal of what lies in the trash, in the background; nothing happens when it is empty.

    Costs one look at two directories, and 2 ms when something is there that nobody is at work on.
    """
    if waiting := [directory for directory in trashes(place) if not is_swept(directory)]:
        _start_remover(waiting)


def is_swept(directory: Path) -> bool:
    """Whether a remover holds the trash; it looks again after letting go, so it finds what is there now."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True  # it went with the last workspace of its root
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # this file system knows no locks
    finally:
        os.close(fd)
    return False


def _start_remover(directories: list[Path]) -> None:
    """A process of nobody's: own session, no open file of ours, adopted by init, so that nobody must wait for it."""
    words = [
        _SHELL,
        "-c",
        'cd / && "$@" </dev/null >/dev/null 2>&1 &',
        "wt",
        sys.executable,
        "-I",
        "-S",
        remover.__file__,
    ]
    # A job's environment must not mark it as one of the job's processes.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WT_")}
    with contextlib.suppress(OSError):
        child = os.posix_spawn(
            _SHELL,
            [*words, *map(os.fspath, directories)],
            environment,
            file_actions=[(os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()],
            setsid=True,
        )
        os.waitpid(child, 0)


def _inherited() -> list[int]:
    """Descriptors that a new process would get beside the standard three, such as a job's lock."""
    found = []
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found
