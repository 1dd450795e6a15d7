"""`python -m worktrees` is `wt`."""

from worktrees.cli import main

if __name__ == "__main__":
    main()
