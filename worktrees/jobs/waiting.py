"""Waiting for jobs by record, not by pipe.

(skeleton: signatures only)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from worktrees.isolation import Place
    from worktrees.model import Job, JobId


@dataclass(frozen=True, slots=True)
class Waited:
    """What a wait saw: for `any` the earliest finished job not acknowledged before, for `all` every finished one."""

    completed: list[Job]
    pending: list[Job]
    timed_out: bool


def wait(
    place: Place,
    jobs: Sequence[JobId],
    *,
    mode: Literal["all", "any"] = "all",
    timeout_seconds: float | None = None,
    acknowledge: bool | None = None,
) -> Waited:
    """Blocks until all or any are done; a time-out answers `timed_out` and cancels nothing.

    `acknowledge` marks what `any` returned so that it is not returned again (default: in mode `any`).
    Raises: Usage for a time-out that is not positive.
    """
    raise NotImplementedError
