"""Edits in workspaces that were captured already: the boss's afterthought, or a worker that left its own workspace.

Who made them cannot be told, so they are named by path and never damage. A merge leaves them out; whoever removes the
workspace keeps them. `doctor` names them, a removal does, and the audit of a job that no sandbox held does where they
were made in its time.

Cost: a stat of every file of each such workspace; contents are read where the stat data changed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from worktrees import changes, isolation
from worktrees.config import plugin
from worktrees.git import read_commit, reader, tree_changes
from worktrees.jobs import records
from worktrees.model import Finding, path_text
from worktrees.store import seconds_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worktrees.config import Settings
    from worktrees.git import ObjectStore
    from worktrees.isolation import Place
    from worktrees.model import Job, Oid, RepoPath

# Clocks of file systems stand still for some milliseconds.
_TICK_SECONDS = 0.02
_MOST = 100


def late_edits(place: Place, job: Job, settings: Settings) -> list[RepoPath]:
    """Paths of a captured job's workspace that are not as they were captured; [] where there is none of ours."""
    workspace = isolation.workspace_of(place, job.job_id)
    if job.state != "done" or job.snapshot is None or workspace is None or not workspace.path.is_dir():
        return []
    kind = plugin("isolation", job.isolation)()
    index = place.state.job_dir(job.workflow_id, job.job_id) / "index"
    if not kind.makes or not changes.edited_since(place.store, place.repo, workspace.path, index):
        return []
    # Stat data differ also in a workspace that was brought back, so contents decide.
    now, _ = changes.capture(
        place.store, place.repo, workspace.path, job.baseline,
        job=job.job_id, ref=None, index=index, settings=settings, candidates=kind.candidates(workspace), durable=False,
    )  # fmt: skip
    return differing(place.store, job.snapshot, now)


def differing(store: ObjectStore, one: Oid, other: Oid) -> list[RepoPath]:
    """Paths at which two snapshots differ."""
    with reader(store.path) as objects:
        trees = (read_commit(store.path, one).tree, read_commit(store.path, other).tree)
        return [path for path, _, _ in tree_changes(objects, *trees)]


def named(place: Place, settings: Settings) -> Iterator[Finding]:
    """What `doctor` says of every workspace that is there."""
    for job in records.load_all(place.state, closed=True):
        if not job.dropped_by:
            word = job.name or job.job_id
            yield from _findings(
                late_edits(place, job, settings),
                f"{{}} in the workspace of `{word}` was edited after that was captured; no merge has it, `wt drop "
                f"{word}` and `wt clean` keep it",
            )


def meanwhile(place: Place, job: Job, settings: Settings) -> list[Finding]:
    """Late edits in the workspaces of other jobs since this one began, as its audit names them."""
    since = seconds_of(job.started_at or job.created_at) - _TICK_SECONDS
    found: list[Finding] = []
    for other in records.load_all(place.state):
        if other.job_id != job.job_id and other.workspace is not None:
            paths = [path for path in late_edits(place, other, settings) if _touched(other.workspace, path) >= since]
            word = other.name or other.job_id
            message = f"{{}} in the workspace of `{word}` was edited while the job ran, by it or by somebody else"
            found += _findings(paths, message)
    return found


def _touched(workspace: str, path: RepoPath) -> float:
    """When a path was last changed; of one that is gone, when the directory was that it went from."""
    place = os.path.join(os.fsencode(workspace), path)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    return os.lstat(place).st_ctime


def _findings(paths: list[RepoPath], message: str) -> list[Finding]:
    found = [
        Finding(code="outside-edit", path=path_text(path), message=message.format(f"`{path_text(path)}`"))
        for path in paths[:_MOST]
    ]
    if len(paths) > _MOST:
        found.append(Finding(code="outside-edit", message=f"and {len(paths) - _MOST} more `outside-edit`"))
    return found
