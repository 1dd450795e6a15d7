"""Workspaces go and come back; nothing a worker wrote goes with them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit import Gate, RepoKit, Wt, eventually
from worktrees.boss import Boss
from worktrees.config import Settings
from worktrees.isolation import Place
from worktrees.jobs import removal
from worktrees.model import Job


def job(wt: Wt, name: str) -> dict[str, Any]:
    """One job, whatever became of it."""
    found: dict[str, Any] = wt("status", name, "--json", status=0).data["jobs"][0]
    return found


def opened(wt: Wt, name: str) -> Path:
    """An open workspace."""
    return Path(wt("spawn", "--name", name, "--json", status=0).data["jobs"][0]["workspace"])


CODE = Path(__file__).parents[2]
DIES_BRINGING_IGNORED = """
import os, sys
from worktrees.boss import Boss
from worktrees.jobs import removal
removal._bring_ignored = lambda *_: os._exit(9)
getattr(Boss(sys.argv[1]), sys.argv[2])(*sys.argv[3:])
"""


def worked(wt: Wt, name: str, script: str) -> Path:
    """A finished job; its workspace."""
    wt("spawn", "--name", name, "--", "sh", "-c", script, status=0)
    wt("wait", name, status=0)
    return Path(job(wt, name)["workspace"])


def contents(place: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a workspace but git's own."""
    found = {}
    for path in sorted(place.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(place))] = (0o120000, os.fsencode(os.readlink(path)))
        elif path.is_file() and path.name != ".git":
            found[str(path.relative_to(place))] = (path.stat().st_mode, path.read_bytes())
    return found


def test_a_dropped_job_comes_back_as_it_was(repo: RepoKit, wt: Wt) -> None:
    script = "echo x >> src/app.py; mkdir -p deep/er; printf '\\0\\1' > deep/er/bin; ln -s ../README.md deep/link"
    place = worked(
        wt,
        "one",
        script + "; rm tool.sh; mkdir -p build; echo cache > build/cache; echo log > deep/a.log; chmod +x README.md",
    )
    before = contents(place)

    dropped = wt("drop", "one", "--json", status=0).data
    assert [(removal["name"], removal["outcome"]) for removal in dropped["removals"]] == [("one", "removed")]
    assert not place.exists()
    assert len(repo.text("worktree", "list").splitlines()) == 1
    assert job(wt, "one")["droppedBy"] == dropped["operationId"]

    wt("restore", "one", status=0)

    assert contents(place) == before
    assert job(wt, "one")["droppedBy"] is None
    assert wt("merge", "--json", status=0).data["landed"] is True


def test_a_job_that_was_dropped_before_stays_dropped(wt: Wt) -> None:
    for name in ("one", "two"):
        (opened(wt, name) / name).write_text("x\n")
    first = wt("drop", "one", "--json", status=0).data["operationId"]

    both = wt("drop", "one", "two", "--json", status=0)

    assert [notice["code"] for notice in both.json["warnings"]] == ["dropped-before"]
    assert job(wt, "one")["droppedBy"] == first
    assert job(wt, "two")["droppedBy"] == both.data["operationId"]
    assert wt("log", "--json", status=0).data["operations"][0]["jobs"] == [job(wt, "two")["jobId"]]

    wt("undo", status=0)

    assert job(wt, "two")["droppedBy"] is None
    assert job(wt, "one")["droppedBy"] == first, "its own operation was not undone"
    assert wt("drop", "one", "--json", status=0).data["operationId"] is None, "nothing was left to give up"


def test_edits_after_the_end_are_kept_too(wt: Wt) -> None:
    place = worked(wt, "one", "echo x > new")
    (place / "later").write_text("by hand, after the record was made\n")
    (place / "new").write_text("changed by hand\n")

    dropped = wt("drop", "one", "--json", status=0)

    assert dropped.data["removals"][0]["editedSince"] == ["later", "new"]
    assert [notice["code"] for notice in dropped.json["warnings"]] == ["edited-since"]
    # The record is what the worker did, the workspace is what was there.
    files = wt("diff", "one", "--json", status=0).data["changeSet"]["files"]
    assert [file["path"] for file in files] == ["new"]
    wt("restore", "one", status=0)
    assert (place / "later").read_text() == "by hand, after the record was made\n"
    assert (place / "new").read_text() == "changed by hand\n"


