"""The place of a run: the boss's repository, the state beside it, the store, and where workspaces go.

Owns the choice of the root of all workspaces and its marker `.wt.json`, which leads from a workspace back to the boss's
repository: git is never asked inside a worker's tree, because what stands there is the worker's to write.

    <main work tree>.worktrees/<job>                 beside the repository
    <state home>/wt/<name>-<hash of path>/<job>      when that would be in a temporary directory, in another
                                                     repository, or where we may not write
    <worktrees_directory>/<name>-<hash>/<job>        as the setting says; many repositories may share the directory

The integration worktree of a merge stands beside the workspaces, as `merging`; the repository of a workspace that has
one of its own in `.private/<job>`.

A marker counts only when it belongs to this user, so that nobody else's file in a shared directory can redirect us; of
several the outermost wins, since a worker can write only below its own workspace.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worktrees.errors import GitFailed, Refused, StateBroken, Usage
from worktrees.git import Repo, discover, sync_filesystem
from worktrees.model import JobId, Oid
from worktrees.store import State, read_json, write_bytes

if TYPE_CHECKING:
    from worktrees.config import Settings
    from worktrees.git import ObjectStore
    from worktrees.model import Finding

MARKER = ".wt.json"
RECORDS = "workspaces"
TRASH = ".trash"
INTEGRATION = "merging"
PRIVATE = ".private"
JOB = re.compile(r"j-[0-9a-z]{8}")
# Worktrees of the pool; no job is ever called so.
SLOTS = tuple(JobId(f"j-gate000{number}") for number in range(1, 5))


@dataclass(frozen=True, slots=True)
class Place:
    """Everything a workspace is made from; making the object touches nothing."""

    repo: Repo
    state: State
    store: ObjectStore
    root: Path

    @property
    def entries(self) -> Path:
        """Where git keeps its own directory of every linked worktree."""
        return self.repo.common_dir / "worktrees"

    @property
    def records(self) -> Path:
        """Where we note every workspace that stands."""
        return self.state.root / RECORDS

    def index_of(self, slot: JobId) -> Path:
        """What a worktree of the pool is compared with."""
        return self.state.root / "gate" / f"{slot}.index"


def place(repo: Repo, settings: Settings) -> Place:
    """The place of a repository under these settings; runs git only when the repository has an unusual layout.

    Raises: Usage when workspaces would lie inside the repository.
    """
    from worktrees.git import ObjectStore
    from worktrees.git.torn import put_torn_aside

    state = State(repo.common_dir)
    put_torn_aside(state.store)
    return Place(repo, state, ObjectStore(state.store), _root(repo, settings.worktrees_directory))


def _root(repo: Repo, configured: str | None) -> Path:
    main = repo.main_work_tree or repo.common_dir
    if configured:
        root = Path(os.path.realpath(main / os.path.expanduser(configured))) / _unmistakable(main, repo)
        for own in {main, repo.common_dir, repo.work_tree or main}:
            if root.is_relative_to(own):
                raise Usage(
                    f"the workspaces would lie inside the repository, in `{root}`",
                    hint="set `worktrees_directory` to a directory outside it",
                )
        if "\n" in os.fspath(root):
            raise Usage(f"git cannot name a worktree with a newline in its path, as in `{root}`", hint="wt config")
        return root
    beside = main.with_name(main.name + ".worktrees")
    writable = os.access(beside if beside.is_dir() else beside.parent, os.W_OK)
    if writable and not _is_temporary(beside) and not _is_nested(main):
        return beside
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(os.path.realpath(home)) / "wt" / _unmistakable(main, repo)


def _unmistakable(main: Path, repo: Repo) -> str:
    import hashlib

    return f"{main.name}-{hashlib.sha256(os.fsencode(repo.common_dir)).hexdigest()[:8]}"


def _is_temporary(path: Path) -> bool:
    roots = ("/tmp", "/var/tmp", os.environ.get("TMPDIR"))  # noqa: S108 - named to be avoided
    return any(path.is_relative_to(os.path.realpath(root)) for root in roots if root)


def _is_nested(main: Path) -> bool:
    """Whether another repository is around this one, as around a submodule; its `git status` would list our root."""
    return any(os.path.lexists(parent / ".git") for parent in main.parents)


def private_repository(workspace: Path) -> Path:
    """Where the repository of a private workspace is: outside of it, and outside of the boss's."""
    return workspace.parent / PRIVATE / workspace.name


# ------------------------------------------------------------------------------------------------------------- marker
def mark(place: Place) -> None:
    """Makes the root and the marker that leads back from it; no change when they are there."""
    home = place.repo.main_work_tree or place.repo.work_tree or place.repo.common_dir
    lead = {"commonDir": os.fspath(place.repo.common_dir), "workTree": os.fspath(home)}
    content = json.dumps(lead).encode() + b"\n"
    with contextlib.suppress(FileNotFoundError):
        if (place.root / MARKER).read_bytes() == content:
            return
    place.root.mkdir(parents=True, exist_ok=True)
    write_bytes(place.root / MARKER, content)


