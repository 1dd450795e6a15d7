"""Merges N candidates in memory and says what would land; moves no ref and touches no file.

Owns the `MergeStrategy` protocol and its built-in kinds. All objects go into wt's own store. One `git merge-tree
--stdin` process works out every merge of a plan and one `git hash-object` process writes every commit, so results are
chained without a process per step: commit the tree, feed the next.

    three-way   one `--no-ff` merge commit per candidate: parents (result so far, side), where the side is a commit on
                top of the candidate's baseline that holds what the worker did
    rebase      one commit per candidate, a cherry-pick of start -> snapshot onto the result so far
    squash      merged as three-way, then one commit with one parent for all of them

Invariants:
- The verdict is git's: clean is 1, conflict is 0; anything else, a signal or an answer that cannot be read is an error
  and never a conflict.
- Attributes (`merge=union`, `text`, `eol`, …) are those of the commit merged onto and of the user's own
  `info/attributes`, never a worker's: a worker that plants `* merge=union` does not get its conflicts waved through. So
  a merge runs in a view: a temporary git directory over the store's objects, whose work tree holds nothing but those
  `.gitattributes`.
- Of the user's configuration only what decides the outcome of a merge is handed over. A merge driver (a command) runs
  only when the user's own global configuration defines it; one of the repository's configuration is merged as text.
- The boss's uncommitted edits that were carried into a workspace are taken out of the side again. Where they cannot be
  told from the worker's edits, the worker's are applied to the branch as it is now; only if that fails, too, is it a
  conflict.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, NoReturn, Protocol

from worktrees.errors import GitFailed, NotFound
from worktrees.git import ObjectStore, Process, Repo, reader
from worktrees.git.odb import TOOL_IDENTITY
from worktrees.model import (
    Baseline,
    Conflict,
    FileChange,
    JobId,
    MergePlan,
    Oid,
    Step,
    StepOutcome,
    path_base64,
    path_text,
)

OnConflict = Literal["stop", "skip"]

_SETTINGS = (
    r"^(merge\.(renames|renamelimit|directoryrenames|renormalize|conflictstyle|default)"
    r"|diff\.(renames|renamelimit)"
    r"|core\.(autocrlf|eol|attributesfile))$"
)
_OID = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_STAGE = re.compile(rb"[0-7]{6} [0-9a-f]+ ([1-3])\t(.+)", re.DOTALL)
_CONFLICT = re.compile(r"CONFLICT ?\((.*)\)")
_SUBJECT_LENGTH = 72


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job's captured work, ready to be merged; `files` is its change set, for counts and sensitive paths."""

    job_id: JobId
    name: str | None
    task: str | None
    baseline: Baseline
    snapshot: Oid
    files: Sequence[FileChange] = ()

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name or self.job_id


class MergeStrategy(Protocol):
    """How candidates become commits on top of a branch."""

    @property
    def name(self) -> str:
        """What it is registered as."""

    def plan(
        self,
        repo: Repo,
        store: ObjectStore,
        onto: Oid,
        candidates: Sequence[Candidate],
        *,
        identity: tuple[str, str],
        message: str | None = None,
        on_conflict: OnConflict = "stop",
    ) -> MergePlan:
        """Works out the merge of all candidates, in the order given, onto a commit.

        `stop`: when any of them conflicts nothing is to land, and `after` equals `before`. `skip`: those are left out.
        Raises: GitFailed; NotFound for a snapshot that is gone.
        """


class Joined(NamedTuple):
    """One candidate put onto a result: the new commit (None: it changes nothing) with its tree, or the conflicts."""

    commit: Oid | None
    tree: Oid
    conflicts: list[Conflict]


class _Verdict(NamedTuple):
    tree: Oid
    conflicts: list[Conflict]


