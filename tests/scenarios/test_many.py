"""Many results at once: jobs with disjoint changes in a tree of real sources, merged by one command."""

import os
import shutil
import sysconfig
from pathlib import Path

import pytest

from benchmarks.harness import transplant
from tests.kit import RepoKit, Wt, eventually
from worktrees import Boss


def work(tree: Path, names: list[str], worker: int, workers: int) -> None:
    """What one of many does: edits, takes away, renames, makes executable and adds files that are its alone."""
    edited, gone, renamed, mode = names[worker::workers][:4]
    with (tree / edited).open("ab") as file:
        file.write(f"\n# worker {worker}\n".encode())
    (tree / gone).unlink()
    (tree / renamed).rename(tree / f"{renamed}.moved")
    (tree / mode).chmod(0o755)
    (tree / f"worker{worker:03}").mkdir()
    (tree / f"worker{worker:03}/new.txt").write_text(f"from worker {worker}\n")


def check(repo: RepoKit, wt: Wt, files: int, workers: int) -> None:
    transplant(Path(sysconfig.get_path("stdlib")), repo.path / "tree", files)
    (repo.path / ".gitignore").unlink()
    repo.git("add", "--all", "--force")
    repo.git("commit", "--quiet", "-m", "a real tree")
    names = sorted(os.fsdecode(name) for name in repo.tree() if name.startswith(b"tree/"))
    assert len(names) == files
    boss = Boss(repo.path, k_write=0)
    for worker in range(workers):
        job = boss.spawn(name=f"w{worker}")
        assert job.workspace
        work(Path(job.workspace), names, worker, workers)
        boss.settle(job.job_id)
        boss.clean(unlanded=True)
    overlap = wt("overlap", "--json", status=0, timeout=600).data
    assert (overlap["overlaps"], overlap["conflicts"]) == ([], [])
    merged = wt("merge", "--json", status=0, timeout=600).data
    assert [step["outcome"] for step in merged["steps"]] == ["landed"] * workers
    assert repo.git("status", "--porcelain") == b""
    merges = repo.text("rev-list", "--count", "--first-parent", f"{merged['before']}..HEAD")
    assert int(merges) == workers
    landed = repo.tree()
    # The same by hand, one after the other in one tree.
    repo.git("checkout", "--quiet", "--detach", merged["before"])
    for worker in range(workers):
        work(repo.path, names, worker, workers)
    repo.commit("by hand")
    assert landed == repo.tree()
    shutil.rmtree(repo.path / "tree")
    eventually(lambda: not any(boss.place.state.trash.iterdir()), timeout=600, what="the trash is empty")


def test_s19_disjoint_results_in_a_real_tree_merge_in_one_command(repo: RepoKit, wt: Wt) -> None:
    check(repo, wt, files=200, workers=5)


@pytest.mark.torture
def test_s19_sixty_four_disjoint_results_in_a_real_tree_of_5000_files_merge_in_one_command(
    repo: RepoKit, wt: Wt
) -> None:
    check(repo, wt, files=5000, workers=64)
