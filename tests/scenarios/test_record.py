"""The record of changes: what a worker really did, whatever it did to git (s14, s15, s31).

Every test ends in the same comparison: what the snapshot holds against what system calls say is in the workspace.
"""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.changing import JOB, REF, Actor, Bench, at_home, codes, walked
from tests.kit import RepoKit, Wt
from worktrees import changes
from worktrees.config import Settings
from worktrees.model import FileChange
from worktrees.store import State


class Case(NamedTuple):
    """A row of a table below: what the worker does, and what is to be found."""

    script: str
    found: list[str]

    def told(self, words: str) -> dict[str, str]:
        """What is found after one of these words, with the word."""
        pairs = (line.split(" ", 1) for line in self.found)
        return {rest: word for word, rest in pairs if word in words.split()}


def cases(text: str) -> dict[str, Case]:
    """Tables are shell scripts: `== name`, the script's lines, and `=> finding` for each that must be there."""
    found = {}
    for block in text.split("\n== ")[1:]:
        name, *lines = block.rstrip().split("\n")
        script = "\n".join(line for line in lines if not line.startswith("=> "))
        found[name] = Case(script, [line[3:] for line in lines if line.startswith("=> ")])
    return found


@pytest.fixture
def bench(repo: RepoKit, tmp_path: Path) -> Bench:
    """A primed workspace of the sample repository."""
    return Bench(repo, tmp_path / "ws", tmp_path / "records").open()


WHO = ("whoever runs the tests", "an ordinary user")


@pytest.fixture(params=WHO)
def actor(
    request: pytest.FixtureRequest, tmp_path: Path, common_ground: Path, monkeypatch: pytest.MonkeyPatch
) -> Actor:
    """Each of the two who may be a boss."""
    if request.param == WHO[0]:
        return Actor(tmp_path, ordinary=False)
    if os.geteuid() != 0:
        pytest.skip("whoever runs the tests is an ordinary user already")
    return Actor(at_home(common_ground, monkeypatch), ordinary=True)


def opened(top: Path, settings: Settings | None = None) -> Bench:
    """A primed workspace of a sample repository below a directory."""
    kit = RepoKit.make(top / "repo")
    return Bench(kit, top / "ws", top / "records", settings or Settings()).open()


def assert_exact(bench: Bench, commit: str, but: frozenset[bytes] = frozenset()) -> None:
    """The snapshot holds every file there is, `but` these."""
    there = {path: value for path, value in walked(bench.path).items() if path not in but}
    assert bench.recorded(commit) == there


# ---------------------------------------------------------------------------------------------------- s14
def test_s14_every_kind_of_change_is_listed(actor: Actor) -> None:
    def act(top: Path) -> None:
        bench = opened(top)
        bench.worker("""
            printf 'line 0\\n' >> src/app.py
            rm docs/guide.md
            mv src/util.py src/tools.py
            chmod -x tool.sh
            ln -s src/app.py link
            head -c 300 /dev/urandom > blob.bin
            printf 'x\\0y' >> data.bin
            rm README.md; ln -s docs README.md
            mkdir 'a b'; echo space > 'a b/c d'
            echo newline > "$(printf 'new\\nline')"
            echo tab > "$(printf 't\\tab')"
            echo latin > "$(printf 'caf\\351')"
            echo utf8 > café
            echo dash > -rf
            echo quote > '"q"'
            echo colon > ':!x'
            echo star > '*'
            echo x > "$(head -c 255 /dev/zero | tr '\\0' n)"
        """)
        snapshot, scan = bench.capture()
        changed = changes.change_set(bench.store, JOB, bench.baseline.start, snapshot, scan=scan)
        assert_exact(bench, snapshot)
        assert {file.raw: file.status for file in changed.files} == {
            b"src/app.py": "M", b"docs/guide.md": "D", b"src/tools.py": "R", b"tool.sh": "M", b"link": "A",
            b"blob.bin": "A", b"data.bin": "M", b"README.md": "T", b"a b/c d": "A", b"new\nline": "A", b"t\tab": "A",
            b"caf\xe9": "A", "café".encode(): "A", b"-rf": "A", b'"q"': "A", b":!x": "A", b"*": "A", b"n" * 255: "A",
        }  # fmt: skip
        of: dict[bytes, FileChange] = {file.raw: file for file in changed.files}
        assert of[b"src/tools.py"].old_path == "src/util.py"
        assert (of[b"tool.sh"].old_mode, of[b"tool.sh"].new_mode) == ("100755", "100644")
        assert (of[b"README.md"].old_mode, of[b"README.md"].new_mode) == ("100644", "120000")
        assert of[b"link"].new_mode == "120000"
        assert (of[b"src/app.py"].additions, of[b"src/app.py"].deletions, of[b"src/app.py"].binary) == (1, 0, False)
        assert (of[b"data.bin"].additions, of[b"data.bin"].deletions, of[b"data.bin"].binary) == (None, None, True)
        assert (of[b"caf\xe9"].path, of[b"caf\xe9"].path_base64) == ("caf\\xe9", "Y2Fm6Q==")
        assert changed.verified

    actor(act)


