"""A worktree that somebody else made becomes a job's workspace, and is let go of as it was found."""

import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit import RepoKit, Wt, eventually
from worktrees.boss import Boss

OURS = ["refs/wt/*"]


@pytest.fixture
def feature(repo: RepoKit) -> Path:
    """A worktree on a branch of its own, as `git worktree add` makes it."""
    path = repo.path.parent / "some where" / "feature"
    repo.git("worktree", "add", "-q", "-b", "feature", path)
    return path


def state(*directories: Path) -> dict[str, tuple[int, str]]:
    """Every file below directories: mode, and digest or target."""
    found = {}
    for directory in directories:
        for parent, names, files in os.walk(directory):
            for name in (*files, *(name for name in names if os.path.islink(os.path.join(parent, name)))):
                path = Path(parent, name)
                content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
                found[str(path)] = (path.lstat().st_mode, hashlib.sha256(content).hexdigest())
    return found


def entry_of(repo: RepoKit, path: Path) -> Path:
    return Path(repo.text("-C", path, "rev-parse", "--absolute-git-dir"))


def changed(wt: Wt, word: str) -> dict[str, str]:
    return {file["path"]: file["status"] for file in wt("diff", word, "--json", status=0).data["changeSet"]["files"]}


def adopted(wt: Wt, path: Path, *options: str) -> dict[str, Any]:
    """The job made of a worktree, by whoever stands in it."""
    job: dict[str, Any] = wt("setup", "--json", *options, cwd=path, status=0).data["job"]
    return job


# ------------------------------------------------------------------------------------------------------ the whole story
def test_a_worktree_is_adopted_worked_in_merged_and_released(repo: RepoKit, wt: Wt, feature: Path) -> None:
    (feature / "README.md").write_text("edited before\n")
    (feature / "before.txt").write_text("before\n")
    answer = wt("setup", "--name", "mine", cwd=feature / "src", status=0)
    assert answer.stdout.startswith(f"Adopted mine from {repo.head()[:10]} (feature) as j-")
    assert answer.stdout.endswith("; end it with: wt settle mine\n")
    assert answer.stderr == "wt: warning: 2 uncommitted paths of the worktree count as the job's work\n"

    (job,) = wt("list", "--json", status=0).data["jobs"]
    assert (job["name"], job["state"], job["isolation"], job["workspace"]) == ("mine", "open", "adopted", str(feature))
    assert (job["baseline"]["commit"], job["baseline"]["branch"]) == (repo.head(), "feature")
    (feature / "src/app.py").write_text("committed\n")
    repo.git("-C", feature, "commit", "-q", "-am", "their own commit")
    (feature / "after.txt").write_text("after\n")
    work = {"README.md": "M", "before.txt": "A", "src/app.py": "M", "after.txt": "A"}
    assert changed(wt, "mine") == work

    assert wt("settle", "--json", cwd=feature, status=0).data["jobs"][0]["result"] == "succeeded"
    wt("merge", status=0)

    assert (repo.read("src/app.py"), repo.read("before.txt")) == (b"committed\n", b"before\n")
    assert repo.git("status", "--porcelain") == b""
    entry = entry_of(repo, feature)
    before = state(feature, entry)
    removal = wt("clean", "--json", status=0).data["removals"]
    assert [(item["outcome"], item["landed"], item["sizeBytes"]) for item in removal] == [("released", True, None)]
    assert state(feature, entry) == before
    assert wt("clean", status=0).stdout == "Nothing to remove.\n"
    assert repo.text("-C", feature, "log", "--format=%s", "-1") == "their own commit"
    assert wt("doctor", status=0).stdout.startswith("All is well.\n")


def test_nothing_changes_in_what_is_adopted(repo: RepoKit, wt: Wt, feature: Path) -> None:
    (feature / "staged.txt").write_text("staged\n")
    repo.git("-C", feature, "add", "staged.txt")
    (feature / "tool.sh").unlink()
    entry = entry_of(repo, feature)
    before, outside = state(feature, entry), repo.fingerprint(OURS)

    adopted(wt, feature, "--name", "f")
    assert changed(wt, "f") == {"staged.txt": "A", "tool.sh": "D"}
    wt("settle", "f", status=0)
    wt("doctor", "--fix", status=0)
    dropped = wt("drop", "f", status=0).stdout

    assert "released" in dropped
    assert "Released 1 worktree; what somebody else made stays as it is.\n" in dropped
    assert state(feature, entry) == before
    assert repo.fingerprint(OURS) == outside


