"""The life of jobs: submit, admit, settle, cancel, wait, read, reconcile.

Owns the records below `wt-state/workflows/`, one writer per file (see `store`). Everything is a fact on disk that any
process can read; no daemon, and a queue that drains with no boss alive. Knows nothing of merging.

Stored states of a job are `queued`, `starting`, `open` and `done`. `running` and `settling` are derived by readers from
the files the supervisor leaves, so nobody has to write them in time.

    queued -> starting -> (running -> settling) -> done
    open ------------------------------------------> done

The parts are imported on first use (PEP 562): `ledger` must not pay for pydantic.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from worktrees.jobs.admission import admit, submit
    from worktrees.jobs.cancellation import cancel
    from worktrees.jobs.leases import extend_lease
    from worktrees.jobs.liveness import stale
    from worktrees.jobs.reconciliation import reconcile
    from worktrees.jobs.records import load, load_all, resolve, rows, update
    from worktrees.jobs.settlement import settle
    from worktrees.jobs.streams import Page, events, follow_events, follow_log, log
    from worktrees.jobs.waiting import Waited, wait
    from worktrees.jobs.workflow import (
        close_workflow,
        current_workflow,
        load_workflow,
        open_workflow,
        update_workflow,
        workflows,
    )

_PLACES = {
    "admission": ("admit", "submit"),
    "cancellation": ("cancel",),
    "leases": ("extend_lease",),
    "liveness": ("stale",),
    "reconciliation": ("reconcile",),
    "records": ("load", "load_all", "resolve", "rows", "update"),
    "settlement": ("settle",),
    "streams": ("Page", "events", "follow_events", "follow_log", "log"),
    "waiting": ("Waited", "wait"),
    "workflow": (
        "close_workflow",
        "current_workflow",
        "load_workflow",
        "open_workflow",
        "update_workflow",
        "workflows",
    ),
}

__all__ = [
    "Page",
    "Waited",
    "admit",
    "cancel",
    "close_workflow",
    "current_workflow",
    "events",
    "extend_lease",
    "follow_events",
    "follow_log",
    "load",
    "load_all",
    "load_workflow",
    "log",
    "open_workflow",
    "reconcile",
    "resolve",
    "rows",
    "settle",
    "stale",
    "submit",
    "update",
    "update_workflow",
    "wait",
    "workflows",
]


def __getattr__(name: str) -> Any:
    for place, names in _PLACES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"worktrees.jobs.{place}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
