"""git at work for a plan: one process merges, one writes commits, and neither sees a worker's attributes.

A view is a temporary git directory over the store's objects, whose work tree holds nothing but the `.gitattributes` of
the commit merged onto.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, NoReturn

from worktrees.errors import GitFailed, NotFound
from worktrees.git import ObjectStore, Process, Repo, reader, temporary_place
from worktrees.git.objects import SUBMODULE_MODE
from worktrees.model import Conflict, Oid, path_base64, path_text

_SETTINGS = (
    r"^(merge\.(renames|renamelimit|directoryrenames|renormalize|conflictstyle|default)"
    r"|diff\.(renames|renamelimit)"
    r"|core\.(autocrlf|eol|attributesfile))$"
)
_OID = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_STAGE = re.compile(rb"[0-7]{6} [0-9a-f]+ ([1-3])\t(.+)", re.DOTALL)
_CONFLICT = re.compile(r"CONFLICT ?\((.*)\)")


class Verdict(NamedTuple):
    """What git says of one merge: its tree, what does not merge, and that in the lines of an index."""

    tree: Oid
    conflicts: list[Conflict]
    stages: list[bytes]


class Mill:
    """The two processes of a plan: one merges, one writes commits."""

    def __init__(
        self,
        store: ObjectStore,
        merges: Process,
        commits: Process,
        scratch: Path,
        identity: tuple[str, str],
        author: tuple[str, str] | None,
    ) -> None:
        self._store = store
        self._merges = merges
        self._commits = commits
        self._scratch = scratch
        when = f"{int(time.time())} {time.strftime('%z')}"
        self._boss, self._author = (
            f"{name} <{address}> {when}".encode("utf-8", "surrogateescape")
            for name, address in (identity, author or identity)
        )
        self._asked = False

    def trees(self, commits: Sequence[Oid]) -> dict[Oid, Oid]:
        """The tree of each commit. Raises: NotFound."""
        asked = "".join(f"{commit}^{{tree}}\n" for commit in commits)
        answers = self._store.git("cat-file", "--batch-check=%(objectname)", stdin=asked.encode()).text.splitlines()
        for commit, answer in zip(commits, answers, strict=True):
            if " " in answer:
                raise NotFound(f"the commit `{commit}` is not in the store any more", hint="wt doctor")
        return dict(zip(commits, map(Oid, answers), strict=True))

    def commit(self, tree: Oid, parents: Sequence[Oid], message: str, *, work: bool = False) -> Oid:
        """Writes a commit in the boss's name; one that holds a job's `work` has the author asked for."""
        lines = [b"tree " + tree.encode(), *(b"parent " + parent.encode() for parent in parents)]
        lines += [
            b"author " + (self._author if work else self._boss),
            b"committer " + self._boss,
            b"",
            message.encode("utf-8", "backslashreplace"),
        ]
        self._scratch.write_bytes(b"\n".join(lines) + b"\n")
        self._commits.write(os.fsencode(self._scratch) + b"\n")
        return Oid(self._commits.read_until(b"\n").decode("ascii"))

    def merge(self, ours: str, theirs: str) -> Verdict:
        """What git makes of two commits, or names of the view, and their own merge base."""
        # git keeps the last byte of an answer in its buffer; the second, trivial merge pushes it out.
        self._merges.write(f"{ours} {theirs}\n{ours} {ours}\n".encode())
        if self._asked:
            self._expect(b"")
        self._asked = True
        verdict = self._answer()
        self._expect(b"1")
        self._field()
        self._expect(b"")
        return verdict

    def _answer(self) -> Verdict:
        status = self._field()
        if status not in {b"0", b"1"}:
            self._malformed()
        tree = self._field().decode("ascii", "replace")
        if not _OID.fullmatch(tree):
            self._malformed()
        stages: dict[bytes, set[int]] = {}
        lines: list[bytes] = []
        submodules = False
        while entry := self._field():
            found = _STAGE.fullmatch(entry)
            if status == b"1" or found is None:
                self._malformed()
            else:
                lines.append(entry)
                stages.setdefault(found[2], set()).add(int(found[1]))
                submodules = submodules or entry.startswith(b"160000 ")
        kinds: dict[bytes, list[str]] = {path: [] for path in stages}
        while (count := self._field()).isdigit():
            paths = [self._field() for _ in range(int(count))]
            kind, _message = self._field().decode("utf-8", "replace"), self._field()
            if named := _CONFLICT.fullmatch(kind):
                for path in paths:
                    kinds.setdefault(path, []).append(_kind(named[1], stages.get(path)))
        # Where the empty field should be that ends the answer, git says in prose what to do about submodules.
        if count and not submodules:
            self._malformed()
        if status == b"1":
            return Verdict(Oid(tree), [], [])
        if not kinds:
            self._malformed()
        found_conflicts = [conflict for path in sorted(kinds) for conflict in _conflicts(path, kinds[path])]
        return Verdict(Oid(tree), found_conflicts, lines)

    def _field(self) -> bytes:
        return self._merges.read_until(b"\0")

    def _expect(self, field: bytes) -> None:
        if self._field() != field:
            self._malformed()

    def _malformed(self) -> NoReturn:
        raise GitFailed(self._merges.args, 0, b"fatal: an answer that cannot be read", hint="git version")


def _kind(word: str, stages: set[int] | None) -> str:
    return "add/add" if word == "contents" and stages == {2, 3} else word


def _conflicts(path: bytes, kinds: list[str]) -> list[Conflict]:
    """One for each reason; that the contents differ goes without saying where there is another."""
    words = dict.fromkeys(kinds)
    if len(words) > 1:
        words.pop("contents", None)
    return [Conflict(path=path_text(path), path_base64=path_base64(path), kind=kind) for kind in words or ["contents"]]


@contextlib.contextmanager
def grinding(
    repo: Repo,
    store: ObjectStore,
    onto: Oid,
    identity: tuple[str, str],
    *,
    work: Sequence[tuple[Oid, Oid]] = (),
    author: tuple[str, str] | None = None,
    names: Mapping[str, Oid] = MappingProxyType({}),
) -> Iterator[Mill]:
    """Starts both processes in a view of the store that shows them the attributes of `onto` and nothing else.

    `work` is what each worker did: where it started and its snapshot. `names` are branches of the view: a commit that
    is merged by its name stands under it in conflict markers.
    """
    store.ensure(repo)
    with tempfile.TemporaryDirectory(prefix="wt-merge-", dir=temporary_place()) as scratch:
        view, tree = Path(scratch, "git"), Path(scratch, "tree")
        _make_view(repo, store, view)
        _furnish(repo, store, onto, tree)
        for name, commit in names.items():
            place = view / ("HEAD" if name == "HEAD" else f"refs/heads/{name}")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{commit}\n")
        settings = repo.git("config", "--null", "--get-regexp", _SETTINGS, expect=(0, 1)).records
        config = [os.fsdecode(record).replace("\n", "=", 1) for record in settings]
        if any(word.startswith("merge.renormalize") for word in config) and _attributes_touched(store, work):
            # git renormalises by the topmost attributes of the merge's result, whatever the work tree says.
            config.append("merge.renormalize=false")
        env = {"GIT_OBJECT_DIRECTORY": os.fspath(store.path / "objects")}
        with (
            Process(
                "merge-tree", "--write-tree", "--stdin", "-z", "--messages", "--allow-unrelated-histories",
                git_dir=view, work_tree=tree, cwd=tree, env=env, config=config,
            ) as merges,
            Process("hash-object", "-t", "commit", "-w", "--stdin-paths", git_dir=view, env=env) as commits,
        ):  # fmt: skip
            yield Mill(store, merges, commits, Path(scratch, "commit"), identity, author)


def _attributes_touched(store: ObjectStore, work: Sequence[tuple[Oid, Oid]]) -> bool:
    """Whether a worker changed attributes anywhere; a directory that is renamed may take them to the top."""
    for start, snapshot in work:
        changed = store.git("diff-tree", "-r", "-z", "--name-only", "--no-renames", start, snapshot).records
        if any(path.rpartition(b"/")[2] == b".gitattributes" for path in changed):
            return True
    return False


def _make_view(repo: Repo, store: ObjectStore, view: Path) -> None:
    for part in ("objects", "refs", "info"):
        (view / part).mkdir(parents=True)
    for part in ("HEAD", "config"):
        (view / part).write_bytes((store.path / part).read_bytes())
    with contextlib.suppress(FileNotFoundError):
        (view / "info" / "attributes").write_bytes((repo.common_dir / "info" / "attributes").read_bytes())


def _furnish(repo: Repo, store: ObjectStore, commit: Oid, into: Path) -> None:
    """Puts into a directory what git looks at in a work tree: `.gitattributes` of a commit, the boss's submodules.

    There always is a `.gitattributes` at the top, an empty one if need be: git would otherwise take it from the trees
    being merged. Of a submodule that is checked out git asks which of two commits comes after the other.
    """
    into.mkdir()
    (into / ".gitattributes").touch()
    listed = store.git("ls-tree", "-r", "-z", "--full-tree", commit).records
    submodules: list[tuple[Path, Path]] = []
    with reader(store.path, native=False) as objects:
        for record in listed:
            fields, _, path = record.partition(b"\t")
            mode, _, oid = fields.decode("ascii").split(" ")
            attributes = path.rpartition(b"/")[2] == b".gitattributes" and mode.startswith("100")
            if not (attributes or mode == SUBMODULE_MODE) or {b"", b".", b"..", b".git"} & set(path.split(b"/")):
                continue
            target = into / os.fsdecode(path)
            if attributes:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(objects.blob(Oid(oid)))
            elif repo.work_tree and os.path.lexists((here := repo.work_tree / os.fsdecode(path)) / ".git"):
                submodules.append((target, here))
    # After all files: where case makes no difference, one of them could be written through a link otherwise.
    for target, here in submodules:
        with contextlib.suppress(FileExistsError):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(here)
