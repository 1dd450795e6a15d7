"""Rollback: everything as it was when the workflow began, and everything thrown away back by undo."""

from pathlib import Path

import pytest

from tests.kit import RepoKit
from tests.merging import Desk, tree_files
from worktrees.errors import GitFailed, Refused
from worktrees.landing import checkpoint, landed, operations, rollback, undo
from worktrees.model import OperationId


@pytest.fixture
def desk(repo: RepoKit) -> Desk:
    return Desk(repo)


def state(kit: RepoKit) -> tuple[object, ...]:
    """Branch, index and files."""
    return kit.head(), kit.git("ls-files", "-s"), kit.git("status", "--porcelain=v2"), tree_files(kit.path)


def soil(kit: RepoKit, word: str) -> None:
    """Every kind of uncommitted work."""
    kit.write("README.md", f"edited {word}\n")
    kit.write("src/util.py", f"staged {word}\n")
    kit.git("add", "src/util.py")
    kit.write("src/util.py", f"staged {word}, then edited\n")
    kit.write("src/added.py", f"added {word}\n")
    kit.git("add", "src/added.py")
    kit.git("rm", "--quiet", "--cached", "tool.sh")
    kit.write("untracked dir/\u00fcntracked", f"untracked {word}\n")
    (kit.path / f"link {word}").symlink_to("nowhere")
    (kit.path / "data.bin").unlink(missing_ok=True)


def test_a_dirty_checkout_comes_back_exactly(desk: Desk) -> None:
    kit = desk.kit
    kit.write("kept.log", "ignored\n")
    soil(kit, "first")
    recorded = state(kit)
    workflow = desk.workflow()
    assert state(kit) == recorded
    operation = desk.land([desk.job({"docs/guide.md": "merged\n", "src/new.py": "new\n"})])
    kit.git("add", "--all")
    kit.git("commit", "--quiet", "-m", "more")
    soil(kit, "second")
    kit.write("kept.log", "ignored, and edited\n")
    late = state(kit)
    rolled = rollback(desk.place, workflow)
    assert state(kit) == (*recorded[:3], {**recorded[3], "kept.log": b"ignored, and edited\n"})  # type: ignore[dict-item]
    assert rolled.jobs == operation.jobs
    assert landed(operations(desk.place.state)) == {}
    kit.git("reflog", "expire", "--expire=now", "--all")
    kit.git("gc", "--quiet", "--prune=now")
    undo(desk.place)
    assert state(kit) == late
    assert list(landed(operations(desk.place.state))) == operation.jobs
    kit.git("reflog", "expire", "--expire=now", "--all")
    kit.git("gc", "--quiet", "--prune=now")
    undo(desk.place)
    assert state(kit)[:3] == recorded[:3]
    assert not list(desk.place.state.operations.glob("*.lock"))


def test_a_clean_checkout_comes_back(desk: Desk) -> None:
    kit = desk.kit
    workflow = desk.workflow()
    recorded = state(kit)
    desk.land([desk.job({"docs/guide.md": None, "src/new.py": "new\n"})])
    rollback(desk.place, workflow)
    assert state(kit) == recorded
    again = rollback(desk.place, workflow)
    assert (again.before, again.after, again.state) == (recorded[0], recorded[0], "done")
    assert state(kit) == recorded


def test_files_alone_go_back_where_the_branch_did_not_move(desk: Desk) -> None:
    kit = desk.kit
    workflow = desk.workflow()
    recorded = state(kit)
    soil(kit, "late")
    late = state(kit)
    rollback(desk.place, workflow)
    assert state(kit) == recorded
    undo(desk.place)
    assert state(kit) == late


