"""The only mover of the boss's refs and files: land, rollback, undo, recover a torn operation.

    flow        the verbs
    target      the branch they move
    turn        one operation, its order, and recovery
    checkout    a work tree on its way: the user's index, what must not be overwritten, writing files
    checkpoint  the whole of a checkout as a commit in wt's own store
    log         the operation log

Invariants: the branch and the checkout are wholly before or wholly after any operation once the next command has
run, whatever stopped it; the one commit point is a compare-and-swap of one ref. Nothing uncommitted is overwritten:
an edited, staged, untracked or ignored file in the way is a refusal that names it, and nothing changed. What a
rollback throws away is saved first. Somebody else's `index.lock` is never touched.
"""

from worktrees.landing.checkpoint import checkpoint
from worktrees.landing.flow import land, present, rollback, undo
from worktrees.landing.log import damaged, find, landed, operations, record
from worktrees.landing.target import Target, find_target
from worktrees.landing.turn import recover

__all__ = [
    "Target",
    "checkpoint",
    "damaged",
    "find",
    "find_target",
    "land",
    "landed",
    "operations",
    "present",
    "record",
    "recover",
    "rollback",
    "undo",
]
