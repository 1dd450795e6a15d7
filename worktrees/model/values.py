"""Every noun of `wt` as a frozen value.

JSON keys are camelCase at every door and on disk; Python names are snake_case. A field that does not apply is null and
an empty list is `[]`: nothing is left out. Unknown fields of a newer record survive being read.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from worktrees.model.names import (
    Access,
    DirtyPolicy,
    EventType,
    FileStatus,
    JobId,
    MergeOrder,
    Oid,
    OnConflict,
    OperationId,
    OperationKind,
    OperationState,
    RepoPath,
    Result,
    State,
    StepOutcome,
    WorkflowName,
    path_bytes,
)


class Value(BaseModel):
    """A frozen record; `dump()` gives its JSON shape."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        alias_generator=to_camel,
        populate_by_name=True,
        defer_build=True,
        ser_json_bytes="base64",
        json_schema_serialization_defaults_required=True,
    )

    def dump(self) -> dict[str, Any]:
        """The contract's JSON shape: camelCase keys, nothing left out."""
        return self.model_dump(mode="json", by_alias=True)


class Baseline(Value):
    """Where a job starts: a commit, and what became of the boss's uncommitted edits.

    `snapshot` is a commit in wt's own store whose tree is the commit plus the edits carried over, or None when none
    were. `dirty_count` counts dirty paths in the boss's checkout, `left_out` those of them the worker does not see.
    """

    commit: Oid
    branch: str | None = None
    dirty_policy: DirtyPolicy = "ignore"
    dirty_count: int = 0
    left_out: int = 0
    snapshot: Oid | None = None

    @property
    def start(self) -> Oid:
        """The commit whose tree the workspace holds at the start."""
        return self.snapshot or self.commit


class Finding(Value):
    """One thing an audit or a scan has to say; `path` is text for people."""

    code: str
    path: str | None = None
    message: str


class Audit(Value):
    """What became of the repository's vital files while a worker ran.

    `quarantine` means damage that could run code: the job is never merged unless named explicitly.
    """

    clean: bool = True
    quarantine: bool = False
    findings: list[Finding] = []


class FileChange(Value):
    """One path that differs between baseline and snapshot; counts are lines and None for binary files."""

    path: str
    path_base64: str | None = None
    status: FileStatus
    old_path: str | None = None
    old_path_base64: str | None = None
    old_mode: str | None = None
    new_mode: str | None = None
    old_oid: str | None = None
    new_oid: str | None = None
    additions: int | None = None
    deletions: int | None = None
    binary: bool = False
    sensitive: bool = False

    @property
    def raw(self) -> RepoPath:
        """The path as bytes."""
        return path_bytes(self.path, self.path_base64)

    @property
    def raw_paths(self) -> tuple[RepoPath, ...]:
        """Every path this change touches: the new one and, for a rename, the old one."""
        if self.old_path is None or self.status == "C":
            return (self.raw,)
        return (self.raw, path_bytes(self.old_path, self.old_path_base64))


class IgnoredFile(Value):
    """An ignored file a worker made; kept on removal while the limit lasts."""

    path: str
    path_base64: str | None = None
    size_bytes: int
    kept: bool = False


class ChangeSet(Value):
    """What a worker really did: baseline to snapshot, as git sees the two trees.

    `verified` is False when something in the workspace could not be captured; the findings say what.
    """

    job_id: JobId
    base: Oid
    snapshot: Oid
    files: list[FileChange] = []
    reported: list[str] | None = None
    reported_but_untouched: list[str] = []
    touched_but_unreported: list[str] = []
    ignored_created: list[IgnoredFile] = []
    verified: bool = True
    audit: Audit = Audit()


