"""Whole commands, stopped at every change they make to the disk; the next ordinary commands mend what is left."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults import Faults, Point, needs_strace, sample
from tests.kit import Answer, RepoKit, Wt, _walk, eventually
from tests.merging import tree_files
from worktrees import jobs
from worktrees.boss import Boss
from worktrees.jobs import workflow
from worktrees.store import State

TOKEN = re.compile(rb"token-[a-z]+")
WT = "from worktrees.cli import main\nmain()\n"
# What a supervisor becomes, for a job whose own one was kept from becoming it.
SETTLING = """
import sys
from pathlib import Path
from worktrees.jobs import settlement
from worktrees.store import AliveLock
sys.argv.append(str(AliveLock(Path(sys.argv[1]) / "alive").take()))
settlement.main()
"""
NEVER_SETTLES = """
import os, sys
if "worktrees.jobs.settlement" in sys.orig_argv:
    os._exit(0)
"""
VERBS = {
    "spawn": ("spawn", "--workflow", "main", "--name", "new", "--", "sh", "-c", "echo token-new > new.txt"),
    "open": ("spawn", "--workflow", "fresh", "--name", "new"),
    "settle": ("settle", "mine"),
    "drop": ("drop", "ready", "mine"),
    "drop-last": ("drop", "unused"),
    "clean": ("clean", "--all"),
    "restore": ("restore", "gone"),
    "merge": ("merge", "--workflow", "main"),
    "merge-last": ("merge", "--workflow", "idle"),
    "merge-packed": ("merge", "--workflow", "packed"),
    "rollback": ("rollback", "--workflow", "main"),
    "undo": ("undo", "1"),
    "undo-drop": ("undo",),
    "close": ("workflow", "close", "idle"),
    "settling": (),
}
# Where workspaces are depends on where the test's directory is.
PARTS = {"repo", "users", "home", "repo.worktrees"}
MOVING = {"merge", "merge-last", "merge-packed", "rollback", "undo"}
FIELDS = ("state", "result", "changedFiles", "landedBy", "droppedBy", "workspacePresent", "verified")


class Picture(NamedTuple):
    """The boss's checkout, apart from times and commit ids."""

    tree: str
    staged: bytes
    status: bytes
    files: dict[str, bytes | str]

    @classmethod
    def of(cls, kit: RepoKit) -> "Picture":
        status = kit.git("--no-optional-locks", "status", "--porcelain=v2")
        status = re.sub(rb" [0-9a-f]{40}", b"", status)
        return cls(kit.text("rev-parse", "HEAD^{tree}"), kit.git("ls-files", "-s"), status, tree_files(kit.path))


