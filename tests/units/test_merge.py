"""Merging in memory: git's own verdict, git's own trees, nobody's attributes but the boss's."""

import pytest

from tests.kit import RepoKit
from tests.merging import Desk, conflicts
from worktrees.merge import Rebase, Squash, conflicts_between


@pytest.fixture
def desk(repo: RepoKit) -> Desk:
    return Desk(repo)


def test_disjoint_jobs_become_merge_commits_in_order(desk: Desk) -> None:
    one = desk.job({"src/one.py": "1\n"}, name="one", task="Write one\nand more")
    two = desk.job({"src/two.py": "2\n", "docs/guide.md": None}, name="two")
    plan = desk.plan([one, two])
    assert [step.outcome for step in plan.steps] == ["landed", "landed"]
    assert plan.after == plan.steps[1].commit
    assert desk.read(plan.after, "src/one.py") == b"1\n"
    assert desk.read(plan.after, "docs/guide.md") is None
    log = desk.store.git("log", "--first-parent", "--format=%s|%an|%ce|%P", plan.after).text.splitlines()
    assert [line.split("|")[0] for line in log] == ["Merge job two", "Merge job one: Write one", "second", "first"]
    assert log[0].split("|")[1:3] == ["Boss", "boss@example.com"]
    first, second = log[0].split("|")[3].split()
    assert first == plan.steps[0].commit
    assert desk.store.git("rev-parse", f"{second}^").text == desk.kit.head()
    assert one.job_id in desk.store.git("log", "-1", "--format=%B", plan.steps[0].commit or "").text
