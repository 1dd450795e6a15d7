"""Stops a program at any one of its system calls that change the disk: by SIGKILL, or by letting the call fail.

`strace` does it, and counts calls of each name by itself. A program here is Python with the git processes it starts: a
shim before git on PATH counts them by command, so that a point is "the second `git read-tree`, at its third unlink".
When a git process is killed, the shim kills Python too, as a power switch would; when a call fails, Python has to cope.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.nursery import NURSERY

POINTS = int(os.environ.get("WT_TEST_POINTS", "1000000"))
"""How many points the long walks stop at; all of them unless told."""
FIRST = int(os.environ.get("WT_TEST_FIRST", "0"))
"""How many points they leave out, where a walk was broken off before."""
CALLS = (
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat,write,pwrite64,fsync,"
    "fdatasync,syncfs,ftruncate,chmod,fchmod,utimensat"
)
# What is written into a pipe, a socket or a device changes no disk; with `-y` a descriptor is shown with what it is.
_NO_DISK = re.compile(rb"(?:^|\s)\w+\(\d+<(?:/dev/(?!shm/)|pipe:|socket:|anon_inode:|/proc/)")
_CALL = re.compile(rb"(\d*) *(\w+)\(")  # with a pid in front where several processes are traced
_SHIM = """\
#!/bin/sh
setting=
for word; do
  case $setting$word in -c) setting=1;; 1*) setting=;; *) break;; esac
done
number=1
set -C  # whoever makes the file has the number
until true 2> /dev/null > "$FAULT_DIR/count/$word-$number"; do number=$((number + 1)); done
set +C
me=$word-$number
if [ "$FAULT_GIT" = all ]; then
  exec strace -f -y -qq -o "$FAULT_DIR/$me.log" -e "trace=$FAULT_CALLS" "$FAULT_REAL" "$@"
elif [ "$FAULT_GIT" = $me ]; then
  strace -f -qq -o /dev/null -e "trace=$FAULT_CALLS" -e "inject=$FAULT_INJECT" "$FAULT_REAL" "$@"
  status=$?
  if [ $status -ge 128 ] && [ "$FAULT_ALL" ]; then kill -9 $PPID; fi
  exit $status
fi
exec "$FAULT_REAL" "$@"
"""


@dataclass(frozen=True, order=True)
class Point:
    """The `number`-th call of one name by one process: `read-tree-2` is the second `git read-tree`, or `python`."""

    git: str
    call: str
    number: int


def sample(points: list[Point], count: int = POINTS) -> list[Point]:
    """Some points, in the order of the processes; others for every `WT_TEST_SEED`."""
    chance = random.Random(os.environ.get("WT_TEST_SEED", "1"))
    return sorted(chance.sample(points, min(count, len(points))))[FIRST:]


@dataclass(frozen=True)
class Ended:
    status: int
    stderr: str


def needs_strace() -> None:
    """Skips, with the reason, where nothing can be traced."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this container does not let strace trace")


class Faults:
    """Runs one Python script again and again, stopped at a different point each time."""

    def __init__(self, directory: Path, script: Path) -> None:
        needs_strace()
        directory.mkdir()
        self.directory = directory
        self.script = script
        shim = directory / "bin" / "git"
        shim.parent.mkdir()
        shim.write_text(_SHIM)
        shim.chmod(0o755)

    def _run(
        self, arguments: list[str], git: str, inject: str, traced: list[str], *, everything: bool = False
    ) -> Ended:
        shutil.rmtree(self.directory / "count", ignore_errors=True)
        (self.directory / "count").mkdir()
        environment = {
            **os.environ,
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "FAULT_DIR": str(self.directory),
            "FAULT_REAL": str(shutil.which("git")),
            "FAULT_CALLS": CALLS,
            "FAULT_GIT": git,
            "FAULT_INJECT": inject,
            "FAULT_ALL": "1" if everything else "",
        }
        done = NURSERY.run(
            arguments, cwd=os.getcwd(), env=environment, timeout=120, script=str(self.script), tracer=traced
        )
        return Ended(done.returncode, done.stderr.decode(errors="replace"))

    def points(self, *arguments: str, status: int = 0) -> list[Point]:
        """Every point there is, from one run that is left alone and ends with a status."""
        log = self.directory / "python.log"
        ended = self._run(list(arguments), "all", "", ["strace", "-y", "-o", str(log), "-e", f"trace={CALLS}"])
        assert ended.status == status, ended
        found = []
        for file in self.directory.glob("*.log"):
            counts: Counter[tuple[bytes, bytes]] = Counter()
            for line in file.read_bytes().splitlines():
                if call := _CALL.match(line):
                    counts[call[1], call[2]] += 1
                    if not _NO_DISK.search(line):
                        found.append(Point(file.stem, call[2].decode(), counts[call[1], call[2]]))
            file.unlink()
        return sorted(set(found))

    def kill(self, point: Point, *arguments: str, alone: bool = False) -> Ended:
        """SIGKILL on everything, or with `alone` on the one process, just before the call."""
        return self._at(point, f"{point.call}:signal=KILL:when={point.number}", arguments, everything=not alone)

    def fail(self, point: Point, error: str, *arguments: str, for_ever: bool = False) -> Ended:
        """The call fails, and with `for_ever` every later one of that process."""
        return self._at(point, f"{point.call}:error={error}:when={point.number}{'+' if for_ever else ''}", arguments)

    def _at(self, point: Point, inject: str, arguments: tuple[str, ...], *, everything: bool = False) -> Ended:
        traced = []
        if point.git == "python":
            traced = ["strace", "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", f"inject={inject}"]
        return self._run(list(arguments), point.git, inject, traced, everything=everything)
