"""Submitting jobs, and starting as many as may run.

A job is queued first, always. `admit` takes queued jobs in order of submission while a slot of their kind is free:
under the workflow lock it takes the job's `alive` lock and marks it `starting`; outside that lock the workspace is
made and the supervisor started, which inherits `alive`. So there is no moment at which a starting job looks dead, and
when its starter dies the lock is free and `reconcile` puts the job back into the queue.

A slot is held from `starting` until the exit record is there. Anybody may admit: the spawning command, the settling
stage of a job that ended, any command that reconciles.

Before the worker's program runs, in this order: workspace, setup, index and fingerprint of what capturing will trust,
private TMPDIR, hooks, lease, walls, launch record. What protection a job must have is asked before anything is made,
and again when it starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from worktrees import config
from worktrees.errors import Busy, NotFound, Refused, StateBroken, Usage, WorktreesError
from worktrees.jobs import again, confinement, holders, leases, records, requests, room, settlement, trust
from worktrees.jobs.workflow import load_workflow, rewrite
from worktrees.store import AliveLock, new_id, now, seconds_of, sync_file, timestamp, write_bytes, write_json

if TYPE_CHECKING:
    from typing import Any

    from worktrees.agents import Invocation
    from worktrees.config import Settings
    from worktrees.isolation import Isolation, Place, Workspace
    from worktrees.model import Baseline, Job, JobId, JobSpec, Oid, Workflow
    from worktrees.runner import Launch

_SCHEMA = "report-schema.json"
# Names are typed in shells and stand in commit messages and tables.
_NAME = re.compile(r"[^\s\x00-\x1f\x7f`'\"\\-][^\s\x00-\x1f\x7f`'\"\\]{0,99}")


# ---------------------------------------------------------------------------------------------------- submit
def submit(
    place: Place,
    workflow: Workflow,
    spec: JobSpec,
    settings: Settings,
    env: Mapping[str, str],
    *,
    baseline: Baseline | None = None,
    isolation: Isolation | None = None,
    agent: Invocation | None = None,
    rerun_of: JobId | None = None,
) -> Job:
    """Records a job: `queued` with a command, `open` (workspace made before it returns) without one. Starts nothing.

    `baseline` is the workflow's own unless the job has another base; `env` is the boss's environment, of which the
    worker gets what `guard` lets pass. `isolation` is that of an open job whose kind is told more than its name.
    `agent` is how the agent of the specification is started.
    Raises: Usage; Refused `name-taken`, `workflow-closed`, `disk-budget`; for an open job whatever making its workspace
    raises, and then there is no job.
    """
    from worktrees.model import Job, JobId

    _check(spec, agent)
    command = list(agent.argv) if agent is not None else spec.command
    confinement.check(place.state, spec, settings, agent)
    settings = confinement.wishes(settings, spec)
    if isolation is None and not config.plugin("isolation", spec.isolation).makes:
        raise Usage(f"no workspace of the kind `{spec.isolation}` can be made", hint="wt spawn --isolation worktree")
    name = workflow.workflow_id
    start = baseline or workflow.baseline
    if isolation is None:
        room.check(place, start, settings, sparse=spec.sparse)
    job_id, directory = _new_directory(place, workflow)
    job = Job(
        job_id=job_id,
        name=spec.name,
        workflow_id=name,
        task=spec.task,
        agent=spec.agent,
        model=spec.model,
        effort=spec.effort,
        agent_arguments=spec.agent_arguments,
        resumes=JobId(spec.resume) if spec.resume is not None else None,
        command=command,
        rerun_of=rerun_of,
        access=spec.access,
        isolation=spec.isolation,
        baseline=start,
        ttl_seconds=spec.ttl_seconds or settings.ttl_seconds,
        idle_seconds=spec.idle_seconds or settings.idle_seconds or (settings.agent_idle_seconds if agent else None),
        timeout_seconds=spec.timeout_seconds
        or settings.timeout_seconds
        or (settings.agent_timeout_seconds if agent else None),
        network=settings.network or command is None,
        created_at=now(),
    )
    alive = None
    try:
        # From the beginning: a directory without a record is what a dead submitter left, unless somebody holds this.
        alive = AliveLock(directory / "alive").take()
        _hold_start(place, job, workflow)
        _write_spec(place, directory, spec, settings, env, agent)
        if spec.holder_pid is not None:
            holders.note(directory, spec.holder_pid)
        if spec.request_key is not None:
            requests.note(place.state, spec.request_key, directory)
        with place.state.lock(
            f"workflow-{name}", purpose=f"submit {job_id}", timeout_seconds=settings.lock_timeout_seconds
        ):
            job = _in_line(place, job, settings)
            if command is None:
                job = records.changed(job, state="starting")
            records.write(directory, job, durable=True)
        if command is None:
            job = _open(place, job, directory, isolation)
    except BaseException:
        _forget(place, job, directory)
        raise
    finally:
        if alive is not None:
            os.close(alive)
    return records.load(place.state, job_id)


def _new_directory(place: Place, workflow: Workflow) -> tuple[JobId, Path]:
    """An id nobody has, taken by making its directory."""
    from worktrees.model import JobId

    while True:
        job_id = JobId(new_id("j"))
        directory = place.state.job_dir(workflow.workflow_id, job_id)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(parents=True, mode=0o700)
            return job_id, directory


def _check(spec: JobSpec, agent: Invocation | None) -> None:
    if spec.name is not None and (not _NAME.fullmatch(spec.name) or spec.name.startswith("j-")):
        raise Usage(
            f"`{spec.name}` is no name for a job",
            hint="100 characters at most, no blanks or quotes, not starting with `-` or `j-`",
        )
    if spec.command is not None and (not spec.command or not spec.command[0]):
        raise Usage("the command is empty", hint="wt spawn -- COMMAND …")
    if (spec.command is not None or agent is not None) and spec.holder_pid is not None:
        raise Usage("only an open job has a holder; a worker's ends with the worker", hint="wt spawn --help")
    if spec.command is None and spec.agent is not None and agent is None:
        raise Usage(f"no command is known for the agent `{spec.agent}`", hint="wt spawn -- COMMAND …")
    for word in [*(agent.argv if agent else spec.command or []), *spec.environment, *spec.environment.values()]:
        if "\0" in word:
            raise Usage(f"`{word.split(chr(0))[0]}…` holds a NUL byte", hint="take it out")
    for variable in spec.environment:
        if not variable or "=" in variable:
            raise Usage(f"`{variable}` is no name for a variable", hint="--env NAME=VALUE")
    if spec.stdin is not None and not os.path.isfile(spec.stdin):
        raise Usage(f"no file `{spec.stdin}` to feed the worker from", hint="name a file that exists")
    for label, seconds in (
        ("a lease", spec.ttl_seconds),
        ("a time-out", spec.timeout_seconds),
        ("an idle limit", spec.idle_seconds),
    ):
        leases.check_positive(label, seconds)


def _hold_start(place: Place, job: Job, workflow: Workflow) -> None:
    """Keeps the commits a job starts from, where the workflow's own baseline does not."""
    from worktrees.isolation import pin

    base = workflow.baseline.commit
    if job.baseline.commit != base and not place.repo.is_ancestor(job.baseline.commit, base):
        pin(place, f"refs/wt/{workflow.workflow_id}/{job.job_id}", job.baseline.commit)
    if job.baseline.snapshot is not None:
        place.store.set_ref(
            f"refs/wt/{workflow.workflow_id}/{job.job_id}-baseline", job.baseline.snapshot, durable=True
        )


