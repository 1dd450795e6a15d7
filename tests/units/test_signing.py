"""Commits of a plan signed by git itself: the same commits but for a signature, on top of what the boss committed."""

from pathlib import Path

import pytest

from tests.kit import RepoKit, ssh_key
from tests.merging import IDENTITY, Desk
from worktrees.errors import Refused
from worktrees.landing import find_target, land
from worktrees.merge import MergeStrategy, Rebase, Squash, ThreeWay
from worktrees.merge.signing import signed
from worktrees.model import MergePlan, Oid, WorkflowName

LIKE = "--format=%T %an <%ae> %ad %cn <%ce> %cd %B"


@pytest.fixture
def desk(repo: RepoKit) -> Desk:
    return Desk(repo)


@pytest.fixture
def key(desk: Desk, tmp_path: Path) -> Path:
    """A key for ssh that the repository's configuration names."""
    place = tmp_path / "keys" / "boss"
    place.parent.mkdir()
    ssh_key(place)
    signers = place.with_name("signers")
    signers.write_text(f"{IDENTITY[1]} {place.with_suffix('.pub').read_text()}")
    for name, value in (("gpg.format", "ssh"), ("user.signingKey", place), ("gpg.ssh.allowedSignersFile", signers)):
        desk.kit.git("config", name, value)
    return place


def log(desk: Desk, plan: MergePlan, form: str) -> str:
    """What git says of the commits of a plan, in an order that depends on their parents alone."""
    words = ("log", "-z", "--topo-order", "--date=raw", form, f"{plan.before}..{plan.after}")
    return desk.place.repo.git(*words, env={"GIT_OBJECT_DIRECTORY": str(desk.store.path / "objects")}).text.rstrip("\0")


@pytest.mark.parametrize(("strategy", "count"), [(ThreeWay(), 4), (Rebase(), 2), (Squash(), 1)])
def test_commits_are_the_same_but_for_their_signature(
    desk: Desk, key: Path, strategy: MergeStrategy, count: int
) -> None:
    jobs = [desk.job({f"{name}.txt": name}, name=name, task=f"täglich {name}\n\n") for name in ("one", "two")]
    desk.kit.git("config", "i18n.commitEncoding", "ISO-8859-1")
    plain = desk.plan(jobs, strategy=strategy)

    plan = signed(desk.place.repo, desk.store, plain, known=[job.baseline.commit for job in jobs])

    assert log(desk, plan, LIKE) == log(desk, plain, LIKE)
    assert log(desk, plain, "--format=%G?").split("\0") == ["N"] * count
    assert log(desk, plan, "--format=%G?").split("\0") == ["G"] * count
    assert plan.before == plain.before
    assert [step.tree for step in plan.steps] == [step.tree for step in plain.steps]
    target = find_target(desk.place.repo)
    land(desk.place, plan, target=target, jobs=[job.job_id for job in jobs], workflow=WorkflowName("w"))
    made = desk.kit.text("rev-list", f"{plan.before}..HEAD").split()
    desk.kit.git("verify-commit", *made)
    assert {step.commit for step in plan.steps} <= set(made)
    assert desk.kit.text("status", "--porcelain") == ""
    assert b"\nencoding " not in desk.kit.git("cat-file", "commit", "HEAD")


def test_what_the_boss_committed_is_not_written_again(desk: Desk, key: Path) -> None:
    """Jobs that began on one branch, or on a commit that no branch holds any more, land on another."""
    kit = desk.kit
    kit.write("more.txt", "more\n")
    own = [kit.commit("the boss went on")]
    jobs = [desk.job({"one.txt": "one"}, name="one")]
    kit.write("more.txt", "even more\n")
    own.append(kit.commit("and on"))
    jobs.append(desk.job({"two.txt": "two"}, name="two"))
    kit.git("reset", "--quiet", "--hard", "HEAD~1")
    kit.git("branch", "side", "HEAD~1")
    plain = desk.plan(jobs, onto="side")

    plan = signed(desk.place.repo, desk.store, plain, known=[job.baseline.commit for job in jobs])

    listed = desk.store.git("rev-list", f"{plan.before}..{plan.after}").text.split()
    assert set(own) < set(listed)
    assert len(listed) == len(own) + 4


def test_why_git_cannot_sign_is_said_in_a_line(desk: Desk, key: Path) -> None:
    plan = desk.plan([desk.job({"one.txt": "one"})])
    key.rename(key.with_name("elsewhere"))
    with pytest.raises(Refused) as caught:
        signed(desk.place.repo, desk.store, plan, known=[Oid(plan.before)])
    assert caught.value.code == "signing-failed"
    assert caught.value.message.startswith("git cannot sign the commits: ")
    assert "\n" not in caught.value.message
    assert str(key) in caught.value.message
    assert "--no-gpg-sign" in str(caught.value.hint)
