"""A throw-away git directory of our own, for git commands that look at a worker's tree.

git is never run with a git directory, index, configuration or attributes file that a worker can write. A desk is an
empty git directory made for one capture: HEAD and a configuration of ours, an index that is a copy, attributes and
excludes as recorded before the worker ran; objects go to wt's store. The user's configuration files are not read,
because a worker without a sandbox can write those too; the few settings that decide about contents (line ends, filters)
come from the record.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from worktrees import git
from worktrees.store import start_ticks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PREFIX = ".desk-"
_SETTINGS = (
    "core.fileMode=true",
    "core.symlinks=true",
    # What git compares before it believes that a file is untouched: inode and change time too, which a worker cannot
    # set.
    "core.trustctime=true",
    "core.checkStat=default",
    "core.untrackedCache=false",
    "core.splitIndex=false",
    "core.sparseCheckout=false",
    "core.safecrlf=false",
    "core.excludesFile=/dev/null",
    "protocol.allow=never",
    "submodule.recurse=false",
)


class Desk:
    """One throw-away git directory; made by `desk`."""

    def __init__(self, path: Path, object_format: str, objects: Path, work_tree: Path, config: Sequence[str]) -> None:
        self.path = path
        self.object_format = object_format
        self.index = path / "index"
        self.objects = objects
        self.work_tree = work_tree
        self.config = (*_SETTINGS, f"core.attributesFile={path / 'attributes'}", *config)

    def git(
        self,
        *args: str | bytes,
        stdin: bytes | None = None,
        expect: tuple[int, ...] | None = (0,),
        work_tree: Path | None = None,
        config: Sequence[str] = (),
        literal: bool = True,
    ) -> git.Completed:
        """Runs git here; see `worktrees.git.run`."""
        return git.run(
            *args,
            git_dir=self.path,
            work_tree=work_tree or self.work_tree,
            index=self.index,
            stdin=stdin,
            config=(*self.config, *config),
            expect=expect,
            env={
                "GIT_OBJECT_DIRECTORY": str(self.objects),
                "GIT_CONFIG_GLOBAL": os.devnull,
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_ATTR_NOSYSTEM": "1",
                "GIT_LITERAL_PATHSPECS": str(int(literal)),
            },
        )


@contextlib.contextmanager
def desk(
    place: Path,
    object_format: str,
    objects: Path,
    work_tree: Path,
    *,
    config: Sequence[str] = (),
    attributes: bytes = b"",
    info_attributes: bytes = b"",
) -> Iterator[Desk]:
    """A desk in the directory `place`, gone when the block ends; objects of the given format go to `objects`.

    Also removes those that a killed process left in `place`.
    """
    for old in place.glob(f"{_PREFIX}*"):
        if start_ticks(int(old.name.removeprefix(_PREFIX).partition("-")[0])) is None:
            shutil.rmtree(old, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))
    try:
        (path / "refs").mkdir()
        (path / "info").mkdir()
        (path / "HEAD").write_bytes(b"ref: refs/heads/none\n")
        (path / "attributes").write_bytes(attributes)
        (path / "info" / "attributes").write_bytes(info_attributes)
        extensions = f"[extensions]\n\tobjectFormat = {object_format}\n" if object_format != "sha1" else ""
        version = 1 if extensions else 0
        (path / "config").write_text(f"[core]\n\trepositoryFormatVersion = {version}\n\tbare = false\n{extensions}")
        yield Desk(path, object_format, objects, work_tree, config)
    finally:
        shutil.rmtree(path, ignore_errors=True)
