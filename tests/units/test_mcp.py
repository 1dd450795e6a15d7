"""What `wt mcp` says of itself, how much it says at once, how it fails, and who may reach it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from tests import hosting
from tests.hosting import Host, Refusal, played
from tests.kit import Gate, RepoKit, Wt, eventually
from tests.readme import GUIDE
from worktrees.boss import Boss
from worktrees.errors import Usage
from worktrees.mcp import verbs
from worktrees.mcp.address import parsed
from worktrees.mcp.ground import call_key
from worktrees.mcp.shapes import characters, fit, page, piece

JOB_TOOLS = {
    "codex_spawn": {"prompt", "model", "reasoningEffort", "sandbox", "fullAuto", "workingDirectory"},
    "codex_spawn_group": {"defaults", "jobs", "includeHandshake", "handshakeMaxEvents"},
    "codex_status": {"jobId"},
    "codex_result": {"jobId", "view"},
    "codex_events": {"jobId", "cursor", "maxEvents"},
    "codex_wait_any": {"jobIds", "timeoutMs"},
    "codex_cancel": {"jobId", "force"},
}
"""The seed's tools and what they take."""
OURS = {
    "wt_spawn", "wt_settle", "wt_list", "wt_diff", "wt_overlap", "wt_merge", "wt_rollback", "wt_undo", "wt_drop",
    "wt_log",
}  # fmt: skip
DESTRUCTIVE = {"wt_merge", "wt_rollback", "wt_undo", "wt_drop"}


def inside(repo: RepoKit, story: Callable[[Host], Awaitable[Any]]) -> Any:
    """A story with a server in this process."""

    async def told() -> Any:
        async with hosting.inside(repo.path) as host:
            return await story(host)

    return played(told)


def ran(repo: RepoKit, scripts: dict[str, str], **wishes: Any) -> None:
    """Jobs by name that ended with success, one after the other."""
    boss = Boss(repo.path)
    for name, script in scripts.items():
        boss.spawn(["sh", "-c", script], name=name, **wishes)
        assert boss.wait(name).jobs[0].result == "succeeded"


async def every_page(host: Host, tool: str, **arguments: Any) -> list[Any]:
    pages = [await host(tool, **arguments)]
    while pages[-1]["nextCursor"] is not None:
        pages.append(await host(tool, **arguments, cursor=pages[-1]["nextCursor"]))
    return pages


# ---------------------------------------------------------------------------------------------------- what it offers
def test_every_tool_says_what_a_host_needs_to_know(repo: RepoKit) -> None:
    async def story(host: Host) -> Any:
        assert host.client.instructions
        return (await host.client.list_tools()).tools

    tools = {tool.name: tool for tool in inside(repo, story)}
    assert tools.keys() == JOB_TOOLS.keys() | OURS
    for name, tool in tools.items():
        hints = tool.annotations
        # Without both a headless host refuses to call what is harmless.
        assert hints.open_world_hint is False, name
        assert hints.destructive_hint is (name in DESTRUCTIVE), name
        assert tool.title, name
        assert tool.output_schema["type"] == "object", name
        assert 60 < len(tool.description) < 1000, name
        for parameter, schema in tool.input_schema["properties"].items():
            assert schema.get("description"), f"{name}.{parameter}"
            if parameter not in tool.input_schema.get("required", []):
                # Hosts drop `default` before a model sees the schema.
                assert re.search(r"[Dd]efault|when several|nextOffset", schema["description"]), f"{name}.{parameter}"
    for name, parameters in JOB_TOOLS.items():
        assert parameters <= tools[name].input_schema["properties"].keys(), name


def test_resources_and_the_prompt(repo: RepoKit) -> None:
    ran(repo, {"one": "echo x > new.txt"}, workflow="flow")

    async def story(host: Host) -> tuple[Any, Any, Any]:
        flow = await host.client.read_resource("wt://workflows/flow")
        change = await host.client.read_resource("wt://changes/one")
        with pytest.raises(Exception, match=r"\[not-found\] no job `nobody`"):
            await host.client.read_resource("wt://changes/nobody")
        (guide,) = (await host.client.read_resource("wt://guide")).contents
        assert getattr(guide, "text", "") == GUIDE.read_text(encoding="utf-8")
        prompt = await host.client.get_prompt("boss", {"task": "mend it all"})
        return flow.contents[0], change.contents[0], prompt.messages[0].content

    flow, change, prompt = inside(repo, story)
    assert [job["name"] for job in json.loads(flow.text)["jobs"]] == ["one"]
    assert [file["path"] for file in json.loads(change.text)["files"]] == ["new.txt"]
    assert "mend it all" in prompt.text


