"""The check gate: what is about to land runs through the caller's commands first, and only what passed lands.

On the floor of the things that take time: it runs commands for minutes, asks for plan after plan, and stands between
the strategies that make a plan and the landing that moves the branch; it moves nothing itself.

    search     who is to blame, pure
    results    what was run, and what need not be run again

One run: the merged commit is copied into the user's repository (unreachable, for git to collect unless it lands), a
worktree of the pool is moved to it, made usable as a worker's is (includes, links, submodules, the approved setup
commands), and the command run there by a shell. It runs code that workers wrote, so it runs as a worker: with a
worker's environment and guard, confined where a worker would be, in a session of its own, and nothing of it is alive
when the run is over, whatever ended it. Each command starts from the files as merged: what one leaves behind, the next
does not find.

Order of what is durable: the run is noted, then its outcome kept, then the next one starts. Killed at any moment, the
pool is put right by `isolation.recover`, and the next merge goes on from the outcomes there are.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from worktrees import guard, setup
from worktrees.errors import GitFailed, Refused
from worktrees.gate import results
from worktrees.gate.search import Verdict, search
from worktrees.isolation import pool
from worktrees.isolation.trash import discard
from worktrees.model import Check, CheckRun, JobId, MergePlan, Oid, Step
from worktrees.runner import Attended, attend

if TYPE_CHECKING:
    from worktrees.config import Settings
    from worktrees.isolation import Place, Workspace

__all__ = ["Gate", "Rules", "Told", "Walls"]

# What the guard calls the workflow of a process that belongs to none.
_WORKFLOW = "gate"


def _silent(_: Any) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Told:
    """Who is told what: `line` of each step, `output` of every piece that a command prints."""

    line: Callable[[str], object] = _silent
    output: Callable[[bytes], object] = _silent


@dataclass(frozen=True, slots=True)
class Rules:
    """What is checked and how: a red command is run `retry` times more before it is believed.

    `timeout_seconds` is for each run, which fails by it; at the `deadline`, by the monotonic clock, all is given up.
    """

    commands: Sequence[str]
    timeout_seconds: float | None = None
    retry: int = 0
    cache: bool = True
    deadline: float | None = None

    def seconds_left(self) -> float | None:
        """How long the next run may take. Raises: Refused `check-outlasts`."""
        if self.deadline is None:
            return self.timeout_seconds
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Refused(
                "the checks take longer than this call may; nothing has moved, and what has ended is not run again",
                code="check-outlasts",
                hint="wt merge",
            )
        return left if self.timeout_seconds is None else min(left, self.timeout_seconds)


class Enclosing(Protocol):
    """Puts a program behind a wall: its words and its environment."""

    def __call__(
        self,
        place: Place,
        argv: Sequence[str],
        *,
        workspace: Path,
        temporary: Path,
        settings: Settings,
        environment: Mapping[str, str],
    ) -> tuple[list[str], dict[str, str]]:
        """Raises: Refused `sandbox-unavailable`."""


@dataclass(frozen=True, slots=True)
class Walls:
    """What a check is confined by; the floor of jobs knows how."""

    level: str
    around: Enclosing


@dataclass(slots=True)
class Gate:
    """One merge on its way through; asked again with another plan it runs only what it has not run yet."""

    place: Place
    settings: Settings
    rules: Rules
    walls: Walls
    told: Told = field(default_factory=Told)
    runs: list[CheckRun] = field(default_factory=list)
    _known: dict[Oid, bool] = field(default_factory=dict)

    def judge(
        self, plan: MergePlan, again: Callable[[Sequence[JobId]], MergePlan] | None = None
    ) -> tuple[MergePlan, Verdict[JobId]]:
        """The part of a plan that passes, itself a plan, and who is in the way; `again` plans with these jobs only.

        Without `again` a plan passes whole or not at all. Raises: Busy when the pool is; Refused
        `check-outlasts`; StateBroken, GitFailed.
        """
        if again is None:
            good = self._passes(plan, [step.job_id for step in landing(plan)], 0)
            everybody = [step.job_id for step in landing(plan)]
            return plan, Verdict(everybody) if good else Verdict([], everybody)
        plans = {tuple(step.job_id for step in plan.steps): plan}

        def planned(jobs: Sequence[JobId]) -> MergePlan:
            if tuple(jobs) not in plans:
                plans[tuple(jobs)] = again(jobs)
            return plans[tuple(jobs)]

        def together(jobs: Sequence[JobId]) -> list[JobId]:
            return [step.job_id for step in landing(planned(jobs))]

        def passes(jobs: Sequence[JobId], ahead: int) -> bool:
            return self._passes(planned(jobs), jobs, ahead)

        everybody = [step.job_id for step in plan.steps]
        verdict = search(everybody, together=together, passes=passes)
        return planned([job for job in everybody if job not in verdict.culprits]), verdict

    def answer(self, verdict: Verdict[JobId] | None = None) -> Check:
        """What there is to say in the end."""
        return Check(
            command=" && ".join(self.rules.commands),
            runs=list(self.runs),
            culprits=verdict.culprits if verdict else [],
            branch_fails=verdict.ground_fails if verdict else False,
        )

    # ---------------------------------------------------------------------------------------------------------- runs
    def _passes(self, plan: MergePlan, jobs: Sequence[JobId], ahead: int) -> bool:
        steps = landing(plan)
        tree = Oid(steps[-1].tree or "") if steps else self.place.repo.tree_of(plan.before)
        if tree not in self._known:
            names = ", ".join(_title(step) for step in steps) if steps else "the branch as it is"
            number = len(self._known) + 1
            self.told.line(f"check {number}/{number + ahead}: {names}")
            self._known[tree] = all(self._green(command, tree, plan, jobs) for command in self.rules.commands)
        return self._known[tree]

    def _green(self, command: str, tree: Oid, plan: MergePlan, jobs: Sequence[JobId]) -> bool:
        kept = results.Results(self.place.state)
        kept.prepare()
        name = results.key(tree, command, self._circumstances())
        known = kept.recall(name) if self.rules.cache else None
        if known is not None and (known["exitCode"] == 0 or known["tries"] > self.rules.retry):
            run = CheckRun(
                jobs=list(jobs), exit_code=known["exitCode"], seconds=known["seconds"], command=command, tree=tree,
                cached=True, log=known["log"], sandbox=self.walls.level,
            )  # fmt: skip
            self._tell_end(run)
            self.runs.append(run)
            return run.exit_code == 0
        for attempt in range(1, self.rules.retry + 2):
            run = self._run(command, tree, plan, jobs, kept)
            self._tell_end(run)
            if run.timed_out:
                self.rules.seconds_left()
            self.runs.append(run)
            kept.note(run)
            if not run.timed_out:
                kept.remember(name, run, tries=attempt)
            if run.exit_code == 0:
                break
        return self.runs[-1].exit_code == 0

    def _run(self, command: str, tree: Oid, plan: MergePlan, jobs: Sequence[JobId], kept: results.Results) -> CheckRun:
        place = self.place
        self.told.line(f"$ {command}")
        with pool.lend(place, timeout_seconds=self.settings.lock_timeout_seconds) as slot, kept.log() as log:

            def hear(piece: bytes) -> None:
                log.write(piece)
                self.told.output(piece)

            workspace = self._worktree(slot, plan)
            with _temporary(place, slot) as temporary:
                ended = self._attend(command, workspace, temporary, slot, hear)
        return CheckRun(
            jobs=list(jobs), exit_code=ended.exit_code, seconds=round(ended.seconds, 3), command=command, tree=tree,
            timed_out=ended.timed_out, log=os.fspath(log.path), sandbox=self.walls.level,
        )  # fmt: skip

    def _worktree(self, slot: pool.Slot, plan: MergePlan) -> Workspace:
        """The slot's worktree at what a plan leads to, usable."""
        try:
            workspace = self._bring(slot, plan)
        except GitFailed:  # the user's gc may have taken what we brought, until the worktree's HEAD held it
            workspace = self._bring(slot, plan)
        provision = setup.provide(self.place.repo, workspace.path, plan.after, self.settings)
        for finding in provision.findings:
            self.told.line(f"{finding.path}: {finding.message}")
        return workspace

    def _bring(self, slot: pool.Slot, plan: MergePlan) -> Workspace:
        repo, known = self.place.repo, [plan.before]
        if plan.after != plan.before:
            self.place.store.copy_to(repo, plan.after, known=known)
        workspace = pool.move(self.place, slot, plan.after)
        repo.git("rev-list", "--objects", "--quiet", plan.after, "--not", *known)
        return workspace

    def _attend(
        self, command: str, workspace: Workspace, temporary: Path, slot: pool.Slot, hear: Callable[[bytes], None]
    ) -> Attended:
        """The one place where a check is started, and so where it is confined."""
        place = self.place
        env = guard.arm(
            self._environment(),
            job=slot.name,
            workflow=_WORKFLOW,
            workspace=workspace.path,
            temporary=temporary,
            common_dir=place.repo.common_dir,
            hooks=guard.install_hooks(place.state.root),
        )
        commands, _ = setup.commands_to_run(place.repo, self.settings)
        words, env = self.walls.around(
            place,
            setup.with_setup(["sh", "-c", command], commands),
            workspace=workspace.path,
            temporary=temporary,
            settings=self.settings,
            environment=env,
        )
        return attend(
            words,
            env=env,
            cwd=workspace.path,
            hear=hear,
            timeout_seconds=self.rules.seconds_left(),
            grace_seconds=self.settings.grace_seconds,
            keep=[slot.lock],
        )

    def _environment(self) -> dict[str, str]:
        return guard.base_environment(os.environ, {}, self.settings.pass_environment)

    def _circumstances(self) -> dict[str, Any]:
        repo = self.place.repo
        commands, _ = setup.commands_to_run(repo, self.settings)
        files = setup.included_paths(repo, repo.work_tree) if repo.work_tree else []
        return {
            "setup": commands,
            "environment": results.lasting(self._environment()),
            "links": list(self.settings.link_directories),
            "walls": self.walls.level,
            "brought": results.brought(repo.work_tree, files) if repo.work_tree else [],
        }

    def _tell_end(self, run: CheckRun) -> None:
        how = "passed" if run.exit_code == 0 else f"failed with status {run.exit_code}"
        if run.timed_out:
            how = f"was stopped after {run.seconds:.1f}s: its time was up"
        self.told.line(f"`{run.command}` {how}" + (" (known from before)" if run.cached else f" ({run.seconds:.1f}s)"))


@contextlib.contextmanager
def _temporary(place: Place, slot: pool.Slot) -> Iterator[Path]:
    """A TMPDIR for one run, where workers have theirs."""
    path = place.root / ".tmp" / slot.name
    discard(place, path, place.root)
    while not path.is_dir():
        with contextlib.suppress(
            FileNotFoundError
        ):  # the end of somebody's run took the directory of all away just now
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        yield path
    finally:
        discard(place, path, place.root)
        with contextlib.suppress(OSError):  # others have theirs in it
            path.parent.rmdir()


def landing(plan: MergePlan) -> list[Step]:
    """The steps of a plan that change something."""
    return [step for step in plan.steps if step.outcome == "landed"]


def _title(step: Step) -> str:
    return step.name or step.job_id
