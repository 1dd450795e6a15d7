"""Edits outside the workspace, found after the fact where no sandbox stops them.

Who made an edit cannot be told: the boss works in its checkout too. So these are findings that name a path and never
damage. No filter runs and no content is read: git compares stat data and lists names.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from worktrees.changes.desk import desk
from worktrees.changes.plain import as_key, from_key, head_commit
from worktrees.changes.scan import Notes
from worktrees.changes.snapshot import after_path, excludes_file, names_of, record_of

if TYPE_CHECKING:
    from pathlib import Path

    from worktrees.git import ObjectStore, Repo
    from worktrees.model import Finding

_MOST = 10_000


def checkout_fingerprint(repo: Repo) -> dict[str, Any]:
    """The dirty and untracked paths of the boss's checkout with their stat data; costs about one `git status`.

    Looks at ten thousand paths at most.
    """
    if repo.work_tree is None:
        return {}
    words = ("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=all")
    status = names_of(repo.git(*words))
    # Two letters, a space and the path: the second letter is for what differs between index and file.
    changed = [record[3:] for record in status if record[1] not in " ?"]
    untracked = [record[3:] for record in status if record[1] == "?"]
    return {
        "head": head_commit(repo.git_dir, repo.common_dir),
        "paths": {as_key(path): _stat(repo.work_tree, path) for path in (*changed, *untracked)[:_MOST]},
    }


def _stat(top: Path, path: str) -> list[int] | None:
    if path.endswith("/"):
        return None  # a repository inside, an adopted worktree perhaps: what happens in there is its own affair
    try:
        found = os.lstat(os.path.join(top, path))
    except OSError:
        return None
    return [found.st_mode, found.st_size, found.st_ino, found.st_mtime_ns]


def outside_edits(repo: Repo, before: dict[str, Any]) -> list[Finding]:
    """Paths of the boss's checkout that were edited since, `outside-edit` each; the boss may have done it as well.

    Not called when the audit found damage: then nothing of git runs in the boss's checkout either.
    """
    after = checkout_fingerprint(repo)
    if not before or not after or repo.work_tree is None:
        return []
    old, new = before["paths"], after["paths"]
    notes = Notes()
    for key in sorted(old.keys() | new.keys()):
        path = from_key(key)
        if key in new:
            edited = new[key] != old.get(key, "clean")
        else:  # clean again: by a commit of the boss's, or because the edit was taken back
            edited = before["head"] == after["head"] and _stat(repo.work_tree, path) != old[key]
        if edited:
            notes.add("outside-edit", path, "{} in the main checkout was edited while the job ran, by it or by you")
    return list(notes.result())


def edited_since(store: ObjectStore, repo: Repo, workspace: Path, index: Path) -> list[Finding]:
    """Paths of a captured workspace that were edited after its capture, by whoever; `index` as given to `capture`."""
    record, after = record_of(index), after_path(index)
    if record is None or not after.is_file() or not workspace.is_dir():
        return []
    notes = Notes()
    with desk(index.parent, repo.object_format, store.path / "objects", workspace) as own:
        shutil.copy2(after, own.index)
        rules = excludes_file(own, record.excludes)
        edited = names_of(own.git("diff-files", "--name-only", "-z", "--ignore-submodules=all"))
        added = names_of(own.git("ls-files", "--others", "-z", f"--exclude-from={rules}"))
        for path in sorted({*edited, *added} - record.present.keys()):
            notes.add("outside-edit", path, f"{{}} in `{workspace.name}` was edited after that job was captured")
    return list(notes.result())
