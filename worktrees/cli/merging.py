"""Commands that move the branch: `merge`, `rollback`, `undo`, `log`."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from worktrees.cli.options import DURATION, dry_run_option, jobs_argument, verb, workflow_option
from worktrees.errors import Conflicted, HonestNo, Usage
from worktrees.model import MergeOrder, OperationLog
from worktrees.render.text import listed

if TYPE_CHECKING:
    from worktrees.cli.session import Session
    from worktrees.model import Merged


@verb(
    "merge",
    examples="""
    wt merge -n                       what would land, and what conflicts
    wt merge                          everything that succeeded, all or nothing
    wt merge audit fix -m "Parser"    these two, in this order
    wt merge --on-conflict skip       land what merges, leave the rest
    wt merge --on-conflict manual     resolve it by hand, then: wt merge --continue
    wt merge --on-conflict rerun      run what does not merge again, on top of the rest
    wt merge --check "make test"      only what passes lands; who fails is found
    wt merge --check ./ci --on-red skip --check-retry 1 --check-timeout 10m
    """,
)
@dry_run_option
@click.option(
    "-m", "--message", metavar="TEXT", help="Message of the merge commits (default: the job's name and task)."
)
@click.option(
    "--strategy", metavar="NAME", default="three-way", show_default=True,
    help="How results become commits: three-way, rebase or squash.",
)  # fmt: skip
@click.option(
    "--order",
    type=click.Choice(get_args(MergeOrder)),
    help="Default: as named, else by completion; where the rest lands without what conflicts, what lands most.",
)
@click.option(
    "--on-conflict",
    type=click.Choice(["stop", "skip", "rerun", "manual", "rollback"]),
    default="stop",
    show_default=True,
    help="Land nothing; the rest; run what conflicts again; lay it out to be resolved; take everything back.",
)
@click.option("--continue", "go_on", is_flag=True, help="Go on after a conflict was resolved (`manual`).")
@click.option("--abort", is_flag=True, help="Give up a merge that waits for a resolution; what is there is kept.")
@click.option(
    "--max-reruns", type=click.IntRange(1), metavar="N", default=5, show_default=True,
    help="How many jobs `--on-conflict rerun` may run again.",
)  # fmt: skip
@click.option(
    "--on-overlap", type=click.Choice(["allow", "refuse"]), default="allow", show_default=True,
    help="About paths that two jobs changed but that merge.",
)  # fmt: skip
@click.option("--refuse-sensitive", is_flag=True, help="Refuse when hooks, CI or the like are touched.")
@click.option("--no-commit", is_flag=True, help="Change files and index only; the branch stays.")
@click.option("--check", metavar="CMD", multiple=True, help="A shell command that what lands has to pass; repeatable.")
@click.option("--no-check", is_flag=True, help="Land unchecked, whatever the settings say.")
@click.option("--check-timeout", "check_timeout_seconds", type=DURATION, help="How long one run may take.")
@click.option("--check-retry", type=click.IntRange(0), metavar="N", help="Run a failed check N times more.")
@click.option(
    "--no-cache", "check_cache", flag_value=False, type=bool, default=True,
    help="Run what was run before on the same files, too.",
)  # fmt: skip
@click.option(
    "--on-red", type=click.Choice(["stop", "skip"]), default="stop", show_default=True,
    help="When a check fails: land nothing, or those that pass together.",
)  # fmt: skip
@click.option("--into", metavar="BRANCH", help="Another branch than the one checked out here.")
@click.option("--author", metavar="WHO", help="`Name <address>` of the jobs' commits (default: you, or the setting).")
@click.option(
    "--gpg-sign/--no-gpg-sign", default=None, help="Sign the commits, or not (default: `commit.gpgSign`, as git would)."
)
@click.option("--run-hooks", is_flag=True, help="Run your `post-merge` hook after the landing, in the checkout.")
@workflow_option
@jobs_argument()
def merge(
    session: Session,
    jobs: tuple[str, ...],
    go_on: bool,
    abort: bool,
    check: tuple[str, ...],
    no_check: bool,
    **wishes: Any,
) -> int:
    """Merge finished jobs into the branch, all or nothing.

    Without a JOB: every job of the workflow that succeeded and has not landed, in completion order. The merge is
    worked out in memory; on a conflict nothing moves and the exit status is 3. Uncommitted edits stay; a merge that
    would overwrite one is refused.

    With a check, what is about to land is first put into a worktree of its own, where each CMD runs as a worker would.
    Exactly what passed lands. When it fails, the jobs to blame are found by bisection and named.
    """
    if no_check and check:
        raise Usage("`--check` and `--no-check` exclude each other", hint="wt merge --help")
    if wishes["author"] is None:
        del wishes["author"]  # the setting decides
    if go_on or abort:
        return _resolved(session, abort=abort)
    wishes["check"] = list(check) if check or no_check else None
    boss = session.boss()
    checked = bool(check) or (not no_check and boss.is_checked())
    # What a check prints and a bar that is drawn over again do not go together.
    with contextlib.nullcontext() if checked else session.progress("merging", None):
        merged = boss.merge(*jobs, narrate=session.narrate, hear=session.pass_on, **wishes)
    return _answer(session, merged)


def _resolved(session: Session, *, abort: bool) -> int:
    """`merge --continue` and `--abort`, which go by what was asked when the merge began, and so by nothing else."""
    word, context = "--abort" if abort else "--continue", click.get_current_context()
    said = [
        max(each.opts, key=len) if isinstance(each, click.Option) else "JOB"
        for each in context.command.params
        if context.get_parameter_source(each.name or "") is ParameterSource.COMMANDLINE
    ]
    if beside := [each for each in said if each not in (word, "--json")]:
        raise Usage(
            f"`{word}` stands alone, without {listed(beside)}: the merge that waits knows what was asked",
            hint=f"wt merge {word}",
        )
    boss = session.boss()
    if abort:
        return _answer(session, boss.merge_abort())
    return _answer(session, boss.merge_continue(narrate=session.narrate, hear=session.pass_on), by_hand=True)


def _answer(session: Session, merged: Merged, *, by_hand: bool = False) -> int:
    error = _conflict(session, merged) or _red(session, merged, by_hand=by_hand)
    if session.json:
        return session.answer(merged, error=error)
    from worktrees.render.answers import merged_text

    return session.answer(merged, merged_text(merged, session.out, commit=_commit_by(session, merged)), error=error)


def _commit_by(session: Session, merged: Merged) -> str | None:
    """How to commit what was merged without a commit; None where the branch has moved."""
    if not merged.landed or merged.operation_id is None:
        return None
    from worktrees.landing import find

    operation = find(session.boss().state, merged.operation_id)
    if operation.before != operation.after:
        return None
    is_here = operation.worktree is None or Path.cwd().is_relative_to(operation.worktree)
    return "git commit" if is_here else f"git -C {shlex.quote(str(operation.worktree))} commit"


def _again(session: Session, *more: str) -> str:
    """The call as it was typed, with `more`: without its jobs and checks it would land what nobody asked for."""
    words = [word for word in session.words if word not in ("--json", "-n", "--dry-run")]
    end = words.index("--") if "--" in words else len(words)
    return shlex.join(["wt", *words[:end], *more, *words[end:]])


def _conflict(session: Session, merged: Merged) -> Conflicted | None:
    """The error of a merge that left out a job it was asked for."""
    steps = [step for step in merged.steps if step.outcome in ("conflict", "skipped")]
    names = [step.name or step.job_id for step in steps if step.outcome == "conflict"]
    if not names:
        return None
    paths = list(dict.fromkeys(conflict.path for step in steps for conflict in step.conflicts))
    look = f"wt diff {names[0]} --patch"
    rest = len(merged.steps) > len(names) and not merged.landed
    said = f"{listed(names)} {'conflicts' if len(names) == 1 else 'conflict'} in {listed(paths, 3)}"
    hint = look + (f", or land the rest: {_again(session, '--on-conflict', 'skip')}" if rest else "")
    failed = [rerun for rerun in merged.reruns if rerun.result != "succeeded"]
    if failed:
        said += f", and the re-run {listed([rerun.name or rerun.job_id for rerun in failed])} {failed[0].result}"
        hint = f"wt result {failed[0].name or failed[0].job_id} --full"
    if merged.rolled_back_by:
        said += f"; {merged.branch} is back at {merged.after[:10]}"
        hint = f"what was there comes back by: wt undo {merged.rolled_back_by}"
    elif merged.resolve_in:
        said += f"; laid out in `{min(merged.resolve_in, os.path.relpath(merged.resolve_in), key=len)}`"
        hint = "resolve it there and `git add` it, then: wt merge --continue"
    elif not merged.landed:
        said += "; nothing moved"
    return Conflicted(said, hint=hint, details={"steps": [step.dump() for step in steps]})


def _red(session: Session, merged: Merged, *, by_hand: bool) -> HonestNo | None:
    """The error of a merge that did not pass its check; one that goes on `by_hand` waits for another resolution."""
    check = merged.check
    if check is None or not (check.culprits or check.branch_fails):
        return None
    failed = [run for run in check.runs if run.exit_code]
    names = [step.name or step.job_id for step in merged.steps if step.outcome == "failed-check"]
    last = next(run for run in reversed(failed) if not check.branch_fails or not run.jobs)
    who = f"{listed(names)} {'fails' if len(names) == 1 else 'fail'}" if names else f"`{merged.branch}` itself fails"
    rest = bool(names) and not merged.landed and len(merged.steps) > len(names)
    known = all(run.cached for run in failed)
    log = f"look at `{os.path.relpath(last.log or '')}`"
    hint = f"run it again: {_again(session, '--no-cache')}" if known else log
    if by_hand:
        hint = f"{log}, resolve it better, then: wt merge --continue"
    elif rest:
        hint += f", or land the rest: {_again(session, '--on-red', 'skip')}"
    return HonestNo(
        f"{who} the check `{last.command}`" + ("" if merged.landed else "; nothing moved"),
        code="check-failed",
        hint=hint,
        details={"culprits": check.culprits, "branchFails": check.branch_fails, "log": last.log},
    )


@verb("rollback", examples="wt rollback\nwt rollback --to op-000003")
@click.option("--to", metavar="OP", help="To what this operation left, instead of the start of the workflow.")
@workflow_option
def rollback(session: Session, to: str | None, workflow: str | None) -> int:
    """Put branch, index and files back to the recorded state.

    To the state recorded when the workflow opened: untracked files too, ignored ones are spared. What is thrown away
    is kept; `wt undo` brings it back.
    """
    recorded = session.boss().rollback(to, workflow=workflow)
    if session.json:
        return session.answer(recorded)
    from worktrees.render.answers import recorded_text

    return session.answer(recorded, recorded_text(recorded))


@verb("undo", examples="wt undo\nwt undo op-000003")
@click.argument("operation", metavar="[OP]", required=False)
def undo(session: Session, operation: str | None) -> int:
    """Reverse an operation, the last one by default.

    A merge, a rollback, a drop, or another undo.
    """
    recorded = session.boss().undo(operation)
    if session.json:
        return session.answer(recorded)
    from worktrees.render.answers import recorded_text

    return session.answer(recorded, recorded_text(recorded))


@verb("log", examples="wt log\nwt log --max 5 --json")
@click.option("--max", "most", type=click.IntRange(1), metavar="N", help="At most N.")
def log(session: Session, most: int | None) -> int:
    """List operations, the newest first."""
    found = OperationLog(operations=session.boss().log()[:most])
    if session.json:
        return session.answer(found)
    from worktrees.render.answers import operations_table

    text = operations_table(found.operations, session.out) if found.operations else "No operation yet."
    return session.answer(found, text)
