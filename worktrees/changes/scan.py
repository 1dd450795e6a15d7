"""Walks a workspace with own eyes: what is there, and what git would skip, refuse or be fooled by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worktrees.model import Finding, IgnoredFile


@dataclass(frozen=True, slots=True)
class Scan:
    """What a capture has to say beside the snapshot.

    `verified` is False when something in the workspace is not in the snapshot; a finding names it.
    """

    findings: tuple[Finding, ...] = ()
    ignored: tuple[IgnoredFile, ...] = ()
    verified: bool = True
