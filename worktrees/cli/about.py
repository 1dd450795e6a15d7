"""Commands about the program: `doctor`, `guide`, `demo`, `config`, `schema`, `completion`, `version`."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

import click

from worktrees.cli.options import verb
from worktrees.errors import HonestNo
from worktrees.render.text import counted, shown, table

if TYPE_CHECKING:
    from worktrees.cli.session import Session


@verb("doctor", examples="wt doctor\nwt doctor --fix")
@click.option("--fix", is_flag=True, help="Mend what can be mended.")
def doctor(session: Session, fix: bool) -> int:
    """Find and mend what a crash left; never deletes work.

    Never runs gc or prune and never touches anybody else's worktrees. Exit status 1 when something was found and not
    mended.
    """
    found = session.boss().doctor(fix=fix)
    error = None
    if found.findings:
        error = HonestNo(f"{counted(len(found.findings), 'finding')}", code="findings", hint="wt doctor --fix")
    if session.json:
        return session.answer(found, error=error)
    from worktrees.render.answers import diagnosis_text

    return session.answer(found, diagnosis_text(found, session.out), error=error)


@verb("guide", examples="wt guide | less")
def guide(session: Session) -> int:
    """Print how a boss orchestrates workers.

    Roles, a whole run, procedures, patterns, what not to do, what to do when something is wrong, what workers are told.
    """
    from worktrees.guide import text
    from worktrees.model import Text

    found = text()
    return session.answer(Text(text=found), found)


@verb("demo", examples="wt demo")
def demo(session: Session) -> int:
    """Watch a whole run on a throw-away repository.

    Three workers in parallel on a real project's sources, an overlap, a conflict, a merge, a rollback and an undo.
    Leaves nothing behind.
    """
    from worktrees.demo import run

    return session.answer(run(quiet=session.json, out=session.out))


@verb("config", examples="wt config\ngit config wt.kWrite 4")
def config(session: Session) -> int:
    """Show every setting and where it comes from.

    Later ones win: defaults, ~/.config/wt/config.toml, .wt.toml in the repository, git config wt.*, WT_* in the
    environment.
    """
    found = session.boss().configuration()
    rows = [(item.name, shown(json.dumps(item.value)), shown(item.source)) for item in found.settings]
    return session.answer(found, table(("SETTING", "VALUE", "FROM"), rows, session.out))


@verb("schema", examples="wt schema > wt.schema.json")
def schema(session: Session) -> int:
    """Print the JSON Schema of every answer."""
    from worktrees.model import Text
    from worktrees.schema import document

    found = document()
    return session.answer(Text(document=found), json.dumps(found, indent=2))


@verb("completion", examples='eval "$(wt completion bash)"\nwt completion fish > ~/.config/fish/completions/wt.fish')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(session: Session, shell: str) -> int:
    """Print the completion script of a shell."""
    from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

    from worktrees.cli.app import wt
    from worktrees.model import Text

    kind = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    # Not `kind.source`: for bash that starts bash to look at its version.
    script = ShellComplete.source(kind(wt, {}, "wt", "_WT_COMPLETE"))
    return session.answer(Text(text=script), script)


@verb("version", examples="wt version --json")
def version(session: Session) -> int:
    """Show the versions of wt, git and the state on disk."""
    from worktrees import __version__
    from worktrees.git import version as git_version
    from worktrees.model import Version
    from worktrees.store import FORMAT

    git = ".".join(map(str, git_version()))
    found = Version(version=__version__, git=git, python=platform.python_version(), format=FORMAT)
    return session.answer(found, f"wt {__version__}, git {git}, Python {found.python}, state format {FORMAT}")
