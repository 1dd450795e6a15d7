"""The guard for people and hosts without a worker's environment: put in force, looked at, taken away.

What is written and why is `worktrees.guard.installed`'s; here is who may ask, and that no running job's audit takes
our own change for a worker's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from worktrees import guard, isolation, jobs
from worktrees.boss.footing import Footing
from worktrees.guard import installed
from worktrees.jobs import expectations
from worktrees.model import GuardedWorkspace, Hooks

if TYPE_CHECKING:
    from worktrees.guard.installed import Change
    from worktrees.model import Job

_LIVE = ("starting", "running", "settling", "open")


class Guarding(Footing):
    """`hooks install`, `hooks status`, `hooks uninstall`."""

    def hooks_status(self) -> Hooks:
        """Which guard is in force where, and what a commit of the caller's would meet; a worker sees its own job."""
        self.notices.clear()
        return self._hooks([], dry_run=False)

    def install_hooks(self, *, dry_run: bool = False) -> Hooks:
        """Lets every git in the workspace of a job that is not done ask the guard, whatever its environment.

        Git in the main work tree and in other people's worktrees behaves as before; the user's hooks still run.
        Raises: Refused `hooks-elsewhere`, `hooks-damaged`; Busy while another git changes the configuration.
        """
        self._boss_only("hooks install")
        if not dry_run:
            self._mend()
            self.state.prepare()
        return self._change(installed.installing(self.repo, self.state.root), dry_run=dry_run)

    def uninstall_hooks(self, *, dry_run: bool = False) -> Hooks:
        """Takes all of it away again, to the byte. Raises: as `install_hooks`."""
        self._boss_only("hooks uninstall")
        return self._change(installed.uninstalling(self.repo, self.state.root), dry_run=dry_run)

    def _change(self, changes: list[Change], *, dry_run: bool) -> Hooks:
        if changes and not dry_run:
            common = self.repo.common_dir
            files = {os.path.relpath(change.path, common): change.state for change in changes}
            config = next((change.content for change in changes if change.path == common / "config"), None)
            expectations.announce(self.state, self._live(), files, config)
            installed.carry_out(changes, self.repo, self.state.root)
        return self._hooks(changes, dry_run=dry_run)

    def _live(self) -> list[Job]:
        if not self.state.exists():
            return []
        return [job for job in jobs.load_all(self.state) if job.state in _LIVE and job.workspace]

    def _hooks(self, changes: list[Change], *, dry_run: bool) -> Hooks:
        standing = installed.standing(self.repo, self.state.root)
        workspaces = [self._guarded(job) for job in self._live() if self.worker in (None, job.job_id)]
        here = next((found for found in workspaces if found.job_id == self.worker), None)
        armed = guard.is_armed(os.environ, self.repo.common_dir, self.state.root)
        if self.worker and jobs.load(self.state, self.worker).isolation == "private":
            armed = False  # its repository is its own, and the guard is for the boss's
        refused_by: list[Literal["environment", "installed"]] = ["environment"] if armed else []
        if here is not None and here.installed:
            refused_by.append("installed")
        return Hooks(
            installed=standing.installed,
            config=os.fspath(standing.config),
            directory=os.fspath(standing.directory),
            former=standing.former,
            chained=standing.chained,
            dry_run=dry_run,
            changed=[os.fspath(change.path) for change in changes],
            workspaces=workspaces,
            job_id=self.worker,
            commit="refused" if refused_by else "passes",
            refused_by=refused_by,
        )

    def _guarded(self, job: Job) -> GuardedWorkspace:
        workspace = isolation.workspace_of(self.place, job.job_id)
        git_dir = workspace.git_dir if workspace else None
        return GuardedWorkspace(
            job_id=job.job_id,
            name=job.name,
            workspace=job.workspace,
            # An open job's caller arms himself: `wt setup --env`.
            environment=job.command is not None,
            installed=git_dir is not None and installed.in_force(git_dir, self.state.root),
        )
