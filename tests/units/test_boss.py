"""The Python API: the same verbs as the command line, with typed answers."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kit import RepoKit, eventually
from worktrees import Boss
from worktrees.boss.judgement import operation_id, root
from worktrees.errors import NotFound, Refused, Usage
from worktrees.model import Job, JobSpec, Operation, OperationId


@pytest.fixture
def boss(repo: RepoKit) -> Boss:
    """The boss of a repository, seen from below its top."""
    return Boss(repo.path / "src")


def shell(script: str) -> list[str]:
    """A worker's command."""
    return ["sh", "-c", script]


def test_a_run_from_spawn_to_undo(repo: RepoKit, boss: Boss) -> None:
    job = boss.spawn(shell("echo more >> src/app.py; echo done"), name="fix", task="add a line")
    assert isinstance(job, Job)
    assert (job.name, job.task, job.workflow_id) == ("fix", "add a line", boss.list()[0].workflow_id)

    waited = boss.wait()
    assert waited.completed == [job.job_id]
    assert boss.result("fix").final_message == "done"
    assert [file.path for file in boss.diff("fix").change_set.files] == ["src/app.py"]
    assert b"+more" in boss.patch("fix")

    plan = boss.merge(dry_run=True)
    assert (plan.landed, plan.operation_id, plan.steps[0].outcome) == (False, None, "landed")
    merged = boss.merge()
    assert (merged.landed, merged.after) == (True, repo.head())

    undone = boss.undo()
    assert undone.operation.undoes == merged.operation_id
    assert [item.landed_by for item in undone.jobs] == [None]
    assert repo.head() == merged.before
    assert [operation.kind for operation in boss.log()] == ["undo", "merge"]


def test_what_is_said_beside_the_answer(repo: RepoKit, boss: Boss) -> None:
    repo.write("notes", "mine\n")
    job = boss.spawn()

    assert job.baseline.left_out == 1
    assert [(notice.code, notice.message) for notice in boss.notices] == [
        ("dirty-left-out", "1 uncommitted path of the checkout left out")
    ]
    boss.workflows()
    assert boss.notices == []


def test_many_in_one_go_with_progress(boss: Boss) -> None:
    told: list[tuple[int, int]] = []
    specs = [JobSpec(name=name) for name in ("a", "b", "a", "c")]

    spawned = boss.spawn_many(specs, progress=lambda done, of: told.append((done, of)))

    assert [job.name for job in spawned.jobs] == ["a", "b", "c"]
    assert [(failure.index, failure.code) for failure in spawned.failures] == [(2, "name-taken")]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len({job.workflow_id for job in spawned.jobs}) == 1


def test_one_that_cannot_be_made_raises_and_leaves_no_workflow(repo: RepoKit, boss: Boss) -> None:
    with pytest.raises(Usage):
        boss.spawn(name="two words")

    assert boss.workflows(closed=True).workflows == []
    assert repo.text("for-each-ref", "refs/wt") == ""


def test_first_spawns_at_once_open_one_workflow(repo: RepoKit) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: Boss(repo.path).spawn(), range(8)))

    assert len({job.workflow_id for job in jobs}) == 1
    assert len(repo.text("worktree", "list").splitlines()) == 9


def test_workflows_by_name(repo: RepoKit, boss: Boss) -> None:
    boss.spawn(name="a", workflow="one")
    boss.spawn(name="b", workflow="two")

    with pytest.raises(Refused, match="2 workflows are open") as caught:
        boss.spawn(name="c")
    assert caught.value.code == "ambiguous"
    assert [job.name for job in boss.list(workflow="two")] == ["b"]
    boss.settle("a")
    assert boss.close_workflow("one").workflows[0].closed_at is not None
    assert boss.spawn(name="c").workflow_id == "two"
    with pytest.raises(Refused) as caught:
        boss.close_workflow("two")
    assert caught.value.code == "jobs-unfinished"


@pytest.mark.parametrize(
    ("order", "expected"), [(None, ["b", "a", "c"]), ("created", ["a", "b", "c"]), ("given", ["a", "b", "c"])]
)
def test_the_order_of_a_merge(boss: Boss, order: str | None, expected: list[str]) -> None:
    for name in ("a", "b", "c"):
        place = Path(boss.spawn(name=name).workspace or "")
        (place / name).write_text(name)
    for name in ("b", "a", "c"):
        boss.settle(name)

    assert [step.name for step in boss.merge(order=order, dry_run=True).steps] == expected
    assert [step.name for step in boss.merge("c", "a", dry_run=True).steps] == ["c", "a"]


def test_a_merge_takes_what_succeeded_and_says_what_not(boss: Boss) -> None:
    boss.spawn(shell("echo x > good"), name="good")
    boss.spawn(shell("echo x > bad; exit 1"), name="bad")
    boss.wait()
    boss.spawn(name="mine")

    merged = boss.merge()

    assert [step.name for step in merged.steps] == ["good"]
    assert [notice.message for notice in boss.notices] == ["not merged: `bad (failed)`, `mine (open)`"]
    # Named, it is merged whatever its result.
    assert boss.merge("bad").steps[0].outcome == "landed"


def test_a_merge_of_nothing_is_no_error(boss: Boss) -> None:
    nothing = boss.merge()

    assert (nothing.landed, nothing.steps, nothing.before == nothing.after) == (False, [], True)
    boss.spawn(shell("true"), name="idle")
    boss.wait()
    empty = boss.merge()
    assert (empty.landed, [step.outcome for step in empty.steps]) == (False, ["empty"])


