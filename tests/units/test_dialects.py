"""Streams of agent programs into events: those of the real Codex, and the shapes the others are documented to have.

`tests/data/codex-events` holds streams that Codex 0.169.0 wrote, driven by a scripted model on loopback.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worktrees.agents import DIALECTS
from worktrees.model import Usage
from worktrees.supervisor import dialects
from worktrees.supervisor.dialects import Dialect
from worktrees.supervisor.pump import LONGEST, LONGEST_RECORD, Pump

STREAMS = Path(__file__).parent.parent / "data" / "codex-events"
TYPES = {"message", "progress", "tool_call", "tool_result", "error", "final"}
KILLED = {"cancelled-sigkill-to-group", "cancelled-sigterm-to-wrapper", "endpoint-down-unbounded-true"}
FAILED = {
    "endpoint-down-unbounded-false": "Connection failed: error sending request",
    "http-500": "We’re currently experiencing high demand, which may cause temporary errors.",
    "model-failed": "stream disconnected before completion: model exploded",
}


def pumped(directory: Path, dialect: str, stdout: bytes, stderr: bytes = b"") -> list[dict[str, Any]]:
    """The events of a whole run."""
    (directory / "stdout.log").write_bytes(stdout)
    (directory / "stderr.log").write_bytes(stderr)
    with contextlib.closing(Pump(str(directory), dialect)) as last:
        last.finish()
    return events(directory)


def events(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "events.jsonl").read_bytes().split(b"\n")[:-1]]


def said(found: list[dict[str, Any]], *kinds: str) -> list[str]:
    return [event["content"] for event in found if event["type"] in kinds]


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def codex(name: str) -> bytes:
    return (STREAMS / f"{name}.jsonl").read_bytes()


# ------------------------------------------------------------------------------------------------------------- codex
@pytest.mark.parametrize("path", sorted(STREAMS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_every_real_stream_of_codex(path: Path, tmp_path: Path) -> None:
    found = pumped(tmp_path, "codex", path.read_bytes())
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    items = [(record["type"], record["item"]) for record in records if "item" in record]
    tools = [(stage, item) for stage, item in items if item["type"] not in ("agent_message", "reasoning", "error")]

    assert {event["type"] for event in found} <= TYPES
    assert not [text for text in said(found, "progress") if text.startswith("{")], "an unknown kind of record"
    assert said(found, "message") == [item["text"] for _, item in items if item["type"] == "agent_message"]
    assert len(said(found, "tool_call")) == sum(stage == "item.started" for stage, _ in tools)
    assert len(said(found, "tool_result")) == sum(stage == "item.completed" for stage, _ in tools)
    run = found[-1]["run"]
    assert [event["type"] for event in found].count("final") == 1
    assert run["session"] == records[0]["thread_id"]
    assert found[-1]["content"] == ([*said(found, "message"), ""][-2] if said(found, "message") else "")
    if path.stem in KILLED:
        assert run["failure"] is not None
        assert run["usage"] is None
    else:
        assert run["failure"] == FAILED.get(path.stem)
        assert (run["usage"] is None) == (path.stem in FAILED)


def test_a_stream_of_codex_reads_as_a_story(tmp_path: Path) -> None:
    found = pumped(tmp_path, "codex", codex("edit-shell-and-patch"))
    assert [(event["type"], event["content"]) for event in found] == [
        ("progress", "thread 01a1f7d1-dd01-7670-8113-59e0d26d5931 started"),
        (
            "error",
            (
                "Model metadata for `fake-model` not found. Defaulting to fallback metadata; this can degrade "
                "performance and cause issues."
            ),
        ),
        ("progress", "turn started"),
        ("progress", "Plan the edit"),
        ("message", "I will edit the files."),
        ("tool_call", "shell: /bin/bash -lc 'echo from-shell > shell.txt'"),
        ("tool_result", "shell completed: /bin/bash -lc 'echo from-shell > shell.txt'"),
        ("tool_call", "edit: update /repo/wt/README.md, add /repo/wt/patched.txt"),
        ("tool_result", "edit completed: update /repo/wt/README.md, add /repo/wt/patched.txt"),
        ("message", 'Done.\nmodifiedFiles: ["shell.txt", "patched.txt", "README.md"]'),
        ("progress", "turn completed"),
        ("final", 'Done.\nmodifiedFiles: ["shell.txt", "patched.txt", "README.md"]'),
    ]
    assert found[-1]["run"]["usage"] == {
        "inputTokens": 400, "cachedInputTokens": 50, "outputTokens": 40, "reasoningTokens": 0,
    }  # fmt: skip


def test_a_refused_write_and_a_failed_tool_say_so(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    found = pumped(tmp_path / "a", "codex", codex("write-refused-read-only"))
    assert said(found, "tool_result") == [
        (
            "shell failed: /bin/bash -lc 'echo from-shell > shell.txt'\nexit status 1\n"
            "/bin/bash: line 1: shell.txt: Read-only file system\n"
        )
    ]
    (tmp_path / "b").mkdir()
    found = pumped(tmp_path / "b", "codex", codex("boss-mcp-approval-refused"))
    assert said(found, "tool_result")[-1] == (
        'wt.codex_fail failed: {"why":"z"}\nMCP tool call requires approval, but approval policy is never'
    )


def test_a_start_that_failed_has_its_reason_on_stderr(tmp_path: Path) -> None:
    """A bad provider, a missing directory, an unknown thread: no JSON at all."""
    complaint = (
        b"Reading prompt from stdin...\nError: No such file or directory (os error 2)\n\nStack backtrace:\n   0: x\n"
    )
    found = pumped(tmp_path, "codex", b"", complaint)
    assert found[-1]["run"] == {
        "session": None, "usage": None, "failure": "Error: No such file or directory (os error 2)",
    }  # fmt: skip


def test_a_wrong_line_is_shown_and_harms_nobody(tmp_path: Path) -> None:
    torn = codex("command-failed").replace(
        b'{"type":"turn.started"}\n', b'{"type":"turn.star\n\n[1, 2]\n"x"\n\xff\n{}\n'
    )
    torn += b'{"type":"item.completed","item":{"id":1,"type":"command_execution"}}\n{"type":"item.new","item":7}'
    found = pumped(tmp_path, "codex", torn)
    strange = ['{"type":"turn.star', "[1, 2]", '"x"', "\\xff", "{}"]
    assert said(found, "progress")[1:6] == strange
    assert said(found, "progress")[-2:] == [line.decode() for line in torn.splitlines()[-2:]]
    assert found[-1]["content"] == "went on after a failing command"
    assert found[-1]["run"]["failure"] is None


def test_long_records_are_read_and_longer_ones_are_text(tmp_path: Path) -> None:
    output = "x" * (3 * LONGEST)
    item = {"id": "item_0", "type": "command_execution", "command": "c", "aggregated_output": output, "exit_code": 0}
    record = lines({"type": "item.completed", "item": {**item, "status": "completed"}})
    huge = b'{"type":"' + b"y" * LONGEST_RECORD + b'"}\n'
    end = lines({"type": "turn.completed", "usage": {}})
    found = pumped(tmp_path, "codex", record + huge + end)
    assert "".join(said(found, "tool_result")) == f"shell completed: c\n{output}"
    assert "".join(said(found, "progress")) == huge.decode().strip() + "turn completed"
    assert max(len(event["content"].encode()) for event in found) <= LONGEST
    assert found[-1]["run"]["failure"] is None


@given(cut=st.integers(min_value=0), torn=st.integers(min_value=0))
@pytest.mark.parametrize("dialect", ["codex", "gemini", "opencode"])
def test_whoever_goes_on_repeats_nothing_and_misses_nothing(
    dialect: str, cut: int, torn: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The pump is killed with any part of the stream read and any part of its events on disk."""
    stream = {"codex": codex("parallel-commands"), "gemini": GEMINI, "opencode": OPENCODE}[dialect]
    (whole := tmp_path_factory.mktemp("whole")).exists()
    expected = pumped(whole, dialect, stream, b"some noise\n")
    directory = tmp_path_factory.mktemp("torn")
    (directory / "stdout.log").write_bytes(stream[: cut % (len(stream) + 1)])
    pump = Pump(str(directory), dialect)
    while pump.step():
        pass
    (directory / "stdout.log").write_bytes(stream)
    (directory / "stderr.log").write_bytes(b"some noise\n")
    while pump.step():
        pass
    pump.close()
    written = (directory / "events.jsonl").read_bytes()
    os.truncate(directory / "events.jsonl", torn % (len(written) + 1))
    with contextlib.closing(Pump(str(directory), dialect)) as last:
        last.finish()
    again = events(directory)
    noise = ("progress", "some noise")
    for found in (expected, again):
        assert [(event["type"], event["content"]) for event in found].count(noise) == 1
    assert [(event["type"], event["content"]) for event in again if event["content"] != "some noise"] == [
        (event["type"], event["content"]) for event in expected if event["content"] != "some noise"
    ]
    assert again[-1]["run"] == expected[-1]["run"]
    with contextlib.closing(Pump(str(directory), dialect)) as last:
        last.finish()
    assert events(directory) == again


