"""The door to git: what it lets through, what it finds, what it reads and moves."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit import RepoKit
from worktrees.errors import GitFailed, NotFound, Refused
from worktrees.git import ObjectStore, Process, discover, door, read_commit, reader, run, tree_changes
from worktrees.model import Oid
from worktrees.store import State


def test_variables_of_a_calling_hook_do_not_redirect_us(repo: RepoKit, monkeypatch: pytest.MonkeyPatch) -> None:
    other = RepoKit.make(repo.path.parent / "other")
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.path / ".git" / "index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.path))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other.path / ".git" / "objects"))

    found = discover(repo.path)

    assert found.work_tree == repo.path
    assert found.git_dir == repo.path / ".git"
    assert found.git("rev-parse", "--git-path", "index").text.endswith("repo/.git/index")


NAMES = ["x", "a.b =c]", "\udcff", "reference-transaction", "post-index-change"]


@pytest.mark.parametrize("place", ["config", "config.worktree", "included"])
def test_hooks_that_the_repository_names_are_turned_off_by_name(
    repo: RepoKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """What git 2.55 is told: its switch of an event fails where a command has the event's name."""
    monkeypatch.setattr(door, "version", lambda: (2, 55))
    tree, file = tmp_path / "tree", repo.path / ".git/config"
    repo.git("worktree", "add", "--quiet", "--detach", tree)
    git_dir = repo.path / ".git/worktrees/tree"
    assert told(git_dir) == {"post-index-change", "reference-transaction"}  # by every call
    if place == "config.worktree":
        repo.git("config", "extensions.worktreeConfig", "true")
        file = git_dir / "config.worktree"
    if place == "included":
        file = tmp_path / "more"
        repo.git("config", "include.path", file)
    for name in NAMES:
        repo.git("config", "--file", file, f"hook.{name}.command", "true")
    assert told(git_dir) == set(NAMES)
    assert told(repo.path / ".git") == (set(NAMES[3:]) if place == "config.worktree" else set(NAMES))
    monkeypatch.setattr(door, "version", lambda: (2, 53))
    assert told(git_dir) == {"post-index-change", "reference-transaction"}


