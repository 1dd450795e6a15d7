"""Where a caller stands and who it is, and what every verb of the boss asks first."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from worktrees import config, isolation, jobs, landing
from worktrees.boss.judgement import layers, lost
from worktrees.errors import Busy, NotFound, Refused, StateBroken, Usage
from worktrees.jobs import looks, removal, requests, trust
from worktrees.jobs.ledger import left_out
from worktrees.landing import integration
from worktrees.model import Baseline, DirtyPolicy, Job, JobId, JobSpec, Notice, Workflow, WorkflowName
from worktrees.render.text import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worktrees.agents import Invocation
    from worktrees.git import Repo
    from worktrees.isolation import Isolation
    from worktrees.model import Merging, Resolved


def not_boss(verb: str, worker: str) -> Refused:
    """What a worker hears that asks for what is the boss's."""
    return Refused(
        f"`{verb}` is the boss's alone, and this is the worker of `{worker}`",
        code="not-boss",
        hint="leave the changes in the files, the boss merges them; look at them with: wt diff",
    )


class Footing:
    """The ground of `Boss`: the repository around `path`, the settings, the worker if the caller is one."""

    def __init__(self, path: str | Path = ".", **settings: Any) -> None:
        self.here = Path(path).absolute()
        self.repo, standing_in = isolation.discover_boss(self.here)
        self._layers = [*layers(self.repo), *([("this call", settings)] if settings else [])]
        self.settings = config.Settings()
        for source, values in self._layers:
            self.settings = self.settings.with_values(values, source)
        self.place = isolation.place(self.repo, self.settings)
        self.state = self.place.state
        self.worker = JobId(os.environ["WT_JOB"]) if os.environ.get("WT_JOB") else standing_in
        self.notices: list[Notice] = []
        self._resuming: Merging | None = None
        """The merge that is being gone on with after a resolution by hand, while that is done."""

    def _stand_in(self, repo: Repo) -> None:
        """Takes another work tree of the repository for the boss's."""
        self.repo = repo
        self.place = isolation.place(repo, self.settings)

    @property
    def stands_apart(self) -> bool:
        """Whether we stand in a linked worktree, be it ours, adopted or somebody else's."""
        return self.repo.git_dir != self.repo.common_dir or bool(self.worker)

    # ------------------------------------------------------------------------------------------------------ who asks
    def _boss_only(self, verb: str) -> None:
        self.notices.clear()
        if self.worker:
            raise self._not_boss(verb)

    def _not_boss(self, verb: str) -> Refused:
        return not_boss(verb, self.worker or "")

    def _own(self, word: str | None) -> Job:
        """The worker's own job; the word may only name that one."""
        job = jobs.load(self.state, self.worker or JobId(""))
        if word is not None and word not in (job.job_id, job.name):
            raise self._not_boss(f"looking at {word}")
        return job

    # --------------------------------------------------------------------------------------------------------- steps
    def _mend(self) -> None:
        """Settles what a dead process left half-done, before anything new starts."""
        if not self.state.exists():
            return
        self._review()
        for finding in (*isolation.recover(self.place), *landing.recover(self.place)):
            self._notice(finding.code, finding.message)
        if self.mend_jobs():
            self._review()
        self._note_landings()
        self._mend_resolving()

    def _mend_resolving(self) -> None:
        """Takes away what is left of a resolution by hand that is over, or of one that never came to be laid out."""
        if self._resuming is not None or not integration.directory(self.state).is_dir():
            return
        with contextlib.suppress(Busy, StateBroken), self.state.lock("merging", purpose="mend", timeout_seconds=0.0):
            merging = integration.load(self.state)
            begun = merging is not None and (merging.laid is not None or merging.resolved)
            if merging is None or not begun or all(self._is_over(job_id) for job_id in merging.jobs):
                integration.clear(self.place)

    def _is_over(self, job_id: JobId) -> bool:
        job = jobs.load(self.state, job_id)
        return bool(job.landed_by or job.dropped_by)

    def _refuse_while_resolving(self) -> None:
        """Raises Refused `operation-in-progress` while a merge waits for a conflict to be resolved by hand."""
        if self._resuming is None and self.state.exists() and (merging := integration.load(self.state)) is not None:
            self._mend_resolving()
            if integration.directory(self.state).is_dir():
                raise integration.in_progress(self.place, merging)

    def _resolved(self) -> list[Resolved]:
        return self._resuming.resolved if self._resuming is not None else []

    def _review(self) -> None:
        """Leaves out what a quarantined job may have put into the configuration."""
        settings, words = trust.review(self.place)
        if settings:
            self._notice(
                "settings-left-out",
                f"{listed(settings)} came while {listed(words)} ran, so it is not used; see: git config --show-origin "
                f"--list; once you have looked: wt merge {words[0]}, or wt workflow close",
            )

    def mend_jobs(self) -> bool:
        """Settles jobs whose supervisor is gone; says whether anything changed."""
        if self.worker or not self.state.exists():
            return False
        found = jobs.reconcile(self.place)
        for job in found:
            if job.result == "lost":
                self._notice("job-lost", lost(job).message)
        return bool(found)

    def _notice(self, code: str, message: str) -> None:
        notice = Notice(code=code, message=message)
        if notice not in self.notices:
            self.notices.append(notice)

    def _one(self, word: str) -> Job:
        self.mend_jobs()
        return jobs.resolve(self.state, [word])[0]

    def _name(self, workflow: str | None) -> WorkflowName | None:
        """A workflow somebody named, checked."""
        found = jobs.current_workflow(self.state, workflow) if workflow else None
        return found.workflow_id if found else None

    def _dirty_policy(self) -> DirtyPolicy:
        for policy in get_args(DirtyPolicy):
            if policy == self.settings.dirty:
                return cast("DirtyPolicy", policy)
        raise Usage(f"`{self.settings.dirty}` is no policy for uncommitted edits", hint="wt config")

    def _join(self, name: str | None, baseline: Baseline) -> tuple[Workflow, bool]:
        """The workflow a new job belongs to, and whether it was opened just now.

        The first job opens one, and with it the boss's whole checkout is recorded.
        """
        found = self._open(name)
        if found:
            return found, False
        # Two first spawns at once must not open two.
        with self.state.lock("opening", purpose="open a workflow", timeout_seconds=self.settings.lock_timeout_seconds):
            found = self._open(name)
            if found:
                return found, False
            boss_state = landing.checkpoint(self.place.store, self.repo, "wt: the checkout when the workflow opened")
            return jobs.open_workflow(self.place, baseline, name=name, boss_state=boss_state), True

    def _submit(
        self,
        spec: JobSpec,
        baseline: Baseline,
        *,
        opened_at: Baseline,
        isolation: Isolation | None = None,
        agent: Invocation | None = None,
        rerun_of: JobId | None = None,
    ) -> tuple[Workflow, Job]:
        """Records a job, or finds the one that the same request made before."""
        if spec.request_key is None:
            return self._submit_new(
                spec, baseline, opened_at=opened_at, isolation=isolation, agent=agent, rerun_of=rerun_of
            )
        with requests.serialised(self.state, timeout_seconds=self.settings.lock_timeout_seconds):
            if made := requests.find(self.state, spec.request_key):
                job = jobs.load(self.state, made)
                return jobs.load_workflow(self.state, job.workflow_id), job
            return self._submit_new(spec, baseline, opened_at=opened_at, isolation=isolation, agent=agent)

    def _submit_new(
        self,
        spec: JobSpec,
        baseline: Baseline,
        *,
        opened_at: Baseline,
        isolation: Isolation | None,
        agent: Invocation | None,
        rerun_of: JobId | None = None,
    ) -> tuple[Workflow, Job]:
        """Records a job; a workflow that had to be opened for it goes again when the job cannot be made."""
        workflow, opened = self._join(spec.workflow, opened_at)
        try:
            return workflow, jobs.submit(
                self.place,
                workflow,
                spec,
                self.settings,
                os.environ,
                baseline=baseline,
                isolation=isolation,
                agent=agent,
                rerun_of=rerun_of,
            )
        except BaseException:
            if opened:
                removal.discard_empty(self.place, workflow.workflow_id)
            raise

    def _notice_provisions(self, made: Sequence[JobId]) -> None:
        for notice in dict.fromkeys(found for job in made for found in looks.provision_notices(self.state, job)):
            self._notice(*notice)

    def _open(self, name: str | None) -> Workflow | None:
        try:
            return jobs.current_workflow(self.state, name)
        except NotFound:
            return None

    def _last_workflow(self) -> Workflow:
        found = jobs.workflows(self.state, closed=True) if self.state.exists() else []
        if not found:
            raise NotFound("no workflow has recorded a baseline here", hint="wt spawn -- COMMAND")
        return found[-1]

    def _note_landings(self) -> None:
        """Writes into the jobs' records by which operation their work stands in the branch, as the log says.

        The log is the truth; what a crash left out here is made good by the next call. A workflow whose jobs have all
        landed or were dropped is closed, one whose jobs came back is opened again.
        """
        damaged: list[str] = []
        rows = jobs.rows(self.state, closed=True, damaged=damaged)
        for path in damaged:
            self._notice(**left_out(path))
        stands = landing.landed(landing.operations(self.state))
        changed = [row for row in rows if row["landedBy"] != stands.get(JobId(row["jobId"]))]
        if changed:
            unknown = landing.damaged(self.state)
            changed = [row for row in changed if row["landedBy"] not in unknown]
        # Before its jobs: whoever dies in between does it again.
        for name in {row["workflowId"] for row in changed if row["jobId"] not in stands}:
            removal.close_or_reopen(self.place, WorkflowName(name), came_back=True)
        for row in changed:
            jobs.update(self.state, JobId(row["jobId"]), landed_by=stands.get(JobId(row["jobId"])))
        finished: dict[str, bool] = {}
        for row in rows:
            is_over = bool(stands.get(JobId(row["jobId"])) or row["droppedBy"])
            finished[row["workflowId"]] = finished.get(row["workflowId"], True) and is_over
        for workflow in jobs.workflows(self.state) if any(finished.values()) else ():
            if finished.get(workflow.workflow_id):
                removal.close_or_reopen(self.place, workflow.workflow_id, came_back=False)
