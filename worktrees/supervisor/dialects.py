"""What agent programs print, record by record, into typed events and the facts of a run.

A dialect reads one line of stdout at a time and gives the events of it, of the six types of the contract. What it
has understood so far are its attributes: the agent's last words, its session, what it used, how its turn ended. A line
that is no record, or one of an unknown kind, is `progress` as it stands; nothing a program prints can raise.

    type        comes from
    message     what the agent says
    tool_call   a tool that starts: `NAME: what it is to do`
    tool_result the same tool done: `NAME: how it ended`, then its output
    error       what went wrong, also what is tried again: an error is not the end
    progress    everything else

A turn that did not end well fails the job whatever the exit status was: some programs end with 0 then. A program that
says when its turn ends (`says_when_it_ends`) and did not say so failed as well; the reason is then on stderr.

Shapes: Codex 0.169 to 0.171 and Claude Code 2.1.197 as measured, Gemini CLI (`--output-format stream-json`) and
OpenCode (`run --format json`) as documented.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Record: TypeAlias = dict[str, Any]
    Events: TypeAlias = list[tuple[str, str]]

_HEAD = 200
_MOST = 1 << 53


class Dialect:
    """A stream of JSON records, one a line; the state of one run of one program."""

    says_when_it_ends = True

    def __init__(self) -> None:
        self.message = ""
        """The last thing the agent said that says something."""
        self.session: str | None = None
        self.usage: dict[str, float] | None = None
        self.failure: str | None = None
        """Why the turn failed; None while it has not."""
        self.ended = False
        self.last_error: str | None = None

    def events(self, line: bytes) -> Events:
        """The events of one line; blank lines have none."""
        text = line.decode("utf-8", "backslashreplace")
        if not text.strip():
            return []
        try:
            record = json.loads(text)
            found = self.read(record) if isinstance(record, dict) else None
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError):
            found = None  # a shape nobody knows yet
        return [(kind, clean(content)) for kind, content in found] if found is not None else [("progress", text)]

    def read(self, record: Record) -> Events | None:
        """The events of one record; None for one of an unknown kind."""
        raise NotImplementedError

    def rest(self) -> Events:
        """What was held back until the stream ended."""
        return []

    def says(self, text: str) -> Events:
        """A message."""
        if text.strip():
            self.message = text
        return [("message", text)]

    def fails(self, why: str) -> Events:
        """An error that may still be recovered from."""
        self.last_error = why
        return [("error", why)]


class Codex(Dialect):
    """`codex exec --json`: items that start and complete, one turn."""

    def read(self, record: Record) -> Events | None:
        """The events of one record."""
        kind = record["type"]
        if kind.startswith("item."):
            return self._item(kind.removeprefix("item."), record["item"])
        if kind == "thread.started":
            self.session = str(record["thread_id"])
            return [("progress", f"thread {self.session} started")]
        if kind == "turn.started":
            return [("progress", "turn started")]
        if kind == "turn.completed":
            self.ended, self.failure = True, None
            used = record.get("usage") or {}
            self.usage = _counts(
                input=used.get("input_tokens"),
                cachedInput=used.get("cached_input_tokens"),
                output=used.get("output_tokens"),
                reasoning=used.get("reasoning_output_tokens"),
            )
            return [("progress", "turn completed")]
        if kind == "turn.failed":
            self.ended, self.failure = True, str(record["error"]["message"])
            return [("error", self.failure)]
        if kind == "error":
            return self.fails(str(record["message"]))
        return None

    def _item(self, stage: str, item: Record) -> Events | None:
        kind, done = item["type"], stage == "completed"
        if kind == "agent_message":
            return self.says(item["text"]) if done else []
        if kind == "reasoning":
            return [("progress", item["text"])] if done else []
        if kind == "error":
            return self.fails(str(item["message"]))
        if kind == "todo_list":
            return [
                ("progress", "\n".join(f"[{'x' if row['completed'] else ' '}] {row['text']}" for row in item["items"]))
            ]
        if kind not in _CODEX_TOOLS or stage == "updated":
            return None
        name, asked, told = _CODEX_TOOLS[kind](item)
        if not done:
            return [("tool_call", f"{name}: {asked}")]
        return [("tool_result", _told(name, asked, str(item.get("status", "completed")), told))]


def _command(item: Record) -> tuple[str, str, str]:
    code = item.get("exit_code")
    output = str(item.get("aggregated_output") or "")
    return "shell", str(item["command"]), output if code in (0, None) else f"exit status {code}\n{output}"


def _edit(item: Record) -> tuple[str, str, str]:
    return "edit", ", ".join(f"{change['kind']} {change['path']}" for change in item["changes"]), ""


def _mcp(item: Record) -> tuple[str, str, str]:
    result, error = item.get("result") or {}, item.get("error") or {}
    said = error.get("message") or _blocks(result.get("content"))
    return f"{item['server']}.{item['tool']}", _compact(item.get("arguments")), said


def _collaboration(item: Record) -> tuple[str, str, str]:
    states = item.get("agents_states") or {}
    return str(item["tool"]), str(item.get("prompt") or ""), _compact(states) if states else ""


def _search(item: Record) -> tuple[str, str, str]:
    return "web search", str(item.get("query") or ""), ""


_CODEX_TOOLS = {
    "command_execution": _command,
    "file_change": _edit,
    "mcp_tool_call": _mcp,
    "collab_tool_call": _collaboration,
    "web_search": _search,
}


class Claude(Dialect):
    """`claude -p --output-format stream-json --verbose`: messages of the two sides, then one result."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[str, tuple[str, str]] = {}

    def read(self, record: Record) -> Events | None:
        """The events of one record."""
        kind = record["type"]
        if isinstance(record.get("session_id"), str):
            self.session = record["session_id"]
        if kind in ("assistant", "user"):
            content = record["message"]["content"]
            blocks = content if isinstance(content, list) else [{"type": "text", "text": str(content)}]
            return [event for block in blocks for event in self._block(kind, block)]
        if kind == "system":
            if record.get("subtype") == "init":
                return [("progress", f"session {self.session} started, model {record.get('model')}")]
            return [("progress", f"{record.get('subtype')}: {_compact(record)}")]
        if kind == "result":
            return self._result(record)
        return None

    def _block(self, side: str, block: Record) -> Events:
        kind = block["type"]
        if kind == "text":
            return self.says(block["text"]) if side == "assistant" else [("progress", block["text"])]
        if kind == "thinking":
            return [("progress", str(block.get("thinking") or ""))] if block.get("thinking") else []
        if kind == "tool_use":
            asked = _argument(block.get("input"))
            self._calls[str(block.get("id"))] = (str(block["name"]), asked)
            return [("tool_call", f"{block['name']}: {asked}")]
        if kind == "tool_result":
            name, asked = self._calls.pop(str(block.get("tool_use_id")), ("tool", ""))
            status = "failed" if block.get("is_error") else "completed"
            return [("tool_result", _told(name, asked, status, _blocks(block.get("content"))))]
        return [("progress", _compact(block))]

    def _result(self, record: Record) -> Events:
        self.ended = True
        used = record.get("usage") or {}
        self.usage = _counts(
            input=used.get("input_tokens"),
            cachedInput=used.get("cache_read_input_tokens"),
            cacheWrite=used.get("cache_creation_input_tokens"),
            output=used.get("output_tokens"),
            cost=record.get("total_cost_usd"),
        )
        said = record.get("result")
        if record.get("is_error") or record.get("subtype", "success") != "success":
            why = said if isinstance(said, str) and said else ", ".join(map(str, record.get("errors") or []))
            self.failure = why or str(record.get("subtype"))
            return [("error", self.failure)]
        self.failure = None
        if isinstance(said, str) and said.strip():
            self.message = said
        return [("progress", "turn completed")]


