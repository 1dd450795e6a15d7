"""The guard: a worker's git says no and what to do instead; everybody else's git does not notice."""

import functools
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.hall import Hall
from tests.kit import RepoKit, environment
from worktrees import guard
from worktrees.git import version

OURS = ["refs/wt/*"]

TRIES = [
    ["commit", "--allow-empty", "-m", "mine"],
    ["commit", "--no-verify", "--allow-empty", "-m", "mine"],
    ["commit", "-n", "-a", "--amend", "-m", "mine"],
    ["branch", "mine"],
    ["checkout", "-b", "mine"],
    ["tag", "mine"],
    ["tag", "-a", "-m", "mine", "mine"],
    ["stash", "--include-untracked"],
    ["update-ref", "refs/heads/mine", "HEAD"],
    ["update-ref", "refs/heads/main", "HEAD~1"],
    ["update-ref", "-d", "refs/heads/main"],
    ["branch", "-D", "other"],
    ["notes", "add", "-m", "mine"],
    ["replace", "HEAD", "HEAD~1"],
    ["reset", "--soft", "HEAD~1"],
    ["push", "origin", "HEAD:refs/heads/mine"],
    ["push", "--no-verify", "origin", "HEAD:refs/heads/mine"],
    ["-C", "{main}", "commit", "--allow-empty", "-m", "mine"],
]

WORKER = textwrap.dedent("""
    import json, os, subprocess, sys, time
    open("edited.txt", "w").write("work\\n")
    said = []
    for words in json.loads(sys.argv[1]):
        began = time.perf_counter()
        done = subprocess.run(["git", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        said.append([done.returncode, done.stderr, time.perf_counter() - began])
    # Looking is free, and so is a repository of its own, as a test suite makes one.
    free = [["status", "--short"], ["diff"], ["log", "-1"], ["show", "HEAD:README.md"], ["init", "-q", "{tmp}/own"],
            ["-C", "{tmp}/own", "commit", "--allow-empty", "-m", "own"], ["-C", "{tmp}/own", "tag", "own"]]
    for words in free:
        words = [word.replace("{tmp}", os.environ["TMPDIR"]) for word in words]
        assert subprocess.run(["git", *words], capture_output=True).returncode == 0, words
    print(json.dumps(said))
""")


def test_s29_a_worker_cannot_commit_and_is_told_what_to_do(repo: RepoKit, tmp_path: Path) -> None:
    remote = tmp_path / "remote.git"
    repo.git("init", "--quiet", "--bare", remote)
    repo.git("remote", "add", "origin", remote)
    repo.git("push", "--quiet", "origin", "main")
    repo.git("branch", "other")
    hall = Hall(repo)
    before = repo.fingerprint(ignore_refs=OURS)
    remote_refs = repo.text("ls-remote", "origin")
    tries = [[word.replace("{main}", str(repo.path)) for word in words] for words in TRIES]
    (job,) = hall.done(hall.spawn(sys.executable, "-c", WORKER, json.dumps(tries)))
    assert job.result == "succeeded", hall.events(job.job_id)
    said = json.loads(hall.events(job.job_id)[-1].content)
    for words, (status, stderr, seconds) in zip(TRIES, said, strict=True):
        assert status != 0, words
        assert "boss merges" in stderr.replace("-", " "), (words, stderr)
        assert seconds < 5, words
    assert repo.fingerprint(ignore_refs=OURS) == before
    assert repo.text("ls-remote", "origin") == remote_refs
    assert hall.changed(job.job_id) == {"edited.txt": "A"}
    assert job.verified


