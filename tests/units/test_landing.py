"""Landing, rollback, undo: wholly before or wholly after, and nothing of the user's lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit import Gate, RepoKit
from tests.merging import Desk, tree_files
from worktrees.errors import Busy, GitFailed, NotFound, Refused
from worktrees.git import discover
from worktrees.isolation import Place
from worktrees.landing import (
    checkout,
    find_target,
    land,
    landed,
    log,
    operations,
    record,
    recover,
    rollback,
    turn,
    undo,
)
from worktrees.model import Operation, OperationId
from worktrees.store import State, now


@pytest.fixture
def desk(repo: RepoKit) -> Desk:
    return Desk(repo)


def untouched(kit: RepoKit) -> dict[str, tuple[object, ...]]:
    return kit.fingerprint()


# -------------------------------------------------------------------------------------------------------------- landing
def test_land_moves_branch_index_and_files(desk: Desk) -> None:
    kit = desk.kit
    kit.write("notes.txt", "untracked\n")
    job = desk.job({"src/new.py": "new\n", "README.md": "changed\n", "docs/guide.md": None}, name="one")
    before = kit.head()
    operation = desk.land([job])
    assert operation.state == "done"
    assert kit.head() == operation.after
    assert kit.text("status", "--porcelain") == "?? notes.txt"
    assert kit.read("src/new.py") == b"new\n"
    assert not (kit.path / "docs").exists()
    assert kit.text("reflog", "-1", "--format=%gs") == "wt merge: one (op-000001)"
    assert kit.text("reflog", "-1", "--format=%gs", "main") == "wt merge: one (op-000001)"
    assert kit.head("main@{1}") == before
    assert not (kit.path / ".git/index.lock").exists()
    assert [each.name for each in desk.place.state.operations.iterdir()] == ["000001.json"]
    assert not list((kit.path / ".git/objects/pack").glob("*.keep"))


def test_a_pack_kept_for_a_landing_that_a_power_cut_ended_is_let_go(desk: Desk) -> None:
    """Git does not sync what it notes beside a pack, so the note may be empty; and so may be one of the user's own."""
    kit = desk.kit
    kit.git("repack", "-adq")
    (pack,) = (kit.path / ".git/objects/pack").glob("*.pack")
    keep = pack.with_suffix(".keep")
    keep.touch()
    turn._forget_packs(desk.place)
    turn._forget_packs(desk.place, cut_since=keep.stat().st_mtime + 1)
    turn._forget_packs(desk.place, cut_since=pack.stat().st_mtime + 0.001)
    assert keep.exists()
    turn._forget_packs(desk.place, cut_since=pack.stat().st_mtime)
    assert not keep.exists()


def test_land_changes_nothing_else_of_the_repository(desk: Desk) -> None:
    kit = desk.kit
    kit.write("src/util.py", "stashed\n")
    kit.git("stash")
    before = kit.fingerprint()
    desk.land([desk.job({"src/new.py": "new\n"})])
    after = kit.fingerprint()
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {
        "file:src/new.py", "git:index", "git:logs/HEAD", "git:logs/refs/heads/main", "git:refs/heads/main",
        "ref:refs/heads/main",
    }  # fmt: skip


def test_edits_the_merge_does_not_touch_stay_as_they_are(desk: Desk) -> None:
    kit = desk.kit
    kit.write("src/util.py", "edited\n")
    kit.write("src/staged.py", "staged\n")
    kit.git("add", "src/staged.py")
    kit.write("src/staged.py", "staged, then edited\n")
    kit.git("rm", "--quiet", "--cached", "tool.sh")
    kit.write("notes.txt", "untracked\n")
    status = kit.git("status", "--porcelain=v2")
    files = tree_files(kit.path)
    desk.land([desk.job({"README.md": "merged\n", "src/new.py": "new\n"})])
    assert kit.git("status", "--porcelain=v2") == status
    assert tree_files(kit.path) == {**files, "README.md": b"merged\n", "src/new.py": b"new\n"}


def dirty_tracked(kit: RepoKit) -> None:
    kit.write("README.md", "mine\n")


def dirty_same_size(kit: RepoKit) -> None:
    kit.write("README.md", kit.read("README.md").replace(b"sample", b"SAMPLE"))


def dirty_deleted(kit: RepoKit) -> None:
    (kit.path / "README.md").unlink()


def dirty_staged(kit: RepoKit) -> None:
    kit.write("README.md", "mine\n")
    kit.git("add", "README.md")


def dirty_removed_from_index(kit: RepoKit) -> None:
    kit.git("rm", "--quiet", "--cached", "README.md")


def dirty_mode(kit: RepoKit) -> None:
    (kit.path / "README.md").chmod(0o755)


def dirty_type(kit: RepoKit) -> None:
    (kit.path / "README.md").unlink()
    (kit.path / "README.md").symlink_to("data.bin")


