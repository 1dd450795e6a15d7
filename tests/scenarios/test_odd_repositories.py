"""Repositories that libgit2 cannot open, or whose index it cannot read, get the same answers from every verb."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit import RepoKit, Wt

LINES = [f"line {number}\n" for number in range(1, 31)]


def split_index(_: RepoKit, repo: RepoKit) -> None:
    repo.git("update-index", "--split-index")


def sparse_index(_: RepoKit, repo: RepoKit) -> None:
    repo.git("sparse-checkout", "set", "--cone", "--sparse-index", "src")


def partial(origin: RepoKit, repo: RepoKit) -> None:
    """Blobs that are not checked out are still with the promisor."""
    origin.git("config", "uploadpack.allowFilter", "true")
    origin.git("config", "uploadpack.allowAnySHA1InWant", "true")
    subprocess.run(["rm", "-rf", repo.path], check=True)
    words = ["--quiet", "--filter=blob:none", "--sparse", f"file://{origin.path}"]
    subprocess.run(["git", "clone", *words, repo.path], check=True)
    repo.git("sparse-checkout", "set", "src")


def sha256(_: RepoKit, repo: RepoKit) -> None:
    content = {path.relative_to(repo.path): path.read_bytes() for path in repo.path.rglob("*") if path.is_file()}
    subprocess.run(["rm", "-rf", repo.path], check=True)
    subprocess.run(["git", "init", "--quiet", "--object-format=sha256", repo.path], check=True)
    for path, raw in content.items():
        if path.parts[0] != ".git":
            repo.write(path, raw)
    repo.commit("all of it")


@pytest.mark.parametrize("kind", [split_index, sparse_index, partial, sha256], ids=lambda kind: kind.__name__)
def test_s23_every_kind_of_repository_merges_alike(
    make_repo: Callable[[str], RepoKit], tmp_path: Path, kind: Callable[[RepoKit, RepoKit], None]
) -> None:
    origin, repo = make_repo("origin"), RepoKit.make(tmp_path / "subject")
    kind(origin, repo)
    wt = Wt(repo.path)
    before = repo.head(), repo.git("status", "--porcelain"), repo.read("src/app.py")
    for name, number, text in (("top", 2, "top"), ("end", 29, "end"), ("clash", 2, "clash")):
        opened = wt("spawn", "--name", name, "--json", status=0).data["jobs"][0]
        workspace = Path(opened["workspace"])
        (workspace / "src/app.py").write_text("".join([*LINES[: number - 1], f"{text}\n", *LINES[number:]]))
        (workspace / "README.md").unlink(missing_ok=True)  # the same by all, and outside a sparse checkout or not
        (workspace / f"src/{name}.py").write_text(f"{name}\n")
        wt("settle", name, status=0)
    found = wt("overlap", "--json", status=1).data
    assert {each["path"]: each["kind"] for each in found["conflicts"]} == {"src/app.py": "contents"}
    about = [each for each in found["overlaps"] if each["path"] == "src/app.py"]
    assert [each["conflict"] for each in about] == [False, True, False]
    assert [[[(at["start"], at["count"]) for at in lines] for lines in each["lines"]] for each in about] == [
        [[(2, 1)], [(29, 1)]], [[(2, 1)], [(2, 1)]], [[(29, 1)], [(2, 1)]],
    ]  # fmt: skip
    assert [step["outcome"] for step in found["plan"]] == ["landed", "landed", "conflict"]
    merged = wt("merge", "--on-conflict", "skip", "--json", status=3).data
    assert [step["outcome"] for step in merged["steps"]] == ["landed", "landed", "conflict"]
    assert repo.read("src/app.py") == "".join([LINES[0], "top\n", *LINES[2:28], "end\n", LINES[29]]).encode()
    assert sorted(path.name for path in (repo.path / "src").iterdir()) == ["app.py", "end.py", "top.py", "util.py"]
    assert repo.git("status", "--porcelain") == before[1]
    wt("undo", status=0)
    assert (repo.head(), repo.git("status", "--porcelain"), repo.read("src/app.py")) == before
