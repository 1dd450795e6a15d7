"""Where workers work: workspaces apart from the boss's checkout.

`place` says where everything is and leads from a workspace back to the boss; `workspace` opens and closes, `private`
with a repository of the worker's own, `adopted` with worktrees that somebody else made; `entry` is git's side of a
workspace, `journal` our own; `trash` and `remover` take away in the background; `pool` keeps worktrees that are used
again; `commits` finds what would die with a workspace; `doctor` names damage. Knows no processes and no merging.

Invariants: a workspace stands whole or not at all; the repository never holds half an entry; nothing is removed but
what was made here and still is what it was; nothing is removed by anybody's `prune`; no git command runs with discovery
in a worker's tree; nothing of the user's configuration changes.

All but `place` is imported on first use (PEP 562): `wt list` must not pay for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from worktrees.isolation.place import Place, discover_boss, from_main, pin, place

if TYPE_CHECKING:
    from worktrees.isolation.adopted import AdoptedIsolation, Foreign, find_foreign
    from worktrees.isolation.commits import commits_only_here
    from worktrees.isolation.doctor import doctor_findings
    from worktrees.isolation.private import PrivateIsolation, own_commits
    from worktrees.isolation.trash import sweep
    from worktrees.isolation.workspace import Isolation, Workspace, WorktreeIsolation, recover, workspace_of

_PLACES = {
    "adopted": ("AdoptedIsolation", "Foreign", "find_foreign"),
    "commits": ("commits_only_here",),
    "doctor": ("doctor_findings",),
    "private": ("PrivateIsolation", "own_commits"),
    "trash": ("sweep",),
    "workspace": ("Isolation", "Workspace", "WorktreeIsolation", "recover", "workspace_of"),
}

__all__ = [
    "AdoptedIsolation",
    "Foreign",
    "Isolation",
    "Place",
    "PrivateIsolation",
    "Workspace",
    "WorktreeIsolation",
    "commits_only_here",
    "discover_boss",
    "doctor_findings",
    "find_foreign",
    "from_main",
    "own_commits",
    "pin",
    "place",
    "recover",
    "sweep",
    "workspace_of",
]


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"worktrees.isolation.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
