"""Walls: what a worker cannot write behind them, and that a job behind them is a job like any other."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.hall import Hall, living
from tests.kit import Gate, RepoKit, Wt, eventually
from worktrees import jobs, sandbox
from worktrees.errors import Refused
from worktrees.jobs import confinement
from worktrees.model import JobId
from worktrees.store import read_json

LEVELS = ("bubblewrap", "landlock")
OURS = ["refs/wt/*"]


def stands(level: str) -> str:
    """The level, or a skip that names it."""
    levels = sandbox.probe(None)
    if level not in levels.available:
        pytest.skip(f"no {level} here: {levels.why_not.get(level, 'another system')}")
    return level


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each level this machine has, in force for what the test spawns."""
    found = stands(request.param)
    monkeypatch.setenv("WT_SANDBOX", found)
    return found


@pytest.fixture
def bubblewrap(monkeypatch: pytest.MonkeyPatch) -> str:
    """bubblewrap, in force for what the test spawns."""
    found = stands("bubblewrap")
    monkeypatch.setenv("WT_SANDBOX", found)
    return found


WRITER = textwrap.dedent("""
    import json, os, sys
    said = {}
    for path in sys.argv[1:]:
        try:
            with open(path, "a") as file:
                file.write("evil\\n")
            said[path] = "written"
        except OSError as error:
            said[path] = error.strerror
    print(json.dumps(said))
""")


def test_s30_a_write_outside_the_workspace_fails(level: str, repo: RepoKit, tmp_path: Path) -> None:
    hall = Hall(repo)
    sibling = hall.submit()
    state = hall.state.root
    outside = [
        *(repo.path / name for name in ("src/app.py", "new", ".git/config", ".git/hooks/x")),
        hall.workspace(sibling) / "README.md", hall.place.root / "new", state / "format", state / "hooks" / "v1" / "x",
        tmp_path / "home" / ".gitconfig", tmp_path / "home" / ".profile", Path("/etc/evil"), Path("/evil"),
    ]  # fmt: skip
    before = repo.fingerprint(ignore_refs=OURS)
    script = f'cd src && exec {sys.executable} -c "$0" "$@" mine ../mine $TMPDIR/mine'
    job = hall.spawn("sh", "-c", script, WRITER, *map(str, outside))
    (done,) = hall.done(job)
    assert done.result == "succeeded", hall.events(job)
    assert done.sandbox == level
    said = json.loads(hall.events(job)[-1].content)
    assert {path: said[str(path)] for path in outside if said[str(path)] == "written"} == {}
    assert [said[path] for path in list(said)[-3:]] == ["written"] * 3
    assert repo.fingerprint(ignore_refs=OURS) == before
    assert hall.changed(job) == {"mine": "A", "src/mine": "A"}
    assert (tmp_path / "home" / ".profile").exists() is False


ESCAPE = "echo evil >> {main}/README.md; echo evil > {main}/new; echo evil >> {sibling}/one; rm {sibling}/tool.sh; true"


def test_s18_an_escape_is_stopped_where_a_wall_stands(level: str, repo: RepoKit) -> None:
    hall = Hall(repo)
    (sibling,) = hall.done(hall.shell("echo one > one"))
    before = repo.fingerprint(ignore_refs=OURS)
    job = hall.shell(ESCAPE.format(main=repo.path, sibling=sibling.workspace))
    hall.done(job)
    assert repo.fingerprint(ignore_refs=OURS) == before
    assert Path(sibling.workspace or "", "one").read_text() == "one\n"
    assert findings(hall, job) == set()


def test_s18_an_escape_is_named_by_its_paths_where_none_stands(repo: RepoKit) -> None:
    hall = Hall(repo, sandbox="none")
    (sibling,) = hall.done(hall.shell("echo one > one"))
    quiet = hall.shell("true")
    hall.done(quiet)
    job = hall.shell(ESCAPE.format(main=repo.path, sibling=sibling.workspace))
    hall.done(job)
    assert findings(hall, quiet) == set()
    assert findings(hall, job) == {("outside-edit", path) for path in ("README.md", "new", "one", "tool.sh")}
    after = hall.shell("true")
    hall.done(after)
    assert findings(hall, after) == set(), "what was so before is nobody's news"