def test_s14_claims_are_compared_with_facts(bench: Bench) -> None:
    bench.worker("echo x >> src/app.py; echo y > new.py; mv docs/guide.md docs/manual.md")
    message = 'Done.\n\n```json\n{"modifiedFiles": ["./src/app.py", "src/util.py", "docs/guide.md"]}\n```\nBye.'
    changed = bench.change_set(reported=changes.reported_files(message))
    assert changed.reported == ["./src/app.py", "src/util.py", "docs/guide.md"]
    assert changed.reported_but_untouched == ["src/util.py"]
    assert changed.touched_but_unreported == ["new.py"]


def test_s14_no_claim_is_no_difference(bench: Bench) -> None:
    bench.worker("echo x >> src/app.py")
    changed = bench.change_set(reported=changes.reported_files("I changed src/app.py."))
    assert (changed.reported, changed.reported_but_untouched, changed.touched_but_unreported) == (None, [], [])


HIDING = cases(r"""
== assume-unchanged
git update-index --assume-unchanged src/app.py
echo x >> src/app.py
=> M src/app.py
== skip-worktree
git update-index --skip-worktree src/app.py
echo x >> src/app.py
=> M src/app.py
== commit
echo x >> src/app.py
git commit --quiet --no-verify -am evil
=> M src/app.py
== info/exclude
echo 'evil*' >> $GD/info/exclude
echo x > evil.py
=> A evil.py
== own ignore rule
echo 'evil*' >> .gitignore
echo '*' > src/.gitignore
echo x > evil.py
echo x > src/evil
=> M .gitignore
=> A src/.gitignore
=> A evil.py
=> A src/evil
== ignore rule in a new directory
mkdir deep
printf '*\n' > deep/.gitignore
echo x > deep/evil
=> A deep/.gitignore
=> A deep/evil
== excludes of the user
printf 'evil*\n' > $HOME/ex
git config --global core.excludesFile $HOME/ex
echo x > evil.py
=> A evil.py
== sparse checkout
git sparse-checkout set --no-cone '/docs/' '/*.*'
mkdir -p src
echo evil > src/app.py
=> M src/app.py
=> D src/util.py
== same size and time
cp -p src/app.py $HOME/old
sed -i s/line/LINE/ src/app.py
touch -r $HOME/old src/app.py
=> M src/app.py
== same size and time, settings
git config core.trustctime false
git config core.checkStat minimal
cp -p src/app.py $HOME/old
sed -i s/line/LINE/ src/app.py
touch -r $HOME/old src/app.py
=> M src/app.py
== same size and time, in place
cp -p src/app.py $HOME/old
printf LINE | dd of=src/app.py conv=notrunc status=none
touch -r $HOME/old src/app.py
=> M src/app.py
== core.fileMode=false
git config core.fileMode false
chmod +x src/app.py
=> M src/app.py
== core.symlinks=false
git config core.symlinks false
ln -s src/app.py link
=> A link
== showUntrackedFiles=no
git config status.showUntrackedFiles no
echo x > evil.py
=> A evil.py
== nested repository
git init --quiet sub
echo x > sub/evil.py
git -C sub add -A
git -C sub commit --quiet -m x
=> A sub/evil.py
== nested repository without a commit
git init --quiet sub
echo x > sub/evil.py
=> A sub/evil.py
== nested .git file
mkdir sub
echo 'gitdir: /nonexistent' > sub/.git
echo x > sub/evil
=> A sub/evil
== repository around known files
git init --quiet src
echo x >> src/app.py
=> M src/app.py
== gitlink staged
git init --quiet sub
git -C sub commit --quiet --allow-empty -m x
echo x > sub/evil
git add sub
=> A sub/evil
== replace
git replace HEAD HEAD~1
echo x >> src/app.py
=> M src/app.py
== staged, then removed
echo x > s.py
git add s.py
rm s.py
== staged, then taken back
echo x >> src/app.py
git add -A
git checkout --quiet HEAD -- .
== index removed
rm $GD/worktrees/ws/index
echo x >> src/app.py
=> M src/app.py
== index locked
touch $GD/worktrees/ws/index.lock
echo x >> src/app.py
=> M src/app.py
== fsmonitor that says nothing
git config core.fsmonitor true
git update-index --fsmonitor || true
git update-index --fsmonitor-valid src/app.py || true
echo x >> src/app.py
git fsmonitor--daemon stop || true
=> M src/app.py
== untracked cache
git update-index --force-untracked-cache
git status
echo x > evil.py
=> A evil.py
== .git gone
rm .git
echo x >> src/app.py
=> M src/app.py
== .git a directory
rm .git
git init --quiet
git add -A
git commit --quiet -m x
echo x > e
=> A e
== directory for a file
rm README.md
mkdir README.md
echo x > README.md/x
=> D README.md
=> A README.md/x
== file for a directory
rm -r docs
echo x > docs
=> D docs/guide.md
=> A docs
== symlink for a directory
mv src other
ln -s other src
=> A src
=> R other/app.py
=> R other/util.py
== symlink to the like elsewhere
cp -r docs $HOME/docs
rm -r docs
ln -s $HOME/docs docs
=> A docs
=> D docs/guide.md
== old files moved
mv src lib
=> R lib/app.py
=> R lib/util.py
== empty directory
mkdir empty
""")


