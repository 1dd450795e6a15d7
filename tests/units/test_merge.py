"""Merging in memory: git's own verdict, git's own trees, nobody's attributes but the boss's."""

import os
from pathlib import Path

import pytest

from tests.kit import RepoKit
from tests.merging import Desk, conflicts
from worktrees import config
from worktrees.errors import GitFailed, NotFound
from worktrees.merge import Candidate, Rebase, Squash, ThreeWay, conflicts_between
from worktrees.model import Oid


@pytest.fixture
def desk(repo: RepoKit) -> Desk:
    return Desk(repo)


LINES = [f"line {number}\n" for number in range(1, 31)]


def edited(*changes: tuple[int, str]) -> str:
    lines = list(LINES)
    for number, text in changes:
        lines[number - 1] = text + "\n"
    return "".join(lines)


# ------------------------------------------------------------------------------------------------------------- outcomes
def test_disjoint_jobs_become_merge_commits_in_order(desk: Desk) -> None:
    one = desk.job({"src/one.py": "1\n"}, name="one", task="Write one\nand more")
    two = desk.job({"src/two.py": "2\n", "docs/guide.md": None}, name="two")
    plan = desk.plan([one, two])
    assert [step.outcome for step in plan.steps] == ["landed", "landed"]
    assert plan.after == plan.steps[1].commit
    assert desk.read(plan.after, "src/one.py") == b"1\n"
    assert desk.read(plan.after, "docs/guide.md") is None
    log = desk.store.git("log", "--first-parent", "--format=%s|%an|%ce|%P", plan.after).text.splitlines()
    assert [line.split("|")[0] for line in log] == ["Merge job two", "Merge job one: Write one", "second", "first"]
    assert log[0].split("|")[1:3] == ["Boss", "boss@example.com"]
    first, second = log[0].split("|")[3].split()
    assert first == plan.steps[0].commit
    assert desk.store.git("rev-parse", f"{second}^").text == desk.kit.head()
    assert one.job_id in desk.store.git("log", "-1", "--format=%B", plan.steps[0].commit or "").text
    assert desk.store.git("fsck", "--no-dangling").text == ""


def test_nothing_of_the_repository_changes(desk: Desk) -> None:
    before = desk.kit.fingerprint()
    desk.plan([desk.job({"new": "new\n"}), desk.job({"new": "other\n"})])
    assert desk.kit.fingerprint() == before
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []


def test_edits_of_one_file_apart_from_each_other_merge(desk: Desk) -> None:
    one, two = desk.job({"src/app.py": edited((2, "one"))}), desk.job({"src/app.py": edited((28, "two"))})
    plan = desk.plan([one, two])
    assert desk.read(plan.after, "src/app.py") == edited((2, "one"), (28, "two")).encode()


def test_stop_lands_nothing_and_skip_lands_the_rest(desk: Desk) -> None:
    jobs = [
        desk.job({"src/app.py": edited((5, "one"))}, name="one"),
        desk.job({"src/app.py": edited((5, "two"))}, name="two"),
        desk.job({}, name="three"),
        desk.job({"four": "4\n"}, name="four"),
    ]
    stopped = desk.plan(jobs)
    assert (stopped.before, stopped.after) == (desk.kit.head(), desk.kit.head())
    assert [step.outcome for step in stopped.steps] == ["skipped", "conflict", "empty", "skipped"]
    assert conflicts(stopped) == {"two": {("src/app.py", "contents")}}
    skipped = desk.plan(jobs, on_conflict="skip")
    assert [step.outcome for step in skipped.steps] == ["landed", "conflict", "empty", "landed"]
    assert desk.read(skipped.after, "src/app.py") == edited((5, "one")).encode()
    assert desk.read(skipped.after, "four") == b"4\n"


def test_jobs_without_changes_land_nothing(desk: Desk) -> None:
    plan = desk.plan([desk.job({}), desk.job({"README.md": "# sample\n\nA repository for tests.\n"})])
    assert plan.after == plan.before
    assert [step.outcome for step in plan.steps] == ["empty", "empty"]
    assert desk.plan([]).after == plan.before


