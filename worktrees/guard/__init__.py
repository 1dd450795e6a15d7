"""What a worker's process gets to see, and the hooks that refuse its commits.

Cooperative, not a wall: good error messages for a worker that would commit, and nothing of the boss's power left lying
about in its environment. What really stops a worker is the sandbox, and what really decides is the audit.

Environment. The boss's variables pass, except:

- every `GIT_*`: they could redirect the worker's git to the boss's index or repository
- every `WT_*`: settings and identity of the boss
- agent sockets: `SSH_AUTH_SOCK` and the like
- whatever looks like a credential by its name (`*_TOKEN`, `*_SECRET`, `*_PASSWORD`, `*_API_KEY`, ...)

Keys of model providers (`MODEL_PROVIDERS`) pass, since agent programs live by them. The setting `pass_environment`
names more that pass (`FOO`, `AWS_*`); what the call itself sets (`--env`) always passes. `WT_JOB`, `WT_WORKFLOW`,
`WT_WORKSPACE`, the private `TMPDIR` and the guard are ours and cannot be set from outside.

Hooks. Copies of the guard's hooks lie in the state directory; git finds them through configuration in the environment
that applies to this one repository only (`includeIf.gitdir`), so repositories the worker makes for its tests are free
and no byte of the user's configuration changes. A newer git (2.54) also runs the one that watches refs when a call
turns hooks off (`-c core.hooksPath=/dev/null`), since it is configured by name as well; older ones pass over that.

`installed` puts the same hooks in force for whoever stands in a workspace without that environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

from worktrees.store import write_bytes

HOOKS_VERSION = "v2"
MODEL_PROVIDERS = (
    "ANTHROPIC_*", "AWS_BEARER_TOKEN_BEDROCK", "AZURE_OPENAI_*", "CEREBRAS_*", "CLAUDE_*", "CODEX_*", "COHERE_*",
    "DEEPSEEK_*", "FIREWORKS_*", "GEMINI_*", "GOOGLE_API_KEY", "GOOGLE_GENAI_*", "GROQ_*", "LITELLM_*", "MISTRAL_*",
    "MOONSHOT_*", "OLLAMA_*", "OPENAI_*", "OPENCODE_*", "OPENROUTER_*", "PERPLEXITY_*", "TOGETHER_*", "XAI_*",
)  # fmt: skip
_SOCKETS = frozenset({"SSH_AUTH_SOCK", "SSH_AGENT_PID", "SSH_AGENT_LAUNCHER", "GPG_AGENT_INFO", "SSH_ASKPASS"})
_CREDENTIAL = re.compile(
    r"(?:^|_)(?:TOKENS?|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|PASS|CREDENTIALS?|APIKEY|API_KEYS?|ACCESS_KEY|ACCESS_KEY_ID"
    r"|PRIVATE_KEY|SIGNING_KEY|DEPLOY_KEY|AUTH|PAT|KUBECONFIG|COOKIE|SESSION_KEY|CONNECTION_STRING|NETRC)(?:_|$)"
    r"|(?:PASSWORD|PASSWD|TOKEN|SECRET|_PWD)$"
)
# Push URLs that start like this are sent nowhere: what still refuses `push --no-verify`.
_PUSH_PREFIXES = ("https://", "http://", "ssh://", "git://", "file://", "git@", "/", ".")


def passes(name: str, allowed: Sequence[str] = ()) -> bool:
    """Whether a variable of the boss's goes to a worker; `allowed` are names or patterns with `*`."""
    if name.startswith("WT_"):
        return False
    if any(fnmatchcase(name, pattern) for pattern in allowed):
        return True
    if name.startswith("GIT_") or name in _SOCKETS:
        return False
    if any(fnmatchcase(name, pattern) for pattern in MODEL_PROVIDERS):
        return True
    return not _CREDENTIAL.search(name.upper())


def base_environment(boss: Mapping[str, str], extra: Mapping[str, str], allowed: Sequence[str] = ()) -> dict[str, str]:
    """What of the boss's environment a worker gets, and what the call adds; taken when the job is submitted."""
    return {**{name: value for name, value in boss.items() if passes(name, allowed)}, **extra}


