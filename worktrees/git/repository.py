"""The boss's repository: where it is, what it stands on, what is under way in it.

`discover` is the one place where git looks for a repository by itself; everything after names its git-dir and work
tree.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from worktrees.errors import GitFailed, NotFound, Refused
from worktrees.git import door
from worktrees.git.durability import sync_filesystem
from worktrees.model import Oid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_IN_PROGRESS = (
    ("MERGE_HEAD", "merge", "git merge --abort"),
    ("rebase-merge", "rebase", "git rebase --abort"),
    ("rebase-apply", "rebase", "git rebase --abort"),
    ("CHERRY_PICK_HEAD", "cherry-pick", "git cherry-pick --abort"),
    ("REVERT_HEAD", "revert", "git revert --abort"),
    ("BISECT_LOG", "bisect", "git bisect reset"),
)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a work tree stands.

    `ref` is the full name of the branch or None when detached, `commit` None on an unborn branch.
    """

    ref: str | None
    commit: Oid | None

    @property
    def branch(self) -> str | None:
        """The short branch name."""
        return self.ref.removeprefix("refs/heads/") if self.ref else None


@dataclass(frozen=True, slots=True)
class LinkedWorktree:
    """One row of `git worktree list`."""

    path: Path
    commit: Oid | None
    ref: str | None
    locked: str | None
    prunable: bool


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository as seen from one of its work trees.

    `git_dir` belongs to that work tree (`.git` or `.git/worktrees/<x>`), `common_dir` to the repository.
    """

    common_dir: Path
    git_dir: Path
    work_tree: Path | None
    object_format: str = "sha1"
    bare: bool = False
    _cache: dict[str, object] = field(default_factory=dict, compare=False, repr=False)

    # ---------------------------------------------------------------------- running
    def git(
        self,
        *args: str | bytes,
        index: Path | str | None = None,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        config: Iterable[str] = (),
        expect: tuple[int, ...] | None = (0,),
        durable: bool = False,
    ) -> door.Completed:
        """Runs git on this repository and, where there is one, this work tree."""
        return door.run(
            *args, git_dir=self.git_dir, work_tree=self.work_tree, index=index, stdin=stdin, env=env, config=config,
            expect=expect, durable=durable,
        )  # fmt: skip

    def at(self, worktree: Path) -> Repo:
        """The same repository seen from another work tree that git's own list names.

        The git-dir is found from the repository's side (`worktrees/*/gitdir`), never from the `.git` file in the tree.
        Raises: NotFound.
        """
        wanted = os.path.realpath(worktree)
        if not self.bare and os.path.realpath(self.main_work_tree or "/") == wanted:
            return Repo(self.common_dir, self.common_dir, Path(wanted), self.object_format, self.bare)
        entries = self.common_dir / "worktrees"
        for name in os.listdir(entries) if entries.is_dir() else ():
            try:
                pointer = (entries / name / "gitdir").read_bytes().rstrip(b"\n")
            except OSError:
                continue
            place = os.fsdecode(pointer)
            if not os.path.isabs(place):
                place = os.path.join(entries / name, place)
            if os.path.realpath(os.path.dirname(place)) == wanted:
                return Repo(self.common_dir, entries / name, Path(wanted), self.object_format, self.bare)
        raise NotFound(f"`{worktree}` is not a work tree of this repository", hint="git worktree list")

    # ---------------------------------------------------------------------- reading
    @property
    def main_work_tree(self) -> Path | None:
        """The main work tree, None for a bare repository; never fails because of somebody's damaged worktree entry."""
        if self.bare:
            return None
        if self.git_dir == self.common_dir:
            return self.work_tree
        if self.common_dir.name == ".git":
            return self.common_dir.parent
        config = os.fspath(self.common_dir / "config")
        configured = self.git("config", "--file", config, "core.worktree", expect=(0, 1))
        return Path(os.path.realpath(self.common_dir / configured.text)) if configured.status == 0 else None

    def head(self) -> Head:
        """Where HEAD stands."""
        both = self.git("rev-parse", "HEAD^{commit}", "--symbolic-full-name", "HEAD", expect=None)
        if both.status == 0 and both.text.count("\n") == 1:
            oid, _, ref = both.text.partition("\n")
            return Head(ref if ref != "HEAD" else None, Oid(oid))
        # No commit yet, or a branch of that name.
        name = self.git("symbolic-ref", "--quiet", "HEAD", expect=(0, 1))
        commit = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", "HEAD^{commit}", expect=(0, 1, 128))
        return Head(name.text if name.status == 0 else None, Oid(commit.text) if commit.status == 0 else None)

    def ref(self, name: str) -> Oid | None:
        """What a ref points at, None when there is none."""
        done = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", name, expect=(0, 1, 128))
        return Oid(done.text) if done.status == 0 else None

    def resolve(self, revision: str) -> Oid:
        """A revision as a person writes it, as a commit. Raises: NotFound."""
        done = self.git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}", expect=(0, 1, 128)
        )
        if done.status != 0:
            raise NotFound(f"no commit `{revision}`", hint="git log --oneline --all")
        return Oid(done.text)

    def tree_of(self, commit: Oid) -> Oid:
        """The tree of a commit of this repository."""
        return Oid(self.git("rev-parse", "--verify", "--end-of-options", commit + "^{tree}").text)

    def merge_bases(self, one: Oid, other: Oid) -> list[Oid]:
        """All best common ancestors."""
        done = self.git("merge-base", "--all", one, other, expect=(0, 1))
        return [Oid(line) for line in done.text.splitlines()]

    def is_ancestor(self, one: Oid, other: Oid) -> bool:
        """Whether `one` is reachable from `other`."""
        return self.git("merge-base", "--is-ancestor", one, other, expect=(0, 1)).status == 0

    def worktrees(self) -> list[LinkedWorktree]:
        """All work trees, the main one first; damaged entries are left out.

        Read as the files they are: one damaged entry makes `git worktree list` fail, or wait for ever for a pipe.
        """
        if (self.common_dir / "reftable").is_dir():
            return self._listed_worktrees()
        main = self.main_work_tree
        places = [(self.common_dir, main / ".git" if main else self.common_dir / ".git")]
        entries = self.common_dir / "worktrees"
        for name in sorted(os.listdir(entries)) if entries.is_dir() else ():
            pointer = _small(entries / name / "gitdir")
            if pointer and _small(entries / name / "commondir"):
                places.append((entries / name, Path(os.path.normpath(os.path.join(entries / name, pointer)))))
        found = []
        heads = {git_dir: _small(git_dir / "HEAD") or "" for git_dir, _ in places}
        if main is None:  # a bare repository's HEAD is checked out nowhere
            heads[self.common_dir] = ""
            found.append(LinkedWorktree(self.common_dir, None, None, None, prunable=False))
        commits = self._commits(
            {head.removeprefix("ref: ") for head in heads.values() if head.startswith("ref: refs/")}
        )
        for git_dir, link in places:
            ref = heads[git_dir].removeprefix("ref: ") if heads[git_dir].startswith("ref: refs/") else None
            commit = commits.get(ref) if ref else Oid(heads[git_dir]) if _OID.fullmatch(heads[git_dir]) else None
            if ref or commit:
                locked = _small(git_dir / "locked")
                gone = locked is None and not os.path.lexists(link)
                found.append(LinkedWorktree(link.parent, commit, ref, locked, gone))
        return found

    def _commits(self, names: set[str]) -> dict[str, Oid]:
        """What refs point at, those that exist."""
        if not names:
            return {}
        done = self.git("for-each-ref", "--format=%(refname) %(objectname)", "--", *sorted(names))
        pairs = (line.split(" ") for line in done.text.splitlines())
        return {name: Oid(oid) for name, oid in pairs if name in names}

    def _listed_worktrees(self) -> list[LinkedWorktree]:
        found: list[LinkedWorktree] = []
        values: dict[str, bytes] = {}
        for record in door.run("worktree", "list", "--porcelain", "-z", git_dir=self.common_dir).stdout.split(b"\0"):
            if record:
                key, _, value = record.partition(b" ")
                values[key.decode()] = value
            elif values:
                found.append(
                    LinkedWorktree(
                        Path(os.fsdecode(values["worktree"])),
                        Oid(values["HEAD"].decode()) if "HEAD" in values else None,
                        os.fsdecode(values["branch"]) if "branch" in values else None,
                        os.fsdecode(values["locked"]) if "locked" in values else None,
                        "prunable" in values,
                    )
                )
                values = {}
        return found

    def worktree_of_branch(self, ref: str) -> LinkedWorktree | None:
        """The work tree that has a branch checked out."""
        return next((worktree for worktree in self.worktrees() if worktree.ref == ref), None)

    def identity(self) -> tuple[str, str]:
        """Name and address of whoever commits here, as git would write them.

        Raises: Refused `no-identity`.
        """
        done = self.git("var", "GIT_COMMITTER_IDENT", config=("user.useConfigOnly=true",), expect=None)
        if done.status != 0:
            raise Refused(
                "git does not know who you are",
                code="no-identity",
                hint="git config --global user.name NAME; git config --global user.email ADDRESS",
            )
        name, _, rest = done.text.rpartition(" <")
        return name, rest.partition(">")[0]

    def operation_in_progress(self) -> tuple[str, str] | None:
        """A merge, rebase or the like the user has open here: its name and the command that ends it."""
        for file, name, end in _IN_PROGRESS:
            if (self.git_dir / file).exists():
                return name, end
        return None

    def settings(self, pattern: str, *, scope: str = "--local") -> list[tuple[str, str]]:
        """Configuration whose name matches a regular expression, in order."""
        done = self.git("config", scope, "--null", "--get-regexp", pattern, expect=(0, 1))
        pairs = []
        for record in done.records:
            name, _, value = record.partition(b"\n")
            pairs.append((os.fsdecode(name), os.fsdecode(value)))
        return pairs

    def own_setting(self, name: str, kind: str) -> str | None:
        """What the user's configuration says under a name that our own calls override; `kind` as git's `--type`."""
        pattern = f"^{re.escape(name.lower())}$"
        done = self.git(
            "config", "--includes", "--show-scope", "--null", f"--type={kind}", "--get-regexp", pattern, expect=(0, 1)
        )
        found = None
        for scope, record in zip(done.records[::2], done.records[1::2], strict=True):
            if scope != b"command":
                found = os.fsdecode(record.partition(b"\n")[2])
        return found

    def promisor_settings(self) -> list[tuple[str, str]]:
        """What a partial clone needs to fetch the objects it left out; empty for a full one."""
        pairs = self.settings(r"^(extensions\.partialclone$|remote\..*\.(url|promisor|partialclonefilter)$)")
        promisors = {
            name[: -len("promisor")] for name, value in pairs if name.endswith(".promisor") and value == "true"
        }
        keep = [(name, value) for name, value in pairs if any(name.startswith(prefix) for prefix in promisors)]
        partial = [pair for pair in pairs if pair[0] == "extensions.partialclone"]
        return [("core.repositoryFormatVersion", "1"), *partial, *keep] if keep else []

    # ---------------------------------------------------------------------- moving refs
    def update_ref(self, name: str, new: Oid, old: Oid | None, *, reason: str, durable: bool = False) -> None:
        """Moves one ref from `old` to `new`; `old` None means it must not exist yet. The one commit point of a landing.

        Raises: Refused `branch-moved` when it stands elsewhere; GitFailed otherwise.
        """
        expected = old if old is not None else "0" * len(new)
        done = self.git(
            "update-ref",
            "--no-deref",
            "--create-reflog",
            "-m",
            reason,
            name,
            new,
            expected,
            expect=None,
            durable=durable,
        )
        if done.status != 0:
            stands = self.ref(name)
            if stands != old:
                raise Refused(
                    f"`{name.removeprefix('refs/heads/')}` moved meanwhile: "
                    f"expected {_short(old)}, found {_short(stands)}",
                    code="branch-moved",
                    hint="look at it with `git log` and run the command again",
                    details={"ref": name, "expected": old, "found": stands},
                )
            raise GitFailed(done.command, done.status, done.stderr)
        if durable:
            sync_filesystem(self.common_dir)

    def delete_ref(self, name: str) -> None:
        """Removes a ref of ours (`refs/wt/…`); no error when it is not there. Raises: Busy."""
        if (self.common_dir / "reftable").is_dir():
            self.git("update-ref", "--no-deref", "-d", name)
            return
        from worktrees.git import refs  # not for those who only look

        refs.delete(self.common_dir, name)