class Job(Value):
    """One worker's work. `state` says where it stands, `result` how it ended.

    `sandbox` is the level really in force: `bubblewrap`, `landlock`, `sandbox-exec`, or `none`, as it is for a job that
    has not started and for an open one. `network` is False when the worker was to have none.
    `rerun_of` is the job whose specification this is, run again because the other's work did not merge.
    """

    job_id: JobId
    name: str | None = None
    workflow_id: WorkflowName
    task: str | None = None
    agent: str | None = None
    model: str | None = None
    effort: str | None = None
    agent_arguments: list[str] = []
    resumes: JobId | None = None
    command: list[str] | None = None
    rerun_of: JobId | None = None
    access: Access = "workspace-write"
    isolation: str = "worktree"
    state: State = "queued"
    result: Result | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    waiting: str | None = None
    workspace: str | None = None
    workspace_present: bool = False
    baseline: Baseline
    ttl_seconds: float | None = None
    idle_seconds: float | None = None
    timeout_seconds: float | None = None
    lease_expires_at: str | None = None
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    landed_by: OperationId | None = None
    dropped_by: OperationId | None = None
    snapshot: Oid | None = None
    changed_files: int | None = None
    verified: bool | None = None
    quarantined: bool = False
    sandbox: str = "none"
    network: bool = True
    acknowledged: bool = False
    port: int | None = None


class Workflow(Value):
    """The jobs, baseline and board of one orchestration; `boss_state` is what a rollback goes back to.

    `k_read` and `k_write` bound its workers that run at once, 0 for no limit; the latest spawn's settings decide.
    """

    workflow_id: WorkflowName
    baseline: Baseline
    created_at: str
    closed_at: str | None = None
    boss_state: Oid | None = None
    k_read: int = 8
    k_write: int = 2


class Event(Value):
    """One thing a worker said or did; `timestamp` is when the supervisor read it."""

    type: EventType
    content: str
    timestamp: str


class Conflict(Value):
    """A path whose contents do not merge; `kind` is git's own word for why."""

    path: str
    path_base64: str | None = None
    kind: str


class Clash(Value):
    """Where a merge stopped: the result so far, and the two commits of wt's own store that do not merge."""

    so_far: Oid
    ours: Oid
    theirs: Oid


class Step(Value):
    """One job's place in a merge; `rerun_of` is the job it stands for, where that one conflicted and was run again."""

    job_id: JobId
    name: str | None = None
    outcome: StepOutcome
    commit: Oid | None = None
    tree: Oid | None = None
    conflicts: list[Conflict] = []
    files: int = 0
    sensitive: list[str] = []
    rerun_of: JobId | None = None


class MergePlan(Value):
    """A whole merge worked out in memory; nothing has moved. `after` equals `before` when there is nothing to land.

    `clash` is what the first conflict was.
    """

    strategy: str
    before: Oid
    after: Oid
    steps: list[Step] = []
    clash: Clash | None = None

    @property
    def conflicted(self) -> list[Step]:
        """The steps that do not merge."""
        return [step for step in self.steps if step.outcome == "conflict"]


class Lines(Value):
    """Lines of the file that a job started from, as a hunk without context names them.

    `count` 0 is something new after line `start`.
    """

    start: int
    count: int


class Overlap(Value):
    """A path in two change sets; `conflict` only when the contents do not merge.

    `lines` are those each of the two jobs changed, in the order of `jobs`: none of a binary file, of a mode alone, and
    where a job has only something below the path. `overlap` fills it in, `merge` does not.
    """

    path: str
    path_base64: str | None = None
    jobs: list[JobId]
    conflict: bool | None = None
    lines: list[list[Lines]] = []
    sensitive: bool = False
    claimed_by: str | None = None


class CheckRun(Value):
    """One run of one command of the check gate, on the tree of these jobs merged; without jobs on the branch as it is.

    `exit_code` is 128+n after signal n and 124 when the time was up; `log` is a file with what it printed, beginning
    and end; `cached` says that it was run before.
    """

    jobs: list[JobId]
    exit_code: int
    seconds: float
    command: str | None = None
    tree: Oid | None = None
    timed_out: bool = False
    cached: bool = False
    log: str | None = None
    sandbox: str = "none"


