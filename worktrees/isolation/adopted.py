"""Worktrees that somebody else made: registered as they stand, and let go of as they stand.

What makes one a job's workspace is the record alone, which also names git's entry of it (`Record.entry`), since that
bears another name than the job. Nothing in the directory or in git's entry is made, changed, mended, moved or removed
here, and closing only forgets the record. A worktree that git has moved since is followed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from worktrees.errors import NotFound, Refused, Usage
from worktrees.git import run
from worktrees.isolation import entry, journal
from worktrees.isolation.journal import Record
from worktrees.isolation.place import Place, disk
from worktrees.isolation.workspace import Workspace, standing_at
from worktrees.model import Baseline, JobId, RepoPath


@dataclass(frozen=True, slots=True)
class Foreign:
    """A linked worktree that is not ours: its top, and git's own directory of it."""

    path: Path
    git_dir: Path


def find_foreign(place: Place, start: Path) -> Foreign:
    """The linked worktree around a directory, found from the repository's side and free to be adopted.

    Raises: NotFound; Refused `main-worktree`, `own-workspace`, `already-adopted`, `unsupported-worktree`.
    """
    here = Path(os.path.realpath(start))
    if not here.is_dir():
        raise NotFound(f"no directory `{start}`", hint="git worktree list")
    found = _around(place, here)
    if found is None:
        main = place.repo.main_work_tree
        if main is not None and here.is_relative_to(main):
            raise Refused(
                f"`{start}` is in the main work tree, which is the boss's own",
                code="main-worktree",
                hint="cd to a linked worktree (git worktree list), and run: wt setup",
            )
        raise NotFound(f"`{start}` is in no worktree of this repository", hint="git worktree list")
    _check_free(place, found)
    try:
        os.fspath(found.path).encode()
    except UnicodeEncodeError:
        raise Refused(
            f"the path `{found.path}` is not UTF-8, and records are",
            code="unsupported-worktree",
            hint="git worktree move it to a path that is",
        ) from None
    return found


def _around(place: Place, here: Path) -> Foreign | None:
    """The innermost linked worktree that holds a directory: agents make theirs inside one another."""
    names = os.listdir(place.entries) if place.entries.is_dir() else []
    found = []
    for name in names:
        top = entry.points_at(place.entries / name)
        if top is not None and here.is_relative_to(real := Path(os.path.realpath(top))):
            found.append(Foreign(real, place.entries / name))
    return max(found, key=lambda foreign: len(foreign.path.parts), default=None)


def _check_free(place: Place, foreign: Foreign) -> None:
    name = foreign.git_dir.name
    for record in journal.records(place):
        if record.entry is None and record.job == name:
            raise Refused(
                f"`{foreign.path}` is the workspace of `{record.job}`, made by `wt`",
                code="own-workspace",
                hint=f"wt status {record.job}",
                details={"jobId": record.job},
            )
        if record.entry == name and standing_at(place, record) is not None:
            raise Refused(
                f"`{foreign.path}` is the workspace of `{record.job}` already",
                code="already-adopted",
                hint=f"wt settle {record.job}, then to begin anew: wt drop {record.job}",
                details={"jobId": record.job},
            )


class AdoptedIsolation:
    """A linked worktree that somebody else made; an instance is made for the one it is to register."""

    name: ClassVar[str] = "adopted"
    attribution: ClassVar[Literal["exact", "shared"]] = "exact"
    makes: ClassVar[bool] = False

    def __init__(self, foreign: Foreign | None = None) -> None:
        self.foreign = foreign

    def open(
        self, place: Place, job: JobId, baseline: Baseline, *, sparse: Sequence[str] = (), index: Path | None = None
    ) -> Workspace:
        """Registers the worktree as the workspace of a job; durable.

        `index` gets a copy of the worktree's own. Raises: Usage without a worktree; Refused when somebody was faster.
        """
        if self.foreign is None:
            raise Usage("a worktree is adopted as it stands and not made", hint="cd to it, and run: wt setup")
        path, git_dir = self.foreign.path, self.foreign.git_dir
        with disk(f"adopt the worktree `{path}`"):
            place.state.prepare()
            with place.state.lock("repository", purpose=f"adopt {path}"):
                _check_free(place, self.foreign)
                if index is not None:
                    _copy_index(git_dir, path, index)
                record = Record(job, path, os.lstat(path).st_ino, baseline.commit, entry=git_dir.name)
                journal.write_record(place, record, durable=True)
        return Workspace(job, path, git_dir)

    def enter(self, workspace: Workspace) -> list[str]:
        """A plain directory needs no prefix."""
        return []

    def candidates(self, workspace: Workspace) -> Iterable[RepoPath] | None:
        """Anything may have changed in a plain directory."""
        return None

    def close(self, place: Place, workspace: Workspace) -> None:
        """Forgets that the worktree is a job's; the worktree stays as it is."""
        with disk(f"release the worktree `{workspace.path}`"), journal.claim(place, workspace.job_id):
            journal.forget(place, workspace.job_id)


def _copy_index(git_dir: Path, path: Path, to: Path) -> None:
    try:
        # With its time: by it git knows which entries it must not trust the clock for.
        shutil.copy2(git_dir / "index", to)
    except FileNotFoundError:
        return  # nothing was checked out yet; the capture hashes everything once
    if any(git_dir.glob("sharedindex.*")):
        words = ("update-index", "--no-split-index", "--force-write-index")
        run(*words, git_dir=git_dir, work_tree=path, index=to, config=("core.splitIndex=false",))
