"""A boss that speaks MCP: jobs outlive its server, and every server after it sees the same."""

import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.hosting import Host, connected, inside, played
from tests.kit import Gate, RepoKit, Wt, eventually

Server = Callable[[Path], AbstractAsyncContextManager[Host]]
FIRST = pytest.mark.parametrize(
    "first_server", [pytest.param(inside, id="ended"), pytest.param(connected, id="killed", marks=pytest.mark.torture)]
)
"""The server before the one that is looked at: ended with its connection, or, which costs more, killed."""


async def spawned(host: Host, script: str, name: str | None = None, **more: Any) -> str:
    return str((await host("wt_spawn", command=["sh", "-c", script], name=name, **more))["jobId"])


async def finished(host: Host, *jobs: str) -> None:
    pending = list(jobs)
    while pending:
        answer = await host("codex_wait_any", jobIds=pending)
        if answer["completedJobId"] is None and not answer["timedOut"]:
            return
        pending = answer["pending"]


def test_s03_one_merged_outcome_though_the_server_is_killed_on_the_way(repo: RepoKit, gate: Gate) -> None:
    async def begin() -> list[str]:
        async with connected(repo.path) as host:
            jobs = [await spawned(host, f"echo {name} > {name}.txt; {gate.shell()}", name) for name in ("one", "two")]
            gate.wait_arrivals(2)
            host.kill()
            return jobs

    async def end(jobs: list[str]) -> dict[str, Any]:
        async with connected(repo.path) as host:
            gate.release()
            await finished(host, *jobs)
            for job, name in zip(jobs, ("one", "two"), strict=True):
                events = await host("codex_events", jobId=job)
                assert (events["done"], events["events"][-1]["type"]) == (True, "final")
                result = await host("codex_result", jobId=job)
                assert (result["status"], result["modifiedFiles"]) == ("done", [f"{name}.txt"])
            assert (await host("wt_overlap"))["totalConflicts"] == 0
            merged: dict[str, Any] = await host("wt_merge")
            return merged

    jobs = played(begin)
    merged = played(lambda: end(jobs))
    assert sorted(step["jobId"] for step in merged["steps"]) == sorted(jobs)
    assert merged["landed"]
    assert (repo.read("one.txt"), repo.read("two.txt")) == (b"one\n", b"two\n")


def test_s04_a_server_in_a_workers_hands_refuses_what_is_the_bosss(repo: RepoKit, wt: Wt) -> None:
    job = wt("spawn", "--name", "worker", "--json", status=0).data["jobs"][0]
    wt("spawn", "--name", "other", status=0)
    Path(job["workspace"], "mine.txt").write_text("mine\n", encoding="utf-8")
    before = repo.fingerprint()
    main = str(repo.path)
    boss_only: dict[str, dict[str, Any]] = {
        "codex_spawn": {"prompt": "more"},
        "wt_spawn": {"command": ["true"]},
        "wt_merge": {},
        "wt_rollback": {},
        "wt_undo": {},
        "wt_log": {},
        "wt_overlap": {},
        "wt_drop": {"jobIds": ["worker"]},
        "codex_cancel": {"jobId": "other"},
        "codex_result": {"jobId": "other"},
        "codex_events": {"jobId": "other"},
        "codex_status": {"jobId": "other"},
        "codex_wait_any": {"jobIds": ["other"], "timeoutMs": 0},
        "wt_diff": {"jobId": "other"},
    }

    async def story(host: Host, **more: str) -> None:
        for tool, arguments in boss_only.items():
            assert await host.code(tool, **arguments, **more) == "not-boss", tool
        group = await host("codex_spawn_group", jobs=[{"prompt": "x", "workingDirectory": main}])
        assert [member["code"] for member in group["results"]] == ["not-boss"]
        assert [file["path"] for file in (await host("wt_diff", jobId="worker"))["changeSet"]["files"]] == ["mine.txt"]
        assert (await host("codex_status", jobId="worker"))["state"] == "open"

    async def standing_there() -> None:
        async with inside(Path(job["workspace"])) as host:
            await story(host, workingDirectory=main)  # which does not make it the boss

    async def named_by_the_environment() -> None:
        async with connected(repo.path, {"WT_JOB": job["jobId"]}) as host:
            await story(host)
            # Ended like any other, and what it was given is still there.
            host.kill(signal.SIGTERM)

    played(standing_there)
    played(named_by_the_environment)
    assert repo.fingerprint() == before
    assert len(wt("list", "--json").data["jobs"]) == 2