def findings(hall: Hall, job: JobId) -> set[tuple[str, str]]:
    """Code and path of what the audit of a job has found."""
    record = read_json(hall.directory(job) / "changes.json")
    assert record is not None
    return {(finding["code"], finding["path"]) for finding in record["audit"]["findings"]}


def test_s30_a_read_only_job_leaves_no_change(level: str, repo: RepoKit) -> None:
    hall = Hall(repo, setup_commands=["touch made-by-setup"])
    script = "touch mine; echo x >> README.md; chmod +x README.md; rm -rf src; touch $TMPDIR/mine && echo looked"
    job = hall.shell(script, access="read-only")
    (done,) = hall.done(job)
    assert (done.result, done.sandbox) == ("succeeded", level)
    assert hall.events(job)[-1].content == "looked"
    changed = hall.changed(job)
    if level == "landlock":  # which knows nothing of modes
        assert changed == {"README.md": "M"}
        record = read_json(hall.directory(job) / "changes.json")
        assert record is not None
        assert "read-only-changed" in {finding["code"] for finding in record["audit"]["findings"]}
    else:
        assert changed == {}


def test_s30_an_ordinary_job_notices_nothing(level: str, wt: Wt, repo: RepoKit) -> None:
    """Looking with git, `wt`'s own answers, a compiler's kind of work, scratch, devices, semaphores."""
    script = textwrap.dedent(f"""
        set -e
        git status --short; git diff --stat; git log --oneline -1; git show HEAD:README.md > shown
        {sys.executable} -P -m worktrees status > status; {sys.executable} -P -m worktrees diff > diff
        {sys.executable} -c 'import multiprocessing as m; m.Lock(); print("locked")'
        {sys.executable} -m venv --without-pip .venv
        .venv/bin/python -c 'import tempfile; tempfile.mkdtemp(); print("venv")'
        mkdir build; cp tool.sh build/tool; build/tool; mktemp > /dev/null; (exec 3<>/dev/null); git init -q own
        git -C own -c user.name=a -c user.email=a@x commit -q --allow-empty -m own; npm_cache=$npm_config_cache
        mkdir -p "$npm_cache" && touch "$npm_cache/x"; echo "$PWD" > here
    """)
    wt("spawn", "--name", "one", "--", "sh", "-c", script, status=0)
    done = wt("wait", "one", "--json").data["jobs"][0]
    said = wt("logs", "one").stdout
    assert done["result"] == "succeeded", said
    assert done["sandbox"] == level
    assert said.splitlines()[-3:] == ["locked", "venv", "tool"]
    workspace = Path(done["workspace"])
    assert "shown" in (workspace / "diff").read_text()
    assert level in (workspace / "status").read_text()
    assert (workspace / "here").read_text().strip() == str(workspace)
    assert level in wt("status", "one").stdout
    assert f"sandbox   {level}" in wt("result", "one").stdout


def test_how_a_worker_ended_is_told_exactly(level: str, repo: RepoKit) -> None:
    hall = Hall(repo, k_write=0)
    endings: list[tuple[str, int | None, int | None]] = [
        ("exit 0", 0, None), ("exit 3", 3, None), ("exit 125", 125, None), ("exit 137", 137, None),
        ("kill -9 $$", None, 9), ("kill -TERM $$", None, 15), ("kill -SEGV $$", None, 11),
    ]  # fmt: skip
    ids = [hall.shell(script) for script, *_ in endings]
    done = hall.done(*ids, timeout=60)
    assert [(job.exit_code, job.signal) for job in done] == [(code, number) for _, code, number in endings]
    assert {job.sandbox for job in done} == {level}


@pytest.mark.parametrize(("command", "code"), [("no-such-program", 127), ("./README.md", 126)])
def test_a_program_that_cannot_start_is_named(level: str, repo: RepoKit, command: str, code: int) -> None:
    hall = Hall(repo)
    (done,) = hall.done(hall.spawn(command))
    assert (done.result, done.exit_code, done.sandbox) == ("failed", code, level)
    assert (done.reason or "").startswith(f"cannot start `{command}`: ")


