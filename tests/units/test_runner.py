"""The supervisor and its runner: what is recorded, who dies, what survives. Real processes, no job records."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.hall import small_disk
from tests.kit import Gate, eventually
from worktrees import runner as runner_module
from worktrees.errors import Busy, StateBroken
from worktrees.jobs import leases
from worktrees.runner import Launch, LocalRunner
from worktrees.store import AliveLock, new_id, read_json, start_ticks, write_json


class Bench:
    """Job directories and their workers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runner = LocalRunner()

    def directory(self, name: str = "") -> Path:
        directory = self.root / (name or new_id("j"))
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def start(self, *command: str, directory: Path | None = None, **limits: Any) -> Path:
        """Starts a worker with its job's name in the environment, in its job's directory."""
        place = directory or self.directory()
        env = {**os.environ, "WT_JOB": place.name}
        self.runner.start(place, Launch(command, limits.pop("env", env), str(limits.pop("cwd", place)), **limits))
        return place

    def shell(self, script: str, **limits: Any) -> Path:
        return self.start("sh", "-c", script, **limits)

    def ended(self, directory: Path, timeout: float = 20) -> dict[str, Any]:
        """The exit record, once the supervisor is gone."""
        eventually(lambda: not AliveLock(directory / "alive").is_held(), timeout, f"the end of {directory.name}")
        record = read_json(directory / "exit.json")
        assert record is not None, (directory / "supervisor.log").read_text()
        assert self.runner.poll(directory) == "exited"
        return record

    def finish(self, directory: Path) -> dict[str, Any]:
        """What a reconciling command does when the supervisor is dead."""
        alive = eventually(lambda: AliveLock(directory / "alive").take())
        assert alive is not None
        try:
            self.runner.finish(directory, alive)
        finally:
            os.close(alive)
        record = read_json(directory / "exit.json")
        assert record is not None
        return record

    @staticmethod
    def events(directory: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (directory / "events.jsonl").read_bytes().splitlines()]

    @staticmethod
    def pid(directory: Path, who: str) -> int:
        record = read_json(directory / f"{who}.json")
        assert record is not None
        return int(record["pid"])

    def kill_supervisor(self, directory: Path) -> None:
        pid = self.pid(directory, "supervisor")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: start_ticks(pid) is None, what="the death of the supervisor")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "jobs")


FAMILY = """
import os, sys
gate, arrivals = sys.argv[1:]
def become(name, **environment):
    with open(arrivals, "w") as file:
        file.write(f"{name} {os.getpid()}\\n")
    os.execve("/bin/sleep", [f"sleep-{name}", "3600"], environment)
def child(name, new_session=False, twice=False, **environment):
    if os.fork() == 0:
        if new_session:
            os.setsid()
        if twice and os.fork():
            os._exit(0)
        become(name, **environment)
child("child", **os.environ)
child("session", new_session=True, **os.environ)
child("daemon", new_session=True, twice=True, **os.environ)
child("nameless", new_session=True, twice=True)
with open(arrivals, "w") as file:
    file.write(f"worker {os.getpid()}\\n")
with open(gate) as file:
    file.readline()
"""
"""A worker with a child, one in a session of its own, and two daemons, one of which has forgotten its job's name."""


def start_family(bench: Bench, gate: Gate, **limits: Any) -> tuple[Path, dict[str, int]]:
    directory = bench.start(
        sys.executable, "-c", FAMILY, str(gate.path / "gate"), str(gate.path / "arrivals"), **limits
    )
    members = dict(line.split(" ") for line in gate.wait_arrivals(5))
    return directory, {name: int(pid) for name, pid in members.items()}


def alive(members: dict[str, int]) -> list[str]:
    return sorted(name for name, pid in members.items() if start_ticks(pid) is not None)


# ---------------------------------------------------------------------------------------------------- exit records
def test_exit_statuses_are_recorded_exactly(bench: Bench) -> None:
    statuses = (0, 1, 7, 126, 127, 128, 255)
    for status, directory in [(status, bench.shell(f"exit {status}")) for status in statuses]:
        record = bench.ended(directory)
        assert (record["exitCode"], record["signal"], record["execErrno"], record["why"]) == (status, None, None, None)
        assert not record["killed"]
        assert record["leftBehind"] == 0


def test_deaths_by_signal_are_recorded_exactly(bench: Bench) -> None:
    signals = (1, 2, 3, 6, 9, 11, 13, 15)
    for number, directory in [(number, bench.shell(f"kill -{number} $$")) for number in signals]:
        record = bench.ended(directory)
        assert (record["exitCode"], record["signal"], record["why"]) == (None, number, None)