def test_s08_events_go_on_where_they_were_after_a_server_was_killed(repo: RepoKit, gate: Gate) -> None:
    wide = "x" * 700
    script = f"seq -f 'early %g {wide}' 1 40; {gate.shell()}; seq -f 'late %g' 1 40"

    async def read(host: Host, job: str, cursor: str | None, until: int) -> tuple[list[dict[str, Any]], Any]:
        found: list[dict[str, Any]] = []
        while len(found) < until:
            page = await host("codex_events", jobId=job, cursor=cursor)
            again = await host("codex_events", jobId=job, cursor=cursor)
            assert page["events"] == again["events"][: len(page["events"])]
            assert not page["done"] or page["events"][-1]["type"] == "final"
            found += page["events"]
            cursor = page["nextCursor"]
        return found, cursor

    async def first() -> tuple[str, list[dict[str, Any]], Any]:
        async with connected(repo.path) as host:
            job = await spawned(host, script)
            gate.wait_arrivals(1)
            events, cursor = await read(host, job, None, 40)
            assert (await host("codex_events", jobId=job, cursor=cursor))["done"] is False
            host.kill()
            return job, events, cursor

    async def second(job: str, cursor: Any) -> list[dict[str, Any]]:
        async with connected(repo.path) as host:
            gate.release()
            events, end = await read(host, job, cursor, 41)
            last = await host("codex_events", jobId=job, cursor=end)
            assert (last["events"], last["done"]) == ([], True)
            return events

    job, events, cursor = played(first)
    events += played(lambda: second(job, cursor))
    said = [event["content"] for event in events if event["type"] == "message"]
    assert said == [f"early {n} {wide}" for n in range(1, 41)] + [f"late {n}" for n in range(1, 41)]
    assert [event["type"] for event in events].count("final") == 1
    assert events[-1]["type"] == "final"
    assert all(event["timestamp"].endswith("Z") and event["omitted"] == 0 for event in events)


@FIRST
def test_s09_a_late_reader_gets_every_line_in_pages_that_fit(repo: RepoKit, first_server: Server) -> None:
    count = 2000

    async def write() -> str:
        async with first_server(repo.path) as host:
            job = await spawned(host, f"seq -f 'line %g' 1 {count}; head -c 200000 /dev/zero | tr '\\0' y")
            await finished(host, job)
            if host.process is not None:
                host.kill()
            return job

    async def late(job: str) -> list[dict[str, Any]]:
        async with connected(repo.path) as host:
            events: list[dict[str, Any]] = []
            cursor, done = None, False
            while not done:
                page = await host("codex_events", jobId=job, cursor=cursor, maxEvents=2000)
                events += page["events"]
                cursor, done = page["nextCursor"], page["done"]
            result = await host("codex_result", jobId=job)
            text = ""
            offset: int | None = 0
            while offset is not None:
                result = await host("codex_result", jobId=job, offset=offset)
                text, offset = text + result["finalMessage"], result["nextOffset"]
            # Never more than a page of it was in memory; 200 MB is what Python and the SDK take, and some.
            assert host.process is not None
            assert host.process.memory_info().rss < 200 << 20
            assert len(text) >= 60_000
            return events

    job = played(write)
    events = played(lambda: late(job))
    said = [event["content"] for event in events if event["type"] == "message"]
    assert [text for text in said if text.startswith("line")] == [f"line {n}" for n in range(1, count + 1)]
    long = [event for event in events if event["omitted"]]
    assert long
    assert all(set(event["content"]) == {"y"} for event in long)


