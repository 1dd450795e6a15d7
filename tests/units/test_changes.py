"""Snapshots and change sets: equal to an independent walk, on every kind of repository, for every kind of user."""

import contextlib
import hashlib
import itertools
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.changing import JOB, REF, Bench, as_ordinary_user, at_home, codes, walked
from tests.kit import RepoKit, eventually
from worktrees import changes
from worktrees.changes.rules import joined
from worktrees.config import Settings
from worktrees.errors import GitFailed
from worktrees.model import Audit, Baseline, ChangeSet, FileChange, Finding, JobId, Oid
from worktrees.store import read_json, write_json


@pytest.fixture
def bench(repo: RepoKit, tmp_path: Path) -> Bench:
    """A primed workspace of the sample repository."""
    return Bench(repo, tmp_path / "ws", tmp_path / "records").open()


# ---------------------------------------------------------------------------------------------------- any two trees
NAMES = [
    b"a",
    b"b",
    b"B",
    b"d/a",
    b"d/b",
    b"d/e/a",
    b"d/e/b",
    b"f",
    b"f/a",
    b"f/a/b",
    b"n\nl",
    b"\xff",
    b" s",
    "é".encode(),
]
CONTENTS = st.sampled_from([b"", b"x", b"x\n", b"a\nb\nc\nd\ne\nf\n", b"a\nb\nc\nd\ne\ng\n", b"\0\1", b"\r\n", b"*\n"])
FILES = st.tuples(st.sampled_from(["100644", "100755", "120000"]), CONTENTS)
Tree = dict[bytes, tuple[str, bytes]]


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Files of which none stands where another needs a directory; a symlink points somewhere."""
    tree: Tree = {}
    for path in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=9)):
        if not any(path.startswith(other + b"/") or other.startswith(path + b"/") for other in tree):
            mode, content = draw(FILES)
            tree[path] = (mode, content.replace(b"\0", b"0") or b"to") if mode == "120000" else (mode, content)
    return tree


def bring(top: Path, tree: Tree) -> None:
    """Makes a directory hold exactly these files, and does not touch those that are right already."""
    now = walked(top)
    root = os.fsencode(top)
    for path in now.keys() - {path for path, value in tree.items() if now.get(path) == value}:
        os.unlink(os.path.join(root, path))
        with contextlib.suppress(OSError):
            os.removedirs(os.path.dirname(os.path.join(root, path)))
    for path, (mode, content) in tree.items():
        place = os.path.join(root, path)
        if now.get(path) == (mode, content):
            continue
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if mode == "120000":
            os.symlink(content, place)
        else:
            with open(place, "wb") as file:
                file.write(content)
            os.chmod(place, 0o755 if mode == "100755" else 0o644)


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def differences(one: Tree, other: Tree) -> dict[bytes, tuple[str | None, ...]]:
    """Path to mode and oid before, mode and oid after."""
    found = {}
    for path in one.keys() | other.keys():
        if one.get(path) != other.get(path):
            sides = [tree.get(path) for tree in (one, other)]
            found[path] = tuple(word for side in sides for word in ((side[0], blob(side[1])) if side else (None, None)))
    return found


def told(changed: ChangeSet) -> dict[bytes, tuple[str | None, ...]]:
    """The same of a change set, renames and copies taken apart."""
    found: dict[bytes, tuple[str | None, ...]] = {}
    for file in changed.files:
        if file.status in "RC":
            found[file.raw] = (None, None, file.new_mode, file.new_oid)
            if file.status == "R":
                found[file.raw_paths[1]] = (file.old_mode, file.old_oid, None, None)
        else:
            found[file.raw] = (file.old_mode, file.old_oid, file.new_mode, file.new_oid)
    return found


NUMBER = itertools.count()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=trees(), after=trees(), live=st.booleans())
def test_any_two_trees_differ_as_a_walk_says(
    make_repo: Callable[[str], RepoKit], tmp_path: Path, before: Tree, after: Tree, *, live: bool
) -> None:
    number = next(NUMBER)
    repo = make_repo("trees") if not (tmp_path / "trees").exists() else RepoKit(tmp_path / "trees")
    bring(repo.path, before)
    repo.commit("before")
    bench = Bench(repo, tmp_path / f"ws{number}", tmp_path / f"records{number}").open()
    assert walked(bench.path) == before
    bring(bench.path, after)
    changed = bench.change_set(live=live)
    assert walked(bench.path) == after
    assert bench.recorded(changed.snapshot) == after
    assert told(changed) == differences(before, after)


PATTERNS = st.sampled_from(
    ["a", "*.x", "/a", "b/", "d/a", "**/b", "d/**", "!a", "!b/", "!*.x", "*", "!/d/", "a\\ ", "a  ", "\\!q", "\\#q",
     "#a", "[ab]", "?", "!d/e/", "d/*/a", "/", "", "e/a\r", "!"]
)  # fmt: skip
RULES = st.dictionaries(st.sampled_from(["", "d", "d/e", "[d]", "b"]), st.lists(PATTERNS, max_size=4), max_size=4)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=RULES)
def test_joined_rules_ignore_what_gits_own_do(tmp_path: Path, rules: dict[str, list[str]]) -> None:
    top = tmp_path / f"rules{next(NUMBER)}"
    for directory in ("", "d", "d/e", "d/e/b", "[d]", "b", "q"):
        (top / directory).mkdir(parents=True, exist_ok=True)
        for name in ("a", "b.x", "c", "a ", "!q", "#q"):
            (top / directory / name).touch()
    files = []
    for directory, patterns in rules.items():
        content = "\n".join(patterns).encode()
        (top / directory / ".gitignore").write_bytes(content)
        files.append((os.fsencode(os.path.join(directory, ".gitignore")), content))
    (tmp_path / "joined").write_bytes(joined(files))

    def others(*words: str) -> bytes:
        command = ["git", f"--work-tree={top}", f"--git-dir={tmp_path / 'g'}", "ls-files", "--others", *words]
        return subprocess.run(command, cwd=top, capture_output=True, check=True).stdout

    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "g"], check=True)
    assert others(f"--exclude-from={tmp_path / 'joined'}") == others("--exclude-per-directory=.gitignore")


# ---------------------------------------------------------------------------------------------------- repositories
EDITS = "echo x >> src/app.py; rm docs/guide.md; mv src/util.py src/tools.py; echo new > new; chmod +x README.md"
EDITED = {"src/app.py": "M", "docs/guide.md": "D", "src/tools.py": "R", "new": "A", "README.md": "M"}


def kind_sha256(path: Path) -> RepoKit:
    path.mkdir()
    kit = RepoKit(path)
    kit.git("init", "--quiet", "--object-format=sha256", "--initial-branch=main")
    return kit


def filled(kit: RepoKit) -> RepoKit:
    kit.write("README.md", "readme\n")
    kit.write("src/app.py", "".join(f"line {number}\n" for number in range(30)))
    kit.write("src/util.py", "def add(a, b):\n    return a + b\n")
    kit.write("docs/guide.md", "guide\n")
    kit.commit("first")
    return kit


def kind_partial(path: Path) -> RepoKit:
    origin = filled(RepoKit.make(path.with_name("origin")))
    origin.git("config", "uploadpack.allowFilter", "true")
    origin.git("clone", "--quiet", "--filter=blob:none", f"file://{origin.path}", path)
    return RepoKit(path)


def kind_configured(path: Path, *settings: tuple[str, str]) -> RepoKit:
    kit = filled(RepoKit.make(path))
    for name, value in settings:
        kit.git("config", name, value)
    return kit


KINDS: dict[str, Callable[[Path], RepoKit]] = {
    "plain": lambda path: filled(RepoKit.make(path)),
    "sha256": lambda path: filled(kind_sha256(path)),
    "partial clone": kind_partial,
    "split index": lambda path: kind_configured(
        path, ("core.splitIndex", "true"), ("splitIndex.maxPercentChange", "0")
    ),
    "index v4": lambda path: kind_configured(path, ("index.version", "4")),
    "many files": lambda path: kind_configured(path, ("feature.manyFiles", "true")),
    "autocrlf": lambda path: kind_configured(path, ("core.autocrlf", "input"), ("core.safecrlf", "true")),
    "worktree configuration": lambda path: kind_configured(path, ("extensions.worktreeConfig", "true")),
}


@pytest.mark.parametrize("primed", ["seed", "no seed", "not primed"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_repository_gives_the_same_answers(tmp_path: Path, kind: str, primed: str) -> None:
    bench = Bench(KINDS[kind](tmp_path / "repo"), tmp_path / "ws", tmp_path / "records").open(seed=primed == "seed")
    if primed == "not primed":
        bench.index.unlink()
    bench.worker(EDITS)
    assert bench.statuses(live=True) == EDITED
    assert bench.statuses() == EDITED
    assert bench.recorded(bench.store.git("rev-parse", REF).text) == walked(bench.path)
    bench.kit.assert_sound()


def test_a_sparse_checkout_loses_nothing(repo: RepoKit, tmp_path: Path) -> None:
    bench = Bench(repo, tmp_path / "ws", tmp_path / "records").open()
    bench.worker("git sparse-checkout set --sparse-index docs")
    assert not (bench.path / "src").exists()
    bench.prime()
    assert bench.statuses() == {}
    bench.worker("echo x >> docs/guide.md; mkdir src; echo mine > src/app.py; echo new > src/new.py; rm tool.sh")
    assert bench.statuses() == {"docs/guide.md": "M", "src/app.py": "M", "src/new.py": "A", "tool.sh": "D"}


def test_a_dirty_baseline_is_not_the_workers(repo: RepoKit, tmp_path: Path) -> None:
    repo.write("README.md", "boss's edit\n")
    repo.write("untracked.txt", "boss's file\n")
    repo.git("add", "--all")
    tree = repo.text("write-tree")
    bench = Bench(repo, tmp_path / "ws", tmp_path / "records")
    snapshot = bench.store.commit(Oid(tree), [bench.baseline.commit], "dirty")
    bench.baseline = Baseline(commit=bench.baseline.commit, snapshot=snapshot)
    repo.git("worktree", "add", "--quiet", "--detach", bench.path)
    bench.write("README.md", "boss's edit\n")
    bench.write("untracked.txt", "boss's file\n")
    bench.prime()
    assert bench.statuses() == {}
    bench.worker("echo worker >> README.md; echo x >> src/app.py")
    assert bench.statuses() == {"README.md": "M", "src/app.py": "M"}
    bench.worker("git checkout --quiet HEAD -- . && rm untracked.txt")
    assert bench.statuses() == {"README.md": "M", "untracked.txt": "D"}


def next_second(since: float) -> None:
    """Waits for the clock, since git compares whole seconds."""
    eventually(lambda: int(time.time()) > int(since), what="the next second")


@pytest.mark.parametrize("later", [False, True], ids=["in the same second", "later"])
def test_content_replaced_with_its_time_put_back_is_seen(bench: Bench, *, later: bool) -> None:
    file = bench.path / "src/app.py"
    before = file.stat()
    if later:
        # An index younger than the file, so that git takes the word of the stat data for it.
        next_second(before.st_ctime)
        bench.worker("git read-tree HEAD; git update-index --refresh")
        bench.prime()
    with file.open("r+b") as stream:
        stream.write(b"LINE")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    next_second(file.stat().st_ctime)
    assert bench.statuses(live=True) == {"src/app.py": "M"}
    assert bench.statuses() == {"src/app.py": "M"}


def test_flags_in_an_adopted_worktree_hide_nothing(repo: RepoKit, tmp_path: Path) -> None:
    bench = Bench(repo, tmp_path / "ws", tmp_path / "records").open()
    bench.worker("git update-index --assume-unchanged src/app.py; echo x >> src/app.py; echo new > new; git add -N new")
    bench.prime()
    assert bench.statuses() == {"src/app.py": "M"}
    bench.worker("echo more >> new")
    assert bench.statuses() == {"src/app.py": "M", "new": "A"}


# ---------------------------------------------------------------------------------------------------- submodules
@pytest.fixture
def with_submodule(make_repo: Callable[[str], RepoKit], tmp_path: Path) -> Bench:
    """A workspace with two submodules, of which `lib` is checked out and `idle` is not."""
    inner, repo = make_repo("inner"), make_repo("outer")
    for name in ("lib", "idle"):
        repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", inner.path, name)
    repo.commit("submodules")
    bench = Bench(repo, tmp_path / "ws", tmp_path / "records").open()
    bench.worker("git -c protocol.file.allow=always submodule --quiet update --init lib")
    return bench.prime()


def test_submodules_left_alone_are_no_change(with_submodule: Bench) -> None:
    with_submodule.worker("echo x > new; git -C lib status")
    changed = with_submodule.change_set()
    assert [file.path for file in changed.files] == ["new"]
    assert changed.verified


def test_a_submodule_that_moved_is_a_change(with_submodule: Bench) -> None:
    with_submodule.worker("git -C lib checkout --quiet HEAD~1")
    changed = with_submodule.change_set()
    (file,) = changed.files
    assert (file.path, file.status, file.old_mode, file.new_mode) == ("lib", "M", "160000", "160000")
    assert file.new_oid == RepoKit(with_submodule.path / "lib").head()
    assert (codes(changed.audit), changed.verified) == ({"submodule-moved"}, True)


@pytest.mark.parametrize(
    "script",
    [
        "echo x >> lib/README.md",
        "echo x > lib/new",
        "cd lib; git commit --quiet --allow-empty -m x",
        "rm lib/src/app.py",
    ],
)
def test_what_a_submodule_alone_holds_is_not_verified(with_submodule: Bench, script: str) -> None:
    with_submodule.worker(script)
    _, scan = with_submodule.capture()
    assert "submodule-edited" in codes(scan)
    assert not scan.verified


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("rm -rf lib", {"lib": "D"}),
        ("rm -rf idle; echo x > idle", {"idle": "T"}),
        ("rm -rf lib; ln -s src lib", {"lib": "T"}),
        ("rmdir idle; mkdir idle; echo x > idle/x", {"idle": "D", "idle/x": "A"}),
        ("rm -rf lib/* lib/.git lib/.gitignore; echo x > lib/x", {"lib": "D", "lib/x": "A"}),
        ("rm -rf lib/* lib/.git lib/.gitignore", {}),
    ],
)
def test_what_takes_a_submodules_place_is_captured(
    with_submodule: Bench, script: str, expected: dict[str, str]
) -> None:
    with_submodule.worker(script)
    assert with_submodule.statuses() == expected


def test_a_submodules_configuration_is_never_obeyed(with_submodule: Bench) -> None:
    with_submodule.worker("""
        printf '#!/bin/sh\\necho ran >> "$HOME/canary"\\n' > $HOME/evil; chmod +x $HOME/evil
        git -C lib config core.fsmonitor $HOME/evil
        git -C lib config filter.e.clean $HOME/evil; echo '* filter=e' > lib/.gitattributes
        git config -f .gitmodules submodule.lib.ignore none
        rm -f $HOME/canary; echo x >> lib/README.md
    """)
    canary = Path(os.environ["HOME"]) / "canary"
    audit = with_submodule.audit()
    assert "submodule-edited" in codes(with_submodule.capture()[1])
    assert not canary.exists()
    assert audit.clean  # the repository of a submodule of this worktree belongs to the worktree


# ---------------------------------------------------------------------------------------------------- ordinary users
def test_what_its_owner_cannot_read_is_made_readable(common_ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = at_home(common_ground, monkeypatch)

    def act() -> None:
        bench = Bench(RepoKit.make(home / "repo"), home / "ws", home / "records").open()
        bench.worker("""
            echo u > u; chmod 000 u; mkdir ud uw ux; echo f > ud/f; echo f > uw/f; echo f > ux/f
            chmod 000 ud src; chmod 300 uw; chmod 600 ux; chmod 000 README.md
            echo two > two; ln two $HOME/second; chmod 000 two
        """)
        live = bench.change_set(live=True)
        assert {file.path: file.status for file in live.files} == {}
        assert not live.verified
        assert {finding.path for finding in live.audit.findings} == {
            "u",
            "ud/",
            "uw/",
            "ux/",
            "src/",
            "README.md",
            "two",
        }
        assert {finding.code for finding in live.audit.findings} == {"unreadable"}
        assert stat.S_IMODE(os.stat(bench.path / "u").st_mode) == 0

        changed = bench.change_set()
        assert {file.path: file.status for file in changed.files} == {"u": "A", "ud/f": "A", "uw/f": "A", "ux/f": "A"}
        assert {finding.path for finding in changed.audit.findings if finding.code == "unreadable"} == {"two"}
        assert codes(changed.audit) == {"unreadable", "made-readable"}
        assert not changed.verified
        os.chmod(bench.path / "two", 0o644)
        assert bench.recorded(bench.capture()[0]) == walked(bench.path)

        before = bench.before["files"]["config"]
        os.chmod(bench.repo.common_dir / "config", 0)
        assert bench.audit().quarantine
        os.chmod(bench.repo.common_dir / "config", stat.S_IMODE(before[0]))

    as_ordinary_user(act)


# ---------------------------------------------------------------------------------------------------- the store
def test_capturing_again_gives_the_same_tree_and_leaves_nothing(bench: Bench) -> None:
    bench.worker("echo x >> src/app.py; echo new > new")
    (bench.records / ".desk-999999-dead").mkdir()
    first, second = bench.capture()[0], bench.capture()[0]
    trees = {bench.store.git("rev-parse", f"{oid}^{{tree}}").text for oid in (first, second)}
    assert len(trees) == 1
    assert sorted(os.listdir(bench.records)) == ["index", "index.after", "index.json"]
    assert bench.store.git("rev-parse", f"{first}^").text == bench.baseline.commit
    assert bench.store.refs("refs/") == {REF: second}


def test_the_users_repository_is_only_read(bench: Bench) -> None:
    bench.worker(
        "echo x >> src/app.py; echo new > new; mkdir build; echo b > build/b; git init --quiet nest; echo n > nest/n"
    )
    before = bench.kit.fingerprint()
    objects = sorted((bench.repo.common_dir / "objects").rglob("*"))
    _, scan = bench.capture()
    changes.keep_ignored(bench.store, bench.path, scan.ignored, ref=REF, job=JOB, limit_bytes=1000)
    assert bench.kit.fingerprint() == before
    assert sorted((bench.repo.common_dir / "objects").rglob("*")) == objects


def test_a_store_that_cannot_be_written_names_nothing(bench: Bench) -> None:
    bench.worker("echo new > new")
    objects = bench.store.path / "objects"
    moved = objects.rename(objects.with_name("away"))
    objects.write_text("in the way")
    with pytest.raises(GitFailed):
        bench.capture()
    objects.unlink()
    moved.rename(objects)
    assert bench.store.refs("refs/") == {}
    assert bench.statuses() == {"new": "A"}


def test_the_store_adopts_what_only_the_user_holds(repo: RepoKit, tmp_path: Path) -> None:
    bench = Bench(repo, tmp_path / "ws", tmp_path / "records")
    repo.write("d/staged", "staged once\n")
    repo.git("add", "--all")
    tree = Oid(repo.text("write-tree"))
    repo.git("reset", "--quiet", "--hard")
    commit = bench.store.commit(tree, [bench.baseline.commit], "borrowed")
    alone = bench.store.commit(tree, [], "borrowed, all of it")
    bench.store.adopt(commit, bench.baseline.commit)
    bench.store.adopt(alone, None)
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--quiet", "--prune=now")
    assert bench.recorded(commit)[b"d/staged"] == ("100644", b"staged once\n")
    (bench.store.path / "objects/info/alternates").unlink()
    assert bench.recorded(alone)[b"README.md"][1].startswith(b"# sample")
    packs = len(list((bench.store.path / "objects/pack").iterdir()))
    bench.store.adopt(bench.store.commit(tree, [], "again"), None)
    assert len(list((bench.store.path / "objects/pack").iterdir())) <= packs + 3


GC_LOOP = """
cd "$MAIN"
while test -e "$GO"; do
  git gc --quiet --prune=now || :
  git prune --expire=now || :
