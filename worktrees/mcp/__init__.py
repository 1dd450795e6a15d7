"""`wt mcp`: the verbs for hosts that speak the Model Context Protocol.

Words to verbs and values to words, as `cli` does it; no rules of any kind. The job tools keep the names and shapes of
the codex job server that orchestration prompts are written for (`codex_spawn`, ...), the others are `wt_` and the verb.

What a host must be able to rely on:

1. A call ends within `LONGEST_WAIT_SECONDS`, whatever it waits for; a call that is cancelled ends no job.
2. Every answer is a value with a schema and below 12,000 characters, beyond which hosts cut it in the middle; what
   does not fit is behind a cursor, or counted in `omitted`.
3. Jobs are found by their id alone, in whatever repository this process or an earlier one made them.
4. A call that the host repeats, told by its own ids, gives the job of the first.
5. An expected failure is `[code] message` and a hint; a bug is a report file and one line that names it.
6. stdin closed, or SIGTERM: the server ends and every job lives on.

`ground` knows repositories and callers, `shapes` what is answered and how much of it, `saying` how; `jobs` and `verbs`
hold the tools, `server` puts them together. The SDK is imported by the last four only, when `serve` is called: it costs
most of a second.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from worktrees.errors import PeerFailed

if TYPE_CHECKING:
    from collections.abc import Mapping


def serve(http: str | None = None, *, environment: Mapping[str, str] | None = None) -> None:
    """Serves on stdio until it is closed, or on `HOST:PORT` until the process is told to end.

    Raises: PeerFailed `mcp-missing` without the SDK; Usage for an address that is none.
    """
    from worktrees.mcp.address import parsed

    address = parsed(http, os.environ if environment is None else environment) if http is not None else None
    try:
        import mcp.server  # noqa: F401 - only to see that it is there
    except ImportError as error:
        raise PeerFailed(
            f"the MCP server needs the library `mcp`, which does not load: {error}",
            code="mcp-missing",
            hint="pip install 'agent-worktrees[mcp]'",
        ) from error
    from worktrees.mcp.server import run

    run(address)
