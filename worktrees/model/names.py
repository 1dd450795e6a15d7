r"""The words that cost nothing to load: ids, paths, and the closed sets of states and outcomes.

Paths are bytes inside (`RepoPath`, relative to the top of the work tree, `/` between parts). At a door a path is text:
valid UTF-8 as it is with `pathBase64` null, anything else with `\xNN` escapes in `path` and exactly in `pathBase64`.
"""

from __future__ import annotations

import base64
from typing import Literal, NewType

Oid = NewType("Oid", str)  # a full object id in hex, 40 or 64 digits
JobId = NewType("JobId", str)  # `j-` and 8 characters
WorkflowName = NewType("WorkflowName", str)
OperationId = NewType("OperationId", str)  # `op-000017`
RepoPath = NewType("RepoPath", bytes)

Access = Literal["read-only", "workspace-write", "danger-full-access"]
DirtyPolicy = Literal["fail", "ignore", "tracked", "all"]
State = Literal["queued", "starting", "running", "settling", "open", "done"]
Result = Literal["succeeded", "failed", "cancelled", "expired", "lost"]
FileStatus = Literal["A", "M", "D", "R", "C", "T"]
EventType = Literal["message", "progress", "tool_call", "tool_result", "error", "final"]
StepOutcome = Literal["landed", "conflict", "empty", "skipped", "failed-check"]
MergeOrder = Literal["given", "completion", "created", "name", "size", "fewest-overlaps"]
OnConflict = Literal["stop", "skip", "rerun", "manual", "rollback"]
OperationKind = Literal["merge", "rollback", "undo", "drop"]
# `prepared` is written before anything moves; a crash leaves it, and the next command settles it one way or the other.
OperationState = Literal["prepared", "done", "aborted"]


def path_text(path: bytes) -> str:
    r"""A path for people and JSON: UTF-8 as it is, other bytes as `\xNN`."""
    return path.decode("utf-8", "backslashreplace")


def path_base64(path: bytes) -> str | None:
    """The exact bytes of a path that `path_text` cannot say, else None."""
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(path).decode("ascii")
    return None


def path_bytes(path: str, encoded: str | None) -> RepoPath:
    """The bytes of a path as a door wrote it."""
    return RepoPath(base64.b64decode(encoded) if encoded is not None else path.encode("utf-8"))