def _write_spec(
    place: Place,
    directory: Path,
    spec: JobSpec,
    settings: Settings,
    env: Mapping[str, str],
    agent: Invocation | None,
) -> None:
    """What is needed when a slot frees, in whatever process that will be, even after a power cut."""
    from worktrees import guard

    has_stdin = spec.stdin is not None
    if spec.stdin is not None:
        shutil.copyfile(spec.stdin, directory / "stdin")
        sync_file(directory / "stdin")
    elif agent is not None and agent.stdin is not None:
        has_stdin = True
        write_bytes(directory / "stdin", agent.stdin.encode("utf-8", "surrogateescape"), durable=True)
    if agent is not None and agent.schema is not None:
        write_json(directory / _SCHEMA, dict(agent.schema), durable=True)
    repo = place.repo
    record = {
        "sparse": spec.sparse,
        "stdin": os.fspath(directory / "stdin") if has_stdin else None,
        "environment": guard.base_environment(env, spec.environment, settings.pass_environment),
        "continues": _continued(place, spec),
        "agent": {
            "dialect": agent.dialect,
            "values": dict(agent.values),
            "environment": dict(agent.environment),
            "ownSandbox": agent.own_sandbox,
        }
        if agent is not None
        else None,
        "settings": asdict(settings),
        "place": {
            "commonDir": os.fspath(repo.common_dir),
            "gitDir": os.fspath(repo.git_dir),
            "workTree": os.fspath(repo.work_tree) if repo.work_tree is not None else None,
            "objectFormat": repo.object_format,
            "bare": repo.bare,
            "root": os.fspath(place.root),
        },
    }
    # ASCII, because values that are not UTF-8 hold surrogates.
    write_bytes(directory / "spec.json", json.dumps(record).encode("ascii"), durable=True)
    again.keep(directory, spec)


