"""The benchmark harness measures what it says: every side once a round, ratios within a round."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.harness import Case, Outcome, Work, generate, measure, table, transplant


def side(log: list[str], name: str) -> Callable[[], AbstractContextManager[Work]]:
    """A side whose work is to be written down."""

    @contextmanager
    def run() -> Iterator[Work]:
        yield lambda: log.append(name)
        log.append(f"{name} tidied")

    return run


def test_sides_take_turns() -> None:
    log: list[str] = []
    case = Case("c", "s", "p", side(log, "plain"), {"wt": side(log, "wt")})
    outcome = measure(case, rounds=2, warmup=1)
    assert [entry for entry in log if "tidied" not in entry] == ["wt", "plain", "plain", "wt", "wt", "plain"]
    assert {name: len(seconds) for name, seconds in outcome.seconds.items()} == {"plain": 2, "wt": 2}


def test_table_has_the_median_of_ratios_within_rounds() -> None:
    case = Case("spawn", "8 jobs", "git worktree add", side([], "plain"), {"wt": side([], "wt")})
    rows = table([Outcome(case, {"plain": [1.0, 2.0, 4.0], "wt": [2.0, 2.0, 2.0]})]).splitlines()
    assert (
        rows[2] == "| spawn | 8 jobs | `git worktree add` | 2.00 s | wt | 2.00 s | **1.00** | 0.75-1.50 | 0.50-2.00 |"
    )


def test_trees_have_as_many_files_as_asked_for(tmp_path: Path) -> None:
    generate(tmp_path / "a", 90)
    generate(tmp_path / "b", 90)
    files = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.py")}
    assert len(files) == 90
    assert files == {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.py")}
    assert transplant(tmp_path / "a", tmp_path / "c", 200) == 200
    assert len([path for path in (tmp_path / "c").rglob("*") if path.is_file()]) == 200
