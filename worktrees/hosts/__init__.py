"""Configuration of the programs that agents run in: `wt` put into it, and taken out again.

Owns which files those are and what is written there. Everything else in a file stays as it is, comments and format
included; a file that cannot be understood is left alone. The file as it was is kept beside it, as `NAME.before-wt`.

    codex      [mcp_servers.wt] in config.toml, between two marks
    claude     the MCP server, the two worktree hooks in settings.json, the skill
    gemini     the MCP server in settings.json
    opencode   the MCP server in opencode.json

Codex must wait for the server (`required`), or its first request goes out without the tools: a Python server takes a
second to start; Claude Code is told not to put them off (`alwaysLoad`). Codex's tools are approved in advance, because
a boss that runs without a person could not call them else.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any, Literal

from worktrees import guide
from worktrees.errors import Refused, Usage
from worktrees.hosts import splice
from worktrees.store import write_bytes

Scope = Literal["user", "project"]
_BEGIN = "# >>> wt: written by `wt install codex`, removed by `wt install codex --uninstall`"
_END = "# <<< wt"
_BLOCK = re.compile(rf"\n?{re.escape(_BEGIN)}\n.*?{re.escape(_END)}\n", re.DOTALL)
# Servers of Codex get a reduced environment; these, and the keys of its model providers, are what workers need of it.
_PASSED = ("CODEX_HOME", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "XDG_STATE_HOME", "XDG_CONFIG_HOME")


@dataclass(frozen=True, slots=True)
class Edit:
    """A file before and after; None where there is none."""

    path: Path
    before: str | None
    after: str | None

    @property
    def diff(self) -> str:
        """As `diff -u` shows it."""
        name = os.fspath(self.path)
        old = (self.before or "").splitlines(keepends=True)
        new = (self.after or "").splitlines(keepends=True)
        lines = unified_diff(old, new, name if self.before is not None else "/dev/null", name)
        return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def edits(
    host: str, scope: Scope, root: Path | None, command: str, environment: Mapping[str, str], *, uninstall: bool = False
) -> list[Edit]:
    """What installing, or uninstalling, would change. `root` is the project, `command` how `wt` is called.

    Raises: Usage; Refused `host-configured` where something else stands in our place, `host-file` for a file that
    cannot be understood.
    """
    if scope == "project" and root is None:
        raise Usage("a project is a git repository, and this is none", hint="cd to it, or leave `--project` out")
    base = root if scope == "project" and root is not None else Path(environment.get("HOME") or os.path.expanduser("~"))
    found = []
    for path, change in _changes(host, scope, base, command, environment, uninstall=uninstall):
        before = _read(path)
        try:
            after = change(before or "")
        except Usage as error:
            raise Refused(f"`{path}`: {error.message}", code="host-file", hint=error.hint) from error
        if after.strip() in ("", "{}") and (before is None or uninstall):
            found.append(Edit(path, before, None))
        else:
            found.append(Edit(path, before, after))
    return [edit for edit in found if edit.before != edit.after]


def apply(edit: Edit) -> Path | None:
    """Writes a change; where the file as it was is kept, if there was one."""
    target = Path(os.path.realpath(edit.path))  # through the links of those who keep their files elsewhere
    backup = None
    mode = 0o644
    if edit.before is not None:
        mode = target.stat().st_mode & 0o777
        backup = target.with_name(target.name + ".before-wt")
        write_bytes(backup, edit.before.encode())
        backup.chmod(mode)
    if edit.after is None:
        target.unlink()
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, edit.after.encode())
        target.chmod(mode)
    return backup


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise Refused(f"`{path}` is not UTF-8", code="host-file", hint="mend the file by hand") from None


_Change = Callable[[str], str]


def _changes(
    host: str, scope: Scope, base: Path, command: str, environment: Mapping[str, str], *, uninstall: bool
) -> Iterator[tuple[Path, _Change]]:
    server = {"command": command, "args": ["mcp"]}
    user = scope == "user"
    if host == "codex":
        home = Path(environment["CODEX_HOME"]) if user and environment.get("CODEX_HOME") else base / ".codex"
        yield home / "config.toml", lambda text: _codex(text, command, uninstall=uninstall)
    elif host == "claude":
        own = Path(environment["CLAUDE_CONFIG_DIR"]) if user and environment.get("CLAUDE_CONFIG_DIR") else None
        home = own or base / ".claude"
        servers = (own or base) / ".claude.json" if user else base / ".mcp.json"
        yield (
            servers,
            _member(("mcpServers", "wt"), {"type": "stdio", **server, "alwaysLoad": True}, uninstall=uninstall),
        )
        yield home / "settings.json", lambda text: _claude_hooks(text, command, uninstall=uninstall)
        skill = guide.SKILL.read_text(encoding="utf-8")
        yield (
            home / "skills" / "wt" / "SKILL.md",
            lambda text: skill if not uninstall else "" if text == skill else text,
        )
    elif host == "gemini":
        yield (
            base / ".gemini" / "settings.json",
            _member(("mcpServers", "wt"), {**server, "timeout": 300_000}, uninstall=uninstall),
        )
    elif host == "opencode":
        config = Path(environment.get("XDG_CONFIG_HOME") or base / ".config") / "opencode" if user else base
        entry = {"type": "local", "command": [command, "mcp"], "enabled": True}
        yield config / "opencode.json", _member(("mcp", "wt"), entry, uninstall=uninstall)
    else:
        raise Usage(f"no host `{host}` is known", hint="wt install --help")


def _member(place: tuple[str, ...], value: Any, *, uninstall: bool) -> _Change:
    def change(text: str) -> str:
        if uninstall:
            return splice.take(text, place)
        return text if splice.value_at(text, place) == value else splice.put(text, place, value)

    return change


def _claude_hooks(text: str, command: str, *, uninstall: bool) -> str:
    """The worktree hooks; somebody else's provider is not replaced, since there can be only one."""
    for event, verb in (("WorktreeCreate", "claude-create"), ("WorktreeRemove", "claude-remove")):
        call = {"type": "command", "command": f"{command} hook {verb}", "timeout": 120}
        wanted = [{"hooks": [call]}]
        there = splice.value_at(text, ("hooks", event))
        ours = there is not None and all(
            str(item.get("command", "")).endswith(f"hook {verb}") for group in there for item in group.get("hooks", [])
        )
        if uninstall:
            text = splice.take(text, ("hooks", event)) if ours else text
        elif there is not None and not ours:
            raise Refused(
                f"another program provides worktrees already, by the hook `{event}`",
                code="host-configured",
                hint="take that hook out of the settings, then run this again",
            )
        elif there != wanted:
            text = splice.put(text, ("hooks", event), wanted)
    return text


