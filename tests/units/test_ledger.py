"""Reading many records: what is kept ready is what the records say, whatever happened to them since."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit import RepoKit
from worktrees import jobs, store
from worktrees.cli import glance
from worktrees.jobs import ledger
from worktrees.model import Baseline, Job, JobId, Oid, WorkflowName
from worktrees.store import State, write_json

MANY = 80
LATER = 10_000_000_000
"""Nanoseconds after which a record is no longer young."""


class Archive:
    """A repository with many finished jobs on record."""

    def __init__(self, repo: RepoKit) -> None:
        self.repo = repo
        self.state = State(repo.path / ".git")
        self.state.prepare()
        self.workflows = os.fspath(self.state.workflows)
        self.directory = self.state.workflow_dir("w")
        (self.directory / "jobs").mkdir(parents=True)
        write_json(self.directory / "workflow.json", {"closedAt": None, "kRead": 8, "kWrite": 2})
        for number in range(MANY):
            self.write(number)

    def write(self, number: int, **changes: Any) -> Path:
        """Writes the record of a job as its owner would."""
        record = {
            "job_id": JobId(f"j-{number:08}"),
            "workflow_id": WorkflowName("w"),
            "name": f"job {number}\t\n",
            "state": "done",
            "result": "succeeded",
            "command": ["true"],
            "baseline": Baseline(commit=Oid("1" * 40)),
            "created_at": f"2026-01-01T00:00:{number % 60:02}.{number:03}Z",
            "finished_at": "2026-01-01T00:02:00.000Z",
            "workspace": os.fspath(self.repo.path.parent / "spaces" / f"j-{number:08}"),
            **changes,
        }
        directory = self.state.job_dir("w", record["job_id"])
        directory.mkdir(exist_ok=True)
        write_json(directory / "job.json", Job(**record).dump())
        return directory

    def kept(self) -> set[str]:
        """Ids of the jobs that are kept ready."""
        path = self.directory / "finished.json"
        return {line.partition("\t")[0] for line in path.read_text().split("\n")[1:-1]} if path.exists() else set()

    def lines(self, *, later: int = LATER, key: str = "k") -> list[dict[str, Any]]:
        """All jobs, read that much later."""
        found, _ = ledger.lines(
            self.workflows, "w", lambda row: [json.dumps(row)], kind="json", key=key, now_ns=time.time_ns() + later
        )
        return [json.loads(line[-1]) for line in sorted(found, key=lambda line: (line[4], line[0]))]

    def rows(self) -> list[dict[str, Any]]:
        return jobs.rows(self.state)


@pytest.fixture
def archive(repo: RepoKit) -> Archive:
    return Archive(repo)


def test_what_is_kept_is_what_the_records_say(archive: Archive) -> None:
    assert archive.lines() == archive.rows()
    assert len(archive.kept()) == MANY
    assert archive.lines() == archive.rows()


@pytest.mark.parametrize(
    "change",
    [
        lambda archive: archive.write(3, landed_by="op-000001"),
        lambda archive: archive.write(3, state="open", result=None, finished_at=None),
        lambda archive: archive.write(MANY),
        lambda archive: (archive.directory / "jobs/j-00000003/acknowledged").touch(),
        lambda archive: (archive.directory / "jobs/j-00000003").rename(archive.repo.path.parent / "gone"),
        lambda archive: (archive.directory / "jobs/j-00000003/job.json").unlink(),
    ],
)
def test_a_change_of_a_job_is_seen_at_once(archive: Archive, change: Callable[[Archive], object]) -> None:
    archive.lines()
    before = archive.rows()
    change(archive)
    assert archive.lines() == archive.rows() != before


def test_a_young_record_is_not_kept(archive: Archive) -> None:
    archive.lines(later=0)
    assert not archive.kept()


def test_another_version_starts_afresh(archive: Archive) -> None:
    archive.lines(key="old")
    planted = (archive.directory / "finished.json").read_text().replace("job 5", "lie 5")
    (archive.directory / "finished.json").write_text(planted)
    assert archive.lines(key="new") == archive.rows()
    assert "lie" not in (archive.directory / "finished.json").read_text()


@pytest.mark.parametrize("damage", ["short", "holes", "empty", "bytes", "directory"])
def test_a_damaged_file_is_not_taken(archive: Archive, damage: str) -> None:
    archive.lines()
    path = archive.directory / "finished.json"
    content = path.read_bytes()
    path.unlink()
    if damage == "directory":
        path.mkdir()
    else:
        half = len(content) // 2
        path.write_bytes(
            {
                "short": content[:half],
                "holes": content[:half] + bytes(512) + content[half + 512 :],
                "empty": b"",
                "bytes": content[:half] + b"\xff" + content[half:],
            }[damage]
        )
    assert archive.lines() == archive.rows()


def test_few_jobs_leave_no_file(archive: Archive) -> None:
    for number in range(20, MANY):
        os.rename(archive.directory / f"jobs/j-{number:08}", archive.repo.path.parent / str(number))
    archive.lines()
    assert not archive.kept()


def test_readers_and_a_writer_at_once_see_no_old_record(archive: Archive) -> None:
    written = [0]
    done = threading.Event()

    def write() -> None:
        for count in range(1, 300):
            archive.write(7, changed_files=count)
            written[0] = count
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        floor = written[0]
        row = next(row for row in archive.lines(later=0) if row["jobId"] == "j-00000007")
        assert (row["changedFiles"] or 0) >= floor
    writer.join()


# ------------------------------------------------------------------------------------------------- the whole answer
def long_way(archive: Archive, *words: str) -> bytes:
    """What `wt` says without the short cut, which a variable of a worker's or a file in the way closes."""
    blocked = archive.repo.path / "HEAD"
    blocked.touch()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "worktrees", *words], cwd=archive.repo.path, capture_output=True, check=True
        )
    finally:
        blocked.unlink()
    return done.stdout


