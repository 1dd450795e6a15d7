"""Other programs' configuration: ours goes in, comes out, and everything else stays, to the character."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit import RepoKit, Wt
from worktrees import guide, hosts
from worktrees.cli.hosting import HOSTS
from worktrees.errors import Usage
from worktrees.hosts import splice

ROOT = Path(__file__).parent.parent.parent
PLUGIN = ROOT / "worktrees" / "plugin"
COMMENTED = """\
{
    // mine
    "theme": "dark", /* and "hooks": {} is not here */
    "mcpServers": {
        "other": {"command": "x", "args": ["//", "}"]}, // the last one
    },
    "list": [1, {"a": [2, 3]}, "]"],
}
"""
JSON_FILES = {
    "claude": ("{home}/.claude.json", "{home}/.claude/settings.json"),
    "gemini": ("{home}/.gemini/settings.json",),
    "opencode": ("{home}/.config/opencode/opencode.json",),
}


def test_a_member_goes_in_and_out_of_json_with_comments() -> None:
    changed = splice.put(COMMENTED, ("mcpServers", "wt"), {"command": "wt"})
    assert changed.replace('\n        "wt": {\n            "command": "wt"\n        },', "") == COMMENTED
    assert splice.take(changed, ("mcpServers", "wt")) == COMMENTED
    assert splice.value_at(changed, ("mcpServers", "other")) == {"command": "x", "args": ["//", "}"]}
    assert splice.value_at(changed, ("mcpServers", "wt")) == {"command": "wt"}
    again = splice.put(changed, ("mcpServers", "wt"), {"command": "/bin/wt"})
    assert splice.value_at(again, ("mcpServers", "wt")) == {"command": "/bin/wt"}
    assert splice.value_at(splice.take(changed, ("mcpServers", "wt")), ("mcpServers", "wt")) is None
    assert "// mine" in splice.take(changed, ("mcpServers", "wt"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    ),
    st.dictionaries(st.sampled_from(["a", "b", "wt", 'q"\\']), st.integers() | st.just({}), max_size=3),
    st.sampled_from([None, 2, 4, "\t"]),
)
def test_any_json_keeps_what_it_had(value: Any, around: dict[str, Any], indent: Any) -> None:
    document = {**around, "value": value}
    text = json.dumps(document, indent=indent)
    changed = splice.put(text, ("servers", "wt"), {"x": 1})
    assert json.loads(changed) == {**document, "servers": {"wt": {"x": 1}}}
    assert splice.take(changed, ("servers", "wt")) == text
    for key in document:
        assert json.loads(splice.take(text, (key,))) == {k: v for k, v in document.items() if k != key}


@pytest.mark.parametrize("text", ["[]", "x", '{"a": }', '{"a": 1', '"a"', '{"a": 1} {}'])
def test_what_is_no_object_is_left_alone(text: str) -> None:
    with pytest.raises(Usage):
        splice.put(text, ("a", "b"), 1)


def files_of(*tops: Path) -> dict[str, bytes]:
    """All but git's and the copies of what was changed."""
    return {
        str(path): path.read_bytes()
        for top in tops
        for path in top.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(top).parts and not path.name.endswith(".before-wt")
    }


def installed(host: str, scope: hosts.Scope, root: Path | None, *, uninstall: bool = False) -> list[Path]:
    """Does what `wt install` does; which files that changed."""
    found = hosts.edits(host, scope, root, "wt", os.environ, uninstall=uninstall)
    for edit in found:
        hosts.apply(edit)
    return [edit.path for edit in found]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("scope", ["user", "project"])
def test_installing_adds_files_once_and_takes_them_away(repo: RepoKit, host: str, scope: hosts.Scope) -> None:
    root = repo.path if scope == "project" else None
    before = files_of(Path.home(), repo.path)
    changed = installed(host, scope, root)
    assert changed
    assert files_of(Path.home(), repo.path).keys() - before.keys() == {str(path) for path in changed}
    assert installed(host, scope, root) == []
    installed(host, scope, root, uninstall=True)
    assert files_of(Path.home(), repo.path) == before
    assert installed(host, scope, root, uninstall=True) == []


@pytest.mark.parametrize(("host", "scope"), [("codex", "--user"), ("claude", "--project")])
def test_installing_is_seen_first_done_once_and_undone(repo: RepoKit, wt: Wt, host: str, scope: str) -> None:
    def files() -> dict[str, bytes]:
        return files_of(Path.home(), repo.path)

    before = files()
    shown = wt("install", host, scope, "-n", status=0)
    assert shown.stdout.startswith("--- /dev/null")
    assert files() == before
    done = wt("install", host, scope, "--json", status=0).data
    assert {file["action"] for file in done["files"]} == {"created"}
    assert files().keys() - before.keys() == {file["path"] for file in done["files"]}
    assert wt("install", host, scope, status=0).stdout == "Nothing to change.\n"
    wt("install", host, scope, "--uninstall", status=0)
    assert files() == before
    assert wt("install", host, scope, "--uninstall", "--json", status=0).data["files"] == []