def test_the_boss_adopts_from_its_own_place_and_says_where_the_work_began(repo: RepoKit, wt: Wt, feature: Path) -> None:
    start = repo.head()
    for number in (1, 2):
        (feature / f"{number}.txt").write_text("work\n")
        repo.git("-C", feature, "add", ".")
        repo.git("-C", feature, "commit", "-q", "-m", f"work {number}")
    repo.write("boss.txt", "meanwhile\n")
    moved = repo.commit("the boss goes on")

    refused = wt("setup", feature, "--base", "main", "--json", status=4)
    assert (refused.code, refused.json["error"]["hint"]) == ("not-an-ancestor", f"wt setup --base {start[:10]}")
    assert refused.json["error"]["details"]["base"] == moved
    (job,) = [wt("setup", feature / "docs", "--base", start, "--name", "f", "--json", status=0).data["job"]]

    assert job["baseline"]["commit"] == start
    assert changed(wt, "f") == {"1.txt": "A", "2.txt": "A"}
    wt("settle", "f", status=0)
    wt("merge", status=0)
    assert {b"1.txt", b"2.txt", b"boss.txt"} <= repo.tree().keys()


def test_its_start_outlives_the_branch_it_was_on(repo: RepoKit, wt: Wt, feature: Path) -> None:
    repo.git("-C", feature, "commit", "-q", "--allow-empty", "-m", "only here")
    start = repo.head("feature")
    adopted(wt, feature, "--name", "f")
    repo.git("-C", feature, "checkout", "-q", "--detach", "main")
    repo.git("branch", "-qD", "feature")
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "-q", "--prune=now")

    (feature / "new.txt").write_text("new\n")

    assert changed(wt, "f") == {"new.txt": "A"}
    assert repo.head(start) == start


