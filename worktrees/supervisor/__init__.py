"""One small process per job, from before its worker starts until its record is exact.

Standard library only, run by path (`python -I -S .../worktrees/supervisor run JOB-DIRECTORY ...`), so that it starts in
milliseconds, stays below 25 MB, and needs nothing that an upgrade could take away while a worker runs. No `typing`, no
`dataclasses`, no `pathlib` here for the same reason.

    disk     whole and durable writes, and a place kept free for the exit record
    kernel   subreaper, parent-death signal, file notification, clocks
    tree     the processes of a job: who they are, how they are signalled
    dialects what agent programs print, record by record
    pump     stdout and stderr into events
    life     `run`: one worker from start to exit record
    after    `finish`: what is to be done when a supervisor died before it was through
    attendant `attend`: a command that dies with its caller, such as a check of a merge

Invariants:
- It holds the job's `alive` lock (inherited, so there is no moment without) until the kernel drops it.
- `worker.json` exists before the first instruction of the worker's program.
- `exit.json` is exact: it is written once, after every process of the worker is gone, and says `lost` only in `finish`.
- The worker writes straight into files; nothing of ours can block it or break its pipe.
"""