def dirty_hidden(kit: RepoKit) -> None:
    kit.git("update-index", "--assume-unchanged", "README.md")
    kit.write("README.md", "mine\n")


def dirty_skipped(kit: RepoKit) -> None:
    kit.git("update-index", "--skip-worktree", "README.md")
    kit.write("README.md", "mine\n")


@pytest.mark.parametrize(
    "dirty",
    [
        dirty_tracked, dirty_same_size, dirty_deleted, dirty_staged, dirty_removed_from_index, dirty_mode, dirty_type,
        dirty_hidden, dirty_skipped,
    ],
)  # fmt: skip
@pytest.mark.parametrize("edit", ["merged\n", None])
def test_a_dirty_file_in_the_way_is_named_and_nothing_changes(
    desk: Desk, dirty: Callable[[RepoKit], None], edit: str | None
) -> None:
    job = desk.job({"README.md": edit, "src/new.py": "new\n"})
    dirty(desk.kit)
    before = untouched(desk.kit)
    with pytest.raises(Refused) as refused:
        desk.land([job])
    assert refused.value.code == "would-overwrite"
    assert refused.value.details["paths"] == ["README.md"]
    assert untouched(desk.kit) == before
    assert operations(desk.place.state) == []
    assert list(desk.place.state.operations.iterdir()) == []


def test_every_path_in_the_way_is_named(desk: Desk) -> None:
    kit = desk.kit
    new = {f"new/{name}.txt": "new\n" for name in "abc"} | {
        "x.log": "new\n",
        "build/out": "new\n",
        "link/file": "new\n",
    }
    job = desk.job({**new, "README.md": "new\n", "src/app.py": None})
    kit.write("README.md", "mine\n")
    kit.write("src/app.py", "mine\n")
    kit.git("add", "src/app.py")
    kit.write("new/b.txt", "untracked\n")
    kit.write("x.log", "ignored\n")
    kit.write("build/out/deep/file", "ignored\n")
    (kit.path / "link").symlink_to("src")
    before = untouched(kit)
    with pytest.raises(Refused) as refused:
        desk.land([job])
    assert refused.value.details["paths"] == [
        "README.md", "build/out/deep/file", "link", "new/b.txt", "src/app.py", "x.log",
    ]  # fmt: skip
    assert "and 3 more" in refused.value.message
    assert untouched(kit) == before


def test_the_same_edit_of_the_bosss_own_is_in_the_way_of_a_merge_and_not_of_an_undo(desk: Desk) -> None:
    kit = desk.kit
    job = desk.job({"README.md": "same\n", "docs/guide.md": None, "new": "new\n"})
    kit.write("README.md", "same\n")
    kit.git("add", "README.md")
    kit.git("rm", "--quiet", "--cached", "docs/guide.md")
    with pytest.raises(Refused) as refused:
        desk.land([job])
    assert refused.value.details["paths"] == ["README.md", "docs/guide.md"]
    kit.git("reset", "--quiet", "--hard")
    before = kit.read("README.md")
    desk.land([job])
    kit.write("README.md", before)
    kit.git("add", "README.md")
    kit.write("README.md", before + b"and more\n")
    undo(desk.place)
    assert kit.read("README.md") == before + b"and more\n"
    assert kit.git("status", "--porcelain") == b" M README.md\n"


def test_nothing_is_written_through_a_link(desk: Desk, tmp_path: Path) -> None:
    kit = desk.kit
    outside = tmp_path / "outside"
    (kit.path / "src").rename(outside)
    (kit.path / "src").symlink_to(outside)
    held = tree_files(outside)
    for edits in ({"src/util.py": "merged\n"}, {"src/new.py": "new\n"}, {"src/util.py": None}):
        with pytest.raises(Refused) as refused:
            desk.land([desk.job(edits)])
        assert refused.value.code == "would-overwrite"
        assert tree_files(outside) == held


def test_files_and_directories_change_places(desk: Desk) -> None:
    kit = desk.kit
    kit.write("swap", "a file\n")
    (kit.path / "link").symlink_to("src")
    kit.commit("third")
    (kit.path / "emptied").mkdir()
    before = tree_files(kit.path)
    desk.land([
        desk.job({"swap": None, "swap/in": "1\n", "src/app.py": None, "src/util.py": None, "src": "was a directory\n"}),
        desk.job({"link": None, "link/file": "2\n", "emptied": "3\n", "new": ("120000", "README.md")}),
    ])  # fmt: skip
    assert kit.text("status", "--porcelain") == ""
    assert kit.read("swap/in") == b"1\n"
    assert kit.read("src") == b"was a directory\n"
    assert kit.read("link/file") == b"2\n"
    assert (kit.path / "new").readlink() == Path("README.md")
    undo(desk.place)
    assert tree_files(kit.path) == before
    assert kit.text("status", "--porcelain") == ""


