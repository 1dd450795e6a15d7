"""A checkout with uncommitted edits of every kind: what of them a workspace holds, and what becomes of them."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.kit import RepoKit, Wt

OURS = ["refs/wt/*"]
ODD = b"odd \n caf\xe9"
# Every path that `git status` lists below; the ignored one aside.
TRACKED = 10
UNTRACKED = 4
POLICIES = ("ignore", "tracked", "all")


@pytest.fixture
def edited(repo: RepoKit) -> RepoKit:
    """The boss in the middle of work: staged, unstaged, both; deleted, renamed, chmodded, untracked."""
    for name in ("both.txt", "staged.txt", "gone.txt", "removed.txt", "old-name.txt", "kind.txt"):
        repo.write(name, "".join(f"{name} line {number}\n" for number in range(20)))
    repo.write("clean.txt", "".join(f"clean line {number}\n" for number in range(20)))
    repo.commit("more")
    repo.write("both.txt", "staged\n")
    repo.write("staged.txt", "staged\n")
    repo.write("added.txt", "staged, new\n")
    repo.git("add", "both.txt", "staged.txt", "added.txt")
    repo.git("rm", "-q", "removed.txt")
    repo.git("mv", "old-name.txt", "new-name.txt")
    repo.write("both.txt", "staged, then edited\n")
    repo.write("src/util.py", "def add(a, b):\n    return b + a\n")
    repo.path.joinpath("gone.txt").unlink()
    repo.path.joinpath("kind.txt").unlink()
    repo.path.joinpath("kind.txt").symlink_to("clean.txt")
    repo.path.joinpath("tool.sh").chmod(0o644)
    repo.write("notes.txt", "untracked\n")
    repo.write("new/deep.bin", bytes(range(256)))
    repo.write(ODD, "odd\n")
    repo.path.joinpath("link").symlink_to("nowhere")
    repo.write("build/ignored.log", "ignored\n")
    return repo


def files(top: Path) -> dict[bytes, tuple[bool, bytes]]:
    """Every file below a directory, git's own aside: whether it can be run, and its content or target."""
    found = {}
    for directory, names, inside in os.walk(os.fsencode(top)):
        names[:] = [name for name in names if name != b".git"]
        for name in (*inside, *(name for name in names if os.path.islink(os.path.join(directory, name)))):
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            content = os.readlink(path) if stat.S_ISLNK(mode) else Path(os.fsdecode(path)).read_bytes()
            found[os.path.relpath(path, os.fsencode(top))] = (bool(mode & 0o100) and stat.S_ISREG(mode), content)
    found.pop(b".git", None)
    return found


def expected(repo: RepoKit, policy: str, scratch: Path) -> dict[bytes, tuple[bool, bytes]]:
    """What a workspace holds under a policy, by git's own word about which path is what."""
    if policy == "ignore":
        repo.git("worktree", "add", "-q", "--detach", scratch)
        found = files(scratch)
        repo.git("worktree", "remove", scratch)
        return found
    listed = ["--cached"] if policy == "tracked" else ["--cached", "--others", "--exclude-standard"]
    names = set(repo.git("ls-files", "-z", *listed).split(b"\0")) - {b""}
    return {path: content for path, content in files(repo.path).items() if path in names}


def opened(wt: Wt, *options: str) -> tuple[Path, dict[str, Any], list[dict[str, str]]]:
    """An open workspace: where, the baseline it starts from, the warnings."""
    answer = wt("spawn", "--name", "w", "--json", *options, status=0)
    (job,) = answer.data["jobs"]
    return Path(job["workspace"]), job["baseline"], answer.json["warnings"]


def left_out(count: int) -> list[dict[str, str]]:
    message = f"{count} uncommitted path{'' if count == 1 else 's'} of the checkout left out"
    return [{"code": "dirty-left-out", "message": message}] if count else []


@pytest.mark.parametrize("policy", POLICIES)
def test_s16_a_workspace_holds_exactly_what_the_policy_says(
    edited: RepoKit, wt: Wt, policy: str, tmp_path: Path
) -> None:
    wanted = expected(edited, policy, tmp_path / "scratch")
    before = edited.fingerprint(OURS)

    place, baseline, warnings = opened(wt, "--dirty", policy)

    out = {"ignore": TRACKED + UNTRACKED, "tracked": UNTRACKED, "all": 0}[policy]
    assert files(place) == wanted
    assert edited.fingerprint(OURS) == before
    snapshot = baseline.pop("snapshot")
    assert baseline == {
        "commit": edited.head(), "branch": "main", "dirtyPolicy": policy,
        "dirtyCount": TRACKED + UNTRACKED, "leftOut": out,
    }  # fmt: skip
    assert (snapshot is None) == (policy == "ignore")
    assert warnings == left_out(out)
    # Nothing of it is the worker's, neither while it works nor in the end.
    assert wt("diff", "w", "--json", status=0).data["changeSet"]["files"] == []
    wt("settle", "w", status=0)
    change_set = wt("diff", "w", "--json", status=0).data["changeSet"]
    assert (change_set["files"], change_set["ignoredCreated"], change_set["audit"]["clean"]) == ([], [], True)
    assert edited.fingerprint(OURS) == before


