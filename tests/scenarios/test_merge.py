"""Merging, landing and taking back, as the boss's program sees it: through the modules, with real git."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kit import RepoKit
from tests.merging import Desk, Edit, conflicts, tree_files
from worktrees.changes import overlaps
from worktrees.errors import Refused
from worktrees.landing import landed, operations, recover, rollback, undo
from worktrees.merge import Candidate, Rebase, conflicts_between
from worktrees.model import ChangeSet, FileChange

LINES = [f"line {number}\n" for number in range(1, 31)]


@pytest.fixture
def desk(repo: RepoKit) -> Desk:
    return Desk(repo)


def edited(number: int, text: str) -> str:
    return "".join([*LINES[: number - 1], f"{text}\n", *LINES[number:]])


def change_set(job: Candidate, *paths: str) -> ChangeSet:
    files = [FileChange(path=path, status="M") for path in paths]
    return ChangeSet(job_id=job.job_id, base=job.baseline.start, snapshot=job.snapshot, files=files)


def test_s19_disjoint_edits_are_accepted(desk: Desk) -> None:
    one, two = desk.job({"src/app.py": edited(3, "one")}), desk.job({"docs/guide.md": "two\n", "new": "two\n"})
    sets = [change_set(one, "src/app.py"), change_set(two, "docs/guide.md", "new")]
    assert overlaps(sets) == []
    operation = desk.land([one, two])
    kit = desk.kit
    assert kit.head() == operation.after
    assert kit.read("src/app.py") == edited(3, "one").encode()
    assert (kit.read("docs/guide.md"), kit.read("new")) == (b"two\n", b"two\n")
    assert kit.text("status", "--porcelain") == ""
    assert set(landed(operations(desk.place.state))) == {one.job_id, two.job_id}


def test_s20_an_overlap_is_a_conflict_only_when_contents_do_not_merge(desk: Desk) -> None:
    top, bottom = desk.job({"src/app.py": edited(2, "top")}), desk.job({"src/app.py": edited(29, "bottom")})
    clash = desk.job({"src/app.py": edited(2, "clash")}, name="clash")
    sets = [change_set(each, "src/app.py") for each in (top, bottom, clash)]
    assert {each.path for each in overlaps(sets)} == {"src/app.py"}
    pairs = [(top, bottom), (top, clash), (bottom, clash)]
    found = conflicts_between(desk.place.repo, desk.store, desk.baseline().commit, pairs)
    assert [[each.path for each in answer] for answer in found] == [[], ["src/app.py"], []]
    assert not desk.plan([top, bottom]).conflicted
    assert conflicts(desk.plan([top, bottom, clash])) == {"clash": {("src/app.py", "contents")}}


@pytest.mark.parametrize("pick", [False, True], ids=["merge", "cherry-pick"])
def test_s23_the_tree_is_the_one_git_makes(desk: Desk, tmp_path: Path, pick: bool) -> None:
    """The boss went on, files were renamed, moved, edited on both sides, made executable."""
    kit = desk.kit
    app = kit.read("src/app.py").decode()
    modes: dict[str, Edit] = {
        "README.md": ("100755", "# sample\n\nA repository for tests.\n"),
        "data.bin": bytes(range(255)),
    }
    moves: dict[str, Edit] = {
        "tool.sh": ("100644", "#!/bin/sh\necho tool\n"),
        "docs/guide.md": None,
        "guide.md": "guide\n",
    }
    jobs = [
        desk.job({"src/app.py": None, "src/main.py": edited(3, "renamed and edited")}),
        desk.job({"src/app.py": edited(20, "edited where it was")}),
        desk.job(moves),
        desk.job(modes),
    ]
    kit.write("src/app.py", app + "the boss went on\n")
    kit.write("more.md", "more\n")
    kit.commit("boss")
    plan = desk.plan(jobs, strategy=Rebase() if pick else None)
    assert not plan.conflicted
    oracle = RepoKit(tmp_path / "oracle")
    subprocess.run(["git", "clone", "--quiet", "--shared", kit.path, oracle.path], check=True)
    environment = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": f"{desk.store.path}/objects"}
    for job in jobs:
        words = ["cherry-pick"] if pick else ["merge", "--quiet", "--no-ff", "-m", "merge"]
        oracle.git(*words, job.snapshot, env=environment)
    tree = oracle.git("rev-parse", "HEAD^{tree}", env=environment).decode().strip()
    assert desk.tree_of(plan.after) == tree


def test_s24_two_landings_at_once_are_one_after_the_other(desk: Desk) -> None:
    """Eight processes land at once; each whole, in some order, the rest told that the branch moved."""
    kit = desk.kit
    plans = [desk.plan([desk.job({f"new/{number}": f"{number}\n"})]) for number in range(8)]
    driver = Path(__file__).parent.parent / "landing_driver.py"

    def start(number: int) -> tuple[int, str]:
        record = kit.path.with_name(f"plan-{number}.json")
        record.write_text(plans[number].model_dump_json(by_alias=True))
        done = subprocess.run(
            [sys.executable, driver, kit.path, "land", record], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr

    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(start, range(8)))
    assert [status for status, _ in ended].count(0) == 1
    assert all("`main` moved meanwhile" in text for status, text in ended if status)
    assert len(list((kit.path / "new").iterdir())) == 1
    assert kit.text("status", "--porcelain") == ""
    assert recover(desk.place) == []
    assert [each.state for each in operations(desk.place.state)] == ["done"]


def test_s24_an_edit_made_after_a_crash_is_kept(desk: Desk) -> None:
    """The branch moved, then the power went; before the next command the user edits a file that was to be written."""
    kit = desk.kit
    job = desk.job({"README.md": "merged\n", "src/util.py": "merged\n", "new": "merged\n", "docs/guide.md": None})
    operation = desk.land([job])
    # Back to the moment after the branch moved: files and index as before, and a record that says it is under way.
    kit.git("read-tree", "-m", "-u", "HEAD", operation.before or "")
    record = desk.place.state.operation_path(1)
    record.write_text(operation.model_copy(update={"state": "prepared"}).model_dump_json(by_alias=True))
    record.with_suffix(".lock").write_text("ours\n")
    (kit.path / ".git/index.lock").hardlink_to(record.with_suffix(".lock"))
    kit.write("src/util.py", "edited since\n")
    kit.write("docs/guide.md", "edited since\n")
    kit.write("README.md", "mer")
    findings = recover(desk.place)
    assert [(each.code, each.path) for each in findings] == [
        ("operation-finished", None), ("edit-kept", "docs/guide.md"), ("edit-kept", "src/util.py"),
    ]  # fmt: skip
    assert kit.head() == operation.after
    assert kit.git("status", "--porcelain") == b" M src/util.py\n?? docs/\n"
    assert (kit.read("src/util.py"), kit.read("docs/guide.md")) == (b"edited since\n", b"edited since\n")
    assert (kit.read("README.md"), kit.read("new")) == (b"merged\n", b"merged\n")
    assert recover(desk.place) == []


def test_s24_what_was_staged_after_a_crash_is_kept(desk: Desk) -> None:
    """The user took git's advice and removed the lock, then edited and staged, before the next command."""
    kit = desk.kit
    job = desk.job({"README.md": "merged\n", "src/util.py": "merged\n", "tool.sh": None, "new": "merged\n"})
    operation = desk.land([job])
    kit.git("read-tree", "-m", "-u", "HEAD", operation.before or "")
    record = desk.place.state.operation_path(1)
    record.write_text(operation.model_copy(update={"state": "prepared"}).model_dump_json(by_alias=True))
    record.with_suffix(".lock").write_text("ours\n")
    kit.write("README.md", "staged since\n")
    kit.write("tool.sh", "staged since\n")
    kit.git("add", "README.md", "tool.sh")
    assert [each.code for each in recover(desk.place)] == ["operation-finished"]
    assert kit.head() == operation.after
    assert kit.git("status", "--porcelain") == b"M  README.md\nA  tool.sh\n"
    assert (kit.read("README.md"), kit.read("tool.sh")) == (b"staged since\n", b"staged since\n")
    assert (kit.read("src/util.py"), kit.read("new")) == (b"merged\n", b"merged\n")


