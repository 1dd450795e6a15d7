"""A host for `wt mcp`: the SDK's own client over stdio, and a server that can be killed."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import psutil
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.kit import environment, eventually

T = TypeVar("T")

LONGEST_ANSWER = 12_000
"""Characters; Codex cuts the middle out of longer ones."""


class Refusal(AssertionError):
    """A tool said no."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition("[")[2].partition("]")[0]


class Host:
    """One connection to one server."""

    def __init__(self, client: Client, process: psutil.Process | None = None) -> None:
        self.client = client
        self.process = process

    async def __call__(self, tool: str, /, *, meta: Mapping[str, Any] | None = None, **arguments: Any) -> Any:
        """What a tool answers; it fits a host, and has no traceback in it. Raises: Refusal."""
        answer = await self.client.call_tool(tool, arguments, meta=dict(meta) if meta else None)  # type: ignore[arg-type]
        text = "".join(getattr(block, "text", "") for block in answer.content)
        assert "Traceback" not in text
        assert len(text) < LONGEST_ANSWER, len(text)
        if answer.is_error:
            raise Refusal(text)
        return answer.structured_content

    async def code(self, tool: str, /, **arguments: Any) -> str:
        """The code with which a tool refuses."""
        try:
            answer = await self(tool, **arguments)
        except Refusal as refusal:
            return refusal.code
        raise AssertionError(f"{tool} did not refuse: {answer}")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends the server as a crash would, or as a boss that exits does."""
        assert self.process is not None
        self.process.send_signal(number)
        eventually(lambda: not self.process or not self.process.is_running() or self.process.status() == "zombie")


@asynccontextmanager
async def inside(cwd: Path) -> AsyncIterator[Host]:
    """A host with a server in this process, which costs a second less; it cannot be killed."""
    from worktrees.mcp.server import build

    async with Client(build(cwd)) as client:
        yield Host(client)


@asynccontextmanager
async def connected(cwd: Path, env: Mapping[str, str | None] | None = None) -> AsyncIterator[Host]:
    """A host with a server of its own that was started in `cwd`."""
    words = [sys.executable, "-P", "-m", "worktrees", "mcp"]
    before = {child.pid for child in psutil.Process().children()}
    server = StdioServerParameters(command=words[0], args=words[1:], cwd=cwd, env=environment(env))
    with (Path(os.environ["TMPDIR"]) / "mcp.stderr").open("a+", encoding="utf-8") as errors:
        async with Client(stdio_client(server, errlog=errors)) as client:
            process = next(child for child in psutil.Process().children() if child.pid not in before)
            yield Host(client, process)
        errors.seek(0)
        assert "Traceback" not in errors.read()


def played(story: Callable[[], Awaitable[T]], seconds: float = 90) -> T:
    """Runs what a host does, in bounded time."""

    async def bounded() -> T:
        with anyio.fail_after(seconds):
            return await story()

    try:
        return anyio.run(bounded)
    except BaseExceptionGroup as group:
        # The SDK's task groups wrap what went wrong once for each layer.
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from None
