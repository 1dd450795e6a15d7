"""Where an HTTP server may listen, and who needs a token of their own for it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

from worktrees.errors import Refused, Usage


class Address(NamedTuple):
    """Where to listen, and the token that was given for it."""

    host: str
    port: int
    token: str | None


def parsed(text: str, environment: Mapping[str, str]) -> Address:
    """`HOST:PORT`, `:PORT` on loopback, `[::1]:PORT`.

    Raises: Usage; Refused `token-needed` for an address that others reach when `WT_MCP_TOKEN` is not set.
    """
    host, _, digits = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not (digits.isascii() and digits.isdigit()) or int(digits) > 65535:
        raise Usage(f"`{text}` is no HOST:PORT", hint="wt mcp --http 127.0.0.1:8765")
    token = environment.get("WT_MCP_TOKEN") or None
    if token is None and not is_loopback(host):
        raise Refused(
            f"`{host}` can be reached from other machines, and no token is set",
            code="token-needed",
            hint="set WT_MCP_TOKEN to a secret of your own, or listen on 127.0.0.1",
        )
    return Address(host, int(digits), token)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
