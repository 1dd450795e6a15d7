"""Kills, and many at once: a workspace is whole or gone, and the user's git always works."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Seal
from tests.kit import Gate, RepoKit, eventually, processes_of
from tests.torture.workspaces import assert_git_works, close_one, ground, is_whole_or_gone, open_one
from worktrees import isolation
from worktrees.config import Settings
from worktrees.git import discover
from worktrees.isolation import Place, WorktreeIsolation, trash
from worktrees.model import Baseline, JobId

ROOT = Path(__file__).parents[2]
JOB, BYSTANDER = JobId("j-aaaaaaaa"), JobId("j-bbbbbbbb")
CHANGES = (
    *("mkdir", "rename", "unlink", "unlinkat", "rmdir", "fsync", "fchmod", "chmod", "ftruncate", "write", "pwrite64"),
    *("sendfile", "copy_file_range", "flock", "clone", "clone3", "vfork", "execve"),
)
"""System calls that change the disk, or start what will."""


def words(verb: str, repo: RepoKit, *jobs: JobId) -> list[str]:
    return [sys.executable, "-B", "-m", "tests.torture.workspaces", verb, os.fspath(repo.path), *jobs]


@pytest.fixture
def crowd(repo: RepoKit) -> Iterator[Place]:
    """A repository with a workspace and a worktree of the user's, which must come through whatever happens."""
    repo.git("worktree", "add", "-q", "-b", "mine", repo.path.with_name("mine"))
    place = ground(repo.path)
    open_one(place, BYSTANDER)
    (place.root / BYSTANDER / "work").write_text("in progress")
    fingerprint = repo.fingerprint()
    yield place
    eventually(lambda: not trash.trashes(place), what="the trash is emptied")
    assert repo.fingerprint() == fingerprint
    assert {row.path.name for row in place.repo.worktrees()} == {"repo", "mine", BYSTANDER}
    assert (place.root / BYSTANDER / "work").read_text() == "in progress"
    close_one(place, BYSTANDER)
    assert [path.name for path in place.entries.iterdir()] == ["mine"]
    assert not list(place.repo.common_dir.rglob("*.lock"))


def assert_mended(place: Place) -> bool:
    """After a death: the user's git works at once, and recovery leaves the workspace whole or gone."""
    assert_git_works(place)
    isolation.recover(place)
    return is_whole_or_gone(place, JOB)


@pytest.mark.parametrize("verb", ["open", "close"])
def test_s13_a_death_at_each_step_leaves_a_workspace_whole_or_gone(repo: RepoKit, crowd: Place, verb: str) -> None:
    command = words(f"kill-{verb}", repo, JOB)
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    deaths, outcomes = done.stdout.split(" ", 1)
    assert int(deaths) >= 8
    assert outcomes.strip() == "[False, True]"
    if verb == "open":
        close_one(crowd, JOB)


