"""`wt setup`: the commands that make fresh workspaces usable, and worktrees that somebody else made."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import click

from worktrees.cli.options import verb, workflow_option
from worktrees.errors import Usage

if TYPE_CHECKING:
    from worktrees.cli.session import Session

_OWN = ""  # `--env` without a JOB


@verb(
    "setup",
    examples="""
    wt setup                          the setup commands, and which of them wait for you
    wt setup --approve                let those of .wt.toml run
    cd ../feature && wt setup         make this worktree, made by somebody else, a job
    wt setup ../feature --name feature --base main~3
    eval "$(wt setup --env)"          make this shell the worker of the workspace it stands in
    """,
)
@click.option("--approve", is_flag=True, help="Let the commands shown run; asked again when their text changes.")
@click.option("--name", metavar="NAME", help="What to call the job.")
@click.option("--base", metavar="REV", help="Where its work begins (default: the worktree's HEAD now).")
@workflow_option
@click.option(
    "--env", "job", metavar="[JOB]", is_flag=False, flag_value=_OWN, help="Print a worker's variables, for `eval`."
)
@click.argument("path", required=False)
def setup(
    session: Session,
    path: str | None,
    approve: bool,
    name: str | None,
    base: str | None,
    workflow: str | None,
    job: str | None,
) -> int:
    """Show or approve setup commands; adopt a worktree of your own.

    In a linked worktree that somebody else made, or with PATH: makes it the workspace of an open job. It gets what
    workspaces get (files of `.worktreeinclude`, links, submodules, ports), nothing in it is overwritten, and `wt diff`,
    `wt settle` and `wt merge` work on it. It is never moved or removed: `wt drop` and `wt clean` only let go of it.

    In the main work tree: lists the commands of `.wt.toml` (`setup_commands`), which run before each worker once you
    have approved them.
    """
    adopting = bool(path or name or base or workflow)
    if approve + (job is not None) + adopting > 1:
        raise Usage("`--approve`, `--env` and adopting a worktree exclude each other", hint="wt setup --help")
    boss = session.boss()
    if job is not None:
        found = boss.environment(job or None)
    elif adopting or (boss.stands_apart and not approve):
        found = boss.adopt(path or ".", name=name, base=base, workflow=workflow)
    else:
        found = boss.set_up(approve=approve)
    if session.json:
        return session.answer(found)
    if found.environment is not None:
        lines = [f"export {variable}={shlex.quote(value)}\n" for variable, value in found.environment.items()]
        session.write(os.fsencode("".join(lines)))
        return 0
    from worktrees.render.answers import setup_text

    return session.answer(found, setup_text(found, session.out))
