"""A fresh tree is worth working in, and nothing the boss did not mean to share is in it."""

import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kit import RepoKit
from worktrees import setup
from worktrees.config import Settings
from worktrees.git import discover


@pytest.fixture
def workspace(repo: RepoKit, tmp_path: Path) -> Path:
    place = tmp_path / "workspace"
    repo.git("worktree", "add", "--quiet", "--detach", place)
    return place


def provide(repo: RepoKit, workspace: Path, **values: object) -> setup.Provision:
    settings = Settings().with_values(values, "the test")
    return setup.provide(discover(repo.path), workspace, repo.head(), settings)


def test_s17_ignored_files_that_are_listed_come_along(repo: RepoKit, workspace: Path) -> None:
    repo.write(".gitignore", ".env\ncache/\n*.key\nnode_modules/\n")
    repo.write(".worktreeinclude", "# for workers\n.env\ncache/**\n!cache/huge.bin\n*.md\n")
    repo.commit("what to ignore and what to include")
    repo.git("-C", workspace, "checkout", "--quiet", "--detach", "main")
    repo.write(".env", "TOKEN=1\n", mode=0o640)
    repo.write("cache/deep/er/file", "cached\n")
    repo.write("cache/huge.bin", "huge\n")
    repo.write("secret.key", "not listed\n")
    repo.write("untracked.md", "listed, but not ignored\n")
    repo.write(os.fsdecode(b"cache/\xff\n -x"), "odd\n")
    os.symlink("deep/er/file", repo.path / "cache" / "link")

    provision = provide(repo, workspace)

    assert provision.paths == [b".env", b"cache/deep/er/file", b"cache/link", b"cache/\xff\n -x"]
    assert provision.findings == []
    assert (workspace / ".env").read_text() == "TOKEN=1\n"
    assert (workspace / ".env").stat().st_mode & 0o777 == 0o640
    assert (workspace / ".env").stat().st_ino != (repo.path / ".env").stat().st_ino, "no hard link"
    assert os.readlink(workspace / "cache" / "link") == "deep/er/file"
    assert not (workspace / "untracked.md").exists()
    assert not (workspace / "secret.key").exists()
    assert provision.copied_bytes == len("TOKEN=1\n" + "cached\n" + "odd\n")


def test_s17_never_through_a_symlink_that_leaves_the_repository(repo: RepoKit, workspace: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret\n")
    repo.write(".gitignore", "ignored/\nabs\nup\nfifo\n")
    repo.write(".worktreeinclude", "ignored/\nabs\nup\nfifo\n")
    repo.commit("ignore")
    os.symlink(outside, repo.path / "ignored")
    os.symlink(outside / "secret", repo.path / "abs")
    os.symlink("../outside/secret", repo.path / "up")
    os.mkfifo(repo.path / "fifo")

    provision = provide(repo, workspace)

    assert provision.paths == []
    assert {(finding.code, finding.path) for finding in provision.findings} >= {
        ("include-skipped", "abs"),
        ("include-skipped", "up"),
    }
    assert sorted(entry.name for entry in workspace.iterdir()) == sorted(
        [".git", "README.md", "src", ".gitignore", "docs", "tool.sh", "data.bin"]
    )


def test_a_parent_that_turned_into_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "source" / "dir")
    source, target = os.open(tmp_path / "source", os.O_RDONLY), os.open(tmp_path / "target", os.O_RDONLY)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        setup.copy_file(source, target, b"dir/file")
    os.close(source)
    os.close(target)
    assert list((tmp_path / "target").rglob("file")) == []


@pytest.mark.parametrize(
    ("path", "destination", "leaves"),
    [
        (b"a", b"b", False),
        (b"a/b", b"../c", False),
        (b"a/b", b"../../c", True),
        (b"a", b"..", True),
        (b"a", b"/etc/passwd", True),
        (b"a/b", b"x/../../c", False),
        (b"a", b"x/../../c", True),
    ],
)
def test_where_a_symlink_leads(path: bytes, destination: bytes, *, leaves: bool) -> None:
    assert setup.leaves_tree(path, destination) is leaves


def test_a_file_of_the_commit_is_not_overwritten(repo: RepoKit, workspace: Path) -> None:
    repo.write(".gitignore", "README.md\n")
    repo.write(".worktreeinclude", "README.md\n")
    repo.git("rm", "-q", "--cached", "README.md")
    repo.git("commit", "-q", "-m", "README is ignored now")
    before = (workspace / "README.md").read_text()
    repo.write("README.md", "the boss's own\n")

    provision = provide(repo, workspace)

    assert (workspace / "README.md").read_text() == before
    assert [(finding.code, finding.path) for finding in provision.findings] == [("include-skipped", "README.md")]


def test_links_for_big_directories_on_request(repo: RepoKit, workspace: Path) -> None:
    repo.write("node_modules/pkg/index.js", "x\n")

    provision = provide(repo, workspace, link_directories=["node_modules", "missing", "../escape", "README.md"])

    assert provision.paths == [b"node_modules"]
    assert (workspace / "node_modules").is_symlink()
    assert (workspace / "node_modules" / "pkg" / "index.js").read_text() == "x\n"
    assert {finding.path for finding in provision.findings} == {"../escape", "README.md"}


