"""What people and programs read: safe text, tables, the envelope."""

import io
import json
from typing import Any

import pytest

from worktrees.errors import Refused
from worktrees.model import (
    Baseline,
    ChangeSet,
    FileChange,
    Job,
    JobId,
    Merged,
    Oid,
    OperationId,
    Overlap,
    Step,
    WorkflowName,
)
from worktrees.render.answers import changes_text, merged_text, names_text
from worktrees.render.envelope import encode, envelope
from worktrees.render.jobs import job_card, jobs_table, state_word, tally
from worktrees.render.text import Terminal, cell_width, duration, fitted, listed, shown, size, table, terminal

PLAIN = Terminal()
COLOR = Terminal(color=True)
OID = Oid("1" * 40)
OTHER = Oid("2" * 40)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain.py", "plain.py"),
        ("grün ✓", "grün ✓"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J\x07", "\\e[2J\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\xe9"),
    ],
)
def test_no_text_can_drive_the_terminal(text: str, safe: str) -> None:
    assert shown(text) == safe


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (0.44, "0.4s"),
        (12.3, "12s"),
        (99, "99s"),
        (180, "3m"),
        (3600, "1h"),
        (4800, "1h20m"),
        (90000, "25h"),
        (200000, "2d"),
        (None, ""),
    ],
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_are_short() -> None:
    assert [size(n) for n in (None, 0, 999, 1000, 1_540_000, 123_000_000, 5 * 10**12)] == [
        "", "0 B", "999 B", "1.0 kB", "1.5 MB", "123 MB", "5.0 TB",
    ]  # fmt: skip


def test_long_lists_are_counted() -> None:
    assert listed(["a", "b"]) == "`a`, `b`"
    assert listed([str(n) for n in range(8)], 3) == "`0`, `1`, `2` and 5 more"


def test_width_counts_columns_and_not_characters() -> None:
    assert cell_width("abc") == 3
    assert cell_width("漢字") == 4
    assert cell_width("e\u0301") == 1
    assert cell_width("\x1b[31mred\x1b[0m") == 3
    assert fitted("漢字漢字", 5) == "漢字…"
    assert fitted("abc", 3) == "abc"


def test_a_table_is_aligned_and_leaves_empty_columns_out() -> None:
    text = table(("A", "B", "C", "D"), [("x", "", "10", "last"), ("long", "", "2", "")], PLAIN, right=frozenset({2}))

    assert text == "A      C  D\nx     10  last\nlong   2"


def test_the_last_column_is_cut_to_the_terminal() -> None:
    text = table(("A", "WORK"), [("x", "a very long piece of work")], Terminal(width=20))

    assert [len(line) for line in text.splitlines()] == [7, 20]
    assert text.endswith("…")


def test_colour_needs_a_terminal_and_no_objection(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert terminal(Screen(), {"TERM": "xterm", "COLUMNS": "88"}) == Terminal(color=True, width=88)
    assert not terminal(Screen(), {"TERM": "xterm", "COLUMNS": "88", "NO_COLOR": "1"}).color
    assert not terminal(Screen(), {"TERM": "dumb", "COLUMNS": "88"}).color
    assert terminal(io.StringIO(), {"TERM": "xterm"}) == Terminal(color=False, width=None)
    assert terminal(io.StringIO(), {"FORCE_COLOR": "1"}).color
    assert not terminal(io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}).color


def test_the_envelope_is_one_line_of_utf8_whatever_it_holds() -> None:
    name = b"caf\xe9\n".decode("utf-8", "surrogateescape")
    encoded = encode(envelope("list", {"name": name}, warnings=[{"code": "c", "message": "m"}]))

    assert encoded.count(b"\n") == 1
    assert json.loads(encoded.decode("utf-8"))["data"] == {"name": name}


def test_an_error_is_in_the_envelope_with_everything_it_carries() -> None:
    error = Refused("no", code="not-boss", hint="wt status", details={"a": 1})

    assert envelope("merge", None, error=error) == {
        "schema": 1,
        "command": "merge",
        "ok": False,
        "data": None,
        "warnings": [],
        "error": {"code": "not-boss", "message": "no", "hint": "wt status", "details": {"a": 1}},
    }


def job(**changes: Any) -> dict[str, Any]:
    """A job as JSON."""
    plain = Job(
        job_id=JobId("j-23456789"),
        name="audit",
        workflow_id=WorkflowName("w-1"),
        command=["make", "all tests"],
        state="done",
        result="succeeded",
        baseline=Baseline(commit=OID, branch="main"),
        created_at="2026-01-01T00:00:00.000Z",
        started_at="2026-01-01T00:00:01.000Z",
        finished_at="2026-01-01T00:00:13.000Z",
        changed_files=3,
    )
    return plain.model_copy(update=changes).dump()


