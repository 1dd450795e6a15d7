"""Real agent programs as bosses: they call our MCP server, start real workers, merge, and mend a conflict."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.model import Model
from tests.kit import RepoKit, Wt, eventually

pytestmark = pytest.mark.hosts


def tool(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"mcp": {"server": "wt", "tool": name, "args": arguments}}


def worker(name: str, command: str) -> dict[str, Any]:
    report = json.dumps({"summary": f"{name} is done", "modifiedFiles": []})
    return {"match": f"WORKER {name}", "steps": [{"shell": command}, {"message": report}]}


BOTH = ["${out.0.jobId}", "${out.1.jobId}"]
NEXT = {**tool("codex_wait_any", jobIds=BOTH, timeoutMs=20_000), "until": {"path": "completedJobId"}, "max": 20}
TWO = {
    "routes": [
        {
            "match": "BOSS",
            "steps": [
                tool("codex_spawn", prompt="WORKER one", sandbox="workspace-write"),
                tool("codex_spawn", prompt="WORKER two", sandbox="workspace-write"),
                NEXT,
                tool("codex_events", jobId="${out.-1.completedJobId}"),
                tool("codex_result", jobId="${out.-2.completedJobId}"),
                NEXT,
                tool("codex_result", jobId="${out.-1.completedJobId}"),
                tool("wt_merge", jobIds=BOTH),
                {"message": "landed: ${out.-1.landed}"},
            ],
        },
        worker("one", "echo 1 > one.txt"),
        worker("two", "echo 2 > two.txt"),
    ]
}
CONFLICT = {
    "routes": [
        {
            "match": "BOSS",
            "steps": [
                tool("codex_spawn", prompt="WORKER alpha", name="alpha"),
                tool("codex_spawn", prompt="WORKER beta", name="beta"),
                NEXT,
                NEXT,
                tool("wt_merge", jobIds=BOTH),
                tool("wt_rollback"),
                tool("wt_merge", jobIds=["alpha"]),
                tool("codex_spawn", prompt="WORKER again", name="again"),
                tool("wt_drop", jobIds=["beta"]),
                {
                    **tool("codex_wait_any", jobIds=["again"], timeoutMs=20_000),
                    "until": {"path": "completedJobId"},
                    "max": 20,
                },
                tool("wt_merge", jobIds=["again"]),
                {"message": "landed: ${out.-1.landed}"},
            ],
        },
        worker("alpha", "echo alpha > README.md"),
        worker("beta", "echo beta > README.md"),
        worker("again", "echo beta >> README.md"),
    ]
}


@pytest.fixture
def wt_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts start `wt` by its name, in a Python that does not import from the repository."""
    own = Path(sys.executable).parent
    assert (own / "wt").exists(), "the package is installed in this environment"
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{own}")


