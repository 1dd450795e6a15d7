"""`wt agents`: who can be spawned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worktrees.cli.options import verb
from worktrees.render.text import shown, table

if TYPE_CHECKING:
    from worktrees.cli.session import Session

_HEADERS = ("AGENT", "PROGRAM", "VERSION", "SANDBOX", "FROM")


@verb("agents", examples="wt agents\nwt agents --json")
def agents(session: Session) -> int:
    """List the agents that can be spawned, and where their programs are.

    One of your own is a table `[agents.NAME]` in ~/.config/wt/config.toml, or in .wt.toml and approved by
    `wt setup --approve`: `argv` with `{prompt}` or without (then the prompt is its standard input), `{workspace}`,
    `{access}`; `parser` (text, codex, claude, gemini, opencode) says how its output is read.
    """
    found = session.boss().agents()
    rows = [
        (
            agent.name,
            shown(agent.path or f"{agent.program} is not installed"),
            agent.version or "",
            "its own" if agent.own_sandbox else "",
            shown(agent.source) + ("" if agent.approved else ", waits: wt setup --approve"),
        )
        for agent in found.agents
    ]
    return session.answer(found, table(_HEADERS, rows, session.out))