@pytest.mark.parametrize(
    ("command", "code", "number"),
    [
        (["/no/such/program"], 127, errno.ENOENT),
        (["no-such-program-anywhere"], 127, errno.ENOENT),
        (["./script"], 126, errno.EACCES),
        (["./bare"], 126, errno.ENOEXEC),
        (["sh", "-c", ":", "x" * (1 << 18)], 126, errno.E2BIG),
    ],
    ids=["path", "name", "mode", "format", "size"],
)
def test_a_program_that_cannot_start(bench: Bench, command: list[str], code: int, number: int) -> None:
    directory = bench.directory()
    for name, mode in (("script", 0o644), ("bare", 0o755)):
        (directory / name).write_text("just text\n")
        (directory / name).chmod(mode)
    bench.start(*command, directory=directory)
    record = bench.ended(directory)
    assert (record["exitCode"], record["execErrno"], record["execStage"]) == (code, number, "program")
    error, final = bench.events(directory)
    assert error["type"] == "error"
    assert os.strerror(number) in error["content"]
    assert (final["type"], final["content"]) == ("final", "")


def test_a_directory_or_input_that_is_gone(bench: Bench, tmp_path: Path) -> None:
    record = bench.ended(bench.shell("echo", cwd=tmp_path / "gone"))
    assert (record["exitCode"], record["execStage"]) == (127, "directory")
    record = bench.ended(bench.shell("echo", stdin=str(tmp_path / "gone")))
    assert (record["exitCode"], record["execStage"]) == (127, "stdin")


