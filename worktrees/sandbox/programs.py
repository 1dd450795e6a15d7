"""What programs need to write outside a workspace to do their work, and what of it must stay as it is.

The home directory is read-only for a worker. An agent program keeps its sessions and its sign-in there, so the job of
such a program may write in that program's own directories, and in no other's; but not to what makes the program run
commands (settings, hooks, instructions) where that is there already, because the next run may be the boss's.

Caches of package managers are read where they are and written elsewhere: a cache that workers share among themselves,
so that no boss installs what a worker put there. A variable that is set already stays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Needs:
    """Of an agent program: whether it puts up a sandbox of its own, what it writes, what of that is not for it."""

    nests: bool = False
    writable: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Program:
    nests: bool
    variable: str | None
    home: str
    others: tuple[str, ...]
    kept: tuple[str, ...]


_PROGRAMS = {
    "codex": _Program(
        True, "CODEX_HOME", "~/.codex", (),
        ("config.toml", "AGENTS.md", "AGENTS.override.md", "prompts", "rules", "skills"),
    ),
    "claude": _Program(
        False, "CLAUDE_CONFIG_DIR", "~/.claude", ("~/.claude.json", "~/.claude.json.lock"),
        ("settings.json", "settings.local.json", "CLAUDE.md", "agents", "commands", "hooks", "plugins", "skills"),
    ),
    "gemini": _Program(False, None, "~/.gemini", (), ("settings.json", "GEMINI.md", "commands", "extensions")),
    "opencode": _Program(
        False, None, "~/.local/share/opencode", ("~/.local/state/opencode", "~/.cache/opencode"), (),
    ),
}  # fmt: skip

_CACHES = {
    "CCACHE_DIR": "ccache",
    "GOCACHE": "go-build",
    "GOMODCACHE": "go-mod",
    "GRADLE_USER_HOME": "gradle",
    "PIP_CACHE_DIR": "pip",
    "POETRY_CACHE_DIR": "poetry",
    "PRE_COMMIT_HOME": "pre-commit",
    "UV_CACHE_DIR": "uv",
    "YARN_CACHE_FOLDER": "yarn",
    "npm_config_cache": "npm",
}


def needs_of(agent: str | None, command: Sequence[str], environment: Mapping[str, str]) -> Needs:
    """What the agent program of a job needs, known by its name or by the command; nothing for any other program."""
    program = _PROGRAMS.get(agent or "") or _PROGRAMS.get(os.path.basename(command[0]) if command else "")
    if program is None:
        return Needs()
    home = environment.get("HOME") or "/"

    def path(text: str) -> str:
        return os.path.join(home, text[2:]) if text.startswith("~/") else text

    own = (environment.get(program.variable) if program.variable else None) or path(program.home)
    return Needs(
        nests=program.nests,
        writable=(own, *map(path, program.others)),
        kept=tuple(os.path.join(own, name) for name in program.kept),
    )


def tool_caches(cache: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that send the caches of package managers and compilers below `cache`."""
    return {name: os.path.join(cache, place) for name, place in _CACHES.items() if name not in environment}
