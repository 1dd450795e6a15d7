"""Ending a job: complete its records, audit, capture, change set, `done`; then admit the next.

Run as `python -m worktrees.jobs.settlement JOB-DIRECTORY LOCK` it is the last stage of every supervisor. Anybody else
who finds a job's `alive` lock free may do the same (`reconcile`); whoever holds the lock settles, and only one can.

In this order, each step repeatable, so that dying anywhere loses nothing and the next command goes on:
1. exit record and events are complete, no process of the worker is left (`runner.finish` where its supervisor died)
2. audit by plain file reads, before git looks at anything the worker could reach
3. capture into wt's own store, named and durable
4. `changes.json`, durable
5. the worker's TMPDIR goes; `job.json` `done`, durable; what only a live job needs is removed

What raises leaves the job `settling`, its workspace untouched and the reason in `settle-error`.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worktrees.config import Settings
from worktrees.errors import Refused, StateBroken, WorktreesError
from worktrees.jobs import records, room
from worktrees.store import AliveLock, State, append_line, boot_id, now, write_bytes, write_json

if TYPE_CHECKING:
    from worktrees.isolation import Isolation, Place, Workspace
    from worktrees.model import Audit, ChangeSet, Finding, Job, JobId, Oid, Result

# Findings after which nobody can say whether the snapshot has all that the worker wrote.
_UNSURE = ("emptied", "before-restart")
# What only a live job needs; `spec.json` and `launch.json` hold its environment.
_PASSING = (
    "launch.json", "spec.json", "report-schema.json", "lease.json", "cancel.json", "fingerprint.json",
    "settle-error",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spec:
    """What `submit` wrote down for whoever starts or settles the job."""

    environment: Mapping[str, str]
    settings: Settings
    sparse: list[str]
    stdin: str | None
    place: Mapping[str, Any]
    agent: Mapping[str, Any]
    continues: Oid | None


def read_spec(directory: Path) -> Spec:
    """The job's own settings and environment; defaults once they are gone."""
    record = records.witness(directory, "spec.json") or {}
    known = {item.name for item in fields(Settings)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in record.get("settings", {}).items()
        if name in known
    }
    return Spec(
        environment=record.get("environment", {}),
        settings=Settings(**values),
        sparse=record.get("sparse", []),
        stdin=record.get("stdin"),
        place=record.get("place", {}),
        agent=record.get("agent") or {},
        continues=record.get("continues"),
    )


def temporary_directory(place: Place, job: Job) -> Path:
    """The worker's private TMPDIR: on the disk of the workspaces, outside of them."""
    return place.root / ".tmp" / job.job_id


# ---------------------------------------------------------------------------------------------------- settle
def settle(place: Place, job: JobId, *, ending: Result = "succeeded", admit_next: bool = True) -> Job:
    """Brings a job whose worker is dead, or an open job, to `done`; idempotent. `ending` is how an open job ends.

    Raises: Refused `job-running`, `job-queued`; whatever capturing raises, and then the job stays as it is for the next
    try.
    """
    directory = place.state.find_job_dir(job)
    lock = AliveLock(directory / "alive").take()
    if lock is None:
        stored = records.load(place.state, job)
        if stored.state == "done":
            return stored
        raise Refused(
            f"`{stored.name or job}` still runs", code="job-running", hint=f"wt wait {job}, or: wt cancel {job}"
        )
    try:
        settled = settle_held(place, directory, lock, ending=ending)
    finally:
        os.close(lock)
        if admit_next:
            _admit_next(place, directory)
    return settled


def settle_held(place: Place, directory: Path, lock: int, *, ending: Result = "succeeded") -> Job:
    """`settle` for who holds `alive`."""
    from worktrees.runner import LocalRunner

    job = records.as_stored(directory)
    if job is None or job.state == "queued":
        raise Refused(f"`{directory.name}` has not started", code="job-queued", hint=f"wt cancel {directory.name}")
    if job.state == "done":
        _clean(directory)
        return records.load(place.state, job.job_id)
    exit_record = None
    try:
        if job.state == "starting":
            if records.witness(directory, "exit.json") is None or not has_final(directory):
                LocalRunner().finish(directory, lock)
            exit_record = records.witness(directory, "exit.json")
            if exit_record is None:
                raise StateBroken(f"`{directory / 'exit.json'}` is damaged", hint="move it aside and run: wt list")
        done, changes = _captured(place, directory, job, exit_record, ending)
        if exit_record is None and not has_final(directory):
            end_events(directory, "")
        if changes is not None:
            write_json(directory / "changes.json", changes.dump(), durable=True)
        _remove_temporary(place, job)
        with place.state.lock(f"workflow-{job.workflow_id}", purpose=f"settle {job.job_id}"):
            records.write(directory, _with_latest_lease(directory, done), durable=True)
    except Exception as error:
        said = error.message if isinstance(error, WorktreesError) else str(error) or type(error).__name__
        _keep_reason(directory, f"not captured yet: {said}".encode(errors="backslashreplace"))
        raise
    _clean(directory)
    return records.load(place.state, job.job_id)


