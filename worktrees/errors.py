"""Every way `wt` says no, as one exception tree.

Owns the stable `code`, the exit status and the one-line `hint` of each error. The code is the contract, the exit
status is its shadow. A message is one line, starts in lower case, names the thing in backticks and has no final
period; the hint ends with the command to type next. Conflicts, refusals inside a plan and dry runs are values (see
`model`), not exceptions.

    WorktreesError
    ├─ HonestNo      1   the answer is no: `job-failed`, `timed-out`, `check-failed`
    ├─ Usage         2   the words of the call are off: `usage`
    ├─ Conflicted    3   contents conflict, some job asked for was not landed: `conflict`
    ├─ Refused       4   the state forbids it and nothing changed: `would-overwrite`, `branch-moved`, `not-boss`, …
    │  └─ NotFound   4   `not-found`, `ambiguous`
    ├─ PeerFailed   69   a counterpart failed: `peer-failed`, `agent-not-found`
    ├─ GitFailed    70   git failed: `git-failed`; carries the command, its status and its stderr
    ├─ StateBroken  70   the state on disk is damaged or newer than this program: `state-broken`
    └─ Busy         75   a lock or a slot was not free in time: `busy`; the message names the holder
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` itself takes a third as long to load as Python
if TYPE_CHECKING:
    from typing import Any, ClassVar


class WorktreesError(Exception):
    """An expected failure with a stable code.

    `details` holds JSON values only; doors print it under `error.details`.
    """

    exit_status: ClassVar[int] = 70
    default_code: ClassVar[str] = "failed"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.details: dict[str, Any] = details or {}


class HonestNo(WorktreesError):
    """The thing was done and the answer is no."""

    exit_status = 1
    default_code = "job-failed"


class Usage(WorktreesError):
    """The call itself is wrong; nothing was looked at."""

    exit_status = 2
    default_code = "usage"


class Conflicted(WorktreesError):
    """Contents conflict; `details` names the jobs, paths and kinds."""

    exit_status = 3
    default_code = "conflict"


class Refused(WorktreesError):
    """The state forbids it; nothing changed."""

    exit_status = 4
    default_code = "refused"


class NotFound(Refused):
    """No such thing, or the word fits several."""

    default_code = "not-found"


class PeerFailed(WorktreesError):
    """A counterpart outside this program failed."""

    exit_status = 69
    default_code = "peer-failed"


class GitFailed(WorktreesError):
    """git ended with a status its caller does not expect."""

    exit_status = 70
    default_code = "git-failed"

    def __init__(self, command: list[str], status: int, stderr: bytes, *, hint: str | None = None) -> None:
        text = stderr.decode("utf-8", "backslashreplace").strip()
        lines = text.splitlines()
        # The reason is on git's last `fatal:` or `error:` line; advice follows it.
        reason = next(
            (line for line in reversed(lines) if line.startswith(("fatal:", "error:"))), lines[-1] if lines else ""
        )
        ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        super().__init__(
            f"`git {command[0] if command else ''}` {ended}" + (f": {reason}" if reason else ""),
            hint=hint or "wt doctor",
            details={"command": command, "status": status, "stderr": text},
        )
        self.command = command
        self.status = status
        self.stderr = stderr


class StateBroken(WorktreesError):
    """A record on disk cannot be understood."""

    exit_status = 70
    default_code = "state-broken"


class Busy(WorktreesError):
    """A lock or a slot was not free in time; the message names who holds it."""

    exit_status = 75
    default_code = "busy"