def test_an_untracked_file_inside_a_directory_that_becomes_a_file_is_named(desk: Desk) -> None:
    job = desk.job({"src/app.py": None, "src/util.py": None, "src": "a file\n"})
    desk.kit.write("src/mine.log", "ignored\n")
    with pytest.raises(Refused) as refused:
        desk.land([job])
    assert refused.value.details["paths"] == ["src/mine.log"]


def test_modes_and_odd_names(desk: Desk) -> None:
    odd = {b"new\nline": "1\n", b"latin-\xe9": "2\n", b'"quote': "3\n", b"-dash": "4\n", b" space ": "5\n"}
    modes = {"README.md": ("100755", "program\n"), "tool.sh": ("100644", "text\n")}
    desk.land([desk.job(odd), desk.job(modes)])
    kit = desk.kit
    assert kit.text("status", "--porcelain") == ""
    assert (kit.path / os.fsdecode(b"latin-\xe9")).read_bytes() == b"2\n"
    assert os.access(kit.path / "README.md", os.X_OK)
    assert not (kit.path / "tool.sh").stat().st_mode & 0o100


def test_a_path_that_is_not_text_is_named_with_escapes(desk: Desk) -> None:
    job = desk.job({b"latin-\xe9": "new\n"})
    (desk.kit.path / os.fsdecode(b"latin-\xe9")).write_text("mine\n")
    with pytest.raises(Refused) as refused:
        desk.land([job])
    assert refused.value.details["paths"] == ["latin-\\xe9"]


def test_names_that_differ_in_case_only(desk: Desk) -> None:
    kit = desk.kit
    kit.git("config", "core.ignoreCase", "true")
    before = untouched(kit)
    with pytest.raises(Refused) as refused:
        desk.land([desk.job({"new/A": "1\n"}), desk.job({"new/a": "2\n"})])
    assert refused.value.code == "case-collision"
    assert untouched(kit) == before
    desk.land([desk.job({"README.md": None, "readme.md": "renamed\n"})])
    assert kit.read("readme.md") == b"renamed\n"


# ------------------------------------------------------------------------------------------------ whoever else is there
def test_a_branch_that_moved_since_the_plan_is_refused(desk: Desk) -> None:
    kit = desk.kit
    job = desk.job({"src/new.py": "new\n"})
    target = find_target(desk.place.repo)
    plan = desk.plan([job])
    kit.write("late.txt", "late\n")
    kit.commit("late")
    before = untouched(kit)
    with pytest.raises(Refused) as refused:
        land(desk.place, plan, target=target, jobs=[job.job_id], workflow=None)
    assert refused.value.code == "branch-moved"
    with pytest.raises(Refused) as refused:
        land(desk.place, plan, target=find_target(desk.place.repo), jobs=[job.job_id], workflow=None)
    assert refused.value.code == "branch-moved"
    assert untouched(kit) == before
    assert operations(desk.place.state) == []


def test_another_branch_checked_out_since_the_plan_is_refused(desk: Desk) -> None:
    job = desk.job({"src/new.py": "new\n"})
    target = find_target(desk.place.repo)
    plan = desk.plan([job])
    desk.kit.git("switch", "--quiet", "-c", "other")
    with pytest.raises(Refused) as refused:
        land(desk.place, plan, target=target, jobs=[job.job_id], workflow=None)
    assert refused.value.code == "branch-moved"


def test_a_branch_that_moves_at_the_last_moment_is_refused(desk: Desk) -> None:
    """The compare-and-swap itself: everything was looked at, then somebody moved the ref without the index."""
    kit = desk.kit
    job = desk.job({"src/new.py": "new\n"})
    target = find_target(desk.place.repo)
    plan = desk.plan([job])
    elsewhere = kit.text("commit-tree", "-p", "HEAD", "-m", "elsewhere", "HEAD^{tree}")
    # git asks this program for the pack of the landing; it stands for anybody who moves the ref meanwhile.
    real = checkout.check_nothing_lost

    def meanwhile(*args: object, **words: object) -> None:
        real(*args, **words)  # type: ignore[arg-type]
        kit.git("update-ref", "refs/heads/main", elsewhere)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkout, "check_nothing_lost", meanwhile)
        with pytest.raises(Refused) as refused:
            land(desk.place, plan, target=target, jobs=[job.job_id], workflow=None)
    assert refused.value.code == "branch-moved"
    assert kit.head() == elsewhere
    assert kit.text("status", "--porcelain") == ""
    assert [each.state for each in operations(desk.place.state)] == ["aborted"]
    assert not (kit.path / ".git/index.lock").exists()


