"""`wt hooks`: the guard for who stands in a workspace without a worker's environment, beside the user's own hooks."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.kit import RepoKit, Wt, environment
from worktrees import Boss
from worktrees.errors import Busy, Refused
from worktrees.guard import installed
from worktrees.model import Job

TELLING = """#!/bin/sh
echo "$(basename "$0") $* at $(pwd -P)" >> {log}
case $0 in *reference-transaction | *pre-push) cat >> {log} ;; esac
[ ! -e {stop} ] || exit 9
"""
NAMES = ("pre-commit", "commit-msg", "post-commit", "post-checkout", "reference-transaction", "pre-push", "pre-rebase")
TRIES = (
    "commit -q --allow-empty -m x", "commit -nq --allow-empty -m x", "tag t", "branch b", "stash",
    "update-ref refs/heads/c HEAD", "checkout -q -b d",
)  # fmt: skip


class People:
    """A repository whose user has hooks, a worktree of his own, and an open job of ours."""

    def __init__(self, repo: RepoKit, tmp_path: Path) -> None:
        self.repo = repo
        self.log = tmp_path / "log"
        self.stop = tmp_path / "stop"
        self.config = repo.path / ".git" / "config"
        self.theirs = tmp_path / "theirs"
        self.boss = Boss(repo.path)

    def hooks(self, directory: Path, names: tuple[str, ...] = NAMES) -> None:
        directory.mkdir(exist_ok=True)
        for name in names:
            (directory / name).write_text(TELLING.format(log=self.log, stop=self.stop))
            (directory / name).chmod(0o755)

    def work(self, tree: Path) -> list[str]:
        """What hooks said while somebody committed, switched, pushed and rebased in a work tree."""
        self.log.write_text("")
        (tree / "README.md").write_text(f"more {tree}\n")
        env = {"GIT_AUTHOR_DATE": "1700000001 +0000", "GIT_COMMITTER_DATE": "1700000002 +0000"}
        for words in (
            "add -A", "commit -qm more", "checkout -q --detach HEAD~1", "checkout -q -", "push -q origin HEAD:x",
            "rebase -q HEAD~1", "push -q origin :x", "reset -q --hard HEAD~1",
        ):  # fmt: skip
            self.repo.git(*words.split(), cwd=tree, env=env)
        # What ORIG_HEAD was before depends on the work before.
        return [line for line in self.log.read_text().splitlines() if not line.endswith(" ORIG_HEAD")]

    def refused(self, tree: Path, env: Mapping[str, str | None] | None = None) -> list[bool]:
        """Which tries to commit and the like in a work tree were refused by the guard."""
        (tree / "README.md").write_text("mine\n")
        found = []
        for words in TRIES:
            subprocess.run(["git", "add", "-A"], cwd=tree, env=environment(env), check=True)
            done = subprocess.run(
                ["git", *words.split()], cwd=tree, env=environment(env), capture_output=True, check=False, text=True
            )
            assert (done.returncode != 0) == ("wt: refused: " in done.stderr), (words, done)
            found.append(done.returncode != 0)
        return found

    def open(self) -> tuple[Job, Path]:
        job = self.boss.spawn()
        assert job.workspace
        return job, Path(job.workspace)


@pytest.fixture
def people(repo: RepoKit, tmp_path: Path) -> People:
    repo.git("init", "--quiet", "--bare", tmp_path / "remote.git")
    repo.git("remote", "add", "origin", tmp_path / "remote.git")
    found = People(repo, tmp_path)
    repo.git("worktree", "add", "--quiet", found.theirs)
    return found


@pytest.mark.parametrize("where", ["plain", "configured", "husky"])
def test_s29_installed_beside_hooks_of_the_users(people: People, tmp_path: Path, where: str) -> None:
    repo = people.repo
    place = {"plain": repo.path / ".git/hooks", "configured": tmp_path / "my hooks", "husky": repo.path / ".husky"}[
        where
    ]
    people.hooks(place)
    if where == "configured":
        repo.git("config", "core.hooksPath", place)
    if where == "husky":
        repo.git("config", "core.hooksPath", ".husky")
        people.hooks(people.theirs / ".husky")
        for tree in (repo.path, people.theirs):
            repo.git("add", "-A", cwd=tree)
            repo.git("commit", "--quiet", "-m", "husky", cwd=tree)
    before = (people.work(repo.path), people.work(people.theirs))
    files = {path: path.read_bytes() for path in (people.config, *place.iterdir())}

    answer = people.boss.install_hooks()
    assert answer.installed
    assert set(NAMES) <= set(answer.chained)
    assert (people.work(repo.path), people.work(people.theirs)) == before
    people.stop.touch()
    assert subprocess.run(["git", "commit", "-qm", "x", "--allow-empty"], cwd=people.theirs, check=False).returncode
    people.stop.unlink()
    changed = {path for path, content in files.items() if path.read_bytes() != content}
    assert changed == {people.config}
    assert people.config.read_bytes().startswith(files[people.config])

    job, workspace = people.open()
    people.log.write_text("")
    assert people.refused(workspace) == [True] * len(TRIES)
    assert "commit" not in people.log.read_text()
    people.boss.settle(job.job_id)
    subprocess.run(["git", "commit", "-qam", "afterwards"], cwd=workspace, check=True)
    assert "post-commit" in people.log.read_text() or where == "husky"

    people.boss.uninstall_hooks()
    assert {path: path.read_bytes() for path in files} == files
    assert not (repo.path / ".git/wt-state/guard").exists()
    assert (people.work(repo.path), people.work(people.theirs)) == before


def test_a_running_job_is_not_blamed_for_what_we_install(people: People, wt: Wt) -> None:
    job, _ = people.open()
    people.boss.install_hooks()
    people.repo.git("push", "--quiet", "-u", "origin", "main")
    people.boss.uninstall_hooks()
    people.boss.install_hooks()
    assert not people.boss.settle(job.job_id).quarantined
    found = people.boss.result(job.job_id).audit
    assert found is not None
    assert {finding.code for finding in found.findings} <= {"config-changed", "refs-moved"}


@pytest.mark.parametrize("target", ["wt-guard", "former", "post-commit", "planted"])
def test_who_changes_the_installed_hooks_is_found(people: People, target: str) -> None:
    people.boss.install_hooks()
    job, _ = people.open()
    (people.repo.path / ".git/wt-state/guard" / target).write_text("#!/bin/sh\nexit 0\n")
    assert people.boss.settle(job.job_id).quarantined
    assert people.boss.install_hooks().changed != []
    assert people.boss.install_hooks().changed == []
    assert (people.repo.path / ".git/wt-state/guard/planted").exists() is False


def test_installing_twice_changes_nothing_and_a_dry_run_nothing_at_all(people: People) -> None:
    before = people.repo.fingerprint()
    first = people.boss.install_hooks(dry_run=True)
    assert len(first.changed) > 10
    assert not first.installed
    assert people.repo.fingerprint() == before
    assert people.boss.install_hooks().changed == first.changed
    assert people.boss.install_hooks().changed == []
    assert len(people.boss.uninstall_hooks(dry_run=True).changed) == len(first.changed)
    assert people.boss.uninstall_hooks().changed
    assert people.boss.uninstall_hooks().changed == []
    assert people.repo.fingerprint() == before


@pytest.mark.parametrize("ending", [b"\n", b"", b"\n\n", b"\n# mine", b"\r\n"])
def test_the_configuration_comes_back_to_the_byte(people: People, ending: bytes) -> None:
    content = people.config.read_bytes().rstrip(b"\n") + ending
    people.config.write_bytes(content)
    people.config.chmod(0o640)
    people.boss.install_hooks()
    assert people.config.stat().st_mode & 0o777 == 0o640
    people.boss.uninstall_hooks()
    assert people.config.read_bytes() == content
    assert people.config.stat().st_mode & 0o777 == 0o640


def test_what_was_configured_meanwhile_stays(people: People) -> None:
    people.boss.install_hooks()
    people.repo.git("config", "user.nickname", "b")
    people.repo.git("remote", "add", "second", "somewhere")
    expected = people.config.read_bytes()
    people.boss.uninstall_hooks()
    left = people.config.read_bytes()
    assert b"nickname = b" in left
    assert b'[remote "second"]' in left
    assert b"wt-state" not in left
    assert set(left.splitlines()) < set(expected.splitlines())


def test_what_cannot_be_composed_with_is_refused(people: People) -> None:
    people.repo.git("config", "extensions.worktreeConfig", "true")
    people.repo.git("config", "--worktree", "core.hooksPath", "elsewhere")
    before = people.config.read_bytes()
    with pytest.raises(Refused, match="of their own") as refused:
        people.boss.install_hooks()
    assert refused.value.code == "hooks-elsewhere"
    people.repo.git("config", "--worktree", "--unset", "core.hooksPath")
    assert people.config.read_bytes() == before

    people.boss.install_hooks()
    torn = people.config.read_bytes().replace(b"# <<< wt hooks\n", b"")
    people.config.write_bytes(torn)
    for verb in (people.boss.install_hooks, people.boss.uninstall_hooks):
        with pytest.raises(Refused, match="have been changed") as refused:
            verb()
        assert refused.value.code == "hooks-damaged"
    assert people.config.read_bytes() == torn


def test_another_gits_lock_is_waited_for_and_respected(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_PATIENCE_SECONDS", 0.05)
    before = people.config.read_bytes()
    lock = people.config.with_name("config.lock")
    lock.write_text("")
    with pytest.raises(Busy, match="locked"):
        people.boss.install_hooks()
    assert people.config.read_bytes() == before
    lock.unlink()
    assert people.boss.install_hooks().installed


def test_s29_an_adopted_worktree_is_guarded_while_its_job_is_open(people: People) -> None:
    people.boss.install_hooks()
    assert people.refused(people.theirs).count(True) == 0
    people.repo.git("checkout", "--quiet", "--force", "--detach", "main", cwd=people.theirs)
    job = people.boss.adopt(people.theirs).job
    assert job is not None
    people.repo.git("branch", "-D", "b", "c", "d")
    people.repo.git("tag", "-d", "t")
    assert people.refused(people.theirs) == [True] * len(TRIES)
    people.boss.settle(job.job_id)
    people.repo.git("commit", "--quiet", "--allow-empty", "-m", "free again", cwd=people.theirs)


@pytest.mark.parametrize("name", ['a "b" [c]* \\d', "ünï", "plain"])
def test_s29_installed_wherever_the_repository_is(tmp_path: Path, name: str) -> None:
    repo = RepoKit.make(tmp_path / name / "repo")
    boss = Boss(repo.path)
    boss.install_hooks()
    people = People(repo, tmp_path)
    _, workspace = people.open()
    assert people.refused(workspace) == [True] * len(TRIES)
    assert boss.uninstall_hooks().changed


def test_status_says_what_a_commit_would_meet(people: People, wt: Wt) -> None:
    job, workspace = people.open()
    assert wt("hooks", "status", "--json").data["commit"] == "passes"
    found = wt("hooks", "status", "--json", cwd=workspace).data
    assert (found["jobId"], found["commit"], found["refusedBy"]) == (job.job_id, "passes", [])
    assert "A commit here passes." in wt("hooks", "status").stdout
    assert wt("hooks", "install").status == 0
    found = wt("hooks", "status", "--json", cwd=workspace).data
    assert (found["commit"], found["refusedBy"]) == ("refused", ["installed"])
    (guarded,) = found["workspaces"]
    assert (guarded["jobId"], guarded["environment"], guarded["installed"]) == (job.job_id, False, True)
    armed = wt("setup", "--env", job.job_id, "--json").data["environment"]
    found = wt("hooks", "status", "--json", cwd=workspace, env=armed).data
    assert found["refusedBy"] == ["environment", "installed"]
    assert f"A commit in the workspace of {job.job_id} is refused by" in wt("hooks", "status", cwd=workspace).stdout
    for verb in ("install", "uninstall"):
        assert wt("hooks", verb, "--json", cwd=workspace).code == "not-boss"
    people.repo.git("config", "core.hooksPath", "elsewhere")
    assert wt("hooks", "status", "--json").data["former"] == "elsewhere"
    assert people.refused(workspace) == [True] * len(TRIES)


def _pre_commit(tree: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The real `pre-commit` program."""
    command = [sys.executable, "-m", "pre_commit", *words]
    return subprocess.run(command, cwd=tree, capture_output=True, check=False, text=True, timeout=60)


