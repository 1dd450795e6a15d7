"""What of the user's configuration is not believed after a job damaged the repository.

A worker without a sandbox can write the repository's configuration. Its audit says so and quarantines it, but the
settings stay, and git would run the programs they name in the boss's own checkout. Nearly all of that is off in every
call (`git.door`); filters, and fetching what a partial clone lacks, cannot be, since honest ones are needed. So while
an open workflow has a quarantined job that damaged something and has not landed, filters that are not what they were
when its workspace was primed do nothing, and nothing is fetched. Landing that job by name, or closing the workflow, is
how the boss says that he has looked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from worktrees import git
from worktrees.jobs import records

if TYPE_CHECKING:
    from worktrees.isolation import Place


def review(place: Place) -> tuple[list[str], list[str]]:
    """Decides for this process what git believes from here on: settings that it does not, and the jobs they are due to.

    To be asked before anything is checked out. Costs a look at the open jobs, and one git process after damage.
    """
    from worktrees import changes

    git.distrust(None)
    suspects = [row for row in records.rows(place.state) if row.get("quarantined") and not row["landedBy"]]
    if not suspects:
        return [], []
    directories = [place.state.job_dir(row["workflowId"], row["jobId"]) for row in suspects]
    damaged = [(row, path) for row, path in zip(suspects, directories, strict=True) if _has_damaged(path)]
    if not damaged:
        return [], []
    names = changes.filters_since(place.repo, [Path(path) / "index" for _, path in damaged])
    git.distrust({name: "false" if name.endswith(".required") else "" for name in names})
    return names, [str(row["name"] or row["jobId"]) for row, _ in damaged]


def _has_damaged(directory: Path) -> bool:
    found = records.witness(directory, "changes.json") or {}
    return bool((found.get("audit") or {}).get("quarantine"))
