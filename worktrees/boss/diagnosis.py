"""What `wt doctor` looks at beside operations, workspaces and unsettled jobs, which settle themselves.

Each look yields findings with what mends them, None where only a person can. Nothing that a worker wrote is removed:
what goes is what a dead process of ours left on its way (temporary files, locks, half-made records, refs of closed
workflows); what comes back is worked out anew from what is there (alternates, change sets, refs that hold a commit).
Neither gc nor prune is ever run, and what is somebody else's is only named.

A look that fails is itself a finding, and the others go on.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from worktrees import changes, config, isolation, jobs, landing, setup
from worktrees.errors import StateBroken, WorktreesError
from worktrees.git import refs
from worktrees.isolation import pool, trash
from worktrees.jobs import confinement, late_edits, liveness, records, removal
from worktrees.jobs.workflow import pins
from worktrees.landing import integration, log
from worktrees.model import ChangeSet, Diagnosis, Finding, Job, Operation, Workflow, WorkflowName
from worktrees.store import AliveLock, is_alive, read_json, start_ticks, write_json

if TYPE_CHECKING:
    from worktrees.config import Settings
    from worktrees.isolation import Place
    from worktrees.model import Oid
    from worktrees.store import State

Ailment: TypeAlias = tuple[Finding, Callable[[], object] | None]

# `.job.json.4711.0a1b2c3d.tmp`, `worker.json.4711.tmp`, `store.git.4711.0a1b2c3d.new`, `.desk-4711-x7k2`
_MAKER = re.compile(r"\.(\d+)(?:\.[0-9a-f]{8})?\.(?:tmp|new)$|^\.desk-(\d+)-")
# In a job's directory before it is on record; anything else there means that it once was.
_BEFORE_A_JOB = re.compile(r"(spec|again|report-schema|holder)\.json|stdin|alive|index.*|\..*\.tmp|\.desk-.*")
# With an empty record: what was made of it was never durable, so no worker was started.
_BEFORE_A_WORKER = re.compile(_BEFORE_A_JOB.pattern + r"|fingerprint\.json|provision\.json|lease\.json")
_LONG_SECONDS = 60.0
# Longer than any git of ours writes at one object or pack.
_HALF_WRITTEN_SECONDS = 3600.0
_GROUPS = ("isolation", "runner", "merge", "agents", "transport", "sandbox")


def diagnose(place: Place, settings: Settings, afterwards: Sequence[Callable[[], object]] | None) -> Diagnosis:
    """What is wrong; with `afterwards`, which is what the boss does when all is settled, it is mended first.

    What cannot be mended is in the answer's findings, with the reason. What can hold workers here is told beside them:
    that a level is missing is no ailment.
    """
    sandbox = confinement.report()
    try:
        if not place.state.exists():
            return Diagnosis(findings=[finding for finding, _ in _plugins(place)], sandbox=sandbox)
    except StateBroken as error:
        finding = Finding(code="state-broken", path=os.fspath(place.state.root / "format"), message=error.message)
        return Diagnosis(findings=[finding], sandbox=sandbox)
    if afterwards is None:
        return Diagnosis(findings=_look(place, settings), sandbox=sandbox)
    mended: list[Finding] = []
    stuck: list[Finding] = []
    # The store first, for nothing is captured without it.
    for step in (_mend_store, _settle, _mend, *(lambda _, act=act: act() or [] for act in afterwards)):
        try:
            mended += step(place)
        except (WorktreesError, OSError) as error:
            stuck.append(Finding(code="not-mended", message=_said(error)))
    return Diagnosis(findings=[*stuck, *_look(place, settings)], mended=mended, sandbox=sandbox)


def _settle(place: Place) -> list[Finding]:
    """What every command that changes something does first."""
    torn = [finding for finding, _ in _operations(place)]
    # Of one that had not begun to move anything, recovery has nothing to say.
    found = [*isolation.recover(place), *(landing.recover(place) or torn)]
    for job in jobs.reconcile(place):
        word = f"`{job.name or job.job_id}`"
        if job.result == "lost":
            found.append(Finding(code="job-lost", message=f"{word} lost its supervisor; what it wrote is captured"))
        elif job.state == "settling":
            continue  # it is named by the look that follows
        else:
            said = "was settled" if job.state == "done" else f"was abandoned and is {job.state} now"
            found.append(Finding(code="job-mended", message=f"{word} {said}"))
    return found


def _look(place: Place, settings: Settings) -> list[Finding]:
    """Everything that is wrong; changes nothing.

    What others are doing at this very moment can look like what a dead process left: only what is there at a second
    look is wrong.
    """
    found = _look_once(place)
    still = {(finding.code, finding.path) for finding in _look_once(place)} if found else set()
    confirmed = [finding for finding in found if (finding.code, finding.path) in still]
    try:
        return [*confirmed, *late_edits.named(place, settings)]
    except (WorktreesError, OSError) as error:
        return [*confirmed, Finding(code="look-failed", message=f"could not look for late edits: {_said(error)}")]


def _look_once(place: Place) -> list[Finding]:
    return [*(finding for finding, _ in _ailments(place)), *_of_workspaces(place, fix=False)]


def _mend(place: Place) -> list[Finding]:
    """Mends what can be mended and says what that was."""
    mended = [*_cured(_ailments(place)), *_of_workspaces(place, fix=True)]
    isolation.sweep(place)
    return mended


def _mend_store(place: Place) -> list[Finding]:
    return _cured(_store(place))


def _cured(ailments: Iterable[Ailment]) -> list[Finding]:
    mended = []
    for finding, cure in ailments:
        if cure is not None:
            with contextlib.suppress(WorktreesError, OSError):  # it is named again by the next look
                if cure() is not False:
                    mended.append(finding)
    return mended


def _said(error: Exception) -> str:
    return error.message if isinstance(error, WorktreesError) else str(error)


def _of_workspaces(place: Place, *, fix: bool) -> list[Finding]:
    everyone = jobs.load_all(place.state, closed=True)
    running = {job.job_id for job in everyone if job.state != "done"}.union(pool.in_use(place))
    starts = {job.job_id: job.baseline.commit for job in everyone}
    return isolation.doctor_findings(place, fix=fix, running=running, starts=starts)


def _ailments(place: Place) -> Iterator[Ailment]:
    looks_to_take = (
        _operations, _resolving, _unsettled, _store, _records, _snapshots, _half_made, _refs, _locks, _leftovers,
        _plugins,
    )  # fmt: skip
    for take in looks_to_take:
        try:
            # A list, because mending must not change what is still being looked at.
            yield from list(take(place))
        except (WorktreesError, OSError) as error:
            message = f"could not look at {take.__name__.strip('_')}: {_said(error)}"
            yield Finding(code="look-failed", message=message), None


# --------------------------------------------------------------------------------------------------------- unfinished
def _operations(place: Place) -> Iterator[Ailment]:
    for slot in log.unfinished(place.state):
        if not AliveLock(slot.lock).is_held():
            message = f"`{slot.operation_id}` was cut off; the next command that changes something settles it"
            yield Finding(code="operation-torn", path=os.fspath(slot.record), message=message), None


def _resolving(place: Place) -> Iterator[Ailment]:
    """A merge that waits for a conflict to be resolved by hand, or what a crash left of one."""
    where = integration.directory(place.state)
    if not where.is_dir():
        return
    merging = integration.load(place.state)
    if merging is not None and (merging.laid or merging.resolved):
        message = "a merge waits for a conflict to be resolved: wt merge --continue, or: wt merge --abort"
        path = integration.work_tree(place) if merging.laid else where
        yield Finding(code="merge-waits", path=os.fspath(path), message=message), None
    else:
        message = "a merge died before its conflict was laid out; the next command that changes something clears it"
        yield Finding(code="merge-torn", path=os.fspath(where), message=message), partial(_clear_torn, place)


def _clear_torn(place: Place) -> bool:
    with place.state.lock("merging", purpose="doctor", timeout_seconds=0.0):
        merging = integration.load(place.state)
        if merging is None or not (merging.laid or merging.resolved):
            integration.clear(place)
            return True
    return False


def _unsettled(place: Place) -> Iterator[Ailment]:
    for row in jobs.rows(place.state, closed=True):
        directory = place.state.job_dir(row["workflowId"], row["jobId"])
        if row["state"] not in ("starting", "running", "settling") or not liveness.is_abandoned(str(directory)):
            continue
        word = row["name"] or row["jobId"]
        if row["reason"]:
            yield Finding(code="not-captured", path=row["workspace"], message=f"`{word}`: {row['reason']}"), None
        else:
            message = f"`{word}` is {row['state']} and nobody is at work on it; the next command settles it"
            yield Finding(code="job-abandoned", path=os.fspath(directory), message=message), None


# --------------------------------------------------------------------------------------------------------- the store
def _store(place: Place) -> Iterator[Ailment]:
    if place.state.store.is_dir() or any(place.state.job_dirs()):
        for name, what in place.store.damage(place.repo).items():
            path = os.fspath(place.store.path / name)
            finding = Finding(code="store-damaged", path=path, message=f"`{name}` of wt's own store {what}")
            yield finding, partial(place.store.mend, place.repo, name)


def _snapshots(place: Place) -> Iterator[Ailment]:
    """Commits that records name and no ref holds: of jobs in wt's own store, of open workflows in the repository."""
    store, state = place.store, place.state
    wanted: dict[str, tuple[Oid, str]] = {}
    for name in state.workflow_names():
        for job in _jobs(state, name):
            if job.snapshot is not None:
                wanted[f"refs/wt/{name}/{job.job_id}"] = job.snapshot, job.name or job.job_id
    if wanted:
        stands = store.path.is_dir()
        held = store.refs("refs/wt") if stands else {}
        for ref, (commit, word) in wanted.items():
            if held.get(ref) is None:
                there = stands and store.git("cat-file", "-e", f"{commit}^{{tree}}", expect=None).status == 0
                message = f"nothing holds the snapshot {commit[:10]} of `{word}`" + (
                    "" if there else ", and it is gone"
                )
                cure = partial(store.set_ref, ref, commit, durable=True) if there else None
                yield Finding(code="snapshot-unheld" if there else "snapshot-missing", path=ref, message=message), cure
    for workflow in jobs.workflows(state):
        ref, commit = f"refs/wt/{workflow.workflow_id}/base", workflow.baseline.commit
        if place.repo.ref(ref) is None:
            there = place.repo.git("cat-file", "-e", f"{commit}^{{tree}}", expect=None).status == 0
            message = f"nothing holds the baseline {commit[:10]} of `{workflow.workflow_id}`"
            cure = partial(isolation.pin, place, ref, commit) if there else None
            yield Finding(code="baseline-unheld" if there else "baseline-missing", path=ref, message=message), cure


