"""One operation carried out, and recovered wherever it died: branch, index and files move together.

Every operation is a way from one state to another, `before` to `after` for the branch and one shape to another for
index and files, written down before anything moves. An undo is the same way back, so an undo can be undone.

Order, under the lock `landing`:
 1. settle what an earlier crash left
 2. reserve a number; own the user's index: nobody's git command writes it from here on
 3. look: the branch stands where the plan says, nothing uncommitted would be overwritten; else refuse, nothing
    changed
 4. copy the objects over, durable; write the record `prepared`, durable
 5. move the branch by compare-and-swap, durable: the one commit point. An operation that leaves the branch where it
    is (`--no-commit`, a rollback of files alone) has its commit point in step 4
 6. write the files with an index of ours; sync them
 7. rename that index over the user's; write the record `done`, durable; let go of the user's index

Death before 5 leaves everything as before; after 5 the next command goes on with 6. Should 6 be impossible (a full
disk, a filter that fails) the branch goes back to `before`, then the files. When the branch stands at neither,
somebody moved it in the meantime: nothing of theirs is touched.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from worktrees.errors import GitFailed, NotFound, Refused, StateBroken, WorktreesError
from worktrees.git import Repo, sync_filesystem
from worktrees.isolation import Place
from worktrees.isolation.place import disk
from worktrees.landing import checkout, log
from worktrees.landing.checkpoint import Captured, Shape, capture, ignored_at, shape_of
from worktrees.landing.target import Target, moved, not_checked_out
from worktrees.model import Finding, JobId, Oid, Operation, OperationState, RepoPath, path_text
from worktrees.store import boot_id, now

LOCK_PATIENCE_SECONDS = 1.0


class Turn:
    """An operation being carried out, under the lock `landing`."""

    def __init__(self, place: Place, slot: log.Slot) -> None:
        self.place = place
        self.slot = slot
        self.prepared = False
        self._owned: Repo | None = None

    def draft(self, target: Target, **fields: Any) -> Operation:
        """The record as it will be written."""
        return Operation(
            operation_id=self.slot.operation_id,
            branch=target.branch,
            ref=target.ref,
            worktree=str(target.repo.work_tree) if target.repo else None,
            before=target.before,
            created_at=now(),
            **fields,
        )

    def give_up(self) -> None:
        """Lets go of the user's index and the number; for an operation that is over or was not written down yet."""
        if self._owned is not None:
            checkout.release_index(self._owned.git_dir, self.slot.lock)
        _forget_packs(self.place)
        self.slot.clear()

    def landed_since(self, since: Callable[[Operation], bool], target: Target) -> list[JobId]:
        """Jobs on this branch that landed after some point."""
        history = log.operations(self.place.state)
        late = {each.operation_id for each in history if each.ref == target.ref and since(each)}
        return [job for job, operation in log.landed(history).items() if operation in late]

    def _own(self, repo: Repo) -> None:
        if self._owned is None:
            checkout.own_index(repo.git_dir, self.slot.lock)
            self._owned = repo

    def capture(self, target: Target) -> Captured:
        """Writes the whole checkout into the store, with the user's index ours from here on."""
        repo = _repo(target)
        self._own(repo)
        captured = capture(self.place.store, repo, self.slot.files)
        _check_stands(target, captured.seen)
        return captured

    def spare_ignored(self, target: Target, captured: Captured, start: Oid, end: Oid) -> Captured:
        """Leaves files out that would go only because they are not ignored at the moment, as they will be then."""
        store, repo = self.place.store, _repo(target)
        changes = checkout.changes_between(store, start, end)
        if not any(path.rpartition(b"/")[2] == b".gitignore" for path in changes):
            return captured
        untracked = set(captured.seen.untracked)
        going = [path for path, (_, new) in changes.items() if new is None and path in untracked]
        spared = ignored_at(repo, store, end, going) if going else set()
        if not spared:
            return captured
        listed = b"".join(path + b"\0" for path in sorted(spared))
        repo.git("update-index", "--force-remove", "-z", "--stdin", index=self.slot.files, stdin=listed)
        left = Oid(repo.git("write-tree", index=self.slot.files, env=checkout.with_store(store)).text)
        return Captured(captured.seen, Shape(left, captured.shape.index))

    def carry_out(
        self, target: Target, draft: Operation, start: Shape, end: Shape, captured: Captured | None = None
    ) -> Operation:
        """Steps 3 to 7."""
        store, repo = self.place.store, target.repo
        what, exact = f"the {draft.kind}", draft.kind == "merge"
        if repo is not None and captured is None:
            self._own(repo)
            checkout.copy_index(repo, self.slot.index)
            seen = checkout.look(repo, self.slot.index)
            _check_stands(target, seen)
            dirty = seen.unstaged | seen.unmerged
            env = checkout.view(repo, store, start.files)
            tree = checkout.check_nothing_lost(
                repo, store, self.slot.index, dirty, start.files, end.files, what=what, exact=exact, env=env
            )
            start = Shape(tree, tree)
        elif repo is not None and captured is not None:
            with_store = checkout.with_store(store)
            tree = checkout.check_nothing_lost(
                repo, store, self.slot.files, set(), start.files, end.files, what=what, exact=exact, env=with_store
            )
            start = Shape(tree, start.index)
            if start.plain and end.plain:
                self.slot.files.rename(self.slot.index)  # nothing is dirty, so it describes the index as well
            else:
                checkout.copy_index(repo, self.slot.index)
                checkout.check_index_free(repo, store, self.slot.index, start.index, end.index, what=what)
        with contextlib.ExitStack() as brought:
            self._bring(brought, target, draft, end)
            self._name(draft)
            sync_filesystem(self.place.repo.common_dir)
            log.write(self.slot, draft)
            self.prepared = True
            try:
                _move_branch(self.place, target, draft)
                _break_locks(self.place, repo, self.slot, draft)  # git says nothing of one it cannot remove
                if repo is not None:
                    if _is_left(repo, draft):
                        raise _elsewhere(target, repo.head().branch)
                    _move_files(self.place, repo, self.slot, start, end)
                done = log.write(self.slot, _over(draft, "done"))
            except (WorktreesError, OSError):
                done, _ = _settle(self.place, self.slot, draft)
                if done.state != "done":
                    raise
        self.give_up()
        return done

    def _bring(self, brought: contextlib.ExitStack, target: Target, draft: Operation, end: Shape) -> None:
        """Copies into the user's repository what branch and index are about to name."""
        store, repo = self.place.store, self.place.repo
        after = draft.after or target.before
        if after != target.before and not _has(repo, after, target.before):
            brought.enter_context(store.transfer_to(repo, after, known=[target.before]))
        if end.holder is not None and not _has(repo, end.holder, after):
            brought.enter_context(store.transfer_to(repo, end.holder, known=[after]))

    def _name(self, draft: Operation) -> None:
        """Names in the store all that this operation, or its undo, needs."""
        for stale in (self.place.store.path / self.slot.refs).glob("*.lock"):
            stale.unlink()  # the number is ours alone, so whoever made it is dead
        names = {
            "before": draft.before,
            "after": draft.after,
            "checkpoint": draft.checkpoint,
            "restored": draft.restored,
        }
        lines = "".join(f"update {self.slot.refs}/{name} {oid}\n" for name, oid in names.items() if oid)
        self.place.store.git("update-ref", "--stdin", stdin=lines.encode(), durable=True)


