"""The ignore rules of a baseline as one file that a worker cannot edit.

git reads `.gitignore` files from the work tree, where a worker may have changed them. Here those of the baseline's tree
are joined into one list for `ls-files --exclude-from`, which git then uses instead. A pattern of `sub/.gitignore`
becomes one of the top: `/sub/…` when it is anchored, `/sub/**/…` when it is not; deeper files come later, since the
last match decides.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def joined(files: Iterable[tuple[bytes, bytes]]) -> bytes:
    """One list out of (path of a `.gitignore`, its content) pairs.

    A directory whose name holds a newline cannot be said in such a list; its rules are left out, so its files are
    captured.
    """
    lines: list[bytes] = []
    for path, content in sorted(files, key=lambda pair: (pair[0].count(b"/"), pair[0])):
        directory = path.rpartition(b"/")[0]
        if b"\n" not in directory:
            lines.extend(_lines(content) if not directory else (_moved(line, directory) for line in _lines(content)))
    return b"".join(line + b"\n" for line in lines)


def _lines(content: bytes) -> Iterator[bytes]:
    """The patterns of a file, trimmed as git trims them."""
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        pattern = _trimmed(line.removesuffix(b"\r"))
        if pattern.strip(b"/!") and not pattern.startswith(b"#"):
            yield pattern


def _trimmed(line: bytes) -> bytes:
    """Without trailing spaces; one after a backslash belongs to the pattern."""
    found = re.fullmatch(rb"((?:\\.|[^\\])*?) *", line, re.DOTALL)
    return found[1] if found else line


def _moved(pattern: bytes, directory: bytes) -> bytes:
    negation = b"!" if pattern.startswith(b"!") else b""
    rest = pattern[len(negation) :]
    anchored = b"/" in rest[:-1]
    place = b"/" + re.sub(rb"([\\*?\[])", rb"\\\1", directory)
    return negation + place + (b"/" if anchored else b"/**/") + rest.removeprefix(b"/")
