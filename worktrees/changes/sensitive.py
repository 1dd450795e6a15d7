"""Paths that make other programs run or obey something: flagged in diff, overlap and merge plan, never silently accepted."""

from __future__ import annotations


def is_sensitive(path: bytes) -> bool:
    """Whether a change of this path deserves a second look: git's own files, hooks, CI, agent instructions, editor tasks."""
    raise NotImplementedError
