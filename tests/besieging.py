"""Sieges of tests: the user they run as, and what came of them beside what is on record."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import security
from worktrees import sandbox

ROOT = Path(__file__).parent.parent
ORDINARY = "65534"


@contextmanager
def place_of(user: str) -> Iterator[Path]:
    """A directory that the user may work in, on the way to which nobody is stopped."""
    directory = Path(tempfile.mkdtemp(prefix="siege-", dir="/tmp"))
    try:
        directory.chmod(0o755)
        if user == "user" and os.getuid() == 0:
            os.chown(directory, int(ORDINARY), int(ORDINARY))
        yield directory
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", directory], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", directory], check=False)


def command_of(user: str) -> tuple[list[str], dict[str, str]]:
    """The words that run Python as a user, and the variables it needs; skips, by name, where that cannot be."""
    if user == "root":
        if os.getuid() != 0:
            pytest.skip("root: the tests run as an ordinary user")
        return [sys.executable], {"PYTHONPATH": str(ROOT)}
    if os.getuid() != 0:
        return [sys.executable], {"PYTHONPATH": str(ROOT)}
    packages = os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))])
    become = ["setpriv", "--reuid", ORDINARY, "--regid", ORDINARY, "--clear-groups", "--"]
    for program in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        trial = subprocess.run(
            [
                *become,
                program,
                "-c",
                "import subprocess, sys, pygit2, tests.siege; subprocess.run([sys.executable, '-V'])",
            ],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": packages},
            cwd="/",
            capture_output=True,
            check=False,
            timeout=60,
        )
        if trial.returncode == 0:
            return [*become, program], {"PYTHONPATH": packages}
    pytest.skip("an ordinary user: may not run this Python or read these tests")


def besiege(user: str, level: str, names: Sequence[str], timeout: float) -> dict[str, str]:
    """The cell of each attack."""
    levels = sandbox.probe(None)
    if level not in levels.available:
        pytest.skip(f"{level}: {levels.why_not.get(level, 'of another system')}")
    words, variables = command_of(user)
    with place_of(user) as directory:
        result = directory / "cells.json"
        done = subprocess.run(
            [*words, "-m", "tests.siege", directory, level, result, *names],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "SIEGE_TELLS": "1", **variables},
            cwd="/",
            capture_output=True,
            check=False,
            timeout=timeout,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        kept = os.environ.get("SIEGE_RESULTS")
        if kept:
            shutil.copy(result, Path(kept) / f"{user}-{level}.json")
        cells: dict[str, str] = json.loads(result.read_text())
    return cells


def expected(user: str, level: str, names: Sequence[str]) -> dict[str, str]:
    """The cells on record."""
    known = security.cells()[f"{user}-{level}"]
    return {name: known[name] for name in names}