def test_s24_whoever_went_on_after_a_crash_is_left_alone(desk: Desk) -> None:
    """The user removed the lock, reset and committed: the operation is over, whatever its record says."""
    kit = desk.kit
    operation = desk.land([desk.job({"README.md": "merged\n"})])
    kit.git("reset", "--quiet", "--hard", operation.before or "")
    kit.write("mine", "mine\n")
    kit.commit("mine")
    record = desk.place.state.operation_path(1)
    record.write_text(operation.model_copy(update={"state": "prepared"}).model_dump_json(by_alias=True))
    record.with_suffix(".lock").write_text("ours\n")
    foreign = kit.path / ".git/index.lock"
    foreign.write_text("somebody else's\n")
    before = kit.fingerprint()
    assert [each.code for each in recover(desk.place)] == ["operation-aborted"]
    assert kit.fingerprint() == before
    assert foreign.read_text() == "somebody else's\n"
    foreign.unlink()


def test_s25_new_commits_are_merged_with_and_dirty_files_stay(desk: Desk) -> None:
    kit = desk.kit
    job = desk.job({"src/app.py": edited(3, "job"), "new": "new\n"})
    kit.write("src/app.py", edited(25, "boss"))
    late = kit.commit("the boss went on")
    kit.write("README.md", "dirty\n")
    kit.write("docs/guide.md", "staged\n")
    kit.git("add", "docs/guide.md")
    kit.write("notes.txt", "untracked\n")
    status, files = kit.git("status", "--porcelain=v2"), tree_files(kit.path)
    operation = desk.land([job])
    assert kit.head(f"{operation.after}^1") == late
    assert kit.git("status", "--porcelain=v2") == status
    both = edited(3, "job").replace("line 25\n", "boss\n").encode()
    assert tree_files(kit.path) == {**files, "src/app.py": both, "new": b"new\n"}


