"""Commands that look and wait: `list`, `status`, `wait`, `result`, `events`, `logs`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from worktrees.cli.options import DURATION, job_argument, jobs_argument, verb, workflow_option
from worktrees.errors import HonestNo, Usage
from worktrees.render.text import listed

if TYPE_CHECKING:
    from worktrees.boss import Stream
    from worktrees.cli.session import Session
    from worktrees.model import Job


@verb("list", examples="wt list\nwt list --all --json")
@click.option("-a", "--all", "closed", is_flag=True, help="Also jobs of closed workflows.")
def list_(session: Session, closed: bool) -> int:
    """List jobs, one line each."""
    from worktrees.cli.quick import show

    return show(session, closed=closed)


@verb("status", examples="wt status\nwt status audit\nwatch wt status")
@click.option("-a", "--all", "closed", is_flag=True, help="Also jobs of closed workflows.")
@jobs_argument()
def status(session: Session, jobs: tuple[str, ...], closed: bool) -> int:
    """Show where jobs stand.

    Without a JOB: all of the open workflows, one line each. In a worker: its own.
    """
    from worktrees.cli.quick import show

    return show(session, words=jobs, closed=closed)


@verb("wait", examples="wt wait\nwt wait audit fix --timeout 10m\nwt wait --any --json")
@click.option("--any", "any_", is_flag=True, help="Return as soon as one is done that was not returned before.")
@click.option("--timeout", type=DURATION, help="Give up after this long; cancels nothing.")
@workflow_option
@jobs_argument()
def wait(session: Session, jobs: tuple[str, ...], any_: bool, timeout: float | None, workflow: str | None) -> int:
    """Wait until all jobs, or any, are done.

    Exit status 1 when the time ran out, or a job that was waited for did not succeed.
    """
    waited = session.boss().wait(*jobs, any=any_, timeout_seconds=timeout, workflow=workflow, narrate=session.narrate)
    done = [job for job in waited.jobs if job.job_id in waited.completed]
    error: HonestNo | None = None
    if waited.timed_out:
        names = listed([_word(job) for job in waited.jobs if job.job_id in waited.pending])
        error = HonestNo(f"not done in time: {names}", code="timed-out", hint="wt status")
    else:
        error = _failed([job for job in done if job.result != "succeeded"])
    from worktrees.render.jobs import jobs_table

    rows = [job.dump() for job in (waited.jobs if waited.timed_out else done)]
    text = jobs_table(rows, session.out, time.time()) if rows else "Nothing to wait for."
    return session.answer(waited, text, error=error)


def _word(job: Job) -> str:
    return job.name or job.job_id


def _failed(jobs: list[Job]) -> HonestNo | None:
    """The honest no about jobs that did not succeed."""
    if not jobs:
        return None
    first = jobs[0]
    names = ", ".join(
        f"`{_word(job)}` {job.result}" + (f" ({job.exit_code})" if job.exit_code else "") for job in jobs[:5]
    )
    more = f" and {len(jobs) - 5} more" if len(jobs) > 5 else ""
    return HonestNo(
        names + more + (f": {first.reason}" if len(jobs) == 1 and first.reason else ""),
        hint=f"wt logs {_word(first)}",
        details={"jobs": [job.job_id for job in jobs]},
    )


@verb("result", examples="wt result audit\nwt result audit --full --json")
@click.option("--full", is_flag=True, help="With the end of its output.")
@job_argument()
def result(session: Session, job: str, full: bool) -> int:
    """Show how a job ended and what it changed.

    Exit status 1 when it did not succeed.
    """
    outcome = session.boss().result(job, full=full)
    error = _failed([outcome.job] if outcome.job.result != "succeeded" else [])
    if session.json:
        return session.answer(outcome, error=error)
    from worktrees.render.answers import outcome_text

    return session.answer(outcome, outcome_text(outcome, session.out, time.time()), error=error)


@verb(
    "events", examples="wt events audit\nwt events audit --cursor C --max 100 --json\nwt events audit --follow --jsonl"
)
@click.option("--cursor", metavar="C", help="Continue after this point; `nextCursor` of the page before.")
@click.option(
    "--max", "most", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="At most N events."
)
@click.option("--follow", "-f", is_flag=True, help="Go on until the job's last event.")
@click.option("--jsonl", is_flag=True, help="One JSON object a line.")
@job_argument()
def events(session: Session, job: str, cursor: str | None, most: int, follow: bool, jsonl: bool) -> int:
    """Read what a worker said and did, by cursor."""
    if follow and session.json:
        raise Usage(
            "`--follow` has no end that one JSON document could wait for", hint=f"wt events {job} --follow --jsonl"
        )
    from worktrees.render.answers import event_text
    from worktrees.render.envelope import encode

    boss = session.boss()
    if session.json:
        return session.answer(boss.events(job, cursor, most=most))
    for page in boss.follow_events(job, cursor) if follow else [boss.events(job, cursor, most=most)]:
        for event in page.events:
            if jsonl:
                session.write(encode(event.dump()))
            else:
                session.say(event_text(event, session.out))
        if not (jsonl or follow or page.done):
            session.narrate(f"not the end; go on with: wt events {job} --cursor {page.next_cursor}")
    return 0


@verb("logs", examples="wt logs audit\nwt logs audit --stderr\nwt logs audit --follow")
@click.option("--stdout", "only", flag_value="stdout", help="Only standard output.")
@click.option("--stderr", "only", flag_value="stderr", help="Only standard error.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the worker is gone (standard output unless --stderr).")
@job_argument()
def logs(session: Session, job: str, only: str | None, follow: bool) -> int:
    """Print a worker's raw output.

    As the worker wrote it: its standard output to stdout, its standard error to stderr. With --json the last megabyte
    of each.
    """
    boss = session.boss()
    if session.json:
        if follow:
            raise Usage("`--follow` has no end that one JSON document could wait for", hint=f"wt logs {job} --follow")
        return session.answer(boss.logs(job))
    streams: dict[str | None, tuple[Stream, ...]] = {"stdout": ("stdout",), "stderr": ("stderr",)}
    for stream in streams.get(only, ("stdout",) if follow else ("stdout", "stderr")):
        for piece in boss.read_log(job, stream, follow=follow):
            session.write(piece, to_stderr=stream == "stderr" and only is None)
    return 0
