"""Worktrees for hosts that ask for one: made as open jobs, ended with the host.

A host (Claude Code) names a worktree and gets a directory; it works there with agents of its own. That is an open job
under the host's name for it, held by the host's process: whatever the host forgets to give back is settled once that
process is gone, and `clean` removes it. The same name again is the same worktree while it is there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from worktrees import jobs
from worktrees.boss.byhand import ByHand
from worktrees.errors import NotFound, Refused, Usage
from worktrees.jobs import baselines, holders, removal
from worktrees.model import Job, JobSpec, Removed

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIES = 100


class Providing(ByHand):
    """`hook claude-create` and `hook claude-remove`."""

    def provide(self, name: str, *, holder_pid: int, task: str | None = None) -> Job:
        """A workspace for the host whose process is `holder_pid`, under the host's name for it.

        Raises: Usage for a name that none can have; Refused `not-boss`, ...
        """
        self._boss_only("hook")
        self._mend()
        for word in _names(name):
            found = self._named(word)
            if found is None:
                return self._provided(word, holder_pid, task)
            directory = self.state.find_job_dir(found.job_id)
            if found.state == "open" and found.workspace_present and holders.has(directory):
                holders.note(directory, holder_pid)
                return found
        raise Usage(f"`{name}` and {_TRIES} names like it are taken", hint="wt drop those that are not needed")

    def give_back(self) -> Removed:
        """Ends the job in whose workspace we stand, and removes the workspace; its work stays and can be merged.

        Only what was made by `provide`, and only for the host itself. A job that changed nothing is dropped.
        Raises: NotFound; Refused `not-boss`, `live-processes`.
        """
        self.notices.clear()
        if self.worker is None:
            raise NotFound(f"`{self.here}` is no workspace of a job", hint="wt list")
        directory = self.state.find_job_dir(self.worker)
        if os.environ.get("WT_JOB") or not holders.has(directory):
            raise self._not_boss("hook")
        job = jobs.settle(self.place, self.worker)
        self.worker = None
        self._mend()
        if job.changed_files == 0 and job.verified:
            removals = removal.give_up(self.place, [job], self.settings)
            operation = self._note_drop([job], came_back=False)
            return Removed(operation_id=operation.operation_id, removals=removals)
        removed = removal.clean_one(self.place, job, self.settings)
        if removed.outcome == "kept":
            raise Refused(
                f"the workspace of `{job.name or job.job_id}` stays: {removed.reason}",
                code="live-processes",
                hint="wt clean --all",
            )
        return Removed(removals=[removed])

    def _named(self, word: str) -> Job | None:
        """The job of an open workflow that bears the name."""
        return next((job for job in jobs.load_all(self.state) if job.name == word and not job.dropped_by), None)

    def _provided(self, name: str, holder_pid: int, task: str | None) -> Job:
        baseline = baselines.baseline(self.place, None, self._dirty_policy())
        self.state.prepare()
        self.place.store.ensure(self.repo)
        spec = JobSpec(name=name, task=task, holder_pid=holder_pid)
        _, job = self._submit(spec, baseline, opened_at=baseline)
        if baseline.left_out:
            self._notice("dirty-left-out", f"{baseline.left_out} uncommitted paths of the checkout left out")
        self._notice_provisions([job.job_id])
        return job


def _names(name: str) -> Iterator[str]:
    """The name, then others like it."""
    yield name
    yield from (f"{name}-{number}" for number in range(2, _TRIES))
