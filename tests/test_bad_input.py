"""Every kind of bad input: one line that says what is wrong, a hint, the exit status, and nothing half-made."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit import Answer, RepoKit, Wt
from worktrees.errors import GitFailed
from worktrees.git import discover, temporary_place
from worktrees.render.failures import disk_trouble_of_git

Refuses = Callable[..., Answer]


def assert_one_line(answer: Answer, status: int, code: str) -> None:
    """The error as people and as programs get it."""
    assert answer.status == status, str(answer)
    assert answer.stdout == "", str(answer)
    lines = [line for line in answer.stderr.splitlines() if not line.startswith("wt: warning: ")]
    assert len(lines) == 2, str(answer)
    error, hint = lines
    assert error.startswith("wt: error: "), str(answer)
    message = error.removeprefix("wt: error: ")
    assert not message.endswith("."), str(answer)
    assert "\\n" not in message, str(answer)
    assert not message[:1].isupper() or message.startswith("HEAD"), str(answer)
    assert hint.startswith("hint: "), str(answer)
    assert code, str(answer)


def refused(wt: Wt, *words: str | bytes, status: int, code: str, cwd: Path | None = None) -> Answer:
    """A command that is refused both ways."""
    answer = wt(*words, cwd=cwd)
    assert_one_line(answer, status, code)
    command, *rest = words
    as_json = wt(command, "--json", *rest, cwd=cwd)
    assert as_json.code == code, str(as_json)
    assert as_json.status == status, str(as_json)
    assert as_json.json["ok"] is False
    assert as_json.json["error"]["hint"], str(as_json)
    return answer


@pytest.fixture
def untouched(repo: RepoKit) -> Iterator[None]:
    """The repository is the same at the end: files, index, refs, worktrees."""
    before = repo.fingerprint()
    trees = repo.git("worktree", "list", "--porcelain")
    yield
    assert repo.fingerprint() == before
    assert repo.git("worktree", "list", "--porcelain") == trees


# ------------------------------------------------------------------------------------------------------ where it stands
@pytest.mark.parametrize("verb", ["spawn", "list", "merge", "log"])
def test_outside_of_any_repository(tmp_path: Path, verb: str) -> None:
    place = tmp_path / "plain"
    place.mkdir()

    refused(Wt(place), verb, status=4, code="not-a-repository")

    assert not list(place.iterdir())


def test_a_directory_that_is_not_there(wt: Wt) -> None:
    answer = wt("-C", "nowhere", "list")

    assert_one_line(answer, 4, "not-a-repository")
    assert "`nowhere`" in answer.stderr


def test_inside_the_git_directory(repo: RepoKit, wt: Wt) -> None:
    refused(wt, "spawn", status=4, code="not-a-repository", cwd=repo.path / ".git")


def test_a_bare_repository(tmp_path: Path, repo: RepoKit) -> None:
    bare = tmp_path / "bare.git"
    repo.git("clone", "--quiet", "--bare", ".", bare)

    refused(Wt(bare), "spawn", status=4, code="unsupported-repository")

    assert not (bare / "wt-state").exists()


def test_an_unborn_branch(tmp_path: Path, repo: RepoKit) -> None:
    fresh = tmp_path / "fresh"
    repo.git("init", "--quiet", fresh)
    wt = Wt(fresh)

    refused(wt, "spawn", "--", "true", status=4, code="unborn-branch")
    assert wt("list", status=0).stdout == "No jobs. Start one: wt spawn -- COMMAND\n"

    assert not (fresh / ".git" / "wt-state").exists()


def test_a_detached_head_can_spawn_but_not_merge(repo: RepoKit, wt: Wt) -> None:
    repo.git("checkout", "--quiet", "--detach")
    wt("spawn", "--name", "one", "--", "sh", "-c", "echo new > new", status=0)
    wt("wait", status=0)

    refused(wt, "merge", status=4, code="detached-head")

    wt("merge", "--into", "main", status=0)
    assert b"new" in repo.tree("main")
    assert not (repo.path / "new").exists()


@pytest.fixture(params=["merge", "rebase", "cherry-pick"])
def under_way(request: pytest.FixtureRequest, repo: RepoKit) -> str:
    """A repository with one of these stopped at a conflict."""
    repo.git("branch", "other")
    repo.write("README.md", "ours\n")
    repo.commit("ours")
    repo.git("switch", "--quiet", "other")
    repo.write("README.md", "theirs\n")
    repo.commit("theirs")
    repo.git("switch", "--quiet", "main")
    repo.git(request.param, "other", check=False)
    assert b"<<<<<<<" in repo.read("README.md")
    return str(request.param)


def test_a_merge_or_rebase_in_progress(repo: RepoKit, wt: Wt, under_way: str) -> None:
    before = repo.fingerprint()

    answer = refused(wt, "spawn", "--", "true", status=4, code="operation-in-progress")
    refused(wt, "merge", status=4, code="operation-in-progress")

    assert f"a {under_way} is in progress" in answer.stderr
    assert f"git {under_way} --abort" in answer.stderr
    assert repo.fingerprint() == before


# ------------------------------------------------------------------------------------------------------ words
@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "words",
    [
        ("status", "nobody"), ("wait", "nobody"), ("result", "nobody"), ("events", "nobody"), ("logs", "nobody"),
        ("diff", "nobody"), ("overlap", "nobody"), ("settle", "nobody"), ("cancel", "nobody"), ("merge", "nobody"),
        ("drop", "nobody"), ("restore", "nobody"),
    ],
)  # fmt: skip
def test_an_unknown_job(wt: Wt, words: tuple[str, ...]) -> None:
    answer = refused(wt, *words, status=4, code="not-found")

    assert "no job `nobody`" in answer.stderr


def test_an_ambiguous_prefix(wt: Wt) -> None:
    wt("spawn", "--name", "audit-one", status=0)
    wt("spawn", "--name", "audit-two", status=0)

    answer = refused(wt, "status", "audit", status=4, code="ambiguous")

    assert "audit-one" in answer.stderr
    assert "audit-two" in answer.stderr
    assert [job["name"] for job in wt("status", "audit-o", "--json").data["jobs"]] == ["audit-one"]


def test_a_name_that_is_taken(wt: Wt) -> None:
    wt("spawn", "--name", "audit", status=0)

    answer = refused(wt, "spawn", "--name", "audit", status=4, code="name-taken")

    assert "`audit`" in answer.stderr
    assert len(wt("list", "--json").data["jobs"]) == 1


@pytest.mark.parametrize("base", ["nothing", "main:README.md", "-x", "--all", ""])
@pytest.mark.usefixtures("untouched")
def test_no_such_base(wt: Wt, base: str) -> None:
    refused(wt, "spawn", f"--base={base}", status=4, code="not-found")

    assert wt("list", "--json").data["jobs"] == []


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "words",
    [
        ("spawn", "--name", "two words"),
        ("spawn", "--name=--dashed"),
        ("spawn", "--env", "NOVALUE"),
        ("spawn", "--ttl", "0"),
        ("spawn", "--ttl", "soon"),
        ("spawn", "--count", "0"),
        ("spawn", "--dirty", "maybe"),
        ("spawn", "--isolation", "jail"),
        ("spawn", "--task-file", "missing"),
        ("spawn", "--from-file", "missing"),
        ("spawn", "--workflow", "a/b"),
        ("wait", "--timeout", "-1"),
        ("merge", "--strategy", "octopus"),
        ("merge", "--on-conflict", "shrug"),
        ("diff",),
        ("undo", "yesterday"),
        ("events",),
        ("lease", "extend"),
        ("completion", "cmd"),
        ("completion",),
        ("list", "everything"),
        ("workflow",),
        ("hooks",),
    ],
)
def test_words_that_make_no_sense(wt: Wt, words: tuple[str, ...]) -> None:
    answer = wt(*words)

    assert_one_line(answer, 2, "usage")


def test_the_nearest_command_and_option_are_suggested(wt: Wt) -> None:
    assert "did you mean `merge`?" in wt("meger", status=2).stderr
    assert "did you mean `--name`?" in wt("spawn", "--nmae", "x", status=2).stderr
    assert wt("meger", "--json", status=2).json["error"]["details"]["nearest"] == "merge"
    assert "did you mean `lease extend`?" in wt("lease", "extnd", status=2).stderr
    # What is an argument is no option.
    assert "hint: wt lease extend --help" in wt("lease", "extend", "one", "--ttl", "5m", status=2).stderr


def test_a_first_word_alone_is_told_the_second_ones(wt: Wt) -> None:
    answer = refused(wt, "workflow", status=2, code="usage")

    assert answer.stderr == (
        "wt: error: `wt workflow` takes one more word: `close`, `list`\nhint: wt workflow --help\n"
    )
    assert wt("workflow", "--help", status=0).stdout.startswith("Usage: wt workflow ")


def test_json_goes_after_the_command(wt: Wt) -> None:
    assert wt("--json", "list", status=2).json["error"]["hint"] == "wt list --json"


def test_a_job_that_cannot_start_is_no_success(wt: Wt) -> None:
    """It is on record, with why; nothing ran, so nothing has to be said about what would have held it."""
    answer = wt("spawn", "--sparse", "nowhere", "--json", "--", "true", env={"WT_SANDBOX": "auto"}, status=1)

    (job,) = answer.data["jobs"]
    assert (answer.code, answer.json["warnings"]) == ("job-failed", [])
    assert (job["result"], job["startedAt"], job["workspace"]) == ("failed", None, None)
    assert "no directory `nowhere`" in answer.json["error"]["message"]
    assert wt("result", job["jobId"], status=1).stderr.splitlines()[-2].endswith(job["reason"])


@pytest.mark.usefixtures("untouched")
def test_an_agent_whose_program_is_missing(wt: Wt, monkeypatch: pytest.MonkeyPatch) -> None:
    python, git = (os.path.dirname(path) for path in (sys.executable, shutil.which("git") or ""))
    monkeypatch.setenv("PATH", f"{python}:{git}")
    answer = refused(wt, "spawn", "--agent", "codex", "--task", "work", status=69, code="agent-not-found")

    assert "hint: npm install --global @openai/codex" in answer.stderr


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ('{"comand": ["x"]}', "unknown fields: `comand`"),
        ('{"command": "make"}', "`command`"),
        ('{"access": "root"}', "`access`"),
    ],
)
def test_a_file_of_jobs_that_is_wrong(wt: Wt, tmp_path: Path, line: str, said: str) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(f'{{"name": "good", "command": ["true"]}}\n{line}\n')

    answer = refused(wt, "spawn", "--from-file", str(jobs), status=2, code="usage")

    assert f"line 2 of `{jobs}`" in answer.stderr
    assert said in answer.stderr


def test_one_bad_job_of_many_does_not_stop_the_others(wt: Wt, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"name": "good"}\n{"name": "good"}\n{"name": "better"}\n')

    answer = wt("spawn", "--from-file", str(jobs), "--json", status=1)

    assert [job["name"] for job in answer.data["jobs"]] == ["good", "better"]
    assert [(failure["index"], failure["code"]) for failure in answer.data["failures"]] == [(1, "name-taken")]
    assert answer.code == "name-taken"


# ------------------------------------------------------------------------------------------------------ the worker
def test_a_command_that_is_not_there(wt: Wt) -> None:
    wt("spawn", "--name", "one", "--", "no-such-program", "--flag", status=0)

    answer = wt("wait", status=1)

    assert "wt: error: `one` failed (127): cannot start `no-such-program`" in answer.stderr
    job = wt("result", "one", "--json", status=1).data["job"]
    assert (job["result"], job["exitCode"], job["changedFiles"]) == ("failed", 127, 0)


def test_a_result_that_is_not_there_yet(wt: Wt) -> None:
    wt("spawn", "--name", "mine", status=0)

    answer = refused(wt, "result", "mine", status=4, code="job-unfinished")

    assert "wt settle mine" in answer.stderr
    refused(wt, "merge", "mine", status=4, code="job-unfinished")


def test_a_dirty_checkout_under_the_policy_fail(repo: RepoKit, wt: Wt) -> None:
    repo.write("README.md", "edited\n")
    repo.write("new", "new\n")

    answer = refused(wt, "spawn", "--dirty", "fail", status=4, code="dirty-worktree")

    assert "2 uncommitted paths" in answer.stderr


# ------------------------------------------------------------------------------------------------------ names of bytes
def test_paths_that_are_not_utf8(repo: RepoKit, wt: Wt) -> None:
    raw = b"caf\xe9.txt"
    try:
        (Path(os.fsdecode(os.fsencode(repo.path) + b"/" + raw))).write_bytes(b"one\n")
    except OSError as error:
        pytest.skip(f"the file system takes only UTF-8 names: {error}")
    repo.commit("a name of bytes")
    wt(
        "spawn",
        "--name",
        "one",
        "--",
        "sh",
        "-c",
        'for f in *.txt; do echo two >> "$f"; cp "$f" "new-$f"; done',
        status=0,
    )
    wt("wait", status=0)

    files = wt("diff", "one", "--json", status=0).data["changeSet"]["files"]
    people = wt("diff", "one", status=0).stdout
    exact = subprocess.run(wt.argv("diff", "one", "--name-only", "-z"), cwd=repo.path, capture_output=True, check=True)

    assert [(file["path"], file["pathBase64"]) for file in files] == [
        ("caf\\xe9.txt", "Y2Fm6S50eHQ="),
        ("new-caf\\xe9.txt", "bmV3LWNhZukudHh0"),
    ]
    assert "caf\\xe9.txt" in people
    assert exact.stdout == raw + b"\0new-" + raw + b"\0"
    wt("merge", status=0)
    assert repo.read(raw) == b"one\ntwo\n"


def test_a_repository_whose_path_is_not_utf8(tmp_path: Path, wt: Wt) -> None:
    kit = RepoKit.make(tmp_path / os.fsdecode(b"caf\xe9"))
    for words in (("spawn", "--", "true"), ("list",), ("merge",)):
        refused(wt, *words, status=4, code="unsupported-repository", cwd=kit.path)
    assert not (kit.path / ".git" / "wt-state").exists()


@pytest.mark.usefixtures("untouched")
def test_an_argument_that_is_not_utf8(wt: Wt) -> None:
    refused(wt, "spawn", "--", "cat", b"caf\xe9", status=2, code="usage")


def test_an_environment_that_is_not_utf8_reaches_the_worker(wt: Wt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAFE", os.fsdecode(b"caf\xe9"))
    wt("spawn", "--name", "one", "--env", "X=y", "--", "sh", "-c", 'printf %s "$CAFE" > out', status=0)
    wt("wait", status=0)

    assert subprocess.run(
        wt.argv("diff", "one", "--patch"), cwd=wt.cwd, capture_output=True, check=True
    ).stdout.endswith(b"+caf\xe9\n\\ No newline at end of file\n")


# ------------------------------------------------------------------------------------------------------ the disk
@pytest.fixture
def small(tmp_path: Path, make_repo: Callable[[str], RepoKit]) -> Iterator[RepoKit]:
    """A repository on a file system of its own, of four megabytes; workspaces are there too."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this container may not mount: {done.stderr.decode().strip()}")
    try:
        kit = make_repo("small/repo")
        kit.git("config", "wt.worktreesDirectory", place / "trees")
        yield kit
    finally:
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        kit.assert_sound()
        kit.broken_on_purpose = True  # gone with its disk when the others are looked at
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_read_only_disk(small: RepoKit) -> None:
    wt = Wt(small.path)
    wt("spawn", "--name", "before", status=0)
    wt("settle", "before", status=0)
    before = small.fingerprint()
    subprocess.run(["mount", "-o", "remount,ro", small.path.parent], check=True)

    for words in (("spawn", "--name", "one"), ("settle", "before"), ("merge",), ("drop", "before"), ("clean", "--all")):
        answer = wt(*words)
        if answer.status:
            assert_one_line(answer, 70, "read-only-disk")
            assert "read-only" in answer.stderr, str(answer)
    assert [job["name"] for job in wt("list", "--json", status=0).data["jobs"]] == ["before"]
    wt("diff", "before", status=0)

    subprocess.run(["mount", "-o", "remount,rw", small.path.parent], check=True)
    assert small.fingerprint() == before
    wt("spawn", "--name", "one", status=0)


