"""Every scenario is tested or pending, and every scenario test names a scenario."""

import ast
import re
from pathlib import Path

from tests.manifest import PARTIAL, PENDING, SCENARIOS

NAME = re.compile(r"test_(s\d+)(_|$)")


def scenario_of(name: str) -> str | None:
    """The scenario id that a function's name carries."""
    match = NAME.match(name)
    return match[1] if match else None


def covered() -> dict[str, list[str]]:
    """Scenario ids with the tests that name them, read from the sources."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (scenario := scenario_of(node.name)):
                found.setdefault(scenario, []).append(f"{path.name}::{node.name}")
    return found


def test_ids_are_numbered_through() -> None:
    assert list(SCENARIOS) == [f"s{number:02}" for number in range(1, len(SCENARIOS) + 1)]
    assert PENDING.keys() <= SCENARIOS.keys()
    assert PENDING.keys() >= PARTIAL


def test_every_scenario_has_a_test_or_is_pending() -> None:
    assert not SCENARIOS.keys() - PENDING.keys() - covered().keys()


def test_every_scenario_test_names_a_scenario() -> None:
    assert not {scenario: names for scenario, names in covered().items() if scenario not in SCENARIOS}


def test_nothing_built_is_still_pending() -> None:
    built = {scenario: covered()[scenario] for scenario in PENDING.keys() & covered().keys() - PARTIAL}
    assert not built, "take these out of PENDING in tests/manifest.py, or name them in PARTIAL"


def test_names_are_read_as_they_are_written() -> None:
    assert scenario_of("test_s07_forced_cancel") == "s07"
    assert scenario_of("test_s7_forced_cancel") == "s7"
    assert scenario_of("test_s07") == "s07"
    assert scenario_of("test_status") is None
    assert scenario_of("test_s07b_forced") is None
