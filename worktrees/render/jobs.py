"""Jobs as people see them: one line each, or a card.

Works on the JSON shape of a job, so that `wt list` needs no pydantic. Standard library only.
"""

from __future__ import annotations

from worktrees.render.text import counted, duration, fitted, one_line, shown, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeAlias

    from worktrees.render.text import Terminal

    Row: TypeAlias = dict[str, Any]

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
_STATE = 2


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
        import shlex

        return one_line(shlex.join(row["command"]))
    return ""


def _seconds(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()


def _lease(row: Mapping[str, Any], now: float) -> str:
    if row["leaseExpiresAt"] is None or row["state"] == "done":
        return ""
    left = _seconds(row["leaseExpiresAt"]) - now
    return duration(left) if left > 0 else "over"


def _age(row: Mapping[str, Any], now: float) -> str:
    """How long it has run, or took, or waits."""
    began = _seconds(row["startedAt"] or row["createdAt"])
    ended = _seconds(row["finishedAt"]) if row["finishedAt"] is not None else now
    return duration(max(ended - began, 0))


def job_cells(row: Row, now: float) -> list[str]:
    """What the table says of a job, a text for each column; of a done job it is the same at any time."""
    return [
        row["jobId"],
        fitted(shown(row["name"] or ""), 24),
        state_text(row),
        "" if row["changedFiles"] is None else str(row["changedFiles"]),
        _lease(row, now),
        _age(row, now),
        work_text(row),
    ]


def cells_table(cells: Sequence[Sequence[str]], out: Terminal) -> str:
    """A line for each job, of the cells that `job_cells` made."""
    if out.color:
        cells = [
            [*line[:_STATE], out.paint(line[_STATE], color), *line[_STATE + 1 :]]
            if (color := _COLORS.get(word_of(line)))
            else line
            for line in cells
        ]
    return table(_HEADERS, cells, out, right=frozenset({3, 5}))


def jobs_table(rows: Sequence[Row], out: Terminal, now: float) -> str:
    """A line for each job, the oldest first."""
    return cells_table([job_cells(row, now) for row in rows], out)


def tally(words: Sequence[str]) -> str:
    """`3 jobs: 1 running, 2 succeeded`, from the word of each."""
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return f"{counted(len(words), 'job')}: " + ", ".join(f"{number} {word}" for word, number in counts.items())


def word_of(cells: Sequence[str]) -> str:
    """The `state_word` of a job, back from its cells."""
    return cells[_STATE].partition(" ")[0].rstrip(",")


def _sandbox(row: Row) -> str | None:
    """What holds the worker; nothing to say of an open job, whose worker is whoever comes, or before it starts."""
    if row["command"] is None or row["state"] in ("queued", "starting"):
        return None
    return str(row["sandbox"]) + ("" if row.get("network", True) else ", no network")


def job_card(row: Row, out: Terminal, now: float) -> str:
    """Everything worth knowing of one job, a line for each fact that applies."""
    import shlex

    baseline = row["baseline"]
    facts = [
        ("state", state_text(row)),
        ("why", row["reason"]),
        ("waits", row["waiting"] if row["state"] == "queued" else None),
        ("task", one_line(row["task"]) if row["task"] else None),
        ("agent", _agent(row) if row["agent"] else None),
        ("command", shlex.join(row["command"]) if row["command"] and not row["agent"] else None),
        ("access", row["access"]),
        ("sandbox", _sandbox(row)),
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


def _agent(row: Mapping[str, Any]) -> str:
    """An agent with its model and effort, where they were chosen."""
    return ", ".join(filter(None, [row["agent"], row.get("model"), row.get("effort")]))


def _left_out(baseline: Mapping[str, Any]) -> str:
    if not baseline["leftOut"]:
        return ""
    return f", without {counted(baseline['leftOut'], 'uncommitted path')} of the checkout"
