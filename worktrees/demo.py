"""`wt demo`: a whole run on a throw-away repository, told command by command.

The repository is made from the source distribution of a small real project that pip downloads, or from a small
built-in tree when that does not work within seconds. Everything happens through the command line, in processes of
their own, below one temporary directory with its own state home and git configuration; it is removed at the end
whatever happens, ^C included, after every worker has been stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from worktrees.errors import HonestNo
from worktrees.git import temporary_place
from worktrees.model import Demonstration, DemonstrationStep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worktrees.render.text import Terminal

PROJECT = "itsdangerous"
DOWNLOAD_SECONDS = 15.0

_GIT_CONFIG = """\
[user]
	name = Demo
	email = demo@example.com
[init]
	defaultBranch = main
"""

_COMMON = """\
import pathlib

modules = sorted(
    (path for path in pathlib.Path().rglob("*.py") if path.parts[0] not in ("tasks", "tests")),
    key=lambda path: (path.stat().st_size, str(path)),
)
"""
_TASKS = {
    "license.py": '''\
"""Puts a license line on top of every module."""
from common import modules

for path in modules:
    path.write_text("# SPDX-License-Identifier: BSD-3-Clause\\n" + path.read_text())
    print("licensed", path)
''',
    "api.py": '''\
"""Lists every class and function in docs/API.md, and says so at the end of the largest module."""
import ast
import pathlib

from common import modules

lines = ["# API", ""]
for path in modules:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            lines.append(f"- `{node.name}` ({path})")
pathlib.Path("docs").mkdir(exist_ok=True)
pathlib.Path("docs/API.md").write_text("\\n".join(lines) + "\\n")
with modules[-1].open("a") as file:
    file.write("\\n# Listed in docs/API.md.\\n")
print("listed", len(lines) - 2, "names")
''',
    "title.py": '''\
"""Puts a title on top of the largest module: the line that license.py writes to as well."""
from common import modules

path = modules[-1]
path.write_text(f"# {path.stem}: see docs/API.md\\n" + path.read_text())
print("titled", path)
''',
}
_BUILT_IN = {
    "README.md": "# shapes\n\nAreas of simple shapes.\n",
    "shapes/__init__.py": "from shapes.area import circle, rectangle\n\n__all__ = ['circle', 'rectangle']\n",
    "shapes/area.py": "".join(
        f'def {name}({args}):\n    """The area of a {name}."""\n    return {formula}\n\n\n'
        for name, args, formula in (
            ("rectangle", "width, height", "width * height"),
            ("circle", "radius", "3.14159 * radius**2"),
            ("triangle", "base, height", "base * height / 2"),
            ("square", "side", "side**2"),
        )
    ),
    "shapes/text.py": (
        'def table(rows):\n    """Rows as lines."""\n'
        "    return '\\n'.join(' '.join(map(str, row)) for row in rows)\n"
    ),
}


def run(*, quiet: bool, out: Terminal) -> Demonstration:
    """Tells the whole story; `quiet` keeps it to the answer. Raises: HonestNo when a step ends as it should not."""
    previous = signal.signal(signal.SIGTERM, _leave)
    stage = Stage(Path(tempfile.mkdtemp(prefix="wt-demo-", dir=temporary_place())), out, quiet=quiet)
    try:
        return stage.play()
    finally:
        stage.strike()
        signal.signal(signal.SIGTERM, previous)


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


class Stage:
    """The temporary directory and the commands run in it."""

    def __init__(self, root: Path, out: Terminal, *, quiet: bool) -> None:
        self.root = root
        self.repo = root / "repo"
        self.out = out
        self.quiet = quiet
        self.steps: list[DemonstrationStep] = []
        (root / "gitconfig").write_text(_GIT_CONFIG, encoding="utf-8")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "WT_"))}
        self.environment = {
            **clean,
            "GIT_CONFIG_GLOBAL": str(root / "gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "XDG_STATE_HOME": str(root / "state"),
            "XDG_CONFIG_HOME": str(root / "config"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PAGER": "cat",
            "WT_K_WRITE": "3",
        }

    # -------------------------------------------------------------------------------------------------- the story
    def play(self) -> Demonstration:
        """From an empty directory to a table of what was done."""
        self.tell(f"A throw-away repository in {self.root}, removed at the end.")
        source = self.make_repository()
        self.tell(f"Its content: {source}, and three small programs in tasks/ that stand for agents.")

        self.chapter("Three workers in parallel, each in a worktree of its own")
        tasks = {
            "license": "a license line on top of every module",
            "api": "list every function in docs/API.md",
            "title": "a title on top of the largest module",
        }
        for name, task in tasks.items():
            self.wt("spawn", "--name", name, "--task", task, "--", "python3", f"tasks/{name}.py")
        self.wt("wait")

        self.chapter("What they really changed, from the files and not from what they say")
        self.wt("diff", "license")
        self.wt("diff", "api")

        self.chapter("The same path twice is an overlap; it is a conflict only when the contents do not merge")
        self.wt("overlap", expect=(1,))

        self.chapter("license and api overlap but merge: both land, or neither")
        self.wt("merge", "license", "api")
        self.git("log", "--oneline", "--graph", "-5")

        self.chapter("title conflicts with what has landed: nothing moves, exit status 3")
        self.wt("merge", "title", expect=(3,))

        self.chapter("Back to where it began, files and all; then forward again")
        self.wt("rollback")
        self.git("log", "--oneline", "-3")
        self.wt("undo")
        self.wt("log")

        self.chapter("Given up, but not lost")
        self.wt("drop", "title")
        self.wt("list", "--all")
        self.table()
        return Demonstration(source=source, steps=self.steps)

    def make_repository(self) -> str:
        """Fills and commits the repository; says where its content is from."""
        source = self.download() or self.build_in()
        for name, text in {"common.py": _COMMON, **_TASKS}.items():
            (self.repo / "tasks").mkdir(exist_ok=True)
            (self.repo / "tasks" / name).write_text(text, encoding="utf-8")
        for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "-m", "start")):
            subprocess.run(["git", *words], cwd=self.repo, env=self.environment, check=True, capture_output=True)
        return source

    def download(self) -> str | None:
        """The source distribution of a real project; None when pip or the network is not there in time."""
        words = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:", "--dest"]
        target = self.root / "download"
        try:
            subprocess.run(
                [sys.executable, "-m", "pip", *words, str(target), PROJECT],
                cwd=self.root,
                env=self.environment,
                check=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=DOWNLOAD_SECONDS,
            )
            (archive,) = target.glob("*.tar.gz")
            with tarfile.open(archive) as packed:
                # The `data` filter would do, but Python has it only since 3.11.4.
                files = [member for member in packed if member.isfile() and ".." not in member.name.split("/")]
                for member in files:
                    content = packed.extractfile(member)
                    path = self.root / "unpacked" / member.name.lstrip("/")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content.read() if content else b"")
            os.rename(self.root / "unpacked" / archive.name.removesuffix(".tar.gz"), self.repo)
        except (OSError, ValueError, subprocess.SubprocessError, tarfile.TarError):
            return None
        return archive.name.removesuffix(".tar.gz")

    def build_in(self) -> str:
        """A tree of four files."""
        for name, text in _BUILT_IN.items():
            path = self.repo / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return "a small built-in project (no source distribution could be downloaded)"

    # -------------------------------------------------------------------------------------------------- running
    def wt(self, *words: str, expect: tuple[int, ...] = (0,)) -> None:
        """One command of ours, shown as a user would type it."""
        actual = [sys.executable if word == "python3" else word for word in words]
        self.step("wt", words, [sys.executable, "-P", "-m", "worktrees", *actual], expect)

    def git(self, *words: str) -> None:
        """One command of git."""
        self.step("git", words, ["git", "--no-pager", *words], (0,))

    def step(self, program: str, words: tuple[str, ...], argv: list[str], expect: tuple[int, ...]) -> None:
        """Runs, shows and notes one command. Raises: HonestNo."""
        command = f"{program} {shlex.join(words)}"
        self.say(self.out.paint(f"$ {command}", "cyan", "bold"))
        began = time.perf_counter()
        done = subprocess.run(
            argv,
            cwd=self.repo,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if self.quiet else None,
            stderr=subprocess.STDOUT if not self.quiet else subprocess.PIPE,
            check=False,
        )
        seconds = round(time.perf_counter() - began, 3)
        title = self.steps[-1].title if self.steps else ""
        self.steps.append(
            DemonstrationStep(title=self._title or title, command=command, exit_status=done.returncode, seconds=seconds)
        )
        if done.returncode not in expect:
            raise HonestNo(
                f"`{command}` ended with status {done.returncode} and not {expect[0]}",
                code="demo-failed",
                hint="wt version",
                details={"stderr": (done.stderr or b"").decode("utf-8", "replace")},
            )

    _title = ""

    # -------------------------------------------------------------------------------------------------- telling
    def say(self, text: str) -> None:
        """A line for people."""
        if not self.quiet:
            print(text, flush=True)

    def tell(self, text: str) -> None:
        """A line of the story."""
        self.say(self.out.paint(f"# {text}", "dim"))

    def chapter(self, title: str) -> None:
        """The next part of the story."""
        self._title = title
        self.say("")
        self.say(self.out.paint(f"# {title}", "bold"))

    def table(self) -> None:
        """Every command with its status and time."""
        if self.quiet:
            return
        from rich.console import Console
        from rich.table import Table

        shown = Table(title="what was typed", title_justify="left", box=None, pad_edge=False)
        shown.add_column("command")
        shown.add_column("status", justify="right")
        shown.add_column("seconds", justify="right")
        for step in self.steps:
            shown.add_row(step.command, str(step.exit_status), f"{step.seconds:.2f}")
        self.say("")
        Console(no_color=not self.out.color, width=self.out.width or 120).print(shown)

    # -------------------------------------------------------------------------------------------------- the end
    def strike(self) -> None:
        """Stops every worker and removes everything."""
        with _undisturbed():
            state = self.repo / ".git" / "wt-state"
            if state.is_dir():
                self._end_workers()
            for _ in range(50):
                shutil.rmtree(self.root, ignore_errors=True)
                if not self.root.exists():
                    return
                time.sleep(0.05)  # a supervisor that writes its last line, or the trash being emptied

    def _end_workers(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
            jobs = json.loads(self._ask("list", "--json"))["data"]["jobs"]
            if alive := [job["jobId"] for job in jobs if job["state"] != "done"]:
                self._ask("cancel", "--force", *alive)
                self._ask("wait", "--timeout", "20", *alive)

    def _ask(self, *words: str) -> bytes:
        argv = [sys.executable, "-P", "-m", "worktrees", *words]
        return subprocess.run(
            argv, cwd=self.repo, env=self.environment, capture_output=True, check=False, timeout=30
        ).stdout


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keeps ^C from stopping the tidying up."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
