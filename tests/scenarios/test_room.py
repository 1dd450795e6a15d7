"""No workspace is made where there is no room for it: a budget for all of them, and what the disk has left."""

from pathlib import Path

import pytest

from tests.hall import small_disk
from tests.kit import RepoKit, Wt
from worktrees.boss import Boss
from worktrees.errors import Refused

BLOCK = 4096


def one_takes(repo: RepoKit) -> int:
    """What one workspace of the repository is taken for."""
    lines = repo.git("ls-tree", "-r", "-t", "-l", "HEAD").split(b"\n")[:-1]
    sizes = [int(size) if (size := line.split()[3]) != b"-" else 1 for line in lines]
    return BLOCK + sum(-(-size // BLOCK) * BLOCK for size in sizes)


def test_a_spawn_beyond_the_budget_is_refused_with_what_is_used(repo: RepoKit, wt: Wt) -> None:
    one = one_takes(repo)
    repo.git("config", "wt.diskBudgetBytes", str(2 * one + one // 2))
    wt("spawn", "--name", "a", "--", "true", status=0)
    wt("wait", status=0)
    wt("spawn", "--name", "b", status=0)
    before = repo.fingerprint()

    refused = wt("spawn", "--name", "c", "--json", "--", "true", status=4)

    error = refused.json["error"]
    assert (refused.code, error["hint"]) == ("disk-budget", "wt clean")
    used = error["details"].pop("usedBytes")
    assert error["details"] == {"neededBytes": one, "budgetBytes": 2 * one + one // 2, "workspaces": 2}
    assert used > one
    assert "are taken by 2 workspaces, and one more takes about" in error["message"]
    assert repo.fingerprint() == before
    assert len(wt("list", "--json", status=0).data["jobs"]) == 2
    wt("clean", status=0)
    wt("spawn", "--name", "c", status=0)


def test_what_waits_in_the_queue_counts_and_the_rest_of_a_batch_is_made(repo: RepoKit, wt: Wt) -> None:
    repo.git("config", "wt.diskBudgetBytes", str(one_takes(repo) * 7 // 2))
    repo.git("config", "wt.kWrite", "1")

    answer = wt("spawn", "--count", "5", "--name", "w", "--json", "--", "true", status=1)

    assert [failure["code"] for failure in answer.data["failures"]] == ["disk-budget"] * 2
    assert len(answer.data["jobs"]) == 3
    wt("wait", status=0)
    assert {job["result"] for job in wt("list", "--json", status=0).data["jobs"]} == {"succeeded"}


def test_what_a_worker_left_counts_once_it_ended(repo: RepoKit) -> None:
    one = one_takes(repo)
    boss = Boss(repo.path, disk_budget_bytes=str(one + (1 << 20)))
    boss.spawn(["sh", "-c", "head -c 1048576 /dev/zero > build.log"], name="w")
    boss.wait()

    with pytest.raises(Refused) as caught:
        boss.spawn(name="next")

    assert caught.value.code == "disk-budget"
    assert caught.value.details["usedBytes"] >= one + (1 << 20) - 4 * BLOCK
    boss.clean()
    boss.spawn(name="next")


def test_only_what_is_checked_out_and_only_what_is_ours_counts(repo: RepoKit, tmp_path: Path) -> None:
    repo.write("huge/zero", bytes(1 << 20))
    repo.commit("huge")
    boss = Boss(repo.path, disk_budget_bytes="1m")
    repo.git("worktree", "add", "-q", "--detach", tmp_path / "theirs")

    boss.adopt(tmp_path / "theirs", name="theirs")
    boss.spawn(name="part", sparse=["docs"])

    with pytest.raises(Refused):
        boss.spawn(name="whole")


def test_a_restored_workspace_needs_room_too(repo: RepoKit) -> None:
    boss = Boss(repo.path)
    boss.spawn(name="w")
    boss.drop("w")

    with pytest.raises(Refused) as caught:
        Boss(repo.path, disk_budget_bytes="1").restore("w")

    assert caught.value.code == "disk-budget"
    assert not boss.status("w")[0].workspace_present


def test_a_disk_that_is_nearly_full_is_refused_before_anything_is_made(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    repo.write("huge", bytes(1 << 20))
    repo.commit("huge")
    with small_disk(tmp_path / "small", 1 << 19) as small:
        repo.git("config", "wt.worktreesDirectory", small)

        refused = wt("spawn", "--json", "--", "true", status=4)

        assert refused.code == "disk-budget"
        details = refused.json["error"]["details"]
        assert details["freeBytes"] <= 1 << 19 < 1 << 20 <= details["neededBytes"]
        assert list(small.iterdir()) == []
        assert wt("list", "--json", status=0).data == {"jobs": []}
