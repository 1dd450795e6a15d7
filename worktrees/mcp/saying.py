"""From values and errors to what the SDK sends."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec, TypeVar

from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from worktrees.errors import GitFailed, WorktreesError
from worktrees.render.failures import disk_trouble_of_git, of_the_system, report_bug

if TYPE_CHECKING:
    from worktrees.model import Value

P = ParamSpec("P")
T = TypeVar("T")

# Under `approval_policy = never` Codex calls what only reads, and what neither destroys nor reaches outside; nothing
# else, nor what says nothing about itself.
READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
STARTS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
ENDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
MOVES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False)

Directory = Annotated[
    str | None,
    Field(description="Directory in the repository to work on. Default: the one this server was started in."),
]
Where = Annotated[
    str | None,
    Field(description="Directory in the job's repository. Default: it is found by the job's id."),
]
JobWord = Annotated[str, Field(description="A job's id (j-...), or its name.")]
Cursor = Annotated[str | None, Field(description="nextCursor of the page before. Default: begin at the start.")]

# What the command line calls by a verb, and a host by a tool.
_TOOLS = {
    "wait": "codex_wait_any",
    "status": "codex_status",
    "list": "wt_list",
    "result": "codex_result",
    "events": "codex_events",
    "logs": "codex_result",
    "cancel": "codex_cancel",
    "spawn": "wt_spawn",
    **{name: f"wt_{name}" for name in ("settle", "diff", "overlap", "merge", "rollback", "undo", "drop", "log")},
}


def answered(value: Value | dict[str, Any], text: str | None = None) -> CallToolResult:
    """A value as the answer of a tool; as text too, for hosts that read only that."""
    structured = value if isinstance(value, dict) else value.dump()
    said = json.dumps(structured, ensure_ascii=False, separators=(",", ":")) if text is None else text
    return CallToolResult(content=[TextContent(type="text", text=said)], structured_content=structured)


def told(error: WorktreesError) -> str:
    """An error for a model: its code, one line, and what to do next."""
    hint = error.hint
    if hint and (verb := re.search(r"\bwt (\w+)", hint)) and verb[1] in _TOOLS:
        hint = f"call {_TOOLS[verb[1]]} (on the command line: {hint})"
    return f"[{error.code}] {error.message}" + (f"\nhint: {hint}" if hint else "")


def _refuse(error: Exception, words: list[str]) -> NoReturn:
    if isinstance(error, GitFailed):
        error = disk_trouble_of_git(error)
    elif isinstance(error, OSError):
        error = of_the_system(error)
    elif not isinstance(error, WorktreesError):
        error = report_bug(error, words)
    raise ToolError(told(error)) from error


def tool(function: Callable[P, T]) -> Callable[P, T]:
    """A tool that runs in a thread of its own: no exception of ours gets to the client as it is."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except ToolError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug; its report must not be lost
            _refuse(error, ["wt", "mcp", function.__name__])

    return guarded


def async_tool(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same for one that waits, and can be cancelled."""

    @functools.wraps(function)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        except ToolError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            _refuse(error, ["wt", "mcp", function.__name__])

    return guarded
