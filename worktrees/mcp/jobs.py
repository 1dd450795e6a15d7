"""The job tools: `codex_spawn` and its family as orchestration prompts know them, `wt_spawn`, `wt_settle`, `wt_list`.

Waits run in slices, so that a call the host gives up on is over soon. A job counts as returned by `codex_wait_any` only
in the moment in which the answer is made: a call that was cancelled before has taken nothing from the next.
"""

from __future__ import annotations

import functools
import re
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio
import anyio.to_thread
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult
from pydantic import BaseModel, ConfigDict, Field

from worktrees import jobs
from worktrees.errors import Usage, WorktreesError
from worktrees.mcp.ground import Ground, call_key
from worktrees.mcp.saying import Cursor, Directory, JobWord, Where, answered, async_tool, tool
from worktrees.mcp.shapes import (
    MOST_CHARACTERS,
    Cancelled,
    CutEvent,
    Events,
    Group,
    GroupMember,
    JobResult,
    JobsPage,
    JobStatus,
    Opened,
    SpawnedJob,
    WaitedAny,
    characters,
    fit,
    page,
    piece,
    status_of,
)
from worktrees.model import Access, DirtyPolicy, Job, JobSpec, Notice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worktrees.boss import Boss
    from worktrees.model import JobId

DEFAULT_WAIT_MS = 50_000
LONGEST_WAIT_SECONDS = 240.0
"""Below the 300 seconds after which Codex gives a call up by default."""
_SLICE_SECONDS = 2.0
_ROUND_SECONDS = 0.25
_AT_ONCE = 0.001  # a wait must last
_WAITERS = 64

Sandbox = Annotated[
    Access | None,
    Field(description="What the worker may do. Default: workspace-write."),
]
Agent = Annotated[str, Field(description="The agent program that does the work. Default: codex.")]
Model = Annotated[str | None, Field(description="The agent's model. Default: the agent's own.")]
Effort = Annotated[
    Literal["low", "medium", "high"] | None, Field(description="Reasoning effort. Default: the agent's own.")
]
FullAuto = Annotated[bool, Field(description="The same as sandbox workspace-write. Default: false.")]


class Wishes(BaseModel):
    """What may be said of each job of a group, and of all of them under `defaults`."""

    model_config = ConfigDict(extra="ignore")

    model: Model = None
    reasoningEffort: Effort = None  # noqa: N815 - the name in the call
    sandbox: Sandbox = None
    fullAuto: bool | None = None  # noqa: N815
    workingDirectory: Directory = None  # noqa: N815
    agent: Annotated[str | None, Field(description="The agent program. Default: codex.")] = None


class GroupJob(Wishes):
    """One job of a group."""

    prompt: Annotated[str, Field(description="What the worker is asked to do; all that it knows of the matter.")]
    label: Annotated[
        str | None, Field(description="A word for the job; its name too where that is free. Default: none.")
    ] = None


