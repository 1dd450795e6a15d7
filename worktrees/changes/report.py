"""What a worker says it changed, out of its final message.

The claim is JSON: a list of paths, or an object with `modifiedFiles` or `files`; in a fenced block, as the whole
message, or as its last line. The last block that is a claim counts. Anything else a message says is prose and no claim.
"""

from __future__ import annotations

import json
import re
from typing import Any

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
_KEYS = ("modifiedFiles", "files")


def reported_files(text: str) -> list[str] | None:
    """Paths a final message claims, in its order.

    None when the message claims nothing in a known form; `[]` when it claims that nothing was changed.
    """
    last_line = text.rstrip().rpartition("\n")[2]
    for block in (*reversed(_FENCE.findall(text)), text, last_line):
        try:
            claim = _claim(json.loads(block))
        except (ValueError, RecursionError):
            continue
        if claim is not None:
            return claim
    return None


def _claim(value: Any) -> list[str] | None:
    if isinstance(value, dict):
        value = next((value[key] for key in _KEYS if isinstance(value.get(key), list)), None)
    if not isinstance(value, list):
        return None
    paths = [item.get("path") if isinstance(item, dict) else item for item in value]
    texts = [path for path in paths if isinstance(path, str)]
    return list(dict.fromkeys(texts)) if len(texts) == len(paths) else None
