"""Baseline against snapshot as git sees the two trees, and which change sets meet on a path.

One `diff-tree` process answers for everything: modes, object ids, renames, copies, line counts. It runs in wt's own
bare store, so attributes of the compared trees cannot pass a text off as binary, and no text conversion runs.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, cast

from worktrees.changes.sensitive import is_sensitive
from worktrees.model import Audit, ChangeSet, FileChange, FileStatus, Overlap, path_base64, path_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worktrees.changes.scan import Scan
    from worktrees.git import ObjectStore
    from worktrees.model import JobId, Oid

# Above this many candidates only exact renames are found: the search grows with the square. It is git's own default.
_RENAME_LIMIT = 1000


def change_set(
    store: ObjectStore,
    job: JobId,
    base: Oid,
    snapshot: Oid,
    *,
    scan: Scan | None = None,
    audit: Audit | None = None,
    reported: Sequence[str] | None = None,
) -> ChangeSet:
    """What differs between two commits, renames and copies found like git's; findings of the scan join those of the
    audit.
    """
    files = list(_files(store, base, snapshot))
    findings = [*(audit.findings if audit else ()), *(scan.findings if scan else ())]
    untouched, unreported = _compare(job, files, reported)
    return ChangeSet(
        job_id=job,
        base=base,
        snapshot=snapshot,
        files=files,
        reported=None if reported is None else list(reported),
        reported_but_untouched=untouched,
        touched_but_unreported=unreported,
        ignored_created=list(scan.ignored) if scan else [],
        verified=scan.verified if scan else True,
        audit=Audit(clean=not findings, quarantine=audit.quarantine if audit else False, findings=findings),
    )


def _files(store: ObjectStore, base: Oid, snapshot: Oid) -> Iterator[FileChange]:
    done = store.git(
        "diff-tree", "-r", "-z", "--raw", "--numstat", "--no-abbrev", "-M", "-C", f"-l{_RENAME_LIMIT}",
        "--no-textconv", "--no-ext-diff", "--ignore-submodules=none", base, snapshot,
        config=("core.attributesFile=/dev/null",),
    )  # fmt: skip
    fields = iter(done.records)
    raw: list[tuple[list[str], bytes, bytes | None]] = []
    counts: dict[bytes, tuple[int | None, int | None]] = {}
    # All records of the raw form come first, then all counts, each in the same order.
    for field in fields:
        if field.startswith(b":"):
            words = field[1:].decode().split(" ")
            first = next(fields)
            raw.append((words, next(fields), first) if words[4][0] in "RC" else (words, first, None))
        else:
            added, removed, path = field.split(b"\t", 2)
            if not path:  # a rename: the two names follow
                next(fields)
                path = next(fields)
            counts[path] = (None, None) if added == b"-" else (int(added), int(removed))
    for (old_mode, new_mode, old_oid, new_oid, status), path, old_path in raw:
        additions, deletions = counts.get(path, (None, None))
        yield FileChange(
            path=path_text(path),
            path_base64=path_base64(path),
            status=cast("FileStatus", status[0]),
            old_path=None if old_path is None else path_text(old_path),
            old_path_base64=None if old_path is None else path_base64(old_path),
            old_mode=_present(old_mode),
            new_mode=_present(new_mode),
            old_oid=_present(old_oid),
            new_oid=_present(new_oid),
            additions=additions,
            deletions=deletions,
            binary=additions is None,
            sensitive=is_sensitive(path) or (old_path is not None and is_sensitive(old_path)),
        )


def _present(value: str) -> str | None:
    return value if value.strip("0") else None


def _compare(job: JobId, files: Sequence[FileChange], reported: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """What was claimed and not touched, and what was touched and not claimed; either side of a rename answers for
    both.
    """
    if reported is None:
        return [], []
    claimed = {_relative(job, path) for path in reported}
    sides = {file.path: {path_text(path) for path in file.raw_paths} for file in files}
    touched = set().union(*sides.values())
    untouched = [path for path in reported if _relative(job, path) not in touched]
    return untouched, [path for path, names in sides.items() if claimed.isdisjoint(names)]


def _relative(job: JobId, path: str) -> str:
    """A claimed path from the top of the work tree; a workspace's directory is named by its job."""
    _, inside, rest = path.partition(f"/{job}/")
    parts = (rest if inside else path).split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def meeting(change_sets: Sequence[ChangeSet], found: Sequence[Overlap]) -> list[tuple[JobId, JobId]]:
    """The pairs that may not merge: those that overlap, and those where one has a path gone and the other a new one.

    The second is because git finds renamed directories: who adds a file to a directory that another moved away touches
    no path of his. Without either, each path differs on one side only, and git takes it from there.
    """
    gone = {each.job_id for each in change_sets if any(file.status in "DR" for file in each.files)}
    new = {each.job_id for each in change_sets if any(file.status in "ACR" for file in each.files)}
    pairs = {(overlap.jobs[0], overlap.jobs[1]) for overlap in found}
    for one, other in combinations([each.job_id for each in change_sets], 2):
        if (one in gone and other in new) or (one in new and other in gone):
            pairs.add((one, other))
    return sorted(pairs)


def overlaps(change_sets: Sequence[ChangeSet]) -> list[Overlap]:
    """Paths that two change sets touch, one entry per pair of jobs, `conflict` left open.

    Either side of a rename counts, and so does a file where the other has a directory (the entry names the file).
    """
    touched: dict[bytes, set[int]] = {}
    for number, change in enumerate(change_sets):
        for file in change.files:
            for path in file.raw_paths:
                touched.setdefault(path, set()).add(number)
    found: set[tuple[bytes, int, int]] = set()
    for touched_path, numbers in touched.items():
        found.update((touched_path, one, other) for one, other in combinations(sorted(numbers), 2))
        above = touched_path.rpartition(b"/")[0]
        while above:
            for one in touched.get(above, ()):
                found.update((above, min(one, other), max(one, other)) for other in numbers - {one})
            above = above.rpartition(b"/")[0]
    return [
        Overlap(
            path=path_text(path),
            path_base64=path_base64(path),
            jobs=[change_sets[a].job_id, change_sets[b].job_id],
            sensitive=is_sensitive(path),
        )
        for path, a, b in sorted(found)
    ]