# ------------------------------------------------------------------------------------------------------- talking to git
class _Mill:
    """The two processes of a plan: one merges, one writes commits."""

    def __init__(
        self, store: ObjectStore, merges: Process, commits: Process, scratch: Path, identity: tuple[str, str]
    ) -> None:
        self._store = store
        self._merges = merges
        self._commits = commits
        self._scratch = scratch
        name, address = identity
        self._stamp = f"{name} <{address}> {int(time.time())} {time.strftime('%z')}".encode("utf-8", "surrogateescape")
        self._asked = False

    def trees(self, commits: Sequence[Oid]) -> dict[Oid, Oid]:
        """The tree of each commit. Raises: NotFound."""
        asked = "".join(f"{commit}^{{tree}}\n" for commit in commits)
        answers = self._store.git("cat-file", "--batch-check=%(objectname)", stdin=asked.encode()).text.splitlines()
        for commit, answer in zip(commits, answers, strict=True):
            if " " in answer:
                raise NotFound(f"the commit `{commit}` is not in the store any more", hint="wt doctor")
        return dict(zip(commits, map(Oid, answers), strict=True))

    def commit(self, tree: Oid, parents: Sequence[Oid], message: str) -> Oid:
        """Writes a commit in the boss's name."""
        lines = [b"tree " + tree.encode(), *(b"parent " + parent.encode() for parent in parents)]
        lines += [
            b"author " + self._stamp,
            b"committer " + self._stamp,
            b"",
            message.encode("utf-8", "backslashreplace"),
        ]
        self._scratch.write_bytes(b"\n".join(lines) + b"\n")
        self._commits.write(os.fsencode(self._scratch) + b"\n")
        return Oid(self._commits.read_until(b"\n").decode("ascii"))

    def merge(self, ours: Oid, theirs: Oid) -> _Verdict:
        """What git makes of two commits and their own merge base."""
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

    def _answer(self) -> _Verdict:
        status = self._field()
        if status not in {b"0", b"1"}:
            self._malformed()
        tree = self._field().decode("ascii", "replace")
        if not _OID.fullmatch(tree):
            self._malformed()
        stages: dict[bytes, set[int]] = {}
        submodules = False
        while entry := self._field():
            found = _STAGE.fullmatch(entry)
            if status == b"1" or found is None:
                self._malformed()
            else:
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
            return _Verdict(Oid(tree), [])
        if not kinds:
            self._malformed()
        return _Verdict(Oid(tree), [conflict for path in sorted(kinds) for conflict in _conflicts(path, kinds[path])])

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
def _mill(repo: Repo, store: ObjectStore, onto: Oid, identity: tuple[str, str]) -> Iterator[_Mill]:
    """Starts both processes in a view of the store that shows them the attributes of `onto` and nothing else."""
    store.ensure(repo)
    with tempfile.TemporaryDirectory(prefix="wt-merge-") as scratch:
        view, tree = Path(scratch, "git"), Path(scratch, "tree")
        _make_view(repo, store, view)
        _show_attributes(store, onto, tree)
        settings = repo.git("config", "--null", "--get-regexp", _SETTINGS, expect=(0, 1)).records
        config = [os.fsdecode(record).replace("\n", "=", 1) for record in settings]
        env = {"GIT_OBJECT_DIRECTORY": os.fspath(store.path / "objects")}
        with (
            Process(
                "merge-tree", "--write-tree", "--stdin", "-z", "--messages", "--allow-unrelated-histories",
                git_dir=view, work_tree=tree, cwd=tree, env=env, config=config,
            ) as merges,
            Process("hash-object", "-t", "commit", "-w", "--stdin-paths", git_dir=view, env=env) as commits,
        ):  # fmt: skip
            yield _Mill(store, merges, commits, Path(scratch, "commit"), identity)


def _make_view(repo: Repo, store: ObjectStore, view: Path) -> None:
    for part in ("objects", "refs", "info"):
        (view / part).mkdir(parents=True)
    for part in ("HEAD", "config"):
        (view / part).write_bytes((store.path / part).read_bytes())
    with contextlib.suppress(FileNotFoundError):
        (view / "info" / "attributes").write_bytes((repo.common_dir / "info" / "attributes").read_bytes())


