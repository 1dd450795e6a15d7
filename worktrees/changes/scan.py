"""Walks a workspace with own eyes: what is there, and what git would skip, refuse or be fooled by.

Nothing is followed: directories are opened one below the other by descriptor with O_NOFOLLOW, so that a symlink put in
place of a directory leads nowhere. Kinds come with the directory listing, so an ordinary file costs no system call of
its own. Names are `str` with surrogate escapes here (`os.fsdecode`), which the file system gives back unchanged.

A finding of a kind in `UNCAPTURED` means that the snapshot lacks something, and makes the result unverified.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worktrees.model import Finding, path_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from worktrees.model import IgnoredFile

UNCAPTURED = frozenset(
    {
        "special-file",
        "git-look-alike",
        "unreadable",
        "too-deep",
        "too-large",
        "too-many-files",
        "not-recorded",
        "submodule-edited",
        "workspace-missing",
    }
)
# git itself stops at PATH_MAX, a path relative to the work tree included.
_LONGEST_PATH = 4095
# Descriptors are held open along one branch of the tree, so no setting may ask for more.
_DEEPEST = 500
_FINDINGS_OF_A_KIND = 100
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Code points that HFS+ ignores in names: `.g\u200cit` is `.git` there.
_HFS_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclass(frozen=True, slots=True)
class Scan:
    """What a capture has to say beside the snapshot.

    `verified` is False when something in the workspace is not in the snapshot; a finding names it.
    """

    findings: tuple[Finding, ...] = ()
    ignored: tuple[IgnoredFile, ...] = ()
    verified: bool = True


@dataclass(slots=True)
class Notes:
    """Findings as they are made; of each kind the first hundred in full, the rest as a number."""

    findings: list[Finding] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, code: str, path: str, message: str) -> None:
        """Notes one finding; `{}` in the message stands for the path."""
        self._counts[code] = count = self._counts.get(code, 0) + 1
        if count <= _FINDINGS_OF_A_KIND:
            text = path_text(os.fsencode(path))
            if len(text) > 500:
                text = f"{text[:240]}…{text[-240:]}"
            self.findings.append(Finding(code=code, path=text, message=message.replace("{}", f"`{text}`")))

    def result(self) -> tuple[Finding, ...]:
        """All of them, with one more for each kind that had too many."""
        more = [
            Finding(code=code, message=f"and {count - _FINDINGS_OF_A_KIND} more `{code}`")
            for code, count in self._counts.items()
            if count > _FINDINGS_OF_A_KIND
        ]
        return (*self.findings, *more)

    @property
    def verified(self) -> bool:
        """Whether nothing was left out."""
        return UNCAPTURED.isdisjoint(self._counts)


@dataclass(slots=True)
class Walk:
    """What lies in a work tree: regular files and symlinks by path from its top."""

    files: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    # Files that were changed in the time asked about.
    young: list[str] = field(default_factory=list)
    # Directories (with `/` at the end) that could not be looked into: what git knows below them is not deleted.
    blind: list[str] = field(default_factory=list)
    # Paths of the submodules asked about that are checked out, and of directories that are empty.
    submodules: set[str] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)
    # Tops of repositories that are no submodule of the baseline.
    nested: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Walker:
    """Walks one work tree; `walk` may be called for several tops.

    `known` are the files of the baseline and `submodules` its submodules, `ignored` are paths not to look at, `young`
    is a time (in nanoseconds, without its end) whose changes are to be told, for one `lstat` per file. With `repair` a
    directory that its owner made unreadable is made readable, which the boss may do once no worker is left.
    """

    root: int
    notes: Notes
    known: Collection[str] = ()
    ignored: Collection[str] = ()
    submodules: Collection[str] = ()
    young: tuple[int, int] | None = None
    max_depth: int = 0
    repair: bool = False
    seen: Walk = field(default_factory=Walk)

    def walk(self, top: str = "") -> Walk:
        """Everything below `top`, a directory's path or the whole tree."""
        deepest = min(self.max_depth or _DEEPEST, _DEEPEST)
        # An explicit stack: Python's own would end where a hostile tree goes on.
        stack: list[tuple[int, str, list[str]]] = []
        prefix = f"{top}/" if top else ""
        try:
            self._enter(self.root, top or ".", prefix, stack)
            while stack:
                parent, prefix, names = stack[-1]
                if not names:
                    stack.pop()
                    os.close(parent)
                    continue
                name = names.pop()
                below = f"{prefix}{name}/"
                if len(stack) > deepest or len(os.fsencode(below)) >= _LONGEST_PATH:
                    self.seen.blind.append(below)
                    self.notes.add("too-deep", below, "{} is nested too deeply to be captured")
                else:
                    self._enter(parent, name, below, stack)
        finally:
            for fd, _, _ in stack:
                os.close(fd)
        return self.seen

    def look(self, path: str) -> None:
        """One path: a file or a link is noted, a directory walked, nothing is nothing."""
        try:
            mode = os.stat(path, dir_fd=self.root, follow_symlinks=False).st_mode
        except OSError:
            return
        if stat.S_ISDIR(mode):
            self.walk(path)
        elif stat.S_ISREG(mode):
            self.seen.files.add(path)
        elif stat.S_ISLNK(mode):
            self.seen.links.add(path)
        else:
            self._note_special(mode, path)

    def _enter(self, parent: int, name: str, prefix: str, stack: list[tuple[int, str, list[str]]]) -> None:
        try:
            fd = self._open(parent, name, prefix)
        except OSError as error:
            # Gone or replaced while we look: the worker still runs, and the next look sees it.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                self.seen.blind.append(prefix)
                self.notes.add("unreadable", prefix, f"{{}} cannot be looked into: {os.strerror(error.errno or 0)}")
            return
        stack.append((fd, prefix, self._list(fd, prefix)))

    def _open(self, parent: int, name: str, prefix: str) -> int:
        fd = -1
        try:
            fd = os.open(name, _OPEN, dir_fd=parent)
            if os.fstat(fd).st_mode & 0o500 == 0o500 or os.access(".", os.X_OK, dir_fd=fd, effective_ids=True):
                return fd
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except PermissionError:
            if fd >= 0:
                os.close(fd)
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not self.repair or not stat.S_ISDIR(found.st_mode):
                raise
            os.chmod(name, stat.S_IMODE(found.st_mode) | 0o700, dir_fd=parent)
            self.notes.add(
                "made-readable", prefix, f"{{}} had mode {stat.S_IMODE(found.st_mode):04o}; its owner may read it now"
            )
            return os.open(name, _OPEN, dir_fd=parent)

    def _list(self, fd: int, prefix: str) -> list[str]:
        """Notes the entries of an open directory and returns the directories to go into."""
        seen, directories, here, young = self.seen, [], prefix[:-1], self.young
        with os.scandir(fd) as listing:
            entries = list(listing)
        names = [entry.name for entry in entries]
        if ".git" in names:
            if here in self.submodules:
                seen.submodules.add(here)
                return []
            if here:
                seen.nested.append(here)
                message = "{} is a repository of its own: its files are captured, its history is not"
                self.notes.add("nested-repository", here, message)
            names.remove(".git")
        folded = _folded("/".join(names))
        # One look at all names together spares the thousands of ordinary ones a look each.
        suspicious = ".git" in folded or "git~1" in folded or not folded.isascii()
        for entry in entries:
            name = entry.name
            path = prefix + name
            if name == ".git" or path in self.ignored:
                continue
            if suspicious and looks_like_git(name):
                self.notes.add("git-look-alike", path, "{} passes for `.git` on some file systems; it is not captured")
            elif entry.is_file(follow_symlinks=False):
                seen.files.add(path)
                if young is not None:
                    with suppress(OSError):
                        if young[0] <= entry.stat(follow_symlinks=False).st_ctime_ns < young[1]:
                            seen.young.append(path)
            elif entry.is_dir(follow_symlinks=False):
                directories.append(name)
            elif entry.is_symlink():
                seen.links.add(path)
            else:
                with suppress(FileNotFoundError):
                    self._note_special(entry.stat(follow_symlinks=False).st_mode, path)
        if not entries:
            seen.empty.add(here)
        if "HEAD" in names and {"objects", "refs"}.issubset(names):
            self.notes.add("bare-repository", here or ".", "{} is a bare repository: git obeys its configuration there")
        if len(set(folded.split("/"))) < len(names):
            self._note_collisions(names, prefix)
        return directories

    def _note_special(self, mode: int, path: str) -> None:
        kind = _KINDS.get(stat.S_IFMT(mode), "no ordinary file")
        self.notes.add("special-file", path, f"{{}} is {kind}, which git cannot hold")

    def _note_collisions(self, names: list[str], prefix: str) -> None:
        twins: dict[str, list[str]] = {}
        for name in names:
            twins.setdefault(_folded(name), []).append(prefix + name)
        for same in twins.values():
            if len(same) > 1 and not all(self._is_known(path) for path in same):
                first, *others = sorted(same, key=lambda path: (not self._is_known(path), path))
                for other in others:
                    message = f"{{}} is the same as `{path_text(os.fsencode(first))}` where case does not count"
                    self.notes.add("case-collision", other, message)

    def _is_known(self, path: str) -> bool:
        return path in self.known or any(other.startswith(f"{path}/") for other in self.known)


