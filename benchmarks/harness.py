"""Times sides of the same work in interleaved rounds and says how they compare.

A case has plain sides and ours. Each side is a context manager: it prepares (not timed), yields the work (timed) and
tidies up (not timed). A round runs every side once; the order is reversed every other round, so that a machine that
gets slower or a cache that gets warmer does not favour one. The ratio is taken within each round, since neighbours in
time share their weather; reported are its median, its quartiles, and the best of ours over the best of the plain side,
which says what is left when nobody else wants the machine.
"""

import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

Work = Callable[[], object]
Side = Callable[[], AbstractContextManager[Work]]


@dataclass(frozen=True)
class Case:
    """One comparison: what it is called, on how much, and its sides by name, which is what is typed or called."""

    name: str
    size: str
    plain: Mapping[str, Side]
    ours: Mapping[str, Side] = field(default_factory=dict)
    more_rounds: int = 1
    """How many times the usual number of rounds; for work of a few milliseconds."""


@dataclass(frozen=True)
class Outcome:
    """The seconds of every round of one case, by side."""

    case: Case
    seconds: dict[str, list[float]]

    def ratios(self, plain: str, ours: str) -> list[float]:
        """Ours over plain, round by round."""
        return [one / other for one, other in zip(self.seconds[ours], self.seconds[plain], strict=True)]


@dataclass(frozen=True)
class Fact:
    """Something that is measured alone: its values, spelled."""

    name: str
    size: str
    values: Sequence[float]
    spell: Callable[[float], str]


def measure(case: Case, rounds: int, warmup: int = 1, say: Callable[[str], None] = lambda _line: None) -> Outcome:
    """Run the case `warmup` times unrecorded, then `rounds` times (more where the case says so)."""
    sides: dict[str, Side] = {**case.plain, **case.ours}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    rounds *= case.more_rounds
    for number in range(-warmup, rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            with sides[name]() as work:
                start = time.perf_counter()
                work()
                spent = time.perf_counter() - start
            say(f"{case.name} ({case.size}) round {number + 1}/{rounds} {name}: {spent * 1000:.1f} ms")
            if number >= 0:
                seconds[name].append(spent)
    return Outcome(case, seconds)


def table(outcomes: Iterable[Outcome]) -> str:
    """A markdown table, a row for each of our sides against each plain one."""
    lines = [
        "| work | size | plain | time | ours | time | ratio | quartiles | best to best |",
        "|---|---|---|---:|---|---:|---:|---:|---:|",
    ]
    for outcome in outcomes:
        case = outcome.case
        for plain in case.plain:
            for ours in case.ours:
                ratios = outcome.ratios(plain, ours)
                low, high = quartiles(ratios)
                cells = [
                    case.name,
                    case.size,
                    f"`{plain}`",
                    spell(statistics.median(outcome.seconds[plain])),
                    f"`{ours}`",
                    spell(statistics.median(outcome.seconds[ours])),
                    f"**{statistics.median(ratios):.2f}**",
                    f"{low:.2f}-{high:.2f}",
                    f"{min(outcome.seconds[ours]) / min(outcome.seconds[plain]):.2f}",
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def facts_table(facts: Iterable[Fact]) -> str:
    """A markdown table of what was measured alone."""
    lines = ["| what | on | median | range |", "|---|---|---:|---:|"]
    for fact in facts:
        middle, low, high = (fact.spell(pick(fact.values)) for pick in (statistics.median, min, max))
        spread = f"{low}-{high}" if len(fact.values) > 1 else ""
        lines.append(f"| {fact.name} | {fact.size} | **{middle}** | {spread} |")
    return "\n".join(lines)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile; the value itself when there is only one."""
    if len(values) < 2:
        return values[0], values[0]
    first, _median, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def spell(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def machine() -> str:
    """What the numbers were taken on, without naming the machine, and how busy it was with other things."""
    git = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout.split()[2]
    python = ".".join(str(part) for part in sys.version_info[:3])
    return f"{os.cpu_count()} cores, {sys.platform}, git {git}, Python {python}, load {os.getloadavg()[0]:.1f}"


def generate(target: Path, files: int, seed: int = 1) -> None:
    """Write `files` made-up sources, 200 bytes to 12 kB, in directories of about 40; the same for the same seed."""
    chance = random.Random(seed)
    for number in range(files):
        directory = target / f"pkg{number // 1600:02}" / f"mod{number // 40:04}"
        directory.mkdir(parents=True, exist_ok=True)
        lines = [
            f"value_{line} = {hashlib.sha1(f'{seed}.{number}.{line}'.encode(), usedforsecurity=False).hexdigest()!r}\n"
            for line in range(int(chance.paretovariate(1.2) * 4) % 220 + 3)
        ]
        (directory / f"file{number:06}.py").write_text("".join(lines), encoding="utf-8")


def transplant(source: Path, target: Path, files: int) -> int:
    """Copy a real source tree, again and again under new names until there are `files` files (0: once); how many."""
    names = sorted(
        path.relative_to(source)
        for path in source.rglob("*")
        if path.is_file() and not path.is_symlink() and ".git" not in path.relative_to(source).parts
    )
    if not names:
        raise SystemExit(f"no files in `{source}`")
    wanted = files or len(names)
    for number in range(wanted):
        copy, index = divmod(number, len(names))
        place = target / (f"copy{copy}" if copy else ".") / names[index]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / names[index], place)
    return wanted
