"""What a power cut leaves of a workspace that was opened shortly before.

Opening syncs neither the files of the baseline nor the index that a capture compares them with: that would cost more
than all the rest. So after a cut a file may be empty that nobody emptied, and the index torn. The record beside the
index says which boot of the machine it is of; in another one nothing that such a cut may have done is taken for a
worker's: files that are empty and had content are named, a job that ends so is unverified, and a torn index is none.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from worktrees.changes.desk import Desk
    from worktrees.changes.scan import Notes


def is_whole(index: Path) -> bool:
    """Whether an index of ours ends in the sum of what is before it, as git writes it."""
    content = index.read_bytes()
    sums = (hashlib.sha1(content[:-20], usedforsecurity=False), hashlib.sha256(content[:-32]))
    return content[:4] == b"DIRC" and any(content.endswith(found.digest()) for found in sums)


def note_emptied(own: Desk, root: int, paths: Iterable[str], notes: Notes) -> None:
    """Names those of the changed paths that are empty and have content in the index."""
    hollow = set()
    for path in paths:
        with suppress(OSError):
            if os.stat(path, dir_fd=root, follow_symlinks=False).st_size == 0:
                hollow.add(os.fsencode(path))
    if hollow:
        nothing = own.git("hash-object", "-t", "blob", "--stdin", stdin=b"").text.encode()
        for record in own.git("ls-files", "-s", "-z").records:
            words, _, name = record.partition(b"\t")
            if name in hollow and words.split(b" ")[1] != nothing:
                message = "{} had content and is empty, as a power cut leaves it: the machine was started anew since"
                notes.add("emptied", os.fsdecode(name), message)
