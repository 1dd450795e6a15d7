"""Opens and closes workspaces, and deals with what the dead left half-done.

Opening: claim the job, check that nothing stands there, write the intent, make the directory, make git's entry for it
(whole, by rename), check the files out, write the record, drop the intent. Whatever fails, everything made is taken
away again, and when the process dies, `recover` of the next command does that.

Closing: claim, check that the directory is the one that was opened, write the intent, rename the directory into the
trash, then the entry, drop the record and the intent. Only what may fail for good reason, the first rename, can fail,
and then nothing has changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from worktrees.errors import Busy, Refused
from worktrees.isolation import entry, journal
from worktrees.isolation.journal import Claim, Intent, Record
from worktrees.isolation.place import SLOTS, Place, disk, mark, private_repository, reported, unmark
from worktrees.isolation.trash import discard, sweep
from worktrees.model import Baseline, Finding, JobId, RepoPath


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where a job works.

    `git_dir` is git's own directory of it in the boss's repository, None when the kind has none. `repository` is one
    that belongs to the worker alone (see `private`): it may write there, and nobody runs git in it.
    """

    job_id: JobId
    path: Path
    git_dir: Path | None
    repository: Path | None = None


class Isolation(Protocol):
    """One kind of workspace."""

    name: ClassVar[str]
    attribution: ClassVar[Literal["exact", "shared"]]
    # Whether it makes directories, and takes them away; else they are somebody else's and stay as they are.
    makes: ClassVar[bool]

    def open(
        self, place: Place, job: JobId, baseline: Baseline, *, sparse: Sequence[str] = (), index: Path | None = None
    ) -> Workspace:
        """Makes a workspace that holds the baseline, whole or not at all.

        `sparse` are directories outside of which nothing is checked out but the files on the way to them. `index`:
        where to leave a copy of the fresh index (tree of `baseline.start`, with the stat data of every file from
        before any worker ran), so that the capture reads only what changed.

        Raises: Refused, NotFound, StateBroken for the disk, GitFailed.
        """

    def enter(self, workspace: Workspace) -> list[str]:
        """The command prefix with which a process enters the workspace; [] for a plain directory."""

    def candidates(self, workspace: Workspace) -> Iterable[RepoPath] | None:
        """Paths that can have changed; None means everything."""

    def close(self, place: Place, workspace: Workspace) -> None:
        """Takes the workspace away; the caller has captured before, and nobody is at work in it. Again does no harm.

        Raises: Refused `not-ours`, nothing changed; StateBroken for the disk.
        """


class WorktreeIsolation:
    """A detached, locked linked worktree of git's, named by the job."""

    name: ClassVar[str] = "worktree"
    attribution: ClassVar[Literal["exact", "shared"]] = "exact"
    makes: ClassVar[bool] = True

    def open(
        self, place: Place, job: JobId, baseline: Baseline, *, sparse: Sequence[str] = (), index: Path | None = None
    ) -> Workspace:
        """Makes a workspace that holds the baseline; costs the checkout and little else."""
        path = place.root / job
        with disk(f"make the workspace `{path}`"):
            directories = entry.check_sparse(place, baseline, sparse)
            place.state.prepare()
            with journal.claim(place, job) as held:
                settle_pending(place, held)
                if os.path.lexists(path) or os.path.lexists(place.entries / job):
                    raise Refused(f"`{job}` has a workspace already", code="name-taken", hint=f"wt status {job}")
                held.write(Intent(job, path, "adding"))
                try:
                    _make_directory(place, path)
                    found = self._fill(place, job, path, baseline, directories, index)
                    held.settle()
                except BaseException:
                    with contextlib.suppress(OSError):  # the first failure is the one to tell; `recover` tries again
                        settle_pending(place, held)
                    unmark(place, place.root)
                    sweep(place)
                    raise
        return found

    def _fill(
        self, place: Place, job: JobId, path: Path, baseline: Baseline, sparse: list[str], index: Path | None
    ) -> Workspace:
        """Makes git's entry of the empty directory, checks out, and writes the record."""
        entry.register(place, job, path, baseline.commit, sparse)
        entry.check_out(place, place.entries / job, path, baseline, sparse=sparse, index=index)
        journal.write_record(place, Record(job, path, os.lstat(path).st_ino, baseline.commit, tuple(sparse)))
        return Workspace(job, path, place.entries / job)

    def enter(self, workspace: Workspace) -> list[str]:
        """A plain directory needs no prefix."""
        return []

    def candidates(self, workspace: Workspace) -> Iterable[RepoPath] | None:
        """Anything may have changed in a plain directory."""
        return None

    def close(self, place: Place, workspace: Workspace) -> None:
        """Takes the workspace away at once, whatever its size; its files are removed in the background."""
        job, path = workspace.job_id, workspace.path
        with disk(f"remove the workspace `{path}`"):
            place.state.prepare()
            with journal.claim(place, job) as held:
                settle_pending(place, held)
                _check_ours(place, job, path)
                # A full disk must not keep us from freeing it; without an intent the record shows what is left to do.
                with _full_disk_allowed():
                    held.write(Intent(job, path, "removing"))
                try:
                    take_away(place, job, path)
                except OSError:
                    if os.path.lexists(path):  # nothing has moved, and somebody may go on working there
                        held.settle()
                    raise
                held.settle()
            unmark(place, path.parent)
            sweep(place)