@pytest.mark.parametrize("kind", ["edited", "staged", "untracked", "ignored"])
def test_s25_a_merge_that_would_overwrite_is_refused(desk: Desk, kind: str) -> None:
    kit = desk.kit
    path = {"edited": "README.md", "staged": "README.md", "untracked": "new", "ignored": "new.log"}[kind]
    job = desk.job({path: "merged\n", "other": "merged\n"})
    kit.write(path, "mine\n")
    if kind == "staged":
        kit.git("add", path)
    before = kit.fingerprint()
    with pytest.raises(Refused) as refused:
        desk.land([job])
    assert (refused.value.code, refused.value.exit_status) == ("would-overwrite", 4)
    assert refused.value.details["paths"] == [path]
    assert path in refused.value.message
    assert kit.fingerprint() == before


def test_s26_rollback_restores_all_and_undo_brings_it_back(desk: Desk) -> None:
    kit = desk.kit
    kit.write("README.md", "dirty at the start\n")
    kit.write("early.txt", "untracked at the start\n")
    kit.write("cache.log", "ignored\n")
    workflow = desk.workflow()
    recorded = kit.head(), kit.git("status", "--porcelain=v2"), tree_files(kit.path)
    operation = desk.land([desk.job({"src/app.py": edited(3, "job"), "new": "new\n"})])
    kit.write("src/app.py", "edited later\n")
    kit.write("early.txt", "edited later\n")
    kit.write("late.txt", "untracked later\n")
    kit.commit("later")
    kit.write("later.txt", "untracked, later still\n")
    late = kit.head(), kit.git("status", "--porcelain=v2"), tree_files(kit.path)
    back = rollback(desk.place, workflow)
    assert (kit.head(), kit.git("status", "--porcelain=v2"), tree_files(kit.path)) == recorded
    assert back.jobs == operation.jobs
    undo(desk.place)
    assert (kit.head(), kit.git("status", "--porcelain=v2"), tree_files(kit.path)) == late
