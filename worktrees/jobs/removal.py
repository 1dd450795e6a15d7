"""Giving jobs up, taking workspaces away, bringing them back. Nothing a worker wrote goes with a workspace.

The order of a removal, for each workspace:

1. no process stands in it, and the job is done (an open one is settled first, a queued one is cancelled);
2. it is captured again: edits made after the job was settled become a commit of their own (`<snapshot ref>-removed`),
   the record of the job stays what it was; ignored files are kept up to a limit (`<snapshot ref>-ignored`), and so
   are commits that only the workspace leads to (`<snapshot ref>-commits/<n>`);
3. `isolation` takes it away, journaled; a worktree that somebody else made is released instead, and stays as it is;
4. for a drop the operation log and the job's record say so, which is the caller's.

A crash leaves the workspace, or a record that is made good by repeating the command. `drop` gives a job up: merges
pass it by, its workflow may close. `clean` only frees disk: a cleaned job merges and restores as before.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from worktrees import changes, isolation
from worktrees.config import plugin
from worktrees.errors import Refused
from worktrees.git import reader, tree_changes
from worktrees.git.door import pipe
from worktrees.isolation.entry import quoted_path
from worktrees.jobs import late_edits, looks, records
from worktrees.jobs.cancellation import cancel
from worktrees.jobs.room import check, disk_bytes
from worktrees.jobs.settlement import settle
from worktrees.jobs.workflow import close_workflow, load_workflow, rewrite
from worktrees.model import Oid, Removal, Removed, WorkflowName, path_text
from worktrees.store import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worktrees.config import Settings
    from worktrees.git import Repo
    from worktrees.git.objects import Reader
    from worktrees.isolation import Isolation, Place, Workspace
    from worktrees.model import ChangeSet, IgnoredFile, Job, JobId, OperationId, RepoPath

_MOST_PROCESSES_NAMED = 3


def snapshot_ref(job: Job) -> str:
    """The name of a job's snapshot in wt's own store."""
    return f"refs/wt/{job.workflow_id}/{job.job_id}"


# --------------------------------------------------------------------------------------------------------- giving up
def give_up(place: Place, jobs: Sequence[Job], settings: Settings, *, force: bool = False) -> list[Removal]:
    """Removes the workspaces of jobs, all or none, their work kept. Who calls notes the operation and `mark_dropped`.

    Raises: Refused `job-unfinished`, `live-processes`, `not-captured`; nothing is removed then.
    """
    for job in jobs:
        _require_still(place, job)
    ended = [_ended(place, job) for job in jobs]
    kept = [_capture(place, job, settings, force=force) for job in ended]
    if len(ended) == 1:
        return [_remove(place, ended[0], kept[0])]
    # While the others were captured somebody may have gone on writing; each is captured again right before it goes.
    return [_remove(place, job, _capture(place, job, settings, force=force)) for job in ended]


def preview(place: Place, jobs: Sequence[Job]) -> list[Removal]:
    """What `give_up` would remove. Raises: Refused as `give_up`; costs a stat of every file for the sizes."""
    for job in jobs:
        _require_still(place, job)
    return [_would_remove(place, job) for job in jobs]


def mark_dropped(place: Place, jobs: Sequence[JobId], operation: OperationId | None) -> None:
    """Writes into jobs' records by which operation they were given up, None for not any more."""
    names = {WorkflowName(place.state.find_job_dir(job).parent.parent.name) for job in jobs}
    if operation is None:  # before its jobs, so that whoever dies in between does it again
        for name in names:
            close_or_reopen(place, name, came_back=True)
    for job in jobs:
        records.update(place.state, job, dropped_by=operation)
    for name in names:
        close_or_reopen(place, name, came_back=operation is None)


def _require_still(place: Place, job: Job) -> None:
    word = job.name or job.job_id
    if job.state in ("starting", "running", "settling"):
        raise Refused(
            f"`{word}` is {job.state}; only what is at rest can be removed",
            code="job-unfinished",
            hint=f"wt cancel {word} && wt wait {word}",
            details={"jobId": job.job_id, "state": job.state},
        )
    workspace = isolation.workspace_of(place, job.job_id) if _kind(job).makes else None
    if workspace is not None and (alive := processes_in(workspace.path)):
        named = ", ".join(f"{name} ({pid})" for pid, name in alive[:_MOST_PROCESSES_NAMED])
        raise Refused(
            f"{len(alive)} process{'' if len(alive) == 1 else 'es'} in the workspace of `{word}`: {named}",
            code="live-processes",
            hint=f"end them, then: wt drop {word}",
            details={"pids": [pid for pid, _ in alive]},
        )


