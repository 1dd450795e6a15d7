"""Text for people: safe words, durations, colours and small aligned tables.

Standard library only and cheap to import. Colour never carries meaning alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

# Compiled when the first text needs them, which in most answers is never.
_CONTROL = "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_ESCAPE_SEQUENCE = "\x1b\\[[0-9;]*m"
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def shown(text: object) -> str:
    """Text with everything that could move a terminal's cursor or turn its direction written as an escape."""
    text = str(text)
    return text if text.isprintable() else re.sub(_CONTROL, lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is not UTF-8, as the operating system hands it over
        return f"\\x{number - 0xDC00:02x}"
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\x1b": "\\e"}
    return known.get(character) or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")


def one_line(text: str, limit: int = 200) -> str:
    """The first line of a longer text, shortened."""
    first = text.strip().partition("\n")[0]
    return shown(first if len(first) <= limit else first[: limit - 1] + "…")


# `typing.NamedTuple` would load `typing`.
class Terminal(namedtuple("Terminal", ("color", "width"), defaults=(False, None))):  # noqa: PYI024
    """How to write to one stream: in colour or not, and how wide (None: as wide as it gets)."""

    __slots__ = ()
    color: bool
    width: int | None

    def paint(self, text: str, *styles: str) -> str:
        """Text in a colour or weight; as it is where colour is off."""
        if not self.color or not text:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def terminal(stream: IO[str] | None = None, environment: Mapping[str, str] = os.environ) -> Terminal:
    """What a stream can show. `NO_COLOR` wins over `FORCE_COLOR` and `CLICOLOR_FORCE`; a dumb terminal has none."""
    stream = sys.stdout if stream is None else stream
    interactive = stream.isatty()
    forced = any(environment.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE"))
    color = (interactive and environment.get("TERM", "dumb") != "dumb") or forced
    if environment.get("NO_COLOR"):
        color = False
    width = None
    if interactive:
        try:
            width = int(environment.get("COLUMNS") or os.get_terminal_size(stream.fileno()).columns) or None
        except (OSError, ValueError):
            width = None
    return Terminal(color, width)


def duration(seconds: float | None) -> str:
    """`0.4s`, `12s`, `3m`, `1h20m`, `2d`: two units at most."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    if seconds < 100:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes}m" if minutes and hours < 10 else f"{hours}h"
    return f"{hours // 24}d"


def size(count: int | None) -> str:
    """`512 B`, `3.4 MB`: powers of 1000, as disks are sold."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 file`, `3 files`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(words: Sequence[str], most: int = 5) -> str:
    """Words in backticks with the rest counted: `` `a`, `b` and 3 more``."""
    head = ", ".join(f"`{shown(word)}`" for word in words[:most])
    return head if len(words) <= most else f"{head} and {len(words) - most} more"


def cell_width(text: str) -> int:
    """Columns a text takes on a terminal, colours aside."""
    plain = re.sub(_ESCAPE_SEQUENCE, "", text) if "\x1b" in text else text
    if plain.isascii():
        return len(plain)
    import unicodedata

    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in plain
    )


def fitted(text: str, width: int) -> str:
    """A text without colours cut to a number of columns, with `…` at the cut."""
    if cell_width(text) <= width:
        return text
    while text and cell_width(text) > width - 1:
        text = text[:-1]
    return text + "…"


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], out: Terminal, *, right: frozenset[int] = frozenset()
) -> str:
    """Aligned columns without lines; empty columns are left out, the last one is cut to the terminal's width.

    `right` are the columns set flush right. Cells must be `shown` already; the last one must hold no colour.
    """
    columns = [list(cells) for cells in zip(*rows, strict=True)] or [[] for _ in headers]
    keep = [column for column, cells in enumerate(columns) if any(cells)] or [0]
    room = out.width
    aligned = []
    for column in keep:
        cells = [headers[column], *columns[column]]
        if column == keep[-1] and room is not None:
            cells = [fitted(cell, max(room, 8)) for cell in cells]
        widths = [cell_width(cell) for cell in cells]
        width = max(widths)
        if room is not None:
            room -= width + 2
        padding = [" " * (width - taken) for taken in widths]
        cells[0] = out.paint(cells[0], "dim")
        if column in right:
            cells = [space + cell for space, cell in zip(padding, cells, strict=True)]
        elif column != keep[-1]:
            cells = [cell + space for space, cell in zip(padding, cells, strict=True)]
        aligned.append(cells)
    return "\n".join("  ".join(line).rstrip() for line in zip(*aligned, strict=True))