# --------------------------------------------------------------------------------------------------------- records
def _records(place: Place) -> Iterator[Ailment]:
    state = place.state
    for number in state.operation_numbers():
        path = state.operation_path(number)
        if (what := _wrong(path, Operation)) is not None:
            yield _damaged(path, what, "the operations before and after it count as before"), None
    for name in state.workflow_names():
        directory = state.workflow_dir(name)
        path = directory / "workflow.json"
        has_jobs = any(state.job_dirs(name))
        if path.exists():
            if (what := _wrong(path, Workflow)) is not None:
                yield (
                    _damaged(path, what, f"its jobs are left alone; their work is at `refs/wt/{name}` of wt's store"),
                    None,
                )
        elif has_jobs:
            yield _damaged(path, "is missing", f"the work of its jobs is at `refs/wt/{name}` of wt's store"), None
        elif not AliveLock(state.root / "locks" / f"workflow-{name}.lock").is_held():
            message = f"the workflow `{name}` was never opened: whoever was at it died"
            finding = Finding(code="half-made-workflow", path=os.fspath(directory), message=message)
            yield finding, partial(_discard_workflow, place, name)
        for job_directory in state.job_dirs(name):
            yield from _job_records(place, name, job_directory)


def _discard_workflow(place: Place, name: str) -> bool:
    if (place.state.workflow_dir(name) / "workflow.json").exists():
        return False
    removal.discard_empty(place, WorkflowName(name))
    return True