def test_who_switches_to_a_new_branch_at_the_last_moment_keeps_the_files(desk: Desk) -> None:
    """`git switch -c` asks for no lock on the index. The files would be the merge's, and HEAD where they were."""
    kit = desk.kit
    job = desk.job({"src/new.py": "new\n", "README.md": "merged\n"})
    before, files = kit.head(), tree_files(kit.path)
    real = log.write

    def meanwhile(slot: log.Slot, operation: Operation) -> Operation:
        if operation.state == "prepared":
            kit.git("switch", "--quiet", "-c", "new")
        return real(slot, operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "write", meanwhile)
        with pytest.raises(Refused) as refused:
            desk.land([job])
    assert refused.value.code == "branch-moved"
    assert (kit.head("main"), kit.head("new"), kit.text("symbolic-ref", "HEAD")) == (before, before, "refs/heads/new")
    assert (tree_files(kit.path), kit.text("status", "--porcelain")) == (files, "")
    assert [each.state for each in operations(desk.place.state)] == ["aborted"]


def test_so_does_who_had_switched_when_the_landing_was_killed(desk: Desk) -> None:
    kit = desk.kit
    before, files = kit.head(), tree_files(kit.path)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turn, "_move_files", killed)
        with pytest.raises(KeyboardInterrupt):
            desk.land([desk.job({"src/new.py": "new\n", "README.md": "merged\n"})])
    kit.git("branch", "new", before)
    kit.git("symbolic-ref", "HEAD", "refs/heads/new")
    assert [finding.code for finding in recover(desk.place)] == ["operation-aborted"]
    assert (kit.head("main"), kit.head("new")) == (before, before)
    assert (tree_files(kit.path), kit.text("status", "--porcelain")) == (files, "")


def test_somebody_elses_index_lock_is_named_and_stays(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "INDEX_WAIT_SECONDS", 0.05)
    lock = desk.kit.path / ".git/index.lock"
    lock.write_bytes(b"")
    before = untouched(desk.kit)
    with pytest.raises(Busy) as busy:
        desk.land([desk.job({"src/new.py": "new\n"})])
    assert str(lock) in busy.value.message
    assert untouched(desk.kit) == before
    assert list(desk.place.state.operations.iterdir()) == []


def test_states_that_cannot_be_landed_on(desk: Desk, make_repo: Callable[[str], RepoKit]) -> None:
    kit = desk.kit

    def code(into: str | None = None) -> tuple[str, str | None]:
        with pytest.raises(Refused) as refused:
            find_target(desk.place.repo, into)
        return refused.value.code, refused.value.hint

    assert code("no-such") == ("not-found", "git branch --list")
    kit.git("switch", "--quiet", "--detach")
    assert code()[0] == "detached-head"
    assert find_target(desk.place.repo, "main").repo is None
    kit.git("switch", "--quiet", "--orphan", "fresh")
    assert code()[0] == "unborn-branch"
    kit.git("switch", "--quiet", "main")
    kit.git("switch", "--quiet", "-c", "side", "HEAD~1")
    kit.write("README.md", "side\n")
    kit.commit("side")
    kit.git("switch", "--quiet", "main")
    kit.write("README.md", "main\n")
    kit.commit("main")
    kit.git("merge", "side", check=False)
    assert code() == ("operation-in-progress", "finish it, or: git merge --abort")
    assert code("main")[0] == "operation-in-progress"
    kit.git("merge", "--abort")
    kit.git("rebase", "side", check=False)
    assert code() == ("operation-in-progress", "finish it, or: git rebase --abort")
    assert code("main")[0] == "operation-in-progress"
    kit.git("rebase", "--abort")


def test_an_index_with_conflicts_is_refused(desk: Desk) -> None:
    kit = desk.kit
    job = desk.job({"src/new.py": "new\n"})
    blob = kit.text("rev-parse", "HEAD:README.md")
    kit.git("update-index", "--force-remove", "README.md")
    kit.git("update-index", "--index-info", input=f"100644 {blob} 2\tREADME.md\n100644 {blob} 3\tREADME.md\n")
    before = untouched(kit)
    with pytest.raises(Refused) as refused:
        desk.land([job])
    assert refused.value.code == "operation-in-progress"
    with pytest.raises(Refused) as refused:
        desk.workflow()
    assert refused.value.code == "operation-in-progress"
    assert untouched(kit) == before


# --------------------------------------------------------------------------------------------------------- other places
def test_into_a_branch_nobody_has_checked_out(desk: Desk) -> None:
    kit = desk.kit
    kit.git("branch", "release")
    files, index = tree_files(kit.path), kit.read(".git/index")
    operation = desk.land([desk.job({"src/new.py": "new\n"})], into="release")
    assert (kit.head("release"), operation.worktree) == (operation.after, None)
    assert (tree_files(kit.path), kit.read(".git/index")) == (files, index)
    undo(desk.place)
    assert kit.head("release") == operation.before
    with pytest.raises(Refused) as refused:
        desk.land([desk.job({"src/new.py": "new\n"})], into="release", no_commit=True)
    assert refused.value.code == "not-checked-out"


