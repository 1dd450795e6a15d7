"""Every state that a crash, a power cut or a stray hand leaves is named by `wt doctor`, and mended where it is ours."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit import Gate, RepoKit, Wt, eventually
from tests.units.test_isolation import DAMAGES, HARMLESS_IN_OTHERS, stats
from worktrees import isolation
from worktrees.boss import Boss
from worktrees.config import Settings
from worktrees.git import discover
from worktrees.isolation import Place, place
from worktrees.model import Finding
from worktrees.store import identity

DEAD = 4_194_303  # the highest pid a Linux gives, and so hardly ever does
OLD = (1_000_000_000, 1_000_000_000)


class Bench:
    """A repository with a finished job `done`, an open job `mine` and a worktree of the user's."""

    def __init__(self, repo: RepoKit, wt: Wt) -> None:
        self.repo = repo
        self.wt = wt
        self.place: Place = place(discover(repo.path), Settings())
        self.state = self.place.state
        self.jobs: dict[str, Path] = {}
        for name in ("done", "mine"):
            job = self.boss.spawn(name=name, workflow="flow")
            (Path(job.workspace or "") / f"{name}.txt").write_text(f"{name}\n")
            self.jobs[name] = self.state.job_dir("flow", job.job_id)
        self.boss.settle("done")

    @property
    def boss(self) -> Boss:
        """As a new process would see it."""
        return Boss(self.repo.path)

    def id(self, name: str) -> str:
        return self.jobs[name].name

    @property
    def git(self) -> Path:
        return self.repo.path / ".git"

    def codes(self) -> set[str]:
        """What the doctor names."""
        return {finding.code for finding in self.boss.doctor().findings}

    def mended(self) -> set[str]:
        """What the doctor mends."""
        return {finding.code for finding in self.boss.doctor(fix=True).mended}


@pytest.fixture
def bench(repo: RepoKit, wt: Wt) -> Bench:
    return Bench(repo, wt)