def _continued(place: Place, spec: JobSpec) -> Oid | None:
    """The snapshot of the job that a job resumes, from which its workspace starts."""
    from worktrees.model import JobId

    return records.load(place.state, JobId(spec.resume)).snapshot if spec.resume is not None else None


def _in_line(place: Place, job: Job, settings: Settings) -> Job:
    """Gives a job its place in its workflow: a name nobody has, a time after everybody's. Under the workflow lock."""
    workflow = load_workflow(place.state, job.workflow_id)
    if workflow.closed_at is not None:
        raise Refused(
            f"the workflow `{job.workflow_id}` is closed",
            code="workflow-closed",
            hint="wt spawn again: it opens a new one",
        )
    others = [record for record, _ in records.stored(place.state, job.workflow_id)]
    taken = next(
        (record for record in others if job.name and record["name"] == job.name and not record["droppedBy"]), None
    )
    if taken is not None:
        raise Refused(
            f"the name `{job.name}` is taken by {taken['jobId']}",
            code="name-taken",
            hint="pick another name, or: wt drop " + str(job.name),
        )
    latest = max((record["createdAt"] for record in others), default="")
    if job.created_at <= latest:  # the same millisecond, or a clock set back
        job = records.changed(job, created_at=timestamp(seconds_of(latest) + 0.0015))
    if (workflow.k_read, workflow.k_write) != (settings.k_read, settings.k_write):
        rewrite(place.state, workflow, k_read=settings.k_read, k_write=settings.k_write)
    return job


def _open(place: Place, job: Job, directory: Path, isolation: Isolation | None) -> Job:
    spec = settlement.read_spec(directory)
    workspace, _ = _make_workspace(place, job, directory, spec, isolation)
    port = _claim_ports(place, job, spec.settings)
    leases.grant(directory, job.ttl_seconds)
    with place.state.lock(f"workflow-{job.workflow_id}", purpose=f"open {job.job_id}"):
        opened = records.changed(job, state="open", workspace=os.fspath(workspace.path), started_at=now(), port=port)
        records.write(directory, opened, durable=True)
    return opened


def _forget(place: Place, job: Job, directory: Path) -> None:
    """Takes back a job that never came to be."""
    with contextlib.suppress(WorktreesError, OSError):
        take_back(place, job)
    with contextlib.suppress(OSError):  # first the record: without it there is no job
        os.unlink(directory / "job.json")
    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(WorktreesError, OSError):
        place.repo.delete_ref(f"refs/wt/{job.workflow_id}/{job.job_id}")


# ---------------------------------------------------------------------------------------------------- admit
def admit(place: Place, workflow: Workflow) -> list[Job]:
    """Starts queued jobs while slots are free; returns what was started or failed to start."""
    trust.review(place)
    started: list[Job] = []
    while picked := _pick(place, workflow):
        failed = False
        try:
            while picked:
                job, alive = picked.pop(0)
                started.append(_launch(place, job, alive))
                failed |= started[-1].state == "done"
        except Busy:
            return started  # somebody holds the repository for long; the queue goes on with whoever looks next
        finally:
            for _, alive in picked:  # we were interrupted; `reconcile` queues them again
                os.close(alive)
        if not failed:
            break
    return started


def _pick(place: Place, workflow: Workflow) -> list[tuple[Job, int]]:
    """Marks as many queued jobs as have a slot; each with its `alive` lock, held."""
    state = place.state
    name = workflow.workflow_id
    if not any(record["state"] == "queued" for record, _ in records.stored(state, name)):
        return []
    picked = []
    with state.lock(f"workflow-{name}", purpose="admit queued jobs"):
        limits = load_workflow(state, name)
        mine = sorted(records.stored(state, name), key=lambda pair: (pair[0]["createdAt"], pair[0]["jobId"]))
        free = {"read": limits.k_read or len(mine), "write": limits.k_write or len(mine)}
        for record, directory in mine:
            if record["state"] == "starting" and not os.path.exists(f"{directory}/exit.json"):
                free[records.slot(record)] -= 1
        for record, directory in mine:
            kind = records.slot(record)
            if record["state"] != "queued" or free[kind] <= 0:
                continue
            alive = AliveLock(Path(directory) / "alive").take()
            if alive is None:
                continue
            job = records.changed(records.decided(Path(directory)), state="starting")
            records.write(Path(directory), job, durable=True)
            picked.append((job, alive))
            free[kind] -= 1
    return picked


