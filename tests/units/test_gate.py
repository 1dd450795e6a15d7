"""The parts of the check gate: the search for culprits, what is kept of runs, commands that die with their caller."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit import Gate, eventually
from worktrees.gate import results
from worktrees.gate.search import search
from worktrees.model import CheckRun, JobId, Oid
from worktrees.runner import attend
from worktrees.store import State, read_lines

ITEMS = range(14)
BAD_SETS = st.lists(st.sets(st.sampled_from(ITEMS), max_size=3), max_size=4)


class Bench:
    """Items of which some sets fail together; counts what is tried."""

    def __init__(self, count: int, bad: list[set[int]], quarrels: set[frozenset[int]] | None = None) -> None:
        self.items = list(range(count))
        self.bad = bad
        self.quarrels = quarrels or set()
        self.tried: list[tuple[int, ...]] = []

    def together(self, items: Sequence[int]) -> list[int]:
        """Who comes later and quarrels with somebody before is left out, as a conflict is."""
        kept: list[int] = []
        for item in items:
            if not any(frozenset({item, other}) in self.quarrels for other in kept):
                kept.append(item)
        return kept

    def good(self, items: Sequence[int]) -> bool:
        return not any(each <= set(items) for each in self.bad)

    def passes(self, items: Sequence[int], _ahead: int) -> bool:
        if tuple(items) not in self.tried:
            self.tried.append(tuple(items))
        return self.good(items)

    def search(self) -> tuple[list[int], list[int], bool]:
        found = search(self.items, together=self.together, passes=self.passes)
        return found.good, found.culprits, found.ground_fails


@given(count=st.integers(1, 14), bad=BAD_SETS)
def test_s27_whoever_fails_alone_or_together_is_found(count: int, bad: list[set[int]]) -> None:
    bench = Bench(count, bad)
    good, culprits, ground_fails = bench.search()
    bound = 2 + max(len(culprits), 1) * ((count - 1).bit_length() + 1)
    assert len(bench.tried) <= bound
    assert ground_fails == (set() in bad)
    if ground_fails:
        assert good == culprits == []
        return
    assert sorted(good + culprits) == bench.items
    assert good == sorted(good)
    assert bench.good(good)
    # By what was tried and not by inference, but for nobody at all.
    assert not good or tuple(good) in bench.tried
    # Nobody is blamed for nothing: with the good ones before it, each of them fails.
    for culprit in culprits:
        before = [item for item in bench.items[:culprit] if item not in culprits]
        assert not bench.good([*before, culprit])


@given(
    bad=BAD_SETS.map(lambda sets: [each for each in sets if each]),
    quarrels=st.sets(st.sets(st.sampled_from(ITEMS), min_size=2, max_size=2).map(frozenset), max_size=5),
)
def test_s27_who_did_not_get_along_with_a_culprit_gets_another_chance(
    bad: list[set[int]], quarrels: set[frozenset[int]]
) -> None:
    bench = Bench(len(ITEMS), bad, quarrels)
    good, culprits, _ = bench.search()
    rest = [item for item in bench.items if item not in culprits]
    assert good == bench.together(rest)
    assert bench.good(good)
    assert not good or tuple(good) in bench.tried
    assert len(bench.tried) <= 2 + len(culprits) * ((len(ITEMS) - 1).bit_length() + 1)


def test_s27_one_that_mends_another_is_not_blamed() -> None:
    """The first alone fails, with the second it passes: as a whole they are good, and nothing more is tried."""

    def passes(items: Sequence[str], _: int) -> bool:
        return "breaks" not in items or "mends" in items

    found = search(["breaks", "mends"], together=lambda items: items, passes=passes)
    assert (found.good, found.culprits) == (["breaks", "mends"], [])


def test_the_last_of_two_is_inferred() -> None:
    bench = Bench(2, [{1}])
    assert bench.search() == ([0], [1], False)
    assert bench.tried == [(0, 1), (0,)]


# ------------------------------------------------------------------------------------------------------------ results
def run(**fields: object) -> CheckRun:
    return CheckRun.model_validate({"jobs": [JobId("j-22222222")], "exitCode": 0, "seconds": 1.5, **fields})


def test_an_outcome_is_kept_under_all_that_decides_it(tmp_path: Path) -> None:
    kept = results.Results(State(tmp_path))
    kept.root.parent.mkdir()
    kept.prepare()
    about = {"environment": {"PATH": "/bin"}}
    name = results.key(Oid("a" * 40), "make", about)
    kept.remember(name, run(exitCode=2), tries=1)
    recalled = kept.recall(name)
    assert recalled is not None
    assert (recalled["exitCode"], recalled["seconds"], recalled["tries"]) == (2, 1.5, 1)
    others = [
        results.key(Oid("b" * 40), "make", about),
        results.key(Oid("a" * 40), "make all", about),
        results.key(Oid("a" * 40), "make", {"environment": {"PATH": "/usr/bin"}}),
    ]
    assert [kept.recall(other) for other in others] == [None] * 3
    (kept.root / "results" / f"{name}.json").write_text("{")
    assert kept.recall(name) is None


def test_the_environment_that_counts_is_the_same_in_every_terminal() -> None:
    here = {"PATH": "/bin", "TERM": "xterm", "SHLVL": "2", "DEBUG": "1", "TMUX_PANE": "%1", "WT_JOB": "x"}
    assert results.lasting(here) == {"PATH": "/bin", "DEBUG": "1"}


def test_the_number_of_outcomes_and_logs_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "KEPT_RUNS", 3)
    kept = results.Results(State(tmp_path))
    kept.root.parent.mkdir()
    kept.prepare()
    for number in range(6):
        with kept.log() as log:
            log.write(b"x")
        kept.remember(f"k{number}", run(), tries=1)
        os.utime(kept.root / "results" / f"k{number}.json", (number, number))
        kept.note(run())
    assert len(list((kept.root / "results").iterdir())) == 3
    assert len(list((kept.root / "logs").iterdir())) <= 4
    assert kept.recall("k5") is not None
    assert len(read_lines(kept.root / "runs.jsonl", 0)[0]) == 6


def test_a_log_keeps_the_beginning_and_the_end(tmp_path: Path) -> None:
    whole = b"".join(b"line %07d\n" % number for number in range(300_000))
    with results.Log(tmp_path / "log") as log:
        for start in range(0, len(whole), 50_000):
            log.write(whole[start : start + 50_000])
    kept = (tmp_path / "log").read_bytes()
    assert len(kept) < (1 << 20) + 100_000
    head, _, tail = kept.partition(b"\n[wt: ")
    assert whole.startswith(head)
    assert whole.endswith(tail.partition(b"here]\n")[2])
    assert int(tail.split()[0]) + len(head) + len(tail.partition(b"here]\n")[2]) == len(whole)


# ------------------------------------------------------------------------------------------------------------ attended
def test_an_attended_command_ends_with_all_it_started(tmp_path: Path) -> None:
    heard: list[bytes] = []
    script = "echo out; echo err >&2; setsid sleep 3600 & echo $! > left; exit 3"
    ended = attend(["sh", "-c", script], env=dict(os.environ), cwd=tmp_path, hear=heard.append)
    assert (ended.exit_code, ended.timed_out, ended.left) == (3, False, 0)
    assert b"".join(heard) == b"out\nerr\n"
    left = int((tmp_path / "left").read_text())
    eventually(lambda: not psutil.pid_exists(left), what="whoever inherited what was killed has taken note")


def test_an_attended_command_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    script = "trap '' TERM; (trap '' TERM; sleep 3600) & wait; wait; sleep 3600"
    ended = attend(
        ["sh", "-c", script], env=dict(os.environ), cwd=tmp_path, hear=lambda _: None,
        timeout_seconds=0.2, grace_seconds=0.1,
    )  # fmt: skip
    assert (ended.exit_code, ended.timed_out, ended.left) == (124, True, 0)


def test_a_program_that_is_not_there_says_so(tmp_path: Path) -> None:
    heard: list[bytes] = []
    ended = attend(["no-such-program"], env=dict(os.environ), cwd=tmp_path, hear=heard.append)
    assert ended.exit_code == 127
    assert b"cannot run `no-such-program`" in b"".join(heard)


def test_a_listener_that_fails_ends_the_command(tmp_path: Path) -> None:
    def fail(_: bytes) -> None:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        attend(["sh", "-c", "echo $$; exec sleep 3600"], env=dict(os.environ), cwd=tmp_path, hear=fail)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_attended_command_dies_with_its_caller(tmp_path: Path, gate: Gate, number: int) -> None:
    script = f"(setsid sh -c '{gate.shell('$$')}; sleep 3600' &) ; {gate.shell('$$')}; sleep 3600"
    caller = (
        "import os, sys; from pathlib import Path; from worktrees.runner import attend; "
        "attend(['sh', '-c', sys.argv[1]], env=dict(os.environ), cwd=Path('.'), hear=print, grace_seconds=0.1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", caller, script], cwd=tmp_path, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
    )  # fmt: skip
    arrived = [int(pid) for pid in gate.wait_arrivals(2)]
    process.send_signal(number)
    process.wait(20)
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in arrived), what="everything is gone")
