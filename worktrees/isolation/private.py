"""Workspaces with a repository of their own, for workers whose tools must be able to add, stash and commit.

The repository lies outside of the workspace and outside of the boss's (`<root>/.private/<job>`). It borrows the
objects of the boss's and shares nothing else: it has refs like his, which are its own, no remote, no hook of his, and
of his configuration only what decides about contents. Whatever is committed, stashed, reset or broken there stays
there. The baseline is pinned in the boss's repository, as for every job.

Its configuration and the workspace's `.git` are read-only files, and a sandbox can make a wall of that. The boss relies
on neither. He reads files only: git is never run in this repository once a worker has been at it, and its damage is
nobody's. The record of changes comes from the workspace's files as it does everywhere.

When the workspace goes, commits that only this repository has are kept: their objects are linked, as regular files and
nothing else, into a directory of ours, and git looks at that.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from worktrees.errors import Refused
from worktrees.git import run
from worktrees.isolation import entry, journal
from worktrees.isolation.commits import commits_only_here
from worktrees.isolation.journal import Record
from worktrees.isolation.place import Place, private_repository
from worktrees.isolation.workspace import Workspace, WorktreeIsolation
from worktrees.model import Baseline, JobId, Oid

# Settings that decide what contents look like, and how git shows them; none of them runs anything but a filter of
# the user's, which the worker could start anyway.
_TAKEN = re.compile(
    r"core\.(autocrlf|eol|safecrlf|filemode|symlinks|ignorecase|precomposeunicode|quotepath|whitespace|excludesfile"
    r"|attributesfile|bigfilethreshold|commentchar)|extensions\.objectformat|user\..*|filter\..*|diff\..*|merge\..*"
    r"|init\.defaultbranch|i18n\..*"
)
_NOT_BORROWED = re.compile(r"extensions\.partialclone|remote\..*\.promisor")
_PUSHED_TO = ("https://", "http://", "ssh://", "git://", "file://", "git@", "/", ".")
_SETTINGS = [
    ("core.bare", "false"),
    ("core.fsmonitor", "false"),
    ("core.logAllRefUpdates", "true"),
    ("commit.gpgSign", "false"),
    ("tag.gpgSign", "false"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    # Whatever a push names, it goes nowhere, and git's error names the scheme.
    *(("url.wt-workers-do-not-push-the-boss-merges://.pushInsteadOf", start) for start in _PUSHED_TO),
]
_OBJECT = re.compile(r"[0-9a-f]{38}(?:[0-9a-f]{24})?")
_PACK = re.compile(r"pack-[0-9a-f]+\.(?:pack|idx)")


class PrivateIsolation(WorktreeIsolation):
    """A directory with a repository of the worker's own, named by the job."""

    name: ClassVar[str] = "private"

    def _fill(
        self, place: Place, job: JobId, path: Path, baseline: Baseline, sparse: list[str], index: Path | None
    ) -> Workspace:
        """Makes the repository of the empty directory, checks out, and writes the record.

        Durable, for nothing else tells what the workspace is.
        """
        repository = private_repository(path)
        _make(place, repository, baseline.commit, sparse)
        entry.check_out(place, repository, path, baseline, sparse=sparse, index=index)
        entry.write_pointer(path, repository)
        (path / ".git").chmod(0o444)
        record = Record(job, path, os.lstat(path).st_ino, baseline.commit, tuple(sparse), private=True)
        journal.write_record(place, record, durable=True)
        return Workspace(job, path, None, repository)


