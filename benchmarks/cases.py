"""What is compared with plain git: spawning, looking, listing."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Case, Side, Work
from benchmarks.lab import Lab, data

_FOR_EVER = ("sleep", "100000")


def again(work: Callable[[], object]) -> Side:
    """A side without anything to prepare or tidy up."""

    @contextmanager
    def side() -> Iterator[Work]:
        yield work

    return side


def spawn(lab: Lab, jobs: int, *, running: bool = False, opening: bool = False) -> Case:
    """N workspaces ready to work in, or with N workers at work; `opening`: and what only the first spawn has to do."""
    command = _FOR_EVER if running else ()
    if not opening:
        lab.keep_open()

    @contextmanager
    def plain() -> Iterator[Work]:
        places = [lab.root / "plain" / f"w{next(lab.numbers)}" for _ in range(jobs)]

        def work() -> None:
            for place in places:
                lab.git("worktree", "add", "--quiet", "--detach", str(place))

        yield work
        for place in places:
            lab.git("worktree", "remove", "--force", str(place))

    @contextmanager
    def by_command() -> Iterator[Work]:
        answers: list[bytes] = []
        words = ["spawn", "--json", "--count", str(jobs), *(["--", *command] if command else [])]
        yield lambda: answers.append(lab.wt(*words))
        lab.discard([job["jobId"] for job in data(answers[0])["jobs"]])

    @contextmanager
    def by_call() -> Iterator[Work]:
        made: list[str] = []
        yield lambda: made.extend(lab.spawn(jobs, command))
        lab.discard(made)

    ours = {"wt spawn" + (" -- CMD" if command else ""): by_command, "Boss.spawn": by_call}
    return Case(
        ("first spawn" if opening else "spawn") + (", workers running" if command else ""),
        f"{jobs} × {lab.files:,} files",
        {"git worktree add --detach": plain},
        ours,
    )


def look(lab: Lab, job: str, changed: int) -> Case:
    """What a worker changed so far: a snapshot of its files, and the change set."""
    tree = lab.workspace(job)
    lab.change(tree, changed)
    scratch = lab.root / f"add{changed}"
    (scratch / "objects").mkdir(parents=True)
    index = Path(os.fsdecode(lab.git("rev-parse", "--absolute-git-dir", cwd=tree)).strip()) / "index"
    env = {
        "GIT_INDEX_FILE": str(scratch / "index"),
        "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(lab.repo / ".git/objects"),
    }

    @contextmanager
    def add() -> Iterator[Work]:
        shutil.copy2(index, scratch / "index")
        yield lambda: lab.git("add", "--all", cwd=tree, env=env)

    boss = lab.boss

    def called() -> None:
        assert len(boss.diff(job).change_set.files) == changed

    return Case(
        "snapshot and change set",
        f"{changed:,} of {lab.files:,} files changed",
        {"git status": again(lambda: lab.git("status", cwd=tree)), "git add -A": add},
        {"wt diff": again(lambda: lab.wt("diff", job)), "Boss.diff": again(called)},
    )


def looks(lab: Lab, changes: Sequence[int]) -> Iterator[Case]:
    """The same with more and more changes in one workspace."""
    (job,) = lab.spawn()
    for changed in sorted(changes):
        if changed <= lab.files:
            yield look(lab, job, changed)
    lab.discard([job])


def gates(lab: Lab) -> Case:
    """One finished job that passes a check which does nothing; taken back after each round."""
    boss = lab.boss
    job = boss.spawn(workflow="gate")
    assert job.workspace
    lab.edit(Path(job.workspace), 0, 1)
    boss.settle(job.job_id)
    merge = ["merge", "--workflow", "gate", "--json"]

    def by(*words: str) -> Side:
        @contextmanager
        def side() -> Iterator[Work]:
            answers: list[bytes] = []
            yield lambda: answers.append(lab.wt(*merge, *words))
            assert data(answers[0])["landed"]
            lab.wt("undo")

        return side

    return Case(
        "check gate",
        f"1 result, {lab.files:,} files",
        {"wt merge": by("--no-check")},
        {
            "wt merge --check true": by("--check", "true", "--no-cache"),
            "the same, known from before": by("--check", "true"),
            "sh -c true": again(lambda: lab.run("sh", "-c", "true")),
        },
    )


def listing(lab: Lab, recorded: int) -> Case:
    """Where many recorded jobs stand."""
    lab.record(recorded)

    @contextmanager
    def afresh() -> Iterator[Work]:
        for kept in lab.repo.glob(".git/wt-state/workflows/*/finished.*"):
            kept.unlink()
        yield lambda: lab.wt("list")
        lab.wt("list")
        lab.wt("list", "--json")

    return Case(
        "list",
        f"{recorded:,} jobs, {lab.files:,} files",
        {"git status": again(lambda: lab.git("status"))},
        {
            "wt list": again(lambda: lab.wt("list")),
            "wt status": again(lambda: lab.wt("status")),
            "wt list --json": again(lambda: lab.wt("list", "--json")),
            "wt list, every record read": afresh,
            "python -c pass": again(lambda: lab.run(sys.executable, "-c", "pass")),
        },
        more_rounds=3,
    )


def helping(lab: Lab) -> Case:
    """The time a command takes that does nothing."""
    return Case(
        "start of the command",
        f"{lab.files:,} files",
        {"git status": again(lambda: lab.git("status"))},
        {"wt --help": again(lambda: lab.wt("--help")), "wt version": again(lambda: lab.wt("version"))},
        more_rounds=3,
    )
