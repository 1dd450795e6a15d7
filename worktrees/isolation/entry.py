"""git's own directory of a linked worktree: made whole, looked at by plain file reads, mended.

`git worktree add` builds `worktrees/<job>` file by file where every other git command in the repository reads it: a
concurrent one fails on the half-written `commondir`, and a kill or a power cut leaves an entry on which *all* of them
fail, the user's own included. So the entry is built aside, synced, and renamed into place: nobody ever sees half of
it, no lock is needed, and what a crash leaves is a directory of our own. The format is documented in
gitrepository-layout(5). Repositories with extensions not known here (a newer ref storage) get their entry from git,
under the `repository` lock, with other people's races tried again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import shutil
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from worktrees.errors import GitFailed, NotFound
from worktrees.git import run
from worktrees.isolation.place import Place
from worktrees.model import Baseline, JobId, Oid

# With these the entry is what gitrepository-layout(5) says.
_KNOWN_EXTENSIONS = {"objectformat", "partialclone", "preciousobjects", "relativeworktrees", "worktreeconfig"}
_TRIES = 6
_OID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_COMMON = b"../.."
# What kills and power cuts leave; git then fails for everybody, or does not see the worktree, or cannot `gc`.
TORN = {"is missing", "is empty"}
_CHECKOUT = (
    # Files are bound by latency more than by processors: 0.4 of one worker's time on a disk, 0.85 on a memory disk.
    f"checkout.workers={min(8, max(4, os.cpu_count() or 1))}",
    "index.sparse=false",
    "core.splitIndex=false",
)


# ------------------------------------------------------------------------------------------------------------- making
def register(place: Place, job: JobId, path: Path, commit: Oid, sparse: Sequence[str]) -> None:
    """Makes the entry of the directory `path`, detached at `commit` and locked, and points the directory at it."""
    settings = _unusual_settings(place)
    extensions = {name.removeprefix("extensions.") for name in settings if name.startswith("extensions.")}
    if extensions <= _KNOWN_EXTENSIONS:
        _assemble(place, job, path, commit, settings)
    else:
        _add_by_git(place, job, path, commit)
    entry = place.entries / job
    if sparse:
        (entry / "info").mkdir(exist_ok=True)
        (entry / "info" / "sparse-checkout").write_bytes(cone_patterns(sparse))


def aside(place: Place, job: JobId) -> Path:
    """Where the entry of a job is built."""
    return place.state.journal / f"{job}.entry"


def _unusual_settings(place: Place) -> dict[str, str]:
    """Extensions and sparse checkout as git sees them from the boss's work tree; no process when there are none.

    Extensions stand in the repository's own configuration file only, and a sparse checkout has a file of patterns.
    """
    config = (place.repo.common_dir / "config").read_bytes().lower()
    if b"extensions" not in config and not (place.repo.git_dir / "info" / "sparse-checkout").exists():
        return {}
    done = place.repo.git(
        "config", "--null", "--get-regexp", r"^(extensions\.|core\.sparsecheckout$)", expect=(0, 1)
    )  # fmt: skip
    pairs = (os.fsdecode(record).partition("\n") for record in done.records)
    return {name.lower(): value for name, _, value in pairs}


def _assemble(place: Place, job: JobId, path: Path, commit: Oid, settings: Mapping[str, str]) -> None:
    built = aside(place, job)
    entry = place.entries / job
    built.mkdir()
    for name, content in (
        ("commondir", _COMMON),
        ("gitdir", os.fsencode(path / ".git")),
        ("HEAD", commit.encode()),
        ("locked", reason(job)),
    ):
        _write_synced(built / name, content + b"\n")
    _inherit(place, built, settings)
    while True:
        place.entries.mkdir(exist_ok=True)
        try:
            os.rename(built, entry)
            break
        except FileNotFoundError:
            if not built.is_dir():  # else git removed the directory of entries because its last one went
                raise
    write_pointer(path, entry)


def reason(job: JobId) -> bytes:
    """The text with which a worktree of ours is locked."""
    return b"wt " + job.encode()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_pointer(path: Path, entry: Path) -> None:
    """The `.git` file of a work tree; whatever stands there is replaced, never followed."""
    pointer = path / ".git"
    pointer.unlink(missing_ok=True)
    with pointer.open("xb") as file:
        file.write(b"gitdir: " + os.fsencode(entry) + b"\n")


def _inherit(place: Place, built: Path, settings: Mapping[str, str]) -> None:
    """What `git worktree add` hands on from the work tree it is called in: its sparse patterns and configuration."""
    patterns = place.repo.git_dir / "info" / "sparse-checkout"
    if _is_true(settings.get("core.sparsecheckout")) and patterns.exists():
        (built / "info").mkdir()
        shutil.copyfile(patterns, built / "info" / "sparse-checkout")
    own = place.repo.git_dir / "config.worktree"
    if _is_true(settings.get("extensions.worktreeconfig")) and own.exists():
        shutil.copyfile(own, built / "config.worktree")
        for name in ("core.bare", "core.worktree"):
            run(
                "config", "--file", os.fspath(built / "config.worktree"), "--unset-all", name,
                git_dir=place.repo.common_dir, expect=(0, 5),
            )  # fmt: skip


def _is_true(value: str | None) -> bool:
    return value is not None and value.lower() in {"true", "yes", "on", "1", ""}


def _add_by_git(place: Place, job: JobId, path: Path, commit: Oid) -> None:
    """`git worktree add`; tried again while the entry is not there, since then another git's entry was in the way."""
    with place.state.lock("repository", purpose=f"add {job}"):
        for left in reversed(range(_TRIES)):
            try:
                place.repo.git(
                    "worktree", "add", "--detach", "--lock", "--reason", reason(job).decode(), "--no-checkout",
                    "--", os.fspath(path), commit,
                )  # fmt: skip
                return
            except GitFailed:
                if left == 0 or (place.entries / job).exists():
                    raise
            time.sleep(random.uniform(0.020, 0.120))  # noqa: S311


