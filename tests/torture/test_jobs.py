"""Killing whoever can be killed, whenever; many at once; polls without end. A short round of each runs every time."""

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.hall import Hall, living
from tests.kit import RepoKit, eventually
from worktrees import isolation, jobs
from worktrees.model import Job, JobId
from worktrees.runner import LocalRunner
from worktrees.store import AliveLock, read_json

WORKER = (
    "echo begun > begun.txt; (trap '' TERM; setsid sleep 3600) & "
    "for i in 1 2 3 4 5 6 7 8; do echo line $i; echo $i > file$i.txt; done; sleep 0.03; exit 3"
)


def processes_of_job(job: JobId) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("WT_JOB") == job and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def files_of(workspace: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workspace.glob("*.txt")}


def check(hall: Hall, job: Job) -> str:
    """What was recorded, after everything a finished job promises was checked."""
    outcome = f"{job.result}:{job.exit_code}:{job.signal}"
    assert job.state == "done"
    assert outcome in ("failed:3:None", "failed:None:9", "lost:None:None"), job
    assert processes_of_job(job.job_id) == []
    changed = hall.changed(job.job_id)
    assert {name: hall.captured(job.job_id, name) for name in changed} == files_of(Path(job.workspace or ""))
    events = hall.events(job.job_id)
    assert [event.type for event in events].count("final") == 1
    assert events[-1].type == "final"
    said = [event.content for event in events if event.type == "message"]
    raw = b"".join(jobs.follow_log(hall.state, job.job_id)).decode()
    assert said == raw.splitlines()
    if job.exit_code == 3:
        assert len(said) == 8
        assert len(changed) == 9
    return outcome


