"""A repository made for measuring, and both ways to act on it: plain git, and ours.

Everything is below one directory, the user's configuration takes no part, and no round leaves work behind that would go
on in the next: workspaces are removed in the background, so it is waited for.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import generate, transplant
from worktrees import Boss
from worktrees.model import JobSpec

GIT_CONFIG = """\
[user]
	name = Bench
	email = bench@example.com
[init]
	defaultBranch = main
[gc]
	auto = 0
[maintenance]
	auto = false
"""
_YOUNG_SECONDS = 3.0


def seal(root: Path) -> None:
    """Nothing of the user's configuration takes part, here or in any process started from here."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "WT_", "XDG_"))]:
        del os.environ[name]
    # Where byte code is not kept, every command would be compiled anew each time, which no installed program is.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    (root / ".gitconfig").write_text(GIT_CONFIG, encoding="utf-8")
    os.environ |= {
        "HOME": str(root),
        "XDG_STATE_HOME": str(root / "state"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(root / ".gitconfig"),
        "LC_ALL": "C.UTF-8",
        "WT_K_WRITE": "0",  # as many workers as are asked for
    }


@dataclass
class Lab:
    """A repository of `files` files with two ways to act on it."""

    root: Path
    files: int
    edits: int = 5
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def git(self, *args: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> bytes:
        """Plain git; in the main repository unless told where."""
        return self.run("git", *args, cwd=cwd, env=env)

    def wt(self, *args: str) -> bytes:
        """Our command, as installed."""
        return self.run(str(Path(sys.executable).with_name("wt")), *args)

    def run(self, *words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> bytes:
        """Standard output of a process that must succeed."""
        everything = {**os.environ, **(env or {})}
        return subprocess.run(words, cwd=cwd or self.repo, env=everything, capture_output=True, check=True).stdout

    @property
    def repo(self) -> Path:
        """The repository that `wt` works in."""
        return self.root / "repo"

    @property
    def twin(self) -> Path:
        """Its clone, for the plain side of merges."""
        return self.root / "twin"

    @property
    def boss(self) -> Boss:
        """Our Python API in this process."""
        return Boss(self.repo)

    def make(self, tree: Path | None) -> None:
        """The repository and its twin."""
        self.repo.mkdir(parents=True)
        self.git("init", "--quiet")
        if tree:
            self.files = transplant(tree, self.repo, self.files)
        else:
            generate(self.repo, self.files)
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "-m", "base")
        self.git("gc", "--quiet")
        self.git("clone", "--quiet", "--local", str(self.repo), str(self.twin), cwd=self.root)
        self.names = [os.fsdecode(name) for name in self.git("ls-files", "-z").split(b"\0")[:-1]]
        # Files as young as the index are read again by every command until it is written later than they were.
        time.sleep(1.1)
        for place in (self.repo, self.twin):
            self.git("update-index", "-q", "--refresh", "--force-write-index", cwd=place)

    # --------------------------------------------------------------------------------------------------- our side
    def spawn(self, count: int = 1, command: Sequence[str] = ()) -> list[str]:
        """Jobs by the Python API; their ids."""
        spec = JobSpec(command=list(command) or None)
        return [job.job_id for job in self.boss.spawn_many([spec] * count).jobs]

    def workspace(self, job: str) -> Path:
        """Where a job works."""
        (found,) = self.boss.status(job)
        assert found.workspace
        return Path(found.workspace)

    def keep_open(self) -> None:
        """Leaves one job open, so that the workflow stays open when all others are gone."""
        if not self.boss.list():
            self.spawn()

    def discard(self, jobs: Sequence[str]) -> None:
        """Ends jobs and removes their workspaces, to the last file."""
        boss = self.boss
        for job in boss.status(*jobs):
            if job.state == "open":
                boss.settle(job.job_id)
            elif job.state != "done":
                boss.cancel(job.job_id, force=True)
        boss.wait(*jobs)
        boss.drop(*jobs)
        self.sweep()

    def sweep(self) -> None:
        """Waits until nothing is being removed in the background."""
        trash = [self.repo / ".git/wt-state/trash", *self.root.glob("state/wt/*/.trash")]
        deadline = time.monotonic() + 600
        while any(os.listdir(place) for place in trash if place.is_dir()):
            assert time.monotonic() < deadline, "the trash is not emptied"
            time.sleep(0.02)

    def record(self, count: int) -> None:
        """Puts `count` finished jobs on record, all like one that really ran, and lets them grow old."""
        self.keep_open()
        before = len(self.boss.list())
        (model,) = self.spawn(1, ["true"])
        self.boss.wait(model)
        (place,) = (self.repo / ".git/wt-state/workflows").glob(f"*/jobs/{model}")
        for number in range(count - 1):
            name = f"{model[:-5]}{number:05}"
            copy = place.with_name(name)
            copy.mkdir()
            for file in place.iterdir():
                if file.is_file() and not file.name.startswith("index"):
                    (copy / file.name).write_bytes(file.read_bytes().replace(model.encode(), name.encode()))
        assert len(json.loads(self.wt("list", "--json"))["data"]["jobs"]) == before + count
        time.sleep(_YOUNG_SECONDS)

    # -------------------------------------------------------------------------------------------------- the work
    def edit(self, tree: Path, worker: int, workers: int) -> None:
        """The work of one of many: a line more in `edits` files that are its alone, and a new file."""
        mine = self.names[worker::workers][: self.edits]
        for name in mine:
            with (tree / name).open("ab") as file:
                file.write(f"\n# worker {worker}\n".encode())
        (tree / f"worker{worker:04}.txt").write_text(f"from worker {worker}\n", encoding="utf-8")

    def change(self, tree: Path, count: int) -> None:
        """Makes `count` files of a tree differ from the baseline."""
        for name in self.names[:count]:
            with (tree / name).open("ab") as file:
                file.write(b"# changed\n")


def data(answer: bytes) -> Any:
    """`data` of an answer with `--json`."""
    return json.loads(answer)["data"]