class MergeSpec(Value):
    """What a caller asks of a merge; what is kept of it while a conflict is resolved by hand.

    `into` is the branch, by default the one checked out; `author` (`Name <address>`) is that of the jobs' commits;
    `max_reruns` bounds how many jobs one merge runs again. `check` are shell commands that what lands has to pass, None
    for those of the settings; when it does not, `on_red` says whether the rest lands. `check_timeout_seconds` is for
    each run of one, `check_within_seconds` for all of them together. `gpg_sign` says whether commits are signed, None
    for what git's configuration says; `run_hooks` runs the user's `post-merge` hook afterwards.
    """

    into: str | None = None
    message: str | None = None
    strategy: str = "three-way"
    order: MergeOrder | None = None
    on_conflict: OnConflict = "stop"
    on_overlap: Literal["allow", "refuse"] = "allow"
    refuse_sensitive: bool = False
    no_commit: bool = False
    author: str | None = None
    max_reruns: int = 5
    check: list[str] | None = None
    check_timeout_seconds: float | None = None
    check_within_seconds: float | None = None
    check_retry: int | None = None
    check_cache: bool = True
    on_red: Literal["stop", "skip"] = "stop"
    gpg_sign: bool | None = None
    run_hooks: bool = False


class Laid(Value):
    """A conflict laid out in the integration worktree: a job's commit (`theirs`) that does not merge with `ours`."""

    job_id: JobId
    name: str | None = None
    ours: Oid
    theirs: Oid
    conflicts: list[Conflict] = []


class Resolved(Value):
    """What became of a conflict by hand: `start` was the result so far, `end` is that with the job's work in it."""

    job_id: JobId
    start: Oid
    end: Oid


class Merging(Value):
    """A merge that waits for conflicts to be resolved by hand; `jobs` are all of it, in order, `ref` is its branch."""

    jobs: list[JobId]
    workflow_id: WorkflowName
    spec: MergeSpec
    ref: str
    before: Oid
    laid: Laid | None = None
    resolved: list[Resolved] = []
    created_at: str


class Operation(Value):
    """A recorded landing, rollback, drop or undo.

    `before` and `after` are commits of the target ref; `checkpoint` is a commit in wt's own store that holds what the
    operation threw away or overwrote (files, and the index as its second parent), so that undo can bring it back.
    """

    operation_id: OperationId
    kind: OperationKind
    state: OperationState = "prepared"
    workflow_id: WorkflowName | None = None
    branch: str | None = None
    ref: str | None = None
    worktree: str | None = None
    before: Oid | None = None
    after: Oid | None = None
    checkpoint: Oid | None = None
    restored: Oid | None = None
    jobs: list[JobId] = []
    strategy: str | None = None
    undoes: OperationId | None = None
    undone_by: OperationId | None = None
    message: str | None = None
    created_at: str
    finished_at: str | None = None


class JobSpec(Value):
    """What a caller asks of one job; everything unset follows the settings.

    With `agent` there is a task and no command; `model`, `effort` and `agent_arguments` go to its program, and `resume`
    is a job of the same agent whose work and session it continues.
    A second request with the same `request_key` gives the job of the first. An open job ends with the process of
    `holder_pid`.
    """

    name: str | None = None
    task: str | None = None
    agent: str | None = None
    model: str | None = None
    effort: str | None = None
    agent_arguments: list[str] = []
    resume: str | None = None
    command: list[str] | None = None
    access: Access = "workspace-write"
    isolation: str = "worktree"
    base: str | None = None
    dirty: DirtyPolicy | None = None
    workflow: str | None = None
    ttl_seconds: float | None = None
    idle_seconds: float | None = None
    timeout_seconds: float | None = None
    environment: dict[str, str] = {}
    sparse: list[str] = []
    stdin: str | None = None
    request_key: str | None = None
    sandbox: str | None = None
    require_sandbox: bool = False
    network: bool = True
    holder_pid: int | None = None
