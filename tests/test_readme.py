"""What the README says is true: its session, its tests, its commands, its settings."""

import os
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from tests.kit import RepoKit, Wt
from tests.readme import BLOCK, README, play, steady
from worktrees.cli.app import PLACES
from worktrees.config import Settings

TEXT = README.read_text(encoding="utf-8")


def test_the_session_goes_as_it_is_written(tmp_path: Path) -> None:
    place = tmp_path / "session"
    place.mkdir()

    played = play(TEXT, place, os.environ)

    told = [steady(block) for block in BLOCK.findall(TEXT)]
    assert [steady(block) for block in played] == told, "run: python -m tests.readme"


def test_every_test_it_names_is_there() -> None:
    named = re.findall(r"`tests/([\w/]+\.py)::(\w+)`", TEXT)

    missing = [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (Path(__file__).parent / file).read_text(encoding="utf-8")
    ]
    assert len(named) > 10
    assert not missing


def test_every_command_is_in_it() -> None:
    about = {"demo", "config", "schema", "completion", "version"}

    assert not [name for name in PLACES.keys() - about if f"`{name}" not in TEXT]
    assert not [name for name in about - {"version"} if f"wt {name}" not in TEXT]


def test_every_setting_it_names_is_one() -> None:
    table = TEXT.partition("## Settings")[2].partition("\n## ")[0]
    named = re.findall(
        r"`([a-z_]+)`", "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    )

    assert set(named) <= {item.name for item in fields(Settings)}


@pytest.mark.parametrize("finish", ["merge", "drop"])
def test_nothing_of_the_user_s_changes(repo: RepoKit, wt: Wt, finish: str) -> None:
    """Byte for byte: configuration, hooks, index, stash, reflogs, refs. A merge moves the branch and what is its."""
    repo.write("src/util.py", "stashed\n")
    repo.git("stash", "--quiet")
    repo.write("notes", "mine\n")
    before = repo.fingerprint()
    script = "echo more >> docs/guide.md; git stash; git commit -am x; git tag t"
    wt("spawn", "--name", "one", "--", "sh", "-c", script, status=0)
    wt("wait", status=1)

    meanwhile = repo.fingerprint()
    (ref,) = [name for name in meanwhile.keys() - before.keys() if name.startswith("ref:")]
    assert re.fullmatch(r"ref:refs/wt/w-\w{8}/base", ref)
    assert repo.fingerprint(ignore_refs=["refs/wt/*"]) == before
    wt(*shlex.split(f"{finish} one"), status=0)
    after = repo.fingerprint()
    moved = {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)}

    branch = {"ref:refs/heads/main", "git:refs/heads/main", "git:logs/refs/heads/main", "git:logs/HEAD", "git:index"}
    # What was dropped is in no branch: its snapshot still needs the commit it started from.
    assert moved <= (branch | {"file:docs/guide.md"} if finish == "merge" else {ref, ref.replace("ref:", "git:")})
