"""Lets a worker try every attack at one level of protection, and says what came of it.

    python -m tests.siege DIRECTORY LEVEL RESULT.json [NAME...]

Run as the user whose cells are wanted. Each attack is the command of a job made by the real `wt spawn`, in a repository
with a remote, a home directory, a sibling workspace, and a process, a socket and a port of the boss's. What may not
change is compared file by file before and after, and made anew when something did. Afterwards the boss does what bosses
do (status, live and recorded diff, overlap, merge --dry-run, doctor); `payload.sh` tells when any of that ran it.

A cell: `X` something of the boss's changed or was reached, `.` the attack failed, `o` its commands succeeded and
nothing of the boss's changed; `!` after it: the boss ran the worker's code.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.attacks import EVERY, Attack
from worktrees import Boss
from worktrees.errors import WorktreesError

_CONFIG = "[user]\n\tname = Boss\n\temail = boss@example.com\n[init]\n\tdefaultBranch = main\n"
_TEMPLATE = """set -e
git init -q --bare remote.git; git init -q main; cd main; git remote add origin ../remote.git
for n in 1 2 3 4 5 6; do mkdir -p d$((n % 3)); echo "line $n" > d$((n % 3))/f$n.txt; done
printf '*.log\\nignored/\\n' > .gitignore; git add -A; git commit -qm one; git tag v1
echo two >> d1/f1.txt; git commit -qam two; git branch other HEAD~1; git push -q origin main
printf '#!/bin/sh\\n' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit
"""
# What changes by the boss's own doing while a job lives.
_STATE_OF_THE_BOSS = (
    "objects", "ops", "journal", "ports", "trash", "sandbox.json", "finished", "workspaces", "refs", "index.after",
)  # fmt: skip

Print = dict[str, tuple[int, str]]


@dataclass
class Siege:
    """One user, one level, one place."""

    root: Path
    level: str

    def __post_init__(self) -> None:
        self.area = self.root / "area"
        self.main = self.area / "main"
        self.canary = self.root / "canary"
        home = self.area / "home"
        self.tells = bool(os.environ.get("SIEGE_TELLS"))
        kept = {name: os.environ[name] for name in ("PATH", "LC_ALL", "PYTHONPATH") if name in os.environ}
        os.environ.clear()
        os.environ.update(
            kept,
            HOME=str(home),
            TMPDIR=str(self.root / "tmp"),
            GIT_CONFIG_NOSYSTEM="1",
            WT_SANDBOX=self.level,
            WT_WORKTREES_DIRECTORY=str(self.area / "ws"),
            WT_K_WRITE="4",
        )
        (self.root / "tmp").mkdir()
        self.victim = self._start_victim()

    @staticmethod
    def _start_victim() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["sleep", "3600"])

    # ------------------------------------------------------------------------------------------------------ the place
    def build(self) -> None:
        """The place as it is before anything was tried, with a sibling at work in it."""
        template = self.root / "template"
        if not template.exists():
            (template / "home").mkdir(parents=True)
            (template / "home" / ".gitconfig").write_text(_CONFIG)
            env = {**os.environ, "HOME": str(template / "home")}
            subprocess.run(["sh", "-c", _TEMPLATE], cwd=template, env=env, check=True, timeout=60)
        shutil.copytree(template, self.area, symlinks=True)
        made = self.wt("spawn", "--name", "sibling", "--env", "WATCHWORD=1", "--json")
        self.wt("spawn", "--json", "--name", "first", "--", "true")
        self.wt("wait", "first", "--json")
        self.sibling = Path(made["data"]["jobs"][0]["workspace"])
        self.own_entry = _print(self.main / ".git" / "worktrees" / self.sibling.name)
        self.past: list[str] = []
        subprocess.run(["rm", "-rf", self.root / "pristine"], check=True, timeout=60)
        subprocess.run(["cp", "-a", self.area, self.root / "pristine"], check=True, timeout=60)
        self.before = self.look()

    def wt(self, *words: str) -> Any:
        """One `wt` command's document."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "worktrees", *words],
            cwd=self.main,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=120,
        )
        answer = json.loads(done.stdout)
        assert answer["error"] is None or answer["error"]["code"] == "job-failed", answer
        return answer

    def look(self) -> Print:
        """Everything that a worker may not change, but for what the boss's own doing for the jobs changes."""
        found = {}
        own = set(self.past)
        git = self.main / ".git"
        for name, tree in (("files", self.main), ("remote", self.area / "remote.git"), ("home", self.area / "home")):
            for path, value in _print(tree).items():
                if path.startswith((".git", ".cache")):
                    if name == "home" and path == ".gitconfig":
                        found[f"home/{path}"] = value
                    continue
                if name != "remote" or not path.startswith("objects"):
                    found[f"{name}/{path}"] = value
        for path, value in _print(git).items():
            top, _, rest = path.partition("/")
            if top == "wt-state":
                parts = rest.split("/")
                passing = [part for part in _STATE_OF_THE_BOSS if part in parts or parts[-1].startswith(part)]
                if not passing and "locks" not in parts and not own.intersection(parts):
                    found[f"state/{rest}"] = value
            elif (
                path.startswith("refs/wt")
                or (top == "objects" and not rest.startswith("info"))
                or (top == "worktrees" and rest.split("/")[0] in own)
            ):
                continue
            elif stat.S_ISREG(value[0]) or stat.S_ISLNK(value[0]):
                found[f"git/{path}"] = value
        for path in _objects(git):
            found[f"object/{path}"] = (0, "")
        found |= {f"sibling/{path}": value for path, value in _print(self.sibling).items()}
        return found

    # ------------------------------------------------------------------------------------------------------ the attack
    def cells(self, attacks: Sequence[Attack]) -> dict[str, str]:
        """What came of each attack. They are tried together as long as nothing comes of it, else by halves."""
        if not self.area.exists():
            self.build()
        if self.victim.poll() is not None:
            self.victim = self._start_victim()
        self.canary.unlink(missing_ok=True)
        with _listening(self.root) as (path, port):
            jobs = self._run(attacks, path, port)
        self.past += [job["jobId"] for job in jobs]
        changed = set().union(*(self._changed_entry(job) for job in jobs)) | self._changed()
        if self.victim.poll() is not None:
            changed.add("process")
        if _survivors([job["jobId"] for job in jobs], port):
            changed.add("survivor")
        told = self.differ[:6]
        self._boss_at_work([job["jobId"] for job in jobs])
        ran = self.canary.exists()
        if changed - {"process", "survivor"} and not self._restored():
            self._clear()
        if len(attacks) > 1 and (changed or ran):
            half = len(attacks) // 2
            return {**self.cells(attacks[:half]), **self.cells(attacks[half:])}
        cells = {}
        for attack, job in zip(attacks, jobs, strict=True):
            assert job["sandbox"] == self.level, job
            reached = attack.reaches and job["exitCode"] == 0
            cells[attack.name] = "X" if changed or reached else "." if job["exitCode"] != 0 else "o"
            cells[attack.name] += "!" * ran
            if self.tells:
                sys.stderr.write(f"{attack.name}: {cells[attack.name]} {sorted(changed)} {told}\n")
        return cells

    def _run(self, attacks: Sequence[Attack], path: Path, port: int) -> list[Any]:
        prologue = [
            f'printf \'#!/bin/sh\\n[ -n "$WT_JOB" ] || echo "$0 $*" >> {self.canary}\\n\' > payload.sh',
            "chmod +x payload.sh; export WT=$WT_WORKSPACE ADMIN=$GD/worktrees/$WT_JOB",
        ]
        told = {
            "MAIN": self.main, "GD": self.main / ".git", "SIBLING": self.sibling, "REMOTE": self.area / "remote.git",
            "STATE": self.main / ".git" / "wt-state", "VICTIM": self.victim.pid, "SOCKET": path, "PORT": port,
            "PY": sys.executable,
        }  # fmt: skip
        environment = {name: str(value) for name, value in told.items()}
        lines = [
            json.dumps({
                "command": ["sh", "-c", "\n".join([*prologue, attack.script])],
                "environment": environment,
                "network": attack.network or self.level == "none",
            })
            for attack in attacks
        ]  # fmt: skip
        order = self.root / "jobs.jsonl"
        order.write_text("\n".join(lines))
        boss = Boss(self.main)  # before anything can be done to the repository
        ids = [job["jobId"] for job in self.wt("spawn", "--json", "--from-file", str(order))["data"]["jobs"]]
        waited = boss.wait(*ids, timeout_seconds=240)
        assert not waited.timed_out, [
            (job.job_id, job.state, job.command) for job in waited.jobs if job.state != "done"
        ]
        found = {job.job_id: job.dump() for job in waited.jobs}
        return [found[job] for job in ids]

    def _changed(self) -> set[str]:
        """Kinds of things that changed."""
        after = self.look()
        # New objects alone are residue; missing ones are damage.
        residue = {path for path in after.keys() - self.before.keys() if path.startswith("object/")}
        differ = {
            path for path in self.before.keys() | after.keys() if self.before.get(path) != after.get(path)
        } - residue
        self.differ = sorted(differ)
        return {path.partition("/")[0] for path in differ}

    def _changed_entry(self, job: Any) -> set[str]:
        """Whether git's directory of the job's own worktree is another than that of a fresh one."""
        entry = _print(self.main / ".git" / "worktrees" / job["jobId"])
        passing = ("index", "logs", "COMMIT_EDITMSG")
        same = (
            self.own_entry.keys() - {"gitdir"} == entry.keys() - {"gitdir"}
            or {name for name in self.own_entry.keys() ^ entry.keys() if not name.startswith(passing)} == set()
        )
        pointer = _digest(f"{job['workspace']}/.git\n".encode())
        same = same and entry.get("gitdir", (0, ""))[1] == pointer
        same = same and all(entry.get(name) == self.own_entry.get(name) for name in ("HEAD", "commondir"))
        return set() if same else {"own entry"}

    def _boss_at_work(self, jobs: Sequence[str]) -> None:
        """What a boss does next; it may be refused after damage, and runs nothing of a worker's."""
        try:
            boss = Boss(self.main)
        except WorktreesError:
            return  # not a repository any more that git understands
        verbs: tuple[Callable[[], object], ...] = (
            boss.status,
            *(partial(boss.diff, job, patch=True) for job in jobs),
            partial(boss.diff, "sibling"),
            partial(boss.overlap, *jobs, "sibling"),
            partial(boss.merge, *jobs, dry_run=True),
            boss.doctor,
            partial(boss.drop, *jobs, force=True),
        )
        for verb in verbs:
            with contextlib.suppress(WorktreesError, OSError):
                verb()

    def _restored(self) -> bool:
        """Puts back what changed, file by file; False when that is not enough."""
        for path in sorted(self.differ, reverse=True):
            if path not in self.before:
                _remove(self._place(path))
        for path in sorted(self.differ):
            if path in self.before:
                target, source = self._place(path), self.root / "pristine" / self._place(path).relative_to(self.area)
                if source.is_dir() and not source.is_symlink():
                    target.mkdir(exist_ok=True)
                    target.chmod(stat.S_IMODE(self.before[path][0]))
                    continue
                _remove(target)
                with contextlib.suppress(OSError):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, target, follow_symlinks=False)
        return self._changed() == set()

    def _place(self, path: str) -> Path:
        """Where something that `look` names is."""
        kind, _, rest = path.partition("/")
        git = self.main / ".git"
        return {
            "files": self.main, "remote": self.area / "remote.git", "home": self.area / "home", "git": git,
            "state": git / "wt-state", "object": git, "sibling": self.sibling,
        }[kind] / rest  # fmt: skip

    def _clear(self) -> None:
        """The place is damaged: the next attack gets a new one."""
        with contextlib.suppress(WorktreesError, OSError):
            Boss(self.main).settle("sibling")
        subprocess.run(["chmod", "-R", "u+rwX", self.area], check=False, stderr=subprocess.DEVNULL, timeout=60)
        subprocess.run(["rm", "-rf", self.area], check=True, timeout=60)

    def close(self) -> None:
        """Ends what was started."""
        self.victim.kill()
        self.victim.wait()
        with contextlib.suppress(WorktreesError, OSError):
            Boss(self.main).settle("sibling")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _print(tree: Path) -> Print:
    """Mode and content of everything below a directory."""
    found: Print = {}
    for directory, names, files in os.walk(tree):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                content = ""
                if stat.S_ISREG(status.st_mode):
                    content = "unreadable"
                    with contextlib.suppress(OSError), open(path, "rb") as file:
                        content = _digest(file.read())
                elif stat.S_ISLNK(status.st_mode):
                    content = os.readlink(path)
                found[os.path.relpath(path, tree)] = (status.st_mode, content)
    return found