# ------------------------------------------------------------------------------------------------------------ filling
def check_out(
    place: Place, entry: Path, path: Path, baseline: Baseline, *, sparse: Sequence[str], index: Path | None
) -> None:
    """Writes the files of the baseline, and the index into git's directory of the work tree.

    The boss's own filters run, no hook does. With edits carried over, the files are those of the baseline's snapshot
    and the index is the commit's, so that they show as what they are: uncommitted.
    """
    # Configuration and objects are the boss's, wherever the index lies.
    env = {"GIT_COMMON_DIR": os.fspath(place.repo.common_dir)}
    if baseline.snapshot:
        env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = quoted_path(place.store.path / "objects")

    def read_tree(*words: str) -> None:
        run("read-tree", "-m", *words, git_dir=entry, work_tree=path, env=env, config=checkout_settings(sparse))

    try:
        read_tree("-u", baseline.start)
    except GitFailed as error:
        # git says which file it could not write and not why.
        if shutil.disk_usage(path).free < 1 << 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path)) from error
        raise
    if index is not None:
        shutil.copyfile(entry / "index", index)
    if baseline.snapshot is not None:
        read_tree(baseline.commit)


def checkout_settings(sparse: Sequence[str]) -> list[str]:
    """What git is told on the command line when it writes the files of a workspace."""
    # On the command line only: in a configuration file they would need `extensions.worktreeConfig` for everybody.
    return [*_CHECKOUT, *(["core.sparseCheckout=true", "core.sparseCheckoutCone=true"] if sparse else [])]


