"""`python -m benchmarks.jobs`: what supervising a worker costs, without git.

    python -m benchmarks.jobs --rounds 50 --lines 1000000

Start: from the call to the first instruction of the worker's program (the start of `date` is in it). Memory: the peak
of a supervisor's resident memory. Events: lines turned into events each second, and read back. Latency: from a worker's
line to a follower that has it. Idle: processor time of a supervisor in a second without output.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import machine, spell
from worktrees.jobs import events, follow_events
from worktrees.model import JobId
from worktrees.runner import Launch, LocalRunner
from worktrees.store import AliveLock, State, new_id, read_json, write_json


class Yard:
    """Job directories as the state directory has them, their workers and nothing else."""

    def __init__(self, root: Path) -> None:
        self.state = State(root)
        self.state.prepare()
        self.runner = LocalRunner()

    def directory(self) -> Path:
        """A new job's directory, with as much of a record as readers need."""
        directory = self.state.job_dir("bench", new_id("j"))
        directory.mkdir(parents=True)
        write_json(self.state.workflow_dir("bench") / "workflow.json", {"closedAt": None})
        return directory

    def start(self, *command: str) -> Path:
        """A running worker."""
        directory = self.directory()
        self.runner.start(directory, Launch(command, os.environ, "/"))
        return directory

    def end(self, directory: Path) -> None:
        """Waits until the supervisor is gone."""
        while AliveLock(directory / "alive").is_held():
            time.sleep(0.001)

    def pid(self, directory: Path) -> int:
        """The supervisor of a job."""
        record = read_json(directory / "supervisor.json")
        if record is None:
            raise SystemExit("no supervisor")
        return int(record["pid"])


def starts(yard: Yard, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds until the worker's program runs, and until the call returns."""
    first, returned = [], []
    for _ in range(rounds):
        began = time.time()
        directory = yard.start("date", "+%s.%N")
        returned.append(time.time() - began)
        yard.end(directory)
        first.append(float((directory / "stdout.log").read_text()) - began)
    return first, returned


def rates(yard: Yard, lines: int) -> tuple[float, float, int]:
    """Events written and read each second, and the supervisor's peak in kilobytes."""
    began = time.perf_counter()
    gate = yard.state.root / "gate"
    os.mkfifo(gate)
    directory = yard.start("sh", "-c", f"seq 1 {lines}; read -r _ < {gate}")
    path = directory / "events.jsonl"
    last = f'"{lines}"'.encode()
    while True:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 200))
            if last in file.read():
                break
        time.sleep(0.005)
    written = time.perf_counter() - began
    status = Path(f"/proc/{yard.pid(directory)}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0])
    gate.write_text("\n")
    yard.end(directory)
    began = time.perf_counter()
    cursor, done = None, False
    while not done:
        page = events(yard.state, JobId(directory.name), cursor, most=1000)
        cursor, done = page.next_cursor, page.done
    return lines / written, lines / (time.perf_counter() - began), peak


def latencies(yard: Yard, rounds: int) -> list[float]:
    """Seconds from a line of a worker to a follower."""
    pipe = yard.state.root / "line"
    os.mkfifo(pipe)
    directory = yard.start("cat", str(pipe))
    write_json(directory / "job.json", {"state": "starting"})
    arrived: dict[str, float] = {}
    seen = threading.Event()

    def follow() -> None:
        for page in follow_events(yard.state, JobId(directory.name)):
            for event in page.events:
                arrived[event.content] = time.perf_counter()
                seen.set()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    sent: dict[str, float] = {}
    with pipe.open("w") as file:
        for number in range(rounds):
            time.sleep(0.02)  # a worker that says something now and then
            seen.clear()
            sent[str(number)] = time.perf_counter()
            file.write(f"{number}\n")
            file.flush()
            seen.wait(10)
    follower.join(10)
    yard.end(directory)
    return [arrived[line] - at for line, at in sent.items()]


def idle(yard: Yard, seconds: float) -> float:
    """Processor seconds that a supervisor spends in a second of silence."""
    pipe = yard.state.root / "silence"
    os.mkfifo(pipe)
    directory = yard.start("cat", str(pipe))
    stat = Path(f"/proc/{yard.pid(directory)}/schedstat")
    with pipe.open("w"):
        time.sleep(0.2)
        before = int(stat.read_text().split()[0])
        time.sleep(seconds)
        spent = int(stat.read_text().split()[0]) - before
    yard.end(directory)
    return spent / 1e9 / seconds


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{spell(statistics.median(values))} ({spell(min(values))}-{spell(max(values))})"


def main() -> None:
    """Prints a markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--lines", type=int, default=1_000_000)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="wt-bench-"))
    try:
        yard = Yard(root)
        first, returned = starts(yard, options.rounds)
        written, read, peak = rates(yard, options.lines)
        rows = [
            ("call to the worker's first instruction", spread(first)),
            ("call to its return", spread(returned)),
            ("peak memory of a supervisor", f"{peak / 1024:.1f} MB, after {options.lines:,} lines"),
            ("events written", f"{written:,.0f} a second"),
            ("events read by cursor", f"{read:,.0f} a second"),
            ("a worker's line to a follower", spread(latencies(yard, options.rounds))),
            ("processor time of an idle supervisor", f"{idle(yard, 2.0) * 1e6:.0f} µs a second"),
        ]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    sys.stdout.write(f"{machine()}\n\n| what | measured |\n|---|---:|\n")
    sys.stdout.writelines(f"| {what} | {measured} |\n" for what, measured in rows)


if __name__ == "__main__":
    main()