@contextlib.contextmanager
def turn(place: Place, kind: str) -> Iterator[Turn]:
    """The next operation: under the lock, after recovery, with a number; taken back if it is not written down."""
    with disk(f"finish the {kind}"), _locked(place, kind):
        _settle_all(place)
        held = Turn(place, log.reserve(place.state))
        with held.slot.held():
            try:
                yield held
            except BaseException:
                if not held.prepared:
                    with contextlib.suppress(OSError):  # or the next command does it
                        held.slot.record.unlink(missing_ok=True)
                        held.give_up()
                raise


@contextlib.contextmanager
def _locked(place: Place, kind: str) -> Iterator[None]:
    place.state.prepare()
    place.store.ensure(place.repo)
    with place.state.lock("landing", purpose=f"wt {kind}"):
        yield


def _repo(target: Target) -> Repo:
    if target.repo is None:
        raise not_checked_out(target, "there are no files to move")
    return target.repo


def _check_stands(target: Target, seen: checkout.Look) -> None:
    if seen.branch != target.branch:
        raise _elsewhere(target, seen.branch)
    if seen.commit != target.before:
        raise moved(Target(target.ref, seen.commit or target.before, target.repo), target.before)
    if seen.unmerged:
        raise Refused(
            "the index holds unresolved conflicts", code="operation-in-progress", hint="git status, and resolve them"
        )


