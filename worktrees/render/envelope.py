"""The one JSON document of `--json`.

Standard library only. Text that is not valid UTF-8 (names handed over by the operating system) leaves as JSON escapes,
so the document always is UTF-8.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from worktrees.errors import WorktreesError

SCHEMA = 1


def error_object(error: WorktreesError) -> dict[str, Any]:
    """The envelope's `error`."""
    return {"code": error.code, "message": error.message, "hint": error.hint, "details": error.details}


def envelope(
    command: str,
    data: Mapping[str, Any] | None,
    *,
    warnings: Iterable[Mapping[str, Any]] = (),
    error: WorktreesError | None = None,
) -> dict[str, Any]:
    """The document around an answer; `data` may be there beside an error."""
    return {
        "schema": SCHEMA,
        "command": command,
        "ok": error is None,
        "data": data,
        "warnings": list(warnings),
        "error": None if error is None else error_object(error),
    }


def encode(document: Any) -> bytes:
    """A document as one line of UTF-8."""
    # A lone surrogate stands for a byte that is not UTF-8; `backslashreplace` writes it the way JSON escapes it.
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"
