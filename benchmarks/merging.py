"""What merging many results and looking ahead costs: against as many merges by git, in a checkout or in memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

from benchmarks.cases import again
from benchmarks.harness import Case, Work
from benchmarks.lab import Lab, data

Edit = Callable[[Path, int], None]


def results(lab: Lab, workflow: str, jobs: int, edit: Edit) -> tuple[list[str], list[str]]:
    """N finished jobs, and branches of the twin with the same changes."""
    boss = lab.boss
    branches = [f"{workflow}-{worker}" for worker in range(jobs)]
    made: list[str] = []
    for worker, branch in enumerate(branches):
        lab.git("checkout", "--quiet", "-B", branch, "origin/main", cwd=lab.twin)
        edit(lab.twin, worker)
        lab.git("add", "--all", "--force", cwd=lab.twin)
        lab.git("commit", "--quiet", "-m", branch, cwd=lab.twin)
        job = boss.spawn(workflow=workflow)
        assert job.workspace
        made.append(job.job_id)
        edit(Path(job.workspace), worker)
        boss.settle(job.job_id)
        boss.clean(unlanded=True)
    lab.sweep()
    return made, branches


def merges(lab: Lab, jobs: int) -> Iterator[Case]:
    """N finished jobs onto the branch; taken back after each round."""
    boss = lab.boss
    workflow = f"merge-{jobs}"
    made, branches = results(lab, workflow, jobs, lambda tree, worker: lab.edit(tree, worker, jobs))

    @contextmanager
    def plain() -> Iterator[Work]:
        lab.git("checkout", "--quiet", "main", cwd=lab.twin)
        lab.git("reset", "--quiet", "--hard", "origin/main", cwd=lab.twin)

        def work() -> None:
            for branch in branches:
                lab.git("merge", "--quiet", "--no-ff", "-m", branch, branch, cwd=lab.twin)

        yield work

    @contextmanager
    def by_command() -> Iterator[Work]:
        answers: list[bytes] = []
        yield lambda: answers.append(lab.wt("merge", "--workflow", workflow, "--json"))
        assert [step["outcome"] for step in data(answers[0])["steps"]] == ["landed"] * jobs
        lab.wt("undo")

    @contextmanager
    def by_call() -> Iterator[Work]:
        yield lambda: boss.merge(workflow=workflow)
        boss.undo()

    yield Case(
        "merge",
        f"{jobs} results of {lab.edits + 1} files, {lab.files:,} files",
        {f"{jobs} × git merge": plain},
        {"wt merge": by_command, "Boss.merge": by_call},
    )
    boss.drop(*made)  # and with the last of them its workflow is closed


def overlaps(lab: Lab, jobs: int) -> Iterator[Case]:
    """Whether N finished jobs merge with each other and with the branch: all meet in one file, or none anywhere."""
    common = lab.names[0]
    lines = [f"line {number}\n" for number in range(jobs * 10)]

    def meet(tree: Path, worker: int) -> None:
        changed = [*lines[: worker * 10], f"worker {worker}\n", *lines[worker * 10 + 1 :]]
        (tree / common).write_text("".join(changed), encoding="utf-8")

    def part(tree: Path, worker: int) -> None:
        lab.edit(tree, worker, jobs)

    (lab.repo / common).write_text("".join(lines), encoding="utf-8")
    lab.git("commit", "--quiet", "--all", "-m", "a file for all")
    lab.git("fetch", "--quiet", cwd=lab.twin)
    for about, edit in (("all in one file", meet), ("all apart", part)):
        workflow = f"overlap-{edit.__name__}-{jobs}"
        made, branches = results(lab, workflow, jobs, edit)

        def plain(branches: list[str] = branches) -> None:
            for one, other in combinations(branches, 2):
                lab.git("merge-tree", "--write-tree", one, other, cwd=lab.twin)

        def called(made: list[str] = made) -> None:
            assert not lab.boss.overlap(*made).conflicts

        pairs = jobs * (jobs - 1) // 2
        yield Case(
            "overlap",
            f"{jobs} jobs, {about}, {lab.files:,} files",
            {f"{pairs:,} × git merge-tree": again(plain)},
            {"Boss.overlap": again(called)},
        )
        lab.boss.drop(*made)