def test_into_a_branch_another_worktree_has_checked_out(desk: Desk, tmp_path: Path) -> None:
    kit = desk.kit
    there = tmp_path / "there"
    kit.git("worktree", "add", "--quiet", "-b", "release", there)
    files, index = tree_files(kit.path), kit.read(".git/index")
    (there / "notes").write_text("mine\n")
    operation = desk.land([desk.job({"src/new.py": "new\n", "README.md": None})], into="release")
    assert operation.worktree == str(there)
    assert (tree_files(kit.path), kit.read(".git/index")) == (files, index)
    assert (there / "src/new.py").read_text() == "new\n"
    assert kit.git("-C", there, "status", "--porcelain") == b"?? notes\n"
    assert kit.text("-C", there, "reflog", "-1", "--format=%gs", "HEAD").startswith("wt merge:")
    (there / "notes2").write_text("mine\n")
    job = desk.job({"notes2": "theirs\n"}, base="release")
    with pytest.raises(Refused) as refused:
        desk.land([job], into="release")
    assert refused.value.details["paths"] == ["notes2"]
    undo(desk.place)
    assert kit.git("-C", there, "status", "--porcelain") == b"?? notes\n?? notes2\n"


def test_into_another_name_of_a_branch(desk: Desk) -> None:
    """A symbolic branch stays one, and the checkout of the branch it names comes along."""
    kit = desk.kit
    kit.git("symbolic-ref", "refs/heads/old", "refs/heads/main")
    operation = desk.land([desk.job({"src/new.py": "new\n"})], into="old")
    assert (operation.branch, kit.head()) == ("main", operation.after)
    assert kit.text("symbolic-ref", "refs/heads/old") == "refs/heads/main"
    assert kit.text("status", "--porcelain") == ""


@pytest.mark.parametrize("locked", [True, False])
def test_a_branch_whose_worktree_is_away_does_not_move_under_it(desk: Desk, tmp_path: Path, locked: bool) -> None:
    """As git refuses to fetch into it: the work tree may come back, with the files and the index it had."""
    kit, there = desk.kit, tmp_path / "portable"
    kit.git("worktree", "add", "--quiet", "-b", "portable", there)
    if locked:
        kit.git("worktree", "lock", there)
    before = untouched(kit)
    there.rename(tmp_path / "away")
    with pytest.raises(Refused) as refused:
        desk.land([desk.job({"src/new.py": "new\n"})], into="portable")
    assert refused.value.code == "not-checked-out"
    (tmp_path / "away").rename(there)
    assert untouched(kit) == before
    assert kit.git("-C", there, "status", "--porcelain") == b""
    there.rename(tmp_path / "away")
    kit.git(*(refused.value.hint or "").partition(": git ")[2].split())
    assert desk.land([desk.job({"src/new.py": "new\n"})], into="portable").worktree is None


def test_recovery_ends_though_the_worktree_went_meanwhile(desk: Desk, tmp_path: Path) -> None:
    kit, there = desk.kit, tmp_path / "other"
    kit.git("worktree", "add", "--quiet", "-b", "other", there)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkout, "switch", killed)
        with pytest.raises(KeyboardInterrupt):
            desk.land([desk.job({"src/new.py": "new\n"})], into="other")
    shutil.rmtree(there)
    assert [finding.code for finding in recover(desk.place)] == ["operation-finished"]
    assert [operation.state for operation in operations(desk.place.state)] == ["done"]
    assert kit.git("show", "other:src/new.py") == b"new\n"


def test_without_a_commit(desk: Desk) -> None:
    kit = desk.kit
    before, files = kit.head(), tree_files(kit.path)
    kit.write("tool.sh", "mine\n")
    operation = desk.land([desk.job({"src/new.py": "new\n", "README.md": None})], no_commit=True)
    assert (kit.head(), operation.before, operation.after) == (before, before, before)
    assert kit.git("status", "--porcelain") == b"D  README.md\nA  src/new.py\n M tool.sh\n"
    assert not (kit.path / ".git/MERGE_HEAD").exists()
    kit.git("gc", "--quiet", "--prune=now")
    undo(desk.place)
    assert kit.git("status", "--porcelain") == b" M tool.sh\n"
    undo(desk.place)
    assert kit.git("status", "--porcelain") == b"D  README.md\nA  src/new.py\n M tool.sh\n"
    undo(desk.place)
    kit.git("checkout", "--quiet", "tool.sh")
    assert tree_files(kit.path) == files