done
"""


def gc_race(bench: Bench, rounds: int) -> None:
    """Snapshots of what is in the user's repository too, but unreachable, while its gc throws away all it can."""
    go = bench.records / "go"
    go.touch()
    environment = {**os.environ, "MAIN": str(bench.kit.path), "GO": str(go)}
    snapshots = []
    with subprocess.Popen(["sh", "-c", GC_LOOP], env=environment, stderr=subprocess.DEVNULL) as loop:
        try:
            for number in range(rounds):
                bench.worker(f"echo {number} > n; mkdir -p d; echo {number} > d/m; echo {number} >> src/app.py")
                # Unreachable objects in the user's repository; the loop may take them from under git itself.
                with contextlib.suppress(AssertionError):
                    bench.worker("export GIT_INDEX_FILE=$HOME/index; git add --all; git write-tree")
                snapshots.append(bench.capture()[0])
            assert loop.poll() is None
        finally:
            go.unlink()
    bench.kit.git("gc", "--quiet", "--prune=now")
    for number, snapshot in enumerate(snapshots):
        recorded = bench.recorded(snapshot)
        assert recorded[b"n"] == recorded[b"d/m"] == ("100644", b"%d\n" % number)
        assert recorded[b"src/app.py"][1].endswith(b"line 30\n" + b"".join(b"%d\n" % n for n in range(number + 1)))
    bench.store.git("fsck", "--connectivity-only")