KEYS = st.sampled_from(["type", "item", "part", "message", "content", "state", "usage", "error", "text", "result"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
@pytest.mark.parametrize("name", sorted(dialects.DIALECTS))
def test_no_shape_makes_a_dialect_fail(name: str, value: object) -> None:
    dialect: Dialect = dialects.DIALECTS[name]()
    kinds = {"assistant", "user", "system", "result", "item.completed", "item.started", "turn.failed", "turn.completed"}
    kinds |= {"thread.started", "message", "tool_use", "tool_result", "init", "error", "text", "step_finish"}
    for kind in kinds:
        record = {**value, "type": kind} if isinstance(value, dict) else value
        for event, content in dialect.events(json.dumps(record).encode()):
            assert event in TYPES
            content.encode()
    Usage.model_validate(dialect.usage or {})


def test_strange_counts_and_half_characters_are_left_out(tmp_path: Path) -> None:
    used = {"input_tokens": 1.5, "cached_input_tokens": True, "output_tokens": 1 << 70, "reasoning_output_tokens": 3}
    stream = b'{"type":"thread.started","thread_id":"\\ud800"}\n' + lines({"type": "turn.completed", "usage": used})
    run = pumped(tmp_path, "codex", stream)[-1]["run"]
    assert run == {"session": "\\ud800", "usage": {"reasoningTokens": 3}, "failure": None}
    nan = b'{"type":"result","subtype":"success","total_cost_usd":NaN,"usage":{"input_tokens":1}}'
    dialect = dialects.Claude()
    dialect.events(nan)
    assert dialect.usage == {"inputTokens": 1}


# ------------------------------------------------------------------------------------------------------------ claude
CLAUDE = lines(
    {"type": "system", "subtype": "init", "cwd": "/w", "session_id": "s-1", "tools": ["Bash"], "model": "claude-x"},
    {
        "type": "assistant",
        "message": {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "First look."},
                {"type": "text", "text": "I will look."},
                {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls", "description": "list"}},
            ],
        },
        "session_id": "s-1",
    },
    {
        "type": "user",
        "message": {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [{"type": "text", "text": "a.py"}],
                    "is_error": True,
                }
            ],
        },
        "session_id": "s-1",
    },
    {"type": "assistant", "message": {"content": [{"type": "text", "text": 'Done.\n```json\n["a.py"]\n```'}]}},
    {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "result": 'Done.\n```json\n["a.py"]\n```',
        "session_id": "s-1",
        "total_cost_usd": 0.0125,
        "usage": {
            "input_tokens": 12,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 4,
            "output_tokens": 5,
        },
    },
)


