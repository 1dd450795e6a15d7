"""The command line itself: help, completion, streams, colours, interruptions, bugs, and what it costs to start."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from tests.kit import Gate, RepoKit, Wt, environment, eventually
from worktrees.cli.app import PLACES
from worktrees.cli.app import wt as app
from worktrees.schema import ANSWERS

HEAVY = {"pydantic", "pygit2", "rich", "psutil", "filelock", "asyncio"}


def commands() -> dict[str, click.Command]:
    """Every command there is, by its full name."""
    context = click.Context(app, info_name="wt")
    found: dict[str, click.Command] = {}
    for name in PLACES:
        command = app.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found.update({f"{name} {below}": item for below, item in command.commands.items()})
        else:
            found[name] = command
    return found


# ------------------------------------------------------------------------------------------------------ help
def test_without_words_it_says_what_it_is_for(wt: Wt) -> None:
    answer = wt(status=0)

    for command in ("wt spawn", "wt wait", "wt diff", "wt merge", "wt undo", "wt --help", "wt demo"):
        assert command in answer.stdout
    assert answer.stderr == ""


def test_help_needs_no_repository_and_lists_every_command(tmp_path: Path) -> None:
    answer = Wt(tmp_path)("--help", status=0)

    listed = re.findall(r"^  ([a-z]+)  +\S", answer.stdout, re.MULTILINE)
    assert listed == list(PLACES)


@pytest.mark.parametrize("name", PLACES)
def test_the_list_says_what_the_command_says_itself(name: str) -> None:
    command = app.get_command(click.Context(app), name)

    assert command is not None
    assert command.short_help == PLACES[name][1]
    assert (command.help or "").partition("\n")[0] == PLACES[name][1]


def test_every_command_has_json_an_example_and_an_answer() -> None:
    found = commands()

    assert found.keys() == ANSWERS.keys()
    for name, command in found.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options, name
        example = getattr(command, "examples", "")
        assert f"wt {name}" in example, name
        undocumented = [item.name for item in command.params if isinstance(item, click.Option) and not item.help]
        assert not undocumented, name


def test_examples_are_shown_as_they_are_typed(wt: Wt) -> None:
    assert "Examples:\n  wt merge -n " in wt("merge", "--help", status=0).stdout


def test_as_if_started_elsewhere(repo: RepoKit, tmp_path: Path) -> None:
    elsewhere = Wt(tmp_path)
    elsewhere("-C", "repo", "-C", "src", "spawn", "--name", "one", status=0)

    assert [job["name"] for job in elsewhere("-C", repo.path, "list", "--json").data["jobs"]] == ["one"]


def test_both_commands_are_installed() -> None:
    for name in ("wt", "git-wt"):
        done = subprocess.run(
            [Path(sys.executable).with_name(name), "--version"], capture_output=True, text=True, check=True
        )
        assert re.fullmatch(r"wt \d+\.\d+\.\d+\n", done.stdout)


# ------------------------------------------------------------------------------------------------------ completion
@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o nosort"), ("zsh", "#compdef wt"), ("fish", "complete --no-files")]
)
def test_completion_scripts(wt: Wt, shell: str, mark: str) -> None:
    script = wt("completion", shell, status=0).stdout

    assert mark in script
    assert "_WT_COMPLETE" in script
    assert wt("completion", shell, "--json", status=0).data["text"].strip() == script.strip()


def test_bash_takes_its_script(wt: Wt) -> None:
    script = wt("completion", "bash", status=0).stdout

    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def complete(wt: Wt, words: str) -> set[str]:
    """What bash would offer after these words."""
    count = len(words.split(" ")) - 1
    env = {"_WT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    return {line.split(",", 1)[1] for line in wt(env=env, status=0).stdout.split()}


def test_commands_options_and_jobs_complete(wt: Wt) -> None:
    wt("spawn", "--name", "audit", status=0)
    wt("spawn", "--name", "adjust", status=0)
    (first, second) = (job["jobId"] for job in wt("list", "--json").data["jobs"])

    assert complete(wt, "wt me") == {"merge"}
    assert complete(wt, "wt diff --na") == {"--name-only"}
    assert complete(wt, "wt diff a") == {"audit", "adjust"}
    assert complete(wt, "wt merge audit j-") == {first, second}
    assert complete(wt, "wt lease ext") == {"extend"}
    assert complete(wt, "wt spawn --access r") == {"read-only"}


def test_completion_outside_of_a_repository_stays_silent(tmp_path: Path) -> None:
    assert complete(Wt(tmp_path), "wt diff ") == set()


# ------------------------------------------------------------------------------------------------------ streams
def on_a_terminal(wt: Wt, *words: str, env: dict[str, str | None] | None = None) -> str:
    """What a terminal of 100 columns shows."""
    leader, follower = pty.openpty()
    env = {"TERM": "xterm-256color", "COLUMNS": "100", **(env or {})}
    with subprocess.Popen(
        wt.argv(*words), cwd=wt.cwd, stdin=follower, stdout=follower, stderr=follower, env=environment(env)
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            shown += piece
        process.wait(60)
    os.close(leader)
    return shown.decode()


def test_colours_are_for_terminals(wt: Wt) -> None:
    wt("spawn", "--name", "one", "--", "sh", "-c", "echo x >> src/app.py", status=0)
    wt("wait", status=0)

    assert "\x1b[32msucceeded\x1b[0m" in on_a_terminal(wt, "list")
    assert "\x1b[32m+1\x1b[0m" in on_a_terminal(wt, "diff", "one")
    assert "\x1b[32m+\x1b[m\x1b[32mx" in on_a_terminal(wt, "diff", "one", "--patch")
    assert "\x1b" not in on_a_terminal(wt, "list", env={"NO_COLOR": "1"})
    assert "\x1b" not in on_a_terminal(wt, "diff", "one", "--patch", env={"NO_COLOR": "1"})
    for words in (("list",), ("diff", "one"), ("diff", "one", "--patch"), ("merge", "-n"), ("merge", "nobody")):
        answer = wt(*words)
        assert "\x1b" not in answer.stdout + answer.stderr


def test_long_work_shows_its_progress_on_a_terminal_only(wt: Wt) -> None:
    shown = on_a_terminal(wt, "spawn", "--count", "3", "--name", "many")

    assert "spawning" in shown
    assert "3/3" in shown
    quiet = wt("spawn", "--count", "3", "--name", "more", status=0)
    assert quiet.stderr == ""
    assert len(quiet.stdout.splitlines()) == 3


def test_lines_fit_the_terminal(wt: Wt) -> None:
    wt("spawn", "--name", "one", "--task", "a task that goes on and on " * 10, status=0)
    lines = on_a_terminal(wt, "list", env={"NO_COLOR": "1"}).replace("\r", "").splitlines()

    assert max(len(line) for line in lines) == 100
    assert lines[1].endswith("…")


def test_the_answer_is_alone_on_standard_output(repo: RepoKit, wt: Wt) -> None:
    repo.write("notes", "mine\n")
    answer = wt("spawn", "--name", "one", status=0)

    assert re.fullmatch(
        r"Opened one from [0-9a-f]{10} \(main\) as j-\w{8} in /.*; end it with: wt settle one\n", answer.stdout
    )
    assert answer.stderr == "wt: warning: 1 uncommitted path of the checkout left out\n"
    as_json = wt("spawn", "--name", "two", "--json", status=0)
    assert as_json.stderr == ""
    assert [warning["code"] for warning in as_json.json["warnings"]] == ["dirty-left-out"]


def test_a_reader_that_goes_away_is_no_error(wt: Wt) -> None:
    wt("spawn", "--name", "one", "--", "sh", "-c", "seq 200000", status=0)
    wt("wait", status=0)

    with wt.start("logs", "one") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        status = process.wait(60)

    assert said == b""
    assert status == 141


def test_following_ends_with_the_worker(wt: Wt, gate: Gate) -> None:
    wt("spawn", "--name", "one", "--", "sh", "-c", f"echo before; {gate.shell()}; echo after", status=0)
    with wt.start("events", "one", "--follow", "--jsonl") as process:
        assert process.stdout is not None
        assert b'"content":"before"' in process.stdout.readline()
        gate.release()
        rest = process.stdout.read().decode().splitlines()
        assert process.wait(60) == 0

    assert [re.search(r'"type":"(\w+)"', line)[1] for line in rest] == ["message", "final"]  # type: ignore[index]
    assert wt("logs", "one", "--follow", status=0).stdout == "before\nafter\n"


# ------------------------------------------------------------------------------------------------------ interruptions
def opened(pid: int) -> list[str]:
    """What a process has open now; some of it may be closed while we look."""
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(link))
    return names


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_ends_the_command_and_no_worker(wt: Wt, gate: Gate, as_json: bool) -> None:
    wt("spawn", "--name", "one", "--", "sh", "-c", gate.shell(), status=0)
    gate.wait_arrivals(1)
    with wt.start("wait", *(["--json"] if as_json else [])) as process:
        eventually(lambda: any("inotify" in name for name in opened(process.pid)), what="it waits")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    if as_json:
        assert b'"code":"interrupted"' in out
    else:
        assert (out, b"interrupted; workers that were started run on" in err) == (b"", True)
    assert wt("status", "one", "--json").data["jobs"][0]["state"] == "running"
    gate.release()
    wt("wait", status=0)


def test_a_bug_is_reported_in_a_file(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(
        "import worktrees.jobs.records as records\n"
        "def rows(*args, **named):\n    raise ZeroDivisionError('planted')\n"
        "records.rows = rows\n"
    )
    wt("spawn", "--name", "one", status=0)
    secret = {"PYTHONPATH": str(planted), "TOKEN": "hush"}

    answer = wt("workflow", "list", env=secret, status=70)
    as_json = wt("workflow", "list", "--json", env=secret, status=70)

    assert answer.stderr.startswith("wt: error: a bug in `wt`: ZeroDivisionError: planted; the report is in `")
    assert as_json.code == "bug"
    (first, second) = sorted((tmp_path / "home" / ".local" / "state" / "wt" / "reports").iterdir())
    assert str(first) in answer.stderr + as_json.stdout
    report = first.read_text() + second.read_text()
    assert "ZeroDivisionError: planted" in report
    assert "workflow" in report
    assert "hush" not in report


# ------------------------------------------------------------------------------------------------------ what it costs
@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], ["list"], ["status"], ["list", "--all", "--json"]])
def test_the_quick_way_loads_nothing_heavy(wt: Wt, words: list[str]) -> None:
    wt("spawn", "--name", "one", status=0)
    wt("settle", "one", status=0)

    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", "-m", "worktrees", *words],
        cwd=wt.cwd, capture_output=True, text=True, check=True,
    )  # fmt: skip

    loaded = set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "worktrees.cli" in loaded
    assert not HEAVY & loaded
    if words[:1] in (["list"], ["status"]):
        assert not {"click", "dataclasses", "pathlib", "subprocess"} & loaded


def test_no_command_is_loaded_to_help_with_another() -> None:
    for name, (place, _) in PLACES.items():
        assert import_module(f"worktrees.cli.{place}").__doc__, name
    code = "import sys, worktrees.cli.app; print([m for m in sys.modules if m.startswith('worktrees.cli.')])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "['worktrees.cli.session', 'worktrees.cli.app']"
