"""Worktrees of ours that are used again: moved to the next commit by git instead of made anew, for checks of merges.

A slot is a workspace like a job's, with a name no job can have (ids are made without `0` and `1`): the same entry,
lock, record, journal. Whoever uses it holds `wt-state/locks/<slot>.lock`, the processes that run in it too.

What ran in it before is a worker's code, so nothing in it is believed. The files are compared with an index of ours
(`wt-state/gate/<slot>.index`), never with the entry's own; what git does not know goes, ignored files and nested `.git`
too; the entry is written anew; and no git of ours reads a configuration that could be changed from in there. A move
that meets anything odd is given up, and the worktree made anew. A move that is cut off is undone by `recover` like a
half-made workspace: the worktree goes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worktrees.errors import Busy, GitFailed
from worktrees.git import run
from worktrees.isolation import entry, journal
from worktrees.isolation.journal import Intent, Record
from worktrees.isolation.place import SLOTS, Place, disk, unmark
from worktrees.isolation.trash import discard, sweep
from worktrees.isolation.workspace import Workspace, WorktreeIsolation, is_ours, settle_pending, take_away, workspace_of
from worktrees.model import Baseline, JobId, Oid
from worktrees.store import AliveLock

# Beside our own settings of a checkout: nothing a repository says may make git take a changed file for unchanged.
_SHARP = ("core.trustctime=true", "core.checkStat=default", "core.ignoreStat=false", "core.sparseCheckout=false")


@dataclass(frozen=True, slots=True)
class Slot:
    """A worktree of the pool that is ours for now; `lock` is the descriptor that says so."""

    name: JobId
    lock: int


@contextlib.contextmanager
def lend(place: Place, *, timeout_seconds: float) -> Iterator[Slot]:
    """A slot nobody uses, the first of them if possible. Raises: Busy when all are in use for that long."""
    place.state.prepare()
    place.index_of(SLOTS[0]).parent.mkdir(mode=0o700, exist_ok=True)
    deadline = time.monotonic() + timeout_seconds
    while True:
        for name in SLOTS:
            lock = _lock(place, name)
            fd = None if lock.is_held() else lock.take()
            if fd is None:
                continue
            try:
                yield Slot(name, fd)
            finally:
                os.close(fd)
            return
        if time.monotonic() > deadline:
            raise Busy(
                f"{len(SLOTS)} checks run here already, and none was over within {timeout_seconds:g} s",
                hint="wait for them and try again",
            )
        time.sleep(0.05)


def in_use(place: Place) -> list[JobId]:
    """Slots in which somebody is at work."""
    return [name for name in SLOTS if _lock(place, name).is_held()]


def idle(place: Place) -> list[Workspace]:
    """Worktrees of the pool that stand and that nobody uses."""
    standing = [workspace_of(place, name) for name in SLOTS if not _lock(place, name).is_held()]
    return [workspace for workspace in standing if workspace is not None]


def move(place: Place, slot: Slot, commit: Oid) -> Workspace:
    """The slot's worktree with exactly the files of a commit of the user's repository, detached at it.

    Costs a look at every file and what differs from the last time. Raises: as `WorktreeIsolation.open`.
    """
    name = slot.name
    with disk(f"move the worktree `{place.root / name}`"):
        try:
            moved = _move(place, name, commit)
        except (GitFailed, OSError):
            moved = False
        if not moved:
            _give_up(place, name)
            baseline = Baseline(commit=commit)
            return WorktreeIsolation().open(place, name, baseline, index=place.index_of(name))
        sweep(place)
    return Workspace(name, place.root / name, place.entries / name)


def close(place: Place, name: JobId) -> bool:
    """Takes a slot's worktree away; False when it is in use. What ran in it leaves nothing to keep."""
    fd = _lock(place, name).take()
    if fd is None:
        return False
    try:
        with disk(f"remove the worktree `{place.root / name}`"):
            _give_up(place, name)
            unmark(place, place.root)
    finally:
        os.close(fd)
    return True


def _lock(place: Place, name: JobId) -> AliveLock:
    return AliveLock(place.state.root / "locks" / f"{name}.lock")


def _give_up(place: Place, name: JobId) -> None:
    """Takes away whatever stands in the slot, even what no record knows: nobody else has such a name."""
    with journal.claim(place, name) as held:
        settle_pending(place, held)
        there = (place.root / name, place.entries / name, place.index_of(name))
        if any(map(os.path.lexists, there)):
            held.write(Intent(name, place.root / name, "removing"))
            take_away(place, name, place.root / name)
            held.settle()
    sweep(place)


def _move(place: Place, name: JobId, commit: Oid) -> bool:
    path, index = place.root / name, place.index_of(name)
    with journal.claim(place, name) as held:
        settle_pending(place, held)
        record = journal.record_of(place, name)
        if record is None or not index.is_file() or not is_ours(place, record, path) or _is_odd(place, path, commit):
            return False
        held.write(Intent(name, path, "adding"))
        try:
            _remove_strangers(place, path, index)
            run(
                "read-tree", "--reset", "-u", commit,
                git_dir=place.repo.common_dir, work_tree=path, index=index,
                config=[*entry.checkout_settings(()), *_SHARP],
            )  # fmt: skip
            discard(place, place.entries / name)
            entry.register(place, name, path, commit, ())
            shutil.copyfile(index, place.entries / name / "index.wt")
            os.rename(place.entries / name / "index.wt", place.entries / name / "index")
            journal.write_record(place, Record(name, path, record.inode, commit))
            held.settle()
        except BaseException:
            with contextlib.suppress(OSError):  # the first failure is the one to tell; `recover` tries again
                settle_pending(place, held)
            raise
    return True


def _is_odd(place: Place, path: Path, commit: Oid) -> bool:
    """Whether more than one index describes what stands there: submodules, or a sparse checkout."""
    if os.path.lexists(path / ".gitmodules") or (place.repo.git_dir / "info" / "sparse-checkout").exists():
        return True
    asked = run("cat-file", "-e", f"{commit}:.gitmodules", git_dir=place.repo.common_dir, expect=None)
    return asked.status == 0


def _remove_strangers(place: Place, path: Path, index: Path) -> None:
    """Removes what the index does not know, following no symlink. Raises: OSError for a directory nobody may read."""
    index.with_name(index.name + ".lock").unlink(missing_ok=True)  # the slot is ours, so its git is dead
    known = set(run("ls-files", "-z", git_dir=place.repo.common_dir, work_tree=path, index=index).records)
    above = {name[:end] for name in known for end in range(len(name)) if name[end : end + 1] == b"/"}
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(os.path.join(os.fsencode(path), directory)) as found:
            for each in found:
                name = os.path.join(directory, each.name)
                if each.is_dir(follow_symlinks=False):
                    if name in above:
                        waiting.append(name)
                        continue
                elif name in known:
                    continue
                discard(place, Path(os.fsdecode(each.path)), place.root)