def test_a_stream_of_claude(tmp_path: Path) -> None:
    found = pumped(tmp_path, "claude", CLAUDE)
    assert [(event["type"], event["content"]) for event in found] == [
        ("progress", "session s-1 started, model claude-x"),
        ("progress", "First look."),
        ("message", "I will look."),
        ("tool_call", "Bash: ls"),
        ("tool_result", "Bash failed: ls\na.py"),
        ("message", 'Done.\n```json\n["a.py"]\n```'),
        ("progress", "turn completed"),
        ("final", 'Done.\n```json\n["a.py"]\n```'),
    ]
    assert found[-1]["run"] == {
        "session": "s-1",
        "usage": {
            "inputTokens": 12,
            "cachedInputTokens": 4,
            "cacheWriteTokens": 3,
            "outputTokens": 5,
            "costUsd": 0.0125,
        },
        "failure": None,
    }


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"subtype": "success", "is_error": True, "result": "API Error: 500"}, "API Error: 500"),
        ({"subtype": "error_max_turns", "is_error": False}, "error_max_turns"),
        ({"subtype": "error_during_execution", "errors": ["one", "two"]}, "one, two"),
    ],
)
def test_a_failed_turn_of_claude(result: dict[str, object], why: str, tmp_path: Path) -> None:
    found = pumped(tmp_path, "claude", CLAUDE.rpartition(b'{"type": "result"')[0] + lines({"type": "result", **result}))
    assert found[-1]["run"]["failure"] == why
    assert said(found, "error") == [why]


