"""Room for one more workspace: the budget of all workspaces of a repository, and the space left on their disk.

Asked when a job is submitted and again when its workspace is made. A workspace counts with what was measured when its
job ended, before that with the files of its start; so does a job whose workspace is still to be made. A worktree that
somebody else made does not count.

Cost: one `statvfs` where no budget is set and the disk is not nearly full; else one `ls-tree` for each start not met
before by this process, and the jobs' records.
"""

from __future__ import annotations

import contextlib
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worktrees.errors import Refused
from worktrees.jobs import records
from worktrees.render.text import counted, size
from worktrees.store import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worktrees.config import Settings
    from worktrees.isolation import Place
    from worktrees.model import Baseline, Job

# With more than this left nobody asks how large a start is.
_PLENTY_BYTES = 1 << 30
_BLOCK_BYTES = 4096


def check(
    place: Place, baseline: Baseline, settings: Settings, *, sparse: Sequence[str] = (), starting: Job | None = None
) -> None:
    """Makes sure that there is room for a workspace; `starting` is its job when that is on record already.

    Raises: Refused `disk-budget`.
    """
    budget, free = settings.disk_budget_bytes, free_bytes(place.root)
    if not budget and free >= _PLENTY_BYTES:
        return
    needed = _start_bytes(place.store.path, baseline.start, tuple(sparse))
    if needed > free:
        raise Refused(
            f"the disk has {size(free)} left in `{place.root}`, and a workspace takes about {size(needed)}",
            code="disk-budget",
            hint="wt clean",
            details={"neededBytes": needed, "freeBytes": free},
        )
    if not budget:
        return
    rows = [row for row in records.rows(place.state, closed=True) if _counts(row, starting)]
    used = sum(_bytes_of(place, row) for row in rows)
    if used + needed > budget:
        taken = f"{size(used)} of {size(budget)} (`disk_budget_bytes`) are taken by {counted(len(rows), 'workspace')}"
        raise Refused(
            f"{taken}, and one more takes about {size(needed)}",
            code="disk-budget",
            hint="wt clean",
            details={"usedBytes": used, "neededBytes": needed, "budgetBytes": budget, "workspaces": len(rows)},
        )


def _counts(row: dict[str, Any], starting: Job | None) -> bool:
    if row["isolation"] == "adopted" or (starting is not None and row["jobId"] == starting.job_id):
        return False
    # Those that wait were let in with their room; whoever starts asks for nobody else's.
    return row["workspacePresent"] or (row["state"] in ("queued", "starting") and starting is None)


def _bytes_of(place: Place, row: dict[str, Any]) -> int:
    measured = records.witness(place.state.job_dir(row["workflowId"], row["jobId"]), "size.json")
    if measured is not None:
        return int(measured["bytes"])
    baseline = row["baseline"]
    return _start_bytes(place.store.path, baseline["snapshot"] or baseline["commit"], ())


@lru_cache
def _start_bytes(store: Path, start: str, sparse: tuple[str, ...]) -> int:
    """What the files of a commit take on disk, about; large files kept elsewhere count as their pointers.

    Nothing for a commit that is gone.
    """
    from worktrees.git import run

    # Sizes of objects that a partial clone left out would be fetched one by one.
    partial = run("config", "--get-regexp", r"^remote\..*\.promisor$", git_dir=store, expect=(0, 1)).status == 0
    words = ("ls-tree", "-r", "-t", "-z", "--full-tree", *(() if partial else ("-l",)), start, "--", *sparse)
    total = _BLOCK_BYTES  # the `.git` file
    for record in run(*words, git_dir=store, expect=(0, 128)).records:
        fields = record.partition(b"\t")[0].split()
        bytes_ = int(fields[3]) if len(fields) == 4 and fields[3] != b"-" else 0
        total += max(-(-bytes_ // _BLOCK_BYTES), 1) * _BLOCK_BYTES
    return total


def free_bytes(directory: Path) -> int:
    """What is left for us on the disk of a directory that may be still to be made."""
    there = next(path for path in (directory, *directory.parents) if path.is_dir())
    found = os.statvfs(there)
    return found.f_bavail * found.f_frsize


def measure(job: Job, directory: Path, workspace: Path, settings: Settings) -> None:
    """Notes what a workspace takes now; only where a budget is set, since it costs a look at every file."""
    if settings.disk_budget_bytes and job.isolation != "adopted":
        with contextlib.suppress(OSError):  # a full disk must not keep the job from ending
            write_json(directory / "size.json", {"bytes": disk_bytes(workspace)})


def disk_bytes(directory: Path) -> int:
    """What a directory takes on disk; one stat per file."""
    total = 0
    waiting = [os.fspath(directory)]  # `os.walk` calls itself for each level, and workers nest deeper than Python can
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                entries = list(found)
        except OSError:
            continue
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(info.st_mode):
                waiting.append(entry.path)
            total += 0 if stat.S_ISLNK(info.st_mode) else info.st_blocks * 512
    return total