def processes_in(directory: Path) -> list[tuple[int, str]]:
    """Processes whose current directory is in a directory, by pid and name."""
    import psutil

    top = os.path.realpath(directory)
    found = []
    for process in psutil.process_iter():
        try:
            if os.path.commonpath([top, process.cwd() or "/"]) == top:
                found.append((process.pid, process.name()))
        except (psutil.Error, OSError, ValueError):
            continue
    return found


def _ended(place: Place, job: Job) -> Job:
    """The job, done."""
    if job.state == "queued":
        return cancel(place, job.job_id)
    return settle(place, job.job_id) if job.state == "open" else job


# --------------------------------------------------------------------------------------------------------- capturing
class _Kept(NamedTuple):
    """The commit that holds a workspace's files as they are, ignored files beyond the limit, paths edited late."""

    snapshot: Oid | None
    lost: Sequence[IgnoredFile] = ()
    edited: Sequence[RepoPath] = ()


def _capture(place: Place, job: Job, settings: Settings, *, force: bool = False) -> _Kept:
    """Keeps everything of a workspace that the job's record does not hold.

    A worktree of somebody else's stays, so nothing of it has to be kept. Raises: Refused `not-captured`.
    """
    workspace = isolation.workspace_of(place, job.job_id) if _kind(job).makes else None
    if workspace is None or not workspace.path.is_dir():
        return _Kept(job.snapshot)
    ref = snapshot_ref(job)
    index = place.state.job_dir(job.workflow_id, job.job_id) / "index"
    found, scan = changes.capture(
        place.store, place.repo, workspace.path, job.baseline,
        job=job.job_id, ref=None, index=index, settings=settings,
        candidates=_kind(job).candidates(workspace),
    )  # fmt: skip
    if not scan.verified and not force:
        reason = next((each.message for each in scan.findings if each.code in changes.UNCAPTURED), "it is not readable")
        raise Refused(
            f"the workspace of `{job.name or job.job_id}` cannot be captured whole: {reason}",
            code="not-captured",
            hint=f"see: wt result {job.name or job.job_id}; to let go of it: wt drop --force {job.name or job.job_id}",
            details={"findings": [finding.dump() for finding in scan.findings]},
        )
    ignored = changes.keep_ignored(
        place.store, workspace.path, scan.ignored, ref=ref, job=job.job_id, limit_bytes=settings.keep_ignored_bytes
    )
    lost = [file for file in ignored if not file.kept]
    with isolation.own_commits(place, workspace) as (commits, objects):
        for number, commit in enumerate(commits, 1):
            _keep_commit(place, job, commit, f"{ref}-commits/{number}", objects)
    edited = late_edits.differing(place.store, job.snapshot, found) if job.snapshot is not None else []
    if job.snapshot is not None and not edited:
        if place.store.ref(f"{ref}-removed") is not None:  # of a removal before: the edits are taken back since
            place.store.set_ref(f"{ref}-removed", job.snapshot, durable=True)
        return _Kept(job.snapshot, lost)
    place.store.set_ref(f"{ref}-removed", found, durable=True)
    return _Kept(found, lost, edited)


def _keep_commit(place: Place, job: Job, commit: Oid, ref: str, objects: Path | None) -> None:
    """Copies a commit and what it leads to, down to the job's baseline, out of reach of the user's gc.

    Its objects are in the repository, or in a directory beside.
    """
    pipe(
        ("pack-objects", "--revs", "--stdout", "--delta-base-offset", "-q"),
        ("index-pack", "--stdin", "--fix-thin"),
        producer_git_dir=place.repo.common_dir,
        consumer_git_dir=place.store.path,
        producer_env={"GIT_ALTERNATE_OBJECT_DIRECTORIES": quoted_path(objects)} if objects else None,
        stdin=f"{commit}\n^{job.baseline.commit}\n".encode(),
        durable=True,
    )
    place.store.set_ref(ref, commit, durable=True)


def _kind(job: Job) -> Isolation:
    found: Isolation = plugin("isolation", job.isolation)()
    return found