# ------------------------------------------------------------------------------------------------------------- sizes
def test_answers_fit_whatever_a_job_did(repo: RepoKit) -> None:
    script = "for n in $(seq 150); do echo $n > file-$n.txt; done; seq 1 30000; seq 1 30000 >&2"
    ran(repo, {"one": script, "two": script})

    async def story(host: Host) -> None:  # `Host` itself holds every answer against the limit
        result = await host("codex_result", jobId="one", view="full")
        assert len(result["modifiedFiles"]) + result["omitted"].get("modifiedFiles", 0) == 150
        assert result["stdoutTail"].endswith("30000\n")
        assert result["stderrTail"].endswith("30000\n")
        pages = await every_page(host, "wt_diff", jobId="one")
        assert [len(pages) > 1, sum(len(found["changeSet"]["files"]) for found in pages)] == [True, 150]
        pages = await every_page(host, "wt_diff", jobId="one", view="patch")
        assert len(pages) > 1
        assert "".join(found["patch"] for found in pages) == Boss(repo.path).patch("one").decode()
        pages = await every_page(host, "wt_overlap")
        assert [len(pages) > 1, sum(len(found["overlaps"]) for found in pages)] == [True, 150]
        assert pages[0]["totalOverlaps"] == 150
        merged = await host("wt_merge")
        assert merged["landed"]
        assert len(merged["overlaps"]) + merged["omitted"]["overlaps"] == 150
        for jobs in ([], ["one", "two"]):
            assert await host.code("wt_overlap", jobIds=jobs, cursor="x") == "usage"

    inside(repo, story)


def test_pieces_and_pages_lose_nothing() -> None:
    text = 'quote " newline \n ünïcode 😀 ' * 200
    parts: list[str] = []
    offset: int | None = 0
    while offset is not None:
        part, offset = piece(text, offset, most=300)
        assert characters(part) <= 300
        parts.append(part)
    assert "".join(parts) == text

    items = ["x" * size for size in (1, 900, 50, 50, 50, 400)]
    found: list[str] = []
    cursor: str | None = None
    while len(found) < len(items):
        taken, cursor = page(items, cursor, str, most=500)
        assert len(taken) == 1 or sum(len(item) for item in taken) < 500
        found += taken
    assert (found, cursor) == (items, None)
    for wrong in ("-1", "x", "７", "9" * 30, "7"):
        with pytest.raises(Usage):
            page(items, wrong, str, most=500)

    answer = fit({"long": ["x" * 10] * 100, "short": ["y"], "omitted": {}}, "long", "short", most=300)
    assert characters(answer) <= 300
    assert answer["short"] == ["y"]
    assert len(answer["long"]) + answer["omitted"]["long"] == 100


# ---------------------------------------------------------------------------------------------------------- failures
def test_a_refusal_is_a_code_a_line_and_what_to_do(repo: RepoKit, gate: Gate, tmp_path: Path) -> None:
    Boss(repo.path).spawn(["sh", "-c", gate.shell()], name="busy")
    gate.wait_arrivals(1)

    async def story(host: Host) -> None:
        with pytest.raises(Refusal) as refused:
            await host("codex_result", jobId="busy")
        assert "[job-unfinished] `busy` is running: it has no result yet" in str(refused.value)
        assert "codex_wait_any" in str(refused.value)
        assert await host.code("codex_status", jobId="nobody") == "not-found"
        assert await host.code("wt_spawn", command=["true"], workingDirectory=str(tmp_path)) == "not-a-repository"
        assert await host.code("wt_spawn", command=["true"], workingDirectory="/no/such/place") == "not-a-repository"
        assert await host.code("wt_spawn", command=["true"], name="busy") == "name-taken"
        assert await host.code("codex_events", jobId="busy", cursor="???") == "usage"
        assert await host.code("wt_undo", operation="op-9") == "not-found"
        with pytest.raises(Refusal, match="Input should be"):
            await host("codex_wait_any", jobIds="busy", timeoutMs=-1)
        gate.release()
        while (await host("codex_status", jobId="busy"))["status"] == "running":
            await host("codex_wait_any", jobIds=["busy"])

    inside(repo, story)


