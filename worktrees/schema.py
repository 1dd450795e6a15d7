"""The JSON Schema of every answer, made from the values themselves.

One document: the envelope, and under `$defs` every shape in it. `data` has the shape of the command's answer, or is
null beside an error. A copy of it is kept with the tests: a change of it is a change of what other programs rely on.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from worktrees.model import (
    Agents,
    Configuration,
    Demonstration,
    Diagnosis,
    Diff,
    Event,
    EventPage,
    Hooks,
    Installed,
    Jobs,
    JobSpec,
    Logs,
    Merged,
    Notice,
    OperationLog,
    Outcome,
    Overlaps,
    Recorded,
    Removed,
    SetUp,
    Spawned,
    Text,
    Value,
    Version,
    Waited,
    Workflows,
)
from worktrees.render.envelope import SCHEMA

ANSWERS: dict[str, type[Value] | None] = {
    "agents": Agents,
    "cancel": Jobs,
    "clean": Removed,
    "completion": Text,
    "config": Configuration,
    "demo": Demonstration,
    "diff": Diff,
    "doctor": Diagnosis,
    "drop": Removed,
    "events": EventPage,
    "guide": Text,
    "hook claude-create": Jobs,
    "hook claude-remove": Removed,
    "hooks install": Hooks,
    "hooks status": Hooks,
    "hooks uninstall": Hooks,
    "install": Installed,
    "lease extend": Jobs,
    "list": Jobs,
    "log": OperationLog,
    "logs": Logs,
    "mcp": None,  # serves, and answers only a refusal
    "merge": Merged,
    "overlap": Overlaps,
    "restore": Jobs,
    "result": Outcome,
    "rollback": Recorded,
    "schema": Text,
    "settle": Jobs,
    "setup": SetUp,
    "spawn": Spawned,
    "status": Jobs,
    "undo": Recorded,
    "version": Version,
    "wait": Waited,
    "workflow close": Workflows,
    "workflow list": Workflows,
}


def document() -> dict[str, Any]:
    """The schema of one answer, with the lines of `--jsonl` and `--from-file` as further definitions."""
    models: set[type[Value]] = {*filter(None, ANSWERS.values()), Notice, Event}
    places, found = models_json_schema([(model, "serialization") for model in models], by_alias=True)
    asked, inputs = models_json_schema([(JobSpec, "validation")], by_alias=True)
    del asked
    definitions = {**found["$defs"], **inputs["$defs"]}
    by_command = [
        {
            "if": {"properties": {"command": {"const": command}}},
            "then": {"properties": {"data": {"anyOf": [*shape, {"type": "null"}]}}},
        }
        for command, model in ANSWERS.items()
        for shape in [[places[model, "serialization"]] if model else []]
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An answer of wt",
        "type": "object",
        "properties": {
            "schema": {"const": SCHEMA},
            "command": {"type": "string"},
            "ok": {"type": "boolean"},
            "data": {"type": ["object", "null"]},
            "warnings": {"type": "array", "items": places[Notice, "serialization"]},
            "error": {"anyOf": [{"$ref": "#/$defs/Error"}, {"type": "null"}]},
        },
        "required": ["schema", "command", "ok", "data", "warnings", "error"],
        "additionalProperties": False,
        "allOf": [
            {
                "if": {"properties": {"ok": {"const": True}}},
                "then": {"properties": {"error": {"type": "null"}}},
                "else": {"properties": {"error": {"type": "object"}}},
            },
            *by_command,
        ],
        "$defs": {
            "Error": {
                "type": "object",
                "properties": {
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "hint": {"type": ["string", "null"]},
                    "details": {"type": "object"},
                },
                "required": ["code", "message", "hint", "details"],
                "additionalProperties": False,
            },
            **definitions,
        },
    }
