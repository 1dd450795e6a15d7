"""Edits outside the workspace, found after the fact where no sandbox stops them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from worktrees.git import ObjectStore, Repo
    from worktrees.model import Finding


def checkout_fingerprint(repo: Repo) -> dict[str, Any]:
    """The dirty and untracked paths of the boss's checkout with their stat data; costs about one `git status`."""
    raise NotImplementedError


def outside_edits(repo: Repo, before: dict[str, Any]) -> list[Finding]:
    """Paths of the boss's checkout that were edited since, `outside-edit` each; the boss may have done it as well."""
    raise NotImplementedError


def edited_since(store: ObjectStore, workspace: Path, index: Path) -> list[Finding]:
    """Paths of a captured workspace that were edited after its capture, by whoever; `index` as given to `capture`."""
    raise NotImplementedError
