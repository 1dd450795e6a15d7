"""Workspaces on real repositories of every kind: whole or not at all, and nothing of anybody else's touched."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit import RepoKit, eventually
from worktrees import config, isolation
from worktrees.config import Settings
from worktrees.errors import Busy, GitFailed, NotFound, Refused, StateBroken, Usage
from worktrees.git import discover, run
from worktrees.isolation import Place, Workspace, WorktreeIsolation, journal
from worktrees.model import Baseline, DirtyPolicy, JobId, Oid

JOB, OTHER = JobId("j-aaaaaaaa"), JobId("j-bbbbbbbb")
KIND = WorktreeIsolation()


def ground(directory: Path, **settings: str) -> Place:
    return isolation.place(discover(directory), Settings(**settings))  # type: ignore[arg-type]


def baseline(place: Place, revision: str = "HEAD") -> Baseline:
    return Baseline(commit=place.repo.resolve(revision))


def open_one(place: Place, job: JobId = JOB, **more: object) -> Workspace:
    return KIND.open(place, job, baseline(place), **more)  # type: ignore[arg-type]


def status(workspace: Workspace, *more: str) -> list[str]:
    return git(workspace.path, "status", "--porcelain", *more).splitlines()


def git(directory: Path, *words: str | Path) -> str:
    done = subprocess.run(["git", *words], cwd=directory, check=True, capture_output=True, timeout=60)
    return done.stdout.decode().rstrip("\n")


def files(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a directory, git's pointer aside: mode, and content or link target."""
    found = {}
    for parent, names, inside in os.walk(directory):
        names[:] = [name for name in names if name != ".git"]
        for name in (*inside, *(name for name in names if os.path.islink(os.path.join(parent, name)))):
            path = Path(parent, name)
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            found[os.path.relpath(path, directory)] = (path.lstat().st_mode, content)
    found.pop(".git", None)
    return found


def leftovers(place: Place) -> list[str]:
    """Everything of ours that is still about, trash on its way out aside."""
    directories = (place.state.journal, place.records, place.entries, place.root)
    found = [path for directory in directories for path in directory.glob("*")]
    return [os.fspath(path) for path in found if path.name not in {".trash", ".wt.json"}]


# ----------------------------------------------------------------------------------------------------------- opening
def test_a_workspace_is_a_detached_locked_worktree_named_by_the_job(repo: RepoKit) -> None:
    place = ground(repo.path)
    before = repo.fingerprint()
    workspace = open_one(place)
    assert workspace == Workspace(JOB, place.root / JOB, repo.path / ".git/worktrees" / JOB)
    assert [(row.path, row.commit, row.ref, row.locked) for row in place.repo.worktrees()[1:]] == [
        (workspace.path, repo.head(), None, f"wt {JOB}")
    ]
    assert status(workspace, "--ignored") == []
    assert isolation.workspace_of(place, JOB) == workspace
    assert KIND.enter(workspace) == []
    assert KIND.candidates(workspace) is None
    assert config.plugin("isolation", "worktree") is WorktreeIsolation
    KIND.close(place, workspace)
    assert repo.fingerprint() == before
    assert isolation.workspace_of(place, JOB) is None
    assert leftovers(place) == []
    assert not place.root.exists()
    assert git(repo.path, "worktree", "list").count("\n") == 0


Kind = Callable[[RepoKit, Path], Path]


def odd_name(repo: RepoKit, _: Path) -> Path:
    repo.path = repo.path.rename(repo.path.with_name("-a b’ö\\*?[x]"))
    return repo.path


def linked(repo: RepoKit, scratch: Path) -> Path:
    repo.git("worktree", "add", "-q", "-b", "side", scratch / "side tree")
    return scratch / "side tree"


def symlinked(repo: RepoKit, scratch: Path) -> Path:
    (scratch / "link").symlink_to(repo.path)
    return scratch / "link"


def copied(*words: str) -> Kind:
    def make(repo: RepoKit, scratch: Path) -> Path:
        target = scratch / "copy"
        repo.git("clone", "-q", *words, f"file://{repo.path}", target)
        return target

    return make


def partial(repo: RepoKit, scratch: Path) -> Path:
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    return copied("--filter=blob:none", "--no-checkout")(repo, scratch)


