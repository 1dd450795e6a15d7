"""Workflows: the jobs, baseline and board of one orchestration.

A workflow's record comes to be after its baseline is pinned by a ref of the user's repository and, where there are
edits to keep, by refs in wt's own store: `refs/wt/<workflow>/base` in both, `boss-state` in the store.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from worktrees.errors import NotFound, Refused, StateBroken, Usage
from worktrees.jobs import records
from worktrees.store import new_id, now, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worktrees.isolation import Place
    from worktrees.jobs.ledger import Row
    from worktrees.model import Baseline, Oid, Workflow, WorkflowName
    from worktrees.store import State

# A part of a ref, a file name and a lock name at once.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def open_workflow(
    place: Place, baseline: Baseline, *, name: str | None = None, boss_state: Oid | None = None
) -> Workflow:
    """Opens a workflow at a baseline, pinned and durable; an open one of that name is returned as it is.

    Raises: Usage for a name that cannot be part of a ref; Refused `name-taken` when a closed one has it.
    """
    from worktrees.isolation import pin
    from worktrees.model import Workflow, WorkflowName

    if name is not None and not _NAME.fullmatch(name):
        raise Usage(f"`{name}` is no name for a workflow", hint="use letters, digits, `-` and `_`, 64 at most")
    chosen = WorkflowName(name or new_id("w"))
    state = place.state
    with state.lock(f"workflow-{chosen}", purpose=f"open the workflow {chosen}"):
        if (record := _record(state, chosen)) is not None:
            if record.closed_at is None:
                return record
            raise Refused(
                f"the workflow `{chosen}` was closed",
                code="name-taken",
                hint="pick another name, or: wt workflow list --all",
            )
        # A ref without a record is what a crash left of an earlier try.
        if place.repo.ref(f"refs/wt/{chosen}/base") not in (None, baseline.commit):
            place.repo.delete_ref(f"refs/wt/{chosen}/base")
        pin(place, f"refs/wt/{chosen}/base", baseline.commit)
        if baseline.snapshot is not None:
            place.store.set_ref(f"refs/wt/{chosen}/base", baseline.snapshot, durable=True)
        if boss_state is not None:
            place.store.set_ref(f"refs/wt/{chosen}/boss-state", boss_state, durable=True)
        workflow = Workflow(workflow_id=chosen, baseline=baseline, created_at=now(), boss_state=boss_state)
        directory = state.workflow_dir(chosen)
        (directory / "jobs").mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(directory / "workflow.json", workflow.dump(), durable=True)
    return workflow


def _record(state: State, name: str) -> Workflow | None:
    from worktrees.model import Workflow

    record = read_json(state.workflow_dir(name) / "workflow.json")
    try:
        return Workflow.model_validate(record) if record is not None else None
    except ValueError as error:  # pydantic's own is one
        raise StateBroken(f"the record of the workflow `{name}` cannot be understood", hint="wt doctor") from error


def workflows(state: State, *, closed: bool = False) -> list[Workflow]:
    """Open workflows, or all, oldest first; without those whose records cannot be understood."""
    found = []
    for name in state.workflow_names():
        with contextlib.suppress(StateBroken):
            if (workflow := _record(state, name)) is not None:
                found.append(workflow)
    return sorted((item for item in found if closed or item.closed_at is None), key=lambda item: item.created_at)


def load_workflow(state: State, name: WorkflowName) -> Workflow:
    """One workflow, open or closed. Raises: NotFound."""
    workflow = _record(state, name) if _NAME.fullmatch(name) else None
    if workflow is None:
        raise NotFound(f"no workflow `{name}`", hint="wt workflow list --all")
    return workflow


def current_workflow(state: State, name: str | None = None) -> Workflow | None:
    """The named open workflow, or the only open one; None when none is open.

    Raises: NotFound for a name without an open workflow; Refused `ambiguous` when several are open and none is named.
    """
    found = workflows(state)
    if name is not None:
        for workflow in found:
            if workflow.workflow_id == name:
                return workflow
        raise NotFound(f"no open workflow `{name}`", hint="wt workflow list")
    if len(found) > 1:
        names = ", ".join(workflow.workflow_id for workflow in found)
        raise Refused(
            f"{len(found)} workflows are open: {names}",
            code="ambiguous",
            hint=f"name one: --workflow {found[-1].workflow_id}",
            details={"workflows": [workflow.workflow_id for workflow in found]},
        )
    return found[0] if found else None


def update_workflow(state: State, name: WorkflowName, **changes: Any) -> Workflow:
    """Changes fields of a workflow's record under its lock."""
    with state.lock(f"workflow-{name}", purpose=f"change the workflow {name}"):
        return rewrite(state, load_workflow(state, name), **changes)


def rewrite(state: State, workflow: Workflow, **changes: Any) -> Workflow:
    """`update_workflow` for who holds the lock."""
    after = workflow.model_copy(update=changes)
    write_json(state.workflow_dir(workflow.workflow_id) / "workflow.json", after.dump(), durable=True)
    return after


def close_workflow(place: Place, name: WorkflowName, *, only_if_finished: bool = False) -> Workflow:
    """Closes a workflow and lets go of its baseline and of its jobs' starts, as far as no snapshot needs them.

    `only_if_finished` does nothing unless every job has landed or was dropped.
    Raises: Refused `jobs-unfinished` while a job is not done; StateBroken where that cannot be known.
    """
    state = place.state
    with state.lock(f"workflow-{name}", purpose=f"close the workflow {name}"):
        workflow = load_workflow(state, name)
        if workflow.closed_at is not None:
            return workflow
        damaged: list[str] = []
        jobs = [record for record, _ in records.stored(state, name, damaged)]
        if only_if_finished and (damaged or not all(job["landedBy"] or job["droppedBy"] for job in jobs)):
            return workflow
        if damaged:
            raise StateBroken(
                f"`{damaged[0]}` cannot be understood, so nobody knows whether that job is done", hint="wt doctor"
            )
        unfinished = [job["name"] or job["jobId"] for job in jobs if job["state"] != "done"]
        if unfinished:
            raise Refused(
                f"{len(unfinished)} of its jobs are not done: {', '.join(unfinished[:5])}",
                code="jobs-unfinished",
                hint=f"wt wait, or: wt cancel {' '.join(unfinished[:5])}",
                details={"jobs": [job["jobId"] for job in jobs if job["state"] != "done"]},
            )
        closed = rewrite(state, workflow, closed_at=now())
    # After the record: a crash in between leaves refs nobody needs, but nothing loses its start.
    kept = pins(name, jobs)
    for ref in (f"refs/wt/{name}/base", *(f"refs/wt/{name}/{job['jobId']}" for job in jobs)):
        if ref not in kept:
            place.repo.delete_ref(ref)
    return closed


def pins(name: str, jobs: Iterable[Row]) -> set[str]:
    """Refs of the user's repository that a closed workflow still needs.

    A snapshot shares its unchanged files with the commit it started from. While its work is in no branch, that commit
    must not fall to the user's gc, whatever becomes of the branch it was on. What landed for a job that was run again
    is the work of the other.
    """
    jobs = list(jobs)
    again = {job.get("rerunOf") for job in jobs}
    held = [
        job
        for job in jobs
        if job["snapshot"] and job["changedFiles"] != 0 and (not job["landedBy"] or job["jobId"] in again)
    ]
    return {f"refs/wt/{name}/base", *(f"refs/wt/{name}/{job['jobId']}" for job in held)} if held else set()