@FIRST
def test_s10_wait_any_gives_each_job_once_also_across_servers(
    repo: RepoKit, wt: Wt, gate: Gate, first_server: Server
) -> None:
    async def first() -> list[str]:
        async with first_server(repo.path) as host:
            last = await spawned(host, gate.shell(), "last")
            early = await spawned(host, "true", "early")
            wt("wait", "early", "--json", status=0)
            middle = await spawned(host, "exit 3", "middle")
            wt("wait", "middle", "--json", status=1)
            jobs = [last, middle, early, "nobody"]
            answer = await host("codex_wait_any", jobIds=jobs)
            # The earliest, and not the first that was named.
            assert (answer["completedJobId"], answer["status"], answer["timedOut"]) == (early, "done", False)
            assert answer["pending"] == [last]
            assert answer["finished"] == [early, middle]
            assert answer["missingJobIds"] == ["nobody"]
            if host.process is not None:
                host.kill()
            return [last, middle, early]

    async def second(jobs: list[str]) -> None:
        last, middle, early = jobs
        async with connected(repo.path) as host:
            answer = await host("codex_wait_any", jobIds=[early, last, middle])
            assert (answer["completedJobId"], answer["status"]) == (middle, "failed")
            answer = await host("codex_wait_any", jobIds=jobs, timeoutMs=0)
            assert (answer["completedJobId"], answer["timedOut"], answer["pending"]) == (None, True, [last])
            # A wait the host gives up on ends nothing, and takes nothing from the next.
            with anyio.move_on_after(0.5) as given_up:
                await host("codex_wait_any", jobIds=jobs, timeoutMs=60_000)
            assert given_up.cancelled_caught
            assert (await host("codex_status", jobId=last))["status"] == "running"
            gate.release()
            answer = await host("codex_wait_any", jobIds=jobs)
            assert (answer["completedJobId"], answer["pending"]) == (last, [])
            answer = await host("codex_wait_any", jobIds=jobs)
            assert (answer["completedJobId"], answer["timedOut"], answer["pending"]) == (None, False, [])

    jobs = played(first)
    played(lambda: second(jobs))


def test_s11_jobs_and_their_calls_survive_the_server(repo: RepoKit, gate: Gate, tmp_path: Path) -> None:
    call = {"threadId": "0198-thread", "callId": "call_1"}

    async def start() -> str:
        async with connected(tmp_path) as host:  # which is no repository
            job = await spawned(host, f"echo done > f; {gate.shell()}", workingDirectory=str(repo.path), meta=call)
            again = await spawned(host, f"echo done > f; {gate.shell()}", workingDirectory=str(repo.path), meta=call)
            assert again == job
            gate.wait_arrivals(1)
            host.kill()
            return job

    async def after(job: str) -> None:
        async with connected(tmp_path) as host:
            again = await spawned(host, f"echo done > f; {gate.shell()}", workingDirectory=str(repo.path), meta=call)
            assert again == job
            another = {**call, "callId": "call_2"}
            other = await spawned(host, "true", workingDirectory=str(repo.path), meta=another)
            assert other != job
            # By its id alone, in a server that never heard of it.
            assert (await host("codex_status", jobId=job))["status"] == "running"
            gate.release()
            await finished(host, job)
            assert (await host("codex_result", jobId=job))["modifiedFiles"] == ["f"]
            assert (await host("wt_merge", jobIds=[job]))["landed"]
            process = host.process
        assert process is not None
        eventually(lambda: not process.is_running())  # stdin was closed

    job = played(start)
    played(lambda: after(job))
    assert len(gate.arrived) == 1
    assert repo.read("f") == b"done\n"
