"""Jobs as facts on disk: they start at once, run on by themselves, queue, end, and are read by anybody."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.hall import Hall, living, small_disk
from tests.kit import Gate, RepoKit, eventually
from worktrees import jobs
from worktrees.errors import Busy, NotFound, Refused, StateBroken, Usage
from worktrees.jobs import admission, leases, looks, settlement
from worktrees.jobs import removal as removals
from worktrees.model import JobId
from worktrees.store import AliveLock, new_id, read_json, start_ticks, write_json


@pytest.fixture
def hall(repo: RepoKit) -> Hall:
    return Hall(repo)


@pytest.fixture
def make_gate(tmp_path: Path) -> Iterator[Callable[[str], Gate]]:
    gates: list[Gate] = []

    def make(name: str) -> Gate:
        gates.append(Gate(tmp_path / name))
        return gates[-1]

    yield make
    for gate in gates:
        gate.close()


TREE = """
import os, signal, sys
arrivals, ignore = sys.argv[1], sys.argv[2] == "stubborn"
def live(name):
    if ignore:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(arrivals, "w") as file:
        file.write(f"{os.getpid()}\\n")
    signal.pause()
    signal.pause()
for name in ("child", "session", "daemon"):
    if os.fork() == 0:
        if name != "child":
            os.setsid()
        if name == "daemon" and os.fork():
            os._exit(0)
        live(name)
with open("partial.txt", "w") as file:
    file.write("so far\\n")
live("worker")
"""
"""A worker that writes half its work and has a child, one in a session of its own, and a daemon."""


def start_tree(hall: Hall, gate: Gate, mood: str = "meek") -> tuple[JobId, list[int]]:
    job = hall.spawn(sys.executable, "-c", TREE, str(gate.path / "arrivals"), mood)
    return job, [int(pid) for pid in gate.wait_arrivals(4)]


# ---------------------------------------------------------------------------------------------------- starting
def test_s01_spawning_does_not_wait_for_workers(repo: RepoKit, gate: Gate) -> None:
    hall = Hall(repo, k_write=0)
    ids = [hall.shell(f"{gate.shell()}; echo {number} > out.txt") for number in range(3)]
    assert len(set(ids)) == 3
    assert all(job.startswith("j-") for job in ids)
    # The boss goes on: it looks, edits and commits while they run.
    assert set(hall.states()) == {"running"}
    repo.write("boss.txt", "meanwhile\n")
    repo.commit("meanwhile")
    assert sorted(gate.wait_arrivals(3)) == sorted(ids)
    gate.release()
    assert [job.result for job in hall.done(*ids)] == ["succeeded"] * 3
    assert [hall.changed(job) for job in ids] == [{"out.txt": "A"}] * 3


def test_s02_workers_started_one_after_the_other_run_at_the_same_time(hall: Hall, gate: Gate) -> None:
    # Neither goes on before both are there; only the test's one release lets them.
    first = hall.shell(gate.shell())
    second = hall.shell(gate.shell())
    assert sorted(gate.wait_arrivals(2)) == sorted([first, second])
    assert hall.states() == ["running", "running"]
    gate.release()
    assert [job.result for job in hall.done(first, second)] == ["succeeded", "succeeded"]


SPAWN = """
from worktrees.model import JobSpec
for access, script in json.loads(sys.argv[3]):
    hall.submit("sh", "-c", script, access=access)