def test_a_bug_is_a_report_and_not_a_traceback(repo: RepoKit, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Boss) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(Boss, "log", broken)

    async def story(host: Host) -> str:
        with pytest.raises(Refusal) as refused:
            await host("wt_log")
        return str(refused.value)

    text = inside(repo, story)
    assert "[bug]" in text
    (report,) = Path(os.environ["XDG_STATE_HOME"], "wt", "reports").iterdir()
    assert str(report) in text
    assert "ZeroDivisionError" in report.read_text(encoding="utf-8")


def test_a_conflict_is_an_answer_and_moves_nothing(repo: RepoKit) -> None:
    ran(repo, {name: f"echo {name} > README.md" for name in ("one", "two")})
    head = repo.head()

    async def story(host: Host) -> None:
        found = await host("wt_overlap")
        assert [conflict["path"] for conflict in found["conflicts"]] == ["README.md"]
        merged = await host("wt_merge", jobIds=["one", "two"])
        assert (merged["landed"], repo.head()) == (False, head)
        assert [step["outcome"] for step in merged["steps"]] == ["skipped", "conflict"]
        assert "two did not merge" in merged["hint"]
        merged = await host("wt_merge", jobIds=["one", "two"], onConflict="skip")
        assert merged["landed"]
        assert (await host("wt_log"))["operations"][0]["operationId"] == merged["operationId"]
        assert (await host("wt_undo"))["operation"]["undoes"] == merged["operationId"]
        assert repo.head() == head
        assert (await host("wt_drop", jobIds=["two"]))["removals"][0]["outcome"] == "removed"

    inside(repo, story)


def test_a_conflict_may_lead_back_to_the_start_and_no_call_waits_for_workers(repo: RepoKit) -> None:
    ran(repo, {name: f"echo {name} > README.md" for name in ("one", "two")})
    start = repo.head()

    async def story(host: Host) -> None:
        for policy, words in (
            ("rerun", "longer than a call may last"),
            ("manual", "longer"),
            ("x", "is no onConflict"),
        ):
            with pytest.raises(Refusal, match=words) as refused:
                await host("wt_merge", onConflict=policy)
            assert refused.value.code == "usage"
        assert (await host("wt_merge", jobIds=["one"]))["landed"]
        landed = repo.head()
        assert landed != start
        merged = await host("wt_merge", onConflict="rollback")
        assert (merged["landed"], repo.head()) == (False, start)
        assert merged["rolledBackBy"] in merged["hint"]
        await host("wt_undo", operation=merged["rolledBackBy"])
        assert repo.head() == landed

    inside(repo, story)


