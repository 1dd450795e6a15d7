"""The walls of one job: what it may see and write, from where its things are.

A worker may write its workspace (unless it is read-only), its private TMPDIR, a cache that only workers share, the
places the setting `sandbox_writable` names and, when it is an agent program, that program's own directories. It sees
its own record and no other job's. Setup commands run as the worker and so behind the same walls; in a read-only job
none run, since all they could do is refused.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from worktrees import sandbox
from worktrees.errors import Usage
from worktrees.isolation.place import private_repository

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from worktrees.agents import Invocation
    from worktrees.config import Settings
    from worktrees.isolation import Place
    from worktrees.model import Job, JobSpec, SandboxLevel
    from worktrees.sandbox import Confinement, Levels
    from worktrees.store import State


def levels(state: State) -> Levels:
    """What walls this machine can put up; probed once, then read."""
    return sandbox.probe(state.root / "sandbox.json")


def report() -> list[SandboxLevel]:
    """What walls can be put up, looked at anew, the strongest first; of those for other systems nothing is said."""
    from worktrees.model import SandboxLevel

    found = sandbox.probe(None)
    told = []
    for level in sandbox.LEVELS:
        stands = level in found.available
        if level == "none" or not (stands or level in found.why_not):
            continue
        lacks = None if not stands or found.cuts(level) else "it cannot cut the network"
        told.append(SandboxLevel(level=level, available=stands, reason=found.why_not.get(level) or lacks))
    return told


def unprotected(state: State, settings: Settings, jobs: Iterable[Job]) -> str | None:
    """What to say when some of these jobs run behind no wall although nobody wanted that."""
    bare = [job for job in jobs if job.command and job.sandbox == "none" and job.state not in ("queued", "starting")]
    # One that could not start ran nothing.
    bare = [job for job in bare if job.access != "danger-full-access" and (job.started_at or job.state != "done")]
    if not bare or settings.sandbox == "none":
        return None
    why = "; ".join(f"{level}: {reason}" for level, reason in levels(state).why_not.items()) or "see wt logs"
    return f"no sandbox holds `{bare[0].name or bare[0].job_id}` ({why}); edits outside its workspace are only reported"


def wishes(settings: Settings, spec: JobSpec) -> Settings:
    """The settings with what the call asks of the sandbox of one job; a requirement can only be added."""
    return replace(
        settings,
        sandbox=spec.sandbox or settings.sandbox,
        require_sandbox=settings.require_sandbox or spec.require_sandbox,
        network=settings.network and spec.network,
    )


def check(state: State, spec: JobSpec, settings: Settings, agent: Invocation | None) -> None:
    """Refuses a job that could only run with less protection than it must have; costs nothing when all is allowed.

    `agent` is how the agent of the specification is started, None for a job without one.
    Raises: Usage; Refused `sandbox-unavailable`.
    """
    if agent is None and spec.command is None:
        if spec.sandbox or spec.require_sandbox or not spec.network:
            raise Usage("an open workspace has no command to put into a sandbox", hint="wt spawn -- COMMAND …")
    else:
        nests = agent.own_sandbox if agent else sandbox.needs_of(None, spec.command or [], {}).nests
        _chosen(state, wishes(settings, spec), spec.access, nests)


def _chosen(state: State, settings: Settings, access: str, nests: bool) -> tuple[list[str], Levels]:  # noqa: FBT001
    found = sandbox.Levels() if settings.sandbox == "none" else levels(state)
    chosen = sandbox.choose(
        found,
        settings.sandbox,
        required=settings.require_sandbox,
        access=access,
        network=settings.network,
        nests=nests,
    )
    return chosen, found


@dataclass(frozen=True, slots=True)
class Walls:
    """Levels with the words that put them up, in the order to try them, and the variables that go with them."""

    levels: Sequence[tuple[str, Sequence[str]]]
    environment: Mapping[str, str]


def walls(
    place: Place,
    job: Job,
    settings: Settings,
    workspace: Path,
    temporary: Path,
    environment: Mapping[str, str],
    *,
    nests: bool = False,
) -> Walls:
    """What a job is started behind; with `nests` its agent confines itself. Raises: Refused `sandbox-unavailable`."""
    command = job.command or []
    needs = sandbox.needs_of(job.agent, command, environment)
    chosen, found = _chosen(place.state, settings, job.access, nests or needs.nests)
    if chosen == ["none"]:
        return Walls([("none", ())], {})
    cache = temporary / "cache" if job.access == "read-only" else _cache(place, environment)
    added = sandbox.tool_caches(os.fspath(cache), environment) if cache is not None else {}
    confinement = _confinement(place, job, settings, workspace, temporary, environment)
    confinement = replace(
        confinement,
        writable=[*_made(needs.writable), *confinement.writable, *([cache] if cache is not None else [])],
        kept=[*confinement.kept, *needs.kept],
    )
    return Walls([(level, sandbox.wall(level, found, confinement, environment)) for level in chosen], added)


def _confinement(
    place: Place, job: Job, settings: Settings, workspace: Path, temporary: Path, environment: Mapping[str, str]
) -> Confinement:
    repo, state = place.repo, place.state
    workflow = state.workflows / job.workflow_id
    # One of its own may be written, read-only access or not: nothing of it is anybody's work.
    own = [private_repository(workspace)] if job.isolation == "private" else []
    ours = [path for path in (repo.work_tree, repo.main_work_tree, repo.common_dir, place.root) if path is not None]
    return sandbox.Confinement(
        workspace=workspace,
        temporary=temporary,
        access=job.access,
        network=settings.network,
        visible=ours,
        empty=[state.workflows, state.root / "locks"],
        shown=[state.job_dir(job.workflow_id, job.job_id), workflow / "workflow.json", workflow / "board"],
        writable=[
            *own,
            *_named(settings, environment),
        ],
        kept=ours,
        kept_files=[repository / "config" for repository in own],
    )


def _named(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """The places the user lets workers write, `~` being the home that they have."""
    home = environment.get("HOME") or "/"
    return [
        os.path.join(home, path.removeprefix("~").lstrip("/")) if path.startswith("~") else path
        for path in settings.sandbox_writable
    ]


def _cache(place: Place, environment: Mapping[str, str]) -> Path | None:
    """Where the workers of a repository keep what their package managers fetch; None where there is no home."""
    from pathlib import Path

    home = environment.get("XDG_CACHE_HOME") or (f"{environment['HOME']}/.cache" if environment.get("HOME") else "")
    if not home.startswith("/"):
        return None
    name = hashlib.sha256(os.fsencode(place.repo.common_dir)).hexdigest()[:12]
    cache = Path(home) / "wt" / "workers" / name
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return None
    return cache


def _made(directories: Sequence[str]) -> Sequence[str]:
    """Directories an agent program would make on its first run, which it cannot behind a wall."""
    for path in directories:
        if not os.path.splitext(path)[1]:
            with suppress(OSError):
                os.makedirs(path, mode=0o700, exist_ok=True)
    return directories


def wrapped(
    place: Place,
    argv: Sequence[str],
    *,
    workspace: Path,
    temporary: Path,
    settings: Settings,
    environment: Mapping[str, str],
) -> tuple[list[str], dict[str, str]]:
    """Any other program that runs what a worker wrote (a check, say) behind the strongest wall there is.

    Its directory is `workspace`, which it may write, like `temporary` and the workers' cache; it sees no job's record.
    Returns the words to run and the environment; exit statuses as in a shell.

    Raises: Usage; Refused `sandbox-unavailable`.
    """
    (level, *_), found = _chosen(place.state, settings, "workspace-write", nests=False)
    if level == "none":
        return list(argv), dict(environment)
    repo = place.repo
    cache = _cache(place, environment)
    ours = [path for path in (repo.work_tree, repo.main_work_tree, repo.common_dir, place.root) if path is not None]
    confinement = sandbox.Confinement(
        workspace=workspace,
        temporary=temporary,
        network=settings.network,
        visible=ours,
        empty=[place.state.workflows, place.state.root / "locks"],
        writable=[*_named(settings, environment), *([cache] if cache is not None else [])],
        kept=ours,
    )
    added = sandbox.tool_caches(os.fspath(cache), environment) if cache is not None else {}
    return sandbox.wrapped(argv, level, found, confinement, environment), {**environment, **added}


def level(state: State, settings: Settings) -> str:
    """The wall that such a program is put behind. Raises: Usage; Refused `sandbox-unavailable`."""
    return _chosen(state, settings, "workspace-write", nests=False)[0][0]
