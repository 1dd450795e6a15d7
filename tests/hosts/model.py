"""A scripted model that speaks two protocols on loopback: OpenAI's Responses API and Anthropic's Messages API.

Enough of each that the real Codex CLI and the real Claude Code work with it. `requests` keeps every request with a
prompt, for tests that look at what a program was told.
"""

import contextlib
import json
import re
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from tests.hosts.script import ENDINGS, Script, Step, texts

_RESULTS = {"function_call_output", "custom_tool_call_output", "local_shell_call_output", "mcp_tool_call_output"}
_OURS = {"shell", "say", "think", "usage", "until", "max", "gate"}
_CONTEXT = re.compile(
    r"\s*(<(environment_context|user_instructions|permissions|turn_aborted|subagent_|skill|system-reminder|command-)"
    r"|# AGENTS\.md instructions)"
)


class Model(ThreadingHTTPServer):
    """A server on a free port of 127.0.0.1 that answers by a scenario, which may be replaced at any time."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, scenario: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = Script(scenario)
        self.requests: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def play(self, scenario: dict[str, Any]) -> None:
        """From now on answers by another scenario."""
        self.script = Script(scenario)

    def prompts(self) -> list[str]:
        """What was asked, each prompt once, in order."""
        return list(dict.fromkeys(request["prompt"] for request in self.requests))


@contextlib.contextmanager
def serving(scenario: dict[str, Any]) -> Iterator[Model]:
    """A model that answers while the block runs."""
    with Model(scenario) as model:
        thread = threading.Thread(target=model.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield model
        finally:
            model.shutdown()
            thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    server: Model
    protocol_version = "HTTP/1.1"
    number: ClassVar[int] = 0
    lock: ClassVar[threading.Lock] = threading.Lock()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._plain(200, "")

    def do_GET(self) -> None:
        models = self.path.partition("?")[0].endswith("/models")
        self._plain(200 if models else 404, '{"object":"list","data":[],"models":[]}' if models else "{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        path = self.path.partition("?")[0]
        with self.lock:
            type(self).number += 1
            ident = f"{self.number:06d}"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if path.endswith("/responses"):
                self._responses(body, ident)
            elif path.endswith("/messages"):
                self._messages(body, ident)
            elif path.endswith("/count_tokens"):
                self._plain(200, '{"input_tokens":1}')
            else:
                self._plain(404, '{"error":{"message":"not here"}}')

    def _answer(self, prompt: str, results: list[str], body: dict[str, Any]) -> Step | None:
        """The step that answers; None when it was an error, which is answered already."""
        self.server.requests.append({"prompt": prompt, "results": results, "body": body})
        step = self.server.script.step(prompt, results)
        if "gate" in step:
            with Path(step["gate"], "arrivals").open("w") as arrivals:
                arrivals.write("model\n")
            with Path(step["gate"], "gate").open() as gate:
                gate.readline()
        if "http" not in step:
            return step
        self._plain(
            int(step["http"]), json.dumps({"error": {"type": "api_error", "message": f"status {step['http']}"}})
        )
        return None

    def _plain(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def _stream(self, events: list[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for event in events:
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())

    # ------------------------------------------------------------------------------------------------- responses
    def _responses(self, body: dict[str, Any], ident: str) -> None:
        items = body.get("input") or []
        asked = [number for number, item in enumerate(items) if _is_prompt(item)]
        prompt = texts(items[asked[-1]]["content"]) if asked else ""
        after = items[asked[-1] + 1 :] if asked else []
        results = [texts(item.get("output", item)) for item in after if item.get("type") in _RESULTS]
        step = self._answer(prompt, results, body)
        if step is None:
            return
        tools = _offered(body.get("tools") or [])
        for item in items:  # tools that a client adds on the way
            if isinstance(item.get("tools"), list):
                tools |= _offered(item["tools"])
        response = {"id": f"resp_{ident}"}
        events: list[dict[str, Any]] = [{"type": "response.created", "response": response}]
        for number, item in enumerate(_items(step, tools, ident)):
            opened = {**item, "content": []} if item["type"] == "message" else item
            events += [
                {"type": "response.output_item.added", "output_index": number, "item": opened},
                {"type": "response.output_item.done", "output_index": number, "item": item},
            ]
        if "fail" in step:
            failed = {**response, "error": {"code": "server_error", "message": step["fail"]}}
            events.append({"type": "response.failed", "response": failed})
        elif "drop" not in step:
            done = {**response, "status": "completed", "output": [], "usage": _usage(step)}
            events.append({"type": "response.completed", "response": done})
        self._stream(events)

    # -------------------------------------------------------------------------------------------------- messages
    def _messages(self, body: dict[str, Any], ident: str) -> None:
        prompt, results = _conversation(body.get("messages") or [])
        names = [tool.get("name", "") for tool in body.get("tools") or []]
        # A request without tools is a side question: a title, a summary.
        step = self._answer(prompt, results, body) if names else {"message": "fine"}
        if step is None:
            return
        blocks = [{"type": "text", "text": step[kind]} for kind in ("say", "message") if kind in step]
        if not any(ending in step for ending in ENDINGS):
            calls = step.get("parallel", [step])
            blocks += [_tool_use(call, names, f"{ident}_{number}") for number, call in enumerate(calls)]
        why = "end_turn" if "message" in step else "tool_use"
        usage = {"input_tokens": 10, "output_tokens": 5}
        message = {
            "id": f"msg_{ident}", "type": "message", "role": "assistant", "model": body.get("model"),
            "stop_reason": why, "stop_sequence": None, "usage": usage,
        }  # fmt: skip
        if not body.get("stream"):
            self._plain(200, json.dumps({**message, "content": blocks}))
            return
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
        ]
        for number, block in enumerate(blocks):
            is_text = block["type"] == "text"
            start = {**block, "text": ""} if is_text else {**block, "input": {}}
            delta = (
                {"type": "text_delta", "text": block["text"]}
                if is_text
                else {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            )
            events += [
                {"type": "content_block_start", "index": number, "content_block": start},
                {"type": "content_block_delta", "index": number, "delta": delta},
                {"type": "content_block_stop", "index": number},
            ]
        if "drop" not in step:
            end = {"stop_reason": why, "stop_sequence": None}
            events += [{"type": "message_delta", "delta": end, "usage": usage}, {"type": "message_stop"}]
        self._stream(events)


# ------------------------------------------------------------------------------------------------------- responses
def _is_prompt(item: dict[str, Any]) -> bool:
    """What a user said, not the context a client gives in the same role."""
    if item.get("role") != "user" or item.get("type", "message") != "message":
        return False
    return not _CONTEXT.match(texts(item["content"]))


def _offered(tools: list[dict[str, Any]]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Tools by name, with their namespace."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for tool in tools:
        if tool.get("type") == "namespace":
            found |= {f"{tool['name']}/{sub.get('name')}": (tool["name"], sub) for sub in tool.get("tools", [])}
        elif tool.get("name"):
            found[tool["name"]] = ("", tool)
    return found


def _items(step: Step, tools: dict[str, tuple[str, dict[str, Any]]], ident: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if "think" in step:
        summary = [{"type": "summary_text", "text": step["think"]}]
        items.append({"type": "reasoning", "id": f"rs_{ident}", "encrypted_content": None, "summary": summary})
    items += [_message(step[kind], f"{ident}{kind}") for kind in ("say", "message") if kind in step]
    if not any(ending in step for ending in ENDINGS):
        calls = step.get("parallel", [step])
        items += [_call(call, tools, f"call_{ident}_{number}") for number, call in enumerate(calls)]
    return items


def _message(text: str, ident: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": f"msg_{ident}", "role": "assistant", "content": content}


def _call(step: Step, tools: dict[str, tuple[str, dict[str, Any]]], ident: str) -> dict[str, Any]:
    if "patch" in step or "custom" in step:
        made = step.get("custom") or {"name": "apply_patch", "input": step["patch"]}
        known = next((tool for _, tool in tools.values() if tool.get("name") == made["name"]), None)
        if known is None:
            return _call({"shell": f"apply_patch <<'END'\n{made['input'].rstrip()}\nEND\n"}, tools, ident)
        if known.get("type") == "custom":
            return {"type": "custom_tool_call", "id": f"ctc_{ident}", "call_id": ident, **made}
        return _function(made["name"], {"input": made["input"]}, ident)
    if "mcp" in step:
        wanted = _plain_name(f"{step['mcp']['server']}_{step['mcp']['tool']}")
        for namespace, tool in tools.values():
            if _plain_name(f"{namespace}_{tool['name']}").removeprefix("mcp_") == wanted:
                return _function(tool["name"], step["mcp"].get("args", {}), ident, namespace)
        return _function(step["mcp"]["tool"], step["mcp"].get("args", {}), ident, f"mcp__{step['mcp']['server']}")
    if "call" in step:
        name = step["call"]["name"]
        namespace = next((space for space, tool in tools.values() if tool.get("name") == name), "")
        return _function(name, step["call"].get("args", {}), ident, namespace)
    return _shell(
        _command(step), {key: value for key, value in step.items() if key not in {*_OURS, "write"}}, tools, ident
    )


def _command(step: Step) -> str:
    if "write" not in step:
        return str(step["shell"])
    path, text = shlex.quote(step["write"]["path"]), shlex.quote(step["write"]["text"])
    return f'mkdir -p -- "$(dirname -- {path})" && printf %s {text} > {path}'


def _shell(
    command: str, extra: dict[str, Any], tools: dict[str, tuple[str, dict[str, Any]]], ident: str
) -> dict[str, Any]:
    names = {tool.get("name") for _, tool in tools.values()}
    if "shell_command" in names:
        return _function("shell_command", {"command": command, **extra}, ident)
    if "shell" in names:
        return _function("shell", {"command": ["bash", "-lc", command], **extra}, ident)
    return _function("exec_command", {"cmd": command, **extra}, ident)


def _function(name: str, arguments: dict[str, Any], ident: str, namespace: str = "") -> dict[str, Any]:
    item = {"type": "function_call", "id": f"fc_{ident}", "call_id": ident, "name": name}
    return {**item, "arguments": json.dumps(arguments), **({"namespace": namespace} if namespace else {})}


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _usage(step: Step) -> dict[str, Any]:
    told = step.get("usage", {})
    used, said = told.get("input_tokens", 100), told.get("output_tokens", 10)
    return {
        "input_tokens": used, "input_tokens_details": {"cached_tokens": told.get("cached_input_tokens", 0)},
        "output_tokens": said, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": used + said,
    }  # fmt: skip


# -------------------------------------------------------------------------------------------------------- messages
def _conversation(messages: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """The last prompt, and the results of tools after it."""
    prompt = ""
    results: list[str] = []
    for message in messages:
        if message.get("role") != "user":
            continue
        content = message["content"]
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        said = [block["text"] for block in blocks if block.get("type") == "text" and not _CONTEXT.match(block["text"])]
        done = [texts(block.get("content", "")) for block in blocks if block.get("type") == "tool_result"]
        if said and not done:
            prompt, results = "\n".join(said), []
        results += done
    return prompt, results


def _tool_use(step: Step, names: list[str], ident: str) -> dict[str, Any]:
    if "mcp" in step:
        wanted = _plain_name(f"mcp__{step['mcp']['server']}__{step['mcp']['tool']}")
        name = next((name for name in names if _plain_name(name) == wanted), wanted)
        arguments = step["mcp"].get("args", {})
    elif "call" in step:
        name, arguments = step["call"]["name"], step["call"].get("args", {})
    else:
        name, arguments = "Bash", {"command": _command(step), "description": "scripted"}
    return {"type": "tool_use", "id": f"toolu_{ident}", "name": name, "input": arguments}
