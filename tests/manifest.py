"""The scenarios the system must satisfy, and which of them are still to come.

Each id has at least one test with the id in its name (`test_s07_...`); `test_manifest` checks both directions. An id is
taken out of `PENDING` when its tests land, and none ever comes back: the list only shrinks.
"""

SCENARIOS = {
    "s01": "spawning returns a job id at once, and the boss goes on while workers run",
    "s02": "two workers started one after the other run at the same time",
    "s03": "events and wait-any lead to one merged outcome of several jobs",
    "s04": "a worker that spawns, merges or rolls back is refused with `not-boss`, and nothing changes",
    "s05": "never more than the allowed number of readers and writers run, and the queue drains without the boss",
    "s06": "a cancelled job's whole process tree gets SIGTERM, and what it had done is captured",
    "s07": "a forced cancel kills everything the worker started, and its work merges only when named",
    "s08": "events by cursor: none twice, none missing, typed, stamped, and one `final` at the end",
    "s09": "a million lines of output are all kept, in bounded memory",
    "s10": "wait-any names the earliest finished job not yet acknowledged, and a time-out cancels nothing",
    "s11": "jobs run on when everything that started them is killed, under the same ids",
    "s12": "a job whose supervisor is gone is `lost`, its processes are ended and its files captured",
    "s13": "two workers that edit the same file see neither each other's edit nor change the boss's checkout",
    "s14": "the change set is what really changed, and names where the worker's own account differs",
    "s15": "a worker that commits, resets or stashes anyway changes nothing in the record, and is reported",
    "s16": "a dirty checkout goes into the workspace exactly as the policy says, and is never the worker's change",
    "s17": "ignored files that a tree needs to be usable are in the new workspace",
    "s18": "edits outside the workspace are stopped, or reported by path",
    "s19": "disjoint edits merge without an overlap, and the branch holds both",
    "s20": "the same path in two change sets is an overlap, and a conflict only when contents do not merge",
    "s21": "after a conflict: back to the baseline, then the jobs again one after another",
    "s22": "a conflict is resolved in an integration worktree, and the checkout never holds a marker",
    "s23": "merging and rebasing give git's own result, or the same conflicts",
    "s24": "whatever stops a landing, branch and checkout are wholly before or wholly after",
    "s25": "the boss's new commits are merged with, and dirty files are kept or the merge is refused",
    "s26": "a rollback restores the recorded state, and undo brings back what it threw away",
    "s27": "only a tree that passed the check lands, and culprits are found by bisection",
    "s28": "workers in one shared tree: overlap found, conflict rolled back and run in sequence",
    "s29": "a worker's commit, branch, tag, stash, update-ref and push are refused at once",
    "s30": "a write outside the workspace fails where a sandbox is in force",
    "s31": "nothing in a hostile tree runs as the boss or is written outside the checkout",
    "s32": "board entries carry their real author and nobody can change another's",
    "s33": "only the boss turns an entry into a decision",
    "s34": "the overlap report names who claimed the paths",
    "s35": "board, jobs, changes and conflicts can be watched live in the terminal",
    "s36": "a delegated task runs in a worktree of ours under a lease, per protocol",
    "s37": "a task delegated to another's machine comes back as a change set like any other",
    "s38": "a lease that runs out ends the job as `expired`, with its work captured",
}

_PARTS = {
    "shared mode": "s28",
    "board": "s32 s33 s34 s35",
    "delegation": "s36 s37",
}

PENDING = {scenario: part for part, scenarios in _PARTS.items() for scenario in scenarios.split()}
"""Ids not built yet, with the part of the mission that brings them."""

PARTIAL: frozenset[str] = frozenset()
"""Pending ids of which some tests are already here."""
