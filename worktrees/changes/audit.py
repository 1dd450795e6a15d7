"""What became of the repository's vital files while a worker ran, by plain file reads: no git runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from worktrees.git import Repo
    from worktrees.model import Audit


def fingerprint(repo: Repo, workspace: Path | None = None, admin_dir: Path | None = None) -> dict[str, Any]:
    """The vital files as they are now, as a JSON object; taken when the workspace stands and before its worker starts."""
    raise NotImplementedError


def audit(
    repo: Repo,
    workspace: Path,
    admin_dir: Path | None,
    before: dict[str, Any],
    *,
    own_refs: str = "refs/wt/",
    expected: Collection[str] = (),
) -> Audit:
    """Compares with a fingerprint; `expected` are commits that landings of ours gave to refs meanwhile: no finding for those."""
    raise NotImplementedError