def test_snapshots_survive_the_users_gc(bench: Bench) -> None:
    gc_race(bench, 12)


@pytest.mark.torture
def test_a_thousand_snapshots_survive_the_users_gc(bench: Bench) -> None:
    gc_race(bench, 1000)


# ---------------------------------------------------------------------------------------------------- ignored files
def test_ignored_files_are_kept_byte_for_byte_while_the_limit_lasts(bench: Bench) -> None:
    bench.worker("""
        echo '* text=auto' > .gitattributes
        printf 'a\\r\\n' > a.log; mkdir -p build/sub; echo b > build/sub/b; ln -s /etc build/link; mkfifo build/p
        git init --quiet build/repo; echo r > build/repo/r; head -c 500000 /dev/zero > big.log
        echo z > z.log; chmod +x z.log; echo staged > staged.log; git add -f staged.log
    """)
    _, scan = bench.capture()
    kept = changes.keep_ignored(bench.store, bench.path, scan.ignored, ref=REF, job=JOB, limit_bytes=400_000)
    assert {item.path: item.kept for item in kept} == {
        "a.log": True, "big.log": False, "build/": True, "staged.log": True, "z.log": True,
        "build/repo/.git": False, "build/p": False,
    }  # fmt: skip
    assert bench.recorded(f"{REF}-ignored") == {
        b"a.log": ("100644", b"a\r\n"), b"build/sub/b": ("100644", b"b\n"), b"build/link": ("120000", b"/etc"),
        b"z.log": ("100755", b"z\n"), b"staged.log": ("100644", b"staged\n"), b"build/repo/r": ("100644", b"r\n"),
    }  # fmt: skip