def _keep_reason(directory: Path, reason: bytes) -> None:
    """Why a job is not done, for `list`; one that is there already is let be, since a new name wakes who waits."""
    path = directory / "settle-error"
    with contextlib.suppress(OSError):
        if not path.exists() or path.read_bytes() != reason:
            write_bytes(path, reason)


def _with_latest_lease(directory: Path, done: Job) -> Job:
    """Keeps the one thing others may write into the record while we capture."""
    latest = records.as_stored(directory)
    return records.changed(done, ttl_seconds=latest.ttl_seconds) if latest is not None else done


def refuse(place: Place, directory: Path, reason: str, *, result: Result = "failed") -> Job:
    """Ends a job that never ran anything; the caller holds the workflow lock, and `alive` unless the job is queued."""
    stored = records.decided(directory)
    end_events(directory, reason)
    done = records.changed(
        stored, state="done", result=result, reason=reason, finished_at=now(), workspace=None, waiting=None
    )
    _remove_temporary(place, done)
    records.write(directory, done, durable=True)
    _clean(directory)
    return done


# ---------------------------------------------------------------------------------------------------- the parts
def _captured(
    place: Place, directory: Path, job: Job, exit_record: Mapping[str, Any] | None, ending: Result
) -> tuple[Job, ChangeSet | None]:
    """The finished record and the change set; everything the worker left is in the store when this returns."""
    result, reason = ending, job.reason
    told: dict[str, Any] = {"finished_at": now()}
    trusted = True
    if exit_record is not None:
        result, reason = _outcome(job, exit_record, run(directory).get("failure"))
        worker = records.witness(directory, "worker.json") or {}
        told = {
            "finished_at": exit_record["finishedAt"],
            "started_at": worker.get("startedAt"),
            "exit_code": exit_record["exitCode"],
            "signal": exit_record["signal"],
            "sandbox": worker.get("sandbox", "none"),
        }
        # Killed in the middle of whatever it was writing, or still writing where nobody can stop it.
        trusted = not exit_record["killed"] and not exit_record["unkillable"]
    lease = records.witness(directory, "lease.json") or {}
    workspace = _workspace(place, job)
    changes = None
    if workspace is not None and workspace.path.is_dir():
        changes = _capture(place, directory, job, workspace)
        room.measure(job, directory, workspace.path, read_spec(directory).settings)
        if exit_record is not None and _is_before_a_restart(directory):
            changes = changes.model_copy(update={"audit": _with_findings(changes.audit, [_before_a_restart()])})
        if not trusted or any(finding.code in _UNSURE for finding in changes.audit.findings):
            changes = changes.model_copy(update={"verified": False})
        if job.access == "read-only" and changes.files:
            changes = changes.model_copy(update={"audit": _with_findings(changes.audit, [_not_only_read(changes)])})
        told |= {
            "snapshot": changes.snapshot,
            "changed_files": len(changes.files),
            "verified": changes.verified,
            "quarantined": changes.audit.quarantine or (exit_record or {}).get("why") == "force",
        }
    elif job.workspace is not None:
        reason = "; ".join(
            filter(None, [reason, f"its workspace `{job.workspace}` is gone, nothing could be captured"])
        )
        told |= {"verified": False}
    done = records.changed(
        job, state="done", result=result, reason=reason, waiting=None, lease_expires_at=lease.get("expiresAt"), **told
    )
    return done, changes


