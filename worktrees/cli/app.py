"""The table of commands, and how a call is parsed."""

from __future__ import annotations

import os
import re
from typing import Any

import click

from worktrees.cli.session import Session
from worktrees.errors import Refused, Usage, WorktreesError
from worktrees.render.text import listed, shown

# Section, then commands in reading order: name -> (file, what `wt --help` says). A test holds the words against the
# commands' own.
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Start work": {
        "spawn": ("spawning", "Run a command in a fresh workspace, or open one for yourself."),
        "agents": ("agents", "List the agents that can be spawned, and where their programs are."),
        "setup": ("setup", "Show or approve setup commands; adopt a worktree of your own."),
        "hooks": ("hooks", "Refuse commits in workspaces, also beside hooks of yours."),
    },
    "Watch it": {
        "list": ("watching", "List jobs, one line each."),
        "status": ("watching", "Show where jobs stand."),
        "wait": ("watching", "Wait until all jobs, or any, are done."),
        "result": ("watching", "Show how a job ended and what it changed."),
        "events": ("watching", "Read what a worker said and did, by cursor."),
        "logs": ("watching", "Print a worker's raw output."),
        "diff": ("comparing", "Show what a job really changed, also while it runs."),
        "overlap": ("comparing", "Show which jobs touch the same paths, and which would conflict."),
    },
    "End it": {
        "settle": ("ending", "End an open job and record what it changed."),
        "cancel": ("ending", "Stop jobs and everything they started."),
        "lease": ("ending", "Let a job go on for longer."),
    },
    "Bring it home": {
        "merge": ("merging", "Merge finished jobs into the branch, all or nothing."),
        "rollback": ("merging", "Put branch, index and files back to the recorded state."),
        "undo": ("merging", "Reverse an operation, the last one by default."),
        "log": ("merging", "List operations, the newest first."),
    },
    "Tidy up": {
        "drop": ("removing", "Give jobs up; their work is kept as a snapshot."),
        "restore": ("removing", "Bring a removed workspace back from its snapshot."),
        "clean": ("removing", "Remove workspaces that are not needed any more."),
        "workflow": ("ending", "List or close workflows."),
        "doctor": ("about", "Find and mend what a crash left; never deletes work."),
    },
    "From other programs": {
        "mcp": ("hosting", "Serve the verbs to a host that speaks MCP."),
        "install": ("hosting", "Put wt into the configuration of a host, so that its agents can be bosses."),
        "hook": ("hosting", "Make and take back worktrees for a host that asks for them."),
    },
    "About": {
        "guide": ("about", "Print how a boss orchestrates workers."),
        "demo": ("about", "Watch a whole run on a throw-away repository."),
        "config": ("about", "Show every setting and where it comes from."),
        "schema": ("about", "Print the JSON Schema of every answer."),
        "completion": ("about", "Print the completion script of a shell."),
        "version": ("about", "Show the versions of wt, git and the state on disk."),
    },
}
_ATTRIBUTES = {"list": "list_"}  # what would hide a built-in
PLACES = {name: place for commands in SECTIONS.values() for name, place in commands.items()}

SUMMARY = """\
wt runs workers in isolated git worktrees, shows what each really changed, merges the results into your branch
all or nothing, and takes a merge back.

  wt spawn --name fix -- ./agent.sh "fix the parser"   start a worker; returns at once
  wt wait                                              until all are done
  wt diff fix                                          what it really changed
  wt merge                                             land everything that succeeded
  wt undo                                              take that back

Every command: wt --help. One of them: wt COMMAND --help. The whole story in a throw-away repository: wt demo.
"""


class Family(click.Group):
    """Commands that share their first word, `lease extend`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words of a call; without the second one it is told which there are."""
        if not ctx.resilient_parsing and all(word == "--json" for word in args):
            raise Usage(
                f"`{ctx.command_path}` takes one more word: {listed(self.list_commands(ctx))}",
                hint=f"{ctx.command_path} --help",
            )
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command a call names; a typo is answered with the nearest name."""
        if args[0] not in self.commands:
            raise unknown("command", f"{self.name} {args[0]}", self._full_names(), f"{ctx.command_path} --help")
        return super().resolve_command(ctx, args)

    def _full_names(self) -> list[str]:
        return [f"{self.name} {name}" for name in self.commands]


class Commands(click.Group):
    """Commands by name; a command's file is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in reading order."""
        return list(PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command, loaded."""
        from importlib import import_module

        if cmd_name not in PLACES:
            return None
        found: click.Command = getattr(
            import_module(f"worktrees.cli.{PLACES[cmd_name][0]}"), _ATTRIBUTES.get(cmd_name, cmd_name)
        )
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command a call names; a typo is answered with the nearest name."""
        if args[0] not in PLACES and not args[0].startswith("-"):
            raise unknown("command", args[0], list(PLACES), "wt --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section, without loading them."""
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])


def unknown(kind: str, word: str, known: list[str], help_command: str) -> Usage:
    """The error for a word that is not known, naming the nearest one that is."""
    import difflib

    near = difflib.get_close_matches(word, known, 1, 0.6)
    advice = f"did you mean `{near[0]}`? see: {help_command}" if near else help_command
    return Usage(f"no {kind} `{word}`", hint=advice, details={"word": word, "nearest": near[0] if near else None})


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every command has --json. A JOB is an id, a name, or a unique prefix of either.",
)
@click.option("-C", "directory", metavar="PATH", multiple=True, help="Run as if started in PATH.")
@click.option("--version", "version", is_flag=True, help="Show the version and exit.")
@click.pass_context
@click.pass_obj
def wt(session: Session, ctx: click.Context, directory: tuple[str, ...], version: bool) -> None:
    """Parallel workers in isolated git worktrees: spawn, see what they really changed, merge, take it back."""
    session.command = ctx.invoked_subcommand or ""
    for step in directory:
        try:
            os.chdir(step)
        except OSError:
            raise Refused(
                f"no directory `{step}`", code="not-a-repository", hint="ls, then: wt -C DIRECTORY …"
            ) from None
    if version:
        from worktrees import __version__

        session.say(f"wt {__version__}")
        ctx.exit(0)
    if ctx.invoked_subcommand is None:
        session.say(SUMMARY)


def run(session: Session) -> int:
    """Runs one call and returns its exit status."""
    for word in session.words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise Usage(
                f"the argument `{shown(word)}` is not UTF-8",
                hint="put the command into a script and run: wt spawn -- sh SCRIPT",
            ) from None
    try:
        status: Any = wt.main(
            args=list(session.words), prog_name="wt", complete_var="_WT_COMPLETE", standalone_mode=False, obj=session
        )
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        raise _usage(error, session) from None
    return status if isinstance(status, int) else 0


def _usage(error: click.ClickException, session: Session) -> WorktreesError:
    """A call that does not parse, in our words."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else f"wt {session.command}".strip()
    if isinstance(error, click.NoSuchOption):
        if error.option_name == "--json" and path == "wt":
            meant = next((word for word in session.words if word in PLACES), "list")
            return Usage("`--json` goes after the command", hint=f"wt {meant} --json")
        parameters = context.command.params if context is not None else []
        known = [name for each in parameters if isinstance(each, click.Option) for name in each.opts]
        return unknown("option", error.option_name, known, f"{path} --help")
    # One line: click puts the choices of an argument below each other.
    message = " ".join(error.format_message().split()).rstrip(".").replace("'", "`")
    message = re.sub(r"^(Got unexpected extra arguments?) \((.*)\)$", r"\1 `\2`", message)
    return Usage(message[:1].lower() + message[1:], hint=f"{path} --help")