def test_sensitive_paths_can_stop_a_merge(repo: RepoKit, boss: Boss) -> None:
    boss.spawn(shell("mkdir -p .github/workflows; echo x > .github/workflows/ci.yml"), name="ci")
    boss.wait()
    before = repo.fingerprint()

    with pytest.raises(Refused) as caught:
        boss.merge(refuse_sensitive=True)

    assert caught.value.code == "sensitive-paths"
    assert caught.value.details["paths"] == [".github/workflows/ci.yml"]
    assert repo.fingerprint() == before
    assert boss.merge().steps[0].sensitive == [".github/workflows/ci.yml"]


def test_into_another_branch_and_without_a_commit(repo: RepoKit, boss: Boss) -> None:
    repo.git("branch", "other")
    boss.spawn(shell("echo x > one"), name="one")
    boss.spawn(shell("echo x > two"), name="two")
    boss.wait()
    before = repo.head()

    assert boss.merge("one", into="other").branch == "other"
    assert b"one" in repo.tree("other")
    assert repo.head() == before

    uncommitted = boss.merge("two", no_commit=True)
    assert uncommitted.landed is True
    assert repo.head() == before
    assert repo.text("status", "--porcelain") == "A  two"
    boss.undo()
    assert repo.text("status", "--porcelain") == ""


def test_settings_of_the_call_win(repo: RepoKit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home" / ".config" / "wt").mkdir(parents=True)
    (tmp_path / "home" / ".config" / "wt" / "config.toml").write_text("k_read = 3\nk_write = 3\ngrace_seconds = '3s'\n")
    repo.git("config", "wt.kWrite", "4")
    repo.git("config", "wt.graceSeconds", "4s")
    monkeypatch.setenv("WT_GRACE_SECONDS", "5s")

    configured = {item.name: item for item in Boss(repo.path, lock_timeout_seconds="6s").configuration().settings}

    told = {name: (configured[name].value, configured[name].source) for name in ("k_read", "k_write", "grace_seconds")}
    user_file = tmp_path / "home" / ".config" / "wt" / "config.toml"
    assert told == {
        "k_read": (3, f"`{user_file}`"),
        "k_write": (4, "git config `wt.*`"),
        "grace_seconds": (5.0, "the environment"),
    }
    assert (configured["lock_timeout_seconds"].value, configured["lock_timeout_seconds"].source) == (6.0, "this call")
    assert configured["dirty"].source == "default"
    with pytest.raises(Usage, match="unknown setting `speed` in this call"):
        Boss(repo.path, speed=9)


def test_the_environment_makes_a_worker(repo: RepoKit, boss: Boss, monkeypatch: pytest.MonkeyPatch) -> None:
    job = boss.spawn(name="mine")
    monkeypatch.setenv("WT_JOB", job.job_id)
    worker = Boss(repo.path)

    assert worker.worker == job.job_id
    assert [item.job_id for item in worker.status()] == [job.job_id]
    assert worker.diff().change_set.files == []
    for verb in (worker.spawn, worker.merge, worker.rollback, worker.undo, worker.clean, worker.log):
        with pytest.raises(Refused) as caught:
            verb()
        assert caught.value.code == "not-boss"
    assert worker.settle().state == "done"


def test_events_page_by_page(boss: Boss) -> None:
    boss.spawn(shell("for n in 1 2 3 4 5; do echo $n; done"), name="count")
    boss.wait()
    pages = []
    cursor, done = None, False
    while not done:
        page = boss.events("count", cursor, most=2)
        cursor, done = page.next_cursor, page.done
        pages.append([event.content for event in page.events])

    assert pages == [["1", "2"], ["3", "4"], ["5", "5"]]
    assert [event.content for page in boss.follow_events("count") for event in page.events] == [*"12345", "5"]
    assert b"".join(boss.read_log("count", follow=True)) == b"1\n2\n3\n4\n5\n"


def test_an_unknown_word_names_the_way_on(boss: Boss) -> None:
    with pytest.raises(NotFound) as caught:
        boss.status("nobody")

    assert caught.value.hint == "wt list --all"


def operation(number: int, kind: str, undoes: int | None = None) -> Operation:
    """An operation of a log."""
    return Operation.model_validate(
        {
            "operationId": f"op-{number:06}",
            "kind": kind,
            "undoes": None if undoes is None else f"op-{undoes:06}",
            "createdAt": "2026-01-01T00:00:00.000Z",
        }
    )


def test_what_a_chain_of_undos_began_with() -> None:
    log = [operation(1, "drop"), operation(2, "merge"), operation(3, "undo", 1), operation(4, "undo", 3)]

    assert [root(log, item).operation_id for item in log] == ["op-000001", "op-000002", "op-000001", "op-000001"]


@pytest.mark.parametrize("word", ["op-000017", "op-17", "17"])
def test_operations_are_written_in_short(word: str) -> None:
    assert operation_id(word) == OperationId("op-000017")


@pytest.mark.parametrize("word", ["", "op-", "seventeen", "-1", "op-1x"])
def test_other_words_are_no_operation(word: str) -> None:
    with pytest.raises(Usage):
        operation_id(word)


def test_importing_the_package_is_free() -> None:
    code = "import sys, worktrees; print([m for m in ('pydantic', 'click', 'worktrees.boss') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_a_job_of_another_boss_is_seen(repo: RepoKit, boss: Boss) -> None:
    """Two bosses of one repository see the same records at once."""
    other = Boss(repo.path)
    boss.spawn(shell("echo x > new"), name="one")

    eventually(lambda: [job.state for job in other.list()] == ["done"])
    assert other.merge().landed is True
    assert [job.landed_by for job in boss.list(closed=True)] == ["op-000001"]