def _small(path: Path) -> str | None:
    """The line in a regular file; None for anything else, which may be a pipe that nobody writes to."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.fsdecode(os.read(fd, 1 << 16)).rstrip("\n") if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def _short(oid: Oid | None) -> str:
    return oid[:10] if oid else "nothing"


def discover(start: Path | str) -> Repo:
    """The repository around a directory.

    Raises: Refused `not-a-repository`, `unsupported-repository`.
    """
    place = Path(start)
    if not place.is_dir():
        raise Refused(f"no directory `{place}`", code="not-a-repository", hint="wt -C DIRECTORY …")
    door.version()
    done = door.run(
        "rev-parse", "--path-format=absolute", "--show-object-format", "--is-bare-repository", "--is-inside-work-tree",
        "--absolute-git-dir", "--git-common-dir", "--show-toplevel",
        git_dir=None, cwd=place, expect=None,
    )  # fmt: skip
    lines = os.fsdecode(done.stdout).split("\n")
    if len(lines) < 5:
        failed = GitFailed(done.command, done.status, done.stderr)
        raise Refused(
            f"`{place}` is not in a git repository",
            code="not-a-repository",
            hint="git init, or: wt -C REPOSITORY …",
            details=failed.details,
        )
    object_format, bare, inside, git_dir, common_dir = lines[:5]
    if done.status == 0 and len(lines) != 7:
        raise Refused(
            "the repository's path holds a newline",
            code="unsupported-repository",
            hint="move the repository to a path without one",
        )
    try:
        done.stdout.decode()
    except UnicodeDecodeError:
        # Records, answers and worktree pointers name it as text.
        raise Refused(
            f"the repository's path is not UTF-8: `{done.stdout.decode(errors='backslashreplace').splitlines()[-1]}`",
            code="unsupported-repository",
            hint="move the repository to a path that is; the names of its files may be anything",
        ) from None
    if inside != "true":
        if bare == "true":
            raise Refused(
                f"`{git_dir}` is a bare repository and has no checkout to merge into",
                code="unsupported-repository",
                hint="git worktree add ../checkout, then run `wt` there",
            )
        raise Refused(f"`{place}` is inside a git directory", code="not-a-repository", hint="cd to the work tree")
    # A bare repository may have linked work trees; seen from one of them it is `inside`.
    bare_common = bare == "true" or (
        git_dir != common_dir and not (Path(common_dir) / "index").exists() and _is_bare(common_dir)
    )
    return Repo(Path(common_dir), Path(git_dir), Path(lines[5]), object_format, bare_common)


def _is_bare(common_dir: str) -> bool:
    done = door.run("rev-parse", "--is-bare-repository", git_dir=common_dir, expect=None)
    return done.status == 0 and done.text == "true"