def as_codex(repo: RepoKit, prompt: str) -> list[dict[str, Any]]:
    """The events of one run of the real Codex."""
    words = ["codex", "exec", "--json", "-s", "read-only", "-C", str(repo.path), "-"]
    done = subprocess.run(words, input=prompt.encode(), capture_output=True, check=False, timeout=240, cwd=repo.path)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def calls_of_codex(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    return [(item["tool"], item["status"]) for item in items if item["type"] == "mcp_tool_call"]


def as_claude(repo: RepoKit, prompt: str, *words: str) -> dict[str, Any]:
    """The last message of one run of the real Claude Code."""
    done = subprocess.run(
        ["claude", "-p", "--output-format", "json", *words],
        input=prompt.encode(),
        capture_output=True,
        check=False,
        timeout=240,
        cwd=repo.path,
        # It waits for its servers, however busy this machine is.
        env={**os.environ, "MCP_CONNECTION_NONBLOCKING": "0", "MCP_CONNECT_TIMEOUT_MS": "60000"},
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


ALLOWED = ("--allowedTools", "mcp__wt")


# ------------------------------------------------------------------------------------------------------------- codex
def test_s03_codex_is_the_boss_of_two_codex_workers(codex: Model, wt_on_path: None, repo: RepoKit, wt: Wt) -> None:
    wt("install", "codex", status=0)
    codex.play(TWO)
    events = as_codex(repo, "BOSS, do it")
    calls = calls_of_codex(events)
    assert {status for _, status in calls} == {"completed"}, calls
    assert [name for name, _ in calls if name != "codex_wait_any"] == [
        "codex_spawn", "codex_spawn", "codex_events", "codex_result", "codex_result", "wt_merge",
    ]  # fmt: skip
    said = [event["item"]["text"] for event in events if event.get("item", {}).get("type") == "agent_message"]
    assert said[-1] == "landed: true", codex.requests[-1]["results"]
    assert (repo.read("one.txt"), repo.read("two.txt")) == (b"1\n", b"2\n")
    assert {job["agent"] for job in wt("list", "--all", "--json").data["jobs"]} == {"codex"}


def test_s21_codex_rolls_a_conflict_back_and_runs_the_task_again(
    codex: Model, wt_on_path: None, repo: RepoKit, wt: Wt
) -> None:
    wt("install", "codex", status=0)
    codex.play(CONFLICT)
    events = as_codex(repo, "BOSS, do it")
    assert {status for _, status in calls_of_codex(events)} == {"completed"}
    assert repo.read("README.md") == b"alpha\nbeta\n"
    kinds = [operation["kind"] for operation in wt("log", "--json").data["operations"]]
    assert kinds == ["merge", "drop", "merge", "rollback"]
    assert wt("workflow", "list", "--json").data["workflows"] == []


# ------------------------------------------------------------------------------------------------------------ claude
def test_s03_claude_code_is_the_boss_of_two_workers(claude: Model, wt_on_path: None, repo: RepoKit, wt: Wt) -> None:
    wt("install", "claude", status=0)
    script = json.loads(json.dumps(TWO).replace('"sandbox": "workspace-write"', '"agent": "claude"'))
    claude.play(script)
    answer = as_claude(repo, "BOSS, do it", *ALLOWED)
    assert answer["result"] == "landed: true", answer
    assert (repo.read("one.txt"), repo.read("two.txt")) == (b"1\n", b"2\n")
    assert {job["agent"] for job in wt("list", "--all", "--json").data["jobs"]} == {"claude"}


def test_s21_claude_code_rolls_a_conflict_back_and_runs_the_task_again(
    claude: Model, wt_on_path: None, repo: RepoKit, wt: Wt
) -> None:
    wt("install", "claude", status=0)
    claude.play(json.loads(json.dumps(CONFLICT).replace('"name":', '"agent": "claude", "name":')))
    answer = as_claude(repo, "BOSS, do it", *ALLOWED)
    assert answer["result"] == "landed: true", answer
    assert repo.read("README.md") == b"alpha\nbeta\n"


# ---------------------------------------------------------------------------------------------------------- provider
def test_claude_code_takes_its_worktree_from_us(claude: Model, wt_on_path: None, repo: RepoKit, wt: Wt) -> None:
    wt("install", "claude", status=0)
    claude.play({"steps": [{"shell": "pwd; echo hi > claude.txt"}, {"message": "${out.0}"}]})
    answer = as_claude(repo, "WHERE are you", "--worktree", "mine", "--allowedTools", "Bash")
    job = wt("list", "--all", "--json").data["jobs"][0]
    assert job["name"] == "mine"
    assert job["workspace"] in answer["result"]
    assert not (repo.path / ".claude" / "worktrees").exists()
    # Its session is over, and nobody told us.
    assert (job["state"], job["result"], job["changedFiles"]) == ("done", "succeeded", 1)
    wt("merge", status=0)
    assert repo.read("claude.txt") == b"hi\n"


def test_a_subagent_of_claude_code_works_in_one_of_ours(claude: Model, wt_on_path: None, repo: RepoKit, wt: Wt) -> None:
    wt("install", "claude", status=0)
    asked = {
        "description": "isolated",
        "prompt": "SUBTASK edit",
        "subagent_type": "general-purpose",
        "isolation": "worktree",
    }
    claude.play(
        {
            "routes": [
                {"match": "ISOLATED", "steps": [{"call": {"name": "Agent", "args": asked}}, {"message": "${out.0}"}]},
                {"match": "SUBTASK", "steps": [{"shell": "pwd; echo hi > claude.txt"}, {"message": "in ${out.0}"}]},
            ]
        }
    )
    as_claude(repo, "ISOLATED please", "--allowedTools", "Bash", "Agent")
    (job,) = wt("list", "--all", "--json").data["jobs"]
    assert job["name"].startswith("agent-")
    assert (job["state"], job["result"], job["changedFiles"]) == ("done", "succeeded", 1)
    assert not (repo.path / "claude.txt").exists()
    wt("merge", status=0)
    assert repo.read("claude.txt") == b"hi\n"
    wt("clean", status=0)
    eventually(lambda: not Path(job["workspace"]).exists())
