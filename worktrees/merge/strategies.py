"""The built-in strategies: candidates become commits, one step at a time, each on the result of the one before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, NamedTuple, Protocol

from worktrees.errors import GitFailed
from worktrees.git import ObjectStore, Repo
from worktrees.merge.mill import Mill, Verdict, grinding
from worktrees.model import (
    Baseline,
    Clash,
    Conflict,
    FileChange,
    JobId,
    MergePlan,
    Oid,
    OnConflict,
    Step,
    StepOutcome,
    WorkflowName,
)

# Policies under which the rest is to land, whatever does not merge.
GOES_ON = frozenset({"skip", "rerun"})
_TRAILER = re.compile(r"[A-Za-z0-9-]+: \S")
_SUBJECT_LENGTH = 72


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job's captured work, ready to be merged; `files` is its change set, for counts and sensitive paths.

    One that was run again started on a result of ours that no branch may hold: only what it did since is applied.
    """

    job_id: JobId
    name: str | None
    task: str | None
    baseline: Baseline
    snapshot: Oid
    files: Sequence[FileChange] = ()
    workflow_id: WorkflowName | None = None
    rerun_of: JobId | None = None

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name or self.job_id

    @property
    def work(self) -> tuple[Oid, Oid]:
        """What the worker did: where it started, and its snapshot."""
        return self.baseline.start, self.snapshot


class Resolution(NamedTuple):
    """How a job's conflict was resolved by hand: the result it was joined to, and what came of it, as commits."""

    start: Oid
    end: Oid


class MergeStrategy(Protocol):
    """How candidates become commits on top of a branch."""

    @property
    def name(self) -> str:
        """What it is registered as."""

    def plan(
        self,
        repo: Repo,
        store: ObjectStore,
        onto: Oid,
        candidates: Sequence[Candidate],
        *,
        identity: tuple[str, str],
        author: tuple[str, str] | None = None,
        message: str | None = None,
        on_conflict: OnConflict = "stop",
        resolutions: Mapping[JobId, Resolution] = MappingProxyType({}),
    ) -> MergePlan:
        """Works out the merge of all candidates, in the order given, onto a commit.

        `skip` and `rerun`: those that conflict are left out. Else nothing is to land when any of them does, and
        `after` equals `before`; `manual` ends at the first, and `clash` says what it was. A conflict that was resolved
        before is what its resolution says. Raises: GitFailed; NotFound for a snapshot that is gone.
        """


class Joined(NamedTuple):
    """One candidate put onto a result: the new commit (None: it changes nothing) with its tree, or the conflicts."""

    commit: Oid | None
    tree: Oid
    conflicts: list[Conflict]
    clash: Clash | None = None
    """The result so far and the two commits that do not merge, where it conflicts."""


