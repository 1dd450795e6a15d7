"""What would happen, before anything does: which jobs meet on a path, and what would not merge.

Every job is held against the branch, every two that may not merge against each other, and all of them are planned one
after another as a merge would. Running jobs are looked at as they are now, uncommitted work included. git merges all
pairs in one process, and the plan in another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worktrees import changes, config, jobs
from worktrees.boss.footing import Footing
from worktrees.boss.judgement import candidate, merge_spec, mergeable
from worktrees.changes import is_sensitive
from worktrees.git.odb import TOOL_IDENTITY
from worktrees.jobs import looks
from worktrees.jobs.watching import Watch
from worktrees.merge import conflicts_between
from worktrees.model import Job, Overlaps, PairConflict, path_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worktrees.merge import Candidate
    from worktrees.model import ChangeSet, JobId, Lines, MergePlan, Oid, Overlap, RepoPath, Step

_LOOK_SECONDS = 2.0


def _short(ref: str | None) -> str | None:
    return ref.removeprefix("refs/heads/") if ref else None


class Foresight(Footing):
    """`overlap`, once or again and again."""

    def overlap(self, *words: str) -> Overlaps:
        """Paths that two of these jobs touch, and what does not merge: job with job, and each job with the branch.

        Without words: every job of the open workflows whose work has not landed. Also what merging them would make of
        it, step by step.
        """
        return self._ahead(self._concerned(words), named=bool(words))

    def watch_overlap(self, *words: str, look_seconds: float = _LOOK_SECONDS) -> Iterator[Overlaps]:
        """The same again whenever it is something else, until all of the jobs are done; the first at once.

        Records of jobs are waited for; into the workspaces of those that run somebody looks every `look_seconds`.
        """
        said: Overlaps | None = None
        while True:
            chosen = self._concerned(words)
            found = self._ahead(chosen, named=bool(words))
            if found != said:
                yield found
                said = found
            pending = [self.state.find_job_dir(job.job_id) for job in chosen if job.state != "done"]
            if not pending:
                return
            with Watch(pending) as watch:
                watch.wait(look_seconds)

    # --------------------------------------------------------------------------------------------------------- steps
    def _concerned(self, words: Sequence[str]) -> list[Job]:
        """Jobs with work to look at, in the order a merge would take them: those that are done first."""
        self._boss_only("overlap")
        self.mend_jobs()
        if words:
            everyone = jobs.resolve(self.state, words)
        elif self.state.exists():
            everyone = [job for job in jobs.load_all(self.state) if not (job.landed_by or job.dropped_by)]
            everyone.sort(key=lambda job: (job.state != "done", job.finished_at or job.created_at))
        else:
            everyone = []
        return [job for job in everyone if job.snapshot is not None or job.workspace_present]

    def _ahead(self, chosen: Sequence[Job], *, named: bool) -> Overlaps:
        sets = {
            job.job_id: looks.recorded(self.state, job) or looks.live(self.place, job, self.settings) for job in chosen
        }
        candidates = {job.job_id: candidate(job, sets[job.job_id]) for job in chosen}
        found = changes.overlaps(list(sets.values()))
        head = self.repo.head()
        if head.commit is None or not candidates:
            return Overlaps(overlaps=found, branch=_short(head.ref))
        conflicts = self._conflicts(head.commit, candidates, changes.meeting(list(sets.values()), found))
        clashing = {(*conflict.jobs, conflict.path) for conflict in conflicts}
        lines = self._lines(sets, found)
        overlaps = [
            overlap.model_copy(
                update={
                    "conflict": (*overlap.jobs, overlap.path) in clashing,
                    "lines": [
                        lines[job].get(path_bytes(overlap.path, overlap.path_base64), []) for job in overlap.jobs
                    ],
                }
            )
            for overlap in found
        ]
        taken = [candidates[job.job_id] for job in chosen if named or job.state != "done" or mergeable(job)]
        plan = self._plan_ahead(head.commit, taken)
        return Overlaps(overlaps=overlaps, conflicts=conflicts, branch=_short(head.ref), onto=head.commit, plan=plan)

    def _conflicts(
        self, onto: Oid, candidates: dict[JobId, Candidate], pairs: Sequence[tuple[JobId, JobId]]
    ) -> list[PairConflict]:
        asked: list[tuple[Candidate, Candidate | None]] = [(candidates[one], candidates[other]) for one, other in pairs]
        asked += [(each, None) for each in candidates.values()]
        answers = conflicts_between(self.repo, self.place.store, onto, asked)
        return [
            PairConflict(
                jobs=[one.job_id, other.job_id] if other else [one.job_id],
                path=conflict.path,
                path_base64=conflict.path_base64,
                kind=conflict.kind,
                sensitive=is_sensitive(path_bytes(conflict.path, conflict.path_base64)),
            )
            for (one, other), found in zip(asked, answers, strict=True)
            for conflict in found
        ]

    def _lines(
        self, sets: dict[JobId, ChangeSet], found: Sequence[Overlap]
    ) -> dict[JobId, dict[RepoPath, list[Lines]]]:
        paths: dict[JobId, set[RepoPath]] = {job: set() for job in sets}
        for overlap in found:
            for job in overlap.jobs:
                paths[job].add(path_bytes(overlap.path, overlap.path_base64))
        return {job: changes.changed_lines(self.place.store, sets[job], paths[job]) for job in sets}

    def _plan_ahead(self, onto: Oid, taken: Sequence[Candidate]) -> list[Step]:
        strategy = config.plugin("merge", merge_spec({}, self.settings).strategy)()
        plan: MergePlan = strategy.plan(
            self.repo, self.place.store, onto, taken, identity=TOOL_IDENTITY, on_conflict="skip"
        )
        # These commits carry no name of the boss's and are never landed.
        return [step.model_copy(update={"commit": None}) for step in plan.steps]