class JobTools:
    """The tools of one server."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._waiters = anyio.CapacityLimiter(_WAITERS)

    # ------------------------------------------------------------------------------------------------------ starting
    @tool
    def codex_spawn(
        self,
        ctx: Context[Any, Any],
        prompt: Annotated[str, Field(description="What the worker is asked to do; all that it knows of the matter.")],
        model: Model = None,
        reasoningEffort: Effort = None,
        sandbox: Sandbox = None,
        fullAuto: FullAuto = False,
        workingDirectory: Directory = None,
        agent: Agent = "codex",
        name: Annotated[str | None, Field(description="What to call the job. Default: only its id.")] = None,
        workflow: Annotated[
            str | None, Field(description="The open workflow to join, or a new one's name. Default: the open one.")
        ] = None,
    ) -> Annotated[CallToolResult, SpawnedJob]:
        """Start an agent on a task in its own git worktree and return its jobId at once, without waiting.

        The worker sees the repository as committed at HEAD, edits only its own worktree and never commits; nothing
        reaches your checkout before wt_merge. At most 2 writing and 8 read-only workers run at a time by default,
        others are queued and start by themselves. The job lives on when this server ends. Follow it with
        codex_wait_any, codex_status, codex_events, codex_result.
        """
        spec = _agent_spec(prompt, agent, model, reasoningEffort, sandbox)
        spec = spec.model_copy(update={"name": name, "workflow": workflow})
        return answered(self._start(ctx, "codex_spawn", spec, workingDirectory))

    @tool
    def codex_spawn_group(
        self,
        ctx: Context[Any, Any],
        jobs: Annotated[list[GroupJob], Field(description="The jobs, any number.", min_length=1)],
        defaults: Annotated[
            Wishes | None, Field(description="What holds for jobs that do not say otherwise. Default: nothing.")
        ] = None,
        includeHandshake: Annotated[
            bool, Field(description="Answer with the first events of each job. Default: false.")
        ] = False,
        handshakeMaxEvents: Annotated[
            int, Field(description="How many of them at most. Default: 5, at most 50.", ge=0, le=50)
        ] = 5,
    ) -> Annotated[CallToolResult, Group]:
        """Start several agents at once, each in its own git worktree; return their jobIds without waiting.

        One that cannot be made has `error` in its place and does not stop the others. Otherwise as codex_spawn.
        """
        members: list[GroupMember] = []
        warnings: dict[str, Notice] = {}
        for index, asked in enumerate(jobs):
            wish = _merged(asked, defaults)
            spec = _agent_spec(asked.prompt, wish["agent"] or "codex", wish["model"], wish["effort"], wish["sandbox"])
            try:
                boss = self.ground.boss(wish["directory"])
                self.ground.remember(boss)
                key = call_key(ctx.request_context.meta, "codex_spawn_group", {"index": index, **spec.dump()})
                job = _spawn_named(boss, spec.model_copy(update={"request_key": key}), _as_name(asked.label))
            except WorktreesError as error:
                members.append(GroupMember(label=asked.label, error=error.message, code=error.code))
                continue
            warnings |= {notice.message: notice for notice in boss.notices}
            member = GroupMember(label=asked.label, job_id=job.job_id, name=job.name, status=status_of(job))
            if includeHandshake and handshakeMaxEvents:
                found = boss.events(job.job_id, most=handshakeMaxEvents)
                member = member.model_copy(update={"events": found.events, "next_cursor": found.next_cursor})
            members.append(member)
        answer = Group(results=members, warnings=list(warnings.values())).dump()
        for place in answer["results"]:
            while place["events"] and characters(answer) > MOST_CHARACTERS:
                place["events"], place["nextCursor"] = [], None
        return answered(fit(answer, "warnings"))

    @tool
    def wt_spawn(
        self,
        ctx: Context[Any, Any],
        command: Annotated[
            list[str] | None,
            Field(description='Program and arguments, such as ["make", "test"]; no shell. Default: none.'),
        ] = None,
        task: Annotated[
            str | None, Field(description="What is to be done; an agent's whole prompt. Default: nothing.")
        ] = None,
        agent: Annotated[str | None, Field(description="An agent program instead of a command. Default: none.")] = None,
        model: Model = None,
        effort: Annotated[
            str | None, Field(description="Its reasoning effort, in its own words. Default: its own.")
        ] = None,
        name: Annotated[str | None, Field(description="What to call the job. Default: only its id.")] = None,
        sandbox: Sandbox = None,
        base: Annotated[str | None, Field(description="Where to start: any revision. Default: HEAD.")] = None,
        dirty: Annotated[
            DirtyPolicy | None,
            Field(description="Your uncommitted edits: fail, ignore (leave out), tracked, all. Default: ignore."),
        ] = None,
        workflow: Annotated[str | None, Field(description="The workflow to join. Default: the open one.")] = None,
        ttlSeconds: Annotated[
            float | None, Field(description="End the job after so long. Default: never.", gt=0)
        ] = None,
        environment: Annotated[
            dict[str, str] | None, Field(description="Variables for the worker. Default: none.")
        ] = None,
        workingDirectory: Directory = None,
    ) -> Annotated[CallToolResult, SpawnedJob]:
        """Run a command (or an agent) in a fresh git worktree and return at once.

        With neither command nor agent it opens a workspace for you or a subagent of yours: work in the returned
        `workspace` directory, then call wt_settle to record what changed. Otherwise as codex_spawn.
        """
        spec = JobSpec(
            command=command,
            task=task,
            agent=agent,
            model=model,
            effort=effort,
            name=name,
            access=sandbox or "workspace-write",
            base=base,
            dirty=dirty,
            workflow=workflow,
            ttl_seconds=ttlSeconds,
            environment=environment or {},
        )
        return answered(self._start(ctx, "wt_spawn", spec, workingDirectory))

    def _start(self, ctx: Context[Any, Any], name: str, spec: JobSpec, directory: str | None) -> SpawnedJob:
        boss = self.ground.boss(directory)
        self.ground.remember(boss)
        key = call_key(ctx.request_context.meta, name, {"directory": directory, **spec.dump()})
        job = boss.spawn_many([spec.model_copy(update={"request_key": key})]).jobs[0]
        return SpawnedJob(
            job_id=job.job_id,
            name=job.name,
            workflow_id=job.workflow_id,
            status=status_of(job),
            state=job.state,
            workspace=job.workspace,
            warnings=boss.notices,
        )

    # ------------------------------------------------------------------------------------------------------ watching
    @tool
    def codex_status(self, jobId: JobWord, workingDirectory: Where = None) -> Annotated[CallToolResult, JobStatus]:
        """Tell where a job stands: status running, done, failed or canceled. Cheap; returns at once.

        `running` includes queued jobs (`waiting` says for what) and open workspaces; `done` means it succeeded.
        """
        boss = self.ground.boss_of([jobId], workingDirectory)
        return answered(JobStatus.of(boss.status(jobId)[0]))

    @tool
    def codex_result(
        self,
        jobId: JobWord,
        view: Annotated[
            Literal["finalMessage", "full"],
            Field(description="full adds the ends of the worker's raw output. Default: finalMessage."),
        ] = "finalMessage",
        offset: Annotated[
            int, Field(description="Where in the final message to begin; nextOffset of the call before.", ge=0)
        ] = 0,
        workingDirectory: Where = None,
    ) -> Annotated[CallToolResult, JobResult]:
        """Give a finished job's final message, exit code and the files it really changed, whatever it says itself.

        Refused with job-unfinished while it runs. A long message comes in pieces: go on with offset = nextOffset.
        """
        boss = self.ground.boss_of([jobId], workingDirectory)
        outcome = boss.result(jobId, full=view == "full")
        job, changed = outcome.job, outcome.change_set
        room = MOST_CHARACTERS * 2 // 3
        message, rest = None, None
        if outcome.final_message is not None:
            message, rest = piece(outcome.final_message, offset, most=room // (2 if view == "full" else 1))
        tail = room // 5
        status = JobStatus.of(job)
        result = JobResult(
            **{name: getattr(status, name) for name in JobStatus.model_fields},
            final_message=message,
            next_offset=rest,
            modified_files=[file.path for file in changed.files] if changed else [],
            reported_but_untouched=changed.reported_but_untouched if changed else [],
            touched_but_unreported=changed.touched_but_unreported if changed else [],
            verified=job.verified,
            findings=[finding.message for finding in outcome.audit.findings] if outcome.audit else [],
            stdout_tail=_tail(outcome.output, tail) if view == "full" else None,
            stderr_tail=_tail(outcome.error_output, tail) if view == "full" else None,
        )
        answer = fit(result.dump(), "modifiedFiles", "reportedButUntouched", "touchedButUnreported", "findings")
        return answered(answer, message if view == "finalMessage" and message else None)

    @tool
    def codex_events(
        self,
        jobId: JobWord,
        cursor: Cursor = None,
        maxEvents: Annotated[
            int, Field(description="How many events at most. Default: 200, at most 2000.", ge=1, le=2000)
        ] = 200,
        workingDirectory: Where = None,
    ) -> Annotated[CallToolResult, Events]:
        """Read what a worker said and did since a cursor; never twice, never with a gap. Returns at once.

        Types: message, progress, tool_call, tool_result, error, final. A page holds what fits 12,000 characters, so it
        may have fewer events than asked for: go on with nextCursor until done is true. An event longer than a page is
        cut, and `omitted` counts the characters.
        """
        boss = self.ground.boss_of([jobId], workingDirectory)
        most = MOST_CHARACTERS - 400
        found = boss.events(jobId, cursor or None, most=maxEvents)
        taken, rest = page(found.events, None, lambda event: event.dump() | {"omitted": 0}, most=most)
        if rest is not None:  # the same cursor gives the same events, so the shorter page ends where we cut
            found = boss.events(jobId, cursor or None, most=len(taken))
        events = [CutEvent(**event.model_dump()) for event in found.events]
        if len(events) == 1 and characters(events[0].dump()) > most:
            content, _ = piece(events[0].content, 0, most=most - 200)
            gone = len(events[0].content) - len(content)
            events = [events[0].model_copy(update={"content": content, "omitted": gone})]
        return answered(Events(events=events, next_cursor=found.next_cursor, done=found.done))

    @async_tool
    async def codex_wait_any(
        self,
        jobIds: Annotated[list[str], Field(description="The jobs to wait for: ids or names.")],
        timeoutMs: Annotated[
            int,
            Field(description="How long to wait. Default: 50000, 0 looks only, at most 240000.", ge=0),
        ] = DEFAULT_WAIT_MS,
        workingDirectory: Where = None,
    ) -> Annotated[CallToolResult, WaitedAny]:
        """Wait until one of the jobs is done; return the earliest finished one that was not returned before.

        `pending` are those still at work: call again with them. timedOut true means that nothing new finished: call
        again; no job is ever stopped by that. completedJobId null with timedOut false: all are done and were returned.
        """
        deadline = time.monotonic() + min(timeoutMs / 1000, LONGEST_WAIT_SECONDS)
        found, missing = await self._aside(functools.partial(self.ground.bosses_of, jobIds, workingDirectory))
        length = _SLICE_SECONDS if len(found) == 1 else _ROUND_SECONDS
        while found:
            left = deadline - time.monotonic()
            share = max(min(length, left) / len(found), _AT_ONCE)
            looks = [await self._aside(functools.partial(_look, boss, ids, share)) for boss, ids in found]
            if left <= 0 or any(look.completed for look in looks) or not any(look.pending for look in looks):
                break
        # No await from here on: the answer is made, or the job is not marked as returned.
        return answered(_answer(found, missing))

    async def _aside(self, call: functools.partial[Any]) -> Any:
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._waiters)

    @tool
    def wt_list(
        self,
        closed: Annotated[bool, Field(description="Also jobs of closed workflows. Default: false.")] = False,
        workflow: Annotated[str | None, Field(description="Only this workflow's. Default: all open ones.")] = None,
        cursor: Cursor = None,
        workingDirectory: Directory = None,
    ) -> Annotated[CallToolResult, JobsPage]:
        """List the repository's jobs with all that is recorded of them, the oldest first; a page at a time."""
        everyone = self.ground.boss(workingDirectory).list(workflow=workflow, closed=closed)
        taken, rest = page(everyone, cursor, lambda job: job.dump(), most=MOST_CHARACTERS - 200)
        return answered(JobsPage(jobs=taken, next_cursor=rest, total=len(everyone)))

    # -------------------------------------------------------------------------------------------------------- ending
    @tool
    def codex_cancel(
        self,
        jobId: JobWord,
        force: Annotated[
            bool,
            Field(description="Kill it at once; its work is then merged only when named. Default: false (SIGTERM)."),
        ] = False,
        workingDirectory: Where = None,
    ) -> Annotated[CallToolResult, Cancelled]:
        """Stop a job and every process it started; what it has done so far is kept. Returns at once.

        It is over when its status is not running any more. A job that is done already stays as it is.
        """
        job = self.ground.boss_of([jobId], workingDirectory).cancel(jobId, force=force)[0]
        return answered(Cancelled(success=True, job_id=job.job_id, status=status_of(job), state=job.state))

    @tool
    def wt_settle(self, jobId: JobWord, workingDirectory: Where = None) -> Annotated[CallToolResult, Opened]:
        """End an open workspace (wt_spawn without a command) and record what was changed in it."""
        boss = self.ground.boss_of([jobId], workingDirectory)
        job = boss.settle(jobId)
        return answered(Opened(job=job, workspace=job.workspace, warnings=boss.notices))