@pytest.mark.parametrize("hiding", HIDING)
def test_s14_nothing_hides_a_change(actor: Actor, hiding: str) -> None:
    case = HIDING[hiding]

    def act(top: Path) -> None:
        bench = opened(top)
        bench.worker(case.script)
        snapshot, scan = bench.capture()
        files = changes.change_set(bench.store, JOB, bench.baseline.start, snapshot, scan=scan).files
        assert {file.path: file.status for file in files} == case.told("A M D R T")
        assert_exact(bench, snapshot)
        assert scan.verified

    actor(act)


def test_s14_line_ends_are_gits(actor: Actor) -> None:
    def act(top: Path) -> None:
        bench = opened(top)
        bench.worker(
            "echo '* text=auto' > .gitattributes; printf 'one\\r\\ntwo\\r\\n' > src/util.py;sed -i 's/$/\\r/' README.md"
        )
        snapshot, _ = bench.capture()
        recorded = bench.recorded(snapshot)
        assert recorded[b"src/util.py"] == ("100644", b"one\ntwo\n")
        assert {file.path for file in bench.change_set().files} == {".gitattributes", "src/util.py"}

    actor(act)


def test_s14_ignored_files_are_listed_with_sizes(actor: Actor) -> None:
    def act(top: Path) -> None:
        bench = opened(top)
        bench.worker(
            "mkdir -p build/deep src/build; echo 12345 > build/a; echo 123 > build/deep/b; echo log > src/x.log;"
            "echo > y"
        )
        changed = bench.change_set()
        assert [file.path for file in changed.files] == ["y"]
        assert {(item.path, item.size_bytes) for item in changed.ignored_created} == {("build/", 10), ("src/x.log", 4)}
        assert changed.verified

    actor(act)


def test_s14_what_setup_made_is_not_the_workers(repo: RepoKit, tmp_path: Path) -> None:
    bench = Bench(repo, tmp_path / "ws", tmp_path / "records").open()
    bench.worker(
        "mkdir -p build cache; echo tool > build/tool; echo secret > env.log; ln -s $HOME vendor; echo c > cache/c"
    )
    bench.prime()
    assert bench.change_set().files == []
    assert bench.change_set().ignored_created == []
    bench.worker("echo more >> env.log; echo changed > cache/c; mv build/tool build/tool2")
    changed = bench.change_set()
    assert [file.path for file in changed.files] == ["cache/c"]
    assert {item.path for item in changed.ignored_created} == {"build/", "env.log"}


def test_s14_a_live_look_sees_what_is_there_and_names_nothing(bench: Bench) -> None:
    before = bench.store.refs("refs/wt")
    index = bench.index.read_bytes()
    bench.worker("echo x >> src/app.py; echo y > new")
    assert bench.statuses(live=True) == {"src/app.py": "M", "new": "A"}
    assert (bench.store.refs("refs/wt"), bench.index.read_bytes()) == (before, index)
    bench.worker("git checkout --quiet -- . && rm new")
    assert bench.statuses(live=True) == {}
    assert sorted(os.listdir(bench.records)) == ["index", "index.json"]


def test_s14_a_live_look_survives_a_busy_worker(bench: Bench) -> None:
    script = (
        "while test -e go; do mkdir -p d/e; echo $RANDOM > d/e/f; echo $RANDOM > g; rm -r d; ln -s / d; rm d g; done"
    )
    (bench.path / "go").touch()
    with subprocess.Popen(["bash", "-c", script], cwd=bench.path, stderr=subprocess.DEVNULL) as busy:
        try:
            for _ in range(15):
                assert set(bench.statuses(live=True)) <= {"go", "d", "d/e/f", "g"}
            assert busy.poll() is None
        finally:
            (bench.path / "go").unlink()
    assert_exact(bench, bench.capture()[0])


