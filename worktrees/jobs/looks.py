"""Looking at what a job did: its record once it is done, a look into its workspace before.

Nothing here changes a record. A live look writes objects into wt's own store that nothing names.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worktrees.errors import Refused
from worktrees.jobs import settlement
from worktrees.jobs.ledger import witness
from worktrees.store import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    from worktrees.config import Settings
    from worktrees.isolation import Place
    from worktrees.model import ChangeSet, Job, JobId, Logs
    from worktrees.store import State

    Stream = Literal["stdout", "stderr"]

_TAIL_BYTES = 1 << 20


def recorded(state: State, job: Job) -> ChangeSet | None:
    """The change set written when the job was settled; None before, and for a job that never had a workspace."""
    from worktrees.model import ChangeSet

    record = read_json(state.job_dir(job.workflow_id, job.job_id) / "changes.json")
    return ChangeSet.model_validate(record) if record is not None else None


def provision_notices(state: State, job_id: JobId) -> list[tuple[str, str]]:
    """What setup could not bring into a job's workspace, and commands that wait for approval: code and message each.

    Empty while the job is queued: its workspace is made when a slot frees.
    """
    record = witness(state.find_job_dir(job_id), "provision.json") or {}
    said = [
        (finding["code"], f"`{finding['path']}`: {finding['message']}" if finding["path"] else finding["message"])
        for finding in record.get("findings", [])
    ]
    if waiting := record.get("unapproved", []):
        commands = ", ".join(f"`{command}`" for command in waiting)
        said.append(("setup-not-approved", f"not run: {commands}; look at them and run: wt setup --approve"))
    return said


def provided(state: State, job_id: JobId) -> dict[str, Any]:
    """What setup brought into a job's workspace, as fields of `SetUp`."""
    record = witness(state.find_job_dir(job_id), "provision.json") or {}
    return {name: record[name] for name in ("paths", "submodules", "copiedBytes", "findings") if name in record}


def live(place: Place, job: Job, settings: Settings) -> ChangeSet:
    """The change set as it is now; costs a look at every file whose stat data changed.

    Raises: Refused `no-workspace`.
    """
    from worktrees import changes, isolation
    from worktrees.config import plugin

    directory = place.state.job_dir(job.workflow_id, job.job_id)
    if place.store.path != place.state.store:
        directory = _copied(directory, place.store.path.parent)
    workspace = isolation.workspace_of(place, job.job_id)
    if workspace is None:
        word = job.name or job.job_id
        raise Refused(f"`{word}` is {job.state} and has no workspace", code="no-workspace", hint=f"wt status {word}")
    snapshot, scan = changes.capture(
        place.store,
        place.repo,
        workspace.path,
        job.baseline,
        job=job.job_id,
        ref=None,
        index=directory / "index",
        settings=settings,
        candidates=plugin("isolation", job.isolation)().candidates(workspace),
        durable=False,
    )
    return changes.change_set(place.store, job.job_id, job.baseline.start, snapshot, scan=scan)


@contextlib.contextmanager
def writable(place: Place) -> Iterator[Place]:
    """A place whose store a live look can write to: in a sandbox it is a passing one that leads to wt's."""
    from worktrees.git import ObjectStore

    try:
        with tempfile.TemporaryFile(dir=place.store.path / "objects"):
            pass
    except OSError:
        if "TMPDIR" not in os.environ:  # which every worker in a sandbox has
            raise
        with tempfile.TemporaryDirectory(prefix="wt-look-", dir=os.environ["TMPDIR"]) as scratch:
            store = ObjectStore(Path(scratch) / "store.git").ensure(place.repo)
            with open(store.path / "objects" / "info" / "alternates", "ab") as file:
                file.write(os.fsencode(place.store.path / "objects") + b"\n")
            yield replace(place, store=store)
    else:
        yield place


def _copied(directory: Path, scratch: Path) -> Path:
    """What a capture needs of a job's directory, where it can be written."""
    for path in directory.glob("index*"):
        shutil.copy2(path, scratch / path.name)
    return scratch


def patch(place: Place, changed: ChangeSet, *, color: bool = False) -> bytes:
    """A change set as git's own patch, which `git apply --binary` takes."""
    arguments = (
        "--binary",
        "--find-renames",
        "--no-ext-diff",
        "--no-textconv",
        f"--color={'always' if color else 'never'}",
    )
    return place.store.git("diff-tree", "-r", "-p", *arguments, changed.base, changed.snapshot).stdout


def final_message(state: State, job: Job) -> str | None:
    """A worker's last words; None while it runs, and when it had none."""
    return settlement.final_message(state.job_dir(job.workflow_id, job.job_id)) or None


def run(state: State, job: Job) -> dict[str, Any]:
    """What an agent's program told of its run, as fields of `Outcome`; empty for other jobs."""
    told = settlement.run(state.job_dir(job.workflow_id, job.job_id))
    return {"session": told.get("session"), "usage": told.get("usage")} if told else {}


def logs(state: State, job: Job, *, most_bytes: int = _TAIL_BYTES) -> Logs:
    """The end of a job's raw output as text."""
    from worktrees.model import Logs

    directory = state.job_dir(job.workflow_id, job.job_id)
    texts, sizes = {}, {}
    for stream in ("stdout", "stderr"):
        path = os.fspath(directory / f"{stream}.log")
        texts[stream] = _tail(path, most_bytes).decode("utf-8", "backslashreplace")
        sizes[stream] = os.path.getsize(path) if os.path.exists(path) else 0
    return Logs(
        job_id=job.job_id,
        stdout=texts["stdout"],
        stderr=texts["stderr"],
        stdout_bytes=sizes["stdout"],
        stderr_bytes=sizes["stderr"],
        truncated=max(sizes.values()) > most_bytes,
    )


def read_log(state: State, job: Job, stream: Stream) -> Iterator[bytes]:
    """A whole raw log as it is now, in pieces."""
    try:
        with open(state.job_dir(job.workflow_id, job.job_id) / f"{stream}.log", "rb") as file:
            while piece := file.read(1 << 18):
                yield piece
    except FileNotFoundError:
        return


def _tail(path: str, most_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - most_bytes, 0))
            return file.read(most_bytes)
    except FileNotFoundError:
        return b""
