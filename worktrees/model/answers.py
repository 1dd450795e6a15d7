"""What the verbs answer: one frozen value per verb, the `data` of its JSON document.

The shapes are the outer contract; `wt schema` prints them. A verb whose answer is a noun of `values` wraps it in a
named field, so that a later field never breaks a reader.
"""

from __future__ import annotations

from typing import Any, Literal

from worktrees.model.names import JobId, Oid, OperationId, Result, State, WorkflowName
from worktrees.model.values import (
    Audit,
    Baseline,
    ChangeSet,
    CheckRun,
    Event,
    Finding,
    IgnoredFile,
    Job,
    Operation,
    Overlap,
    Step,
    Value,
)


class Notice(Value):
    """Something worth knowing beside an answer; the envelope's `warnings`."""

    code: str
    message: str


class Jobs(Value):
    """`list`, `status`, `cancel`, `settle`, `restore`, `lease extend`: jobs as they stand now."""

    jobs: list[Job] = []


class SpawnFailure(Value):
    """A job of a batch that could not be made; `index` counts from 0 in the order asked for."""

    index: int
    name: str | None = None
    code: str
    message: str
    hint: str | None = None


class Spawned(Value):
    """`spawn`: the jobs made, in the order asked for, and those that could not be."""

    jobs: list[Job] = []
    failures: list[SpawnFailure] = []


class Waited(Value):
    """`wait`: `completed` are the jobs that are done (for `--any` the one picked), `pending` the rest."""

    jobs: list[Job] = []
    timed_out: bool = False
    completed: list[JobId] = []
    pending: list[JobId] = []


