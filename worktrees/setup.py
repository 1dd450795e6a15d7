"""Makes a workspace worth working in: ignored files to bring along, links, submodules, setup commands, a port range.

Works on a workspace no worker has touched yet, or on one that somebody else made. Everything it brings comes from the
boss's own checkout and object stores; nothing is fetched. What it brought is returned as `Provision`, so that the
record of changes does not count it as the worker's.

- `.worktreeinclude` in the boss's checkout lists patterns in gitignore syntax; of the files they match only *ignored*
  ones are copied, because tracked ones are there already and untracked ones are the boss's unfinished work (see the
  dirty policy).
- A copy is a reflink where the file system can and a plain copy elsewhere, never a hard link: an in-place write would
  change the boss's file. No component of a path is followed through a symlink, and a symlink is copied only when it
  stays in the repository.
- Submodules get a repository of their own that borrows the objects of the boss's clone of them.
- Commands of the repository file, for setting up and for checking merges, can be written by whoever can write the
  repository, so each runs only after the user approved its exact text; those of the user's own configuration run as
  they are. They run as the worker, never as the boss.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worktrees.errors import GitFailed
from worktrees.git import run
from worktrees.model import Finding, path_text
from worktrees.store import now, read_json, write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from worktrees.config import Settings
    from worktrees.git import Repo

INCLUDE_FILE = ".worktreeinclude"
SETUP_FILE = ".wt.toml"
# FICLONE of linux/fs.h: share the blocks of another file, copied on write.
_FICLONE = 0x40049409


@dataclass(frozen=True, slots=True)
class Provision:
    """What a workspace was given. `paths` are relative to its top, for files and links alike."""

    paths: list[bytes] = field(default_factory=list)
    submodules: list[bytes] = field(default_factory=list)
    copied_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def dump(self) -> dict[str, Any]:
        """Its record as JSON; paths are text for people."""
        return {
            "paths": [path_text(path) for path in self.paths],
            "submodules": [path_text(path) for path in self.submodules],
            "copiedBytes": self.copied_bytes,
            "findings": [finding.dump() for finding in self.findings],
        }


def provide(repo: Repo, workspace: Path, commit: str, settings: Settings, *, fresh: bool = True) -> Provision:
    """Brings includes, links and submodules into a workspace; in one that is not `fresh` some may be there already.

    Never overwrites anything and never fails for what it cannot bring: that is a finding. Cost: two `ls-files` where
    there is an include file, one `ls-tree` where the workspace has a `.gitmodules`, else two `stat` calls.
    """
    provision = Provision()
    if repo.work_tree is None:
        return provision
    copied = _include(repo, repo.work_tree, workspace, provision, fresh=fresh)
    _link(repo.work_tree, workspace, settings.link_directories, provision, fresh=fresh)
    if os.path.lexists(workspace / ".gitmodules"):
        _submodules(repo.common_dir, repo.work_tree, repo.common_dir, workspace, commit, b"", provision)
    return Provision(provision.paths, provision.submodules, copied, provision.findings)


# ---------------------------------------------------------------------- includes
def included_paths(repo: Repo, work_tree: Path) -> list[bytes]:
    """Ignored files of the boss's checkout that `.worktreeinclude` names, sorted."""
    include = work_tree / INCLUDE_FILE
    if not include.is_file() or include.is_symlink():
        return []
    untracked = ("ls-files", "--others", "--ignored", "-z")
    listed = repo.git(*untracked, f"--exclude-from={os.fspath(include)}").records
    # An entry that ends in `/` is a nested repository: not ours to copy.
    files = {path for path in listed if not path.endswith(b"/")}
    return sorted(files.intersection(repo.git(*untracked, "--exclude-standard").records)) if files else []


