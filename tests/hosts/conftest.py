"""Fixtures with the real programs; each skips by name where its program cannot be installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.model import Model, serving
from tests.hosts.programs import claude_environment, codex_environment, installed


@pytest.fixture(scope="session")
def codex_program() -> Path:
    """The directory with the real `codex`."""
    return installed("codex")


@pytest.fixture(scope="session")
def claude_program() -> Path:
    """The directory with the real `claude`."""
    return installed("claude")


@pytest.fixture(scope="session")
def inspector_program() -> Path:
    """The directory with the MCP Inspector."""
    return installed("inspector")


@pytest.fixture(scope="session")
def conformance_program() -> Path:
    """The directory with the MCP conformance suite, and the Node it needs."""
    return installed("conformance")


@pytest.fixture
def model() -> Iterator[Model]:
    """A scripted model; tell it what to say with `model.play`."""
    with serving({"steps": [{"message": "${prompt}"}]}) as server:
        yield server


@pytest.fixture
def codex(codex_program: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model behind the real Codex, which is on the PATH."""
    for name, value in codex_environment(codex_program, tmp_path / "home" / ".codex", model.url).items():
        monkeypatch.setenv(name, value)
    return model


@pytest.fixture
def claude(claude_program: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model behind the real Claude Code, which is on the PATH."""
    for name, value in claude_environment(claude_program, tmp_path / "home" / ".claude", model.url).items():
        monkeypatch.setenv(name, value)
    return model
