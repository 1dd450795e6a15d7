"""Conflicts resolved by hand: laid out in an integration worktree, taken from there, or given up.

    merge (manual)   plan; at the first conflict write down what is being merged and lay it out; nothing moves
    merge_continue   take the resolution, plan again with it; the next conflict is laid out in the same place, without
                     one all lands as one operation
    merge_abort      keep what is there as a commit of the store, take the integration worktree away

All that counts is in one record (`landing.integration`), so any process goes on where another died, and a branch that
moved meanwhile is planned for again, with the resolutions applied to where it stands now.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from worktrees import jobs
from worktrees.boss.homecoming import Homecoming, Prepared
from worktrees.errors import NotFound
from worktrees.landing import integration
from worktrees.merge import conflict_between, title_of
from worktrees.model import Laid, Merged, MergeSpec, Merging
from worktrees.render.text import listed
from worktrees.store import now

if TYPE_CHECKING:
    from collections.abc import Iterator


class ByHand(Homecoming):
    """The verbs of a merge that stopped for its boss to resolve a conflict."""

    def merge_continue(self, **more: Any) -> Merged:
        """Goes on with a merge whose conflict was resolved in the integration worktree; lands it when that was all.

        `more` is what `merge` is told anew. Raises: NotFound when none waits; Refused `unresolved`, `markers-left`,
        `unstaged-edits`, `resolution-gone`; whatever `merge` raises, and then it can be tried again.
        """
        self._boss_only("merge --continue")
        self._mend()
        with self._alone("continue a merge"):
            waiting = integration.required(self.state)
            merging = integration.take(self.place, waiting)
            chosen = [jobs.load(self.state, job_id) for job_id in merging.jobs]
            words = [job.job_id for job in chosen if not (job.landed_by or job.dropped_by)]
            left = [job.name or job.job_id for job in chosen if job.job_id not in words]
            if not words:
                integration.clear(self.place)
                raise NotFound(f"landed or dropped meanwhile: {listed(left)}", hint="wt list --all")
            notices = list(self.notices)
            wishes = merging.spec.model_dump(include=set(MergeSpec.model_fields))
            wishes |= {"into": merging.ref, "order": "given", "on_conflict": "manual"}
            self._resuming = merging
            landed = False
            try:
                merged = self.merge(*words, **wishes, **more)
                landed = merged.landed
            finally:
                self._resuming = None
                if not landed and integration.load(self.state) == merging:
                    # Refused, or red: what is in the integration worktree may be edited, and counts the next time.
                    integration.write(self.place, waiting)
                self.notices[:0] = notices
            if left:
                self._notice("left-out", f"landed or dropped meanwhile: {listed(left)}")
            if merged.landed or all(step.outcome == "empty" for step in merged.steps):
                integration.clear(self.place)
            return merged

    def merge_abort(self) -> Merged:
        """Gives a merge up that waits for a resolution; what is in the integration worktree is kept in wt's own store.

        Raises: NotFound when none waits.
        """
        self._boss_only("merge --abort")
        self._mend()
        with self._alone("abort a merge"):
            merging = integration.required(self.state)
            kept = integration.keep(self.place, merging)
            integration.clear(self.place)
        return Merged(
            aborted=True,
            branch=merging.ref.removeprefix("refs/heads/"),
            before=merging.before,
            after=merging.before,
            strategy=merging.spec.strategy,
            kept=kept,
        )

    # --------------------------------------------------------------------------------------------------------- steps
    @contextlib.contextmanager
    def _alone(self, purpose: str) -> Iterator[None]:
        """Nobody else lays out, takes or gives up meanwhile. Raises: Busy."""
        if not self.state.exists():
            raise NotFound("no merge waits for a resolution", hint="wt merge --on-conflict manual")
        with self.state.lock("merging", purpose=purpose, timeout_seconds=self.settings.lock_timeout_seconds):
            yield

    def _lay_out(self, prepared: Prepared, spec: MergeSpec) -> Merged:
        """Stops at the first conflict, laid out to be resolved by hand. Raises: Refused `operation-in-progress`."""
        if self._resuming is not None:
            return self._lay_out_next(self._resuming, prepared, spec)
        with self._alone("lay out a conflict"):
            if (other := integration.load(self.state)) is not None:
                raise integration.in_progress(self.place, other)
            merging = Merging(
                jobs=[job.job_id for job in prepared.jobs],
                workflow_id=prepared.jobs[0].workflow_id,
                spec=spec,
                ref=prepared.target.ref,
                before=prepared.target.before,
                created_at=now(),
            )
            return self._lay_out_next(merging, prepared, spec)

    def _lay_out_next(self, merging: Merging, prepared: Prepared, spec: MergeSpec) -> Merged:
        step, clash = prepared.plan.conflicted[0], prepared.plan.clash
        if clash is None:
            raise AssertionError
        job = jobs.load(self.state, step.job_id)
        merging = merging.model_copy(update={"laid": None, "before": prepared.target.before})
        integration.write(self.place, merging)
        tree, stages = conflict_between(
            self.repo, self.place.store, prepared.target.before, clash, title_of(job.name, job.job_id)
        )
        laid = Laid(job_id=step.job_id, name=step.name, ours=clash.ours, theirs=clash.theirs, conflicts=step.conflicts)
        shown = merging.model_copy(update={"laid": laid})
        message = spec.message or f"Merge job {job.name or job.job_id}"
        for said in integration.lay_out(self.place, shown, tree=tree, stages=stages, message=message):
            self._notice("attributes-off", said)
        integration.write(self.place, shown)
        return self._merged(prepared).model_copy(update={"resolve_in": str(integration.work_tree(self.place))})