@pytest.mark.parametrize("words", [("list",), ("status",), ("list", "--json"), ("status", "--all", "--json")])
def test_the_short_way_says_what_the_long_way_says(
    archive: Archive, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.write(11, state="open", result=None, finished_at=None, name="näme", created_at="2026-01-01T00:00:11.000Z")
    archive.write(12, result="failed", exit_code=3, verified=False)
    present = archive.repo.path.parent / "spaces" / "j-00000013"
    present.mkdir(parents=True)
    expected = long_way(archive, *words)
    monkeypatch.chdir(archive.repo.path / "src")
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + LATER)

    said: bytes | None = None
    for _ in range(2):  # made, and taken ready
        said = glance.answer(words[0], as_json="--json" in words, closed="--all" in words)
        assert said is not None
        # The age of the open job is another by now, in the table.
        told, wanted = (
            [line for line in text.splitlines() if "näme" not in line or "--json" in words]
            for text in (said.decode(), expected.decode())
        )
        assert told == wanted
    assert (archive.directory / f"finished.{'json' if '--json' in words else 'table'}").exists()
    if "--json" in words:
        assert said is not None
        there = {row["jobId"] for row in json.loads(said)["data"]["jobs"] if row["workspacePresent"]}
        assert there == {"j-00000013"}
        present.rmdir()
        again = glance.answer(words[0], as_json=True, closed=True)
        assert again is not None
        assert not any(row["workspacePresent"] for row in json.loads(again)["data"]["jobs"])


def test_the_short_way_is_open_in_a_linked_work_tree(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    linked = archive.repo.path.parent / "linked"
    archive.repo.git("worktree", "add", "--quiet", "--detach", linked)
    monkeypatch.chdir(archive.repo.path)
    here = glance.answer("list", as_json=True, closed=False)
    monkeypatch.chdir(linked)
    assert glance.answer("list", as_json=True, closed=False) == here is not None


@pytest.mark.parametrize(
    "configure",
    [
        ("core.bare", "true"),
        ("core.worktree", "/nowhere"),
        ("core.repositoryFormatVersion", "1"),
        ("extensions.worktreeConfig", "true"),
        ("include.path", "other"),
    ],
)
def test_the_short_way_is_closed_in_an_unusual_repository(
    archive: Archive, configure: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive.repo.path)
    assert glance.answer("list", as_json=True, closed=False) is not None
    archive.repo.git("config", *configure)
    archive.repo.broken_on_purpose = True
    assert glance.answer("list", as_json=True, closed=False) is None


def test_the_short_way_is_closed_to_workers_and_elsewhere(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive.repo.path)
    with monkeypatch.context() as worker:
        worker.setenv("WT_JOB", "j-00000001")
        assert glance.answer("list", as_json=True, closed=False) is None
    with monkeypatch.context() as inside:
        inside.chdir(archive.repo.path / ".git" / "refs")
        assert glance.answer("list", as_json=True, closed=False) is None
    marker = archive.repo.path.parent / ".wt.json"
    marker.write_text("{}")
    assert glance.answer("list", as_json=True, closed=False) is None
    marker.unlink()
    (archive.repo.path / ".git/wt-state/format").write_text(f"{store.FORMAT + 1}\n")
    assert glance.answer("list", as_json=True, closed=False) is None


def test_the_short_way_knows_the_format() -> None:
    assert f"{store.FORMAT}\n".encode() == glance.FORMAT


@pytest.mark.parametrize("record", [b"", b"{}", b"[", b'{"jobId": 1}'])
def test_the_short_way_leaves_damage_to_the_long_way(
    archive: Archive, record: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive.repo.path)
    (archive.directory / "jobs/j-00000003/job.json").write_bytes(record)
    said = glance.answer("list", as_json=True, closed=False)
    # An empty record is what a power cut leaves of a job that never came to be.
    assert (said is None) == (record != b"")


def test_the_short_way_mends_nothing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive.repo.path)
    archive.write(4, state="starting", result=None, finished_at=None)
    assert glance.answer("list", as_json=True, closed=False) is None