# --------------------------------------------------------------------------------------------------- kinds of checkouts
def test_sparse_checkout_stays_sparse(desk: Desk) -> None:
    kit = desk.kit
    kit.git("sparse-checkout", "set", "--cone", "docs")
    assert not (kit.path / "src").exists()
    job = desk.job({"src/app.py": "merged\n", "src/new.py": "new\n", "docs/more.md": "more\n"})
    desk.land([job])
    assert not (kit.path / "src").exists()
    assert kit.read("docs/more.md") == b"more\n"
    assert kit.text("status", "--porcelain") == ""
    undo(desk.place)
    assert not (kit.path / "src").exists()
    assert kit.text("status", "--porcelain") == ""
    kit.git("sparse-checkout", "disable")
    assert kit.text("status", "--porcelain") == ""


def test_sparse_and_split_index(desk: Desk) -> None:
    kit = desk.kit
    kit.git("sparse-checkout", "set", "--cone", "--sparse-index", "docs")
    desk.land([desk.job({"src/app.py": "merged\n", "docs/more.md": "more\n"})])
    assert kit.text("status", "--porcelain") == ""
    kit.git("sparse-checkout", "disable")
    kit.git("update-index", "--split-index")
    desk.land([desk.job({"src/app.py": "again\n", "docs/more.md": None})])
    assert kit.read("src/app.py") == b"again\n"
    assert kit.text("status", "--porcelain") == ""
    workflow = desk.workflow()
    kit.write("README.md", "staged\n")
    kit.git("add", "README.md")
    kit.write("README.md", "dirty\n")
    rollback(desk.place, workflow)
    assert kit.text("status", "--porcelain") == ""
    undo(desk.place)
    assert kit.git("status", "--porcelain") == b"MM README.md\n"


def test_submodules_are_moved_in_the_index_alone(desk: Desk) -> None:
    kit = desk.kit
    one, two = kit.head("HEAD~1"), kit.head()
    desk.land([desk.job({"module": ("160000", one)})])
    assert (kit.path / "module").is_dir()
    assert kit.text("status", "--porcelain") == ""
    desk.land([desk.job({"module": ("160000", two)})])
    assert kit.text("rev-parse", "HEAD:module") == two
    assert kit.text("status", "--porcelain") == ""
    desk.land([desk.job({"module": None})])
    assert kit.text("status", "--porcelain") == ""
    kit.write("module/mine", "mine\n")
    with pytest.raises(Refused):
        desk.land([desk.job({"module": "a file\n"})])


def test_recovery_waits_for_the_git_that_outlived_its_command(desk: Desk, gate: Gate, tmp_path: Path) -> None:
    """Only we are killed; the git that writes the checkout goes on, and whoever comes next must not be at it too."""
    kit = desk.kit
    kit.write(".gitattributes", "*.slow filter=slow\n")
    kit.commit("attributes")
    smudge = tmp_path / "smudge"
    smudge.write_text(f"#!/bin/sh\nif mkdir '{tmp_path}/waited' 2>/dev/null; then {gate.shell()}; fi\nexec cat\n")
    smudge.chmod(0o755)
    kit.git("config", "filter.slow.smudge", str(smudge))
    before = kit.head()
    plan = desk.plan([desk.job({"README.md": "merged\n", "a.slow": "slow\n", "zzz": "new\n"})])
    (tmp_path / "plan.json").write_text(json.dumps(plan.dump()))
    words = [sys.executable, "-m", "tests.landing_driver", str(kit.path), "land", str(tmp_path / "plan.json")]
    lander = subprocess.Popen(words, cwd=Path(__file__).parents[2])
    gate.wait_arrivals(1)
    lander.kill()
    lander.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "LOCK_TIMEOUT_SECONDS", 0.1)
        with pytest.raises(Busy, match="git processes of `op-000001`, which was killed, are still at work"):
            recover(desk.place)

    gate.release()
    assert [finding.code for finding in recover(desk.place)] == ["operation-finished"]
    assert (kit.head(), kit.text("status", "--porcelain")) == (plan.after, "")
    assert (kit.read("a.slow"), kit.read("zzz")) == (b"slow\n", b"new\n")
    undo(desk.place)
    assert (kit.head(), kit.text("status", "--porcelain")) == (before, "")


def test_line_ends_and_filters_are_gits(desk: Desk) -> None:
    kit = desk.kit
    kit.git("config", "filter.upper.smudge", "tr a-z A-Z")
    kit.git("config", "filter.upper.clean", "tr A-Z a-z")
    kit.write(".gitattributes", "*.up filter=upper\n*.dos text eol=crlf\n")
    kit.write("a.up", "abc\n")
    kit.write("a.dos", "1\r\n")
    kit.commit("attributes")
    desk.land([desk.job({"a.up": "def\n", "b.up": "ghi\n", "a.dos": "2\n"})])
    assert (kit.read("a.up"), kit.read("b.up"), kit.read("a.dos")) == (b"DEF\n", b"GHI\n", b"2\r\n")
    assert kit.text("status", "--porcelain") == ""


