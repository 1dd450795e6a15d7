"""Many processes that merge at once: every result lands exactly once, and nothing else happens."""

from pathlib import Path

import pytest

from tests.kit import Answer, RepoKit, Wt
from tests.torture.test_commands import all_at_once, nothing_left
from worktrees import Boss, jobs
from worktrees.store import State


def merge_at_once(repo: RepoKit, wt: Wt, named: int, everything: int, *words: str) -> list[Answer]:
    """Some merge one job each, by name, while others merge whatever there is, all at the same moment."""
    boss = Boss(repo.path)
    names = [f"m{number}" for number in range(named)]
    ids = {}
    for name in names:
        job = boss.spawn(name=name)
        (Path(job.workspace or "") / f"{name}.txt").write_text(f"{name}\n")
        (Path(job.workspace or "") / "src" / f"{name}.py").write_text(f"{name}\n")
        ids[name] = boss.settle(name).job_id
    calls = [["merge", name, "--json", *words] for name in names] + [["merge", "--json", *words]] * everything
    answers = all_at_once(wt, calls)
    # Who comes second to a job that somebody else has landed finds nothing to do, and says so.
    assert [answer.status for answer in answers] == [0] * len(calls), "\n".join(map(str, answers))
    log = [operation for operation in Boss(repo.path).log() if operation.kind == "merge"]
    assert {operation.state for operation in log} == {"done"}
    landed = [
        (step["jobId"], step["commit"])
        for answer in answers
        if answer.data["landed"]
        for step in answer.data["steps"]
        if step["outcome"] == "landed"
    ]
    assert sorted(job for job, _ in landed) == sorted(ids.values())
    # In the branch once each, by a commit of its own.
    history = repo.text("log", "--first-parent", "--format=%H", "HEAD").split()
    assert len(history) == len(names) + 2
    assert {commit for _, commit in landed} == set(history[:-2])
    for name in names:
        assert repo.read(f"{name}.txt") == repo.read(f"src/{name}.py") == f"{name}\n".encode()
    assert not repo.git("status", "--porcelain")
    rows = {row["jobId"]: row["landedBy"] for row in jobs.rows(State(repo.path / ".git"), closed=True)}
    assert set(rows.values()) <= {operation.operation_id for operation in log}
    assert nothing_left(repo) == []
    assert Boss(repo.path).doctor().findings == []
    repo.assert_sound()
    return answers


def test_s24_some_merges_at_once(repo: RepoKit, wt: Wt) -> None:
    merge_at_once(repo, wt, 4, 2)


@pytest.mark.torture
@pytest.mark.parametrize(("named", "everything"), [(32, 0), (24, 8)])
def test_s24_thirty_two_merges_at_once(repo: RepoKit, wt: Wt, named: int, everything: int) -> None:
    merge_at_once(repo, wt, named, everything)


@pytest.mark.torture
def test_s27_four_checked_merges_at_once(repo: RepoKit, wt: Wt) -> None:
    answers = merge_at_once(repo, wt, 4, 0, "--check", "test -e src/app.py")
    trees = {run["tree"] for answer in answers for run in answer.data["check"]["runs"]}
    assert repo.text("rev-parse", "HEAD^{tree}") in trees