def test_a_worker_that_is_asked_to_end_has_its_time(level: str, repo: RepoKit, gate: Gate) -> None:
    """And so has everybody it started: TERM reaches them all, and the wall does not fall on them at once."""
    hall = Hall(repo, sandbox_writable=[str(gate.path)])
    child = "trap 'sleep 0.3; echo child > child.txt; exit 0' TERM; echo up > up; while :; do sleep 0.05; done"
    script = f"trap 'echo main > main.txt; exit 7' TERM; sh -c \"{child}\" & while ! test -e up; do sleep 0.05; done;"
    job = hall.shell(f"{script} {gate.shell()} & while :; do sleep 0.05; done")
    gate.wait_arrivals(1)
    jobs.cancel(hall.place, job)
    (done,) = hall.done(job)
    assert (done.result, done.exit_code) == ("cancelled", 7)
    assert {"main.txt", "child.txt"} <= set(hall.changed(job))


def test_s30_nobody_outlives_a_killed_supervisor(bubblewrap: str, repo: RepoKit, gate: Gate) -> None:
    """Not even who has left its session and forgotten its environment: the namespace ends, and with it all in it."""
    hall = Hall(repo, sandbox_writable=[str(gate.path)])
    script = f"(setsid env -i PATH=$PATH sleep 3600 &) ; (setsid setsid sleep 3601 &); {gate.shell()}"
    job = hall.shell(script)
    gate.wait_arrivals(1)
    worker = hall.pid(job)
    below = [worker, *(process.pid for process in psutil.Process(worker).children(recursive=True))]
    assert len(below) > 4
    hall.kill_supervisor(job)
    eventually(lambda: not living(below), what="the death of everybody")
    hall.repo.git("status")


def test_the_network_is_there_and_can_be_cut(level: str, repo: RepoKit) -> None:
    hall = Hall(repo)
    server = socket.create_server(("127.0.0.1", 0))
    script = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5); print('reached')"
    with server:
        open_job, cut_job = (hall.spawn(sys.executable, "-c", script, network=network) for network in (True, False))
        opened, cut = hall.done(open_job, cut_job)
    assert (opened.result, opened.network) == ("succeeded", True)
    assert (cut.result, cut.network) == ("failed", False)


def test_sockets_and_records_of_others_are_out_of_sight(bubblewrap: str, repo: RepoKit, tmp_path: Path) -> None:
    hall = Hall(repo)
    other = hall.submit("true", environment={"NAME": "of another"})
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "tmp" / "boss.sock"))
    script = f"cat {hall.directory(other)}/spec.json; ls {tmp_path}/tmp /run; ls {hall.state.root}/locks; id -u"
    with server:
        job = hall.shell(script)
        (done,) = hall.done(job)
    assert done.result == "succeeded"
    assert (hall.directory(job) / "stdout.log").read_text().split() == ["/run:", str(os.getuid())]


