"""Durable jobs through the real command: queued, running on, read by cursor, ended when told to, found when lost."""

import json
import os
import shlex
import signal
import subprocess
from typing import Any

import pytest

from tests.kit import Gate, RepoKit, Wt, eventually, processes_of
from worktrees.store import read_json, start_ticks

OURS = ["refs/wt/*"]


def spawn(wt: Wt, script: str, *options: str, env: dict[str, str | None] | None = None) -> str:
    """A job that runs a shell script; its id."""
    answer = wt("spawn", *options, "--json", "--", "sh", "-c", script, env=env, status=0)
    return str(answer.data["jobs"][0]["jobId"])


def job(wt: Wt, word: str) -> dict[str, Any]:
    found: dict[str, Any] = wt("status", word, "--json", status=0).data["jobs"][0]
    return found


def supervisor(repo: RepoKit, name: str) -> int:
    (path,) = repo.path.glob(f".git/wt-state/workflows/*/jobs/{name}/supervisor.json")
    record = read_json(path)
    assert record is not None
    return int(record["pid"])


def test_s05_the_rest_waits_and_says_why(wt: Wt, gate: Gate) -> None:
    spawned = wt(
        "spawn", "--count", "4", "--name", "w", "--json", "--", "sh", "-c", gate.shell(), env={"WT_K_WRITE": "2"}
    )
    ids = [item["jobId"] for item in spawned.data["jobs"]]
    assert [item["state"] for item in spawned.data["jobs"]] == ["running", "running", "queued", "queued"]
    assert job(wt, "w-4")["waiting"] == "2 of 2 write slots taken by w-1, w-2; 1 before it"
    assert "2 of 2 write slots" in wt("status", "w-3", status=0).stdout
    gate.release()
    completed = wt("wait", "--json", status=0).data["completed"]
    assert sorted(completed) == sorted(ids)
    finished = [job(wt, one)["finishedAt"] for one in completed]
    assert finished == sorted(finished)


def test_s06_cancel_by_name(repo: RepoKit, wt: Wt, gate: Gate) -> None:
    before = repo.fingerprint(ignore_refs=OURS)
    spawn(wt, f"echo half > half.txt; sleep 3600 & {gate.shell()}", "--name", "slow")
    gate.wait_arrivals(1)
    assert wt("cancel", "slow", "--json", status=0).data["jobs"][0]["state"] in ("running", "settling", "done")
    assert wt("wait", "slow", "--json", status=1).data["jobs"][0]["result"] == "cancelled"
    assert [item["path"] for item in wt("diff", "slow", "--json").data["changeSet"]["files"]] == ["half.txt"]
    assert repo.fingerprint(ignore_refs=OURS) == before
    # Nothing of it lands by itself.
    assert not wt("merge", "--json").data["landed"]


def test_s07_what_was_forced_lands_only_by_name(repo: RepoKit, wt: Wt, gate: Gate) -> None:
    script = f"trap '' TERM; echo half > half.txt; (trap '' TERM; exec setsid sleep 3600) & {gate.shell()}; sleep 3600"
    spawn(wt, script, "--name", "mule")
    gate.wait_arrivals(1)
    wt("cancel", "mule", "--force", status=0)
    done = wt("wait", "mule", "--json", status=1).data["jobs"][0]
    assert (done["result"], done["quarantined"], done["verified"]) == ("cancelled", True, False)
    eventually(lambda: not processes_of(repo.path.parent), what="nobody is left")
    assert not wt("merge", "--json").data["landed"]
    assert wt("merge", "mule", "--json", status=0).data["landed"]
    assert repo.read("half.txt") == b"half\n"


def test_s08_a_cursor_and_a_stream(wt: Wt, gate: Gate) -> None:
    spawn(wt, f"echo one; echo two; {gate.shell()}; echo three", "--name", "talker")
    gate.wait_arrivals(1)
    first = eventually(
        lambda: (page := wt("events", "talker", "--json", status=0).data)["events"][1:] and page, what="two events"
    )
    follower = wt.start("events", "talker", "--cursor", first["nextCursor"], "--follow", "--jsonl")
    gate.release()
    out, err = follower.communicate(timeout=60)
    assert follower.returncode == 0, err
    said = [json.loads(line) for line in out.splitlines()]
    assert [(event["type"], event["content"]) for event in said] == [("message", "three"), ("final", "three")]
    rest = wt("events", "talker", "--cursor", first["nextCursor"], "--json", status=0).data
    assert [event["content"] for event in rest["events"]] == ["three", "three"]
    assert (first["done"], rest["done"]) == (False, True)
    refused = wt("events", "talker", "--cursor", "nonsense", "--json", status=2)
    assert refused.code == "usage"