def at_work(top: Path) -> list[int]:
    """Processes of this test other than ourselves: its directory is named in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                if os.fsencode(top) in (process / "environ").read_bytes():
                    found.append(int(process.name))
    return found


class World:
    """A repository in full use, to be put back as often as needed.

    Workflow `main`: `landed` (in the branch), `ready` (settled, edited since), `fine`, `mine` (open), `gone` (dropped).
    Workflow `idle`: `unused`. Bystanders: the open job of workflow `other`, and a worktree of the user's own.
    """

    def __init__(self, kit: RepoKit, scratch: Path) -> None:
        self.kit = kit
        self.wt = Wt(kit.path)
        self.state = State(kit.path / ".git")
        self.top = kit.path.parent
        kit.git("worktree", "add", "-q", "-b", "users", self.top / "users")
        (self.top / "users" / "work").write_text("token-users\n")
        kit.write("README.md", "# dirty\n")
        kit.write("staged.txt", "staged\n")
        kit.git("add", "staged.txt")
        kit.write("notes.txt", "untracked\n")
        kit.write("kept.log", "ignored\n")
        self.work("bystander", "other", settle=False)
        self.work("mine", settle=False)
        self.work("landed")
        self.ok("merge", "landed", "--workflow", "main")
        for name in ("ready", "fine", "gone"):
            self.work(name)
        (self.workspace("ready") / "late.txt").write_text("token-late\n")
        self.work("stowed", "packed")
        kit.git("pack-refs", "--all")
        self.work("unused", "idle")
        self.ok("drop", "gone")
        kit.write("late.txt", "the boss's own, and late\n")
        self.scripts = {"wt": scratch / "wt.py", "settling": scratch / "settling.py"}
        self.scripts["wt"].write_text(WT)
        self.scripts["settling"].write_text(SETTLING)
        (scratch / "site").mkdir()
        (scratch / "site" / "sitecustomize.py").write_text(NEVER_SETTLES)
        self.scratch = scratch
        self.keep()

    def keep(self) -> None:
        """From here on, this is what the world is put back to."""
        self.quiet()
        self.parts = [path for path in self.top.iterdir() if path.name in PARTS]
        self.copy = self.scratch / "copy"
        shutil.rmtree(self.copy, ignore_errors=True)
        self.copy.mkdir()
        subprocess.run(["cp", "-a", *self.parts, self.copy], check=True)

    def put_back(self) -> None:
        eventually(lambda: not at_work(self.top), what="nobody is at work any more")
        for name in PARTS:
            shutil.rmtree(self.top / name, ignore_errors=True)
        subprocess.run(["cp", "-a", *(self.copy / part.name for part in self.parts), self.top], check=True)

    # ------------------------------------------------------------------------------------------------------- looking
    def ok(self, *words: str, status: int = 0) -> Answer:
        end = words.index("--") if "--" in words else len(words)
        return self.wt(*words[:end], "--json", *words[end:], status=status)

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in jobs.rows(self.state, closed=True)}

    def open_workflows(self) -> set[str]:
        return {flow.workflow_id for flow in jobs.workflows(self.state)}

    def workspace(self, name: str) -> Path:
        return Path(self.rows()[name]["workspace"])

    def work(self, name: str, workflow: str = "main", *, settle: bool = True) -> None:
        """A job that writes a file with a token."""
        opened = self.ok("spawn", "--workflow", workflow, "--name", name).data["jobs"][0]
        workspace = Path(opened["workspace"])
        (workspace / f"{name}.txt").write_text(f"token-{name}\n")
        if name == "landed":
            (workspace / "docs" / "guide.md").write_text("better\n")
        elif name == "fine":
            (workspace / "src" / "app.py").unlink()
            (workspace / "tool.sh").chmod(0o644)
        if settle:
            self.ok("settle", name)

    def quiet(self) -> None:
        """Until no job runs, and nobody is at work in the background."""
        eventually(
            lambda: all(row["state"] in {"open", "done"} for row in self.rows().values()), what="every job is at rest"
        )
        eventually(lambda: not at_work(self.top), what="nobody is at work any more")

    def pins(self, flow: str) -> set[str]:
        return workflow.pins(flow, [row for row in self.rows().values() if row["workflowId"] == flow])

    def summary(self) -> dict[str, dict[str, Any]]:
        """What matters of every job, and whether its workflow is open."""
        open_ones = self.open_workflows()
        found = {}
        for name, row in self.rows().items():
            found[name] = {field: row[field] for field in FIELDS} | {"open": row["workflowId"] in open_ones}
            for field in ("landedBy", "droppedBy"):
                found[name][field] = found[name][field] is not None
        return found

    def tokens(self) -> set[str]:
        """Everything a worker wrote that can still be found: in a workspace, a snapshot or a branch."""
        found: set[bytes] = set()
        for row in self.rows().values():
            for path in Path(row["workspace"]).rglob("*.txt") if row["workspace"] else ():
                found.update(TOKEN.findall(path.read_bytes()))
        for git_dir in (self.state.store, self.kit.path / ".git"):
            if git_dir.is_dir():
                refs = self.kit.text("--git-dir", git_dir, "for-each-ref", "--format=%(objectname)").split()
                lines = self.kit.git("--git-dir", git_dir, "grep", "-hoe", "token-[a-z]*", *refs, "--", check=False)
                found.update(lines.split())
        return {token.decode() for token in found}

    def bystanders(self) -> dict[str, object]:
        """All there is of those the command has nothing to do with."""
        places = [self.top / "users", self.kit.path / ".git/worktrees/users"]
        if row := self.rows().get("bystander"):
            places += [Path(row["workspace"]), self.kit.path / ".git/worktrees" / row["jobId"]]
            places += [self.state.job_dir("other", row["jobId"])]
        return {f"{place}/{name}": value for place in places for name, value in _walk(place, skip=())}

    def litter(self) -> list[str]:
        """What only a command under way may leave lying about."""
        found = [*self.state.journal.iterdir()]
        found += [path for path in self.state.operations.iterdir() if path.suffix != ".json"]
        found += [path for path in (self.state.root / "locks").iterdir() if path.suffix != ".lock"]
        for path in (self.kit.path / ".git").rglob("*"):
            if path.suffix in {".lock", ".keep", ".new", ".tmp"} and path.parent.name != "locks":
                found.append(path)
            if path.name.startswith(".desk-"):
                found.append(path)
        for trash in self.top.rglob(".trash"):
            found += trash.iterdir()
        found += self.state.trash.iterdir()
        rows = self.rows().values()
        for path in self.state.workflows.glob("*/jobs/*"):
            if not (path / "job.json").exists():
                found.append(path)
        present = {row["jobId"] for row in rows if row["workspacePresent"]}
        entries = {path.name for path in (self.kit.path / ".git/worktrees").iterdir()}
        if entries != present | {"users"}:
            found.append(Path(f"worktrees: {sorted(entries)} instead of {sorted(present)}"))
        roots = {Path(row["workspace"]).parent for row in rows if row["workspace"]}
        workspaces = {path.name for root in roots if root.is_dir() for path in root.glob("j-*")}
        if workspaces != present:
            found.append(Path(f"workspaces: {sorted(workspaces)} instead of {sorted(present)}"))
        flows = self.open_workflows()
        refs = self.kit.text("for-each-ref", "--format=%(refname)", "refs/wt").split()
        needed = {ref for flow in jobs.workflows(self.state, closed=True) for ref in self.pins(flow.workflow_id)}
        found += [Path(ref) for ref in refs if ref.split("/")[2] not in flows and ref not in needed]
        found += [Path(f"refs/wt/{flow}/base is missing") for flow in flows if f"refs/wt/{flow}/base" not in refs]
        return [os.fspath(path) for path in found]


class Stage:
    """One command in a world, before and after it.

    `power` says that it is the power that is cut; `seen` are the jobs as the last `check` found them.
    """

    def __init__(self, world: World, verb: str) -> None:
        self.world = world
        self.verb = verb
        self.power = False
        self.words = VERBS[verb]
        script = "wt"
        world.put_back()
        if verb == "settling":
            site = {"PYTHONPATH": f"{world.scratch / 'site'}:{os.environ.get('PYTHONPATH', '')}"}
            world.wt(*VERBS["spawn"], env=site, status=0)
            directory = world.state.find_job_dir(world.rows()["new"]["jobId"])
            eventually((directory / "exit.json").exists, what="the worker is done")
            eventually(lambda: not at_work(world.top), what="nobody is at work any more")
            script, self.words = "settling", (os.fspath(directory),)
        self.arguments = [*(["-C", str(world.kit.path)] if script == "wt" else []), *self.words]
        self.faults = Faults(world.scratch / f"faults-{verb}", world.scripts[script])
        if verb == "settling":
            subprocess.run(["cp", "-a", world.copy, f"{world.copy}.kept"], check=True)
            shutil.rmtree(world.copy)
            world.copy.mkdir()
            subprocess.run(["cp", "-a", *world.parts, world.copy], check=True)
        self.watched = world.kit.fingerprint(ignore_refs=["refs/wt/*"])
        self.bystanders = world.bystanders()
        self.before = Picture.of(world.kit), world.summary()
        self.tokens = world.tokens()
        world.put_back()
        self.points = self.faults.points(*self.arguments)
        world.quiet()
        self.after = Picture.of(world.kit), world.summary()
        self.tokens_after = world.tokens()

    def close(self) -> None:
        """Leaves the world as it was found."""
        if self.verb == "settling":
            shutil.rmtree(self.world.copy)
            os.rename(f"{self.world.copy}.kept", self.world.copy)

    def check(self, what: object) -> str:
        """After the next ordinary commands everything is in order, and the command can be given again."""
        world, kit = self.world, self.world.kit
        world.ok("list")
        fixed = world.wt("doctor", "--fix", "--json")
        world.quiet()
        named = {(finding.code, finding.path) for finding in Boss(kit.path).doctor().findings}
        assert named <= {("outside-edit", "late.txt"), *self.emptied()}, what
        assert world.litter() == [], (what, fixed.data)
        picture, summary = Picture.of(kit), world.summary()
        self.seen = summary
        self.between(picture, summary, what)
        if self.verb not in MOVING:
            assert kit.fingerprint(ignore_refs=["refs/wt/*"]) == self.watched, what
        assert world.bystanders() == self.bystanders, what
        assert not self.tokens - world.tokens(), what
        kit.git("worktree", "list")
        kit.git("gc", "--quiet", "--prune=now")
        kit.assert_sound()
        assert not self.tokens - world.tokens(), what
        if (picture, summary) == self.after:
            return "after"
        self.again(summary)
        world.quiet()
        assert (Picture.of(kit), world.summary()) == self.after, what
        assert world.tokens() == self.tokens_after, what
        return "before" if (picture, summary) == self.before else "between"

    def again(self, summary: dict[str, dict[str, Any]]) -> None:
        if self.verb == "settling":
            return
        words = self.words
        if self.is_unfinished(summary.get("new")):
            # Its opening was killed, and is on record as such; dropped, it is its workflow's last.
            self.world.ok("drop", "new")
            words = tuple("afresh" if word == "fresh" else word for word in words)
        self.world.ok(*words)

    def emptied(self) -> set[tuple[str, str]]:
        """Findings about the workspace that was restored: after a power cut its files may be empty."""
        if self.verb not in {"restore", "undo-drop"} or not self.power:
            return set()
        workspace = self.world.workspace("gone")
        return {("outside-edit", os.fspath(path.relative_to(workspace))) for path in workspace.rglob("*")}

    def is_unfinished(self, new: dict[str, Any] | None) -> bool:
        """Whether the new job is on record as one that did not come to its end in one piece."""
        return new is not None and (new["result"] == "failed" or (self.power and new["verified"] is False))

    def between(self, picture: Picture, summary: dict[str, dict[str, Any]], what: object) -> None:
        assert picture in (self.before[0], self.after[0]), (what, _difference(picture, self.before[0], self.after[0]))
        known = (self.before[1], self.after[1])
        assert self.before[1].keys() <= summary.keys() <= self.after[1].keys(), what
        for name, fields in summary.items():
            if name == "new" and self.is_unfinished(fields):
                continue
            for field, value in fields.items():
                assert any(name in each and value == each[name][field] for each in known), (what, name, field, value)


def _difference(seen: Picture, *known: Picture) -> list[str]:
    lines = []
    for each in known:
        for name, one, other in zip(Picture._fields, seen, each, strict=True):
            if one != other:
                lines.append(f"{name}: {one!r:.600} instead of {other!r:.600}")
        lines.append("---")
    return lines


@pytest.fixture
def world(repo: RepoKit, tmp_path: Path) -> World:
    needs_strace()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return World(repo, scratch)


def killed_at(stage: Stage, points: list[Point]) -> dict[str, int]:
    """How it ended, for each end how often. All points are tried, whatever the first of them shows."""
    ends = {"before": 0, "between": 0, "after": 0}
    wrong = []
    for point in points:
        stage.world.put_back()
        stage.faults.kill(point, *stage.arguments)
        try:
            ends[stage.check(point)] += 1
        except AssertionError as error:
            wrong.append(f"{point}: {error}")
    assert not wrong, "\n".join([f"{stage.verb}: {len(wrong)} of {len(points)}", *wrong[:20]])
    return ends


def failed_at(stage: Stage, points: list[Point], error: str) -> dict[str, int]:
    """The disk fails from each point on, for the process that is there: it says so in one line and gives a hint."""
    ends = {"before": 0, "between": 0, "after": 0}
    wrong = []
    for point in points:
        stage.world.put_back()
        ended = stage.faults.fail(point, error, *stage.arguments, for_ever=True)
        try:
            told = ended.stderr.splitlines()[-2:]
            silent = stage.verb == "settling" or point.git == "python"  # nobody listens; it cannot say so either
            if ended.status and not silent:
                assert ended.status == 70, ended
                assert [line.split(": ")[0] for line in told] == ["wt", "hint"], ended
            ends[stage.check(point)] += 1
        except AssertionError as failure:
            wrong.append(f"{point}: {failure}")
    assert not wrong, "\n".join([f"{stage.verb}: {len(wrong)} of {len(points)}", *wrong[:20]])
    return ends


def some_points(world: World, verbs: Sequence[str], count: int) -> None:
    for verb in verbs:
        stage = Stage(world, verb)
        killed_at(stage, sample(stage.points, count))
        stage.close()


def test_a_command_is_killed_at_two_points(world: World) -> None:
    some_points(world, ["drop"], 2)  # which settles an open job too


@pytest.mark.torture
def test_some_commands_are_killed_at_some_points(world: World) -> None:
    some_points(world, ("spawn", "settle", "drop", "clean", "merge-last", "undo", "settling"), 4)


@pytest.mark.torture
@pytest.mark.parametrize("verb", VERBS)
def test_a_command_is_killed_at_every_point(world: World, verb: str) -> None:
    stage = Stage(world, verb)
    points = sample(stage.points)
    ends = killed_at(stage, points)
    print(f"{verb}: {len(points)} of {len(stage.points)} points, {ends}")


@pytest.mark.torture
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("error", ["ENOSPC", "EROFS"])
def test_the_disk_fails_a_command_at_every_point(world: World, verb: str, error: str) -> None:
    stage = Stage(world, verb)
    points = sample(stage.points)
    ends = failed_at(stage, points, error)
    print(f"{verb}: {error} at {len(points)} of {len(stage.points)} points, {ends}")


# ------------------------------------------------------------------------------------------------------- many at once
def all_at_once(wt: Wt, calls: list[list[str]]) -> list[Answer]:
    """Every call in a process of its own, none before the others; their answers, in order."""
    started = [wt.start(*words) for words in calls]
    answers = []
    for words, process in zip(calls, started, strict=True):
        out, err = process.communicate(timeout=300)
        assert b"Traceback" not in err, err.decode()
        answers.append(Answer(tuple(words), process.returncode, out.decode(), err.decode()))
    return answers


def spawn_at_once(repo: RepoKit, wt: Wt, count: int) -> None:
    state = State(repo.path / ".git")
    answers = all_at_once(wt, [["spawn", "--name", f"n{number}"] for number in range(count)])
    assert [answer.status for answer in answers] == [0] * count, "\n".join(map(str, answers))
    rows = jobs.rows(state)
    assert sorted(row["name"] for row in rows) == sorted(f"n{number}" for number in range(count))
    assert {row["state"] for row in rows} == {"open"}
    assert len({row["workflowId"] for row in rows}) == 1
    listed = repo.git("worktree", "list", "--porcelain").decode()
    assert {line for line in listed.splitlines() if line.startswith("locked ")} == {
        f"locked wt {row['jobId']}" for row in rows
    }
    for row in rows:
        assert not repo.git("-C", row["workspace"], "status", "--porcelain")
    assert {path.name for path in (repo.path / ".git/worktrees").iterdir()} == {row["jobId"] for row in rows}
    assert nothing_left(repo) == []
    assert Boss(repo.path).doctor().findings == []
    repo.assert_sound()


def nothing_left(repo: RepoKit) -> list[Path]:
    """Locks and half-written files; none while nobody is at work."""
    eventually(lambda: not at_work(repo.path.parent), what="nobody is at work any more")
    state = State(repo.path / ".git")
    found = [*state.journal.iterdir(), *(state.root / "locks").glob("*.holder")]
    found += [path for path in state.operations.iterdir() if path.suffix != ".json"]
    for path in (repo.path / ".git").rglob("*"):
        if path.suffix in {".lock", ".keep", ".new", ".tmp"} and path.parent.name != "locks":
            found.append(path)
    return found


def end_at_once(repo: RepoKit, wt: Wt, merges: int, drops: int) -> None:
    """Jobs that are merged and dropped, each by a process of its own, while others look."""
    boss = Boss(repo.path)
    names = [f"m{number}" for number in range(merges)] + [f"d{number}" for number in range(drops)]
    for name in names:
        job = boss.spawn(name=name)
        (Path(job.workspace or "") / f"{name}.txt").write_text(f"{name}\n")
        boss.settle(name)
    calls = [["merge", name] for name in names[:merges]]
    calls += [["drop", name] for name in names[merges:]]
    calls += [["list"], ["status"], ["overlap"], ["list", "--all"]]
    answers = all_at_once(wt, calls)
    assert [answer.status for answer in answers] == [0] * len(calls), "\n".join(map(str, answers))
    log = [operation for operation in Boss(repo.path).log() if operation.kind == "merge"]
    assert sorted(job for operation in log for job in operation.jobs) == sorted(
        row["jobId"] for row in jobs.rows(State(repo.path / ".git"), closed=True) if row["name"].startswith("m")
    )
    for name in names[:merges]:
        assert repo.read(f"{name}.txt") == f"{name}\n".encode()
    assert not list(repo.path.glob("d*.txt"))
    assert len(repo.text("rev-list", "--first-parent", "HEAD").split()) == 2 + merges
    assert not repo.git("status", "--porcelain")
    rows = jobs.rows(State(repo.path / ".git"), closed=True)
    assert sum(row["landedBy"] is not None for row in rows) == merges
    assert sum(row["droppedBy"] is not None for row in rows) == drops
    assert nothing_left(repo) == []
    assert Boss(repo.path).doctor().findings == []


@pytest.mark.torture
def test_six_spawns_at_once(repo: RepoKit, wt: Wt) -> None:
    spawn_at_once(repo, wt, 6)


@pytest.mark.torture
def test_some_merges_and_drops_at_once(repo: RepoKit, wt: Wt) -> None:
    end_at_once(repo, wt, merges=3, drops=2)


@pytest.mark.torture
def test_thirty_two_spawns_at_once(repo: RepoKit, wt: Wt) -> None:
    spawn_at_once(repo, wt, 32)


@pytest.mark.torture
def test_sixteen_merges_and_drops_at_once(repo: RepoKit, wt: Wt, monkeypatch: pytest.MonkeyPatch) -> None:
    # The last of so many waits for all others, on a busy machine longer than a person would want to.
    monkeypatch.setenv("WT_LOCK_TIMEOUT_SECONDS", "280")
    end_at_once(repo, wt, merges=10, drops=6)
