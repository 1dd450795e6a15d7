"""A work tree of the boss on its way from one state to another: its index, its files, and what must not be overwritten.

Everything is done with an index of our own, a copy made while the user's `index.lock` is ours, and put in place by
one rename at the end. git writes the files (`read-tree -m -u`), so that filters, sparse checkouts, symbolic links
and modes come out as in any checkout. What git would do silently is looked for first, by name: it replaces ignored
files, and takes a file that was deleted for one that may be written.

A user's `index.lock` that is not a hard link to ours belongs to somebody else and is never touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worktrees.errors import Busy, GitFailed, Refused
from worktrees.git import ObjectStore, Repo, TreeEntry, temporary_place
from worktrees.git.objects import SUBMODULE_MODE
from worktrees.model import Oid, RepoPath, path_text
from worktrees.store import sync_directory

Changes = dict[RepoPath, tuple[TreeEntry | None, TreeEntry | None]]
_Found = tuple[int, bytes]
_ELSEWHERE: _Found = (0, b"")  # a parent is no directory
_DIRECTORY: _Found = (stat.S_IFDIR, b"")
INDEX_WAIT_SECONDS = 2.0
_SHOWN = 3


# -------------------------------------------------------------------------------------------------- the user's index
def index_of(git_dir: Path) -> Path:
    """The index of a work tree, links resolved as git does."""
    return Path(os.path.realpath(git_dir / "index"))


def index_lock(git_dir: Path) -> Path:
    """The lock of git's own on the index of a work tree."""
    index = index_of(git_dir)
    return index.with_name(index.name + ".lock")


def own_index(git_dir: Path, lock: Path) -> None:
    """Makes the user's index ours: nobody's git command changes it until `release_index`.

    Raises: Busy, naming the lock, when it was not free within `INDEX_WAIT_SECONDS`.
    """
    taken = index_lock(git_dir)
    deadline = time.monotonic() + INDEX_WAIT_SECONDS
    while not _take(taken, lock):
        if time.monotonic() > deadline:
            raise Busy(
                f"`{taken}` exists: another git command is at work on this checkout, or one died there",
                hint=f"when no git command runs any more: rm {taken}",
                details={"path": os.fspath(taken)},
            )
        time.sleep(0.01)


