"""`wt spawn`: words to job specifications."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from worktrees.cli.options import AGENT, DURATION, JOB, verb
from worktrees.errors import HonestNo, Usage
from worktrees.model import Access, DirtyPolicy
from worktrees.render.text import counted, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worktrees.cli.session import Session
    from worktrees.model import JobSpec

_MOST = 10_000


@verb(
    "spawn",
    examples="""
    wt spawn -- make test
    wt spawn --agent codex --name parser --task "make the parser accept tabs"
    wt spawn --agent claude --access read-only --task-file audit.md --model opus
    wt spawn --resume parser --task "accept form feeds, too"
    wt spawn --name audit --ttl 30m -- ./agent.sh "audit the parser"
    wt spawn --name mine                        a workspace for yourself; end it with: wt settle mine
    wt spawn --count 8 --name fuzz -- ./fuzz.sh
    wt spawn --require-sandbox --no-network -- ./untrusted.sh
    wt spawn --from-file jobs.jsonl             one JSON object a line: {"name": …, "agent": …, "task": …}
    """,
    allow_interspersed_args=False,
)
@click.option("--name", metavar="NAME", help="What to call the job; unique among those of the workflow.")
@click.option("--task", metavar="TEXT", help="What the worker is asked to do.")
@click.option(
    "--task-file", metavar="FILE", type=click.Path(dir_okay=False), help="Read the task from FILE (`-`: stdin)."
)
@click.option("--agent", metavar="NAME", type=AGENT, help="Start an agent program with the task; see: wt agents.")
@click.option("--resume", metavar="JOB", type=JOB, help="Go on with an agent's job that was stopped, in a new one.")
@click.option("--model", metavar="MODEL", help="The agent's model.")
@click.option("--effort", metavar="LEVEL", help="How hard its model is to think, in the program's own words.")
@click.option(
    "--agent-arg", "agent_arguments", metavar="WORD", multiple=True, help="One more word for its program; repeatable."
)
@click.option(
    "--access",
    type=click.Choice(get_args(Access)),
    default="workspace-write",
    show_default=True,
    help="What the worker may do.",
)
@click.option("--sandbox", metavar="LEVEL", help="auto, bubblewrap, landlock or none (default: the setting, auto).")
@click.option("--require-sandbox", is_flag=True, help="Refuse to start a worker that no sandbox would hold.")
@click.option("--no-network", is_flag=True, help="Cut the worker's network; refused where nothing can.")
@click.option(
    "--isolation",
    metavar="KIND",
    help="Kind of workspace: worktree (the default), or private, with a repository of its own that it may commit to.",
)
@click.option("--base", metavar="REV", help="Where to start (default: HEAD).")
@click.option(
    "--dirty",
    type=click.Choice(get_args(DirtyPolicy)),
    help="Uncommitted edits: refuse, leave out, carry over (default: the setting, ignore).",
)
@click.option("--workflow", metavar="W", help="Join the open workflow W, or open one of that name.")
@click.option("--ttl", type=DURATION, help="End the job when its lease runs out, such as 30m.")
@click.option("--idle", type=DURATION, help="End the job after this long without output.")
@click.option("--timeout", type=DURATION, help="End the job after this long on the clock.")
@click.option("--sparse", metavar="PATH", multiple=True, help="Check out only PATH; may be repeated.")
@click.option(
    "--env", "environment", metavar="K=V", multiple=True, help="Set a variable for the worker; may be repeated."
)
@click.option("--count", type=click.IntRange(1, _MOST), help="Make N of them, named NAME-1 to NAME-N.")
@click.option(
    "--from-file", metavar="JOBS.jsonl", type=click.Path(dir_okay=False), help="Read jobs from a file (`-`: stdin)."
)
@click.argument("command", nargs=-1, metavar="[-- CMD...]")
def spawn(session: Session, command: tuple[str, ...], count: int | None, from_file: str | None, **words: Any) -> int:
    """Run a command in a fresh workspace, or open one for yourself.

    Returns at once; the worker runs on by itself, also when this terminal closes. With `--agent` the command is that of
    an agent program, which is told the task. Without either the workspace is for the caller, who ends it with
    `wt settle`.
    """
    wishes = _wishes(words)
    if from_file is not None:
        if command or count:
            raise Usage("`--from-file` goes without a command and without `--count`", hint="wt spawn --help")
        specs = list(_read_jobs(from_file, wishes))
    else:
        specs = list(_copies({**wishes, "command": list(command) or None}, count))
    boss = session.boss()
    with session.progress("spawning", len(specs)) as progress:
        spawned = boss.spawn_many(specs, progress=progress)
    error = None
    if spawned.failures:
        first = spawned.failures[0]
        error = HonestNo(
            f"{counted(len(spawned.failures), 'job')} of {len(specs)} could not be made: {first.message}",
            code=first.code,
            hint=first.hint or "wt list",
            details={"failures": [failure.dump() for failure in spawned.failures]},
        )
    elif dead := [job for job in spawned.jobs if job.state == "done" and job.started_at is None]:
        word = dead[0].name or dead[0].job_id
        error = HonestNo(
            f"{listed([job.name or job.job_id for job in dead])} could not start: {dead[0].reason}",
            hint=f"wt result {word}",
            details={"jobs": [job.job_id for job in dead]},
        )
    if session.json:
        return session.answer(spawned, error=error)
    from worktrees.render.answers import spawned_text

    return session.answer(spawned, spawned_text(spawned, session.out), error=error)


def _wishes(words: dict[str, Any]) -> dict[str, Any]:
    """The options as fields of a job specification."""
    if words["task"] is not None and words["task_file"] is not None:
        raise Usage("`--task` and `--task-file` exclude each other", hint="wt spawn --help")
    task = words["task"] if words["task_file"] is None else _read(words["task_file"], "--task-file").strip()
    environment = {}
    for word in words["environment"]:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise Usage(f"`{word}` is not of the form NAME=VALUE", hint="wt spawn --env NAME=VALUE -- COMMAND")
        environment[name] = value
    wishes = {
        "name": words["name"],
        "task": task,
        "agent": words["agent"],
        "resume": words["resume"],
        "model": words["model"],
        "effort": words["effort"],
        "agent_arguments": list(words["agent_arguments"]),
        "access": words["access"],
        "sandbox": words["sandbox"],
        "require_sandbox": words["require_sandbox"],
        "network": not words["no_network"],
        "isolation": words["isolation"],
        "base": words["base"],
        "dirty": words["dirty"],
        "workflow": words["workflow"],
        "ttl_seconds": words["ttl"],
        "idle_seconds": words["idle"],
        "timeout_seconds": words["timeout"],
        "environment": environment,
        "sparse": list(words["sparse"]),
    }
    return {name: value for name, value in wishes.items() if value is not None}


def _read(path: str, option: str) -> str:
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return content.decode()
    except OSError as error:
        raise Usage(
            f"cannot read `{path}` of `{option}`: {(error.strerror or '').lower()}", hint=f"ls -l {path}"
        ) from error
    except UnicodeDecodeError as error:
        raise Usage(f"`{path}` of `{option}` is not UTF-8", hint=f"file {path}") from error


def _copies(wishes: dict[str, Any], count: int | None) -> Iterator[JobSpec]:
    from worktrees.model import JobSpec

    if count is None:
        yield JobSpec(**wishes)
        return
    name = wishes.get("name")
    for number in range(1, count + 1):
        yield JobSpec(**{**wishes, "name": f"{name}-{number}" if name else None})


def _read_jobs(path: str, defaults: dict[str, Any]) -> Iterator[JobSpec]:
    """Jobs of a file, one JSON object a line, on top of the options of the call."""
    from pydantic import ValidationError

    from worktrees.model import JobSpec

    known = {field.alias or name: name for name, field in JobSpec.model_fields.items()}
    seen = 0
    for number, line in enumerate(_read(path, "--from-file").splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number} of `{path}`"
        try:
            values = json.loads(line)
        except ValueError as error:
            raise Usage(f"{where} is not JSON: {error}", hint="one JSON object a line") from error
        if not isinstance(values, dict):
            raise Usage(f"{where} is not a JSON object", hint='{"name": "a", "command": ["make", "test"]}')
        strange = [key for key in values if key not in known]
        if strange:
            raise Usage(f"{where} has unknown fields: {listed(strange)}", hint=f"use some of: {', '.join(known)}")
        try:
            yield JobSpec(**{**defaults, **{known[key]: value for key, value in values.items()}})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise Usage(f"{where}: `{place}`: {first['msg'].lower()}", hint="wt schema") from error
        seen += 1
        if seen > _MOST:
            raise Usage(f"`{path}` holds more than {_MOST} jobs", hint="split it")
    if not seen:
        raise Usage(f"`{path}` holds no job", hint='{"name": "a", "command": ["make", "test"]}')