def _elsewhere(target: Target, branch: str | None) -> Refused:
    return Refused(
        f"`{target.branch}` is not checked out there any more, but {branch or 'a detached HEAD'}",
        code="branch-moved",
        hint=f"git switch {target.branch}, and run the command again",
    )


def _is_left(repo: Repo, operation: Operation) -> bool:
    """Whether the work tree went to another branch where this one stood, as `git switch -c` does without the index."""
    head = repo.head()
    return head.ref != operation.ref and head.commit == operation.before != operation.after


def _has(repo: Repo, commit: Oid, known: Oid) -> bool:
    """Whether the user's repository holds all that a commit leads to."""
    return repo.git("rev-list", "--objects", "--quiet", commit, "--not", known, expect=None).status == 0


def _over(operation: Operation, state: OperationState) -> Operation:
    return operation.model_copy(update={"state": state, "finished_at": now()})


def _reason(operation: Operation) -> str:
    """What the reflog says: what was done, and by which operation."""
    message = (operation.message or "").split("\n", 1)[0]
    if not message.startswith("wt "):
        message = f"wt {operation.kind}: {message.removeprefix(operation.kind).lstrip()}"
    return f"{message} ({operation.operation_id})"


def _move_branch(place: Place, target: Target, operation: Operation) -> None:
    if operation.after is not None and operation.after != operation.before:
        # The reflog of HEAD belongs to the work tree, so its git directory has to be the one that is asked.
        (target.repo or place.repo).update_ref(
            target.ref, operation.after, operation.before, reason=_reason(operation), durable=True
        )


def _move_files(place: Place, repo: Repo, slot: log.Slot, start: Shape, end: Shape) -> None:
    store = place.store
    if start.plain and end.plain:
        env = checkout.view(repo, store, start.files, end.files)
        checkout.switch(repo, store, slot.index, start.files, end.files, env=env, sparse=True)
        _note_trees(repo, slot, env)
    else:
        checkout.switch(repo, store, slot.files, start.files, end.files, env=checkout.with_store(store), sparse=False)
        _reindex(place, repo, slot, start.index, end.index)
    _install(repo, slot)


def _reindex(place: Place, repo: Repo, slot: log.Slot, start: Oid, end: Oid) -> None:
    """The user's index from one tree to another, where that is not what the files do."""
    env = checkout.view(repo, place.store, start, end)
    checkout.copy_index(repo, slot.index)
    checkout.say(repo, slot.index, start, end, env=env)
    checkout.look(repo, slot.index)
    _note_trees(repo, slot, env)


def _note_trees(repo: Repo, slot: log.Slot, env: dict[str, str] | None) -> None:
    """Makes an index name trees of the user's repository alone, after the store was seen as well."""
    if env is not None:
        repo.git("write-tree", index=slot.index, durable=True)


def _install(repo: Repo, slot: log.Slot) -> None:
    sync_filesystem(checkout.work_tree(repo))
    checkout.install_index(repo, slot.index)


# -------------------------------------------------------------------------------------------------------- recovery
def recover(place: Place) -> list[Finding]:
    """Settles an operation whose process died, wholly before or wholly after; at the start of every mutating verb.

    Costs one directory listing when there is none. Raises: Busy when somebody else's git command holds the index.
    """
    if not log.unfinished(place.state):
        return []
    with disk("finish what was cut off"), _locked(place, "recovery"):
        return _settle_all(place)


