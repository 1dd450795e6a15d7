"""What is said before anything moves: which jobs meet, on which lines, what conflicts, and what a merge would do."""

import json
import os
import subprocess
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

from tests import stories
from tests.kit import RepoKit, Wt, eventually
from tests.merging import Desk
from tests.stories import Story
from worktrees import changes
from worktrees.changes import changed_lines
from worktrees.merge import Candidate, conflicts_between
from worktrees.model import Baseline, ChangeSet, JobId, Oid, RepoPath
from worktrees.store import new_id

LINES = "".join(f"line {number}\n" for number in range(1, 31))


@pytest.fixture
def desk(repo: RepoKit) -> Desk:
    return Desk(repo)


def opened(wt: Wt, name: str) -> Path:
    """The workspace of a new open job."""
    return Path(wt("spawn", "--name", name, "--json", status=0).data["jobs"][0]["workspace"])


def settled(wt: Wt, name: str, path: str, content: str) -> None:
    (opened(wt, name) / path).write_text(content)
    wt("settle", name, status=0)


def edited(*numbers: int, text: str = "new") -> str:
    return "".join(f"{text}\n" if number in numbers else f"line {number}\n" for number in range(1, 31))


def spans(lines: list[dict[str, int]]) -> list[tuple[int, int]]:
    return [(each["start"], each["count"]) for each in lines]


# ------------------------------------------------------------------------------------------------------- the answer
def test_s20_overlap_names_lines_and_what_a_merge_would_do_before_anything_moves(repo: RepoKit, wt: Wt) -> None:
    """Two jobs are done, one still runs with work that nobody committed; the boss went on meanwhile."""
    settled(wt, "top", "src/app.py", edited(2, 3))
    settled(wt, "end", "src/app.py", edited(3, text="other").removesuffix("line 30\n") + "line 30\nmore\n")
    running = opened(wt, "running")
    (running / "src/app.py").write_text(edited(20))
    (running / "README.md").write_text("running\n")
    repo.write("README.md", "the boss went on\n")
    repo.commit("boss")
    before = repo.fingerprint()
    found = wt("overlap", "--json", status=1)
    assert repo.fingerprint() == before
    assert found.code == "conflict-ahead"
    names = {row["jobId"]: row["name"] for row in wt("list", "--json").data["jobs"]}
    overlaps = {
        tuple(names[job] for job in each["jobs"]): (each["conflict"], [spans(lines) for lines in each["lines"]])
        for each in found.data["overlaps"]
    }
    assert overlaps == {
        ("top", "end"): (True, [[(2, 2)], [(3, 1), (30, 0)]]),
        ("top", "running"): (False, [[(2, 2)], [(20, 1)]]),
        ("end", "running"): (False, [[(3, 1), (30, 0)], [(20, 1)]]),
    }
    assert {each["claimedBy"] for each in found.data["overlaps"]} == {None}
    conflicts = [([names[job] for job in each["jobs"]], each["path"]) for each in found.data["conflicts"]]
    assert sorted(conflicts) == [(["running"], "README.md"), (["top", "end"], "src/app.py")]
    assert (found.data["branch"], found.data["onto"]) == ("main", repo.head())
    plan = [(each["name"], each["outcome"], [at["path"] for at in each["conflicts"]]) for each in found.data["plan"]]
    assert plan == [("top", "landed", []), ("end", "conflict", ["src/app.py"]), ("running", "conflict", ["README.md"])]
    text = wt("overlap", status=1).stdout.splitlines()
    assert [line.split() for line in text[:2]] == [
        ["JOBS", "TOGETHER", "LINES", "PATH"],
        ["top", "+", "end", "conflict", "2-3", "/", "3,30+", "src/app.py"],
    ]
    assert text[-5] == "onto main in this order:"
    # And that is what a merge does.
    assert [step["outcome"] for step in wt("merge", "--on-conflict", "skip", "--json", status=3).data["steps"]] == [
        "landed", "conflict",
    ]  # fmt: skip