jobs.admit(hall.place, hall.workflow)
print(json.dumps(hall.states()))
"""


def test_s05_bounded_numbers_run_and_the_queue_drains_without_a_boss(
    hall: Hall, make_gate: Callable[[str], Gate]
) -> None:
    gates = {"read-only": make_gate("reads"), "workspace-write": make_gate("writes")}
    wanted = {"read-only": 20, "workspace-write": 5}
    most = {"read-only": 8, "workspace-write": 2}
    script = [(access, gates[access].shell()) for access in wanted for _ in range(wanted[access])]
    # The boss is another process, and gone when this returns.
    assert Counter(hall.said(SPAWN, json.dumps(script))) == {"running": 10, "queued": 15}
    for access, gate in gates.items():
        gate.wait_arrivals(most[access])
    waiting = [row["waiting"] for row in jobs.rows(hall.state) if row["state"] == "queued"]
    assert Counter(text.partition(" taken")[0] for text in waiting) == {
        "8 of 8 read slots": 12,
        "2 of 2 write slots": 3,
    }
    assert jobs.reconcile(hall.place) == []
    # From here on nobody calls anything: who ends starts the next.
    for access, gate in gates.items():
        for released in range(1, wanted[access] + 1):
            gate.open_for(1)
            arrived = gate.wait_arrivals(min(most[access] + released, wanted[access]))
            assert len(arrived) - released <= most[access]
    ids = [JobId(row["jobId"]) for row in jobs.rows(hall.state)]
    assert [job.result for job in hall.done(*ids)] == ["succeeded"] * 25


def test_s05_limits_are_settings(repo: RepoKit, gate: Gate) -> None:
    hall = Hall(repo, k_write=1, k_read=2)
    accesses = ["workspace-write"] * 2 + ["read-only"] * 3 + ["danger-full-access"]
    ids = [hall.shell(gate.shell(), access=access) for access in accesses]
    assert hall.states() == ["running", "queued", "running", "running", "queued", "queued"]
    queued = hall.job(ids[5]).waiting
    assert queued == f"1 of 1 write slots taken by {ids[0]}; 1 before it"
    gate.release()
    hall.done(*ids)


# ---------------------------------------------------------------------------------------------------- cancelling
def test_s06_cancel_asks_the_whole_tree_and_keeps_what_was_done(hall: Hall, gate: Gate, repo: RepoKit) -> None:
    before = repo.fingerprint(ignore_refs=["refs/wt/*"])
    job, pids = start_tree(hall, gate)
    jobs.cancel(hall.place, job)
    (cancelled,) = hall.done(job)
    assert (cancelled.result, cancelled.signal, cancelled.verified) == ("cancelled", signal.SIGTERM, True)
    assert living(pids) == []
    assert hall.changed(job) == {"partial.txt": "A"}
    assert hall.captured(job, "partial.txt") == b"so far\n"
    assert repo.fingerprint(ignore_refs=["refs/wt/*"]) == before


def test_s06_a_queued_job_is_cancelled_at_once(repo: RepoKit, gate: Gate) -> None:
    hall = Hall(repo, k_write=1)
    running, queued, last = (hall.shell(gate.shell()) for _ in range(3))
    cancelled = jobs.cancel(hall.place, queued)
    assert (cancelled.state, cancelled.result, cancelled.workspace) == ("done", "cancelled", None)
    assert [event.type for event in hall.events(queued)] == ["error", "final"]
    gate.release()
    assert [job.result for job in hall.done(running, last)] == ["succeeded", "succeeded"]
    assert jobs.cancel(hall.place, last).result == "succeeded"


def test_s07_force_leaves_nobody_and_trusts_nothing(hall: Hall, gate: Gate) -> None:
    job, pids = start_tree(hall, gate, "stubborn")
    assert jobs.cancel(hall.place, job).state == "running"  # asked, and the grace is a minute
    assert living(pids) == pids
    jobs.cancel(hall.place, job, force=True)
    (forced,) = hall.done(job)
    assert (forced.result, forced.signal) == ("cancelled", signal.SIGKILL)
    assert (forced.verified, forced.quarantined) == (False, True)
    assert living(pids) == []
    assert hall.captured(job, "partial.txt") == b"so far\n"


# ---------------------------------------------------------------------------------------------------- events
PAGE = """
page = jobs.events(hall.state, sys.argv[3], sys.argv[4] or None, most=3)
print(json.dumps([[event.dump() for event in page.events], page.next_cursor, page.done]))
"""


def test_s08_events_by_cursor(hall: Hall, gate: Gate) -> None:
    job = hall.shell(f"seq 1 5; echo thinking >&2; {gate.shell()}; echo the answer")
    gate.wait_arrivals(1)
    eventually(lambda: len(hall.events(job)) == 6)
    seen: list[dict[str, str]] = []
    cursor = ""
    # Each page is read by a process of its own: nothing but the cursor connects them.
    for pages in range(4):
        page, cursor, done = hall.said(PAGE, job, cursor)
        seen += page
        assert not done
        if pages == 1:
            assert len(seen) == 6
    gate.release()
    hall.done(job)
    page, cursor, done = hall.said(PAGE, job, cursor)
    seen += page
    assert done
    assert [event["content"] for event in seen if event["type"] == "message"] == [*"12345", "the answer"]
    assert [event["content"] for event in seen if event["type"] == "progress"] == ["thinking"]
    assert [event["type"] for event in seen].count("final") == 1
    assert seen[-1] == {**seen[-1], "type": "final", "content": "the answer"}
    assert set(seen[0]) == {"type", "content", "timestamp"}
    stamps = [datetime.fromisoformat(event["timestamp"]) for event in seen]
    assert all(stamp.tzinfo == UTC for stamp in stamps)
    assert stamps == sorted(stamps)
    # A cursor at the end stays there, and an old one gives the same again.
    assert hall.said(PAGE, job, cursor) == [[], cursor, True]
    assert [event.dump() for event in hall.events(job)] == seen


def test_s08_following_is_told_and_ends(hall: Hall, gate: Gate) -> None:
    job = hall.shell(f"echo one; {gate.shell()}; echo two")
    pages = jobs.follow_events(hall.state, job)
    assert [event.content for event in next(pages).events] == ["one"]
    gate.wait_arrivals(1)
    gate.release()
    rest = [event.content for page in pages for event in page.events]
    assert rest == ["two", "two"]
    assert b"".join(jobs.follow_log(hall.state, job)) == b"one\ntwo\n"


def test_s08_following_survives_the_death_of_a_supervisor(hall: Hall, gate: Gate) -> None:
    job = hall.shell(f"echo one; {gate.shell()}; echo two")
    pages = jobs.follow_events(hall.state, job, when_lost=lambda: jobs.reconcile(hall.place))
    assert [event.content for event in next(pages).events] == ["one"]
    gate.wait_arrivals(1)
    hall.kill_supervisor(job)
    rest = [(event.type, event.content) for page in pages for event in page.events]
    assert [kind for kind, _ in rest] == ["error", "final"]
    assert hall.job(job).result == "lost"


@pytest.mark.parametrize(
    "cursor",
    ["", "nonsense", "ünïcode", "ai1hYWFhYWFhYTo", "A" * 5000],
    ids=["empty", "words", "odd", "cut", "huge"],
)
def test_s08_what_is_no_cursor_is_refused(hall: Hall, cursor: str) -> None:
    job = hall.shell("true")
    with pytest.raises(Usage, match="no cursor"):
        jobs.events(hall.state, job, cursor)
    hall.done(job)


def test_s08_a_cursor_belongs_to_its_job_and_its_place(hall: Hall) -> None:
    first, second = hall.shell("echo first"), hall.shell("echo second; echo third")
    hall.done(first, second)
    end = jobs.events(hall.state, second).next_cursor
    with pytest.raises(Usage, match="belongs to"):
        jobs.events(hall.state, first, end)
    path = hall.directory(second) / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 1])
    with pytest.raises(Usage, match="beyond the end"):
        jobs.events(hall.state, second, end)
    path.write_bytes(b"x" + whole)
    with pytest.raises(Usage, match="start of a line"):
        jobs.events(hall.state, second, end)
    with pytest.raises(Usage, match="at least one"):
        jobs.events(hall.state, second, most=0)


def test_s09_a_million_lines_are_all_there(hall: Hall, gate: Gate) -> None:
    job = hall.shell(f"seq 1 1000000; {gate.shell()}")
    gate.wait_arrivals(1)
    supervisor = Path(f"/proc/{hall.pid(job, 'supervisor')}/status")
    at = hall.directory(job) / "events.jsonl"

    def last() -> Any:
        with at.open("rb") as file:
            file.seek(max(0, at.stat().st_size - 500))
            *_, line, _ = [b"", *file.read().split(b"\n")]
            return json.loads(line)["content"] if line.endswith(b"}") else ""

    eventually(lambda: last() == "1000000", what="the last line is an event")
    peak_kilobytes = int(supervisor.read_text().partition("VmHWM:")[2].split()[0])
    assert peak_kilobytes < 25_000
    gate.release()
    hall.done(job)
    # Read late, page by page, and never more than a page of it at once.
    expected = 1
    cursor, done = None, False
    while not done:
        page = jobs.events(hall.state, job, cursor, most=2000)
        cursor, done = page.next_cursor, page.done
        for event in page.events:
            if event.type == "message":
                assert event.content == str(expected)
                expected += 1
    assert expected == 1_000_001


# ---------------------------------------------------------------------------------------------------- waiting
def test_s10_any_is_the_earliest_not_yet_acknowledged(repo: RepoKit, make_gate: Callable[[str], Gate]) -> None:
    hall = Hall(repo, k_write=0)
    gates = [make_gate(f"gate{number}") for number in range(3)]
    ids = [hall.shell(gate.shell()) for gate in gates]
    timed_out = jobs.wait(hall.place, ids, mode="any", timeout_seconds=0.1)
    assert (timed_out.completed, timed_out.timed_out) == ([], True)
    assert [job.job_id for job in timed_out.pending] == ids
    assert {job.state for job in timed_out.pending} == {"running"}
    for number in (2, 0):
        gates[number].release()
        hall.done(ids[number])
    first = jobs.wait(hall.place, ids, mode="any")
    assert [job.job_id for job in first.completed] == [ids[2]]
    assert [job.job_id for job in first.pending] == [ids[1]]
    assert hall.job(ids[2]).acknowledged
    second = jobs.wait(hall.place, ids, mode="any")
    assert [job.job_id for job in second.completed] == [ids[0]]
    gates[1].release()
    third = jobs.wait(hall.place, ids, mode="any")
    assert [job.job_id for job in third.completed] == [ids[1]]
    assert jobs.wait(hall.place, ids, mode="any") == jobs.Waited([], [], timed_out=False)
    assert len(jobs.wait(hall.place, ids).completed) == 3


def test_s10_two_waiters_never_get_the_same_job(repo: RepoKit, gate: Gate) -> None:
    hall = Hall(repo, k_write=0)
    ids = [hall.shell(gate.shell()) for _ in range(4)]
    code = (
        "print('ready', file=sys.stderr, flush=True)\n"
        "waited = jobs.wait(hall.place, sys.argv[3:], mode='any', timeout_seconds=30)\n"
        "print(json.dumps([job.job_id for job in waited.completed]))"
    )
    waiters = [hall.process(code, *ids) for _ in range(4)]
    for waiter in waiters:
        assert waiter.stderr is not None
        assert waiter.stderr.readline() == "ready\n"
    gate.release()
    got = [json.loads(waiter.communicate(timeout=60)[0]) for waiter in waiters]
    assert sorted(job for jobs_of_one in got for job in jobs_of_one) == sorted(ids)


@pytest.mark.parametrize("seconds", [0, -1, -0.5, float("nan")])
def test_s10_a_time_out_is_longer_than_nothing(hall: Hall, seconds: float) -> None:
    with pytest.raises(Usage, match="longer than nothing"):
        jobs.wait(hall.place, [], timeout_seconds=seconds)
    for limit in ("ttl_seconds", "idle_seconds", "timeout_seconds"):
        with pytest.raises(Usage, match="longer than nothing"):
            hall.submit("true", **{limit: seconds})


def test_s10_waiting_notices_the_death_of_a_supervisor(hall: Hall, gate: Gate) -> None:
    job = hall.shell(gate.shell())
    gate.wait_arrivals(1)
    code = (
        "print('ready', file=sys.stderr, flush=True)\n"
        "print(json.dumps([job.result for job in jobs.wait(hall.place, sys.argv[3:]).completed]))"
    )
    waiter = hall.process(code, job)
    assert waiter.stderr is not None
    assert waiter.stderr.readline() == "ready\n"
    hall.kill_supervisor(job)
    out, err = waiter.communicate(timeout=30)
    assert json.loads(out) == ["lost"], err


# ---------------------------------------------------------------------------------------------------- surviving
def test_s11_jobs_run_on_when_all_that_started_them_is_killed(hall: Hall, gate: Gate) -> None:
    code = (
        f"ids = [hall.shell({gate.shell() + '; echo done > done.txt'!r}) for _ in range(2)]\n"
        "print(json.dumps(ids), flush=True)\nsys.stdin.read()"
    )
    boss = hall.process(code, stdin=subprocess.PIPE, start_new_session=True)
    assert boss.stdout is not None
    ids = json.loads(boss.stdout.readline())
    gate.wait_arrivals(2)
    # As a closed terminal does, and then for certain.
    os.killpg(boss.pid, signal.SIGHUP)
    os.killpg(boss.pid, signal.SIGINT)
    os.killpg(boss.pid, signal.SIGKILL)
    boss.communicate()
    look = "print(json.dumps([hall.job(job).state for job in sys.argv[3:]]))"
    assert hall.said(look, *ids) == ["running", "running"]
    gate.release()
    assert [job.result for job in hall.done(*ids)] == ["succeeded", "succeeded"]
    assert hall.said(look, *ids) == ["done", "done"]
    assert [hall.changed(job) for job in ids] == [{"done.txt": "A"}] * 2
    assert [event.type for event in hall.events(ids[0])] == ["final"]


def test_s12_a_killed_supervisor_means_lost_and_captured(hall: Hall, gate: Gate) -> None:
    job, pids = start_tree(hall, gate, "stubborn")
    hall.kill_supervisor(job)
    assert jobs.stale(hall.state, jobs.rows(hall.state))
    (lost,) = jobs.reconcile(hall.place)
    assert (lost.job_id, lost.state, lost.result, lost.verified) == (job, "done", "lost", False)
    assert (lost.exit_code, lost.signal) == (None, None)
    assert living(pids) == []
    assert hall.captured(job, "partial.txt") == b"so far\n"
    assert (hall.workspace(job) / "partial.txt").exists()
    assert jobs.reconcile(hall.place) == []
    assert not jobs.stale(hall.state, jobs.rows(hall.state))


def test_s12_after_a_reboot(hall: Hall, gate: Gate) -> None:
    job = hall.shell(f"echo half > half.txt; {gate.shell()}")
    gate.wait_arrivals(1)
    hall.kill_supervisor(job)
    for name in ("supervisor.json", "worker.json"):
        record = read_json(hall.directory(job) / name)
        assert record is not None
        # The same pid is somebody else's in this boot.
        write_json(hall.directory(job) / name, {**record, "bootId": "the one before", "pid": os.getpid()})
    (lost,) = jobs.reconcile(hall.place)
    assert lost.result == "lost"
    assert hall.changed(job) == {"half.txt": "A"}
    gate.release()


def test_s12_many_reconcile_and_one_settles(hall: Hall, gate: Gate) -> None:
    job = hall.shell(f"echo half > half.txt; {gate.shell()}")
    gate.wait_arrivals(1)
    hall.kill_supervisor(job)
    code = "sys.stdin.readline()\nprint(json.dumps([job.result for job in jobs.reconcile(hall.place)]))"
    processes = [hall.process(code, stdin=subprocess.PIPE) for _ in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert sorted(said) == [[]] * 5 + [["lost"]]
    assert hall.changed(job) == {"half.txt": "A"}


def test_s12_not_from_another_pid_namespace_and_not_by_a_worker(
    hall: Hall, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = hall.shell(f"echo half > half.txt; {gate.shell()}")
    gate.wait_arrivals(1)
    hall.kill_supervisor(job)
    record = read_json(hall.directory(job) / "supervisor.json")
    assert record is not None
    write_json(hall.directory(job) / "supervisor.json", {**record, "pidNamespace": "pid:[1]"})
    assert jobs.reconcile(hall.place) == []
    write_json(hall.directory(job) / "supervisor.json", record)
    monkeypatch.setenv("WT_JOB", "j-22222222")
    assert jobs.reconcile(hall.place) == []
    monkeypatch.delenv("WT_JOB")
    assert [lost.result for lost in jobs.reconcile(hall.place)] == ["lost"]


def test_s12_cancelling_a_lost_job_settles_it(hall: Hall, gate: Gate) -> None:
    job = hall.shell(gate.shell())
    gate.wait_arrivals(1)
    hall.kill_supervisor(job)
    assert jobs.cancel(hall.place, job, force=True).result == "lost"


def test_s12_who_dies_while_settling_is_followed_by_another(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    """The exit record is there, the rest is not: the result stays exact."""
    monkeypatch.setattr(admission, "settling_program", lambda _: ["/bin/false"])
    job = hall.shell(f"{gate.shell()}; echo new > new.txt; exit 7")
    gate.wait_arrivals(1)
    gate.release()
    eventually(lambda: start_ticks(hall.pid(job, "supervisor")) is None)
    assert hall.job(job).state == "settling"
    (settled,) = jobs.reconcile(hall.place)
    assert (settled.state, settled.result, settled.exit_code) == ("done", "failed", 7)
    assert hall.changed(job) == {"new.txt": "A"}


@pytest.mark.parametrize("worker", ['{"bootId": "the one before"}', ""])
def test_s12_what_a_worker_wrote_just_before_a_restart_is_not_trusted(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, worker: str
) -> None:
    """The exit record is durable; the files that were written meanwhile need not be. Nor need the events."""
    monkeypatch.setattr(admission, "settling_program", lambda _: ["/bin/false"])
    job = hall.shell("echo new > new.txt")
    eventually(lambda: start_ticks(hall.pid(job, "supervisor")) is None)
    (hall.directory(job) / "worker.json").write_text(worker)
    (hall.directory(job) / "events.jsonl").write_text('{"type": "fin')
    (settled,) = jobs.reconcile(hall.place)
    assert (settled.state, settled.result, settled.verified) == ("done", "succeeded", False), settled.reason
    assert hall.changed(job) == {"new.txt": "A"}
    recorded = looks.recorded(hall.state, settled)
    assert recorded is not None
    assert [finding.code for finding in recorded.audit.findings] == ["before-restart"]


def test_s12_a_job_nobody_can_settle_stops_no_command(hall: Hall, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    job, other = hall.shell(gate.shell()), hall.shell(f"echo half > half.txt; {gate.shell()}")
    gate.wait_arrivals(2)
    hall.kill_supervisor(job)
    hall.kill_supervisor(other)
    captured, tries = settlement._captured, []

    def odd(place: Any, directory: Path, *rest: Any) -> Any:
        if directory.name == job:
            tries.append(directory)
            (directory / f"{len(tries)}.tmp").touch()
            os.rename(directory / f"{len(tries)}.tmp", directory / "moved")
            raise RuntimeError("something nobody thought of")
        return captured(place, directory, *rest)

    monkeypatch.setattr(settlement, "_captured", odd)
    told = {found.job_id: (found.result, found.reason) for found in jobs.reconcile(hall.place)}
    assert told[job] == (None, "not captured yet: something nobody thought of")
    assert told[other][0] == "lost"
    assert hall.job(job).reason == "not captured yet: something nobody thought of"
    # Who waits for it is woken by its own attempts, and does not go on trying for that.
    assert jobs.wait(hall.place, [job], timeout_seconds=2).timed_out
    assert len(tries) == 2


# ---------------------------------------------------------------------------------------------------- leases
def test_s38_a_lease_that_runs_out_ends_the_job(hall: Hall, gate: Gate) -> None:
    job = hall.shell(f"echo half > half.txt; {gate.shell()}; sleep 3600", ttl_seconds=0.5)
    assert hall.job(job).lease_expires_at is not None
    (expired,) = hall.done(job)
    assert (expired.result, expired.signal, expired.verified) == ("expired", signal.SIGTERM, True)
    assert expired.reason == "its lease of 0.5 s ran out"
    assert hall.changed(job) == {"half.txt": "A"}
    with pytest.raises(Refused, match="over"):
        jobs.extend_lease(hall.place, job, 60)


def test_s38_a_lease_can_be_extended(hall: Hall, gate: Gate) -> None:
    job = hall.shell(f"{gate.shell()}; exit 0", ttl_seconds=0.6)
    gate.wait_arrivals(1)
    before = leases.since_boot()
    extended = jobs.extend_lease(hall.place, job, 3600)
    assert (extended.ttl_seconds, extended.state) == (3600, "running")
    eventually(lambda: leases.since_boot() > before + 0.8)  # the first end passes
    gate.release()
    assert hall.done(job)[0].result == "succeeded"
    with pytest.raises(Usage, match="longer than nothing"):
        jobs.extend_lease(hall.place, job, 0)


def test_s38_an_open_job_ends_too(hall: Hall) -> None:
    job = hall.submit(ttl_seconds=3600)
    (hall.workspace(job) / "mine.txt").write_text("by hand\n")
    assert jobs.reconcile(hall.place) == []
    record = read_json(hall.directory(job) / "lease.json")
    assert record is not None
    # A wall clock that was set means nothing; the clock since boot does.
    write_json(hall.directory(job) / "lease.json", {**record, "expiresAt": "2001-01-01T00:00:00.000Z"})
    assert jobs.reconcile(hall.place) == []
    write_json(hall.directory(job) / "lease.json", {**record, "deadlineBoottime": leases.since_boot()})
    (expired,) = jobs.reconcile(hall.place)
    assert (expired.state, expired.result) == ("done", "expired")
    assert hall.changed(job) == {"mine.txt": "A"}


def test_s38_other_limits_end_a_job_as_expired(hall: Hall) -> None:
    silent = hall.shell("echo up; sleep 3600", idle_seconds=0.3)
    endless = hall.shell("while :; do echo up; sleep 0.01; done", timeout_seconds=0.3)
    results = hall.done(silent, endless)
    assert [job.result for job in results] == ["expired", "expired"]
    assert [job.reason for job in results] == ["it was silent for 0.3 s", "its time of 0.3 s ran out"]


# ---------------------------------------------------------------------------------------------------- who a worker is
def test_s04_a_worker_knows_who_it_is_and_nothing_of_the_boss(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "GIT_DIR", "GIT_AUTHOR_NAME", "SSH_AUTH_SOCK", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "NPM_CONFIG__AUTH",
        "MY_PASSWORD", "WT_K_WRITE", "TOKENIZERS_PARALLELISM", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "CODEX_HOME",
    ):  # fmt: skip
        monkeypatch.setenv(name, "7")
    monkeypatch.delenv("GIT_DIR")  # it would redirect the test's own git
    job = hall.shell("env -0 > env; touch $TMPDIR/scratch; cat $TMPDIR/scratch", environment={"GH_TOKEN": "given"})
    hall.done(job)
    env = dict(entry.split("=", 1) for entry in hall.captured(job, "env").decode().split("\0") if entry)
    assert (env["WT_JOB"], env["WT_WORKFLOW"], env["WT_WORKSPACE"]) == (job, "main", str(hall.workspace(job)))
    passed = {"TOKENIZERS_PARALLELISM", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "CODEX_HOME", "GH_TOKEN", "PATH", "HOME"}
    assert passed <= set(env)
    scrubbed = {
        "GITHUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "SSH_AUTH_SOCK",
        "NPM_CONFIG__AUTH",
        "MY_PASSWORD",
        "WT_K_WRITE",
    }
    assert not scrubbed & set(env)
    assert {name for name in env if name.startswith("GIT_")} == {
        "GIT_OPTIONAL_LOCKS", "GIT_TERMINAL_PROMPT", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0",
        "GIT_CONFIG_KEY_1", "GIT_CONFIG_VALUE_1",
    }  # fmt: skip
    temporary = Path(env["TMPDIR"])
    assert not temporary.is_relative_to(hall.workspace(job))
    assert not temporary.exists()


@pytest.fixture
def nests(hall: Hall) -> Iterator[str]:
    """A worker that nests directories in TMPDIR and where it stands; what is left goes before pytest cleans up."""
    code = "import os\nfor top in (os.environ['TMPDIR'], os.getcwd()):\n    os.chdir(top)\n"
    yield code + "    for _ in range(1200):\n        os.mkdir('d')\n        os.chdir('d')\n"
    # Our own remover may be at it, too: what it took first is missing to this one.
    words = ["rm", "-rf", str(hall.place.root), str(hall.state.trash)]
    eventually(lambda: subprocess.run(words, check=False).returncode == 0)


def test_s31_a_nest_deeper_than_python_can_follow_stops_nobody(hall: Hall, nests: str) -> None:
    """One worker's tree must not be what every later command of the boss dies of."""
    job = hall.spawn(sys.executable, "-c", nests)
    assert hall.done(job)[0].result == "succeeded"
    assert not (hall.place.root / ".tmp" / job).exists()
    assert jobs.reconcile(hall.place) == []
    (kept,) = removals.clean(hall.place, hall.settings, unlanded=True).removals
    assert kept.outcome == "kept"
    assert "nested too deeply" in (kept.reason or "")
    (given_up,) = removals.give_up(hall.place, [hall.job(job)], hall.settings, force=True)
    assert given_up.outcome == "removed"
    assert not Path(hall.job(job).workspace or "").exists()


