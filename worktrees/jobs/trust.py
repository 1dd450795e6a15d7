"""What of the user's configuration is not believed after a job damaged the repository.

A worker without a sandbox can write the repository's configuration. Its audit says so and quarantines it, but the
settings stay, and git would run the programs they name in the boss's own checkout. Nearly all of that is off in every
call (`git.door`); filters, and fetching what a partial clone lacks, cannot be, since honest ones are needed. So while
an open workflow has a quarantined job that damaged something and has not landed, filters that are not what they were
when its workspace was primed do nothing, and nothing is fetched. Landing that job by name, or closing the workflow, is
how the boss says that he has looked.

What only the boss's own wish starts, a program that signs or a hook, is not started at all then; nor where a job that
is still at work has damaged something by now.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from worktrees import git
from worktrees.jobs import records

if TYPE_CHECKING:
    from worktrees.isolation import Place
    from worktrees.jobs.ledger import Row


def review(place: Place) -> tuple[list[str], list[str]]:
    """Decides for this process what git believes from here on: settings that it does not, and the jobs they are due to.

    To be asked before anything is checked out. Costs a look at the open jobs, and one git process after damage.
    """
    from worktrees import changes

    git.distrust(None)
    damaged = _damaged(place)
    if not damaged:
        return [], []
    names = changes.filters_since(place.repo, [Path(path) / "index" for _, path in damaged])
    git.distrust({name: "false" if name.endswith(".required") else "" for name in names})
    return names, [_word(row) for row, _ in damaged]


def damaging(place: Place) -> list[str]:
    """Jobs that damaged the repository, at work or over, and that the boss has not looked at.

    By plain file reads; a job at work is audited as at its end.
    """
    from worktrees import changes
    from worktrees.isolation import workspace_of

    found = []
    for row in records.rows(place.state):
        directory = place.state.job_dir(row["workflowId"], row["jobId"])
        if row["state"] == "done" or (before := records.witness(directory, "fingerprint.json")) is None:
            continue
        workspace = workspace_of(place, row["jobId"])
        if workspace and changes.audit(place.repo, workspace.path, workspace.git_dir, before).quarantine:
            found.append(_word(row))
    # After those at work: one that ends meanwhile is here.
    return [*found, *(word for row, _ in _damaged(place) if (word := _word(row)) not in found)]


def _damaged(place: Place) -> list[tuple[Row, Path]]:
    """Quarantined jobs of open workflows that damaged something and have not landed, with their directories."""
    suspects = [row for row in records.rows(place.state) if row.get("quarantined") and not row["landedBy"]]
    directories = [place.state.job_dir(row["workflowId"], row["jobId"]) for row in suspects]
    return [(row, path) for row, path in zip(suspects, directories, strict=True) if _has_damaged(path)]


def _word(row: Row) -> str:
    return str(row["name"] or row["jobId"])


def _has_damaged(directory: Path) -> bool:
    found = records.witness(directory, "changes.json") or {}
    return bool((found.get("audit") or {}).get("quarantine"))
