"""Records of every format ever written are read by today's program."""

import json
import shutil
from pathlib import Path

import pytest

from tests.kit import RepoKit, Wt
from worktrees.model import ChangeSet, Job, Operation, Value, Workflow

FOSSILS = Path(__file__).parent / "fossils"
FORMATS = sorted(path.name for path in FOSSILS.iterdir() if path.name.isdigit())
KINDS: dict[str, type[Value]] = {"job.json": Job, "changes.json": ChangeSet, "workflow.json": Workflow}


@pytest.mark.parametrize("number", FORMATS)
def test_every_record_loads_and_nothing_of_it_is_lost(number: str) -> None:
    seen = set()
    for path in sorted((FOSSILS / number / "wt-state").rglob("*.json")):
        kind = Operation if path.parent.name == "ops" else KINDS.get(path.name)
        if kind is None:
            continue
        record = {**json.loads(path.read_bytes()), "ofALaterFormat": [1]}
        assert record.items() <= kind.model_validate(record).dump().items(), path
        seen.add(kind)
    assert seen == {Job, ChangeSet, Workflow, Operation}


@pytest.mark.parametrize("number", FORMATS)
def test_an_old_state_is_taken_over(repo: RepoKit, wt: Wt, number: str) -> None:
    state = repo.path / ".git" / "wt-state"
    shutil.copytree(FOSSILS / number / "wt-state", state)
    for name in ("locks", "journal", "trash"):
        (state / name).mkdir(exist_ok=True)

    rows = {job["name"]: job for job in wt("list", "--all", "--json", status=0).data["jobs"]}

    told = {name: (job["state"], job["result"]) for name, job in rows.items()}
    assert told == {
        "landed": ("done", "succeeded"),
        "failed": ("done", "failed"),
        "dropped": ("done", "succeeded"),
        "open": ("open", None),
        # Its supervisor is gone since; so is its workspace.
        "running": ("done", "lost"),
    }
    assert rows["landed"]["landedBy"] == "op-000001"
    assert [operation["kind"] for operation in wt("log", "--json", status=0).data["operations"]] == [
        "undo", "rollback", "drop", "merge",
    ]  # fmt: skip
    assert [event["type"] for event in wt("events", "landed", "--json", status=0).data["events"]] == [
        "message",
        "final",
    ]
    assert wt("logs", "failed", "--stderr", status=0).stdout == "oops\n"
    outcome = wt("result", "dropped", "--json", status=0).data
    assert {(file["status"], file["path"]) for file in outcome["changeSet"]["files"]} >= {("A", "caf\\xe9")}
