"""What of a merge has to pass a check before it lands: which commands, and what becomes of a plan that does not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from worktrees import setup
from worktrees.boss.footing import Footing
from worktrees.errors import Refused
from worktrees.render.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worktrees.gate import Gate
    from worktrees.model import Check, JobId, MergePlan, MergeSpec, Step


class Checking(Footing):
    """The gate of one merge."""

    def is_checked(self) -> bool:
        """Whether the settings, or the repository's file, have merges checked."""
        return any(setup.checks_to_run(self.repo, self.settings))

    def _gate(
        self, spec: MergeSpec, narrate: Callable[[str], object], hear: Callable[[bytes], object], *, dry_run: bool
    ) -> Gate | None:
        """The gate a merge goes through, None for none; commands of the call take the place of all others.

        Raises: Refused `check-unapproved` for a command of the repository file that the user has not approved.
        """
        commands, waiting = setup.checks_to_run(self.repo, self.settings) if spec.check is None else (spec.check, [])
        if waiting and not dry_run:
            raise Refused(
                f"{listed(waiting)} of `{setup.SETUP_FILE}` is to check merges, and you have not approved it",
                code="check-unapproved",
                hint="wt setup --approve, or without a check: wt merge --no-check",
                details={"commands": waiting},
            )
        if not commands and not waiting:
            return None
        from worktrees.gate import Gate, Rules, Told, Walls
        from worktrees.jobs import confinement

        rules = Rules(
            commands=[*commands, *waiting],
            timeout_seconds=spec.check_timeout_seconds or self.settings.check_timeout_seconds,
            retry=self.settings.check_retry if spec.check_retry is None else spec.check_retry,
            cache=spec.check_cache,
            deadline=None if spec.check_within_seconds is None else time.monotonic() + spec.check_within_seconds,
        )
        walls = Walls(confinement.level(self.state, self.settings), confinement.wrapped)
        return Gate(self.place, self.settings, rules, walls, Told(narrate, hear))

    def _through(
        self,
        gate: Gate,
        plan: MergePlan,
        again: Callable[[Sequence[JobId]], MergePlan] | None,
        on_red: Literal["stop", "skip"],
    ) -> tuple[MergePlan, Check]:
        """A plan as it may land, whole, in part or not at all, and what the gate said of it."""
        passed, verdict = gate.judge(plan, again)
        flaky = {(run.command, run.tree) for run in gate.runs if run.exit_code} & {
            (run.command, run.tree) for run in gate.runs if not run.exit_code
        }
        for command, _ in flaky:
            self._notice("flaky-check", f"`{command}` failed and then passed on the same files")
        failed = set(verdict.culprits)
        if not failed and not verdict.ground_fails:
            return passed, gate.answer(verdict)
        if on_red == "stop" or verdict.ground_fails:
            steps = [_stopped(step, failed) for step in plan.steps]
            return plan.model_copy(update={"after": plan.before, "steps": steps}), gate.answer(verdict)
        kept = {step.job_id: step for step in passed.steps}
        steps = [kept.get(step.job_id) or _stopped(step, failed) for step in plan.steps]
        return passed.model_copy(update={"steps": steps}), gate.answer(verdict)


def _stopped(step: Step, failed: set[JobId]) -> Step:
    """A step that does not land because of the gate."""
    if step.job_id in failed:
        return step.model_copy(update={"outcome": "failed-check", "commit": None, "tree": None})
    if step.outcome == "landed":
        return step.model_copy(update={"outcome": "skipped", "commit": None, "tree": None})
    return step
