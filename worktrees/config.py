"""Settings and plugins.

Layers, later ones win: defaults, user file (`$XDG_CONFIG_HOME/wt/config.toml`), repository file (`.wt.toml` at the
top of the main work tree), git config `wt.*`, environment `WT_*`, the call itself. Knows which settings exist and of
what type, not what they do.

The repository file can be written by a worker, so it may hold only what cannot run anything. Commands it names, for
setting up and for checking, are none of the settings: `setup` reads them by itself, and they run only after approval.
Neither are agents, the tables `agents.NAME` of both files: see `agent_tables`.

Strategies are found through entry points (`worktrees.isolation`, `worktrees.runner`, `worktrees.merge`,
`worktrees.agents`); the built-in ones are registered through the same door.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worktrees.errors import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from importlib.metadata import EntryPoints

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def duration_seconds(text: str) -> float:
    """`30m`, `1h30m`, `90` (seconds) as seconds. Raises: Usage for anything else, zero and negatives included."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw]?)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise Usage(f"`{text}` is not a duration", hint="write it like 90s, 30m or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise Usage(f"a duration must be longer than nothing, not `{text}`", hint="write it like 90s, 30m or 1h30m")
    return seconds


def size_bytes(text: str) -> int:
    """`20G`, `512m`, `4096` as bytes. Raises: Usage."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?", text.strip().lower())
    if not found:
        raise Usage(f"`{text}` is not a size", hint="write it like 512m or 20g")
    return int(float(found[1]) * _SIZES[found[2]])


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings with their defaults.

    `k_read` and `k_write` bound the worker processes of one workflow that run at once (defaults from the seed's
    orchestration guide). A limit of 0 means none.
    """

    k_read: int = 8
    k_write: int = 2
    dirty: str = "ignore"
    isolation: str = "worktree"
    worktrees_directory: str | None = None
    grace_seconds: float = 5.0
    ttl_seconds: float | None = None
    idle_seconds: float | None = None
    timeout_seconds: float | None = None
    agent_idle_seconds: float = 1800.0
    agent_timeout_seconds: float = 6 * 3600.0
    pass_environment: tuple[str, ...] = ()
    max_files: int = 200_000
    max_bytes: int = 4 << 30
    max_depth: int = 200
    keep_ignored_bytes: int = 64 << 20
    disk_budget_bytes: int = 0
    port_first: int = 20_000
    port_count: int = 10
    link_directories: tuple[str, ...] = ()
    setup_commands: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    check_timeout_seconds: float | None = None
    check_retry: int = 0
    lock_timeout_seconds: float = 30.0
    sandbox: str = "auto"
    require_sandbox: bool = False
    network: bool = True
    sandbox_writable: tuple[str, ...] = ()
    author: str | None = None

    def with_values(self, values: Mapping[str, Any], source: str) -> Settings:
        """These settings with some replaced; names may be `k_read`, `kRead` or `k-read`.

        Raises: Usage for an unknown name or a value of the wrong kind, naming the source.
        """
        changes = {}
        known = {_plain(item.name): item.name for item in fields(self)}
        for name, value in values.items():
            field_name = known.get(_plain(name))
            if field_name is None:
                raise Usage(f"unknown setting `{name}` in {source}", hint="wt config")
            changes[field_name] = _convert(field_name, value, source)
        return replace(self, **changes)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


_COMMANDS = {"setup_commands", "check"}
_LISTS = {"pass_environment", "link_directories", "sandbox_writable"} | _COMMANDS
# What a worker could otherwise gain by landing a change of the repository file.
_NOT_FOR_REPOSITORIES = {
    "author", "passenvironment", "worktreesdirectory", "sandbox", "requiresandbox", "network", "sandboxwritable",
}  # fmt: skip
_TEXTS = {"author", "dirty", "isolation", "worktrees_directory", "sandbox"}
_FLAGS = {"require_sandbox", "network"}
_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _convert(name: str, value: Any, source: str) -> Any:
    if name in _LISTS:
        words = value if isinstance(value, list) else str(value).split("\n" if name in _COMMANDS else os.pathsep)
        return tuple(str(word) for word in words if str(word))
    if name in _TEXTS:
        return str(value)
    if name in _FLAGS:
        if (truth := _TRUTHS.get(str(value).lower())) is None:
            raise Usage(f"`{value}` is neither true nor false, in `{name}` of {source}", hint="wt config")
        return truth
    if name.endswith("_seconds"):
        return duration_seconds(str(value))
    if name.endswith("_bytes"):
        return size_bytes(str(value))
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise Usage(f"`{value}` is not a number, in `{name}` of {source}", hint="wt config") from None
    if number < 0:
        raise Usage(f"`{name}` of {source} cannot be negative", hint="wt config")
    return number


