"""`wt hooks`: the guard for whoever stands in a workspace without a worker's environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from worktrees.cli.app import Family
from worktrees.cli.options import dry_run_option, verb

if TYPE_CHECKING:
    from worktrees.cli.session import Session
    from worktrees.model import Hooks


@click.group("hooks", cls=Family, short_help="Refuse commits in workspaces, also beside hooks of yours.")
def hooks() -> None:
    """Refuse commits in workspaces, also beside hooks of yours.

    Workers that `wt spawn` starts have the guard by their environment, and nothing has to be installed for them. This
    is for people who open a shell in a workspace, and for hosts that hand on no environment.
    """


@verb(
    "install",
    group=hooks,
    short_help="Refuse commits in workspaces, whatever the environment.",
    examples="wt hooks install --dry-run\nwt hooks install",
)
@dry_run_option
def install(session: Session, dry_run: bool) -> int:
    """Refuse commits in workspaces, whatever the environment.

    Only in workspaces of jobs that are not done. The main work tree and worktrees of others behave as before, and your
    own hooks (plain ones, the pre-commit framework, husky) still run. Nothing of them is changed: git's configuration
    gets a few lines that apply to linked worktrees alone.
    """
    return _answer(session, session.boss().install_hooks(dry_run=dry_run))


@verb(
    "status",
    group=hooks,
    short_help="Show which guard is in force where.",
    examples="wt hooks status\nwt hooks status --json | jq .data.commit",
)
def status(session: Session) -> int:
    """Show which guard is in force where, and what a commit of yours would meet."""
    return _answer(session, session.boss().hooks_status())


@verb(
    "uninstall",
    group=hooks,
    short_help="Take the installed guard away, to the byte.",
    examples="wt hooks uninstall --dry-run\nwt hooks uninstall",
)
@dry_run_option
def uninstall(session: Session, dry_run: bool) -> int:
    """Take the installed guard away, to the byte.

    Workers that `wt spawn` starts keep the guard of their environment.
    """
    return _answer(session, session.boss().uninstall_hooks(dry_run=dry_run))


def _answer(session: Session, found: Hooks) -> int:
    if session.json:
        return session.answer(found)
    from worktrees.render.answers import hooks_text

    return session.answer(found, hooks_text(found, session.out))