@pytest.mark.parametrize("host", sorted(JSON_FILES))
def test_a_file_that_was_there_keeps_its_rest_its_mode_and_a_copy(host: str) -> None:
    paths = [Path(name.format(home=Path.home())) for name in JSON_FILES[host]]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(COMMENTED, encoding="utf-8")
        path.chmod(0o640)
    installed(host, "user", None)
    for path in paths:
        assert path.with_name(path.name + ".before-wt").read_text(encoding="utf-8") == COMMENTED
        text = path.read_text(encoding="utf-8")
        assert all(line in text for line in COMMENTED.splitlines() if line.strip("{} ,"))
        assert path.stat().st_mode & 0o777 == 0o640
    installed(host, "user", None, uninstall=True)
    for path in paths:
        assert path.read_text(encoding="utf-8") == COMMENTED


def test_codex_waits_for_the_server_and_may_call_it(repo: RepoKit, wt: Wt) -> None:
    path = Path.home() / ".codex" / "config.toml"
    path.parent.mkdir()
    mine = '# mine\nmodel = "m"  # this one\n\n[mcp_servers.other]\ncommand = "x"\n'
    mine += '[model_providers.own]\nenv_key = "OWN_KEY"\n'
    path.write_text(mine, encoding="utf-8")
    wt("install", "codex", status=0)
    text = path.read_text(encoding="utf-8")
    assert text.startswith(mine)
    server = tomllib.loads(text)["mcp_servers"]["wt"]
    assert server["required"] is True
    assert server["args"] == ["mcp"]
    assert server["default_tools_approval_mode"] == "approve"
    assert server["tool_timeout_sec"] > 240
    assert {"CODEX_HOME", "OWN_KEY"} <= set(server["env_vars"])  # or its workers could not reach their model
    wt("install", "codex", "--uninstall", status=0)
    assert path.read_text(encoding="utf-8") == mine

    path.write_text('[mcp_servers.wt]\ncommand = "mine"\n', encoding="utf-8")
    assert wt("install", "codex", "--json", status=4).code == "host-configured"
    path.write_text("mcp_servers = { x = {} }\n", encoding="utf-8")
    assert wt("install", "codex", "--json", status=4).code == "host-file"
    path.write_text("= x\n", encoding="utf-8")
    assert wt("install", "codex", "--json", status=4).code == "host-file"
    assert path.read_text(encoding="utf-8") == "= x\n"


def test_a_worker_installs_nothing_and_reads_the_guide(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    workspace = wt("spawn", "--name", "mine", "--json", status=0).data["jobs"][0]["workspace"]
    by_name = {"WT_JOB": "j-aaaaaaaa"}
    assert wt("install", "claude", "--project", "--json", cwd=workspace).code == "not-boss"
    assert wt("install", "codex", "--json", cwd=tmp_path, env=by_name).code == "not-boss"
    assert wt("install", "gemini", "--uninstall", "--json", env=by_name).code == "not-boss"
    assert wt("guide", cwd=workspace, env=by_name, status=0).stdout == guide.text()
    assert not Path.home().joinpath(".codex").exists()
    assert not Path(workspace, ".mcp.json").exists()


def test_somebody_elses_worktree_provider_stays(repo: RepoKit, wt: Wt) -> None:
    path = repo.path / ".claude" / "settings.json"
    path.parent.mkdir()
    other = json.dumps({"hooks": {"WorktreeCreate": [{"hooks": [{"type": "command", "command": "other"}]}]}})
    path.write_text(other, encoding="utf-8")
    assert wt("install", "claude", "--project", "--json", status=4).code == "host-configured"
    wt("install", "claude", "--project", "--uninstall", status=0)
    assert path.read_text(encoding="utf-8") == other


def test_the_plugin_says_the_same_as_the_installer(repo: RepoKit, wt: Wt, project: dict[str, Any]) -> None:
    wt("install", "claude", "--project", status=0)
    settings = json.loads((repo.path / ".claude/settings.json").read_bytes())
    hooks = json.loads((PLUGIN / "hooks/hooks.json").read_bytes())["hooks"]
    assert settings["hooks"].keys() == hooks.keys()
    for event, groups in hooks.items():
        words = settings["hooks"][event][0]["hooks"][0]["command"].split()
        assert words[1:] == groups[0]["hooks"][0]["command"].split()[1:]
    assert json.loads((PLUGIN / ".mcp.json").read_bytes())["mcpServers"]["wt"]["args"] == ["mcp"]
    for manifest in (PLUGIN / ".claude-plugin/plugin.json", PLUGIN / ".codex-plugin/plugin.json"):
        assert json.loads(manifest.read_bytes())["version"] == project["project"]["version"]
    for market in (ROOT / ".claude-plugin/marketplace.json", ROOT / ".agents/plugins/marketplace.json"):
        source = json.loads(market.read_bytes())["plugins"][0]["source"]
        assert (ROOT / (source if isinstance(source, str) else source["path"])).samefile(PLUGIN)
    assert (PLUGIN / "skills/wt/SKILL.md").samefile(guide.SKILL)


@pytest.fixture
def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
