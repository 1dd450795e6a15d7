"""Large files under git LFS: pointers in the record, contents where the user's own repository has them, no network."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from tests.kit import RepoKit, Wt

pytestmark = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")

OLD, NEW, MADE, BOSS = (bytes([number]) * 5000 for number in range(4))


def pointer(content: bytes) -> bytes:
    """What git LFS commits in place of a content."""
    oid = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()


def held(directory: Path) -> set[str]:
    """Object ids in a storage of git LFS."""
    return {name for _, _, files in os.walk(directory / "objects") for name in files}


def names(*contents: bytes) -> set[str]:
    return {hashlib.sha256(content).hexdigest() for content in contents}


@pytest.fixture
def large(repo: RepoKit) -> RepoKit:
    """A repository with one large file, its only copy; whoever asks a server finds none."""
    repo.git("lfs", "install", "--skip-repo")
    repo.git("config", "lfs.url", "file:///nowhere")
    repo.git("lfs", "track", "*.big")
    repo.write("large.big", OLD)
    repo.commit("large")
    assert held(repo.path / ".git/lfs") == names(OLD)
    return repo


def worker(*edits: tuple[str, bytes]) -> tuple[str, ...]:
    """A worker that fills files with bytes."""
    words = [f"head -c 5000 /dev/zero | tr '\\0' '\\{content[0]:03o}' > {path}" for path, content in edits]
    return ("--", "sh", "-c", "; ".join(words))


def test_a_workers_large_files_land_from_pointers(large: RepoKit, wt: Wt) -> None:
    wt("spawn", "--name", "w", *worker(("large.big", NEW), ("made.big", MADE)), status=0)
    wt("wait", status=0)

    patch = wt("diff", "w", "--patch", status=0).stdout.encode()
    for content, sign in ((OLD, b"-"), (NEW, b"+"), (MADE, b"+")):
        assert sign + pointer(content).splitlines()[1] in patch
    state = large.path / ".git/wt-state"
    assert held(large.path / ".git/lfs") == names(OLD, NEW, MADE)
    assert not [path for path in state.rglob("*") if path.name == "lfs" or path.name in names(NEW, MADE)]

    wt("merge", status=0)

    assert (large.read("large.big"), large.read("made.big")) == (NEW, MADE)
    assert large.git("show", "HEAD:made.big") == pointer(MADE)
    assert large.git("status", "--porcelain") == b""
    assert large.text("lfs", "fsck") == "Git LFS fsck OK"
    wt("undo", status=0)
    assert large.read("large.big") == OLD


def test_a_settled_workspace_of_large_files_comes_back(large: RepoKit, wt: Wt) -> None:
    wt("spawn", "--name", "w", *worker(("large.big", NEW)), status=0)
    wt("wait", status=0)
    wt("drop", "w", status=0)

    (job,) = wt("restore", "w", "--json", status=0).data["jobs"]

    assert Path(job["workspace"], "large.big").read_bytes() == NEW


@pytest.mark.parametrize("where", ["main", "linked"])
def test_the_bosss_own_large_edits_are_carried_and_rolled_back(
    large: RepoKit, wt: Wt, tmp_path: Path, where: str
) -> None:
    top = large.path
    if where == "linked":
        top = tmp_path / "side"
        large.git("worktree", "add", "-q", "-b", "side", top)
    (top / "large.big").write_bytes(BOSS)
    command = worker(("made.big", MADE))
    (job,) = wt("spawn", "--name", "w", "--dirty", "all", "--json", *command, cwd=top, status=0).data["jobs"]
    wt("wait", cwd=top, status=0)

    assert Path(job["workspace"], "large.big").read_bytes() == BOSS
    (file,) = wt("diff", "w", "--json", cwd=top, status=0).data["changeSet"]["files"]
    assert file["path"] == "made.big"
    wt("merge", cwd=top, status=0)
    assert ((top / "large.big").read_bytes(), (top / "made.big").read_bytes()) == (BOSS, MADE)
    (top / "large.big").write_bytes(NEW)
    wt("rollback", cwd=top, status=0)
    assert ((top / "large.big").read_bytes(), (top / "made.big").exists()) == (BOSS, False)
    wt("undo", cwd=top, status=0)
    assert (top / "large.big").read_bytes() == NEW
    assert names(OLD, BOSS, MADE, NEW) == held(large.path / ".git/lfs")


@pytest.mark.parametrize("storage", ["../../shared lfs", "elsewhere"])
def test_a_storage_of_the_users_choice_is_used(large: RepoKit, wt: Wt, storage: str) -> None:
    home = large.path / ".git" / storage
    # A relative one starts at the git directory.
    large.git("config", "lfs.storage", home.resolve() if storage.startswith("..") else storage)
    shutil.copytree(large.path / ".git/lfs", home)

    wt("spawn", "--name", "w", *worker(("made.big", MADE)), status=0)
    wt("wait", status=0)
    wt("merge", status=0)

    assert held(home) == names(OLD, MADE)
    assert large.read("made.big") == MADE
    assert large.text("lfs", "fsck") == "Git LFS fsck OK"


def test_files_left_as_pointers_stay_pointers(large: RepoKit, wt: Wt) -> None:
    shutil.rmtree(large.path / ".git/lfs/objects")
    large.write("large.big", pointer(OLD))
    skip = {"GIT_LFS_SKIP_SMUDGE": "1"}

    (job,) = wt("spawn", "--name", "w", "--json", env=skip, status=0).data["jobs"]
    wt("settle", "w", env=skip, status=0)

    assert Path(job["workspace"], "large.big").read_bytes() == pointer(OLD)
    assert wt("diff", "w", "--json", status=0).data["changeSet"]["files"] == []