def test_s04_its_own_temporary_directory_goes_with_it_whatever_is_in_it(hall: Hall, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    script = (
        "mkdir -p $TMPDIR/a/b; touch $TMPDIR/a/b/c; ln -s ../../.. $TMPDIR/up; mkfifo $TMPDIR/a/fifo; "
        f"ln -s {tmp_path}/outside $TMPDIR/a/link; chmod 000 $TMPDIR/a/b $TMPDIR/a"
    )
    job = hall.shell(script)
    assert hall.done(job)[0].result == "succeeded"
    assert not (hall.place.root / ".tmp").exists()
    assert (tmp_path / "outside" / "kept").exists()


# ---------------------------------------------------------------------------------------------------- open jobs
def test_an_open_job_is_a_workspace_until_it_is_settled(hall: Hall) -> None:
    job = hall.submit(name="by-hand")
    opened = hall.job(job)
    assert (opened.state, opened.workspace_present) == ("open", True)
    (hall.workspace(job) / "new.txt").write_text("by hand\n")
    settled = jobs.settle(hall.place, job)
    assert (settled.state, settled.result, settled.exit_code) == ("done", "succeeded", None)
    assert hall.changed(job) == {"new.txt": "A"}
    assert jobs.settle(hall.place, job) == settled
    assert [event.type for event in hall.events(job)] == ["final"]
    other = hall.submit()
    assert jobs.cancel(hall.place, other).result == "cancelled"


def test_running_and_queued_jobs_cannot_be_settled(repo: RepoKit, gate: Gate) -> None:
    hall = Hall(repo, k_write=1)
    running, queued = hall.shell(gate.shell()), hall.shell("true")
    with pytest.raises(Refused, match="still runs"):
        jobs.settle(hall.place, running)
    with pytest.raises(Refused, match="has not started"):
        jobs.settle(hall.place, queued)
    gate.release()
    hall.done(running, queued)


# ---------------------------------------------------------------------------------------------------- what can be wrong
def test_a_command_that_does_not_exist_fails_with_127(hall: Hall) -> None:
    (failed,) = hall.done(hall.spawn("no-such-program", "--flag"))
    assert (failed.result, failed.exit_code) == ("failed", 127)
    assert failed.reason == "cannot start `no-such-program`: No such file or directory"


def test_failures_say_why(hall: Hall) -> None:
    ids = [hall.shell("exit 3"), hall.shell("kill -SEGV $$")]
    assert [job.reason for job in hall.done(*ids)] == ["ended with status 3", "ended by signal 11 (SIGSEGV)"]


@pytest.mark.parametrize(
    "wishes",
    [
        {"command": []}, {"command": [""]}, {"command": ["a\0b"]}, {"name": "two words"}, {"name": "-"}, {"name": ""},
        {"name": "j-12345678"}, {"environment": {"": "x"}}, {"environment": {"A=B": "x"}}, {"environment": {"A": "\0"}},
        {"stdin": "/no/such/file"}, {"command": None, "agent": "nobody"}, {"isolation": "bubble"},
    ],
    ids=str,
)  # fmt: skip
def test_a_wish_that_makes_no_sense_is_refused_and_leaves_nothing(hall: Hall, wishes: dict[str, Any]) -> None:
    from worktrees.model import JobSpec

    spec = JobSpec(**{"command": ["true"], **wishes})
    with pytest.raises(Usage):
        jobs.submit(hall.place, hall.workflow, spec, hall.settings, os.environ)
    assert list(hall.state.job_dirs()) == []


def test_a_name_is_given_once(hall: Hall) -> None:
    job = hall.spawn("true", name="audit")
    with pytest.raises(Refused, match="taken by") as refused:
        hall.submit("true", name="audit")
    assert refused.value.code == "name-taken"
    hall.done(job)
    jobs.update(hall.state, job, dropped_by="op-000001")
    again = hall.spawn("true", name="audit")
    hall.done(again)
    assert [found.job_id for found in jobs.resolve(hall.state, ["audit"])] == [again]


def test_jobs_are_found_by_id_name_and_prefix(hall: Hall) -> None:
    ids = [hall.submit("true", name=name) for name in ("audit", "audit-two", "fix")]
    for word, expected in (("audit", ids[0]), ("audit-", ids[1]), ("f", ids[2]), (ids[1], ids[1])):
        assert [job.job_id for job in jobs.resolve(hall.state, [word])] == [expected]
    assert [job.job_id for job in jobs.resolve(hall.state, ["fix", "audit", ids[2]])] == [ids[2], ids[0]]
    for word, code in (("aud", "ambiguous"), ("j-", "ambiguous"), ("nobody", "not-found"), ("", "not-found")):
        with pytest.raises(NotFound) as refused:
            jobs.resolve(hall.state, [word])
        assert refused.value.code == code
    for job in ids:
        jobs.cancel(hall.place, job)


def test_a_workspace_that_cannot_be_made_fails_its_job_and_not_the_next(hall: Hall) -> None:
    hall.place.root.parent.mkdir(parents=True, exist_ok=True)
    hall.place.root.write_text("in the way\n")
    failed = hall.job(hall.shell("true"))
    assert (failed.state, failed.result, failed.workspace) == ("done", "failed", None)
    assert failed.reason
    with pytest.raises(Exception, match=r".+"):
        hall.submit()
    assert len(list(hall.state.job_dirs())) == 1
    hall.place.root.unlink()
    assert hall.done(hall.shell("true"))[0].result == "succeeded"
    assert len(hall.place.repo.worktrees()) == 2


def test_a_starter_that_dies_half_way_is_followed_by_another(hall: Hall) -> None:
    code = (
        "from worktrees.isolation import WorktreeIsolation\n"
        "def die(*_, **__): os.kill(os.getpid(), 9)\n"
        "{where} = die\n"
        "hall.shell('echo ran > ran.txt')"
    )
    for where in ("WorktreeIsolation.open", "__import__('worktrees.changes').changes.fingerprint"):
        starter = hall.process(code.replace("{where}", where))
        starter.communicate(timeout=60)
        assert starter.returncode == -9
        job = JobId(jobs.rows(hall.state)[-1]["jobId"])
        assert hall.job(job).state == "starting"
        jobs.reconcile(hall.place)
        assert hall.done(job)[0].result == "succeeded"
        assert hall.changed(job) == {"ran.txt": "A"}


def test_an_id_is_given_once(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    job = hall.shell("echo first")
    hall.done(job)
    # Who settled it clears up after the job is done.
    eventually(lambda: not AliveLock(hall.directory(job) / "alive").is_held())
    before = {path.name: path.read_bytes() for path in hall.directory(job).iterdir()}
    offered = iter([job, job])
    monkeypatch.setattr(admission, "new_id", lambda prefix: next(offered, None) or new_id(prefix))
    second = hall.submit("true")
    assert second != job
    assert {path.name: path.read_bytes() for path in hall.directory(job).iterdir()} == before
    jobs.cancel(hall.place, second)


def test_a_supervisor_that_cannot_start_fails_its_job(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("worktrees.runner._SUPERVISOR", "/no/such/program.py")
        failed = hall.job(hall.shell("true"))
    assert (failed.state, failed.result) == ("done", "failed")
    assert "did not come up" in (failed.reason or "")
    assert hall.place.repo.worktrees()[1:] == []
    assert hall.done(hall.shell("true"))[0].result == "succeeded"


@contextlib.contextmanager
def opening_raises(error: Exception) -> Iterator[None]:
    """No workspace can be made."""

    def raising(*_: object, **__: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worktrees.isolation.WorktreeIsolation.open", raising)
        yield


def test_a_busy_repository_leaves_the_job_in_the_queue(hall: Hall) -> None:
    with opening_raises(Busy("the repository lock was not free")):
        job = hall.shell("true")
        assert hall.job(job).state == "queued"
        assert jobs.stale(hall.state, jobs.rows(hall.state))
    assert [started.job_id for started in jobs.reconcile(hall.place)] == [job]
    assert hall.done(job)[0].result == "succeeded"


def test_a_start_that_goes_wrong_in_a_way_nobody_thought_of_ends_its_job(hall: Hall) -> None:
    with opening_raises(RuntimeError("something nobody thought of")):
        failed = hall.job(hall.shell("true"))
    assert (failed.state, failed.result) == ("done", "failed")
    assert failed.reason == "RuntimeError: something nobody thought of"


def test_what_is_not_on_record_any_more_is_not_run(hall: Hall) -> None:
    """It would run without the environment and the walls that were asked for."""
    with opening_raises(Busy("the repository lock was not free")):
        job = hall.shell("echo ran > ran.txt")
    (hall.directory(job) / "spec.json").write_bytes(b"")
    (ended,) = jobs.reconcile(hall.place)
    assert (ended.state, ended.result, ended.workspace) == ("done", "failed", None)
    assert "not on record any more" in (ended.reason or "")


def test_a_workspace_that_is_gone_ends_the_job_and_says_so(hall: Hall, gate: Gate) -> None:
    job = hall.shell(f"cd /; rm -rf $WT_WORKSPACE; {gate.shell()}")
    gate.wait_arrivals(1)
    gate.release()
    (done,) = hall.done(job)
    assert (done.result, done.verified, done.snapshot) == ("succeeded", False, None)
    assert "is gone" in (done.reason or "")


def test_a_closed_workflow_takes_no_jobs_and_lets_go(hall: Hall, repo: RepoKit) -> None:
    job = hall.shell("true")
    if hall.job(job).state != "done":
        with pytest.raises(Refused, match="not done"):
            jobs.close_workflow(hall.place, hall.workflow.workflow_id)
    hall.done(job)
    assert jobs.close_workflow(hall.place, hall.workflow.workflow_id, only_if_finished=True).closed_at is None
    closed = jobs.close_workflow(hall.place, hall.workflow.workflow_id)
    assert closed.closed_at is not None
    assert jobs.rows(hall.state) == []
    assert [row["jobId"] for row in jobs.rows(hall.state, closed=True)] == [job]
    assert repo.text("for-each-ref", "refs/wt") == ""
    with pytest.raises(Refused, match="closed"):
        hall.submit("true")
    with pytest.raises(Refused, match="was closed"):
        jobs.open_workflow(hall.place, hall.workflow.baseline, name="main")


# ---------------------------------------------------------------------------------------------------- odd moments
def test_the_queue_is_first_come_first_served(repo: RepoKit, gate: Gate) -> None:
    hall = Hall(repo, k_write=1)
    ids = [hall.submit("sh", "-c", gate.shell()) for _ in range(5)]
    stamps = [hall.job(job).created_at for job in ids]
    assert stamps == sorted(set(stamps))
    gate.release()
    jobs.admit(hall.place, hall.workflow)
    hall.done(*ids)
    assert gate.wait_arrivals(5) == ids


def test_a_cancel_while_the_workspace_is_made_prevents_the_start(hall: Hall, gate: Gate) -> None:
    code = (
        "from worktrees import changes\n"
        "taken = changes.fingerprint\n"
        "def wait(*arguments):\n"
        f"    os.system({gate.shell('making')!r})\n"
        "    return taken(*arguments)\n"
        "changes.fingerprint = wait\n"
        "print(json.dumps(hall.shell('touch ran')))"
    )
    starter = hall.process(code)
    gate.wait_arrivals(1)
    job = JobId(jobs.rows(hall.state)[0]["jobId"])
    assert jobs.cancel(hall.place, job).state == "starting"
    assert jobs.reconcile(hall.place) == []
    gate.release()
    assert json.loads(starter.communicate(timeout=60)[0]) == job
    assert hall.done(job)[0].result == "cancelled"
    assert hall.changed(job) == {}


def test_a_disk_the_worker_filled_holds_the_capture_up_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        repo = RepoKit.make(disk / "repo")
        hall = Hall(repo, worktrees_directory=str(disk / "trees"))
        job = hall.shell("echo work > work.txt; cat /dev/zero > $WT_WORKSPACE.filler; exit 0")
        eventually((hall.directory(job) / "exit.json").exists, what="the exit record")
        eventually(lambda: not living([hall.pid(job, "supervisor")]))
        (held_up,) = jobs.reconcile(hall.place)
        assert (held_up.state, held_up.result) == ("settling", None)
        assert held_up.reason
        assert (hall.workspace(job) / "work.txt").read_text() == "work\n"
        hall.workspace(job).with_suffix(".filler").unlink()
        (settled,) = jobs.reconcile(hall.place)
        assert (settled.state, settled.result) == ("done", "succeeded")
        assert hall.captured(job, "work.txt") == b"work\n"


def test_bytes_and_a_very_long_line_are_all_there(hall: Hall) -> None:
    script = (
        "import sys, os; sys.stdout.buffer.write(bytes(range(256)) * 4 + b'\\n' + b'x' * 20_000_000 + b'\\nend\\n')"
    )
    job = hall.spawn(sys.executable, "-c", script)
    hall.done(job)
    said = [event.content for event in hall.events(job) if event.type == "message"]
    assert said[-1] == "end"
    assert sum(len(content) for content in said if set(content) == {"x"}) == 20_000_000
    assert max(len(content) for content in said) <= 1 << 16
    assert b"".join(jobs.follow_log(hall.state, job)).startswith(bytes(range(256)) * 4)


def test_reading_many_records_is_cheap(hall: Hall) -> None:
    """No pydantic on the way of `wt list`, and one read of each record."""
    job = hall.shell("true")
    hall.done(job)
    code = (
        "import sys\nfrom pathlib import Path\nfrom worktrees import jobs\nfrom worktrees.store import State\n"
        "state = State(Path(sys.argv[1]))\nrows = jobs.rows(state)\nassert not jobs.stale(state, rows)\n"
        "heavy = {'pydantic', 'pygit2', 'psutil', 'filelock', 'rich', 'click'}\n"
        "print(len(rows), heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(hall.state.common_dir)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 set()\n"


def test_records_of_any_size_are_read_and_damaged_ones_named(hall: Hall) -> None:
    task = "x" * 16_384 * 3
    ids = [hall.submit("true", task=text) for text in (task, task[:-700], "short")]
    assert [len(row["task"]) for row in jobs.rows(hall.state)] == [len(task), len(task) - 700, 5]
    # What a power cut leaves of a record that was not durable yet: as if it had never been written.
    (hall.directory(ids[2]) / "job.json").write_bytes(b"")
    assert [row["jobId"] for row in jobs.rows(hall.state)] == ids[:2]
    with pytest.raises(NotFound):
        hall.job(ids[2])
    path = hall.directory(ids[1]) / "job.json"
    path.write_bytes(path.read_bytes()[:-40])
    damaged: list[str] = []
    assert [row["jobId"] for row in jobs.rows(hall.state, damaged=damaged)] == ids[:1]
    assert damaged == [str(path)]
    for record in (b"{}", b"[1,2", b"null", b'"a","b"', b"\xff\xfe", b"}{"):
        path.write_bytes(record)
        assert [job.job_id for job in jobs.load_all(hall.state)] == ids[:1]
    with pytest.raises(StateBroken, match=ids[1]):
        jobs.resolve(hall.state, [ids[1]])
    with pytest.raises(StateBroken, match="done"):
        jobs.close_workflow(hall.place, hall.workflow.workflow_id)


def test_words_that_are_not_utf8_do_not_stop_a_job(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD", os.fsdecode(b"\xff"))
    job = hall.shell('printf %s "$ODD" > odd.bin')
    assert hall.done(job)[0].result == "succeeded"
    assert hall.captured(job, "odd.bin") == b"\xff"