def test_a_stream_of_claude_that_stops(tmp_path: Path) -> None:
    found = pumped(tmp_path, "claude", b"".join(CLAUDE.splitlines(keepends=True)[:2]))
    assert found[-1]["run"]["failure"] == "it ended without finishing its turn"
    assert found[-1]["content"] == "I will look."


# ------------------------------------------------------------------------------------------------------------ gemini
GEMINI = lines(
    {"type": "init", "timestamp": "2025-10-10T12:00:00.000Z", "session_id": "abc", "model": "gemini-x"},
    {"type": "message", "role": "user", "content": "the prompt"},
    {"type": "message", "role": "assistant", "content": "I will ", "delta": True},
    {"type": "message", "role": "assistant", "content": "look.", "delta": True},
    {"type": "tool_use", "tool_name": "read_file", "tool_id": "r1", "parameters": {"path": "a.py"}},
    {
        "type": "tool_use",
        "tool_name": "run_shell_command",
        "tool_id": "r2",
        "parameters": {"command": "ls", "dir": "."},
    },
    {"type": "tool_result", "tool_id": "r2", "status": "error", "error": {"type": "x", "message": "no such tool"}},
    {"type": "tool_result", "tool_id": "r1", "status": "success", "output": "content"},
    {"type": "error", "severity": "warning", "message": "slow down"},
    {"type": "message", "role": "assistant", "content": "Done.", "delta": True},
    {
        "type": "result",
        "status": "success",
        "stats": {"total_tokens": 30, "input_tokens": 20, "cached": 5, "output_tokens": 10, "duration_ms": 7},
    },
)


def test_a_stream_of_gemini(tmp_path: Path) -> None:
    found = pumped(tmp_path, "gemini", GEMINI)
    assert [(event["type"], event["content"]) for event in found] == [
        ("progress", "session abc started, model gemini-x"),
        ("message", "I will look."),
        ("tool_call", "read_file: a.py"),
        ("tool_call", 'run_shell_command: {"command":"ls","dir":"."}'),
        ("tool_result", 'run_shell_command failed: {"command":"ls","dir":"."}\nno such tool'),
        ("tool_result", "read_file completed: a.py\ncontent"),
        ("error", "slow down"),
        ("message", "Done."),
        ("progress", "turn completed"),
        ("final", "Done."),
    ]
    assert found[-1]["run"] == {
        "session": "abc",
        "usage": {"inputTokens": 20, "cachedInputTokens": 5, "outputTokens": 10},
        "failure": None,
    }