def _include(repo: Repo, source: Path, workspace: Path, provision: Provision, *, fresh: bool) -> int:
    copied = 0
    try:
        paths = included_paths(repo, source)
    except GitFailed as error:
        provision.findings.append(Finding(code="include-failed", path=INCLUDE_FILE, message=error.message))
        return 0
    if not paths:
        return 0
    with _directory(source) as source_fd, _directory(workspace) as target_fd:
        for path in paths:
            try:
                copied += copy_file(source_fd, target_fd, path)
            except FileNotFoundError:
                continue  # it vanished while we looked: the boss's tree is alive
            except OSError as error:
                if error.errno == errno.EEXIST and not fresh:
                    continue
                provision.findings.append(
                    Finding(
                        code="include-skipped",
                        path=path_text(path),
                        message=f"not copied: {os.strerror(error.errno or 0)}",
                    )
                )
            else:
                provision.paths.append(path)
    return copied


@contextlib.contextmanager
def _directory(path: Path | bytes | str, *, dir_fd: int | None = None) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _descend(top_fd: int, parts: Sequence[bytes], *, make: bool) -> int:
    """A descriptor of a directory below `top_fd`, following no symlink."""
    fd = os.dup(top_fd)
    for part in parts:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=fd)
        try:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def copy_file(source_fd: int, target_fd: int, path: bytes) -> int:
    """Copies one file or symlink between two trees, given by descriptors of their tops; returns its size in bytes.

    Raises: OSError; ELOOP when a parent is a symlink or a symlink leaves the tree, EEXIST when the target has the
    path already, EINVAL for anything that is neither file nor symlink.
    """
    *parents, name = path.split(b"/")
    source = _descend(source_fd, parents, make=False)
    try:
        target = _descend(target_fd, parents, make=True)
        try:
            found = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                destination = os.readlink(name, dir_fd=source)
                if leaves_tree(path, destination):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                os.symlink(destination, name, dir_fd=target)
                return 0
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return _copy_content(source, target, name, found)
        finally:
            os.close(target)
    finally:
        os.close(source)


def leaves_tree(path: bytes, destination: bytes) -> bool:
    """Whether a symlink at `path` (relative to the top) points outside the tree, by its text alone."""
    if destination.startswith(b"/"):
        return True
    depth = path.count(b"/")
    for part in destination.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False


def _copy_content(source: int, target: int, name: bytes, found: os.stat_result) -> int:
    # O_NONBLOCK: should the file have become a FIFO since, open must not wait for a writer.
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        writing = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target
        )
        try:
            try:
                fcntl.ioctl(writing, _FICLONE, reading)
            except OSError:
                while os.sendfile(writing, reading, None, 1 << 24):
                    pass
            os.fchmod(writing, stat.S_IMODE(found.st_mode) & 0o777)
            os.utime(writing, ns=(found.st_atime_ns, found.st_mtime_ns))
        except BaseException:
            os.unlink(name, dir_fd=target)
            raise
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    return found.st_size


# ---------------------------------------------------------------------------------------------------------------- links
def _link(source: Path, workspace: Path, directories: Sequence[str], provision: Provision, *, fresh: bool) -> None:
    for text in directories:
        path = os.fsencode(text).strip(b"/")
        if not path or b".." in path.split(b"/"):
            provision.findings.append(
                Finding(code="link-skipped", path=text, message="not linked: not a path inside the repository")
            )
            continue
        *parents, name = path.split(b"/")
        try:
            with _directory(source) as source_top, _directory(workspace) as target_top:
                above = _descend(source_top, parents, make=False)
                os.close(_descend(above, [name], make=False))
                os.close(above)
                target = _descend(target_top, parents, make=True)
                try:
                    os.symlink(os.path.join(os.fsencode(source), path), name, dir_fd=target)
                finally:
                    os.close(target)
        except FileNotFoundError:
            continue  # the boss has no such directory (yet)
        except OSError as error:
            if error.errno == errno.EEXIST and not fresh:
                continue
            provision.findings.append(
                Finding(
                    code="link-skipped", path=path_text(path), message=f"not linked: {os.strerror(error.errno or 0)}"
                )
            )
        else:
            provision.paths.append(path)


