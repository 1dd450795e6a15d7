"""Which walls this machine can put up, found out by putting them up once, and which of them a job gets.

A probe costs a bubblewrap start (about 10 ms), so what stood is kept in the state directory under everything that
could change the answer: boot, user, namespace, kernel, the program, the switches of the kernel. What did not stand is
tried again the next time. A wall that does not come up although it did when probed is noticed at the start of the job.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worktrees.errors import Refused, StateBroken, Usage
from worktrees.sandbox.launcher import landlock_abi
from worktrees.store import boot_id, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BUBBLEWRAP, LANDLOCK, SANDBOX_EXEC, NONE = "bubblewrap", "landlock", "sandbox-exec", "none"
LEVELS = (BUBBLEWRAP, LANDLOCK, SANDBOX_EXEC, NONE)
"""The strongest first."""
AUTO = "auto"
# Landlock knows TCP from this version on.
NETWORK_ABI = 4
_PROBE_SECONDS = 10
_VERSION = 1
_SWITCHES = (
    "kernel/unprivileged_userns_clone", "kernel/apparmor_restrict_unprivileged_userns", "user/max_user_namespaces",
)  # fmt: skip
_SANDBOX_EXEC = "/usr/bin/sandbox-exec"


@dataclass(frozen=True, slots=True)
class Levels:
    """What stands here.

    `bubblewrap` is the path of the program when it works, `cuts_network` whether it can give a network of its own;
    `landlock_abi` is 0 without Landlock; `why_not` says of each level that does not stand why.
    """

    bubblewrap: str | None = None
    cuts_network: bool = False
    landlock_abi: int = 0
    sandbox_exec: bool = False
    why_not: dict[str, str] = field(default_factory=dict)

    @property
    def available(self) -> list[str]:
        """The levels that stand, the strongest first; `none` always does."""
        stands = {BUBBLEWRAP: self.bubblewrap, LANDLOCK: self.landlock_abi, SANDBOX_EXEC: self.sandbox_exec, NONE: True}
        return [level for level in LEVELS if stands[level]]

    def cuts(self, level: str) -> bool:
        """Whether a level can cut the network; Landlock cuts TCP only."""
        return {
            BUBBLEWRAP: self.cuts_network,
            LANDLOCK: self.landlock_abi >= NETWORK_ABI,
            SANDBOX_EXEC: True,
        }.get(level, False)


def choose(
    levels: Levels,
    wish: str = AUTO,
    *,
    required: bool = False,
    access: str = "workspace-write",
    network: bool = True,
    nests: bool = False,
) -> list[str]:
    """The levels to try for a job, in order; the first that stands at its start is the one in force.

    `auto` takes the strongest and goes down to none unless a sandbox is `required` or the network is to be cut; a level
    that is named is taken or nothing is. `nests`: the program puts up a sandbox of its own.

    Raises: Usage for wishes at odds; Refused `sandbox-unavailable`, before anything is made.
    """
    if wish not in (AUTO, *LEVELS):
        raise Usage(f"`{wish}` is no kind of sandbox", hint=f"one of: {', '.join((AUTO, *LEVELS))}")
    without = access == "danger-full-access" or wish == NONE
    if without and required:
        named = "access `danger-full-access`" if wish != NONE else "the sandbox `none`"
        raise Usage(f"{named} is no sandbox, and one is required", hint="wt spawn --sandbox auto")
    if without and network:
        return [NONE]
    found = [] if without else [level for level in levels.available if level != NONE and wish in (AUTO, level)]
    refusals = dict(levels.why_not)
    if nests and LANDLOCK in found:
        found.remove(LANDLOCK)
        refusals[LANDLOCK] = "the program brings a sandbox of its own, which cannot start inside Landlock"
    if not network:
        for level in [level for level in found if not levels.cuts(level)]:
            found.remove(level)
            refusals[level] = "it cannot cut the network here"
    if wish == AUTO and not required and network:
        return [*found, NONE]
    if not found:
        said = {level: why for level, why in refusals.items() if wish in (AUTO, NONE, level)}
        what = "a sandbox" if network else "a sandbox that cuts the network"
        reasons = "; ".join(f"{level}: {why}" for level, why in said.items()) or "none is wanted"
        raise Refused(
            f"{what} is required and none can be put up: {reasons}",
            code="sandbox-unavailable",
            hint="wt doctor",
            details={"sandbox": wish, "levels": refusals},
        )
    return found


# ---------------------------------------------------------------------------------------------------------------- probe
def probe(cache: Path | None) -> Levels:
    """What stands here; `cache` is a file to keep the answer in. Never raises for a level that does not stand."""
    key = _key()
    if cache is not None and (known := _remembered(cache, key)) is not None:
        return known
    why_not: dict[str, str] = {}
    bubblewrap = _bubblewrap(why_not)
    abi = landlock_abi()
    if not abi and sys.platform.startswith("linux"):
        why_not[LANDLOCK] = "the kernel has none, or it is switched off"
    levels = Levels(
        bubblewrap=bubblewrap,
        cuts_network=bubblewrap is not None and _stands([bubblewrap, *_TRIAL, "--unshare-net"]) is None,
        landlock_abi=abi,
        sandbox_exec=_sandbox_exec(why_not),
        why_not=why_not,
    )
    if cache is not None and levels.bubblewrap and cache.parent.is_dir():
        try:
            write_json(cache, {"key": key, **_dumped(levels)})
        except OSError:
            return levels  # a disk that is full or read-only: the next one probes again
    return levels


_TRIAL = (
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev",
    "--proc", "/proc", "--tmpfs", "/tmp",  # noqa: S108 - the sandbox's own
)  # fmt: skip


def _bubblewrap(why_not: dict[str, str]) -> str | None:
    if not sys.platform.startswith("linux"):
        return None
    program = shutil.which("bwrap")
    if program is None:
        why_not[BUBBLEWRAP] = "the program `bwrap` is not installed"
        return None
    program = os.path.abspath(program)
    failed = _stands([program, *_TRIAL])
    if failed is None:
        return program
    why_not[BUBBLEWRAP] = failed
    return None


def _sandbox_exec(why_not: dict[str, str]) -> bool:
    if platform.system() != "Darwin":
        return False
    failed = _stands([_SANDBOX_EXEC, "-p", "(version 1)(allow default)"])
    if failed is not None:
        why_not[SANDBOX_EXEC] = failed
    return failed is None


def _stands(words: Sequence[str]) -> str | None:
    """None when a program starts behind these words, else why not."""
    try:
        done = subprocess.run(
            [*words, "/bin/sh", "-c", ":"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_PROBE_SECONDS,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`{words[0]}` does not start: {error}"
    if done.returncode == 0:
        return None
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"`{words[0]}` ended with status {done.returncode}"


def _key() -> dict[str, Any]:
    """Everything that could change what stands."""
    program = shutil.which("bwrap")
    found = os.stat(program) if program is not None else None
    return {
        "version": _VERSION,
        "bootId": boot_id(),
        "user": os.geteuid(),
        "namespace": _link("/proc/self/ns/user") + _link("/proc/self/ns/mnt"),
        "kernel": platform.release(),
        "program": [os.path.abspath(program), found.st_mtime_ns, found.st_size] if program and found else None,
        "switches": [_line(f"/proc/sys/{name}") for name in _SWITCHES],
    }


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _line(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.readline().strip()
    except OSError:
        return None


def _dumped(levels: Levels) -> dict[str, Any]:
    return {
        "bubblewrap": levels.bubblewrap,
        "cutsNetwork": levels.cuts_network,
        "landlockAbi": levels.landlock_abi,
        "sandboxExec": levels.sandbox_exec,
        "whyNot": levels.why_not,
    }


def _remembered(cache: Path, key: dict[str, Any]) -> Levels | None:
    try:
        record = read_json(cache)
    except (StateBroken, OSError):
        return None
    if record is None or record.get("key") != key:
        return None
    try:
        return Levels(
            bubblewrap=record["bubblewrap"],
            cuts_network=record["cutsNetwork"],
            landlock_abi=record["landlockAbi"],
            sandbox_exec=record["sandboxExec"],
            why_not=record["whyNot"],
        )
    except KeyError:
        return None
