"""Every noun of `wt`.

Knows no disk, clock, git or process. `names` are ids, paths and closed sets of words and cost nothing to load; `values`
are frozen pydantic records, `answers` what the verbs answer; both are loaded when the first of them is asked for
(PEP 562), because that takes a tenth of a second, which `wt list` must not pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worktrees.model.names import (
    Access,
    DirtyPolicy,
    EventType,
    FileStatus,
    JobId,
    Oid,
    OperationId,
    OperationKind,
    OperationState,
    RepoPath,
    Result,
    State,
    StepOutcome,
    WorkflowName,
    path_base64,
    path_bytes,
    path_text,
)

if TYPE_CHECKING:
    from worktrees.model.answers import (
        Check,
        Configuration,
        Demonstration,
        DemonstrationStep,
        Diagnosis,
        Diff,
        EventPage,
        GuardedWorkspace,
        Hooks,
        Jobs,
        Logs,
        Merged,
        Notice,
        OperationLog,
        Outcome,
        Overlaps,
        PairConflict,
        Recorded,
        Removal,
        Removed,
        SandboxLevel,
        Setting,
        SetUp,
        SetupCommand,
        Spawned,
        SpawnFailure,
        Text,
        Version,
        Waited,
        Workflows,
        WorkflowSummary,
    )
    from worktrees.model.values import (
        Audit,
        Baseline,
        ChangeSet,
        CheckRun,
        Conflict,
        Event,
        FileChange,
        Finding,
        IgnoredFile,
        Job,
        JobSpec,
        MergePlan,
        Operation,
        Overlap,
        Step,
        Value,
        Workflow,
    )

__all__ = [
    "Access",
    "Audit",
    "Baseline",
    "ChangeSet",
    "Check",
    "CheckRun",
    "Configuration",
    "Conflict",
    "Demonstration",
    "DemonstrationStep",
    "Diagnosis",
    "Diff",
    "DirtyPolicy",
    "Event",
    "EventPage",
    "EventType",
    "FileChange",
    "FileStatus",
    "Finding",
    "GuardedWorkspace",
    "Hooks",
    "IgnoredFile",
    "Job",
    "JobId",
    "JobSpec",
    "Jobs",
    "Logs",
    "MergePlan",
    "Merged",
    "Notice",
    "Oid",
    "Operation",
    "OperationId",
    "OperationKind",
    "OperationLog",
    "OperationState",
    "Outcome",
    "Overlap",
    "Overlaps",
    "PairConflict",
    "Recorded",
    "Removal",
    "Removed",
    "RepoPath",
    "Result",
    "SandboxLevel",
    "SetUp",
    "Setting",
    "SetupCommand",
    "SpawnFailure",
    "Spawned",
    "State",
    "Step",
    "StepOutcome",
    "Text",
    "Usage",
    "Value",
    "Version",
    "Waited",
    "Workflow",
    "WorkflowName",
    "WorkflowSummary",
    "Workflows",
    "path_base64",
    "path_bytes",
    "path_text",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from worktrees.model import values

    if hasattr(values, name):
        return getattr(values, name)
    from worktrees.model import answers

    return getattr(answers, name)