def test_s10_who_waits_for_an_open_job_is_told(wt: Wt, gate: Gate) -> None:
    """Nobody but its caller ends it, who may be the one that waits."""
    spawn(wt, gate.shell(), "--name", "busy")
    wt("spawn", "--name", "mine", status=0)
    gate.wait_arrivals(1)

    said = "wt: waiting for `mine`, open until: wt settle mine\n"
    assert wt("wait", "--timeout", "0.1s", status=1).stderr.startswith(said)
    assert wt("wait", "mine", "--any", "--timeout", "0.1s", status=1).stderr.startswith(said)
    # One of these ends by itself.
    for words in (["--any"], ["busy"]):
        assert said not in wt("wait", *words, "--timeout", "0.1s", status=1).stderr
    gate.release()
    wt("settle", "mine", status=0)
    assert wt("wait", status=0).stderr == ""


def test_s10_wait_any(wt: Wt, gate: Gate) -> None:
    done, held = spawn(wt, "true"), spawn(wt, gate.shell())
    first = wt("wait", "--any", "--json", status=0).data
    assert (first["completed"], first["pending"], first["timedOut"]) == ([done], [held], False)
    second = wt("wait", "--any", "--timeout", "0.1s", "--json", status=1).data
    assert (second["completed"], second["pending"], second["timedOut"]) == ([], [held], True)
    assert job(wt, held)["state"] == "running"
    gate.release()
    assert wt("wait", "--any", "--json", status=0).data["completed"] == [held]


def test_s11_the_terminal_is_closed(wt: Wt, gate: Gate) -> None:
    argv = shlex.join(wt.argv("spawn", "--name", "on", "--", "sh", "-c", gate.shell() + "; echo done > done.txt"))
    terminal = subprocess.Popen(["sh", "-c", f"{argv}; sleep 3600"], cwd=wt.cwd, start_new_session=True)
    gate.wait_arrivals(1)
    os.killpg(terminal.pid, signal.SIGHUP)
    terminal.wait()
    assert job(wt, "on")["state"] == "running"
    gate.release()
    assert wt("wait", "on", "--json", status=0).data["jobs"][0]["result"] == "succeeded"


@pytest.mark.parametrize("command", ["list", "status", "merge", "wait"])
def test_s12_any_command_finds_a_lost_job(repo: RepoKit, wt: Wt, gate: Gate, command: str) -> None:
    one = spawn(wt, f"echo half > half.txt; {gate.shell()}; sleep 3600")
    gate.wait_arrivals(1)
    pid = supervisor(repo, one)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: start_ticks(pid) is None)
    wt(command, "--json")
    (record,) = [read_json(path) for path in repo.path.glob(".git/wt-state/workflows/*/jobs/*/job.json")]
    assert record is not None
    assert (record["state"], record["result"]) == ("done", "lost")
    assert processes_of(repo.path.parent) == []
    assert [item["path"] for item in wt("diff", one, "--json", status=0).data["changeSet"]["files"]] == ["half.txt"]


def test_s38_a_lease_by_flag(wt: Wt, gate: Gate) -> None:
    one = spawn(wt, f"echo half > half.txt; {gate.shell()}; sleep 3600", "--ttl", "0.3s")
    other = spawn(wt, gate.shell(), "--ttl", "1h")
    expired = wt("wait", one, "--json", status=1).data["jobs"][0]
    assert (expired["result"], expired["reason"]) == ("expired", "its lease of 0.3 s ran out")
    before = job(wt, other)["leaseExpiresAt"]
    extended = wt("lease", "extend", other, "2h", "--json", status=0).data["jobs"][0]
    assert extended["leaseExpiresAt"] > before
    gate.release()
    wt("wait", other, status=0)