def test_hooks_that_the_user_names_are_turned_off_where_git_knows_no_switch_for_all(
    repo: RepoKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.git("config", "--global", "hook.mine.command", "true")
    for version, names in {(2, 53, 9): set[str](), (2, 54, 1): {"mine"}, (2, 55, 0): set[str]()}.items():
        monkeypatch.setattr(door, "version", lambda version=version: version)
        for git_dir in (repo.path / ".git", None):  # where one is made, there is none yet
            assert told(git_dir) - {"post-index-change", "reference-transaction"} == names


def told(git_dir: Path | None) -> set[str]:
    """The names under which a call of ours turns hooks off."""
    done = run("--no-pager", "config", "--null", "--get-regexp", r"^hook\..*\.enabled$", git_dir=git_dir)
    pairs = [os.fsdecode(record).partition("\n") for record in done.records]
    assert {value for _, _, value in pairs} == {"false"}
    return {key.removeprefix("hook.").removesuffix(".enabled") for key, _, _ in pairs}


@pytest.mark.skipif(door.version() < (2, 54), reason="git 2.54 is the first with hooks that configuration names")
@pytest.mark.parametrize("also", ["", "reference-transaction", "post-index-change"])
def test_hooks_that_configuration_names_do_not_run(repo: RepoKit, tmp_path: Path, also: str) -> None:
    canary = tmp_path / "canary"
    repo.git("config", "hook.a=b.command", f"touch {canary}")
    repo.git("config", "hook.a=b.event", "reference-transaction")
    repo.git("config", "--add", "hook.a=b.event", "post-index-change")
    if also:
        repo.git("config", f"hook.{also}.command", f"touch {canary}")
    here = discover(repo.path)
    (repo.path / "README.md").touch()

    here.git("update-index", "-q", "--refresh")
    here.git("read-tree", "HEAD")
    here.update_ref("refs/wt/test", Oid(repo.head()), None, reason="test")

    assert not canary.exists()
    repo.git("tag", "mine")
    assert canary.exists()  # it is alive


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("core.fsmonitor", "touch {canary}"),
        ("core.hooksPath", "{hooks}"),
        ("diff.external", "touch {canary}"),
        ("core.pager", "touch {canary}"),
        ("core.editor", "touch {canary}"),
        ("core.alternateRefsCommand", "touch {canary}"),
    ],
)
def test_configuration_that_runs_programs_is_off(repo: RepoKit, tmp_path: Path, key: str, value: str) -> None:
    canary, hooks = tmp_path / "canary", tmp_path / "hooks"
    hooks.mkdir()
    for name in ("reference-transaction", "post-index-change", "post-checkout", "pre-auto-gc"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (hooks / name).chmod(0o755)
    repo.git("config", key, value.format(canary=canary, hooks=hooks))
    here = discover(repo.path)
    repo.write("README.md", "changed\n")

    here.git("update-index", "-q", "--refresh", expect=(0, 1))
    here.git("diff-files", "-p", "-z")
    here.git("status", "--porcelain", "-z")
    here.git("log", "-1", "-p")
    here.update_ref("refs/wt/test", Oid(repo.head()), None, reason="test")

    assert not canary.exists()
    repo.git("config", "--unset", key)


def test_discovery_names_what_it_does_not_serve(tmp_path: Path, repo: RepoKit) -> None:
    nowhere = tmp_path / "empty"
    nowhere.mkdir()
    bare = tmp_path / "bare.git"
    run("init", "--quiet", "--bare", str(bare), git_dir=None)
    for place, code in (
        (nowhere, "not-a-repository"),
        (tmp_path / "missing", "not-a-repository"),
        (repo.path / ".git", "not-a-repository"),
        (bare, "unsupported-repository"),
    ):
        with pytest.raises(Refused) as caught:
            discover(place)
        assert caught.value.code == code, place
        assert caught.value.hint
        assert "\n" not in caught.value.message


def test_discovery_from_a_linked_worktree_and_from_one_of_a_bare_repository(repo: RepoKit, tmp_path: Path) -> None:
    repo.git("worktree", "add", "--quiet", "--detach", tmp_path / "linked")
    (tmp_path / "linked" / "deep").mkdir()

    linked = discover(tmp_path / "linked" / "deep")

    assert linked.work_tree == tmp_path / "linked"
    assert linked.common_dir == repo.path / ".git"
    assert linked.git_dir == repo.path / ".git" / "worktrees" / "linked"
    assert linked.main_work_tree == repo.path
    assert linked.at(repo.path).git_dir == repo.path / ".git"
    assert discover(repo.path).at(tmp_path / "linked").git_dir == linked.git_dir
    with pytest.raises(NotFound):
        linked.at(tmp_path)

    run("clone", "--quiet", "--bare", str(repo.path), str(tmp_path / "bare.git"), git_dir=None)
    run("worktree", "add", "--quiet", str(tmp_path / "of-bare"), git_dir=tmp_path / "bare.git")
    of_bare = discover(tmp_path / "of-bare")
    assert of_bare.bare
    assert of_bare.main_work_tree is None
    assert of_bare.head().branch == "of-bare"


def test_head_says_branch_detached_and_unborn(repo: RepoKit, tmp_path: Path) -> None:
    here = discover(repo.path)
    assert (here.head().branch, here.head().commit) == ("main", repo.head())
    repo.git("checkout", "--quiet", "--detach")
    assert (here.head().ref, here.head().commit) == (None, repo.head())
    run("init", "--quiet", str(tmp_path / "new"), git_dir=None)
    unborn = discover(tmp_path / "new").head()
    assert (unborn.branch, unborn.commit) == ("main", None)


def test_a_ref_moves_only_from_where_it_is_expected(repo: RepoKit) -> None:
    here = discover(repo.path)
    first, second = Oid(repo.head("HEAD~1")), Oid(repo.head())
    here.update_ref("refs/heads/side", first, None, reason="wt: make", durable=True)

    with pytest.raises(Refused) as caught:
        here.update_ref("refs/heads/side", second, second, reason="wt: move")

    assert caught.value.code == "branch-moved"
    assert caught.value.details["found"] == first
    assert here.ref("refs/heads/side") == first
    with pytest.raises(Refused):
        here.update_ref("refs/heads/side", second, None, reason="wt: make again")
    here.update_ref("refs/heads/side", second, first, reason="wt: move")
    assert repo.text("reflog", "-1", "--format=%gs", "refs/heads/side") == "wt: move"


def test_a_status_that_nobody_expects_is_an_error_with_gits_reason(repo: RepoKit) -> None:
    with pytest.raises(GitFailed) as caught:
        discover(repo.path).git("cat-file", "-p", "no-such-object")
    assert caught.value.status == 128
    assert "no-such-object" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.details["command"][0] == "cat-file"


def test_an_open_operation_of_the_user_is_named(repo: RepoKit) -> None:
    here = discover(repo.path)
    assert here.operation_in_progress() is None
    repo.git("checkout", "--quiet", "-b", "side", "HEAD~1")
    repo.write("src/app.py", "theirs\n")
    repo.commit("theirs")
    repo.git("checkout", "--quiet", "main")
    repo.write("src/app.py", "ours\n")
    repo.commit("ours")
    repo.git("merge", "side", check=False)
    assert here.operation_in_progress() == ("merge", "git merge --abort")
    repo.git("merge", "--abort")
    repo.git("rebase", "side", check=False)
    assert here.operation_in_progress() == ("rebase", "git rebase --abort")


def test_a_process_that_dies_is_an_error_not_a_hang(repo: RepoKit) -> None:
    process = Process("cat-file", "--no-such-option", git_dir=repo.path / ".git")
    with pytest.raises(GitFailed):
        process.read_until(b"\n")


# ------------------------------------------------------------------------------------ every kind of repository


def _sha256(root: Path) -> Path:
    run("init", "--quiet", "--object-format=sha256", "--initial-branch=main", str(root), git_dir=None)
    return root


def _ordinary(root: Path) -> Path:
    run("init", "--quiet", "--initial-branch=main", str(root), git_dir=None)
    return root


KINDS: dict[str, tuple[Callable[[Path], Path], list[list[str]]]] = {
    "ordinary": (_ordinary, []),
    "sha256": (_sha256, []),
    "split index": (_ordinary, [["update-index", "--split-index"]]),
    "sparse index": (_ordinary, [["sparse-checkout", "set", "--cone", "--sparse-index", "src"]]),
    "partial clone": (
        _ordinary,
        [["config", "core.repositoryFormatVersion", "1"], ["config", "extensions.partialClone", "origin"]],
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> RepoKit:
    make, steps = KINDS[request.param]
    kit = RepoKit(make(tmp_path / "kind"))
    kit.write("top", "1\n")
    kit.write("src/a", "a\n", mode=0o755)
    kit.write("lib/b", "b\n")
    kit.write(os.fsdecode(b"lib/\xff\n"), "odd\n")
    os.symlink("top", kit.path / "src" / "link")
    kit.commit("one\n\nbody \u00e9")
    kit.write("src/a", "aa\n")
    kit.git("rm", "-q", "-r", "lib/b")
    kit.write("lib/b/c", "c\n")
    kit.commit("two")
    for step in steps:
        kit.git(*step)
    return kit


def test_both_readers_give_the_same_answers(kind: RepoKit) -> None:
    head, parent = Oid(kind.head()), Oid(kind.head("HEAD~1"))
    answers = []
    for native in (True, False):
        with reader(kind.path / ".git", native=native) as objects:
            commit, before = objects.commit(head), objects.commit(parent)
            tree = objects.tree(commit.tree)
            answers.append(
                (
                    commit,
                    before,
                    tree,
                    objects.blob(tree[b"top"].oid),
                    list(tree_changes(objects, before.tree, commit.tree)),
                )
            )
            with pytest.raises(NotFound):
                objects.blob(Oid("1" * len(head)))
            with pytest.raises(NotFound):
                objects.blob(commit.tree)
    assert answers[0] == answers[1]
    listed = kind.git("diff-tree", "-r", "-z", "--name-only", "--no-renames", parent, head).split(b"\0")[:-1]
    assert [path for path, _, _ in answers[0][4]] == sorted(listed)


def test_the_store_sees_the_repository_and_gives_back_what_lands(kind: RepoKit) -> None:
    here = discover(kind.path)
    state = State(here.common_dir)
    state.prepare()
    store = ObjectStore(state.store).ensure(here)
    head = Oid(kind.head())

    commit = store.commit(here.tree_of(head), [head], "made in the store\n", date="1700000000 +0000")
    store.set_ref("refs/wt/w/j", commit, durable=True)

    assert store.refs("refs/wt/") == {"refs/wt/w/j": commit}
    assert read_commit(store.path, commit).parents == (head,)
    assert here.ref("refs/wt/w/j") is None
    assert kind.git("cat-file", "-t", commit, check=False) == b""
    with store.transfer_to(here, commit, known=[head]):
        assert list((here.common_dir / "objects" / "pack").glob("*.keep"))
        here.update_ref("refs/heads/landed", commit, None, reason="wt: land")
    assert not list((here.common_dir / "objects" / "pack").glob("*.keep"))
    assert kind.head("landed") == commit


def test_a_partial_clone_fetches_what_the_store_misses(repo: RepoKit, tmp_path: Path) -> None:
    repo.git("config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{repo.path}", clone],
        check=True,
        timeout=60,
    )
    here = discover(clone)
    state = State(here.common_dir)
    state.prepare()
    store = ObjectStore(state.store).ensure(here)

    with reader(store.path) as objects:
        commit = objects.commit(Oid(repo.head()))
        content = objects.blob(objects.tree(commit.tree)[b"README.md"].oid)

    assert content == repo.read("README.md")


def test_many_processes_make_one_store(repo: RepoKit) -> None:
    here = discover(repo.path)
    State(here.common_dir).prepare()
    script = (
        "import sys; from pathlib import Path; from worktrees.git import ObjectStore, discover\n"
        "from worktrees.store import State\n"
        "here = discover(sys.argv[1]); state = State(here.common_dir); state.prepare()\n"
        "ObjectStore(state.store).ensure(here).git('rev-parse', '--git-dir')\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, repo.path]) for _ in range(8)]
    assert [process.wait(60) for process in running] == [0] * 8
    left = sorted(entry.name for entry in (here.common_dir / "wt-state").iterdir() if entry.name.startswith("store"))
    assert left == ["store.git"]


def test_a_repository_whose_path_needs_quoting_in_alternates(tmp_path: Path) -> None:
    kit = RepoKit.make(tmp_path / '#odd "name" é')
    here = discover(kit.path)
    state = State(here.common_dir)
    state.prepare()
    store = ObjectStore(state.store).ensure(here)
    assert read_commit(store.path, Oid(kit.head())).oid == kit.head()
