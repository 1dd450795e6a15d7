"""Empties trash directories: `python -I -S remover.py DIRECTORY…`, in the background, standard library only.

Copes with what workers leave: trees deeper than any path or descriptor limit, directories nobody may read, names of
any bytes. A subdirectory is never entered where it lies but first renamed up into the trash itself, so

* one descriptor and no recursion are enough at any depth, and a kill at any moment leaves a smaller trash;
* no symbolic link is followed and no mount is crossed: links are unlinked, and a mount point cannot be renamed.

One remover works on a trash at a time. What cannot be removed (a mount, an immutable file) stays for the next one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import time

_serial = 0


def main(directories: list[str]) -> None:
    """Empties each directory; returns at once from one that another remover is at work on."""
    with contextlib.suppress(OSError):
        os.nice(10)
    for directory in directories:
        with contextlib.suppress(OSError):
            empty(directory)


def empty(directory: str) -> None:
    """Removes everything in a directory, in turns, until nothing removable comes in any more."""
    stuck: set[str] = set()
    while True:
        trash = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(trash, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                os.close(trash)
                return
            # This file system knows no locks; two removers at once are slow and not wrong.
        try:
            while names := set(os.listdir(trash)) - stuck:
                stuck |= {name for name in names if not remove(trash, name)}
        finally:
            os.close(trash)
        # Whoever brought something between the last look and the unlocking found the trash locked: look again.
        if not set(os.listdir(directory)) - stuck:
            return


def remove(trash: int, name: str) -> bool:
    """Removes one thing that lies in the trash, except for the subdirectories, which then lie in the trash too."""
    try:
        if _unlink(trash, name):
            return True
        for _ in range(3):  # a dying worker's git may still write
            _strip(trash, name)
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=trash)
                return True
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def _unlink(directory: int, name: str) -> bool:
    """Unlinks anything that is not a directory; False for a directory."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        return False
    except PermissionError:  # what unlinking a directory answers outside Linux
        try:
            os.close(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory))
        except NotADirectoryError:
            raise
        except PermissionError:
            return False
        return False
    return True


def _strip(trash: int, name: str) -> None:
    """Leaves a directory of the trash empty, where possible."""
    global _serial  # noqa: PLW0603 - a counter of this process
    directory = _open(trash, name)
    try:
        os.fchmod(directory, 0o700)
        with os.scandir(directory) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for inner, is_directory in found:
            with contextlib.suppress(OSError):
                if not is_directory:
                    os.unlink(inner, dir_fd=directory)
                    continue
                try:
                    os.rmdir(inner, dir_fd=directory)
                except OSError:
                    _serial += 1
                    _lift(directory, inner, trash, f"{os.getpid():x}.{time.time_ns():x}.{_serial:x}")
    finally:
        os.close(directory)


def _lift(directory: int, inner: str, trash: int, name: str) -> None:
    try:
        os.rename(inner, name, src_dir_fd=directory, dst_dir_fd=trash)
    except PermissionError:
        # To move a directory its owner must be allowed to write it, for its `..` changes.
        _permit(directory, inner)
        os.rename(inner, name, src_dir_fd=directory, dst_dir_fd=trash)


def _open(directory: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=directory)
    except PermissionError:
        _permit(directory, name)
        return os.open(name, flags, dir_fd=directory)


def _permit(directory: int, name: str) -> None:
    """`chmod u+rwx` of a directory that may not be opened, without following a link put in its place."""
    path_only = getattr(os, "O_PATH", None)
    if path_only is None:
        os.chmod(name, 0o700, dir_fd=directory, follow_symlinks=False)
        return
    fd = os.open(name, path_only | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)


if __name__ == "__main__":
    main(sys.argv[1:])
