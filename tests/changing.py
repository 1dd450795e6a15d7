"""What tests of the record of changes are made of: a workspace primed as a job's is, and a walk of it by other means.

The workspace is a plain detached worktree, so these tests stand on git and `worktrees.changes` alone.
"""

import ctypes  # noqa: F401 - for those who may not read it, see `as_ordinary_user`
import os
import shutil
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kit import RepoKit
from worktrees import changes
from worktrees.changes import Scan
from worktrees.config import Settings
from worktrees.git import ObjectStore, Repo, discover
from worktrees.model import Audit, Baseline, ChangeSet, JobId, Oid, RepoPath, WorkflowName
from worktrees.store import State

JOB = JobId("j-sample22")
REF = f"refs/wt/{WorkflowName('w')}/{JOB}"

Files = dict[bytes, tuple[str, bytes]]
"""Path to mode and content; of a submodule the content is its commit."""


@dataclass
class Bench:
    """One workspace of a repository, and everything a job would know about it."""

    kit: RepoKit
    path: Path
    records: Path
    settings: Settings = field(default_factory=Settings)
    base: str = "HEAD"
    repo: Repo = field(init=False)
    store: ObjectStore = field(init=False)
    baseline: Baseline = field(init=False)
    before: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.repo = discover(self.kit.path)
        state = State(self.repo.common_dir)
        state.prepare()
        self.store = ObjectStore(state.store).ensure(self.repo)
        self.records.mkdir(parents=True, exist_ok=True)
        self.baseline = Baseline(commit=self.repo.resolve(self.base))
        self.kit.git("update-ref", "refs/wt/w/base", self.baseline.commit)

    @property
    def admin(self) -> Path:
        """Directory of git's for this worktree."""
        return self.repo.common_dir / "worktrees" / self.path.name

    @property
    def index(self) -> Path:
        """Where the record of the checkout is."""
        return self.records / "index"

    def open(self, *, seed: bool = True) -> "Bench":
        """Makes the workspace and primes it."""
        self.kit.git("worktree", "add", "--quiet", "--detach", self.path, self.baseline.commit)
        return self.prime(seed=seed)

    def prime(self, *, seed: bool = True) -> "Bench":
        """Records what is there, as spawning does at its end."""
        index = self.admin / "index" if seed else None
        changes.prime(self.store, self.repo, self.path, self.baseline, self.index, seed=index)
        self.before = changes.fingerprint(self.repo, self.path, self.admin)
        return self

    def worker(self, script: str) -> None:
        """Runs a shell script in the workspace; `$GD` is the repository's git directory, `$MAIN` its checkout."""
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=self.path,
            env={**os.environ, "GD": str(self.repo.common_dir), "MAIN": str(self.kit.path), "PYTHON": sys.executable},
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def write(self, path: str | bytes, content: str | bytes) -> None:
        """Writes a file of the workspace."""
        target = os.path.join(os.fsencode(self.path), os.fsencode(path))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)

    def audit(self, **more: Any) -> Audit:
        """What became of the repository since the workspace was opened."""
        return changes.audit(self.repo, self.path, self.admin, self.before, **more)

    def capture(self, *, live: bool = False, candidates: list[bytes] | None = None, **more: Any) -> tuple[Oid, Scan]:
        """The snapshot; durable and named unless `live`."""
        paths = None if candidates is None else [RepoPath(path) for path in candidates]
        return changes.capture(
            self.store, self.repo, self.path, self.baseline, job=JOB, ref=None if live else REF, index=self.index,
            settings=self.settings, candidates=paths, durable=not live, **more,
        )  # fmt: skip

    def change_set(self, *, live: bool = False, **more: Any) -> ChangeSet:
        """Captured and compared."""
        snapshot, scan = self.capture(live=live)
        return changes.change_set(self.store, JOB, self.baseline.start, snapshot, scan=scan, **more)

    def statuses(self, *, live: bool = False) -> dict[str, str]:
        """Path to status letter of the change set."""
        return {file.path: file.status for file in self.change_set(live=live).files}

    def recorded(self, commit: str) -> Files:
        """Every file of a commit of the store, read by git."""
        found: Files = {}
        for line in self.store.git("ls-tree", "-r", "-z", "--full-tree", commit).records:
            words, path = line.split(b"\t", 1)
            mode, kind, oid = words.decode().split()
            found[path] = (mode, oid.encode() if kind == "commit" else self.store.git("cat-file", "blob", oid).stdout)
        return found


def walked(top: Path) -> Files:
    """Every file and symlink below a directory, as plain system calls tell; `.git` is nobody's file."""
    found: Files = {}
    root = os.fsencode(top)
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if name != b".git"]
        links = [name for name in names if os.path.islink(os.path.join(directory, name))]
        for name in (*files, *links):
            path = os.path.join(directory, name)
            info = os.lstat(path)
            if name == b".git":
                continue
            if stat.S_ISLNK(info.st_mode):
                found[os.path.relpath(path, root)] = ("120000", os.readlink(path))
            elif stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, root)] = ("100755" if info.st_mode & 0o100 else "100644", file.read())
    return found


# ---------------------------------------------------------------------------------------------------- ordinary users
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory as the HOME of whoever may write there, with the git configuration of these tests."""
    shutil.copy(Path.home() / ".gitconfig", home)
    (home / ".gitconfig").chmod(0o666)
    for name in ("HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.chdir(home)
    return home


def as_ordinary_user(act: Callable[[], None]) -> None:
    """Runs `act` in a child without the powers of root; without root as it is.

    The child can read neither the Python of these tests nor their files, so what it needs is imported before.
    """
    if os.geteuid() != 0:
        act()
        return
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            act()
        except BaseException:  # noqa: BLE001 - whatever it is, the parent shall say it
            os.write(writing, traceback.format_exc().encode()[-60000:])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        failure = pipe.read().decode()
    os.waitpid(child, 0)
    assert not failure, failure


@dataclass(frozen=True)
class Actor:
    """Who makes a repository below `top`, works in it and captures: whoever runs the tests, or an ordinary user."""

    top: Path
    ordinary: bool

    def __call__(self, act: Callable[[Path], None]) -> None:
        """Acts below `top`."""
        if self.ordinary:
            as_ordinary_user(lambda: act(self.top))
        else:
            act(self.top)


def codes(scan: Scan | Audit) -> set[str]:
    """The codes of all findings."""
    return {finding.code for finding in scan.findings}
