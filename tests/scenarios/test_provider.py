"""Worktrees for Claude Code: made when its hook asks, ended with its session, never lost."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.kit import Answer, RepoKit, Wt, eventually
from worktrees.errors import Usage
from worktrees.jobs import holders

SESSION = "0f9c-session"
HOST = """
import os, subprocess, sys
out = subprocess.run(["sh", "-c", sys.argv[1] + "; exit $?"], stdin=open(sys.argv[2]), env={**os.environ, **ENV})
print(out.returncode, flush=True)
sys.stdin.read()
"""


def ask(wt: Wt, verb: str, standing: Path | None = None, **request: Any) -> Answer:
    said = {"session_id": SESSION, "hook_event_name": "…", **request}
    # The job is held by who started the hook.
    env = {"CLAUDE_CODE_SESSION_ID": SESSION}
    return wt("hook", f"claude-{verb}", input=json.dumps(said), env=env, cwd=standing, anew=True)


def made(wt: Wt, repo: RepoKit, name: str = "fix") -> Path:
    answer = ask(wt, "create", name=name, cwd=str(repo.path))
    assert answer.status == 0, str(answer)
    return Path(answer.stdout.splitlines()[-1])


def row(wt: Wt, name: str) -> Any:
    return next(job for job in wt("list", "--all", "--json").data["jobs"] if job["name"] == name)


class Claude:
    """A host: its hook runs through a shell, as Claude Code's do, and it lives until it is told otherwise."""

    def __init__(self, wt: Wt, repo: RepoKit, request: Path, **asked: Any) -> None:
        request.write_text(json.dumps({"session_id": SESSION, "cwd": str(repo.path), **asked}), encoding="utf-8")
        code = f"ENV = {{'CLAUDE_CODE_SESSION_ID': {SESSION!r}, 'CLAUDECODE': '1'}}\n{HOST}"
        hook = " ".join(wt.argv("hook", "claude-create"))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, hook, str(request)],
            cwd=repo.path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.workspace = Path(self.process.stdout.readline().decode().rstrip("\n"))
        assert self.process.stdout.readline() == b"0\n"

    def end(self) -> None:
        """The session is killed: no hook is told."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=20)


def test_a_worktree_is_an_open_job_and_its_path_the_only_answer(repo: RepoKit, wt: Wt) -> None:
    repo.write("README.md", "not committed\n")
    answer = ask(wt, "create", name="agent-1a2b", cwd=str(repo.path / "src"))
    assert answer.status == 0
    assert answer.stdout == row(wt, "agent-1a2b")["workspace"] + "\n"
    assert "uncommitted" in answer.stderr
    assert row(wt, "agent-1a2b")["state"] == "open"
    workspace = Path(answer.stdout.strip())
    assert (workspace / "README.md").read_bytes() == b"# sample\n\nA repository for tests.\n"
    assert repo.read("README.md") == b"not committed\n"


def test_a_session_that_just_ends_leaves_its_work_to_merge(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    claude = Claude(wt, repo, tmp_path / "request", name="fix")
    (claude.workspace / "new.txt").write_text("work\n", encoding="utf-8")
    # Not before: the shells between the host and the hook are long gone.
    assert row(wt, "fix")["state"] == "open"
    holder = json.loads(next((repo.path / ".git/wt-state").rglob("holder.json")).read_bytes())
    assert holder["pid"] == claude.process.pid
    claude.end()
    assert (row(wt, "fix")["state"], row(wt, "fix")["result"]) == ("done", "succeeded")
    wt("merge", status=0)
    assert repo.read("new.txt") == b"work\n"
    wt("clean", status=0)
    assert not claude.workspace.exists()


def test_the_same_name_is_the_same_worktree_while_it_is_there(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    claude = Claude(wt, repo, tmp_path / "request", name="fix")
    (claude.workspace / "new.txt").write_text("work\n", encoding="utf-8")
    assert made(wt, repo) == claude.workspace
    claude.end()
    # Resumed by another process before anybody looked: it goes on, and is that process's now.
    assert row(wt, "fix")["state"] == "open"
    wt("settle", "fix", status=0)
    again = made(wt, repo)
    assert again != claude.workspace
    assert row(wt, "fix-2")["workspace"] == str(again)


@pytest.mark.parametrize("changed", [True, False])
def test_removing_ends_the_job_and_keeps_its_work(repo: RepoKit, wt: Wt, changed: bool) -> None:
    workspace = made(wt, repo)
    if changed:
        (workspace / "new.txt").write_text("work\n", encoding="utf-8")
    # Claude Code runs the hook in the session's directory, which may be the one that is to go.
    answer = ask(wt, "remove", worktree_path=str(workspace), standing=workspace)
    assert (answer.status, answer.stdout) == (0, ""), str(answer)
    assert not workspace.exists()
    assert ask(wt, "remove", worktree_path=str(workspace)).status == 0
    if changed:
        assert row(wt, "fix")["droppedBy"] is None
        wt("merge", status=0)
        assert repo.read("new.txt") == b"work\n"
    else:
        assert row(wt, "fix")["droppedBy"] is not None
        assert wt("workflow", "list", "--json").data["workflows"] == []


def test_a_worktree_in_use_stays(repo: RepoKit, wt: Wt) -> None:
    workspace = made(wt, repo)
    (workspace / "new.txt").write_text("work\n", encoding="utf-8")
    with subprocess.Popen(["sleep", "60"], cwd=workspace) as sleeper:
        try:
            answer = ask(wt, "remove", worktree_path=str(workspace))
        finally:
            sleeper.kill()
    assert answer.status == 4
    assert "stays" in answer.stderr
    assert (workspace / "new.txt").exists()
    assert row(wt, "fix")["state"] == "done"


def test_what_is_not_the_host_s_is_refused(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    mine = wt("spawn", "--name", "mine", "--json", status=0).data["jobs"][0]["workspace"]
    for verb, request, status, text in (
        ("create", {"cwd": str(repo.path)}, 2, "`name`"),
        ("create", {"name": "-x", "cwd": str(repo.path)}, 2, "no name for a job"),
        ("create", {"name": "x", "cwd": str(tmp_path)}, 4, "git"),
        ("create", {"name": "x", "cwd": "/no/such/place"}, 4, "no directory"),
        ("create", {"name": "x", "cwd": mine}, 4, "the boss's alone"),
        ("remove", {}, 2, "`worktree_path`"),
        ("remove", {"worktree_path": str(repo.path)}, 4, "no workspace of a job"),
        # Opened by a person and not for the host.
        ("remove", {"worktree_path": mine}, 4, "the boss's alone"),
    ):
        answer = ask(wt, verb, **request)
        assert answer.status == status, str(answer)
        assert answer.stdout == ""
        assert text in answer.stderr, str(answer)
        assert len([line for line in answer.stderr.splitlines() if line.startswith("wt: error:")]) == 1
    assert Path(mine).is_dir()
    assert len(wt("list", "--json").data["jobs"]) == 1
    for said in ("", "[]"):
        assert wt("hook", "claude-create", input=said).status == 2


def test_a_holder_is_gone_only_when_it_is(tmp_path: Path) -> None:
    with pytest.raises(Usage):
        holders.note(tmp_path, 2**22 + 1)
    assert not holders.is_gone(tmp_path)
    holders.note(tmp_path, os.getpid())
    assert not holders.is_gone(tmp_path)
    process = psutil.Popen([sys.executable, "-c", ""])
    record = json.loads((tmp_path / holders.HOLDER).read_bytes())
    process.wait(20)
    gone = {**record, "pid": process.pid}
    for change, expected in (
        ({}, True),
        ({"pidNamespace": "pid:[1]"}, False),  # from there we cannot see
        ({"pidNamespace": "pid:[1]", "bootId": "another"}, True),
    ):
        (tmp_path / holders.HOLDER).write_text(json.dumps({**gone, **change}), encoding="utf-8")
        assert holders.is_gone(tmp_path) is expected, change
    eventually(lambda: not process.is_running())
