"""What the guide says is true: its run, its tools, its commands; and everybody reads the same text."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.kit import RepoKit, Wt
from tests.readme import BLOCK, GUIDE, SKILL, play, steady
from worktrees import guide
from worktrees.agents import WORKER_CONTRACT
from worktrees.cli.app import PLACES
from worktrees.mcp import server

TEXT = GUIDE.read_text(encoding="utf-8")


def test_the_run_goes_as_it_is_written(tmp_path: Path) -> None:
    place = tmp_path / "session"
    place.mkdir()

    played = play(TEXT, place, os.environ)

    told = [steady(block) for block in BLOCK.findall(TEXT)]
    assert [steady(block) for block in played] == told, "run: python -m tests.readme docs/guide.md"


def test_everybody_reads_the_same_text(wt: Wt) -> None:
    assert guide.text() == TEXT
    assert wt("guide", status=0).stdout == TEXT
    assert wt("guide", "--json", status=0).data["text"] == TEXT
    head = SKILL.read_text(encoding="utf-8").split("\n---\n")[0]
    assert re.fullmatch(r"---\nname: wt\ndescription: [^\n]{50,1000}", head)


def test_every_tool_and_command_it_names_is_one() -> None:
    tools = {*server._JOB_TOOLS, *server._VERB_TOOLS}
    named = set(re.findall(r"`((?:codex|wt)_[a-z_]+)`", TEXT))
    assert named <= tools
    assert tools - named == {"wt_settle"}  # for open workspaces, which the guide leaves to `wt spawn --help`
    assert set(re.findall(r"`wt ([a-z]+)", TEXT)) <= PLACES.keys()


def test_workers_are_told_what_it_says_they_are() -> None:
    quoted = "".join(f"> {line}".rstrip() + "\n" for line in WORKER_CONTRACT.strip().splitlines())
    assert TEXT.endswith(quoted)


def test_the_boss_in_python_does_what_it_says(repo: RepoKit) -> None:
    words = ["echo one > one.txt", "sed -i '1s/.*/two/' README.md", "sed -i '1s/.*/three/' README.md", "exit 3"]
    boss = GUIDE.parent / "boss.py"
    done = subprocess.run(
        [sys.executable, "-P", boss, *words], cwd=repo.path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1, done.stderr
    assert "part-4 failed" in done.stdout
    assert "again: landed" in done.stdout
    assert repo.read("one.txt") == b"one\n"
    assert repo.read("README.md").splitlines()[0] in {b"two", b"three"}
    assert len(boss.read_text(encoding="utf-8").partition("def main")[2].splitlines()) < 30