def quoted_path(path: Path) -> str:
    """A path in a list that git splits at colons."""
    return '"' + os.fspath(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def check_sparse(place: Place, baseline: Baseline, sparse: Sequence[str]) -> list[str]:
    """Sparse directories as git's cone mode wants them: clean, inside the repository, there at the baseline.

    Raises: NotFound.
    """
    clean = []
    for word in sparse:
        directory = os.path.normpath("/" + word).strip("/")
        if directory:
            found = place.repo.git("cat-file", "-t", f"{baseline.commit}:{directory}", expect=(0, 128))
            if found.text != "tree":
                raise NotFound(
                    f"no directory `{word}` at the baseline {baseline.commit[:10]}",
                    hint=f"git ls-tree -d {baseline.commit[:10]}",
                )
            clean.append(directory)
    # The top of the repository as one of them means everything.
    return clean if len(clean) == len(sparse) else []


def cone_patterns(directories: Sequence[str]) -> bytes:
    """The sparse patterns of git's cone mode: these directories whole, and the files beside them on the way down."""
    whole = {directory.encode("utf-8", "surrogateescape") for directory in directories}
    whole = {name for name in whole if not any(name.startswith(other + b"/") for other in whole)}
    passed = {name[:end] for name in whole for end in range(len(name)) if name[end : end + 1] == b"/"}
    lines = [b"/*", b"!/*/"]
    for name in sorted(whole | passed):
        escaped = re.sub(rb"([\\*?\[\]])", rb"\\\1", name)
        lines.append(b"/" + escaped + b"/")
        if name in passed:
            lines.append(b"!/" + escaped + b"/*/")
    return b"\n".join(lines) + b"\n"


# ------------------------------------------------------------------------------------------------------------ looking
def read_small(path: Path, most: int = 1 << 16) -> bytes | None:
    """The start of a regular file; None for anything else, since a worker may have put it there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return os.read(fd, most)
    finally:
        os.close(fd)


def points_at(entry: Path) -> Path | None:
    """The work tree an entry of git's belongs to, by its own word."""
    pointer = (read_small(entry / "gitdir") or b"").rstrip(b"\n")
    return Path(os.path.normpath(os.path.join(entry, os.fsdecode(pointer)))).parent if pointer else None


def damage(entry: Path) -> dict[str, str]:
    """What is wrong with an entry: file -> what. Some of it makes git fail in the whole repository, all of it in parts.

    Only reads files. An entry of somebody who did not check out yet has no index; ours always have one.
    """
    found = {}
    for name in ("commondir", "gitdir", "HEAD"):
        content = read_small(entry / name)
        if content is None:
            found[name] = "is missing"
        elif not content.strip():
            found[name] = "is empty"
    if "commondir" not in found:
        lead = (read_small(entry / "commondir") or b"").rstrip(b"\n")
        if os.path.realpath(entry / os.fsdecode(lead)) != os.path.realpath(entry.parent.parent):
            found["commondir"] = f"leads to `{os.fsdecode(lead)}`"
    head = (read_small(entry / "HEAD") or b"").rstrip(b"\n")
    if "HEAD" not in found and not head.startswith(b"ref: refs/") and not _OID.fullmatch(head):
        found["HEAD"] = "is garbage"
    index = read_small(entry / "index", 12)
    if index == b"":
        found["index"] = "is empty"
    elif (index or b"")[:4] != b"DIRC" and os.path.lexists(entry / "index"):
        found["index"] = "is not an index"
    return found


def mend(place: Place, job: JobId, path: Path, commit: Oid, sparse: Sequence[str], name: str) -> None:
    """Writes a file of an entry of ours anew; it arrives whole, and what stood there goes to the trash."""
    entry = place.entries / job
    with contextlib.suppress(FileNotFoundError):
        os.rename(entry / name, place.state.trash / f"{job}.{name}.{time.time_ns():x}")
    if name == "index":
        run("read-tree", commit, git_dir=entry, work_tree=path, config=checkout_settings(sparse))
        return
    content = {"commondir": _COMMON, "gitdir": os.fsencode(path / ".git"), "HEAD": commit.encode()}[name]
    fresh = entry / f"{name}.wt"
    fresh.unlink(missing_ok=True)
    _write_synced(fresh, content + b"\n")
    os.rename(fresh, entry / name)