def _codex(text: str, command: str, *, uninstall: bool) -> str:
    rest = _BLOCK.sub("", text, count=1)
    if uninstall:
        return rest
    try:
        configured = tomllib.loads(rest)
    except tomllib.TOMLDecodeError as error:
        raise Usage(f"it is no TOML: {error}", hint="mend the file by hand") from error
    if "wt" in configured.get("mcp_servers", {}):
        raise Refused(
            "a server `wt` is configured already, and not by this command",
            code="host-configured",
            hint="take [mcp_servers.wt] out of the file, then run this again",
        )
    quoted = '"' + command.replace("\\", "\\\\").replace('"', '\\"') + '"'
    providers = configured.get("model_providers", {})
    keys = [provider["env_key"] for provider in providers.values() if isinstance(provider.get("env_key"), str)]
    passed = ", ".join(f'"{name}"' for name in dict.fromkeys([*_PASSED, *keys]))
    block = f"""\
{_BEGIN}
[mcp_servers.wt]
command = {quoted}
args = ["mcp"]
required = true
startup_timeout_sec = 30
tool_timeout_sec = 300
supports_parallel_tool_calls = true
default_tools_approval_mode = "approve"
env_vars = [{passed}]
{_END}
"""
    after = rest + ("" if not rest else "\n" if rest.endswith("\n") else "\n\n") + block
    try:
        tomllib.loads(after)
    except tomllib.TOMLDecodeError as error:
        raise Usage(f"a server cannot be added at its end: {error}", hint="mend the file by hand") from error
    return after
