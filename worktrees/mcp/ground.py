"""Where the tools stand: repositories by directory and by job, who calls, and which call it is.

One process serves many repositories. A tool that starts something takes a `workingDirectory`; one that names jobs
finds their repository by their ids, here first, then in every repository that a server of this user started jobs in.
Those are remembered under `$XDG_STATE_HOME/wt/repositories/`, a file each, so that a job is found after a restart too.

A server that was started by a worker, or in a job's workspace, speaks for that worker for good, whatever directory a
call names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worktrees.boss import Boss
from worktrees.errors import NotFound, Refused, WorktreesError
from worktrees.model import JobId
from worktrees.store import State, write_bytes

if TYPE_CHECKING:
    from worktrees.model import Job

# How hosts name a call: Codex by thread and call, Claude Code by the id of the tool use.
_THREAD, _CALL, _TOOL_USE = "threadId", "callId", "claudecode/toolUseId"


class Ground:
    """The repositories of a server that was started in `here`."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self._remembered: set[str] = set()
        self._worker: JobId | None = None
        with contextlib.suppress(WorktreesError):  # it may be started anywhere
            self._worker = Boss(here).worker

    def boss(self, directory: str | None = None) -> Boss:
        """The verbs for the repository around a directory, by default the one the server was started in."""
        if self._worker is not None:
            boss = Boss(self.here)
            boss.worker = self._worker
            return boss
        place = self.here / os.path.expanduser(directory or ".")
        if not place.is_dir():
            raise Refused(f"no directory `{place}`", code="not-a-repository", hint="name one with workingDirectory")
        return Boss(place)

    def boss_of(self, jobs: Sequence[str], directory: str | None = None) -> Boss:
        """The verbs for the repository that has all these jobs. Raises: NotFound, naming those that are not there."""
        found, missing = self.bosses_of(jobs, directory)
        if missing:
            words = ", ".join(f"`{word}`" for word in missing)
            raise NotFound(f"no job {words}", hint="call wt_list", details={"missing": missing})
        if len(found) > 1:
            raise Refused("the jobs are of several repositories", code="ambiguous", hint="call it once for each")
        return found[0][0] if found else self.boss(directory)

    def bosses_of(
        self, jobs: Sequence[str], directory: str | None = None
    ) -> tuple[list[tuple[Boss, list[str]]], list[str]]:
        """For each repository that has some of these jobs its verbs and their ids; and the words that fit no job."""
        left = list(dict.fromkeys(jobs))
        found: list[tuple[Boss, list[str]]] = []
        for boss in self._candidates(directory):
            here = [(word, self._job(boss, word)) for word in left]
            mine = [job.job_id for _, job in here if job is not None]
            if mine:
                found.append((boss, list(dict.fromkeys(mine))))
            left = [word for word, job in here if job is None]
            if not left:
                break
        return found, left

    def _candidates(self, directory: str | None) -> Iterator[Boss]:
        if directory is not None or self._worker is not None:
            yield self.boss(directory)
            return
        seen = None
        with contextlib.suppress(Refused):
            boss = self.boss()
            seen = boss.repo.common_dir
            yield boss
        for work_tree, common_dir in self._repositories():
            if common_dir != seen and State(common_dir).root.is_dir():
                with contextlib.suppress(WorktreesError):
                    yield Boss(work_tree)

    def _job(self, boss: Boss, word: str) -> Job | None:
        from worktrees import jobs

        if not boss.state.exists():
            return None
        try:
            return jobs.resolve(boss.state, [word])[0]
        except NotFound as error:
            if error.code == "ambiguous":
                raise
            return None

    # ------------------------------------------------------------------------------------------------- remembering
    def remember(self, boss: Boss) -> None:
        """Notes a repository in which jobs were started."""
        common = os.fspath(boss.repo.common_dir)
        if common in self._remembered:
            return
        self._remembered.add(common)
        work_tree = os.fspath(boss.repo.work_tree or common)
        path = _remembered_in() / hashlib.sha256(os.fsencode(common)).hexdigest()[:16]
        with contextlib.suppress(OSError):  # then its jobs are found from inside it only
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_bytes(path, json.dumps({"workTree": work_tree, "commonDir": common}).encode())

    def _repositories(self) -> Iterator[tuple[Path, Path]]:
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(_remembered_in())):
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                    record = json.loads((_remembered_in() / name).read_bytes())
                    yield Path(record["workTree"]), Path(record["commonDir"])


def _remembered_in() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home) / "wt" / "repositories"


def call_key(meta: Mapping[str, Any] | None, tool: str, arguments: Mapping[str, Any]) -> str | None:
    """What a call and its repetition have in common; None from a host that does not name its calls."""
    named = [str((meta or {}).get(name) or "") for name in (_THREAD, _CALL, _TOOL_USE)]
    if not (named[1] or named[2]):
        return None
    return json.dumps([*named, tool, arguments], sort_keys=True, default=str)
