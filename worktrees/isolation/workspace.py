"""Opens and closes workspaces."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from worktrees.isolation.place import Place
from worktrees.model import Baseline, Finding, JobId, Oid, RepoPath


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where a job works; `git_dir` is git's own directory of it, None when the kind has none."""

    job_id: JobId
    path: Path
    git_dir: Path | None


class Isolation(Protocol):
    """One kind of workspace."""

    name: ClassVar[str]
    attribution: ClassVar[Literal["exact", "shared"]]

    def open(
        self, place: Place, job: JobId, baseline: Baseline, *, sparse: Sequence[str] = (), index: Path | None = None
    ) -> Workspace:
        """Makes a workspace that holds the baseline, whole or not at all.

        `index`: where to leave a copy of the fresh index (tree of `baseline.start` with the stat data of every file, taken before
        any worker ran), so that the capture only reads what changed.
        """

    def enter(self, workspace: Workspace) -> list[str]:
        """The command prefix with which a process enters the workspace; [] for a plain directory."""

    def candidates(self, workspace: Workspace) -> Iterable[RepoPath] | None:
        """Paths that can have changed; None means everything."""

    def close(self, place: Place, workspace: Workspace) -> None:
        """Takes the workspace away; the caller has captured before."""


class WorktreeIsolation:
    """A detached, locked linked worktree of git's."""

    name: ClassVar[str] = "worktree"
    attribution: ClassVar[Literal["exact", "shared"]] = "exact"

    def open(
        self, place: Place, job: JobId, baseline: Baseline, *, sparse: Sequence[str] = (), index: Path | None = None
    ) -> Workspace:
        """Makes a workspace that holds the baseline, whole or not at all."""
        raise NotImplementedError

    def enter(self, workspace: Workspace) -> list[str]:
        """A plain directory needs no prefix."""
        return []

    def candidates(self, workspace: Workspace) -> Iterable[RepoPath] | None:
        """Not known here."""
        return None

    def close(self, place: Place, workspace: Workspace) -> None:
        """Takes the workspace away."""
        raise NotImplementedError


def workspace_of(place: Place, job: JobId) -> Workspace | None:
    """The workspace opened for a job and not closed yet."""
    raise NotImplementedError


def recover(place: Place) -> list[Finding]:
    """Undoes or finishes what dead processes left half-made; cheap when there is nothing."""
    raise NotImplementedError


def sweep(place: Place) -> None:
    """Starts the background removal of what lies in the trash, if anything does."""
    raise NotImplementedError


def commits_only_here(place: Place, workspace: Workspace) -> list[Oid]:
    """Commits that only the workspace's own HEAD, reflog or refs lead to: they die with it unless somebody keeps them."""
    raise NotImplementedError


def doctor_findings(place: Place, *, fix: bool = False, running: Collection[JobId] = ()) -> list[Finding]:
    """What is wrong with worktree entries and workspaces; `fix` mends ours, those of others are only named."""
    raise NotImplementedError
