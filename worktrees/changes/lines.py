"""Which lines of some files a job changed, in the numbers of the file it started from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from worktrees.model import Lines, RepoPath

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from worktrees.git import ObjectStore
    from worktrees.model import ChangeSet

_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")


def changed_lines(store: ObjectStore, changed: ChangeSet, paths: Collection[RepoPath]) -> dict[RepoPath, list[Lines]]:
    """The changed lines of these paths, one git process; a path that was renamed away is gone with all its lines."""
    if not paths:
        return {}
    done = store.git(
        "diff-tree", "-r", "-z", "--raw", "--patch", "--unified=0", "--no-renames", "--no-color", "--no-textconv",
        "--no-ext-diff", "--ignore-submodules=none", changed.base, changed.snapshot, "--", *sorted(paths),
        config=("core.attributesFile=/dev/null", "diff.suppressBlankEmpty=false"),
    )  # fmt: skip
    # All raw records, an empty one, then the patches in the same order.
    raw, _, text = done.stdout.partition(b"\0\0")
    records = raw.split(b"\0")
    found: dict[RepoPath, list[Lines]] = {}
    patches = _patches(text)
    for about, path in zip(records[::2], records[1::2], strict=False):
        hunks = next(patches, [])
        if about.endswith(b"T"):
            next(patches, None)  # it goes as one thing and comes as another
        found[RepoPath(path)] = hunks
    return found


def _patches(text: bytes) -> Iterator[list[Lines]]:
    """The hunks of each patch. Lines of contents are counted off, so none is taken for one of git's own."""
    hunks: list[Lines] | None = None
    within = 0
    for line in text.split(b"\n"):
        if within and line[:1] in (b"-", b"+"):
            within -= 1
        elif line.startswith(b"diff --git "):
            if hunks is not None:
                yield hunks
            hunks = []
        elif hunks is not None and (header := _HUNK.match(line)):
            old, new = (int(count) if count is not None else 1 for count in (header[2], header[3]))
            hunks.append(Lines(start=int(header[1]), count=old))
            within = old + new
    if hunks is not None:
        yield hunks
