"""What a scripted model answers: steps by prompt, worked out from the tool results in each request.

A scenario is `{"routes": [{"match": REGEX, "steps": [STEP, ...]}, ...], "steps": [STEP, ...]}`: the first route whose
expression is found in the last prompt, else the steps beside. A STEP holds exactly one of

    {"shell": "command"}                       whatever shell tool the client offers; further keys are its arguments
    {"write": {"path": P, "text": T}}          the same, to write a file
    {"patch": "*** Begin Patch ..."}           apply_patch (Codex)
    {"mcp": {"server": S, "tool": T, "args": {}}}
    {"call": {"name": N, "args": {}}}          any tool
    {"custom": {"name": N, "input": "text"}}   a freeform tool (Codex)
    {"parallel": [STEP, ...]}                  several calls in one answer
    {"message": "text"}                        an answer: the turn ends
    {"http": 500}                              an HTTP error, which a client may try again
    {"fail": "message"}                        an answer that fails (Codex)
    {"drop": true}                             a connection that breaks

and any of `say` and `think` (text before it), `usage`, `until` with `max` (this call again until the field `path` of
its result is there, or equals `equals`), `times` (an error only for the first N requests), `gate` (a directory with the
FIFOs of `tests.kit.Gate`: the model arrives there and answers once it is let on).

In any text `${prompt}` is the prompt, `${re:PATTERN}` the first group of PATTERN in it, `${out.N.a.b}` field a.b of the
JSON in tool result N of this turn, `${out.N}` its text.

The place in a script follows from the request alone, so the server holds no conversation and serves any number.
"""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

Step = dict[str, Any]
ENDINGS = ("message", "http", "fail", "drop")
_HOLE = re.compile(r"\$\{((?:[^{}]|\{\d*,?\d*\})+)\}")


class Script:
    """A scenario, and how often each of its errors was given."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        self.routes = [*scenario.get("routes", []), {"steps": scenario.get("steps", [])}]
        self._given: dict[tuple[int, int, str], int] = {}
        self._lock = threading.Lock()

    def step(self, prompt: str, results: Sequence[str]) -> Step:
        """The step that answers a request with this prompt and these tool results, its texts filled in."""
        filled: Step = _filled(self._pick(prompt, results), prompt, results)
        return filled

    def _pick(self, prompt: str, results: Sequence[str]) -> Step:
        number, steps = next(
            (number, route["steps"])
            for number, route in enumerate(self.routes)
            if re.search(route.get("match", ""), prompt)
        )
        used = 0
        for place, step in enumerate(steps):
            if "times" in step:
                if used == len(results) and self._count(number, place, prompt) <= step["times"]:
                    return dict(step)
                continue
            if any(ending in step for ending in ENDINGS):
                return dict(step)
            for _ in range(step.get("max", 50) if "until" in step else 1):
                width = len(step.get("parallel", [step]))
                if used + width > len(results):
                    return dict(step)
                used += width
                if "until" in step and _reached(step["until"], results[used - 1]):
                    break
        return {"message": "the script is finished" if steps else "no route for this prompt"}

    def _count(self, *key: Any) -> int:
        with self._lock:
            self._given[key] = self._given.get(key, 0) + 1
            return self._given[key]


def _reached(until: dict[str, Any], result: str) -> bool:
    found = _dig(_first_json(result), until["path"])
    return bool(found == until["equals"] if "equals" in until else found)


def _filled(value: Any, prompt: str, results: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_filled(item, prompt, results) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, prompt, results) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    if whole := _HOLE.fullmatch(value):
        return _look_up(whole[1], prompt, results)

    def text(hole: re.Match[str]) -> str:
        found = _look_up(hole[1], prompt, results)
        return found if isinstance(found, str) else json.dumps(found)

    return _HOLE.sub(text, value)


def _look_up(name: str, prompt: str, results: Sequence[str]) -> Any:
    if name == "prompt":
        return prompt
    if name.startswith("re:"):
        found = re.search(name[3:], prompt)
        return found[1] if found else ""
    if name.startswith("out."):
        index, _, path = name[4:].partition(".")
        text = results[int(index)]
        return _dig(_first_json(text), path) if path else text
    return "${" + name + "}"


def _first_json(text: str) -> Any:
    """The first object or list in a text; results come under headers."""
    for start in re.finditer(r"[\[{]", text):
        try:
            return json.JSONDecoder().raw_decode(text, start.start())[0]
        except ValueError:
            continue
    return None


def _dig(value: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(value, list) and key.lstrip("-").isdigit() and -len(value) <= int(key) < len(value):
            value = value[int(key)]
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def texts(content: Any) -> str:
    """The text of a message or a tool result, however it is wrapped."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return texts(content["content"]) if "content" in content else json.dumps(content)
    return "".join(_parts(content or []))


def _parts(content: list[Any]) -> Iterator[str]:
    for part in content:
        if isinstance(part, dict):
            yield str(part.get("text", ""))
