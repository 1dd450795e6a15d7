"""Real agent programs as workers: what they are told, what is read from them, what is left of them."""

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.hosts.model import Model
from tests.kit import RepoKit, Wt, eventually, processes_of

REPORT = {"summary": "Both files are there.", "modifiedFiles": ["shell.txt", "patched.txt", "ghost.txt"]}
PATCH = """\
*** Begin Patch
*** Add File: patched.txt
+made by apply_patch
*** Update File: README.md
@@
-# sample
+# edited
*** End Patch
"""
EDIT: dict[str, Any] = {
    "steps": [
        {"think": "Plan the edit", "say": "I will edit.", "shell": "echo from-shell > shell.txt"},
        {"patch": PATCH},
        {"message": json.dumps(REPORT), "usage": {"input_tokens": 200, "cached_input_tokens": 50}},
    ]
}


def events(wt: Wt, job: str) -> list[tuple[str, str]]:
    return [(event["type"], event["content"]) for event in wt("events", job, "--json", status=0).data["events"]]


def test_a_codex_worker_edits_and_reports(codex: Model, repo: RepoKit, wt: Wt) -> None:
    """The short one: a whole worker, from the task to the merge."""
    codex.play(EDIT)
    spawned = wt("spawn", "--agent", "codex", "--name", "edit", "--task", "make two files", "--json", status=0)
    wt("wait", status=0)
    job = wt("result", "edit", "--json", status=0).data

    assert spawned.data["jobs"][0]["agent"] == "codex"
    assert job["job"]["result"] == "succeeded"
    assert {file["path"]: file["status"] for file in job["changeSet"]["files"]} == {
        "README.md": "M",
        "patched.txt": "A",
        "shell.txt": "A",
    }
    assert job["changeSet"]["reportedButUntouched"] == ["ghost.txt"]
    assert job["changeSet"]["touchedButUnreported"] == ["README.md"]
    assert json.loads(job["finalMessage"]) == REPORT
    assert job["usage"]["inputTokens"] == 400
    assert job["usage"]["cachedInputTokens"] == 50
    assert job["session"]
    told = events(wt, "edit")
    assert ("message", "I will edit.") in told
    assert any(kind == "tool_call" and "echo from-shell" in content for kind, content in told)
    assert [kind for kind, _ in told].count("final") == 1
    assert told[-1] == ("final", json.dumps(REPORT))
    prompt = codex.prompts()[0]
    assert prompt.startswith("You are a worker.")
    assert prompt.endswith("# Task\n\nmake two files\n")
    request = codex.requests[0]["body"]
    assert request["text"]["format"]["schema"]["required"] == ["summary", "modifiedFiles"]
    assert not any("spawn_agent" in json.dumps(tool) for tool in request["tools"])
    wt("merge", status=0)
    assert repo.read("patched.txt") == b"made by apply_patch\n"


# ------------------------------------------------------------------------------------------------------------- codex
SLOW: dict[str, Any] = {"shell": "echo begun > marker.txt; echo begun; sleep 300", "yield_time_ms": 250_000}


def busy(repo: RepoKit, wt: Wt, name: str) -> dict[str, Any]:
    """A job, once its worker is in the middle of a command."""
    job: dict[str, Any] = wt("status", name, "--json", status=0).data["jobs"][0]
    eventually(lambda: Path(job["workspace"], "marker.txt").exists(), timeout=60, what="the worker's first file")
    return job


def of_job(top: Path, job_id: str) -> list[psutil.Process]:
    """Its live processes; one that ends while we look is none."""
    found = []
    for process in processes_of(top):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
            if process.environ().get("WT_JOB") == job_id:
                found.append(process)
    return found


