"""Agents without their programs: how they are started, what they are told, which there are, what is refused."""

import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.kit import RepoKit, Wt
from worktrees import Boss, agents
from worktrees.agents import WORKER_CONTRACT, Order
from worktrees.agents.custom import Custom
from worktrees.agents.programs import Claude, Codex, Gemini, OpenCode
from worktrees.errors import Refused, Usage
from worktrees.model import Access

CONTRACT = ("Do this task and nothing else", "Start no sub-agents", "do not commit, stash, branch", "nothing else")


def config(home_file: str) -> Path:
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "wt" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(home_file)
    return path


def agent(boss: Boss, **wishes: Any) -> Any:
    """A job of an agent, once it is done."""
    job = boss.spawn(**{"task": "make it", **wishes})
    boss.wait(job.job_id)
    return boss.result(job.job_id)


# ---------------------------------------------------------------------------------------------------------- adapters
def test_codex_is_confined_alone_and_bounded() -> None:
    made = Codex().invocation(Order(task="fix it", access="read-only", arguments=("--add-dir", "/x")))
    words = " ".join(made.argv)
    assert words.startswith(
        "codex exec --json -s read-only -C {workspace} --disable multi_agent --output-schema {schema}"
    )
    assert words.endswith("--add-dir /x -")
    assert 'approval_policy="never"' in words
    assert "features.unbounded_connection_retries=false" in words
    assert made.stdin is not None
    assert made.stdin.endswith("# Task\n\nfix it\n")
    assert "`modifiedFiles`" in made.stdin
    assert made.own_sandbox
    assert made.schema is not None


def test_codex_resumes_with_its_options_before_the_session() -> None:
    made = Codex().invocation(Order(task="go on", model="m", effort="high", session="t-1"))
    words = [agents.fill(word, made.values) for word in made.argv]
    assert words[-3:] == ["resume", "t-1", "-"]
    assert words[words.index("-m") + 1] == "m"
    assert 'model_reasoning_effort="high"' in words


@pytest.mark.parametrize("access", get_args(Access))
@pytest.mark.parametrize("program", [Codex, Claude, Gemini, OpenCode])
def test_every_program_gets_its_prompt_on_stdin(program: type[Codex], access: Access) -> None:
    made = program().invocation(Order(task="fix it", access=access, model="m", arguments=("--more",)))
    assert made.argv[0] == program.program
    assert "--more" in made.argv
    assert not any("fix it" in word for word in made.argv)
    assert made.stdin is not None
    assert made.stdin.startswith(WORKER_CONTRACT)
    assert {"fix it", "m", access} <= set(made.values.values())
    assert made.dialect == program.name


def test_accesses_are_told_apart() -> None:
    said = {
        program: {access: program().invocation(Order(task="x", access=access)).argv for access in get_args(Access)}
        for program in (Codex, Claude, Gemini, OpenCode)
    }
    for words in said.values():
        assert words["read-only"] != words["workspace-write"]
    assert "bypassPermissions" not in said[Claude]["workspace-write"]
    assert "yolo" not in said[Gemini]["read-only"]


@pytest.mark.parametrize("program", [Claude, Gemini, OpenCode])
def test_a_session_that_cannot_move_is_refused(program: type[Claude]) -> None:
    with pytest.raises(Usage, match="cannot continue in another workspace"):
        program().invocation(Order(task="x", session="s"))


def test_an_unknown_effort_is_refused() -> None:
    with pytest.raises(Usage, match="`huge` is no effort of `codex`"):
        Codex().invocation(Order(task="x", effort="huge"))
    with pytest.raises(Usage, match="`gemini` takes no effort"):
        Gemini().invocation(Order(task="x", effort="low"))


def test_placeholders_are_filled_once() -> None:
    values = {"prompt": "say {workspace} {task}", "workspace": "/w"}
    assert agents.fill("--dir={workspace}/{prompt}{unknown}{job}", values) == (
        "--dir=/w/say {workspace} {task}{unknown}{job}"
    )


def test_the_contract_says_what_the_boss_relies_on() -> None:
    for words in CONTRACT:
        assert words in WORKER_CONTRACT
    assert "```json" in agents.prompt("x")
    assert "```json" not in agents.prompt("x", with_schema=True)


# ------------------------------------------------------------------------------------------------- agents of the user
def test_a_defined_agent_works_and_is_told_the_contract(repo: RepoKit) -> None:
    config("""
        [agents.mine]
        argv = ["sh", "-c", 'cat > told.txt; pwd; echo "$MODE $0 $1 $2"', "zero"]
        model = ["-m", "{model}"]
        environment = { MODE = "as {access}" }
        """)
    boss = Boss(repo.path)
    done = agent(boss, agent="mine", model="big", agent_arguments=["more"])
    told = boss.patch(done.job.job_id).decode()
    assert "You are a worker." in told
    assert "+make it" in told
    assert done.final_message == "as workspace-write zero -m big"
    assert str(done.job.workspace) in [event.content for event in boss.events(done.job.job_id).events]
    assert (done.job.agent, done.job.model, done.session, done.usage) == ("mine", "big", None, None)