def _outcome(job: Job, exit_record: Mapping[str, Any], failure: str | None) -> tuple[Result, str | None]:
    """How a job ended, and why for people; `failure` is what its agent's output says of it."""
    why, code, number = exit_record["why"], exit_record["exitCode"], exit_record["signal"]
    limits = {
        "ttl": ("its lease of", job.ttl_seconds),
        "idle": ("it was silent for", job.idle_seconds),
        "timeout": ("its time of", job.timeout_seconds),
    }
    if why == "lost":
        return "lost", "its supervisor was killed; how the worker ended is not known"
    if why in limits:
        text, seconds = limits[why]
        return "expired", f"{text} {seconds:g} s" + ("" if why == "idle" else " ran out") if seconds else why
    if why in ("cancel", "force"):
        return "cancelled", "cancelled by force" if why == "force" else "cancelled"
    if exit_record["execStage"] == "sandbox":
        return "failed", "its sandbox could not be put up, so nothing was run; see: wt logs"
    if exit_record["execErrno"] is not None:
        what = (job.command or [""])[0] if exit_record["execStage"] == "program" else exit_record["execStage"]
        return "failed", f"cannot start `{what}`: {os.strerror(exit_record['execErrno'])}"
    if number is not None:
        return "failed", f"ended by signal {number} ({_signal_name(number)})"
    if failure is not None:  # some agents end with status 0 when their turn failed
        return "failed", failure if code == 0 else f"ended with status {code}: {failure}"
    return ("succeeded", None) if code == 0 else ("failed", f"ended with status {code}")


def _is_before_a_restart(directory: Path) -> bool:
    """Whether a worker ran before the machine was started anew; so it did when a power cut damaged what says so."""
    if not os.path.exists(directory / "worker.json"):
        return False
    boot = (records.witness(directory, "worker.json") or {}).get("bootId")
    return boot not in (boot_id(), "unknown")  # as the supervisor says where it cannot know


def _before_a_restart() -> Finding:
    """That what a worker wrote may not have come to the disk before the machine stopped."""
    from worktrees.model import Finding

    message = (
        "the machine was started anew between the worker's end and this capture; what it wrote last may be lacking"
    )
    return Finding(code="before-restart", message=message)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _workspace(place: Place, job: Job) -> Workspace | None:
    from worktrees.isolation import workspace_of

    return workspace_of(place, job.job_id)


def _capture(place: Place, directory: Path, job: Job, workspace: Workspace) -> ChangeSet:
    from worktrees import changes, config

    isolation: Isolation = config.plugin("isolation", job.isolation)()
    audit = _audit(place, directory, job, workspace)
    snapshot, scan = changes.capture(
        place.store,
        place.repo,
        workspace.path,
        job.baseline,
        job=job.job_id,
        ref=f"refs/wt/{job.workflow_id}/{job.job_id}",
        index=directory / "index",
        settings=read_spec(directory).settings,
        candidates=isolation.candidates(workspace),
    )
    reported = changes.reported_files(final_message(directory) or "")
    return changes.change_set(
        place.store, job.job_id, job.baseline.start, snapshot, scan=scan, audit=audit, reported=reported
    )


def _audit(place: Place, directory: Path, job: Job, workspace: Workspace) -> Audit | None:
    from worktrees import changes

    before = records.witness(directory, "fingerprint.json")
    if before is None:
        return None
    audit = changes.audit(
        place.repo, workspace.path, workspace.git_dir, before, expected=_landings_since(place.state, job.created_at)
    )
    # After damage nothing of git runs in the boss's checkout either.
    outside = [] if audit.quarantine else changes.outside_edits(place.repo, before.get("checkout", {}))
    return _with_findings(audit, [*outside, *_late_edits(place, directory, job), *_fallen(directory)])


def _late_edits(place: Place, directory: Path, job: Job) -> list[Finding]:
    """Edits in workspaces of others that a worker in no sandbox may have made; a look that fails ends no job."""
    from worktrees.jobs import late_edits

    if (records.witness(directory, "worker.json") or {}).get("sandbox", "none") != "none":
        return []
    try:
        return late_edits.meanwhile(place, job, read_spec(directory).settings)
    except (WorktreesError, OSError):
        return []


def _not_only_read(changes: ChangeSet) -> Finding:
    """That a job which was to read has written, where no wall stood."""
    from worktrees.model import Finding

    message = f"the job was read-only and changed {len(changes.files)} files; no sandbox held it"
    return Finding(code="read-only-changed", path=changes.files[0].path, message=message)


def _with_findings(audit: Audit, findings: list[Finding]) -> Audit:
    if not findings:
        return audit
    return audit.model_copy(update={"clean": False, "findings": [*audit.findings, *findings]})


def _fallen(directory: Path) -> list[Finding]:
    """Walls that stood when they were probed and did not when the job started."""
    from worktrees.model import Finding

    worker = records.witness(directory, "worker.json") or {}
    message = f"`{{}}` did not start, so the sandbox of this job was: {worker.get('sandbox')}; see wt logs"
    return [Finding(code="sandbox-fell-back", message=message.format(level)) for level in worker.get("fallen", [])]


