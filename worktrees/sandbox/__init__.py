"""Walls around a worker: which the machine can put up, and the words that put them up.

    bubblewrap     own mount, pid and ipc namespaces: everything read-only but what the job may write; `/tmp`, `/run`
                   and the records of other jobs are not there at all; when it ends, all it started ends
    landlock       the kernel refuses to write elsewhere; modes, sockets with a name and what stays running are not its
                   affair. Put up by `launcher`, in a third of a millisecond once Python runs
    sandbox-exec   macOS; written after its manual and not tried on a machine
    none           nothing stands; what is changed elsewhere is found afterwards (`changes.outside_edits`)

`levels` probes, `profile` says what a job may do, `programs` what the agent programs and the package managers need to
write, `launcher` is the program that runs inside. Knows no jobs: paths come in, words go out.

Invariants:
- What is not named as writable is not: the repository, its `.git`, other workspaces, the home directory.
- A level is only claimed when the walls really stood before the program started; `launcher` says so from within.
- Where a sandbox is required nothing runs without one: there is no word in the list that would.
- An agent program that brings a sandbox of its own (`nests`) is never put into Landlock, which forbids the mounts that
  it needs. Behind bubblewrap it starts; as root without a `/proc` of its own, because the mount that would allow one
  would also give a root worker the switches of the kernel (`/proc/sys`).
"""

from worktrees.sandbox.levels import LEVELS, Levels, choose, probe
from worktrees.sandbox.profile import Confinement, wall, wrapped
from worktrees.sandbox.programs import Needs, needs_of, tool_caches

__all__ = [
    "LEVELS",
    "Confinement",
    "Levels",
    "Needs",
    "choose",
    "needs_of",
    "probe",
    "tool_caches",
    "wall",
    "wrapped",
]
