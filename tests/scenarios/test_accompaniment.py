"""What of the boss's own goes along with a landing: his signature on its commits, his `post-merge` hook after it."""

from pathlib import Path

import pytest

from tests.kit import RepoKit, Wt, ssh_key
from tests.merging import tree_files
from tests.scenarios.test_by_hand import laid_out, resolve
from tests.scenarios.test_policies import adds, spawn
from worktrees.boss import Boss
from worktrees.errors import Refused
from worktrees.git import version


def test_s22_a_conflict_resolved_by_hand_lands_signed(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    key, signers, before = ssh_key(tmp_path / "key"), tmp_path / "signers", repo.head()
    signers.write_text(f"{repo.text('config', 'user.email')} {key.with_suffix('.pub').read_text()}")
    settings = {"gpg.format": "ssh", "gpg.ssh.allowedSignersFile": str(signers), "commit.gpgSign": "true"}
    for name, value in settings.items():
        repo.git("config", name, value)
    for name in ("one", "two"):
        spawn(wt, name, adds(5, name))
    boss = Boss(repo.path)
    boss.merge("one", gpg_sign=False)
    assert set(repo.text("log", "--format=%G?").split()) == {"N"}
    boss.undo()

    # Where nothing says which key, nothing moves.
    fingerprint = repo.fingerprint()
    with pytest.raises(Refused, match=r"^git cannot sign the commits: ") as caught:
        boss.merge("one")
    assert caught.value.code == "signing-failed"
    assert repo.fingerprint() == fingerprint
    boss.merge("one", no_commit=True)  # there is nothing to sign
    boss.undo()
    repo.git("config", "user.signingKey", key)

    _, there, _ = laid_out(wt)
    resolve(there, "line 5 both")
    merged = wt("merge", "--continue", "--json", status=0).data

    made = repo.text("rev-list", f"{before}..HEAD").split()
    assert len(made) == 4
    repo.git("verify-commit", *made)
    assert (merged["after"], merged["steps"][-1]["commit"]) == (repo.head(), repo.head())
    assert repo.read("src/app.py").splitlines()[4] == b"line 5 both"


def test_s31_no_program_that_a_worker_named_signs_or_is_a_hook(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    ran, boss = tmp_path / "ran", Boss(repo.path)
    spawn(wt, "good", "echo good > good.txt")
    boss.spawn(name="evil")
    repo.broken_on_purpose = True
    for name in ("program", "post-merge"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {ran}\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    with (repo.path / ".git/config").open("a") as file:
        file.write(
            f"[gpg]\n\tprogram = {tmp_path}/program\n[commit]\n\tgpgSign = yes\n[core]\n\thooksPath = {tmp_path}\n"
        )
    before = repo.head()

    def refused() -> None:
        for hooks in (False, True):
            with pytest.raises(Refused, match=r"^(hooks are|the commits are) to .*`evil` changed") as caught:
                boss.merge("good", gpg_sign=False if hooks else None, run_hooks=hooks)
            assert (caught.value.code, caught.value.details["jobs"]) == ("untrusted-settings", ["evil"])

    refused()  # while it is at work
    assert boss.settle("evil").quarantined
    refused()  # and when it is over
    assert repo.head() == before
    boss.merge("good", gpg_sign=False)
    assert repo.read("good.txt") == b"good\n"
    assert not ran.exists()
    # They are alive: once the boss has looked, it is as with git.
    boss.close_workflow()
    spawn(wt, "later", "echo later > later.txt")
    boss.merge("later", gpg_sign=False, run_hooks=True)
    assert ran.exists()


def test_the_hook_of_the_boss_runs_when_asked_for_and_after_the_landing(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    said, boss, heard = tmp_path / "said", Boss(repo.path), list[str | bytes]()
    repo.write(
        ".git/hooks/post-merge",
        f'#!/bin/sh\necho "$* $(pwd) $(git log -1 --format=%s) $(ls *.txt | xargs) ${{GIT_DIR-none}}" > {said}\n'
        "echo installed 3 packages; exit 7\n", mode=0o755,
    )  # fmt: skip
    for name in ("one", "two"):
        spawn(wt, name, f"echo {name} > {name}.txt")
    boss.merge("one")
    assert not said.exists()
    assert wt("merge", "two", "--run-hooks", "--no-commit", "--json", status=2).code == "usage"
    boss.notices.clear()

    assert boss.merge("two", run_hooks=True, narrate=heard.append).landed

    assert said.read_text() == f"0 {repo.path} Merge job two one.txt two.txt none\n"
    assert [(each.code, "status 7" in each.message) for each in boss.notices] == [("hook-failed", True)]
    assert heard == ["installed 3 packages"]


def test_s31_a_hook_that_the_merge_touches_does_not_run(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    ran, boss = tmp_path / "ran", Boss(repo.path)
    for place in (".hooks", ".husky/_", "real"):
        repo.write(f"{place}/post-merge", f"#!/bin/sh\ntouch {ran}\n", mode=0o755)
    (repo.path / "link").symlink_to("real")
    repo.commit("hooks in the tree")
    spawn(
        wt,
        "evil",
        f"rm link; echo 'touch {ran}' | tee link .hooks/lib.sh .husky/post-merge real/post-merge > beside.txt",
    )
    spawn(wt, "good", "echo good > good.txt")
    before = repo.head(), tree_files(repo.path)
    everything = [".hooks/lib.sh", ".husky/post-merge", "beside.txt", "link", "real/post-merge"]
    for place, paths in {
        ".hooks": everything[:1],
        ".husky/_": everything[1:2],
        "./link/": everything[3:],
        ".": everything,
    }.items():
        repo.git("config", "core.hooksPath", place)
        with pytest.raises(Refused) as caught:
            boss.merge("evil", run_hooks=True)
        assert (caught.value.code, caught.value.details["paths"]) == ("hooks-touched", paths)
    assert (repo.head(), tree_files(repo.path)) == before
    assert not ran.exists()
    repo.git("config", "core.hooksPath", ".hooks")
    boss.merge("good", run_hooks=True)
    assert ran.exists()


def test_s31_a_command_by_name_that_the_merge_touches_does_not_run(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    """Hooks that configuration names (git 2.54); an older git, which would run none, refuses the same."""
    ran, boss = tmp_path / "ran", Boss(repo.path)
    repo.write("tools/lib.sh", f"touch {ran}\n")
    repo.write("after.sh", ". tools/lib.sh\n", mode=0o755)
    repo.commit("scripts")
    spawn(wt, "evil", f"echo 'touch {tmp_path}/evil' | tee tools/lib.sh after.sh > beside.txt")
    spawn(wt, "good", "echo good > good.txt")
    repo.git("config", "hook.deps.event", "post-merge")
    before = repo.head(), tree_files(repo.path)
    for command, paths in {
        "./after.sh": ["after.sh"],
        "cd .; sh 'after.sh' --quick": ["after.sh"],
        "LIB=tools/lib.sh true": ["tools/lib.sh"],
        f". {repo.path}/tools/other.sh": ["tools/lib.sh"],
    }.items():
        repo.git("config", "hook.deps.command", command)
        with pytest.raises(Refused) as caught:
            boss.merge("evil", run_hooks=True)
        assert (caught.value.code, caught.value.details["paths"]) == ("hooks-touched", paths)
    assert (repo.head(), tree_files(repo.path)) == before
    assert not ran.exists()
    repo.git("config", "hook.deps.command", "./after.sh")
    boss.merge("good", run_hooks=True)
    assert ran.exists() is (version() >= (2, 54))
    # One of another event is none of ours.
    repo.git("config", "hook.deps.event", "pre-commit")
    boss.merge("evil", run_hooks=True)
    assert not (tmp_path / "evil").exists()
