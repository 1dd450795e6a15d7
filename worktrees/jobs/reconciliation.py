"""Settles jobs whose supervisor is gone.

(skeleton: signatures only)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worktrees.isolation import Place
    from worktrees.model import Job


def reconcile(place: Place) -> list[Job]:
    """Settles what a crash, a reboot or an expired lease left, and starts what may run; returns what it changed.

    Cheap when there is nothing to do. Never raises for one job: what could not be settled stays `settling` with its
    reason.
    """
    raise NotImplementedError