def test_checks_of_a_merge_are_run_and_never_outlast_the_call(
    repo: RepoKit, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(repo, {name: f"echo {name} > {name}.txt" for name in ("good", "bad")})
    head = repo.head()

    async def story(host: Host) -> None:
        merged = await host("wt_merge", check=["test -e good.txt", "test ! -e bad.txt"])
        assert (merged["landed"], repo.head()) == (False, head)
        assert [run["command"] for run in merged["check"]["runs"]][:2] == ["test -e good.txt", "test ! -e bad.txt"]
        assert "bad did not pass" in merged["hint"]
        with monkeypatch.context() as patched:
            patched.setattr(verbs, "CHECK_SECONDS", 1.0)
            with pytest.raises(Refusal) as refused:  # the first is known from before, the second waits for ever
                await host("wt_merge", check=["test -e good.txt", gate.shell()])
        assert refused.value.code == "check-outlasts"
        assert "nothing has moved" in str(refused.value)
        assert repo.head() == head
        merged = await host("wt_merge", check=["test ! -e bad.txt"], onRed="skip")
        assert merged["landed"]
        assert {step["name"]: step["outcome"] for step in merged["steps"]} == {"good": "landed", "bad": "failed-check"}

    inside(repo, story)
    assert repo.read("good.txt") == b"good\n"


# ------------------------------------------------------------------------------------------------------------ jobs
def test_codex_spawn_starts_the_agent_as_asked(repo: RepoKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        {"type": "thread.started", "thread_id": "t"},
        {"type": "item.completed", "item": {"id": "item_0", "type": "agent_message", "text": "all done"}},
        {"type": "turn.completed", "usage": {"input_tokens": 1, "cached_input_tokens": 0, "output_tokens": 2}},
    )
    (tmp_path / "bin").mkdir()
    codex = tmp_path / "bin" / "codex"
    lines = "\n".join(json.dumps(line) for line in said)
    codex.write_text(f"#!/bin/sh\necho \"$@\" > words.txt\ncat > prompt.txt\ncat <<'E'\n{lines}\nE\n", encoding="utf-8")
    codex.chmod(0o755)
    monkeypatch.setenv("PATH", f"{codex.parent}{os.pathsep}{os.environ['PATH']}")

    async def story(host: Host) -> None:
        jobs = [
            (await host("codex_spawn", prompt="mend it", model="m-1", reasoningEffort="high"))["jobId"],
            *[
                member["jobId"]
                for member in (
                    await host(
                        "codex_spawn_group",
                        defaults={"sandbox": "read-only", "model": "m-2"},
                        jobs=[{"prompt": "look", "label": "a look"}, {"prompt": "again", "sandbox": "workspace-write"}],
                        includeHandshake=True,
                    )
                )["results"]
            ],
        ]
        pending = jobs
        while pending:
            pending = (await host("codex_wait_any", jobIds=jobs))["pending"]
        rows = {row["jobId"]: row for row in (await host("wt_list"))["jobs"]}
        assert [rows[job]["access"] for job in jobs] == ["workspace-write", "read-only", "workspace-write"]
        assert rows[jobs[1]]["name"] == "a-look"
        for job in (jobs[0], jobs[2]):
            result = await host("codex_result", jobId=job)
            assert (result["status"], result["finalMessage"]) == ("done", "all done"), result
            assert result["modifiedFiles"] == ["prompt.txt", "words.txt"]
        assert (await host("wt_merge", jobIds=[jobs[0]]))["landed"]
        words = repo.read("words.txt").decode()
        assert "m-1" in words
        assert "high" in words
        assert repo.read("prompt.txt").decode().endswith("mend it\n")
        assert await host.code("codex_spawn", prompt="x", agent="nobody") == "usage"
        assert await host.code("codex_spawn", prompt=" ") == "usage"

    inside(repo, story)


def test_an_open_workspace_is_for_whoever_called(repo: RepoKit) -> None:
    async def story(host: Host) -> None:
        opened = await host("wt_spawn", name="mine")
        await anyio.Path(opened["workspace"], "mine.txt").write_text("mine\n", encoding="utf-8")
        assert (opened["state"], opened["status"]) == ("open", "running")
        settled = await host("wt_settle", jobId="mine")
        assert settled["job"]["result"] == "succeeded"
        assert (await host("codex_cancel", jobId="mine"))["status"] == "done"
        assert (await host("wt_list"))["total"] == 1

    inside(repo, story)


def test_cancelling_stops_a_worker_and_keeps_its_work(repo: RepoKit, gate: Gate) -> None:
    async def story(host: Host) -> None:
        job = (await host("wt_spawn", command=["sh", "-c", f"echo x > part; {gate.shell()}"]))["jobId"]
        gate.wait_arrivals(1)
        assert (await host("codex_cancel", jobId=job))["success"] is True
        answer = await host("codex_wait_any", jobIds=[job])
        assert (answer["completedJobId"], answer["status"]) == (job, "canceled")
        assert (await host("codex_result", jobId=job))["modifiedFiles"] == ["part"]

    inside(repo, story)


def test_one_server_serves_several_repositories(make_repo: Callable[[str], RepoKit]) -> None:
    one, two = make_repo("one"), make_repo("two")

    async def story(host: Host) -> None:
        jobs = []
        for repo in (one, two):
            script = f"echo {repo.path.name} > who.txt"
            where = str(repo.path / "src")
            jobs.append((await host("wt_spawn", command=["sh", "-c", script], workingDirectory=where))["jobId"])
        pending = list(jobs)
        seen: list[str] = []
        while pending or len(seen) < 2:
            answer = await host("codex_wait_any", jobIds=jobs)
            pending = answer["pending"]
            seen += [answer["completedJobId"]] if answer["completedJobId"] else []
        assert sorted(seen) == sorted(jobs)
        for job, repo in zip(jobs, (one, two), strict=True):
            assert (await host("wt_merge", jobIds=[job]))["landed"]
            assert repo.read("who.txt").decode().strip() == repo.path.name
        with pytest.raises(Refusal, match="several repositories"):
            await host("wt_overlap", jobIds=jobs)

    inside(one, story)


def test_calls_made_at_the_same_time_make_one_job(repo: RepoKit) -> None:
    meta = {"claudecode/toolUseId": "toolu_1"}

    async def story(host: Host) -> None:
        found: list[str] = []

        async def call() -> None:
            found.append((await host("wt_spawn", command=["true"], meta=meta))["jobId"])

        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(call)
        assert len(set(found)) == 1
        assert (await host("wt_list"))["total"] == 1
        # A host that names no calls gets a job for each.
        found += [(await host("wt_spawn", command=["true"]))["jobId"] for _ in range(2)]
        assert len(set(found)) == 3

    inside(repo, story)


def test_a_call_is_told_by_the_hosts_ids_and_what_it_asks() -> None:
    assert call_key(None, "codex_spawn", {}) is None
    assert call_key({"threadId": "t", "progressToken": 1}, "codex_spawn", {}) is None
    one = call_key({"threadId": "t", "callId": "c"}, "codex_spawn", {"prompt": "x"})
    assert one == call_key({"callId": "c", "threadId": "t", "turnId": "u"}, "codex_spawn", {"prompt": "x"})
    others = [
        call_key({"threadId": "t", "callId": "d"}, "codex_spawn", {"prompt": "x"}),
        call_key({"threadId": "u", "callId": "c"}, "codex_spawn", {"prompt": "x"}),
        call_key({"threadId": "t", "callId": "c"}, "wt_spawn", {"prompt": "x"}),
        call_key({"threadId": "t", "callId": "c"}, "codex_spawn", {"prompt": "y"}),
    ]
    assert len({one, *others}) == 5


# ------------------------------------------------------------------------------------------------------- the command
def test_help_and_lists_do_not_load_the_sdk(wt: Wt) -> None:
    for words in (["--help"], ["mcp", "--help"], ["list"], ["--version"]):
        code = "import sys; sys.argv = ['wt', *sys.argv[1:]]\nfrom worktrees.cli import main\n"
        code += "import atexit; atexit.register(lambda: sys.stderr.write(' '.join(m for m in sys.modules)))\nmain()"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *words],
            cwd=wt.cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        loaded = done.stderr.split()
        assert not {"mcp", "uvicorn", "starlette"}.intersection(name.split(".")[0] for name in loaded), words