def unmark(place: Place, root: Path) -> None:
    """Takes an empty root away again, marker and trash included; a root with anything else in it stays."""
    try:
        names = set(os.listdir(root))
        torn = {name for name in names if name.startswith(f".{MARKER}.")}  # somebody was killed writing the marker
        if not names - torn <= {MARKER, TRASH}:
            return
        for name in torn:
            (root / name).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(root / TRASH)
        (root / MARKER).unlink(missing_ok=True)
        try:
            os.rmdir(root)
        except OSError:
            # Somebody opened a workspace meanwhile, and may have seen the marker just before it went.
            mark(place)
    except OSError:
        return  # a litter of one file harms nobody


def discover_boss(start: Path) -> tuple[Repo, JobId | None]:
    """The boss's repository around a directory, and the job when the directory lies in its workspace.

    Costs one git process; in a linked worktree that is not ours also a read of the records, since it may be adopted.
    Raises: Refused `not-a-repository`, `unsupported-repository`.
    """
    here = Path(os.path.realpath(start))
    for directory in reversed((here, *here.parents)):
        marker = directory / MARKER
        if not _is_own_file(marker):
            continue
        below = here.relative_to(directory).parts[:1]
        if not below or below[0] in (TRASH, INTEGRATION):
            return _led_to(marker), None
        if JOB.fullmatch(below[0]):
            return _led_to(marker), JobId(below[0])
    repo = discover(start)
    return _adopted(repo) if repo.git_dir != repo.common_dir else (repo, None)


def _adopted(repo: Repo) -> tuple[Repo, JobId | None]:
    """The repository seen from the boss's side, and the job, when its work tree is one that was adopted."""
    records = State(repo.common_dir).root / RECORDS
    for name in os.listdir(records) if records.is_dir() else ():
        with contextlib.suppress(StateBroken, OSError):
            record = read_json(records / name) if name.endswith(".json") else None
            if record is None or record.get("entry") != repo.git_dir.name or repo.work_tree is None:
                continue
            if os.stat(repo.work_tree).st_ino == record["inode"]:
                return from_main(repo), JobId(record["job"])
    return repo, None


def from_main(repo: Repo) -> Repo:
    """The repository seen from its main work tree.

    Raises: Refused `unsupported-repository` when there is none.
    """
    main = repo.main_work_tree
    if main is None:
        raise Refused(
            f"`{repo.common_dir}` is a bare repository and has no main work tree to merge into",
            code="unsupported-repository",
            hint="start in one of its worktrees: wt spawn",
        )
    return Repo(repo.common_dir, repo.common_dir, main, repo.object_format, repo.bare)


def _is_own_file(path: Path) -> bool:
    try:
        return os.lstat(path).st_uid == os.geteuid() and path.is_file() and not path.is_symlink()
    except OSError:
        return False


def _led_to(marker: Path) -> Repo:
    try:
        lead = json.loads(marker.read_bytes())
        work_tree, common_dir = Path(lead["workTree"]), Path(lead["commonDir"])
    except (ValueError, KeyError, TypeError) as error:
        raise StateBroken(f"the marker `{marker}` is damaged", hint="cd to the repository and run: wt list") from error
    try:
        repo = discover(work_tree)
    except Refused as error:
        raise Refused(
            f"the repository of these workspaces, `{work_tree}`, cannot be used: {error.message}",
            code=error.code,
            hint="cd to the repository, wherever it is now, and run: wt list",
        ) from error
    if repo.common_dir != common_dir:
        raise Refused(
            f"`{work_tree}` is not the repository these workspaces belong to any more",
            code="not-a-repository",
            hint="cd to the repository and run: wt list",
        )
    return repo


# ---------------------------------------------------------------------------------------------------------------- pin
def pin(place: Place, ref: str, commit: Oid) -> None:
    """Holds a commit by a ref of the user's repository, so that no gc can take it; no change when it is held already.

    Durable: the commit, all it leads to and the ref survive a power cut. No reflog is made.
    Raises: Refused `branch-moved` when the ref holds another commit.
    """
    from worktrees.git.refs import break_dead

    break_dead(place.repo.common_dir / f"{ref}.lock")
    words = ("update-ref", "--no-deref", ref, commit, "0" * len(commit))
    done = place.repo.git(*words, expect=None, durable=True)
    if done.status != 0:
        held = place.repo.ref(ref)
        if held is None:
            raise GitFailed(done.command, done.status, done.stderr)
        if held != commit:
            raise Refused(
                f"`{ref}` already holds {held[:10]}, not {commit[:10]}",
                code="branch-moved",
                hint=f"git log -1 {ref}",
                details={"ref": ref, "expected": commit, "found": held},
            )
    sync_filesystem(place.repo.common_dir)


# ----------------------------------------------------------------------------------------------------------- the disk
@contextlib.contextmanager
def disk(doing: str) -> Iterator[None]:
    """Turns a failure of the disk into one line that names the file."""
    try:
        yield
    except OSError as error:
        named = f" (`{os.fsdecode(error.filename)}`)" if error.filename else ""
        raise StateBroken(
            f"cannot {doing}: {(error.strerror or str(error)).lower()}{named}",
            hint="see to the disk (space, permissions, read-only mounts) and run the command again",
            details={"errno": error.errno},
        ) from error


@contextlib.contextmanager
def reported(found: list[Finding], job: JobId) -> Iterator[None]:
    """Turns a failure of the disk into a finding, for work that must go on with the next job."""
    try:
        yield
    except OSError as error:
        from worktrees.model import Finding

        found.append(Finding(code="recovery-failed", message=f"the workspace of `{job}` stays as it is: {error}"))