class Gemini(Dialect):
    """`gemini --output-format stream-json`: a message comes in pieces, which are put together again."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []
        self._calls: dict[str, tuple[str, str]] = {}

    def read(self, record: Record) -> Events | None:
        """The events of one record."""
        kind = record["type"]
        if kind == "message" and record.get("role") == "assistant":
            before = [] if record.get("delta") else self.rest()
            self._pieces.append(str(record["content"]))
            return before
        found = self._other(kind, record)
        return None if found is None else [*self.rest(), *found]

    def rest(self) -> Events:
        """The message that was held back to be whole."""
        text = "".join(self._pieces)
        self._pieces = []
        return self.says(text) if text else []

    def _other(self, kind: str, record: Record) -> Events | None:
        if kind == "init":
            self.session = str(record["session_id"])
            return [("progress", f"session {self.session} started, model {record.get('model')}")]
        if kind == "message":
            return []  # the prompt
        if kind == "tool_use":
            asked = _argument(record.get("parameters"))
            self._calls[str(record.get("tool_id"))] = (str(record["tool_name"]), asked)
            return [("tool_call", f"{record['tool_name']}: {asked}")]
        if kind == "tool_result":
            name, asked = self._calls.pop(str(record.get("tool_id")), ("tool", ""))
            error = record.get("error") or {}
            status = "completed" if record.get("status") == "success" else "failed"
            return [
                ("tool_result", _told(name, asked, status, str(record.get("output") or error.get("message") or "")))
            ]
        if kind == "error":
            return self.fails(str(record["message"]))
        if kind == "result":
            return self._result(record)
        return None

    def _result(self, record: Record) -> Events:
        self.ended = True
        used = record.get("stats") or {}
        self.usage = _counts(
            input=used.get("input_tokens"), cachedInput=used.get("cached"), output=used.get("output_tokens")
        )
        if record.get("status") == "success":
            self.failure = None
            return [("progress", "turn completed")]
        self.failure = str((record.get("error") or {}).get("message") or record.get("status"))
        return [("error", self.failure)]


class OpenCode(Dialect):
    """`opencode run --format json`: steps with their own counts, tools once they are done, no word of an end."""

    says_when_it_ends = False

    def read(self, record: Record) -> Events | None:
        """The events of one record."""
        kind, part = record["type"], record.get("part") or {}
        if isinstance(record.get("sessionID"), str):
            self.session = record["sessionID"]
        if kind == "text":
            return self.says(part["text"])
        if kind == "reasoning":
            return [("progress", part["text"])]
        if kind == "tool_use":
            name, state = str(part["tool"]), part["state"]
            asked = _argument(state.get("input"))
            if state["status"] not in ("completed", "error"):
                return [("tool_call", f"{name}: {asked}")]
            status = "completed" if state["status"] == "completed" else "failed"
            told = _told(name, asked, status, str(state.get("output") or state.get("error") or ""))
            return [("tool_call", f"{name}: {asked}"), ("tool_result", told)]
        if kind == "step_start":
            return [("progress", "step started")]
        if kind == "step_finish":
            return self._step(part)
        if kind == "error":
            error = record.get("error") or {}
            self.failure = str((error.get("data") or {}).get("message") or error.get("name") or "error")
            return self.fails(self.failure)
        return None

    def _step(self, part: Record) -> Events:
        tokens = part.get("tokens") or {}
        cache = tokens.get("cache") or {}
        step = _counts(
            input=tokens.get("input"),
            cachedInput=cache.get("read"),
            cacheWrite=cache.get("write"),
            output=tokens.get("output"),
            reasoning=tokens.get("reasoning"),
            cost=part.get("cost"),
        )
        total = self.usage or {}
        self.usage = {name: total.get(name, 0) + step.get(name, 0) for name in {**total, **step}}
        self.failure = None
        self.ended = part.get("reason") != "tool-calls"
        return [("progress", f"step finished: {part.get('reason')}")]


DIALECTS = {"codex": Codex, "claude": Claude, "gemini": Gemini, "opencode": OpenCode}
"""By the name an agent's adapter gives; any other name, `text` above all, means lines of text."""