def test_the_boss_went_on_meanwhile(desk: Desk) -> None:
    job = desk.job({"src/app.py": edited((5, "job"))})
    desk.kit.write("src/app.py", edited((25, "boss")))
    desk.kit.commit("boss")
    plan = desk.plan([job])
    assert desk.read(plan.after, "src/app.py") == edited((5, "job"), (25, "boss")).encode()


# ---------------------------------------------------------------------------------------------------- kinds of conflict
@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ({"src/app.py": edited((3, "1"))}, {"src/app.py": edited((3, "2"))}, {("src/app.py", "contents")}),
        ({"new": "1\n"}, {"new": "2\n"}, {("new", "add/add")}),
        ({"README.md": None}, {"README.md": "edited\n"}, {("README.md", "modify/delete")}),
        ({"data.bin": b"\0one"}, {"data.bin": b"\0two"}, {("data.bin", "binary")}),
        (
            {"src/app.py": None, "moved.py": "".join(LINES)},
            {"src/app.py": None},
            {("moved.py", "rename/delete"), ("src/app.py", "rename/delete")},
        ),
        (
            {"src/app.py": None, "here.py": "".join(LINES)},
            {"src/app.py": None, "there.py": "".join(LINES)},
            {("src/app.py", "rename/rename"), ("here.py", "rename/rename"), ("there.py", "rename/rename")},
        ),
        ({"odd\nname": "1\n"}, {"odd\nname": "2\n"}, {("odd\nname", "add/add")}),
        ({b"latin-\xe9": "1\n"}, {b"latin-\xe9": "2\n"}, {("latin-\\xe9", "add/add")}),
    ],
)
def test_conflicts_are_named_as_git_names_them(
    desk: Desk, one: dict[str | bytes, str], two: dict[str | bytes, str], expected: set[tuple[str, str]]
) -> None:
    plan = desk.plan([desk.job(one, name="one"), desk.job(two, name="two")])
    assert conflicts(plan) == {"two": expected}


def test_a_file_against_a_directory(desk: Desk) -> None:
    plan = desk.plan([desk.job({"new/file": "1\n"}, name="one"), desk.job({"new": "2\n"}, name="two")])
    kinds = {kind for _, kind in conflicts(plan)["two"]}
    assert kinds == {"file/directory"}


def test_a_link_against_a_file(desk: Desk) -> None:
    plan = desk.plan([desk.job({"new": ("120000", "README.md")}, name="one"), desk.job({"new": "2\n"}, name="two")])
    assert {kind for _, kind in conflicts(plan)["two"]} == {"distinct modes"}


def test_submodules_that_went_apart(desk: Desk) -> None:
    kit = desk.kit
    first, second = kit.head("HEAD~1"), kit.head()
    elsewhere = kit.text("commit-tree", "-m", "elsewhere", "HEAD^{tree}")
    base = desk.land([desk.job({"module": ("160000", first)})]).after or ""
    jobs = [
        desk.job({"module": ("160000", second)}, base=base),
        desk.job({"module": ("160000", elsewhere)}, base=base, name="two"),
    ]
    plan = desk.plan(jobs)
    assert conflicts(plan) == {"two": {("module", "submodule not initialized")}}


def test_a_path_that_is_not_text_keeps_its_bytes(desk: Desk) -> None:
    plan = desk.plan([desk.job({b"latin-\xe9": "1\n"}), desk.job({b"latin-\xe9": "2\n"})])
    assert plan.steps[1].conflicts[0].path_base64 == "bGF0aW4t6Q=="


# ------------------------------------------------------------------------------------------------- the boss's own edits
def test_the_bosss_uncommitted_edits_are_not_landed(desk: Desk) -> None:
    dirty = desk.baseline(
        dirty={"README.md": "boss, dirty\n", "todo.txt": "boss, untracked\n", "src/app.py": edited((30, "boss"))}
    )
    job = desk.job({"src/app.py": edited((30, "boss"), (2, "job")), "new": "new\n"}, base=dirty)
    plan = desk.plan([job])
    assert desk.read(plan.after, "src/app.py") == edited((2, "job")).encode()
    assert desk.read(plan.after, "new") == b"new\n"
    assert desk.read(plan.after, "todo.txt") is None
    assert desk.read(plan.after, "README.md") == b"# sample\n\nA repository for tests.\n"
    reachable = desk.store.git("rev-list", "--objects", plan.after, "--not", plan.before).stdout
    assert b"todo.txt" not in reachable


