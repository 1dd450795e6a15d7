"""What the story asks along the way: which jobs a merge takes, what stops it, what a word means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from worktrees import config, jobs
from worktrees.errors import Refused, Usage
from worktrees.jobs.again import is_rerunnable
from worktrees.merge import Candidate
from worktrees.model import Finding, MergeSpec, OperationId, WorkflowSummary
from worktrees.render.text import counted, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worktrees.config import Settings
    from worktrees.git import Repo
    from worktrees.model import ChangeSet, Job, MergePlan, Operation, Overlap, Workflow
    from worktrees.store import State


_PERSON = re.compile(r"([^<>\0\n]*[^<>\0\n\s])\s*<([^<>\0\n\s]*)>")


def layers(repo: Repo) -> list[tuple[str, Mapping[str, Any]]]:
    """What every layer of settings below the call says."""
    main = repo.main_work_tree
    # Not a scope but `--includes`: all of git's files, as git itself reads them.
    values = {name.removeprefix("wt."): value for name, value in repo.settings(r"^wt\.", scope="--includes")}
    return list(config.layers(main / ".wt.toml" if main else None, values))


def root(log: Sequence[Operation], operation: Operation) -> Operation:
    """What a chain of undos began with."""
    by_id = {item.operation_id: item for item in log}
    while operation.undoes in by_id:
        operation = by_id[operation.undoes]
    return operation


def with_conflicts(overlaps: Sequence[Overlap], plan: MergePlan) -> list[Overlap]:
    """Overlaps with what the plan says of them: a path conflicts when a step of either job stopped there."""
    clashing = {(step.job_id, conflict.path) for step in plan.conflicted for conflict in step.conflicts}
    skipped = {step.job_id for step in plan.steps if step.outcome == "skipped"}
    return [
        overlap.model_copy(
            update={
                "conflict": None
                if skipped.intersection(overlap.jobs)
                else any((job, overlap.path) in clashing for job in overlap.jobs)
            }
        )
        for overlap in overlaps
    ]


def refuse_if_overlapping(overlaps: Sequence[Overlap]) -> None:
    """Raises Refused `overlap` when there are any."""
    if overlaps:
        raise Refused(
            f"{counted(len(overlaps), 'path')} changed by two jobs: {listed([item.path for item in overlaps])}",
            code="overlap",
            hint="wt overlap",
            details={"overlaps": [item.dump() for item in overlaps]},
        )


def refuse_if_sensitive(plan: MergePlan) -> None:
    """Raises Refused `sensitive-paths` when a job of the plan changes such paths, also one that would not land."""
    steps = [step for step in plan.steps if step.sensitive]
    if steps:
        paths = sorted({path for step in steps for path in step.sensitive})
        raise Refused(
            f"sensitive paths are changed by {listed([step.name or step.job_id for step in steps])}: {listed(paths)}",
            code="sensitive-paths",
            hint=f"wt diff {steps[0].name or steps[0].job_id} --patch",
            details={"paths": paths, "jobs": [step.job_id for step in steps]},
        )


def mergeable(job: Job) -> bool:
    """Whether a merge without names takes the job."""
    return (
        job.result == "succeeded"
        and job.snapshot is not None
        and job.verified is not False
        and not (job.quarantined or job.landed_by or job.dropped_by)
    )


def candidate(job: Job, changed: ChangeSet) -> Candidate:
    """A job as the merge sees it."""
    return Candidate(
        job_id=job.job_id,
        name=job.name,
        task=job.task,
        baseline=job.baseline,
        snapshot=changed.snapshot,
        files=changed.files,
        workflow_id=job.workflow_id,
        rerun_of=job.rerun_of,
    )


def merge_spec(wishes: Mapping[str, Any], settings: Settings) -> MergeSpec:
    """What is asked of a merge, checked. Raises: Usage."""
    unknown = sorted(wishes.keys() - MergeSpec.model_fields.keys())
    if unknown:
        raise Usage(f"a merge knows no `{unknown[0]}`", hint="wt merge --help")
    try:
        spec = MergeSpec.model_validate({"author": settings.author, **wishes})
    except ValueError as error:  # pydantic's own is one
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("?",), "msg": str(error)}
        name = str(first["loc"][0])
        raise Usage(f"`{wishes.get(name)}` is no `{name}` of a merge", hint="wt merge --help") from error
    if spec.author is not None:
        person(spec.author)
    if spec.max_reruns < 1:
        raise Usage(f"at least one job must be allowed to run again, not {spec.max_reruns}", hint="--max-reruns 1")
    if spec.run_hooks and spec.no_commit:
        raise Usage("`--run-hooks` and `--no-commit` exclude each other: nothing is merged yet", hint="wt merge --help")
    return spec


def person(text: str) -> tuple[str, str]:
    """`Name <address>`. Raises: Usage."""
    found = _PERSON.fullmatch(text.strip())
    if found is None:
        raise Usage(f"`{text}` is no author", hint="write it like --author 'A U Thor <author@example.com>'")
    return found[1], found[2]


def refuse_if_not_rerunnable(conflicting: Sequence[Job]) -> None:
    """Raises Refused `not-rerunnable` when any of the jobs has nothing to run."""
    without = [job.name or job.job_id for job in conflicting if not is_rerunnable(job)]
    if without:
        raise Refused(
            f"done by hand, with no command to run again: {listed(without)}",
            code="not-rerunnable",
            hint=f"`--on-conflict skip` leaves it out; look at it: wt diff {without[0]} --patch",
            details={"jobs": [job.job_id for job in conflicting if not is_rerunnable(job)]},
        )


def unfinished(job: Job, consequence: str) -> Refused:
    """The refusal to treat a job as done that is not."""
    word = job.name or job.job_id
    return Refused(
        f"`{word}` is {job.state}: {consequence}",
        code="job-unfinished",
        hint=f"wt settle {word}" if job.state == "open" else f"wt wait {word}",
        details={"jobId": job.job_id, "state": job.state},
    )


def lost(job: Job) -> Finding:
    """What is said of a job that lost its supervisor."""
    return Finding(
        code="job-lost", message=f"`{job.name or job.job_id}` lost its supervisor; what it wrote is captured"
    )


def operation_id(word: str) -> OperationId:
    """`op-000017`, `op-17` or `17`. Raises: Usage."""
    digits = word.removeprefix("op-")
    if not digits.isdecimal():
        raise Usage(f"`{word}` is no operation", hint="wt log")
    return OperationId(f"op-{int(digits):06d}")


def required(word: str | None) -> str:
    """The word, where one is needed. Raises: Usage."""
    if word is None:
        raise Usage("name a job", hint="wt list")
    return word


def summary(state: State, workflow: Workflow) -> WorkflowSummary:
    """A workflow with how many of its jobs stand where."""
    rows = jobs.rows(state, workflow.workflow_id, closed=True)
    return WorkflowSummary(
        workflow_id=workflow.workflow_id,
        baseline=workflow.baseline,
        created_at=workflow.created_at,
        closed_at=workflow.closed_at,
        jobs=len(rows),
        active=sum(row["state"] != "done" for row in rows),
        landed=sum(row["landedBy"] is not None for row in rows),
    )
