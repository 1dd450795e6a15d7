"""`python -m benchmarks.run`: spawn, diff, merge and list against plain git on the same tree.

    python -m benchmarks.run --files 5000 --jobs 16 --rounds 7
    python -m benchmarks.run --tree ../cpython/Lib --cases merge --jobs 64

The table goes to standard output, progress to standard error. Everything is made below one temporary directory, which
is removed at the end; the user's git configuration is not read.
"""

import argparse
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import Case, Outcome, Side, Work, generate, machine, measure, table, transplant

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


@dataclass
class Lab:
    """A repository made for this run, and ways to act on it."""

    root: Path
    files: int
    jobs: int
    edits: int
    numbers: Iterator[int] = field(default_factory=itertools.count)
    workspaces: dict[str, Path] = field(default_factory=dict)
    """Of every job spawned here, by its id."""

    def git(self, *args: str, cwd: Path | None = None) -> bytes:
        """Run plain git; in the main repository unless told where."""
        return subprocess.run(["git", *args], cwd=cwd or self.repo, capture_output=True, check=True).stdout

    def wt(self, *args: str, allow: tuple[int, ...] = (0,)) -> Any:
        """`data` of one `wt ARGS --json`."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "worktrees", *args, "--json"], cwd=self.repo, capture_output=True, check=False
        )
        if done.returncode not in allow:
            raise SystemExit(f"wt {' '.join(args)}: {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}")
        return json.loads(done.stdout)["data"]

    @property
    def repo(self) -> Path:
        """The repository that `wt` works in."""
        return self.root / "repo"

    @property
    def twin(self) -> Path:
        """Its clone, for the plain side of merges."""
        return self.root / "twin"

    def make(self, tree: Path | None) -> None:
        """The repository of `files` files and its twin."""
        self.repo.mkdir()
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

    def by_command(self, side: Side) -> dict[str, Side]:
        """Our side through the command line, if this checkout has one."""
        found = importlib.util.find_spec("worktrees.cli")
        return {"wt": side} if found and found.origin else {}

    def spawn(self, count: int) -> list[str]:
        """Open that many workspaces with one `wt spawn`; the ids of their jobs."""
        jobs = self.wt("spawn", "--count", str(count))["jobs"]
        self.workspaces |= {job["jobId"]: Path(job["workspace"]) for job in jobs}
        return [job["jobId"] for job in jobs]

    def discard(self, jobs: list[str]) -> None:
        """End open jobs and remove their workspaces."""
        for job in jobs:
            self.wt("settle", job, allow=(0, 4))
        self.wt("drop", *jobs)

    def record(self, count: int) -> None:
        """Put `count` finished jobs on record, all like one that really ran."""
        self.spawn(1)  # stays open, and so keeps the workflow open
        (model,) = self.spawn(1)
        self.wt("settle", model)
        (place,) = (self.repo / ".git/wt-state/workflows").glob(f"*/jobs/{model}")
        for number in range(count):
            name = f"{model[:-5]}{number:05}"
            copy = place.with_name(name)
            copy.mkdir()
            for file in place.iterdir():
                if file.is_file():
                    (copy / file.name).write_bytes(file.read_bytes().replace(model.encode(), name.encode()))

    def edit(self, tree: Path, worker: int) -> None:
        """The work of worker number `worker`: a line more in `edits` files that are its alone, and a new file."""
        mine = self.names[worker :: self.jobs][: self.edits]
        for name in mine:
            with (tree / name).open("ab") as file:
                file.write(f"\n# worker {worker}\n".encode())
        (tree / f"worker{worker:04}.txt").write_text(f"from worker {worker}\n", encoding="utf-8")


def spawn(lab: Lab) -> Case:
    """N workspaces ready to work in."""
    size = f"{lab.jobs} jobs, {lab.files} files"

    @contextmanager
    def plain() -> Iterator[Work]:
        places = [lab.root / "plain" / f"w{next(lab.numbers)}" for _ in range(lab.jobs)]

        def work() -> None:
            for place in places:
                lab.git("worktree", "add", "--quiet", "--detach", str(place))

        yield work
        for place in places:
            lab.git("worktree", "remove", "--force", str(place))

    @contextmanager
    def ours() -> Iterator[Work]:
        jobs: list[str] = []
        yield lambda: jobs.extend(lab.spawn(lab.jobs))
        lab.discard(jobs)

    return Case("spawn", size, "git worktree add --detach", plain, lab.by_command(ours))


def diff(lab: Lab) -> Case:
    """What one worker changed."""
    place = lab.root / "plain" / "diff"

    @contextmanager
    def plain() -> Iterator[Work]:
        if not place.exists():
            lab.git("worktree", "add", "--quiet", "--detach", str(place))
            lab.edit(place, 0)
        yield lambda: lab.git("status", "--porcelain=v2", "-z", "--untracked-files=all", cwd=place)

    jobs: list[str] = []

    @contextmanager
    def ours() -> Iterator[Work]:
        if not jobs:
            jobs.extend(lab.spawn(1))
            lab.edit(lab.workspaces[jobs[0]], 0)
        yield lambda: lab.wt("diff", jobs[0])

    return Case("diff", f"{lab.edits} of {lab.files} files changed", "git status", plain, lab.by_command(ours))


def merge(lab: Lab) -> Case:
    """N finished jobs onto the branch."""

    @contextmanager
    def plain() -> Iterator[Work]:
        branches = [f"side{worker}" for worker in range(lab.jobs)]
        for worker, branch in enumerate(branches):
            if lab.git("branch", "--list", branch, cwd=lab.twin):
                continue
            lab.git("checkout", "--quiet", "-B", branch, "origin/main", cwd=lab.twin)
            lab.edit(lab.twin, worker)
            lab.git("add", "--all", "--force", cwd=lab.twin)
            lab.git("commit", "--quiet", "-m", branch, cwd=lab.twin)
        lab.git("checkout", "--quiet", "main", cwd=lab.twin)
        lab.git("reset", "--quiet", "--hard", "origin/main", cwd=lab.twin)

        def work() -> None:
            for branch in branches:
                lab.git("merge", "--quiet", "--no-ff", "-m", branch, branch, cwd=lab.twin)

        yield work

    return Case(
        "merge", f"{lab.jobs} jobs, {lab.edits} edits each, {lab.files} files", "git merge, once per job", plain
    )


def listing(lab: Lab, recorded: int) -> Case:
    """The state of many recorded jobs."""

    @contextmanager
    def plain() -> Iterator[Work]:
        yield lambda: lab.git("status", "--porcelain=v2", "-z")

    known: list[int] = []

    @contextmanager
    def ours() -> Iterator[Work]:
        if not known:
            lab.record(recorded)
            known.append(len(lab.wt("list", "--all")["jobs"]))
            assert known[0] >= recorded, known
        yield lambda: lab.wt("list", "--all")

    return Case("list", f"{recorded} jobs, {lab.files} files", "git status", plain, lab.by_command(ours))


def seal(root: Path) -> None:
    """Nothing of the user's configuration takes part, here or in any process started from here."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "WT_", "XDG_"))]:
        del os.environ[name]
    (root / ".gitconfig").write_text(GIT_CONFIG, encoding="utf-8")
    os.environ |= {
        "HOME": str(root),
        "XDG_STATE_HOME": str(root / "state"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(root / ".gitconfig"),
        "LC_ALL": "C.UTF-8",
    }


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tree", type=Path, help="a real source tree to copy; generated files otherwise")
    parser.add_argument("--files", type=int, help="files in the repository (default: 2000, or all of --tree)")
    parser.add_argument("--jobs", type=int, default=8, help="jobs to spawn and merge")
    parser.add_argument("--edits", type=int, default=5, help="files that each worker edits")
    parser.add_argument("--recorded", type=int, default=1000, help="jobs on record for `list`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1, help="rounds before the recorded ones")
    parser.add_argument("--cases", default="spawn,diff,merge,list", help="comma separated")
    parser.add_argument("--lab", type=Path, help="directory to work in (default: the system's temporary directory)")
    parser.add_argument("--json", type=Path, help="also write every measurement to this file")
    options = parser.parse_args()

    tree = options.tree.resolve() if options.tree else None
    files = options.files if options.files is not None else (0 if tree else 2000)
    report = options.json.resolve() if options.json else None
    root = Path(tempfile.mkdtemp(prefix="wt-bench-", dir=options.lab))
    try:
        seal(root)
        lab = Lab(root, files, options.jobs, options.edits)
        lab.make(tree)
        cases = {
            "spawn": lambda: spawn(lab),
            "diff": lambda: diff(lab),
            "merge": lambda: merge(lab),
            "list": lambda: listing(lab, options.recorded),
        }
        outcomes: list[Outcome] = [
            measure(cases[name](), options.rounds, options.warmup, say=lambda line: print(line, file=sys.stderr))
            for name in options.cases.split(",")
        ]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"{machine()}; {options.rounds} rounds\n\n{table(outcomes)}")
    if report:
        rows = [{"case": o.case.name, "size": o.case.size, "seconds": o.seconds} for o in outcomes]
        report.write_text(json.dumps({"machine": machine(), "outcomes": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
