"""The agent programs known by themselves.

Flags as of Codex 0.169 to 0.171 and Claude Code 2.1.197 (measured with the real programs), Gemini CLI and OpenCode (as
documented). What an access means to each is its own notion of permission; around those without a sandbox of their own
the sandbox of the job, if any, is the wall.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from worktrees.agents import REPORT_SCHEMA, Invocation, Order, check_effort, prompt, refuse_session, values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worktrees.model import Access


class Codex:
    """OpenAI's Codex CLI, `codex exec`.

    It confines the commands it runs by itself (bubblewrap on Linux, read-only git directory, no network), which fails
    inside another sandbox. `/tmp` is shared between workers and so not writable; the private TMPDIR is.
    """

    name = "codex"
    program = "codex"
    install = "npm install --global @openai/codex"
    own_sandbox = True
    resumes = True

    # Sub-agents would share one worktree; a connection tried for ever would never end the job.
    _SETTINGS = (
        'approval_policy="never"',
        "features.multi_agent_v2=false",
        "features.unbounded_connection_retries=false",
        "sandbox_workspace_write.exclude_slash_tmp=true",
        "check_for_update_on_startup=false",
    )

    def invocation(self, order: Order) -> Invocation:
        """`codex exec --json ... -`, or `codex exec ... resume SESSION -`."""
        check_effort(self, order.effort, ("none", "minimal", "low", "medium", "high", "xhigh"))
        words = [self.program, "exec", "--json", "-s", order.access, "-C", "{workspace}"]
        words += ["--disable", "multi_agent", "--output-schema", "{schema}"]
        for setting in self._SETTINGS:
            words += ["-c", setting]
        if order.model is not None:
            words += ["-m", "{model}"]
        if order.effort is not None:
            words += ["-c", 'model_reasoning_effort="{effort}"']
        words += order.arguments
        if order.session is not None:
            words += ["resume", "{session}"]
        return Invocation(
            agent=self.name,
            argv=(*words, "-"),
            stdin=prompt(order.task, with_schema=True),
            values=values(order),
            dialect="codex",
            schema=REPORT_SCHEMA,
            own_sandbox=True,
        )


class Claude:
    """Anthropic's Claude Code, `claude -p`."""

    name = "claude"
    program = "claude"
    install = "npm install --global @anthropic-ai/claude-code"
    own_sandbox = False
    resumes = False

    _PERMISSIONS: Mapping[Access, tuple[str, ...]] = MappingProxyType({
        "read-only": ("--permission-mode", "default", "--disallowedTools", "Agent,Task,Edit,Write,NotebookEdit"),
        "workspace-write": (
            "--permission-mode", "acceptEdits", "--allowedTools", "Bash", "--disallowedTools", "Agent,Task",
        ),
        "danger-full-access": ("--permission-mode", "bypassPermissions", "--disallowedTools", "Agent,Task"),
    })  # fmt: skip

    def invocation(self, order: Order) -> Invocation:
        """`claude -p --output-format stream-json --verbose`, the prompt on stdin."""
        refuse_session(self, order)
        check_effort(self, order.effort, ("low", "medium", "high", "xhigh", "max"))
        words = [self.program, "-p", "--output-format", "stream-json", "--verbose", *self._PERMISSIONS[order.access]]
        words += ["--model", "{model}"] if order.model is not None else []
        words += ["--effort", "{effort}"] if order.effort is not None else []
        return Invocation(
            agent=self.name,
            argv=(*words, *order.arguments),
            stdin=prompt(order.task),
            values=values(order),
            dialect="claude",
        )


class Gemini:
    """Google's Gemini CLI in headless mode, which a prompt on stdin brings about."""

    name = "gemini"
    program = "gemini"
    install = "npm install --global @google/gemini-cli"
    own_sandbox = False
    resumes = False

    # Without a person to ask, what the mode does not allow is refused.
    _MODES: Mapping[Access, str] = MappingProxyType(
        {"read-only": "default", "workspace-write": "yolo", "danger-full-access": "yolo"}
    )

    def invocation(self, order: Order) -> Invocation:
        """`gemini --output-format stream-json`."""
        refuse_session(self, order)
        check_effort(self, order.effort, ())
        words = [self.program, "--output-format", "stream-json", "--approval-mode", self._MODES[order.access]]
        words += ["--model", "{model}"] if order.model is not None else []
        return Invocation(
            agent=self.name,
            argv=(*words, *order.arguments),
            stdin=prompt(order.task),
            values=values(order),
            dialect="gemini",
            # A directory nobody has called trusted by hand would end it at once.
            environment={"GEMINI_CLI_TRUST_WORKSPACE": "true"},
        )


class OpenCode:
    """OpenCode, `opencode run`; what its configuration asks a person about is refused."""

    name = "opencode"
    program = "opencode"
    install = "npm install --global opencode-ai"
    own_sandbox = False
    resumes = False

    def invocation(self, order: Order) -> Invocation:
        """`opencode run --format json`; its agent `plan` may not edit."""
        refuse_session(self, order)
        words = [self.program, "run", "--format", "json", "--agent", "plan" if order.access == "read-only" else "build"]
        words += ["--model", "{model}"] if order.model is not None else []
        words += ["--variant", "{effort}"] if order.effort is not None else []
        return Invocation(
            agent=self.name,
            argv=(*words, *order.arguments),
            stdin=prompt(order.task),
            values=values(order),
            dialect="opencode",
        )
