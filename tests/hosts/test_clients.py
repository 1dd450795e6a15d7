"""Clients that nobody here wrote: the MCP Inspector calls every tool, the conformance suite looks at the protocol."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests.kit import RepoKit, Wt, eventually
from worktrees.mcp.server import _listening, application, build

AGENT = """#!/bin/sh
cat > /dev/null
echo "from the agent" > "agent-$$.txt"
echo '{"type":"thread.started","thread_id":"t"}'
echo '{"type":"item.completed","item":{"id":"item_0","type":"agent_message","text":"all done"}}'
echo '{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":2}}'
"""
_CALL_SECONDS = 120


class Inspector:
    """The Inspector's command line: a server of its own for each call."""

    def __init__(self, program: Path, wt: Wt) -> None:
        self.program = program / "mcp-inspector"
        self.wt = wt
        self.called: set[str] = set()

    def ask(self, method: str, *words: str) -> Any:
        """What a method answers."""
        done = subprocess.run(
            [self.program, "--cli", *map(str, self.wt.argv("mcp")), "--method", method, *words],
            cwd=self.wt.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CALL_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def call(self, tool: str, **arguments: Any) -> Any:
        """What a tool answers, which is no error."""
        answer = self._called(tool, arguments)
        assert not answer["isError"], answer
        return answer["structuredContent"]

    def refused(self, tool: str, **arguments: Any) -> str:
        """The code with which a tool refuses."""
        answer = self._called(tool, arguments)
        assert answer["isError"], answer
        return str(answer["content"][0]["text"]).partition("[")[2].partition("]")[0]

    def _called(self, tool: str, arguments: dict[str, Any]) -> Any:
        self.called.add(tool)
        # Text as it is, anything else as JSON.
        given = [
            f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in arguments.items()
        ]
        return self.ask("tools/call", "--tool-name", tool, *(["--tool-arg", *given] if given else []))


@pytest.mark.hosts
def test_the_inspector_lists_and_calls_every_tool(
    inspector_program: Path, repo: RepoKit, wt: Wt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    agent = tmp_path / "bin" / "codex"
    agent.write_text(AGENT, encoding="utf-8")
    agent.chmod(0o755)
    monkeypatch.setenv("PATH", f"{agent.parent}{os.pathsep}{os.environ['PATH']}")
    inspector = Inspector(inspector_program, wt)
    call = inspector.call
    tools = {tool["name"] for tool in inspector.ask("tools/list")["tools"]}

    one = call("codex_spawn", prompt="make a file", sandbox="workspace-write", name="one")["jobId"]
    group = call("codex_spawn_group", jobs=[{"prompt": "look", "label": "look", "sandbox": "read-only"}])
    look = group["results"][0]["jobId"]
    assert group["results"][0]["error"] is None
    mine = call("wt_spawn", name="mine")
    pending = [one, look]
    while pending:
        pending = call("codex_wait_any", jobIds=pending, timeoutMs=60000)["pending"]
    assert call("codex_status", jobId=one)["status"] == "done"
    assert call("codex_result", jobId=one, view="full")["finalMessage"] == "all done"
    events = call("codex_events", jobId=one, maxEvents=50)
    assert (events["done"], events["events"][-1]["type"]) == (True, "final")
    Path(mine["workspace"], "README.md").write_text("mine\n", encoding="utf-8")
    assert [file["path"] for file in call("wt_diff", jobId="mine")["changeSet"]["files"]] == ["README.md"]
    assert call("wt_settle", jobId="mine")["job"]["result"] == "succeeded"
    assert call("codex_cancel", jobId="mine")["status"] == "done"
    assert {row["name"] for row in call("wt_list")["jobs"]} == {"one", "look", "mine"}
    assert call("wt_overlap")["totalConflicts"] == 0
    merged = call("wt_merge", jobIds=[one, "mine"], check=["test -s README.md"], dryRun=False)
    assert merged["landed"]
    assert repo.read("README.md") == b"mine\n"
    assert call("wt_log")["operations"][0]["operationId"] == merged["operationId"]
    assert call("wt_undo")["operation"]["undoes"] == merged["operationId"]
    assert call("wt_merge", jobIds=["mine"])["landed"]
    assert call("wt_rollback")["operation"]["kind"] == "rollback"
    assert repo.read("README.md") != b"mine\n"
    assert call("wt_drop", jobIds=[one])["removals"][0]["outcome"] == "removed"
    assert inspector.refused("codex_status", jobId="nobody") == "not-found"
    assert inspector.called == tools


# ------------------------------------------------------------------------------------------------------- conformance
@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Our HTTP application without its token, which the suite cannot send."""
    with _listening("127.0.0.1", 0) as listener:
        config = uvicorn.Config(application(build(directory), "127.0.0.1"), log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            eventually(lambda: server.started, what="the server")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.mark.hosts
@pytest.mark.parametrize("scenario", ["server-initialize", "ping", "tools-list", "dns-rebinding-protection"])
def test_the_protocol_is_spoken_as_the_suite_wants_it(
    conformance_program: Path, repo: RepoKit, scenario: str, tmp_path: Path
) -> None:
    with serving(repo.path) as url:
        done = subprocess.run(
            [conformance_program / "conformance", "server", "--url", url, "--scenario", scenario],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CALL_SECONDS,
            env={**os.environ, "PATH": f"{conformance_program}{os.pathsep}{os.environ['PATH']}"},
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout, done.stdout
