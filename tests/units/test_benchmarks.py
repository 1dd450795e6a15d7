"""The benchmark harness measures what it says: every side once a round, ratios within a round."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from benchmarks.harness import Case, Fact, Outcome, Work, facts_table, generate, measure, table, transplant

ROOT = Path(__file__).parent.parent.parent
TINY = {
    "files": 30, "jobs": 2, "changed": 1, "edits": 1, "recorded": 3, "lines": 500, "silence": 0.1, "rounds": 1,
    "warmup": 0,
}  # fmt: skip


def side(log: list[str], name: str) -> Callable[[], AbstractContextManager[Work]]:
    """A side whose work is to be written down."""

    @contextmanager
    def run() -> Iterator[Work]:
        yield lambda: log.append(name)
        log.append(f"{name} tidied")

    return run


def test_sides_take_turns() -> None:
    log: list[str] = []
    case = Case("c", "s", {"git": side(log, "git")}, {"wt": side(log, "wt")})
    outcome = measure(case, rounds=2, warmup=1)
    assert [entry for entry in log if "tidied" not in entry] == ["wt", "git", "git", "wt", "wt", "git"]
    assert {name: len(seconds) for name, seconds in outcome.seconds.items()} == {"git": 2, "wt": 2}


def test_table_has_the_median_of_ratios_within_rounds() -> None:
    case = Case("spawn", "8 jobs", {"git worktree add": side([], "git")}, {"wt spawn": side([], "wt")})
    rows = table([Outcome(case, {"git worktree add": [1.0, 2.0, 4.0], "wt spawn": [2.0, 2.0, 2.0]})]).splitlines()
    assert rows[2:] == [
        "| spawn | 8 jobs | `git worktree add` | 2.00 s | `wt spawn` | 2.00 s | **1.00** | 0.75-1.50 | 2.00 |"
    ]


def test_what_is_measured_alone_has_a_median_and_a_range() -> None:
    rows = facts_table([Fact("memory", "a worker", [3.0, 1.0, 2.0], str)]).splitlines()
    assert rows[2:] == ["| memory | a worker | **2.0** | 1.0-3.0 |"]


@pytest.mark.parametrize(
    "cases", ["spawn", "look,merge,overlap", "guard,help,list", "mcp", "start,sandbox,follow,output,memory,wait"]
)
def test_every_case_does_its_work_once(cases: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    sizes = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    words = ["--cases", cases, *sizes, "--lab", str(tmp_path), "--json", str(report)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", *words], cwd=ROOT, capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(report.read_text())
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) >= len(measured["outcomes"]) + len(measured["facts"]) > 0
    assert all(seconds for outcome in measured["outcomes"] for seconds in outcome["seconds"].values())
    assert [path.name for path in tmp_path.glob("wt-bench-*")] == []


def test_trees_have_as_many_files_as_asked_for(tmp_path: Path) -> None:
    generate(tmp_path / "a", 90)
    generate(tmp_path / "b", 90)
    files = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.py")}
    assert len(files) == 90
    assert files == {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.py")}
    assert transplant(tmp_path / "a", tmp_path / "c", 200) == 200
    assert len([path for path in (tmp_path / "c").rglob("*") if path.is_file()]) == 200
