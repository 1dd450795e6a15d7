"""Every noun of `wt`.

Knows no disk, clock, git or process. `names` are ids, paths and closed sets of words and cost nothing to load; `values`
are frozen pydantic records and are loaded when the first of them is asked for (PEP 562), because that takes a tenth of
a second, which `wt list` must not pay.
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
    "CheckRun",
    "Conflict",
    "DirtyPolicy",
    "Event",
    "EventType",
    "FileChange",
    "FileStatus",
    "Finding",
    "IgnoredFile",
    "Job",
    "JobId",
    "JobSpec",
    "MergePlan",
    "Oid",
    "Operation",
    "OperationId",
    "OperationKind",
    "OperationState",
    "Overlap",
    "RepoPath",
    "Result",
    "State",
    "Step",
    "StepOutcome",
    "Value",
    "Workflow",
    "WorkflowName",
    "path_base64",
    "path_bytes",
    "path_text",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from worktrees.model import values

        return getattr(values, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
