"""Whatever a worker planted, no verb of the boss's runs it (s31): each plant would leave a canary file.

Plants in the worker's own tree and in git's directory of it need no more than a workspace; those in the repository's
shared configuration need a worker without a sandbox. After each, every verb that touches a tree is called. That the
plants are alive is shown by plain git, which runs them.
"""

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kit import RepoKit, environment
from worktrees import Boss, jobs
from worktrees.errors import WorktreesError
from worktrees.git import version
from worktrees.jobs import trust
from worktrees.model import OperationId

HOOKS = (
    "applypatch-msg", "commit-msg", "fsmonitor-watchman", "post-checkout", "post-commit", "post-index-change",
    "post-merge", "pre-commit", "pre-push", "prepare-commit-msg", "reference-transaction",
)  # fmt: skip
ATTRIBUTES = "* filter=evil diff=evil merge=evil\n"
OLD = "1700000000 +0000"


class Ground:
    """A repository, an open job in which a worker plants, an honest one, and the canaries."""

    def __init__(self, repo: RepoKit, tmp_path: Path) -> None:
        self.repo = repo
        self.scratch = tmp_path
        self.canaries = tmp_path / "canaries"
        self.canaries.mkdir(parents=True)
        self.common = repo.path / ".git"
        repo.git("branch", "other", "HEAD~1")
        self.boss = Boss(repo.path)
        jobs = self.boss.spawn(), self.boss.spawn()
        self.worker, self.honest = (job.job_id for job in jobs)
        self.tree, self.honest_tree = (Path(str(job.workspace)) for job in jobs)
        self.entry = self.common / "worktrees" / self.worker
        (self.tree / "work.txt").write_text("work\n")
        (self.tree / "src/app.py").write_text("work\n" + (self.tree / "src/app.py").read_text())
        (self.honest_tree / "honest.txt").write_text("honest\n")
        (self.honest_tree / "src/app.py").write_text((self.tree / "src/app.py").read_text() + "honest\n")

    def program(self, name: str) -> Path:
        """A program that leaves the canary `name`, whatever it is called with; it does a filter's and hook's work."""
        path = self.scratch / "programs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f"#!/bin/sh\ntouch {shlex.quote(str(self.canaries / name))}\ncase $0 in *.filter) cat ;; esac\n"
        )
        path.chmod(0o755)
        return path

    def hooks(self, directory: Path, name: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for hook in HOOKS:
            (directory / hook).write_bytes(self.program(name).read_bytes())
            (directory / hook).chmod(0o755)

    def configure(self, *settings: str, file: Path | None = None) -> None:
        for setting in settings:
            name, _, value = setting.partition("=")
            subprocess.run(
                ["git", "config", "--file", file or self.common / "config", "--add", name, value], check=True
            )

    def seen(self) -> set[str]:
        return set(os.listdir(self.canaries))

    def every_verb(self) -> list[str]:
        """Every verb that touches a tree, as the boss; a refusal is an answer, and they are returned."""
        refused = []
        boss, worker, honest = self.boss, self.worker, self.honest
        verbs: list[Callable[[], object]] = [
            lambda: boss.diff(worker, patch=True),
            boss.overlap,
            boss.hooks_status,
            boss.doctor,
            lambda: boss.settle(worker),
            lambda: boss.settle(honest),
            boss.list,
            lambda: boss.diff(worker, patch=True),
            lambda: boss.diff(honest, patch=True),
            lambda: boss.overlap(worker, honest),
            lambda: boss.merge(worker, honest, dry_run=True),
            lambda: boss.merge(honest),
            boss.undo,
            lambda: boss.merge(honest, strategy="rebase"),
            boss.rollback,
            lambda: boss.doctor(fix=True),
            boss.hooks_status,
            lambda: boss.spawn(name="later"),
            lambda: boss.drop("later"),
            lambda: boss.drop(worker, force=True),
            lambda: boss.restore(worker),
            lambda: boss.clean(unlanded=True),
        ]
        for number, verb in enumerate(verbs):
            before = self.seen()
            try:
                verb()
            except WorktreesError as error:
                refused.append(f"{number}: {error.message}")
            assert self.seen() == before, (number, self.seen() - before)
        return refused

    def naive(self, script: str, tree: Path) -> None:
        """Plain git, as somebody would call it who trusts the tree."""
        env = environment({"GIT_EDITOR": None, "GIT_AUTHOR_DATE": OLD, "GIT_COMMITTER_DATE": OLD})
        subprocess.run(["sh", "-c", script], cwd=tree, env=env, capture_output=True, check=False, timeout=60)


# ------------------------------------------------------------------------------------------------ in the worker's tree
def nested(ground: Ground) -> None:
    """A repository inside the tree, as a gitlink: `git status` outside runs git inside."""
    inner = ground.tree / "inner"
    subprocess.run(["git", "init", "-q", inner], check=True)
    ground.repo.git("commit", "-q", "--allow-empty", "-m", "x", cwd=inner)
    ground.configure(f"core.fsmonitor={ground.program('planted')}", file=inner / ".git/config")
    ground.hooks(inner / ".git/hooks", "planted")
    subprocess.run(["git", "add", "inner"], cwd=ground.tree, check=True, capture_output=True)


def malicious(ground: Ground, git_dir: Path) -> None:
    """A whole git directory of the worker's making."""
    subprocess.run(["git", "init", "-q", "--bare", git_dir], check=True)
    settings = ("core.bare=false", f"core.worktree={ground.tree}", f"core.fsmonitor={ground.program('planted')}")
    ground.configure(*settings, file=git_dir / "config")
    ground.hooks(git_dir / "hooks", "planted")


def pointer(ground: Ground) -> None:
    """The tree's `.git` file leads to a git directory of the worker's."""
    malicious(ground, ground.scratch / "evil.git")
    (ground.tree / ".git").write_text(f"gitdir: {ground.scratch / 'evil.git'}\n")


def directory(ground: Ground) -> None:
    """The tree's `.git` is a git directory of the worker's."""
    (ground.tree / ".git").unlink()
    malicious(ground, ground.tree / ".git")


def husky(ground: Ground) -> None:
    """The user's hooks are tracked files, found from the top of whatever tree git works in."""
    ground.hooks(ground.tree / ".husky", "planted")


def own_configuration(ground: Ground) -> None:
    """Where worktrees have configuration of their own: the worker's."""
    ground.configure(
        "core.bare=false", f"core.fsmonitor={ground.program('planted')}", file=ground.entry / "config.worktree"
    )


def common_directory(ground: Ground) -> None:
    """Git's directory of the tree leads to a repository of the worker's."""
    malicious(ground, ground.scratch / "evil.git")
    (ground.entry / "commondir").write_text(f"{ground.scratch / 'evil.git'}\n")


IN_TREE = [nested, pointer, directory, husky, own_configuration, common_directory]


@pytest.mark.parametrize("plant", IN_TREE, ids=lambda plant: plant.__name__)
def test_s31_nothing_in_a_tree_or_beside_it_runs(
    repo: RepoKit, tmp_path: Path, plant: Callable[[Ground], None]
) -> None:
    repo.broken_on_purpose = True
    if plant is husky:
        repo.git("config", "core.hooksPath", ".husky")
    if plant is own_configuration:
        repo.git("config", "extensions.worktreeConfig", "true")
    ground = Ground(repo, tmp_path)
    plant(ground)
    ground.naive("git status; git checkout -q --detach HEAD", ground.tree)
    assert ground.seen() == {"planted"}, "plain git does not run it"
    (ground.canaries / "planted").unlink()
    ground.every_verb()
    assert ground.seen() == set()


# ---------------------------------------------------------------------------------------- in the shared configuration
class Key(NamedTuple):
    """Settings that run `{}`, attributes that lead to them, and what of plain git's runs them (empty: not here)."""

    settings: tuple[str, ...]
    naive: str
    attributes: str = ""


NAMED = "git update-ref refs/heads/by-name HEAD" if version() >= (2, 54) else ""
KEYS = {
    "fsmonitor": Key(("core.fsmonitor={}",), "git status"),
    "clean": Key(("filter.evil.clean={}.filter",), "touch README.md; git add README.md", ATTRIBUTES),
    "smudge": Key(("filter.evil.smudge={}.filter",), "rm README.md; git checkout README.md", ATTRIBUTES),
    "process": Key(("filter.evil.process={}",), "touch README.md; git add README.md", ATTRIBUTES),
    "textconv": Key(("diff.evil.textconv={}",), "git show", ATTRIBUTES),
    "external": Key(("diff.external={}",), "echo x >> README.md; git diff"),
    "command": Key(("diff.evil.command={}",), "echo x >> README.md; git diff", ATTRIBUTES),
    "driver": Key(("merge.evil.driver={}",), "git merge-file -p x x x; git merge -m x clash", ATTRIBUTES),
    "default": Key(("merge.default=evil", "merge.evil.driver={}"), "git merge -m x clash"),
    "ssh": Key(
        ("core.sshCommand={}", "remote.origin.url=ssh://nowhere/x", "remote.origin.promisor=true",
         "extensions.partialClone=origin", "core.repositoryFormatVersion=1"), "git fetch",
    ),
    "uploadpack": Key(("remote.origin.url=/nowhere", "remote.origin.uploadpack={}", "remote.origin.promisor=true",
                       "extensions.partialClone=origin", "core.repositoryFormatVersion=1"), "git fetch"),
    "ext": Key(("protocol.ext.allow=always", "remote.origin.url=ext::{}", "remote.origin.promisor=true",
                "extensions.partialClone=origin", "core.repositoryFormatVersion=1"), "git fetch"),
    "alias": Key(("alias.look=!{}",), "git look"),
    "credential": Key(("credential.helper=!{}",), "echo url=https://nowhere | git credential fill"),
    "pager": Key(("core.pager={}", "pager.diff={}", "pager.log={}"), ""),
    "gpg": Key(("gpg.program={}", "commit.gpgSign=true", "tag.gpgSign=true"), "git commit --allow-empty -m x"),
    "signature": Key(("gpg.program={}", "log.showSignature=true"), ""),
    "include": Key(("include.path={include}",), "git status"),
    "editor": Key(("core.editor={}", "sequence.editor={}"), "git commit --allow-empty"),
    "askpass": Key(("core.askPass={}",), "echo url=https://x@nowhere | GIT_TERMINAL_PROMPT=1 git credential fill"),
    "update": Key(("submodule.inner.url=./x", "submodule.inner.active=true", "submodule.inner.update=!{}"), ""),
    "hooks": Key(("core.hooksPath={hooks}",), "git commit --allow-empty -m x"),
    "named-hook": Key(
        ("hook.x.command={}", "hook.x.event=reference-transaction", "hook.x.event=post-index-change"), NAMED,
    ),
    # Git's switch of an event fails where a command has the event's name.
    "named-event": Key(
        ("hook.y.command={}", "hook.y.event=reference-transaction", "hook.y.event=post-index-change",
         "hook.reference-transaction.command=true", "hook.post-index-change.command=true"), NAMED,
    ),
    "attributes": Key(("core.attributesFile={attributes}", "filter.evil.smudge={}.filter"),
                      "rm README.md; git checkout README.md"),
    "worktree": Key(("core.worktree={evil}",), ""),
    "alternates": Key(("core.alternateRefsCommand={}",), ""),
    "trailer": Key(("trailer.x.command={}", "trailer.x.ifmissing=add"), ""),
}  # fmt: skip


def poison(ground: Ground, name: str) -> None:
    key, program = KEYS[name], ground.program(name)
    (program.with_name(f"{name}.filter")).write_bytes(program.read_bytes())
    program.with_name(f"{name}.filter").chmod(0o755)
    places = {"hooks": ground.scratch / "hooks", "include": ground.scratch / "include", "evil": ground.scratch / "evil",
              "attributes": ground.scratch / "attributes"}  # fmt: skip
    places["evil"].mkdir(exist_ok=True)
    places["attributes"].write_text(ATTRIBUTES)
    if name == "include":
        ground.configure(f"core.fsmonitor={program}", file=places["include"])
    if name == "hooks":
        ground.hooks(places["hooks"], name)
        ground.hooks(ground.common / "hooks", name)
    ground.configure(*(setting.format(program, **places) for setting in key.settings))
    if key.attributes:
        (ground.common / "info").mkdir(exist_ok=True)
        (ground.common / "info/attributes").write_text(key.attributes)
        (ground.tree / ".gitattributes").write_text(key.attributes)


def alive(ground: Ground, names: list[str]) -> None:
    """Plain git runs what is planted."""
    for name in names:
        ground.naive(KEYS[name].naive, ground.repo.path)
    for name in names:
        assert not KEYS[name].naive or name in ground.seen(), f"plain git does not run {name}"


def clash(repo: RepoKit) -> None:
    """A branch that merges into main by contents."""
    repo.git("switch", "-q", "-c", "clash", "HEAD")
    repo.write("src/app.py", repo.read("src/app.py") + b"clash\n")
    repo.commit("clash")
    repo.git("switch", "-q", "main")
    repo.write("src/app.py", b"ours\n" + repo.read("src/app.py"))
    repo.commit("ours")


TOGETHER = [
    "fsmonitor", "clean", "smudge", "textconv", "default", "alias", "credential", "pager", "gpg",
    "askpass", "editor", "update", "hooks", "named-hook", "named-event", "alternates", "trailer",
    "uploadpack",
]  # fmt: skip


def check(repo: RepoKit, tmp_path: Path, names: list[str]) -> list[str]:
    """Plants, calls every verb, and shows that the plants were alive; what was refused."""
    repo.broken_on_purpose = True  # plain git, the fsck at the end too, must not meet what is planted
    clash(repo)
    ground = Ground(repo, tmp_path)
    for name in names:
        poison(ground, name)
    refused = ground.every_verb()
    assert ground.seen() == set()
    alive(ground, names)
    return refused


@pytest.mark.torture
@pytest.mark.parametrize("name", KEYS)
def test_s31_no_setting_of_the_shared_configuration_runs(repo: RepoKit, tmp_path: Path, name: str) -> None:
    check(repo, tmp_path, [name])


def test_s31_no_settings_of_the_shared_configuration_run(repo: RepoKit, tmp_path: Path) -> None:
    for number, names in enumerate((TOGETHER, ["process", "include", "signature"], ["attributes"])):
        refused = check(RepoKit.make(tmp_path / f"repo{number}"), tmp_path / f"planted{number}", names)
        assert not [word for word in refused if "usage" in word]


@pytest.mark.parametrize("attributes", [".git/info/attributes", ".gitattributes"])
def test_s31_filters_that_came_with_damage_do_nothing_until_the_boss_has_looked(
    repo: RepoKit, tmp_path: Path, attributes: str
) -> None:
    """Whether the attributes that select one came beside the repository, or in a change that lands."""
    repo.git("config", "filter.honest.smudge", "tr a-z A-Z")
    repo.git("config", "filter.honest.clean", "tr A-Z a-z")
    repo.write(".gitattributes", "*.loud filter=honest\n")
    repo.commit("an honest filter")
    ground = Ground(repo, tmp_path / "planted")
    boss = ground.boss
    ground.configure(f"filter.evil.smudge={ground.program('evil')}", "filter.evil.required=true")
    (ground.honest_tree / "a.loud").write_text("SAID\n")
    (ground.honest_tree / "b.quiet").write_text("said\n")
    selected = repo.path / attributes if "info" in attributes else ground.honest_tree / attributes
    selected.write_text("*.loud filter=honest\n*.quiet filter=evil\n")
    assert boss.settle(ground.worker).quarantined
    assert not boss.notices
    boss.settle(ground.honest)
    boss.merge(ground.honest)
    (notice,) = [notice for notice in boss.notices if notice.code == "settings-left-out"]
    assert "`filter.evil.smudge`, `filter.evil.required` came while" in notice.message
    assert "honest" not in notice.message
    assert (repo.read("a.loud"), repo.read("b.quiet")) == (b"SAID\n", b"said\n")
    assert ground.seen() == set()

    names, due_to = trust.review(boss.place)
    assert (names, due_to) == (["filter.evil.smudge", "filter.evil.required"], [ground.worker])
    jobs.update(boss.state, ground.worker, landed_by=OperationId("op-000009"))  # as landing it by name does
    assert trust.review(boss.place) == ([], [])
    ground.configure("filter.later.smudge=cat")
    assert boss.place.repo.git("config", "filter.evil.smudge").text == str(ground.program("evil"))


def test_s31_filters_that_a_change_selects_do_what_they_do_in_a_git_merge(repo: RepoKit, tmp_path: Path) -> None:
    """One that nobody defines does nothing, one of the user's own configuration works, on what was there before too."""
    repo.write("old.loud", "said before\n")
    base = repo.commit("base")
    settings = {"filter.honest.smudge": "tr a-z A-Z", "filter.honest.clean": "tr A-Z a-z"}
    boss = Boss(repo.path)
    for name, value in settings.items():
        repo.git("config", name, value)
    job = boss.spawn()
    tree = Path(str(job.workspace))
    (tree / ".gitattributes").write_text("*.loud filter=honest\n*.quiet filter=nowhere\n")
    (tree / "new.loud").write_text("said\n")
    (tree / "new.quiet").write_text("said\n")
    boss.settle(job.job_id)
    merged = boss.merge(job.job_id)
    # The same by git, in a clone that has the same settings.
    plain = RepoKit(tmp_path / "plain")
    repo.git("clone", "--quiet", repo.path, plain.path)
    for name, value in settings.items():
        plain.git("config", name, value)
    plain.git("reset", "--quiet", "--hard", base)
    plain.git("merge", "--quiet", "--no-ff", "-m", "x", f"{merged.after}^2")
    assert plain.tree() == repo.tree()
    names = ("new.loud", "new.quiet", "old.loud")
    assert [repo.read(name) for name in names] == [plain.read(name) for name in names]
    assert repo.read("new.loud") == b"SAID\n"
    assert repo.git("status", "--porcelain") == plain.git("status", "--porcelain")
