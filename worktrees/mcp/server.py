"""The server itself: tools, resources and the prompt, on stdio or HTTP.

HTTP listens on loopback only, unless a token is given by `WT_MCP_TOKEN`; without one a new token is made for each run.
Every request must carry it as `Authorization: Bearer TOKEN`. The address and the token are written to stderr, for
nobody but whoever started the server. A foreign Host or Origin is refused, so that no web page can reach it by DNS
rebinding.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.types import ToolAnnotations

from worktrees import __version__, guide
from worktrees.errors import NotFound, Refused, WorktreesError
from worktrees.mcp.address import Address, is_loopback
from worktrees.mcp.ground import Ground
from worktrees.mcp.jobs import JobTools
from worktrees.mcp.saying import ENDS, MOVES, READS, STARTS, told
from worktrees.mcp.verbs import VerbTools

if TYPE_CHECKING:
    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]

INSTRUCTIONS = """\
Run workers in parallel, each in its own git worktree of your repository, and merge what they did all or nothing. \
You are the boss: split the work, start a worker for each part with codex_spawn (or wt_spawn for a command), wait with \
codex_wait_any, read codex_result and wt_diff, ask wt_overlap, then wt_merge. Nothing a worker does reaches your \
checkout before wt_merge; wt_undo takes a merge back, wt_rollback returns to the start. Workers never commit. \
Jobs outlive this server and keep their ids: after a restart wt_list shows them. The whole guide is the resource wt://guide.\
"""

BOSS_PROMPT = """\
Do this task as the boss of parallel workers, each in a git worktree of its own: {task}

1. Split it into at most {workers} parts that touch different files. Keep what cannot be split for yourself.
2. Start each part at once with codex_spawn; a prompt must hold everything its worker needs to know.
3. Call codex_wait_any with all job ids. For each finished job read codex_result and wt_diff; go on with `pending`.
   On timedOut simply call it again; look into a job with codex_events meanwhile.
4. A failed job: read codex_result with view full, improve the prompt, spawn it again, wt_drop the old one.
5. When no job is left, call wt_overlap, then wt_merge with the jobs you want, in order.
6. On a conflict nothing has moved. Merge the others with onConflict skip, then spawn the conflicting task again: it
   starts from the merged branch. If the merged result is wrong, wt_undo or wt_rollback.