def test_commits_that_only_the_workspace_knew_are_kept(repo: RepoKit, wt: Wt) -> None:
    place = opened(wt, "mine")
    (place / "draft").write_text("first\n")
    repo.git("add", "draft", cwd=place)
    repo.git("commit", "--quiet", "-m", "a draft", cwd=place)
    commit = repo.git("rev-parse", "HEAD", cwd=place).decode().strip()
    (place / "draft").unlink()

    wt("drop", "mine", status=0)
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--quiet", "--prune=now")

    store = repo.path / ".git" / "wt-state" / "store.git"
    assert repo.git("--git-dir", store, "show", f"{commit}:draft") == b"first\n"


def test_an_open_job_is_settled_before_it_is_dropped(wt: Wt) -> None:
    place = opened(wt, "mine")
    (place / "new").write_text("x\n")

    wt("drop", "mine", status=0)

    assert (job(wt, "mine")["state"], job(wt, "mine")["changedFiles"]) == ("done", 1)
    assert not place.exists()


def test_what_runs_is_not_dropped(wt: Wt, gate: Gate) -> None:
    wt("spawn", "--name", "one", "--", "sh", "-c", gate.shell(), status=0)
    gate.wait_arrivals(1)

    refused = wt("drop", "one", "--json", status=4)

    assert refused.code == "job-unfinished"
    assert refused.json["error"]["hint"] == "wt cancel one && wt wait one"
    gate.release()
    wt("wait", status=0)


def test_a_workspace_somebody_stands_in_stays(wt: Wt) -> None:
    place = worked(wt, "one", "echo x > new")
    worked(wt, "two", "echo x > other")
    with subprocess.Popen(["sleep", "600"], cwd=place) as process:
        eventually(lambda: os.readlink(f"/proc/{process.pid}/cwd") == str(place))
        refused = wt("drop", "two", "one", "--json", status=4)
        cleaned = wt("clean", "--all", "--json", status=0).data["removals"]
        process.kill()

    assert refused.code == "live-processes"
    assert refused.json["error"]["details"]["pids"] == [process.pid]
    assert f"sleep ({process.pid})" in refused.json["error"]["message"]
    # All or none of those named; of those cleaned, the others.
    assert {removal["name"]: removal["outcome"] for removal in cleaned} == {"one": "kept", "two": "removed"}
    assert place.exists()


def test_what_no_snapshot_can_hold_keeps_the_workspace_until_it_is_let_go(wt: Wt) -> None:
    wt("spawn", "--name", "one", "--", "sh", "-c", "mkfifo pipe; echo x > made", status=0)
    wt("wait", status=0)
    workspace = Path(wt("status", "one", "--json", status=0).data["jobs"][0]["workspace"])

    refused = wt("drop", "one", status=4)

    assert "`pipe`" in refused.stderr
    assert "wt drop --force one" in refused.stderr
    assert wt("drop", "one", "--json", status=4).code == "not-captured"
    assert (workspace / "pipe").is_fifo()
    wt("clean", "--all", status=0)
    assert (workspace / "pipe").is_fifo(), "clean keeps it as well"
    wt("drop", "--force", "one", status=0)
    assert not workspace.exists()
    wt("restore", "one", status=0)
    assert (workspace / "made").read_text() == "x\n"


def test_a_snapshot_outlives_the_branch_it_was_made_on(repo: RepoKit, wt: Wt) -> None:
    repo.git("switch", "--quiet", "-c", "side")
    repo.write("only-there.txt", "unchanged by the worker\n")
    repo.commit("only on the side branch")
    worked(wt, "one", "echo x > new")
    wt("drop", "one", status=0)
    repo.git("switch", "--quiet", "main")
    repo.git("branch", "-D", "side")
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--quiet", "--prune=now")

    assert wt("doctor", "--json", status=0).data["findings"] == []
    wt("restore", "one", status=0)

    place = Path(job(wt, "one")["workspace"])
    assert (place / "only-there.txt").read_text() == "unchanged by the worker\n"
    assert (place / "new").read_text() == "x\n"


