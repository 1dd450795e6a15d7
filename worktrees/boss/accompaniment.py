"""What of the boss's own goes along with a landing: his signature on its commits, his hook after it.

Both start programs that git's configuration names, so neither does while a worker may have written that configuration:
the merge is refused, with nothing moved, until the boss has looked (`jobs.trust`). Hooks run only when asked for, and
only `post-merge`: it comes after the landing, in the checkout, and cannot take it back. What could forbid a merge is a
check (`--check`), which sees the merged files before anything moves; git's `pre-merge-commit` and `commit-msg` expect
them in the checkout, where they are not yet. A hook that lies in the tree is the worker's where the merge touches it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from worktrees.boss.checking import Checking
from worktrees.errors import Refused
from worktrees.jobs import trust
from worktrees.render.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worktrees.git import Repo
    from worktrees.landing import Target
    from worktrees.model import Job, MergePlan, MergeSpec

_HOOK = "post-merge"


class Accompaniment(Checking):
    """The signature and the hook of one merge."""

    def _signed(self, plan: MergePlan, jobs: Sequence[Job], spec: MergeSpec) -> MergePlan:
        """The plan as it lands: signed where the user's configuration, or the call, says so.

        Raises: Refused `signing-failed`, `untrusted-settings`.
        """
        wanted = self.repo.own_setting("commit.gpgSign", "bool") == "true" if spec.gpg_sign is None else spec.gpg_sign
        if not wanted or spec.no_commit:
            return plan
        self._refuse_after_damage("the commits are to be signed", "unsigned: wt merge --no-gpg-sign")
        from worktrees.merge.signing import signed

        # What a job that ran again started from is a result of ours.
        known = [job.baseline.commit for job in jobs if job.rerun_of is None]
        return signed(self.repo, self.place.store, plan, known=known)

    def _refuse_hooks(self, target: Target, plan: MergePlan) -> None:
        """Raises Refused `untrusted-settings`, or `hooks-touched` where the merge touches what would run."""
        self._refuse_after_damage("hooks are to run", "without them: wt merge")
        if target.repo is None:
            return
        places = _places(target.repo)
        store = self.place.store
        words = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", plan.before, plan.after)
        touched = [os.fsdecode(path) for path in store.git(*words).records]
        found = [path for path in touched if any(_meet(path, place) for place in places)]
        if found:
            raise Refused(
                f"the merge touches {listed(found)}, where the hooks lie that are to run",
                code="hooks-touched",
                hint="look at them, land without --run-hooks, then: git hook run post-merge -- 0",
                details={"paths": found},
            )

    def _run_hook(self, target: Target, narrate: Callable[[str], object]) -> None:
        """Runs `post-merge` where the branch is checked out; that it fails changes nothing, as with git."""
        if target.repo is None:
            self._notice("hook-not-run", f"`{target.branch}` is checked out nowhere, so `{_HOOK}` did not run")
            return
        from worktrees.git.hooks import run_hook

        done = run_hook(target.repo, _HOOK, "0")
        for line in done.stderr.decode("utf-8", "backslashreplace").splitlines():
            narrate(line)
        if done.status != 0:
            self._notice("hook-failed", f"the merge has landed, and `{_HOOK}` ended with status {done.status}")

    def _refuse_after_damage(self, what: str, otherwise: str) -> None:
        words = trust.damaging(self.place)
        if words:
            raise Refused(
                f"{what}, and {listed(words)} changed configuration, hooks or the like: nothing that they name runs",
                code="untrusted-settings",
                hint=f"look at it: wt result {words[0]}; then: wt workflow close, or {otherwise}",
                details={"jobs": words},
            )


def _places(repo: Repo) -> set[str]:
    """What of the work tree hooks run from, relative to its top: as it is named, and where links lead.

    Where they lie in a directory of another one, as `.husky/_` does, they call what is beside them. Of a command that
    configuration names, every word may be a path.
    """
    from worktrees.git.hooks import hooks_directory, named_commands

    directory, top = os.path.normpath(hooks_directory(repo)), os.fspath(repo.work_tree or "/")
    real = os.path.realpath(top)
    named = [os.path.relpath(directory, top)]
    named += [os.path.relpath(os.path.realpath(path), real) for path in (directory, os.path.join(directory, _HOOK))]
    for word in {word for command in named_commands(repo, _HOOK) for word in _words(command)}:
        path = os.path.join(top, word)
        named += {os.path.relpath(path, top), os.path.relpath(os.path.realpath(path), real)} - {"."}
    inside = {path for path in named if path.split("/")[0] != ".."}
    return inside | {os.path.dirname(path) for path in inside} - {""}


def _words(command: str) -> list[str]:
    """What of a shell's command may be a path: its words, and what options and variables are set to."""
    return [word for word in re.split(r"[\s;&|<>(){}'\"`=]+", command) if word and not word.startswith("-")]


def _meet(one: str, other: str) -> bool:
    """Whether one path is the other or above it, as `.` is; where case may make no difference, it makes none."""
    if other == ".":
        return True
    first, second = f"{one.casefold()}/", f"{other.casefold()}/"
    return first.startswith(second) or second.startswith(first)
