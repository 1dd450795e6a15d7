"""Every answer but jobs, as people see it: one function per answer, values in, text out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worktrees.render.jobs import job_card
from worktrees.render.text import counted, duration, listed, one_line, shown, size, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worktrees.model import (
        ChangeSet,
        Diagnosis,
        Event,
        FileChange,
        Finding,
        Hooks,
        Lines,
        Merged,
        Operation,
        Outcome,
        Overlaps,
        Recorded,
        Removed,
        SetUp,
        Spawned,
        Step,
        Usage,
        Workflows,
    )
    from worktrees.render.text import Terminal

_LETTERS = {"A": "green", "D": "red", "M": "yellow", "R": "cyan", "C": "cyan", "T": "yellow"}
_RANGES = 4
_OUTCOMES = {"landed": "green", "conflict": "red", "skipped": "yellow", "failed-check": "red", "empty": "dim"}


def spawned_text(spawned: Spawned, out: Terminal) -> str:
    """One line for each job made, with its workspace when that is for the caller."""
    lines = []
    for job in spawned.jobs:
        name = out.paint(shown(job.name or job.job_id), "bold")
        base = f"from {job.baseline.commit[:10]}" + (f" ({job.baseline.branch})" if job.baseline.branch else "")
        what = {"open": "Opened", "queued": "Queued"}.get(job.state, "Spawned")
        if job.state == "done":
            what = "Could not start"
        line = f"{what} {name} {base}" + (f" as {job.job_id}" if job.name else "")
        if job.access != "workspace-write":
            line += f", {job.access}"
        if job.state == "queued" and job.waiting:
            line += f"; waits: {shown(job.waiting)}"
        if job.state == "open" and job.workspace:
            line += f" in {shown(job.workspace)}; end it with: wt settle {shown(job.name or job.job_id)}"
        if job.state == "done" and job.reason:
            line += f": {shown(job.reason)}"
        lines.append(line)
    return "\n".join(lines)


def _path(file: FileChange) -> str:
    new = shown(file.path)
    return f"{shown(file.old_path)} -> {new}" if file.old_path and file.status in ("R", "C") else new


def _counts(file: FileChange, out: Terminal) -> str:
    if file.binary:
        return "binary"
    plus = out.paint(f"+{file.additions}", "green") if file.additions else ""
    minus = out.paint(f"-{file.deletions}", "red") if file.deletions else ""
    return " ".join(part for part in (plus, minus) if part)


def changes_text(changed: ChangeSet, out: Terminal) -> str:
    """Files with their line counts, a sum, and what the record has to say beside it."""
    rows = [
        (
            out.paint(file.status, _LETTERS[file.status]),
            _counts(file, out),
            _path(file) + ("  (sensitive)" if file.sensitive else "") + _mode(file),
        )
        for file in changed.files
    ]
    widest = max((len(_counts_plain(file)) for file in changed.files), default=0)
    lines = [
        f" {letter}  {counts}{' ' * (widest - len(_counts_plain(file)))}  {path}"
        for (letter, counts, path), file in zip(rows, changed.files, strict=True)
    ]
    plus = sum(file.additions or 0 for file in changed.files)
    minus = sum(file.deletions or 0 for file in changed.files)
    total = f"{counted(len(changed.files), 'file')} changed, {counted(plus, 'insertion')}, {counted(minus, 'deletion')}"
    lines.append(out.paint(total, "bold") if changed.files else "Nothing changed.")
    lines += _remarks(changed, out)
    return "\n".join(lines)


def _counts_plain(file: FileChange) -> str:
    from worktrees.render.text import Terminal as Plain

    return _counts(file, Plain())


def _mode(file: FileChange) -> str:
    if file.old_mode and file.new_mode and file.old_mode != file.new_mode:
        return f"  ({file.old_mode} -> {file.new_mode})"
    return ""


def _remarks(changed: ChangeSet, out: Terminal) -> list[str]:
    lines = []
    if changed.reported_but_untouched:
        lines.append(f"reported but untouched: {listed(changed.reported_but_untouched)}")
    if changed.touched_but_unreported:
        lines.append(f"touched but unreported: {listed(changed.touched_but_unreported)}")
    if changed.ignored_created:
        total = sum(file.size_bytes for file in changed.ignored_created)
        names = listed([file.path for file in changed.ignored_created], 3)
        lines.append(f"ignored files created: {names} ({size(total)})")
    if not changed.verified:
        lines.append(
            out.paint("unverified: something may be lacking; the findings say why, or how the job ended", "red")
        )
    if changed.audit.quarantine:
        lines.append(out.paint("quarantined: merged only when named", "red"))
    return lines + findings_lines(changed.audit.findings, out)


def names_text(changed: ChangeSet) -> str:
    """Only the paths, one a line."""
    return "\n".join(shown(file.path) for file in changed.files)


def findings_lines(findings: Sequence[Finding], out: Terminal) -> list[str]:
    """Each finding on a line: code, path, message."""
    return [
        f"{out.paint(finding.code, 'yellow')}: {shown(finding.message)}"
        + (f" (`{shown(finding.path)}`)" if finding.path and shown(finding.path) not in shown(finding.message) else "")
        for finding in findings
    ]


def outcome_text(outcome: Outcome, out: Terminal, now: float) -> str:
    """A card, the last words, the change set, the end of the output."""
    parts = [job_card(outcome.job.dump(), out, now)]
    if outcome.final_message:
        parts.append(out.paint("Last words", "bold") + "\n" + _indented(_report(outcome.final_message)))
    if outcome.usage is not None:
        parts.append(out.paint("Used", "bold") + "\n  " + _used(outcome.usage))
    if outcome.change_set is not None:
        parts.append(out.paint("Changes", "bold") + "\n" + changes_text(outcome.change_set, out))
    for title, text in (("Output", outcome.output), ("Error output", outcome.error_output)):
        if text:
            parts.append(out.paint(title, "bold") + "\n" + _indented(text))
    return "\n\n".join(parts)


def _report(message: str) -> str:
    """The report of a final message that is an object, as agents give it that are held to a schema; else all of it."""
    if message.startswith("{"):
        import json

        try:
            said = json.loads(message).get("summary")
        except ValueError:
            return message
        if isinstance(said, str) and said:
            return said
    return message


def _used(usage: Usage) -> str:
    """`1,200 input (50 cached), 20 output tokens, $0.0130`."""
    counts = [
        (usage.input_tokens, "input"), (usage.cached_input_tokens, "of it cached"), (usage.output_tokens, "output"),
        (usage.reasoning_tokens, "reasoning"),
    ]  # fmt: skip
    said = ", ".join(f"{number:,} {word}" for number, word in counts if number) or "0"
    return f"{said} tokens" + (f", ${usage.cost_usd:.4f}" if usage.cost_usd is not None else "")


def _indented(text: str) -> str:
    return "\n".join("  " + shown(line) for line in text.rstrip("\n").split("\n"))


def event_text(event: Event, out: Terminal) -> str:
    """One event: time of day, type, content."""
    kind = out.paint(f"{event.type:<11}", "red" if event.type == "error" else "dim")
    first, *rest = event.content.rstrip("\n").split("\n")
    lines = [f"{event.timestamp[11:19]}  {kind}  {shown(first)}"]
    return "\n".join(lines + [" " * 23 + shown(line) for line in rest])


def _step_detail(step: Step) -> str:
    if step.outcome == "empty":
        return "nothing to land"
    parts = [f"sensitive: {listed(step.sensitive, 3)}"] if step.sensitive else []
    if step.outcome == "conflict":
        parts = [f"{shown(conflict.path)} ({shown(conflict.kind)})" for conflict in step.conflicts] + parts
        return "; ".join(parts)
    if step.rerun_of:
        parts.append(f"run again for {step.rerun_of}")
    return ", ".join([counted(step.files, "file"), *parts]) if step.outcome == "landed" else "".join(parts)


def merged_text(merged: Merged, out: Terminal, *, commit: str | None = None) -> str:
    """The steps, then what became of the branch; `commit` is what commits a merge that was left without one."""
    branch = shown(merged.branch)
    if merged.aborted:
        kept = f"; what was resolved so far is kept as {merged.kept[:10]} in wt's own store" if merged.kept else ""
        return f"Gave the merge up{kept}. Nothing moved."
    if not merged.steps:
        return f"Already up to date: nothing to merge into {branch}."
    rows = []
    for number, step in enumerate(merged.steps, 1):
        word = step.outcome
        unmoved = "would land" if merged.dry_run else "merges"
        word_text = unmoved if word == "landed" and (commit or not merged.landed) else word
        made = (step.commit or "")[:10] if merged.landed and not commit else ""
        name = (f"{number}. " if merged.dry_run else "") + shown(step.name or step.job_id)
        rows.append((name, out.paint(word_text, _OUTCOMES[word]), made, _step_detail(step)))
    lines = [table(("JOB", "OUTCOME", "COMMIT", "WHAT"), rows, out)]
    if merged.overlaps:
        clean = [overlap for overlap in merged.overlaps if overlap.conflict is False]
        if clean:
            lines.append(f"changed by two jobs, and merged: {listed([overlap.path for overlap in clean])}")
    moved = f"{branch} {merged.before[:10]}..{merged.after[:10]}"
    lines += _check_lines(merged, out)
    if merged.dry_run:
        lines.append("Nothing moved: this was a dry run.")
    elif commit and merged.landed and merged.operation_id:
        lines.append(
            f"Laid into {branch} as {merged.operation_id}, not committed; take it back with: wt undo, "
            f"or go on with: {commit}"
        )
    elif merged.landed and merged.operation_id:
        lines.append(f"Landed on {moved} as {merged.operation_id}; take it back with: wt undo")
    elif not any(step.outcome in {"conflict", "failed-check", "skipped"} for step in merged.steps):
        lines.append(f"Already up to date: {branch} has it all.")
    return "\n".join(lines)


def _check_lines(merged: Merged, out: Terminal) -> list[str]:
    """What the gate said."""
    check = merged.check
    if check is None or check.command is None:
        return []
    if merged.dry_run:
        return [f"To be checked before it lands: {one_line(check.command)}"]
    names = {step.job_id: step.name or step.job_id for step in merged.steps}
    rows = [
        (
            out.paint("passed", "green") if run.exit_code == 0 else out.paint(f"failed ({run.exit_code})", "red"),
            "known" if run.cached else duration(run.seconds),
            one_line(run.command or ""),
            shown(", ".join(names.get(job, job) for job in run.jobs)) or "the branch as it is",
        )
        for run in check.runs
    ]
    return [table(("CHECK", "TIME", "COMMAND", "JOBS"), rows, out)] if rows else []


def recorded_text(recorded: Recorded) -> str:
    """What a rollback or an undo did, and how to take it back."""
    operation = recorded.operation
    if operation.kind == "rollback":
        did = f"Rolled {shown(operation.branch or 'HEAD')} back to {(operation.after or '')[:10]}"
    else:
        did = f"Undid {operation.undoes}"
        if operation.branch and operation.after:
            did += f": {shown(operation.branch)} is at {operation.after[:10]}"
    lines = [f"{did} ({operation.operation_id}); take it back with: wt undo"]
    if recorded.jobs:
        names = ", ".join(shown(job.name or job.job_id) for job in recorded.jobs)
        lines.append(f"jobs concerned: {names}")
    return "\n".join(lines)


def operations_table(operations: Sequence[Operation], out: Terminal) -> str:
    """The log, a line for each operation."""
    now = time.time()
    from datetime import datetime

    rows = []
    for operation in operations:
        moved = ""
        if operation.before and operation.after and operation.before != operation.after:
            moved = f"{operation.before[:10]}..{operation.after[:10]}"
        kind = operation.kind + (f" {operation.undoes}" if operation.undoes else "")
        state: str = "" if operation.state == "done" else operation.state
        if operation.undone_by:
            state = f"undone by {operation.undone_by}"
        age = duration(now - datetime.fromisoformat(operation.created_at).timestamp())
        rows.append(
            (
                operation.operation_id,
                out.paint(kind, "bold") if operation.state == "done" else kind,
                f"{age} ago",
                shown(operation.branch or ""),
                moved,
                state,
                one_line(operation.message or "", 80) or counted(len(operation.jobs), "job"),
            )
        )
    return table(("OPERATION", "WHAT", "WHEN", "BRANCH", "MOVED", "STATE", "ABOUT"), rows, out)


def overlaps_text(found: Overlaps, names: Mapping[str, str], out: Terminal) -> str:
    """Paths touched twice, what does not merge, and the planned order; `names` are those of jobs that have one."""

    def called(jobs: Sequence[str]) -> str:
        return " + ".join(shown(names.get(job, job)) for job in jobs)

    pieces = []
    if found.overlaps:
        rows = [
            (
                called(overlap.jobs),
                out.paint("conflict", "red") if overlap.conflict else "merges",
                " / ".join(_ranges(lines) for lines in overlap.lines) if any(overlap.lines) else "",
                shown(overlap.path)
                + ("  (sensitive)" if overlap.sensitive else "")
                + (f"  (claimed by {shown(overlap.claimed_by)})" if overlap.claimed_by else ""),
            )
            for overlap in found.overlaps
        ]
        pieces.append(table(("JOBS", "TOGETHER", "LINES", "PATH"), rows, out))
    told = {tuple(overlap.jobs) for overlap in found.overlaps}
    alone = [conflict for conflict in found.conflicts if len(conflict.jobs) == 1]
    apart = [each for each in found.conflicts if len(each.jobs) > 1 and tuple(each.jobs) not in told]
    for about, conflicts in (("without a path that both touch", apart), ("against the branch", alone)):
        if conflicts:
            reasons = [
                (
                    called(conflict.jobs),
                    shown(conflict.kind),
                    shown(conflict.path) + ("  (sensitive)" if conflict.sensitive else ""),
                )
                for conflict in conflicts
            ]
            pieces.append(
                f"{about}:\n" + table(("JOBS" if conflicts is apart else "JOB", "CONFLICT", "PATH"), reasons, out)
            )
    if not pieces:
        return "No path is touched by two jobs, and each merges with the branch."
    if any(step.outcome == "conflict" for step in found.plan):
        steps = [
            (
                shown(step.name or step.job_id),
                out.paint("merges" if step.outcome == "landed" else step.outcome, _OUTCOMES[step.outcome]),
                _step_detail(step),
            )
            for step in found.plan
        ]
        pieces.append(
            f"onto {shown(found.branch or 'HEAD')} in this order:\n" + table(("JOB", "STEP", "WHAT"), steps, out)
        )
    return "\n\n".join(pieces)


def _ranges(lines: Sequence[Lines]) -> str:
    """Lines for people: `3-5,9`; an insertion is `9+`, after that line."""
    told = [
        f"{each.start}+"
        if not each.count
        else f"{each.start}-{each.start + each.count - 1}".removesuffix(f"-{each.start}")
        for each in lines[:_RANGES]
    ]
    return ",".join(told) + (",…" if len(lines) > _RANGES else "") if told else "-"


def removed_text(removed: Removed, out: Terminal) -> str:
    """Every workspace looked at, then the sum."""
    verb = "Would remove" if removed.dry_run else "Removed"
    checkers = [f"{verb} {counted(len(removed.checkers), 'worktree')} of checks."] if removed.checkers else []
    if not removed.removals:
        return checkers[0] if checkers else "Nothing to remove."
    rows = [
        (
            shown(removal.name or removal.job_id),
            out.paint(removal.outcome, "dim") if removal.outcome == "kept" else removal.outcome,
            size(removal.size_bytes),
            "" if removal.age_seconds is None else duration(removal.age_seconds),
            shown(removal.reason or ("landed" if removal.landed else "")),
        )
        for removal in removed.removals
    ]
    lines = [table(("JOB", "WORKSPACE", "SIZE", "AGE", "WHY"), rows, out, right=frozenset({2, 3}))]
    gone = [removal for removal in removed.removals if removal.outcome in ("removed", "would-remove")]
    released = [removal for removal in removed.removals if removal.outcome in ("released", "would-release")]
    total = sum(removal.size_bytes or 0 for removal in gone)
    if gone or not released:
        what = f"{verb} {counted(len(gone), 'workspace')}" + (f", {size(total)}" if total else "")
        lines.append(what + _back(removed))
    lines += checkers
    if released:
        verb = "Would release" if removed.dry_run else "Released"
        lines.append(f"{verb} {counted(len(released), 'worktree')}; what somebody else made stays as it is.")
    return "\n".join(lines)


def _back(removed: Removed) -> str:
    if removed.dry_run or not any(removal.outcome == "removed" for removal in removed.removals):
        return "."
    first = next(removal for removal in removed.removals if removal.outcome == "removed")
    return f"; bring one back with: wt restore {shown(first.name or first.job_id)}"


def workflows_table(found: Workflows, out: Terminal) -> str:
    """A line for each workflow."""
    rows = [
        (
            shown(workflow.workflow_id),
            "closed" if workflow.closed_at else "open",
            f"{workflow.baseline.commit[:10]} ({shown(workflow.baseline.branch or 'detached')})",
            str(workflow.jobs),
            str(workflow.active),
            str(workflow.landed),
        )
        for workflow in found.workflows
    ]
    return table(("WORKFLOW", "STATE", "BASE", "JOBS", "ACTIVE", "LANDED"), rows, out, right=frozenset({3, 4, 5}))


def setup_text(found: SetUp, out: Terminal) -> str:
    """The commands, or the adopted worktree and what was brought there; findings are among the warnings."""
    lines = []
    if found.commands:
        rows = [
            ("approved" if item.approved else "waits", item.purpose, one_line(item.command)) for item in found.commands
        ]
        lines.append(table(("STATE", "FOR", "COMMAND"), rows, out))
        if not all(item.approved for item in found.commands):
            lines.append("Those that wait run once you say so: wt setup --approve")
    if found.job is not None:
        word, base = shown(found.job.name or found.job.job_id), found.job.baseline
        since = f"from {base.commit[:10]}" + (f" ({shown(base.branch)})" if base.branch else "")
        line = f"Adopted {out.paint(word, 'bold')} {since}" + (f" as {found.job.job_id}" if found.job.name else "")
        lines.append(f"{line}; end it with: wt settle {word}")
    if found.paths or found.submodules:
        brought = f"{counted(len(found.paths), 'path')} ({size(found.copied_bytes)})"
        modules = f" and {counted(len(found.submodules), 'submodule')}" if found.submodules else ""
        lines.append(f"Brought {brought}{modules}.")
    return "\n".join(lines) or "Nothing to set up: no setup commands, and this is the main worktree."


def hooks_text(found: Hooks, out: Terminal) -> str:
    """What was changed, where the guard is in force, and what a commit would meet."""
    lines = []
    if found.changed:
        lines.append(("Would change " if found.dry_run else "Changed ") + counted(len(found.changed), "file") + ":")
        lines += [f"  {shown(path)}" for path in found.changed]
    if found.installed:
        lines.append(f"Installed for linked worktrees, by lines in {shown(found.config)}.")
    else:
        lines.append("Not installed; workers have the guard by their environment. To install: wt hooks install")
    if found.chained:
        names = ", ".join(map(shown, found.chained))
        lines.append(f"Your own hooks in {shown(found.former)} run as before: {names}.")
    if found.workspaces:
        rows = [
            (
                shown(item.name or item.job_id),
                "guarded" if item.environment else "by wt setup --env",
                "refused" if item.installed else out.paint("passes", "yellow"),
            )
            for item in found.workspaces
        ]
        lines.append(table(("JOB", "ITS WORKER", "ANYBODY ELSE'S COMMIT"), rows, out))
    by = " and ".join(
        {"environment": "your environment", "installed": "the installed hooks"}[by] for by in found.refused_by
    )
    where = f"in the workspace of {found.job_id}" if found.job_id else "here"
    lines.append(f"A commit {where} is refused by {by}." if by else f"A commit {where} passes.")
    return "\n".join(lines)


def diagnosis_text(found: Diagnosis, out: Terminal) -> str:
    """What was found and what was mended, and what can hold workers here."""
    lines = findings_lines(found.findings, out)
    lines += [f"mended {line}" for line in findings_lines(found.mended, out)]
    levels = [
        f"{item.level} (not here: {item.reason})" if not item.available
        else item.level + (f" ({item.reason})" if item.reason else "")
        for item in found.sandbox
    ]  # fmt: skip
    return "\n".join([*(lines or ["All is well."]), f"sandbox: {', '.join(levels) or 'none'}"])
