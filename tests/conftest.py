"""The seal around every test, and the fixtures.

No test sees the machine's or the user's configuration, stands in a directory that could be taken for its repository,
inherits a `GIT_*` or `WT_*` variable, or leaves a process or a broken repository behind: that is checked when it ends.
"""

import compileall
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import hypothesis.configuration
import pytest

from tests.kit import Gate, RepoKit, Wt, sweep

# Examples are kept beside the tests, since the current directory is a new one for each of them.
hypothesis.configuration.set_hypothesis_home_dir(Path(__file__).parent.parent / ".hypothesis")
hypothesis.settings.register_profile("worktrees", deadline=None, print_blob=True)
hypothesis.settings.load_profile("worktrees")

# A shell that starts the tests in the background has them ignore interrupts, `nohup` the end of the terminal, and so
# would every command they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The tests start our commands thousands of times; where bytecode is not kept, each would compile all of our sources.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
compileall.compile_dir(Path(__file__).parent.parent / "worktrees", quiet=2)

LONG_SECONDS = 6 * 3600
SCRUBBED = {"CLICOLOR_FORCE", "COLUMNS", "EDITOR", "FORCE_COLOR", "LINES", "NO_COLOR", "PAGER", "VISUAL"}
GIT_CONFIG = """\
[user]
	name = Boss
	email = boss@example.com
[init]
	defaultBranch = main
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is known to take long may; everything else ends in the time of pyproject.toml."""
    for item in items:
        if item.get_closest_marker("torture") or item.get_closest_marker("bench"):
            item.add_marker(pytest.mark.timeout(LONG_SECONDS))


@dataclass
class Seal:
    """What the end of a test has to look after."""

    root: Path
    repositories: list[RepoKit] = field(default_factory=list)


@pytest.fixture(autouse=True)
def seal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Seal]:
    """The hermetic environment; at the end no process of the test's is alive and its repositories are sound."""
    for name in os.environ:
        if name.startswith(("GIT_", "WT_", "XDG_")) or name in SCRUBBED:
            monkeypatch.delenv(name)
    home, cwd, tmp = tmp_path / "home", tmp_path / "nowhere", tmp_path / "tmp"
    for directory in (home, cwd, tmp):
        directory.mkdir()
    # At HOME too: `wt` hands no GIT_* variable on to git.
    (home / ".gitconfig").write_text(GIT_CONFIG, encoding="utf-8")
    for name, value in {
        "HOME": home,
        "XDG_CONFIG_HOME": home / ".config",
        "XDG_CACHE_HOME": home / ".cache",
        "XDG_DATA_HOME": home / ".local/share",
        "XDG_STATE_HOME": home / ".local/state",
        "XDG_RUNTIME_DIR": tmp,
        "TMPDIR": tmp,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": home / ".gitconfig",
        "GIT_EDITOR": "false",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
        # Workers of tests write where the test can see it; the sandbox has tests of its own.
        "WT_SANDBOX": "none",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(cwd)
    state = Seal(tmp_path)
    yield state
    survivors = sweep(tmp_path)
    assert not survivors, "processes outlived the test:\n" + "\n".join(survivors)
    for repository in state.repositories:
        if not repository.broken_on_purpose:
            repository.assert_sound()


@pytest.fixture
def make_repo(seal: Seal) -> Callable[[str], RepoKit]:
    """Makes a repository in the directory of the given name."""

    def make(name: str) -> RepoKit:
        kit = RepoKit.make(seal.root / name)
        seal.repositories.append(kit)
        return kit

    return make


@pytest.fixture
def repo(make_repo: Callable[[str], RepoKit]) -> RepoKit:
    """A repository with a few files and two commits."""
    return make_repo("repo")


@pytest.fixture
def wt(repo: RepoKit) -> Wt:
    """The command line, run in the repository."""
    return Wt(repo.path)


@pytest.fixture
def common_ground() -> Iterator[Path]:
    """A directory an ordinary user can reach."""
    # Not below the directory of this test, which is closed to others, and opened and closed again by other runs.
    directory = Path(tempfile.mkdtemp(prefix="wt-test-", dir="/tmp"))
    if os.geteuid() == 0:
        os.chown(directory, 65534, 65534)
    yield directory
    subprocess.run(["chmod", "-R", "u+rwx", directory], check=True)
    subprocess.run(["rm", "-rf", directory], check=True)


@pytest.fixture
def gate(seal: Seal) -> Iterator[Gate]:
    """A gate for workers; open at the end of the test, whatever happened."""
    held = Gate(seal.root / "gate")
    yield held
    held.close()
