"""Plays the console blocks of README and guide and writes their real output: `python -m tests.readme [DOCUMENT]`.

All blocks of a document are one shell session in a new directory; a line that starts with `$ ` is typed, what follows
it is what came out, both streams in order.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
GUIDE = README.parent / "docs" / "guide.md"
SKILL = README.parent / "worktrees" / "plugin" / "skills" / "wt" / "SKILL.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MARK = "@@ next @@"
_VARIABLE = (
    (re.compile(r"\bj-[0-9a-z]{8}\b"), "j-xxxxxxxx"),
    (re.compile(r"\bw-[0-9a-z]{8}\b"), "w-xxxxxxxx"),
    (re.compile(r"\bc-[0-9a-z]{8}\b"), "c-xxxxxxxx"),
    (re.compile(r"\b[0-9a-f]{7,40}\b"), "0000000"),
    (re.compile(r"\b\d+(\.\d+)?(s|m)\b"), "0.0s"),
    (re.compile(r" +"), " "),
)


def commands(block: str) -> list[str]:
    """What is typed in a block."""
    return [line[2:] for line in block.splitlines() if line.startswith("$ ")]


def steady(text: str) -> str:
    """A transcript without what differs from run to run: ids, times, and the columns they widen."""
    for pattern, instead in _VARIABLE:
        text = pattern.sub(instead, text)
    return text


def play(text: str, place: Path, environment: Mapping[str, str]) -> list[str]:
    """The console blocks of a document with what really came out."""
    blocks = BLOCK.findall(text)
    wt = shlex.join([sys.executable, "-P", "-m", "worktrees"])
    script = [f'wt() {{ {wt} "$@"; }}', "exec 2>&1"]
    script += [f"{line}\necho '{_MARK}'" for block in blocks for line in commands(block)]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=place,
        env={**environment, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,  # some sixty commands; pytest ends what hangs at 300
    )
    outputs = iter(done.stdout.split(_MARK + "\n"))
    return ["".join(f"$ {line}\n{next(outputs, '')}" for line in commands(block)) for block in blocks]


def rewritten(document: Path) -> str:
    """A document with the outputs of today."""
    text = document.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "home"
        home.mkdir()
        (home / ".gitconfig").write_text("[user]\n\tname = You\n\temail = you@example.com\n", encoding="utf-8")
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": place, "LC_ALL": "C.UTF-8"}
        played = iter(play(text, Path(place), environment))
    return BLOCK.sub(lambda _: f"```console\n{next(played)}```", text)


def main() -> None:
    """Writes the documents named, by default all, with the outputs of today; the guide's twin with it."""
    for document in [Path(name) for name in sys.argv[1:]] or [README, GUIDE]:
        document.write_text(rewritten(document), encoding="utf-8")
    head = SKILL.read_text(encoding="utf-8").partition("\n---\n")[0]
    SKILL.write_text(f"{head}\n---\n\n{GUIDE.read_text(encoding='utf-8')}", encoding="utf-8")


if __name__ == "__main__":
    main()