def _job_records(place: Place, name: str, directory: Path) -> Iterator[Ailment]:
    path = directory / "job.json"
    job_id = directory.name
    ref = f"refs/wt/{name}/{job_id}"
    if path.exists() and path.stat().st_size:
        if (what := _wrong(path, Job)) is not None:
            yield (
                _damaged(path, what, f"the job is left alone; its work is at `{ref}` of wt's store, if captured"),
                None,
            )
            return
    elif not _is_half_made(directory):
        yield _damaged(path, "is missing", f"its work is at `{ref}` of wt's store, if it was captured"), None
        return
    else:
        return
    changes_path = directory / "changes.json"
    job = Job.model_validate(read_json(path))
    if job.state == "done" and job.snapshot is not None and (what := _wrong(changes_path, ChangeSet)) is not None:
        there = place.store.ref(ref) is not None
        yield _damaged(changes_path, what, ""), partial(_work_out_anew, place, job) if there else None


def _work_out_anew(place: Place, job: Job) -> None:
    """The change set as the snapshot says it; what an audit had found stays in the job's record alone."""
    assert job.snapshot is not None  # noqa: S101 - the caller looked
    found = changes.change_set(place.store, job.job_id, job.baseline.start, job.snapshot)
    found = found.model_copy(update={"verified": job.verified is not False})
    write_json(place.state.job_dir(job.workflow_id, job.job_id) / "changes.json", found.dump(), durable=True)