# ------------------------------------------------------------------------------------------------------------- steps
def _agent_spec(prompt: str, agent: str, model: str | None, effort: str | None, sandbox: Access | None) -> JobSpec:
    if not prompt.strip():
        raise Usage("the prompt is empty", hint="say what the worker is to do")
    return JobSpec(agent=agent, task=prompt, model=model, effort=effort, access=sandbox or "workspace-write")


def _merged(asked: GroupJob, defaults: Wishes | None) -> dict[str, Any]:
    """A job's wishes where it has any, else those that hold for all."""
    names = {"model": "model", "reasoningEffort": "effort", "sandbox": "sandbox", "workingDirectory": "directory"}
    common = defaults or Wishes()
    wish = {name: getattr(asked, field) or getattr(common, field) for field, name in names.items()}
    return {**wish, "agent": asked.agent or common.agent}


def _as_name(label: str | None) -> str | None:
    """A label as a job's name, where it can be one."""
    name = re.sub(r"[^\w.+/-]+", "-", label or "").strip("-")[:60]
    return name if name and not name.startswith("j-") else None


def _spawn_named(boss: Boss, spec: JobSpec, name: str | None) -> Job:
    """One job, under the name if nobody has it: a label need not be the only one of its kind."""
    try:
        return boss.spawn_many([spec.model_copy(update={"name": name})]).jobs[0]
    except WorktreesError as error:
        if error.code != "name-taken":
            raise
    return boss.spawn_many([spec]).jobs[0]


