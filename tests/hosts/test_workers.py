"""Real agent programs as workers: what they are told, what is read from them, what is left of them."""

import json
from typing import Any

from tests.hosts.model import Model
from tests.kit import RepoKit, Wt

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
