"""Agent programs as workers: how each is started, what it is told, how its output is read.

An `Agent` turns an `Order` (task, access, model, ...) into an `Invocation`: the words of a command with placeholders,
the prompt for its standard input, the dialect its output is read by. Nothing is started here and no workspace is known:
the placeholders are filled when a slot frees (`fill`), perhaps in another process, so an invocation is frozen when the
job is submitted.

    contract   what every worker is told before its task
    programs   the programs known by themselves: codex, claude, gemini, opencode
    custom     agents defined in a configuration file

Agents are found through the entry-point group `worktrees.agents`, the built-in ones too; one defined in the user's
configuration file goes before them. A definition in the repository's `.wt.toml` runs a command, so it needs approval as
setup commands do.

Prompts go to standard input: an open pipe there makes some programs wait, and an argument has a limit of 128 KiB.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from worktrees import config
from worktrees.agents.contract import REPORT_SCHEMA, WORKER_CONTRACT, prompt
from worktrees.errors import PeerFailed, Usage

if TYPE_CHECKING:
    from worktrees.model import Access

__all__ = [
    "DIALECTS", "REPORT_SCHEMA", "WORKER_CONTRACT", "Agent", "Invocation", "Order", "built_in", "fill",
    "find_program", "prompt",
]  # fmt: skip

DIALECTS = ("text", "codex", "claude", "gemini", "opencode")
"""How an agent's output can be read; the supervisor reads it."""

_PLACEHOLDER = re.compile(r"\{(prompt|task|workspace|job|access|model|effort|schema|session)\}")


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of an agent. `session` continues one of its own; `arguments` are passed on as they are."""

    task: str
    access: Access = "workspace-write"
    model: str | None = None
    effort: str | None = None
    arguments: tuple[str, ...] = ()
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Invocation:
    """How an order is carried out: everything that starting the worker needs but the workspace.

    Words of `argv` and values of `environment` may hold placeholders (`{workspace}`, `{prompt}`, `{schema}`, ...).
    `schema` is the JSON Schema of the final message, for programs that can be held to one. A program with
    `own_sandbox` confines its commands itself, according to the access, and cannot do so inside another sandbox.
    """

    agent: str
    argv: tuple[str, ...]
    stdin: str | None
    values: Mapping[str, str]
    dialect: str = "text"
    schema: Mapping[str, Any] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    own_sandbox: bool = False

    def started_as(self, program: str) -> Invocation:
        """The same with the program by its path."""
        return replace(self, argv=(program, *self.argv[1:]))


class Agent(Protocol):
    """One program. `resumes` says whether it can continue a session in another workspace."""

    name: str
    program: str
    install: str
    own_sandbox: bool
    resumes: bool

    def invocation(self, order: Order) -> Invocation:
        """How it carries out an order. Raises: Usage for a wish it cannot fulfil."""
        ...


def built_in(name: str) -> Agent | None:
    """The agent registered under a name, None when there is none."""
    if name not in config.plugin_names("agents"):
        return None
    found: Agent = config.plugin("agents", name)()
    return found


def find_program(agent: Agent, path: str | None) -> str:
    """Where an agent's program is, on the `PATH` given.

    The absolute path is what runs: a worker must not be able to put another one before it.
    Raises: PeerFailed `agent-not-found`.
    """
    found = shutil.which(agent.program, path=path)
    if found is None:
        raise PeerFailed(
            f"the program `{agent.program}` of the agent `{agent.name}` is not installed",
            code="agent-not-found",
            hint=agent.install,
            details={"agent": agent.name, "program": agent.program},
        )
    return found


def fill(word: str, values: Mapping[str, str]) -> str:
    """A word with its placeholders replaced, once: what a value holds stays as it is. Unknown ones stay too."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word)


def check_effort(agent: Agent, effort: str | None, known: tuple[str, ...]) -> None:
    """Raises: Usage for an effort the program does not know."""
    if effort is not None and effort not in known:
        raise Usage(
            f"`{effort}` is no effort of `{agent.name}`" if known else f"`{agent.name}` takes no effort",
            hint=f"pick one of: {', '.join(known)}" if known else "leave `--effort` out",
        )


def refuse_session(agent: Agent, order: Order) -> None:
    """Raises: Usage when the order continues a session, for a program that cannot elsewhere than where it began."""
    if order.session is not None:
        raise Usage(
            f"`{agent.name}` cannot continue in another workspace", hint="start a new job: wt spawn --agent … --task …"
        )


def values(order: Order) -> dict[str, str]:
    """What the placeholders of an order stand for, apart from those that are known once it starts."""
    known = {
        "prompt": prompt(order.task),
        "task": order.task,
        "access": order.access,
        "model": order.model,
        "effort": order.effort,
        "session": order.session,
    }
    return {name: value for name, value in known.items() if value is not None}