def test_s14_candidates_are_all_that_is_looked_at(bench: Bench) -> None:
    bench.worker(
        "echo x >> src/app.py; echo y > src/new; echo z > other; rm docs/guide.md; echo > src/l.log; mkdir d; touch d/e"
    )
    snapshot, scan = bench.capture(candidates=[b"src", b"docs/guide.md", b"d", b"gone"])
    changed = changes.change_set(bench.store, JOB, bench.baseline.start, snapshot, scan=scan)
    assert {file.path: file.status for file in changed.files} == {
        "src/app.py": "M", "src/new": "A", "docs/guide.md": "D", "d/e": "A",
    }  # fmt: skip
    assert [item.path for item in changed.ignored_created] == ["src/l.log"]


# ---------------------------------------------------------------------------------------------------- s14: odd content
ODD = cases(r"""
== fifo
mkfifo p
=> ! special-file
== fifo for a file
rm src/app.py
mkfifo src/app.py
=> D src/app.py
=> ! special-file
== upper-case .GIT
mkdir .GIT
echo x > .GIT/config
=> ! git-look-alike
=> lost .GIT/config
== git~1
echo x > git~1
=> ! git-look-alike
=> lost git~1
== HFS .git
d=a/$(printf '.g\xe2\x80\x8cit')
mkdir -p $d
echo x > $d/config
=> ! git-look-alike
=> lost a/.g‌it/config
== NTFS stream
echo x > '.git::$INDEX_ALLOCATION'
=> ! git-look-alike
=> lost .git::$INDEX_ALLOCATION
== .gitmodules link
ln -s /etc/passwd .gitmodules
=> ! link-leaves
=> ! not-recorded
=> lost .gitmodules
== junk .git file
mkdir s
echo junk > s/.git
echo a > s/a
=> A s/a
=> ! nested-repository
== bare repository
git init --quiet --bare b.git
rm -r b.git/hooks b.git/info
=> A b.git/HEAD
=> A b.git/config
=> A b.git/description
=> ! bare-repository
== case collision
echo x > src/APP.py
mkdir Docs
echo y > Docs/z
=> A src/APP.py
=> A Docs/z
=> ! case-collision
== normalisation
echo x > $(printf 'caf\xc3\xa9')
echo x > $(printf 'cafe\xcc\x81')
=> A café
=> A café
=> ! case-collision
== not UTF-8
touch $(printf 'a\377b') $(printf 'x\355\240\200')
=> A a\xffb
=> A x\xed\xa0\x80
=> ! name-not-utf8
== links that leave
ln -s /dev/zero z
ln -s ../../x y
ln -s src/../../z w
rm data.bin
ln -s $GD/config data.bin
=> A z
=> A y
=> A w
=> T data.bin
=> ! link-leaves
== links that stay
ln -s src/app.py one
ln -s ../tool.sh src/two
ln -s nowhere three
=> A one
=> A src/two
=> A three
== link through a link
mkdir -p a/b
ln -s a/b l
ln -s l/../../../up e
=> A l
=> A e
=> ! link-leaves
== huge attributes
head -c 30000000 /dev/zero | tr '\0' a > .gitattributes
echo x > f
=> A .gitattributes
=> A f
== attributes link
ln -s /etc/passwd .gitattributes
echo x > f
=> A .gitattributes
=> A f
=> ! link-leaves
""")


@pytest.mark.parametrize("odd", ODD)
def test_s14_odd_content_is_recorded_or_reported(actor: Actor, odd: str) -> None:
    case = ODD[odd]
    expected, found, lost = case.told("A M D R T"), set(case.told("!")), case.told("lost")

    def act(top: Path) -> None:
        bench = opened(top)
        bench.worker(case.script)
        bench.worker("echo ordinary > ordinary")
        snapshot, scan = bench.capture()
        files = changes.change_set(bench.store, JOB, bench.baseline.start, snapshot, scan=scan).files
        assert {file.path: file.status for file in files} == {**expected, "ordinary": "A"}
        assert codes(scan) == found
        assert_exact(bench, snapshot, frozenset(map(os.fsencode, lost)))
        assert scan.verified == found.isdisjoint({"special-file", "git-look-alike", "not-recorded"})

    actor(act)


def test_s14_a_socket_is_reported(actor: Actor) -> None:
    def act(top: Path) -> None:
        bench = opened(top)
        with contextlib.chdir(bench.path), socket.socket(socket.AF_UNIX) as server:
            server.bind("s")
            _, scan = bench.capture()
        assert [(finding.code, finding.path) for finding in scan.findings] == [("special-file", "s")]

    actor(act)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_s14_a_device_is_reported(bench: Bench) -> None:
    bench.worker("rm src/app.py; mknod src/app.py c 1 5; mknod null c 1 3")
    snapshot, scan = bench.capture()
    assert {(finding.code, finding.path) for finding in scan.findings} == {
        ("special-file", "src/app.py"), ("special-file", "null"),
    }  # fmt: skip
    assert_exact(bench, snapshot)