def _tail(text: str | None, most: int) -> str:
    """The end of a text that fits when written as JSON."""
    part = (text or "")[-most:]
    while characters(part) > most:
        part = part[len(part) - int(len(part) * most / characters(part)) :]
    return part


def _look(boss: Boss, ids: Sequence[JobId], seconds: float) -> Any:
    return boss.wait(*ids, any=True, timeout_seconds=seconds, acknowledge=False)


def _answer(found: Sequence[tuple[Boss, list[JobId]]], missing: list[str]) -> WaitedAny:
    """The answer as things stand; the job in it counts as returned from now on."""
    ready: list[tuple[str, Boss, JobId]] = []
    pending: list[JobId] = []
    done: list[Job] = []
    for boss, ids in found:
        waited = boss.wait(*ids, any=True, timeout_seconds=_AT_ONCE, acknowledge=False)
        pending += waited.pending
        done += [job for job in jobs.resolve(boss.state, ids) if job.state == "done"]
        ready += [(job.finished_at or "", boss, job.job_id) for job in waited.jobs if job.job_id in waited.completed]
    completed = None
    for _, boss, job_id in sorted(ready, key=lambda item: item[0]):
        if boss.wait(job_id, any=True, timeout_seconds=_AT_ONCE).completed:
            completed = next(job for job in done if job.job_id == job_id)
            break
    return WaitedAny(
        completed_job_id=completed.job_id if completed else None,
        timed_out=completed is None and bool(pending),
        status=status_of(completed) if completed else None,
        pending=pending,
        finished=[job.job_id for job in sorted(done, key=lambda job: job.finished_at or "")],
        missing_job_ids=missing,
    )
