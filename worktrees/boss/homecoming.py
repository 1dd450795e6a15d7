"""The verbs that bring work home: merge, rollback, undo, and the log of what they did.

A merge goes in stages, each one method: choose the jobs, plan in memory, land. Nothing has moved before the last; when
somebody landed in between, all of it is done again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from worktrees import changes, config, jobs, landing
from worktrees.boss.footing import Footing
from worktrees.boss.judgement import (
    candidate,
    mergeable,
    operation_id,
    refuse_if_overlapping,
    refuse_if_sensitive,
    root,
    unfinished,
    with_conflicts,
)
from worktrees.errors import Refused
from worktrees.jobs import looks, removal
from worktrees.landing import Target
from worktrees.model import ChangeSet, Job, Merged, MergePlan, Operation, OperationId, Overlap, Recorded
from worktrees.render.text import listed
from worktrees.store import now

if TYPE_CHECKING:
    from collections.abc import Sequence

Order = Literal["given", "completion", "created"]
OnConflict = Literal["stop", "skip"]
# Plans of one merge, while others land before it.
_TRIES = 20


class Prepared(NamedTuple):
    """A merge worked out and not landed: where it goes, its jobs in order, the plan, and what two of them touch."""

    target: Target
    jobs: list[Job]
    plan: MergePlan
    overlaps: list[Overlap]
    stopped: bool
    """Whether a conflict keeps everything from landing."""

    @property
    def moves(self) -> bool:
        """Whether there is anything to land."""
        return not self.stopped and self.plan.after != self.plan.before


class Homecoming(Footing):
    """How the jobs' work gets into the branch, and out of it again."""

    def merge(
        self,
        *words: str,
        workflow: str | None = None,
        into: str | None = None,
        message: str | None = None,
        strategy: str = "three-way",
        order: Order | None = None,
        on_conflict: OnConflict = "stop",
        on_overlap: Literal["allow", "refuse"] = "allow",
        refuse_sensitive: bool = False,
        no_commit: bool = False,
        dry_run: bool = False,
    ) -> Merged:
        """Plans the merge in memory and lands it, wholly or not at all.

        Without words: every job of the open workflow that succeeded, was captured whole and has not landed, in
        completion order. Named jobs are merged in the order named, whatever their result. A conflict moves nothing
        unless `on_conflict` is `skip`; it is in the answer's steps, not an exception.

        Raises: Refused `detached-head`, `would-overwrite`, `branch-moved`, `overlap`, `sensitive-paths`, ...
        """
        self._boss_only("merge")
        for left in reversed(range(_TRIES)):
            self._mend()
            target = landing.find_target(self.repo, into)
            chosen = self._to_merge(words, workflow, order)
            prepared = self._plan(target, chosen, strategy, message, on_conflict)
            if on_overlap == "refuse":
                refuse_if_overlapping(prepared.overlaps)
            if refuse_sensitive:
                refuse_if_sensitive(prepared.plan)
            if dry_run or not prepared.moves:
                return self._merged(prepared, None, dry_run=dry_run)
            try:
                operation = self._land(prepared, message, no_commit=no_commit)
            except Refused as error:
                if error.code == "branch-moved" and left:
                    continue  # somebody landed between plan and lock; nobody has seen this plan, so make another
                raise
            return self._merged(prepared, operation)
        raise AssertionError  # the last try returns or raises

    def rollback(self, to: str | None = None, *, workflow: str | None = None) -> Recorded:
        """Branch, index and files back to what the workflow recorded at its start, or to what operation `to` left.

        What is thrown away is kept first; `undo` brings it back.
        """
        self._boss_only("rollback")
        self._mend()
        found = jobs.current_workflow(self.state, workflow) if self.state.exists() else None
        found = found or self._last_workflow()
        operation = landing.rollback(self.place, found, operation_id(to) if to else None)
        return self._recorded(operation)

    def undo(self, operation: str | None = None) -> Recorded:
        """Reverses an operation, the last one by default; an undo can be undone."""
        self._boss_only("undo")
        self._mend()
        log = landing.operations(self.state) if self.state.exists() else []
        name = operation_id(operation) if operation else None
        wanted = next((item for item in reversed(log) if name in (None, item.operation_id)), None)
        if wanted is None or root(log, wanted).kind != "drop":
            return self._recorded(landing.undo(self.place, name))
        if wanted.undone_by is not None:
            raise Refused(
                f"`{wanted.operation_id}` was undone by `{wanted.undone_by}`",
                code="already-undone",
                hint=f"wt undo {wanted.undone_by}",
            )
        concerned = [jobs.load(self.state, job_id) for job_id in wanted.jobs]
        came_back = any(job.dropped_by for job in concerned)
        if came_back:
            for job in concerned:
                if not job.workspace_present:
                    removal.restore(self.place, job, self.settings)
        elif wanted.kind == "undo":
            removal.give_up(self.place, concerned, self.settings)
        else:
            raise Refused(
                f"the jobs of `{wanted.operation_id}` are back already", code="already-undone", hint="wt list --all"
            )
        return self._recorded(self._note_drop(concerned, came_back=came_back, undoes=wanted.operation_id))

    def log(self) -> list[Operation]:
        """Operations, the newest first."""
        self._boss_only("log")
        return landing.operations(self.state)[::-1] if self.state.exists() else []

    # ------------------------------------------------------------------------------------------------------- stages
    def _plan(
        self, target: Target, chosen: list[Job], strategy: str, message: str | None, on_conflict: OnConflict
    ) -> Prepared:
        """The merge of these jobs onto a branch, in this order, worked out in memory."""
        sets = [self._recorded_changes(job) for job in chosen]
        plan: MergePlan = config.plugin("merge", strategy)().plan(
            self.repo,
            self.place.store,
            target.before,
            [candidate(job, changed) for job, changed in zip(chosen, sets, strict=True)],
            identity=self.repo.identity(),
            message=message,
            on_conflict=on_conflict,
        )
        overlaps = with_conflicts(changes.overlaps(sets), plan)
        return Prepared(target, chosen, plan, overlaps, bool(plan.conflicted) and on_conflict == "stop")

    def _land(self, prepared: Prepared, message: str | None, *, no_commit: bool) -> Operation:
        """Moves the branch to what was planned; the jobs that are in it are marked. Raises: Refused `branch-moved`."""
        operation = landing.land(
            self.place,
            prepared.plan,
            target=prepared.target,
            jobs=[step.job_id for step in prepared.plan.steps if step.outcome in ("landed", "empty")],
            workflow=prepared.jobs[0].workflow_id,
            message=message or "merge " + ", ".join(job.name or job.job_id for job in prepared.jobs),
            no_commit=no_commit,
        )
        self._note_landings()
        return operation

    def _merged(self, prepared: Prepared, operation: Operation | None, *, dry_run: bool = False) -> Merged:
        plan = prepared.plan
        return Merged(
            operation_id=operation.operation_id if operation else None,
            landed=operation is not None,
            dry_run=dry_run,
            branch=prepared.target.branch,
            before=plan.before,
            after=plan.before if prepared.stopped else plan.after,
            strategy=plan.strategy,
            steps=plan.steps,
            overlaps=prepared.overlaps,
        )

    def _to_merge(self, words: Sequence[str], workflow: str | None, order: Order | None) -> list[Job]:
        """The jobs a merge is about, in order."""
        if words:
            chosen = jobs.resolve(self.state, words)
            for job in chosen:
                if job.state != "done":
                    raise unfinished(job, "it cannot be merged yet")
        else:
            found = jobs.current_workflow(self.state, workflow) if self.state.exists() else None
            everyone = jobs.load_all(self.state, found.workflow_id) if found else []
            chosen = [job for job in everyone if mergeable(job)]
            left = [job for job in everyone if not mergeable(job) and not job.landed_by and not job.dropped_by]
            if left:
                names = listed([f"{job.name or job.job_id} ({job.result or job.state})" for job in left])
                self._notice("left-out", f"not merged: {names}")
        keys = {"completion": lambda job: job.finished_at or "", "created": lambda job: job.created_at}
        key = keys.get(order or ("given" if words else "completion"))
        return sorted(chosen, key=key) if key else chosen

    def _recorded_changes(self, job: Job) -> ChangeSet:
        found = looks.recorded(self.state, job)
        if found is None or job.snapshot is None:
            word = job.name or job.job_id
            raise Refused(
                f"`{word}` has nothing to merge: {job.reason or 'it never had a workspace'}",
                code="no-snapshot",
                hint=f"wt result {word}",
            )
        return found

    def _note_drop(self, dropped: Sequence[Job], *, came_back: bool, undoes: OperationId | None = None) -> Operation:
        """Adds a drop, or the undo of one, to the log, and marks its jobs."""
        workflows = {job.workflow_id for job in dropped}
        verb = f"undo: {undoes}" if undoes else "drop: " + ", ".join(job.name or job.job_id for job in dropped)
        draft = Operation(
            operation_id=OperationId(""),
            kind="undo" if undoes else "drop",
            workflow_id=workflows.pop() if len(workflows) == 1 else None,
            jobs=[job.job_id for job in dropped],
            undoes=undoes,
            message=f"wt {verb}",
            created_at=now(),
        )
        operation = landing.record(self.state, draft)
        removal.mark_dropped(self.place, operation.jobs, None if came_back else operation.operation_id)
        return operation

    def _recorded(self, operation: Operation) -> Recorded:
        self._note_landings()
        return Recorded(operation=operation, jobs=[jobs.load(self.state, job_id) for job_id in operation.jobs])