# ---------------------------------------------------------------------------------------------------- fails closed
def test_s30_what_cannot_be_had_is_refused_before_anything_is_made(
    wt: Wt, repo: RepoKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("git", "sh"):
        os.symlink(shutil.which(program) or "", repo.path.parent / "tmp" / program)
    monkeypatch.setenv("PATH", str(repo.path.parent / "tmp"))
    before = repo.fingerprint()
    answer = wt("spawn", "--sandbox", "bubblewrap", "--json", "--", "true", status=4)
    assert answer.code == "sandbox-unavailable"
    assert "`bwrap` is not installed" in answer.json["error"]["message"]
    assert wt("spawn", "--require-sandbox", "--sandbox", "none", "--", "true", status=2).stderr.count("\n") == 2
    assert wt("spawn", "--no-network", "--sandbox", "none", "--json", "--", "true").code == "sandbox-unavailable"
    words = ("spawn", "--require-sandbox", "--access", "danger-full-access", "--", "true")
    assert wt(*words, env={"WT_SANDBOX": None}).status == 2
    assert wt("spawn", "--require-sandbox").status == 2
    assert wt("spawn", "--sandbox", "wall", "--", "true").status == 2
    assert repo.fingerprint() == before
    assert not (repo.path / ".git" / "wt-state").exists()


@pytest.fixture
def failing(bubblewrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bubblewrap that works until the file is there."""
    flag = tmp_path / "fails"
    own = tmp_path / "tmp" / "bin" / "bwrap"
    own.parent.mkdir()
    real = shutil.which("bwrap")
    own.write_text(f'#!/bin/sh\n[ -e {flag} ] && {{ echo "bwrap: no luck" >&2; exit 1; }}\nexec {real} "$@"\n')
    own.chmod(0o755)
    monkeypatch.setenv("PATH", f"{own.parent}:{os.environ['PATH']}")
    return flag


def test_s30_a_wall_that_falls_between_probe_and_start_fails_the_job(failing: Path, repo: RepoKit) -> None:
    hall = Hall(repo, require_sandbox=True)
    confinement.levels(hall.state)
    failing.touch()
    job = hall.shell("touch ran")
    (done,) = hall.done(job)
    assert (done.result, done.exit_code) == ("failed", 125)
    assert "nothing was run" in (done.reason or "")
    assert hall.changed(job) == {}
    assert any("bwrap: no luck" in event.content for event in hall.events(job))


def test_a_wall_that_falls_is_told_and_the_next_one_stands(failing: Path, repo: RepoKit) -> None:
    stands("landlock")
    hall = Hall(repo, sandbox="auto")
    confinement.levels(hall.state)
    failing.touch()
    job = hall.shell("touch ran")
    (done,) = hall.done(job)
    assert (done.result, done.sandbox) == ("succeeded", "landlock")
    record = read_json(hall.directory(job) / "changes.json")
    assert record is not None
    assert [finding["code"] for finding in record["audit"]["findings"]] == ["sandbox-fell-back"]


def test_full_access_has_no_wall_and_an_open_workspace_none_either(wt: Wt, level: str) -> None:
    wt("spawn", "--name", "free", "--access", "danger-full-access", "--", "true", status=0)
    assert wt("wait", "free", "--json").data["jobs"][0]["sandbox"] == "none"
    wt("spawn", "--name", "mine", status=0)
    assert wt("settle", "mine", "--json").data["jobs"][0]["sandbox"] == "none"


def test_no_repository_file_can_lower_the_wall(wt: Wt, repo: RepoKit) -> None:
    for line in ('sandbox = "none"', "require_sandbox = false", 'sandbox-writable = ["~"]', "network = true"):
        repo.write(".wt.toml", line + "\n")
        answer = wt("log", status=2)
        assert "may not set" in answer.stderr


def test_doctor_tells_what_stands_and_that_is_no_finding(wt: Wt) -> None:
    told = wt("doctor", "--json", status=0).data["sandbox"]
    levels = sandbox.probe(None)
    assert [item["level"] for item in told if item["available"]] == levels.available[:-1]
    assert all(item["reason"] for item in told if not item["available"])
    assert "sandbox: " in wt("doctor").stdout


# ---------------------------------------------------------------------------------------------------- agents
@pytest.mark.parametrize("user", ["root", "ordinary"])
def test_a_program_with_a_sandbox_of_its_own_starts_behind_ours(
    bubblewrap: str, repo: RepoKit, tmp_path: Path, user: str
) -> None:
    """As Codex does: bubblewrap, without a `/proc` of its own where that cannot be mounted."""
    if user == "root" and os.getuid() != 0:
        pytest.skip("not root")
    inner = ["--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--dev", "/dev", "--bind", "$PWD", "$PWD"]
    tries = [f"bwrap {' '.join(inner)} {more} -- touch inside" for more in ("--proc /proc", "")]
    levels = sandbox.probe(None)
    job = sandbox.Confinement(workspace=repo.path, temporary=tmp_path / "tmp", visible=[tmp_path])
    argv = sandbox.wrapped(["sh", "-c", " || ".join(tries)], "bubblewrap", levels, job, os.environ)
    if user == "ordinary" and os.getuid() == 0:
        repo.broken_on_purpose = True  # it is another user's afterwards
        subprocess.run(["chown", "-R", "65534:65534", tmp_path], check=True)
        for parent in tmp_path.parents:
            if not parent.stat().st_mode & stat.S_IXOTH:
                parent.chmod(0o711)
        argv = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--", *argv]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    assert (repo.path / "inside").exists()


def test_an_agent_writes_in_its_own_directory_and_not_to_what_makes_it_run_commands(
    level: str, repo: RepoKit, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    program = home / "bin" / "claude"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\nfor file in ~/.claude/session ~/.claude/settings.json ~/.codex/x; do echo x >> $file; done\n"
    )
    program.chmod(0o755)
    (home / ".claude").mkdir()
    (home / ".claude" / "settings.json").write_text("{}\n")
    (home / ".codex").mkdir()
    hall = Hall(repo)
    hall.done(hall.spawn(str(program)))
    assert (home / ".claude" / "session").exists()
    assert not (home / ".codex" / "x").exists()
    kept = (home / ".claude" / "settings.json").read_text() == "{}\n"
    assert kept is (level == "bubblewrap")


def test_agents_with_a_sandbox_of_their_own_never_get_landlock() -> None:
    levels = sandbox.Levels(landlock_abi=7)
    assert sandbox.needs_of("codex", ["x"], {}).nests
    assert sandbox.needs_of(None, ["/usr/bin/codex", "exec"], {}).nests
    assert not sandbox.needs_of(None, ["/usr/bin/make"], {}).nests
    assert sandbox.choose(levels, nests=True) == ["none"]
    with pytest.raises(Refused, match="inside Landlock"):
        sandbox.choose(levels, nests=True, required=True)
    with pytest.raises(Refused, match="inside Landlock"):
        sandbox.choose(levels, "landlock", nests=True)


@pytest.mark.parametrize(
    ("wish", "options", "chosen"),
    [
        ("auto", {}, ["bubblewrap", "landlock", "none"]),
        ("auto", {"required": True}, ["bubblewrap", "landlock"]),
        ("auto", {"network": False}, ["bubblewrap", "landlock"]),
        ("auto", {"nests": True}, ["bubblewrap", "none"]),
        ("auto", {"access": "danger-full-access"}, ["none"]),
        ("landlock", {}, ["landlock"]),
        ("none", {}, ["none"]),
    ],
)
def test_the_levels_a_job_gets(wish: str, options: dict[str, Any], chosen: list[str]) -> None:
    levels = sandbox.Levels(bubblewrap="/bwrap", cuts_network=True, landlock_abi=7)
    assert sandbox.choose(levels, wish, **options) == chosen


def test_what_stood_is_probed_once(bubblewrap: str, failing: Path, repo: RepoKit) -> None:
    hall = Hall(repo)
    assert confinement.levels(hall.state).bubblewrap
    failing.touch()
    assert confinement.levels(hall.state).bubblewrap, "kept"
    assert not sandbox.probe(None).bubblewrap
    own = shutil.which("bwrap")
    assert own is not None
    os.utime(own, ns=(1, 1))
    assert not confinement.levels(hall.state).bubblewrap, "another program is probed anew"


def test_a_job_s_wall_cannot_be_opened_by_what_is_made_writable(level: str, repo: RepoKit, tmp_path: Path) -> None:
    hall = Hall(repo, sandbox_writable=[str(tmp_path)])
    before = repo.fingerprint(ignore_refs=OURS)
    job = hall.shell(
        f"echo x >> {repo.path}/README.md; echo x >> {repo.path}/.git/config; touch {tmp_path}/mine; touch in"
    )
    hall.done(job)
    assert repo.fingerprint(ignore_refs=OURS) == before
    assert hall.changed(job) == {"in": "A"}
    # Landlock cannot take back what it grants, so it does not grant a tree with the repository in it.
    assert (tmp_path / "mine").exists() is (level == "bubblewrap")