def test_s14_a_tree_deeper_than_a_path_can_be_is_reported(actor: Actor) -> None:
    def act(top: Path) -> None:
        bench = opened(top)
        with contextlib.chdir(bench.path):
            for _ in range(1500):
                os.mkdir("dd")
                os.chdir("dd")
            Path("x").write_text("x")
        try:
            bench.worker("echo x >> src/app.py")
            changed = bench.change_set()
            assert [file.path for file in changed.files] == ["src/app.py"]
            assert [finding.code for finding in changed.audit.findings] == ["too-deep"]
            assert not changed.verified
        finally:
            subprocess.run(["rm", "-rf", bench.path / "dd"], check=True)

    actor(act)


def test_s14_limits_spare_what_fits(actor: Actor) -> None:
    def act(top: Path) -> None:
        bench = opened(top, Settings(max_files=4, max_bytes=1000, max_depth=3))
        bench.worker("""
            truncate -s 5G big; echo x >> src/app.py; mkdir -p a/b/c/d; echo 1 > a/b/c/d/deep; echo 2 > a/b/c/flat
            for n in 1 2 3; do echo $n > new$n; done
        """)
        changed = bench.change_set()
        assert {file.path for file in changed.files} == {"src/app.py", "a/b/c/flat", "new1", "new2"}
        assert {(finding.code, finding.path) for finding in changed.audit.findings} == {
            ("too-large", "big"), ("too-deep", "a/b/c/d/"), ("too-many-files", "new3"),
        }  # fmt: skip
        assert not changed.verified

    actor(act)


def test_s14_many_findings_are_counted(actor: Actor) -> None:
    def act(top: Path) -> None:
        bench = opened(top)
        bench.worker("for n in $(seq 130); do mkfifo p$n; done")
        _, scan = bench.capture()
        assert len(scan.findings) == 101
        assert scan.findings[-1].message == "and 30 more `special-file`"

    actor(act)


def test_s14_a_vanished_workspace_deletes_nothing(actor: Actor) -> None:
    def act(top: Path) -> None:
        bench = opened(top)
        bench.worker("cd ..; rm -r ws")
        changed = bench.change_set()
        assert (changed.files, changed.verified) == ([], False)
        assert [finding.code for finding in changed.audit.findings] == ["workspace-missing"]

    actor(act)


# ---------------------------------------------------------------------------------------------------- s15
DEFYING = cases(r"""
== commit
echo x >> src/app.py
git commit --quiet --no-verify -am evil
=> worker-committed
== commit and reset back
echo x >> src/app.py
git commit --quiet --no-verify -am evil
git reset --quiet HEAD~1
=> worker-committed
== amend
echo x >> src/app.py
git commit --quiet --no-verify --amend -am evil
=> worker-committed
== reset
git reset --quiet --hard HEAD~1
=> worker-committed
== switch
git switch --quiet --detach other
=> worker-committed
== new branch
git checkout --quiet -b evil
echo x > x
git add x
git commit --quiet -m x
=> refs-moved
=> worker-committed
== symbolic-ref
git symbolic-ref HEAD refs/heads/other
=> worker-committed
== HEAD written
c=$(git rev-parse HEAD~1)
echo $c > $GD/worktrees/ws/HEAD
=> worker-committed
== stash
echo x >> src/app.py
git stash --quiet
=> stash-changed
== stash dropped
git stash drop --quiet
=> stash-changed
== merge
git merge --quiet --no-ff -m m other
=> worker-committed
== open merge
git merge --quiet --no-ff --no-commit other
=> worker-committed
== cherry-pick
git cherry-pick other > /dev/null
=> worker-committed
== bisect
git bisect start > /dev/null
git bisect bad > /dev/null
=> refs-moved
=> worker-committed
== branch
git branch evil
git branch --quiet -D other
=> refs-moved
== tag
git tag -f v1 HEAD~1 > /dev/null
git tag evil
=> refs-moved
== notes
git notes add -m evil
=> refs-moved
== update-ref of the boss's branch
git update-ref refs/heads/main other
=> boss-head-moved
== commit in the main checkout
git -C $MAIN commit --quiet --allow-empty -m evil
=> boss-head-moved
== boss's HEAD written
echo 'ref: refs/heads/other' > $GD/HEAD
=> boss-head-moved
== ref file written
git rev-parse HEAD > $GD/refs/heads/evil
=> refs-moved
== packed-refs written
git pack-refs --all
echo "$(git rev-parse HEAD) refs/heads/zz" >> $GD/packed-refs
=> refs-moved
== packing refs alone
git pack-refs --all
== reflogs expired
git reflog expire --expire=now --all
=> reflogs-rewritten
=> stash-changed
== push to itself
git push --quiet . HEAD:refs/heads/evil
=> refs-moved
== shallow
git rev-parse HEAD > $GD/shallow
=> shallow-changed
""")