def test_stdin_is_empty_or_a_file(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("do it\n")
    directories = [bench.start("cat"), bench.start("cat", stdin=str(tmp_path / "prompt"))]
    assert [bench.ended(directory)["stdoutBytes"] for directory in directories] == [0, 6]
    assert (directories[1] / "stdout.log").read_text() == "do it\n"


def test_words_and_values_that_are_not_utf8_arrive(bench: Bench) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    directory = bench.start("sh", "-c", 'printf %s "$0$ODD"', odd, env={**os.environ, "ODD": odd})
    bench.ended(directory)
    assert (directory / "stdout.log").read_bytes() == b"\xff\xfe\xff\xfe"


# ---------------------------------------------------------------------------------------------------- the process
def test_a_worker_is_on_record_before_its_first_instruction(bench: Bench) -> None:
    directory = bench.shell("echo $$; cat worker.json supervisor.json")
    bench.ended(directory)
    pid, worker, supervisor = (directory / "stdout.log").read_text().splitlines()
    assert json.loads(worker)["pid"] == int(pid)
    assert json.loads(supervisor)["startTicks"]


def test_a_worker_inherits_nothing_but_its_streams(bench: Bench) -> None:
    held = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        # The fourth is the directory `ls` reads.
        directory = bench.start("ls", "/proc/self/fd")
    finally:
        os.close(held)
    bench.ended(directory)
    assert (directory / "stdout.log").read_text().split() == ["0", "1", "2", "3"]


def test_signals_are_as_a_shell_would_have_them(bench: Bench) -> None:
    directory = bench.start("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    bench.ended(directory)
    assert [int(line.split()[1], 16) for line in (directory / "stdout.log").read_text().splitlines()] == [0, 0]


def test_a_supervisor_stands_alone_and_is_small(bench: Bench, gate: Gate) -> None:
    directory = bench.shell(gate.shell())
    gate.wait_arrivals(1)
    supervisor, worker = bench.pid(directory, "supervisor"), bench.pid(directory, "worker")
    assert os.getsid(supervisor) != os.getsid(0)
    assert os.getsid(worker) == worker
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{supervisor}/status").read_text().splitlines() if ":" in line
    )
    assert int(status["PPid"]) != os.getpid()
    assert int(status["VmHWM"].split()[0]) < 25_000
    assert os.readlink(f"/proc/{supervisor}/cwd") == "/"
    gate.release()
    bench.ended(directory)


@pytest.mark.bench
def test_a_worker_runs_within_sixty_milliseconds(bench: Bench) -> None:
    seconds = []
    for _ in range(20):
        began = time.time()
        directory = bench.start("date", "+%s.%N")
        bench.ended(directory)
        seconds.append(float((directory / "stdout.log").read_text()) - began)
    assert sorted(seconds)[10] < 0.06, seconds


def test_an_idle_supervisor_costs_no_cpu(bench: Bench, gate: Gate) -> None:
    directory = bench.shell(gate.shell(), timeout_seconds=3600, idle_seconds=3600)
    gate.wait_arrivals(1)
    stat = Path(f"/proc/{bench.pid(directory, 'supervisor')}/stat")

    def switches() -> int:
        text = Path(f"/proc/{bench.pid(directory, 'supervisor')}/status").read_text()
        return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    eventually(lambda: " S " in stat.read_text())
    before = switches()
    done = threading.Event()
    done.wait(1)  # measured time, not synchronisation
    assert switches() - before <= 3
    gate.release()
    bench.ended(directory)


def test_a_worker_that_closes_its_streams_goes_on(bench: Bench, gate: Gate) -> None:
    directory = bench.shell(f"echo last; exec >&- 2>&-; {gate.shell('closed')}; exit 5")
    gate.wait_arrivals(1)
    assert bench.runner.poll(directory) == "alive"
    gate.release()
    assert bench.ended(directory)["exitCode"] == 5
    assert [event["content"] for event in bench.events(directory)] == ["last", "last"]


def test_a_supervisor_that_does_not_come_up(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit('no way')")
    monkeypatch.setattr(runner_module, "_SUPERVISOR", str(tmp_path / "broken.py"))
    directory = bench.directory()
    with pytest.raises(StateBroken, match="did not come up"):
        bench.start("true", directory=directory)
    assert "no way" in (directory / "supervisor.log").read_text()
    assert bench.runner.poll(directory) == "lost"
    monkeypatch.undo()
    assert bench.finish(directory)["why"] == "lost"


def test_a_starter_that_dies_too_early_to_hear_of_it_changes_nothing(bench: Bench) -> None:
    directory = bench.directory()
    bench.runner._write_launch(directory, Launch(["sh", "-c", "exit 5"], os.environ, "/"))
    lock = AliveLock(directory / "alive").take()
    assert lock is not None
    reading, ready = os.pipe()
    os.close(reading)
    words = runner_module._supervisor("run", directory, lock, ready)
    subprocess.run(words, pass_fds=(lock, ready), check=True, start_new_session=True, stderr=subprocess.DEVNULL)
    os.close(ready)
    os.close(lock)
    assert bench.ended(directory)["exitCode"] == 5


# ---------------------------------------------------------------------------------------------------- ending
def test_term_reaches_everybody_and_is_enough(bench: Bench, gate: Gate) -> None:
    directory, members = start_family(bench, gate, grace_seconds=60)
    assert bench.runner.signal(directory)
    record = bench.ended(directory)
    assert (record["signal"], record["why"], record["killed"], record["leftBehind"]) == (15, "cancel", False, 0)
    assert alive(members) == []


def test_who_ignores_term_is_killed_after_the_grace(bench: Bench, gate: Gate) -> None:
    directory = bench.shell(f"trap '' TERM; {gate.shell()}; while :; do sleep 3600; done", grace_seconds=0.1)
    gate.wait_arrivals(1)
    bench.runner.signal(directory)
    record = bench.ended(directory)
    assert (record["signal"], record["why"], record["killed"]) == (9, "cancel", True)


def test_who_needs_a_moment_after_term_gets_it(bench: Bench, gate: Gate) -> None:
    script = f"trap 'echo saved; exit 3' TERM; echo ready > {gate.path}/arrivals; while :; do sleep 0.01; done"
    directory = bench.shell(script, grace_seconds=60)
    gate.wait_arrivals(1)
    bench.runner.signal(directory)
    record = bench.ended(directory)
    assert (record["exitCode"], record["why"], record["killed"]) == (3, "cancel", False)
    assert (directory / "stdout.log").read_text() == "saved\n"


def test_force_kills_at_once(bench: Bench, gate: Gate) -> None:
    directory, members = start_family(bench, gate, grace_seconds=3600)
    assert bench.runner.signal(directory, force=True)
    record = bench.ended(directory)
    assert (record["signal"], record["why"], record["killed"]) == (9, "force", True)
    assert alive(members) == []


def test_force_shortens_a_grace_that_runs(bench: Bench, gate: Gate) -> None:
    directory = bench.shell(f"trap '' TERM; {gate.shell()}; while :; do sleep 3600; done", grace_seconds=3600)
    gate.wait_arrivals(1)
    bench.runner.signal(directory)
    bench.runner.signal(directory, force=True)
    record = bench.ended(directory)
    assert (record["signal"], record["why"], record["killed"]) == (9, "force", True)


def test_a_stopped_worker_is_woken_to_end(bench: Bench, gate: Gate) -> None:
    directory = bench.shell(f"echo here > {gate.path}/arrivals; kill -STOP $$; exit 4", grace_seconds=60)
    gate.wait_arrivals(1)
    stat = Path(f"/proc/{bench.pid(directory, 'worker')}/stat")
    eventually(lambda: ") T " in stat.read_text(), what="the worker stops itself")
    bench.runner.signal(directory)
    record = bench.ended(directory)
    assert (record["signal"], record["why"], record["killed"]) == (15, "cancel", False)


def test_what_a_worker_leaves_behind_is_killed_and_counted(bench: Bench, gate: Gate) -> None:
    directory, members = start_family(bench, gate)
    gate.release()
    record = bench.ended(directory)
    assert (record["exitCode"], record["why"], record["leftBehind"]) == (0, None, 4)
    assert alive(members) == []


def test_who_forks_all_the_time_is_killed(bench: Bench, gate: Gate) -> None:
    """Sixteen processes that are never the same for longer than an instant: each lives on in its child."""
    hydra = f"""
import os, signal
for _ in range(16):
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork():
                os._exit(0)
with open({str(gate.path / "arrivals")!r}, "w") as file:
    file.write("up\\n")
signal.pause()
"""
    directory = bench.start(sys.executable, "-c", hydra)
    gate.wait_arrivals(1)
    bench.runner.signal(directory, force=True)
    record = bench.ended(directory)
    assert (record["signal"], record["why"], record["unkillable"]) == (9, "force", 0)


def test_a_cancel_recorded_before_the_start_prevents_it(bench: Bench) -> None:
    directory = bench.directory()
    write_json(directory / "cancel.json", {"force": False})
    bench.start("touch", str(directory / "ran"), directory=directory)
    record = bench.ended(directory)
    assert (record["why"], record["exitCode"]) == ("cancel", None)
    assert not (directory / "ran").exists()
    assert [event["type"] for event in bench.events(directory)] == ["final"]


def test_the_wall_clock_limit(bench: Bench) -> None:
    record = bench.ended(bench.start("sleep", "3600", timeout_seconds=0.1))
    assert (record["why"], record["signal"]) == ("timeout", 15)


def test_the_idle_limit_counts_from_the_last_output(bench: Bench) -> None:
    directory = bench.shell("for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done; sleep 3600", idle_seconds=0.4)
    record = bench.ended(directory)
    assert (record["why"], record["signal"]) == ("idle", 15)
    assert (directory / "stdout.log").read_text() == "1\n2\n3\n4\n5\n6\n"


def test_a_lease_ends_a_worker_and_can_be_extended(bench: Bench, gate: Gate) -> None:
    short = bench.directory()
    leases.grant(short, 0.1)
    bench.start("sleep", "3600", directory=short)
    assert bench.ended(short)["why"] == "ttl"

    extended = bench.directory()
    leases.grant(extended, 0.5)
    bench.start("sh", "-c", gate.shell() + "; exit 6", directory=extended)
    gate.wait_arrivals(1)
    leases.grant(extended, 3600)
    bench.runner.lease_changed(extended)
    began = leases.since_boot()
    eventually(lambda: leases.since_boot() - began > 0.7)  # the old end passes
    gate.release()
    assert (bench.ended(extended)["why"], bench.ended(extended)["exitCode"]) == (None, 6)


def test_a_clock_that_is_set_does_not_move_a_lease(bench: Bench, gate: Gate) -> None:
    directory = bench.directory()
    leases.grant(directory, 3600)
    record = read_json(directory / "lease.json")
    assert record is not None
    write_json(directory / "lease.json", {**record, "expiresAt": "1999-12-31T23:59:59.000Z"})
    assert not leases.is_over(directory)
    bench.start("sh", "-c", gate.shell(), directory=directory)
    gate.wait_arrivals(1)
    gate.release()
    assert bench.ended(directory)["why"] is None
    write_json(directory / "lease.json", {**record, "deadlineBoottime": 1.0, "expiresAt": "2999-01-01T00:00:00.000Z"})
    assert leases.is_over(directory)


# ---------------------------------------------------------------------------------------------------- lost
def test_a_killed_supervisor_leaves_a_job_that_can_be_finished(bench: Bench, gate: Gate) -> None:
    directory, members = start_family(bench, gate)
    bench.kill_supervisor(directory)
    assert bench.runner.poll(directory) == "lost"
    assert not bench.runner.signal(directory)
    record = bench.finish(directory)
    assert (record["why"], record["exitCode"], record["signal"]) == ("lost", None, None)
    # Its daemon that took on another session, another parent and another environment cannot be told from a stranger.
    assert alive(members) in ([], ["nameless"])
    for name in alive(members):
        os.kill(members[name], signal.SIGKILL)
    assert bench.runner.poll(directory) == "exited"
    assert [event["type"] for event in bench.events(directory)] == ["error", "final"]


def test_finishing_again_changes_nothing(bench: Bench, gate: Gate) -> None:
    directory = bench.shell(f"echo one; echo two >&2; {gate.shell()}")
    gate.wait_arrivals(1)
    bench.kill_supervisor(directory)
    first = bench.finish(directory)
    events = (directory / "events.jsonl").read_bytes()
    assert bench.finish(directory) == first
    assert (directory / "events.jsonl").read_bytes() == events
    assert [event["content"] for event in bench.events(directory)][:2] == ["one", "two"]
    assert bench.events(directory)[-1]["content"] == "one"


def test_events_cut_anywhere_are_completed(bench: Bench) -> None:
    directory = bench.shell("seq 1 50; echo done >&2; printf tail")
    bench.ended(directory)
    whole = (directory / "events.jsonl").read_bytes()
    said = [(event["type"], event["content"]) for event in bench.events(directory)]
    assert said[-1] == ("final", "tail")
    assert [pair for pair in said if pair[0] == "message"][-1] == ("message", "tail")
    for cut in (0, 1, len(whole) // 3, len(whole) // 2, whole.rfind(b"\n", 0, -1) + 1, len(whole) - 1):
        (directory / "events.jsonl").write_bytes(whole[:cut])
        bench.finish(directory)
        again = [(event["type"], event["content"]) for event in bench.events(directory)]
        assert [pair for pair in again if pair[0] == "message"] == [pair for pair in said if pair[0] == "message"]
        assert sorted(again) == sorted(said)
        assert again[-1] == ("final", "tail")


def test_another_boot_means_nothing_is_left_to_kill(bench: Bench, gate: Gate) -> None:
    directory = bench.shell(gate.shell())
    gate.wait_arrivals(1)
    bench.kill_supervisor(directory)
    for name in ("supervisor.json", "worker.json"):
        record = read_json(directory / name)
        assert record is not None
        write_json(directory / name, {**record, "bootId": "another", "pid": os.getpid()})
    assert bench.finish(directory)["why"] == "lost"


def test_a_copy_of_the_records_kills_nobody(bench: Bench, gate: Gate) -> None:
    """A repository copied while a worker runs looks as if its supervisor had died."""
    directory = bench.shell(f"{gate.shell()}; exit 8")
    gate.wait_arrivals(1)
    copy = bench.root / "copy" / directory.name
    shutil.copytree(directory, copy)
    assert bench.runner.poll(copy) == "lost"
    assert bench.finish(copy)["leftBehind"] == 0
    assert not bench.runner.signal(copy)
    gate.release()
    assert bench.ended(directory)["exitCode"] == 8


def test_a_reused_pid_is_not_touched(bench: Bench, gate: Gate) -> None:
    directory = bench.shell(gate.shell())
    gate.wait_arrivals(1)
    bench.kill_supervisor(directory)
    stranger = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    try:
        record = read_json(directory / "worker.json")
        assert record is not None
        write_json(directory / "worker.json", {**record, "pid": stranger.pid})
        assert bench.finish(directory)["why"] == "lost"
        assert stranger.poll() is None
        write_json(directory / "supervisor.json", {**record, "pid": stranger.pid})
        (directory / "exit.json").unlink()
        assert not bench.runner.signal(directory, force=True)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_without_notification_a_supervisor_polls(bench: Bench, gate: Gate) -> None:
    """A user has a limited number of notifiers; here none."""
    directory = bench.directory()
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom worktrees.runner import Launch, LocalRunner\n"
        "launch = Launch(['sh', '-c', sys.argv[2]], os.environ, '/', grace_seconds=60)\n"
        "LocalRunner().start(Path(sys.argv[1]), launch)"
    )
    script = f"echo early; {gate.shell()}; seq 1 1000"
    started = subprocess.run(
        [
            *("unshare", "-Ur", "sh", "-c", 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"', "sh"),
            *(sys.executable, "-c", code, str(directory), script),
        ],
        capture_output=True,
        check=False,
    )
    if started.returncode:
        pytest.skip("taking notifiers away needs user namespaces")
    gate.wait_arrivals(1)
    eventually(lambda: [event["content"] for event in bench.events(directory)] == ["early"])
    gate.release()
    assert bench.ended(directory)["exitCode"] == 0
    said = [event["content"] for event in bench.events(directory) if event["type"] == "message"]
    assert said == ["early", *map(str, range(1, 1001))]


# ---------------------------------------------------------------------------------------------------- once
def test_one_of_many_starts_wins(bench: Bench, tmp_path: Path) -> None:
    directory = bench.directory()
    (tmp_path / "start.py").write_text(
        "import os, sys\nfrom pathlib import Path\n"
        "from worktrees.runner import Launch, LocalRunner\n"
        "sys.stdin.readline()\n"
        f"launch = Launch(['sh', '-c', 'echo ran >> {tmp_path}/count'], os.environ, '/')\n"
        "LocalRunner().start(Path(sys.argv[1]), launch)\n"
    )
    starts = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "start.py"), str(directory)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for start in starts:
        assert start.stdin is not None
        start.stdin.write("\n")
        start.stdin.flush()
    said = [start.communicate()[1] for start in starts]
    failures = [text for start, text in zip(starts, said, strict=True) if start.returncode != 0]
    bench.ended(directory)
    assert (tmp_path / "count").read_text() == "ran\n"
    assert len(failures) == 7
    assert all("runs already" in text or "was started before" in text for text in failures)


def test_a_job_runs_once(bench: Bench) -> None:
    directory = bench.start("true")
    bench.ended(directory)
    with pytest.raises(Busy, match="started before"):
        bench.start("true", directory=directory)


def test_status_polls_never_see_a_starting_job_as_lost(bench: Bench) -> None:
    seen: Counter[str] = Counter()
    current: list[Path] = []
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            for directory in current[-1:]:
                seen[bench.runner.poll(directory)] += 1

    threads = [threading.Thread(target=poll) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            directory = bench.directory()
            lock = AliveLock(directory / "alive").take()
            current.append(directory)
            assert lock is not None
            bench.runner.start(directory, Launch(["true"], os.environ, "/"), alive=lock)
            os.close(lock)
            bench.ended(directory)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert seen["lost"] == 0, seen
    assert seen["not-started"] == 0, seen
    assert seen["alive"] > 0, seen


# ---------------------------------------------------------------------------------------------------- a full disk
def test_the_exit_record_is_exact_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        _exact_on_a_full_disk(Bench(disk / "jobs"))


def _exact_on_a_full_disk(bench: Bench) -> None:
    directory = bench.shell("echo start; cat /dev/zero > filler; echo after; exit 9")
    record = bench.ended(directory)
    assert (record["exitCode"], record["why"]) == (9, None)
    (directory / "filler").unlink()
    assert bench.finish(directory) == record
    said = [event["content"] for event in bench.events(directory) if event["type"] == "message"]
    assert said[0] == "start"
    assert bench.events(directory)[-1]["type"] == "final"


def test_events_held_up_by_a_full_disk_come_when_there_is_room(tmp_path: Path, gate: Gate) -> None:
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        _events_when_there_is_room(Bench(disk / "jobs"), gate)


def _events_when_there_is_room(bench: Bench, gate: Gate) -> None:
    directory = bench.directory()
    # Leaves room for the log, not for its events.
    script = f"head -c 3900000 /dev/zero > filler; seq 1 12000; {gate.shell()}"
    bench.start("sh", "-c", script, directory=directory)
    gate.wait_arrivals(1)
    eventually(lambda: os.statvfs(directory).f_bavail == 0, what="the disk is full")
    assert bench.runner.poll(directory) == "alive"
    (directory / "filler").unlink()

    def said() -> list[int]:
        whole = (directory / "events.jsonl").read_bytes().rpartition(b"\n")[0]
        events = [json.loads(line) for line in whole.splitlines()]
        return [int(event["content"]) for event in events if event["type"] == "message"]

    eventually(lambda: len(said()) == 12000, what="the events are there, while the worker runs")
    assert said() == list(range(1, 12001))
    gate.release()
    assert bench.ended(directory)["exitCode"] == 0


def test_nothing_is_left_where_a_bench_was(bench: Bench) -> None:
    directory = bench.start("true")
    bench.ended(directory)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)
    assert bench.runner.poll(directory) == "not-started"