def test_undo_of_a_rollback_keeps_later_edits_and_refuses_where_they_clash(desk: Desk) -> None:
    kit = desk.kit
    workflow = desk.workflow()
    soil(kit, "thrown away")
    rollback(desk.place, workflow)
    kit.write("docs/guide.md", "later\n")
    kit.write("later", "later\n")
    kit.write("README.md", "clash\n")
    kit.write("untracked dir/\u00fcntracked", "clash\n")
    before = state(kit)
    with pytest.raises(Refused) as refused:
        undo(desk.place)
    assert refused.value.code == "would-overwrite"
    assert refused.value.details["paths"] == ["README.md", "untracked dir/\u00fcntracked"]
    assert state(kit) == before
    kit.git("checkout", "--quiet", "README.md")
    (kit.path / "untracked dir/\u00fcntracked").unlink()
    undo(desk.place)
    assert kit.read("docs/guide.md") == b"later\n"
    assert kit.read("later") == b"later\n"
    assert kit.read("README.md") == b"edited thrown away\n"
    kit.write("src/util.py", "staged later\n")
    kit.git("add", "src/util.py")
    before = state(kit)
    with pytest.raises(Refused) as refused:
        undo(desk.place)
    assert "src/util.py" in refused.value.details["paths"]
    assert state(kit) == before


def test_ignored_files_are_spared_whoever_ignores_them(desk: Desk) -> None:
    kit = desk.kit
    (kit.path / ".git/info/exclude").write_text("private\n")
    kit.write("private", "by info/exclude\n")
    kit.write("old.log", "ignored at the start, not now\n")
    kit.write("build/out/file", "in an ignored directory\n")
    workflow = desk.workflow()
    desk.land([desk.job({".gitignore": "*.new\n"})])
    kit.write("a.new", "ignored now\n")
    kit.write("b.txt", "untracked\n")
    rollback(desk.place, workflow)
    files = tree_files(kit.path)
    assert files["private"] == b"by info/exclude\n"
    assert files["old.log"] == b"ignored at the start, not now\n"
    assert files["build/out/file"] == b"in an ignored directory\n"
    assert files["a.new"] == b"ignored now\n"
    assert "b.txt" not in files
    undo(desk.place)
    assert tree_files(kit.path) == {**files, "b.txt": b"untracked\n", ".gitignore": b"*.new\n"}


def test_an_ignored_file_in_the_way_is_named(desk: Desk) -> None:
    kit = desk.kit
    workflow = desk.workflow()
    desk.land([desk.job({"data.bin": None, ".gitignore": "*.log\nbuild/\n*.bin\n"})])
    kit.write("data.bin", "mine, and ignored\n")
    before = state(kit)
    with pytest.raises(Refused) as refused:
        rollback(desk.place, workflow)
    assert refused.value.details["paths"] == ["data.bin"]
    assert state(kit) == before
    assert [each.kind for each in operations(desk.place.state)] == ["merge"]


def test_a_repository_inside_is_neither_recorded_nor_removed(desk: Desk) -> None:
    kit = desk.kit
    workflow = desk.workflow()
    for name in ("with-commit", "without"):
        inner = RepoKit.make(kit.path / name) if name == "with-commit" else RepoKit(kit.path / name)
        if name == "without":
            inner.path.mkdir()
            inner.git("init", "--quiet")
        inner.write("mine", "mine\n")
    soil(kit, "late")
    rollback(desk.place, workflow)
    assert kit.read("with-commit/mine") == b"mine\n"
    assert kit.read("without/mine") == b"mine\n"
    assert kit.git("status", "--porcelain") == b"?? with-commit/\n?? without/\n"


def test_to_an_operation(desk: Desk) -> None:
    kit = desk.kit
    workflow = desk.workflow()
    one = desk.land([desk.job({"one": "1\n"})])
    after_one = state(kit)
    two = desk.land([desk.job({"two": "2\n"})])
    kit.write("three", "3\n")
    kit.commit("three")
    kit.write("README.md", "dirty\n")
    rolled = rollback(desk.place, workflow, one.operation_id)
    assert state(kit) == after_one
    assert rolled.jobs == two.jobs
    undo(desk.place)
    assert kit.git("status", "--porcelain") == b" M README.md\n"
    assert kit.read("three") == b"3\n"
    with pytest.raises(Refused):
        rollback(desk.place, workflow, OperationId("op-000077"))


