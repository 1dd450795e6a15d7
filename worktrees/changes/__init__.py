"""What a worker really did: audit, snapshot, change set, overlap, and its own account against the facts.

In the order of a job's life:

1. `prime` and `fingerprint`, once the workspace stands and setup is done, before the worker starts: they record what
   the worker cannot be trusted to leave alone (stat data, ignore rules, filters; hooks, configuration, refs).
2. `capture` with `ref=None` while it runs: a live look for `wt diff`.
3. `audit`, after its last process is dead and before git touches the workspace: plain file reads.
4. `capture` with a ref: the snapshot, durable. Only the store's objects and an index of ours are used, never the
   worker's git.
5. `change_set`: baseline against snapshot, as git sees two trees. `keep_ignored` before a workspace is removed.

What cannot be captured is named in the findings and makes the change set unverified; nothing is dropped silently.
"""

from worktrees.changes.audit import audit, expecting, fingerprint
from worktrees.changes.changeset import change_set, meeting, overlaps
from worktrees.changes.ignored import keep_ignored
from worktrees.changes.lines import changed_lines
from worktrees.changes.outside import checkout_fingerprint, edited_since, outside_edits
from worktrees.changes.report import reported_files
from worktrees.changes.scan import UNCAPTURED, Scan
from worktrees.changes.sensitive import is_sensitive
from worktrees.changes.snapshot import capture, filters_since, prime

__all__ = [
    "UNCAPTURED",
    "Scan",
    "audit",
    "capture",
    "change_set",
    "changed_lines",
    "checkout_fingerprint",
    "edited_since",
    "expecting",
    "filters_since",
    "fingerprint",
    "is_sensitive",
    "keep_ignored",
    "meeting",
    "outside_edits",
    "overlaps",
    "prime",
    "reported_files",
]