def test_wrong_addresses_are_refused(wt: Wt) -> None:
    for address in ("here", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x"):
        with pytest.raises(Usage, match="HOST:PORT"):
            parsed(address, {})
    assert parsed(":80", {}) == ("127.0.0.1", 80, None)
    assert parsed("[::1]:0", {"WT_MCP_TOKEN": ""}) == ("::1", 0, None)
    assert parsed("0.0.0.0:0", {"WT_MCP_TOKEN": "mine"}) == ("0.0.0.0", 0, "mine")
    refused = wt("mcp", "--http", "0.0.0.0:0", status=4)
    assert "no token is set" in refused.stderr
    assert wt("mcp", "--json", status=2).code == "usage"


def test_http_is_for_whoever_has_the_token_and_names_this_host(repo: RepoKit, wt: Wt) -> None:
    process = wt.start("mcp", "--http", "127.0.0.1:0")
    assert process.stderr is not None
    try:
        address = process.stderr.readline().decode().split()[-1]
        token = process.stderr.readline().decode().split()[-1]
        hello = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        accept = {"Accept": "application/json, text/event-stream"}
        right = {**accept, "Authorization": f"Bearer {token}"}
        with httpx2.Client() as http:
            assert http.post(address, json=hello, headers=accept).status_code == 401
            for given in ("Bearer x", token, "Bearer", f"bearer {token}x"):
                assert http.post(address, json=hello, headers={**accept, "Authorization": given}).status_code == 401
            assert http.post(address, json=hello, headers={**right, "Host": "evil.example"}).status_code == 421
            assert http.post(address, json=hello, headers={**right, "Origin": "http://evil.example"}).status_code == 403

        async def story() -> Any:
            async with (
                httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http,
                Client(streamable_http_client(address, http_client=http)) as client,
            ):
                host = Host(client)
                job = (await host("wt_spawn", command=["sh", "-c", "echo x > new.txt"]))["jobId"]
                await host("codex_wait_any", jobIds=[job])
                return (await host("codex_result", jobId=job))["modifiedFiles"]

        assert played(story) == ["new.txt"]
    finally:
        process.terminate()
        out, errors = process.communicate(timeout=30)
    assert out == b""
    assert b"Traceback" not in errors
    eventually(lambda: process.poll() is not None)
