"""What tests of merging and landing are made of: jobs whose work is written straight into the store, and a boss."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.kit import RepoKit
from worktrees.git import ObjectStore, discover
from worktrees.isolation import Place
from worktrees.landing import checkpoint, find_target, land
from worktrees.merge import Candidate, MergeStrategy, ThreeWay
from worktrees.model import Baseline, JobId, MergePlan, Oid, OnConflict, Operation, Workflow, WorkflowName
from worktrees.store import State, new_id, now

IDENTITY = ("Boss", "boss@example.com")
Edit = bytes | str | tuple[str, bytes | str] | None
Edits = Mapping[str, Edit] | Mapping[bytes, Edit] | Mapping[str | bytes, Edit]
"""Path to content; None deletes; a tuple is mode (`120000`, `100755`, `160000` with an object id) and content."""


class Desk:
    """The boss's side of a repository: its place, and jobs that changed something in it."""

    def __init__(self, kit: RepoKit) -> None:
        self.kit = kit
        repo = discover(kit.path)
        state = State(repo.common_dir)
        state.prepare()
        self.place = Place(repo, state, ObjectStore(state.store).ensure(repo), kit.path.with_name("workspaces"))

    @property
    def store(self) -> ObjectStore:
        return self.place.store

    def tree(self, start: str, edits: Edits) -> Oid:
        """A tree like that of a commit but for some edits."""
        index = self.place.state.root / "test-index"
        index.unlink(missing_ok=True)
        self.store.git("read-tree", start, index=index)
        lines: list[bytes] = []
        removals: list[bytes] = []
        for path, edit in edits.items():
            name = os.fsencode(path)
            mode, content = ("100644", edit) if not isinstance(edit, tuple) else edit
            if content is None:
                removals.append(b"0 " + b"0" * 40 + b"\t" + name)
                continue
            raw = content.encode() if isinstance(content, str) else content
            if mode != "160000":
                raw = self.store.git("hash-object", "-w", "--stdin", stdin=raw).stdout.strip()
            lines.append(mode.encode() + b" " + raw + b"\t" + name)
        listed = b"".join(line + b"\0" for line in removals + lines)
        self.store.git("update-index", "-z", "--add", "--replace", "--index-info", index=index, stdin=listed)
        return Oid(self.store.git("write-tree", index=index).text)

    def baseline(self, base: str = "HEAD", dirty: Edits | None = None) -> Baseline:
        """Where jobs start; `dirty` are edits of the boss that are carried over."""
        commit = Oid(self.kit.head(base))
        if not dirty:
            return Baseline(commit=commit, branch="main")
        snapshot = self.store.commit(self.tree(commit, dirty), [commit], "baseline")
        return Baseline(commit=commit, branch="main", dirty_policy="all", dirty_count=len(dirty), snapshot=snapshot)

    def job(
        self, edits: Edits, *, base: str | Baseline = "HEAD", name: str | None = None, task: str | None = None
    ) -> Candidate:
        """A job that made these edits."""
        baseline = base if isinstance(base, Baseline) else self.baseline(base)
        job = JobId(new_id("j"))
        snapshot = self.store.commit(self.tree(baseline.start, edits), [baseline.start], f"wt snapshot of {job}")
        self.store.set_ref(f"refs/wt/test/{job}", snapshot)
        return Candidate(job, name, task, baseline, snapshot)

    def plan(
        self,
        candidates: Sequence[Candidate],
        *,
        strategy: MergeStrategy | None = None,
        onto: str = "HEAD",
        on_conflict: OnConflict = "stop",
        message: str | None = None,
    ) -> MergePlan:
        return (strategy or ThreeWay()).plan(
            self.place.repo,
            self.store,
            Oid(self.kit.head(onto)),
            candidates,
            identity=IDENTITY,
            message=message,
            on_conflict=on_conflict,
        )

    def land(self, candidates: Sequence[Candidate], *, into: str | None = None, no_commit: bool = False) -> Operation:
        """Merges and lands jobs as `wt merge` does."""
        target = find_target(self.place.repo, into)
        plan = self.plan(candidates, onto=target.before)
        return land(
            self.place, plan, target=target, jobs=[each.job_id for each in candidates], workflow=WorkflowName("w"),
            no_commit=no_commit,
        )  # fmt: skip

    def workflow(self) -> Workflow:
        """A workflow opened now."""
        state = checkpoint(self.store, self.place.repo, "when the workflow began", ref="refs/wt/w/boss")
        return Workflow(workflow_id=WorkflowName("w"), baseline=self.baseline(), created_at=now(), boss_state=state)

    def read(self, commit: Oid, path: str) -> bytes | None:
        """A file of a commit of the store, None when there is none."""
        done = self.store.git("cat-file", "blob", f"{commit}:{path}", expect=(0, 128))
        return done.stdout if done.status == 0 else None

    def tree_of(self, commit: Oid) -> str:
        return self.store.git("rev-parse", f"{commit}^{{tree}}").text


def conflicts(plan: MergePlan) -> dict[str, set[tuple[str, str]]]:
    """The conflicts of a plan: by name of the job, pairs of path and kind."""
    return {step.name or step.job_id: {(each.path, each.kind) for each in step.conflicts} for step in plan.conflicted}


def tree_files(root: Path) -> dict[str, bytes | str]:
    """Every file of a checkout by path: its content, or a link's target."""
    found: dict[str, bytes | str] = {}
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if not (Path(directory) == root and name == ".git")]
        for name in (*files, *(each for each in names if (Path(directory) / each).is_symlink())):
            path = Path(directory) / name
            found[str(path.relative_to(root))] = os.readlink(path) if path.is_symlink() else path.read_bytes()
    return found
