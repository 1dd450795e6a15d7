"""Baseline against snapshot as git sees the two trees, and which change sets meet on a path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worktrees.changes.scan import Scan
    from worktrees.git import ObjectStore
    from worktrees.model import Audit, ChangeSet, JobId, Oid, Overlap


def change_set(
    store: ObjectStore,
    job: JobId,
    base: Oid,
    snapshot: Oid,
    *,
    scan: Scan | None = None,
    audit: Audit | None = None,
    reported: Sequence[str] | None = None,
) -> ChangeSet:
    """What differs between two commits, renames and copies found like git's; scan findings join those of the audit."""
    raise NotImplementedError


def overlaps(change_sets: Sequence[ChangeSet]) -> list[Overlap]:
    """Paths that two change sets touch, one entry per pair of jobs, `conflict` left open.

    Either side of a rename counts, and so does a file where the other has a directory.
    """
    raise NotImplementedError
