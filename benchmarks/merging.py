"""What merging many results and looking ahead costs: against as many merges by git, in a checkout or in memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

from benchmarks.cases import again
from benchmarks.harness import Case, Work
from benchmarks.lab import Lab, data

Edit = Callable[[Path, int], None]


def results(lab: Lab, workflow: str, jobs: int, edit: Edit) -> tuple[list[str], list[str]]:
    """N finished jobs, and branches of the twin with the same trees.

    The workspaces have only the directories that are edited; a result is a whole tree all the same, and making a
    hundred of them from a large one would take longer than all that is measured.
    """
    boss = lab.boss
    edited = {str(Path(name).parent) for name in lab.names[: lab.edits * jobs]}
    sparse = sorted(edited - {"."})
    branches = [f"{workflow}-{worker}" for worker in range(jobs)]
    made: list[str] = []
    (lab.twin / ".git/objects/info/alternates").write_text(f"{boss.place.store.path / 'objects'}\n", encoding="utf-8")
    for worker, branch in enumerate(branches):
        job = boss.spawn(workflow=workflow, sparse=sparse)
        assert job.workspace
        edit(Path(job.workspace), worker)
        done = boss.settle(job.job_id)
        boss.clean(unlanded=True)
        made.append(job.job_id)
        words = ("commit-tree", f"{done.snapshot}^{{tree}}", "-p", "origin/main", "-m", branch)
        commit = lab.git(*words, cwd=lab.twin).decode().strip()
        lab.git("branch", "--force", branch, commit, cwd=lab.twin)
    lab.sweep()
    return made, branches


def merges(lab: Lab, counts: Sequence[int]) -> Iterator[Case]:
    """N finished jobs onto the branch; taken back after each round. Fewer are the first of the same jobs."""
    most = max(counts)
    made, branches = results(lab, f"merge-{most}", most, lambda tree, worker: lab.edit(tree, worker, most))
    for count in counts:
        yield _merge(lab, made[:count], branches[:count])
    lab.boss.drop(*made)  # and with the last of them its workflow is closed


def _merge(lab: Lab, made: list[str], branches: list[str]) -> Case:
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
        yield lambda: answers.append(lab.wt("merge", *made, "--json"))
        assert [step["outcome"] for step in data(answers[0])["steps"]] == ["landed"] * len(made)
        lab.wt("undo")

    @contextmanager
    def by_call() -> Iterator[Work]:
        boss = lab.boss
        yield lambda: boss.merge(*made)
        boss.undo()

    return Case(
        "merge",
        f"{len(made)} results of {lab.edits + 1} files, {lab.files:,} files",
        {f"{len(made)} × git merge": plain},
        {"wt merge": by_command, "Boss.merge": by_call},
    )


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