def _landings_since(state: State, stamp: str) -> set[Oid]:
    """Commits that operations of ours gave to refs while the job ran."""
    from worktrees.model import Oid

    found: set[Oid] = set()
    for number in reversed(state.operation_numbers()):
        record = records.witness(state.operations, state.operation_path(number).name) or {}
        if (record.get("finishedAt") or record.get("createdAt") or stamp) < stamp:
            break
        found.update(Oid(record[name]) for name in ("before", "after") if record.get(name))
    return found


# ---------------------------------------------------------------------------------------------------- events
def last_event(directory: Path) -> dict[str, Any] | None:
    """The last whole event of a job."""
    import json

    try:
        fd = os.open(directory / "events.jsonl", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        end = os.fstat(fd).st_size
        tail = b""
        while end and tail.count(b"\n") < 2:
            start = max(0, end - (1 << 16))
            tail = os.pread(fd, end - start, start) + tail
            end = start
    finally:
        os.close(fd)
    lines = tail.split(b"\n")[:-1]
    try:
        event = json.loads(lines[-1]) if lines else None
    except ValueError:  # a power cut tore it
        return None
    return event if isinstance(event, dict) else None


def has_final(directory: Path) -> bool:
    """Whether a job's events are complete."""
    return (last_event(directory) or {}).get("type") == "final"


def final_message(directory: Path) -> str | None:
    """A worker's last words, None while its events are not complete."""
    event = last_event(directory)
    return str(event["content"]) if event is not None and event["type"] == "final" else None


def run(directory: Path) -> dict[str, Any]:
    """What the dialect of an agent's output knows of its run: `session`, `usage`, `failure`; empty for other jobs."""
    return dict((last_event(directory) or {}).get("run") or {})


def end_events(directory: Path, reason: str) -> None:
    """The events of a job without a worker: the reason it has none, and the end."""
    path = directory / "events.jsonl"
    if has_final(directory):
        return
    if reason and last_event(directory) is None:
        append_line(path, {"type": "error", "content": reason, "timestamp": now(), "at": [0, 0]})
    append_line(path, {"type": "final", "content": "", "timestamp": now(), "at": [0, 0]})


# ---------------------------------------------------------------------------------------------------- afterwards
def _remove_temporary(place: Place, job: Job) -> None:
    if job.port is not None:
        from worktrees.setup import release_ports

        release_ports(place.state.root / "ports", job.job_id, job.port)
    temporary = temporary_directory(place, job)
    with contextlib.suppress(OSError):  # not there, or the worker left something
        temporary.rmdir()
    if os.path.lexists(temporary):
        from worktrees.isolation.trash import discard, sweep

        with contextlib.suppress(OSError):  # `doctor` tries again
            discard(place, temporary, place.root)
            sweep(place)
    with contextlib.suppress(OSError):  # others have theirs in it
        temporary.parent.rmdir()


def _clean(directory: Path) -> None:
    """Removes what only a live job needs; never fails, what cannot be removed is left."""
    log = directory / "supervisor.log"
    with contextlib.suppress(OSError):
        if log.stat().st_size == 0:
            log.unlink()
    for name in _PASSING:
        with contextlib.suppress(OSError):
            (directory / name).unlink()


def _admit_next(place: Place, directory: Path) -> None:
    from worktrees.jobs.admission import admit
    from worktrees.jobs.workflow import load_workflow
    from worktrees.model import WorkflowName

    with contextlib.suppress(WorktreesError, OSError):  # whoever looks next admits
        admit(place, load_workflow(place.state, WorkflowName(directory.parent.parent.name)))


def recorded_place(directory: Path) -> Place | None:
    """The place a job was submitted from, None when its record is gone because it is done."""
    from worktrees.git import ObjectStore, Repo
    from worktrees.isolation import Place

    told = read_spec(directory).place
    if not told:
        return None
    repo = Repo(
        common_dir=Path(told["commonDir"]),
        git_dir=Path(told["gitDir"]),
        work_tree=Path(told["workTree"]) if told["workTree"] is not None else None,
        object_format=told["objectFormat"],
        bare=told["bare"],
    )
    state = State(repo.common_dir)
    return Place(repo=repo, state=state, store=ObjectStore(state.store), root=Path(told["root"]))


def main() -> None:
    """The last stage of a supervisor: `JOB-DIRECTORY LOCK`."""
    gc.disable()  # nothing here is garbage before it ends
    directory, lock = Path(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(lock, False)
    place = recorded_place(directory)
    if place is None:
        return
    try:
        settle_held(place, directory, lock)
    except (WorktreesError, OSError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        sys.stderr.write(f"{now()} not settled: {error}{' (the disk is full)' if full else ''}\n")
    finally:
        os.close(lock)
        _admit_next(place, directory)


if __name__ == "__main__":
    main()
    gc.freeze()