def test_a_filter_that_fails_puts_everything_back(desk: Desk) -> None:
    kit = desk.kit
    kit.write(".gitattributes", "*.big filter=big\n")
    kit.commit("attributes")
    kit.git("config", "filter.big.smudge", "false")
    kit.git("config", "filter.big.clean", "cat")
    kit.git("config", "filter.big.required", "true")
    kit.write("src/util.py", "dirty\n")
    before, files = kit.head(), tree_files(kit.path)
    job = desk.job({"README.md": "merged\n", "zzz.big": "content\n", "docs/guide.md": None, "aaa": "new\n"})
    with pytest.raises(GitFailed):
        desk.land([job])
    assert (kit.head(), tree_files(kit.path)) == (before, files)
    assert kit.git("status", "--porcelain") == b" M src/util.py\n"
    assert not (kit.path / ".git/index.lock").exists()
    assert [each.state for each in operations(desk.place.state)] == ["aborted"]
    kit.git("config", "filter.big.smudge", "cat")
    desk.land([job])
    assert kit.git("status", "--porcelain") == b" M src/util.py\n"


def test_sha256(make_repo: Callable[[str], RepoKit], tmp_path: Path) -> None:
    path = tmp_path / "sha256"
    subprocess.run(["git", "init", "--quiet", "--object-format=sha256", path], check=True)
    kit = RepoKit(path)
    kit.write("a", "1\n")
    kit.commit("first")
    desk = Desk(kit)
    workflow = desk.workflow()
    kit.write("b", "untracked\n")
    desk.land([desk.job({"a": "2\n"})])
    assert kit.read("a") == b"2\n"
    rollback(desk.place, workflow)
    assert tree_files(path) == {"a": b"1\n"}
    undo(desk.place)
    assert tree_files(path) == {"a": b"2\n", "b": b"untracked\n"}
    kit.assert_sound()


def test_a_partial_clone_fetches_what_it_needs(repo: RepoKit, tmp_path: Path) -> None:
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    repo.write("src/app.py", "older\n")
    repo.commit("older")
    repo.write("src/app.py", "newer\n")
    repo.commit("newer")
    path = tmp_path / "partial"
    subprocess.run(["git", "clone", "--quiet", "--filter=blob:none", f"file://{repo.path}", path], check=True)
    kit = RepoKit(path)
    desk = Desk(kit)
    workflow = desk.workflow()
    kit.write("README.md", "dirty\n")
    desk.land([desk.job({"src/app.py": "merged\n", "src/util.py": None}), desk.job({"new": "new\n"})])
    assert kit.git("status", "--porcelain") == b" M README.md\n"
    kit.write("late", "late\n")
    kit.commit("late")
    rollback(desk.place, workflow)
    assert kit.read("src/app.py") == b"newer\n"
    assert kit.text("status", "--porcelain") == ""
    undo(desk.place)
    assert kit.read("src/app.py") == b"merged\n"
    assert kit.read("late") == b"late\n"


def test_a_bare_repository_with_a_worktree(repo: RepoKit, tmp_path: Path) -> None:
    bare, there = tmp_path / "bare.git", tmp_path / "there"
    subprocess.run(["git", "clone", "--quiet", "--bare", repo.path, bare], check=True)
    subprocess.run(["git", "-C", bare, "worktree", "add", "--quiet", there, "main"], check=True)
    kit = RepoKit(there)
    desk = Desk(kit)
    workflow = desk.workflow()
    kit.write("notes", "mine\n")
    desk.land([desk.job({"README.md": "merged\n", "docs/guide.md": None})])
    assert kit.git("status", "--porcelain") == b"?? notes\n"
    rollback(desk.place, workflow)
    assert kit.text("status", "--porcelain") == ""
    undo(desk.place)
    assert kit.read("README.md") == b"merged\n"
    assert kit.git("status", "--porcelain") == b"?? notes\n"


def test_from_a_linked_worktree(desk: Desk, tmp_path: Path) -> None:
    kit = desk.kit
    there = tmp_path / "there"
    kit.git("worktree", "add", "--quiet", "-b", "topic", there)
    main = tree_files(kit.path)
    state = State(desk.place.repo.common_dir)
    linked = Place(discover(there), state, desk.store, desk.place.root)
    job = desk.job({"README.md": "merged\n"})
    plan = desk.plan([job], onto="topic")
    operation = land(linked, plan, target=find_target(linked.repo), jobs=[job.job_id], workflow=None)
    assert (operation.branch, operation.worktree) == ("topic", str(there))
    assert (there / "README.md").read_text() == "merged\n"
    assert tree_files(kit.path) == main
    undo(desk.place)
    assert (there / "README.md").read_text() == "# sample\n\nA repository for tests.\n"


