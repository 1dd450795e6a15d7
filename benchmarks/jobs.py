"""What supervising a worker costs: its start, its memory, its events, waiting for it. No git takes part.

A worker is started in a bare job directory, as `jobs` would. The plain side is the same program started directly, or
`tail --follow` on a file it writes.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from benchmarks.harness import Case, Fact, Work
from worktrees.jobs import events
from worktrees.model import Baseline, Job, JobId, Oid, WorkflowName
from worktrees.runner import Launch, LocalRunner
from worktrees.store import AliveLock, State, new_id, now, read_json, write_json

_PAUSE_SECONDS = 0.02
_SETTLED_SECONDS = 0.2


class Yard:
    """A repository's job directories with their workers; everything started here is ended with the stack."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        root.mkdir()
        subprocess.run(["git", "init", "--quiet", root], check=True)
        self.root = root
        self.stack = stack
        self.state = State(root / ".git")
        self.state.prepare()
        self.runner = LocalRunner()
        (self.state.workflow_dir("bench") / "jobs").mkdir(parents=True)
        write_json(self.state.workflow_dir("bench") / "workflow.json", {"closedAt": None})

    def start(self, *command: str, walls: Sequence[tuple[str, Sequence[str]]] = (("none", ()),)) -> Path:
        """A running worker; its directory."""
        job = JobId(new_id("j"))
        directory = self.state.job_dir("bench", job)
        directory.mkdir()
        baseline = Baseline(commit=Oid("1" * 40))
        record = Job(
            job_id=job, workflow_id=WorkflowName("bench"), baseline=baseline, state="starting", created_at=now()
        )
        write_json(directory / "job.json", record.dump())
        self.runner.start(directory, Launch(command, os.environ, "/", walls=walls))
        return directory

    def end(self, directory: Path) -> None:
        """Waits until the supervisor is gone, and marks the job as done."""
        while AliveLock(directory / "alive").is_held():
            time.sleep(0.001)
        record = read_json(directory / "job.json") or {}
        write_json(directory / "job.json", {**record, "state": "done", "result": "succeeded", "finishedAt": now()})

    def pipe(self) -> Path:
        """A named pipe."""
        path = self.root / new_id("pipe")
        os.mkfifo(path)
        return path

    def held(self) -> tuple[Path, IO[bytes]]:
        """A worker that copies what it is told to its output, and the pipe to tell it by; ended with the stack."""
        pipe = self.pipe()
        directory = self.start("cat", str(pipe))
        self.stack.callback(self.end, directory)
        return directory, self.stack.enter_context(pipe.open("wb", buffering=0))

    def process(self, *words: str) -> "subprocess.Popen[bytes]":
        """A process whose output is read; gone with the stack."""
        process = subprocess.Popen(words, cwd=self.root, stdout=subprocess.PIPE)

        def end() -> None:
            process.kill()
            process.communicate()

        self.stack.callback(end)
        return process

    def wt(self, *words: str) -> "subprocess.Popen[bytes]":
        """Our command, as installed."""
        return self.process(str(Path(sys.executable).with_name("wt")), *words)

    def supervisor(self, directory: Path) -> int:
        """The pid of a job's supervisor."""
        record = read_json(directory / "supervisor.json")
        assert record is not None
        return int(record["pid"])


# ---------------------------------------------------------------------------------------------------------- compared
def start(yard: Yard) -> Case:
    """From the call to the first thing that the worker's program does."""
    pipe = yard.pipe()
    command = ("sh", "-c", f"echo > {pipe}")

    @contextmanager
    def until_heard(begin: Callable[[], Callable[[], object]]) -> Iterator[Work]:
        listening = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        ends: list[Callable[[], object]] = []

        def work() -> None:
            ends.append(begin())
            select.select([listening], [], [])

        yield work
        os.close(listening)
        ends[0]()

    def ours() -> Callable[[], object]:
        directory = yard.start(*command)
        return lambda: yard.end(directory)

    return Case(
        "start of a worker, to its first instruction",
        "one `sh`",
        {"Popen": lambda: until_heard(lambda: subprocess.Popen(command).wait)},
        {"runner.start": lambda: until_heard(ours)},
        more_rounds=6,
    )


