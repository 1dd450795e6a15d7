"""The real programs from npm, kept in a cache, and the surroundings in which they call nobody but our model."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

VERSIONS = {
    "codex": "@openai/codex@0.171.0",
    "claude": "@anthropic-ai/claude-code@2.1.197",
    "inspector": "@modelcontextprotocol/inspector@0.15.0",
    # It calls `globSync`, which the Node of most machines has not, so it gets one of its own.
    "conformance": "@modelcontextprotocol/conformance@0.1.16 node@22",
}
# Taken when this is loaded: a test has a HOME of its own.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "worktrees-tests" / "hosts"
_INSTALL_SECONDS = 300

CONFIG = """\
model = "scripted"
model_provider = "scripted"
approval_policy = "never"
check_for_update_on_startup = false

[model_providers.scripted]
name = "scripted"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "SCRIPTED_MODEL_ID"
request_max_retries = 1
stream_max_retries = 1
stream_idle_timeout_ms = 120000

[features]
plugins = false
apps = false
remote_plugin = false

[analytics]
enabled = false
"""


def installed(name: str) -> Path:
    """The directory with a program, installed when it is not there yet; skips the test where it cannot be."""
    package = VERSIONS[name]
    place = CACHE / package.replace("/", "-").replace(" ", "+")
    program = place / "node_modules" / ".bin"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            if shutil.which("npm") is None:
                pytest.skip(f"{name}: npm is not installed, so `{package}` cannot be")
            words = ["npm", "install", "--prefix", str(place), "--no-audit", "--no-fund", "--loglevel=error"]
            try:
                done = subprocess.run(
                    [*words, *package.split()],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=_INSTALL_SECONDS,
                    env={**os.environ, "HOME": str(CACHE), "npm_config_cache": str(CACHE / "npm")},
                )
            except subprocess.TimeoutExpired:
                pytest.skip(f"{name}: `{package}` was not installed within {_INSTALL_SECONDS} s")
            if done.returncode:
                pytest.skip(f"{name}: `{package}` cannot be installed: {done.stderr.strip()[-200:]}")
            (place / "complete").touch()
    return program


def codex_environment(program: Path, home: Path, url: str, extra: str = "") -> Mapping[str, str]:
    """Variables for Codex with a home of its own that knows the scripted model; `extra` goes into its configuration."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(CONFIG.format(url=url) + extra, encoding="utf-8")
    return {"PATH": f"{program}:{os.environ['PATH']}", "CODEX_HOME": str(home), "SCRIPTED_MODEL_ID": "none"}


def claude_environment(program: Path, home: Path, url: str) -> Mapping[str, str]:
    """Variables for Claude Code that send it to the scripted model and nowhere else."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{program}:{os.environ['PATH']}",
        "CLAUDE_CONFIG_DIR": str(home),
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "none",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",
    }