# ------------------------------------------------------------------------------------------------------------ making
def _make(place: Place, repository: Path, commit: Oid, sparse: list[str]) -> None:
    common = place.repo.common_dir
    settings = _settings(place)
    for directory in (repository.parent, repository):
        directory.mkdir(mode=0o700, exist_ok=directory != repository)
    for name in ("objects/info", "objects/pack", "refs/heads", "info"):
        (repository / name).mkdir(parents=True)
    (repository / "objects" / "info" / "alternates").write_bytes(os.fsencode(common / "objects") + b"\n")
    words = ("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags", "refs/remotes")
    refs = run(*words, git_dir=common).stdout
    (repository / "packed-refs").write_bytes(b"# pack-refs with: sorted \n" + refs)
    for name in ("info/exclude", "info/attributes", "shallow"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(common / name, repository / name)
    if sparse:
        (repository / "info" / "sparse-checkout").write_bytes(entry.cone_patterns(sparse))
        settings += [("core.sparseCheckout", "true"), ("core.sparseCheckoutCone", "true")]
    (repository / "config").write_bytes(_text(settings))
    (repository / "config").chmod(0o444)
    (repository / "HEAD").write_bytes(commit.encode() + b"\n")


def _settings(place: Place) -> list[tuple[str, str]]:
    """Of the boss's own configuration what is taken over, then ours. Raises: Refused for a partial clone."""
    listed = run("config", "--null", "--show-scope", "--list", git_dir=place.repo.common_dir).records
    found = []
    for scope, setting in zip(listed[::2], listed[1::2], strict=True):
        name, separator, value = os.fsdecode(setting).partition("\n")
        if scope == b"command":
            continue
        if _NOT_BORROWED.fullmatch(name.lower()):
            raise Refused(
                "the repository is a partial clone, and a private one could not fetch what is missing",
                code="unsupported-repository",
                hint="wt spawn --isolation worktree",
            )
        if scope in (b"local", b"worktree") and _TAKEN.fullmatch(name.lower()):
            found.append((name, value if separator else "true"))
    version = "1" if place.repo.object_format != "sha1" else "0"
    return [("core.repositoryFormatVersion", version), *found, *_SETTINGS]


def _text(settings: list[tuple[str, str]]) -> bytes:
    lines = []
    for name, value in settings:
        section, _, rest = name.partition(".")
        subsection, _, key = rest.rpartition(".")
        quoted = [word.replace("\\", "\\\\").replace('"', '\\"') for word in (subsection, value)]
        lines.append(f'[{section} "{quoted[0]}"]' if subsection else f"[{section}]")
        text = quoted[1].replace("\n", "\\n").replace("\t", "\\t")
        lines.append(f'\t{key} = "{text}"')
    return "\n".join(lines).encode("utf-8", "surrogateescape") + b"\n"


# ----------------------------------------------------------------------------------------------------------- keeping
@contextlib.contextmanager
def own_commits(place: Place, workspace: Workspace) -> Iterator[tuple[list[Oid], Path | None]]:
    """The newest commits that only the workspace leads to, and where their objects are if not in the repository.

    See `commits_only_here`; commits that a worker left without all of their objects are none.
    """
    if workspace.repository is None:
        yield commits_only_here(place, workspace), None
        return
    objects = workspace.repository.with_name(f".{workspace.job_id}.objects")
    shutil.rmtree(objects, ignore_errors=True)
    try:
        _link(workspace.repository / "objects", objects)
        yield commits_only_here(place, workspace, objects), objects
    finally:
        shutil.rmtree(objects, ignore_errors=True)


def _link(objects: Path, to: Path) -> None:
    """Links what looks like objects and packs; symlinks, pipes and whatever else lies there are left."""
    for directory in _directories(objects):
        wanted = _PACK if directory == "pack" else _OBJECT
        (to / directory).mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(OSError), os.scandir(objects / directory) as found:
            for item in found:
                if wanted.fullmatch(item.name) and stat.S_ISREG(item.stat(follow_symlinks=False).st_mode):
                    os.link(item.path, to / directory / item.name, follow_symlinks=False)


def _directories(objects: Path) -> list[str]:
    with contextlib.suppress(OSError), os.scandir(objects) as found:
        return sorted(
            item.name
            for item in found
            if re.fullmatch(r"[0-9a-f]{2}|pack", item.name) and item.is_dir(follow_symlinks=False)
        )
    return []