def test_nothing_ignored_keeps_nothing(bench: Bench) -> None:
    assert changes.keep_ignored(bench.store, bench.path, [], ref=REF, job=JOB, limit_bytes=10) == []
    assert bench.store.refs("refs/") == {}


# ---------------------------------------------------------------------------------------------------- audit
def test_nothing_done_is_nothing_found(bench: Bench) -> None:
    bench.worker("git status; git diff; git log; git stash list; git add README.md; echo x >> README.md; git add -A")
    assert bench.audit() == Audit(clean=True, quarantine=False, findings=[])


@pytest.mark.parametrize(
    ("addition", "damage"),
    [
        ('[branch "x"]\n\tremote = origin\n\tmerge = refs/heads/x\n', False),
        ('[branch "x"]\n\tremote = ../evil\n', True),
        ('[branch "x"]\n\tmergeOptions = -s evil\n', True),
        ('[branch "x"]\n\tremote = origin \\\n[core]\n', True),
        ('[branch "x"] fsmonitor = evil\n', True),
        ("[core]\n\tfsmonitor = evil\n", True),
        ("[core] fsmonitor = evil\n", True),
        ('[branch "x"]\n\tremote = a\n[include]\n\tpath = evil\n', True),
        ('[branch "x\\"]\n[core] # "]\n\tfsmonitor = evil\n', True),
        ("# only a comment\n", True),
    ],
)
def test_configuration_is_harmless_only_where_it_is_plain(bench: Bench, addition: str, *, damage: bool) -> None:
    bench.kit.broken_on_purpose = True
    with open(bench.repo.common_dir / "config", "a") as file:
        file.write(addition)
    audit = bench.audit()
    assert (codes(audit), audit.quarantine) == ({"config-changed"}, damage)