@pytest.mark.parametrize("defying", DEFYING)
def test_s15_the_record_stands_and_the_audit_names_it(actor: Actor, defying: str) -> None:
    case = DEFYING[defying]

    def act(top: Path) -> None:
        repo = RepoKit.make(top / "repo")
        repo.git("branch", "other")
        repo.git("switch", "--quiet", "other")
        repo.write("other.txt", "other\n")
        repo.commit("other")
        repo.git("switch", "--quiet", "main")
        repo.git("tag", "v1")
        repo.write("README.md", "stashed\n")
        repo.git("stash", "--quiet")
        bench = Bench(repo, top / "ws", top / "records").open()
        bench.worker("echo honest > honest")
        bench.worker(case.script)
        audit = bench.audit()
        snapshot, scan = bench.capture()
        assert codes(audit) == set(case.found)
        assert not audit.quarantine
        assert audit.clean is not bool(case.found)
        assert_exact(bench, snapshot)
        changed = changes.change_set(bench.store, JOB, bench.baseline.start, snapshot, scan=scan, audit=audit)
        assert bench.store.git("rev-parse", REF).text == snapshot
        assert changed.audit.findings == audit.findings
        assert "honest" in {file.path for file in changed.files}

    actor(act)


def test_s15_what_the_boss_and_wt_do_meanwhile_is_no_damage(bench: Bench) -> None:
    repo = bench.kit
    repo.write("README.md", "boss\n")
    landed = repo.commit("boss works on")
    repo.git("update-ref", "refs/wt/w/other", landed)
    repo.git("worktree", "add", "--quiet", "--detach", repo.path.parent / "sibling")
    repo.git("config", "branch.main.remote", "origin")
    repo.git("config", "branch.main.merge", "refs/heads/main")
    repo.git("-c", "gc.reflogExpire=never", "-c", "gc.reflogExpireUnreachable=never", "gc", "--quiet")
    audit = bench.audit()
    assert codes(audit) == {"boss-head-moved", "config-changed"}
    assert not audit.quarantine
    assert all("you or another job" in finding.message for finding in audit.findings)
    assert codes(bench.audit(expected={landed})) == {"config-changed"}


def test_s15_objects_a_worker_left_in_the_repository_are_not_relied_on(bench: Bench) -> None:
    # What the worker commits or stages is in the user's objects already, so git would not write it again.
    bench.worker(
        "echo mine > mine; mkdir d; echo deep > d/deep; git add -A; git commit --quiet -m x;"
        "echo staged > staged; git add -A"
    )
    snapshot, _ = bench.capture()
    bench.kit.git("worktree", "remove", "--force", bench.path)
    bench.kit.git("reflog", "expire", "--expire=now", "--all")
    bench.kit.git("gc", "--quiet", "--prune=now")
    recorded = bench.recorded(snapshot)
    assert recorded[b"mine"] == ("100644", b"mine\n")
    assert recorded[b"d/deep"] == ("100644", b"deep\n")
    assert recorded[b"staged"] == ("100644", b"staged\n")