_COUNTS = {
    "input": "inputTokens",
    "cachedInput": "cachedInputTokens",
    "cacheWrite": "cacheWriteTokens",
    "output": "outputTokens",
    "reasoning": "reasoningTokens",
    "cost": "costUsd",
}


def _counts(**told: object) -> dict[str, float]:
    """The counts a program gave, by our names, those left out that cannot be counts."""
    found: dict[str, float] = {}
    for name, value in told.items():
        is_count = isinstance(value, int) and not isinstance(value, bool)
        if (is_count or (name == "cost" and isinstance(value, float))) and 0 <= value < _MOST:  # type: ignore[operator]
            found[_COUNTS[name]] = value  # type: ignore[assignment]
    return found


def _told(name: str, asked: str, status: str, output: str) -> str:
    """A tool's result under a line that says which call it was."""
    head = asked.partition("\n")[0]
    head = head if len(head) <= _HEAD else head[: _HEAD - 1] + "…"
    return f"{name} {status}: {head}" + (f"\n{output}" if output else "")


def _argument(value: object) -> str:
    """What a tool was asked: its command or path where that is all, else the whole as JSON."""
    if isinstance(value, dict):
        words = {name: text for name, text in value.items() if name not in ("description", "timeout")}
        if len(words) == 1 and isinstance(text := next(iter(words.values())), str):
            return text
    return _compact(value)


def _blocks(content: object) -> str:
    """The text of a tool's content blocks."""
    if isinstance(content, list):
        return "\n".join(
            str(block["text"]) if isinstance(block, dict) and "text" in block else _compact(block) for block in content
        )
    return "" if content is None else str(content)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def clean(text: str) -> str:
    """The text without what UTF-8 cannot say: JSON may hold half a character."""
    return text.encode("utf-8", "backslashreplace").decode()
