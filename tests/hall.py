"""Jobs without a door: a repository with a workflow, and the jobs in it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kit import PATIENCE_SECONDS, RepoKit, eventually
from worktrees import isolation, jobs
from worktrees.config import Settings
from worktrees.git import discover
from worktrees.jobs.baselines import baseline
from worktrees.model import Event, Job, JobId, JobSpec
from worktrees.store import AliveLock, read_json, start_ticks

SCRIPT = """
import json, os, sys
from pathlib import Path
from tests.hall import Hall
from tests.kit import RepoKit
from worktrees import jobs
hall = Hall(RepoKit(Path(sys.argv[1])), **json.loads(sys.argv[2]))
"""


class Hall:
    """A workflow on a repository, with the settings of its jobs."""

    def __init__(self, repo: RepoKit, **settings: Any) -> None:
        self.repo = repo
        self.changes = settings
        self.settings = Settings(**{"grace_seconds": 60.0, "sandbox": os.environ.get("WT_SANDBOX", "auto"), **settings})
        self.place = isolation.place(discover(repo.path), self.settings)
        self.state = self.place.state
        self.state.prepare()
        self.place.store.ensure(self.place.repo)
        self.workflow = jobs.open_workflow(self.place, baseline(self.place, None, "ignore"), name="main")

    def submit(self, *command: str, **wishes: Any) -> JobId:
        """Records a job; starts nothing."""
        spec = JobSpec(command=list(command) or None, **wishes)
        return jobs.submit(self.place, self.workflow, spec, self.settings, os.environ).job_id

    def spawn(self, *command: str, **wishes: Any) -> JobId:
        """Records a job and starts what may run."""
        job = self.submit(*command, **wishes)
        jobs.admit(self.place, self.workflow)
        return job

    def shell(self, script: str, **wishes: Any) -> JobId:
        return self.spawn("sh", "-c", script, **wishes)

    def job(self, job: JobId) -> Job:
        return jobs.load(self.state, job)

    def states(self) -> list[str]:
        return [row["state"] for row in jobs.rows(self.state)]

    def directory(self, job: JobId) -> Path:
        return self.state.find_job_dir(job)

    def workspace(self, job: JobId) -> Path:
        found = self.job(job).workspace
        assert found is not None
        return Path(found)

    def done(self, *ids: JobId, timeout: float = PATIENCE_SECONDS) -> list[Job]:
        """The jobs, once all are done, in the order asked for."""
        waited = jobs.wait(self.place, ids, timeout_seconds=timeout)
        assert not waited.timed_out, [(job.job_id, job.state, job.reason) for job in waited.pending]
        return [self.job(job) for job in ids]

    def changed(self, job: JobId) -> dict[str, str]:
        """Status by path of what a done job changed."""
        record = read_json(self.directory(job) / "changes.json")
        assert record is not None
        return {item["path"]: item["status"] for item in record["files"]}

    def captured(self, job: JobId, path: str) -> bytes:
        """A file as it is in a job's snapshot."""
        snapshot = self.job(job).snapshot
        assert snapshot is not None
        return self.place.store.git("cat-file", "blob", f"{snapshot}:{path}").stdout

    def events(self, job: JobId) -> list[Event]:
        """All events of a job, read in pages."""
        found: list[Event] = []
        cursor = None
        while True:
            page = jobs.events(self.state, job, cursor, most=1000)
            found += page.events
            cursor = page.next_cursor
            if page.done or not page.events:
                return found

    def pid(self, job: JobId, who: str = "worker") -> int:
        record = read_json(self.directory(job) / f"{who}.json")
        assert record is not None
        return int(record["pid"])

    def kill_supervisor(self, job: JobId) -> None:
        """As the out-of-memory killer would."""
        pid = self.pid(job, "supervisor")
        os.kill(pid, 9)
        eventually(lambda: start_ticks(pid) is None, what="the death of the supervisor")
        eventually(lambda: not AliveLock(self.directory(job) / "alive").is_held(), what="its lock is free")

    def process(self, code: str, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """Another process with the same `hall`, that runs this code; `sys.argv[3:]` are the arguments."""
        argv = [sys.executable, "-c", SCRIPT + code, str(self.repo.path), json.dumps(self.changes), *arguments]
        env = {**os.environ, "PYTHONPATH": os.fspath(Path(__file__).parent.parent)}
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **options)

    def said(self, code: str, *arguments: str) -> Any:
        """The JSON another process prints."""
        process = self.process(code, *arguments)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, err
        return json.loads(out)


@contextlib.contextmanager
def small_disk(place: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of a few bytes, mounted at `place`."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(place)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def living(pids: Sequence[int]) -> list[int]:
    """Those of some processes that live."""
    return [pid for pid in pids if start_ticks(pid) is not None]