def _objects(git: Path) -> Iterator[str]:
    for directory, _, files in os.walk(git / "objects"):
        for name in files:
            if "info" not in directory:
                yield os.path.join(os.path.relpath(directory, git), name)


def _survivors(jobs: Sequence[str], port: int) -> bool:
    """Whether a process of the jobs, or one that hides that it is, still runs."""
    marks = [f"WT_JOB={job}".encode() for job in jobs]
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{name}/cmdline").read_bytes()
            variables = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            if words == f"sleep\0300.{port}\0".encode() or any(mark in variables for mark in marks):
                return True
    return False


@contextlib.contextmanager
def _listening(root: Path) -> Iterator[tuple[Path, int]]:
    """A socket and a port of the boss's."""
    path = root / "boss.sock"
    with socket.socket(socket.AF_UNIX) as local, socket.create_server(("127.0.0.1", 0)) as server:
        local.bind(str(path))
        local.listen(5)
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
        try:
            yield path, server.getsockname()[1]
        finally:
            path.unlink()


def _accept(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        server.accept()[0].close()


def _spoiling(level: str) -> set[str]:
    """Attacks that are on record as working at a level."""
    record = json.loads(Path(__file__).with_name("attacks.json").read_text(encoding="utf-8"))
    columns = [cells for column, cells in record.items() if column.endswith(f"-{level}")]
    return {name for cells in columns for name, cell in cells.items() if cell.startswith("X")}


def main(words: Sequence[str]) -> None:
    """Writes the cells, one for each attack."""
    root, level, result, *names = words
    siege = Siege(Path(root), level)
    try:
        attacks = [attack for attack in EVERY if not names or attack.name in names]
        # What is known to work, as most does without a wall, is tried alone: it spoils the place for the others.
        spoils = [attack for attack in attacks if level == "none" or attack.name in _spoiling(level)]
        parts = [*([attack] for attack in spoils), [attack for attack in attacks if attack not in spoils]]
        cells = {name: cell for part in parts if part for name, cell in siege.cells(part).items()}
    finally:
        siege.close()
    Path(result).write_text(json.dumps(cells, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
