"""Commands that compare: `diff`, `overlap`."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from worktrees.cli.options import job_argument, jobs_argument, verb
from worktrees.errors import HonestNo, Usage
from worktrees.render.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worktrees.cli.session import Session
    from worktrees.model import Overlaps


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


@verb("overlap", examples="wt overlap\nwt overlap audit fix\nwt overlap --watch\nwt overlap --watch --jsonl")
@click.option("--watch", "-w", is_flag=True, help="Say it again whenever it changed, until all jobs are done.")
@click.option("--jsonl", is_flag=True, help="With --watch: one JSON object a line.")
@jobs_argument()
def overlap(session: Session, jobs: tuple[str, ...], watch: bool, jsonl: bool) -> int:
    """Show which jobs touch the same paths, and which would conflict.

    Without a JOB: all that have not landed, running ones as they are now. Each is also held against the branch. LINES
    are those of the file they started from, `9+` is something new after line 9. Exit status 1 when something was found.
    """
    if jsonl and not watch:
        raise Usage("`--jsonl` is for what goes on", hint="wt overlap --watch --jsonl")
    if watch and session.json:
        raise Usage("`--watch` has no end that one JSON document could wait for", hint="wt overlap --watch --jsonl")
    boss = session.boss()
    if not watch:
        found = boss.overlap(*jobs)
        return session.answer(found, None if session.json else _overlap_text(session, found), error=_ahead(found))
    last = None
    try:
        with _screen(session, jsonl=jsonl) as show:
            for last in boss.watch_overlap(*jobs):
                show(last)
    except KeyboardInterrupt:
        pass  # somebody has seen enough
    error = _ahead(last) if last else None
    return error.exit_status if error else 0


def _ahead(found: Overlaps) -> HonestNo | None:
    """The honest no about what was found."""
    if found.conflicts:
        return HonestNo(
            f"{counted(len(found.conflicts), 'conflict')} ahead", code="conflict-ahead", hint="wt merge --dry-run"
        )
    if found.overlaps:
        return HonestNo(
            f"{counted(len(found.overlaps), 'path')} changed by two jobs; all of them merge",
            code="overlap",
            hint="wt merge --dry-run",
        )
    return None


def _overlap_text(session: Session, found: Overlaps) -> str:
    from worktrees.cli.quick import rows_here
    from worktrees.render.answers import overlaps_text

    names = {row["jobId"]: row["name"] for row in rows_here(closed=True) if row["name"]}
    return overlaps_text(found, names, session.out)


@contextlib.contextmanager
def _screen(session: Session, *, jsonl: bool) -> Iterator[Callable[[Overlaps], None]]:
    """How one answer after the other is shown: in place on a terminal, below each other elsewhere."""
    from worktrees.render.envelope import encode

    if jsonl:
        yield lambda found: session.write(encode(found.dump()))
    elif not sys.stdout.isatty():
        yield lambda found: session.say(_overlap_text(session, found) + "\n")
    else:
        from rich.live import Live
        from rich.text import Text

        with Live(auto_refresh=False, vertical_overflow="visible") as live:
            yield lambda found: live.update(Text.from_ansi(_overlap_text(session, found)), refresh=True)