def test_a_file_added_where_another_job_moved_the_directory_away(repo: RepoKit, wt: Wt) -> None:
    """They touch no path of each other's, and git does not know where the new file belongs."""
    one = opened(wt, "mover")
    (one / "src").rename(one / "lib")
    wt("settle", "mover", status=0)
    settled(wt, "adder", "src/new.py", "new\n")
    found = wt("overlap", "--json", status=1).data
    assert found["overlaps"] == []
    assert {each["kind"] for each in found["conflicts"]} == {"directory rename suggested"}
    assert [each["outcome"] for each in found["plan"]] == ["landed", "conflict"]
    assert "without a path that both touch:" in wt("overlap", status=1).stdout


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("1\n2\n3\n", "1\n2\n3\n4\n", [(3, 0)]),
        ("1\n2\n3\n", "0\n1\n2\n3\n", [(0, 0)]),
        ("1\n-- a\n@@ -1 +1 @@\n", "1\n++ b\n@@ -9 +9 @@\n", [(2, 2)]),
        ("diff --git a/x b/x\n2\n", "2\ndiff --git a/y b/y\n", [(1, 1), (2, 0)]),
        ("1", "1\n", [(1, 1)]),
        (b"\0one", b"\0two", []),
        ("1\n2\n", None, [(1, 2)]),
        (None, "1\n2\n", [(0, 0)]),
        ("1\n", ("100755", "1\n"), []),
        ("1\n2\n", ("120000", "README.md"), [(1, 2)]),
        (("120000", "README.md"), ("120000", "tool.sh"), [(1, 1)]),
    ],
)
def test_lines_are_counted_in_the_file_a_job_started_from(
    desk: Desk, before: Any, after: Any, lines: list[tuple[int, int]]
) -> None:
    names = ['a name\twith "all"\n', "after"]
    start = desk.store.commit(
        desk.tree(desk.kit.head(), {names[0]: before, "z": "1\n"}), [Oid(desk.kit.head())], "start"
    )
    index_free = {names[0]: after, "z": "2\n", "zz": "not asked for\n"}
    done = desk.store.commit(desk.tree(start, index_free), [start], "done")
    changed = changes.change_set(desk.store, JobId("j-1"), start, done)
    asked = [RepoPath(os.fsencode(names[0])), RepoPath(b"z"), RepoPath(b"README.md")]
    found = changed_lines(desk.store, changed, asked)
    assert [(each.start, each.count) for each in found.pop(asked[0])] == lines
    assert {path: [(each.start, each.count) for each in told] for path, told in found.items()} == {b"z": [(1, 1)]}
    assert changed_lines(desk.store, changed, []) == {}


# ------------------------------------------------------------------------------------------- which pairs are merged
def told(desk: Desk, numbers: Sequence[int]) -> list[tuple[Story, str, list[Candidate], list[ChangeSet]]]:
    """Made-up jobs with their change sets; those of one story began at one commit."""
    found = []
    everything = [stories.tell("pairs", number) for number in numbers]
    oids = stories.write(desk.kit, everything)
    for story in everything:
        commits = oids[story.number]
        candidates = [
            Candidate(JobId(new_id("j")), None, None, Baseline(commit=Oid(commits[start])), Oid(commits[snapshot]))
            for start, snapshot in story.jobs
        ]
        sets = [changes.change_set(desk.store, each.job_id, each.baseline.start, each.snapshot) for each in candidates]
        found.append((story, commits[story.onto], candidates, sets))
    return found


def check_pairs(desk: Desk, numbers: range) -> tuple[int, int]:
    """That a pair which is not merged would have merged; how many were, and how many there are."""
    asked = everybody = 0
    for story, onto, candidates, sets in told(desk, numbers):
        meeting = set(changes.meeting(sets, changes.overlaps(sets)))
        pairs = [(one, other) for one, other in combinations(candidates, 2) if one.baseline == other.baseline]
        answers = conflicts_between(desk.place.repo, desk.store, Oid(onto), pairs)
        wrong = [
            found
            for (one, other), found in zip(pairs, answers, strict=True)
            if found and (one.job_id, other.job_id) not in meeting
        ]
        assert not wrong, f"{story}\n{wrong}"
        asked += sum((one.job_id, other.job_id) in meeting for one, other in pairs)
        everybody += len(pairs)
    return asked, everybody


def test_only_pairs_that_would_merge_are_not_tried(desk: Desk) -> None:
    asked, everybody = check_pairs(desk, range(25))
    assert 0 < asked < everybody


@pytest.mark.torture
@pytest.mark.parametrize("block", range(8))
def test_only_pairs_that_would_merge_are_not_tried_at_length(desk: Desk, block: int) -> None:
    check_pairs(desk, range(100 + block * 50, 150 + block * 50))


# ---------------------------------------------------------------------------------------------------------- watching
def test_watching_says_it_again_when_something_changed_and_ends_with_the_jobs(
    repo: RepoKit, wt: Wt, tmp_path: Path
) -> None:
    settled(wt, "one", "src/app.py", edited(2))
    workspace = opened(wt, "two")
    seen = tmp_path / "seen"
    with seen.open("wb") as file:
        watching = subprocess.Popen(
            [*wt.argv("overlap", "--watch", "--jsonl")], cwd=repo.path, stdout=file, env=dict(os.environ)
        )
    try:

        def answers() -> list[Any]:
            return [json.loads(line) for line in seen.read_text().splitlines(keepends=True) if line.endswith("\n")]

        assert eventually(answers)[0]["overlaps"] == []
        (workspace / "src/app.py").write_text(edited(2, text="two"))
        eventually(lambda: answers()[-1]["conflicts"], what="the conflict is seen while the job is open")
        (workspace / "src/app.py").write_text(edited(20, text="two"))
        eventually(lambda: answers()[-1]["overlaps"] and not answers()[-1]["conflicts"], what="and seen to go")
        assert watching.poll() is None
        wt("settle", "two", status=0)
        assert watching.wait(60) == 1
    finally:
        watching.kill()
        watching.wait()
    told = answers()
    assert all(one != other for one, other in pairwise(told))


def test_what_watching_refuses(wt: Wt) -> None:
    assert wt("overlap", "--watch", "--json", status=2).code == "usage"
    assert "--watch" in wt("overlap", "--jsonl", status=2).stderr
    assert (
        wt("overlap", "--watch", status=0).stdout.strip()
        == "No path is touched by two jobs, and each merges with the branch."
    )