def test_the_branch_of_the_workflow_is_rolled_back_wherever_it_is(desk: Desk, tmp_path: Path) -> None:
    kit = desk.kit
    workflow = desk.workflow()
    desk.land([desk.job({"one": "1\n"})])
    kit.git("switch", "--quiet", "-c", "other")
    with pytest.raises(Refused) as refused:
        rollback(desk.place, workflow)
    assert refused.value.code == "not-checked-out"
    there = tmp_path / "there"
    kit.git("worktree", "add", "--quiet", there, "main")
    (there / "late").write_text("late\n")
    files = tree_files(kit.path)
    rollback(desk.place, workflow)
    assert kit.head("main") == workflow.baseline.commit
    assert not (there / "late").exists()
    assert tree_files(kit.path) == files
    undo(desk.place)
    assert (there / "late").read_text() == "late\n"
    kit.git("worktree", "remove", "--force", there)
    with pytest.raises(Refused) as refused:
        undo(desk.place)
    assert refused.value.code == "not-checked-out"


def test_a_file_that_cannot_be_read_stops_the_rollback(desk: Desk) -> None:
    kit = desk.kit
    workflow = desk.workflow()
    kit.write(".gitattributes", "*.locked filter=locked\n")
    kit.git("config", "filter.locked.clean", "false")
    kit.git("config", "filter.locked.required", "true")
    kit.write("a.locked", "cannot be read\n")
    before = state(kit)
    with pytest.raises(GitFailed):
        rollback(desk.place, workflow)
    assert state(kit) == before
    assert not (kit.path / ".git/index.lock").exists()


def test_rollback_in_a_sparse_checkout(desk: Desk) -> None:
    kit = desk.kit
    kit.git("sparse-checkout", "set", "--cone", "docs")
    workflow = desk.workflow()
    desk.land([desk.job({"src/app.py": "merged\n", "docs/more.md": "more\n"})])
    kit.write("src/mine.txt", "untracked outside the cone\n")
    kit.write("docs/mine.txt", "untracked\n")
    rollback(desk.place, workflow)
    assert kit.text("status", "--porcelain") == ""
    assert sorted(tree_files(kit.path)) == [".gitignore", "README.md", "data.bin", "docs/guide.md", "tool.sh"]
    undo(desk.place)
    assert kit.read("src/mine.txt") == b"untracked outside the cone\n"
    assert kit.git("status", "--porcelain") == b"?? docs/mine.txt\n?? src/mine.txt\n"
    kit.git("sparse-checkout", "disable")
    assert kit.read("src/app.py") == b"merged\n"


def test_a_checkpoint_leaves_no_trace(desk: Desk) -> None:
    kit = desk.kit
    clean = kit.fingerprint()
    commit = checkpoint(desk.store, desk.place.repo, "clean", ref="refs/wt/w/boss")
    assert kit.fingerprint() == clean
    assert desk.tree_of(commit) == kit.text("rev-parse", "HEAD^{tree}")
    soil(kit, "now")
    dirty = kit.fingerprint()
    commit = checkpoint(desk.store, desk.place.repo, "dirty", ref="refs/wt/w/boss")
    assert kit.fingerprint() == dirty
    assert desk.read(commit, "src/util.py") == b"staged now, then edited\n"
    assert desk.store.git("show", f"{commit}^2:src/util.py").stdout == b"staged now\n"
    assert desk.store.ref("refs/wt/w/boss") == commit


def test_a_checkpoint_of_an_unborn_branch(desk: Desk) -> None:
    kit = desk.kit
    kit.git("switch", "--quiet", "--orphan", "fresh")
    kit.write("first", "first\n")
    commit = checkpoint(desk.store, desk.place.repo, "unborn")
    assert desk.read(commit, "first") == b"first\n"
    kit.git("switch", "--quiet", "main")  # fsck of git 2.39 misses the empty tree on an orphan branch
