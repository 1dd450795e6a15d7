"""Commands that end jobs, prolong them, or close a workflow: `settle`, `cancel`, `lease`, `workflow`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from worktrees.cli.app import Family
from worktrees.cli.options import DURATION, job_argument, jobs_argument, verb
from worktrees.model import Jobs
from worktrees.render.jobs import job_card, jobs_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worktrees.cli.session import Session
    from worktrees.model import Job


def _answer(session: Session, jobs: Sequence[Job]) -> int:
    answer = Jobs(jobs=list(jobs))
    return session.answer(answer, jobs_table([job.dump() for job in jobs], session.out, time.time()))


@verb("settle", examples="wt settle mine")
@job_argument(required=False)
def settle(session: Session, job: str | None) -> int:
    """End an open job and record what it changed.

    In the workspace itself JOB may be left out.
    """
    settled = session.boss().settle(job)
    return session.answer(Jobs(jobs=[settled]), job_card(settled.dump(), session.out, time.time()))


@verb("cancel", examples="wt cancel audit\nwt cancel audit --force")
@click.option("--force", is_flag=True, help="Kill at once whatever the job started.")
@jobs_argument(required=True)
def cancel(session: Session, jobs: tuple[str, ...], force: bool) -> int:
    """Stop jobs and everything they started.

    Asks with SIGTERM, and kills after a time of grace. Returns at once. What was written so far is captured.
    """
    return _answer(session, session.boss().cancel(*jobs, force=force))


@click.group("lease", cls=Family, short_help="Let a job go on for longer.")
def lease() -> None:
    """Let a job go on for longer."""


@verb("extend", group=lease, short_help="Set how long a job may go on from now.", examples="wt lease extend audit 30m")
@job_argument()
@click.argument("ttl", type=DURATION)
def extend(session: Session, job: str, ttl: float) -> int:
    """Set how long a job may go on from now."""
    return _answer(session, [session.boss().extend_lease(job, ttl)])


@click.group("workflow", cls=Family, short_help="List or close workflows.")
def workflow() -> None:
    """List or close workflows.

    A workflow is the jobs and the recorded state of one orchestration. The first spawn opens one, later ones join it;
    it closes when its last job has landed or was dropped.
    """


@verb("list", group=workflow, short_help="List open workflows.", examples="wt workflow list --all")
@click.option("-a", "--all", "closed", is_flag=True, help="Also closed ones.")
def list_workflows(session: Session, closed: bool) -> int:
    """List open workflows."""
    found = session.boss().workflows(closed=closed)
    if session.json:
        return session.answer(found)
    from worktrees.render.answers import workflows_table

    return session.answer(found, workflows_table(found, session.out) if found.workflows else "No workflow is open.")


@verb(
    "close", group=workflow, short_help="Close a workflow; later spawns open a new one.", examples="wt workflow close"
)
@click.argument("name", metavar="[W]", required=False)
def close(session: Session, name: str | None) -> int:
    """Close a workflow; later spawns open a new one.

    Refused while one of its jobs is not done. Unlanded work stays as snapshots.
    """
    closed = session.boss().close_workflow(name)
    if session.json:
        return session.answer(closed)
    from worktrees.render.answers import workflows_table

    return session.answer(closed, workflows_table(closed, session.out))
