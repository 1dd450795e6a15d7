"""What a job may do, as the words that make a program do no more than that.

Behind bubblewrap, in this order, later mounts over earlier ones:
1. the whole file system, read-only; own `/dev` and `/proc`, for root without the switches of the kernel
2. `/tmp`, `/var/tmp` and `/run` empty and private: sockets and files of the boss's live there
3. the following, outer directories before those in them:
   read-only, what the job must see although it lies in one of those: the boss's checkout, the git directory, the
   workspaces, the home directory, programs on PATH, this Python, the resolver's configuration;
   empty, the records of all jobs, except the job's own and its workflow's, and the lock files, which a reader can hold;
   writable, the workspace (not for a read-only job; its `.git` pointer never), the private TMPDIR, what else is to be

Landlock grants the same writes, hides nothing, and cannot take back within a tree what it grants.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worktrees.sandbox import launcher
from worktrees.sandbox.levels import BUBBLEWRAP, LANDLOCK, NONE, SANDBOX_EXEC, Levels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_LAUNCHER = os.path.abspath(launcher.__file__)
_HIDDEN = ("/tmp", "/var/tmp", "/run")  # noqa: S108 - named to be hidden
# Root is root to these whatever its namespace: a worker could name the program that the kernel runs for a core dump.
# bubblewrap's own cover is left out where the directory itself cannot be written, as `/proc/sys` never can.
_KERNEL = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/scsi", "/proc/acpi")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - which semaphores need
_SANDBOX_EXEC = "/usr/bin/sandbox-exec"


@dataclass(frozen=True, slots=True)
class Confinement:
    """One job's walls.

    `visible` are places that must stay readable wherever they are; `empty` are directories to hide the content of,
    `shown` what of it is seen nevertheless. `writable` are beside workspace and `temporary`; `kept` is never writable,
    though it may lie in what is; `kept_files` neither, but for Landlock, which grants whole trees. The deeper path
    decides, and of equal ones what keeps. Places that do not exist are passed over.
    """

    workspace: Path
    temporary: Path
    access: str = "workspace-write"
    network: bool = True
    visible: Sequence[str | Path] = ()
    empty: Sequence[str | Path] = ()
    shown: Sequence[str | Path] = ()
    writable: Sequence[str | Path] = ()
    kept: Sequence[str | Path] = ()
    kept_files: Sequence[str | Path] = ()

    @property
    def all_writable(self) -> list[str]:
        """Every tree the job may write."""
        own: list[str | Path] = [self.temporary]
        if self.access != "read-only":
            own.append(self.workspace)
        return _there((*own, *self.writable))

    @property
    def all_kept(self) -> list[str]:
        """Every tree the job may not write, the pointer of the workspace and a read-only one included."""
        own: list[str | Path] = [os.path.join(self.workspace, ".git")]
        if self.access == "read-only":
            own.append(self.workspace)
        return [path for path in _there((*own, *self.kept, *self.kept_files)) if not os.path.islink(path)]


def wall(level: str, levels: Levels, job: Confinement, environment: Mapping[str, str]) -> list[str]:
    """The words before a program's own that put it behind a wall; two descriptors of `launcher` go in between.

    None at all for `none`.
    """
    if level == NONE:
        return []
    python = [sys.executable, "-I", "-S", _LAUNCHER]
    if level == BUBBLEWRAP:
        return [*_bubblewrap(levels, job, environment), *python, "--watch"]
    if level == SANDBOX_EXEC:
        return [*_sandbox_exec(job), *python]
    return [*python, *_landlock(job)]


def wrapped(
    argv: Sequence[str], level: str, levels: Levels, job: Confinement, environment: Mapping[str, str]
) -> list[str]:
    """A program's words behind a wall, for callers that only want its exit status (128 + n when a signal ended it).

    125 means that the wall did not come up under Landlock; bubblewrap itself says 1 then, and why on stderr.
    """
    if level == LANDLOCK:
        return [*wall(level, levels, job, environment), "-1", "-1", *argv]
    if level == BUBBLEWRAP:
        return [*_bubblewrap(levels, job, environment), *argv]
    return [*_sandbox_exec(job), *argv] if level == SANDBOX_EXEC else list(argv)


# ---------------------------------------------------------------------------------------------------------- bubblewrap
def _bubblewrap(levels: Levels, job: Confinement, environment: Mapping[str, str]) -> list[str]:
    words = [levels.bubblewrap or "bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent"]
    if not job.network:
        words.append("--unshare-net")
    words += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for path in _KERNEL if os.geteuid() == 0 else ():
        if os.path.exists(path):
            words += ["--ro-bind", path, path]
    for place in _HIDDEN:
        if os.path.isdir(place) and not os.path.islink(place):
            words += ["--tmpfs", place]
    # Of equal paths the last word counts.
    mounts = {path: ["--ro-bind", path] for path in _seen_again(job, environment)}
    mounts |= {path: ["--tmpfs"] for path in _there(job.empty)}
    mounts |= {path: ["--ro-bind", path] for path in _there(job.shown)}
    mounts |= {path: ["--bind", path] for path in job.all_writable}
    mounts |= {path: ["--ro-bind", path] for path in job.all_kept}
    for path in sorted(mounts, key=lambda path: path.count("/")):
        words += [*mounts[path], path]
    return [*words, "--chdir", os.fspath(job.workspace), "--"]


def _seen_again(job: Confinement, environment: Mapping[str, str]) -> list[str]:
    """What lies in the hidden places and must be seen: outer directories before those in them."""
    names = [
        *(os.fspath(path) for path in job.visible),
        sys.prefix,
        sys.base_prefix,
        os.path.dirname(os.path.realpath(sys.executable)),
        os.path.dirname(os.path.dirname(os.path.dirname(_LAUNCHER))),
        environment.get("HOME", ""),
        environment.get("VIRTUAL_ENV", ""),
        *environment.get("PATH", "").split(os.pathsep),
        os.path.realpath("/etc/resolv.conf"),
    ]
    hidden = [f"{os.path.realpath(place)}/" for place in (*_HIDDEN, "/dev")]
    found = {os.path.realpath(name) for name in names if name.startswith("/") and os.path.exists(name)}
    return _outermost(path for path in found if path.startswith(tuple(hidden)))


def _outermost(paths: Iterable[str]) -> list[str]:
    """Paths without those that lie in another of them, sorted."""
    kept: list[str] = []
    for path in sorted(paths):
        if not kept or not f"{path}/".startswith(f"{kept[-1]}/"):
            kept.append(path)
    return kept


def _there(paths: Iterable[str | Path]) -> list[str]:
    """Those that exist, each once."""
    return [path for path in dict.fromkeys(os.path.normpath(path) for path in paths) if os.path.exists(path)]


# ------------------------------------------------------------------------------------------------------------ landlock
def _landlock(job: Confinement) -> list[str]:
    """What it grants it grants with all below, so a tree around what is the boss's stays read-only as a whole."""
    words = ["--landlock"] if job.network else ["--landlock", "--no-network"]
    kept = [os.path.realpath(path) for path in job.visible]
    for path in _there((*job.all_writable, _SHARED_MEMORY)):
        real = os.path.realpath(path)
        if not any(f"{keep}/".startswith(f"{real}/") for keep in kept):
            words += ["--write", path]
    return words


# -------------------------------------------------------------------------------------------------------- sandbox-exec
def _sandbox_exec(job: Confinement) -> list[str]:
    """As Apple's sandbox reads it: everything, but writes only here. The last rule that fits decides."""
    writable = set(job.all_writable) - set(job.all_kept)
    rules = [
        "(version 1)",
        "(allow default)",
        "(deny file-write*)",
        '(allow file-write* (subpath "/dev"))',
        *(
            f"({'allow' if path in writable else 'deny'} file-write* (subpath {_quoted(os.path.realpath(path))}))"
            for path in sorted({*writable, *job.all_kept}, key=lambda path: path.count("/"))
        ),
        *(f"(deny file-read* (subpath {_quoted(os.path.realpath(path))}))" for path in _there(job.empty)),
        *(f"(allow file-read* (subpath {_quoted(os.path.realpath(path))}))" for path in _there(job.shown)),
        "(deny signal (target others))",
        "(deny network-outbound (remote unix-socket))",
    ]
    if not job.network:
        rules.append("(deny network*)")
    return [_SANDBOX_EXEC, "-p", "\n".join(rules)]


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
