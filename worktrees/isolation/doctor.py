"""Names what is wrong with worktree entries and workspaces, and mends what is ours.

One bad entry can make every git command of the repository fail (`commondir` empty), or `gc` and `fsck` alone (index
or HEAD). Those of others are named with what is wrong and never touched; `git worktree prune` is never run, since it
takes bystanders along. No workspace is ever removed here.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from worktrees.git import run
from worktrees.isolation import entry, journal
from worktrees.isolation.journal import Record
from worktrees.isolation.place import JOB, Place
from worktrees.isolation.trash import discard
from worktrees.model import Finding, JobId

_LOCKS = ("index.lock", "HEAD.lock")


def doctor_findings(place: Place, *, fix: bool = False, running: Collection[JobId] = ()) -> list[Finding]:
    """What is wrong; with `fix` what was mended instead, so that asking again without it names what is left.

    `running` are jobs whose worker may hold git's locks right now.
    """
    ours = {record.job: record for record in journal.records(place)}
    found = [finding for record in ours.values() for finding in _of_ours(place, record, fix=fix, running=running)]
    return found if fix else [*found, *_of_others(place, ours), *_orphans(place, ours)]


def _of_ours(place: Place, record: Record, *, fix: bool, running: Collection[JobId]) -> Iterator[Finding]:
    git_dir = place.entries / record.job
    if not record.path.is_dir():
        if not fix:
            yield Finding(
                code="workspace-missing",
                path=os.fspath(record.path),
                message=f"the workspace of `{record.job}` is gone; forget it with `wt drop {record.job}`",
            )
        return
    if not git_dir.is_dir():
        if fix:
            entry.register(place, record.job, record.path, record.commit, record.sparse)
            entry.mend(place, record.job, record.path, record.commit, record.sparse, ["index"])
        yield Finding(code="worktree-missing", path=os.fspath(git_dir), message="git's entry of a workspace is gone")
        return
    wrong = entry.damage(git_dir)
    if "HEAD" not in wrong and not _has_head(place, git_dir):
        wrong["HEAD"] = "names a commit that is not there"
    if fix and wrong:
        entry.mend(place, record.job, record.path, record.commit, record.sparse, wrong)
    for name, what in wrong.items():
        yield Finding(code="worktree-damaged", path=os.fspath(git_dir / name), message=f"`{name}` {what}")
    for name in _LOCKS:
        if record.job not in running and os.path.lexists(git_dir / name):
            if fix:
                discard(place, git_dir / name)
            yield Finding(code="stale-lock", path=os.fspath(git_dir / name), message="a dead git left its lock")


def _of_others(place: Place, ours: Collection[JobId]) -> Iterator[Finding]:
    for name in sorted(os.listdir(place.entries)) if place.entries.is_dir() else ():
        git_dir = place.entries / name
        if name in ours:
            continue
        wrong = entry.damage(git_dir)
        if "HEAD" not in wrong and "commondir" not in wrong and not _has_head(place, git_dir):
            wrong["HEAD"] = "names a commit that is not there"
        for file, what in wrong.items():
            yield Finding(
                code="foreign-worktree-damaged",
                path=os.fspath(git_dir / file),
                message=f"`{file}` of the worktree entry `{name}` {what}; it is not ours, so it is left alone",
            )


def _has_head(place: Place, git_dir: Path) -> bool:
    """Whether the commit of a detached HEAD exists; a branch answers for itself."""
    head = (entry.read_small(git_dir / "HEAD") or b"").strip()
    if head.startswith(b"ref: "):
        return True
    return run("cat-file", "-e", head.decode(), git_dir=place.repo.common_dir, expect=None).status == 0


def _orphans(place: Place, ours: Collection[JobId]) -> Iterator[Finding]:
    intended = set(journal.intended(place))
    for name in sorted(os.listdir(place.root)) if place.root.is_dir() else ():
        if JOB.fullmatch(name) and name not in ours and name not in intended:
            yield Finding(
                code="orphan-workspace",
                path=os.fspath(place.root / name),
                message="a workspace that no record knows; nothing removes it but you",
            )