# ---------------------------------------------------------------------------------------------------- s31
PAYLOAD = """
cat > payload.sh <<'EOF'
#!/bin/sh
echo ran >> "$HOME/canary"
cat
exit 0
EOF
chmod +x payload.sh
P=$PWD/payload.sh
evil() { printf '[core]\\n\\trepositoryformatversion = 0\\n\\tbare = false\\n\\tfsmonitor = %s\\n' "$P" > "$1/config"; }
all() { for h in post-checkout post-index-change reference-transaction post-commit; do cp "$P" "$1/$h"; done; }
"""
HOSTILE = cases(r"""
== hooks
all $GD/hooks
=> hooks-changed
== hook switched off
chmod -x $GD/hooks/pre-push
=> hooks-changed
== fsmonitor
git config core.fsmonitor $P
=> config-changed
== hooksPath
mkdir ph
all ph
git config core.hooksPath $PWD/ph
=> config-changed
=> hooks-changed
== clean filter
git config filter.e.clean $P
echo '* filter=e' > .gitattributes
=> config-changed
== process filter
git config filter.e.process $P
git config filter.e.required true
echo '* filter=e' > .gitattributes
=> config-changed
== text conversion
git config diff.e.textconv $P
git config diff.external $P
echo '* diff=e' > .gitattributes
=> config-changed
== include
printf '[core]\n\tfsmonitor = %s\n' $P > inc
git config include.path $PWD/inc
=> config-changed
== alternate refs command
git config core.alternateRefsCommand $P
=> config-changed
== worktree configuration
git config extensions.worktreeConfig true
git config --worktree core.fsmonitor $P
=> admin-changed
=> config-changed
== config.worktree by hand
printf '[core]\n\tfsmonitor = %s\n' $P > $GD/worktrees/ws/config.worktree
=> admin-changed
== commondir
cp -r $GD fake
evil fake
echo $PWD/fake > $GD/worktrees/ws/commondir
=> admin-changed
== gitdir
echo /nonexistent/.git > $GD/worktrees/ws/gitdir
=> admin-changed
== sibling's commondir
cp -r $GD fake
evil fake
echo $PWD/fake > $GD/worktrees/sibling/commondir
=> admin-changed
== attributes of the repository
git config filter.e.clean $P
echo '* filter=e' > $GD/info/attributes
=> config-changed
=> info-changed
== grafts
git rev-parse HEAD > $GD/info/grafts
=> info-changed
== alternates
mkdir alt
echo $PWD/alt > $GD/objects/info/alternates
=> alternates-changed
== user's configuration
git config --global filter.e.clean $P
echo '* filter=e' > .gitattributes
=> user-config-changed
== user's attributes
mkdir -p $HOME/.config/git
echo '* filter=e' > $HOME/.config/git/attributes
git config --global filter.e.clean $P
=> user-config-changed
== wt's own store
git -C $GD/wt-state/store.git config filter.e.clean $P
mkdir -p $GD/wt-state/store.git/hooks
all $GD/wt-state/store.git/hooks
echo '* filter=e' > .gitattributes
=> store-changed
== wt's own store, attributes
mkdir -p $GD/wt-state/store.git/info
echo '* filter=e' > $GD/wt-state/store.git/info/attributes
=> store-changed
== pointer
cp -r $GD gdir
evil gdir
rm -r gdir/worktrees
echo "gitdir: $PWD/gdir" > .git
=> git-pointer-changed
== pointer a directory
cp -r $GD gdir
evil gdir
rm -r gdir/worktrees
rm .git
mv gdir .git
=> git-pointer-changed
== nested repository
git init --quiet nest
evil nest/.git
all nest/.git/hooks
echo x > nest/y
== gitlink trap
git init --quiet nest
git -C nest commit --quiet --allow-empty -m n
git add nest 2> /dev/null
evil nest/.git
echo x > nest/y
== repository around known files
git init --quiet src
evil src/.git
echo x >> src/app.py
== bare repository
git init --quiet --bare br
evil br
== attributes only
echo '* filter=e diff=e merge=e text=auto' > .gitattributes
== submodule entry
git init --quiet sub
git -C sub commit --quiet --allow-empty -m s
printf '[submodule "sub"]\n\tpath = sub\n\turl = ./sub\n\tignore = none\n\tupdate = !%s\n' $P > .gitmodules
evil sub/.git
""")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_s31_nothing_planted_runs(actor: Actor, hostile: str) -> None:
    case = HOSTILE[hostile]

    def act(top: Path) -> None:
        repo = RepoKit.make(top / "repo")
        repo.write(".git/hooks/pre-push", "#!/bin/sh\n", mode=0o755)
        repo.git("worktree", "add", "--quiet", "--detach", top / "sibling")
        bench = Bench(repo, top / "ws", top / "records").open()
        canary = Path(os.environ["HOME"]) / "canary"
        bench.worker(PAYLOAD + case.script + "\necho x >> README.md; mkdir build; echo i > build/i")
        canary.unlink(missing_ok=True)  # what ran so far ran as the worker

        audit = bench.audit()
        bench.change_set(live=True)
        snapshot, scan = bench.capture()
        changed = changes.change_set(bench.store, JOB, bench.baseline.start, snapshot, scan=scan, audit=audit)
        changes.edited_since(bench.store, bench.repo, bench.path, bench.index)
        changes.keep_ignored(bench.store, bench.path, scan.ignored, ref=REF, job=JOB, limit_bytes=1 << 20)

        assert not canary.exists()
        assert codes(audit) == set(case.found)
        assert audit.quarantine is bool(case.found)
        assert_exact(bench, snapshot, frozenset({b"build/i"}))
        assert {"README.md", "payload.sh"} <= {file.path for file in changed.files}

    actor(act)


def test_s31_the_users_own_filters_work_and_only_as_they_were(repo: RepoKit, tmp_path: Path) -> None:
    repo.git("config", "filter.up.clean", "tr a-z A-Z")
    repo.git("config", "filter.up.required", "true")
    repo.write(".gitattributes", "*.up filter=up\n")
    repo.commit("filter")
    bench = Bench(repo, tmp_path / "ws", tmp_path / "records").open()
    bench.worker("echo loud > a.up; git config filter.up.clean 'tee $HOME/canary'")
    snapshot, _ = bench.capture()
    assert bench.recorded(snapshot)[b"a.up"] == ("100644", b"LOUD\n")
    assert not (Path(os.environ["HOME"]) / "canary").exists()
    snapshot, scan = bench.capture(filters=["filter.up.clean=false", "filter.up.required=true"])
    assert bench.recorded(snapshot)[b"a.up"] == ("100644", b"loud\n")
    assert [(finding.code, finding.path) for finding in scan.findings] == [("filter-failed", "a.up")]


