"""Where workers work: workspaces apart from the boss's checkout."""

from worktrees.isolation.place import Place, discover_boss, pin, place
from worktrees.isolation.workspace import (
    Isolation,
    Workspace,
    WorktreeIsolation,
    commits_only_here,
    doctor_findings,
    recover,
    sweep,
    workspace_of,
)

__all__ = [
    "Isolation",
    "Place",
    "Workspace",
    "WorktreeIsolation",
    "commits_only_here",
    "discover_boss",
    "doctor_findings",
    "pin",
    "place",
    "recover",
    "sweep",
    "workspace_of",
]
