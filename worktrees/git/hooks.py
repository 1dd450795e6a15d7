"""The boss's own hooks: where one lies, and running it as git would.

Everything else in this package keeps hooks off. Here one runs because the boss asked for it, in his checkout, with his
environment and configuration, by `git hook run`; whether it is still his own is for the caller to know.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from worktrees.git import door

if TYPE_CHECKING:
    from worktrees.git.repository import Repo

# `git rev-parse --local-env-vars`: what belongs to the repository that the caller of `wt` was called for.
_LOCAL = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT",
        "GIT_OBJECT_DIRECTORY", "GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE",
        "GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_SHALLOW_FILE",
        "GIT_COMMON_DIR",
    }
)  # fmt: skip


def hooks_directory(repo: Repo) -> Path:
    """Where the hooks of a work tree lie, by the user's configuration."""
    named = repo.own_setting("core.hooksPath", "path")
    return Path(repo.work_tree or "/", named) if named else repo.common_dir / "hooks"


def run_hook(repo: Repo, name: str, *words: str) -> door.Completed:
    """Runs a hook of the user's in a work tree of his; status 0 where there is none. Output is in `stderr`."""
    command = ["hook", "run", "--ignore-missing", name, "--", *words]
    done = subprocess.run(
        [door.executable(), *command],
        cwd=repo.work_tree,
        env={key: value for key, value in os.environ.items() if key not in _LOCAL},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return door.Completed(command, done.returncode, done.stdout, done.stdout + done.stderr)
