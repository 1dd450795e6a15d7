"""Commands that compare: `diff`, `overlap`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from worktrees.cli.options import job_argument, jobs_argument, verb
from worktrees.errors import HonestNo
from worktrees.render.text import counted

if TYPE_CHECKING:
    from worktrees.cli.session import Session


@verb("diff", examples="wt diff audit\nwt diff audit --patch\nwt diff audit --name-only -z | xargs -0 wc -l")
@click.option("--stat", "form", flag_value="stat", default=True, help="Files with their line counts (the default).")
@click.option("--patch", "-p", "form", flag_value="patch", help="The contents, as git shows them.")
@click.option("--name-only", "form", flag_value="names", help="Only the paths.")
@click.option("-z", "nul", is_flag=True, help="With --name-only: exact bytes, a NUL after each.")
@job_argument(required=False)
def diff(session: Session, job: str | None, form: str, nul: bool) -> int:
    """Show what a job really changed, also while it runs.

    From the files, not from what the worker says or did to git. In a worker JOB may be left out.
    """
    boss = session.boss()
    if form == "patch" and not session.json:
        session.write(boss.patch(job, color=session.out.color))
        return session.answer(None)
    answer = boss.diff(job, patch=form == "patch")
    if session.json:
        return session.answer(answer)
    changed = answer.change_set
    if form == "names" and nul:
        session.write(b"".join(file.raw + b"\0" for file in changed.files))
        return 0
    from worktrees.render.answers import changes_text, names_text

    return session.answer(answer, names_text(changed) if form == "names" else changes_text(changed, session.out))


@verb("overlap", examples="wt overlap\nwt overlap audit fix")
@jobs_argument()
def overlap(session: Session, jobs: tuple[str, ...]) -> int:
    """Show which jobs touch the same paths, and which would conflict.

    Without a JOB: all that have not landed, running ones as they are now. Each is also held against the branch. Exit
    status 1 when something was found.
    """
    found = session.boss().overlap(*jobs)
    error = None
    if found.conflicts:
        error = HonestNo(
            f"{counted(len(found.conflicts), 'conflict')} ahead", code="conflict-ahead", hint="wt merge --dry-run"
        )
    elif found.overlaps:
        error = HonestNo(
            f"{counted(len(found.overlaps), 'path')} changed by two jobs; all of them merge",
            code="overlap",
            hint="wt merge --dry-run",
        )
    if session.json:
        return session.answer(found, error=error)
    from worktrees.cli.quick import rows_here
    from worktrees.render.answers import overlaps_text

    names = {row["jobId"]: row["name"] for row in rows_here(closed=True) if row["name"]}
    return session.answer(found, overlaps_text(found, names, session.out), error=error)
