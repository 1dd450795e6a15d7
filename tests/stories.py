"""Made-up histories to merge, from a seed: the same number always tells the same story.

A story has a boss's history, jobs on some commit of it, and settings. All of git's merge cases are in reach: renames of
files and of directories, modes, links, submodules, binary files, line ends, attributes, several merge bases, files
where directories were. Its script says in words what was done, so that a story that fails can be read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.kit import RepoKit

Files = dict[str, tuple[str, bytes]]
"""Path to mode and content; of a submodule the content is its commit."""

PLACES = ("", "lib/", "lib/deep/", "src/", "src/one/two/three/", "old/")
SUBMODULES = [f"{number}" * 40 for number in range(1, 5)]
WORDS = ("x", "y", "z")
ATTRIBUTES = (
    "*.c merge=union",
    "*.c -merge",
    "*.txt merge=binary",
    "* merge=mine",
    "*.txt text",
    "*.txt text eol=crlf",
    "*.c -text",
    "lib/** merge=union",
    "*.dat binary",
    "*.txt ident",
    "*.c conflict-marker-size=3",
    "*.rot filter=rot",
    "* text=auto",
)
SETTINGS = (
    ("merge.directoryRenames", ("true", "false", "conflict")),
    ("merge.renames", ("false", "true")),
    ("merge.renameLimit", ("1", "3")),
    ("merge.renormalize", ("true",)),
    ("merge.conflictStyle", ("diff3",)),
    ("merge.default", ("union", "mine", "binary")),
    ("diff.renames", ("copies", "false")),
    ("core.autocrlf", ("input",)),
    ("core.eol", ("lf",)),
)
GLOBAL_CONFIG = """\
[merge "mine"]
	driver = cat %A %B > %A.both && mv %A.both %A
[filter "rot"]
	clean = tr a-z b-za
	smudge = tr b-za a-z
"""
"""The user's own drivers, which the stories' attributes name."""


@dataclass
class Version:
    """A commit to be made; parents are positions in the story's list."""

    files: Files
    parents: tuple[int, ...] = ()


@dataclass
class Story:
    """One case: commits, the one that is merged onto, and the jobs as pairs of baseline and snapshot."""

    number: int
    seed: str
    script: list[str] = field(default_factory=list)
    commits: list[Version] = field(default_factory=list)
    onto: int = 0
    jobs: list[tuple[int, int]] = field(default_factory=list)
    planted: list[int] = field(default_factory=list)
    """For each job a snapshot that also holds attributes the worker planted; empty when nobody did."""
    settings: dict[str, str] = field(default_factory=dict)
    info: str = ""
    """The user's own `info/attributes`."""

    def __str__(self) -> str:
        head = f"story {self.number} of seed {self.seed!r}; settings {self.settings or 'none'}"
        return "\n  ".join([head, *([f"info/attributes: {self.info}"] if self.info else []), *self.script])


def put(files: Files, path: str, entry: tuple[str, bytes]) -> None:
    """Writes a path; what is in its way as a file or as a directory goes."""
    for other in [other for other in files if other.startswith(f"{path}/") or path.startswith(f"{other}/")]:
        del files[other]
    files[path] = entry