FRAMEWORK = """\
repos:
  - repo: local
    hooks:
      - id: telling
        name: telling
        entry: sh -c 'echo framework >> {log}'
        language: system
        always_run: true
        pass_filenames: false
"""


@pytest.mark.parametrize("first", ["framework", "wt"])
def test_s29_installed_beside_the_pre_commit_framework(people: People, first: str) -> None:
    repo = people.repo
    repo.write(".pre-commit-config.yaml", FRAMEWORK.format(log=people.log))
    repo.commit("framework")
    repo.git("merge", "--quiet", "main", cwd=people.theirs)

    def framework() -> None:
        done = _pre_commit(repo.path, "install")
        assert done.returncode == 0, done

    steps: list[Callable[[], object]] = [framework, people.boss.install_hooks]
    for step in steps if first == "framework" else steps[::-1]:
        step()
    hook = (repo.path / ".git/hooks/pre-commit").read_bytes()
    for tree in (repo.path, people.theirs):
        people.log.write_text("")
        repo.git("commit", "--quiet", "--allow-empty", "-m", "free", cwd=tree)
        assert people.log.read_text() == "framework\n"
    _, workspace = people.open()
    people.log.write_text("")
    assert people.refused(workspace) == [True] * len(TRIES)
    assert people.log.read_text() == ""
    people.boss.uninstall_hooks()
    assert (repo.path / ".git/hooks/pre-commit").read_bytes() == hook
    assert _pre_commit(repo.path, "uninstall").returncode == 0