def traced(repo: RepoKit, verb: str, call: str, step: int, *, follow: bool) -> bool:
    """Kills the process (with `follow` git below it too) at its n-th call of a kind; False when there is none."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log = repo.path.with_name("strace.log")
    options = ["-qq", "-o", f"{log}", "-e", f"inject={call}:signal=KILL:when={step}", *(["-f"] if follow else [])]
    command = ["strace", *options, *words(verb, repo, JOB)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120, cwd=ROOT)
    if b"ptrace" in done.stderr and b"not permitted" in done.stderr:
        pytest.skip("this container does not let strace trace")
    return b"killed by SIGKILL" in log.read_bytes()


def survives(repo: RepoKit, place: Place, verb: str, call: str, step: int, *, follow: bool = False) -> bool:
    """Whether something was killed; afterwards everything is mended."""
    if verb == "close":
        open_one(place, JOB)
    killed = traced(repo, verb, call, step, follow=follow)
    stands = assert_mended(place)
    assert killed or stands is (verb == "open")
    if stands:
        close_one(place, JOB)
    return killed


def test_s13_a_death_at_some_system_calls(repo: RepoKit, crowd: Place) -> None:
    for call, step in (("mkdir", 2), ("fsync", 3), ("rename", 1), ("unlink", 2)):
        assert survives(repo, crowd, "open", call, step)
    for call, step in (("rename", 1), ("rename", 2), ("unlink", 2)):
        assert survives(repo, crowd, "close", call, step)
    # Here it is git that dies, in the middle of the checkout and before its index arrives; `open` undoes that itself.
    for call, step in (("write", 3), ("rename", 1)):
        assert survives(repo, crowd, "open", call, step, follow=True)


@pytest.mark.torture
@pytest.mark.parametrize("follow", [False, True], ids=["python", "everything"])
@pytest.mark.parametrize("verb", ["open", "close"])
def test_s13_a_death_at_every_system_call(repo: RepoKit, crowd: Place, verb: str, *, follow: bool) -> None:
    deaths = 0
    for call in CHANGES:
        step = 1
        while survives(repo, crowd, verb, call, step, follow=follow):
            step += 1
        deaths += step - 1
    assert deaths > 12


@pytest.mark.torture
@pytest.mark.parametrize("verb", ["open", "close"])
def test_s13_a_death_of_everything_at_a_random_moment(repo: RepoKit, crowd: Place, verb: str) -> None:
    longest = 0.5
    for turn in range(60):
        if verb == "close":
            open_one(crowd, JOB)
        began = time.monotonic()
        process = subprocess.Popen(words(verb, repo, JOB), start_new_session=True, cwd=ROOT)
        try:
            process.wait(longest * (0.4 + 0.6 * turn / 60))
            longest = time.monotonic() - began
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if assert_mended(crowd):
            close_one(crowd, JOB)


def test_s13_git_goes_on_when_only_its_parent_was_killed(repo: RepoKit, crowd: Place, gate: Gate) -> None:
    """What an orphaned checkout still writes goes the same way, and never back to where the workspace was."""
    repo.write(".git/info/attributes", "tool.sh filter=slow\n")
    repo.git("config", "filter.slow.smudge", f"{gate.shell('git')}; cat")
    process = subprocess.Popen(words("open", repo, JOB), cwd=ROOT)
    gate.wait_arrivals(1)
    process.kill()
    process.wait()
    assert [finding.code for finding in isolation.recover(crowd)] == ["workspace-recovered"]
    assert not is_whole_or_gone(crowd, JOB)
    gate.release()
    own = "read-tree"
    eventually(lambda: not [one for one in processes_of(repo.path.parent) if own in one.cmdline()], what="git ends")
    assert not is_whole_or_gone(crowd, JOB)
    assert isolation.recover(crowd) == []
    eventually(lambda: not trash.trashes(crowd), what="the trash is emptied")
    repo.git("config", "--remove-section", "filter.slow")
    (repo.path / ".git/info/attributes").unlink()


@pytest.fixture
def small_disk(seal: Seal) -> Iterator[Path]:
    """An image file that is mounted on `disk` beside it."""
    image, mount = seal.root / "image", seal.root / "disk"
    mount.mkdir()
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("a disk of our own takes root and mkfs.ext4")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this container may not mount")
    yield image
    subprocess.run(["umount", mount], check=True)


@pytest.mark.torture
@pytest.mark.parametrize("seconds", [0, 0.3, 6])
def test_s13_a_power_cut_leaves_a_repository_that_works(small_disk: Path, seconds: float) -> None:
    """The disk as it is some time after a workspace was opened; nothing but time may be waited for here."""
    mount = small_disk.with_name("disk")
    repo = RepoKit.make(mount / "repo")
    subprocess.run(["sync", "-f", mount], check=True)
    settings = Settings(worktrees_directory=f"{mount}/trees")
    place = isolation.place(discover(repo.path), settings)
    WorktreeIsolation().open(place, JOB, Baseline(commit=place.repo.resolve("HEAD")))
    time.sleep(seconds)
    cut = small_disk.with_name("cut")
    shutil.copyfile(small_disk, cut)
    subprocess.run(["umount", mount], check=True)
    os.replace(cut, small_disk)
    subprocess.run(["mount", "-o", "loop", small_disk, mount], check=True)
    assert_git_works(place)
    isolation.recover(place)
    assert isolation.doctor_findings(place) == []
    assert (isolation.workspace_of(place, JOB) is not None) is (place.root / JOB).is_dir()
    assert not os.listdir(place.state.journal)


def test_s13_thirty_two_at_once(repo: RepoKit, crowd: Place) -> None:
    """All open at the same moment, while the user's own git adds and removes worktrees, and all close again."""
    jobs = [JobId(f"j-{number:08d}") for number in range(32)]
    foreign = (
        "until [ -e ../over ]; do git worktree add -q --detach ../foreign; git worktree remove -f ../foreign; done"
    )

    def all_at_once(verb: str) -> None:
        command = words(f"all-{verb}", repo, *jobs)
        done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=120, cwd=ROOT)
        assert (done.returncode, done.stderr) == (0, "")

    user = subprocess.Popen(["sh", "-c", foreign], cwd=repo.path, stderr=subprocess.PIPE, text=True)
    try:
        all_at_once("open")
    finally:
        repo.path.with_name("over").touch()
        trouble = user.communicate(timeout=60)[1]
    # git may trip over an entry of its own; ours, which come whole, never make its `add` fail.
    assert not re.search(r"j-\d{8}", trouble), trouble
    listed = repo.git("worktree", "list", "--porcelain").decode()
    assert {line for line in listed.splitlines() if line.startswith("locked ")} == {
        f"locked wt {job}" for job in (*jobs, BYSTANDER)
    }
    for job in jobs:
        assert not repo.git("-C", crowd.root / job, "status", "--porcelain")
    all_at_once("close")
    assert isolation.doctor_findings(crowd) == []
    assert os.listdir(crowd.state.journal) == []
    assert os.listdir(crowd.records) == [f"{BYSTANDER}.json"]
