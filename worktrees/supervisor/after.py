"""`finish`: what is to be done when a supervisor died before it was through.

The caller holds `alive` and lets us have it. Kills what is left of the worker's tree, writes `exit.json` as `lost` if
there is none, completes the events. Everything is idempotent, so dying here too is harmless.

Processes are killed only where the recorded pids mean what they meant: in the same boot, the same pid namespace, and
not in a copy of the records, whose original may be alive and well.
"""

from __future__ import annotations

import os
import time

from worktrees.supervisor import disk, tree
from worktrees.supervisor.pump import Pump, timestamp

_KILL_SECONDS = 10.0


def finish(job_dir: str, alive: int) -> None:
    """Brings the records of a job to their end; raises OSError when the disk does not let us."""
    os.set_inheritable(alive, False)
    supervisor = disk.read_record(os.path.join(job_dir, "supervisor.json"))
    worker = disk.read_record(os.path.join(job_dir, "worker.json"))
    exit_path = os.path.join(job_dir, "exit.json")
    record = disk.read_record(exit_path)
    launch = disk.read_record(os.path.join(job_dir, "launch.json")) or {}
    pump = Pump(job_dir, launch.get("dialect"))
    if record is None:
        killed = unkillable = 0
        here = {"bootId": tree.boot_id(), "pidNamespace": tree.pid_namespace(), "directory": disk.inode(job_dir)}
        # Without a record of the supervisor there never was a worker.
        if supervisor is not None and all(supervisor.get(name) == value for name, value in here.items()):
            killed, unkillable = _kill_survivors(os.path.basename(job_dir), worker)
        out, err = pump.sizes()
        record = {
            "exitCode": None,
            "signal": None,
            "execErrno": None,
            "execStage": None,
            "why": "lost",
            "killed": True,
            "leftBehind": killed,
            "unkillable": unkillable,
            "finishedAt": timestamp(),
            "wallSeconds": None,
            "maxRssBytes": None,
            "stdoutBytes": out,
            "stderrBytes": err,
        }
        disk.Reserved(exit_path).write(record)
    pump.finish(
        "the job's supervisor was killed; how its worker ended is not known" if record["why"] == "lost" else None
    )


def _kill_survivors(job: str, worker: dict[str, int | str | None] | None) -> tuple[int, int]:
    """How many were killed, and how many could not be."""
    met: set[tree.Process] = set()
    deadline = time.monotonic() + _KILL_SECONDS
    pause = 0.001
    while below := tree.survivors(job, worker):
        met.update(below)
        tree.send_all(below, 9)
        if time.monotonic() > deadline:
            return len(met) - len(below), len(below)
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
    return len(met), 0