class _Edits:
    """Changes of files, each picked at random and told in the script."""

    def __init__(self, chance: random.Random, files: Files) -> None:
        self.chance = chance
        self.files = files
        self.told: list[str] = []

    def some(self, most: int) -> list[str]:
        """A few changes; what was done."""
        for _ in range(self.chance.randint(1, most)):
            kinds: list[tuple[int, Callable[[], str | None]]] = [
                (10, self.edit), (3, self.delete), (4, self.rename), (2, self.move_directory), (4, self.add),
                (2, self.mode), (2, self.retype), (2, self.file_to_directory), (1, self.directory_to_file),
                (2, self.binary), (1, self.line_ends), (1, self.case), (1, self.swap), (1, self.copy),
                (2, self.submodule), (1, self.link), (1, self.rewrite), (1, self.tail),
            ]  # fmt: skip
            pick = self.chance.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]
            if told := pick():
                self.told.append(told)
        return self.told

    def _any(self, *modes: str) -> str | None:
        known = sorted(path for path, (mode, _) in self.files.items() if mode in modes and path != ".gitattributes")
        return self.chance.choice(known) if known else None

    def _text(self) -> str | None:
        known = sorted(
            path
            for path, (mode, content) in self.files.items()
            if mode.startswith("100") and content.count(b"\n") > 2 and b"\0" not in content and path[0] != "."
        )
        return self.chance.choice(known) if known else None

    def _place(self) -> str:
        return self.chance.choice([*PLACES, "new/"])

    def _change(self, content: bytes) -> tuple[bytes, str]:
        lines = content.splitlines(keepends=True)
        spot = self.chance.choice([0, len(lines) // 2, len(lines) - 1, self.chance.randrange(len(lines))])
        word = self.chance.choice(WORDS)
        lines[spot] = word.encode() + (b"\r\n" if lines[spot].endswith(b"\r\n") else b"\n")
        return b"".join(lines), f"line {spot} is {word}"

    def edit(self) -> str | None:
        if path := self._text():
            mode, content = self.files[path]
            content, told = self._change(content)
            self.files[path] = (mode, content)
            return f"edit {path}: {told}"
        return None

    def rewrite(self) -> str | None:
        if path := self._text():
            word = self.chance.choice(WORDS)
            self.files[path] = (self.files[path][0], f"{word}\n{word}\n{word}\n".encode())
            return f"rewrite {path} as {word}"
        return None

    def tail(self) -> str | None:
        if path := self._text():
            mode, content = self.files[path]
            self.files[path] = (mode, content.rstrip(b"\r\n"))
            return f"take the last line end of {path} away"
        return None

    def delete(self) -> str | None:
        if path := self._any("100644", "100755", "120000"):
            del self.files[path]
            return f"delete {path}"
        return None

    def rename(self) -> str | None:
        if path := self._text():
            mode, content = self.files.pop(path)
            told = ""
            if self.chance.random() < 0.5:
                content, told = self._change(content)
            target = self._place() + self.chance.choice([path.rpartition("/")[2], "moved.c", "moved.txt"])
            put(self.files, target, (mode, content))
            return f"rename {path} to {target}" + (f", {told}" if told else "")
        return None

    def move_directory(self) -> str | None:
        source = self.chance.choice(PLACES[1:])
        inside = [path for path in self.files if path.startswith(source)]
        target = self.chance.choice(["moved/", "src/", "lib/", "new/deep/", "lib/deep/", ""])
        if not inside or target.startswith(source):
            return None
        for path in inside:
            put(self.files, target + path.removeprefix(source), self.files.pop(path))
        return f"move {source} to {target or './'}"

    def add(self) -> str:
        path = self._place() + self.chance.choice(["new.c", "new.txt", "b.c", "moved.c"])
        word = self.chance.choice(WORDS[:2])
        mode = self.chance.choice(["100644", "100644", "100755", "120000"])
        put(self.files, path, (mode, word.encode() if mode == "120000" else f"{word}\n{word} too\n".encode()))
        return f"add {path} ({mode}): {word}"

    def mode(self) -> str | None:
        if path := self._any("100644", "100755"):
            mode, content = self.files[path]
            self.files[path] = ("100755" if mode == "100644" else "100644", content)
            return f"chmod {path} to {self.files[path][0]}"
        return None

    def retype(self) -> str | None:
        if path := self._any("100644", "120000", "160000"):
            mode = self.chance.choice([each for each in ("100644", "120000", "160000") if each != self.files[path][0]])
            content = self.chance.choice(SUBMODULES) if mode == "160000" else self.chance.choice(["README", "a\nb\n"])
            self.files[path] = (mode, content.encode())
            return f"{path} becomes {mode} {content[:7]!r}"
        return None

    def file_to_directory(self) -> str | None:
        if path := self._any("100644", "120000", "160000"):
            entry = self.files.pop(path)
            if self.chance.random() < 0.5 or entry[0] != "100644":
                entry = ("100644", b"inside\n")
            self.files[f"{path}/inside"] = entry
            return f"{path} becomes a directory"
        return None

    def directory_to_file(self) -> str:
        path = self.chance.choice(PLACES[1:]).rstrip("/")
        put(self.files, path, ("100644", self.chance.choice(WORDS).encode() + b"\n"))
        return f"{path}/ becomes a file"

    def binary(self) -> str | None:
        if self.files.get(path := "data.dat", ("", b""))[0].startswith("100"):
            word = self.chance.choice(WORDS)
            self.files[path] = (self.files[path][0], b"\0" + word.encode() * 50)
            return f"binary {path} is {word}"
        return None

    def line_ends(self) -> str | None:
        if path := self._text():
            mode, content = self.files[path]
            crlf = b"\r\n" in content
            self.files[path] = (mode, content.replace(b"\r\n", b"\n") if crlf else content.replace(b"\n", b"\r\n"))
            return f"line ends of {path} are {'LF' if crlf else 'CRLF'}"
        return None

    def case(self) -> str | None:
        if path := self._any("100644"):
            entry = self.files.pop(path)
            put(self.files, path.swapcase(), entry)
            return f"rename {path} to {path.swapcase()}"
        return None

    def swap(self) -> str | None:
        one, other = self._text(), self._text()
        if one and other and one != other:
            self.files[one], self.files[other] = self.files[other], self.files[one]
            return f"swap {one} and {other}"
        return None

    def copy(self) -> str | None:
        if path := self._text():
            target = self._place() + "copy.c"
            put(self.files, target, self.files[path])
            return f"copy {path} to {target}" if path in self.files else f"move {path} to {target}"
        return None

    def submodule(self) -> str:
        path = self.chance.choice(["module", "lib/module"])
        if path in self.files and self.chance.random() < 0.2:
            del self.files[path]
            return f"remove the submodule {path}"
        oid = self.chance.choice(SUBMODULES)
        put(self.files, path, ("160000", oid.encode()))
        return f"submodule {path} is {oid[:7]}"

    def link(self) -> str:
        target = self.chance.choice(["README", "lib", "nowhere"])
        put(self.files, "link", ("120000", target.encode()))
        return f"link to {target}"


def tell(seed: str, number: int) -> Story:
    """The story of a number."""
    chance = random.Random(f"{seed}/{number}")
    story = Story(number, seed)
    base = _beginning(chance)
    if chance.random() < 0.5:
        lines = chance.sample(ATTRIBUTES, chance.randint(1, 3))
        base[".gitattributes"] = ("100644", "".join(f"{line}\n" for line in lines).encode())
        story.script.append(f"attributes: {lines}")
    if chance.random() < 0.1:
        story.info = chance.choice(ATTRIBUTES)
    for name, values in SETTINGS:
        if chance.random() < 0.12:
            story.settings[name] = chance.choice(values)
    story.commits.append(Version(base))
    story.script.append(f"0: {', '.join(sorted(base))}")

    def went_on(parents: tuple[int, ...], most: int = 4, *, attributes: float = 0) -> int:
        files = dict(story.commits[parents[0]].files)
        told = _Edits(chance, files).some(most)
        if attributes and chance.random() < attributes:
            line = chance.choice(ATTRIBUTES)
            put(files, ".gitattributes", ("100644", f"{line}\n".encode()))
            told.append(f"attributes: {line}")
        story.commits.append(Version(files, parents))
        number = len(story.commits) - 1
        story.script.append(f"{number} on {'+'.join(map(str, parents))}: {'; '.join(told) or 'nothing'}")
        return number

    shape = chance.choices(["still", "moved", "older", "criss-cross", "unrelated"], [3, 4, 2, 3, 0.3])[0]
    starts = [0]
    plants = shape != "unrelated" and chance.random() < 0.12
    if shape in ("moved", "older"):
        story.onto = went_on((0,), attributes=0 if plants else 0.15)
        if shape == "older":
            story.onto = went_on((story.onto,))
            starts = [0, 1, 2]
    elif shape == "criss-cross":
        here, there = went_on((0,)), went_on((0,))
        here, there = went_on((here, there), 2), went_on((there, here), 2)
        story.onto = went_on((here,), 2) if chance.random() < 0.5 else here
        starts = [there, there, here]
    elif shape == "unrelated":
        story.commits.append(Version(_beginning(chance)))
        story.script.append(f"1, without parents: {', '.join(sorted(story.commits[1].files))}")
        story.onto = 1
    for _ in range(chance.randint(2, 4)):
        start = chance.choice(starts)
        if chance.random() < 0.06:
            story.commits.append(Version(dict(story.commits[start].files), (start,)))
            story.script.append(f"{len(story.commits) - 1} on {start}: nothing")
            snapshot = len(story.commits) - 1
        else:
            snapshot = went_on((start,))
        story.jobs.append((start, snapshot))
    if plants:
        story.script.append("every worker plants `* merge=union`")
        for start, snapshot in list(story.jobs):
            if story.commits[snapshot].files == story.commits[start].files:
                story.planted.append(snapshot)
                continue
            version = story.commits[snapshot]
            files = dict(version.files)
            put(files, ".gitattributes", ("100644", b"* merge=union text=auto\n"))
            story.commits.append(Version(files, version.parents))
            story.planted.append(len(story.commits) - 1)
    return story


def _beginning(chance: random.Random) -> Files:
    files: Files = {}
    for place in PLACES:
        for name in chance.sample(["a.c", "b.c", "c.txt", "d.txt", "e.rot"], chance.randint(1, 3)):
            count = chance.choice([4, 8, 12])
            files[place + name] = ("100644", "".join(f"{place}{name} {line}\n" for line in range(count)).encode())
    files["README"] = ("100644", b"".join(b"read me, line %d\n" % line for line in range(20)))
    files["tool"] = ("100755", b"#!/bin/sh\necho one\necho two\necho three\n")
    files["link"] = ("120000", b"README")
    files["data.dat"] = ("100644", bytes(range(256)))
    files["empty"] = ("100644", b"")
    if chance.random() < 0.5:
        files["module"] = ("160000", SUBMODULES[0].encode())
    if chance.random() < 0.2:
        files["twin.c"] = files["README"]
    if chance.random() < 0.2:
        files["dos.txt"] = ("100644", b"".join(b"dos %d\r\n" % line for line in range(9)))
    return files


def write(kit: RepoKit, stories: Iterable[Story]) -> dict[int, list[str]]:
    """Makes the commits of stories in a repository, in one go; their ids by the number of the story."""
    stream: list[bytes] = []
    marks: list[tuple[int, int]] = []
    for story in stories:
        first = len(marks) + 1
        for number, version in enumerate(story.commits):
            marks.append((story.number, number))
            words = f"story {story.number}, commit {number}".encode()
            stream += [
                b"reset refs/wt-stories/scratch\ncommit refs/wt-stories/scratch\nmark :%d\n" % len(marks),
                b"committer Boss <boss@example.com> %d +0000\n" % (1_700_000_000 + len(marks)),
                b"data %d\n%s\n" % (len(words), words),
            ]
            for position, parent in enumerate(version.parents):
                stream.append(b"%s :%d\n" % (b"merge" if position else b"from", first + parent))
            stream.append(b"deleteall\n")
            for path, (mode, content) in version.files.items():
                if mode == "160000":
                    stream.append(b"M 160000 %s %s\n" % (content, path.encode()))
                else:
                    stream.append(b"M %s inline %s\n" % (mode.encode(), path.encode()))
                    stream.append(b"data %d\n%s\n" % (len(content), content))
    exported = kit.path / ".git" / "story-marks"
    kit.git("fast-import", "--quiet", "--force", f"--export-marks={exported}", input=b"".join(stream))
    oids = dict(line.removeprefix(":").split(" ") for line in exported.read_text().splitlines())
    exported.unlink()
    found: dict[int, list[str]] = {}
    for mark, (story_number, _) in enumerate(marks, 1):
        found.setdefault(story_number, []).append(oids[str(mark)])
    return found
