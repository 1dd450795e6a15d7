"""Every answer has the shape that `wt schema` prints, and that shape has not changed by accident."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.kit import Answer, RepoKit, Wt
from worktrees.schema import ANSWERS, document

FOSSIL = Path(__file__).parent / "fossils" / "1" / "schema.json"
SESSION = """
    guide | version | config | agents | setup | schema
    completion bash | list | status | log | doctor | workflow list | overlap | merge
    spawn --name one --task work -- sh -c 'echo said; echo one >> src/app.py; echo x > x.log'
    spawn --name two -- sh -c 'echo two >> src/app.py; exit 3'
    spawn --name mine
    wait one two | wait --any | list --all | status | status one | result one --full | result two
    events one | events one --max 1 | logs one | diff one | diff one --patch | diff mine | overlap one two
    lease extend mine 1h | settle mine | merge -n | merge one --check true | merge two | log | rollback | undo
    hooks install -n | hooks install | hooks status | hooks uninstall
    drop two | restore two | clean -n --all | clean --all | restore one | cancel one | workflow list --all
    spawn --count 2 --name many -- true | spawn --count 2 --name many -- true | wait --timeout 20 | drop many-1 many-2
    spawn --workflow other --name other | cancel other | workflow close other | undo | doctor --fix
    mcp | hook claude-create < '{"name": "hooked"}' | hook claude-remove < '{"worktree_path": "/nowhere"}'
    install codex -n | install claude | install claude --uninstall
    nonsense | list --nonsense | status nobody | diff | merge nobody | undo 99 | rollback --to 99 | -C nowhere list
"""


def answers(wt: Wt) -> list[Answer]:
    """Every command of the session, in JSON."""
    import shlex

    found = []
    for line in SESSION.strip().splitlines():
        for command in line.split("|"):
            words = shlex.split(command)
            words, said = (words[:-2], words[-1]) if "<" in words else (words, None)
            at = words.index("--") if "--" in words else len(words)
            found.append(wt(*words[:at], "--json", *words[at:], input=said))
    return found


def test_every_answer_has_the_shape_it_should(repo: RepoKit, wt: Wt) -> None:
    validator = jsonschema.Draft202012Validator(document())
    seen: dict[str, int] = {}
    bad = []
    for answer in answers(wt):
        text = answer.stdout
        assert text.count("\n") == 1, str(answer)
        envelope = json.loads(text)
        bad += [f"{answer.argv}: {error.json_path}: {error.message}" for error in validator.iter_errors(envelope)]
        assert envelope["ok"] == (answer.status == 0), str(answer)
        assert envelope["command"] in {*ANSWERS, "nonsense", ""}, str(answer)
        if envelope["data"] is not None:
            seen[envelope["command"]] = seen.get(envelope["command"], 0) + 1

    assert not bad, "\n".join(bad)
    assert ANSWERS.keys() - seen.keys() == {"demo", "mcp"}  # see test_demo; the other serves


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(document())


def test_a_wrong_answer_is_told_from_a_right_one() -> None:
    validator = jsonschema.Draft202012Validator(document())
    right: dict[str, Any] = {
        "schema": 1,
        "command": "list",
        "ok": True,
        "data": {"jobs": []},
        "warnings": [],
        "error": None,
    }

    assert validator.is_valid(right)
    for wrong in (
        {**right, "schema": 2},
        {**right, "data": {}},
        {**right, "data": {"jobs": [{"jobId": "j-1"}]}},
        {**right, "ok": False},
        {**right, "extra": 1},
        {**right, "error": {"code": "x", "message": "x", "hint": None, "details": {}}},
    ):
        assert not validator.is_valid(wrong), wrong


def test_the_schema_is_the_one_others_rely_on() -> None:
    """When this fails: for a new field make the fossil anew; anything else breaks readers and needs a new number."""
    if document() != json.loads(FOSSIL.read_text(encoding="utf-8")):
        pytest.fail("the schema has changed: python -m tests.fossils.make, and look at the difference")