def touch(*path: str, content: bytes = b"", old: bool = False) -> Callable[[Bench], None]:
    """Makes a file below the state directory."""

    def make(bench: Bench) -> None:
        target = bench.state.root.joinpath(*path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        if old:
            os.utime(target, OLD)

    return make


def directory(*path: str) -> Callable[[Bench], None]:
    def make(bench: Bench) -> None:
        (bench.state.root.joinpath(*path)).mkdir(parents=True)
        (bench.state.root.joinpath(*path) / "inside").write_text("inside\n")

    return make


def in_job(name: str, content: bytes) -> Callable[[Bench], None]:
    def write(bench: Bench) -> None:
        (bench.jobs["done"] / name).write_bytes(content)

    return write


def without(*path: str) -> Callable[[Bench], None]:
    return lambda bench: bench.state.root.joinpath(*path).unlink()


def git(*words: str) -> Callable[[Bench], None]:
    def run(bench: Bench) -> None:
        bench.repo.git(*words)

    return run


def in_git(*path: str, content: bytes = b"", old: bool = False) -> Callable[[Bench], None]:
    return touch("..", *path, content=content, old=old)


def half_made_workspace(bench: Bench) -> None:
    path = bench.place.root / "j-aaaaaaaa"
    path.mkdir()
    (bench.place.state.journal / "j-aaaaaaaa.entry").mkdir()
    intent = {"job": "j-aaaaaaaa", "path": str(path), "phase": "adding", "by": {}}
    (bench.state.journal / "j-aaaaaaaa.json").write_text(json.dumps(intent))


def dead_landing(bench: Bench) -> None:
    """It had reserved a number and the user's index."""
    (bench.state.operations / "000001.lock").write_text("somebody")
    os.link(bench.state.operations / "000001.lock", bench.git / "index.lock")


def dead_holder(bench: Bench) -> None:
    (bench.state.root / "locks" / "landing.holder").write_text(json.dumps({**identity(os.getpid()), "startTicks": 1}))


def half_made_job(bench: Bench) -> None:
    path = bench.state.job_dir("flow", "j-bbbbbbbb")
    path.mkdir()
    for name in ("spec.json", "again.json", "holder.json", "report-schema.json"):
        (path / name).write_text("{}")


def half_recorded_job(bench: Bench) -> None:
    half_made_job(bench)
    for name in ("job.json", "index", "index.json", "fingerprint.json", "provision.json"):
        (bench.state.job_dir("flow", "j-bbbbbbbb") / name).touch()


def half_made_workflow(bench: Bench) -> None:
    (bench.state.workflow_dir("new") / "jobs").mkdir(parents=True)


def moved(bench: Bench) -> None:
    alternates = bench.state.store / "objects/info/alternates"
    alternates.write_text("/where/it/was/before/.git/objects\n")


def delete_ref(bench: Bench) -> None:
    bench.repo.git("--git-dir", bench.state.store, "update-ref", "-d", f"refs/wt/flow/{bench.id('done')}")


def unrecorded(bench: Bench) -> None:
    (bench.place.records / f"{bench.id('mine')}.json").unlink()


def badly_recorded(bench: Bench) -> None:
    (bench.place.records / f"{bench.id('mine')}.json").write_text("{}")


def orphan_entry(bench: Bench) -> None:
    """A workspace whose record and directory went, and git's entry did not."""
    unrecorded(bench)
    shutil.rmtree(bench.place.root / bench.id("mine"))
    (bench.place.entries / bench.id("mine") / "logs" / "HEAD").unlink(missing_ok=True)


def trash(bench: Bench) -> None:
    """A remover that died."""
    (bench.state.trash / "j-cccccccc.0a1b").mkdir()
    os.utime(bench.state.trash, OLD)


MENDED: dict[str, tuple[Callable[[Bench], None], str]] = {
    "a workspace that was being made": (half_made_workspace, "workspace-half-done"),
    "a landing that had not begun to move": (dead_landing, "operation-torn"),
    "a lock that git left on a ref of ours": (in_git("refs/wt/flow/base.lock"), "stale-lock"),
    "a lock that git left in the store": (touch("store.git/refs/wt/flow/x.lock"), "stale-lock"),
    "a lock that git left on the store's refs": (touch("store.git/packed-refs.lock"), "stale-lock"),
    "a lock of ours on all packed refs": (in_git("packed-refs.lock", content=b"wt\n"), "stale-lock"),
    "a record half written": (touch("workflows/flow", f".workflow.json.{DEAD}.0a1b2c3d.tmp"), "left-behind"),
    "a record half written by a supervisor": (touch("workflows", f"worker.json.{DEAD}.tmp"), "left-behind"),
    "a store half made": (directory(f"store.git.{DEAD}.0a1b2c3d.new"), "left-behind"),
    "a desk of a capture": (directory("workflows/flow", f".desk-{DEAD}-x7k2"), "left-behind"),
    "an object half written": (touch("store.git/objects/ab/tmp_obj_x", old=True), "left-behind"),
    "a pack half written": (touch("store.git/objects/pack/tmp_pack_x", old=True), "left-behind"),
    "the holder of a lock": (dead_holder, "left-behind"),
    "ports of a job that is done": (touch("ports/29990", content=b"j-gone"), "left-behind"),
    "a job that never came to be": (half_made_job, "half-made-job"),
    "a job whose record was not durable": (half_recorded_job, "half-made-job"),
    "a workflow that never came to be": (half_made_workflow, "half-made-workflow"),
    "a ref of no workflow": (git("update-ref", "refs/wt/gone/base", "HEAD"), "stale-ref"),
    "a ref of no job": (git("update-ref", "refs/wt/flow/j-dddddddd", "HEAD"), "stale-ref"),
    "a change set that cannot be understood": (in_job("changes.json", b"garbage"), "record-damaged"),
    "a change set that is gone": (lambda bench: (bench.jobs["done"] / "changes.json").unlink(), "record-damaged"),
    "a store without HEAD": (without("store.git/HEAD"), "store-damaged"),
    "a store with half a HEAD": (touch("store.git/HEAD"), "store-damaged"),
    "a store without configuration": (touch("store.git/config", content=b"[core\n"), "store-damaged"),
    "a store that leads elsewhere": (moved, "store-damaged"),
    "a store without alternates": (without("store.git/objects/info/alternates"), "store-damaged"),
    "a snapshot that no ref holds": (delete_ref, "snapshot-unheld"),
    "a baseline that no ref holds": (git("update-ref", "-d", "refs/wt/flow/base"), "baseline-unheld"),
    "a workspace that is not on record": (unrecorded, "workspace-unrecorded"),
    "a record of a workspace that cannot be understood": (badly_recorded, "workspace-unrecorded"),
    "an entry without workspace": (orphan_entry, "orphan-entry"),
    "trash that nobody empties": (trash, "left-behind"),
}  # fmt: skip


@pytest.mark.parametrize("what", MENDED)
def test_it_is_named_and_mended(bench: Bench, what: str) -> None:
    damage, code = MENDED[what]
    changes = json.loads((bench.jobs["done"] / "changes.json").read_bytes())
    before = bench.repo.fingerprint()
    damage(bench)
    bench.boss.list()
    assert code in bench.codes()
    fixed = bench.boss.doctor(fix=True)
    if what == "trash that nobody empties":  # that is done in the background
        eventually(lambda: bench.codes() == set())
    else:
        assert fixed.findings == []
        assert fixed.mended
    assert bench.codes() == set()
    assert json.loads((bench.jobs["done"] / "changes.json").read_bytes()) | {"audit": None} == changes | {"audit": None}
    assert bench.repo.fingerprint() == before
    assert bench.repo.git("--git-dir", bench.state.store, "cat-file", "-e", changes["snapshot"]) == b""
    if what != "an entry without workspace":
        bench.boss.settle("mine")
    assert bench.boss.merge("done").landed
    assert bench.repo.read("done.txt") == b"done\n"


def test_a_lock_let_go_while_we_look_is_nobodys(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    dead_holder(bench)

    def ended(_: object) -> bool:
        (bench.state.root / "locks" / "landing.holder").unlink(missing_ok=True)
        return False

    monkeypatch.setattr("worktrees.boss.diagnosis.is_alive", ended)
    found = bench.boss.doctor(fix=True)
    assert (found.findings, found.mended) == ([], [])


def test_what_a_second_look_does_not_see_is_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    half_made_job(bench)
    look = isolation.doctor_findings

    def meanwhile(*words: Any, **more: Any) -> list[Finding]:
        shutil.rmtree(bench.state.job_dir("flow", "j-bbbbbbbb"), ignore_errors=True)
        return look(*words, **more)

    monkeypatch.setattr("worktrees.isolation.doctor_findings", meanwhile)
    assert bench.codes() == set()


def test_edits_after_a_capture_are_named_until_they_are_gone(bench: Bench) -> None:
    workspace = bench.place.root / bench.id("done")
    (workspace / "late.txt").write_text("by hand\n")
    (workspace / "tool.sh").unlink()
    (workspace / "README.md").touch()  # as it was
    (bench.place.root / bench.id("mine") / "more.txt").write_text("its own work\n")
    found = bench.boss.doctor(fix=True).findings
    assert [(finding.code, finding.path) for finding in found] == [
        ("outside-edit", "late.txt"), ("outside-edit", "tool.sh"),
    ]  # fmt: skip
    assert "`wt drop done`" in found[0].message
    bench.boss.drop("done")
    assert bench.codes() == set()
    bench.boss.restore("done")  # as it was when it was taken away, and not as it was captured
    assert [finding.path for finding in bench.boss.doctor().findings] == ["late.txt", "tool.sh"]
    (workspace / "late.txt").unlink()
    bench.repo.git("checkout", "-q", "--", "tool.sh", cwd=workspace)
    assert bench.codes() == set()


def gone(bench: Bench) -> None:
    shutil.rmtree(bench.place.root / bench.id("mine"))


def stranger(bench: Bench) -> None:
    (bench.place.root / "j-eeeeeeee").mkdir()


def no_store(bench: Bench) -> None:
    shutil.rmtree(bench.state.store)


def gone_worktree(bench: Bench) -> None:
    bench.repo.git("worktree", "add", "-q", "--detach", bench.repo.path.with_name("usb"))
    shutil.rmtree(bench.repo.path.with_name("usb"))


def locked_worktree(bench: Bench) -> None:
    bench.repo.git("worktree", "add", "-q", "--detach", bench.repo.path.with_name("theirs"))
    (bench.git / "worktrees/theirs/index.lock").touch()
    os.utime(bench.git / "worktrees/theirs/index.lock", OLD)


NAMED: dict[str, tuple[Callable[[Bench], None], str]] = {
    "a job's record": (in_job("job.json", b"\xff no record"), "record-damaged"),
    "a job's record without contents": (in_job("job.json", b"{}"), "record-damaged"),
    "a job's record that is gone": (lambda bench: (bench.jobs["done"] / "job.json").unlink(), "record-damaged"),
    "an operation's record": (touch("ops/000001.json", content=b"\xff no record"), "record-damaged"),
    "a workflow's record": (touch("workflows/flow/workflow.json", content=b"\xff no record"), "record-damaged"),
    "the user's lock on the index": (in_git("index.lock", old=True), "foreign-lock"),
    "the user's lock on the packed refs": (in_git("packed-refs.lock", old=True), "foreign-lock"),
    "the user's lock on a branch": (in_git("refs/heads/main.lock", old=True), "foreign-lock"),
    "a worktree of the user's that is gone": (gone_worktree, "foreign-worktree-gone"),
    "a lock in a worktree of the user's": (locked_worktree, "foreign-lock"),
    "a workspace that is gone": (gone, "workspace-missing"),
    "a workspace that nobody knows": (stranger, "orphan-workspace"),
    "a store that is gone": (no_store, "snapshot-missing"),
}


@pytest.mark.parametrize("what", NAMED)
def test_what_only_a_person_can_judge_is_named_and_left_alone(bench: Bench, what: str) -> None:
    damage, code = NAMED[what]
    damage(bench)
    before = {
        path: path.read_bytes() for path in bench.git.rglob("*") if path.is_file() and "store.git" not in path.parts
    }
    bench.boss.list()
    assert code in bench.codes()
    bench.mended()
    again = {path: path.read_bytes() for path in before if path.is_file()}
    assert again == before
    assert code in bench.codes()
    (bench.git / "index.lock").unlink(missing_ok=True)
    bench.repo.git("fsck", check=what != "a store that is gone")


def test_a_state_of_no_known_format_is_named(bench: Bench) -> None:
    for content in (b"", b"one\n", b"99\n"):
        (bench.state.root / "format").write_bytes(content)
        assert bench.codes() == {"state-broken"}
        assert bench.mended() == set()
        refused = bench.wt("list", status=70)
        assert len(refused.stderr.splitlines()) == 2


@pytest.mark.parametrize("name", ["job.json", "workflow.json", "000001.json"])
@pytest.mark.parametrize("content", [b"\xff", b"{}", b"[1, 2"])
def test_a_damaged_record_stops_nothing_but_what_is_about_it(bench: Bench, name: str, content: bytes) -> None:
    wt = bench.wt
    wt("merge", "done", "--workflow", "flow", status=0)
    after = bench.repo.head()
    path = {
        "job.json": bench.jobs["done"] / name,
        "workflow.json": bench.state.workflow_dir("flow") / name,
        "000001.json": bench.state.operations / name,
    }[name]
    path.write_bytes(content)
    listed = wt("list", "--json", status=0)
    if name != "000001.json":
        assert [notice["code"] for notice in listed.json["warnings"]] == ["record-damaged"]
        assert str(path) in wt("status").stderr
    names = {row["name"] for row in wt("list", "--all", "--json", status=0).data["jobs"]}
    assert names == ({"mine"} if name == "job.json" else {"mine", "done"})
    more = bench.boss.spawn(name="more", workflow="other")
    (Path(more.workspace or "") / "more.txt").write_text("more\n")
    bench.boss.settle("more")
    assert bench.boss.merge("more").landed
    assert bench.repo.head("HEAD^1") == after
    assert bench.boss.log()
    bench.boss.undo()
    assert bench.repo.head() == after
    bench.boss.clean()
    bench.boss.overlap("more")
    bench.mended()
    assert str(path) in wt("doctor", status=1).stdout
    assert path.read_bytes() == content


def test_a_job_that_could_not_be_captured_is_named_with_the_reason_and_captured(bench: Bench, gate: Gate) -> None:
    bench.wt("spawn", "--workflow", "flow", "--name", "late", "--", "sh", "-c", f"{gate.shell()}; echo x > x", status=0)
    gate.wait_arrivals(1)
    (bench.state.store / "HEAD").write_text("")
    gate.release()
    eventually(
        lambda: [row for row in rows(bench) if row["name"] == "late" and row["state"] == "settling" and row["reason"]]
    )
    assert {"not-captured", "store-damaged"} <= bench.codes()
    assert "job-mended" in bench.mended()
    assert bench.codes() == set()
    late = next(row for row in rows(bench) if row["name"] == "late")
    assert (late["state"], late["result"], late["changedFiles"]) == ("done", "succeeded", 1)


def rows(bench: Bench) -> list[dict[str, Any]]:
    return list(bench.wt("list", "--json", status=0).data["jobs"])


def test_a_job_that_lost_its_supervisor_is_named_and_settled(bench: Bench, gate: Gate) -> None:
    spawned = bench.wt(
        "spawn", "--workflow", "flow", "--name", "late", "--json", "--",
        "sh", "-c", f"echo x > x; {gate.shell()}", status=0,
    ).data["jobs"][0]  # fmt: skip
    gate.wait_arrivals(1)
    directory = bench.state.job_dir("flow", spawned["jobId"])
    os.kill(json.loads((directory / "supervisor.json").read_bytes())["pid"], signal.SIGKILL)
    eventually(lambda: "job-abandoned" in bench.codes())
    assert "job-lost" in bench.mended()
    assert bench.codes() == set()
    gate.release()


def test_a_plugin_that_does_not_load_is_named_and_harms_nobody(bench: Bench, tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "odd-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[worktrees.merge]\nodd = odd.merge:Odd\n")
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    found = bench.wt("doctor", "--json", env={"PYTHONPATH": path}, status=1).data["findings"]
    assert [(finding["code"], finding["path"]) for finding in found] == [("plugin-broken", "merge:odd")]
    bench.wt("merge", "done", env={"PYTHONPATH": path}, status=0)


def test_half_written_objects_of_a_git_at_work_are_left_alone(bench: Bench) -> None:
    path = bench.state.store / "objects/pack/tmp_pack_fresh"
    path.touch()
    assert bench.mended() == set()
    assert path.exists()


def test_neither_gc_nor_prune_ever_runs(bench: Bench, tmp_path: Path) -> None:
    """What a gc or a prune would take is there afterwards: an object that nothing names, a worktree that is gone."""
    loose = bench.repo.git("hash-object", "-w", "--stdin", input="nobody's\n").decode().strip()
    path = bench.git / "objects" / loose[:2] / loose[2:]
    os.utime(path, OLD)
    gone_worktree(bench)
    bench.mended()
    assert path.exists()
    assert (bench.git / "worktrees/usb").is_dir()


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name not in HARMLESS_IN_OTHERS])
def test_somebodys_poisoned_worktree_stops_nothing(bench: Bench, tmp_path: Path, damage: str) -> None:
    repo, wt = bench.repo, bench.wt
    repo.git("worktree", "add", "-q", "-b", "theirs", tmp_path / "theirs")
    repo.git("branch", "side")
    foreign = bench.git / "worktrees/theirs"
    DAMAGES[damage](foreign)
    before = stats(foreign)
    wt("list", status=0)
    wt("status", "mine", status=0)
    assert bench.boss.merge("done").landed
    assert repo.read("done.txt") == b"done\n"
    bench.boss.spawn(name="next", workflow="flow")
    for name in ("next", "mine"):
        bench.boss.settle(name)
    assert bench.boss.merge("mine", into="side").landed
    bench.boss.rollback(workflow="flow")
    bench.boss.undo()
    bench.boss.drop("next")
    bench.boss.clean(unlanded=True)
    assert bench.mended() == set()
    assert bench.codes() == {"foreign-worktree-damaged"}
    assert stats(foreign) == before
    shutil.rmtree(foreign)
    assert bench.codes() == set()


def test_wt_works_from_a_worktree_while_another_is_poisoned(bench: Bench, tmp_path: Path) -> None:
    bench.repo.git("worktree", "add", "-q", "-b", "here", tmp_path / "here")
    bench.repo.git("worktree", "add", "-q", "-b", "theirs", tmp_path / "theirs")
    DAMAGES["commondir empty"](bench.git / "worktrees/theirs")
    here = Wt(tmp_path / "here")
    here("list", status=0)
    here("merge", "done", status=0)
    assert (tmp_path / "here/done.txt").read_text() == "done\n"
    here("undo", status=0)
    here("merge", "done", "--into", "main", status=0)
    assert bench.repo.read("done.txt") == b"done\n"
    shutil.rmtree(bench.git / "worktrees/theirs")