def test_edits_on_top_of_the_bosss_are_a_conflict_until_the_boss_commits(desk: Desk) -> None:
    kit = desk.kit
    dirty = desk.baseline(dirty={"README.md": "boss\n"})
    job = desk.job({"README.md": "boss, then job\n", "new": "new\n"}, base=dirty, name="job")
    assert conflicts(desk.plan([job])) == {"job": {("README.md", "contents")}}
    kit.write("README.md", "boss\n")
    kit.commit("boss")
    plan = desk.plan([job])
    assert desk.read(plan.after, "README.md") == b"boss, then job\n"
    assert desk.read(plan.after, "new") == b"new\n"
    assert conflicts_between(desk.place.repo, desk.store, Oid(kit.head()), [(job, None)])[0]


def test_a_job_that_only_took_the_bosss_edits_away_is_empty(desk: Desk) -> None:
    dirty = desk.baseline(dirty={"README.md": "boss\n"})
    job = desk.job({"README.md": "# sample\n\nA repository for tests.\n"}, base=dirty)
    for strategy in (ThreeWay(), Rebase()):
        assert [step.outcome for step in desk.plan([job], strategy=strategy).steps] == ["empty"]


# ----------------------------------------------------------------------------------------------------------- attributes
def test_a_worker_cannot_wave_its_conflicts_through(desk: Desk) -> None:
    planted = {".gitattributes": "* merge=union\n", "src/.gitattributes": "* merge=union\n"}
    jobs = [
        desk.job({"src/app.py": edited((3, "1")), **planted}, name="one"),
        desk.job({"src/app.py": edited((3, "2")), **planted}, name="two"),
    ]
    assert conflicts(desk.plan(jobs)) == {"two": {("src/app.py", "contents")}}


def test_the_bosss_attributes_count(desk: Desk) -> None:
    kit = desk.kit
    kit.write("src/.gitattributes", "app.py merge=union\nutil.py merge=binary\n")
    kit.commit("attributes")
    one = desk.job({"src/app.py": edited((3, "1")), "src/.gitattributes": None}, name="one")
    two = desk.job({"src/app.py": edited((3, "2"))}, name="two")
    assert desk.read(desk.plan([one, two]).after, "src/app.py") == edited((3, "1\n2")).encode()
    one = desk.job({"src/util.py": "1\ndef add(a, b):\n    return a + b\n"}, name="one")
    two = desk.job({"src/util.py": "def add(a, b):\n    return a + b\n2\n"}, name="two")
    assert conflicts(desk.plan([one, two])) == {"two": {("src/util.py", "binary")}}
    (kit.path / ".git/info/attributes").write_text("src/util.py merge=union\n")
    assert not desk.plan([one, two]).conflicted


def test_only_the_users_own_merge_driver_runs(desk: Desk, tmp_path: Path) -> None:
    kit = desk.kit
    kit.write(".gitattributes", "*.md merge=mine\n")
    kit.commit("attributes")
    ran = tmp_path / "ran"
    jobs = [desk.job({"README.md": "1\n"}, name="one"), desk.job({"README.md": "2\n"}, name="two")]
    kit.git("config", "merge.mine.driver", f"touch {ran}; echo local > %A")
    assert conflicts(desk.plan(jobs)) == {"two": {("README.md", "contents")}}
    assert not ran.exists()
    kit.git("config", "--unset", "merge.mine.driver")
    kit.git("config", "--global", "merge.mine.driver", "cat %A %B > %A.both && mv %A.both %A")
    assert desk.read(desk.plan(jobs).after, "README.md") == b"1\n2\n"