def test_names_of_any_bytes_are_recorded(bench: Bench, tmp_path: Path) -> None:
    odd = os.fsdecode(b"od\xffd")
    bench.write(os.path.join(bench.repo.common_dir, "hooks", odd), "x")
    bench.kit.git("update-ref", b"refs/heads/od\xfed", "HEAD")
    bench.kit.write(odd, "boss's\n")
    record = {
        **changes.fingerprint(bench.repo, bench.path, bench.admin),
        "checkout": changes.checkout_fingerprint(bench.repo),
    }
    write_json(tmp_path / "fingerprint.json", record)
    bench.before = read_json(tmp_path / "fingerprint.json") or {}
    assert bench.audit().clean
    assert changes.outside_edits(bench.repo, bench.before["checkout"]) == []
    bench.worker("""
        echo y >> "$(printf "$GD/hooks/od\\377d")"; echo y >> "$(printf "$MAIN/od\\377d")"
        git update-ref -d "$(printf 'refs/heads/od\\376d')"
    """)
    audit = bench.audit()
    assert {finding.path for finding in audit.findings} == {"hooks/od\\xffd", "refs/heads/od\\xfed"}
    found = changes.outside_edits(bench.repo, bench.before["checkout"])
    assert [finding.path for finding in found] == ["od\\xffd"]


