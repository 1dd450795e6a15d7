"""The kit keeps its promises: what it calls unchanged is unchanged, what it calls gone is gone."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Seal
from tests.faults import Faults
from tests.kit import Gate, RepoKit, eventually, processes_of, ssh_key, sweep


def test_nothing_of_the_machine_is_seen(repo: RepoKit) -> None:
    assert repo.text("config", "--show-origin", "user.name").endswith("Boss")
    assert b"/etc/" not in repo.git("config", "--list", "--show-origin")
    assert not list(Path.cwd().iterdir())
    # Tests say themselves where they want a sandbox.
    assert [name for name in os.environ if name.startswith("WT_")] == ["WT_SANDBOX"]


def test_what_a_bare_machine_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match=r"^ssh-keygen is not installed$"):
        ssh_key(tmp_path / "key")
    with pytest.raises(pytest.skip.Exception, match=r"^strace is not installed$"):
        Faults(tmp_path / "faults", tmp_path / "script")


def test_repository_has_two_commits_and_is_sound(repo: RepoKit) -> None:
    assert repo.text("rev-list", "--count", "HEAD") == "2"
    assert repo.text("status", "--porcelain") == ""
    assert repo.tree()[b"tool.sh"][0] == "100755"


def test_broken_repository_is_noticed(repo: RepoKit) -> None:
    repo.broken_on_purpose = True
    oid = repo.tree()[b"README.md"][1]
    (repo.path / ".git/objects" / oid[:2] / oid[2:]).unlink()
    with pytest.raises(AssertionError):
        repo.assert_sound()


def test_fingerprint_is_the_same_while_nothing_changes(repo: RepoKit) -> None:
    assert repo.fingerprint() == repo.fingerprint()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda repo: repo.write("README.md", "x"), "file:README.md"),
        (lambda repo: repo.write("new.txt", "x"), "file:new.txt"),
        (lambda repo: (repo.path / "tool.sh").chmod(0o644), "file:tool.sh"),
        (lambda repo: (repo.path / "link").symlink_to("src"), "file:link"),
        (lambda repo: repo.git("branch", "other"), "ref:refs/heads/other"),
        (lambda repo: repo.git("config", "a.b", "c"), "git:config"),
        (lambda repo: repo.git("update-index", "--chmod=-x", "tool.sh"), "git:index"),
        (lambda repo: repo.write(".git/hooks/pre-commit", "x"), "git:hooks/pre-commit"),
        (lambda repo: (repo.write("README.md", "x"), repo.git("stash")), "git:logs/refs/stash"),
        (lambda repo: repo.commit("third"), "git:logs/HEAD"),
    ],
)
def test_fingerprint_shows_each_change(repo: RepoKit, change: Callable[[RepoKit], object], key: str) -> None:
    before = repo.fingerprint()
    change(repo)
    after = repo.fingerprint()
    assert after.get(key) != before.get(key)


def test_fingerprint_leaves_ignored_refs_out(repo: RepoKit) -> None:
    before = repo.fingerprint()
    repo.git("update-ref", "--create-reflog", "refs/wt/main/base", "HEAD")
    assert repo.fingerprint() != before
    assert repo.fingerprint(ignore_refs=["refs/wt/*"]) == before


def test_gate_holds_workers_until_they_are_let_on(gate: Gate) -> None:
    workers = [subprocess.Popen(["sh", "-c", gate.shell(f"w{number}")]) for number in range(3)]
    assert sorted(gate.wait_arrivals(3)) == ["w0", "w1", "w2"]
    assert [worker.poll() for worker in workers] == [None, None, None]
    gate.open_for(1)
    eventually(lambda: [worker.poll() for worker in workers].count(0) == 1)
    assert gate.waiting() == 0
    assert [worker.poll() for worker in workers].count(None) == 2
    gate.release()
    assert [worker.wait(20) for worker in workers] == [0, 0, 0]
    late = subprocess.Popen(["sh", "-c", gate.shell()])
    assert late.wait(20) == 0


def test_gate_says_who_is_missing(gate: Gate) -> None:
    with pytest.raises(AssertionError, match="1 arrivals at gate"):
        gate.wait_arrivals(1, timeout=0.01)


def test_survivors_are_found_and_killed(seal: Seal) -> None:
    ready, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", f"import os, signal; os.write({write}, b'x'); signal.pause()"],
        env={**os.environ, "WT_JOB": "j-1"},
        start_new_session=True,
        pass_fds=[write],
    ) as process:
        assert os.read(ready, 1) == b"x"
        os.close(ready)
        os.close(write)
        assert [found.pid for found in processes_of(seal.root)] == [process.pid]
        assert "j-1" in sweep(seal.root, grace=0)[0]
        assert process.wait(20) == -9
    assert not processes_of(seal.root)
