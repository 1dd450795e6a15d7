"""Stops a program at any one of its system calls that change the disk: by SIGKILL, or by letting the call fail.

`strace` does it. A program here is Python with the git processes it starts: a shim before git on PATH counts them, so
that a point is "the third git, at its second change to the disk"; git number 0 is the Python process itself. When a git
process is killed, the shim kills Python too, as a power switch would; when a call fails, Python lives and has to cope.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat,write,pwrite64,fsync,"
    "fdatasync,syncfs,ftruncate,chmod,fchmod,utimensat"
)
# What is written into a pipe, a socket or a device changes no disk; with `-y` a descriptor is shown with what it is.
_NO_DISK = re.compile(rb"(?:^|\s)\w+\(\d+<(?:/dev/(?!shm/)|pipe:|socket:|anon_inode:|/proc/)")
_SHIM = """\
#!/bin/sh
number=$(($(cat "$FAULT_DIR/count") + 1))
echo $number > "$FAULT_DIR/count"
if [ "$FAULT_GIT" = all ]; then
  exec strace -f -y -qq -o "$FAULT_DIR/log.$number" -e "trace=$FAULT_CALLS" "$FAULT_REAL" "$@"
elif [ "$FAULT_GIT" = $number ]; then
  inject="inject=$FAULT_CALLS:$FAULT_INJECT"
  strace -f -qq -o "$FAULT_DIR/log.$number" -e "trace=$FAULT_CALLS" -e "$inject" "$FAULT_REAL" "$@"
  status=$?
  if [ $status -ge 128 ] && [ "${FAULT_INJECT#signal}" != "$FAULT_INJECT" ]; then kill -9 $PPID; fi
  exit $status
fi
exec "$FAULT_REAL" "$@"
"""


@dataclass(frozen=True)
class Point:
    """The `call`-th change to the disk of the `git`-th git process; 0 is Python."""

    git: int
    call: int


@dataclass(frozen=True)
class Ended:
    status: int
    stderr: str


class Faults:
    """Runs one Python script again and again, stopped at a different point each time."""

    def __init__(self, directory: Path, script: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.script = script
        shim = directory / "bin" / "git"
        shim.parent.mkdir()
        shim.write_text(_SHIM)
        shim.chmod(0o755)

    def _run(self, arguments: list[str], git: str, inject: str, traced: list[str]) -> Ended:
        (self.directory / "count").write_text("0")
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
        }
        command = [*traced, sys.executable, str(self.script), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
        return Ended(done.returncode, done.stderr.decode(errors="replace"))

    def points(self, *arguments: str) -> list[Point]:
        """Every point there is, from one run that is left alone."""
        log = self.directory / "log.0"
        ended = self._run(list(arguments), "all", "", ["strace", "-y", "-qq", "-o", str(log), "-e", f"trace={CALLS}"])
        assert ended.status == 0, ended
        found = []
        for file in self.directory.glob("log.*"):
            calls = [line for line in file.read_bytes().splitlines() if b" = " in line]
            found += [
                Point(int(file.suffix[1:]), number) for number, call in enumerate(calls, 1) if not _NO_DISK.search(call)
            ]
            file.unlink()
        return sorted(found, key=lambda point: (point.git, point.call))

    def kill(self, point: Point, *arguments: str) -> Ended:
        """SIGKILL on everything, just before the call."""
        return self._at(point, f"signal=KILL:when={point.call}", arguments)

    def fail(self, point: Point, error: str, *arguments: str, for_ever: bool = False) -> Ended:
        """The call fails, and with `for_ever` every later one of that process."""
        return self._at(point, f"error={error}:when={point.call}{'+' if for_ever else ''}", arguments)

    def _at(self, point: Point, inject: str, arguments: tuple[str, ...]) -> Ended:
        traced = []
        if point.git == 0:
            traced = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", f"inject={CALLS}:{inject}"]
        return self._run(list(arguments), str(point.git or "none"), inject, traced)