def layers(
    repository_file: Path | None, git_settings: Mapping[str, str], environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where settings come from and what each place says, the strongest last.

    `git_settings` are `wt.*` values of git config without the prefix. Raises: Usage, naming the layer at fault.
    """
    env = os.environ if environment is None else environment
    user_file = _user_file(env)
    for path in (user_file, repository_file):
        if path is not None and path.is_file():
            values = {name: value for name, value in _toml(path).items() if name != "agents"}
            if path == repository_file:
                commands = {_plain(name) for name in _COMMANDS}
                values = {name: value for name, value in values.items() if _plain(name) not in commands}
                for name in values:
                    if _plain(name) in _NOT_FOR_REPOSITORIES:
                        raise Usage(
                            f"`{path}` may not set `{name}`: a repository file cannot reach outside the repository",
                            hint=f"set it in `{user_file}` or by: git config wt.{_plain(name)} VALUE",
                        )
            yield f"`{path}`", values
    if git_settings:
        yield "git config `wt.*`", git_settings
    known = {_plain(item.name) for item in fields(Settings)}
    named = {name[3:]: value for name, value in env.items() if name.startswith("WT_") and _plain(name[3:]) in known}
    if named:
        yield "the environment", named


def _user_file(env: Mapping[str, str]) -> Path:
    return Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME", "/")) / ".config") / "wt" / "config.toml"


def agent_tables(
    repository_file: Path | None, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[Path, bool, dict[str, Any]]]:
    """Agents defined in files, the user's own first: the file, whether it is the repository's, and the tables by name.

    Raises: Usage for a file that is not TOML or has no tables there.
    """
    for path in (_user_file(os.environ if environment is None else environment), repository_file):
        if path is not None and path.is_file():
            tables = _toml(path).get("agents", {})
            if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
                raise Usage(f"`agents` of `{path}` holds no tables", hint='[agents.mine] argv = ["mine", "{prompt}"]')
            yield path, path == repository_file, tables


def load(
    repository_file: Path | None, git_settings: Mapping[str, str], environment: Mapping[str, str] | None = None
) -> Settings:
    """All layers below the call itself. Raises: Usage, naming the layer at fault."""
    settings = Settings()
    for source, values in layers(repository_file, git_settings, environment):
        settings = settings.with_values(values, source)
    return settings


def sources(found: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """For each setting the layer that decides it: field name to source."""
    names = {_plain(item.name): item.name for item in fields(Settings)}
    decided = dict.fromkeys(names.values(), "default")
    for source, values in found:
        decided |= {names[_plain(name)]: source for name in values}
    return decided


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Usage(f"`{path}` is not TOML: {error}", hint=f"mend `{path}`") from error


def plugin(kind: str, name: str) -> Any:
    """The object registered under `worktrees.<kind>` with this name.

    Raises: Usage naming the ones there are; a plugin that fails to load is named with its reason and harms nobody else.
    """
    found = _registered(kind)
    for entry in found:
        if entry.name == name:
            try:
                return entry.load()
            except Exception as error:  # a plugin's import may fail in any way
                raise Usage(f"the {kind} `{name}` does not load: {error}", hint="wt doctor") from error
    names = ", ".join(sorted({entry.name for entry in found})) or "none"
    raise Usage(f"no {kind} `{name}`; there is: {names}", hint=f"pick one of: {names}")


def plugin_names(kind: str) -> list[str]:
    """Names registered for a kind, sorted."""
    return sorted({entry.name for entry in _registered(kind)})


@cache
def _registered(kind: str) -> EntryPoints:
    """Looked for once in a process: every installed package is asked."""
    from importlib.metadata import entry_points

    return entry_points(group=f"worktrees.{kind}")
