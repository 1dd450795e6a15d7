"""Agents defined in a configuration file.

    [agents.mine]
    argv = ["mine", "--dir", "{workspace}", "--ask", "{prompt}"]
    parser = "text"                    # or codex, claude, gemini, opencode
    model = ["--model", "{model}"]     # words added for `--model`; without it that is refused
    effort = ["--effort", "{effort}"]  # the same for `--effort`
    environment = { MODE = "{access}" }
    own_sandbox = false

The prompt goes to standard input unless a word asks for it: `{prompt}`, or `{task}` for the task without the worker
contract. `{workspace}`, `{job}`, `{access}`, `{model}` and `{effort}` may stand in any word.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from worktrees.agents import DIALECTS, Invocation, Order, prompt, refuse_session, values
from worktrees.errors import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

_KNOWN = ("argv", "parser", "model", "effort", "environment", "own_sandbox")


class Custom:
    """An agent of a configuration file. Raises: Usage, naming the place and what is wrong there."""

    resumes = False

    def __init__(self, name: str, table: Mapping[str, Any], source: str) -> None:
        self.name = name
        self.source = source
        self.table = dict(table)
        where = f"`agents.{name}` of {source}"
        hint = f'[agents.{name}] argv = ["program", "--ask", "{{prompt}}"]'
        for key in table:
            if key not in _KNOWN:
                raise Usage(f"{where} has an unknown key `{key}`", hint=f"use some of: {', '.join(_KNOWN)}")
        lists = [table.get(key, []) for key in ("argv", "model", "effort")]
        if not all(isinstance(words, list) and all(isinstance(word, str) for word in words) for words in lists):
            lists[0] = []
        self.argv, self.model, self.effort = lists
        if not self.argv:
            raise Usage(f"{where} needs a list of words as `argv`, and `model` and `effort` are lists, too", hint=hint)
        self.dialect = str(table.get("parser", "text"))
        if self.dialect not in DIALECTS:
            raise Usage(f"{where}: no parser `{self.dialect}`", hint=f"pick one of: {', '.join(DIALECTS)}")
        environment = table.get("environment", {})
        if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
            raise Usage(f"{where}: `environment` is a table of texts", hint='environment = { MODE = "{access}" }')
        self.environment: dict[str, str] = environment
        self.own_sandbox = table.get("own_sandbox") is True
        self.program = self.argv[0]
        self.install = f"install it, or mend {where}"

    @property
    def text(self) -> str:
        """The definition as one line, which is what a user approves."""
        return f"agents.{self.name} = {json.dumps(self.table, ensure_ascii=False, sort_keys=True)}"

    def invocation(self, order: Order) -> Invocation:
        """The words of the definition, and those of the call."""
        refuse_session(self, order)
        words = list(self.argv)
        for label, wish, added in (("model", order.model, self.model), ("effort", order.effort, self.effort)):
            if wish is not None and not added:
                raise Usage(
                    f"the agent `{self.name}` takes no {label}",
                    hint=f"add `{label}` to `agents.{self.name}` of {self.source}",
                )
            words += added if wish is not None else []
        words += order.arguments
        asked = any("{prompt}" in word or "{task}" in word for word in words)
        return Invocation(
            agent=self.name,
            argv=tuple(words),
            stdin=None if asked else prompt(order.task),
            values=values(order),
            dialect=self.dialect,
            environment=self.environment,
            own_sandbox=self.own_sandbox,
        )
