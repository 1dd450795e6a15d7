"""Which agent a job names, and how it is started: the steps of `spawn` before anything is made.

An agent's name means, in this order: one of the user's configuration file, one registered under `worktrees.agents`
(the built-in ones are), one of the repository's `.wt.toml`. The last runs a command that whoever can write the
repository wrote, so the user approves its exact text first, as with setup commands: `wt setup --approve`.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from worktrees import agents, config, setup
from worktrees.agents.custom import Custom
from worktrees.boss.judgement import unfinished
from worktrees.errors import Refused, Usage
from worktrees.jobs import looks, records
from worktrees.model import AgentProgram

if TYPE_CHECKING:
    from worktrees.agents import Agent, Invocation
    from worktrees.git import Repo
    from worktrees.model import Baseline, JobSpec
    from worktrees.store import State

_GO_ON = """\
Go on with this task where you were stopped. What you had changed so far is in your current directory, which is another
one than before; look at it first."""


def engage(repo: Repo, state: State, spec: JobSpec) -> tuple[JobSpec, Baseline | None, Invocation | None]:
    """The whole specification, where it starts if that is decided here, and how its agent is started if it has one.

    A job that resumes another has the baseline of that one, and its access, unless told otherwise its task, model,
    effort and arguments, too; the session of the program goes on, with the work as it was captured.

    Raises: as `_hire`; NotFound; Refused `job-unfinished`, `no-session`, `no-snapshot`.
    """
    if spec.resume is None:
        return spec, None, _hire(repo, spec)
    if spec.command is not None or spec.base is not None or spec.sparse:
        raise Usage("what is resumed has its command and its start", hint=f"wt spawn --resume {spec.resume} --task …")
    (old,) = records.resolve(state, [spec.resume])
    word = old.name or old.job_id
    if old.state != "done":
        raise unfinished(old, "it cannot be resumed")
    session = looks.run(state, old).get("session")
    if old.agent is None or session is None:
        raise Refused(
            f"`{word}` has no session that could go on",
            code="no-session",
            hint="only an agent that came to work has one; start anew: wt spawn --agent NAME --task …",
        )
    if old.snapshot is None:
        raise Refused(f"`{word}` has no snapshot to go on from", code="no-snapshot", hint=f"wt result {word}")
    if spec.agent not in (None, old.agent):
        raise Usage(f"`{word}` is a job of `{old.agent}`", hint=f"wt spawn --resume {word}")
    joined = None if records.is_closed(state, old.workflow_id) else old.workflow_id
    wish = spec.model_copy(
        update={
            "resume": old.job_id,
            "agent": old.agent,
            "task": spec.task or old.task,
            "access": old.access,
            "isolation": old.isolation,
            "model": spec.model or old.model,
            "effort": spec.effort or old.effort,
            "agent_arguments": spec.agent_arguments or old.agent_arguments,
            "workflow": spec.workflow or joined,
        }
    )
    return wish, old.baseline, _hire(repo, wish, session=session, new_task=spec.task is not None)


def _hire(repo: Repo, spec: JobSpec, *, session: str | None = None, new_task: bool = True) -> Invocation | None:
    """How the agent of a job is started; None for a job without one.

    Raises: Usage for an unknown agent and for wishes it cannot fulfil; PeerFailed `agent-not-found` where its program
    is missing; Refused `agent-not-approved`.
    """
    if spec.agent is None:
        for label, wish in (("model", spec.model), ("effort", spec.effort), ("agent arguments", spec.agent_arguments)):
            if wish:
                raise Usage(f"`{label}` is for a job with an agent", hint="wt spawn --agent NAME --task …")
        return None
    if spec.command is not None:
        raise Usage("a job has either a command or an agent", hint=f"wt spawn --agent {spec.agent} --task …")
    if spec.stdin is not None:
        raise Usage("an agent's standard input is its prompt", hint=f"wt spawn --agent {spec.agent} --task …")
    agent = _find(repo, spec.agent)
    order = agents.Order(
        task=(spec.task or "") if new_task else f"{_GO_ON}\n\n{spec.task}",
        access=spec.access,
        model=spec.model,
        effort=spec.effort,
        arguments=tuple(spec.agent_arguments),
        session=session,
    )
    if not (spec.task or "").strip():
        raise Usage(f"`{spec.agent}` was told nothing to do", hint=f"wt spawn --agent {spec.agent} --task …")
    if "\0" in order.task:
        raise Usage("the task holds a NUL byte", hint="take it out")
    invocation = agent.invocation(order)
    program = agents.find_program(agent, spec.environment.get("PATH", os.environ.get("PATH")))
    return invocation.started_as(program)


def names(repo: Repo) -> list[str]:
    """Every agent there is, sorted."""
    return sorted({*config.plugin_names("agents"), *(custom.name for custom, _ in _defined(repo))})


def known(repo: Repo) -> list[AgentProgram]:
    """Every agent with what is known of its program, by name."""
    defined = {(custom.name, is_repository): custom for custom, is_repository in _defined(repo)}
    found = []
    for name in names(repo):
        own, shipped = defined.get((name, False)), None
        if own is None:
            shipped = agents.built_in(name)
        agent: Agent = own or shipped or defined[name, True]
        path = shutil.which(agent.program)
        found.append(
            AgentProgram(
                name=name,
                program=agent.program,
                path=path,
                version=_npm_version(path) if path else None,
                source=agent.source if isinstance(agent, Custom) else "built in",
                own_sandbox=agent.own_sandbox,
                resumes=agent.resumes,
                approved=own is not None or shipped is not None or setup.is_approved(repo, defined[name, True].text),
            )
        )
    return found


def _npm_version(path: str) -> str | None:
    """The version of the npm package that a program belongs to; asking the program itself would start it."""
    for directory in list(Path(path).resolve().parents)[:4]:
        try:
            version = json.loads((directory / "package.json").read_text("utf-8"))["version"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return str(version)
    return None


def definitions_to_approve(repo: Repo) -> list[str]:
    """The agents of the repository file as lines of text."""
    return [custom.text for custom, is_repository in _defined(repo) if is_repository]


def _find(repo: Repo, name: str) -> Agent:
    defined = {(custom.name, is_repository): custom for custom, is_repository in _defined(repo)}
    found = defined.get((name, False)) or agents.built_in(name)
    if found is not None:
        return found
    custom = defined.get((name, True))
    if custom is None:
        known = names(repo)
        raise Usage(f"no agent `{name}`; there is: {', '.join(known)}", hint=f"pick one of: {', '.join(known)}")
    if not setup.is_approved(repo, custom.text):
        raise Refused(
            f"the agent `{name}` of {custom.source} waits for your approval: {custom.text}",
            code="agent-not-approved",
            hint="look at it, then run: wt setup --approve",
            details={"agent": name, "definition": custom.text},
        )
    return custom


def _defined(repo: Repo) -> list[tuple[Custom, bool]]:
    return [
        (Custom(name, table, f"`{path}`"), is_repository)
        for path, is_repository, tables in config.agent_tables(_repository_file(repo))
        for name, table in tables.items()
    ]


def _repository_file(repo: Repo) -> Path | None:
    return repo.main_work_tree / setup.SETUP_FILE if repo.main_work_tree else None