def test_a_dry_run_removes_nothing(wt: Wt) -> None:
    place = worked(wt, "one", "echo x > new")
    opened(wt, "two")

    would = wt("drop", "-n", "one", "--json", status=0).data
    all_of_them = wt("clean", "-n", "--all", "--json", status=0).data["removals"]

    assert (would["dryRun"], would["operationId"]) == (True, None)
    (removal,) = would["removals"]
    assert (removal["outcome"], removal["state"]) == ("would-remove", "done")
    assert [(each["name"], each["state"], each["outcome"]) for each in all_of_them] == [
        ("one", "done", "would-remove"), ("two", "open", "kept"),
    ]  # fmt: skip
    assert removal["sizeBytes"] > 0
    assert removal["ageSeconds"] >= 0
    assert place.exists()
    assert wt("log", "--json").data["operations"] == []


def test_a_drop_can_be_undone_and_the_undo_too(wt: Wt) -> None:
    place = worked(wt, "one", "echo x > new")
    worked(wt, "two", "echo x > other")
    wt("drop", "one", "two", status=0)
    assert wt("merge", "--json", status=0).data["steps"] == []

    undone = wt("undo", "--json", status=0).data
    assert [item["name"] for item in undone["jobs"]] == ["one", "two"]
    assert (place / "new").exists()
    assert len(wt("list", "--json", status=0).data["jobs"]) == 2  # their workflow is open again

    wt("undo", status=0)
    assert not place.exists()
    assert job(wt, "one")["droppedBy"] == "op-000003"
    assert wt("undo", "op-000002", "--json", status=4).code == "already-undone"
    assert [operation["kind"] for operation in wt("log", "--json").data["operations"]] == ["undo", "undo", "drop"]


def test_clean_takes_what_landed_and_what_is_nothing(repo: RepoKit, wt: Wt) -> None:
    places = {
        "landed": worked(wt, "landed", "echo landed >> src/app.py"),
        "by hand": worked(wt, "by-hand", "echo more >> docs/guide.md"),
        "nothing": worked(wt, "nothing", "true"),
        "waits": worked(wt, "waits", "echo x > new"),
    }
    wt("merge", "landed", status=0)
    repo.write("docs/guide.md", "guide\nmore\n")
    repo.commit("the same, by hand")

    removals = wt("clean", "--json", status=0).data["removals"]

    assert {removal["name"]: (removal["outcome"], removal["landed"]) for removal in removals} == {
        "landed": ("removed", True),
        "by-hand": ("removed", True),
        "nothing": ("removed", False),
        "waits": ("kept", False),
    }
    assert {name for name, place in places.items() if place.exists()} == {"waits"}
    assert "not landed" in next(removal["reason"] for removal in removals if removal["name"] == "waits")


def test_clean_makes_room_and_loses_nothing(repo: RepoKit, wt: Wt) -> None:
    place = worked(wt, "one", "echo x > new; echo ignored > a.log")
    before = contents(place)
    assert wt("clean", "--all", "--older-than", "1h", "--json").data["removals"][0]["reason"] == "too recent"
    assert place.exists()

    wt("clean", "--all", status=0)
    assert not place.exists()
    assert wt("log", "--json").data["operations"] == []
    wt("restore", "one", status=0)
    assert contents(place) == before
    wt("clean", "--all", status=0)

    # What was cleaned away merges as if it were there.
    wt("merge", status=0)
    assert repo.read("new") == b"x\n"


def test_ignored_files_are_kept_up_to_a_limit(repo: RepoKit, wt: Wt) -> None:
    repo.git("config", "wt.keepIgnoredBytes", "1k")
    place = worked(wt, "one", "echo small > a.log; head -c 5000 /dev/zero > b.log; echo x > new")

    answer = wt("drop", "one", "--json", status=0)
    wt("restore", "one", status=0)

    assert (place / "a.log").read_text() == "small\n"
    assert not (place / "b.log").exists()
    assert [(warning["code"], "b.log" in warning["message"]) for warning in answer.json["warnings"]] == [
        ("ignored-not-kept", True)
    ]


def test_of_an_ignored_directory_what_cannot_be_kept_is_named(wt: Wt) -> None:
    """A repository inside keeps its files and loses its history, as one that is not ignored does."""
    place = worked(
        wt, "one", "mkdir build; echo out > build/out; git init -q build/clone; echo work > build/clone/work; "
        "mkfifo build/pipe; echo odd > build/git~1; echo x > new",
    )  # fmt: skip

    answer = wt("drop", "one", "--json", status=0)
    wt("restore", "one", status=0)

    assert (place / "build" / "out").read_text() == "out\n"
    assert (place / "build" / "clone" / "work").read_text() == "work\n"
    (removal,) = answer.data["removals"]
    assert {each["path"] for each in removal["ignoredNotKept"]} == {"build/clone/.git", "build/pipe", "build/git~1"}
    assert [warning["code"] for warning in answer.json["warnings"]] == ["ignored-not-kept"]
    assert "build/clone/.git" in answer.json["warnings"][0]["message"]


