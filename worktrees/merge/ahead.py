"""What would not merge: job with job, and each with the branch, before anything is planned."""

from __future__ import annotations

from collections.abc import Sequence

from worktrees.git import ObjectStore, Repo
from worktrees.git.odb import TOOL_IDENTITY
from worktrees.merge.mill import grinding
from worktrees.merge.strategies import Candidate, Round, commits_of
from worktrees.model import Conflict, Oid


def conflicts_between(
    repo: Repo, store: ObjectStore, onto: Oid, pairs: Sequence[tuple[Candidate, Candidate | None]]
) -> list[list[Conflict]]:
    """For each pair what would not merge, in one git process; None as the second of a pair means the branch at `onto`.

    Raises: GitFailed; NotFound for a snapshot that is gone.
    """
    everybody = {each.job_id: each for pair in pairs for each in pair if each is not None}
    work = [each.work for each in everybody.values()]
    with grinding(repo, store, onto, TOOL_IDENTITY, work=work) as mill:
        commits = [onto, *(oid for each in everybody.values() for oid in commits_of(each))]
        tools = Round(mill, mill.trees(commits))
        sides = {job: tools.side(candidate) for job, candidate in everybody.items()}
        answers = []
        for one, other in pairs:
            first, trouble = sides[one.job_id]
            second, more_trouble = sides[other.job_id] if other is not None else (onto, [])
            if first is None or second is None:
                answers.append(trouble + more_trouble)
            elif other is None and one.baseline.commit == onto:
                answers.append([])  # nothing else happened since
            else:
                answers.append(mill.merge(first, second).conflicts)
        return answers
