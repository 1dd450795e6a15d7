"""Merges N candidates in memory and says what would land; moves no ref and touches no file.

(skeleton: signatures only)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from worktrees.git import ObjectStore, Repo
from worktrees.model import Baseline, Conflict, FileChange, JobId, MergePlan, Oid

OnConflict = Literal["stop", "skip"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job's captured work, ready to be merged; `files` is its change set (names sensitive paths and counts)."""

    job_id: JobId
    name: str | None
    task: str | None
    baseline: Baseline
    snapshot: Oid
    files: Sequence[FileChange] = ()


class MergeStrategy(Protocol):
    """How candidates become commits on top of a branch."""

    name: str

    def plan(
        self,
        repo: Repo,
        store: ObjectStore,
        onto: Oid,
        candidates: Sequence[Candidate],
        *,
        identity: tuple[str, str],
        message: str | None = None,
        on_conflict: OnConflict = "stop",
    ) -> MergePlan:
        """Works out the merge of all candidates in order onto a commit; objects go into the store."""
        ...


class ThreeWay:
    """One `--no-ff` merge commit per candidate."""

    name = "three-way"

    def plan(
        self,
        repo: Repo,
        store: ObjectStore,
        onto: Oid,
        candidates: Sequence[Candidate],
        *,
        identity: tuple[str, str],
        message: str | None = None,
        on_conflict: OnConflict = "stop",
    ) -> MergePlan:
        """Merges in the given order, each onto the result of the one before."""
        raise NotImplementedError


def conflicts_between(
    repo: Repo, store: ObjectStore, onto: Oid, pairs: Sequence[tuple[Candidate, Candidate | None]]
) -> list[list[Conflict]]:
    """For each pair what does not merge, in one git process; None as the second means the branch itself (`onto`)."""
    raise NotImplementedError