class Usage(Value):
    """What an agent's run used, as its program counts it; None for what it does not tell."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None


class AgentProgram(Value):
    """An agent that `spawn` knows: where its program is, None where it is not installed, and where it is defined.

    `version` is what its npm package says. With `own_sandbox` it confines the commands it runs by itself. One of the
    repository's file is not `approved` before the user said so.
    """

    name: str
    program: str
    path: str | None = None
    version: str | None = None
    source: str
    own_sandbox: bool = False
    resumes: bool = False
    approved: bool = True


class Agents(Value):
    """`agents`: all that are known, by name."""

    agents: list[AgentProgram] = []


class Outcome(Value):
    """`result`: how a job ended and what it really did. `output` is the end of its stdout, asked for with `--full`.

    `session` and `usage` are what an agent's program told of its run; of a session that was resumed, Codex counts all.
    """

    job: Job
    final_message: str | None = None
    session: str | None = None
    usage: Usage | None = None
    output: str | None = None
    error_output: str | None = None
    change_set: ChangeSet | None = None
    audit: Audit | None = None


class Logs(Value):
    r"""`logs`: raw output as text, bytes that are not UTF-8 as `\xNN`; sizes are those of the whole files."""

    job_id: JobId
    stdout: str | None = None
    stderr: str | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    truncated: bool = False


class EventPage(Value):
    """`events`: what happened since the cursor; `done` when nothing will follow."""

    events: list[Event] = []
    next_cursor: str
    done: bool


class Diff(Value):
    """`diff`: the change set, and the patch when asked for."""

    change_set: ChangeSet
    patch: str | None = None


class PairConflict(Value):
    """Two jobs, or one job and the branch, that do not merge at a path."""

    jobs: list[JobId]
    path: str
    path_base64: str | None = None
    kind: str
    sensitive: bool = False


class Overlaps(Value):
    """`overlap`: paths in two change sets, and what of it does not merge (against the branch too).

    `plan` is what merging would make of them one after another onto `branch`, jobs that are not done as they are now
    and last; a step that conflicts is left out, so the later ones say what would land with `--on-conflict skip`.
    """

    overlaps: list[Overlap] = []
    conflicts: list[PairConflict] = []
    branch: str | None = None
    onto: Oid | None = None
    plan: list[Step] = []


class Check(Value):
    """The check gate of a merge and its runs, in order; a dry run has none.

    `culprits` are the jobs that do not pass; with `branch_fails` it is the branch itself that does not.
    """

    command: str | None = None
    runs: list[CheckRun] = []
    culprits: list[JobId] = []
    branch_fails: bool = False


class Rerun(Value):
    """A job that was run again because the work of another, of the same specification, did not merge."""

    job_id: JobId
    name: str | None = None
    rerun_of: JobId
    result: Result | None = None
    reason: str | None = None


class Merged(Value):
    """`merge`: what was, or with `dryRun` would be, landed. Nothing to do is `landed` false without steps or error.

    `reruns` are jobs that were run again on the way; `rolledBackBy` is the rollback a conflict led to; `resolveIn` is
    the integration worktree that waits for a conflict to be resolved, and `kept` the commit, in wt's own store, of what
    was in it when the merge was given up (`aborted`).
    """

    operation_id: OperationId | None = None
    landed: bool = False
    dry_run: bool = False
    branch: str
    before: Oid
    after: Oid
    strategy: str
    steps: list[Step] = []
    overlaps: list[Overlap] = []
    check: Check | None = None
    reruns: list[Rerun] = []
    rolled_back_by: OperationId | None = None
    resolve_in: str | None = None
    aborted: bool = False
    kept: Oid | None = None


class Recorded(Value):
    """`rollback` and `undo`: the operation that did it, and the jobs brought back by it."""

    operation: Operation
    jobs: list[Job] = []


class OperationLog(Value):
    """`log`: operations, the newest first."""

    operations: list[Operation] = []


class Removal(Value):
    """One workspace `drop` or `clean` looked at; `reason` says why it stays when `outcome` is kept.

    A worktree that somebody else made is released: the job lets go of it and nothing in it changes.
    `ignored_not_kept` are ignored files that went with it, because they were more than the setting keeps;
    `edited_since` paths that were edited after the job was captured: `snapshot` holds them, the job's record does not.
    """

    job_id: JobId
    name: str | None = None
    workspace: str | None = None
    state: State | None = None
    outcome: Literal["removed", "would-remove", "released", "would-release", "kept"]
    reason: str | None = None
    landed: bool = False
    snapshot: Oid | None = None
    size_bytes: int | None = None
    age_seconds: float | None = None
    ignored_not_kept: list[IgnoredFile] = []
    edited_since: list[str] = []


class Removed(Value):
    """`drop` and `clean`: every workspace looked at; `checkers` are worktrees in which nothing but checks ran."""

    operation_id: OperationId | None = None
    dry_run: bool = False
    removals: list[Removal] = []
    checkers: list[str] = []


class WorkflowSummary(Value):
    """A workflow and how many of its jobs stand where."""

    workflow_id: WorkflowName
    baseline: Baseline
    created_at: str
    closed_at: str | None = None
    jobs: int = 0
    active: int = 0
    landed: int = 0


class Workflows(Value):
    """`workflow list` and `workflow close`."""

    workflows: list[WorkflowSummary] = []


class SandboxLevel(Value):
    """Whether a level of protection can be put up here; `reason` says why not, or what it lacks."""

    level: str
    available: bool
    reason: str | None = None


class Diagnosis(Value):
    """`doctor`: what a crash left, and which of it was mended; `sandbox` is what can hold workers, strongest first."""

    findings: list[Finding] = []
    mended: list[Finding] = []
    sandbox: list[SandboxLevel] = []


class Setting(Value):
    """One setting, its value in force and the layer it comes from."""

    name: str
    value: Any
    source: str


class Configuration(Value):
    """`config`: every setting."""

    settings: list[Setting] = []


class GuardedWorkspace(Value):
    """The workspace of a job that is not done, and which guards refuse commits there.

    `environment`: its worker was started with the guard; `installed`: whatever the environment of whoever is there.
    """

    job_id: JobId
    name: str | None = None
    workspace: str | None = None
    environment: bool = False
    installed: bool = False


class Hooks(Value):
    """`hooks install`, `status`, `uninstall`: the guard beside the user's own hooks.

    `config` is git's configuration, in which a few lines lead linked worktrees to `directory`; from there git goes on
    to `chained`, the user's hooks in `former` (relative to the top of a worktree if so configured). `changed` are files
    that this call wrote or removed, or would have. `commit` is what one of the caller's would meet, `jobId` the job in
    whose workspace he stands.
    """

    installed: bool
    config: str
    directory: str
    former: str
    chained: list[str] = []
    dry_run: bool = False
    changed: list[str] = []
    workspaces: list[GuardedWorkspace] = []
    job_id: JobId | None = None
    commit: Literal["refused", "passes"] = "passes"
    refused_by: list[Literal["environment", "installed"]] = []


class SetupCommand(Value):
    """A command that runs before each worker, or that a merge has to pass; of the repository file once approved."""

    command: str
    approved: bool
    purpose: str = "setup"


class SetUp(Value):
    """`setup`: the commands; the job made of an adopted worktree, and what was brought there; a worker's variables."""

    commands: list[SetupCommand] = []
    job: Job | None = None
    environment: dict[str, str] | None = None
    workspace: str | None = None
    paths: list[str] = []
    submodules: list[str] = []
    copied_bytes: int = 0
    findings: list[Finding] = []


class HostFile(Value):
    """A file of a host that `install` changed, or would; `backup` is how it was."""

    path: str
    action: Literal["created", "changed", "removed"]
    backup: str | None = None
    diff: str


class Installed(Value):
    """`install`: the files changed; none when everything was as it should be."""

    host: str
    scope: Literal["user", "project"]
    uninstalled: bool = False
    dry_run: bool = False
    files: list[HostFile] = []


class Version(Value):
    """`version`: of this program, of git, and of the state on disk it writes."""

    version: str
    git: str
    python: str
    format: int


class Demonstration(Value):
    """`demo`: the commands it ran and their exit statuses."""

    source: str
    steps: list[DemonstrationStep] = []


class DemonstrationStep(Value):
    """One command of the demonstration."""

    title: str
    command: str
    exit_status: int
    seconds: float


class Text(Value):
    """`schema`, `guide`, `completion`: a document; `document` is set when it is JSON, else `text`."""

    text: str | None = None
    document: dict[str, Any] | None = None
