"""What would not merge: job with job, and each with the branch, before anything is planned."""

from __future__ import annotations

import re
from collections.abc import Sequence

from worktrees.git import ObjectStore, Repo
from worktrees.git.odb import TOOL_IDENTITY
from worktrees.merge.mill import grinding
from worktrees.merge.strategies import Candidate, Round, commits_of
from worktrees.model import Clash, Conflict, JobId, Oid

_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


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


def title_of(name: str | None, job_id: JobId) -> str:
    """What a job is called in conflict markers: its name, where that can be a branch's."""
    fits = name and _BRANCH.fullmatch(name) and ".." not in name and not name.endswith((".", ".lock"))
    return name if name and fits and name != "HEAD" else job_id


def conflict_between(repo: Repo, store: ObjectStore, onto: Oid, clash: Clash, title: str) -> tuple[Oid, list[bytes]]:
    """What a conflict looks like: a tree whose files hold markers, `HEAD` against the title, and lines of an index."""
    with grinding(repo, store, onto, TOOL_IDENTITY, names={"HEAD": clash.ours, title: clash.theirs}) as mill:
        verdict = mill.merge("HEAD", title)
    return verdict.tree, verdict.stages