# ----------------------------------------------------------------------------------------------------- what it gets
def test_what_workspaces_get_is_brought_and_nothing_overwritten(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    inner = RepoKit.make(tmp_path / "inner")
    for place in ("lib/one", "lib/two"):
        repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", inner.path, place)
    repo.write(".gitignore", ".env*\nbig\nnode_modules\n")
    repo.write(".worktreeinclude", ".env*\n")
    repo.commit("ignore")
    for name in (".env", ".env.local"):
        repo.write(name, "the boss's\n")
    for name in ("big", "node_modules"):
        repo.write(f"{name}/x", "x\n")
    repo.git("config", "wt.linkdirectories", "big:node_modules")
    feature = tmp_path / "feature"
    repo.git("worktree", "add", "-q", "--detach", feature)
    repo.git("-C", feature, "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "lib/two")
    (feature / "lib/two/README.md").write_text("theirs\n")
    (feature / ".env").write_text("theirs\n")
    (feature / "node_modules").mkdir()
    (feature / "node_modules/mine").write_text("theirs\n")

    answer = wt("setup", "--name", "f", "--json", cwd=feature, status=0)

    assert (sorted(answer.data["paths"]), answer.data["submodules"]) == ([".env.local", "big"], ["lib/one"])
    assert answer.data["findings"] == []
    assert (feature / ".env.local").read_text() == "the boss's\n"
    assert (feature / "big/x").read_text() == "x\n"
    assert (feature / "lib/one/README.md").is_file()
    for name in (".env", "node_modules/mine", "lib/two/README.md"):
        assert (feature / name).read_text() == "theirs\n"
    change_set = wt("diff", "f", "--json", status=0).data["changeSet"]
    assert (change_set["files"], change_set["ignoredCreated"]) == ([], [])
    repo.git("worktree", "remove", "--force", feature)


def test_ports_are_its_own_until_it_is_settled(repo: RepoKit, wt: Wt, feature: Path) -> None:
    first = adopted(wt, feature, "--name", "f")
    second = wt("spawn", "--name", "other", "--json", status=0).data["jobs"][0]

    assert first["port"] is not None
    assert first["port"] != second["port"]
    wt("settle", "f", status=0)
    claims = repo.path / ".git/wt-state/ports"
    assert [path.read_text() for path in claims.iterdir()] == [second["jobId"]]


# --------------------------------------------------------------------------------------------------- its environment
@pytest.mark.parametrize("kind", ["adopted", "spawned"])
def test_the_guard_by_environment(repo: RepoKit, wt: Wt, feature: Path, kind: str) -> None:
    if kind == "adopted":
        job = adopted(wt, feature, "--name", "mine")
    else:
        job = wt("spawn", "--name", "w", "--json", status=0).data["jobs"][0]
        feature = Path(job["workspace"])
    command = shlex.join([sys.executable, "-P", "-m", "worktrees"])
    inherited = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "Somebody Else"}
    evaluate = f'eval "$({command} setup --env)"; '
    script = (
        f"{evaluate}{evaluate}git commit -q --allow-empty -m no; echo $?; git config user.name; "
        f'echo "$WT_JOB $WT_PORT $WT_PORT_COUNT"; echo "$WT_WORKSPACE"; echo $GIT_CONFIG_COUNT; '
        f"{command} status --json | grep -c {job['jobId']}; git -C {repo.path} config user.name"
    )

    told = RepoKit.git(repo, "-c", f"alias.x=!cd {shlex.quote(str(feature))}; {script}", "x", env=inherited)

    lines = told.decode().splitlines()
    assert lines[:2] == ["1", "Somebody Else"]
    assert lines[2:5] == [f"{job['jobId']} {job['port']} 10", str(feature), "3"]
    assert lines[5] == "1"
    assert repo.text("log", "--format=%s", "-1") == "second"
    data = wt("setup", "--env", job["jobId"], "--json", status=0).data
    assert data["environment"]["WT_JOB"] == job["jobId"]
    assert data["environment"]["GIT_CONFIG_COUNT"] == "2"
    assert (data["job"]["jobId"], data["workspace"]) == (job["jobId"], str(feature))


def test_only_an_open_job_has_variables_to_give(repo: RepoKit, wt: Wt, feature: Path) -> None:
    adopted(wt, feature, "--name", "f")
    wt("settle", "f", status=0)

    assert wt("setup", "--env", "f", "--json", status=4).code == "job-not-open"
    assert wt("setup", "--env", "--json", status=2).code == "usage"
    assert wt("setup", "--env", "f", "--approve", "--json", status=2).code == "usage"
    assert wt("setup", "--env", "nobody", "--json", status=4).code == "not-found"


# -------------------------------------------------------------------------------------------------------- who it is
def test_whoever_stands_in_it_is_its_worker(repo: RepoKit, wt: Wt, feature: Path) -> None:
    other = wt("spawn", "--name", "other", "--json", status=0).data["jobs"][0]
    job = adopted(wt, feature, "--name", "f")
    deep = feature / "src"

    for words in ("merge", "spawn", "drop f", "settle other", "setup --approve", "setup --env other", "diff other"):
        assert wt(*words.split(), "--json", cwd=deep, status=4).code == "not-boss"
    assert [each["jobId"] for each in wt("status", "--json", cwd=deep, status=0).data["jobs"]] == [job["jobId"]]
    assert wt("diff", "--json", cwd=deep, status=0).data["changeSet"]["files"] == []
    assert wt("setup", feature, "--json", env={"WT_JOB": other["jobId"]}, status=4).code == "not-boss"
    wt("settle", cwd=deep, status=0)
    wt("drop", "f", status=0)
    # Let go of, it is the user's own again.
    assert {each["name"] for each in wt("list", "--all", "--json", cwd=deep, status=0).data["jobs"]} == {"f", "other"}


# ---------------------------------------------------------------------------------------------------------- refused
def test_what_cannot_be_adopted_is_refused_by_name(
    repo: RepoKit, wt: Wt, feature: Path, make_repo: Callable[[str], RepoKit]
) -> None:
    other = make_repo("other")
    own = wt("spawn", "--name", "w", "--json", status=0).data["jobs"][0]["workspace"]
    adopted(wt, feature, "--name", "f")
    before = repo.fingerprint(OURS)

    for path, code in (
        (repo.path / "src", "main-worktree"), (own, "own-workspace"), (feature / "src", "already-adopted"),
        (repo.path.parent / "missing", "not-found"), (other.path, "not-found"),
    ):  # fmt: skip
        assert wt("setup", path, "--json", status=4).code == code
    for path, code in ((own, "own-workspace"), (feature / "src", "already-adopted")):
        assert wt("setup", "--json", cwd=path, status=4).code == code
    assert wt("setup", "--name", "x", "--json", status=4).code == "main-worktree"
    assert wt("setup", "--approve", feature, "--json", status=2).code == "usage"
    assert wt("spawn", "--isolation", "adopted", "--json", status=2).code == "usage"
    assert repo.fingerprint(OURS) == before
    assert len(wt("list", "--all", "--json", status=0).data["jobs"]) == 2


def test_a_name_that_is_taken_leaves_nothing_behind(repo: RepoKit, wt: Wt, feature: Path) -> None:
    wt("spawn", "--name", "f", status=0)
    before = repo.fingerprint()

    assert wt("setup", feature, "--name", "f", "--json", status=4).code == "name-taken"

    assert repo.fingerprint() == before
    assert not [path for path in (repo.path / ".git/wt-state/workspaces").iterdir() if "feature" in path.read_text()]
    adopted(wt, feature, "--name", "g")


def test_a_bare_repository_has_nobody_to_adopt_for(repo: RepoKit, tmp_path: Path) -> None:
    repo.git("clone", "-q", "--bare", repo.path, tmp_path / "bare.git")
    repo.git("-C", tmp_path / "bare.git", "worktree", "add", "-q", tmp_path / "tree", "main")

    for cwd, words in ((tmp_path / "tree", []), (tmp_path / "bare.git", [tmp_path / "tree"])):
        assert Wt(cwd)("setup", *words, "--json", status=4).code == "unsupported-repository"


def test_two_at_once_and_one_of_them_has_it(repo: RepoKit, wt: Wt, feature: Path) -> None:
    racers = [wt.start("setup", feature, "--json") for _ in range(4)]
    for racer in racers:
        racer.communicate(timeout=60)

    assert sorted(racer.returncode for racer in racers) == [0, 4, 4, 4]
    assert len(wt("list", "--all", "--json", status=0).data["jobs"]) == 1
    assert len(list((repo.path / ".git/wt-state/workspaces").iterdir())) == 1


# ------------------------------------------------------------------------------------------------------ every kind
def detached(repo: RepoKit, path: Path) -> None:
    repo.git("worktree", "add", "-q", "--detach", path)


def locked(repo: RepoKit, path: Path) -> None:
    repo.git("worktree", "add", "-q", "--lock", "--reason", "theirs", "-b", "feature", path)


def sparse(repo: RepoKit, path: Path) -> None:
    repo.git("worktree", "add", "-q", "--no-checkout", "-b", "feature", path)
    repo.git("-C", path, "sparse-checkout", "set", "docs")
    repo.git("-C", path, "checkout", "-q")
    assert not (path / "src").exists()


def split(repo: RepoKit, path: Path) -> None:
    repo.git("worktree", "add", "-q", "-b", "feature", path)
    repo.git("-C", path, "update-index", "--split-index")


def assumed(repo: RepoKit, path: Path) -> None:
    repo.git("worktree", "add", "-q", "-b", "feature", path)
    repo.git("-C", path, "update-index", "--assume-unchanged", "docs/guide.md")


def inside(repo: RepoKit, path: Path) -> None:
    """Where some agents make theirs; a symbolic link leads there."""
    nest = repo.path / ".claude/worktrees/feature"
    repo.git("worktree", "add", "-q", "-b", "feature", nest)
    path.symlink_to(nest)


@pytest.mark.parametrize("make", [detached, locked, sparse, split, assumed, inside], ids=lambda make: make.__name__)
def test_a_worktree_of_any_kind_starts_with_nothing_changed(
    repo: RepoKit, tmp_path: Path, make: Callable[[RepoKit, Path], None]
) -> None:
    path = tmp_path / "theirs"
    make(repo, path)
    entry = entry_of(repo, path)
    before = state(entry)
    boss = Boss(repo.path)

    boss.adopt(path, name="f")

    assert boss.diff("f").change_set.files == []
    (path / "docs/guide.md").write_text("edited\n")
    (path / "new.txt").write_text("new\n")
    Boss(path).settle()
    change_set = boss.diff("f").change_set
    assert {file.path: file.status for file in change_set.files} == {"docs/guide.md": "M", "new.txt": "A"}
    assert (change_set.verified, change_set.audit.findings) == (True, [])
    assert state(entry) == before
    assert boss.merge().landed
    assert repo.read("docs/guide.md") == b"edited\n"
    assert [removal.outcome for removal in boss.clean().removals] == ["released"]
    assert (path / "new.txt").exists()


def test_a_sparse_worktree_is_compared_with_its_own_head_only(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    sparse(repo, tmp_path / "theirs")

    assert wt("setup", tmp_path / "theirs", "--base", "HEAD~1", "--json", status=4).code == "sparse-checkout"
    wt("setup", tmp_path / "theirs", "--base", "HEAD", status=0)


# ------------------------------------------------------------------------------------------------------ what befalls it
def test_a_worktree_that_git_moves_is_followed(repo: RepoKit, wt: Wt, feature: Path, tmp_path: Path) -> None:
    adopted(wt, feature, "--name", "f")
    repo.git("worktree", "move", feature, tmp_path / "elsewhere")
    (tmp_path / "elsewhere/new.txt").write_text("new\n")

    assert wt("diff", "--json", cwd=tmp_path / "elsewhere", status=0).data["changeSet"]["files"][0]["path"] == "new.txt"
    (settled,) = wt("settle", "f", "--json", status=0).data["jobs"]

    assert settled["quarantined"], "git's entry was rewritten, and by whom nobody can tell"
    wt("merge", "f", status=0)
    assert repo.read("new.txt") == b"new\n"


def test_a_worktree_that_is_gone_is_named_and_let_go_of(repo: RepoKit, wt: Wt, feature: Path) -> None:
    job = adopted(wt, feature, "--name", "f")
    repo.git("worktree", "remove", "--force", feature)

    (finding,) = wt("doctor", "--json", status=1).data["findings"]
    assert (finding["code"], finding["path"]) == ("workspace-missing", str(feature))
    assert wt("diff", "f", "--json", status=4).code == "no-workspace"
    wt("drop", "f", status=0)

    assert wt("doctor", status=0).stdout.startswith("All is well.\n")
    (gone,) = wt("list", "--all", "--json", status=0).data["jobs"]
    assert (gone["jobId"], gone["workspace"], gone["verified"]) == (job["jobId"], None, False)
    repo.git("worktree", "add", "-q", feature, "feature")
    adopted(wt, feature, "--name", "again")


def test_its_entry_is_never_mended(repo: RepoKit, wt: Wt, feature: Path) -> None:
    entry = entry_of(repo, feature)
    adopted(wt, feature, "--name", "f")
    (entry / "HEAD").write_bytes(b"")
    before = state(entry)

    (finding,) = wt("doctor", "--json", status=1).data["findings"]
    wt("doctor", "--fix", status=1)

    assert (finding["code"], finding["path"]) == ("foreign-worktree-damaged", str(entry / "HEAD"))
    assert state(entry) == before
    (entry / "HEAD").write_bytes(b"ref: refs/heads/feature\n")


def test_released_work_comes_back_in_a_workspace_of_ours(repo: RepoKit, wt: Wt, feature: Path) -> None:
    adopted(wt, feature, "--name", "f")
    (feature / "new.txt").write_text("kept\n")
    wt("drop", "f", status=0)
    shutil.rmtree(feature)
    repo.git("worktree", "prune")

    (job,) = wt("restore", "f", "--json", status=0).data["jobs"]

    assert (job["isolation"], job["droppedBy"]) == ("worktree", None)
    assert Path(job["workspace"], "new.txt").read_text() == "kept\n"
    wt("merge", "f", status=0)
    assert repo.read("new.txt") == b"kept\n"
    wt("clean", status=0)
    assert not Path(job["workspace"]).exists()


def test_an_undone_drop_brings_the_work_back(repo: RepoKit, wt: Wt, feature: Path) -> None:
    adopted(wt, feature, "--name", "f")
    (feature / "new.txt").write_text("kept\n")
    wt("drop", "f", status=0)

    wt("undo", status=0)

    (job,) = wt("list", "--json", status=0).data["jobs"]
    assert (job["droppedBy"], Path(job["workspace"], "new.txt").read_text()) == (None, "kept\n")
    assert Path(job["workspace"]) != feature
    wt("merge", status=0)
    assert repo.read("new.txt") == b"kept\n"


def test_a_kill_while_adopting_leaves_the_worktree_free(repo: RepoKit, wt: Wt, feature: Path) -> None:
    """Killed where the record of the workspace stands and the job is not open yet."""
    wt("spawn", "--name", "first", status=0)
    records = repo.path / ".git/wt-state/workspaces"
    racer = wt.start("setup", feature, "--name", "f")
    eventually(lambda: any('"entry":"feature"' in path.read_text() for path in records.glob("j-*.json")))
    racer.kill()
    racer.communicate(timeout=60)

    wt("list", status=0)

    (job,) = [job for job in wt("list", "--all", "--json", status=0).data["jobs"] if job["name"] == "f"]
    if job["state"] == "open":  # it was through before the kill came
        wt("drop", "f", status=0)
    assert len(list(records.iterdir())) == 1
    adopted(wt, feature, "--name", "g")