def _wrong(path: Path, shape: Any) -> str | None:
    """What is wrong with a record, None when it is as it should be."""
    try:
        record = read_json(path)
        if record is None:
            return "is missing"
        shape.model_validate(record)
    except (StateBroken, ValueError):  # pydantic's errors are ValueErrors
        return "cannot be understood"
    return None


def _damaged(path: Path, what: str, consequence: str) -> Finding:
    message = f"`{path.name}` {what}" + (f"; {consequence}" if consequence else "")
    return Finding(code="record-damaged", path=os.fspath(path), message=message)


def _jobs(state: State, workflow: str) -> Iterator[Job]:
    for directory in state.job_dirs(workflow):
        with contextlib.suppress(StateBroken, ValueError):
            if record := read_json(directory / "job.json"):
                yield Job.model_validate(record)


# --------------------------------------------------------------------------------------------------------- half-made
def _is_half_made(directory: Path) -> bool:
    """Whether a job's directory holds nothing but what is there before the job is on record."""
    record = directory / "job.json"
    if record.exists() and record.stat().st_size:
        return False
    known = _BEFORE_A_WORKER if record.exists() else _BEFORE_A_JOB
    return all(known.fullmatch(name) for name in os.listdir(directory) if name != "job.json")


def _half_made(place: Place) -> Iterator[Ailment]:
    for directory in place.state.job_dirs():
        if _is_half_made(directory) and not AliveLock(directory / "alive").is_held():
            message = f"`{directory.name}` never came to be: whoever submitted it died"
            finding = Finding(code="half-made-job", path=os.fspath(directory), message=message)
            yield finding, partial(_discard_job, directory)


def _discard_job(directory: Path) -> bool:
    lock = AliveLock(directory / "alive").take()
    if lock is None:
        return False
    try:
        if not _is_half_made(directory):
            return False
        shutil.rmtree(directory)
    finally:
        os.close(lock)
    return True


# --------------------------------------------------------------------------------------------------------- refs, locks
def _refs(place: Place) -> Iterator[Ailment]:
    """Refs in the user's repository that no workflow needs any more."""
    state = place.state
    listed = place.repo.git("for-each-ref", "--format=%(refname)", "refs/wt").text.split()
    for ref in listed:
        _, _, name, *rest = ref.split("/")
        if not _needs(state, name, rest):
            finding = Finding(code="stale-ref", path=ref, message=f"`{ref}` is of no open workflow or job")
            yield finding, partial(_delete_ref, place, ref, name, rest)


def _needs(state: State, name: str, rest: list[str]) -> bool:
    path = state.workflow_dir(name) / "workflow.json"
    record = records.witness(path.parent, path.name) if path.exists() else None
    if path.exists() and (record is None or record.get("closedAt") is None):  # a damaged one may be open
        return rest == ["base"] or state.job_dir(name, "/".join(rest)).is_dir()
    kept = pins(name, [row for row, _ in records.stored(state, WorkflowName(name))])
    return "/".join(("refs/wt", name, *rest)) in kept


def _delete_ref(place: Place, ref: str, name: str, rest: list[str]) -> bool:
    with place.state.lock(f"workflow-{name}", purpose=f"delete {ref}"):
        if _needs(place.state, name, rest):
            return False
        place.repo.delete_ref(ref)
    return True