def _settle_all(place: Place) -> list[Finding]:
    findings: list[Finding] = []
    for slot in log.unfinished(place.state):
        with slot.held():
            findings += _settle_one(place, slot)
    return findings


def _settle_one(place: Place, slot: log.Slot) -> list[Finding]:
    operation = log.read(slot)
    if operation is None or operation.state != "prepared":
        _let_go(place, slot)
        return []
    settled, kept = _settle(place, slot, operation)
    name = f"`{settled.operation_id}` ({settled.kind})"
    if settled.state == "done":
        finding = Finding(code="operation-finished", message=f"{name} was cut off and is now complete")
    else:
        finding = Finding(code="operation-aborted", message=f"{name} was cut off; everything is as it was before")
    edited = f"edited after {name} was cut off; kept as it is"
    return [finding, *(Finding(code="edit-kept", path=path_text(path), message=edited) for path in kept)]


def _settle(place: Place, slot: log.Slot, operation: Operation) -> tuple[Operation, list[RepoPath]]:
    """Takes an operation that was written down to one of its ends, by where the branch stands.

    Returns the record and files the user edited meanwhile. Raises: Busy, GitFailed; it can be tried again.
    """
    repo = _repo_of(place, operation)
    _break_locks(place, repo, slot, operation)
    stands = place.repo.ref(operation.ref) if operation.ref else None
    moves = operation.before != operation.after
    state: OperationState = "aborted"
    kept: list[RepoPath] = []
    if stands == operation.after and repo is not None and _is_left(repo, operation):
        slot.back.touch()  # the files are that other branch's now, and stay with it
    if stands == operation.after and not slot.back.exists():
        try:
            kept = _go_on(place, repo, slot, operation) if repo else []
            state = "done"
        except (GitFailed, OSError):
            slot.back.touch()
            if moves:
                _move_back(place, repo, operation)
            kept = _go_back(place, repo, slot, operation) if repo else []
    elif stands in {operation.before, operation.after} and slot.back.exists():
        if stands == operation.after and moves:
            _move_back(place, repo, operation)
        kept = _go_back(place, repo, slot, operation) if repo else []
    elif stands and operation.after and stands != operation.before and place.repo.is_ancestor(operation.after, stands):
        state = "done"
    settled = log.write(slot, _over(operation, state))
    _let_go(place, slot)
    return settled, kept


def _break_locks(place: Place, repo: Repo | None, slot: log.Slot, operation: Operation) -> None:
    """Removes locks that git left when it was killed in the middle of this operation.

    Those of our own files are ours alone. That of the branch is ours when it is as old as the record, holds nothing but
    what we would write, and stays as it is for longer than any git command needs it.
    """
    slot.break_locks()
    if operation.ref is None:
        return
    ours = [f"{commit}\n".encode() for commit in (operation.after, operation.before)]
    began = slot.record.stat().st_mtime
    locks = (place.repo.common_dir / f"{operation.ref}.lock", (repo or place.repo).git_dir / "HEAD.lock")

    def look(path: Path) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            held = path.lstat()
            content = path.read_bytes()  # as far as git came
            if held.st_mtime >= began - 1 and any(whole.startswith(content) for whole in ours):
                return held.st_ino, held.st_mtime_ns
        return None

    found = {path: mark for path in locks if (mark := look(path))}
    if found:
        time.sleep(LOCK_PATIENCE_SECONDS)
        for path, mark in found.items():
            if look(path) == mark:
                path.unlink(missing_ok=True)


def _move_back(place: Place, repo: Repo | None, operation: Operation) -> None:
    if operation.ref and operation.before and operation.after:
        (repo or place.repo).update_ref(
            operation.ref, operation.before, operation.after, reason=f"{_reason(operation)}: taken back", durable=True
        )


def _shapes(place: Place, operation: Operation) -> tuple[Shape, Shape]:
    before, after = operation.before, operation.after
    if before is None or after is None:
        raise StateBroken(f"the record of `{operation.operation_id}` names no commits", hint="wt doctor")
    return shape_of(place.store, before, operation.checkpoint), shape_of(place.store, after, operation.restored)