def _take(taken: Path, lock: Path) -> bool:
    try:
        os.link(lock, taken)
    except FileExistsError:
        return is_ours(taken, lock)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS}:
            raise
        # No hard links on this file system: the same content says whose it is.
        try:
            fd = os.open(taken, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return is_ours(taken, lock)
        try:
            os.write(fd, lock.read_bytes())
        finally:
            os.close(fd)
    return True


def is_ours(taken: Path, lock: Path) -> bool:
    """Whether an `index.lock` is there through this lock of ours."""
    try:
        theirs, ours = os.lstat(taken), os.lstat(lock)
        if os.path.samestat(theirs, ours):
            return True
        return 0 < ours.st_size == theirs.st_size and taken.read_bytes() == lock.read_bytes()
    except OSError:
        return False


def release_index(git_dir: Path, lock: Path) -> None:
    """Lets go of the user's index if it is ours."""
    taken = index_lock(git_dir)
    if is_ours(taken, lock):
        taken.unlink()


def copy_index(repo: Repo, into: Path) -> None:
    """A copy of the user's index with its time: by it git knows which entries it must not trust the clock for."""
    into.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(index_of(repo.git_dir), into)


def install_index(repo: Repo, index: Path) -> None:
    """Puts an index of ours in the place of the user's."""
    place = index_of(repo.git_dir)
    os.rename(index, place)
    sync_directory(place.parent)


# ---------------------------------------------------------------------------------------------------------- looking
@dataclass(frozen=True, slots=True)
class Look:
    """What `git status` says: where HEAD is, and paths whose file differs from the index."""

    branch: str | None
    commit: Oid | None
    unstaged: set[RepoPath] = field(default_factory=set)
    unmerged: set[RepoPath] = field(default_factory=set)
    untracked: list[RepoPath] = field(default_factory=list)
    staged: bool = False


def look(repo: Repo, index: Path, *, untracked: bool = False) -> Look:
    """Compares HEAD, an index of ours and the files; leaves the index refreshed. Cost: one `lstat` per file."""
    done = repo.git(
        "status", "--porcelain=v2", "--branch", "-z", "--no-ahead-behind", "--no-renames", "--ignore-submodules=all",
        "--untracked-files=all" if untracked else "--untracked-files=no",
        index=index, env={"GIT_OPTIONAL_LOCKS": "1"},
    )  # fmt: skip
    headers = {}
    seen = Look(None, None)
    staged = False
    for record in done.records:
        kind, _, rest = record.partition(b" ")
        if kind == b"#":
            name, _, value = rest.partition(b" ")
            headers[name] = os.fsdecode(value)
        elif kind == b"1":
            fields = rest.split(b" ", 7)
            staged = staged or fields[0][:1] != b"."
            if fields[0][1:] != b".":
                seen.unstaged.add(RepoPath(fields[7]))
        elif kind == b"u":
            seen.unmerged.add(RepoPath(rest.split(b" ", 9)[9]))
        elif kind == b"?":
            seen.untracked.append(RepoPath(rest))
    branch, commit = headers.get(b"branch.head"), headers.get(b"branch.oid")
    return Look(
        None if branch == "(detached)" else branch,
        None if commit in {None, "(initial)"} else Oid(str(commit)),
        seen.unstaged, seen.unmerged, seen.untracked, staged,
    )  # fmt: skip


def _raw(records: list[bytes]) -> Changes:
    """The records of `--raw -z` without renames."""
    changes: Changes = {}
    for fields, path in zip(records[::2], records[1::2], strict=True):
        old_mode, new_mode, old, new, _status = fields.decode("ascii").lstrip(":").split(" ")
        changes[RepoPath(path)] = (_entry(old_mode, old), _entry(new_mode, new))
    return changes


def _entry(mode: str, oid: str) -> TreeEntry | None:
    return None if mode == "000000" else TreeEntry(mode, Oid(oid))


def changes_between(store: ObjectStore, old: Oid, new: Oid) -> Changes:
    """Paths that differ between two trees."""
    return _raw(store.git("diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index", old, new).records)


def staged_against(repo: Repo, store: ObjectStore, index: Path, tree: Oid) -> dict[RepoPath, TreeEntry | None]:
    """What an index holds where it differs from a tree."""
    words = ("diff-index", "--cached", "-z", "--raw", "--no-renames", "--full-index")
    done = repo.git(*words, tree, index=index, env=with_store(store))
    return {path: new for path, (_, new) in _raw(done.records).items()}


def with_store(store: ObjectStore) -> dict[str, str]:
    """The environment in which git sees the store's objects as well, and writes there."""
    return {"GIT_OBJECT_DIRECTORY": os.fspath(store.path / "objects")}


# -------------------------------------------------------------------------------------------- what must not be lost
def check_nothing_lost(
    repo: Repo,
    store: ObjectStore,
    index: Path,
    dirty: set[RepoPath],
    start: Oid,
    end: Oid,
    *,
    what: str,
    exact: bool,
    env: Mapping[str, str] | None,
) -> Oid:
    """Makes sure that going from one tree to another overwrites nothing that is not in the first.

    `dirty` are paths whose file differs from the index of ours, which else describes the files. A path that the index
    holds as in the second tree already is let be, or with `exact` is in the way like any other edit: the way back would
    not know of it. Returns the tree to go from: the first without paths that neither the index nor the second has,
    whose files git would not let be.

    Raises: Refused `would-overwrite` naming every path; `case-collision`.
    """
    changes = changes_between(store, start, end)
    staged = staged_against(repo, store, index, start)
    folds = repo.git("config", "--type=bool", "core.ignoreCase", expect=(0, 1)).text == "true"
    blocked = _blocked(work_tree(repo), changes, staged, dirty, exact=exact, folds=folds)
    if not blocked:
        gone = [path for path, entry in staged.items() if entry is None and path in changes and not changes[path][1]]
        start = _with_entries(repo, start, dict.fromkeys(gone), env=env)
        trial = repo.git("read-tree", "-m", "-u", "-n", start, end, index=index, env=with_store(store), expect=None)
        if trial.status != 0:
            blocked = _hidden(repo, index, changes)
            if not blocked:
                raise GitFailed(trial.command, trial.status, trial.stderr)
    refuse(blocked, what)
    return start


def _with_entries(
    repo: Repo, tree: Oid, entries: Mapping[RepoPath, TreeEntry | None], *, env: Mapping[str, str] | None
) -> Oid:
    """A tree with some entries replaced."""
    if not entries:
        return tree
    with tempfile.TemporaryDirectory(prefix="wt-tree-", dir=temporary_place()) as scratch:
        index = Path(scratch, "index")
        repo.git("read-tree", tree, index=index, env=env)
        _set_entries(repo, index, entries)
        return Oid(repo.git("write-tree", index=index, env=env).text)


def check_index_free(repo: Repo, store: ObjectStore, index: Path, start: Oid, end: Oid, *, what: str) -> None:
    """Makes sure that an index goes from one tree to another without losing what is staged. Raises: Refused."""
    changes = changes_between(store, start, end)
    staged = staged_against(repo, store, index, start)
    refuse([path for path, entry in staged.items() if path in changes and entry != changes[path][1]], what)


def refuse(paths: Iterable[RepoPath], what: str) -> None:
    """Raises Refused `would-overwrite` if there are any paths."""
    listed = sorted(set(paths))
    if listed:
        shown = ", ".join(f"`{path_text(path)}`" for path in listed[:_SHOWN])
        more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        raise Refused(
            f"{what} would overwrite uncommitted work: {shown}{more}",
            code="would-overwrite",
            hint="commit, stash or move it away, and run the command again",
            details={"paths": [path_text(path) for path in listed]},
        )


def _blocked(
    work: Path,
    changes: Changes,
    staged: Mapping[RepoPath, TreeEntry | None],
    dirty: set[RepoPath],
    *,
    exact: bool,
    folds: bool,
) -> list[RepoPath]:
    """Paths that stand in the way; `folds` when the file system takes `A` and `a` for one name."""

    def held(path: RepoPath) -> TreeEntry | None:
        return staged[path] if path in staged else changes[path][0]

    goes = {path for path, (old, _) in changes.items() if old is not None and held(path) == old and path not in dirty}
    folded = {_fold(path) for path in goes} if folds else set()
    found: list[RepoPath] = []
    news: dict[bytes, RepoPath] = {}
    for path, (old, new) in changes.items():
        if held(path) == new and not exact:
            continue  # git leaves the file alone
        if held(path) != old or path in dirty:
            found.append(path)
        elif new is not None:
            obstacles = _in_the_way(work, path, old, new, goes)
            found += [each for each in obstacles if not (folds and _fold(each) in folded)]
            if folds and old is None and news.setdefault(_fold(path), path) != path:
                raise Refused(
                    f"`{path_text(path)}` and `{path_text(news[_fold(path)])}` are one file on this file system",
                    code="case-collision",
                    hint="leave one of the jobs out: wt merge JOB…",
                )
    return found


def _fold(path: bytes) -> bytes:
    return os.fsencode(os.fsdecode(path).casefold())


def _in_the_way(
    work: Path, path: RepoPath, old: TreeEntry | None, new: TreeEntry, goes: set[RepoPath]
) -> list[RepoPath]:
    """What stands where a file is to be written, but for clean files that go by themselves."""
    root = os.fsencode(work)
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        parent = RepoPath(b"/".join(parts[:count]))
        mode = _mode(os.path.join(root, parent))
        if mode is None:
            return []
        if not stat.S_ISDIR(mode):  # a link to a directory included: nothing is written through it
            return [] if parent in goes else [parent]
    mode = _mode(os.path.join(root, path))
    if mode is None:
        return []
    if stat.S_ISDIR(mode):
        if new.mode == SUBMODULE_MODE:
            return []
        return [below for below in _files_below(root, path) if below not in goes]
    return [path] if old is None or old.mode == SUBMODULE_MODE else []


def _mode(path: bytes) -> int | None:
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _files_below(root: bytes, directory: bytes) -> Iterator[RepoPath]:
    for place, names, files in os.walk(os.path.join(root, directory)):
        links = [name for name in names if os.path.islink(os.path.join(place, name))]
        for name in (*files, *links):
            yield RepoPath(os.path.relpath(os.path.join(place, name), root))


def _hidden(repo: Repo, index: Path, changes: Changes) -> list[RepoPath]:
    """Files git was told not to look at (assume-unchanged, skip-worktree) although they are there."""
    root = os.fsencode(work_tree(repo))
    found = []
    for record in repo.git("ls-files", "-v", "-z", index=index).records:
        tag, path = record[:1], RepoPath(record[2:])
        if (tag == b"S" or tag.islower()) and path in changes and _mode(os.path.join(root, path)) is not None:
            found.append(path)
    return found


def work_tree(repo: Repo) -> Path:
    """The work tree of a repository that has one."""
    if repo.work_tree is None:
        raise Refused("there is no checkout here", code="unsupported-repository", hint="wt -C CHECKOUT …")
    return repo.work_tree


# ------------------------------------------------------------------------------------------------------------ moving
def switch(
    repo: Repo, store: ObjectStore, index: Path, start: Oid, end: Oid, *, env: Mapping[str, str] | None, sparse: bool
) -> None:
    """Takes an index of ours and the files from one tree to another; edits elsewhere stay.

    Raises: GitFailed, possibly half way; `finish` goes on from there.
    """
    changes = changes_between(store, start, end)
    if not sparse:
        _hold_skipped(repo, index, changes)
    _read_tree(repo, index, start, end, env=env, sparse=sparse)
    _check_gone(repo, changes)


def _read_tree(repo: Repo, index: Path, start: Oid, end: Oid, *, env: Mapping[str, str] | None, sparse: bool) -> None:
    words = () if sparse else ("--no-sparse-checkout",)
    repo.git("read-tree", "-m", "-u", *words, start, end, index=index, env=env, durable=True)


def _hold_skipped(repo: Repo, index: Path, changes: Changes) -> None:
    """Moves entries outside a sparse checkout by hand: not told about it, git would write their files.

    It is not told because an index of files holds untracked ones too, and those it would take away.
    """
    tagged = repo.git("ls-files", "-t", "-z", index=index).records
    skipped = [RepoPath(record[2:]) for record in tagged if record[:2] == b"S " and record[2:] in changes]
    if skipped:
        _set_entries(repo, index, {path: changes[path][1] for path in skipped})
        stay = b"".join(path + b"\0" for path in skipped if changes[path][1] is not None)
        repo.git("update-index", "--skip-worktree", "-z", "--stdin", index=index, stdin=stay)


def _check_gone(repo: Repo, changes: Changes, but: Iterable[RepoPath] = ()) -> None:
    """Raises GitFailed when a file is left that should be gone; git itself only warns."""
    root = os.fsencode(work_tree(repo))
    for path, (old, new) in changes.items():
        if new is None and old is not None and old.mode != SUBMODULE_MODE and path not in but:
            mode = _mode(os.path.join(root, path))
            if mode is not None and not stat.S_ISDIR(mode):
                raise GitFailed(["read-tree", "-m", "-u"], 0, b"error: cannot delete " + path)


def view(repo: Repo, store: ObjectStore, *trees: Oid) -> dict[str, str] | None:
    """The environment for a user's index: None when their repository has these trees, and only else with the store.

    After the latter `write-tree` is due, because git notes trees in an index that it sees, wherever they are.
    """
    asked = "".join(f"{tree}\n" for tree in trees).encode()
    answer = repo.git("cat-file", "--batch-check=%(objecttype)", stdin=asked).text.split("\n")
    return None if all(line == "tree" for line in answer) else with_store(store)


def say(repo: Repo, index: Path, start: Oid, end: Oid, *, env: Mapping[str, str] | None) -> None:
    """Takes an index of ours from one tree to another; files are not looked at."""
    repo.git("read-tree", "-i", "-m", start, end, index=index, env=env, durable=True)


def finish(
    repo: Repo, store: ObjectStore, index: Path, start: Oid, end: Oid, *, env: Mapping[str, str] | None, sparse: bool
) -> list[RepoPath]:
    """Takes files that a crash left anywhere between two trees to the second, and an index of ours with them.

    The index still says `start`, or `end` where it got that far, or what was staged since, and that stays. A file that
    is neither, nor cut off in the middle, is an edit made since: it stays, and the index says `end`. Returns those.
    Repeatable. Raises: GitFailed.
    """
    changes = changes_between(store, start, end)
    seen = look(repo, index)
    staged = staged_against(repo, store, index, start)
    behind = {path: pair for path, pair in changes.items() if path not in staged}
    if not behind:
        return []
    since = {path: entry for path, entry in staged.items() if path in changes and entry != changes[path][1]}
    start, end = _with_entries(repo, start, since, env=env), _with_entries(repo, end, since, env=env)
    doubtful = {path: pair for path, pair in behind.items() if pair[0] is None or path in seen.unstaged}
    settled, kept = _settle_files(repo, store, behind, doubtful, start, end)
    _set_entries(repo, index, settled)
    gone = [path for path in (*staged, *settled) if path in changes and changes[path][1] is None]
    start = _with_entries(repo, start, dict.fromkeys(gone), env=env)
    if not sparse:
        _hold_skipped(repo, index, behind)
    _read_tree(repo, index, start, end, env=env, sparse=sparse)
    _check_gone(repo, behind, but=kept)
    look(repo, index)
    return kept


def _settle_files(
    repo: Repo, store: ObjectStore, behind: Changes, doubtful: Changes, start: Oid, end: Oid
) -> tuple[dict[RepoPath, TreeEntry | None], list[RepoPath]]:
    """Judges files that git would stumble over: entries that need no more work, and which of them the user edited."""
    root = os.fsencode(work_tree(repo))
    settled: dict[RepoPath, TreeEntry | None] = {}
    kept: list[RepoPath] = []
    with tempfile.TemporaryDirectory(prefix="wt-finish-", dir=temporary_place()) as scratch:
        before, after = Path(scratch, "before"), Path(scratch, "after")
        _spread(repo, store, start, [path for path, (old, _) in doubtful.items() if old], before)
        _spread(repo, store, end, [path for path, (_, new) in doubtful.items() if new], after)
        for path, (_, new) in doubtful.items():
            found = _content(root, path)
            if found in {None, _ELSEWHERE, _DIRECTORY}:
                if new is None:
                    settled[path] = None
            elif found == (wanted := _content(os.fsencode(after), path)):
                settled[path] = new
            elif _is_torn(found, wanted) or _is_torn(found, _content(os.fsencode(before), path)):
                os.unlink(os.path.join(root, path))
            else:
                settled[path] = new
                kept.append(path)
    # A file where a directory has to be, or the other way round: git makes room, unless an edit is in there.
    goes = {path for path, (_, new) in behind.items() if new is None}.difference(kept)
    for path, (old, new) in doubtful.items():
        if new is not None and path not in settled and _in_the_way(work_tree(repo), path, old, new, goes):
            settled[path] = new
            kept.append(path)
    return settled, kept


def _spread(repo: Repo, store: ObjectStore, tree: Oid, paths: list[RepoPath], into: Path) -> None:
    """Writes files of a tree below a directory just as a checkout would: filters, line ends, links.

    One that cannot be written so (a filter that fails) is left out: it cannot be in the checkout either.
    """
    into.mkdir()
    if not paths:
        return
    index = into.with_name(into.name + ".index")
    repo.git("read-tree", tree, index=index, env=with_store(store))
    wanted = b"".join(path + b"\0" for path in paths)
    prefix = f"--prefix={into}/"
    words = ("checkout-index", "-f", "-z", "--stdin", prefix)
    repo.git(*words, index=index, stdin=wanted, env=with_store(store), expect=None)


def _content(root: bytes, path: RepoPath) -> _Found | None:
    """Kind and content of a file; None when nothing is there. Never looks through a link."""
    *parents, name = path.split(b"/")
    place = root
    for part in parents:
        place = os.path.join(place, part)
        mode = _mode(place)
        if mode is None or not stat.S_ISDIR(mode):
            return None if mode is None else _ELSEWHERE
    place = os.path.join(place, name)
    mode = _mode(place)
    if mode is None:
        return None
    if stat.S_ISLNK(mode):
        return stat.S_IFLNK, os.readlink(place)
    if not stat.S_ISREG(mode):
        return stat.S_IFMT(mode), b""
    with open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return stat.S_IFREG, file.read()


def _is_torn(found: _Found | None, whole: _Found | None) -> bool:
    """Whether a file is the beginning of another, as a write cut off leaves it."""
    return (
        found is not None
        and whole is not None
        and found[0] == whole[0] == stat.S_IFREG
        and len(found[1]) < len(whole[1])
        and whole[1].startswith(found[1])
    )


def _set_entries(repo: Repo, index: Path, entries: Mapping[RepoPath, TreeEntry | None]) -> None:
    """Writes entries of an index of ours; removals first, so that a file may take the place of a directory."""
    ordered = sorted(entries.items(), key=lambda pair: pair[1] is not None)
    if ordered:
        nothing = "0" * (64 if repo.object_format == "sha256" else 40)
        lines = [
            (f"0 {nothing}\t" if entry is None else f"{entry.mode} {entry.oid}\t").encode() + path + b"\0"
            for path, entry in ordered
        ]
        repo.git("update-index", "-z", "--add", "--replace", "--index-info", index=index, stdin=b"".join(lines))
