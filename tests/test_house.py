"""The house stands: who may import whom, who may start processes, how long a module may get.

A module of `worktrees` lives on a floor and imports from floors below only, never sideways, wherever in the file the
import stands. A package counts as the module it grew from. A module without a floor is an error: give it one here.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "worktrees"

FLOORS = {
    0: "errors model",
    1: "git store config guide",
    2: "isolation runner sandbox guard agents changes merge board transport setup render hosts",
    3: "jobs landing awcp schema gate",
    4: "boss demo",
    5: "cli mcp top supervisor",
}
FLOOR = {module: floor for floor, modules in FLOORS.items() for module in modules.split()}

OUTSIDE = {"__init__": {"boss"}, "__main__": {"cli"}}
"""Files that are on no floor, and all that they may name."""

DOORS_TO = {
    "subprocess": {"git", "runner", "supervisor", "setup", "sandbox", "demo"},
    "pygit2": {"git"},
}
"""Libraries that only some modules may import."""

STANDARD_LIBRARY_ONLY = {"supervisor"}
"""One of these runs per job: it starts fast, stays small, and needs nothing that could be uninstalled meanwhile."""

LONGEST = 700
VAGUE = re.compile(r"(Manager|Service|Helper|Helpers|Util|Utils)$")


def module_of(path: Path) -> str:
    """The module, or the package of the house, that a file belongs to."""
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, package: list[str]) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ["worktrees", *package][: len(package) + 2 - node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value)


def complaints(module: str, source: str, package: str = "") -> list[str]:
    """What a file of `module` does that the house forbids; `package` is the dotted place of a file in a package."""
    tree = ast.parse(source)
    found = []
    if not ast.get_docstring(tree):
        found.append("1: opens without a docstring")
    if (lines := source.count("\n")) > LONGEST:
        found.append(f"{lines}: longer than {LONGEST} lines; make it a package of the same name")
    if module not in FLOOR and module not in OUTSIDE:
        found.append(f"1: module `{module}` has no floor")
    for line, name in imports(tree, package.split(".") if package else []):
        top, _, rest = name.partition(".")
        if module not in DOORS_TO.get(top, {module}):
            found.append(f"{line}: {module} must not import {top}")
        if module in STANDARD_LIBRARY_ONLY and name.split(".")[:2] != ["worktrees", module]:
            if top not in sys.stdlib_module_names:
                found.append(f"{line}: {module} imports {name}, but only the standard library is allowed")
            continue
        if top != "worktrees":
            continue
        target = {"": "boss", "Boss": "boss", "__version__": module}.get(rest, rest.split(".")[0])
        if target == module:
            continue
        if target not in FLOOR:
            found.append(f"{line}: {module} imports `{target}`, which has no floor")
        elif module in OUTSIDE:
            if target not in OUTSIDE[module]:
                found.append(f"{line}: {module} must not import {target}")
        elif FLOOR[target] >= FLOOR.get(module, 0):
            way = "sideways" if FLOOR[target] == FLOOR.get(module, 0) else "upwards"
            found.append(f"{line}: {module} imports {way}: {target}")
    found += [
        f"{node.lineno}: tempfile.{node.func.attr} without a place may write into the current directory"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "tempfile"
        and not any(keyword.arg == "dir" for keyword in node.keywords)
    ]
    found += [
        f"{node.lineno}: `{node.name}` says nothing; name what it is"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and VAGUE.search(node.name)
    ]
    found += [
        f"{node.lineno}: `{node.name}`: a noun needs no get_"
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("get_")
    ]
    return found


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda path: str(path.relative_to(HOUSE)))
def test_module_keeps_to_its_floor(path: Path) -> None:
    package = ".".join(path.relative_to(HOUSE).parts[:-1])
    found = complaints(module_of(path), path.read_text(encoding="utf-8"), package)
    assert not found, "\n".join(f"worktrees/{path.relative_to(HOUSE)}:{line}" for line in found)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("merge", "from worktrees.changes import capture", "2: merge imports sideways: changes"),
        ("merge", "def f():\n    from worktrees import boss", "3: merge imports upwards: boss"),
        ("merge", "if TYPE_CHECKING:\n    import worktrees.jobs", "3: merge imports upwards: jobs"),
        ("merge", "import importlib\nimportlib.import_module('worktrees.cli')", "3: merge imports upwards: cli"),
        ("merge", "from .board import post", "2: merge imports sideways: board"),
        ("merge", "from worktrees import Boss", "2: merge imports upwards: boss"),
        ("merge", "import pygit2", "2: merge must not import pygit2"),
        ("merge", "from subprocess import run", "2: merge must not import subprocess"),
        ("runner", "import pygit2.enums", "2: runner must not import pygit2"),
        ("model", "from worktrees.errors import Refused", "2: model imports sideways: errors"),
        ("merge", "import worktrees.attic", "2: merge imports `attic`, which has no floor"),
        ("attic", "x = 1", "1: module `attic` has no floor"),
        ("supervisor", "import psutil", "2: supervisor imports psutil, but only the standard library is allowed"),
        (
            "supervisor",
            "from worktrees import jobs",
            "2: supervisor imports worktrees.jobs, but only the standard library is allowed",
        ),
        ("__main__", "from worktrees import jobs", "2: __main__ must not import jobs"),
        ("merge", "\n" * LONGEST, "701: longer than 700 lines; make it a package of the same name"),
        ("merge", "class MergeManager: ...", "2: `MergeManager` says nothing; name what it is"),
        (
            "merge",
            "import tempfile\ntempfile.mkdtemp()",
            "3: tempfile.mkdtemp without a place may write into the current directory",
        ),
        ("merge", "def get_plan(): ...", "2: `get_plan`: a noun needs no get_"),
    ],
)
def test_each_rule_can_be_broken(module: str, source: str, complaint: str) -> None:
    assert complaints(module, f'"""Doc."""\n{source}') == [complaint]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("merge", "from worktrees.git import Repo\nfrom worktrees import errors, __version__"),
        ("git", "import subprocess, pygit2"),
        ("cli", "from worktrees.boss import Boss\nfrom worktrees import render"),
        ("supervisor", "import subprocess\nfrom worktrees.supervisor import pump"),
        ("__init__", "from worktrees.boss import Boss"),
        ("__main__", "from worktrees.cli import main"),
    ],
)
def test_the_allowed_is_allowed(module: str, source: str) -> None:
    assert complaints(module, f'"""Doc."""\n{source}') == []


def test_files_of_a_package_may_import_each_other() -> None:
    source = '"""Doc."""\nfrom .index import Index\nfrom worktrees.git.run import run\nfrom ..store import Store'
    assert complaints("git", source, package="git") == ["4: git imports sideways: store"]


def test_a_docstring_is_required() -> None:
    assert complaints("merge", "x = 1\n") == ["1: opens without a docstring"]