def test_s29_the_boss_s_hooks_and_commits_are_as_before(repo: RepoKit, tmp_path: Path) -> None:
    hooks = repo.path / ".git" / "hooks"
    for name in ("pre-commit", "post-commit", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/ran\n")
        (hooks / name).chmod(0o755)
    hall = Hall(repo)
    hall.done(hall.shell("git commit --allow-empty -m mine; true"))
    ran = tmp_path / "ran"
    # wt's own refs are refs too: the user's reference-transaction hook may see them, his commit hooks never run.
    assert not ran.exists() or "commit" not in ran.read_text()
    repo.write("boss.txt", "mine\n")
    repo.commit("of the boss")
    assert {"pre-commit", "post-commit", "reference-transaction"} <= set(ran.read_text().split())
    assert repo.text("config", "--list", "--local").count("hooks") == 0


def test_changed_hooks_are_put_back(hall_root: Path) -> None:
    place = guard.install_hooks(hall_root)
    content = {path.name: path.read_bytes() for path in place.iterdir()}
    hooks = {"reference-transaction", "pre-commit", "prepare-commit-msg", "commit-msg", "pre-push", "post-checkout"}
    assert set(content) == {"wt-guard", "guard.cfg", *hooks}
    (place / "wt-guard").write_text("#!/bin/sh\nexit 0\n")
    (place / "guard.cfg").unlink()
    (place / "pre-push").unlink()
    (place / "pre-push").symlink_to("/bin/true")
    (place / "pre-commit").chmod(0o600)
    assert guard.install_hooks(hall_root) == place
    assert {path.name: path.read_bytes() for path in place.iterdir()} == content
    assert not (place / "pre-push").is_symlink()
    assert (place / "pre-commit").stat().st_mode & 0o777 == 0o700


def test_newer_gits_are_told_to_watch_refs_by_name(repo: RepoKit, hall_root: Path) -> None:
    place = guard.install_hooks(hall_root)
    said = repo.git("config", "--file", place / "guard.cfg", "--null", "--get-regexp", r"^hook\.").split(b"\0")[:-1]
    by_name = dict(entry.decode().split("\n", 1) for entry in said)
    assert by_name["hook.wt-guard.event"] == "reference-transaction"
    env = guard.mark(job="j-1", workflow="w", workspace=repo.path, common_dir=repo.path / ".git", hooks=place)
    command = ["sh", "-c", f'{by_name["hook.wt-guard.command"]} "$@"', "git", "prepared"]
    run = functools.partial(subprocess.run, cwd=repo.path, env=environment(env), capture_output=True, check=False)
    assert run(command, input=b"0 1 refs/heads/main\n").returncode == 1
    # Git before 2.54 knows no hooks by name: it must not stumble over them, and asks nobody here.
    refused = run(["git", "-c", "core.hooksPath=/dev/null", "tag", "mine"]).returncode != 0
    assert refused is (version() >= (2, 54))
    assert run(["git", "tag", "mine-too"]).returncode != 0


AROUND = [
    ["commit", "--no-verify", "--allow-empty", "-m", "mine"],
    ["checkout", "-b", "mine"],
    ["switch", "other"],
    ["symbolic-ref", "HEAD", "refs/heads/other"],
    ["branch", "-D", "other"],
    ["tag", "mine"],
    ["stash", "--include-untracked"],
    ["update-ref", "refs/heads/main", "HEAD~1"],
    ["-C", "{main}", "commit", "--allow-empty", "-m", "mine"],
]


@pytest.mark.skipif(version() < (2, 54), reason="git 2.54 is the first with hooks that configuration names")
@pytest.mark.parametrize("name", ["plain", "a 'b' \"c\"", "back\\slash [x]*"])
def test_s29_a_hook_by_name_refuses_where_a_worker_turns_the_others_off(tmp_path: Path, name: str) -> None:
    repo = RepoKit.make(tmp_path / name / "repo")
    repo.git("branch", "other")
    hall = Hall(repo)
    draft = "git:COMMIT_EDITMSG"  # of a commit in the main work tree, before it is refused
    before = repo.fingerprint(ignore_refs=OURS)
    tries = [["-c", "core.hooksPath=/dev/null", *(word.replace("{main}", str(repo.path)) for word in words)]
             for words in AROUND]  # fmt: skip
    (job,) = hall.done(hall.spawn(sys.executable, "-c", WORKER, json.dumps(tries)))
    assert job.result == "succeeded", hall.events(job.job_id)
    for words, (status, stderr, _) in zip(tries, json.loads(hall.events(job.job_id)[-1].content), strict=True):
        assert (status != 0, stderr.count("wt: refused: ")) == (True, 1), (words, stderr)
    assert {**repo.fingerprint(ignore_refs=OURS), draft: None} == {**before, draft: None}
    assert hall.changed(job.job_id) == {"edited.txt": "A"}
    # Nobody else is asked.
    repo.git("-c", "core.hooksPath=/dev/null", "tag", "mine")


@pytest.fixture
def hall_root(tmp_path: Path) -> Path:
    """A state directory with a name that git's configuration and patterns must be told about."""
    return tmp_path / 'wt "state" [x]* \\é'


@pytest.mark.parametrize("name", ["plain", "a b", "[x]*?", 'quo"te', "back\\slash", "ünï"])
def test_the_guard_holds_wherever_the_repository_is(make_repo: object, tmp_path: Path, name: str) -> None:
    repo = RepoKit.make(tmp_path / name / "repo")
    hall = Hall(repo)
    (job,) = hall.done(hall.shell("git commit --allow-empty -m mine && exit 7; git tag mine && exit 8; exit 0"))
    assert job.exit_code == 0
    assert repo.text("tag") == ""


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        ("PATH", True), ("HOME", True), ("LANG", True), ("HTTPS_PROXY", True), ("TOKENIZERS_PARALLELISM", True),
        ("AUTHOR", True), ("KEYBOARD", True), ("AWS_REGION", True), ("OPENAI_API_KEY", True), ("GEMINI_API_KEY", True),
        ("ANTHROPIC_AUTH_TOKEN", True), ("CODEX_HOME", True), ("GIT_DIR", False), ("GIT_SSH_COMMAND", False),
        ("WT_JOB", False), ("WT_K_WRITE", False), ("SSH_AUTH_SOCK", False), ("GPG_AGENT_INFO", False),
        ("GITHUB_TOKEN", False), ("GH_TOKEN", False), ("gitlab_private_key", False), ("AWS_SECRET_ACCESS_KEY", False),
        ("AWS_SESSION_TOKEN", False), ("NPM_CONFIG__AUTH", False), ("PGPASSWORD", False), ("DB_PASSWORD", False),
        ("GOOGLE_APPLICATION_CREDENTIALS", False), ("KUBECONFIG", False), ("STRIPE_API_KEY", False),
    ],
)  # fmt: skip
def test_what_of_the_boss_s_environment_goes_to_a_worker(name: str, goes: bool) -> None:
    assert guard.passes(name) is goes
    assert guard.passes(name, ["*"]) is not name.startswith("WT_")
