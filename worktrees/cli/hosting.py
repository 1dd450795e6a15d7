"""Commands for the hosts that agents run in: `mcp`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from worktrees.cli.options import verb
from worktrees.errors import Usage

if TYPE_CHECKING:
    from worktrees.cli.session import Session


@verb("mcp", examples="wt mcp\nwt mcp --http 127.0.0.1:8765")
@click.option("--http", metavar="HOST:PORT", help="Serve HTTP there, with a token, instead of stdio; port 0: any.")
def mcp(session: Session, http: str | None) -> int:
    """Serve the verbs to a host that speaks MCP.

    On stdio until it is closed; the jobs live on. A host starts it by itself: put `wt mcp` into its configuration. With
    --http every request needs the bearer token that is printed at the start, or that of WT_MCP_TOKEN.
    """
    if session.json:
        raise Usage("the server has no answer that one JSON document could hold", hint="wt mcp --help")
    from worktrees.config import plugin

    plugin("door", "mcp")(http)
    return 0