# ----------------------------------------------------------------------------------------------------- undo and the log
def test_undo_and_redo(desk: Desk) -> None:
    kit = desk.kit
    job = desk.job({"src/new.py": "new\n", "README.md": "changed\n", "docs/guide.md": None}, name="one")
    before, files = kit.head(), tree_files(kit.path)
    first = desk.land([job])
    after_files = tree_files(kit.path)
    assert landed(operations(desk.place.state)) == {job.job_id: first.operation_id}
    back = undo(desk.place)
    assert (kit.head(), tree_files(kit.path), kit.text("status", "--porcelain")) == (before, files, "")
    assert back.undoes == first.operation_id
    assert landed(operations(desk.place.state)) == {}
    assert operations(desk.place.state)[0].undone_by == back.operation_id
    kit.git("reflog", "expire", "--expire=now", "--all")
    kit.git("gc", "--quiet", "--prune=now")
    undo(desk.place)
    assert (kit.head(), tree_files(kit.path), kit.text("status", "--porcelain")) == (first.after, after_files, "")
    assert landed(operations(desk.place.state)) == {job.job_id: first.operation_id}
    assert operations(desk.place.state)[0].undone_by is None


def test_undo_keeps_later_edits_and_refuses_where_they_clash(desk: Desk) -> None:
    kit = desk.kit
    desk.land([desk.job({"src/new.py": "new\n", "README.md": "changed\n"})])
    kit.write("README.md", "changed, then edited\n")
    kit.write("notes.txt", "untracked\n")
    before = untouched(kit)
    with pytest.raises(Refused) as refused:
        undo(desk.place)
    assert refused.value.details["paths"] == ["README.md"]
    assert untouched(kit) == before
    kit.git("checkout", "--quiet", "README.md")
    kit.write("tool.sh", "edited\n")
    undo(desk.place)
    assert kit.git("status", "--porcelain") == b" M tool.sh\n?? notes.txt\n"


def test_undo_needs_the_branch_where_it_was_left(desk: Desk) -> None:
    kit = desk.kit
    first = desk.land([desk.job({"src/new.py": "new\n"})])
    kit.write("late.txt", "late\n")
    kit.commit("late")
    before = untouched(kit)
    with pytest.raises(Refused) as refused:
        undo(desk.place)
    assert refused.value.code == "branch-moved"
    assert untouched(kit) == before
    kit.git("reset", "--quiet", "--hard", first.after or "")
    second = desk.land([desk.job({"src/two.py": "two\n"})])
    with pytest.raises(Refused) as refused:
        undo(desk.place, first.operation_id)
    assert refused.value.code == "branch-moved"
    undo(desk.place, second.operation_id)
    undo(desk.place, first.operation_id)
    assert kit.head() == first.before
    with pytest.raises(Refused) as refused:
        undo(desk.place, first.operation_id)
    assert refused.value.code == "already-undone"


def test_what_cannot_be_undone(desk: Desk) -> None:
    state = desk.place.state
    with pytest.raises(NotFound):
        undo(desk.place)
    draft = Operation(operation_id=OperationId("op-000000"), kind="drop", created_at=now())
    dropped = record(state, draft)
    assert (dropped.operation_id, dropped.state) == ("op-000001", "done")
    with pytest.raises(NotFound):
        undo(desk.place)
    with pytest.raises(Refused) as refused:
        undo(desk.place, dropped.operation_id)
    assert refused.value.code == "not-undoable"
    with pytest.raises(NotFound):
        undo(desk.place, OperationId("op-000099"))
    with pytest.raises(NotFound):
        undo(desk.place, OperationId("nonsense"))


def test_nothing_to_land(desk: Desk) -> None:
    with pytest.raises(Refused) as refused:
        desk.land([desk.job({})])
    assert refused.value.code == "nothing-to-land"


def test_numbers_are_never_used_again(desk: Desk) -> None:
    job = desk.job({"src/new.py": "new\n"})
    first = desk.land([job])
    second = undo(desk.place)
    assert (first.operation_id, second.operation_id) == ("op-000001", "op-000002")
    desk.kit.write("src/new.py", "in the way\n")
    with pytest.raises(Refused):
        undo(desk.place)
    (desk.kit.path / "src/new.py").unlink()
    assert undo(desk.place).operation_id == "op-000003"
    assert [each.operation_id for each in operations(desk.place.state)] == ["op-000001", "op-000002", "op-000003"]
    assert recover(desk.place) == []


def test_recovery_of_nothing_is_one_look(desk: Desk) -> None:
    before = untouched(desk.kit)
    assert recover(desk.place) == []
    assert untouched(desk.kit) == before
