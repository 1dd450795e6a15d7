"""Commands that remove workspaces and bring them back: `drop`, `restore`, `clean`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from worktrees.cli.options import DURATION, dry_run_option, jobs_argument, verb
from worktrees.model import Jobs
from worktrees.render.jobs import jobs_table
from worktrees.render.text import shown

if TYPE_CHECKING:
    from worktrees.cli.session import Session


@verb("drop", examples="wt drop audit\nwt drop -n audit fix")
@dry_run_option
@click.option("--force", is_flag=True, help="Let go of what no snapshot can hold, such as special files.")
@jobs_argument(required=True)
def drop(session: Session, jobs: tuple[str, ...], dry_run: bool, force: bool) -> int:
    """Give jobs up; their work is kept as a snapshot.

    The workspace goes and `merge` passes the job by. `wt restore` or `wt undo` bring it back. Refused while the job
    runs or a process lives in its workspace, and while the workspace holds something that cannot be captured.
    """
    removed = session.boss().drop(*jobs, dry_run=dry_run, force=force)
    if session.json:
        return session.answer(removed)
    from worktrees.render.answers import removed_text

    return session.answer(removed, removed_text(removed, session.out))


@verb("restore", examples="wt restore audit")
@jobs_argument(required=True)
def restore(session: Session, jobs: tuple[str, ...]) -> int:
    """Bring a removed workspace back from its snapshot."""
    restored = session.boss().restore(*jobs)
    text = jobs_table([job.dump() for job in restored], session.out, time.time())
    places = [f"{shown(job.name or job.job_id)} stands in {shown(job.workspace or '')}" for job in restored]
    return session.answer(Jobs(jobs=restored), "\n".join([text, *places]))


@verb("clean", examples="wt clean -n\nwt clean --older-than 2d\nwt clean --all")
@dry_run_option
@click.option("--older-than", type=DURATION, help="Only jobs that ended this long ago.")
@click.option("-a", "--all", "unlanded", is_flag=True, help="Also jobs whose work is not in the branch yet.")
def clean(session: Session, dry_run: bool, older_than: float | None, unlanded: bool) -> int:
    """Remove workspaces that are not needed any more.

    Those of finished jobs whose work is in the branch, or that changed nothing. Every snapshot stays: a job that was
    cleaned away still merges and can be restored.
    """
    with session.progress("cleaning", None) as progress:
        removed = session.boss().clean(
            older_than_seconds=older_than, unlanded=unlanded, dry_run=dry_run, progress=progress
        )
    if session.json:
        return session.answer(removed)
    from worktrees.render.answers import removed_text

    return session.answer(removed, removed_text(removed, session.out))
