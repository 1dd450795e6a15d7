"""The story of a run, and the Python API.

    boss = Boss("path/in/the/repository")
    job = boss.spawn(["agent", "--task", "…"], name="audit")
    boss.wait()
    boss.merge()

One method per verb of the contract; answers are frozen values (`worktrees.model`). Conflicts, refusals inside a plan
and dry runs are values; exceptions (`worktrees.errors`) are for what the caller cannot go on from. Every verb that
changes something first mends what a dead process left half-done. Rules live on the floors below; this file says in
which order they are asked.

Identity: a process is a worker when its environment has `WT_JOB` or when it stands in a job's workspace. A worker may
look at its own job (`status`, `diff`), and end it when it is an open one (`settle`); every other verb answers
`not-boss`.
"""

from __future__ import annotations

import builtins
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from worktrees import config, isolation, jobs, setup
from worktrees.boss import diagnosis, hiring
from worktrees.boss.foresight import Foresight
from worktrees.boss.guarding import Guarding
from worktrees.boss.judgement import (
    required,
    summary,
    unfinished,
)
from worktrees.boss.providing import Providing
from worktrees.errors import NotFound, Refused, WorktreesError
from worktrees.isolation import pool
from worktrees.jobs import admission, baselines, confinement, looks, removal
from worktrees.jobs.ledger import left_out
from worktrees.model import (
    Agents,
    Configuration,
    Diagnosis,
    Diff,
    EventPage,
    Job,
    JobId,
    JobSpec,
    Logs,
    Outcome,
    Removal,
    Removed,
    Setting,
    SetUp,
    SetupCommand,
    Spawned,
    SpawnFailure,
    Waited,
    Workflow,
    WorkflowName,
    Workflows,
)
from worktrees.render.text import counted, listed, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from worktrees.isolation import Place

    Progress = Callable[[int, int], None] | None

JobList = builtins.list[Job]  # `list` is a verb below
Stream = Literal["stdout", "stderr"]