@pytest.mark.hosts
@pytest.mark.parametrize("access", ["workspace-write", "danger-full-access"])
@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_killing_the_wrapper_leaves_no_process_of_the_agent(
    access: str, sandbox: str, codex: Model, repo: RepoKit, wt: Wt, tmp_path: Path
) -> None:
    """The program from npm is a Node wrapper; what it starts goes on editing when only it is killed."""
    codex.play({"steps": [SLOW, {"message": "never said"}]})
    wt("spawn", "--agent", "codex", "--name", "slow", "--task", "x", "--access", access, "--sandbox", sandbox, status=0)
    job = busy(repo, wt, "slow")
    everybody = of_job(tmp_path, job["jobId"])
    assert any("sleep" in process.name() for process in everybody)
    wrapper = next(process for process in everybody if process.name().startswith(("node", "MainThread")))
    wrapper.send_signal(signal.SIGKILL)
    wt("wait", "slow", status=1)

    assert not [process for process in everybody if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not of_job(tmp_path, job["jobId"])
    ended = wt("result", "slow", "--json").data
    assert ended["job"]["result"] == "failed"
    assert "SIGKILL" in ended["job"]["reason"] or "137" in ended["job"]["reason"]
    assert [file["path"] for file in ended["changeSet"]["files"]] == ["marker.txt"]


@pytest.mark.hosts
def test_a_cancelled_worker_goes_on_in_a_new_job(codex: Model, repo: RepoKit, wt: Wt) -> None:
    codex.play({"steps": [SLOW, {"message": "never said"}]})
    wt("spawn", "--agent", "codex", "--name", "first", "--task", "make a marker", "--model", "scripted", status=0)
    busy(repo, wt, "first")
    wt("cancel", "first", status=0)
    wt("wait", "first", status=1)
    first = wt("result", "first", "--json").data
    report = json.dumps({"summary": "went on", "modifiedFiles": ["marker.txt", "more.txt"]})
    codex.play({"steps": [{"shell": "cat marker.txt > more.txt"}, {"message": report}]})
    wt("spawn", "--resume", "first", "--name", "second", status=0)
    wt("wait", "second", status=0)
    second = wt("result", "second", "--json", status=0).data

    assert first["job"]["result"] == "cancelled"
    assert second["job"]["resumes"] == first["job"]["jobId"]
    assert second["session"] == first["session"]
    assert (second["job"]["task"], second["job"]["model"]) == ("make a marker", "scripted")
    assert second["job"]["baseline"] == first["job"]["baseline"]
    # All that both did is the second one's work, against the first one's start.
    assert {file["path"]: file["status"] for file in second["changeSet"]["files"]} == {
        "marker.txt": "A",
        "more.txt": "A",
    }
    assert second["changeSet"]["reportedButUntouched"] == second["changeSet"]["touchedButUnreported"] == []
    assert "Go on with this task" in codex.prompts()[-1]
    conversation = json.dumps(codex.requests[-1]["body"]["input"])
    assert "echo begun > marker.txt" in conversation, "the program remembers what it did"
    wt("merge", "second", status=0)
    assert repo.read("more.txt") == b"begun\n"


@pytest.mark.hosts
def test_a_failed_turn_and_a_failed_start_say_why(codex: Model, wt: Wt, tmp_path: Path) -> None:
    codex.play({"steps": [{"fail": "the model exploded"}]})
    wt("spawn", "--agent", "codex", "--name", "turn", "--task", "x", status=0)
    wt("wait", "turn", status=1)
    failed = wt("result", "turn", "--json").data["job"]
    assert failed["result"] == "failed"
    assert "the model exploded" in failed["reason"]
    config = tmp_path / "home" / ".codex" / "config.toml"
    config.write_text(config.read_text().replace('model_provider = "scripted"', 'model_provider = "nobody"'))
    wt("spawn", "--agent", "codex", "--name", "start", "--task", "x", status=0)
    wt("wait", "start", status=1)
    failed = wt("result", "start", "--json").data["job"]
    assert "nobody" in failed["reason"]
    assert [kind for kind, _ in events(wt, "start")].count("final") == 1


@pytest.mark.hosts
def test_an_endpoint_that_is_down_ends_the_job(codex: Model, wt: Wt, tmp_path: Path) -> None:
    """Left to itself Codex tries again without end."""
    config = tmp_path / "home" / ".codex" / "config.toml"
    config.write_text(config.read_text().replace(codex.url, "http://127.0.0.1:9"))
    wt("spawn", "--agent", "codex", "--name", "down", "--task", "x", status=0)
    wt("wait", "down", "--timeout", "50", status=1)
    failed = wt("result", "down", "--json").data["job"]
    assert failed["result"] == "failed"
    assert "Connection failed" in failed["reason"]


@pytest.mark.hosts
def test_a_read_only_codex_changes_nothing(codex: Model, repo: RepoKit, wt: Wt) -> None:
    report = json.dumps({"summary": "All is well.", "modifiedFiles": []})
    codex.play({"steps": [{"shell": "echo x > x.txt; cat docs/guide.md"}, {"message": report}]})
    wt("spawn", "--agent", "codex", "--name", "look", "--task", "x", "--access", "read-only", status=0)
    wt("wait", status=0)
    looked = wt("result", "look", "--json", status=0).data
    assert looked["changeSet"]["files"] == []
    told = events(wt, "look")
    assert any(kind == "tool_result" and "Read-only file system" in content for kind, content in told)


@pytest.mark.hosts
def test_a_codex_worker_cannot_commit(codex: Model, repo: RepoKit, wt: Wt) -> None:
    head = repo.head()
    report = json.dumps({"summary": "done", "modifiedFiles": ["x.txt"]})
    codex.play({"steps": [{"shell": "echo x > x.txt; git add -A && git commit -m mine"}, {"message": report}]})
    wt("spawn", "--agent", "codex", "--name", "commits", "--task", "x", status=0)
    wt("wait", status=0)
    done = wt("result", "commits", "--json", status=0).data
    assert [file["path"] for file in done["changeSet"]["files"]] == ["x.txt"]
    assert done["audit"]["clean"]
    assert repo.head() == head


@pytest.mark.hosts
def test_many_workers_from_a_file(codex: Model, repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    report = json.dumps({"summary": "done", "modifiedFiles": ["${re:make (\\w+)}.txt"]})
    codex.play({"steps": [{"shell": "echo ${re:make (\\w+)} > ${re:make (\\w+)}.txt"}, {"message": report}]})
    rows = [
        {"name": name, "agent": "codex", "task": f"make {name}", "effort": "low"} for name in ("one", "two", "three")
    ]
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wt("spawn", "--from-file", jobs, status=0)
    wt("wait", "--timeout", "120", status=0, timeout=150)
    wt("merge", status=0)
    assert [repo.read(f"{name}.txt") for name in ("one", "two", "three")] == [b"one\n", b"two\n", b"three\n"]
    assert codex.requests[0]["body"]["reasoning"]["effort"] == "low"


# ------------------------------------------------------------------------------------------------------------ claude
@pytest.mark.hosts
@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_a_claude_worker_edits_and_reports(sandbox: str, claude: Model, repo: RepoKit, wt: Wt) -> None:
    said = 'Made it.\n\n```json\n["made.txt", "ghost.txt"]\n```'
    claude.play({"steps": [{"say": "I will make it.", "shell": "echo made > made.txt"}, {"message": said}]})
    wt("spawn", "--agent", "claude", "--name", "make", "--task", "make a file", "--sandbox", sandbox, status=0)
    wt("wait", status=0)
    job = wt("result", "make", "--json", status=0).data

    assert [file["path"] for file in job["changeSet"]["files"]] == ["made.txt"]
    assert job["changeSet"]["reportedButUntouched"] == ["ghost.txt"]
    assert job["finalMessage"] == said
    assert job["session"]
    assert job["usage"]["outputTokens"] > 0
    assert job["usage"]["costUsd"] is not None
    told = events(wt, "make")
    assert ("message", "I will make it.") in told
    assert ("tool_call", "Bash: echo made > made.txt") in told
    assert any(kind == "tool_result" and content.startswith("Bash completed") for kind, content in told)
    offered = {tool["name"] for tool in claude.requests[0]["body"]["tools"]}
    assert "Bash" in offered
    assert not offered & {"Agent", "Task"}
    assert any("make a file" in prompt and "You are a worker." in prompt for prompt in claude.prompts())


@pytest.mark.hosts
def test_a_read_only_claude_changes_nothing(claude: Model, wt: Wt) -> None:
    claude.play({"steps": [{"shell": "echo x > x.txt"}, {"message": "I was not allowed to.\n\n```json\n[]\n```"}]})
    wt("spawn", "--agent", "claude", "--name", "look", "--task", "x", "--access", "read-only", status=0)
    wt("wait", status=0)
    looked = wt("result", "look", "--json", status=0).data
    assert looked["changeSet"]["files"] == []
    assert any(kind == "tool_result" and content.startswith("Bash failed") for kind, content in events(wt, "look"))


@pytest.mark.hosts
def test_a_failed_turn_of_claude_fails_the_job(claude: Model, wt: Wt) -> None:
    claude.play({"steps": [{"http": 400}]})
    wt("spawn", "--agent", "claude", "--name", "fails", "--task", "x", status=0)
    wt("wait", "--timeout", "50", status=1)
    failed = wt("result", "fails", "--json").data["job"]
    assert failed["result"] == "failed"
    assert "400" in failed["reason"]
