"""`wt demo` tells the whole story and leaves nothing behind, whatever interrupts it."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from tests.kit import Wt, environment, eventually
from worktrees.schema import document

OFFLINE = {"PIP_NO_INDEX": "1"}


@pytest.fixture
def anywhere(tmp_path: Path) -> Wt:
    """The command in a directory that is no repository."""
    place = tmp_path / "anywhere"
    place.mkdir()
    return Wt(place)


def left_behind(root: Path) -> list[str]:
    """What is in the places where a demonstration could leave something."""
    places = [root / "anywhere", root / "tmp", root / "home" / ".local"]
    return [str(path) for place in places for path in place.rglob("*")]


def test_it_tells_the_story_to_its_end(anywhere: Wt, tmp_path: Path) -> None:
    answer = anywhere("demo", env=OFFLINE, timeout=120, status=0)

    told = answer.stdout
    commands = [line for line in told.splitlines() if line.startswith("$ ")]
    assert [line.split()[1:3] for line in commands[:4]] == [["wt", "spawn"]] * 3 + [["wt", "wait"]]
    for part in (
        "license + api    merges    0+ / 20+  shapes/area.py",
        "license + title  conflict  0+ / 0+   shapes/area.py",
        "as op-000001; take it back with: wt undo",
        "wt: error: `title` conflicts in `shapes/area.py`; nothing moved",
        "Rolled main back to",
        "Undid op-000002",
        "bring one back with: wt restore title",
    ):
        assert part in told, told
    table = told.partition("what was typed")[2].splitlines()
    assert [line.split()[-2] for line in table if line.startswith(("wt ", "git "))] == [
        "0", "0", "0", "0", "0", "0", "1", "0", "0", "3", "0", "0", "0", "0", "0", "0",
    ]  # fmt: skip
    assert left_behind(tmp_path) == []


def test_it_answers_in_json(anywhere: Wt, tmp_path: Path) -> None:
    answer = anywhere("demo", "--json", env=OFFLINE, timeout=120, status=0)

    jsonschema.validate(answer.json, document())
    assert answer.data["steps"][0]["command"].startswith("wt spawn --name license")
    assert "built-in" in answer.data["source"]
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_either(anywhere: Wt, tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        anywhere.argv("demo"),
        cwd=anywhere.cwd,
        env=environment(OFFLINE),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        eventually(lambda: list((tmp_path / "tmp").glob("wt-demo-*/repo/.git/wt-state/workflows/*/jobs/*/job.json")))
        os.killpg(process.pid, number)
        process.communicate(timeout=60)
    finally:
        process.kill()

    assert process.returncode == 128 + number
    assert left_behind(tmp_path) == []


def test_a_download_that_works_is_a_real_project(anywhere: Wt, tmp_path: Path, sdist: Callable[[str], Path]) -> None:
    index = sdist("itsdangerous")

    env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_NO_BUILD_ISOLATION": "0"}
    answer = anywhere("demo", "--json", env=env, timeout=120, status=0)

    assert answer.data["source"] == "itsdangerous-9.9"
    assert left_behind(tmp_path) == []


@pytest.fixture
def sdist(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a directory with a source distribution that needs nothing to build."""

    def make(name: str) -> Path:
        import tarfile

        place = tmp_path / "sdists"
        project = place / f"{name}-9.9"
        project.mkdir(parents=True)
        (project / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        )
        (project / "backend.py").write_text(
            "import pathlib\n\n\ndef prepare_metadata_for_build_wheel(directory, settings=None):\n"
            f"    place = pathlib.Path(directory) / '{name}-9.9.dist-info'\n    place.mkdir()\n"
            f"    (place / 'METADATA').write_text('Metadata-Version: 2.1\\nName: {name}\\nVersion: 9.9\\n')\n"
            "    return place.name\n"
        )
        (project / "large.py").write_text("".join(f"def f{n}():\n    return {n}\n\n\n" for n in range(20)))
        with tarfile.open(place / f"{name}-9.9.tar.gz", "w:gz") as archive:
            archive.add(project, f"{name}-9.9")
        return place

    return make