def _remove(place: Place, job: Job, kept: _Kept) -> Removal:
    kind, workspace = _kind(job), isolation.workspace_of(place, job.job_id)
    if not kind.makes:
        # Also when the worktree is gone by now: the record of it goes.
        kind.close(place, workspace or isolation.Workspace(job.job_id, Path(job.workspace or ""), None))
        records.update(place.state, job.job_id, workspace=None)
    elif workspace is not None:
        kind.close(place, workspace)
    return Removal(
        job_id=job.job_id,
        name=job.name,
        workspace=job.workspace,
        state=job.state,
        outcome="removed" if kind.makes else "released",
        landed=job.landed_by is not None,
        snapshot=kept.snapshot,
        age_seconds=_age(job),
        ignored_not_kept=list(kept.lost),
        edited_since=[path_text(path) for path in kept.edited],
    )


def _would_remove(place: Place, job: Job) -> Removal:
    makes = _kind(job).makes
    workspace = isolation.workspace_of(place, job.job_id) if makes else None
    return Removal(
        job_id=job.job_id,
        name=job.name,
        workspace=job.workspace,
        state=job.state,
        outcome="would-remove" if makes else "would-release",
        landed=job.landed_by is not None,
        snapshot=job.snapshot,
        size_bytes=disk_bytes(workspace.path) if workspace else None,
        age_seconds=_age(job),
    )


def _age(job: Job) -> float | None:
    return max(time.time() - seconds_of(job.finished_at), 0.0) if job.finished_at else None