@dataclass(frozen=True, slots=True)
class Round:
    """What every step of a plan needs."""

    mill: Mill
    trees: dict[Oid, Oid]
    resolutions: Mapping[JobId, Resolution] = field(default_factory=dict)

    def side(self, candidate: Candidate) -> tuple[Oid | None, list[Conflict]]:
        """The commit on the candidate's baseline that holds the worker's edits alone, or why there is none."""
        baseline = candidate.baseline
        tree = self.trees[candidate.snapshot]
        if baseline.snapshot is not None:
            without = self.mill.commit(self.trees[baseline.commit], [baseline.snapshot], "without the boss's edits")
            worker = self.mill.commit(tree, [baseline.snapshot], "with the worker's edits")
            verdict = self.mill.merge(without, worker)
            if verdict.conflicts:
                return None, verdict.conflicts
            tree = verdict.tree
        side = self.mill.commit(tree, [baseline.commit], _message(candidate, None), work=True)
        self.trees[side] = tree
        return side, []

    def merged(self, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        """A merge commit on top of a result: what the worker did against the baseline, joined as `git merge` would."""
        side, _ = self.side(candidate) if candidate.rerun_of is None else (None, [])
        if side is not None and self.trees[side] == self.trees[candidate.baseline.commit]:
            return Joined(None, self.trees[current], [])
        if candidate.job_id in self.resolutions:
            joined = self.resolved(current, candidate)
            side, tree = side or self._kept_side(candidate), joined.tree
            if joined.conflicts:
                return joined
        elif side is None:
            replayed = self.replayed(current, candidate, None)
            if replayed.commit is None:
                return replayed
            side, tree = replayed.commit, replayed.tree
        else:
            verdict = self.mill.merge(current, side)
            if verdict.conflicts:
                return Joined(None, verdict.tree, verdict.conflicts, Clash(so_far=current, ours=current, theirs=side))
            tree = verdict.tree
        return self._keep(self.mill.commit(tree, [current, side], _message(candidate, message, verb="Merge ")), tree)

    def picked(self, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        """One commit on top of a result, as a cherry-pick would make it; None where it is all there already."""
        if candidate.job_id not in self.resolutions:
            return self.replayed(current, candidate, message)
        joined = self.resolved(current, candidate)
        if joined.conflicts or joined.tree == self.trees[current]:
            return joined
        commit = self.mill.commit(joined.tree, [current], _message(candidate, message), work=True)
        return self._keep(commit, joined.tree)

    def replayed(self, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        """What lies between start and snapshot, applied to a result as a cherry-pick would."""
        verdict, clash = self._applied(current, candidate.baseline.start, candidate.snapshot)
        if verdict.conflicts or verdict.tree == self.trees[current]:
            return Joined(None, verdict.tree, verdict.conflicts, clash)
        commit = self.mill.commit(verdict.tree, [current], _message(candidate, message), work=True)
        return self._keep(commit, verdict.tree)

    def resolved(self, current: Oid, candidate: Candidate) -> Joined:
        """What a resolution made of a candidate; it was made for a result that need not be this one."""
        start, end = self.resolutions[candidate.job_id]
        verdict, clash = self._applied(current, start, end)
        return Joined(None, verdict.tree, verdict.conflicts, clash)

    def _applied(self, current: Oid, start: Oid, end: Oid) -> tuple[Verdict, Clash]:
        ours = self.mill.commit(self.trees[current], [start], "the result so far")
        theirs = self.mill.commit(self.trees[end], [start], "with the worker's edits")
        return self.mill.merge(ours, theirs), Clash(so_far=current, ours=ours, theirs=theirs)

    def _kept_side(self, candidate: Candidate) -> Oid:
        """The commit of all that a workspace held, for whom the worker's edits cannot be told apart."""
        tree = self.trees[candidate.snapshot]
        return self.mill.commit(tree, [candidate.baseline.commit], _message(candidate, None), work=True)

    def _keep(self, commit: Oid, tree: Oid) -> Joined:
        self.trees[commit] = tree
        return Joined(commit, tree, [])


def _message(candidate: Candidate, message: str | None, verb: str = "") -> str:
    """What a commit says: the words asked for, or the first line of the task; and which job it was."""
    task = next((line.strip() for line in (candidate.task or "").splitlines() if line.strip()), "")
    if len(task) > _SUBJECT_LENGTH:
        task = task[: _SUBJECT_LENGTH - 1].rstrip() + "…"
    subject = f"{verb}job {candidate.title}" + (f": {task}" if task else "") if verb or not task else task
    return _with_trailers(message or subject, [candidate.job_id], candidate.workflow_id)


def _with_trailers(message: str, jobs: Sequence[JobId], workflow: WorkflowName | None) -> str:
    """A message that ends with which jobs of which workflow it is about, after trailers it may have."""
    body = message.replace("\0", "").rstrip("\n")
    _, parted, last = body.rpartition("\n\n")
    has_trailers = bool(parted) and all(_TRAILER.match(line) for line in last.splitlines())
    lines = [f"Wt-Job: {job}" for job in jobs] + ([f"Wt-Workflow: {workflow}"] if workflow else [])
    return body + ("\n" if has_trailers else "\n\n") + "\n".join(lines)


class _Chained:
    """A strategy that puts one candidate after the other onto the result so far."""

    name: ClassVar[str]

    def plan(
        self,
        repo: Repo,
        store: ObjectStore,
        onto: Oid,
        candidates: Sequence[Candidate],
        *,
        identity: tuple[str, str],
        author: tuple[str, str] | None = None,
        message: str | None = None,
        on_conflict: OnConflict = "stop",
        resolutions: Mapping[JobId, Resolution] = MappingProxyType({}),
    ) -> MergePlan:
        """Works out the merge of all candidates, in the order given, onto a commit; see `MergeStrategy`."""
        work = [each.work for each in candidates]
        with grinding(repo, store, onto, identity, work=work, author=author) as mill:
            commits = [onto, *(oid for each in candidates for oid in commits_of(each))]
            commits += [oid for resolution in resolutions.values() for oid in resolution]
            tools = Round(mill, mill.trees(commits), resolutions)
            current, steps = onto, []
            clash: Clash | None = None
            for candidate in candidates:
                if clash and on_conflict == "manual":
                    steps.append(_step(candidate, Joined(None, tools.trees[current], []), "skipped"))
                    continue
                try:
                    joined = self._join(tools, current, candidate, message)
                except GitFailed as error:
                    error.hint = f"leave the job out: wt merge, with every job named but {candidate.title}"
                    raise
                steps.append(_step(candidate, joined))
                clash = clash or joined.clash
                current = joined.commit or current
            if clash and on_conflict not in GOES_ON:
                skipped = {"outcome": "skipped", "commit": None, "tree": None}
                steps = [step.model_copy(update=skipped) if step.outcome == "landed" else step for step in steps]
                current = onto
            if current != onto:
                workflow = next((each.workflow_id for each in candidates if each.workflow_id), None)
                current, steps = self._seal(tools, onto, current, steps, message, workflow)
            return MergePlan(strategy=self.name, before=onto, after=current, steps=steps, clash=clash)

    def _join(self, tools: Round, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        if tools.trees[candidate.snapshot] == tools.trees[candidate.baseline.start]:
            return Joined(None, tools.trees[current], [])
        return self._put(tools, current, candidate, message)

    def _put(self, tools: Round, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        return tools.merged(current, candidate, message)

    def _seal(
        self,
        tools: Round,
        onto: Oid,
        current: Oid,
        steps: list[Step],
        message: str | None,
        workflow: WorkflowName | None,
    ) -> tuple[Oid, list[Step]]:
        """The last word on a finished chain."""
        return current, steps


class ThreeWay(_Chained):
    """One `--no-ff` merge commit per candidate, each onto the result of the one before."""

    name = "three-way"


class Rebase(_Chained):
    """One commit per candidate, a cherry-pick onto the result of the one before; `empty` if already there."""

    name = "rebase"

    def _put(self, tools: Round, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        return tools.picked(current, candidate, message)


class Squash(_Chained):
    """Merged as three-way, then one commit with one parent for all candidates together."""

    name = "squash"

    def _seal(
        self,
        tools: Round,
        onto: Oid,
        current: Oid,
        steps: list[Step],
        message: str | None,
        workflow: WorkflowName | None,
    ) -> tuple[Oid, list[Step]]:
        landed = [step for step in steps if step.outcome == "landed"]
        subject = message or "Merge jobs " + ", ".join(step.name or step.job_id for step in landed)
        words = _with_trailers(subject, [step.job_id for step in landed], workflow)
        commit = tools.mill.commit(tools.trees[current], [onto], words, work=True)
        return commit, [
            step.model_copy(update={"commit": commit}) if step.outcome == "landed" else step for step in steps
        ]


def _step(candidate: Candidate, joined: Joined, outcome: StepOutcome | None = None) -> Step:
    if outcome is None:
        outcome = "conflict" if joined.conflicts else "empty" if joined.commit is None else "landed"
    return Step(
        job_id=candidate.job_id,
        name=candidate.name,
        outcome=outcome,
        commit=joined.commit,
        tree=joined.tree if joined.commit else None,
        conflicts=joined.conflicts,
        files=len(candidate.files),
        sensitive=[change.path for change in candidate.files if change.sensitive],
        rerun_of=candidate.rerun_of,
    )


def commits_of(candidate: Candidate) -> tuple[Oid, Oid, Oid]:
    """Every commit of a candidate whose tree a plan asks for."""
    return candidate.snapshot, candidate.baseline.start, candidate.baseline.commit