def _show_attributes(store: ObjectStore, commit: Oid, into: Path) -> None:
    """Writes every `.gitattributes` of a commit's tree below a directory.

    There always is one at the top, an empty one if need be: git would otherwise take it from the trees being merged.
    """
    into.mkdir()
    (into / ".gitattributes").touch()
    listed = store.git("ls-tree", "-r", "-z", "--full-tree", commit).records
    with reader(store.path, native=False) as objects:
        for record in listed:
            if not record.endswith((b"/.gitattributes", b"\t.gitattributes")):
                continue
            fields, _, path = record.partition(b"\t")
            mode, _, oid = fields.decode("ascii").split(" ")
            if mode.startswith("100") and not {b"", b".", b"..", b".git"} & set(path.split(b"/")):
                target = into / os.fsdecode(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(objects.blob(Oid(oid)))


# ----------------------------------------------------------------------------------------------------------- strategies
@dataclass(frozen=True, slots=True)
class _Round:
    """What every step of a plan needs."""

    mill: _Mill
    trees: dict[Oid, Oid]

    def side(self, candidate: Candidate) -> tuple[Oid | None, list[Conflict]]:
        """The commit on the candidate's baseline that holds the worker's edits alone, or why there is none."""
        baseline = candidate.baseline
        tree = self.trees[candidate.snapshot]
        if baseline.snapshot is not None:
            without = self.mill.commit(self.trees[baseline.commit], [baseline.snapshot], "without the boss's edits")
            worker = self.mill.commit(tree, [baseline.snapshot], "with the worker's edits")
            verdict = self.mill.merge(without, worker)
            if verdict.conflicts:
                return None, verdict.conflicts
            tree = verdict.tree
        side = self.mill.commit(tree, [baseline.commit], _message(candidate, None))
        self.trees[side] = tree
        return side, []

    def merged(self, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        side, _ = self.side(candidate)
        if side is None:
            replayed = self.replayed(current, candidate, None)
            if replayed.commit is None:
                return replayed
            side, tree = replayed.commit, replayed.tree
        elif self.trees[side] == self.trees[candidate.baseline.commit]:
            return Joined(None, self.trees[current], [])
        else:
            verdict = self.mill.merge(current, side)
            if verdict.conflicts:
                return Joined(None, verdict.tree, verdict.conflicts)
            tree = verdict.tree
        return self._keep(self.mill.commit(tree, [current, side], _message(candidate, message, verb="Merge ")), tree)

    def replayed(self, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        """What lies between start and snapshot, applied to a result as a cherry-pick would."""
        start = candidate.baseline.start
        ours = self.mill.commit(self.trees[current], [start], "the result so far")
        theirs = self.mill.commit(self.trees[candidate.snapshot], [start], "with the worker's edits")
        verdict = self.mill.merge(ours, theirs)
        if verdict.conflicts or verdict.tree == self.trees[current]:
            return Joined(None, verdict.tree, verdict.conflicts)
        return self._keep(self.mill.commit(verdict.tree, [current], _message(candidate, message)), verdict.tree)

    def _keep(self, commit: Oid, tree: Oid) -> Joined:
        self.trees[commit] = tree
        return Joined(commit, tree, [])


def _message(candidate: Candidate, message: str | None, verb: str = "") -> str:
    """What a commit says: the words asked for, or the first line of the task; and which job it was."""
    task = next((line.strip() for line in (candidate.task or "").splitlines() if line.strip()), "")
    if len(task) > _SUBJECT_LENGTH:
        task = task[: _SUBJECT_LENGTH - 1].rstrip() + "…"
    subject = f"{verb}job {candidate.title}" + (f": {task}" if task else "") if verb or not task else task
    return f"{message or subject}\n\nWt-Job: {candidate.job_id}".replace("\0", "")


class _Chained:
    """A strategy that puts one candidate after the other onto the result so far."""

    name: ClassVar[str]

    def plan(
        self,
        repo: Repo,
        store: ObjectStore,
        onto: Oid,
        candidates: Sequence[Candidate],
        *,
        identity: tuple[str, str],
        message: str | None = None,
        on_conflict: OnConflict = "stop",
    ) -> MergePlan:
        """Works out the merge of all candidates, in the order given, onto a commit; see `MergeStrategy`."""
        with _mill(repo, store, onto, identity) as mill:
            commits = [onto, *(oid for each in candidates for oid in _commits_of(each))]
            tools = _Round(mill, mill.trees(commits))
            current, steps = onto, []
            for candidate in candidates:
                try:
                    joined = self._join(tools, current, candidate, message)
                except GitFailed as error:
                    error.hint = f"leave the job out: wt merge, with every job named but {candidate.title}"
                    raise
                steps.append(_step(candidate, joined))
                current = joined.commit or current
            if on_conflict == "stop" and any(step.outcome == "conflict" for step in steps):
                skipped = {"outcome": "skipped", "commit": None, "tree": None}
                steps = [step.model_copy(update=skipped) if step.outcome == "landed" else step for step in steps]
                current = onto
            if current != onto:
                current, steps = self._seal(tools, onto, current, steps, message)
            return MergePlan(strategy=self.name, before=onto, after=current, steps=steps)

    def _join(self, tools: _Round, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        if tools.trees[candidate.snapshot] == tools.trees[candidate.baseline.start]:
            return Joined(None, tools.trees[current], [])
        return self._put(tools, current, candidate, message)

    def _put(self, tools: _Round, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        return tools.merged(current, candidate, message)

    def _seal(
        self, tools: _Round, onto: Oid, current: Oid, steps: list[Step], message: str | None
    ) -> tuple[Oid, list[Step]]:
        """The last word on a finished chain."""
        return current, steps


class ThreeWay(_Chained):
    """One `--no-ff` merge commit per candidate, each onto the result of the one before."""

    name = "three-way"


class Rebase(_Chained):
    """One commit per candidate, a cherry-pick onto the result of the one before; `empty` if already there."""

    name = "rebase"

    def _put(self, tools: _Round, current: Oid, candidate: Candidate, message: str | None) -> Joined:
        return tools.replayed(current, candidate, message)


class Squash(_Chained):
    """Merged as three-way, then one commit with one parent for all candidates together."""

    name = "squash"

    def _seal(
        self, tools: _Round, onto: Oid, current: Oid, steps: list[Step], message: str | None
    ) -> tuple[Oid, list[Step]]:
        landed = [step for step in steps if step.outcome == "landed"]
        subject = message or "Merge jobs " + ", ".join(step.name or step.job_id for step in landed)
        words = subject + "\n\n" + "\n".join(f"Wt-Job: {step.job_id}" for step in landed)
        commit = tools.mill.commit(tools.trees[current], [onto], words)
        return commit, [
            step.model_copy(update={"commit": commit}) if step.outcome == "landed" else step for step in steps
        ]


def _step(candidate: Candidate, joined: Joined) -> Step:
    if joined.conflicts:
        outcome: StepOutcome = "conflict"
    else:
        outcome = "empty" if joined.commit is None else "landed"
    return Step(
        job_id=candidate.job_id,
        name=candidate.name,
        outcome=outcome,
        commit=joined.commit,
        tree=joined.tree if joined.commit else None,
        conflicts=joined.conflicts,
        files=len(candidate.files),
        sensitive=[change.path for change in candidate.files if change.sensitive],
    )


def _commits_of(candidate: Candidate) -> tuple[Oid, Oid, Oid]:
    return candidate.snapshot, candidate.baseline.start, candidate.baseline.commit


# -------------------------------------------------------------------------------------------------------------- overlap
def conflicts_between(
    repo: Repo, store: ObjectStore, onto: Oid, pairs: Sequence[tuple[Candidate, Candidate | None]]
) -> list[list[Conflict]]:
    """For each pair what would not merge, in one git process; None as the second of a pair means the branch at `onto`.

    Raises: GitFailed; NotFound for a snapshot that is gone.
    """
    everybody = {each.job_id: each for pair in pairs for each in pair if each is not None}
    with _mill(repo, store, onto, TOOL_IDENTITY) as mill:
        commits = [onto, *(oid for each in everybody.values() for oid in _commits_of(each))]
        tools = _Round(mill, mill.trees(commits))
        sides = {job: tools.side(candidate) for job, candidate in everybody.items()}
        answers = []
        for one, other in pairs:
            first, trouble = sides[one.job_id]
            second, more_trouble = sides[other.job_id] if other is not None else (onto, [])
            if first is None or second is None:
                answers.append(trouble + more_trouble)
            else:
                answers.append(mill.merge(first, second).conflicts)
        return answers