def test_no_temporary_place_is_looked_for_in_the_checkout(repo: RepoKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo.path)
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, "relative")
    assert temporary_place() == "/tmp"
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("TEMP", str(repo.path / "gone"))
    assert temporary_place() == str(repo.path / "gone")


def test_a_full_disk(small: RepoKit) -> None:
    wt = Wt(small.path)
    wt("spawn", "--name", "before", "--", "sh", "-c", "head -c 300000 /dev/urandom > big", status=0)
    wt("wait", status=0)
    before = small.fingerprint()
    filler = small.path.parent / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True, check=False)

    answer = refused(wt, "spawn", "--name", "one", status=4, code="disk-budget")
    assert "the disk has 0 B left" in answer.stderr
    answer = wt("merge")
    assert_one_line(answer, 70, "disk-full")
    assert "no space left" in answer.stderr.lower() or "disk is full" in answer.stderr, str(answer)
    with pytest.raises(GitFailed) as failed:  # of a ref git does not say why
        discover(small.path).git("update-ref", "refs/heads/" + "x" * 200, "HEAD")
    told = disk_trouble_of_git(failed.value, small.path / ".git")
    assert (told.code, told.exit_status, told.hint) == ("disk-full", 70, "make room, then run: wt doctor")
    assert [job["name"] for job in wt("list", "--json", status=0).data["jobs"]] == ["before"]
    assert small.fingerprint() == before

    filler.unlink()
    wt("merge", status=0)
    assert len(small.read("big")) == 300_000
    assert len(small.git("worktree", "list").splitlines()) <= 2
