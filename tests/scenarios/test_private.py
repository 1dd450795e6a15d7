"""Workspaces with a repository of their own: workers may commit there, and the record is the same as everywhere."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit import RepoKit, Wt, environment
from worktrees import Boss, isolation, sandbox
from worktrees.changes import fingerprint
from worktrees.errors import Refused, Usage
from worktrees.git import discover
from worktrees.model import Job

ROOT = Path(__file__).parent.parent.parent
OURS = ["refs/wt/*"]
WORK = r"""
set -e
echo work >> src/app.py; git add src/app.py; git commit -qm 'first step'
echo half > half.txt; git add half.txt; git stash -q
git switch -qc topic; echo more > new.txt; git add -A; git commit -qm 'second step'; git tag mine
git commit -q --amend -m 'second step, better'; git branch -q -D main; git notes add -m note
test "$(git rev-parse HEAD~1^)" = "$BASE"
git log --oneline -1 origin/kept > /dev/null
rm README.md
! git push -q origin HEAD 2> push.txt; ! git push -q "$MAIN" HEAD:refs/heads/evil 2>> push.txt
! git -C "$MAIN" commit -q --allow-empty -m evil 2> main.txt; ! git -C "$MAIN" tag evil 2>> main.txt
"""


def private(boss: Boss, **wishes: Any) -> tuple[Job, Path]:
    """An open job with a repository of its own."""
    job = boss.spawn(isolation="private", **wishes)
    assert job.workspace
    return job, Path(job.workspace)


def do(tree: Path, script: str, **env: str) -> str:
    done = subprocess.run(
        ["sh", "-c", script], cwd=tree, env=environment(dict(env)), capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def boss(repo: RepoKit) -> Boss:
    repo.git("update-ref", "refs/remotes/origin/kept", "HEAD")
    return Boss(repo.path)


def test_s15_a_worker_commits_in_its_own_repository_and_the_record_is_the_same(repo: RepoKit, boss: Boss) -> None:
    before = repo.fingerprint(ignore_refs=OURS)
    env = {"BASE": repo.head(), "MAIN": str(repo.path)}
    job = boss.spawn(["sh", "-c", WORK], isolation="private", environment=env)
    boss.wait()
    (job,) = boss.status(job.job_id)
    assert (job.result, job.isolation, job.verified) == ("succeeded", "private", True), boss.logs(job.job_id)
    found = boss.diff(job.job_id).change_set
    assert {file.path: file.status for file in found.files} == {
        "README.md": "D", "src/app.py": "M", "new.txt": "A", "push.txt": "A", "main.txt": "A"
    }  # fmt: skip
    assert found.audit.clean
    assert repo.fingerprint(ignore_refs=OURS) == before
    tree = Path(str(job.workspace))
    said = (tree / "push.txt").read_text()
    assert "'origin' does not appear to be a git repository" in said
    assert "the-boss-merges" in said
    assert (tree / "main.txt").read_text().count("wt: refused: ") == 2

    boss.merge(job.job_id)
    assert b"work" in repo.read("src/app.py")
    assert "second step" not in repo.text("log", "--format=%s")


def test_s13_neither_sees_the_other_and_the_boss_sees_neither(repo: RepoKit, boss: Boss) -> None:
    before = repo.fingerprint(ignore_refs=OURS)
    jobs = [private(boss), private(boss)]
    for number, (_, tree) in enumerate(jobs):
        do(tree, f"echo {number} >> src/app.py; git commit -qam {number}; git branch -f shared; test ! -e 1.txt")
    assert {do(tree, "tail -1 src/app.py; git log -1 --format=%s shared") for _, tree in jobs} == {"0\n0\n", "1\n1\n"}
    assert repo.fingerprint(ignore_refs=OURS) == before
    assert not (repo.path / ".git/worktrees").exists()


@pytest.mark.parametrize(
    ("script", "codes"),
    [
        ("git stash -q; git reset -q --hard HEAD~1; git symbolic-ref HEAD refs/heads/x", set()),
        ("git bisect start >&2; git bisect bad; git reflog expire --expire=now --all; git gc -q --prune=now", set()),
        ("git update-index --assume-unchanged src/app.py; echo honest >> src/app.py; git config --local x.y z", set()),
        ("rm -rf $(git rev-parse --git-dir)/*", set()),
        ("git -C $MAIN commit -q --allow-empty -m evil", {"boss-head-moved"}),
        ("git rev-parse HEAD > $MAIN/.git/refs/heads/evil", {"refs-moved"}),
        ("rm -f .git; git init -q .", {"git-pointer-changed"}),
        ("git --git-dir $MAIN/.git config core.fsmonitor 'touch $CANARY'", {"config-changed"}),
    ],
)
def test_s15_the_record_stands_whatever_the_worker_did(
    repo: RepoKit, boss: Boss, tmp_path: Path, script: str, codes: set[str]
) -> None:
    repo.broken_on_purpose = True  # where the worker reached it
    job, tree = private(boss)
    do(tree, "echo honest > honest")
    do(tree, script, MAIN=str(repo.path), CANARY=str(tmp_path / "canary"))
    files = {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    boss.settle(job.job_id)
    found = boss.diff(job.job_id).change_set
    assert {finding.code for finding in found.audit.findings} == codes
    expected = {name: content for name, content in files.items() if not name.startswith(".git/") and name != ".git"}
    assert found.snapshot
    listed = boss.place.store.git("ls-tree", "-r", "--name-only", found.snapshot).text.splitlines()
    assert set(listed) == set(expected)
    assert boss.place.store.git("show", f"{found.snapshot}:src/app.py").stdout == expected["src/app.py"]
    assert not (tmp_path / "canary").exists()


def test_what_only_the_workers_repository_has_is_kept_when_it_goes(repo: RepoKit, boss: Boss) -> None:
    job, tree = private(boss)
    do(tree, "echo one > one; git add one; git commit -qm one; git reset -q --hard HEAD~1")
    do(tree, "echo two > two; git add two; git stash -q; echo three > three; git add three; git commit -qm three; "
             "git repack -qad")  # fmt: skip
    boss.settle(job.job_id)
    boss.drop(job.job_id)
    assert not tree.exists()
    assert not (boss.place.root / ".private").exists()
    kept = boss.place.store.git("for-each-ref", "--format=%(contents:subject) %(refname)", "refs/wt").text
    assert {line.split()[0] for line in kept.splitlines() if "-commits/" in line} == {"one", "three", "WIP"}
    repo.git("gc", "--quiet", "--prune=now")
    for line in kept.splitlines():
        boss.place.store.git("rev-list", "--objects", line.split()[-1])

    (restored,) = boss.restore(job.job_id)
    assert restored.isolation == "private"
    assert (tree / "three").read_text() == "three\n"
    assert do(tree, "git status --short") == "?? three\n"
    do(tree, "git add three; git commit -qm 'goes on'")
    boss.clean(unlanded=True)
    assert not tree.exists()


def test_a_hostile_repository_of_its_own_stops_nothing(repo: RepoKit, boss: Boss, tmp_path: Path) -> None:
    job, tree = private(boss)
    own = boss.place.root / ".private" / job.job_id
    evil = f"touch {tmp_path}/canary"
    do(tree, f"""
        echo work > work; git add work; git commit -qm whole; whole=$(git rev-parse HEAD)
        echo lost > lost; git add lost; git commit -qm torn
        rm -f {own}/objects/$(git rev-parse HEAD:lost | sed 's,..,&/,')
        git config --local core.fsmonitor '{evil}'; git config --local core.sshCommand '{evil}'
        git config --local core.hooksPath {own}/hooks; mkdir {own}/hooks; echo '{evil}' > {own}/hooks/post-checkout
        chmod +x {own}/hooks/post-checkout; git rev-parse HEAD > {own}/named; echo $whole > {own}/also
        mkfifo {own}/refs/heads/pipe {own}/objects/pack/pack-00.idx; rm {own}/objects/info/alternates
        mkfifo {own}/objects/info/alternates; ln -s /dev/zero {own}/objects/pack/pack-01.pack
        ln -s / {own}/objects/aa 2>/dev/null || true; rm {own}/HEAD; mkdir {own}/HEAD; chmod 000 {own}/info
    """)  # fmt: skip
    boss.diff(job.job_id)
    boss.overlap(job.job_id)
    boss.settle(job.job_id)
    boss.doctor()
    assert boss.merge(job.job_id, dry_run=True).steps[0].outcome == "landed"
    boss.drop(job.job_id)
    assert not own.exists()
    kept = boss.place.store.git("for-each-ref", "--format=%(contents:subject)", "refs/wt/*/*-commits/*").text
    assert kept == "whole"
    boss.restore(job.job_id)
    assert not (tmp_path / "canary").exists()
    assert boss.doctor().findings == []


def test_it_begins_as_the_boss_asks(make_repo: object, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--object-format=sha256", tmp_path / "big"], check=True)
    repo = RepoKit(tmp_path / "big")
    repo.write("src/a b.txt", "a\n")
    repo.write("docs/d.txt", "d\n")
    repo.write(".gitattributes", "*.txt filter=shout\n")
    repo.commit("first")
    repo.git("config", "filter.shout.clean", "tr a-z A-Z")
    repo.git("config", "remote.origin.url", "somewhere")
    repo.write("src/a b.txt", "changed\n")
    boss = Boss(repo.path)
    job, tree = private(boss, dirty="all", sparse=["src"])
    assert do(tree, "git status --short") == ' M "src/a b.txt"\n'
    assert not (tree / "docs").exists()
    assert do(tree, "git remote; git add -A; git commit -qm x; git show 'HEAD:src/a b.txt'") == "CHANGED\n"
    assert boss.diff(job.job_id).change_set.files == []
    before = fingerprint(discover(repo.path))
    boss.drop(job.job_id)
    assert fingerprint(discover(repo.path))["refs"] == before["refs"]


def test_what_cannot_be_made_is_refused_and_leaves_nothing(repo: RepoKit, boss: Boss, wt: Wt) -> None:
    repo.git("config", "remote.origin.promisor", "true")
    with pytest.raises(Refused, match="partial clone"):
        boss.spawn(isolation="private")
    assert not boss.place.root.exists()
    with pytest.raises(Usage, match="adopted, private, worktree"):
        boss.spawn(isolation="nonsense")
    assert "private" in wt("spawn", "--help").stdout


def test_another_disk_has_its_own_trash(boss: Boss, monkeypatch: pytest.MonkeyPatch) -> None:
    job, tree = private(boss)
    rename = os.rename

    def across(old: Path, new: Path) -> None:
        if str(boss.place.state.trash) in str(new) and old.is_relative_to(boss.place.root):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(old, new)

    monkeypatch.setattr(os, "rename", across)
    boss.drop(job.job_id)
    assert not tree.exists()
    assert not (boss.place.root / ".private").exists()


@pytest.mark.parametrize("verb", ["open", pytest.param("close", marks=pytest.mark.torture)])
def test_s13_a_private_workspace_is_whole_or_gone_wherever_its_maker_dies(repo: RepoKit, verb: str) -> None:
    command = [sys.executable, "-m", "tests.torture.workspaces", f"kill-{verb}", str(repo.path), "j-aaaaaaaa"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment({"KIND": "private"}), capture_output=True, check=False, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 8


@pytest.mark.parametrize("level", ["bubblewrap", "landlock"])
def test_s30_a_sandbox_lets_it_commit_and_keeps_what_makes_git_run_programs(
    repo: RepoKit, boss: Boss, level: str
) -> None:
    levels = sandbox.probe(None)
    if level not in levels.available:
        pytest.skip(f"no {level} here: {levels.why_not.get(level, 'another system')}")
    before = repo.fingerprint(ignore_refs=OURS)
    script = """
        echo work >> src/app.py; git add -A; git commit -qm mine && git stash list && git branch topic || exit 3
        touch "$MAIN/.git/evil" && exit 4; git config --local core.fsmonitor evil && exit 5; echo x > .git && exit 6
        exit 0
    """
    if level == "landlock":  # it grants whole trees
        script = script.replace("&& exit 5", "").replace("&& exit 6", "").replace("echo x > .git", "true")
    job = boss.spawn(["sh", "-c", script], isolation="private", sandbox=level, environment={"MAIN": str(repo.path)})
    boss.wait()
    (job,) = boss.status(job.job_id)
    assert (job.sandbox, job.exit_code) == (level, 0), boss.logs(job.job_id)
    assert [file.path for file in boss.diff(job.job_id).change_set.files] == ["src/app.py"]
    assert repo.fingerprint(ignore_refs=OURS) == before


def test_status_says_that_commits_pass_there(boss: Boss, wt: Wt) -> None:
    job, tree = private(boss)
    env = wt("setup", "--env", job.job_id, "--json").data["environment"]
    found = wt("hooks", "status", "--json", cwd=tree, env=env).data
    assert (found["jobId"], found["commit"]) == (job.job_id, "passes")
    assert isolation.workspace_of(boss.place, job.job_id) is not None