def test_s16_the_worker_sees_carried_edits_as_the_boss_does(edited: RepoKit, wt: Wt) -> None:
    place, _, _ = opened(wt, "--dirty", "all")

    status = edited.git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", cwd=place)

    paths = {record[3:] for record in status.split(b"\0") if record}
    assert paths == {
        b"added.txt", b"both.txt", b"gone.txt", b"kind.txt", b"link", b"new-name.txt", b"new/deep.bin", b"notes.txt",
        ODD, b"old-name.txt", b"removed.txt", b"src/util.py", b"staged.txt", b"tool.sh",
    }  # fmt: skip
    assert edited.head() == edited.text("-C", place, "rev-parse", "HEAD")


def test_s16_fail_refuses_a_dirty_checkout_and_makes_nothing(edited: RepoKit, wt: Wt) -> None:
    before = edited.fingerprint()

    answer = wt("spawn", "--dirty", "fail", "--json", "--", "true", status=4)

    assert answer.code == "dirty-worktree"
    assert answer.json["error"]["details"] == {"dirtyCount": TRACKED + UNTRACKED}
    assert edited.fingerprint() == before
    assert wt("list", "--json", status=0).data == {"jobs": []}


def test_s16_a_clean_checkout_is_the_same_under_every_policy(repo: RepoKit, wt: Wt) -> None:
    repo.write("a.log", "ignored\n")
    for number, policy in enumerate(("fail", *POLICIES)):
        answer = wt("spawn", "--name", f"w{number}", "--dirty", policy, "--json", status=0)
        baseline = answer.data["jobs"][0]["baseline"]
        assert (baseline["dirtyCount"], baseline["leftOut"], baseline["snapshot"]) == (0, 0, None)
        assert answer.json["warnings"] == []


@pytest.mark.parametrize("policy", POLICIES)
def test_s16_only_the_workers_edits_land_and_the_bosss_stay(edited: RepoKit, wt: Wt, policy: str) -> None:
    script = "echo more >> clean.txt; echo worker > worker.txt; chmod +x docs/guide.md; rm data.bin"
    wt("spawn", "--name", "w", "--dirty", policy, "--", "sh", "-c", script, status=0)
    wt("wait", status=0)
    changed = wt("diff", "w", "--json", status=0).data["changeSet"]["files"]
    theirs = {"clean.txt": "M", "data.bin": "D", "docs/guide.md": "M", "worker.txt": "A"}
    assert {file["path"]: file["status"] for file in changed} == theirs
    before, status = files(edited.path), edited.git("status", "--porcelain", "-z")

    wt("merge", status=0)

    landed = edited.git("diff", "--name-status", "--no-renames", "-z", "HEAD^", "HEAD").split(b"\0")[:-1]
    assert dict(zip(landed[1::2], landed[::2], strict=True)) == {
        path.encode(): letter.encode() for path, letter in theirs.items()
    }
    assert edited.git("status", "--porcelain", "-z") == status
    after = files(edited.path)
    assert {path: after.get(path) for path in before.keys() - {b"clean.txt", b"data.bin", b"docs/guide.md"}} == {
        path: before[path] for path in before.keys() - {b"clean.txt", b"data.bin", b"docs/guide.md"}
    }
    wt("undo", status=0)
    assert files(edited.path) == before
    assert edited.git("status", "--porcelain", "-z") == status


@pytest.mark.parametrize("policy", ["tracked", "all"])
def test_s16_a_file_both_edited_waits_for_the_boss_and_then_holds_both(repo: RepoKit, wt: Wt, policy: str) -> None:
    lines = repo.read("src/app.py").decode().splitlines()
    repo.write("src/app.py", "\n".join(["boss", *lines[1:]]) + "\n")
    repo.write("todo.txt", "boss\n")
    wt("spawn", "--name", "w", "--dirty", policy, "--", "sh", "-c", "sed -i '20s/.*/worker/' src/app.py", status=0)
    wt("wait", status=0)
    (file,) = wt("diff", "w", "--json", status=0).data["changeSet"]["files"]
    assert (file["path"], file["additions"], file["deletions"]) == ("src/app.py", 1, 1)
    before = repo.fingerprint(OURS)

    refused = wt("merge", "--json", status=4)

    assert refused.code == "would-overwrite"
    assert refused.json["error"]["details"]["paths"] == ["src/app.py"]
    assert repo.fingerprint(OURS) == before
    repo.git("commit", "-qam", "the boss's own")
    wt("merge", status=0)
    merged = repo.read("src/app.py").decode().splitlines()
    assert merged == ["boss", *lines[1:19], "worker", *lines[20:]]
    assert repo.git("show", "HEAD:src/app.py") == repo.read("src/app.py")
    assert b"todo.txt" not in repo.tree()
    assert repo.read("todo.txt") == b"boss\n"