def workspace_of(place: Place, job: JobId) -> Workspace | None:
    """The workspace that was opened for a job and is not closed yet; its directory may be gone all the same.

    None also for a worktree of somebody else's that is gone: in its place may be another by now.
    """
    record = journal.record_of(place, job)
    if record is not None and record.private:
        return Workspace(job, record.path, None, private_repository(record.path))
    if record is None or record.entry is None:
        return Workspace(job, record.path, place.entries / job) if record else None
    path = standing_at(place, record)
    return Workspace(job, path, place.entries / record.entry) if path else None


def standing_at(place: Place, record: Record) -> Path | None:
    """Where the directory of a record stands, also when git has moved it; None when it is gone."""
    moved = entry.points_at(place.entries / (record.entry or record.job))
    for path in (record.path, *([moved] if moved else [])):
        with contextlib.suppress(OSError):
            if os.stat(path).st_ino == record.inode:
                return path
    return None


def recover(place: Place) -> list[Finding]:
    """Takes away what dead processes left half-made or half-removed, and mends entries of ours that make git fail.

    Costs a look at a directory and three small files per workspace. What cannot be dealt with is reported, not raised.
    """
    if not place.state.exists():
        return []
    found: list[Finding] = []
    for job in journal.intended(place):
        with reported(found, job), contextlib.suppress(Busy), journal.claim(place, job) as held:
            if held.pending is None and journal.record_of(place, job) is None:
                # Killed before it had said anything, or a power cut took what it said: at most half a workspace.
                held.pending = Intent(job, entry.points_at(place.entries / job) or place.root / job, "adding")
            if held.pending is not None:
                path, phase = held.pending.path, held.pending.phase
                if settle_pending(place, held):
                    done = (
                        "half-made workspace was undone" if phase == "adding" else "half-removed workspace was removed"
                    )
                    message = f"a {done}: the process at work on it died"
                    found.append(Finding(code="workspace-recovered", path=os.fspath(path), message=message))
                unmark(place, path.parent)
    for record in journal.records(place):
        if record.entry is not None or record.private:
            continue  # not ours to mend, or of no concern to the boss's git
        git_dir = place.entries / record.job
        for name, what in entry.damage(git_dir).items() if git_dir.is_dir() else ():
            if what not in entry.TORN:
                continue
            with reported(found, record.job), contextlib.suppress(Busy), journal.claim(place, record.job):
                entry.mend(place, record.job, record.path, record.commit, record.sparse, name)
                message = f"`{name}` {what}, so git failed; it is written anew"
                found.append(Finding(code="worktree-mended", path=os.fspath(git_dir / name), message=message))
    sweep(place)
    return found


# --------------------------------------------------------------------------------------------------------------- steps
def _make_directory(place: Place, path: Path) -> None:
    while True:
        mark(place)
        try:
            path.mkdir()
            break
        except FileNotFoundError:
            continue  # the last workspace was closed just now and took the empty root with it
    mark(place)


def settle_pending(place: Place, held: Claim) -> bool:
    """Takes away what is pending: undoes a half-made workspace, ends a half-removed one. False: nothing was there."""
    if held.pending is None:
        return False
    found = take_away(place, held.pending.job, held.pending.path)
    held.settle()
    return found


def take_away(place: Place, job: JobId, path: Path) -> bool:
    """Takes away the directory, if it is ours, git's entry, and our record of it. False: nothing was there."""
    record = journal.record_of(place, job)
    # A slot of the pool may have lost both its entry and, copied with the repository, its inode.
    found = (record is None or job in SLOTS or is_ours(place, record, path)) and discard(place, path)
    own = private_repository(path)
    for directory in (entry.aside(place, job), place.entries / job, own):
        found |= discard(place, directory, path.parent if directory == own else None)
    if job in SLOTS:
        for file in (place.index_of(job), place.index_of(job).with_name(f"{job}.index.lock")):
            discard(place, file)
    for directory in (place.entries, own.parent):
        with contextlib.suppress(OSError):
            directory.rmdir()  # git, too, leaves no empty one
    journal.forget(place, job)
    return found


def is_ours(place: Place, record: Record, path: Path) -> bool:
    """Whether the directory is the one that was opened: by its inode, or by git's pointers in both directions.

    After a power cut the record and the pointer in the directory may be empty, both; git's entry is whole.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    if found.st_ino == record.inode:
        return True
    git_dir = place.entries / record.job
    pointer = entry.read_small(path / ".git")
    known = pointer == b"gitdir: " + os.fsencode(git_dir) + b"\n" or (pointer == b"" and journal.is_damaged(record))
    return known and entry.points_at(git_dir) == path


def _check_ours(place: Place, job: JobId, path: Path) -> None:
    record = journal.record_of(place, job)
    git_dir = place.entries / job
    if not os.path.lexists(path):
        elsewhere = entry.points_at(git_dir)
        if elsewhere is not None and elsewhere != path and (elsewhere / ".git").is_file():
            raise Refused(
                f"the workspace of `{job}` was moved to `{elsewhere}`",
                code="not-ours",
                hint=f"git worktree move -f -f {elsewhere} {path}",
            )
    elif record is None:
        if entry.points_at(git_dir) != path:
            raise Refused(f"`{path}` is no workspace of ours", code="not-ours", hint="wt doctor")
    elif not is_ours(place, record, path):
        raise Refused(
            f"something else stands where the workspace of `{job}` was, at `{path}`", code="not-ours", hint="wt doctor"
        )


@contextlib.contextmanager
def _full_disk_allowed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
