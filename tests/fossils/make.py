"""Makes the fossil of today's schema, and of today's format if there is none yet: `python -m tests.fossils.make`.

A small run is lived through the real command; its records are kept, with the names of this machine taken out. A job
that runs is among them, so that what only exists while a job lives is kept as well.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.kit import RepoKit, Wt, eventually

HERE = Path(__file__).parent
LEFT_OUT = {"store.git", "locks", "trash", "hooks"}
LEFT_OUT_FILES = {"alive", "index", "index.after"}
# A century: while the fossil is read, its leases run.
LONG = "5200w"
CONFIG = "[user]\n\tname = Boss\n\temail = boss@example.com\n[init]\n\tdefaultBranch = main\n"


def live(root: Path) -> tuple[Path, Wt]:
    """One job of every kind; the last one runs."""
    repo = RepoKit.make(root / "repo")
    wt = Wt(repo.path)
    repo.write("notes", "not committed\n")
    wt(
        "spawn",
        "--name",
        "landed",
        "--task",
        "add a line",
        "--",
        "sh",
        "-c",
        "echo more >> src/app.py; echo x > a.log; echo said",
    )
    wt("wait", status=0)
    wt("merge", status=0)
    wt("spawn", "--name", "failed", "--", "sh", "-c", "echo x > b; echo oops >&2; exit 3")
    wt("wait", status=1)
    script = 'git mv tool.sh tool; mv tool.sh tool; cp data.bin more.bin; echo x > "$(printf "caf\\351")"'
    wt("spawn", "--name", "dropped", "--", "sh", "-c", script)
    wt("wait", "dropped", status=0)
    wt("drop", "dropped", status=0)
    wt("rollback", status=0)
    wt("undo", status=0)
    wt("spawn", "--name", "open", "--ttl", LONG, status=0)
    wt(
        "spawn",
        "--name",
        "running",
        "--ttl",
        LONG,
        "--idle",
        "30m",
        "--",
        "sh",
        "-c",
        "echo started; exec sleep 600",
        status=0,
    )
    eventually(lambda: wt("logs", "running").stdout, what="the running job's first line")
    eventually(lambda: "started" in wt("events", "running").stdout, what="its event")
    return repo.path / ".git" / "wt-state", wt


def keep(state: Path, root: Path, target: Path) -> None:
    """Copies the records, text only, paths of this machine replaced."""
    shutil.rmtree(target, ignore_errors=True)
    for directory, names, files in os.walk(state):
        names[:] = [name for name in names if name not in LEFT_OUT]
        for name in files:
            if name in LEFT_OUT_FILES or name.startswith("."):
                continue
            path = Path(directory) / name
            content = (
                path.read_bytes().replace(os.fsencode(root), b"/somewhere").replace(os.fsencode(sys.prefix), b"/python")
            )
            copy = target / path.relative_to(state)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)


def main() -> None:
    """Writes the schema; lives the run when the format this program writes has no fossil."""
    from worktrees.schema import document
    from worktrees.store import FORMAT

    place = HERE / str(FORMAT)
    place.mkdir(exist_ok=True)
    (place / "schema.json").write_text(json.dumps(document(), indent=2) + "\n", encoding="utf-8")
    if (place / "wt-state").exists():
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "home").mkdir()
        (root / "home" / ".gitconfig").write_text(CONFIG, encoding="utf-8")
        os.environ.clear()
        os.environ.update(PATH="/usr/bin:/bin", HOME=str(root / "home"), TMPDIR=str(root), LC_ALL="C.UTF-8")
        state, wt = live(root)
        keep(state, root, place / "wt-state")
        wt("cancel", "--force", "running")
        wt("wait", "running")


if __name__ == "__main__":
    main()