def arm(
    base: Mapping[str, str], *, job: str, workflow: str, workspace: Path, temporary: Path, common_dir: Path, hooks: Path
) -> dict[str, str]:
    """A worker's environment: who it is, its own temporary directory, and the guard for this repository."""
    armed = dict(base)
    armed.update(
        mark(job=job, workflow=workflow, workspace=workspace, common_dir=common_dir, hooks=hooks),
        TMPDIR=os.fspath(temporary),
        TMP=os.fspath(temporary),
        TEMP=os.fspath(temporary),
        PWD=os.fspath(workspace),
        GIT_OPTIONAL_LOCKS="0",
        GIT_TERMINAL_PROMPT="0",
    )
    armed.pop("OLDPWD", None)
    return armed


def mark(
    *,
    job: str,
    workflow: str,
    workspace: Path,
    common_dir: Path,
    hooks: Path,
    inherited: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The variables that make a process a worker, guard included; configuration it inherited stays in force."""
    guard = _include(common_dir, hooks)
    pairs = [pair for pair in _configured(inherited) if pair not in guard] + guard
    settings = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (key, value) in enumerate(pairs):
        settings |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {"WT_JOB": job, "WT_WORKFLOW": workflow, "WT_WORKSPACE": os.fspath(workspace), **settings}


def is_armed(environment: Mapping[str, str], common_dir: Path, state_root: Path) -> bool:
    """Whether git in such an environment asks the guard in this repository."""
    wanted = _include(common_dir, state_root / "hooks" / HOOKS_VERSION)
    return bool(environment.get("WT_JOB")) and set(wanted) <= set(_configured(environment))


def _include(common_dir: Path, hooks: Path) -> list[tuple[str, str]]:
    # The git directory itself, and those of linked work trees below it.
    place = re.sub(r"([*?\[\]\\])", r"\\\1", os.fspath(common_dir))
    return [(f"includeIf.gitdir:{pattern}.path", os.fspath(hooks / "guard.cfg")) for pattern in (place, place + "/")]


def _configured(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Configuration that an environment hands to git."""
    count = environment.get("GIT_CONFIG_COUNT", "")
    numbers = range(int(count)) if count.isdecimal() else ()
    found = [(environment.get(f"GIT_CONFIG_KEY_{n}"), environment.get(f"GIT_CONFIG_VALUE_{n}")) for n in numbers]
    return [(key, value) for key, value in found if key is not None and value is not None]


def install_hooks(state_root: Path) -> Path:
    """Puts the guard's hooks and configuration into the state directory, or back if they were changed; their place."""
    target = state_root / "hooks" / HOOKS_VERSION
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    wanted = {name: (content, 0o700) for name, content in sources().items()}
    wanted["guard.cfg"] = (_configuration(target), 0o600)
    for name, (content, mode) in wanted.items():
        path = target / name
        if _content(path) != content:
            write_bytes(path, content)
        if path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)
    return target


def sources() -> dict[str, bytes]:
    """The guard's hooks, and the rule they share, by name."""
    return {path.name: path.read_bytes() for path in _source().iterdir() if not path.name.startswith((".", "_"))}


def _source() -> Path:
    """The hooks: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).parent.parent
    installed = package / "_hooks"
    return installed if installed.is_dir() else package.parent / "hooks"


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if not path.is_symlink() else None
    except OSError:
        return None


def quoted(value: str) -> str:
    """A value as it stands in a configuration file."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _configuration(hooks: Path) -> bytes:
    by_name = "'" + os.fspath(hooks / "reference-transaction").replace("'", "'\\''") + "'"
    lines = [
        "# What a worker's git is told in this repository; see the worktrees documentation.",
        "[core]",
        f"\thooksPath = {quoted(os.fspath(hooks))}",
        "\tfsmonitor = false",
        # git 2.54 and newer; a shell reads the command.
        '[hook "wt-guard"]',
        "\tevent = reference-transaction",
        f"\tcommand = {quoted(by_name)}",
        "[gc]",
        "\tauto = 0",
        "[maintenance]",
        "\tauto = false",
        "[credential]",
        "\thelper =",
        # git names the scheme in its error, so it says what is the matter.
        '[url "wt-workers-do-not-push-the-boss-merges://"]',
        *(f'\tpushInsteadOf = "{prefix}"' for prefix in _PUSH_PREFIXES),
    ]
    return "\n".join(lines).encode("utf-8", "surrogateescape") + b"\n"
