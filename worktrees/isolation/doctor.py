"""Names what is wrong with worktree entries and workspaces, and mends what is ours.

One bad entry can make every git command of the repository fail (`commondir` empty), or `gc` and `fsck` alone (index
or HEAD). Those of others are named with what is wrong and never touched; `git worktree prune` is never run, since it
takes bystanders along. No workspace is ever removed here, and no entry that commits hang on.

Ours is what a record of ours says; and, where that was lost, an entry that bears a job's name and our lock.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

from worktrees.errors import Busy
from worktrees.git import run
from worktrees.isolation import entry, journal
from worktrees.isolation.commits import commits_only_here
from worktrees.isolation.journal import Record
from worktrees.isolation.place import JOB, SLOTS, Place, reported
from worktrees.isolation.trash import discard
from worktrees.isolation.workspace import Workspace, standing_at, take_away
from worktrees.model import Finding, JobId, Oid
from worktrees.store import AliveLock

_LOCKS = ("index.lock", "HEAD.lock")
_LONG_SECONDS = 60.0


def doctor_findings(
    place: Place, *, fix: bool = False, running: Collection[JobId] = (), starts: Mapping[JobId, Oid] | None = None
) -> list[Finding]:
    """What is wrong; with `fix` what was mended instead, so that asking again without it names what is left.

    `running` are jobs whose worker may hold git's locks right now, `starts` the commits that known jobs began at.
    """
    found: list[Finding] = []
    for finding, mend in _strays(place, starts or {}):
        if not fix:
            found.append(finding)
        elif mend is not None:
            mend()
            found.append(finding)
    everything = list(journal.records(place))
    ours = {record.job: record for record in everything if record.entry is None}
    for record in ours.values():
        if not fix:
            found += [finding for finding, _ in _of_ours(place, record, running)]
            continue
        with reported(found, record.job), contextlib.suppress(Busy), journal.claim(place, record.job):
            for finding, mend in _of_ours(place, record, running):
                if mend is not None:
                    mend()
                    found.append(finding)
    return found if fix else [*_half_done(place), *found, *_adopted(place, everything), *_of_others(place)]


def _half_done(place: Place) -> Iterator[Finding]:
    """What `recover` settles."""
    for job in journal.intended(place):
        path = place.state.journal / f"{job}.json"
        if not AliveLock(path).is_held():
            message = f"a process died while it made or removed the workspace of `{job}`"
            yield Finding(code="workspace-half-done", path=os.fspath(path), message=message)


def _of_ours(
    place: Place, record: Record, running: Collection[JobId]
) -> Iterator[tuple[Finding, Callable[[], object] | None]]:
    """Findings, each with what mends it."""
    job, git_dir = record.job, place.entries / record.job

    def mend(file: str) -> None:
        entry.mend(place, job, record.path, record.commit, record.sparse, file)

    def forget_slot() -> None:
        take_away(place, job, record.path)

    def register() -> None:
        entry.register(place, job, record.path, record.commit, record.sparse)
        mend("index")

    if not record.path.is_dir() and job in SLOTS:
        message = "a worktree that checks ran in is gone"
        yield Finding(code="workspace-missing", path=os.fspath(record.path), message=message), forget_slot
        return
    if not record.path.is_dir():
        message = f"the workspace of `{job}` is gone; `wt drop {job}` takes it off the list"
        yield Finding(code="workspace-missing", path=os.fspath(record.path), message=message), None
        return
    if record.private:
        return  # its repository is the worker's alone; only files are read of it
    if not git_dir.is_dir():
        message = f"git's entry of the workspace of `{job}` is gone"
        yield Finding(code="worktree-missing", path=os.fspath(git_dir), message=message), register
        return
    wrong = _damage(place, git_dir)
    if not os.path.lexists(git_dir / "index"):
        wrong["index"] = "is missing"
    for name, what in wrong.items():
        finding = Finding(code="worktree-damaged", path=os.fspath(git_dir / name), message=f"`{name}` {what}")
        yield finding, partial(mend, name)
    for name in _LOCKS:
        if job not in running and os.path.lexists(git_dir / name):
            finding = Finding(code="stale-lock", path=os.fspath(git_dir / name), message="a dead git left its lock")
            yield finding, partial(discard, place, git_dir / name)


def _adopted(place: Place, records: Collection[Record]) -> Iterator[Finding]:
    for record in records:
        if record.entry is not None and standing_at(place, record) is None:
            message = f"the worktree adopted as `{record.job}` is gone; `wt drop {record.job}` takes it off the list"
            yield Finding(code="workspace-missing", path=os.fspath(record.path), message=message)


def _of_others(place: Place) -> Iterator[Finding]:
    known = {record.job for record in journal.records(place)} | set(journal.intended(place))
    for name in sorted(os.listdir(place.entries)) if place.entries.is_dir() else ():
        git_dir = place.entries / name
        if name in known or _bears_our_lock(git_dir):
            continue
        wrong = _damage(place, git_dir)
        for file, what in wrong.items():
            yield Finding(
                code="foreign-worktree-damaged",
                path=os.fspath(git_dir / file),
                message=f"`{file}` of the worktree entry `{name}` {what}; it is not ours, so it is left alone",
            )
        top = entry.points_at(git_dir)
        if not wrong and top is not None and not os.path.lexists(top / ".git"):
            message = f"the worktree `{top}` of the entry `{name}` is gone; it is not ours, so it is left alone"
            yield Finding(code="foreign-worktree-gone", path=os.fspath(git_dir), message=message)
        for lock in _LOCKS:
            with contextlib.suppress(OSError):
                seconds = time.time() - os.lstat(git_dir / lock).st_mtime
                if seconds > _LONG_SECONDS:
                    message = f"there for {seconds:.0f} s: a git is at work there, or died; it is not ours"
                    yield Finding(code="foreign-lock", path=os.fspath(git_dir / lock), message=message)


def _damage(place: Place, git_dir: Path) -> dict[str, str]:
    """What the files say is wrong, and whether the commit of a detached HEAD exists; a branch answers for itself."""
    wrong = entry.damage(git_dir)
    head = (entry.read_small(git_dir / "HEAD") or b"").strip()
    if "HEAD" not in wrong and not head.startswith(b"ref: "):
        asked = run("cat-file", "-e", head.decode(), git_dir=place.repo.common_dir, expect=None)
        if asked.status != 0:
            wrong["HEAD"] = "names a commit that is not there"
    return wrong


def _strays(place: Place, starts: Mapping[JobId, Oid]) -> Iterator[tuple[Finding, Callable[[], object] | None]]:
    """Workspaces and entries that look like ours and that no record knows."""
    damaged = {record.job for record in journal.records(place) if journal.is_damaged(record)}
    known = {record.job for record in journal.records(place)} | set(journal.intended(place))
    known -= damaged.intersection(starts)
    names = {name for top in (place.entries, place.root) if top.is_dir() for name in os.listdir(top)}
    for name in sorted(names - known):
        git_dir, job = place.entries / name, JobId(name)
        path = entry.points_at(git_dir) or place.root / name
        if not JOB.fullmatch(name) or (git_dir.is_dir() and not _bears_our_lock(git_dir)):
            continue
        if path.is_dir() and git_dir.is_dir() and job in starts:
            message = f"the workspace of `{job}` stands, and no whole record of ours says so"
            record = Record(job, path, os.lstat(path).st_ino, starts[job])
            finding = Finding(code="workspace-unrecorded", path=os.fspath(path), message=message)
            yield finding, partial(journal.write_record, place, record)
        elif job in SLOTS:
            message = "a worktree of checks that no whole record knows"
            finding = Finding(code="orphan-workspace", path=os.fspath(path), message=message)
            yield finding, partial(take_away, place, job, path)
        elif path.is_dir():
            message = "a workspace that no record knows; nothing removes it but you"
            yield Finding(code="orphan-workspace", path=os.fspath(path), message=message), None
        else:
            hanging = commits_only_here(place, Workspace(job, path, git_dir))
            on_it = f"; nothing else leads to {', '.join(commit[:10] for commit in hanging)}" if hanging else ""
            message = f"git's entry of `{job}` is left of a workspace that is gone{on_it}"
            finding = Finding(code="orphan-entry", path=os.fspath(git_dir), message=message)
            yield finding, None if hanging else partial(discard, place, git_dir)


def _bears_our_lock(git_dir: Path) -> bool:
    """Whether an entry is named and locked as ours are; a power cut leaves the lock empty."""
    locked = entry.read_small(git_dir / "locked")
    return bool(JOB.fullmatch(git_dir.name)) and (locked or b"").strip() in {b"", entry.reason(JobId(git_dir.name))}
