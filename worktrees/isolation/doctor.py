"""Names what is wrong with worktree entries and workspaces, and mends what is ours.

One bad entry can make every git command of the repository fail (`commondir` empty), or `gc` and `fsck` alone (index
or HEAD). Those of others are named with what is wrong and never touched; `git worktree prune` is never run, since it
takes bystanders along. No workspace is ever removed here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from worktrees.errors import Busy
from worktrees.git import run
from worktrees.isolation import entry, journal
from worktrees.isolation.journal import Record
from worktrees.isolation.place import JOB, Place, reported
from worktrees.isolation.trash import discard
from worktrees.isolation.workspace import standing_at
from worktrees.model import Finding, JobId

_LOCKS = ("index.lock", "HEAD.lock")


def doctor_findings(place: Place, *, fix: bool = False, running: Collection[JobId] = ()) -> list[Finding]:
    """What is wrong; with `fix` what was mended instead, so that asking again without it names what is left.

    `running` are jobs whose worker may hold git's locks right now.
    """
    found: list[Finding] = []
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
    return found if fix else [*found, *_adopted(place, everything), *_of_others(place, ours), *_orphans(place, ours)]


def _of_ours(
    place: Place, record: Record, running: Collection[JobId]
) -> Iterator[tuple[Finding, Callable[[], object] | None]]:
    """Findings, each with what mends it."""
    job, git_dir = record.job, place.entries / record.job

    def mend(file: str) -> None:
        entry.mend(place, job, record.path, record.commit, record.sparse, file)

    def register() -> None:
        entry.register(place, job, record.path, record.commit, record.sparse)
        mend("index")

    if not record.path.is_dir():
        message = f"the workspace of `{job}` is gone; `wt drop {job}` takes it off the list"
        yield Finding(code="workspace-missing", path=os.fspath(record.path), message=message), None
        return
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


def _of_others(place: Place, ours: Collection[JobId]) -> Iterator[Finding]:
    for name in sorted(os.listdir(place.entries)) if place.entries.is_dir() else ():
        git_dir = place.entries / name
        if name in ours:
            continue
        for file, what in _damage(place, git_dir).items():
            yield Finding(
                code="foreign-worktree-damaged",
                path=os.fspath(git_dir / file),
                message=f"`{file}` of the worktree entry `{name}` {what}; it is not ours, so it is left alone",
            )


def _damage(place: Place, git_dir: Path) -> dict[str, str]:
    """What the files say is wrong, and whether the commit of a detached HEAD exists; a branch answers for itself."""
    wrong = entry.damage(git_dir)
    head = (entry.read_small(git_dir / "HEAD") or b"").strip()
    if "HEAD" not in wrong and not head.startswith(b"ref: "):
        asked = run("cat-file", "-e", head.decode(), git_dir=place.repo.common_dir, expect=None)
        if asked.status != 0:
            wrong["HEAD"] = "names a commit that is not there"
    return wrong


def _orphans(place: Place, ours: Collection[JobId]) -> Iterator[Finding]:
    intended = set(journal.intended(place))
    for name in sorted(os.listdir(place.root)) if place.root.is_dir() else ():
        if JOB.fullmatch(name) and name not in ours and name not in intended:
            yield Finding(
                code="orphan-workspace",
                path=os.fspath(place.root / name),
                message="a workspace that no record knows; nothing removes it but you",
            )