def test_s16_an_untracked_file_the_worker_edited_is_not_overwritten(repo: RepoKit, wt: Wt) -> None:
    repo.write("todo.txt", "boss\n")
    wt("spawn", "--name", "w", "--dirty", "all", "--", "sh", "-c", "echo worker >> todo.txt", status=0)
    wt("wait", status=0)
    (file,) = wt("diff", "w", "--json", status=0).data["changeSet"]["files"]
    assert (file["path"], file["status"], file["additions"]) == ("todo.txt", "M", 1)
    before = repo.fingerprint(OURS)

    # Alone it has no place in the branch: the line it follows is not there.
    assert wt("merge", "--json", status=3).code == "conflict"

    assert repo.fingerprint(OURS) == before
    repo.commit("the boss's own")
    wt("merge", status=0)
    assert repo.read("todo.txt") == b"boss\nworker\n"


def test_s16_what_was_only_staged_outlives_the_users_gc(repo: RepoKit, wt: Wt) -> None:
    wt("spawn", "--name", "first", status=0)  # opens the workflow, and with it the checkout is recorded
    repo.write("staged.txt", "never committed\n")
    repo.git("add", "staged.txt")
    place, _, _ = opened(wt, "--dirty", "tracked")
    repo.git("rm", "-q", "--cached", "staged.txt")
    repo.path.joinpath("staged.txt").unlink()
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "-q", "--prune=now")
    (place / "mine.txt").write_text("mine\n")

    wt("settle", "w", status=0)

    (file,) = wt("diff", "w", "--json", status=0).data["changeSet"]["files"]
    assert file["path"] == "mine.txt"
    wt("drop", "w", status=0)
    wt("restore", "w", status=0)
    assert (place / "staged.txt").read_bytes() == b"never committed\n"


def test_s16_an_edit_of_the_same_size_in_the_same_instant_is_seen(repo: RepoKit, wt: Wt) -> None:
    path = repo.write("same.txt", "one\n")
    repo.commit("same")
    info = path.stat()
    path.write_text("two\n")
    for each in (path, repo.path / ".git/index"):
        os.utime(each, ns=(info.st_atime_ns, info.st_mtime_ns))
    repo.git("config", "core.trustctime", "false")

    place, baseline, _ = opened(wt, "--dirty", "tracked")

    # The index is as young as the file, so git looks at the content.
    assert baseline["dirtyCount"] == 1
    assert (place / "same.txt").read_text() == "two\n"


def test_s16_a_repository_inside_the_checkout_is_no_edit(repo: RepoKit, wt: Wt) -> None:
    repo.git("worktree", "add", "-q", "--detach", "inside/tree")
    repo.write("inside/beside.txt", "beside\n")

    place, baseline, warnings = opened(wt, "--dirty", "all")

    assert (baseline["dirtyCount"], warnings) == (1, [])
    assert (place / "inside/beside.txt").read_text() == "beside\n"
    assert not (place / "inside/tree").exists()


def test_s16_the_setting_decides_where_the_call_does_not(edited: RepoKit, wt: Wt) -> None:
    edited.git("config", "wt.dirty", "tracked")

    answer = wt("spawn", "--name", "one", status=0)
    wt("spawn", "--name", "two", "--dirty", "ignore", status=0)

    assert f"warning: {UNTRACKED} uncommitted paths of the checkout left out" in answer.stderr
    found = {job["name"]: job["baseline"] for job in wt("list", "--json", status=0).data["jobs"]}
    assert {name: (item["dirtyPolicy"], item["leftOut"]) for name, item in found.items()} == {
        "one": ("tracked", UNTRACKED),
        "two": ("ignore", TRACKED + UNTRACKED),
    }


def test_s16_edits_are_not_carried_to_another_commit(repo: RepoKit, wt: Wt) -> None:
    repo.write("README.md", "edited\n")
    before = repo.fingerprint()

    assert wt("spawn", "--dirty", "all", "--base", "HEAD~1", "--json", status=2).code == "usage"

    assert repo.fingerprint() == before
