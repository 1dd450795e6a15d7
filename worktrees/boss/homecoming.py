"""The verbs that bring work home: merge, rollback, undo, and the log of what they did.

A merge goes in stages, each one method: choose the jobs, plan in memory, deal with conflicts as asked, pass the check
gate, sign, land. Nothing has moved before the last; when somebody landed in between, all is done again, and said so.

What a conflict leads to (`on_conflict`):

    stop       nothing moves
    skip       the rest lands
    manual     the first one is laid out in an integration worktree, to be resolved by hand (`byhand`)
    rerun      the jobs that do not merge run again, one after another, each on the result so far; all lands, or nothing
    rollback   branch, index and files go back to what the workflow recorded at its start; what was there is kept
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from worktrees import changes, config, jobs, landing
from worktrees.boss import hiring
from worktrees.boss.accompaniment import Accompaniment
from worktrees.boss.judgement import (
    candidate,
    merge_spec,
    mergeable,
    operation_id,
    person,
    refuse_if_not_rerunnable,
    refuse_if_overlapping,
    refuse_if_sensitive,
    root,
    unfinished,
    with_conflicts,
)
from worktrees.boss.ordering import in_order, landing_most
from worktrees.errors import Refused
from worktrees.jobs import again, looks, removal
from worktrees.landing import Target
from worktrees.merge import GOES_ON, Resolution
from worktrees.model import (
    Baseline,
    ChangeSet,
    Check,
    Job,
    JobId,
    Merged,
    MergePlan,
    MergeSpec,
    Oid,
    Operation,
    OperationId,
    Overlap,
    Recorded,
    Rerun,
)
from worktrees.render.text import counted, listed
from worktrees.store import now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worktrees.gate import Gate

# Plans of one merge, while others land before it: each plan in vain is a landing of somebody else's.
_TRIES = 64
# The same where each is checked, which takes its time.
_CHECKED_TRIES = 5


def _in_silence(_: str | bytes) -> None:
    """Tells nobody."""


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


class Homecoming(Accompaniment):
    """How the jobs' work gets into the branch, and out of it again."""

    def merge(
        self,
        *words: str,
        workflow: str | None = None,
        dry_run: bool = False,
        narrate: Callable[[str], object] = _in_silence,
        hear: Callable[[bytes], object] = _in_silence,
        **wishes: Any,
    ) -> Merged:
        """Plans the merge in memory and lands it, wholly or not at all.

        `wishes` are fields of `MergeSpec`: `into`, `message`, `strategy`, `order`, `on_conflict`, ... Without words:
        every job of the open workflow that succeeded, was captured whole and has not landed, in completion order. Named
        jobs are merged in the order named, whatever their result. A conflict moves nothing unless `on_conflict` says
        so; it is in the answer's steps, not an exception. `narrate` is told what takes long,
        `hear` gets what checks print.

        Raises: Usage; Refused `detached-head`, `would-overwrite`, `branch-moved`, `overlap`, `sensitive-paths`,
        `not-rerunnable`, `check-unapproved`, ...
        """
        self._boss_only("merge")
        spec = merge_spec(wishes, self.settings)
        if not dry_run:
            self._refuse_while_resolving()
        reruns: list[Rerun] = []
        gate = self._gate(spec, narrate, hear, dry_run=dry_run)
        for left in reversed(range(_CHECKED_TRIES if gate else _TRIES)):
            self._mend()
            target = landing.find_target(self.repo, spec.into)
            chosen = self._choose(words, workflow, {rerun.rerun_of: rerun.job_id for rerun in reruns})
            chosen = self._not_yet_in(target, chosen)
            prepared = self._plan_in_order(target, chosen, spec, named=bool(words))
            if spec.on_overlap == "refuse":
                refuse_if_overlapping(prepared.overlaps)
            if spec.refuse_sensitive:
                refuse_if_sensitive(prepared.plan)
            if dry_run:
                return self._merged(prepared, check=gate.answer() if gate else None, dry_run=True)
            if prepared.plan.conflicted and spec.on_conflict == "rollback":
                return self._roll_back(prepared)
            if prepared.plan.conflicted and spec.on_conflict == "manual":
                return self._lay_out(prepared, spec)
            if prepared.plan.conflicted and spec.on_conflict == "rerun":
                prepared = self._run_again(prepared, spec, reruns, narrate)
            prepared, check = self._pass(gate, prepared, spec)
            if not prepared.moves:
                return self._merged(prepared, check=check, reruns=reruns)
            if spec.run_hooks:
                self._refuse_hooks(prepared.target, prepared.plan)
            prepared = prepared._replace(plan=self._signed(prepared.plan, prepared.jobs, spec))
            try:
                operation = self._land(prepared, spec)
            except Refused as error:
                if error.code == "branch-moved" and left:
                    # Somebody landed between plan and lock: make another plan.
                    self._notice("planned-again", f"{error.message}; planned {'and checked ' if gate else ''}again")
                    if gate is not None:
                        narrate(f"{error.message}; planning and checking again")
                    continue
                raise
            if spec.run_hooks:
                self._run_hook(prepared.target, narrate)
            return self._merged(prepared, operation, check=check, reruns=reruns)
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
                if job.dropped_by or not job.workspace_present:
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
    def _choose(self, words: Sequence[str], workflow: str | None, instead: Mapping[JobId, JobId]) -> list[Job]:
        """The jobs a merge is about: as named, or as they were made; `instead` names those that ran again for others.

        A job that is being run again, or was with success, is not taken unless it is named.
        """
        if words:
            chosen = jobs.resolve(self.state, words)
            for number, job in enumerate(chosen):
                if job.state != "done":
                    raise unfinished(job, "it cannot be merged yet")
                while chosen[number].job_id in instead:
                    chosen[number] = jobs.load(self.state, instead[chosen[number].job_id])
            return chosen
        found = jobs.current_workflow(self.state, workflow) if self.state.exists() else None
        everyone = jobs.load_all(self.state, found.workflow_id) if found else []
        replaced = again.replaced(everyone)
        everyone = [job for job in everyone if job.job_id not in replaced]
        left = [job for job in everyone if not mergeable(job) and not job.landed_by and not job.dropped_by]
        if left:
            names = listed([f"{job.name or job.job_id} ({job.result or job.state})" for job in left])
            self._notice("left-out", f"not merged: {names}")
        return [job for job in everyone if mergeable(job)]

    def _not_yet_in(self, target: Target, chosen: list[Job]) -> list[Job]:
        """The jobs whose work is not in the branch; that which was landed there, and not moved out by hand, is."""
        there = landing.present(self.place, target, {job.job_id for job in chosen}) if chosen else {}
        for job in chosen:
            if job.job_id in there:
                by = there[job.job_id]
                self._notice("landed-before", f"`{job.name or job.job_id}` is in `{target.branch}` by {by}")
        return [job for job in chosen if job.job_id not in there]

    def _plan_in_order(self, target: Target, chosen: list[Job], spec: MergeSpec, *, named: bool) -> Prepared:
        """The merge in the order asked for; without a wish in one that lands most, where the rest lands anyway."""
        sets = {job.job_id: self._recorded_changes(job) for job in chosen}
        chosen = in_order(chosen, sets, spec.order or ("given" if named else "completion"))
        prepared = self._plan(target, chosen, spec)
        if prepared.plan.conflicted and spec.order is None and spec.on_conflict in GOES_ON and len(chosen) > 2:
            by_id = {job.job_id: job for job in chosen}
            candidates = [candidate(job, sets[job.job_id]) for job in chosen]
            order = landing_most(self.place, target.before, candidates, sets)
            other = self._plan(target, [by_id[job_id] for job_id in order], spec)
            if len(other.plan.conflicted) < len(prepared.plan.conflicted):
                return other
        return prepared

    def _plan(self, target: Target, chosen: list[Job], spec: MergeSpec) -> Prepared:
        """The merge of these jobs onto a branch, in this order, worked out in memory."""
        sets = [self._recorded_changes(job) for job in chosen]
        plan: MergePlan = config.plugin("merge", spec.strategy)().plan(
            self.repo,
            self.place.store,
            target.before,
            [candidate(job, changed) for job, changed in zip(chosen, sets, strict=True)],
            identity=self.repo.identity(),
            author=person(spec.author) if spec.author else None,
            message=spec.message,
            on_conflict=spec.on_conflict,
            resolutions={each.job_id: Resolution(each.start, each.end) for each in self._resolved()},
        )
        overlaps = with_conflicts(changes.overlaps(sets), plan)
        return Prepared(target, chosen, plan, overlaps, bool(plan.conflicted) and spec.on_conflict not in GOES_ON)

    def _pass(self, gate: Gate | None, prepared: Prepared, spec: MergeSpec) -> tuple[Prepared, Check | None]:
        """What of a merge passes the gate, and what the gate said; the one place that all that lands comes by."""
        if gate is None or not prepared.moves:
            return prepared, gate.answer() if gate else None

        def again(names: Sequence[JobId]) -> MergePlan:
            return self._plan(prepared.target, [job for job in prepared.jobs if job.job_id in names], spec).plan

        plan, check = self._through(gate, prepared.plan, again, spec.on_red)
        return prepared._replace(plan=plan, stopped=bool(plan.conflicted) and spec.on_conflict != "skip"), check

    def _land(self, prepared: Prepared, spec: MergeSpec) -> Operation:
        """Moves the branch to what was planned; the jobs that are in it are marked. Raises: Refused `branch-moved`.

        A job that was run again is in it by the work of the other.
        """
        landing_now = [step for step in prepared.plan.steps if step.outcome in ("landed", "empty")]
        names = [step.name or step.job_id for step in landing_now]
        through = [step.job_id for step in landing_now]
        for job_id in through:  # grows: what ran again may have been a re-run itself
            origin = jobs.load(self.state, job_id).rerun_of
            through += [origin] if origin and not self._is_over(origin) else []
        operation = landing.land(
            self.place,
            prepared.plan,
            target=prepared.target,
            jobs=through,
            workflow=prepared.jobs[0].workflow_id,
            message=spec.message or "merge " + ", ".join(names),
            no_commit=spec.no_commit,
        )
        self._note_landings()
        return operation

    def _merged(
        self,
        prepared: Prepared,
        operation: Operation | None = None,
        *,
        check: Check | None = None,
        dry_run: bool = False,
        reruns: Sequence[Rerun] = (),
    ) -> Merged:
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
            check=check,
            reruns=list(reruns),
        )

    # ----------------------------------------------------------------------------------------------------- conflicts
    def _lay_out(self, prepared: Prepared, spec: MergeSpec) -> Merged:
        """Stops at the first conflict for the boss to resolve; see `byhand`."""
        raise NotImplementedError

    def _roll_back(self, prepared: Prepared) -> Merged:
        """Everything back to what the workflow recorded at its start, because of a conflict."""
        operation = landing.rollback(self.place, jobs.load_workflow(self.state, prepared.jobs[0].workflow_id))
        self._note_landings()
        found = {"rolled_back_by": operation.operation_id, "after": operation.after}
        return self._merged(prepared).model_copy(update=found)

    def _run_again(
        self, prepared: Prepared, spec: MergeSpec, reruns: list[Rerun], narrate: Callable[[str], object]
    ) -> Prepared:
        """Runs the jobs that do not merge again, one after another, each on the result so far; adds to `reruns`.

        Nothing of a conflict ever got into the branch, so there is nothing to take out of it: what the jobs merge onto
        and what their re-runs start from is the branch as it stands and, in memory, what merges with it. The first one
        that fails ends it, and then nothing lands; what the others made stays and is taken by the next merge.
        """
        conflicting = {step.job_id: step for step in prepared.plan.conflicted}
        waiting = [job for job in prepared.jobs if job.job_id in conflicting]
        refuse_if_not_rerunnable(waiting)
        if len(reruns) + len(waiting) > spec.max_reruns:
            most = counted(spec.max_reruns, "job")
            self._notice("too-many-reruns", f"{len(waiting)} do not merge, and at most {most} may run again")
            return prepared._replace(stopped=True)
        standing = [job for job in prepared.jobs if job.job_id not in conflicting]
        for number, job in enumerate(waiting, 1):
            word, base = job.name or job.job_id, prepared.plan.after
            narrate(f"{word} does not merge: running it again on {base[:10]} ({number} of {len(waiting)})")
            fresh = self._start_again(job, prepared.target, base)
            narrate(f"{fresh.name or fresh.job_id}: {fresh.result}")
            reruns.append(
                Rerun(
                    job_id=fresh.job_id,
                    name=fresh.name,
                    rerun_of=job.job_id,
                    result=fresh.result,
                    reason=fresh.reason,
                )
            )
            if not mergeable(fresh):
                left = [conflicting[each.job_id] for each in waiting[number - 1 :]]
                plan = prepared.plan
                steps = [
                    step.model_copy(update={"outcome": "skipped", "commit": None, "tree": None})
                    for step in plan.steps
                    if step.job_id not in conflicting
                ]
                return prepared._replace(plan=plan.model_copy(update={"steps": steps + left}), stopped=True)
            standing.append(fresh)
            prepared = self._plan(prepared.target, standing, spec)
        return prepared._replace(stopped=bool(prepared.plan.conflicted))

    def _start_again(self, job: Job, target: Target, base: Oid) -> Job:
        """Runs a job once more from a result of ours, to its end."""
        if job.baseline.snapshot is not None:
            self._notice("edits-not-carried", f"`{job.name or job.job_id}` runs again without your uncommitted edits")
        baseline = Baseline(commit=base, branch=target.branch)
        with contextlib.ExitStack() as brought:
            if base != target.before:
                brought.enter_context(self.place.store.transfer_to(self.repo, base, known=[target.before]))
            spec = again.specification(self.state, job)
            spec, _, agent = hiring.engage(self.repo, self.state, spec)
            workflow, fresh = self._submit(spec, baseline, opened_at=baseline, agent=agent, rerun_of=job.job_id)
        jobs.admit(self.place, workflow)
        jobs.wait(self.place, [fresh.job_id])
        return jobs.load(self.state, fresh.job_id)

    # --------------------------------------------------------------------------------------------------------- steps
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
