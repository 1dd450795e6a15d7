"""The integration worktree: where a conflict is laid out, outside of the checkout, and resolved by hand.

Owns `wt-state/merging/` while there is one, and the directory `merging` beside the workspaces:

    record.json   what is being merged, what was resolved so far, what is laid out; what is not in it is not decided
    git/          a git directory of its own: index with stages, MERGE_HEAD, MERGE_MSG; objects are the store's

So `git status`, `git mergetool`, `git checkout --ours`, `git commit` work there as in any conflict. It is no linked
worktree, because it must run nothing of a worker's: the user's configuration counts, but no hook, and where the jobs
change `.gitattributes`, no filter, merge driver or encoding either: files then are as git stores them. `rr-cache` is
the user's: resolutions recorded before are applied, and new ones recorded.

Order: the record says what is to be, durable; then git's directory, the files, the index with its stages; then the
record says that it is laid out. A resolution is a commit named in the store before the record knows of it. Whoever
dies in between leaves a record from which it is done again, or, with nothing resolved yet, taken back.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from worktrees.errors import NotFound, Refused, StateBroken
from worktrees.git import run
from worktrees.git.door import pipe
from worktrees.isolation.place import INTEGRATION, mark, unmark
from worktrees.isolation.trash import discard
from worktrees.landing.checkout import changes_between
from worktrees.model import Merging, Oid, Resolved, path_bytes, path_text
from worktrees.render.text import counted, listed
from worktrees.store import new_id, read_json, write_json

if TYPE_CHECKING:
    from worktrees.git import Completed
    from worktrees.isolation import Place
    from worktrees.store import State

_MARKER_LINE = re.compile(rb"^(?:<{7,}|>{7,}) .*$", re.MULTILINE)
_NO_ATTRIBUTES = b"* !filter !merge !diff !text !eol !crlf !ident !working-tree-encoding\n"
_CHECKOUT = ("index.sparse=false", "core.splitIndex=false", "checkout.workers=0")


def directory(state: State) -> Path:
    """Where all of it is kept but the files."""
    return state.root / "merging"


def load(state: State) -> Merging | None:
    """What is being resolved by hand, if anything. Raises: StateBroken."""
    record = read_json(directory(state) / "record.json")
    try:
        return None if record is None else Merging.model_validate(record)
    except ValueError as error:
        raise StateBroken(
            f"the record `{directory(state) / 'record.json'}` cannot be understood", hint="wt merge --abort"
        ) from error


def write(place: Place, merging: Merging) -> Merging:
    """Replaces the record; on disk when this returns."""
    directory(place.state).mkdir(mode=0o700, exist_ok=True)
    write_json(directory(place.state) / "record.json", merging.dump(), durable=True)
    return merging


def work_tree(place: Place) -> Path:
    """Where the files are."""
    return place.root / INTEGRATION


def _git(place: Place, *words: str | bytes, **more: object) -> Completed:
    return run(*words, git_dir=directory(place.state) / "git", work_tree=work_tree(place), **more)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- laying out
def lay_out(place: Place, merging: Merging, *, tree: Oid, stages: list[bytes], message: str) -> list[str]:
    """Puts the conflict the record names into the integration worktree; what stood there is replaced.

    `tree` holds the files, with markers, `stages` the lines of the index for what does not merge. Returns what is worth
    knowing. Raises: GitFailed.
    """
    laid = merging.laid
    if laid is None:
        raise AssertionError
    git = directory(place.state) / "git"
    if not git.is_dir():
        _make_git(place, git)
    path = work_tree(place)
    mark(place)
    path.mkdir(mode=0o700, exist_ok=True)
    (path / ".git").unlink(missing_ok=True)
    (path / ".git").write_bytes(b"gitdir: " + os.fsencode(git) + b"\n")
    for stale in ("index.lock", "HEAD.lock", "MERGE_RR.lock", "MERGE_RR"):
        (git / stale).unlink(missing_ok=True)
    (git / "HEAD").write_text(f"{laid.ours}\n")
    said = _set_attributes(place, git, merging.before, tree)
    _git(place, "read-tree", "--reset", "-u", tree, config=_CHECKOUT)
    gone = {line.partition(b"\t")[2] for line in stages}
    lines = [b"0 " + b"0" * len(tree) + b"\t" + name for name in sorted(gone)] + stages
    _git(place, "update-index", "-z", "--index-info", stdin=b"".join(line + b"\0" for line in lines))
    names = "".join(f"#\t{path_text(name)}\n" for name in sorted(gone))
    for name, text in (
        ("ORIG_HEAD", laid.ours),
        ("AUTO_MERGE", tree),
        ("MERGE_MODE", "no-ff"),
        ("MERGE_MSG", f"{message}\n\n# Conflicts:\n{names}"),
        ("MERGE_HEAD", laid.theirs),
    ):
        (git / name).write_text(f"{text}\n", encoding="utf-8", errors="surrogateescape")
    _rerere(place)
    return said


def _rerere(place: Place) -> None:
    """Applies resolutions the user recorded, and records this one; git does nothing unless the user wants it."""
    _git(place, "rerere", cwd=work_tree(place), expect=None)  # it does not go to the work tree by itself


def _make_git(place: Place, git: Path) -> None:
    """A git directory that borrows objects, configuration and recorded resolutions, and runs no hook."""
    common = place.repo.common_dir
    with tempfile.TemporaryDirectory(prefix="new-", dir=directory(place.state)) as scratch:
        fresh = Path(scratch, "git")
        run(
            "init", "--quiet", "--bare", "--template=", f"--object-format={place.repo.object_format}", "--",
            os.fspath(fresh), git_dir=None, config=("init.defaultRefFormat=files", "init.defaultBranch=none"),
        )  # fmt: skip
        # Order decides: what the user's own files say, then what must not be theirs to say here.
        lines = [
            "[include]", f"\tpath = {_quoted(common / 'config')}",
            "[core]", "\tbare = false", f"\tworktree = {_quoted(work_tree(place))}", "\thooksPath = /dev/null",
            "\tfsmonitor = false", "\tsparseCheckout = false", "\tsplitIndex = false",
            "[gc]", "\tauto = 0", "[maintenance]", "\tauto = false", "[submodule]", "\trecurse = false",
            "[commit]", "\tgpgSign = false",
        ]  # fmt: skip
        with (fresh / "config").open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write("\n".join(lines) + "\n")
        (fresh / "objects" / "info").mkdir(exist_ok=True)
        shutil.copyfile(place.store.path / "objects" / "info" / "alternates", fresh / "objects" / "info" / "alternates")
        with (fresh / "objects" / "info" / "alternates").open("ab") as file:
            file.write(os.fsencode(place.store.path / "objects") + b"\n")
        (fresh / "info").mkdir(exist_ok=True)
        for name in ("info/exclude", "shallow"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(common / name, fresh / name)
        (fresh / "rr-cache").symlink_to(common / "rr-cache")
        os.rename(fresh, git)


def _quoted(path: Path) -> str:
    """A value of a configuration file."""
    text = os.fspath(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def _set_attributes(place: Place, git: Path, before: Oid, tree: Oid) -> list[str]:
    """The user's own attributes; none at all but those of git's defaults where a job wants others than the branch."""
    own = b""
    with contextlib.suppress(FileNotFoundError):
        own = (place.repo.common_dir / "info" / "attributes").read_bytes()
    touched = [name for name in changes_between(place.store, before, tree) if name.endswith(b".gitattributes")]
    changed = [name for name in touched if name.rpartition(b"/")[2] == b".gitattributes"]
    (git / "info" / "attributes").write_bytes(own + (_NO_ATTRIBUTES if changed else b""))
    if not changed:
        return []
    return [
        f"the jobs change {listed([path_text(name) for name in changed])}: no filter or driver runs while you resolve"
    ]


# ------------------------------------------------------------------------------------------------------------- taking
def take(place: Place, merging: Merging) -> Merging:
    """The record with what is in the index of the integration worktree as the resolution of what was laid out.

    Raises: Refused `unresolved`, `unstaged-edits`, `markers-left`, `resolution-gone`, naming the paths.
    """
    laid = merging.laid
    if laid is None:
        return merging
    path, git = work_tree(place), directory(place.state) / "git"
    if not path.is_dir() or not (git / "index").exists():
        raise Refused(f"the integration worktree `{path}` is gone", code="resolution-gone", hint="wt merge --abort")
    index = _copied_index(git)  # what stands there may be locked by whoever resolves, or by a git of ours that died
    listed_stages = _git(place, "ls-files", "-u", "-z", index=index).records
    unmerged = list(dict.fromkeys(line.partition(b"\t")[2] for line in listed_stages))
    if unmerged:
        raise _refused(place, unmerged, "unresolved", "still unmerged", f"git -C {path} add PATH, once it is resolved")
    head = _git(place, "rev-parse", "--verify", "HEAD").text
    if head == laid.ours and not (git / "MERGE_HEAD").exists():
        raise Refused(
            f"the merge was taken back in `{path}`, so there is no resolution",
            code="resolution-gone",
            hint="wt merge --abort, then: wt merge --on-conflict manual",
        )
    words = ("status", "--porcelain=v2", "-z", "--untracked-files=no", "--no-renames")
    status = _git(place, *words, index=index).records
    edited = [line.split(b" ", 8)[8] for line in status if line[:1] == b"1" and line[3:4] != b"."]
    if edited:
        raise _refused(place, edited, "unstaged-edits", "edited and not staged", f"git -C {path} add -u")
    tree = Oid(_git(place, "write-tree", index=index).text)
    marked = [name for name in _paths(merging) if _has_markers(place, merging, tree, name)]
    if marked:
        raise _refused(place, marked, "markers-left", "conflict markers left", f"git -C {path} diff {laid.ours}")
    _rerere(place)
    end = _bring(place, tree, laid.ours, f"resolution of {laid.name or laid.job_id}")
    place.store.set_ref(f"refs/wt/{merging.workflow_id}/{laid.job_id}-resolution", end, durable=True)
    found = Resolved(job_id=laid.job_id, start=laid.ours, end=end)
    others = [each for each in merging.resolved if each.job_id != laid.job_id]
    return write(place, merging.model_copy(update={"laid": None, "resolved": [*others, found]}))


def _copied_index(git: Path) -> Path:
    copy = git / "taken.index"
    for old in (copy, git / "taken.index.lock"):
        old.unlink(missing_ok=True)
    shutil.copy2(git / "index", copy)  # with its time: by it git knows what it must not trust the clock for
    return copy


def _paths(merging: Merging) -> list[bytes]:
    conflicts = merging.laid.conflicts if merging.laid else []
    return list(dict.fromkeys(path_bytes(each.path, each.path_base64) for each in conflicts))


def _refused(place: Place, paths: list[bytes], code: str, what: str, hint: str) -> Refused:
    shown = [path_text(path) for path in paths]
    return Refused(f"{what} in `{work_tree(place)}`: {listed(shown)}", code=code, hint=hint, details={"paths": shown})


def _has_markers(place: Place, merging: Merging, tree: Oid, path: bytes) -> bool:
    """Whether a file holds lines of git's conflict markers that neither side had."""
    content = _blob(place, tree, path)
    if merging.laid is None or content is None or b"\0" in content[:8000]:
        return False
    found = set(_MARKER_LINE.findall(content))
    for side in (merging.laid.ours, merging.laid.theirs) if found else ():
        found -= set(_MARKER_LINE.findall(_blob(place, side, path) or b""))
    return bool(found)


