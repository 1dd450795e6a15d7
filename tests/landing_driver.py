"""Lands, rolls back or undoes in a process of its own, to be stopped in the middle: REPOSITORY VERB [RECORD.json]."""

import json
import sys
from pathlib import Path

from worktrees.git import ObjectStore, discover
from worktrees.isolation import Place
from worktrees.landing import find_target, land, rollback, undo
from worktrees.model import MergePlan, Workflow
from worktrees.store import State


def main(path: str, verb: str, record: str | None = None) -> None:
    repo = discover(path)
    state = State(repo.common_dir)
    place = Place(repo, state, ObjectStore(state.store), Path(path).with_name("workspaces"))
    value = json.loads(Path(record).read_text("utf-8")) if record else {}
    if verb == "undo":
        undo(place)
    elif verb == "rollback":
        rollback(place, Workflow.model_validate(value))
    else:
        plan = MergePlan.model_validate(value)
        jobs = [step.job_id for step in plan.steps]
        land(place, plan, target=find_target(repo), jobs=jobs, workflow=None, no_commit=verb == "stage")


if __name__ == "__main__":
    main(*sys.argv[1:])
