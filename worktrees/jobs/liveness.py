"""Whether the jobs on record are what they seem: is there still somebody at work on each?

Loads nothing that `wt list` would notice, and changes nothing; `reconciliation` does something about it.
"""

from __future__ import annotations

import os

from worktrees.jobs.ledger import witness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from worktrees.jobs.ledger import Row
    from worktrees.store import State


def stale(state: State, rows: Iterable[Row]) -> bool:
    """Whether `reconcile` would have something to do about these rows; see `needs_mending`."""
    return needs_mending(os.fspath(state.workflows), rows)


def needs_mending(workflows: str, rows: Iterable[Row]) -> bool:
    """Whether `reconcile` would have something to do about these rows.

    Cost: two or three system calls for each job that is not done.
    """
    if os.environ.get("WT_JOB"):
        return False
    for row in rows:
        directory = os.path.join(workflows, row["workflowId"], "jobs", row["jobId"])
        if row["state"] in ("starting", "running", "settling") and is_abandoned(directory):
            return True
        if row["state"] == "open" and _may_be_over(directory):
            from worktrees.jobs.holders import is_gone
            from worktrees.jobs.leases import is_over

            if is_over(directory) or is_gone(directory):
                return True
        if row["state"] == "queued" and "slots taken" not in (row["waiting"] or ""):
            return True
    return False


def _may_be_over(directory: str) -> bool:
    return os.access(f"{directory}/lease.json", os.F_OK) or os.access(f"{directory}/holder.json", os.F_OK)


def is_abandoned(directory: str) -> bool:
    """Whether a `starting` job has nobody any more who is at it, and we may take over."""
    from worktrees.store import AliveLock, boot_id

    if AliveLock(f"{directory}/alive").is_held():
        return False
    supervisor = witness(directory, "supervisor.json")
    if supervisor is None or supervisor.get("pidNamespace") in (None, pid_namespace()):
        return True
    return bool(supervisor.get("bootId") != boot_id())


def pid_namespace() -> str:
    """Names the namespace whose pids we see."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "unknown"
