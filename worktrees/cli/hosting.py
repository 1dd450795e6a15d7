"""Commands for the hosts that agents run in: `mcp`, `install`, `hook`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, Literal

import click

from worktrees.cli.app import Family
from worktrees.cli.options import dry_run_option, verb
from worktrees.errors import NotFound, Usage, WorktreesError

HOSTS = ("codex", "claude", "gemini", "opencode")

if TYPE_CHECKING:
    from worktrees.boss import Boss
    from worktrees.cli.session import Session


@verb("mcp", examples="wt mcp\nwt mcp --http 127.0.0.1:8765")
@click.option("--http", metavar="HOST:PORT", help="Serve HTTP there, with a token, instead of stdio; port 0: any.")
def mcp(session: Session, http: str | None) -> int:
    """Serve the verbs to a host that speaks MCP.

    On stdio until it is closed; the jobs live on. A host starts it by itself: put `wt mcp` into its configuration. With
    --http every request needs the bearer token that is printed at the start, or that of WT_MCP_TOKEN.
    """
    if session.json:
        raise Usage("the server has no answer that one JSON document could hold", hint="wt mcp --help")
    from worktrees.config import plugin

    plugin("door", "mcp")(http)
    return 0


# ----------------------------------------------------------------------------------------------------------- install
@verb(
    "install",
    examples="""
    wt install codex -n
    wt install claude --project
    wt install claude --project --uninstall
    """,
)
@dry_run_option
@click.option("--user/--project", "user", default=True, help="For all of yours, or this repository (default: --user).")
@click.option("--uninstall", is_flag=True, help="Take it out again.")
@click.argument("host", type=click.Choice(HOSTS))
def install(session: Session, host: str, user: bool, uninstall: bool, dry_run: bool) -> int:
    """Put wt into the configuration of a host, so that its agents can be bosses.

    The MCP server, its tools approved in advance; for Claude Code also the worktree hooks and the skill. Everything
    else in a file stays as it is; a changed file is kept beside it as NAME.before-wt. Shows what it changes.
    """
    from worktrees import hosts
    from worktrees.model import HostFile, Installed

    _refuse_a_worker(session)
    scope: hosts.Scope = "user" if user else "project"
    root = None if user else session.boss().repo.work_tree
    files = []
    for edit in hosts.edits(host, scope, root, _own_name(), os.environ, uninstall=uninstall):
        backup = None if dry_run else hosts.apply(edit)
        action: Literal["created", "changed", "removed"] = "created" if edit.before is None else "changed"
        files.append(
            HostFile(
                path=os.fspath(edit.path),
                action="removed" if edit.after is None else action,
                backup=os.fspath(backup) if backup else None,
                diff=edit.diff,
            )
        )
    done = Installed(host=host, scope=scope, uninstalled=uninstall, dry_run=dry_run, files=files)
    text = "".join(file.diff for file in files) or "Nothing to change."
    return session.answer(done, text)


def _refuse_a_worker(session: Session) -> None:
    """What a host runs for the boss is not for workers to set; asked outside of repositories too."""
    from worktrees.boss.footing import not_boss

    worker = os.environ.get("WT_JOB")
    if not worker:
        with contextlib.suppress(WorktreesError):
            worker = session.boss().worker
    if worker:
        raise not_boss("install", worker)


def _own_name() -> str:
    """How a host calls us: by name where that is us, else by path."""
    own = os.path.realpath(sys.argv[0])
    found = shutil.which("wt")
    if found is not None and (os.path.realpath(found) == own or not os.access(own, os.X_OK)):
        return "wt"
    return own if os.access(own, os.X_OK) else "wt"


# ------------------------------------------------------------------------------------------------------------- hooks
@click.group("hook", cls=Family, short_help="Make and take back worktrees for a host that asks for them.")
def hook() -> None:
    """Make and take back worktrees for a host that asks for them.

    For Claude Code's hooks WorktreeCreate and WorktreeRemove; what they ask is read from standard input.
    """


@verb(
    "claude-create",
    group=hook,
    short_help="Make the worktree that Claude Code asks for.",
    examples="""echo '{"name": "fix", "cwd": "."}' | wt hook claude-create""",
)
def claude_create(session: Session) -> int:
    """Make the worktree that Claude Code asks for, and print its path.

    It is the workspace of an open job of that name. The job ends with the session, at the latest; then merge it with
    `wt merge`, or look at it with `wt diff`.
    """
    from worktrees.model import Jobs

    asked = _asked()
    name = asked.get("name") or asked.get("worktree_name")
    if not isinstance(name, str) or not name:
        raise Usage("the request has no `name`", hint="wt hook claude-create --help")
    job = _boss_at(session, asked.get("cwd")).provide(
        name, holder_pid=_host(), task=f"the worktree {name} of Claude Code"
    )
    return session.answer(Jobs(jobs=[job]), job.workspace)


@verb(
    "claude-remove",
    group=hook,
    short_help="Take back a worktree that Claude Code is done with.",
    examples="""echo '{"worktree_path": "…"}' | wt hook claude-remove""",
)
def claude_remove(session: Session) -> int:
    """Take back a worktree that Claude Code is done with.

    What was changed in it is kept as the job's work, and can be merged or restored.
    """
    from worktrees.model import Removed

    path = _asked().get("worktree_path")
    if not isinstance(path, str) or not path:
        raise Usage("the request has no `worktree_path`", hint="wt hook claude-remove --help")
    if not os.path.isdir(path):
        session.narrate(f"`{path}` is gone already")
        return session.answer(Removed())
    boss = _boss_at(session, path)
    os.chdir(boss.repo.work_tree or boss.repo.common_dir)  # or we would be what keeps it from going
    removed = boss.give_back()
    for item in removed.removals:
        session.narrate(f"{item.name or item.job_id}: {item.outcome}; its work is kept")
    return session.answer(removed)


def _asked() -> dict[str, Any]:
    """What the host said on standard input."""
    try:
        asked = json.loads(sys.stdin.buffer.read())
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise Usage("standard input holds no JSON object, as hosts send it", hint="wt hook --help")
    return asked


def _boss_at(session: Session, directory: object) -> Boss:
    if isinstance(directory, str) and directory:
        try:
            os.chdir(directory)
        except OSError:
            raise NotFound(f"no directory `{directory}`", hint="ls") from None
    return session.boss()


def _host() -> int:
    """The host's process: the nearest ancestor that this session's hooks' environment was not made for."""
    import psutil

    shells = {"sh", "bash", "dash", "zsh", "ash", "busybox", "fish"}
    mine = os.environ.get("CLAUDE_CODE_SESSION_ID")
    for process in psutil.Process().parents():
        with contextlib.suppress(psutil.Error, OSError):
            if mine and process.environ().get("CLAUDE_CODE_SESSION_ID") == mine:
                continue  # a wrapper between the host and us, which ends before the host
            if process.name() not in shells:
                return process.pid
    return os.getppid()
