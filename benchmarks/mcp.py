"""What the MCP server costs its host: from its start to the first list of tools, and each call after that.

The server is the one that is installed, on stdio. The plain side of a start is an interpreter that imports what any
server on the SDK imports. Calls are made one after another; the percentiles are those of one round.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from benchmarks.cases import again
from benchmarks.harness import Case, Fact, Work, spell
from benchmarks.lab import Lab

_CALLS_A_ROUND = 100
_SPAWNS_A_ROUND = 10
_VERSION = "2025-11-25"


class Server:
    """`wt mcp` and a host that speaks to it a line at a time."""

    def __init__(self, lab: Lab, path: str = os.environ["PATH"]) -> None:
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("wt"), "mcp"],
            cwd=lab.repo,
            env={**os.environ, "PATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=60)  # it ends when stdin is closed

    def ask(self, method: str, **parameters: Any) -> Any:
        """The result of a request."""
        self.number += 1
        self._say({"id": self.number, "method": method, "params": parameters})
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            answer = json.loads(line)
            if answer.get("id") == self.number:
                return answer["result"]
        raise AssertionError("the server ended")

    def _say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()

    def list_tools(self) -> int:
        """What a host does first; how many tools there are."""
        self.ask("initialize", protocolVersion=_VERSION, capabilities={}, clientInfo={"name": "bench", "version": "1"})
        self._say({"method": "notifications/initialized"})
        return len(self.ask("tools/list")["tools"])

    def call(self, tool: str, **arguments: Any) -> Any:
        """What a tool answers."""
        answer = self.ask("tools/call", name=tool, arguments=arguments)
        assert not answer.get("isError"), answer
        return answer["structuredContent"]


def starts(lab: Lab) -> Case:
    """From the start of the server to the first list of its tools."""

    @contextmanager
    def ours() -> Iterator[Work]:
        servers: list[Server] = []

        def work() -> None:
            servers.append(Server(lab))
            assert servers[0].list_tools()

        yield work
        with servers[0]:
            pass

    imports = "import mcp.server"
    return Case(
        "MCP server, to its first list of tools",
        f"{lab.files:,} files",
        {f"python -c '{imports}'": again(lambda: lab.run(sys.executable, "-c", imports))},
        {"wt mcp": ours},
    )


def latencies(lab: Lab, rounds: int) -> list[Fact]:
    """How long a call takes that says where a job stands, and one that starts an agent that does nothing."""
    agents = lab.root / "agents"
    agents.mkdir()
    (agents / "codex").write_text("#!/bin/sh\ncat > /dev/null\n", encoding="utf-8")
    (agents / "codex").chmod(0o755)
    lab.keep_open()
    (job,) = lab.spawn(1, ["true"])
    lab.boss.wait(job)
    size = f"{lab.files:,} files, calls one by one"
    looked: list[list[float]] = []
    spawned: list[list[float]] = []
    with Server(lab, f"{agents}{os.pathsep}{os.environ['PATH']}") as server:
        server.list_tools()
        server.call("codex_status", jobId=job)
        for _ in range(rounds):
            looked.append([_timed(server, "codex_status", jobId=job)[0] for _ in range(_CALLS_A_ROUND)])
            made = [_timed(server, "codex_spawn", prompt="nothing") for _ in range(_SPAWNS_A_ROUND)]
            spawned.append([seconds for seconds, _ in made])
            lab.discard([answer["jobId"] for _, answer in made])
    lab.discard([job])
    return [
        Fact(f"{tool}, {name}", size, [_percentile(each, share) for each in seconds], spell)
        for tool, seconds in (("codex_status", looked), ("codex_spawn", spawned))
        for name, share in (("p50", 50), ("p99", 99))
    ]


def _timed(server: Server, tool: str, **arguments: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    answer = server.call(tool, **arguments)
    return time.perf_counter() - began, answer


def _percentile(values: Sequence[float], share: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]