# ---------------------------------------------------------------------- submodules
def _submodules(
    git_dir: Path, source: Path, modules: Path, target: Path, commit: str, prefix: bytes, provision: Provision
) -> None:
    """Checks out the submodules of one commit, and theirs, from the boss's own clones of them.

    `source` is the boss's checkout of the repository at `git_dir`; `modules` is where its submodules' repositories
    are absorbed.
    """
    names = _submodule_names(git_dir, commit)
    if not names:
        return
    for record in run("ls-tree", "-r", "-z", "--full-tree", commit, git_dir=git_dir).records:
        head, _, path = record.partition(b"\t")
        mode, _, oid = head.split(b" ")
        if mode != b"160000":
            continue
        shown = path_text(prefix + path)
        name = names.get(path)
        home = _module_home(modules, source, name, path) if name is not None else None
        if home is None:
            provision.findings.append(
                Finding(
                    code="submodule-missing", path=shown, message="not initialised in the main work tree, left empty"
                )
            )
            continue
        place = Path(os.fsdecode(os.path.join(os.fsencode(target), path)))
        if place.is_dir() and any(place.iterdir()):
            continue  # somebody else has checked it out
        try:
            _borrow(home, place, oid.decode())
        except (GitFailed, OSError) as error:
            provision.findings.append(Finding(code="submodule-failed", path=shown, message=str(error)))
            continue
        provision.submodules.append(prefix + path)
        below = Path(os.fsdecode(os.path.join(os.fsencode(source), path)))
        _submodules(home, below, home, place, oid.decode(), prefix + path + b"/", provision)


def _submodule_names(git_dir: Path, commit: str) -> dict[bytes, bytes]:
    """Submodule names by path, as the commit's `.gitmodules` has them."""
    done = run(
        "config",
        f"--blob={commit}:.gitmodules",
        "--null",
        "--get-regexp",
        r"^submodule\..*\.path$",
        git_dir=git_dir,
        expect=None,
    )
    names = {}
    for record in done.records if done.status == 0 else []:
        key, _, path = record.partition(b"\n")
        name = key[len(b"submodule.") : -len(b".path")]
        # A name is a path below `modules/`; one that climbs out is an attack git refuses too.
        if b".." not in name.split(b"/") and not name.startswith(b"/"):
            names[path] = name
    return names


def _module_home(modules: Path, source: Path, name: bytes, path: bytes) -> Path | None:
    """Where the boss's clone of a submodule keeps its objects.

    Absorbed below the git-dir, or in the submodule itself.
    """
    absorbed = Path(os.fsdecode(os.path.join(os.fsencode(modules), b"modules", name)))
    embedded = Path(os.fsdecode(os.path.join(os.fsencode(source), path, b".git")))
    for home in (absorbed, embedded):
        if (home / "objects").is_dir() and not home.is_symlink():
            return home
    return None


def _borrow(home: Path, place: Path, oid: str) -> None:
    """A repository at `place` that borrows the objects of `home`.

    Checked out at `oid`; no remote, no hooks, nothing fetched.
    """
    place.mkdir(parents=True, exist_ok=True)
    git_dir = place / ".git"
    run("init", "--quiet", "--template=", "--", os.fspath(place), git_dir=None, config=("init.defaultBranch=none",))
    (git_dir / "objects" / "info").mkdir(exist_ok=True)
    (git_dir / "objects" / "info" / "alternates").write_bytes(os.fsencode(home / "objects") + b"\n")
    run("update-ref", "--no-deref", "HEAD", oid, git_dir=git_dir)
    run("read-tree", "-m", "-u", oid, git_dir=git_dir, work_tree=place)


# ---------------------------------------------------------------------- commands
def approvals_file(environment: dict[str, str] | None = None) -> Path:
    """Where approvals are kept: the user's state, outside every repository, so that no worker can approve."""
    env = os.environ if environment is None else environment
    base = env.get("XDG_STATE_HOME") or os.path.join(env.get("HOME", "/"), ".local", "state")
    return Path(base) / "wt" / "approvals.json"


