"""How the boss's work moves: land, rollback, undo. Each says where from and where to; `turn` does the moving."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from worktrees.errors import NotFound, Refused
from worktrees.landing import log
from worktrees.landing.checkpoint import Shape, head_of, keep, name_state, shape_of
from worktrees.landing.target import Target, find_target, moved, not_checked_out
from worktrees.landing.turn import turn
from worktrees.model import JobId, MergePlan, Oid, Operation, OperationId, Workflow, WorkflowName

if TYPE_CHECKING:
    from worktrees.isolation import Place


def land(
    place: Place,
    plan: MergePlan,
    *,
    target: Target,
    jobs: Sequence[JobId],
    workflow: WorkflowName | None,
    message: str | None = None,
    no_commit: bool = False,
) -> Operation:
    """Moves branch, index and files from `plan.before` to `plan.after`; wholly or not at all.

    With `no_commit` the branch stays and the merge is left staged. Uncommitted work that it does not touch stays.

    Raises: Refused `would-overwrite` (`details.paths`), `branch-moved`, `operation-in-progress`, `nothing-to-land`,
    `not-checked-out`; Busy.
    """
    if plan.after == plan.before:
        raise Refused("there is nothing to land", code="nothing-to-land", hint="wt list")
    if no_commit and target.repo is None:
        raise not_checked_out(target, "the merge cannot be left uncommitted")
    with turn(place, "merge") as held:
        start = shape_of(place.store, plan.before, None)
        end = shape_of(place.store, plan.after, None)
        restored = None
        if no_commit:
            holder = place.store.commit(end.index, [plan.before], "index of: a merge without a commit")
            restored = place.store.commit(end.files, [plan.before, holder], "a merge without a commit")
            end = Shape(end.files, end.index, holder)
        draft = held.draft(
            target,
            kind="merge",
            after=plan.before if no_commit else plan.after,
            restored=restored,
            workflow_id=workflow,
            jobs=list(jobs),
            strategy=plan.strategy,
            message=message
            or "wt merge: " + ", ".join(step.name or step.job_id for step in plan.steps if step.job_id in jobs),
        )
        if target.before != plan.before or present(place, target, set(jobs)):
            raise moved(target, plan.before)
        return held.carry_out(target, draft, start, end)


def present(place: Place, target: Target, jobs: Collection[JobId]) -> dict[JobId, OperationId]:
    """Which of some jobs are in a branch, and by which operation: landed there, and not moved out of it by hand since.

    True for good under the lock alone; so it is asked once before a plan is made, and again by `land`.
    """
    history = log.operations(place.state)
    after = {each.operation_id: each.after for each in history if each.ref == target.ref and each.after != each.before}
    found = {job: by for job, by in log.landed(history).items() if job in jobs}
    stands = {
        by: (commit := after.get(by)) is not None and place.repo.is_ancestor(commit, target.before)
        for by in set(found.values())
    }
    return {job: by for job, by in found.items() if stands[by]}


def rollback(place: Place, workflow: Workflow, to: OperationId | None = None) -> Operation:
    """Branch, index and files back to what the workflow recorded, or to what operation `to` left.

    Everything thrown away is saved first and comes back by `undo`. Ignored files stay as they are.

    Raises: Refused `would-overwrite` for an ignored file in the way, `not-checked-out`, `operation-in-progress`; Busy.
    """
    target = find_target(place.repo, workflow.baseline.branch)
    if target.repo is None:
        raise not_checked_out(target, "its files cannot be rolled back")
    with turn(place, "rollback") as held:
        state, commit, since = _goal(place, workflow, target, to)
        end = shape_of(place.store, commit, state)
        captured = held.capture(target)
        captured = held.spare_ignored(target, captured, captured.shape.files, end.files)
        start = captured.shape
        keep(place.store, [target.before], known=[commit])
        draft = held.draft(
            target,
            kind="rollback",
            after=commit,
            checkpoint=name_state(place.store, captured, f"before {held.slot.operation_id}"),
            restored=state,
            workflow_id=workflow.workflow_id,
            jobs=held.landed_since(since, target),
            message=f"wt rollback: to {to or workflow.workflow_id}",
        )
        return held.carry_out(target, draft, start, end, captured)


def undo(place: Place, operation: OperationId | None = None) -> Operation:
    """Reverses an operation, by default the last one that still counts; an undo is an operation like any other.

    Raises: Refused `branch-moved` when the branch went on since, `would-overwrite`, `already-undone`, `not-undoable`;
    NotFound; Busy.
    """
    with turn(place, "undo") as held:
        undone = _undoable(place, operation)
        target = _where(place, undone)
        start = shape_of(place.store, target.before, undone.restored)
        goal = undone.before or target.before
        end = shape_of(place.store, goal, undone.checkpoint)
        captured = None
        if not (start.plain and end.plain):
            captured = held.spare_ignored(target, held.capture(target), start.files, end.files)
        keep(place.store, [target.before], known=[goal])
        draft = held.draft(
            target,
            kind="undo",
            after=goal,
            checkpoint=undone.restored,
            restored=undone.checkpoint,
            workflow_id=undone.workflow_id,
            jobs=undone.jobs,
            undoes=undone.operation_id,
            message=f"wt undo: {undone.operation_id}",
        )
        return held.carry_out(target, draft, start, end, captured)


def _goal(
    place: Place, workflow: Workflow, target: Target, to: OperationId | None
) -> tuple[Oid | None, Oid, Callable[[Operation], bool]]:
    """Where a rollback goes: the recorded state, the commit of the branch, and which landings came after it."""
    if to is None:
        state = workflow.boss_state
        commit = head_of(place.store, state) if state else workflow.baseline.commit
        if commit is None:
            raise Refused(
                "the branch had no commit when the workflow began",
                code="unborn-branch",
                hint="wt log, then: wt undo OP",
            )
        return state, commit, lambda operation: operation.created_at >= workflow.created_at
    goal = log.find(place.state, to)
    if goal.state != "done" or goal.after is None or goal.ref != target.ref:
        raise Refused(
            f"`{goal.operation_id}` left nothing on `{target.branch}` to go back to", code="not-undoable", hint="wt log"
        )
    return goal.restored, goal.after, lambda operation: operation.operation_id > goal.operation_id


def _undoable(place: Place, operation: OperationId | None) -> Operation:
    history = log.operations(place.state)
    if operation is None:
        counts = [each for each in history if each.state == "done" and each.ref is not None and each.undone_by is None]
        if not counts:
            raise NotFound("there is no operation to undo", hint="wt log")
        return counts[-1]
    found = log.find(place.state, operation)
    if found.kind == "drop":
        raise Refused(f"`{found.operation_id}` dropped jobs", code="not-undoable", hint="wt restore JOB")
    if found.state != "done":
        raise Refused(f"`{found.operation_id}` never happened", code="not-undoable", hint="wt log")
    if found.undone_by is not None:
        raise Refused(
            f"`{found.operation_id}` is undone already, by `{found.undone_by}`",
            code="already-undone",
            hint=f"wt undo {found.undone_by}",
        )
    return found


def _where(place: Place, undone: Operation) -> Target:
    """The branch of an operation, as long as it stands where the operation left it."""
    if undone.ref is None or undone.after is None:
        raise Refused(f"`{undone.operation_id}` moved no branch", code="not-undoable", hint="wt log")
    target = find_target(place.repo, undone.ref)
    if target.before != undone.after:
        raise moved(target, undone.after)
    if undone.checkpoint or undone.restored:
        here = str(target.repo.work_tree) if target.repo else None
        if here != undone.worktree:
            raise Refused(
                f"`{target.branch}` is not checked out in `{undone.worktree}` any more, where the files belong",
                code="not-checked-out",
                hint=f"git -C {undone.worktree} switch {target.branch}",
            )
    return target