def test_who_settles_may_have_another_home(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        patch.delenv("GIT_CONFIG_GLOBAL")
        patch.delenv("XDG_CONFIG_HOME")
        assert bench.audit().clean


def test_many_refs_are_one_digest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["worktrees.changes.audit"], "_MOST_REFS", 2)
        bench.before = changes.fingerprint(bench.repo, bench.path, bench.admin)
        assert bench.audit().clean
        bench.kit.git("update-ref", "refs/wt/w/other", "HEAD")
        assert bench.audit().clean
    assert bench.audit().clean
    bench.kit.git("tag", "new")
    assert codes(bench.audit()) == {"refs-moved"}


def test_the_boss_may_stand_in_a_linked_worktree(repo: RepoKit, tmp_path: Path) -> None:
    repo.git("worktree", "add", "--quiet", "-b", "boss", tmp_path / "boss")
    bench = Bench(RepoKit(tmp_path / "boss"), tmp_path / "ws", tmp_path / "records").open()
    bench.worker("git -C $MAIN commit --quiet --allow-empty -m x")
    assert codes(bench.audit()) == {"boss-head-moved"}
    bench.worker("git -C $MAIN switch --quiet -c elsewhere")
    assert {finding.path for finding in bench.audit().findings if finding.code == "boss-head-moved"} == {
        "refs/heads/boss", "worktrees/boss/HEAD",
    }  # fmt: skip


