"""The orchestration guide: one text, read by people (`wt guide`, docs/), by agents (the skill) and by MCP hosts."""

from __future__ import annotations

from pathlib import Path

SKILL = Path(__file__).parent / "plugin" / "skills" / "wt" / "SKILL.md"


def text() -> str:
    """The guide, as Markdown."""
    _, _, rest = SKILL.read_text(encoding="utf-8").partition("\n---\n")
    return rest.lstrip("\n")
