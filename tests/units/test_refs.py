"""Refs of ours go without a trace, packed or not, whatever a killed git left, and the user's git never notices."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kit import RepoKit, eventually
from worktrees.errors import Busy
from worktrees.git import ObjectStore, discover, refs
from worktrees.model import Oid

OURS = "refs/wt/flow/base"


@pytest.fixture
def packed(repo: RepoKit) -> RepoKit:
    """A repository with packed refs: an annotated tag before and after the place of ours."""
    repo.git("tag", "-a", "-m", "one", "one")
    repo.git("update-ref", "refs/wt/flow/other", "HEAD")
    repo.git("update-ref", OURS, "HEAD")
    repo.git("update-ref", "refs/zz/last", "HEAD")
    repo.git("pack-refs", "--all")
    return repo


def listed(repo: RepoKit) -> list[str]:
    return repo.git("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)").decode().splitlines()


def test_a_packed_ref_goes_and_nothing_else(packed: RepoKit) -> None:
    before = listed(packed)
    mode = (packed.path / ".git/packed-refs").stat().st_mode
    discover(packed.path).delete_ref(OURS)
    assert listed(packed) == [line for line in before if not line.startswith(OURS)]
    assert (packed.path / ".git/packed-refs").stat().st_mode == mode
    assert not list((packed.path / ".git").glob("packed-refs?*"))
    packed.git("pack-refs", "--all")
    packed.git("gc", "--quiet")


def test_a_tag_of_ours_goes_with_what_it_points_at(packed: RepoKit) -> None:
    packed.git("update-ref", "refs/wt/flow/tag", "refs/tags/one")
    packed.git("pack-refs", "--all")
    before = listed(packed)
    discover(packed.path).delete_ref("refs/wt/flow/tag")
    assert listed(packed) == [line for line in before if "wt/flow/tag" not in line]
    packed.git("fsck")


def test_a_ref_that_is_packed_and_has_moved_since_goes_wholly(packed: RepoKit) -> None:
    packed.git("update-ref", OURS, "HEAD~1")
    discover(packed.path).delete_ref(OURS)
    assert not [line for line in listed(packed) if line.startswith(OURS)]


def test_a_loose_ref_goes_with_its_reflog_and_its_empty_directories(repo: RepoKit) -> None:
    repo.git("config", "core.logAllRefUpdates", "always")
    repo.git("update-ref", OURS, "HEAD")
    assert (repo.path / ".git/logs" / OURS).is_file()
    before = (repo.path / ".git/refs").stat().st_ino
    discover(repo.path).delete_ref(OURS)
    assert not (repo.path / ".git/refs/wt").exists()
    assert not (repo.path / ".git/logs/refs/wt").exists()
    assert (repo.path / ".git/refs").stat().st_ino == before
    discover(repo.path).delete_ref(OURS)


def test_another_refs_directory_stays(repo: RepoKit) -> None:
    repo.git("update-ref", "refs/wt/flow/other", "HEAD")
    repo.git("update-ref", OURS, "HEAD")
    discover(repo.path).delete_ref(OURS)
    assert repo.text("for-each-ref", "--format=%(refname)", "refs/wt") == "refs/wt/flow/other"


def test_the_users_lock_on_the_packed_refs_is_never_touched(packed: RepoKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refs, "_LOCK_SECONDS", 0.2)
    lock = packed.path / ".git/packed-refs.lock"
    lock.touch()
    with pytest.raises(Busy) as caught:
        discover(packed.path).delete_ref(OURS)
    assert str(lock) in caught.value.message
    assert lock.exists()
    assert not refs.break_dead_packed(packed.path / ".git")
    lock.unlink()
    discover(packed.path).delete_ref(OURS)


HOLD = """
import sys, time
from pathlib import Path
from worktrees.git import refs
with refs._packed_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_our_own_lock_counts_as_long_as_its_holder_lives(packed: RepoKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refs, "_LOCK_SECONDS", 0.2)
    common = packed.path / ".git"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, common],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy):
            discover(packed.path).delete_ref(OURS)
        assert not refs.break_dead_packed(common)
        holder.kill()
    assert (common / "packed-refs.lock").exists()
    discover(packed.path).delete_ref(OURS)
    assert not list(common.glob("packed-refs?*"))


def test_a_dead_gits_lock_on_a_ref_of_ours_is_broken(repo: RepoKit) -> None:
    store = ObjectStore(repo.path.with_name("store.git")).ensure(discover(repo.path))
    repo.git("update-ref", OURS, "HEAD")
    (repo.path / ".git" / f"{OURS}.lock").touch()
    discover(repo.path).delete_ref(OURS)
    assert discover(repo.path).ref(OURS) is None
    lock = store.path / f"{OURS}.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    store.set_ref(OURS, Oid(repo.head()))
    assert store.ref(OURS) == repo.head()
    lock.touch()
    (store.path / "packed-refs.lock").touch()
    store.delete_refs("refs/wt/flow")
    assert store.refs("refs/wt") == {}


def test_a_lock_that_goes_by_itself_is_waited_for(repo: RepoKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refs, "PATIENCE_SECONDS", 10.0)
    lock = repo.path / ".git/here.lock"
    lock.touch()
    asked: list[Path] = []
    mark = refs._mark

    def going(path: Path) -> tuple[int, int] | None:
        if len(asked) == 3:
            path.unlink()
        asked.append(path)
        return mark(path)

    monkeypatch.setattr(refs, "_mark", going)
    began = time.monotonic()
    assert refs.break_dead(lock) == []
    assert time.monotonic() - began < 5


def test_it_goes_while_the_users_git_packs_again_and_again(repo: RepoKit, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    user = subprocess.Popen(
        ["sh", "-c", 'until [ -e "$0" ]; do git pack-refs --all --prune || exit 3; done', stop], cwd=repo.path
    )
    here = discover(repo.path)
    try:
        for number in range(30):
            name = f"refs/wt/flow{number}/base"
            here.git("update-ref", name, "HEAD")
            here.delete_ref(name)

            def gone(name: str = name) -> bool:
                here.delete_ref(name)  # it may have been packed between our two looks
                return here.ref(name) is None

            eventually(gone, what=f"{name} is gone")
    finally:
        stop.touch()
        assert user.wait(60) == 0
    assert not list((repo.path / ".git").glob("packed-refs?*"))
    assert repo.text("for-each-ref", "refs/wt") == ""
    assert os.listdir(repo.path / ".git/refs").count("wt") <= 1
