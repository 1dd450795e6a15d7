"""The built-in strategies: candidates become commits, one step at a time, each on the result of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

from worktrees.errors import GitFailed
from worktrees.git import ObjectStore, Repo
from worktrees.merge.mill import Mill, grinding
from worktrees.model import Baseline, Conflict, FileChange, JobId, MergePlan, Oid, Step, StepOutcome

OnConflict = Literal["stop", "skip"]

_SUBJECT_LENGTH = 72


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job's captured work, ready to be merged; `files` is its change set, for counts and sensitive paths."""

    job_id: JobId
    name: str | None
    task: str | None
    baseline: Baseline
    snapshot: Oid
    files: Sequence[FileChange] = ()

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name or self.job_id


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
        message: str | None = None,
        on_conflict: OnConflict = "stop",
    ) -> MergePlan:
        """Works out the merge of all candidates, in the order given, onto a commit.

        `stop`: when any of them conflicts nothing is to land, and `after` equals `before`. `skip`: those are left out.
        Raises: GitFailed; NotFound for a snapshot that is gone.
        """


class Joined(NamedTuple):
    """One candidate put onto a result: the new commit (None: it changes nothing) with its tree, or the conflicts."""

    commit: Oid | None
    tree: Oid
    conflicts: list[Conflict]


@dataclass(frozen=True, slots=True)
class Round:
    """What every step of a plan needs."""

    mill: Mill
    trees: dict[Oid, Oid]

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
        side = self.mill.commit(tree, [baseline.commit], _message(candidate, None))
        self.trees[side] = tree
        return side, []

    def merged(self, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        """A merge commit on top of a result: what the worker did against the baseline, joined as `git merge` would."""
        side, _ = self.side(candidate)
        if side is None:
            replayed = self.replayed(current, candidate, None)
            if replayed.commit is None:
                return replayed
            side, tree = replayed.commit, replayed.tree
        elif self.trees[side] == self.trees[candidate.baseline.commit]:
            return Joined(None, self.trees[current], [])
        else:
            verdict = self.mill.merge(current, side)
            if verdict.conflicts:
                return Joined(None, verdict.tree, verdict.conflicts)
            tree = verdict.tree
        return self._keep(self.mill.commit(tree, [current, side], _message(candidate, message, verb="Merge ")), tree)

    def replayed(self, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        """What lies between start and snapshot, applied to a result as a cherry-pick would."""
        start = candidate.baseline.start
        ours = self.mill.commit(self.trees[current], [start], "the result so far")
        theirs = self.mill.commit(self.trees[candidate.snapshot], [start], "with the worker's edits")
        verdict = self.mill.merge(ours, theirs)
        if verdict.conflicts or verdict.tree == self.trees[current]:
            return Joined(None, verdict.tree, verdict.conflicts)
        return self._keep(self.mill.commit(verdict.tree, [current], _message(candidate, message)), verdict.tree)

    def _keep(self, commit: Oid, tree: Oid) -> Joined:
        self.trees[commit] = tree
        return Joined(commit, tree, [])


def _message(candidate: Candidate, message: str | None, verb: str = "") -> str:
    """What a commit says: the words asked for, or the first line of the task; and which job it was."""
    task = next((line.strip() for line in (candidate.task or "").splitlines() if line.strip()), "")
    if len(task) > _SUBJECT_LENGTH:
        task = task[: _SUBJECT_LENGTH - 1].rstrip() + "…"
    subject = f"{verb}job {candidate.title}" + (f": {task}" if task else "") if verb or not task else task
    return f"{message or subject}\n\nWt-Job: {candidate.job_id}".replace("\0", "")


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
        message: str | None = None,
        on_conflict: OnConflict = "stop",
    ) -> MergePlan:
        """Works out the merge of all candidates, in the order given, onto a commit; see `MergeStrategy`."""
        with grinding(repo, store, onto, identity) as mill:
            commits = [onto, *(oid for each in candidates for oid in commits_of(each))]
            tools = Round(mill, mill.trees(commits))
            current, steps = onto, []
            for candidate in candidates:
                try:
                    joined = self._join(tools, current, candidate, message)
                except GitFailed as error:
                    error.hint = f"leave the job out: wt merge, with every job named but {candidate.title}"
                    raise
                steps.append(_step(candidate, joined))
                current = joined.commit or current
            if on_conflict == "stop" and any(step.outcome == "conflict" for step in steps):
                skipped = {"outcome": "skipped", "commit": None, "tree": None}
                steps = [step.model_copy(update=skipped) if step.outcome == "landed" else step for step in steps]
                current = onto
            if current != onto:
                current, steps = self._seal(tools, onto, current, steps, message)
            return MergePlan(strategy=self.name, before=onto, after=current, steps=steps)

    def _join(self, tools: Round, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        if tools.trees[candidate.snapshot] == tools.trees[candidate.baseline.start]:
            return Joined(None, tools.trees[current], [])
        return self._put(tools, current, candidate, message)

    def _put(self, tools: Round, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        return tools.merged(current, candidate, message)

    def _seal(
        self, tools: Round, onto: Oid, current: Oid, steps: list[Step], message: str | None
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
        return tools.replayed(current, candidate, message)


class Squash(_Chained):
    """Merged as three-way, then one commit with one parent for all candidates together."""

    name = "squash"

    def _seal(
        self, tools: Round, onto: Oid, current: Oid, steps: list[Step], message: str | None
    ) -> tuple[Oid, list[Step]]:
        landed = [step for step in steps if step.outcome == "landed"]
        subject = message or "Merge jobs " + ", ".join(step.name or step.job_id for step in landed)
        words = subject + "\n\n" + "\n".join(f"Wt-Job: {step.job_id}" for step in landed)
        commit = tools.mill.commit(tools.trees[current], [onto], words)
        return commit, [
            step.model_copy(update={"commit": commit}) if step.outcome == "landed" else step for step in steps
        ]


def _step(candidate: Candidate, joined: Joined) -> Step:
    if joined.conflicts:
        outcome: StepOutcome = "conflict"
    else:
        outcome = "empty" if joined.commit is None else "landed"
    return Step(
        job_id=candidate.job_id,
        name=candidate.name,
        outcome=outcome,
        commit=joined.commit,
        tree=joined.tree if joined.commit else None,
        conflicts=joined.conflicts,
        files=len(candidate.files),
        sensitive=[change.path for change in candidate.files if change.sensitive],
    )


def commits_of(candidate: Candidate) -> tuple[Oid, Oid, Oid]:
    """Every commit of a candidate whose tree a plan asks for."""
    return candidate.snapshot, candidate.baseline.start, candidate.baseline.commit
