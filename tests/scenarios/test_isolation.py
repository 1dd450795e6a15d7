"""Workers at work on the same files at the same time, each in a workspace of its own."""

import subprocess
from collections.abc import Sequence

import pytest

from tests.kit import Gate, RepoKit
from worktrees import isolation
from worktrees.config import Settings
from worktrees.git import discover
from worktrees.isolation import WorktreeIsolation
from worktrees.model import Baseline, JobId

JOBS = (JobId("j-aaaaaaaa"), JobId("j-bbbbbbbb"))


@pytest.mark.parametrize("sparse", [(), ("src",)], ids=["whole", "sparse"])
def test_s13_two_workers_edit_the_same_file_and_neither_sees_the_other(
    repo: RepoKit, gate: Gate, sparse: Sequence[str]
) -> None:
    repo.write("src/app.py", "the boss is at it too\n")
    repo.write("note.txt", "untracked\n")
    before = repo.fingerprint()
    place = isolation.place(discover(repo.path), Settings())
    baseline = Baseline(commit=place.repo.resolve("HEAD"))
    worktree = WorktreeIsolation()
    workspaces = [worktree.open(place, job, baseline, sparse=sparse) for job in JOBS]
    workers = [
        subprocess.Popen(
            # Both have written before either looks.
            [
                "sh",
                "-c",
                f"echo {name} >> src/app.py; echo {name} > {name}.new; {gate.shell(name)}; cat src/app.py; ls",
            ],
            cwd=workspace.path,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, workspace in zip(("one", "other"), workspaces, strict=True)
    ]
    gate.wait_arrivals(2)
    gate.release()
    seen = [worker.communicate(timeout=30)[0] for worker in workers]
    original = repo.git("show", "HEAD:src/app.py").decode()
    assert [text.startswith(f"{original}{name}\n") for name, text in zip(("one", "other"), seen, strict=True)] == [
        True
    ] * 2
    assert ("one.new" in seen[0], "other.new" in seen[0]) == (True, False)
    assert ("one.new" in seen[1], "other.new" in seen[1]) == (False, True)
    assert repo.fingerprint() == before
    for workspace in workspaces:
        worktree.close(place, workspace)
    assert repo.fingerprint() == before
    assert not place.entries.exists()
