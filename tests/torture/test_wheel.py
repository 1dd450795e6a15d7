"""What an installed wheel holds: the guard's hooks work from there as from the checkout."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import RepoKit, environment

ROOT = Path(__file__).parent.parent.parent
SCRIPT = "exec 2>&1; git commit -n --allow-empty -m mine && exit 7; git tag mine; true"
NOT_PART_OF_IT = shutil.ignore_patterns(".git", ".venv", ".*cache", "__pycache__", ".hypothesis")


@pytest.mark.torture
def test_s29_the_guard_of_an_installed_wheel_refuses(repo: RepoKit, tmp_path: Path) -> None:
    source, wheels, venv = tmp_path / "source", tmp_path / "wheels", tmp_path / "venv"
    shutil.copytree(ROOT, source, ignore=NOT_PART_OF_IT)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, source], check=True)
    (wheel,) = wheels.iterdir()
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin" / "pip", "install", "-q", wheel], check=True)
    wt = venv / "bin" / "wt"

    def run(*words: str) -> str:
        done = subprocess.run(
            [wt, *words], cwd=repo.path, env=environment(None), capture_output=True, check=True, text=True, timeout=60
        )
        return done.stdout

    run("spawn", "--name", "one", "--", "sh", "-c", SCRIPT)
    run("wait", "one")
    assert "succeeded" in run("status", "one")
    assert "wt: refused: moving `refs/tags/mine`" in run("logs", "one")
    assert repo.text("tag") == ""
