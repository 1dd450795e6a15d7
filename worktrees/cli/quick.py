"""`wt list` and `wt status`, without pydantic, pygit2 or rich.

Reads the jobs' records as they are. The verbs proper (`worktrees.boss`) are loaded only when something must be
settled first, a job is named, or a worker asks.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worktrees.render.jobs import job_card, jobs_table, state_word, tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worktrees.cli.session import Session
    from worktrees.store import State


def rows_here(*, closed: bool = False) -> list[dict[str, Any]]:
    """Jobs of the repository around the current directory, as JSON; needs git only to find it."""
    from worktrees.isolation.place import discover_boss
    from worktrees.jobs import rows
    from worktrees.store import State

    repo, _ = discover_boss(Path.cwd())
    state = State(repo.common_dir)
    return rows(state, closed=closed) if state.exists() else []


def _is_stale(state: State, found: list[dict[str, Any]]) -> bool:
    """Whether something must be settled before these rows are the truth."""
    live = [row for row in found if row["state"] != "done"]
    if not live:
        return False
    from worktrees.jobs import stale

    return stale(state, live)


def show(session: Session, *, words: Sequence[str] = (), closed: bool = False) -> int:
    """Answers `list` and `status`."""
    from worktrees.isolation.place import discover_boss
    from worktrees.jobs import rows
    from worktrees.jobs.ledger import left_out
    from worktrees.store import State

    repo, standing_in = discover_boss(Path.cwd())
    state = State(repo.common_dir)
    worker = os.environ.get("WT_JOB") or standing_in
    found: list[dict[str, Any]] = []
    if worker or words:
        boss = session.boss()
        found = [job.dump() for job in boss.status(*words)]
    elif state.exists():
        damaged: list[str] = []
        found = rows(state, closed=closed, damaged=damaged)
        if _is_stale(state, found) and session.boss().mend_jobs():
            found = rows(state, closed=closed)
        session.notices += [left_out(path) for path in damaged]
    if os.path.exists(f"{state.root}/merging/record.json") and not worker:
        said = "a merge waits for a conflict to be resolved by hand: wt merge --continue, or: wt merge --abort"
        session.notices.append({"code": "merge-waits", "message": said})
    now = time.time()
    if session.json:
        return session.answer({"jobs": found})
    if not found:
        if not (closed or words or worker) and state.exists() and rows(state, closed=True):
            return session.answer(None, "No jobs in an open workflow; those of closed ones: wt list --all")
        return session.answer(None, "No jobs. Start one: wt spawn -- COMMAND")
    if words or (worker and len(found) == 1):
        return session.answer(None, "\n\n".join(job_card(row, session.out, now) for row in found))
    text = jobs_table(found, session.out, now)
    return session.answer(
        None, f"{text}\n{tally([state_word(row) for row in found])}" if session.command == "status" else text
    )
