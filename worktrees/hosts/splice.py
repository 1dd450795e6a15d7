"""Changing one member of a JSON document and leaving every other character of it as it is, comments included.

Hosts read JSON with comments, and people format it as they like. The text is scanned for where members begin and end,
and only what is put in or taken out is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from worktrees.errors import Usage

_SPACE = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_REMARK = re.compile(r"[ \t]*(?://[^\n]*|/\*[^\n]*?\*/)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SCALAR = re.compile(r"[^\s,\]}/:]+")


@dataclass
class _Node:
    """A value's place in the text; `members` of an object with the place of each key, None for anything else."""

    start: int
    end: int = 0
    members: dict[str, tuple[int, _Node]] | None = None
    last_end: int = field(default=0)
    """Behind the last member, and behind the comma after it if there is one."""
    has_comma: bool = False


def put(text: str, place: Sequence[str], value: Any) -> str:
    """The document with this value at this place; objects on the way there are made. Raises: Usage."""
    text = text if text.strip() else "{}\n"
    node, depth = _root(text), 0
    for depth, key in enumerate(place):
        if node.members is None:
            raise Usage(f"`{'.'.join(place[:depth])}` is no object", hint="mend the file by hand")
        if key not in node.members:
            for inner in reversed(place[depth + 1 :]):
                value = {inner: value}
            return _inserted(text, node, key, value)
        node = node.members[key][1]
    indent = _indent_at(text, node.start)
    return text[: node.start] + _written(value, indent, _step(text)) + text[node.end :]


def take(text: str, place: Sequence[str]) -> str:
    """The document without the member at this place, nor the objects that held only that. Raises: Usage."""
    way = [_root(text)] if text.strip() else []
    for key in place if way else ():
        if way[-1].members is None or key not in way[-1].members:
            return text
        way.append(way[-1].members[key][1])
    if not way:
        return text
    depth = len(place) - 1
    while depth > 0 and len(way[depth].members or {}) == 1:
        depth -= 1
    members = way[depth].members or {}
    names = list(members)
    at = names.index(place[depth])
    if len(names) == 1:
        return text[: way[depth].start] + "{}" + text[way[depth].end :]
    if at > 0:
        start, end = len(text[: members[names[at]][0]].rstrip()), way[depth + 1].end
        if text[after := _space(text, end)] == ",":
            return text[:start] + text[after + 1 :]
        comma = _space(text, members[names[at - 1]][1].end)
        return text[:comma] + text[comma + 1 : start] + text[end:]
    return text[: members[names[0]][0]] + text[members[names[1]][0] :]


def value_at(text: str, place: Sequence[str]) -> Any:
    """What stands there, None when nothing does. Raises: Usage."""
    node = _root(text) if text.strip() else _Node(0)
    for key in place:
        if node.members is None or key not in node.members:
            return None
        node = node.members[key][1]
    return json.loads(_without_comments(text[node.start : node.end]))


def _inserted(text: str, node: _Node, key: str, value: Any) -> str:
    outer, step = _indent_at(text, node.start), _step(text)
    members = list((node.members or {}).values())
    if members:
        own_line = "\n" in text[node.start : members[0][0]]
        indent = _indent_at(text, members[0][0]) if own_line else outer + step
    else:
        indent = outer + step
    member = f"\n{indent}{json.dumps(key, ensure_ascii=False)}: {_written(value, indent, step)}"
    if not members:
        return text[: node.start] + "{" + member + "\n" + outer + "}" + text[node.end :]
    # A comment behind the last member is that member's.
    found = _REMARK.match(text, node.last_end)
    end = found.end() if found else node.last_end
    if node.has_comma:  # after the last one, too: then that is how they are written here
        return text[:end] + member + "," + text[end:]
    return text[: node.last_end] + "," + text[node.last_end : end] + member + text[end:]


def _written(value: Any, indent: str, step: str) -> str:
    return json.dumps(value, indent=step, ensure_ascii=False).replace("\n", "\n" + indent)


def _step(text: str) -> str:
    found = re.search(r"\n([ \t]+)\"", text)
    return found[1] if found else "  "


def _indent_at(text: str, position: int) -> str:
    line = text[text.rfind("\n", 0, position) + 1 : position]
    return line[: len(line) - len(line.lstrip())]


def _without_comments(text: str) -> str:
    kept = re.sub(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/', lambda found: found[1] or "", text, flags=re.DOTALL)
    return re.sub(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', lambda found: found[1] or "", kept)


# --------------------------------------------------------------------------------------------------------- scanning
def _root(text: str) -> _Node:
    try:
        json.loads(_without_comments(text))
        node, end = _value(text, _space(text, 0))
    except (ValueError, IndexError) as error:
        raise Usage(f"it is no JSON: {error}", hint="mend the file by hand") from error
    if text[_space(text, end) :] or node.members is None:
        raise Usage("it holds no JSON object", hint="mend the file by hand")
    return node


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int) -> tuple[_Node, int]:
    node = _Node(at)
    if text[at] in "{[":
        node.end = _inside(text, node)
        return node, node.end
    found = (_STRING if text[at] == '"' else _SCALAR).match(text, at)
    if found is None:
        raise ValueError(f"nothing at character {at}")
    node.end = found.end()
    return node, node.end


def _inside(text: str, node: _Node) -> int:
    """Members of an object, or items of a list; where it ends."""
    members: dict[str, tuple[int, _Node]] = {}
    is_object = text[node.start] == "{"
    at = _space(text, node.start + 1)
    while text[at] not in "}]":
        key_at = at
        key = _STRING.match(text, at) if is_object else None
        if key is not None:
            at = _space(text, _space(text, key.end()) + 1)
        child, end = _value(text, at)
        if key is not None:
            members[json.loads(key[0])] = (key_at, child)
        node.last_end, node.has_comma = end, False
        at = _space(text, end)
        if text[at] == ",":
            node.last_end, node.has_comma = at + 1, True
            at = _space(text, at + 1)
    if is_object:
        node.members = members
    return at + 1
