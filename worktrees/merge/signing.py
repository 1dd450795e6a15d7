"""Commits of a plan signed as git would sign them: by git itself, with the keys and programs of the user's settings.

A plan is worked out and checked unsigned, since a signature may cost a person's hand at a device. When all else is
said its commits are written once more from the oldest on, each with the same tree, message, author, committer and
times, on parents that are signed already. What the user committed himself is never among them.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from worktrees.errors import GitFailed, Refused
from worktrees.model import Oid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worktrees.git import ObjectStore, Repo
    from worktrees.model import MergePlan

_PERSON = re.compile(rb"(?P<name>.*?) ?<(?P<email>[^>]*)> (?P<date>\d+ [+-]\d+)")


class _Written(NamedTuple):
    """A commit as it was written: parents, and what a second one takes from it."""

    oid: Oid
    tree: str
    parents: list[Oid]
    people: dict[str, str]
    message: bytes


def signed(repo: Repo, store: ObjectStore, plan: MergePlan, *, known: Sequence[Oid]) -> MergePlan:
    """The plan with every commit of its own signed; the trees are the same.

    `known` are commits of the user's that the plan builds on. Costs one git process and one signature per commit.
    Raises: Refused `signing-failed`.
    """
    instead: dict[Oid, Oid] = {}
    for commit in _own_commits(repo, store, plan, known):
        instead[commit.oid] = _sign(repo, store, commit, [instead.get(parent, parent) for parent in commit.parents])
    steps = [
        step.model_copy(update={"commit": instead.get(step.commit, step.commit)}) if step.commit else step
        for step in plan.steps
    ]
    return plan.model_copy(update={"after": instead.get(plan.after, plan.after), "steps": steps})


def _own_commits(repo: Repo, store: ObjectStore, plan: MergePlan, known: Sequence[Oid]) -> list[_Written]:
    """The commits that were made for a plan, parents first."""
    named = repo.git("for-each-ref", "--format=%(objectname)", "refs/heads/", "refs/remotes/").text.splitlines()
    asked = "".join(f"{word}\n" for word in (plan.after, *(f"^{oid}" for oid in (plan.before, *known, *named))))
    listed = store.git("rev-list", "--topo-order", "--reverse", "--stdin", stdin=asked.encode()).text
    content = store.git("cat-file", "--batch", stdin=listed.encode()).stdout
    found = []
    while content:
        line, _, content = content.partition(b"\n")
        oid, _, size = line.decode("ascii").split(" ")
        found.append(_parsed(Oid(oid), content[: int(size)]))
        content = content[int(size) + 1 :]
    return found


def _parsed(oid: Oid, raw: bytes) -> _Written:
    head, _, message = raw.partition(b"\n\n")
    headers = [line.partition(b" ")[::2] for line in head.split(b"\n")]
    values = dict(headers)
    people = {}
    for who in (b"author", b"committer"):
        person = _PERSON.fullmatch(values[who])
        if person is None:
            raise GitFailed(["cat-file", "commit", oid], 0, b"fatal: a commit that cannot be read")
        for part, prefix in (("name", b""), ("email", b""), ("date", b"@")):
            people[f"GIT_{who.decode().upper()}_{part.upper()}"] = os.fsdecode(prefix + person[part])
    parents = [Oid(value.decode("ascii")) for name, value in headers if name == b"parent"]
    return _Written(oid, values[b"tree"].decode("ascii"), parents, people, message)


def _sign(repo: Repo, store: ObjectStore, commit: _Written, parents: Sequence[Oid]) -> Oid:
    """The same commit on other parents, signed; written to the store."""
    words = [word for parent in parents for word in ("-p", parent)]
    done = repo.git(
        "commit-tree", "-S", *words, "-F", "-", commit.tree, stdin=commit.message,
        # Else git notes the encoding of the user's other commits, and this is not one of them.
        config=("i18n.commitEncoding=UTF-8",),
        env={"GIT_OBJECT_DIRECTORY": os.fspath(store.path / "objects"), **commit.people}, expect=None,
    )  # fmt: skip
    if done.status != 0:
        lines = done.stderr.decode("utf-8", "backslashreplace").splitlines()
        reason = next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else "no word of why")
        raise Refused(
            f"git cannot sign the commits: {reason.removeprefix('error: ').removeprefix('fatal: ').strip()}",
            code="signing-failed",
            hint="git config --get-regexp '^(gpg|user)[.]', or unsigned: wt merge --no-gpg-sign",
            details={"stderr": "\n".join(lines)},
        )
    return Oid(done.text)
