"""In which order the jobs of a merge are put onto the branch.

Without a wish: as they were named, else by completion. Only where that leaves conflicts and the rest is to land
anyway (`skip`, `rerun`), the order that lands most is looked for: every overlapping pair is merged, and each job with
the branch; of the jobs that merge with the branch the largest set without a conflicting pair goes first, everybody else
after it. The largest set is found exactly among up to `_EXACT` jobs that conflict with another, beyond that by leaving
out the one with most conflicts again and again. Pairs are not the whole truth, so both orders are planned, and the new
one counts only when more lands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worktrees import changes
from worktrees.merge import conflicts_between

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from worktrees.isolation import Place
    from worktrees.merge import Candidate
    from worktrees.model import ChangeSet, Job, JobId, MergeOrder, Oid

_EXACT = 24


def in_order(jobs: Sequence[Job], sets: Mapping[JobId, ChangeSet], order: MergeOrder) -> list[Job]:
    """Jobs in an order somebody asked for; those that are equal stay as they stand."""
    touched: dict[JobId, int] = dict.fromkeys(sets, 0)
    if order == "fewest-overlaps":
        for overlap in changes.overlaps(list(sets.values())):
            for job in overlap.jobs:
                touched[job] += 1

    def size(job: Job) -> tuple[int, int]:
        files = sets[job.job_id].files
        return len(files), sum((file.additions or 0) + (file.deletions or 0) for file in files)

    keys: dict[str, Callable[[Job], Any]] = {
        "completion": lambda job: job.finished_at or "",
        "created": lambda job: job.created_at,
        "name": lambda job: job.name or job.job_id,
        "size": size,
        "fewest-overlaps": lambda job: touched[job.job_id],
    }
    return sorted(jobs, key=keys[order]) if order in keys else list(jobs)


def landing_most(
    place: Place, onto: Oid, candidates: Sequence[Candidate], sets: Mapping[JobId, ChangeSet]
) -> list[JobId]:
    """The jobs in an order in which as many as possible should merge; one git process."""
    by_id = {candidate.job_id: candidate for candidate in candidates}
    pairs = sorted({(one, other) for each in changes.overlaps(list(sets.values())) for one, other in [each.jobs[:2]]})
    asked: list[tuple[Candidate, Candidate | None]] = [(by_id[one], by_id[other]) for one, other in pairs]
    asked += [(candidate, None) for candidate in candidates]
    found = conflicts_between(place.repo, place.store, onto, asked)
    against: dict[int, set[int]] = {number: set() for number in range(len(candidates))}
    place_of = {candidate.job_id: number for number, candidate in enumerate(candidates)}
    hopeless = set()
    for (one, second), conflicts in zip(asked, found, strict=True):
        if conflicts and second is None:
            hopeless.add(place_of[one.job_id])
        elif conflicts and second is not None:
            against[place_of[one.job_id]].add(place_of[second.job_id])
            against[place_of[second.job_id]].add(place_of[one.job_id])
    first = largest_without_conflict([number for number in against if number not in hopeless], against)
    rest = [number for number in against if number not in first]
    return [candidates[number].job_id for number in [*sorted(first), *rest]]


def largest_without_conflict(numbers: Sequence[int], against: Mapping[int, set[int]]) -> set[int]:
    """A largest set of which no two are against each other; of several the one with the smallest numbers."""
    left = set(numbers)
    quarrels = {number: against[number] & left for number in left}
    quarrelling = sorted(number for number in left if quarrels[number])
    if not quarrelling:
        return left
    worst = max(quarrelling, key=lambda number: (len(quarrels[number]), number))
    without = largest_without_conflict(sorted(left - {worst}), against)
    if len(quarrelling) > _EXACT:
        return without
    chosen = {worst} | largest_without_conflict(sorted(left - {worst} - quarrels[worst]), against)
    return max(without, chosen, key=lambda each: (len(each), [-number for number in sorted(each)]))