def test_the_users_merge_settings_count(desk: Desk) -> None:
    kit = desk.kit
    util = kit.read("src/util.py")
    moved = {"src/app.py": None, "src/util.py": None, "lib/app.py": "".join(LINES), "lib/util.py": util}
    jobs = [desk.job(moved, name="one"), desk.job({"src/new.py": "new\n"}, name="two")]
    suggested = {("lib/new.py", "directory rename suggested"), ("src/new.py", "directory rename suggested")}
    assert conflicts(desk.plan(jobs)) == {"two": suggested}
    kit.git("config", "merge.directoryRenames", "true")
    assert desk.read(desk.plan(jobs).after, "lib/new.py") == b"new\n"
    kit.git("config", "merge.directoryRenames", "false")
    assert desk.read(desk.plan(jobs).after, "src/new.py") == b"new\n"


def test_line_ends_are_made_equal_when_the_user_says_so(desk: Desk) -> None:
    kit = desk.kit
    kit.write("a.txt", "1\r\n2\r\n3\r\n4\r\n5\r\n")
    kit.commit("with carriage returns")
    base = desk.baseline()
    kit.write(".gitattributes", "*.txt text\n")
    kit.git("add", "--renormalize", "a.txt")
    kit.commit("normalised")
    job = desk.job({"a.txt": "one\r\n2\r\n3\r\n4\r\n5\r\n"}, base=base, name="job")
    assert desk.plan([job]).conflicted
    kit.git("config", "merge.renormalize", "true")
    assert desk.read(desk.plan([job]).after, "a.txt") == b"one\n2\n3\n4\n5\n"


def test_a_worker_cannot_have_line_ends_waved_through(desk: Desk) -> None:
    """With `merge.renormalize` git itself goes by the attributes of the result, the worker's among them."""
    kit = desk.kit
    kit.git("config", "merge.renormalize", "true")
    dos = kit.read("src/app.py").replace(b"\n", b"\r\n")
    job = desk.job({"src/app.py": dos, ".gitattributes": b"* text=auto\n"}, name="planted")
    kit.write("src/app.py", edited((3, "boss")))
    kit.commit("the boss went on")
    assert conflicts(desk.plan([job])) == {"planted": {("src/app.py", "contents")}}
    assert conflicts(desk.plan([job], strategy=Rebase())) == {"planted": {("src/app.py", "contents")}}
    assert conflicts_between(desk.place.repo, desk.store, Oid(kit.head()), [(job, None)])[0]
    kit.write(".gitattributes", "* text=auto\n")
    kit.commit("and wants it so")
    other = desk.job({"src/util.py": "1\r\n"}, base="HEAD~1", name="other")
    assert not desk.plan([other]).conflicted


# ----------------------------------------------------------------------------------------------------- other strategies
def test_rebase_makes_a_line_of_commits(desk: Desk) -> None:
    jobs = [
        desk.job({"src/one.py": "1\n"}, name="one", task="Write one"),
        desk.job({"src/one.py": "1\n"}, name="same"),
        desk.job({"src/app.py": edited((3, "2"))}, name="two"),
        desk.job({"src/app.py": edited((3, "3"))}, name="three"),
    ]
    plan = desk.plan(jobs, strategy=Rebase(), on_conflict="skip")
    assert [step.outcome for step in plan.steps] == ["landed", "empty", "landed", "conflict"]
    log = desk.store.git("log", "--format=%s|%P", plan.after).text.splitlines()
    assert [line.split("|")[0] for line in log] == ["job two", "Write one", "second", "first"]
    assert all(len(line.split("|")[1].split()) <= 1 for line in log)


def test_squash_makes_one_commit(desk: Desk) -> None:
    jobs = [desk.job({"one": "1\n"}, name="one"), desk.job({"two": "2\n"}, name="two"), desk.job({}, name="three")]
    plan = desk.plan(jobs, strategy=Squash())
    assert [step.commit for step in plan.steps] == [plan.after, plan.after, None]
    assert (
        desk.store.git("log", "--format=%s|%P", plan.before + ".." + plan.after).text
        == f"Merge jobs one, two|{plan.before}"
    )
    assert desk.tree_of(plan.after) == desk.tree_of(desk.plan(jobs).after)
    assert desk.plan([jobs[2]], strategy=Squash()).after == plan.before