def _launch(place: Place, job: Job, alive: int) -> Job:
    """Makes the workspace and starts the supervisor; what goes wrong becomes the job's result.

    Raises: Busy, and the job is queued again.
    """
    from worktrees.runner import LocalRunner

    directory = place.state.job_dir(job.workflow_id, job.job_id)
    try:
        LocalRunner().start(directory, _prepare(place, job, directory), alive=alive)
    except Busy:
        requeue(place, directory)
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the job ends with it and not the command
        if has_run(directory):
            settlement.settle_held(place, directory, alive)
        else:
            with contextlib.suppress(WorktreesError, OSError):
                take_back(place, job)
            with place.state.lock(f"workflow-{job.workflow_id}", purpose=f"end {job.job_id}"):
                settlement.refuse(place, directory, _said(error))
    finally:
        os.close(alive)
    return records.load(place.state, job.job_id)


def has_run(directory: Path) -> bool:
    """Whether a supervisor came to be, and so perhaps a worker."""
    return any(os.path.exists(directory / name) for name in ("supervisor.json", "worker.json", "exit.json"))


def _said(error: Exception) -> str:
    return error.message if isinstance(error, WorktreesError) else f"{type(error).__name__}: {error}"


def _prepare(place: Place, job: Job, directory: Path) -> Launch:
    from worktrees import guard, setup
    from worktrees.runner import Launch

    if records.witness(directory, "spec.json") is None:
        name = job.name or job.job_id
        raise StateBroken(f"what was asked of `{name}` is not on record any more", hint="spawn it again")
    spec = settlement.read_spec(directory)
    workspace, isolation = _make_workspace(place, job, directory, spec)
    port = _claim_ports(place, job, spec.settings)
    with place.state.lock(f"workflow-{job.workflow_id}", purpose=f"start {job.job_id}"):
        made = records.changed(records.decided(directory), workspace=os.fspath(workspace.path), port=port)
        records.write(directory, made, durable=True)  # whatever a worker does after this has a record
    temporary = settlement.temporary_directory(place, job)
    while not temporary.is_dir():
        with contextlib.suppress(FileNotFoundError):  # the last job's end took the directory of all away just now
            temporary.mkdir(parents=True, exist_ok=True, mode=0o700)
    env = guard.arm(
        spec.environment,
        job=job.job_id,
        workflow=job.workflow_id,
        workspace=workspace.path,
        temporary=temporary,
        common_dir=place.repo.common_dir,
        hooks=guard.install_hooks(place.state.root),
    )
    if port is not None:
        env.update(WT_PORT=str(port), WT_PORT_COUNT=str(spec.settings.port_count))
    leases.grant(directory, job.ttl_seconds)
    words = _fill(job, directory, workspace, spec.agent, env) if spec.agent else job.command or []
    commands = setup.commands_to_run(place.repo, spec.settings)[0] if job.access != "read-only" else []
    argv = setup.with_setup(words, commands)
    nests = bool(spec.agent.get("ownSandbox"))
    walls = confinement.walls(place, job, spec.settings, workspace.path, temporary, env, nests=nests)
    env.update(walls.environment)
    return Launch(
        argv=[*isolation.enter(workspace), *argv],
        env=env,
        cwd=os.fspath(workspace.path),
        stdin=spec.stdin,
        grace_seconds=spec.settings.grace_seconds,
        idle_seconds=job.idle_seconds,
        timeout_seconds=job.timeout_seconds,
        settle=settling_program(directory),
        walls=walls.levels,
        dialect=spec.agent.get("dialect"),
    )


def _fill(job: Job, directory: Path, workspace: Workspace, agent: Mapping[str, Any], env: dict[str, str]) -> list[str]:
    """The words of an agent's command, placeholders filled; variables the agent wants are set unless the caller did."""
    from worktrees import agents

    known = {"workspace": os.fspath(workspace.path), "job": job.job_id, "schema": os.fspath(directory / _SCHEMA)}
    values = {**agent["values"], **known}
    for name, value in agent["environment"].items():
        env.setdefault(name, agents.fill(value, values))
    return [agents.fill(word, values) for word in job.command or []]


