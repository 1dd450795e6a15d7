"""Commits that hang on a workspace's own entry alone.

A linked worktree has a HEAD, a reflog and refs of its own (`refs/worktree`, `refs/bisect`, `refs/rewritten`, ORIG_HEAD
and the like). When the entry goes, the commits that only these lead to are lost to the next gc. The files are a
worker's: they are read as bytes, regular ones only, and what looks like an object id is asked for.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from worktrees.git import run
from worktrees.isolation.entry import quoted_path
from worktrees.isolation.place import Place
from worktrees.isolation.workspace import Workspace
from worktrees.model import Oid

_MOST_BYTES = 64 << 20
_SKIPPED = {"index", "commondir", "gitdir", "locked", "modules", "objects"}


def commits_only_here(place: Place, workspace: Workspace, objects: Path | None = None) -> list[Oid]:
    """The newest commits that no ref of the repository leads to, only the workspace's own HEAD, reflog or refs.

    The commits before them are their ancestors. To be asked before `close`, and only of a repository whose
    configuration was found unharmed, since git runs on it; `objects` are looked at beside the repository's own.
    """
    entry = workspace.git_dir or workspace.repository
    if entry is None or not (named := _named(entry)):
        return []
    common = place.repo.common_dir
    # What a worker wrote names objects of its choice; nothing is fetched to look for them.
    env = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
    if objects is not None:
        env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = quoted_path(objects)
    asked = run(
        "cat-file", "--batch-check=%(objectname) %(objecttype)", git_dir=common, env=env,
        stdin=b"\n".join(named) + b"\n",
    )  # fmt: skip
    commits = [line.split(b" ")[0] for line in asked.stdout.splitlines() if line.endswith(b" commit")]
    # Not `--all`: that takes in the HEAD of every linked worktree, this one's too.
    words = ("rev-list", "--stdin", "--not", "--glob=refs/*")
    if objects is not None:
        # Where a worker wrote them, what a commit needs may be missing.
        whole = [run(*words, "--objects", "--quiet", git_dir=common, env=env, stdin=commit + b"\n", expect=None)
                 for commit in commits]  # fmt: skip
        commits = [commit for commit, done in zip(commits, whole, strict=True) if done.status == 0]
    if not commits:
        return []
    listed = run(*words, "--topo-order", "--parents", git_dir=common, env=env, stdin=b"\n".join(commits) + b"\n")
    rows = [line.decode().split(" ") for line in listed.stdout.splitlines()]
    parents = {parent for row in rows for parent in row[1:]}
    return [Oid(row[0]) for row in rows if row[0] not in parents]


def _named(entry: Path) -> list[bytes]:
    """Everything in the entry that looks like an object id."""
    found: dict[bytes, None] = {}
    pattern = re.compile(rb"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{40})(?![0-9a-f])")
    for path in _files(entry):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        with os.fdopen(fd, "rb") as file:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                read = 0
                for line in file:
                    read += len(line)
                    if read > _MOST_BYTES:
                        break
                    found.update(dict.fromkeys(pattern.findall(line)))
    return [oid for oid in found if oid.strip(b"0")]


def _files(entry: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(entry):
        if Path(directory) == entry:
            names[:] = [name for name in names if name not in _SKIPPED]
            files = [name for name in files if name not in _SKIPPED]  # noqa: PLW2901
        yield from (Path(directory) / name for name in files)