def sha256(repo: RepoKit, scratch: Path) -> Path:
    target = scratch / "sha256"
    git(scratch, "init", "-q", "--object-format=sha256", target)
    shutil.copytree(repo.path, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git"))
    git(target, "add", "-A")
    git(target, "commit", "-q", "-m", "all")
    return target


def submodule(repo: RepoKit, scratch: Path) -> Path:
    """The boss works in a submodule: its git directory lies within the other repository's."""
    outer = RepoKit.make(scratch / "outer")
    outer.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", repo.path, "inner")
    return outer.path / "inner"


def with_submodule(repo: RepoKit, scratch: Path) -> Path:
    outer = RepoKit.make(scratch / "outer")
    outer.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", repo.path, "inner")
    outer.commit("with a submodule")
    return outer.path


def separate(repo: RepoKit, scratch: Path) -> Path:
    git(scratch, "clone", "-q", "--separate-git-dir", scratch / "the.git", repo.path, "tree")
    return scratch / "tree"


def bare(repo: RepoKit, scratch: Path) -> Path:
    git(scratch, "clone", "-q", "--bare", repo.path, "bare.git")
    git(scratch / "bare.git", "worktree", "add", "-q", scratch / "tree")
    return scratch / "tree"


def sparse_index(repo: RepoKit, _: Path) -> Path:
    repo.git("sparse-checkout", "set", "--cone", "--sparse-index", "src")
    return repo.path


def old_sparse(repo: RepoKit, _: Path) -> Path:
    """As before git had `sparse-checkout`: patterns, and the setting in the shared configuration."""
    repo.git("config", "core.sparseCheckout", "true")
    (repo.path / ".git/info").mkdir(exist_ok=True)
    (repo.path / ".git/info/sparse-checkout").write_text("*.md\n")
    repo.git("read-tree", "-m", "-u", "HEAD")
    return repo.path


def configured(*settings: str) -> Kind:
    def make(repo: RepoKit, _: Path) -> Path:
        for setting in settings:
            repo.git("config", *setting.split("=", 1))
        return repo.path

    return make


def newer_extension(repo: RepoKit, _: Path) -> Path:
    """An extension that is not known here makes git build the entry."""
    repo.git("config", "core.repositoryFormatVersion", "1")
    repo.git("config", "extensions.noop", "true")
    return repo.path


def filtered(repo: RepoKit, _: Path) -> Path:
    repo.git("config", "filter.up.smudge", "tr a-z A-Z")
    repo.git("config", "filter.up.clean", "tr A-Z a-z")
    repo.write(".gitattributes", "*.up filter=up\n*.crlf text eol=crlf\n")
    repo.write("note.up", "quiet\n")
    repo.write("note.crlf", "one\ntwo\n")
    repo.commit("filtered")
    return repo.path


KINDS: dict[str, Kind] = {
    "odd name": odd_name,
    "linked worktree": linked,
    "symlinked": symlinked,
    "shallow": copied("--depth=1"),
    "partial": partial,
    "sha256": sha256,
    "submodule": submodule,
    "with submodule": with_submodule,
    "separate git dir": separate,
    "bare": bare,
    "sparse index": sparse_index,
    "sparse by shared configuration": old_sparse,
    "index formats": configured("core.splitIndex=true", "index.version=4", "core.untrackedCache=true"),
    "manyFiles": configured("feature.manyFiles=true", "checkout.workers=1"),
    "own worktree configuration": configured("extensions.worktreeConfig=true"),
    "newer extension": newer_extension,
    "filters": filtered,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_workspace_is_what_git_worktree_add_makes(repo: RepoKit, tmp_path: Path, kind: str) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    directory = KINDS[kind](repo, scratch)
    place = ground(directory)
    reference = scratch / "reference"
    config_before = (place.repo.common_dir / "config").read_bytes()
    rows_before = place.repo.worktrees()
    workspace = open_one(place)
    git(directory, "worktree", "add", "-q", "--detach", reference)
    assert files(workspace.path) == files(reference)
    assert git(workspace.path, "ls-files", "-s", "-t") == git(reference, "ls-files", "-s", "-t")
    settings = [git(tree, "config", "--list") for tree in (workspace.path, reference)]
    assert settings[0] == settings[1]
    assert status(workspace) == git(reference, "status", "--porcelain").splitlines() == []
    assert isolation.discover_boss(workspace.path)[1] == JOB
    assert isolation.discover_boss(workspace.path)[0].common_dir == place.repo.common_dir
    assert isolation.doctor_findings(place) == []
    git(directory, "worktree", "remove", "-f", reference)
    KIND.close(place, workspace)
    assert {os.path.dirname(path) for path in leftovers(place)} <= {os.fspath(place.entries)}
    assert place.repo.worktrees() == rows_before
    assert (place.repo.common_dir / "config").read_bytes() == config_before
    assert run("fsck", "--no-dangling", git_dir=place.repo.common_dir).status == 0


def test_git_makes_the_entry_where_the_format_is_not_known(
    repo: RepoKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ground(newer_extension(repo, tmp_path))
    calls = []
    original = type(place.repo).git

    def failing_once(self: object, *words: str, **more: object) -> object:
        if words[:2] == ("worktree", "add"):
            calls.append(words)
            if len(calls) < 3:
                raise GitFailed(["worktree", "add"], 128, b"fatal: failed to read .git/worktrees/x/commondir: Success")
        return original(place.repo, *words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(type(place.repo), "git", failing_once)
    workspace = open_one(place)
    assert len(calls) == 3
    assert place.repo.worktrees()[1].locked == f"wt {JOB}"
    assert not (place.state.root / "locks/repository.holder").exists()
    KIND.close(place, workspace)
    assert leftovers(place) == []


# ------------------------------------------------------------------------------------------------------- the baseline
def carried(repo: RepoKit, place: Place, policy: DirtyPolicy) -> Baseline:
    """A baseline with every kind of edit carried over, as a snapshot in the store."""
    commit = place.repo.resolve("HEAD")
    repo.write("src/app.py", "edited\n")
    repo.write("fresh/new file", "untracked\n")
    repo.write("tool.sh", "#!/bin/sh\necho tool\n", mode=0o644)
    (repo.path / "docs/guide.md").unlink()
    (repo.path / "data.bin").unlink()
    (repo.path / "data.bin").symlink_to("README.md")
    place.state.prepare()
    store = place.store.ensure(place.repo)
    index = place.state.root / "dirty.index"
    store.git("read-tree", commit, index=index)
    store.git("add", "-A", ".", work_tree=repo.path, index=index)
    tree = Oid(store.git("write-tree", index=index).text)
    snapshot = store.commit(tree, [commit], "dirty")
    return Baseline(commit=commit, dirty_policy=policy, snapshot=snapshot)


@pytest.mark.parametrize("name", ["repo", 'with : colon and "quote" and \\ in it'])
def test_edits_carried_over_are_there_and_uncommitted(make_repo: Callable[[str], RepoKit], name: str) -> None:
    repo = make_repo(name)
    place = ground(repo.path)
    base = carried(repo, place, "all")
    index = place.state.root / "fresh.index"
    workspace = KIND.open(place, JOB, base, index=index)
    assert files(workspace.path) == files(repo.path)
    assert status(workspace, "-uall") == git(repo.path, "status", "--porcelain", "-uall").splitlines() != []
    assert git(workspace.path, "rev-parse", "HEAD") == base.commit
    assert git(workspace.path, "diff", "--cached", "--name-only") == ""
    # The copy is of the files as they are, with their stat data: nothing has to be read again.
    tree = place.store.git("write-tree", index=index).text
    assert tree == place.store.git("rev-parse", f"{base.snapshot}^{{tree}}").text
    dirty = place.store.git("diff-files", "--name-only", work_tree=workspace.path, index=index)
    assert dirty.stdout == b""
    KIND.close(place, workspace)


def test_the_fresh_index_is_the_workers_own_twin(repo: RepoKit) -> None:
    place = ground(repo.path)
    place.state.prepare()
    index = place.state.root / "fresh.index"
    workspace = open_one(place, index=index)
    assert workspace.git_dir is not None
    assert index.read_bytes() == (workspace.git_dir / "index").read_bytes()
    KIND.close(place, workspace)


# ------------------------------------------------------------------------------------------------------------- sparse
def test_a_sparse_workspace_needs_no_shared_configuration(repo: RepoKit) -> None:
    repo.write("big/one/a", "a")
    repo.write("big/two/b", "b")
    repo.write("big/top", "t")
    repo.write("odd [x]*/deep/c", "c")
    repo.commit("wide")
    place = ground(repo.path)
    before = repo.fingerprint()
    workspace = open_one(place, sparse=["big/one/", "./odd [x]*"])
    names = set(files(workspace.path))
    assert names == {"README.md", ".gitignore", "tool.sh", "data.bin", "big/one/a", "big/top", "odd [x]*/deep/c"}
    assert status(workspace) == []
    skipped = [line[2:] for line in git(workspace.path, "ls-files", "-t").splitlines() if line.startswith("S ")]
    assert sorted(skipped) == ["big/two/b", "docs/guide.md", "src/app.py", "src/util.py"]
    # What the worker then does to files is seen, on both sides of the patterns.
    (workspace.path / "big/one/a").write_text("edited")
    assert status(workspace) == [" M big/one/a"]
    assert repo.fingerprint() == before
    KIND.close(place, workspace)


def test_sparse_directories_must_be_there(repo: RepoKit) -> None:
    place = ground(repo.path)
    for word in ("nowhere", "README.md"):
        with pytest.raises(NotFound, match=word):
            open_one(place, sparse=["src", word])
    assert leftovers(place) == []
    workspace = open_one(place, sparse=["src", "."])
    assert status(workspace) == []
    assert "docs/guide.md" in files(workspace.path)
    KIND.close(place, workspace)


# ------------------------------------------------------------------------------------------------------------ failing
def test_a_second_workspace_of_a_job_is_refused(repo: RepoKit) -> None:
    place = ground(repo.path)
    workspace = open_one(place)
    (workspace.path / "mine").write_text("work")
    with pytest.raises(Refused, match=JOB):
        open_one(place)
    assert (workspace.path / "mine").read_text() == "work"
    assert isolation.recover(place) == []
    KIND.close(place, workspace)


def test_nothing_is_left_when_a_filter_of_the_users_fails(repo: RepoKit) -> None:
    repo.git("config", "filter.broken.clean", "cat")
    repo.git("config", "filter.broken.smudge", "false")
    repo.git("config", "filter.broken.required", "true")
    repo.write(".gitattributes", "*.broken filter=broken\n")
    repo.write("a.broken", "x")
    repo.commit("broken")
    place = ground(repo.path)
    before = repo.fingerprint()
    with pytest.raises(GitFailed):
        open_one(place)
    assert leftovers(place) == []
    assert repo.fingerprint() == before
    assert git(repo.path, "worktree", "list").count("\n") == 0


def test_a_missing_commit_leaves_nothing(repo: RepoKit) -> None:
    place = ground(repo.path)
    with pytest.raises(GitFailed):
        KIND.open(place, JOB, Baseline(commit=Oid("1" * 40)))
    assert leftovers(place) == []


@contextlib.contextmanager
def mounted(kind: str, where: Path, options: str, source: Path | None = None) -> Iterator[None]:
    """A mount of ours, for root alone."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    words = ["mount", "--bind", f"{source}"] if source else ["mount", "-t", kind, "-o", options, "none"]
    done = subprocess.run([*words, os.fspath(where)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this container may not mount: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def test_a_full_disk_leaves_nothing_and_can_be_freed(repo: RepoKit, tmp_path: Path) -> None:
    for number in range(40):
        repo.write(f"data/{number}", os.urandom(50_000))
    repo.commit("two megabytes")
    small = tmp_path / "small"
    small.mkdir()
    with mounted("tmpfs", small, "size=3m"):
        place = ground(repo.path, worktrees_directory=os.fspath(small))
        workspace = open_one(place)
        with pytest.raises(StateBroken, match="no space left on device"):
            open_one(place, OTHER)
        assert isolation.workspace_of(place, OTHER) is None
        assert not (place.root / OTHER).exists()
        assert [row.path for row in place.repo.worktrees()[1:]] == [workspace.path]
        assert status(workspace) == []
        # To another file system than the state's: the trash is in the root itself.
        KIND.close(place, workspace)
        eventually(lambda: not isolation.trash.trashes(place), what="the trash is emptied")
        isolation.recover(place)
        workspace = open_one(place)
        KIND.close(place, workspace)
        eventually(lambda: not isolation.trash.trashes(place), what="the trash is emptied")


def test_a_workspace_is_closed_when_the_state_has_no_room_for_an_intent(repo: RepoKit, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    with mounted("tmpfs", small, "size=1m"):
        shutil.copytree(repo.path, small / "repo", symlinks=True)
        place = ground(small / "repo", worktrees_directory=os.fspath(small / "trees"))
        workspace = open_one(place)
        with contextlib.suppress(OSError), (small / "fill").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        KIND.close(place, workspace)
        assert leftovers(place) == []
        eventually(lambda: not isolation.trash.trashes(place), what="the trash is emptied")


def test_a_read_only_disk_is_told_in_one_line(repo: RepoKit) -> None:
    place = ground(repo.path)
    with mounted("bind", repo.path, "", repo.path):
        subprocess.run(["mount", "-o", "remount,ro,bind", repo.path], check=True)
        with pytest.raises(StateBroken, match="read-only file system") as caught:
            open_one(place)
        assert "\n" not in caught.value.message
    assert leftovers(place) == []
    assert not place.state.exists()


# ------------------------------------------------------------------------------------------------------------ closing
def test_closing_again_or_what_is_gone_does_no_harm(repo: RepoKit) -> None:
    place = ground(repo.path)
    workspace = open_one(place)
    other = open_one(place, OTHER)
    shutil.rmtree(workspace.path)
    assert [finding.code for finding in isolation.doctor_findings(place)] == ["workspace-missing"]
    KIND.close(place, workspace)
    KIND.close(place, workspace)
    assert other.git_dir is not None
    shutil.rmtree(other.git_dir)
    KIND.close(place, other)
    assert leftovers(place) == []


def test_only_the_directory_that_was_opened_is_taken_away(repo: RepoKit, tmp_path: Path) -> None:
    place = ground(repo.path)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("not yours")
    workspace = open_one(place)
    kept = workspace.path.rename(tmp_path / "kept")
    workspace.path.symlink_to(precious)
    with pytest.raises(Refused, match="something else"):
        KIND.close(place, workspace)
    workspace.path.unlink()
    precious.rename(workspace.path)
    with pytest.raises(Refused, match="something else"):
        KIND.close(place, workspace)
    assert (workspace.path / "file").read_text() == "not yours"
    workspace.path.rename(precious)
    # A copy with git's pointers right is the workspace; its inode may change with a restored backup.
    shutil.copytree(kept, workspace.path, symlinks=True)
    KIND.close(place, workspace)
    assert leftovers(place) == []
    place.root.mkdir()
    kept.rename(place.root / JOB)
    with pytest.raises(Refused, match="no workspace of ours"):
        KIND.close(place, workspace)


def test_a_workspace_that_was_moved_is_not_cut_off(repo: RepoKit, tmp_path: Path) -> None:
    place = ground(repo.path)
    workspace = open_one(place)
    repo.git("worktree", "move", "-f", "-f", workspace.path, tmp_path / "moved")
    with pytest.raises(Refused, match="was moved") as caught:
        KIND.close(place, workspace)
    subprocess.run((caught.value.hint or "").split(" "), cwd=repo.path, check=True)
    KIND.close(place, workspace)
    assert leftovers(place) == []


def test_other_worktrees_and_their_root_are_let_be(repo: RepoKit) -> None:
    place = ground(repo.path)
    first, second = open_one(place), open_one(place, OTHER)
    repo.git("worktree", "add", "-q", "-b", "mine", place.root / "mine")
    assert isolation.discover_boss(place.root / "mine")[1] is None
    assert isolation.discover_boss(place.root / "mine")[0].git_dir == place.entries / "mine"
    KIND.close(place, first)
    KIND.close(place, second)
    assert [row.ref for row in place.repo.worktrees()] == ["refs/heads/main", "refs/heads/mine"]
    assert {"mine", ".wt.json"} == set(os.listdir(place.root)) - {".trash"}


def test_one_process_at_a_time_acts_on_a_workspace(repo: RepoKit) -> None:
    place = ground(repo.path)
    workspace = open_one(place)
    with journal.claim(place, JOB):
        with pytest.raises(Busy, match=JOB):
            KIND.close(place, workspace)
        assert isolation.recover(place) == []
    KIND.close(place, workspace)


# ----------------------------------------------------------------------------------------------------------- recovery
def test_what_the_dead_left_is_undone_and_nothing_else(repo: RepoKit) -> None:
    place = ground(repo.path)
    bystander = open_one(place, OTHER)
    workspace = open_one(place)
    with journal.claim(place, JOB) as held:
        held.write(journal.Intent(JOB, workspace.path, "removing"))
        workspace.path.rename(place.state.trash / "half")
    torn = place.state.journal / "j-cccccccc.json"
    torn.write_text('{"job": "j-ccc')
    found = isolation.recover(place)
    assert [(finding.code, finding.path) for finding in found] == [("workspace-recovered", os.fspath(workspace.path))]
    assert not torn.exists()
    assert isolation.recover(place) == []
    assert status(bystander) == []
    KIND.close(place, bystander)
    assert leftovers(place) == []


def test_a_power_cut_may_empty_what_was_not_synced(repo: RepoKit) -> None:
    place = ground(repo.path)
    workspace, half_made = open_one(place), open_one(place, OTHER)
    (place.records / f"{JOB}.json").write_bytes(b"")
    (place.records / f"{OTHER}.json").unlink()
    (place.state.journal / f"{OTHER}.json").touch()
    # A closing process that died before it said anything: nothing had happened yet.
    (place.state.journal / f"{JOB}.json").touch()
    assert [finding.path for finding in isolation.recover(place)] == [os.fspath(half_made.path)]
    assert isolation.workspace_of(place, JOB) == workspace
    assert status(workspace) == []
    assert isolation.doctor_findings(place) == []
    KIND.close(place, workspace)
    assert leftovers(place) == []


def test_a_power_cut_may_empty_the_record_and_the_pointer_of_a_workspace(repo: RepoKit) -> None:
    place = ground(repo.path)
    workspace = open_one(place)
    (place.records / f"{JOB}.json").write_bytes(b"")
    (workspace.path / ".git").write_bytes(b"")
    KIND.close(place, workspace)
    assert leftovers(place) == []


def test_recovery_takes_nothing_that_came_in_the_place_of_a_workspace(repo: RepoKit) -> None:
    place = ground(repo.path)
    workspace = open_one(place)
    with journal.claim(place, JOB) as held:
        held.write(journal.Intent(JOB, workspace.path, "removing"))
    workspace.path.rename(repo.path.with_name("kept"))
    workspace.path.mkdir()
    (workspace.path / "file").write_text("not yours")
    isolation.recover(place)
    assert (workspace.path / "file").read_text() == "not yours"
    assert not place.entries.exists()
    assert [finding.code for finding in isolation.doctor_findings(place)] == ["orphan-workspace"]


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, torn) for name in ("commondir", "gitdir", "HEAD") for torn in (b"", None)] + [("index", b"")],
)
def test_an_entry_of_ours_on_which_git_fails_is_mended_by_the_next_command(
    repo: RepoKit, name: str, content: bytes | None
) -> None:
    place = ground(repo.path)
    workspace = open_one(place)
    assert workspace.git_dir is not None
    (workspace.git_dir / name).unlink()
    if content is not None:
        (workspace.git_dir / name).write_bytes(content)
    found = isolation.recover(place)
    assert [(finding.code, finding.path) for finding in found] == [("worktree-mended", f"{workspace.git_dir / name}")]
    assert place.repo.worktrees()[1].commit == repo.head()
    assert status(workspace) == []
    KIND.close(place, workspace)


Damage = Callable[[Path], object]


def put(name: str, content: bytes) -> Damage:
    return lambda entry: (entry / name).write_bytes(content)


def without(name: str) -> Damage:
    return lambda entry: (entry / name).unlink()


def special(name: str, make: Callable[[Path], None]) -> Damage:
    def replace(entry: Path) -> None:
        (entry / name).unlink()
        make(entry / name)

    return replace


def only(**contents: bytes) -> Damage:
    def empty(entry: Path) -> None:
        shutil.rmtree(entry)
        entry.mkdir()
        for name, content in contents.items():
            (entry / name).write_bytes(content)

    return empty


DAMAGES: dict[str, Damage] = {
    "commondir empty": put("commondir", b""),
    "commondir missing": without("commondir"),
    "commondir elsewhere": put("commondir", b"/nowhere\n"),
    "HEAD empty": put("HEAD", b""),
    "HEAD missing": without("HEAD"),
    "HEAD garbage": put("HEAD", b"\xffgarbage\n"),
    "HEAD of a missing commit": put("HEAD", b"1" * 40 + b"\n"),
    "HEAD a pipe": special("HEAD", os.mkfifo),
    "gitdir empty": put("gitdir", b""),
    "gitdir missing": without("gitdir"),
    "index empty": put("index", b""),
    "index garbage": put("index", b"garbage that is no index"),
    "index a directory": special("index", Path.mkdir),
    "empty directory": only(),
    "only locked": only(locked=b"initializing"),
    "entry gone": shutil.rmtree,
    "index.lock": put("index.lock", b""),
    "HEAD.lock": put("HEAD.lock", b""),
}


def stats(directory: Path) -> list[tuple[object, ...]]:
    found = ((path, path.lstat()) for path in directory.rglob("*"))
    return sorted((path, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns) for path, info in found)


HARMLESS_IN_OTHERS = {"entry gone", "index.lock", "HEAD.lock"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_doctor_names_damage_mends_ours_and_leaves_others_alone(repo: RepoKit, tmp_path: Path, damage: str) -> None:
    place = ground(repo.path)
    workspace = open_one(place)
    repo.git("worktree", "add", "-q", "--detach", tmp_path / "foreign")
    assert workspace.git_dir is not None
    foreign = place.entries / "foreign"
    DAMAGES[damage](workspace.git_dir)
    found = isolation.doctor_findings(place)
    assert found
    assert all((finding.path or "").startswith(os.fspath(workspace.git_dir)) for finding in found)
    assert isolation.doctor_findings(place, fix=True) == found
    assert isolation.doctor_findings(place) == []
    repo.git("worktree", "list")
    repo.git("gc", "--quiet")
    assert status(workspace) == []
    if damage not in HARMLESS_IN_OTHERS:
        DAMAGES[damage](foreign)
        before = stats(foreign)
        found = isolation.doctor_findings(place, fix=True)
        assert found == []
        found = isolation.doctor_findings(place)
        assert {finding.code for finding in found} == {"foreign-worktree-damaged"}
        isolation.recover(place)
        assert stats(foreign) == before
        shutil.rmtree(foreign)
    KIND.close(place, workspace)


def test_locks_of_a_worker_that_runs_are_no_damage(repo: RepoKit) -> None:
    place = ground(repo.path)
    workspace = open_one(place)
    assert workspace.git_dir is not None
    (workspace.git_dir / "index.lock").touch()
    assert isolation.doctor_findings(place, fix=True, running={JOB}) == []
    assert (workspace.git_dir / "index.lock").exists()
    KIND.close(place, workspace)


# ----------------------------------------------------------------------------------------------------- what else hangs
def test_commits_that_would_die_with_the_workspace(repo: RepoKit) -> None:
    place = ground(repo.path)
    workspace = open_one(place)
    assert workspace.git_dir is not None
    assert isolation.commits_only_here(place, workspace) == []

    def commit(message: str) -> str:
        git(workspace.path, "commit", "-q", "--allow-empty", "-m", message)
        return git(workspace.path, "rev-parse", "HEAD")

    commit("one")
    thrown_away = commit("two")
    git(workspace.path, "reset", "-q", "--hard", "HEAD~2")
    named = commit("kept by a ref of the worktree alone")
    git(workspace.path, "update-ref", "refs/worktree/mine", named)
    git(workspace.path, "reset", "-q", "--hard", "HEAD~1")
    shutil.rmtree(workspace.git_dir / "logs")
    (workspace.git_dir / "logs").mkdir()
    (workspace.git_dir / "logs/HEAD").write_text(f"{'0' * 40} {thrown_away} A <a@b> 1 +0000\tx\n")
    git(workspace.path, "checkout", "-q", "-b", "shared")
    commit("a branch is everybody's")
    (workspace.git_dir / "ORIG_HEAD").unlink(missing_ok=True)
    os.mkfifo(workspace.git_dir / "ORIG_HEAD")
    (workspace.git_dir / "junk").write_bytes(b"\xff" * 50 + b"0" * 40 + b"\n" + repo.tree()[b"README.md"][1].encode())
    assert set(isolation.commits_only_here(place, workspace)) == {thrown_away, named}
    KIND.close(place, workspace)


def test_a_pin_holds_a_commit_against_gc_and_moves_for_nobody(repo: RepoKit) -> None:
    place = ground(repo.path)
    first = Oid(repo.head())
    second = Oid(repo.commit("second"))
    repo.git("reset", "-q", "--hard", first)
    isolation.pin(place, "refs/wt/flow/base", second)
    isolation.pin(place, "refs/wt/flow/base", second)
    with pytest.raises(Refused, match="already holds"):
        isolation.pin(place, "refs/wt/flow/base", first)
    with pytest.raises(GitFailed):
        isolation.pin(place, "refs/wt/flow/other", Oid("1" * 40))
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--quiet", "--prune=now")
    assert repo.head("refs/wt/flow/base") == second
    assert not (repo.path / ".git/logs/refs/wt").exists()


# -------------------------------------------------------------------------------------------------------------- places
def test_workspaces_lie_beside_the_repository_and_never_in_temporary_directories(
    repo: RepoKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(os.environ["XDG_STATE_HOME"])
    root = ground(repo.path).root
    assert root.parent == home / "wt"
    assert root.name.startswith("repo-")
    assert ground(linked(repo, tmp_path)).root == root
    monkeypatch.setattr(sys.modules["worktrees.isolation.place"], "_is_temporary", lambda _: False)
    assert ground(repo.path).root == tmp_path / "repo.worktrees"
    assert ground(submodule(repo, tmp_path)).root.parent == home / "wt"


def test_a_configured_directory_is_shared_by_many_repositories(
    make_repo: Callable[[str], RepoKit], tmp_path: Path
) -> None:
    one, two = (ground(make_repo(f"{name}/same").path, worktrees_directory="../../trees") for name in ("a", "b"))
    assert one.root.parent == two.root.parent == tmp_path / "trees"
    assert one.root != two.root
    workspace = open_one(one)
    assert isolation.discover_boss(workspace.path)[0] == one.repo
    KIND.close(one, workspace)
    for inside in (".trees", ".git/trees", "."):
        with pytest.raises(Usage, match="inside the repository"):
            ground(tmp_path / "a/same", worktrees_directory=inside)


def test_the_boss_is_found_from_inside_a_workspace_whatever_the_worker_put_there(
    make_repo: Callable[[str], RepoKit], repo: RepoKit
) -> None:
    place = ground(repo.path)
    workspace = open_one(place)
    evil = make_repo("evil")
    inner = workspace.path / "src" / "deep"
    inner.mkdir()
    (workspace.path / ".git").unlink()
    shutil.copytree(evil.path / ".git", workspace.path / ".git")
    (workspace.path / "src/.wt.json").write_text(
        json.dumps({"commonDir": f"{evil.path}/.git", "workTree": f"{evil.path}"})
    )
    assert isolation.discover_boss(inner) == (place.repo, JOB)
    assert isolation.discover_boss(place.root) == (place.repo, None)
    assert isolation.discover_boss(repo.path / "src") == (place.repo, None)
    KIND.close(place, workspace)


def test_a_marker_that_leads_nowhere_is_told(repo: RepoKit) -> None:
    place = ground(repo.path)
    workspace = open_one(place)
    moved = repo.path.rename(repo.path.with_name("elsewhere"))
    with pytest.raises(Refused, match="cannot be used") as caught:
        isolation.discover_boss(workspace.path)
    assert caught.value.code == "not-a-repository"
    moved.rename(repo.path)
    marker = place.root / ".wt.json"
    content = marker.read_bytes()
    for broken in (b"", b"[]", b'{"commonDir": 1}'):
        marker.write_bytes(broken)
        with pytest.raises(StateBroken, match="damaged"):
            isolation.discover_boss(workspace.path)
    other = json.loads(content) | {"commonDir": "/elsewhere/.git"}
    marker.write_text(json.dumps(other))
    with pytest.raises(Refused, match="not the repository"):
        isolation.discover_boss(workspace.path)
    marker.write_bytes(content)
    KIND.close(place, workspace)


def test_a_marker_of_somebody_else_counts_for_nothing(repo: RepoKit, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away takes root")
    marker = tmp_path / ".wt.json"
    marker.write_text('{"commonDir": "/evil/.git", "workTree": "/evil"}')
    os.chown(marker, 65534, 65534)
    nested = tmp_path / "j-aaaaaaaa"
    repo.path.rename(nested)
    assert isolation.discover_boss(nested)[1] is None
    nested.rename(repo.path)


def test_worker_identity_needs_no_process_but_git(repo: RepoKit) -> None:
    """Finding the boss from a workspace runs git once, in the boss's tree."""
    place = ground(repo.path)
    workspace = open_one(place)
    script = (
        "import sys, os; from pathlib import Path; from worktrees import isolation\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, args: seen.append(str(args[2])) if event == 'subprocess.Popen' else None)\n"
        "isolation.discover_boss(Path(sys.argv[1]))\n"
        "print(seen)\n"
    )
    command = [sys.executable, "-c", script, os.fspath(workspace.path)]
    out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert out.strip() == str(["None", os.fspath(repo.path)])  # its version, and where the boss is
    KIND.close(place, workspace)