COURTESY = """\
default_install_hook_types: [pre-commit, pre-push]
repos:
  - repo: {source}
    rev: {rev}
    hooks:
      - id: wt-guard
      - id: wt-guard-push
"""


def test_s29_the_pre_commit_framework_gets_the_guard_from_this_repository(people: People, tmp_path: Path) -> None:
    repo = people.repo
    root = Path(__file__).parent.parent.parent
    source = RepoKit.make(tmp_path / "source")
    for name in (".pre-commit-hooks.yaml", *(f"hooks/{path.name}" for path in (root / "hooks").iterdir())):
        source.write(name, (root / name).read_bytes(), mode=(root / name).stat().st_mode & 0o777)
    repo.write(".pre-commit-config.yaml", COURTESY.format(source=source.path, rev=source.commit("hooks")))
    repo.commit("framework")
    done = _pre_commit(repo.path, "install", "--install-hooks")
    assert done.returncode == 0, done
    _, workspace = people.open()
    for words in ("commit -q --allow-empty -m x", "push -q origin HEAD:refs/heads/{}"):
        repo.git(*words.format("x").split())
        done = subprocess.run(
            ["git", *words.format("y").split()], cwd=workspace, capture_output=True, check=False, text=True
        )
        assert done.returncode != 0, words
        assert "the boss merges them" in done.stdout + done.stderr, done
        # The framework asks its hooks about a push only when there is something new in it; and this is all it takes.
        repo.git("commit", "--quiet", "--allow-empty", "--no-verify", "-m", "around it", cwd=workspace)


def test_the_answer_is_the_same_for_people_and_programs(people: People, wt: Wt) -> None:
    said = wt("hooks", "install", "-n")
    assert said.status == 0
    assert "Would change" in said.stdout
    assert json.loads(wt("hooks", "install", "-n", "--json").stdout)["data"]["dryRun"] is True
    assert "hooks uninstall" in wt("hooks", "uninstall", "--help").stdout
    assert os.fspath(people.config) in said.stdout