def test_submodules_come_from_the_bosss_own_clones(repo: RepoKit, tmp_path: Path) -> None:
    inner, outer = RepoKit.make(tmp_path / "inner"), RepoKit.make(tmp_path / "outer")
    allow = ("-c", "protocol.file.allow=always")
    outer.git(*allow, "submodule", "--quiet", "add", inner.path, "deep/inner")
    outer.commit("with inner")
    repo.git(*allow, "submodule", "--quiet", "add", outer.path, "vendor/outer")
    repo.git(*allow, "submodule", "--quiet", "add", inner.path, "not-initialised")
    repo.commit("with submodules")
    repo.git(*allow, "submodule", "--quiet", "update", "--init", "--recursive", "vendor/outer")
    repo.git("submodule", "--quiet", "deinit", "-f", "not-initialised")
    subprocess.run(["rm", "-rf", repo.path / ".git" / "modules" / "not-initialised"], check=True)
    for source in (inner, outer):
        source.path.rename(source.path.with_name(source.path.name + "-gone"))
    workspace = tmp_path / "ws"
    repo.git("worktree", "add", "--quiet", "--detach", workspace)
    config = (repo.path / ".git" / "config").read_bytes()

    provision = provide(repo, workspace)

    assert provision.submodules == [b"vendor/outer", b"vendor/outer/deep/inner"]
    assert (workspace / "vendor/outer/deep/inner/README.md").read_bytes() == b"# sample\n\nA repository for tests.\n"
    assert repo.git("-C", workspace, "status", "--porcelain") == b""
    assert [(finding.code, finding.path) for finding in provision.findings] == [
        ("submodule-missing", "not-initialised")
    ]
    assert (repo.path / ".git" / "config").read_bytes() == config


def test_setup_commands_of_the_repository_run_only_after_approval_of_their_text(repo: RepoKit) -> None:
    repo.write(".wt.toml", 'setup_commands = ["make deps"]\n')
    here = discover(repo.path)
    settings = Settings().with_values({"setup_commands": ["mine"]}, "the test")

    assert setup.commands_to_run(here, settings) == (["mine"], ["make deps"])
    setup.approve(here, ["make deps"])
    assert setup.commands_to_run(here, settings) == (["mine", "make deps"], [])

    repo.write(".wt.toml", 'setup_commands = ["make deps; curl evil"]\n')
    assert setup.commands_to_run(here, Settings()) == ([], ["make deps; curl evil"])
    own = Settings().with_values({"setup_commands": ["make deps; curl evil"]}, "the test")
    assert setup.commands_to_run(here, own) == (["make deps; curl evil"], []), "the user's own word is enough"


def test_an_approval_is_for_one_repository(repo: RepoKit, tmp_path: Path) -> None:
    setup.approve(discover(repo.path), ["make"])
    other = RepoKit.make(tmp_path / "other")
    assert setup.is_approved(discover(repo.path), "make")
    assert not setup.is_approved(discover(other.path), "make")


def test_a_setup_command_that_fails_ends_the_job_with_its_status_and_name(tmp_path: Path) -> None:
    argv = setup.with_setup(["sh", "-c", "echo worker ran; exit 5"], ["echo first", "echo it''s quoted; exit 3"])
    failed = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert failed.returncode == 3
    assert failed.stdout == "first\nits quoted\n"
    assert "setup command failed with status 3" in failed.stderr
    assert "worker ran" not in failed.stdout

    argv = setup.with_setup(["sh", "-c", 'echo "$1|$0"; exit 5', "a b", "c'd"], ["touch made"])
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (5, "c'd|a b\n")
    assert (tmp_path / "made").exists()
    assert setup.with_setup(["x"], []) == ["x"]


def test_a_block_of_ports_that_nobody_has(tmp_path: Path) -> None:
    def claim(job: str, start: int = 23_000, *, live: bool = True) -> int | None:
        return setup.claim_ports(tmp_path / "ports", job, start, 10, is_live=lambda _: live)

    first = claim("j-1")
    assert first is not None
    assert claim("j-1") == first, "a job whose starter died asks again"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 13))
        taken.listen()
        second = claim("j-2", first)
    assert second is not None
    assert second > first + 10, "the block in between has a listener"
    assert claim("j-3", first) not in {first, second, None}
    setup.release_ports(tmp_path / "ports", "j-2", first)
    assert claim("j-4", first) != first, "only its owner gives a block back"
    setup.release_ports(tmp_path / "ports", "j-1", first)
    assert claim("j-5", first) == first
    assert claim("j-6", first, live=False) == first, "a dead job's claim is taken over"
    assert claim("j-7", 65_530) is None


def test_many_claim_ports_at_once_and_none_gets_another_ones(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        blocks = list(
            pool.map(
                lambda n: setup.claim_ports(tmp_path / "ports", f"j-{n}", 24_000, 10, is_live=lambda _: True), range(32)
            )
        )
    assert None not in blocks
    assert len(set(blocks)) == 32