def _blob(place: Place, commit: Oid, path: bytes) -> bytes | None:
    done = _git(place, "cat-file", "blob", commit.encode() + b":" + path, expect=(0, 128))
    return done.stdout if done.status == 0 else None


def _bring(place: Place, tree: Oid, parent: Oid, message: str) -> Oid:
    """A commit of a tree of the integration worktree, in the store."""
    git = directory(place.state) / "git"
    tool = {f"GIT_{who}_{what}": text for who in ("AUTHOR", "COMMITTER") for what, text in _TOOL}
    commit = Oid(_git(place, "commit-tree", tree, "-p", parent, "-F", "-", stdin=message.encode(), env=tool).text)
    pipe(
        ("pack-objects", "--revs", "--stdout", "--delta-base-offset", "-q"),
        ("index-pack", "--stdin", "--fix-thin"),
        producer_git_dir=git,
        consumer_git_dir=place.store.path,
        stdin=f"{commit}\n^{parent}\n".encode(),
        durable=True,
    )
    return commit


_TOOL = (("NAME", "wt"), ("EMAIL", "wt@localhost"))


# ------------------------------------------------------------------------------------------------------------- ending
def keep(place: Place, merging: Merging) -> Oid | None:
    """All files of the integration worktree that are not ignored, as a commit in the store; None where it is gone."""
    path, git = work_tree(place), directory(place.state) / "git"
    if merging.laid is None or not path.is_dir() or not git.is_dir():
        return merging.resolved[-1].end if merging.resolved else None
    index = git / "kept.index"
    index.unlink(missing_ok=True)
    (git / "kept.index.lock").unlink(missing_ok=True)
    _git(place, "read-tree", merging.laid.ours, index=index)
    _git(place, "add", "--all", "--", ".", index=index, env={"GIT_LITERAL_PATHSPECS": "0"})
    tree = Oid(_git(place, "write-tree", index=index).text)
    kept = _bring(
        place, tree, merging.laid.ours, f"unfinished resolution of {merging.laid.name or merging.laid.job_id}"
    )
    place.store.set_ref(
        f"refs/wt/{merging.workflow_id}/{merging.laid.job_id}-unfinished-{new_id('r')}", kept, durable=True
    )
    return kept


def clear(place: Place) -> None:
    """Takes the integration worktree away; the record goes last, because it says that the rest may be there."""
    discard(place, work_tree(place))
    where = directory(place.state)
    for entry in where.iterdir() if where.is_dir() else ():
        if entry.name != "record.json":
            discard(place, entry)
    (where / "record.json").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        where.rmdir()
    unmark(place, place.root)


def required(state: State) -> Merging:
    """What is being resolved by hand. Raises: NotFound, StateBroken."""
    found = load(state)
    if found is None:
        raise NotFound("no merge waits for a resolution", hint="wt merge --on-conflict manual")
    return found


def in_progress(place: Place, merging: Merging) -> Refused:
    """The refusal of a second merge meanwhile."""
    where = f" in `{work_tree(place)}`" if merging.laid else ""
    left = counted(len(merging.laid.conflicts), "conflict") if merging.laid else "a merge"
    return Refused(
        f"{left} of another merge {'are' if left.endswith('s') else 'is'} being resolved by hand{where}",
        code="operation-in-progress",
        hint="wt merge --continue, or: wt merge --abort",
    )
