"""`run JOB-DIRECTORY ALIVE READY` and `finish JOB-DIRECTORY ALIVE`; the numbers are inherited descriptors."""

import os
import sys

if __name__ == "__main__":
    # Run by path and isolated: nothing but the standard library and this package can be found.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

    mode, job_dir, *descriptors = sys.argv[1:]
    if mode == "run":
        from worktrees.supervisor.life import run

        run(job_dir, *map(int, descriptors))
    else:
        from worktrees.supervisor.after import finish

        finish(job_dir, *map(int, descriptors))