def test_the_words_asked_for(desk: Desk) -> None:
    job = desk.job({"one": "1\n"}, task="x" * 200)
    for strategy in (ThreeWay(), Rebase(), Squash()):
        after = desk.plan([job], strategy=strategy, message="as I say: {braces}").after
        assert desk.store.git("log", "-1", "--format=%s", after).text == "as I say: {braces}"
    subject = desk.store.git("log", "-1", "--format=%s", desk.plan([job]).after).stdout.decode().strip()
    assert subject.endswith("x…")
    assert len(subject) < 110


def test_strategies_are_found_by_name() -> None:
    assert config.plugin("merge", "three-way") is ThreeWay


# ----------------------------------------------------------------------------------------------------------- what fails
def test_a_snapshot_that_is_gone_is_named(desk: Desk) -> None:
    job = desk.job({"one": "1\n"})
    lost = Candidate(job.job_id, None, None, job.baseline, Oid("0123456789" * 4))
    with pytest.raises(NotFound) as missing:
        desk.plan([lost])
    assert "0123456789" in missing.value.message


@pytest.mark.parametrize(
    "answer",
    ["kill -ABRT $$", "exit 0", "printf '7\\0'; cat > /dev/null", "printf '0\\0abc\\0\\0\\0'; cat > /dev/null"],
)
def test_a_merge_that_breaks_is_an_error_and_never_a_conflict(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """A git that dies or talks nonsense in `merge-tree`, and is itself in everything else."""
    from worktrees.git import door

    real = door.executable()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "git").write_text(f'#!/bin/sh\ncase "$*" in *merge-tree*) {answer}; exit;; esac\nexec {real} "$@"\n')
    (broken / "git").chmod(0o755)
    monkeypatch.setattr(door, "executable", lambda: str(broken / "git"))
    with pytest.raises(GitFailed) as failed:
        desk.plan([desk.job({"one": "1\n"}, name="one")])
    assert failed.value.hint


@pytest.mark.parametrize("spoken", [0, 1, 60, 200], ids="{} bytes said".format)
def test_a_git_that_aborts_between_two_merges_is_an_error_and_never_a_conflict(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoken: int
) -> None:
    """Its first answer is whole, the second is cut off somewhere; `skip` must not take that for a conflict."""
    from worktrees.git import door

    jobs = [desk.job({"src/app.py": edited((3, word))}, name=word) for word in ("one", "two", "three")]
    assert [step.outcome for step in desk.plan(jobs, on_conflict="skip").steps] == ["landed", "conflict", "conflict"]
    real = door.executable()
    first = len(b"1\0\0\0") + 40
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "git").write_text(
        f'#!/bin/sh\ncase "$*" in *merge-tree*) ;; *) exec {real} "$@";; esac\n'
        f'{real} "$@" | {{ dd bs=1 count={2 * first + spoken} status=none; kill -ABRT $$; }}\n'
    )
    (broken / "git").chmod(0o755)
    monkeypatch.setattr(door, "executable", lambda: str(broken / "git"))
    for strategy in (ThreeWay(), Rebase()):
        with pytest.raises(GitFailed):
            desk.plan(jobs, strategy=strategy, on_conflict="skip")


# -------------------------------------------------------------------------------------------------------------- overlap
def test_conflicts_between_pairs(desk: Desk) -> None:
    one = desk.job({"src/app.py": edited((3, "1"))})
    two = desk.job({"src/app.py": edited((3, "2"))})
    three = desk.job({"src/app.py": edited((20, "3"))})
    desk.kit.write("src/app.py", edited((20, "boss")))
    head = Oid(desk.kit.commit("boss"))
    pairs = [(one, two), (one, three), (two, three), (one, None), (three, None)]
    answers = conflicts_between(desk.place.repo, desk.store, head, pairs)
    assert [[(each.path, each.kind) for each in answer] for answer in answers] == [
        [("src/app.py", "contents")], [], [], [], [("src/app.py", "contents")],
    ]  # fmt: skip
