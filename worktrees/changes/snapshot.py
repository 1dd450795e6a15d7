"""The full state of a workspace as a commit in wt's own store, whatever the worker did to git."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from worktrees.changes.scan import Scan
    from worktrees.config import Settings
    from worktrees.git import ObjectStore, Repo
    from worktrees.model import Baseline, IgnoredFile, JobId, Oid, RepoPath


def prime(
    store: ObjectStore, repo: Repo, workspace: Path, baseline: Baseline, index: Path, *, seed: Path | None = None
) -> None:
    """Records, before the worker starts, what a capture trusts: stat data, ignore rules, filters, ignored files already there.

    `seed` is the index git's checkout just wrote (`<admin dir>/index`); with it nothing is read twice, without it every file is
    hashed once. Call it after setup has filled the workspace. Writes `index` and `<index>.json`.
    """
    raise NotImplementedError


def capture(
    store: ObjectStore,
    repo: Repo,
    workspace: Path,
    baseline: Baseline,
    *,
    job: JobId,
    ref: str | None,
    index: Path,
    settings: Settings,
    candidates: Iterable[RepoPath] | None = None,
    filters: Sequence[str] | None = None,
    durable: bool = True,
) -> tuple[Oid, Scan]:
    """Makes the snapshot commit and names it `ref` in the store; `ref` None is a live look that names nothing.

    `filters` are `filter.*` settings (`name=value`) in place of those `prime` recorded. May be repeated; never writes `index`.
    """
    raise NotImplementedError


def keep_ignored(
    store: ObjectStore, workspace: Path, ignored: Sequence[IgnoredFile], *, ref: str, job: JobId, limit_bytes: int
) -> list[IgnoredFile]:
    """Copies ignored files byte for byte into a commit `<ref>-ignored`, in order while the limit lasts; says which were kept."""
    raise NotImplementedError