def test_s31_nothing_is_followed_out_of_the_tree(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("secret")
    bench.worker("ln -s ../secret out; rm -r docs; ln -s ../secret docs; ln -s .. up")
    snapshot, scan = bench.capture()
    assert_exact(bench, snapshot)
    assert {finding.path for finding in scan.findings} == {"out", "docs", "up"}
    assert b"secret" not in b"".join(
        content for _, content in bench.recorded(snapshot).values() if content != b"../secret"
    )


@pytest.mark.parametrize(
    "path", [".gitattributes", ".github/workflows/ci.yml", "AGENTS.md", "hooks/pre-commit", ".envrc"]
)
def test_s31_sensitive_paths_are_flagged(bench: Bench, path: str) -> None:
    bench.write(path, "x\n")
    bench.write("plain.py", "x\n")
    assert {file.path: file.sensitive for file in bench.change_set().files} == {path: True, "plain.py": False}


# ---------------------------------------------------------------------------------------------------- edits outside
def test_s18_edits_of_the_main_checkout_are_named(bench: Bench, make_repo: Callable[[str], RepoKit]) -> None:
    repo = bench.kit
    repo.write("README.md", "boss's own\n")
    repo.write("notes.txt", "boss's own\n")
    repo.write("docs/guide.md", "boss's own\n")
    before = changes.checkout_fingerprint(bench.repo)
    bench.worker("""
        cd $MAIN; echo evil >> src/app.py; echo evil > evil; rm tool.sh; echo evil >> notes.txt; echo ignored > x.log
        git checkout --quiet docs
    """)
    found = changes.outside_edits(bench.repo, before)
    assert {finding.code for finding in found} == {"outside-edit"}
    assert {finding.path for finding in found} == {"src/app.py", "evil", "tool.sh", "notes.txt", "docs/guide.md"}


def test_s18_the_boss_commits_and_nothing_is_named(bench: Bench) -> None:
    repo = bench.kit
    repo.write("README.md", "boss's own\n")
    before = changes.checkout_fingerprint(bench.repo)
    assert changes.outside_edits(bench.repo, before) == []
    repo.commit("boss")
    assert changes.outside_edits(bench.repo, before) == []


def test_s18_edits_of_a_captured_sibling_are_named(bench: Bench) -> None:
    bench.worker("echo x >> src/app.py; echo y > new; echo i > i.log")
    bench.capture()
    assert changes.edited_since(bench.store, bench.repo, bench.path, bench.index) == []
    bench.worker("echo evil >> new; echo evil > evil; rm src/util.py; echo j > j.log")
    found = changes.edited_since(bench.store, bench.repo, bench.path, bench.index)
    assert {finding.path for finding in found} == {"new", "evil", "src/util.py"}


# ---------------------------------------------------------------------------------------------------- power cuts
@pytest.mark.parametrize("torn", [(), ("index",), ("index.json",)])
def test_s12_files_that_a_power_cut_may_have_emptied_are_named_and_do_not_merge(
    repo: RepoKit, wt: Wt, torn: tuple[str, ...]
) -> None:
    """The machine goes down just after a workspace was opened; whoever worked in it goes on, and settles."""
    opened = wt("spawn", "--name", "mine", "--json", status=0).data["jobs"][0]
    directory = State(repo.path / ".git").find_job_dir(opened["jobId"])
    record = json.loads((directory / "index.json").read_text())
    (directory / "index.json").write_text(json.dumps(record | {"boot": "before"}))
    for name in torn:
        (directory / name).write_bytes(b"")
    workspace = Path(opened["workspace"])
    (workspace / "README.md").write_bytes(b"")
    (workspace / "new").write_bytes(b"")

    settled = wt("settle", "mine", "--json", status=0).data["jobs"][0]

    assert (settled["result"], settled["verified"]) == ("succeeded", False)
    changed = wt("diff", "mine", "--json", status=0).data["changeSet"]
    assert {file["path"]: file["status"] for file in changed["files"]} == {"README.md": "M", "new": "A"}
    assert [(each["code"], each["path"]) for each in changed["audit"]["findings"]] == [("emptied", "README.md")]
    left = wt("merge", "--json", status=0)
    assert (left.data["landed"], [each["code"] for each in left.json["warnings"]]) == (False, ["left-out"])
    wt("drop", "mine", status=0)


def test_who_empties_a_file_in_the_same_boot_meant_it(repo: RepoKit, wt: Wt) -> None:
    workspace = Path(wt("spawn", "--name", "mine", "--json", status=0).data["jobs"][0]["workspace"])
    (workspace / "README.md").write_bytes(b"")
    assert wt("settle", "mine", "--json", status=0).data["jobs"][0]["verified"] is True
    wt("merge", status=0)
    assert repo.read("README.md") == b""
