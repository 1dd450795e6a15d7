"""The boss's own hooks: where they lie, what configuration names, and running one as git would.

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


def named_commands(repo: Repo, event: str) -> list[str]:
    """What git 2.54 and newer hand to a shell for an event, by the user's configuration."""
    commands, hooks = dict[str, str](), set[str]()
    for name, value in repo.settings(r"^hook\..*\.(event|command)$", scope="--includes"):
        hook, _, key = name.rpartition(".")
        if key == "command":
            commands[hook] = value
        elif value == event:
            hooks.add(hook)
        elif not value:
            hooks.discard(hook)  # as git has it
    return [command for hook, command in commands.items() if hook in hooks]


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
