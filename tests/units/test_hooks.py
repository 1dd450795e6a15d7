"""The guard's hooks by themselves, in the hooks directory of a repository: workers are refused, nobody else notices."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit import RepoKit, environment

HOOKS = Path(__file__).parent.parent.parent / "hooks"
FACTS = (
    b"wt: because: workers do not commit; a job's work is taken from its files as they are\n"
    b"wt: instead: leave the edits in the files and end (an open job: wt settle); the boss merges them\n"
)
WORKER = {"WT_JOB": "j-1"}


@pytest.fixture
def guarded(repo: RepoKit) -> RepoKit:
    """The repository with the hooks in place and a change to commit."""
    for hook in HOOKS.iterdir():
        shutil.copy(hook, repo.path / ".git/hooks")
    repo.write("README.md", "changed\n")
    return repo


def call(hook: str, *args: str, stdin: bytes = b"", worker: bool = True) -> "subprocess.CompletedProcess[bytes]":
    """Run one hook as git would."""
    env = environment(WORKER if worker else None)
    return subprocess.run([HOOKS / hook, *args], input=stdin, env=env, capture_output=True, check=False, timeout=20)


@pytest.mark.parametrize(
    "command",
    [
        "commit -am x",
        "commit -a --no-verify -m x",
        "commit --allow-empty --amend -m x",
        "branch other",
        "branch -m renamed",
        "branch -D spare",
        "checkout -b other",
        "checkout --detach HEAD~1",
        "reset --hard HEAD~1",
        "tag t",
        "tag -d old",
        "stash",
        "update-ref refs/heads/other HEAD",
        "update-ref -d refs/heads/main",
        "push . HEAD:refs/heads/other",
    ],
)
def test_worker_is_refused_and_no_ref_moves(guarded: RepoKit, command: str) -> None:
    guarded.git("branch", "spare")
    guarded.git("tag", "old")
    before = (guarded.git("for-each-ref"), guarded.text("symbolic-ref", "HEAD"))
    done = subprocess.run(
        ["git", *command.split()], cwd=guarded.path, env=environment(WORKER), capture_output=True, check=False
    )
    assert done.returncode != 0
    assert b"wt: refused: " in done.stderr
    assert FACTS in done.stderr
    assert (guarded.git("for-each-ref"), guarded.text("symbolic-ref", "HEAD")) == before


@pytest.mark.parametrize("command", ["commit -am x", "stash", "checkout -b other"])
def test_a_refusal_leaves_everything_as_it_was(guarded: RepoKit, command: str) -> None:
    before = guarded.fingerprint()
    guarded.git(*command.split(), env=WORKER, check=False)
    after = guarded.fingerprint()
    before.pop("git:index")  # git refreshes it and writes it back before it asks the hook
    after.pop("git:index")
    assert after == before


@pytest.mark.parametrize(
    "command",
    ["status", "diff", "add -A", "log -1", "fetch -q . HEAD", "update-ref refs/worktree/x HEAD", "reset -q HEAD"],
)
def test_worker_may_do_what_moves_nothing(guarded: RepoKit, command: str) -> None:
    guarded.git(*command.split(), env=WORKER)


@pytest.mark.parametrize("command", ["commit -aqm x", "stash", "tag t", "checkout -qb other", "push -q . HEAD:new"])
def test_everybody_else_passes(guarded: RepoKit, command: str) -> None:
    guarded.git(*command.split())


@pytest.mark.parametrize(
    ("state", "line", "status"),
    [
        ("prepared", b"0 1 refs/heads/main\n", 1),
        ("prepared", b"0 1 refs/tags/v1\n", 1),
        ("prepared", b"0 1 refs/stash\n", 1),
        ("prepared", b"0 1 HEAD\n", 1),
        ("prepared", b"0 1 refs/remotes/origin/main\n0 1 refs/heads/main\n", 1),
        ("prepared", b"0000 0000 refs/heads/main\n", 1),
        ("prepared", b"0000 0000 refs/remotes/origin/main\n", 0),
        ("prepared", b"1 0000 refs/heads/main\n", 1),
        ("prepared", b"a0 a0 refs/heads/main\n", 0),
        ("prepared", b"0 1 refs/notes/commits\n", 1),
        ("prepared", b"0 1 refs/replace/0123\n", 1),
        ("prepared", b"0 1 refs/wt/w-1/base\n", 1),
        ("prepared", b"0 1 refs/bisect/bad\n", 0),
        ("prepared", b"ref:refs/heads/main ref:refs/heads/other HEAD\n", 1),
        ("prepared", b"a0 ref:refs/heads/other HEAD\n", 1),
        ("prepared", b"ref:refs/heads/main ref:refs/heads/main HEAD\n", 0),
        ("prepared", b"0 1 FETCH_HEAD\n", 0),
        ("prepared", b"0 1 refs/remotes/origin/main\n", 0),
        ("prepared", b"", 0),
        ("committed", b"0 1 refs/heads/main\n", 0),
        ("aborted", b"0 1 refs/heads/main\n", 0),
        ("preparing", b"0 1 refs/heads/main\n", 0),
    ],
)
def test_reference_transaction(state: str, line: bytes, status: int) -> None:
    done = call("reference-transaction", state, stdin=line)
    _, new, name = line.splitlines()[-1].split() if line else (b"", b"", b"")
    what = b"switching `HEAD` to `refs/heads/other`" if new.startswith(b"ref:") else b"moving `" + name + b"`"
    said = b"wt: refused: " + what + b"\n" + FACTS if status else b""
    assert (done.returncode, done.stderr, done.stdout) == (status, said, b"")
    assert call("reference-transaction", state, stdin=line, worker=False).returncode == 0


@pytest.mark.parametrize("hook", ["pre-commit", "prepare-commit-msg", "commit-msg", "pre-push"])
def test_hooks_that_only_run_for_what_is_refused(hook: str) -> None:
    done = call(hook)
    what = b"push" if hook == "pre-push" else b"commit"
    assert (done.returncode, done.stderr) == (1, b"wt: refused: this " + what + b"\n" + FACTS)
    assert call(hook, worker=False).returncode == 0


def test_a_switch_to_a_branch_is_named_after_the_fact(guarded: RepoKit, tmp_path: Path) -> None:
    guarded.git("branch", "other", "HEAD~1")
    guarded.git("stash")
    guarded.git("worktree", "add", "--quiet", "--detach", tmp_path / "tree")
    command = ["git", "-C", str(tmp_path / "tree"), "checkout", "other"]
    done = subprocess.run(command, env=environment(WORKER), capture_output=True, check=False)
    assert done.returncode != 0
    assert b"refs/heads/other" in done.stderr  # said before by a git that asks, after it by one that does not
    assert FACTS in done.stderr
    subprocess.run([*command[:3], "checkout", "HEAD", "--", "README.md"], env=environment(WORKER), check=True)


@pytest.mark.parametrize("hook", ["pre-commit", "reference-transaction", "post-checkout"])
def test_who_passes_goes_on_to_the_hook_that_was_there(tmp_path: Path, hook: str) -> None:
    for path in HOOKS.iterdir():
        shutil.copy(path, tmp_path)
    former = tmp_path / "former hooks"
    former.mkdir()
    (former / hook).write_text('#!/bin/sh\necho "$0 $*"\ncat\nexit 7\n')
    (tmp_path / "former").write_text(f"{former}\n")

    def run(worker: bool, updates: bytes, mode: int) -> tuple[int, bytes]:
        (former / hook).chmod(mode)
        env = environment(WORKER if worker else None)
        done = subprocess.run(
            [tmp_path / hook, "prepared", "b c"], input=updates, env=env, capture_output=True, check=False, timeout=20
        )
        return done.returncode, done.stdout

    went = os.fsencode(former / hook) + b" prepared b c\n"
    assert run(worker=False, updates=b"0 1 refs/heads/main\n", mode=0o755) == (7, went + b"0 1 refs/heads/main\n")
    assert run(worker=False, updates=b"", mode=0o644) == (0, b"")
    if hook == "reference-transaction":
        assert run(worker=True, updates=b"0 1 refs/heads/main\n", mode=0o755) == (1, b"")
        harmless = b"0 1 FETCH_HEAD\n0 1 refs/remotes/origin/a b\n"
        assert run(worker=True, updates=harmless, mode=0o755) == (7, went + harmless)


@pytest.mark.parametrize("hook", sorted(path.name for path in HOOKS.iterdir()))
def test_hooks_are_programs_of_the_plain_shell(hook: str) -> None:
    path = HOOKS / hook
    assert path.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    assert path.stat().st_mode & 0o111 == 0o111
