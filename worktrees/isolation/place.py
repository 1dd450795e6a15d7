"""The place of a run: the boss's repository, the state beside it, the store, and where workspaces go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from worktrees.config import Settings
from worktrees.git import ObjectStore, Repo
from worktrees.model import JobId, Oid
from worktrees.store import State


@dataclass(frozen=True, slots=True)
class Place:
    """Everything a workspace is made from; making the object touches nothing."""

    repo: Repo
    state: State
    store: ObjectStore
    root: Path


def place(repo: Repo, settings: Settings) -> Place:
    """The place of a repository under these settings. Raises: Usage for a directory inside the repository."""
    raise NotImplementedError


def discover_boss(start: Path) -> tuple[Repo, JobId | None]:
    """The boss's repository around a directory, and the job when the directory lies in its workspace."""
    raise NotImplementedError


def pin(place: Place, ref: str, commit: Oid) -> None:
    """Holds a commit by a ref of the user's repository, durably; no change when it is held already. Raises: Refused."""
    raise NotImplementedError