def test_late_edits_that_were_taken_back_do_not_come_back(wt: Wt) -> None:
    place = worked(wt, "one", "echo x > new")
    (place / "late").write_text("late\n")
    wt("drop", "one", status=0)
    wt("restore", "one", status=0)
    (place / "late").unlink()
    wt("drop", "one", status=0)

    wt("restore", "one", status=0)

    assert not (place / "late").exists()
    assert (place / "new").read_text() == "x\n"


def test_what_is_written_while_others_are_captured_is_kept(wt: Wt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes by absolute path stands nowhere, so nothing says that somebody is at work."""
    one, two = (worked(wt, name, "echo x > new") for name in ("one", "two"))
    real = removal._capture

    def meanwhile(place: Place, job: Job, settings: Settings, *, force: bool = False) -> Any:
        if job.name == "two" and not (one / "late").exists() and one.exists():
            (one / "late").write_text("late\n")
        return real(place, job, settings, force=force)

    monkeypatch.setattr(removal, "_capture", meanwhile)
    removals = Boss(wt.cwd).drop("one", "two").removals
    assert [each.edited_since for each in removals] == [["late"], []]
    assert not two.exists()
    wt("restore", "one", status=0)
    assert (one / "late").read_text() == "late\n"


@pytest.mark.parametrize("verb", ["restore", "undo"])
def test_ignored_files_come_back_though_whoever_brought_them_died(repo: RepoKit, wt: Wt, verb: str) -> None:
    place = worked(wt, "one", "echo ignored > a.log; echo x > new")
    wt("drop", "one", status=0)
    words = ["one"] if verb == "restore" else []
    died = subprocess.run(
        [sys.executable, "-c", DIES_BRINGING_IGNORED, repo.path, verb, *words], check=False, cwd=CODE
    )  # fmt: skip
    assert (died.returncode, place.is_dir(), (place / "a.log").exists()) == (9, True, False)

    wt(verb, *words, status=0)

    assert (place / "a.log").read_text() == "ignored\n"
    assert job(wt, "one")["droppedBy"] is None


def test_nothing_is_written_through_a_link_when_ignored_files_come_back(wt: Wt, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    place = worked(wt, "one", "mkdir logs; echo mine > logs/a.log; echo x > new")
    wt("drop", "one", status=0)
    wt("restore", "one", status=0)
    (place / "logs" / "a.log").unlink()
    (place / "logs").rmdir()
    (place / "logs").symlink_to(outside)
    wt("drop", "one", status=0)

    wt("restore", "one", status=0)

    assert list(outside.iterdir()) == []
    assert os.readlink(place / "logs") == str(outside)


@pytest.mark.parametrize("words", [("restore", "one"), ("restore", "mine")])
def test_what_is_there_needs_no_restoring(wt: Wt, words: tuple[str, ...]) -> None:
    worked(wt, "one", "true")
    opened(wt, "mine")

    assert wt(*words, "--json", status=4).code == "workspace-present"


def test_a_workflow_closes_when_its_last_job_is_dropped_or_has_landed(repo: RepoKit, wt: Wt) -> None:
    worked(wt, "one", "echo x > new")
    worked(wt, "two", "echo x > other")
    wt("merge", "one", status=0)
    assert len(wt("workflow", "list", "--json").data["workflows"]) == 1

    wt("drop", "two", status=0)

    [closed] = wt("workflow", "list", "--all", "--json").data["workflows"]
    assert closed["closedAt"] is not None
    assert repo.text("for-each-ref", "--format=%(refname)", "refs/wt") == f"refs/wt/{closed['workflowId']}/base"
    wt("restore", "two", status=0)
    wt("merge", status=0)
    assert repo.text("for-each-ref", "refs/wt") == "", "no snapshot needs it any more"
    assert wt("rollback", "--json", status=0).data["operation"]["kind"] == "rollback"
