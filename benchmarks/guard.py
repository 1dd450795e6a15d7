"""What the guard costs: a refusal, hook by hook, and the boss's own commit with all of our state beside it."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Case, Fact, Work
from benchmarks.lab import Lab
from worktrees.guard import install_hooks

_REFUSALS = {
    "reference-transaction": ("prepared",),
    "pre-commit": (),
    "prepare-commit-msg": (".git/COMMIT_EDITMSG",),
    "commit-msg": (".git/COMMIT_EDITMSG",),
    "pre-push": ("origin", "somewhere"),
    "post-checkout": ("0" * 40, "1" * 40, "1"),
}
_UPDATE = f"{'0' * 40} {'1' * 40} refs/heads/main\n".encode()


def refusals(lab: Lab, rounds: int) -> list[Fact]:
    """From the start of a hook to its no: for a worker by its environment, and by where it stands."""
    (job,) = lab.spawn()
    lab.boss.install_hooks()
    state = lab.repo / ".git/wt-state"
    entry = str(lab.repo / ".git/worktrees" / job)
    # A git directory whose HEAD is on a branch, as after a switch to one.
    head = lab.repo / ".git"
    facts = []
    for name, words in _REFUSALS.items():
        for how, hooks, env in (
            ("its environment", install_hooks(state), {"WT_JOB": job, "GIT_DIR": str(head)}),
            ("where it stands", state / "guard", {"GIT_DIR": entry}),
        ):
            if name == "post-checkout" and how == "where it stands":
                continue  # a job of ours stands on no branch that it could have been switched to
            seconds = [_refused(hooks / name, words, env) for _ in range(rounds * 10)]
            facts.append(Fact(f"refusal by {name}", how, seconds, lambda value: f"{value * 1e3:.2f} ms"))
    lab.boss.uninstall_hooks()
    lab.discard([job])
    return facts


def _refused(hook: Path, words: tuple[str, ...], env: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run([hook, *words], input=_UPDATE, env={**os.environ, **env}, capture_output=True, check=False)
    seconds = time.perf_counter() - began
    assert (done.returncode, b"wt: refused: " in done.stderr) == (1, True), (hook, done)
    return seconds


def commits(lab: Lab) -> Case:
    """The boss's own commit in a clone that never saw us, and beside an open job and installed hooks."""

    @contextmanager
    def twin() -> Iterator[Work]:
        yield lambda: lab.git("commit", "--quiet", "--allow-empty", "-m", "mine", cwd=lab.twin)

    @contextmanager
    def ours() -> Iterator[Work]:
        (job,) = lab.spawn()
        lab.boss.install_hooks()
        yield lambda: lab.git("commit", "--quiet", "--allow-empty", "-m", "mine")
        lab.boss.uninstall_hooks()
        lab.discard([job])

    size = f"{lab.files:,} files"
    plain = {"git commit": twin}
    return Case("the boss's own commit", size, plain, {"git commit, beside wt": ours}, more_rounds=4)
