"""The guard for whoever stands in a workspace without a worker's environment: `wt hooks install`.

People open a shell in a workspace, and some hosts hand on no environment. For them git's configuration of the
repository gets one block, between two marker lines, that applies to linked worktrees alone (`includeIf gitdir`): git in
the main work tree reads no line of ours and starts no program more. It leads to a directory below the state where
every hook first asks the guard's rule, which refuses in workspaces of jobs that are not done, and then goes on to the
hook of the same name that git would have run: in `.git/hooks`, in a directory of the user's configuration, or in
one of the worktree's own (husky's `core.hooksPath=.husky/_`). No file of the user's hooks is touched.

    <git dir>/config             the block; all other bytes stay as they are, and removing it leaves just those
    <git dir>/wt-state/guard/    `config`, `former` (where the user's hooks are), `wt-guard`, one file for each hook

Files come before the block and go after it, so git never meets a directory without hooks in it. The configuration is
changed under git's own lock. Not composed with, and refused: worktrees that override `core.hooksPath` of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worktrees import git, guard
from worktrees.errors import Busy, Refused
from worktrees.git import Repo
from worktrees.store import write_bytes

DIRECTORY = "guard"
_BEGIN = b"# >>> wt hooks: `wt hooks uninstall` takes these lines away"
_NO_END_OF_LINE = b" (and the end of the line before)"
_END = b"# <<< wt hooks"
_BLOCK = re.compile(
    rb"(?P<joint>\n?)" + re.escape(_BEGIN) + rb"(?P<joined>" + re.escape(_NO_END_OF_LINE) + rb")?\n.*?"
    + re.escape(_END) + rb"\n", re.DOTALL,
)  # fmt: skip
# What a client runs; each is there so that the user's own hook of that name still runs.
_OTHERS = (
    "applypatch-msg", "post-applypatch", "post-commit", "post-merge", "post-rewrite", "pre-applypatch", "pre-auto-gc",
    "pre-merge-commit", "pre-rebase", "sendemail-validate",
)  # fmt: skip
# Their being there alone costs or changes something, so they are there only where the user has them.
_WHERE_THERE = ("p4-changelist", "p4-post-changelist", "p4-pre-submit", "p4-prepare-changelist", "post-index-change")
_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Change:
    """A file to be written with these bytes, made from those `before`, or to be removed when there are none."""

    path: Path
    content: bytes | None
    mode: int = 0o600
    before: bytes | None = None

    @property
    def state(self) -> list[object]:
        """The file afterwards, as the audit's fingerprint says it."""
        if self.content is None:
            return []
        return [stat.S_IFREG | self.mode, hashlib.sha256(self.content).hexdigest(), len(self.content)]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is in force: the block in the configuration, and where hooks of the user's are run from after ours."""

    installed: bool
    config: Path
    directory: Path
    former: str
    chained: list[str]


def standing(repo: Repo, state_root: Path) -> Standing:
    """How things stand; two git processes at most. Raises: GitFailed for a configuration that git cannot read."""
    former = _former(repo)
    return Standing(
        installed=_BLOCK.search(_read(repo.common_dir / "config")) is not None,
        config=repo.common_dir / "config",
        directory=state_root / DIRECTORY,
        former=former,
        chained=_chained(repo, former),
    )


def installing(repo: Repo, state_root: Path) -> list[Change]:
    """What installing changes, in order; nothing when all is as it should be.

    Raises: Refused `hooks-elsewhere`, `hooks-damaged`, `unsupported-repository`.
    """
    directory = state_root / DIRECTORY
    former = _former(repo)
    _check(repo, former)
    sources = guard.sources()
    names = [*_OTHERS, *(name for name in _WHERE_THERE if name in _chained(repo, former))]
    wanted = [
        Change(directory / "former", os.fsencode(former) + b"\n"),
        Change(directory / "config", _configuration(directory)),
        *(Change(directory / name, content, 0o700) for name, content in sorted(sources.items())),
        # All of the guard's hooks are the same file: the rule goes by the name.
        *(Change(directory / name, sources["pre-commit"], 0o700) for name in names),
    ]
    known = {change.path.name for change in wanted}
    stale = [Change(directory / name, None) for name in _names(directory) if name not in known]
    config = repo.common_dir / "config"
    before = content = _read(config)
    if _BLOCK.search(content) is None:
        joined = b"" if content.endswith(b"\n") or not content else _NO_END_OF_LINE
        block = b"\n".join([_BEGIN + joined, *_INCLUDE, _END, b""])
        content += (b"\n" if joined else b"") + block
    wanted.append(Change(config, content, stat.S_IMODE(config.stat().st_mode), before))
    return [change for change in [*wanted, *stale] if not _is_so(change)]


# Relative to the configuration file, so a repository that moves takes them along.
_INCLUDE = (b'[includeIf "gitdir:./worktrees/"]', b"\tpath = wt-state/" + DIRECTORY.encode() + b"/config")


def uninstalling(repo: Repo, state_root: Path) -> list[Change]:
    """What uninstalling changes, in order; nothing when nothing is there. Raises: Refused `hooks-damaged`."""
    config = repo.common_dir / "config"
    _check_markers(config)
    before = _read(config)
    content = _BLOCK.sub(lambda found: b"" if found["joined"] else found["joint"], before)
    wanted = [Change(config, content, stat.S_IMODE(config.stat().st_mode), before)]
    wanted += [Change(state_root / DIRECTORY / name, None) for name in _names(state_root / DIRECTORY)]
    return [change for change in wanted if not _is_so(change)]


