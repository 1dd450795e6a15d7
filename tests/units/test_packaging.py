"""What the project's own files say fits together."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import worktrees

ROOT = Path(__file__).parent.parent.parent
HEAVY = {"click", "filelock", "psutil", "pydantic", "pygit2", "rich"}


@pytest.fixture
def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_one_version(project: dict[str, Any]) -> None:
    assert worktrees.__version__ == project["project"]["version"]


def test_both_commands_are_the_same(project: dict[str, Any]) -> None:
    assert project["project"]["scripts"] == {"wt": "worktrees.cli:main", "git-wt": "worktrees.cli:main"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, worktrees; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "worktrees" in done.stdout.split()
    assert not {name.split(".")[0] for name in done.stdout.split()} & HEAVY


def test_dependencies_have_lower_bounds(project: dict[str, Any]) -> None:
    groups = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    names = [line for group in groups for line in group if not line.startswith("agent-worktrees")]
    assert not [line for line in names if not re.match(r"[a-zA-Z0-9_.-]+>=\d", line)]


def test_the_package_does_not_know_what_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Attic'"):
        worktrees.Attic  # noqa: B018
    assert "Boss" in dir(worktrees)
