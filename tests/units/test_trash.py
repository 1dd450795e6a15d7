"""Removed workspaces go for good, whatever a worker left in them, and nothing else does."""

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.kit import RepoKit, eventually
from worktrees import isolation
from worktrees.config import Settings
from worktrees.git import discover
from worktrees.isolation import Place, remover, trash

# An interpreter may lie where an ordinary user cannot read it: load first, step down then.
STEP_DOWN = """
import os, sys
from pathlib import Path
from worktrees import isolation
from worktrees.config import Settings
from worktrees.git import discover
from worktrees.isolation import WorktreeIsolation, remover
from worktrees.model import Baseline, JobId
Baseline(commit="0" * 40)
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
directory = sys.argv[1]
"""


@pytest.fixture
def place(repo: RepoKit) -> Place:
    found = isolation.place(discover(repo.path), Settings())
    found.state.prepare()
    return found


def as_ordinary_user(script: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-B", "-c", STEP_DOWN + script, os.fspath(directory)]
    return subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)


def test_a_tree_deeper_than_any_path_goes(place: Place) -> None:
    top = place.state.trash / "deep"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("a-rather-long-directory-name", dir_fd=fd)
        os.close(os.open("file", os.O_CREAT, dir_fd=fd))
        inner = os.open("a-rather-long-directory-name", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    remover.main([os.fspath(place.state.trash)])
    assert os.listdir(place.state.trash) == []


def test_links_are_removed_and_never_followed(place: Place, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "inner").mkdir(parents=True)
    (precious / "inner/file").write_text("kept")
    top = place.state.trash / "top"
    (top / "sub").mkdir(parents=True)
    (top / "link").symlink_to(precious)
    (top / "sub/link").symlink_to("../../../../precious/inner")
    (top / "dangling").symlink_to("nowhere")
    (place.state.trash / "link").symlink_to(precious)
    (top / "sub" / os.fsdecode(b"\xff\n -rf")).write_text("odd")
    os.mkfifo(top / "pipe")
    os.link(precious / "inner/file", top / "hard")
    remover.main([os.fspath(place.state.trash), "/nowhere/at/all"])
    assert os.listdir(place.state.trash) == []
    assert (precious / "inner/file").read_text() == "kept"


def test_what_nobody_may_read_or_write_goes_all_the_same(common_ground: Path) -> None:
    done = as_ordinary_user(
        """
top = Path(directory, "trash", "top")
(top / "closed/inner/deep").mkdir(parents=True)
(top / "closed/inner/deep/file").write_text("x")
(top / "full").mkdir()
(top / "full/file").write_text("x")
for name in ("closed/inner/deep", "closed/inner", "closed", "full", ""):
    (top / name).chmod(0)
remover.main([os.fspath(top.parent)])
print(os.listdir(top.parent))
""",
        common_ground,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_mount_in_a_workspace_is_neither_entered_nor_waited_for(place: Place, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    mount = place.state.trash / "top" / "sub" / "mount"
    mount.mkdir(parents=True)
    if subprocess.run(["mount", "--bind", precious, mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this container may not mount")
    try:
        remover.main([os.fspath(place.state.trash)])
        assert (precious / "file").read_text() == "kept"
        assert len(os.listdir(place.state.trash)) == 1
    finally:
        subprocess.run(["umount", "-l", *place.state.trash.rglob("mount")], check=True)
    remover.main([os.fspath(place.state.trash)])
    assert os.listdir(place.state.trash) == []
    assert (precious / "file").read_text() == "kept"


def test_one_remover_at_a_time(place: Place) -> None:
    (place.state.trash / "file").touch()
    held = os.open(place.state.trash, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    remover.main([os.fspath(place.state.trash)])
    assert os.listdir(place.state.trash) == ["file"]
    os.close(held)
    remover.main([os.fspath(place.state.trash)])
    assert os.listdir(place.state.trash) == []


def test_the_next_command_goes_on_where_a_remover_was_killed(place: Place) -> None:
    for number in range(300):
        (place.state.trash / f"top/{number % 17}/{number}").mkdir(parents=True)
        (place.state.trash / f"top/{number % 17}/{number}/file").touch()
    total = sum(1 for _ in place.state.trash.rglob("*"))
    script = (
        "import os, signal, sys; from worktrees.isolation import remover\n"
        "steps = iter(range(200))\n"
        "def count(event, args):\n"
        "    if event in {'os.remove', 'os.rename', 'os.rmdir'} and next(steps, None) is None:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(count)\n"
        "remover.main(sys.argv[1:])\n"
    )
    assert subprocess.run([sys.executable, "-c", script, place.state.trash], check=False).returncode == -9
    assert 0 < sum(1 for _ in place.state.trash.rglob("*")) < total
    isolation.recover(place)
    eventually(lambda: not trash.trashes(place), what="the trash is emptied")


def test_discarding_moves_at_once_and_says_whether_there_was_anything(place: Place, tmp_path: Path) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    assert trash.discard(place, tmp_path / "tree")
    assert not trash.discard(place, tmp_path / "tree")
    (tmp_path / "link").symlink_to("/")
    assert trash.discard(place, tmp_path / "link")
    assert len(os.listdir(place.state.trash)) == 2
    assert len(trash.trashes(place)) == 1


def test_another_file_system_has_a_trash_of_its_own(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == place.state.trash.stat().st_dev:
        pytest.skip("there is no second file system")
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=other)))
        (root / "tree").mkdir()
        assert trash.discard(place, root / "tree")
        assert os.listdir(root) == [".trash"]
        elsewhere = Place(place.repo, place.state, place.store, root)
        assert trash.trashes(elsewhere) == [root / ".trash"]
        isolation.sweep(elsewhere)
        eventually(lambda: not trash.trashes(elsewhere), what="the trash is emptied")


def test_the_remover_inherits_nothing_and_nobody_waits_for_it(place: Place, tmp_path: Path) -> None:
    """A job's lock must be free when its settlement is over, and a server must not collect zombies."""
    lock = tmp_path / "alive"
    fd = os.open(lock, os.O_RDWR | os.O_CREAT)
    os.set_inheritable(fd, True)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert fd in trash._inherited()
    (place.state.trash / "file").touch()
    before = psutil.Process().children()
    isolation.sweep(place)
    os.close(fd)
    probe = os.open(lock, os.O_RDWR)
    fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(probe)
    assert psutil.Process().children() == before
    eventually(lambda: not trash.trashes(place), what="the trash is emptied")


def test_an_ordinary_user_opens_and_closes_or_is_told_why_not(common_ground: Path) -> None:
    done = as_ordinary_user(
        """
from worktrees.errors import StateBroken
os.environ.update(HOME=directory, XDG_CONFIG_HOME=directory, GIT_CONFIG_GLOBAL="/dev/null")
os.chdir(directory)
os.system("git init -q r && cd r && echo a > a && git add a && git -c user.name=a -c user.email=a@b commit -q -m a")
repo = discover(Path(directory, "r"))
place = isolation.place(repo, Settings(worktrees_directory=directory + "/trees/in"))
base = Baseline(commit=repo.resolve("HEAD"))
Path(directory, "trees").mkdir(mode=0o500)
try:
    WorktreeIsolation().open(place, JobId("j-aaaaaaaa"), base)
except StateBroken as error:
    print(error.message.replace(directory, ""))
Path(directory, "trees").chmod(0o700)
workspace = WorktreeIsolation().open(place, JobId("j-aaaaaaaa"), base)
workspace.path.chmod(0)
WorktreeIsolation().close(place, workspace)
workspace = WorktreeIsolation().open(place, JobId("j-aaaaaaaa"), base)
place.root.chmod(0o500)
try:
    WorktreeIsolation().close(place, workspace)
except StateBroken as error:
    print(error.message.replace(directory, ""), workspace.path.exists(), workspace.git_dir.exists())
place.root.chmod(0o700)
print(isolation.recover(place), workspace.path.exists(), isolation.doctor_findings(place))
WorktreeIsolation().close(place, workspace)
print(workspace.path.exists(), workspace.git_dir.exists())
remover.main([os.fspath(place.state.trash)])
""",
        common_ground,
    )
    name = done.stdout.partition("/trees/in/")[2].partition("/")[0]
    path = f"/trees/in/{name}/j-aaaaaaaa"
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"cannot make the workspace `{path}`: permission denied (`/trees/in`)",
        f"cannot remove the workspace `{path}`: permission denied (`{path}`) True True",
        "[] True []",
        "False False",
    ]