NOW = 1_767_225_660.0  # a minute after the job was made


def test_a_job_is_one_line() -> None:
    text = jobs_table([job()], PLAIN, NOW)

    assert text.splitlines() == [
        "JOB         NAME   STATE      FILES  AGE  WORK",
        "j-23456789  audit  succeeded      3  12s  make 'all tests'",
    ]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"result": "failed", "exit_code": 2}, "failed (2)"),
        ({"result": "failed", "signal": 9}, "failed (signal 9)"),
        ({"landed_by": "op-000001"}, "succeeded, landed"),
        ({"dropped_by": "op-000001"}, "succeeded, dropped"),
        ({"verified": False}, "succeeded, unverified"),
        ({"quarantined": True, "verified": False}, "succeeded, quarantined"),
        ({"state": "running", "result": None, "finished_at": None}, "running"),
    ],
)
def test_the_state_says_what_became_of_the_work(changes: dict[str, Any], state: str) -> None:
    assert f"  {state}  " in jobs_table([job(**changes)], PLAIN, NOW)


def test_a_queued_job_says_why_it_waits() -> None:
    waiting = job(
        state="queued", result=None, started_at=None, finished_at=None, waiting="2 of 2 write slots taken by a, b"
    )

    assert "waits: 2 of 2 write slots taken by a, b" in jobs_table([waiting], PLAIN, NOW)


def test_a_name_cannot_clear_the_screen() -> None:
    text = jobs_table([job(name="\x1b[2Jx", task="two\nlines")], PLAIN, NOW)

    assert "\x1b" not in text
    assert len(text.splitlines()) == 2


def test_jobs_are_counted_by_where_they_stand() -> None:
    running = job(state="running", result=None)

    assert tally([state_word(row) for row in (job(), running, running)]) == "3 jobs: 1 succeeded, 2 running"


def test_the_card_names_what_was_left_out() -> None:
    baseline = Baseline(commit=OID, branch="main", dirty_count=2, left_out=2)
    text = job_card(job(baseline=baseline, reason="ended with status 2"), PLAIN, NOW)

    assert "base      1111111111 (main), without 2 uncommitted paths of the checkout" in text
    assert "why       ended with status 2" in text


def change(path: str, status: str = "M", **more: Any) -> FileChange:
    """A changed file."""
    return FileChange.model_validate({"path": path, "status": status, **more})


def test_changes_are_aligned_and_summed_up() -> None:
    changed = ChangeSet(
        job_id=JobId("j-23456789"),
        base=OID,
        snapshot=OTHER,
        files=[
            change("a.py", additions=10, deletions=2),
            change("new", "A", additions=1, deletions=0, newMode="100755"),
            change("b", "R", oldPath="a", additions=0, deletions=0),
            change("pic.png", binary=True, sensitive=True),
        ],
        touched_but_unreported=["a.py"],
    )

    assert changes_text(changed, PLAIN).splitlines() == [
        " M  +10 -2  a.py",
        " A  +1      new",
        " R          a -> b",
        " M  binary  pic.png  (sensitive)",
        "4 files changed, 11 insertions, 2 deletions",
        "touched but unreported: `a.py`",
    ]
    assert names_text(changed) == "a.py\nnew\nb\npic.png"
    assert "\x1b[32m+10\x1b[0m" in changes_text(changed, COLOR)


def test_a_merge_says_what_happened_and_how_to_take_it_back() -> None:
    steps = [Step(job_id=JobId("j-1"), name="audit", outcome="landed", commit=OTHER, files=2)]
    overlaps = [Overlap(path="a.py", jobs=[JobId("j-1"), JobId("j-2")], conflict=False)]
    merged = Merged(
        operation_id=OperationId("op-000001"),
        landed=True,
        branch="main",
        before=OID,
        after=OTHER,
        strategy="three-way",
        steps=steps,
        overlaps=overlaps,
    )

    assert merged_text(merged, PLAIN).splitlines() == [
        "JOB    OUTCOME  COMMIT      WHAT",
        "audit  landed   2222222222  2 files",
        "changed by two jobs, and merged: `a.py`",
        "Landed on main 1111111111..2222222222 as op-000001; take it back with: wt undo",
    ]
    assert merged_text(merged, PLAIN, commit="git commit").splitlines()[1:] == [
        "audit  merges   2 files",
        "changed by two jobs, and merged: `a.py`",
        "Laid into main as op-000001, not committed; take it back with: wt undo, or go on with: git commit",
    ]
    nothing = Merged(branch="main", before=OID, after=OID, strategy="three-way")
    assert merged_text(nothing, PLAIN) == "Already up to date: nothing to merge into main."