def test_a_prompt_may_be_a_word(repo: RepoKit) -> None:
    config("""agents.mine.argv = ["sh", "-c", 'cat; echo "$1" | tail -1; echo "$2"', "-", "{prompt}", "{task}"]""")
    done = agent(Boss(repo.path), agent="mine", task="say {workspace}")
    assert done.final_message == "say {workspace}"
    assert done.job.command[-2:] == ["{prompt}", "{task}"]  # the record stays short


def test_a_failed_turn_fails_the_job_whatever_the_status(repo: RepoKit) -> None:
    failed = json.dumps({"type": "result", "subtype": "success", "is_error": True, "result": "no credit"})
    fine = json.dumps({"type": "result", "subtype": "success", "result": '```json\n["a"]\n```', "session_id": "s"})
    config(f"""
        [agents.fails]
        argv = ["sh", "-c", 'echo "$0"', '{failed}']
        parser = "claude"
        [agents.stops]
        argv = ["sh", "-c", "echo Error: no key >&2; echo later >&2"]
        parser = "claude"
        [agents.works]
        argv = ["sh", "-c", 'echo x > a; printf "%s\\n" "$0"', '{fine}']
        parser = "claude"
        """)
    boss = Boss(repo.path)
    for name, reason in (("fails", "no credit"), ("stops", "Error: no key")):
        done = agent(boss, agent=name)
        assert (done.job.result, done.job.reason, done.job.exit_code) == ("failed", reason, 0)
    done = agent(boss, agent="works")
    assert (done.job.result, done.job.reason) == ("succeeded", None)
    assert done.session == "s"
    assert done.change_set is not None
    assert done.change_set.reported == ["a"]
    assert done.change_set.reported_but_untouched == []


def test_agents_have_limits_and_others_have_none(repo: RepoKit) -> None:
    """An agent may wait for ever; nobody else is cut off unasked."""
    config("agent_timeout_seconds = \"2h\"\nagents.mine.argv = ['true']")
    boss = Boss(repo.path)
    mine = boss.spawn(agent="mine", task="x")
    assert (mine.idle_seconds, mine.timeout_seconds) == (1800, 7200)
    mine = boss.spawn(agent="mine", task="x", idle_seconds=9)
    assert (mine.idle_seconds, mine.timeout_seconds) == (9, 7200)
    other = boss.spawn(["true"])
    assert (other.idle_seconds, other.timeout_seconds) == (None, None)


def test_the_user_s_definition_goes_first_and_the_repository_s_last(repo: RepoKit) -> None:
    repo.write(".wt.toml", "agents.codex.argv = ['false']\n[agents.theirs]\nargv = ['sh', '-c', 'echo theirs']\n")
    repo.commit("agents")
    boss = Boss(repo.path)
    assert {found.name: found.source for found in boss.agents().agents}["codex"] == "built in"
    config("agents.codex.argv = ['sh', '-c', 'echo mine']")
    assert agent(boss, agent="codex").final_message == "mine"


def test_the_repository_s_definition_waits_for_approval(repo: RepoKit) -> None:
    repo.write(".wt.toml", "[agents.theirs]\nargv = ['sh', '-c', 'echo theirs']\n")
    boss = Boss(repo.path)
    with pytest.raises(Refused, match="waits for your approval") as refused:
        boss.spawn(agent="theirs", task="x")
    assert refused.value.code == "agent-not-approved"
    assert refused.value.hint == "look at it, then run: wt setup --approve"
    assert not boss.list()
    assert [(command.approved, command.command) for command in boss.set_up().commands] == [
        (False, 'agents.theirs = {"argv": ["sh", "-c", "echo theirs"]}')
    ]
    boss.set_up(approve=True)
    assert agent(boss, agent="theirs").final_message == "theirs"
    repo.write(".wt.toml", "[agents.theirs]\nargv = ['sh', '-c', 'echo others']\n")
    with pytest.raises(Refused, match="waits for your approval"):
        boss.spawn(agent="theirs", task="x")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "needs a list of words as `argv`"),
        ({"argv": "sh -c x"}, "needs a list of words as `argv`"),
        ({"argv": ["x"], "model": "-m"}, "needs a list of words as `argv`"),
        ({"argv": ["x"], "parsers": "text"}, "unknown key `parsers`"),
        ({"argv": ["x"], "parser": "morse"}, "no parser `morse`"),
        ({"argv": ["x"], "environment": {"A": 1}}, "`environment` is a table of texts"),
    ],
)
def test_a_wrong_definition_says_where(table: dict[str, Any], said: str) -> None:
    with pytest.raises(Usage) as refused:
        Custom("mine", table, "`/config.toml`")
    assert said in refused.value.message
    assert "`agents.mine` of `/config.toml`" in refused.value.message


