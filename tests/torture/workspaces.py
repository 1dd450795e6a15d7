"""Opens and closes workspaces in processes of their own: `python -m tests.torture.workspaces VERB REPOSITORY JOB…`.

open, close     the one thing, to be traced or killed from outside
turn            open at the first line of standard input, close at the second; says what it does
kill-open, kill-close
                the thing again and again, each time in a process that dies at its n-th step that changes the disk
                (Python's own audit events), until one survives; after each death the user's git must work, and
                after `recover` the workspace must be whole or gone
"""

import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from worktrees import isolation
from worktrees.config import Settings, plugin
from worktrees.git import discover
from worktrees.isolation import Place, Workspace
from worktrees.model import Baseline, JobId

STEPS = {
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.link", "os.posix_spawn",
    "shutil.copyfile", "subprocess.Popen",
}  # fmt: skip


KIND = os.environ.get("KIND", "worktree")


def ground(repository: Path) -> Place:
    """The place of a repository, with the settings of the tests."""
    return isolation.place(discover(repository), Settings())


def open_one(place: Place, job: JobId) -> Workspace:
    """A workspace at HEAD."""
    baseline = Baseline(commit=place.repo.resolve("HEAD"))
    found: Workspace = plugin("isolation", KIND)().open(place, job, baseline, index=place.state.root / f"{job}.index")
    return found


def close_one(place: Place, job: JobId) -> None:
    """Takes the workspace away."""
    plugin("isolation", KIND)().close(place, Workspace(job, place.root / job, place.entries / job))


def assert_git_works(place: Place) -> None:
    """What one half-written entry breaks for everybody works."""
    for words in (("worktree", "list"), ("status",), ("rev-list", "--all"), ("fsck", "--connectivity-only")):
        subprocess.run(["git", *words], cwd=place.repo.work_tree, check=True, capture_output=True, timeout=60)


def is_whole_or_gone(place: Place, job: JobId) -> bool:
    """Whether the job's workspace stands with all that belongs to it (False: gone, and all of it); fails in between."""
    assert not list(place.state.journal.glob("*"))
    path = place.root / job
    entry = place.entries / job if KIND == "worktree" else place.root / ".private" / job
    stands = {path.is_dir(), entry.is_dir(), isolation.workspace_of(place, job) is not None}
    assert len(stands) == 1, (path.is_dir(), entry.is_dir(), isolation.workspace_of(place, job))
    if path.is_dir():
        status = ["git", "status", "--porcelain", "--ignored"]
        assert subprocess.run(status, cwd=path, check=True, capture_output=True, timeout=60).stdout == b""
        assert subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=path, check=False, timeout=60).returncode == 0
    assert isolation.doctor_findings(place) == []
    return path.is_dir()


def dies_at(step: int, verb: str, place: Place, job: JobId) -> bool:
    """Whether a process that is killed at its n-th step lived long enough to be killed."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, args: tuple[Any, ...]) -> None:
            nonlocal left
            if event in STEPS or (event == "open" and isinstance(args[2], int) and args[2] & (os.O_CREAT | os.O_TRUNC)):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        act_in_copy(verb, place, job)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in {0, -signal.SIGKILL}, status
    return status != 0


def all_at_once(verb: str, place: Place, jobs: list[JobId]) -> None:
    """One process per job; none starts before all are there."""
    start, go = os.pipe()
    children = []
    for job in jobs:
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(start, 1)  # answers when the last writer has closed its end
            act_in_copy(verb, place, job)
        children.append(child)
    os.close(go)
    failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
    assert not failed


def act_in_copy(verb: str, place: Place, job: JobId) -> NoReturn:
    """Opens or closes in a forked process, which ends with it."""
    try:
        (open_one if verb == "open" else close_one)(place, job)
    except BaseException:  # noqa: BLE001 - a forked copy must not run on
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def die_everywhere(verb: str, place: Place, job: JobId) -> None:
    """Dies at every step in turn; prints the number of deaths and whether workspaces stood after them."""
    step, seen = 0, set()
    while True:
        step += 1
        if verb == "close" and isolation.workspace_of(place, job) is None:
            open_one(place, job)
        died = dies_at(step, verb, place, job)
        assert_git_works(place)
        isolation.recover(place)
        stands = is_whole_or_gone(place, job)
        seen.add(stands)
        if not died:
            break
        if verb == "open" and stands:
            close_one(place, job)
    assert stands is (verb == "open")
    print(step - 1, sorted(seen))


def main(verb: str, repository: str, *names: str) -> None:
    """Does what the words say."""
    place, jobs = ground(Path(repository)), [JobId(name) for name in names]
    how, _, what = verb.rpartition("-")
    if how == "all":
        all_at_once(what, place, jobs)
    elif how == "kill":
        die_everywhere(what, place, jobs[0])
    else:
        (open_one if verb == "open" else close_one)(place, jobs[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