7. Run the checks yourself, and report what landed, what did not, and why.
"""

_JOB_TOOLS: dict[str, tuple[str, ToolAnnotations]] = {
    "codex_spawn": ("Start an agent", STARTS),
    "codex_spawn_group": ("Start several agents", STARTS),
    "wt_spawn": ("Start a command or open a workspace", STARTS),
    "codex_status": ("Where a job stands", READS),
    "codex_result": ("How a job ended", READS),
    "codex_events": ("What a worker said and did", READS),
    "codex_wait_any": ("Wait for the next finished job", STARTS),
    "wt_list": ("All jobs", READS),
    "codex_cancel": ("Stop a job", ENDS),
    "wt_settle": ("End an open workspace", ENDS),
}
_VERB_TOOLS: dict[str, tuple[str, ToolAnnotations]] = {
    "wt_diff": ("What a job really changed", READS),
    "wt_overlap": ("What would conflict", READS),
    "wt_log": ("What was merged and taken back", READS),
    "wt_merge": ("Merge jobs into the branch", MOVES),
    "wt_rollback": ("Back to the recorded state", MOVES),
    "wt_undo": ("Reverse an operation", MOVES),
    "wt_drop": ("Give jobs up", MOVES),
}


def build(here: Path) -> MCPServer[Any]:
    """The server of a process that stands in a directory."""
    ground = Ground(here)
    server: MCPServer[Any] = MCPServer(
        "wt", title="Worktrees", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING"
    )
    for tools, table in ((JobTools(ground), _JOB_TOOLS), (VerbTools(ground), _VERB_TOOLS)):
        for name, (title, hints) in table.items():
            function = getattr(tools, name)
            server.add_tool(
                function, name=name, title=title, description=_paragraphs(function.__doc__), annotations=hints
            )
    _add_resources(server, ground)

    @server.prompt(name="boss", title="Work as a boss", description="Do a task with parallel workers in worktrees.")
    def boss(task: str, workers: str = "4") -> str:
        return BOSS_PROMPT.format(task=task, workers=workers)

    return server


def _paragraphs(text: str | None) -> str:
    """A docstring with each paragraph on one line."""
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _add_resources(server: MCPServer[Any], ground: Ground) -> None:
    server.resource(
        "wt://guide", title="The guide", description="How a boss orchestrates workers.", mime_type="text/markdown"
    )(guide.text)

    @server.resource(
        "wt://workflows/{name}",
        title="A workflow",
        description="An open workflow of the repository the server was started in, and its jobs.",
        mime_type="application/json",
    )
    def workflow(name: str) -> dict[str, Any]:
        try:
            boss = ground.boss()
            found = next((item for item in boss.workflows(closed=True).workflows if item.workflow_id == name), None)
            if found is None:
                raise NotFound(f"no workflow `{name}`", hint="wt workflow list --all")
            return {**found.dump(), "jobs": [job.dump() for job in boss.list(workflow=name, closed=True)]}
        except WorktreesError as error:
            raise _unreadable(error) from error

    @server.resource(
        "wt://changes/{job}",
        title="A change set",
        description="What a job really changed, whole.",
        mime_type="application/json",
    )
    def changes(job: str) -> dict[str, Any]:
        try:
            return ground.boss_of([job]).diff(job).change_set.dump()
        except WorktreesError as error:
            raise _unreadable(error) from error


def _unreadable(error: WorktreesError) -> ResourceError:
    kind = ResourceNotFoundError if isinstance(error, NotFound) else ResourceError
    return kind(told(error))


# ---------------------------------------------------------------------------------------------------------- running
def run(http: Address | None) -> None:
    """Serves until stdin closes, or the process is told to end."""
    # Before the SDK sets its own, which draws boxes.
    logging.basicConfig(level=logging.WARNING, format="wt mcp: %(message)s", stream=sys.stderr)
    server = build(Path.cwd())
    if http is None:
        server.run("stdio")
    else:
        _run_http(server, http.host, http.port, http.token)


def _run_http(server: MCPServer[Any], host: str, port: int, given: str | None) -> None:
    import uvicorn

    token = given or secrets.token_urlsafe(32)
    with _listening(host, port) as listener:
        port = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(
            with_token(application(server, host), token), log_level="warning", timeout_graceful_shutdown=2
        )
        sys.stderr.write(f"wt mcp: serving on http://{shown}:{port}/mcp\n")
        sys.stderr.write("wt mcp: the token is the one of WT_MCP_TOKEN\n" if given else f"wt mcp: token {token}\n")
        sys.stderr.flush()
        # uvicorn ends by the signal itself again, once it is done; it has been obeyed by then.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        uvicorn.Server(config).run(sockets=[listener])


def application(server: MCPServer[Any], host: str) -> Application:
    """The ASGI application that speaks MCP at `/mcp` to whoever names `host` or loopback as its host."""
    from mcp.server.transport_security import TransportSecuritySettings

    names = ["127.0.0.1", "localhost", "[::1]"]
    if not is_loopback(host):
        names = [f"[{host}]" if ":" in host else host]
    settings = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[f"{name}:*" for name in names] + names,
        allowed_origins=[f"http://{name}:*" for name in names],
    )
    found: Application = server.streamable_http_app(transport_security=settings, host=host)
    return found


def with_token(inner: Application, token: str) -> Application:
    """The application behind a bearer token."""
    wanted = f"Bearer {token}".encode()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, wanted):
                headers = [(b"www-authenticate", b"Bearer"), (b"content-type", b"text/plain")]
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                await send({"type": "http.response.body", "body": b"the token of this server is needed\n"})
                return
        await inner(scope, receive, send)

    return guarded


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise Refused(
            f"cannot listen on `{host}:{port}`: {(error.strerror or str(error)).lower()}",
            code="address-taken",
            hint="take another port, or 0 for any that is free: wt mcp --http 127.0.0.1:0",
        ) from error