def carry_out(changes: list[Change], repo: Repo, state_root: Path) -> None:
    """Makes the changes, in order; repeating them after a crash ends the same. Raises: Busy; StateBroken."""
    directory = state_root / DIRECTORY
    if any(change.path.parent == directory and change.content is not None for change in changes):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for change in changes:
        if change.path == repo.common_dir / "config":
            _rewrite(change)
        elif change.content is None:
            change.path.unlink(missing_ok=True)
        else:
            if change.path.is_symlink():
                change.path.unlink()
            write_bytes(change.path, change.content)
            change.path.chmod(change.mode)
    with contextlib.suppress(OSError):  # there, or with hooks in it
        directory.rmdir()


def in_force(git_dir: Path, state_root: Path) -> bool:
    """Whether git in a linked worktree of that git directory asks the installed guard; nothing of it is run."""
    found = _settings(git_dir, "core.hooksPath")
    directory = state_root / DIRECTORY
    return bool(found) and found[-1][1] == os.fspath(directory) and os.access(directory / "wt-guard", os.X_OK)


# ---------------------------------------------------------------------------------------------------------- looking
def _former(repo: Repo) -> str:
    """Where git in the main work tree finds hooks: a path, relative to the top of a work tree if the user says so."""
    found = [value for scope, value in _settings(repo.common_dir, "core.hooksPath") if scope != "worktree"]
    return found[-1] if found else os.fspath(repo.common_dir / "hooks")


def _settings(git_dir: Path, name: str) -> list[tuple[str, str]]:
    """Scope and value of a setting, without what we set ourselves in every call."""
    words = ("config", "--null", "--show-scope", "--type=path", "--get-all", name)
    pieces = [os.fsdecode(record) for record in git.run(*words, git_dir=git_dir, expect=(0, 1)).records]
    pairs = zip(pieces[::2], pieces[1::2], strict=True)
    return [(scope, value) for scope, value in pairs if scope != "command"]


def _chained(repo: Repo, former: str) -> list[str]:
    """Hooks that git would run from there, as seen from the main work tree."""
    top = Path(repo.main_work_tree or repo.common_dir) / former
    return [
        name for name in _names(top) if (top / name).is_file() and os.access(top / name, os.X_OK) and "." not in name
    ]


def _names(directory: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(directory))
    return []


def _read(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def _is_so(change: Change) -> bool:
    try:
        found = os.lstat(change.path)
    except FileNotFoundError:
        return change.content is None
    return (
        change.content is not None
        and found.st_mode == stat.S_IFREG | change.mode
        and change.path.read_bytes() == change.content
    )


def _check(repo: Repo, former: str) -> None:
    config = repo.common_dir / "config"
    _check_markers(config)
    if config.is_symlink() or not config.is_file():
        raise Refused(
            f"`{config}` is no plain file, and installing would replace it",
            code="hooks-elsewhere",
            hint=f"ls -l {config}",
        )
    own = [value for scope, value in _settings(repo.common_dir, "core.hooksPath") if scope == "worktree"]
    if own:
        raise Refused(
            f"worktrees have a `core.hooksPath` of their own (`{own[-1]}`), which goes before any other",
            code="hooks-elsewhere",
            hint="git config --worktree --unset core.hooksPath, then: wt hooks install",
            details={"hooksPath": own[-1]},
        )
    if "\n" in former:
        raise Refused(
            "the hooks lie in a directory with a newline in its name",
            code="hooks-elsewhere",
            hint="git config core.hooksPath",
        )


def _check_markers(config: Path) -> None:
    content = _read(config)
    if len(_BLOCK.findall(content)) != content.count(_BEGIN) or content.count(_BEGIN) != content.count(_END):
        raise Refused(
            f"the lines of `wt hooks` in `{config}` have been changed",
            code="hooks-damaged",
            hint=f"take out what stands between `>>> wt hooks` and `<<< wt hooks`: git config --file {config} --edit",
        )


def _configuration(directory: Path) -> bytes:
    text = (
        f"# For linked worktrees, by `wt hooks install`.\n[core]\n\thooksPath = {guard.quoted(os.fspath(directory))}\n"
    )
    return text.encode("utf-8", "surrogateescape")


# --------------------------------------------------------------------------------------------------------- changing
def _rewrite(change: Change) -> None:
    """Replaces the configuration as git does: whole, under its lock, and only if it is still what was planned for."""
    lock = change.path.with_name("config.lock")
    with _locked(lock, change.mode) as fd:
        if _read(change.path) != change.before:
            raise Busy("git's configuration was changed by somebody else just now", hint="run the command again")
        os.write(fd, change.content or b"")
        os.fsync(fd)
        os.rename(lock, change.path)


@contextlib.contextmanager
def _locked(lock: Path, mode: int) -> Iterator[int]:
    fd = _lock(lock)
    try:
        os.fchmod(fd, mode)
        yield fd
    finally:
        os.close(fd)
        lock.unlink(missing_ok=True)


def _lock(lock: Path) -> int:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            if time.monotonic() > deadline:
                raise Busy(
                    "git's configuration is locked by another git", hint=f"end it; if none runs, remove `{lock}`"
                ) from None
        time.sleep(0.02)