def _go_on(place: Place, repo: Repo, slot: log.Slot, operation: Operation) -> list[RepoPath]:
    """Step 6 and 7 from wherever they stopped."""
    store, (start, end) = place.store, _shapes(place, operation)
    checkout.own_index(repo.git_dir, slot.lock)
    if start.plain and end.plain:
        env = checkout.view(repo, store, start.files, end.files)
        checkout.copy_index(repo, slot.index)
        kept = checkout.finish(repo, store, slot.index, start.files, end.files, env=env, sparse=True)
        _note_trees(repo, slot, env)
    else:
        kept = _finish_files(place, repo, slot, start.files, end.files)
        _reindex(place, repo, slot, start.index, end.index)
    _install(repo, slot)
    return kept


def _go_back(place: Place, repo: Repo, slot: log.Slot, operation: Operation) -> list[RepoPath]:
    """Files and index to where they were, from wherever step 6 stopped."""
    store, (start, end) = place.store, _shapes(place, operation)
    checkout.own_index(repo.git_dir, slot.lock)
    if start.plain and end.plain:
        env = checkout.view(repo, store, start.files, end.files)
        checkout.copy_index(repo, slot.index)
        checkout.say(repo, slot.index, start.files, end.files, env=env)
        kept = checkout.finish(repo, store, slot.index, end.files, start.files, env=env, sparse=True)
        _note_trees(repo, slot, env)
    else:
        if slot.files.exists():
            checkout.say(repo, slot.files, start.files, end.files, env=checkout.with_store(store))
        kept = _finish_files(place, repo, slot, end.files, start.files)
        _reindex(place, repo, slot, end.index, start.index)
    _install(repo, slot)
    return kept


def _finish_files(place: Place, repo: Repo, slot: log.Slot, start: Oid, end: Oid) -> list[RepoPath]:
    env = checkout.with_store(place.store)
    if not slot.files.exists():
        repo.git("read-tree", start, index=slot.files, env=env)
    return checkout.finish(repo, place.store, slot.files, start, end, env=env, sparse=False)


def _repo_of(place: Place, operation: Operation) -> Repo | None:
    """The work tree an operation writes to; None when it has none, or it is gone."""
    if operation.worktree is None or not Path(operation.worktree).is_dir():
        return None
    if str(place.repo.work_tree) == operation.worktree:
        return place.repo
    try:
        return place.repo.at(Path(operation.worktree))
    except NotFound:
        return None


def _let_go(place: Place, slot: log.Slot) -> None:
    """Gives back the user's index wherever it is ours, packs kept for the transfer, and the number's own files."""
    entries = place.repo.common_dir / "worktrees"
    for git_dir in (place.repo.common_dir, *(entries.iterdir() if entries.is_dir() else ())):
        checkout.release_index(git_dir, slot.lock)
    is_of_this_boot = boot_id().encode() in slot.lock.read_bytes()
    _forget_packs(place, cut_since=math.inf if is_of_this_boot else slot.lock.stat().st_mtime)
    slot.clear()


def _forget_packs(place: Place, cut_since: float = math.inf) -> None:
    """Removes what keeps the packs of a transfer from gc, where the transfer was cut off.

    `cut_since` is when it began, in seconds since the epoch, if the power was cut.
    """
    for keep in (place.repo.common_dir / "objects" / "pack").glob("*.keep"):
        with contextlib.suppress(FileNotFoundError):  # somebody else's fetch
            content, whole = keep.read_bytes(), b"wt landing\n"
            # git names the pack last, so one that is not there says that git was stopped in the middle; and it syncs
            # the pack but not this file, which a power cut may leave empty beside it.
            pack = keep.with_suffix(".pack")
            cut_off = not pack.exists() or min(pack.stat().st_mtime, keep.stat().st_mtime) >= cut_since
            if content == whole or (whole.startswith(content) and cut_off):
                keep.unlink()
