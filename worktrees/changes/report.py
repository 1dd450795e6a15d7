"""What a worker says it changed, out of its final message."""

from __future__ import annotations


def reported_files(text: str) -> list[str] | None:
    """Paths a final message claims, in its order: a JSON list or an object with `modifiedFiles` or `files`, fenced or bare.

    None when the message claims nothing in that form; `[]` when it claims that nothing was changed.
    """
    raise NotImplementedError