def _locks(place: Place) -> Iterator[Ailment]:
    """Locks that a killed git left: on refs of ours, and on what is the user's."""
    common = place.repo.common_dir
    ours = [*(common / "refs" / "wt").rglob("*.lock"), *place.store.path.glob("*.lock")]
    ours += (place.store.path / "refs").rglob("*.lock")
    for path in ours:
        finding = Finding(code="stale-lock", path=os.fspath(path), message="a git that was killed left its lock")
        yield finding, partial(_break, path)
    if refs.is_dead_packed(common):
        message = "a `wt` that was killed left its lock"
        finding = Finding(code="stale-lock", path=os.fspath(common / "packed-refs.lock"), message=message)
        yield finding, partial(refs.break_dead_packed, common)
    theirs = [*common.glob("*.lock"), *(common / "refs" / "heads").rglob("*.lock")]
    for path in theirs:
        with contextlib.suppress(OSError):
            seconds = time.time() - path.lstat().st_mtime
            if seconds > _LONG_SECONDS and not _is_of_an_operation(place, path):
                message = f"there for {seconds:.0f} s: a git is at work or died; when none runs any more: rm {path}"
                yield Finding(code="foreign-lock", path=os.fspath(path), message=message), None


def _break(path: Path) -> bool:
    return bool(refs.break_dead(path))


def _is_of_an_operation(place: Place, path: Path) -> bool:
    return any(slot.lock.exists() and os.path.samefile(slot.lock, path) for slot in log.unfinished(place.state))


# --------------------------------------------------------------------------------------------------------- left about
def _leftovers(place: Place) -> Iterator[Ailment]:
    """What dead processes of ours left on their way, and what outlived its job."""
    state = place.state
    for directory, names, files in os.walk(state.root):
        names[:] = [name for name in names if name not in ("objects", "trash")]
        for name in (*names, *files):
            match = _MAKER.search(name)
            path = Path(directory, name)
            # Asked for last: whoever was done with it in between has taken it away.
            if match and start_ticks(int(match[1] or match[2])) is None and os.path.lexists(path):
                yield _left(path, "a process that died left it"), partial(_remove, path)
        names[:] = [name for name in names if not _MAKER.search(name)]
    objects = state.store / "objects"
    for path in (*objects.glob("*/tmp_obj_*"), *objects.glob("tmp_obj_*"), *objects.glob("pack/tmp_*")):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.lstat().st_mtime > _HALF_WRITTEN_SECONDS:
                yield _left(path, "a git that was killed had not written it whole"), partial(_remove, path)
    for path in (state.root / "locks").glob("*.holder"):
        holder = _read(path)
        # Who lets go of a lock takes its name away first, and may have ended while we asked.
        if not is_alive(holder) and os.path.lexists(path) and _read(path) == holder:
            yield _left(path, "who held the lock has died"), partial(_release, state, path)
    # Read before the jobs, which are there before they claim and let go before they are done.
    ports, temporaries = _claims(state.root / "ports"), list((place.root / ".tmp").glob("j-*"))
    done = {
        directory.name for directory in state.job_dirs() if (_read(directory / "job.json") or {}).get("state") == "done"
    }
    alive = {directory.name for directory in state.job_dirs()} - done | {*pool.in_use(place)}
    for path, owner in ports.items():
        if owner not in alive and _claims(path.parent).get(path) == owner:
            yield _left(path, "its job is done"), partial(setup.release_ports, path.parent, owner, int(path.name))
    for path in temporaries:
        if path.name not in alive and os.path.lexists(path):
            yield _left(path, "its job is done"), partial(trash.discard, place, path, place.root)
    for path in trash.trashes(place):
        if time.time() - path.stat().st_mtime > _LONG_SECONDS and not trash.is_swept(path):
            yield _left(path, "what was removed is not deleted yet"), partial(isolation.sweep, place)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _left(path: Path, why: str) -> Finding:
    return Finding(code="left-behind", path=os.fspath(path), message=f"`{path.name}`: {why}")


def _claims(directory: Path) -> dict[Path, str]:
    """Which blocks of ports are claimed, and by which job."""
    found = {}
    for path in sorted(directory.glob("[0-9]*")):
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.read_text()
    return found


def _read(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(StateBroken):
        return read_json(path)
    return None


def _release(state: State, holder: Path) -> None:
    """Takes the lock and lets go of it, which is what its dead holder did not do."""
    with state.lock(holder.stem, purpose="wt doctor", timeout_seconds=0.1):
        pass


# --------------------------------------------------------------------------------------------------------- plugins
def _plugins(_: Place) -> Iterator[Ailment]:
    for kind in _GROUPS:
        for name in config.plugin_names(kind):
            try:
                config.plugin(kind, name)
            except WorktreesError as error:
                yield Finding(code="plugin-broken", path=f"{kind}:{name}", message=error.message), None
