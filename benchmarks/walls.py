"""What a sandbox costs: from the call to the first thing that the worker's program does, at each level there is."""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness import Case, Side, Work
from benchmarks.jobs import Yard
from worktrees import sandbox

_LONGEST_SECONDS = 60


def start(yard: Yard) -> Case:
    """A worker without a wall on the plain side, the levels of this machine on ours."""
    pipe = yard.pipe()
    workspace, temporary = yard.root / "workspace", yard.root / "temporary"
    workspace.mkdir()
    temporary.mkdir()
    levels = sandbox.probe(None)
    confinement = sandbox.Confinement(workspace=workspace, temporary=temporary, visible=[yard.root], writable=[pipe])

    def side(level: str) -> Side:
        words = sandbox.wall(level, levels, confinement, os.environ)

        @contextmanager
        def until_heard() -> Iterator[Work]:
            listening = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            started = []

            def work() -> None:
                started.append(yard.start("sh", "-c", f"echo > {pipe}", walls=[(level, words)]))
                assert select.select([listening], [], [], _LONGEST_SECONDS)[0], f"nothing was heard at {level}"

            yield work
            os.close(listening)
            yard.end(started[0])

        return until_heard

    return Case(
        "start of a worker, to its first instruction",
        "one `sh`",
        {"no sandbox": side("none")},
        {level: side(level) for level in levels.available if level != "none"},
        more_rounds=6,
    )
