"""`run JOB-DIRECTORY ALIVE READY`, `finish JOB-DIRECTORY ALIVE`, `attend HOLD RESULT`; numbers are descriptors."""

import os
import sys

if __name__ == "__main__":
    # Run by path and isolated: nothing but the standard library and this package can be found.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

    mode, *words = sys.argv[1:]
    if mode == "attend":
        from worktrees.supervisor.attendant import attend

        attend(*map(int, words))
        sys.exit(0)
    job_dir, *descriptors = words
    if mode == "run":
        from worktrees.supervisor.life import run

        run(job_dir, *map(int, descriptors))
    else:
        from worktrees.supervisor.after import finish

        finish(job_dir, *map(int, descriptors))