# ------------------------------------------------------------------------------------------------------------ refused
@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"agent": "nobody", "task": "x"}, "no agent `nobody`; there is: claude, codex, gemini, mine, opencode"),
        ({"agent": "mine"}, "`mine` was told nothing to do"),
        ({"agent": "mine", "task": " \n"}, "`mine` was told nothing to do"),
        ({"agent": "mine", "task": "x\0y"}, "the task holds a NUL byte"),
        ({"agent": "mine", "task": "x", "command": ["true"]}, "a job has either a command or an agent"),
        ({"agent": "mine", "task": "x", "model": "m"}, "the agent `mine` takes no model"),
        ({"agent": "mine", "task": "x", "stdin": __file__}, "an agent's standard input is its prompt"),
        ({"command": ["true"], "model": "m"}, "`model` is for a job with an agent"),
        ({"command": ["true"], "agent_arguments": ["m"]}, "`agent arguments` is for a job with an agent"),
        ({"command": ["true"], "resume": "x"}, "what is resumed has its command and its start"),
    ],
)
def test_what_does_not_fit_together_is_refused(repo: RepoKit, wishes: dict[str, Any], said: str) -> None:
    config("agents.mine.argv = ['true']")
    boss = Boss(repo.path)
    with pytest.raises(Usage) as refused:
        boss.spawn(**wishes)
    assert refused.value.message == said
    assert not boss.state.exists(), "nothing is made before"


def test_what_cannot_be_resumed_is_refused(repo: RepoKit, wt: Wt) -> None:
    config("agents.mine.argv = ['true']")
    wt("spawn", "--name", "plain", "--", "true", status=0)
    wt("spawn", "--name", "mine", "--agent", "mine", "--task", "x", status=0)
    wt("spawn", "--name", "open", status=0)
    wt("wait", "plain", "mine", status=0)
    for name, code in (
        ("plain", "no-session"),
        ("mine", "no-session"),
        ("open", "job-unfinished"),
        ("gone", "not-found"),
    ):
        assert wt("spawn", "--resume", name, "--json", status=4).code == code


def test_an_agent_s_job_that_conflicts_runs_again_with_its_task(repo: RepoKit) -> None:
    config("""agents.mine.argv = ["sh", "-c", 'cat > /dev/null; echo "$0" >> src/util.py', "{task}"]""")
    boss = Boss(repo.path)
    for task in ("one", "two"):
        boss.spawn(agent="mine", task=task, name=task)
    boss.wait()
    merged = boss.merge(on_conflict="rerun", order="created")
    assert merged.landed
    assert [again.result for again in merged.reruns] == ["succeeded"]
    assert sorted(repo.read("src/util.py").splitlines()[-2:]) == [b"one", b"two"]
    again = boss.status(merged.reruns[0].job_id)[0]
    assert (again.agent, again.task) == ("mine", "two")


def test_one_that_cannot_be_made_does_not_stop_the_others(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    config("agents.mine.argv = ['sh', '-c', 'cat >> told']")
    rows = [{"agent": "mine", "task": "one"}, {"agent": "nobody", "task": "two"}, {"agent": "mine", "task": "three"}]
    (tmp_path / "jobs").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = wt("spawn", "--from-file", tmp_path / "jobs", "--json", status=1)
    assert [job["task"] for job in answer.data["jobs"]] == ["one", "three"]
    assert [(failure["index"], failure["code"]) for failure in answer.data["failures"]] == [(1, "usage")]
    answer = wt("spawn", "--agent", "mine", "--task", "x", "--count", "2", "--name", "n", "--json", status=0)
    assert [job["name"] for job in answer.data["jobs"]] == ["n-1", "n-2"]


# --------------------------------------------------------------------------------------------------------- wt agents
def test_agents_are_listed_and_completed(
    repo: RepoKit, wt: Wt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "node_modules" / "@google" / "gemini-cli"
    (package / "dist").mkdir(parents=True)
    (package / "package.json").write_text('{"version": "1.2.3"}')
    (package / "dist" / "gemini.js").write_text("#!/bin/sh\n")
    (package / "dist" / "gemini.js").chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gemini").symlink_to(package / "dist" / "gemini.js")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    config("agents.mine.argv = ['no-such-program']")
    repo.write(".wt.toml", "agents.theirs.argv = ['true']")
    found = {row["name"]: row for row in wt("agents", "--json", status=0).data["agents"]}
    assert list(found) == ["claude", "codex", "gemini", "mine", "opencode", "theirs"]
    assert (found["gemini"]["version"], found["gemini"]["path"]) == ("1.2.3", str(tmp_path / "bin" / "gemini"))
    assert found["codex"]["ownSandbox"]
    assert found["codex"]["resumes"]
    assert (found["mine"]["path"], found["mine"]["approved"]) == (None, True)
    assert not found["theirs"]["approved"]
    text = wt("agents", status=0).stdout
    assert "no-such-program is not installed" in text
    assert "waits: wt setup --approve" in text
    env = {"_WT_COMPLETE": "bash_complete", "COMP_WORDS": "wt spawn --agent ", "COMP_CWORD": "3"}
    assert [line.partition(",")[2] for line in wt(env=env).stdout.splitlines()] == list(found)