def environment(place: Place, job: Job, inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables that make a process the worker of an open job, on top of those it has."""
    from worktrees import guard
    from worktrees.isolation import workspace_of

    workspace = workspace_of(place, job.job_id)
    found = guard.mark(
        job=job.job_id,
        workflow=job.workflow_id,
        workspace=workspace.path if workspace else Path(job.workspace or ""),
        common_dir=place.repo.common_dir,
        hooks=guard.install_hooks(place.state.root),
        inherited=inherited,
    )
    if job.port is not None:
        settings = settlement.read_spec(place.state.job_dir(job.workflow_id, job.job_id)).settings
        found.update(WT_PORT=str(job.port), WT_PORT_COUNT=str(settings.port_count))
    return found


def settling_program(directory: Path) -> list[str]:
    """What a supervisor becomes when its worker is dead."""
    return [sys.executable, "-P", "-m", "worktrees.jobs.settlement", os.fspath(directory)]


def _make_workspace(
    place: Place, job: Job, directory: Path, spec: settlement.Spec, isolation: Isolation | None = None
) -> tuple[Workspace, Isolation]:
    """A workspace ready for its worker, and on record what its capture will trust. Whole or not at all.

    In one that somebody else made nothing is overwritten. What stands there uncommitted is the job's work, as is what
    the job that it resumes had done.
    """
    from worktrees import changes, setup

    isolation = isolation or config.plugin("isolation", job.isolation)()
    if isolation.makes:
        room.check(place, job.baseline, spec.settings, sparse=spec.sparse, starting=job)
    seed = directory / "index.seed"
    start = job.baseline.model_copy(update={"snapshot": spec.continues}) if spec.continues else job.baseline
    workspace = isolation.open(place, job.job_id, start, sparse=spec.sparse, index=seed)
    is_new = isolation.makes and spec.continues is None
    try:
        head = job.baseline.commit if isolation.makes else place.repo.at(workspace.path).head().commit
        commit = head or job.baseline.commit
        provision = setup.provide(place.repo, workspace.path, commit, spec.settings, fresh=is_new)
        _, unapproved = setup.commands_to_run(place.repo, spec.settings) if job.command else ([], [])
        write_json(directory / "provision.json", {**provision.dump(), "unapproved": unapproved})
        changes.prime(
            place.store,
            place.repo,
            workspace.path,
            job.baseline,
            directory / "index",
            seed=seed if spec.continues is None and seed.exists() else None,
            brought=None if is_new else provision.paths,
        )
        fingerprint = changes.fingerprint(place.repo, workspace.path, workspace.git_dir)
        # Paths may hold surrogates, which only ASCII can say.
        fingerprint["checkout"] = changes.checkout_fingerprint(place.repo)
        write_bytes(directory / "fingerprint.json", json.dumps(fingerprint).encode("ascii"))
    except BaseException:
        isolation.close(place, workspace)
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            seed.unlink()
    return workspace, isolation


def _claim_ports(place: Place, job: Job, settings: Settings) -> int | None:
    """The first of a block of ports that is the job's own until it is done."""
    from worktrees import setup

    def is_live(holder: str) -> bool:
        try:
            record = records.witness(place.state.find_job_dir(holder), "job.json")
        except NotFound:
            return False
        return record is not None and record["state"] != "done"

    if settings.port_count == 0:
        return None
    place_of_claims = place.state.root / "ports"
    return setup.claim_ports(place_of_claims, job.job_id, settings.port_first, settings.port_count, is_live=is_live)


def take_back(place: Place, job: Job) -> None:
    """Takes away a workspace in which no worker ever ran, or what a dead process made of it so far."""
    from worktrees.isolation import recover, workspace_of

    recover(place)
    workspace = workspace_of(place, job.job_id)
    if workspace is not None:
        isolation: Isolation = config.plugin("isolation", job.isolation)()
        isolation.close(place, workspace)


def requeue(place: Place, directory: Path) -> Job | None:
    """Puts a job back whose starter gave up or died before anything could run; the caller holds `alive`."""
    stored = records.as_stored(directory)
    if stored is None:
        return None
    take_back(place, stored)
    with place.state.lock(f"workflow-{stored.workflow_id}", purpose=f"queue {stored.job_id} again"):
        queued = records.changed(stored, state="queued", workspace=None)
        records.write(directory, queued, durable=True)
    return queued
