"""Settings come in layers, and a wrong one is named with its layer."""

from pathlib import Path

import pytest

from worktrees import config
from worktrees.errors import Usage


def test_later_layers_win(tmp_path: Path) -> None:
    user = tmp_path / "config" / "wt"
    user.mkdir(parents=True)
    (user / "config.toml").write_text('k_write = 3\nk_read = 3\ngrace_seconds = "2s"\nmax_files = 7\n')
    (tmp_path / ".wt.toml").write_text("k-write = 4\nk-read = 4\n")
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "WT_K_WRITE": "6", "WT_JOB": "j-x"}

    settings = config.load(tmp_path / ".wt.toml", {"kread": "5"}, env)

    assert (settings.k_write, settings.k_read, settings.max_files, settings.grace_seconds) == (6, 5, 7, 2.0)
    assert config.load(None, {}, {}) == config.Settings()


@pytest.mark.parametrize(
    ("layer", "value"),
    [("k_write", "many"), ("k_write", "-1"), ("ttl_seconds", "0"), ("max_bytes", "big"), ("no_such", "1")],
)
def test_a_wrong_value_names_its_layer(layer: str, value: str) -> None:
    with pytest.raises(Usage) as caught:
        config.load(None, {layer.replace("_", ""): value}, {})
    assert caught.value.exit_status == 2
    assert "git config" in caught.value.message or "duration" in caught.value.message or "size" in caught.value.message


def test_a_repository_file_cannot_reach_outside(tmp_path: Path) -> None:
    (tmp_path / ".wt.toml").write_text('pass_environment = ["AWS_SECRET_ACCESS_KEY"]\n')
    with pytest.raises(Usage) as caught:
        config.load(tmp_path / ".wt.toml", {}, {})
    assert "repository" in caught.value.message


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / ".wt.toml").write_text("k_write = \n")
    with pytest.raises(Usage) as caught:
        config.load(tmp_path / ".wt.toml", {}, {})
    assert ".wt.toml" in caught.value.message


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30m", 1800), ("1h30m", 5400), ("0.5s", 0.5), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert config.duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "5x", "m", "1h x", "0s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(Usage):
        config.duration_seconds(text)


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("512m", 512 << 20), ("20G", 20 << 30), ("1KiB", 1024)])
def test_sizes(text: str, size: int) -> None:
    assert config.size_bytes(text) == size


def test_built_in_strategies_come_through_the_door_of_plugins() -> None:
    assert "worktree" in config.plugin_names("isolation")
    with pytest.raises(Usage) as caught:
        config.plugin("isolation", "nonsense")
    assert "worktree" in caught.value.message


def test_setup_commands_of_a_repository_file_are_no_setting(tmp_path: Path) -> None:
    """Else a job that waits in the queue would run them unapproved once the file has gone."""
    user = tmp_path / "config" / "wt"
    user.mkdir(parents=True)
    (user / "config.toml").write_text('setup_commands = ["mine"]\n')
    (tmp_path / ".wt.toml").write_text('setupCommands = ["theirs"]\nk_write = 4\n')

    settings = config.load(tmp_path / ".wt.toml", {}, {"XDG_CONFIG_HOME": str(tmp_path / "config")})

    assert (settings.setup_commands, settings.k_write) == (("mine",), 4)