def test_a_removed_worktree_entry_is_damage(bench: Bench) -> None:
    bench.worker("rm -r $GD/worktrees/ws")
    audit = bench.audit()
    assert audit.quarantine
    assert {"admin-changed", "worker-committed"} <= codes(audit)
    bench.worker("echo new > new")
    assert bench.statuses() == {"new": "A"}


def test_worktrees_of_others_come_and_go(bench: Bench, tmp_path: Path) -> None:
    bench.kit.git("worktree", "add", "--quiet", "--detach", tmp_path / "one")
    bench.before = changes.fingerprint(bench.repo, bench.path, bench.admin)
    bench.kit.git("worktree", "add", "--quiet", "--detach", tmp_path / "two")
    bench.kit.git("worktree", "remove", tmp_path / "one")
    assert bench.audit().clean


def test_worktrees_in_the_making_are_nobodys_damage(bench: Bench) -> None:
    entry = bench.repo.common_dir / "worktrees/j-other222"
    entry.mkdir()
    (entry / "gitdir").touch()
    bench.before = changes.fingerprint(bench.repo, bench.path, bench.admin)
    for name, content in (("gitdir", "/x/.git"), ("commondir", "../.."), ("HEAD", "0" * 40), ("locked", "wt")):
        (entry / name).write_text(content)
    assert bench.audit().clean
    bench.before = changes.fingerprint(bench.repo, bench.path, bench.admin)
    (entry / "HEAD").write_text(bench.kit.head())
    assert bench.audit().clean
    for name in ("commondir", "HEAD", "locked", "gitdir"):
        (entry / name).unlink()
        assert bench.audit().clean
    entry.rmdir()


@pytest.mark.parametrize("file", ["gitdir", "commondir", "config.worktree"])
def test_a_worktree_of_another_led_elsewhere_is_damage(bench: Bench, tmp_path: Path, file: str) -> None:
    bench.kit.git("worktree", "add", "--quiet", "--detach", tmp_path / "one")
    bench.before = changes.fingerprint(bench.repo, bench.path, bench.admin)
    place = bench.repo.common_dir / "worktrees/one" / file
    was = place.read_text() if place.exists() else None
    place.write_text("/elsewhere\n")
    assert codes(bench.audit()) == {"admin-changed"}
    assert bench.audit().quarantine
    place.unlink() if was is None else place.write_text(was)


# ---------------------------------------------------------------------------------------------------- change sets
def change(path: str, status: str = "M", old: str | None = None) -> FileChange:
    return FileChange(path=path, status=status, old_path=old)  # type: ignore[arg-type]


def of(job: str, *files: FileChange) -> ChangeSet:
    return ChangeSet(job_id=JobId(job), base=Oid("0" * 40), snapshot=Oid("1" * 40), files=list(files))


def test_overlaps_are_paths_two_change_sets_touch() -> None:
    found = changes.overlaps(
        [
            of(
                "a",
                change("same"),
                change("only"),
                change("new", "R", "old"),
                change("dir"),
                change("copy", "C", "source"),
            ),
            of("b", change("same", "D"), change("old"), change("dir/x/y", "A"), change("from"), change("dirx")),
            of("c", change("same"), change("sub/only")),
        ]
    )
    assert [(overlap.path, overlap.jobs, overlap.conflict) for overlap in found] == [
        ("dir", ["a", "b"], None),
        ("old", ["a", "b"], None),
        ("same", ["a", "b"], None),
        ("same", ["a", "c"], None),
        ("same", ["b", "c"], None),
    ]


def test_a_job_does_not_overlap_itself() -> None:
    assert changes.overlaps([of("a", change("d", "A"), change("d/x", "D"))]) == []


def test_findings_of_audit_and_scan_are_one_list(bench: Bench) -> None:
    bench.worker("mkfifo p")
    audit = Audit(clean=False, quarantine=True, findings=[Finding(code="config-changed", message="m")])
    changed = bench.change_set(audit=audit)
    assert [finding.code for finding in changed.audit.findings] == ["config-changed", "special-file"]
    assert (changed.audit.quarantine, changed.audit.clean, changed.verified) == (True, False, False)


