"""What commands share: the frame of a command, kinds of arguments, `--json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from worktrees.cli.app import PLACES
from worktrees.cli.session import ReaderGone, Session
from worktrees.config import duration_seconds
from worktrees.errors import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem


class Verb(click.Command):
    """A command with examples at the end of its help."""

    examples: str = ""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, as they are typed."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.strip().splitlines():
                    formatter.write(f"  {line.strip()}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command under its full name, `lease extend`."""
        session = ctx.find_object(Session)
        if session is not None:
            session.command = ctx.command_path.partition(" ")[2]
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone from None


def verb(
    name: str, *, examples: str, short_help: str | None = None, group: click.Group | None = None, **settings: Any
) -> Callable[[Callable[..., int]], click.Command]:
    """Makes a function `(session, options…) -> exit status` a command with `--json`."""

    def decorate(function: Callable[..., int]) -> click.Command:
        short = short_help or PLACES[name][1]
        made = click.command(name, cls=Verb, short_help=short, context_settings=settings)(
            json_option(click.pass_obj(function))
        )
        made.examples = examples
        if group is not None:
            group.add_command(made)
        return made

    return decorate


def _answer_in_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    session = ctx.find_object(Session)
    if session is not None:
        session.json = value


json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    callback=_answer_in_json,
    is_eager=True,
    help="Answer with one JSON document.",
)
dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Say what would happen; change nothing.")
workflow_option = click.option("--workflow", metavar="W", help="The workflow, when several are open.")


class JobWord(click.ParamType):  # type: ignore[type-arg]
    """An id, a name, or a unique prefix of either; completes from the jobs on record."""

    name = "job"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names first, ids where there is no name."""
        from click.shell_completion import CompletionItem

        from worktrees.cli.quick import rows_here

        try:
            rows = rows_here(closed=True)
        except Exception:  # noqa: BLE001 - a completion that fails stays silent
            return []
        words = [(row["name"] or row["jobId"], row["state"]) for row in rows]
        words += [(row["jobId"], row["state"]) for row in rows if row["name"] and incomplete.startswith("j-")]
        return [CompletionItem(word, help=state) for word, state in words if word.startswith(incomplete)]


class AgentName(click.ParamType):  # type: ignore[type-arg]
    """The name of an agent; completes from those there are."""

    name = "agent"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Built-in ones and those of configuration files."""
        from click.shell_completion import CompletionItem

        from worktrees.boss import Boss, hiring

        try:
            names = hiring.names(Boss(".").repo)
        except Exception:  # noqa: BLE001 - a completion that fails stays silent
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class Duration(click.ParamType):  # type: ignore[type-arg]
    """`30m`, `1h30m`, `90` as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds. Fails for what is no duration, zero included."""
        try:
            return value if isinstance(value, float) else duration_seconds(value)
        except Usage as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


JOB = JobWord()
AGENT = AgentName()
DURATION = Duration()


def job_argument(*, required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """One JOB."""
    return click.argument("job", type=JOB, required=required)


def jobs_argument(*, required: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Any number of JOBs."""
    return click.argument(
        "jobs", type=JOB, nargs=-1, required=required, metavar="[JOB]..." if not required else "JOB..."
    )
