"""`python -m benchmarks.run`: what `wt` costs, as ratios to plain git doing the same work on the same tree.

    python -m benchmarks.run                                        everything, in sizes that take some minutes
    python -m benchmarks.run --cases spawn --files 1000,20000 --jobs 1,8
    python -m benchmarks.run --cases merge --tree ../django --jobs 8,64
    python -m benchmarks.run --cases look,list --files 100000 --changed 1,100,5000

The tables go to standard output as markdown, progress to standard error. Everything is made below one temporary
directory, which is removed at the end; the user's git configuration is not read.
"""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import cases, guard, jobs, mcp, merging, walls
from benchmarks.harness import Case, Fact, Outcome, facts_table, machine, measure, table
from benchmarks.lab import Lab, seal

WITH_GIT = ("spawn", "look", "merge", "overlap", "gate", "guard", "mcp", "list", "help")
WITHOUT = ("start", "sandbox", "follow", "output", "memory", "wait")


def numbers(text: str) -> list[int]:
    """`1,8,64` as a list."""
    return [int(word) for word in text.split(",")]


def compared(lab: Lab, options: argparse.Namespace) -> Iterator[Case]:
    """The cases of one repository; `list` last, because it leaves its jobs on record."""
    chosen = options.cases
    if "spawn" in chosen:
        yield cases.spawn(lab, 1, opening=True)
        for count in options.jobs:
            yield cases.spawn(lab, count)
            yield cases.spawn(lab, count, running=True)
    if "look" in chosen:
        yield from cases.looks(lab, options.changed)
    if "merge" in chosen:
        yield from merging.merges(lab, options.jobs)
    if "overlap" in chosen:
        for count in options.jobs:
            if count > 1:
                yield from merging.overlaps(lab, count)
    if "guard" in chosen:
        yield guard.commits(lab)
    if "gate" in chosen:
        yield cases.gates(lab)
    if "mcp" in chosen:
        yield mcp.starts(lab)
    if "help" in chosen:
        yield cases.helping(lab)
    if "list" in chosen:
        yield cases.listing(lab, options.recorded)


def parse(words: list[str]) -> argparse.Namespace:
    """The options of the call."""
    about, _, _ = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=about)
    parser.add_argument("--tree", type=Path, help="a real source tree to copy; generated files otherwise")
    parser.add_argument(
        "--files", type=numbers, help="sizes of the repository, comma separated (default: 1000,5000, or all of --tree)"
    )
    parser.add_argument("--jobs", type=numbers, default=[1, 8], help="jobs to spawn, merge and compare at once")
    parser.add_argument("--changed", type=numbers, default=[1, 100, 5000], help="files that differ, for `look`")
    parser.add_argument("--edits", type=int, default=5, help="files that each worker edits, for `merge`")
    parser.add_argument("--recorded", type=int, default=1000, help="jobs on record, for `list`")
    parser.add_argument("--lines", type=int, default=1_000_000, help="lines of a worker, for `output`")
    parser.add_argument("--silence", type=float, default=10.0, help="seconds without events, for `wait`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1, help="rounds before the recorded ones")
    parser.add_argument("--cases", help=f"comma separated (default: {','.join((*WITH_GIT, *WITHOUT))})")
    parser.add_argument("--lab", type=Path, help="directory to work in (default: the system's temporary directory)")
    parser.add_argument("--json", type=Path, help="also write every measurement to this file")
    options = parser.parse_args(words)
    options.cases = options.cases.split(",") if options.cases else [*WITH_GIT, *WITHOUT]
    if strange := set(options.cases).difference(WITH_GIT, WITHOUT):
        parser.error(f"no such case: {', '.join(sorted(strange))}")
    options.tree = options.tree.resolve() if options.tree else None
    options.files = options.files or ([0] if options.tree else [1000, 5000])
    options.json = options.json.resolve() if options.json else None
    return options


def main(words: list[str]) -> None:
    """Parse, run, print."""
    options = parse(words)
    root = Path(tempfile.mkdtemp(prefix="wt-bench-", dir=options.lab))
    outcomes: list[Outcome] = []
    facts: list[Fact] = []

    def run(case: Case) -> None:
        outcomes.append(measure(case, options.rounds, options.warmup, say=lambda line: print(line, file=sys.stderr)))

    try:
        seal(root)
        for files in options.files if set(WITH_GIT).intersection(options.cases) else ():
            lab = Lab(root / f"files{files}", files, options.edits)
            lab.make(options.tree)
            for case in compared(lab, options):
                run(case)
            if "guard" in options.cases:
                facts += guard.refusals(lab, options.rounds)
            if "mcp" in options.cases:
                facts += mcp.latencies(lab, options.rounds)
            shutil.rmtree(lab.root)
        if set(WITHOUT).intersection(options.cases):
            with contextlib.ExitStack() as stack:
                yard = jobs.Yard(root / "yard", stack)
                for name, make in (("start", jobs.start), ("sandbox", walls.start), ("follow", jobs.follow)):
                    if name in options.cases:
                        run(make(yard))
                if "output" in options.cases:
                    facts += jobs.output(yard, options.lines, options.rounds)
                if "memory" in options.cases:
                    facts += jobs.memory(yard, options.rounds)
                if "wait" in options.cases:
                    facts += jobs.waiting(yard, options.silence, min(options.rounds, 3))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"{machine()}; {options.rounds} rounds")
    if outcomes:
        print(f"\n{table(outcomes)}")
    if facts:
        print(f"\n{facts_table(facts)}")
    if options.json:
        rows = [{"case": o.case.name, "size": o.case.size, "seconds": o.seconds} for o in outcomes]
        alone = [{"fact": f.name, "size": f.size, "values": list(f.values)} for f in facts]
        options.json.write_text(
            json.dumps({"machine": machine(), "outcomes": rows, "facts": alone}, indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