def _folded(name: str) -> str:
    """A name, or several with `/` between them, as a file system sees it that does not know case."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name.casefold())


def looks_like_git(name: str) -> bool:
    """Whether a name other than `.git` is `.git` on HFS+, NTFS or without regard to case; git refuses these in an
    index.
    """
    if name[:1] not in (".", "g", "G") and name.isascii():
        return False
    plain = _HFS_IGNORED.sub("", name).lower()
    # NTFS: a stream (`:`) or a backslash ends the name, trailing dots and spaces do not count.
    return re.split(r"[:\\]", plain, maxsplit=1)[0].rstrip(" .") in (".git", "git~1")


def note_links(workspace: Path, links: Iterable[str], notes: Notes) -> None:
    """Notes symlinks whose target is absolute or outside the tree; they are captured as links, never followed."""
    root = os.path.realpath(workspace)
    for link in links:
        place = os.path.join(root, link)
        try:
            target = os.readlink(place)
        except OSError:
            continue
        inside = os.path.normpath(os.path.join(os.path.dirname(link), target))
        real = os.path.realpath(place)
        if os.path.isabs(target) or inside.split("/")[0] == ".." or not (real + "/").startswith(root + "/"):
            notes.add(
                "link-leaves", link, f"{{}} is a symlink that leaves the tree, to `{path_text(os.fsencode(target))}`"
            )


def measure(root: int, path: str, *, most: int = 200_000, without: str = "") -> list[int] | None:
    """Number of files, bytes and newest change (ns) of a file or of a whole directory; None when it is gone.

    The newest change covers directories too, so that what was moved in counts. Entries named `without` are left out.
    Stops counting after `most` files.
    """
    try:
        found = os.stat(path, dir_fd=root, follow_symlinks=False)
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        return [1, found.st_size, found.st_ctime_ns]
    count, size, newest = 0, 0, found.st_ctime_ns
    waiting = [path.rstrip("/")]
    while waiting and count < most:
        directory = waiting.pop()
        try:
            fd = os.open(directory, _OPEN, dir_fd=root)
        except OSError:
            continue
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.name == without:
                        continue
                    with suppress(OSError):
                        found = entry.stat(follow_symlinks=False)
                        newest = max(newest, found.st_ctime_ns)
                        if stat.S_ISDIR(found.st_mode):
                            waiting.append(f"{directory}/{entry.name}")
                        else:
                            count += 1
                            size += found.st_size
        finally:
            os.close(fd)
    return [count, size, newest]
