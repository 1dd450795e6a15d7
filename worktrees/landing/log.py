"""The operation log: one durable record per landing, rollback, undo or drop, numbered without gaps or reuse.

Owns `wt-state/ops/`. `000017.json` is the record; beside it, only while the operation is under way:

    000017.lock     reserves the number; the user's `index.lock` is a hard link to it, so we know our own; held by a
                    `flock` as long as any process of the operation lives
    000017.index    the index to be
    000017.files    an index of the files themselves, where they differ from the index
    000017.back     the branch was or is to be moved back, and the files after it

A `.lock` that is left says that its process died; `turn.recover` settles it. Written under the lock `landing`
alone. What an operation undid, and which jobs are landed, is worked out from the records, never stored twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence

from worktrees.errors import Busy, NotFound, StateBroken
from worktrees.git import inherited
from worktrees.model import JobId, Operation, OperationId
from worktrees.store import LOCK_TIMEOUT_SECONDS, State, identity, now, read_json, write_json


class Slot:
    """A number of the log and the files around it."""

    def __init__(self, state: State, number: int) -> None:
        self.number = number
        self.operation_id = OperationId(f"op-{number:06d}")
        self.record = state.operation_path(number)
        self.lock, self.index, self.files, self.back = (
            self.record.with_suffix(suffix) for suffix in (".lock", ".index", ".files", ".back")
        )

    @property
    def refs(self) -> str:
        """Where the store names what this operation needs: `…/after`, `…/checkpoint`, `…/restored`."""
        return f"refs/wt/ops/{self.number:06d}"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Ours alone, git processes we start included: they hold the number when we are killed and they are not.

        Raises: Busy when such processes do not end in time.
        """
        fd = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        try:
            deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() > deadline:
                    raise Busy(
                        f"git processes of `{self.operation_id}`, which was killed, are still at work",
                        hint=f"wait for them; fuser {self.lock}",
                    )
                time.sleep(0.01)
            with inherited(fd):
                yield
        finally:
            os.close(fd)

    def break_locks(self) -> None:
        """Removes git's locks on files of ours; for who holds the number, when all git processes are gone."""
        for path in (self.index, self.files):
            path.with_name(path.name + ".lock").unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes everything but the record; the lock goes last, because it says that the rest may be there."""
        self.break_locks()
        for path in (
            *self.record.parent.glob(f".{self.record.name}.*.tmp"),
            self.index,
            self.files,
            self.back,
            self.lock,
        ):
            path.unlink(missing_ok=True)


def reserve(state: State) -> Slot:
    """The next number, ours alone."""
    number = 1 + max(
        (int(name[:6]) for name in os.listdir(state.operations) if name[:6].isdigit() and name[6:7] == "."), default=0
    )
    while True:
        slot = Slot(state, number)
        with contextlib.suppress(FileExistsError):
            fd = os.open(slot.lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                mark = {"operationId": slot.operation_id, "mark": os.urandom(16).hex(), "by": identity(os.getpid())}
                os.write(fd, f"{mark}\n".encode())
            finally:
                os.close(fd)
            return slot
        number += 1


def unfinished(state: State) -> list[Slot]:
    """Numbers whose operation is under way, or was when its process died; one directory listing."""
    try:
        names = os.listdir(state.operations)
    except FileNotFoundError:
        return []
    return [Slot(state, int(name[:-5])) for name in sorted(names) if name.endswith(".lock") and name[:-5].isdigit()]


def read(slot: Slot) -> Operation | None:
    """The record of a number. Raises: StateBroken."""
    record = read_json(slot.record)
    try:
        return None if record is None else Operation.model_validate(record)
    except ValueError as error:
        raise StateBroken(f"the record `{slot.record}` cannot be understood", hint="wt doctor") from error


def write(slot: Slot, operation: Operation) -> Operation:
    """Replaces a record; on disk when this returns."""
    write_json(slot.record, {**operation.dump(), "undoneBy": None}, durable=True)
    return operation


def operations(state: State) -> list[Operation]:
    """The operation log, oldest first; `undone_by` is set where an undo that still counts took an operation back.

    A record that cannot be understood is left out; `damaged` names those.
    """
    log: list[Operation] = []
    undone: dict[OperationId, OperationId] = {}
    for number in reversed(state.operation_numbers()):
        try:
            operation = read(Slot(state, number))
        except StateBroken:
            continue
        if operation is None:
            continue
        by = undone.get(operation.operation_id)
        if operation.undoes and operation.state == "done" and by is None:
            undone[operation.undoes] = operation.operation_id
        log.append(operation.model_copy(update={"undone_by": by}))
    return log[::-1]


def damaged(state: State) -> set[OperationId]:
    """Operations whose records cannot be understood."""
    found = set()
    for number in state.operation_numbers():
        slot = Slot(state, number)
        try:
            read(slot)
        except StateBroken:
            found.add(slot.operation_id)
    return found


def find(state: State, operation: str) -> Operation:
    """An operation by its id, `op-000017` or just its number. Raises: NotFound."""
    digits = operation.removeprefix("op-")
    for each in operations(state) if digits.isdigit() else ():
        if int(each.operation_id.removeprefix("op-")) == int(digits):
            return each
    raise NotFound(f"no operation `{operation}`", hint="wt log")


def landed(log: Sequence[Operation]) -> dict[JobId, OperationId]:
    """Which jobs are part of a branch now, and by which operation."""
    present: dict[JobId, OperationId | None] = {}
    before: dict[OperationId, dict[JobId, OperationId | None]] = {}
    for operation in log:
        if operation.state != "done":
            continue
        if operation.kind == "merge":
            change: dict[JobId, OperationId | None] = dict.fromkeys(operation.jobs, operation.operation_id)
        elif operation.kind == "rollback":
            change = dict.fromkeys(operation.jobs)
        elif operation.undoes:
            change = before.get(operation.undoes, {})
        else:
            continue
        before[operation.operation_id] = {job: present.get(job) for job in change}
        present.update(change)
    return {job: operation for job, operation in present.items() if operation}


def record(state: State, operation: Operation) -> Operation:
    """Adds an operation that is over already, such as a drop; the id given is replaced by the next one."""
    with state.lock("landing", purpose=operation.kind):
        slot = reserve(state)
        try:
            changes = {
                "operation_id": slot.operation_id,
                "state": "done",
                "finished_at": operation.finished_at or now(),
            }
            return write(slot, operation.model_copy(update=changes))
        finally:
            slot.clear()
