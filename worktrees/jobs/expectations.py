"""Changes of our own to files that audits watch, announced before they are made.

A verb of the boss's that changes configuration or hooks while jobs are at work would be taken for a worker's damage.
So it first writes the coming state of each file into the fingerprint of every job that is not settled: the audit then
takes the old state, the new one, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from worktrees import changes
from worktrees.jobs import records
from worktrees.store import write_bytes

if TYPE_CHECKING:
    from worktrees.model import Job
    from worktrees.store import State


def announce(state: State, jobs: list[Job], files: Mapping[str, list[Any]], config: bytes | None) -> None:
    """Makes these states of files below the git directory expected in the audits of jobs; see `changes.expecting`."""
    for job in jobs:
        directory = state.job_dir(job.workflow_id, job.job_id)
        before = records.witness(directory, "fingerprint.json")
        if before is None:
            continue
        write_bytes(
            directory / "fingerprint.json", json.dumps(changes.expecting(before, files, config)).encode("ascii")
        )
        if records.load(state, job.job_id).state == "done":  # settled meanwhile, and then it is litter
            with contextlib.suppress(FileNotFoundError):
                os.unlink(directory / "fingerprint.json")