def test_renames_and_copies_are_gits(bench: Bench) -> None:
    bench.worker("cp src/app.py src/copy.py; echo x >> src/app.py; mv docs/guide.md g; echo x >> tool.sh; mv tool.sh t")
    changed = bench.change_set()
    told = {file.path: (file.status, file.old_path) for file in changed.files}
    git = bench.store.git("diff-tree", "-r", "-z", "--name-status", "-M", "-C", changed.base, changed.snapshot).records
    fields, expected = iter(git), {}
    for status in fields:
        first = next(fields).decode()
        pair = (next(fields).decode(), first) if status[:1] in b"RC" else (first, None)
        expected[pair[0]] = (status[:1].decode(), pair[1])
    assert told == expected
    assert told["src/copy.py"] == ("C", "src/app.py")


def test_attributes_of_the_tree_hide_no_counts(bench: Bench) -> None:
    bench.worker("printf '* binary\\n* -diff\\n' > .gitattributes; echo x >> src/app.py")
    (file,) = [file for file in bench.change_set().files if file.path == "src/app.py"]
    assert (file.additions, file.deletions, file.binary) == (1, 0, False)


def test_large_files_go_where_the_user_keeps_them(repo: RepoKit, tmp_path: Path) -> None:
    # A stand-in for the large-file program: it leaves a pointer and says where it would store the content.
    program = tmp_path / "lfs"
    program.write_text("#!/bin/sh\nprintf 'pointer %s\\n' \"$(wc -c)\"; git config lfs.storage >> $HOME/stored\n")
    program.chmod(0o755)
    repo.git("config", "filter.lfs.clean", str(program))
    repo.write(".gitattributes", "*.big filter=lfs -text\n")
    repo.commit("large files")
    bench = Bench(repo, tmp_path / "ws", tmp_path / "records").open()
    bench.worker("head -c 5000 /dev/zero > a.big")
    assert bench.recorded(bench.capture()[0])[b"a.big"] == ("100644", b"pointer 5000\n")
    assert set((Path.home() / "stored").read_text().split()) == {str(bench.repo.common_dir / "lfs")}


# ---------------------------------------------------------------------------------------------------- words
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("I changed `a.py` and b.py.", None),
        ('["a", "b", "a"]', ["a", "b"]),
        ('{"modifiedFiles": ["a"]}', ["a"]),
        ('{"files": [{"path": "a", "why": "x"}, "b"]}', ["a", "b"]),
        ('{"modifiedFiles": []}', []),
        ("text\n```json\n[\"a\"]\n```\nmore\n```\n['not json']\n```\n", ["a"]),
        ('```json\n["old"]\n```\n```json\n{"files": ["new"]}\n```', ["new"]),
        ('Done.\n{"files": ["last"]}\n', ["last"]),
        ("```\n[1, 2]\n```", None),
        ('{"files": "a"}', None),
        ('{"other": ["a"]}', None),
        ("[" * 100_000, None),
        ('  ```json\n  ["indented"]\n  ```', ["indented"]),
        ('```json\n["unclosed"]', ["unclosed"]),
    ],
)
def test_claims_are_json_and_nothing_else(text: str, expected: list[str] | None) -> None:
    assert changes.reported_files(text) == expected


@pytest.mark.parametrize(
    "path",
    [".gitattributes", "sub/.gitattributes", ".gitmodules", ".gitlab-ci.yml", ".GitHub/workflows/x.yml", ".wt.toml",
     "AGENTS.md", "pkg/CLAUDE.md", ".claude/settings.json", ".codex/config.toml", ".cursor/rules/a.mdc", ".envrc",
     ".vscode/tasks.json", ".idea/x.iml", "hooks/pre-push", "a/hooks/b/post-merge", ".husky/pre-commit", "Jenkinsfile",
     ".pre-commit-config.yaml", ".githooks/anything"],
)  # fmt: skip
def test_sensitive(path: str) -> None:
    assert changes.is_sensitive(path.encode())


@pytest.mark.parametrize(
    "path",
    ["README.md", ".gitignore", "a/.gitkeep", "src/hooks/useState.ts", "Makefile", "github/x", "agents.mdx", "update"],
)
def test_not_sensitive(path: str) -> None:
    assert not changes.is_sensitive(path.encode())


def test_limits_of_nothing_are_no_limits(repo: RepoKit, tmp_path: Path) -> None:
    unlimited = Settings(max_files=0, max_bytes=0, max_depth=0)
    bench = Bench(repo, tmp_path / "ws", tmp_path / "records", unlimited).open()
    bench.worker(
        "for n in 1 2 3; do echo $n > $n; done; d=x; for n in $(seq 250); do d=$d/x; done; mkdir -p $d; echo > $d/f"
    )
    changed = bench.change_set()
    assert (len(changed.files), changed.verified) == (4, True)
