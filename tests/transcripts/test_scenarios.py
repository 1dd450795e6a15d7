"""Scenarios through the real command, as a boss at a terminal lives them."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit import Gate, RepoKit, Wt, eventually

OURS = ["refs/wt/*"]


def append(line: str, path: str = "src/app.py") -> tuple[str, ...]:
    """A worker that adds a line at the end of a file."""
    return ("--", "sh", "-c", f"echo {shlex.quote(line)} >> {shlex.quote(path)}")


def replace(number: int, line: str, path: str = "src/app.py") -> tuple[str, ...]:
    """A worker that replaces one line of a file."""
    code = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); l = p.read_text().splitlines(); "
    code += "l[int(sys.argv[2]) - 1] = sys.argv[3]; p.write_text('\\n'.join(l) + '\\n')"
    return ("--", sys.executable, "-c", code, path, str(number), line)


def jobs(wt: Wt) -> dict[str, Any]:
    """Jobs by name."""
    return {job["name"]: job for job in wt("list", "--all", "--json", status=0).data["jobs"]}


def test_s01_spawning_does_not_wait_for_the_worker(repo: RepoKit, wt: Wt, gate: Gate) -> None:
    ids = []
    for name in ("one", "two"):
        spawned = wt(
            "spawn", "--name", name, "--json", "--", "sh", "-c", gate.shell(name) + "; echo done > out", status=0
        )
        ids.append(spawned.data["jobs"][0]["jobId"])
    gate.wait_arrivals(2)

    # Both workers stand at the gate; the boss goes on with work of its own.
    assert {job["state"] for job in jobs(wt).values()} == {"running"}
    repo.write("boss.txt", "working\n")
    repo.commit("the boss goes on")
    assert wt("wait", "--timeout", "0.1s", "--json", status=1).data["timedOut"] is True
    assert {job["state"] for job in jobs(wt).values()} == {"running"}

    gate.release()
    waited = wt("wait", "--json", status=0).data
    assert sorted(waited["completed"]) == sorted(ids)


def test_s03_results_are_collected_into_one_outcome(repo: RepoKit, wt: Wt, gate: Gate) -> None:
    for name in ("a", "b", "c"):
        script = f"{gate.shell(name)}; echo working on {name}; echo {name} > {name}.txt"
        wt("spawn", "--name", name, "--json", "--", "sh", "-c", script, env={"WT_K_WRITE": "3"}, status=0)
    gate.wait_arrivals(3)

    collected = []
    for _ in range(3):
        gate.open_for(1)
        (job_id,) = wt("wait", "--any", "--json", status=0).data["completed"]
        outcome = wt("result", job_id, "--json", status=0).data
        page = wt("events", job_id, "--json", status=0).data
        assert page["done"] is True
        assert [event["type"] for event in page["events"]] == ["message", "final"]
        assert outcome["finalMessage"] == f"working on {outcome['job']['name']}"
        collected.append(outcome["job"]["name"])
    merged = wt("merge", "--json", status=0).data

    assert sorted(collected) == ["a", "b", "c"]
    assert [step["name"] for step in merged["steps"]] == collected
    assert {f"{name}.txt".encode() for name in "abc"} <= repo.tree().keys()
    assert len(wt("log", "--json", status=0).data["operations"]) == 1


BOSS_ONLY = [
    ["spawn", "--", "true"], ["merge"], ["rollback"], ["undo"], ["drop", "one"], ["clean"], ["restore", "one"],
    ["cancel", "one"], ["wait"], ["result", "one"], ["log"], ["overlap"], ["workflow", "close"], ["doctor", "--fix"],
    ["lease", "extend", "one", "1h"], ["settle", "one"], ["diff", "two"],
]  # fmt: skip


def test_s04_a_worker_is_refused_what_is_the_boss_s(repo: RepoKit, wt: Wt) -> None:
    wt("spawn", "--name", "two", status=0)
    before = repo.fingerprint()
    commands = [
        shlex.join([sys.executable, "-P", "-m", "worktrees", *words[:1], "--json", *words[1:]]) for words in BOSS_ONLY
    ]
    grouped = [command.replace("workflow --json close", "workflow close --json") for command in commands]
    grouped = [command.replace("lease --json extend", "lease extend --json") for command in grouped]
    allowed = [
        shlex.join([sys.executable, "-P", "-m", "worktrees", *words, "--json"])
        for words in (["status"], ["diff"], ["schema"])
    ]
    wt("spawn", "--name", "one", "--", "sh", "-c", "; ".join([*grouped, *allowed]), status=0)
    wt("wait", "one", status=0)

    answers = [json.loads(line) for line in wt("logs", "one", "--stdout", status=0).stdout.splitlines()]

    refused, allowed_answers = answers[: len(BOSS_ONLY)], answers[len(BOSS_ONLY) :]
    assert [answer["error"]["code"] for answer in refused] == ["not-boss"] * len(BOSS_ONLY)
    assert [answer["error"] for answer in allowed_answers] == [None] * 3
    assert [job["name"] for job in allowed_answers[0]["data"]["jobs"]] == ["one"]
    assert allowed_answers[1]["data"]["changeSet"]["files"] == []
    assert sorted(jobs(wt)) == ["one", "two"]
    assert wt("log", "--json", status=0).data["operations"] == []
    assert repo.fingerprint() == before


def test_s04_standing_in_a_workspace_makes_a_worker(repo: RepoKit, wt: Wt) -> None:
    place = Path(wt("spawn", "--name", "mine", "--json", status=0).data["jobs"][0]["workspace"])
    deep = place / "src"

    assert wt("spawn", "--json", "--", "true", cwd=deep, status=4).code == "not-boss"
    assert wt("merge", "--json", cwd=deep, status=4).code == "not-boss"
    (deep / "new.py").write_text("new = 1\n")
    (changed,) = wt("diff", "--json", cwd=deep, status=0).data["changeSet"]["files"]
    assert (changed["status"], changed["path"]) == ("A", "src/new.py")

    # Whoever stands in an open workspace may end it.
    assert wt("settle", "--json", cwd=deep, status=0).data["jobs"][0]["result"] == "succeeded"
    assert wt("settle", "--json", cwd=deep, status=4).code == "not-boss"
    assert len(repo.text("worktree", "list").splitlines()) == 2


def test_s13_neither_worker_sees_the_other_s_edit(repo: RepoKit, wt: Wt, gate: Gate) -> None:
    before = repo.fingerprint()
    for name in ("one", "two"):
        script = f"echo {name} >> src/app.py; {gate.shell(name)}; tail -n 1 src/app.py; grep -c '' src/app.py"
        wt("spawn", "--name", name, "--", "sh", "-c", script, status=0)
    gate.wait_arrivals(2)  # both have written by now, neither has read

    assert repo.fingerprint(ignore_refs=OURS) == before
    gate.release()
    wt("wait", status=0)

    for name in ("one", "two"):
        assert wt("logs", name, status=0).stdout == f"{name}\n31\n"
        (changed,) = wt("diff", name, "--json", status=0).data["changeSet"]["files"]
        assert (changed["path"], changed["additions"], changed["deletions"]) == ("src/app.py", 1, 0)
    assert repo.fingerprint(ignore_refs=OURS) == before


def test_s19_disjoint_edits_are_accepted(repo: RepoKit, wt: Wt) -> None:
    wt("spawn", "--name", "app", *append("app = True"), status=0)
    wt("spawn", "--name", "docs", *append("more", "docs/guide.md"), status=0)
    wt("wait", status=0)

    ahead = wt("overlap", "--json", status=0).data
    assert (ahead["overlaps"], ahead["conflicts"]) == ([], [])
    assert {(step["name"], step["outcome"]) for step in ahead["plan"]} == {("app", "landed"), ("docs", "landed")}
    merged = wt("merge", "--json", status=0).data

    assert {step["outcome"] for step in merged["steps"]} == {"landed"}
    assert merged["overlaps"] == []
    assert repo.head() == merged["after"]
    assert repo.read("src/app.py").endswith(b"line 30\napp = True\n")
    assert repo.read("docs/guide.md") == b"guide\nmore\n"
    assert repo.text("status", "--porcelain") == ""


def test_s20_an_overlap_is_flagged_and_only_some_are_conflicts(repo: RepoKit, wt: Wt) -> None:
    wt("spawn", "--name", "top", *replace(1, "TOP"), env={"WT_K_WRITE": "3"}, status=0)
    wt("spawn", "--name", "end", *replace(30, "END"), env={"WT_K_WRITE": "3"}, status=0)
    wt("spawn", "--name", "again", *replace(30, "again"), env={"WT_K_WRITE": "3"}, status=0)
    wt("wait", status=0)
    names = {job["jobId"]: name for name, job in jobs(wt).items()}

    found = wt("overlap", "--json", status=1)

    flagged = {frozenset(names[job] for job in item["jobs"]): item["conflict"] for item in found.data["overlaps"]}
    assert flagged == {
        frozenset({"top", "end"}): False,
        frozenset({"top", "again"}): False,
        frozenset({"end", "again"}): True,
    }
    (conflict,) = found.data["conflicts"]
    assert (conflict["path"], conflict["kind"]) == ("src/app.py", "contents")
    assert found.code == "conflict-ahead"
    assert wt("overlap", "top", "end", "--json", status=1).code == "overlap"

    # The two that overlap but merge, do; unless that is not wanted.
    assert wt("merge", "top", "end", "--on-overlap", "refuse", "--json", status=4).code == "overlap"
    merged = wt("merge", "top", "end", "--json", status=0).data
    assert [(item["path"], item["conflict"]) for item in merged["overlaps"]] == [("src/app.py", False)]

    # The third conflicts with what has landed: nothing moves.
    before = repo.fingerprint()
    stopped = wt("merge", "again", "--json", status=3)
    assert stopped.code == "conflict"
    (step,) = stopped.data["steps"]
    assert (step["outcome"], step["conflicts"]) == (
        "conflict", [{"path": "src/app.py", "pathBase64": None, "kind": "contents"}],
    )  # fmt: skip
    assert stopped.data["landed"] is False
    assert repo.fingerprint() == before


def test_s20_what_merges_lands_when_the_rest_is_skipped(repo: RepoKit, wt: Wt) -> None:
    for name, number in (("one", 1), ("two", 1), ("three", 30)):
        wt("spawn", "--name", name, *replace(number, name.upper()), status=0)
        wt("wait", name, status=0)

    assert wt("merge", "--json", status=3).data["landed"] is False
    skipped = wt("merge", "--on-conflict", "skip", "--json", status=3)

    assert [(step["name"], step["outcome"]) for step in skipped.data["steps"]] == [
        ("one", "landed"), ("two", "conflict"), ("three", "landed"),
    ]  # fmt: skip
    assert repo.read("src/app.py").startswith(b"ONE\n")
    assert repo.read("src/app.py").endswith(b"THREE\n")
    assert {name for name, job in jobs(wt).items() if job["landedBy"]} == {"one", "three"}


def test_s25_the_boss_went_on_meanwhile(repo: RepoKit, wt: Wt) -> None:
    wt("spawn", "--name", "one", *append("from the worker"), status=0)
    wt("wait", status=0)
    repo.write("docs/guide.md", "guide, by the boss\n")
    repo.commit("the boss goes on")
    repo.write("src/util.py", "edited, not committed\n")
    repo.write("notes", "untracked\n")
    status = repo.text("status", "--porcelain")

    wt("merge", status=0)

    assert repo.read("docs/guide.md") == b"guide, by the boss\n"
    assert repo.read("src/app.py").endswith(b"from the worker\n")
    assert repo.read("src/util.py") == b"edited, not committed\n"
    assert repo.text("status", "--porcelain") == status


@pytest.mark.parametrize("how", ["edited", "staged", "untracked"])
def test_s25_a_merge_that_would_overwrite_is_refused(repo: RepoKit, wt: Wt, how: str) -> None:
    path = "new.txt" if how == "untracked" else "src/app.py"
    wt("spawn", "--name", "one", *append("from the worker", path), *(), status=0)
    wt("wait", status=0)
    repo.write(path, "mine\n")
    if how == "staged":
        repo.git("add", path)
    before = repo.fingerprint()

    refused = wt("merge", "--json", status=4)

    assert refused.code == "would-overwrite"
    assert refused.json["error"]["details"]["paths"] == [path]
    assert f"`{path}`" in refused.json["error"]["message"]
    assert repo.fingerprint() == before
    # Out of the way, it lands.
    repo.git("stash", "--include-untracked", "--quiet")
    wt("merge", status=0)


def test_s26_a_rollback_restores_everything_and_undo_brings_it_back(repo: RepoKit, wt: Wt) -> None:
    repo.write("src/util.py", "edited before the start\n")
    repo.write("scratch", "untracked before the start\n")
    repo.write("build/cache", "ignored\n")
    begin = repo.fingerprint()
    wt("spawn", "--name", "one", *append("from the worker"), status=0)
    wt("wait", status=0)
    wt("merge", status=0)
    repo.write("later", "made after the merge\n")
    repo.write("scratch", "edited after the merge\n")
    repo.write("build/cache", "ignored, and newer\n")
    repo.git("add", "later")
    later = repo.fingerprint()

    rolled = wt("rollback", "--json", status=0).data

    after = repo.fingerprint(ignore_refs=[*OURS, "refs/heads/main", "HEAD"])
    assert rolled["operation"]["kind"] == "rollback"
    assert {key: value for key, value in after.items() if key.startswith("file:") and "build/" not in key} == {
        key: value for key, value in begin.items() if key.startswith("file:") and "build/" not in key
    }
    assert repo.read("build/cache") == b"ignored, and newer\n"
    assert repo.text("status", "--porcelain") == "M src/util.py\n?? scratch"
    assert jobs(wt)["one"]["landedBy"] is None

    wt("undo", status=0)

    files = {key: value for key, value in repo.fingerprint().items() if key.startswith("file:")}
    assert files == {key: value for key, value in later.items() if key.startswith("file:")}
    assert "A  later" in repo.git("status", "--porcelain").decode()
    assert jobs(wt)["one"]["landedBy"] == "op-000001"


def test_s26_a_merge_that_was_rolled_back_can_be_merged_again(repo: RepoKit, wt: Wt) -> None:
    wt("spawn", "--name", "one", *append("from the worker"), status=0)
    wt("wait", status=0)
    wt("merge", status=0)
    assert [
        workflow["closedAt"] is None for workflow in wt("workflow", "list", "--all", "--json").data["workflows"]
    ] == [False]

    wt("rollback", status=0)
    assert wt("merge", "--json", status=0).data["landed"] is True
    wt("undo", status=0)
    merged = wt("merge", "--json", status=0).data

    assert merged["operationId"] == "op-000005"
    assert repo.head() == merged["after"]
    eventually(
        lambda: len(repo.text("for-each-ref", "refs/wt").splitlines()) == 0, what="refs of a closed workflow gone"
    )
