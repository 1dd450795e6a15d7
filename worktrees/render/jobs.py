"""Jobs as people see them: one line each, or a card.

Works on the JSON shape of a job, so that `wt list` needs no pydantic. Standard library only.
"""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import TYPE_CHECKING, Any

from worktrees.render.text import counted, duration, fitted, one_line, shown, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worktrees.render.text import Terminal

Row = dict[str, Any]
_COLORS = {
    "succeeded": "green",
    "failed": "red",
    "lost": "red",
    "expired": "yellow",
    "cancelled": "yellow",
    "running": "cyan",
    "open": "cyan",
}
_HEADERS = ("JOB", "NAME", "STATE", "FILES", "LEASE", "AGE", "WORK")


def state_word(row: Mapping[str, Any]) -> str:
    """Where a job stands, in one word for a done job and its state otherwise."""
    return str(row["result"] if row["state"] == "done" else row["state"])


def state_text(row: Mapping[str, Any]) -> str:
    """Where a job stands with the number that explains it and what became of its work."""
    word = state_word(row)
    if word == "failed" and row["signal"]:
        word += f" (signal {row['signal']})"
    elif word == "failed" and row["exitCode"]:
        word += f" ({row['exitCode']})"
    if row["quarantined"]:
        word += ", quarantined"
    elif row["verified"] is False:
        word += ", unverified"
    if row["landedBy"]:
        word += ", landed"
    elif row["droppedBy"]:
        word += ", dropped"
    return word


def work_text(row: Mapping[str, Any]) -> str:
    """What a job was asked to do: its task, else its command."""
    if row["state"] == "queued" and row["waiting"]:
        return f"waits: {shown(row['waiting'])}"
    if row["task"]:
        return one_line(row["task"])
    if row["command"]:
        return one_line(shlex.join(row["command"]))
    return ""


def _seconds_since(stamp: str | None, now: float) -> float | None:
    return None if stamp is None else max(now - datetime.fromisoformat(stamp).timestamp(), 0)


def _lease(row: Mapping[str, Any], now: float) -> str:
    if row["leaseExpiresAt"] is None or row["state"] == "done":
        return ""
    left = datetime.fromisoformat(row["leaseExpiresAt"]).timestamp() - now
    return duration(left) if left > 0 else "over"


def _age(row: Mapping[str, Any], now: float) -> str:
    """How long it has run, or took, or waits."""
    began = row["startedAt"] or row["createdAt"]
    if row["finishedAt"] is None:
        return duration(_seconds_since(began, now))
    ended = datetime.fromisoformat(row["finishedAt"]).timestamp()
    return duration(_seconds_since(began, ended))


def jobs_table(rows: Sequence[Row], out: Terminal, now: float) -> str:
    """A line for each job, the oldest first."""
    cells = []
    for row in rows:
        text = state_text(row)
        color = _COLORS.get(state_word(row))
        cells.append(
            (
                row["jobId"],
                fitted(shown(row["name"] or ""), 24),
                out.paint(text, color) if color else text,
                "" if row["changedFiles"] is None else str(row["changedFiles"]),
                _lease(row, now),
                _age(row, now),
                work_text(row),
            )
        )
    return table(_HEADERS, cells, out, right=frozenset({3, 5}))


def tally(rows: Sequence[Row]) -> str:
    """`3 jobs: 1 running, 2 succeeded`."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[state_word(row)] = counts.get(state_word(row), 0) + 1
    return f"{counted(len(rows), 'job')}: " + ", ".join(f"{number} {word}" for word, number in counts.items())


def job_card(row: Row, out: Terminal, now: float) -> str:
    """Everything worth knowing of one job, a line for each fact that applies."""
    baseline = row["baseline"]
    facts = [
        ("state", state_text(row)),
        ("why", row["reason"]),
        ("waits", row["waiting"] if row["state"] == "queued" else None),
        ("task", one_line(row["task"]) if row["task"] else None),
        ("command", shlex.join(row["command"]) if row["command"] else None),
        ("access", row["access"]),
        ("sandbox", row["sandbox"] if row["sandbox"] != "none" else None),
        ("workspace", row["workspace"] if row["workspacePresent"] else None),
        ("base", f"{baseline['commit'][:10]} ({baseline['branch'] or 'detached'})" + _left_out(baseline)),
        ("changed", None if row["changedFiles"] is None else counted(row["changedFiles"], "file")),
        ("took" if row["finishedAt"] else "since", _age(row, now)),
        ("lease", _lease(row, now) and f"{_lease(row, now)} left"),
        ("landed", row["landedBy"] and f"by {row['landedBy']}"),
        ("dropped", row["droppedBy"] and f"by {row['droppedBy']}, kept as a snapshot"),
    ]
    title = out.paint(row["jobId"], "bold") + (f" {shown(row['name'])}" if row["name"] else "")
    lines = [f"  {out.paint(f'{label:<9}', 'dim')} {shown(value)}" for label, value in facts if value]
    return "\n".join([title, *lines])


def _left_out(baseline: Mapping[str, Any]) -> str:
    if not baseline["leftOut"]:
        return ""
    return f", without {counted(baseline['leftOut'], 'uncommitted path')} of the checkout"