class Boss(Providing, Foresight, Guarding):
    """The verbs, for the repository around `path`.

    Keyword arguments are settings of the call (`k_write=4`), the layer above all others. `notices` holds what the
    last verb had to say beside its answer.

    Raises: Refused `not-a-repository`, `unsupported-repository`; Usage for a setting that is wrong in any layer.
    """

    # ------------------------------------------------------------------------------------------------------ starting
    def spawn(self, command: Sequence[str] | None = None, **wishes: Any) -> Job:
        """Starts one job, or opens a workspace when there is no command; returns at once.

        `wishes` are fields of `JobSpec`: `name`, `task`, `agent`, `access`, `base`, `dirty`, `workflow`, ...
        """
        return self.spawn_many([JobSpec(command=builtins.list(command) if command else None, **wishes)]).jobs[0]

    def spawn_many(self, specs: Sequence[JobSpec], *, progress: Progress = None) -> Spawned:
        """Starts jobs in one go; one that cannot be made is reported and does not stop the others.

        A single one that cannot be made raises what stopped it. `progress` is told how many are through.
        """
        self._boss_only("spawn")
        self._mend()  # first: a landing that was cut off would count as the boss's edits
        starts = {
            wish: baselines.baseline(self.place, wish[0], wish[1] or self._dirty_policy())
            for wish in {(spec.base, spec.dirty) for spec in specs}
        }
        if len(specs) == 1:
            wish, _, agent = hiring.engage(self.repo, self.state, specs[0])
            confinement.check(self.state, wish, self.settings, agent)
        self.state.prepare()
        self.place.store.ensure(self.repo)
        made: builtins.list[JobId] = []
        failures: builtins.list[SpawnFailure] = []
        joined: dict[WorkflowName, Workflow] = {}
        for index, spec in enumerate(specs):
            baseline = starts[spec.base, spec.dirty]
            try:
                wish, start, agent = hiring.engage(self.repo, self.state, spec)
                workflow, job = self._submit(wish, start or baseline, opened_at=baseline, agent=agent)
            except WorktreesError as error:
                if len(specs) == 1:
                    raise
                failures.append(
                    SpawnFailure(index=index, name=spec.name, code=error.code, message=error.message, hint=error.hint)
                )
            else:
                joined[workflow.workflow_id] = workflow
                made.append(job.job_id)
            if progress:
                progress(index + 1, len(specs))
        for workflow in joined.values():
            jobs.admit(self.place, workflow)
        left_out = max((baseline.left_out for baseline in starts.values()), default=0)
        if left_out:
            self._notice("dirty-left-out", f"{counted(left_out, 'uncommitted path')} of the checkout left out")
        self._notice_provisions(made)
        spawned = [jobs.load(self.state, job_id) for job_id in made]
        if said := confinement.unprotected(self.state, self.settings, spawned):
            self._notice("no-sandbox", said)
        return Spawned(jobs=spawned, failures=failures)

    def adopt(
        self, path: str | Path = ".", *, name: str | None = None, base: str | None = None, workflow: str | None = None
    ) -> SetUp:
        """Makes a linked worktree that somebody else made the workspace of an open job, as it stands.

        Brings what a fresh workspace gets and overwrites nothing. What differs from `base`, by default the worktree's
        HEAD now, is the job's work. `path` is any directory in it. The boss's side is the work tree we stand in, the
        main one when that is the one adopted.

        Raises: NotFound; Refused `main-worktree`, `own-workspace`, `already-adopted`, `not-an-ancestor`,
        `unsupported-repository`, ...
        """
        if os.environ.get("WT_JOB"):
            self._boss_only("setup")
        foreign = isolation.find_foreign(self.place, self.here / path)
        self._boss_only("setup")
        main = isolation.from_main(self.repo)
        if self.repo.work_tree == foreign.path:
            self._stand_in(main)
        self._mend()
        baseline, edits = baselines.adopted(self.repo.at(foreign.path), base)
        opened_at = baselines.baseline(self.place, None, "ignore")
        self.state.prepare()
        self.place.store.ensure(self.repo)
        spec = JobSpec(name=name, workflow=workflow, isolation=isolation.AdoptedIsolation.name)
        kind = isolation.AdoptedIsolation(foreign)
        _, job = self._submit(spec, baseline, opened_at=opened_at, isolation=kind)
        if edits:
            paths = counted(edits, "uncommitted path")
            self._notice("adopted-edits", f"{paths} of the worktree count{'s' * (edits == 1)} as the job's work")
        self._notice_provisions([job.job_id])
        return SetUp(job=job, workspace=job.workspace, **looks.provided(self.state, job.job_id))

    # ------------------------------------------------------------------------------------------------------ watching
    def list(self, *, workflow: str | None = None, closed: bool = False) -> JobList:
        """Jobs of the open workflows, the oldest first; `closed` also those of closed ones."""
        if not self.state.exists():
            return []
        if self.worker:
            return self.status()
        jobs.reconcile(self.place)
        damaged: builtins.list[str] = []
        found = jobs.load_all(self.state, self._name(workflow), closed=closed, damaged=damaged)
        for path in damaged:
            self._notice(**left_out(path))
        return found

    def status(self, *words: str) -> JobList:
        """The named jobs, or all of the open workflows; a worker's own job."""
        if self.worker:
            return [self._own(word) for word in words] or [jobs.load(self.state, self.worker)]
        if not words:
            return self.list()
        self.mend_jobs()
        return jobs.resolve(self.state, words)

    def wait(
        self,
        *words: str,
        any: bool = False,  # noqa: A002 - the contract's word
        timeout_seconds: float | None = None,
        workflow: str | None = None,
        acknowledge: bool = True,
        narrate: Callable[[str], object] | None = None,
    ) -> Waited:
        """Blocks until all jobs are done, or any that was not returned before; a time-out cancels nothing.

        Without `acknowledge` the one returned for `any` counts as not returned. `narrate` is told of jobs that somebody
        has to settle before this returns.
        """
        self._boss_only("wait")
        self.mend_jobs()
        chosen = jobs.resolve(self.state, words) if words else jobs.load_all(self.state, self._name(workflow))
        opened = [job.name or job.job_id for job in chosen if job.state == "open"]
        if narrate is not None and opened and (not any or len(opened) == len(chosen)):
            narrate(f"waiting for {listed(opened)}, open until: wt settle {opened[0]}")
        waited = jobs.wait(
            self.place,
            [job.job_id for job in chosen],
            mode="any" if any else "all",
            timeout_seconds=timeout_seconds,
            acknowledge=acknowledge,
        )
        return Waited(
            jobs=[*waited.completed, *waited.pending],
            timed_out=waited.timed_out,
            completed=[job.job_id for job in waited.completed],
            pending=[job.job_id for job in waited.pending],
        )

    def result(self, word: str, *, full: bool = False) -> Outcome:
        """How a job ended, its last words and what it really changed; `full` adds the end of its output.

        Raises: Refused `job-unfinished`.
        """
        self._boss_only("result")
        job = self._one(word)
        if job.state != "done":
            raise unfinished(job, "it has no result yet")
        changed = looks.recorded(self.state, job)
        logs = looks.logs(self.state, job) if full else None
        return Outcome(
            job=job,
            final_message=looks.final_message(self.state, job),
            **looks.run(self.state, job),
            output=logs.stdout if logs else None,
            error_output=logs.stderr if logs else None,
            change_set=changed,
            audit=changed.audit if changed else None,
        )

    def logs(self, word: str) -> Logs:
        """The end of a job's raw output, a megabyte of each stream at most."""
        self._boss_only("logs")
        return looks.logs(self.state, self._one(word))

    def read_log(self, word: str, stream: Stream = "stdout", *, follow: bool = False) -> Iterator[bytes]:
        """Raw output from its beginning; with `follow` as it comes, until the worker is gone."""
        self._boss_only("logs")
        job = self._one(word)
        return jobs.follow_log(self.state, job.job_id, stream) if follow else looks.read_log(self.state, job, stream)

    def events(self, word: str, cursor: str | None = None, *, most: int = 1000) -> EventPage:
        """Events after a cursor; the answer's cursor continues where this page ends."""
        self._boss_only("events")
        page = jobs.events(self.state, self._one(word).job_id, cursor, most=most)
        return EventPage(events=page.events, next_cursor=page.next_cursor, done=page.done)

    def follow_events(self, word: str, cursor: str | None = None) -> Iterator[EventPage]:
        """Pages of events as they come, until the job's last one."""
        self._boss_only("events")
        job_id = self._one(word).job_id
        for page in jobs.follow_events(self.state, job_id, cursor, when_lost=self.mend_jobs):
            yield EventPage(events=page.events, next_cursor=page.next_cursor, done=page.done)

    def diff(self, word: str | None = None, *, patch: bool = False) -> Diff:
        """What a job really changed: its record once it is done, a look into its workspace before.

        A worker may leave the word out and gets its own.
        """
        with self._looking(word) as (place, job):
            changed = looks.recorded(self.state, job) or looks.live(place, job, self.settings)
            return Diff(
                change_set=changed,
                patch=looks.patch(place, changed).decode("utf-8", "backslashreplace") if patch else None,
            )

    def patch(self, word: str | None = None, *, color: bool = False) -> bytes:
        """The same as git's patch, byte for byte."""
        with self._looking(word) as (place, job):
            changed = looks.recorded(self.state, job) or looks.live(place, job, self.settings)
            return looks.patch(place, changed, color=color)

    # -------------------------------------------------------------------------------------------------------- ending
    def cancel(self, *words: str, force: bool = False) -> JobList:
        """Asks jobs to end and returns at once; `force` kills everything they started."""
        self._boss_only("cancel")
        self.mend_jobs()
        chosen = jobs.resolve(self.state, words)
        return [jobs.cancel(self.place, job.job_id, force=force) for job in chosen]

    def settle(self, word: str | None = None) -> Job:
        """Ends an open job and records what it changed; whoever stands in its workspace may leave the word out."""
        job = self._own(word) if self.worker else self._one(required(word))
        if self.worker and job.state != "open":
            raise self._not_boss("settle")
        return jobs.settle(self.place, job.job_id)

    def extend_lease(self, word: str, ttl_seconds: float) -> Job:
        """Lets a job go on for `ttl_seconds` from now."""
        self._boss_only("lease extend")
        self.mend_jobs()
        return jobs.extend_lease(self.place, self._one(word).job_id, ttl_seconds)

    # ---------------------------------------------------------------------------------------------------- tidying up
    def drop(self, *words: str, dry_run: bool = False, force: bool = False) -> Removed:
        """Gives jobs up: their workspaces go, their work stays as a snapshot, and `merge` passes them by.

        `force` lets go of what no snapshot can hold: special files, commits in a submodule, files over a limit.

        Raises: Refused `job-unfinished`, `live-processes`, `not-captured`; nothing is removed then.
        """
        self._boss_only("drop")
        self._mend()
        chosen = jobs.resolve(self.state, words)
        if dry_run:
            return Removed(dry_run=True, removals=removal.preview(self.place, chosen))
        removals = removal.give_up(self.place, chosen, self.settings, force=force)
        self._name_what_was_not_kept(removals)
        # Only these are the operation's, so that its undo brings back nobody who was given up before.
        given_up = [job for job in chosen if not job.dropped_by]
        for job in chosen:
            if job.dropped_by:
                self._notice("dropped-before", f"`{job.name or job.job_id}` was dropped before, by `{job.dropped_by}`")
        operation = self._note_drop(given_up, came_back=False) if given_up else None
        return Removed(operation_id=operation.operation_id if operation else None, removals=removals)

    def restore(self, *words: str) -> JobList:
        """Brings removed workspaces back as they were captured; dropped jobs count again.

        Raises: Refused `workspace-present`, `no-snapshot`.
        """
        self._boss_only("restore")
        self._mend()
        restored = [removal.restore(self.place, job, self.settings) for job in jobs.resolve(self.state, words)]
        removal.mark_dropped(self.place, [job.job_id for job in restored if job.dropped_by], None)
        return [jobs.load(self.state, job.job_id) for job in restored]

    def clean(
        self,
        *,
        older_than_seconds: float | None = None,
        unlanded: bool = False,
        dry_run: bool = False,
        progress: Progress = None,
    ) -> Removed:
        """Removes workspaces of finished jobs whose work is in the branch or is nothing; `unlanded` the others too.

        Every snapshot stays: an unlanded job still merges and can be restored. Worktrees that checks ran in go, too.
        """
        self._boss_only("clean")
        self._mend()
        removed = removal.clean(
            self.place,
            self.settings,
            older_than_seconds=older_than_seconds,
            unlanded=unlanded,
            dry_run=dry_run,
            progress=progress,
        )
        self._name_what_was_not_kept(removed.removals)
        checkers = pool.idle(self.place) if self.state.exists() else []
        gone = [each for each in checkers if dry_run or pool.close(self.place, each.job_id)]
        return removed.model_copy(update={"checkers": [os.fspath(each.path) for each in gone]})

    def workflows(self, *, closed: bool = False) -> Workflows:
        """Open workflows, or all, with how many of their jobs stand where."""
        self._boss_only("workflow list")
        found = jobs.workflows(self.state, closed=closed) if self.state.exists() else []
        return Workflows(workflows=[summary(self.state, workflow) for workflow in found])

    def close_workflow(self, name: str | None = None) -> Workflows:
        """Closes a workflow: later spawns open a new one. Raises: Refused `jobs-unfinished`."""
        self._boss_only("workflow close")
        self._mend()
        found = jobs.current_workflow(self.state, name) if self.state.exists() else None
        if found is None:
            raise NotFound("no workflow is open", hint="wt workflow list --all")
        closed = jobs.close_workflow(self.place, found.workflow_id)
        return Workflows(workflows=[summary(self.state, closed)])

    def doctor(self, *, fix: bool = False) -> Diagnosis:
        """What a crash left, by name; `fix` mends it. Never deletes work, never touches anybody else's worktrees."""
        self._boss_only("doctor")
        return diagnosis.diagnose(self.place, self.settings, [self._note_landings] if fix else None)

    def set_up(self, *, approve: bool = False) -> SetUp:
        """Which setup commands and checks there are, and agents the repository file defines, as text.

        `approve` records the user's consent to those of the repository file.
        """
        self._boss_only("setup")
        defined = hiring.definitions_to_approve(self.repo)
        if approve:
            asked = [setup.repository_commands(self.repo, name) for name in ("setup_commands", "check")]
            setup.approve(self.repo, [*asked[0], *asked[1], *defined])
        running, waiting = setup.commands_to_run(self.repo, self.settings)
        for text in defined:
            (running if setup.is_approved(self.repo, text) else waiting).append(text)
        checking, unchecked = setup.checks_to_run(self.repo, self.settings)
        commands = [SetupCommand(command=command, approved=True) for command in running]
        commands += [SetupCommand(command=command, approved=False) for command in waiting]
        commands += [SetupCommand(command=command, approved=True, purpose="check") for command in checking]
        commands += [SetupCommand(command=command, approved=False, purpose="check") for command in unchecked]
        return SetUp(commands=commands)

    def agents(self) -> Agents:
        """Every agent that `spawn` knows, and where its program is. Starts none of them."""
        self.notices.clear()
        return Agents(agents=hiring.known(self.repo))

    def environment(self, word: str | None = None) -> SetUp:
        """The variables that make a process the worker of an open job: who it is, its ports, the guard.

        Whoever stands in its workspace may leave the word out. Raises: Refused `job-not-open`.
        """
        self.notices.clear()
        job = self._own(word) if self.worker else self._one(required(word))
        if job.state != "open":
            raise Refused(
                f"`{job.name or job.job_id}` is {job.state} and not open",
                code="job-not-open",
                hint=f"wt status {job.name or job.job_id}",
                details={"jobId": job.job_id, "state": job.state},
            )
        return SetUp(job=job, workspace=job.workspace, environment=admission.environment(self.place, job, os.environ))

    def configuration(self) -> Configuration:
        """Every setting with its value and the layer that decides it."""
        decided = config.sources(self._layers)
        return Configuration(
            settings=[
                Setting(name=name, value=getattr(self.settings, name), source=source)
                for name, source in decided.items()
            ]
        )

    # --------------------------------------------------------------------------------------------------------- steps
    @contextlib.contextmanager
    def _looking(self, word: str | None) -> Iterator[tuple[Place, Job]]:
        """A job, and where to look at it from: a worker in a sandbox cannot write where the boss does."""
        job = self._own(word) if self.worker else self._one(required(word))
        with looks.writable(self.place) if self.worker else contextlib.nullcontext(self.place) as place:
            yield place, job

    def _name_what_was_not_kept(self, removals: Sequence[Removal]) -> None:
        for item in removals:
            if lost := item.ignored_not_kept:
                names = listed([file.path for file in lost], 3)
                total = size(sum(file.size_bytes for file in lost))
                self._notice(
                    "ignored-not-kept", f"`{item.name or item.job_id}`: ignored files are gone: {names} ({total})"
                )
            if item.edited_since:
                names = listed(item.edited_since, 3)
                self._notice(
                    "edited-since",
                    f"`{item.name or item.job_id}`: edited after it was captured: {names}; `wt restore` brings it back",
                )
