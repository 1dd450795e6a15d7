"""Open jobs that belong to a process: they end with it, as if they had been settled.

`holder.json` names the process, and the pid namespace from which it can be seen. It stays when the job is done, because
it tells a workspace that was made for a host from one that somebody opened. Who looks next ends the job
(`reconciliation`).
"""

from __future__ import annotations

import os

from worktrees.errors import Usage
from worktrees.jobs.ledger import witness
from worktrees.jobs.liveness import pid_namespace
from worktrees.store import boot_id, identity, is_alive, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

HOLDER = "holder.json"


def note(directory: Path, pid: int) -> None:
    """Gives a job to a process. Raises: Usage when there is none of that pid."""
    holder = identity(pid)
    if holder["startTicks"] is None:
        raise Usage(f"there is no process {pid} to hold the job", hint="wt spawn without a holder")
    write_json(directory / HOLDER, {**holder, "pidNamespace": pid_namespace()}, durable=True)


def has(directory: str | Path) -> bool:
    """Whether the job belongs, or belonged, to a process."""
    return os.access(os.path.join(directory, HOLDER), os.F_OK)


def is_gone(directory: str | Path) -> bool:
    """Whether the job belongs to a process that has ended, as far as can be seen from here."""
    if not has(directory):
        return False
    holder = witness(directory, HOLDER)
    if holder is None or is_alive(holder):
        return False
    return bool(holder.get("bootId") != boot_id() or holder.get("pidNamespace") == pid_namespace())