def _approval_key(repo: Repo, command: str) -> str:
    import hashlib

    return hashlib.sha256(os.fsencode(repo.common_dir) + b"\0" + command.encode("utf-8", "surrogateescape")).hexdigest()


def repository_commands(repo: Repo, setting: str = "setup_commands") -> list[str]:
    """Commands the file in the main work tree asks for, whether approved or not."""
    import tomllib

    if repo.main_work_tree is None:
        return []
    try:
        content = tomllib.loads((repo.main_work_tree / SETUP_FILE).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return []
    # As all settings it may be written `setup_commands`, `setup-commands` or `setupCommands`.
    plain = {re.sub("[^a-z]", "", name.lower()): value for name, value in content.items()}
    named = plain.get(re.sub("[^a-z]", "", setting), [])
    return [str(command) for command in named] if isinstance(named, list) else str(named).splitlines()


def is_approved(repo: Repo, command: str) -> bool:
    """Whether the user approved this exact text for this repository."""
    return _approval_key(repo, command) in (read_json(approvals_file()) or {})


def approve(repo: Repo, commands: Sequence[str]) -> None:
    """Records the user's approval of these exact texts for this repository."""
    path = approvals_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    record = read_json(path) or {}
    for command in commands:
        record[_approval_key(repo, command)] = {
            "command": command,
            "repository": os.fspath(repo.common_dir),
            "at": now(),
        }
    write_json(path, record, durable=True)


def commands_to_run(repo: Repo, settings: Settings) -> tuple[list[str], list[str]]:
    """Setup commands that run, in order, and those that still wait for approval."""
    return _consented(repo, settings.setup_commands, repository_commands(repo))


def checks_to_run(repo: Repo, settings: Settings) -> tuple[list[str], list[str]]:
    """Commands that a merge has to pass, in order, and those that still wait for approval."""
    return _consented(repo, settings.check, repository_commands(repo, "check"))


def _consented(repo: Repo, configured: Sequence[str], named: Sequence[str]) -> tuple[list[str], list[str]]:
    own = list(configured)
    asked = [command for command in named if command not in own]
    approved = [command for command in asked if is_approved(repo, command)]
    return own + approved, [command for command in asked if command not in approved]


def with_setup(argv: Sequence[str], commands: Sequence[str]) -> list[str]:
    """A worker's command that runs the setup commands first, in the same confinement.

    A setup command that fails ends the job with its status; the line on stderr says which it was.
    """
    if not commands:
        return list(argv)
    lines = []
    for command in commands:
        quoted = "'" + command.replace("'", "'\\''") + "'"
        lines.append(
            f'sh -c {quoted} || {{ s=$?; echo "wt: setup command failed with status $s:" {quoted} >&2; exit $s; }}'
        )
    return ["sh", "-c", "\n".join([*lines, 'exec "$@"']), "wt-setup", *argv]


# ---------------------------------------------------------------------------------------------------------------- ports
def claim_ports(claims: Path, job: str, first: int, count: int, *, is_live: Callable[[str], bool]) -> int | None:
    """Claims a block of `count` ports for a job and returns its first; None when there is none below 65536.

    A claim is a file `claims/<first port>` that holds the job's id. One whose job is not live any more is taken over. A
    block in which something listens is passed over: other repositories have theirs. Asked again, for a job whose
    starter died, it gives the same.
    """
    claims.mkdir(mode=0o700, exist_ok=True)
    with _directory(claims) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        for name in os.listdir(claims):
            if name.isdigit() and (claims / name).read_text() == job:
                return int(name)
        for start in range(first, 65536 - count + 1, count):
            path = claims / str(start)
            if path.exists() and is_live(path.read_text()):
                continue
            if all(_is_free(port) for port in range(start, start + count)):
                write_bytes(path, job.encode())
                return start
    return None


def release_ports(claims: Path, job: str, start: int) -> None:
    """Gives a block back; nothing happens when it is somebody else's by now."""
    path = claims / str(start)
    with contextlib.suppress(FileNotFoundError), _directory(claims) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if path.read_text() == job:
            path.unlink()


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