def test_what_gemini_was_saying_when_it_was_killed_is_kept(tmp_path: Path) -> None:
    found = pumped(tmp_path, "gemini", b"".join(GEMINI.splitlines(keepends=True)[:4]))
    assert said(found, "message") == ["I will look."]
    assert found[-1]["content"] == "I will look."
    assert found[-1]["run"]["failure"] is not None


# ---------------------------------------------------------------------------------------------------------- opencode
OPENCODE = lines(
    {"type": "step_start", "timestamp": 1, "sessionID": "ses_1", "part": {"type": "step-start", "snapshot": "abc"}},
    {"type": "text", "sessionID": "ses_1", "part": {"type": "text", "text": "I will look."}},
    {
        "type": "tool_use",
        "sessionID": "ses_1",
        "part": {
            "type": "tool",
            "tool": "bash",
            "callID": "c1",
            "state": {"status": "completed", "input": {"command": "ls", "description": "list"}, "output": "a.py\n"},
        },
    },
    {
        "type": "step_finish",
        "sessionID": "ses_1",
        "part": {
            "reason": "tool-calls",
            "cost": 0.25,
            "tokens": {"input": 10, "output": 5, "reasoning": 1, "cache": {"read": 2, "write": 0}},
        },
    },
    {"type": "text", "sessionID": "ses_1", "part": {"type": "text", "text": "Done."}},
    {
        "type": "step_finish",
        "sessionID": "ses_1",
        "part": {
            "reason": "stop",
            "cost": 0.5,
            "tokens": {"input": 20, "output": 5, "reasoning": 0, "cache": {"read": 2, "write": 1}},
        },
    },
)


def test_a_stream_of_opencode(tmp_path: Path) -> None:
    found = pumped(tmp_path, "opencode", OPENCODE)
    assert [(event["type"], event["content"]) for event in found] == [
        ("progress", "step started"),
        ("message", "I will look."),
        ("tool_call", "bash: ls"),
        ("tool_result", "bash completed: ls\na.py\n"),
        ("progress", "step finished: tool-calls"),
        ("message", "Done."),
        ("progress", "step finished: stop"),
        ("final", "Done."),
    ]
    assert found[-1]["run"] == {
        "session": "ses_1",
        "usage": {
            "inputTokens": 30,
            "cachedInputTokens": 4,
            "cacheWriteTokens": 1,
            "outputTokens": 10,
            "reasoningTokens": 1,
            "costUsd": 0.75,
        },
        "failure": None,
    }


def test_an_error_of_opencode_fails_the_turn_unless_it_went_on(tmp_path: Path) -> None:
    error = lines({"type": "error", "sessionID": "ses_1", "error": {"name": "APIError", "data": {"message": "no key"}}})
    (tmp_path / "a").mkdir()
    assert pumped(tmp_path / "a", "opencode", error)[-1]["run"]["failure"] == "no key"
    (tmp_path / "b").mkdir()
    assert pumped(tmp_path / "b", "opencode", error + OPENCODE)[-1]["run"]["failure"] is None


# ------------------------------------------------------------------------------------------------------------- others
def test_text_has_no_run(tmp_path: Path) -> None:
    found = pumped(tmp_path, "text", b'{"type":"turn.started"}\n')
    assert said(found, "message") == ['{"type":"turn.started"}']
    assert "run" not in found[-1]


def test_adapters_and_supervisor_know_the_same_dialects() -> None:
    assert {"text", *dialects.DIALECTS} == set(DIALECTS)