# -------------------------------------------------------------------------------------------------------- tidying up
def clean(
    place: Place,
    settings: Settings,
    *,
    older_than_seconds: float | None = None,
    unlanded: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Removed:
    """Removes workspaces of done jobs whose work is in the branch, or is nothing; `unlanded` takes the others too.

    Whether work is in the branch is judged by content: every changed path there is as the job left it.
    """
    if not place.state.exists():
        return Removed(dry_run=dry_run)
    present = [job for job in records.load_all(place.state, closed=True) if job.workspace_present]
    removals = []
    for number, job in enumerate(present, 1):
        removals.append(_clean_one(place, job, settings, older_than_seconds, unlanded=unlanded, dry_run=dry_run))
        if progress:
            progress(number, len(present))
    isolation.sweep(place)
    return Removed(dry_run=dry_run, removals=removals)


def clean_one(place: Place, job: Job, settings: Settings) -> Removal:
    """Removes the workspace of one done job, landed or not; its snapshot stays."""
    removed = _clean_one(place, job, settings, None, unlanded=True, dry_run=False)
    isolation.sweep(place)
    return removed


def _clean_one(
    place: Place, job: Job, settings: Settings, older_than_seconds: float | None, *, unlanded: bool, dry_run: bool
) -> Removal:
    removal = _would_remove(place, job)
    changed = looks.recorded(place.state, job)
    landed = job.landed_by is not None or (
        changed is not None and bool(changed.files) and is_in_branch(place.repo, changed)
    )
    removal = removal.model_copy(update={"landed": landed})
    reason = _why_keep(job, changed, landed=landed, unlanded=unlanded)
    if reason is None and older_than_seconds is not None and (removal.age_seconds or 0.0) < older_than_seconds:
        reason = "too recent"
    if reason is None:
        try:
            _require_still(place, job)
            if not dry_run:
                return _remove(place, job, _capture(place, job, settings)).model_copy(
                    update={
                        "landed": landed,
                        "size_bytes": removal.size_bytes,
                        "reason": None if landed else removal.reason,
                    }
                )
        except Refused as error:
            reason = error.message
    return removal if reason is None else removal.model_copy(update={"outcome": "kept", "reason": reason})


def _why_keep(job: Job, changed: ChangeSet | None, *, landed: bool, unlanded: bool) -> str | None:
    """Why a workspace stays, None when it may go."""
    if job.state != "done":
        return job.state
    if landed or unlanded or job.dropped_by or (changed is not None and not changed.files and changed.verified):
        return None
    return "not landed; take it along with: wt clean --all"


def is_in_branch(repo: Repo, changed: ChangeSet) -> bool:
    """Whether HEAD holds every path of a change set as the job left it."""
    commit = repo.head().commit
    if commit is None:
        return False
    with reader(repo.common_dir) as objects:
        top = objects.commit(commit).tree
        for file in changed.files:
            wanted = None if file.status == "D" else (file.new_mode, file.new_oid)
            if _entry(objects, top, file.raw) != wanted:
                return False
            if file.status == "R" and any(_entry(objects, top, path) is not None for path in file.raw_paths[1:]):
                return False
    return True


def _entry(objects: Reader, tree: Oid, path: bytes) -> tuple[str, str] | None:
    *above, name = path.split(b"/")
    for part in above:
        entry = objects.tree(tree).get(part)
        if entry is None or entry.mode != "040000":
            return None
        tree = entry.oid
    found = objects.tree(tree).get(name)
    return (found.mode, found.oid) if found is not None else None


# ----------------------------------------------------------------------------------------------------- bringing back
def restore(place: Place, job: Job, settings: Settings) -> Job:
    """Makes a removed workspace again as it was when it was taken away; for a released one a worktree of our own.

    Raises: Refused `workspace-present`, `no-snapshot`, `disk-budget`.
    """
    word = job.name or job.job_id
    if job.state != "done" or (job.workspace_present and not job.dropped_by):
        raise Refused(
            f"the workspace of `{word}` is there",
            code="workspace-present",
            hint=f"wt status {word}",
            details={"workspace": job.workspace},
        )
    ref = snapshot_ref(job)
    last = place.store.ref(f"{ref}-removed") or job.snapshot
    if last is None:
        raise Refused(f"`{word}` has no snapshot to restore", code="no-snapshot", hint=f"wt result {word}")
    if not job.workspace_present:
        kind = job.isolation if _kind(job).makes else "worktree"
        check(place, job.baseline, settings)
        if kind != job.isolation:  # noted first, so that a crash leaves nothing that no record knows
            records.update(place.state, job.job_id, isolation=kind, workspace=os.fspath(place.root / job.job_id))
        start = job.baseline.model_copy(update={"snapshot": last})
        workspace: Workspace | None = plugin("isolation", kind)().open(place, job.job_id, start)
    else:
        workspace = isolation.workspace_of(place, job.job_id)  # whoever brought it back died before he was through
    if workspace is not None:
        _bring_ignored(place, workspace, place.store.ref(f"{ref}-ignored"))
    return records.load(place.state, job.job_id)


def _bring_ignored(place: Place, workspace: Workspace, commit: Oid | None) -> None:
    """Writes kept ignored files back, byte for byte; never through a symlink and never over a file that is there."""
    if commit is None:
        return
    with reader(place.store.path) as objects:
        for path, _, entry in tree_changes(objects, None, objects.commit(commit).tree):
            if entry is None or not _make_parents(workspace.path, path):
                continue
            target = os.path.join(os.fsencode(workspace.path), path)
            content = objects.blob(entry.oid)
            if entry.mode == "120000":
                if not os.path.lexists(target):
                    os.symlink(content, target)
                continue
            try:
                mode = 0o755 if entry.mode == "100755" else 0o644
                fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            except FileExistsError:
                continue
            with os.fdopen(fd, "wb") as file:
                file.write(content)


def _make_parents(top: Path, path: bytes) -> bool:
    """Makes the directories above a path; False when something else stands in the way."""
    here = os.fsencode(top)
    for part in path.split(b"/")[:-1]:
        here = os.path.join(here, part)
        try:
            os.mkdir(here)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(here).st_mode):
                return False
    return True


# --------------------------------------------------------------------------------------------------------- workflows
def close_or_reopen(place: Place, name: WorkflowName, *, came_back: bool) -> None:
    """Closes a workflow whose jobs have all landed or were dropped; opens it again when some of its jobs came back."""
    if not came_back:
        close_workflow(place, name, only_if_finished=True)
        return
    with place.state.lock(f"workflow-{name}", purpose=f"open the workflow {name} again"):
        workflow = load_workflow(place.state, name)
        if workflow.closed_at is not None:
            isolation.pin(place, f"refs/wt/{name}/base", workflow.baseline.commit)
            rewrite(place.state, workflow, closed_at=None)


def discard_empty(place: Place, name: WorkflowName) -> None:
    """Takes a workflow back that was opened for a job which then could not be made; one with jobs stays."""
    with place.state.lock(f"workflow-{name}", purpose=f"discard the workflow {name}"):
        directory = place.state.workflow_dir(name)
        try:
            os.rmdir(directory / "jobs")
        except FileNotFoundError:
            pass  # whoever was discarding it died
        except OSError:
            return  # not empty: somebody else has joined
        (directory / "workflow.json").unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
    place.repo.delete_ref(f"refs/wt/{name}/base")
    place.store.delete_refs(f"refs/wt/{name}")