def kill_at_random(hall: Hall, rounds: int, seed: int) -> Counter[str]:
    dice = random.Random(seed)
    seen: Counter[str] = Counter()
    for _ in range(rounds):
        job = hall.shell(WORKER)
        victims = dice.choice([["supervisor"], ["worker"], ["worker", "supervisor"], ["supervisor", "worker"]])
        # Mostly while it runs, sometimes while it settles.
        until = time.monotonic() + dice.choice([0.0, 0.01, 0.03, 0.06, 0.5]) * dice.random()
        while time.monotonic() < until:
            pass
        for who in victims:
            record = read_json(hall.directory(job) / f"{who}.json")
            if record is not None and living([record["pid"]]):
                try:
                    os.kill(record["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    continue
        seen[check(hall, hall.done(job)[0])] += 1
    return seen


def test_some_are_killed_and_every_record_is_true(repo: RepoKit) -> None:
    assert sum(kill_at_random(Hall(repo), 8, seed=1).values()) == 8


@pytest.mark.torture
def test_a_hundred_are_killed_and_every_record_is_true(repo: RepoKit) -> None:
    seen = kill_at_random(Hall(repo), 100, seed=time.time_ns())
    print(seen)
    assert len(seen) == 3, seen


def run_at_once(hall: Hall, count: int) -> None:
    ids = [hall.submit("sh", "-c", f"echo {number} > {number}.txt; exit {number % 3}") for number in range(count)]
    jobs.admit(hall.place, hall.workflow)
    done = hall.done(*ids, timeout=300)
    assert [job.exit_code for job in done] == [number % 3 for number in range(count)]
    assert [hall.changed(job) for job in ids] == [{f"{number}.txt": "A"} for number in range(count)]
    supervisors = [hall.pid(job, "supervisor") for job in ids]
    eventually(lambda: not living(supervisors), what="no supervisor is left")


def test_many_at_once(repo: RepoKit) -> None:
    run_at_once(Hall(repo, k_write=0), 6)


@pytest.mark.torture
def test_sixty_four_at_once(repo: RepoKit) -> None:
    run_at_once(Hall(repo, k_write=0), 64)


def poll_while_starting(hall: Hall, polls: int) -> Counter[str]:
    """Counts what every poll of every job said, from before it is started until it is done."""
    seen: Counter[str] = Counter()
    ids: list[JobId] = []
    stop = threading.Event()
    runner = LocalRunner()

    def poll() -> None:
        while not stop.is_set():
            for job in ids[-3:]:
                directory = hall.directory(job)
                state = str((read_json(directory / "job.json") or {})["state"])
                if state == "starting" and not AliveLock(directory / "alive").is_held():
                    again = str((read_json(directory / "job.json") or {})["state"])
                    state = "dead" if again == "starting" else again
                seen[state] += 1
                seen[f"runner {runner.poll(directory)}"] += 1

    threads = [threading.Thread(target=poll) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        while seen.total() < polls:
            ids.append(hall.submit("true"))
            jobs.admit(hall.place, hall.workflow)
            assert jobs.reconcile(hall.place) == []
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {job.result for job in hall.done(*ids, timeout=300)} == {"succeeded"}
    return seen


def test_polls_never_see_a_job_as_lost(repo: RepoKit) -> None:
    seen = poll_while_starting(Hall(repo, k_write=0), 5_000)
    assert seen["dead"] == 0, seen
    assert seen["runner lost"] == 0, seen


@pytest.mark.torture
def test_a_hundred_thousand_polls_never_see_a_job_as_lost(repo: RepoKit) -> None:
    seen = poll_while_starting(Hall(repo, k_write=0), 200_000)
    print(seen)
    assert seen["dead"] == 0, seen
    assert seen["runner lost"] == 0, seen


@pytest.mark.torture
def test_a_line_of_a_hundred_megabytes(repo: RepoKit) -> None:
    hall = Hall(repo)
    job = hall.shell("head -c 100000000 /dev/zero | tr '\\0' x; echo; echo end")
    hall.done(job, timeout=120)
    said = [event.content for event in hall.events(job) if event.type == "message"]
    assert sum(map(len, said[:-1])) == 100_000_000
    assert said[-1] == "end"


def kill_starters(hall: Hall, tmp_path: Path, rounds: int, seed: int) -> Counter[str]:
    """Spawning commands that die anywhere: their job runs once and ends well, or there is none."""
    dice = random.Random(seed)
    seen: Counter[str] = Counter()
    for number in range(rounds):
        ran = tmp_path / f"ran{number}"
        code = f"print('go', flush=True)\nhall.shell('echo ran >> {ran}; echo work > work.txt', name='n{number}')"
        starter = hall.process(code, start_new_session=True)
        assert starter.stdout is not None
        assert starter.stdout.readline() == "go\n"
        until = time.monotonic() + 0.25 * dice.random()
        while time.monotonic() < until:
            pass
        os.killpg(starter.pid, signal.SIGKILL)
        starter.communicate()
        isolation.recover(hall.place)
        jobs.reconcile(hall.place)
        mine = [JobId(row["jobId"]) for row in jobs.rows(hall.state) if row["name"] == f"n{number}"]
        for job in hall.done(*mine):
            assert (job.result, job.changed_files) == ("succeeded", 1), job
            assert ran.read_text() == "ran\n"
        seen[f"{len(mine)} jobs"] += 1
    # Every worktree belongs to a job, and none was left over.
    rows = jobs.rows(hall.state)
    assert {Path(row["workspace"]) for row in rows} == {tree.path for tree in hall.place.repo.worktrees()[1:]}
    return seen


def test_starters_are_killed_and_jobs_run_once(repo: RepoKit, tmp_path: Path) -> None:
    kill_starters(Hall(repo), tmp_path, 4, seed=2)


@pytest.mark.torture
def test_many_starters_are_killed_and_jobs_run_once(repo: RepoKit, tmp_path: Path) -> None:
    seen = kill_starters(Hall(repo), tmp_path, 80, seed=time.time_ns())
    print(seen)
    assert len(seen) == 2, seen