def follow(yard: Yard) -> Case:
    """From a worker's line to who follows it."""
    directory, ours = yard.held()
    log, pipe = yard.root / "plain.log", yard.pipe()
    with log.open("wb") as target:
        subprocess.Popen(["cat", pipe], stdout=target)
    plain = yard.stack.enter_context(pipe.open("wb", buffering=0))
    told = {
        "plain": (plain, yard.process("tail", "--follow", str(log))),
        "ours": (ours, yard.wt("events", directory.name, "--follow", "--jsonl")),
    }

    @contextmanager
    def side(name: str) -> Iterator[Work]:
        mouth, listener = told[name]
        ear = listener.stdout
        assert ear is not None
        time.sleep(_PAUSE_SECONDS)  # a worker says something now and then

        def work() -> None:
            mouth.write(b"a line\n")
            assert b"a line" in ear.readline()

        yield work

    return Case(
        "a worker's line, to who follows",
        "one line",
        {"tail --follow": lambda: side("plain")},
        {"wt events --follow": lambda: side("ours")},
        more_rounds=10,
    )


# ------------------------------------------------------------------------------------------------------------- alone
def output(yard: Yard, lines: int, rounds: int) -> list[Fact]:
    """Lines into events and out again, and what the supervisor took for it."""
    size = f"{lines:,} lines"
    written, read, peak = [], [], []
    for _ in range(rounds):
        gate = yard.pipe()
        began = time.perf_counter()
        directory = yard.start("sh", "-c", f"seq 1 {lines}; read -r _ < {gate}")
        last = f'"content":"{lines}"'.encode()
        path = directory / "events.jsonl"
        while last not in _end_of(path):
            time.sleep(0.002)
        written.append(lines / (time.perf_counter() - began))
        peak.append(_status(yard.supervisor(directory), "VmHWM"))
        gate.write_text("\n")
        yard.end(directory)
        began = time.perf_counter()
        cursor, count, done = None, 0, False
        while not done:
            page = events(yard.state, JobId(directory.name), cursor, most=1000)
            count, cursor, done = count + len(page.events), page.next_cursor, page.done
        read.append(lines / (time.perf_counter() - began))
        assert count == lines + 1, count
    return [
        Fact("events written, a second", size, written, lambda value: f"{value:,.0f}"),
        Fact("events read by cursor, a second", size, read, lambda value: f"{value:,.0f}"),
        Fact("supervisor, peak memory", size, peak, _megabytes),
    ]


def _end_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 300))
        return file.read()


def memory(yard: Yard, rounds: int) -> list[Fact]:
    """What a supervisor holds while its worker runs and says nothing."""
    resident, share = [], []
    for _ in range(rounds):
        directory, _pipe = yard.held()
        time.sleep(_SETTLED_SECONDS)
        pid = yard.supervisor(directory)
        resident.append(_status(pid, "VmRSS"))
        share.append(_kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss"))
    return [
        Fact("supervisor, resident memory", "a quiet worker", resident, _megabytes),
        Fact("supervisor, its share of that (PSS)", "a quiet worker", share, _megabytes),
    ]


def waiting(yard: Yard, seconds: float, rounds: int) -> list[Fact]:
    """Processor time of who waits, and of who supervises, while nothing happens."""
    directory, _pipe = yard.held()
    supervisor, waiter = yard.supervisor(directory), yard.wt("wait", directory.name).pid
    time.sleep(_SETTLED_SECONDS * 10)
    spent: dict[int, list[float]] = {waiter: [], supervisor: []}
    for _ in range(rounds):
        before = {pid: _processor_seconds(pid) for pid in spent}
        time.sleep(seconds)
        for pid, values in spent.items():
            values.append((_processor_seconds(pid) - before[pid]) / seconds)
    return [
        Fact(name, f"{seconds:g} s of silence", spent[pid], lambda share: f"{share * 60_000:.2f} ms")
        for name, pid in (
            ("`wt wait`, processor time a minute", waiter),
            ("supervisor, processor time a minute", supervisor),
        )
    ]


def _processor_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _status(pid: int, name: str) -> float:
    return _kilobytes(Path(f"/proc/{pid}/status"), name)


def _kilobytes(path: Path, name: str) -> float:
    return int(path.read_text().partition(f"{name}:")[2].split()[0])


def _megabytes(kilobytes: float) -> str:
    return f"{kilobytes / 1024:.1f} MB"
