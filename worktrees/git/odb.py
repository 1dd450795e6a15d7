"""wt's own object store: a bare repository whose alternates are the user's objects.

Snapshots and candidate merges are written here and named by refs here (`refs/wt/<workflow>/<job>`), so they never
race with the user's gc and leave no litter in the user's repository. Only what lands is copied over, by
`transfer_to`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from worktrees.errors import GitFailed
from worktrees.git import door
from worktrees.git.durability import sync_filesystem
from worktrees.git.refs import break_dead
from worktrees.model import Oid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from worktrees.git.repository import Repo

# Snapshots are made by the tool, not by a person; what lands carries the boss's own name.
TOOL_IDENTITY = ("wt", "wt@localhost")
_ALTERNATES = "objects/info/alternates"


class ObjectStore:
    """The bare repository at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ensure(self, repo: Repo) -> ObjectStore:
        """Makes the store if there is none; whole or not at all, safe for many at once."""
        if self.path.is_dir():
            return self
        with self._fresh(repo) as temporary:
            try:
                os.rename(temporary, self.path)
            except OSError:
                if not self.path.is_dir():
                    raise  # another process was faster otherwise; ours goes away below
        return self

    @contextlib.contextmanager
    def _fresh(self, repo: Repo) -> Iterator[Path]:
        """An empty store beside the place of ours; its name says which process made it."""
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.{os.urandom(4).hex()}.new")
        try:
            door.run(
                "init", "--quiet", "--bare", "--template=", f"--object-format={repo.object_format}", "--",
                os.fspath(temporary), git_dir=None, config=("init.defaultRefFormat=files", "init.defaultBranch=none"),
            )  # fmt: skip
            (temporary / "objects" / "info").mkdir(exist_ok=True)
            (temporary / _ALTERNATES).write_bytes(_alternate_line(repo.common_dir / "objects"))
            for key, value in repo.promisor_settings():
                door.run("config", "--add", key, value, git_dir=temporary)
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def damage(self, repo: Repo) -> dict[str, str]:
        """What of the store is not as `ensure` makes it, so that git cannot read it: part -> what is wrong."""
        if not self.path.is_dir():
            return {".": "is missing"}
        found = {name: "is missing" for name in ("objects", "refs") if not (self.path / name).is_dir()}
        for name in ("HEAD", "config", _ALTERNATES):
            try:
                content = (self.path / name).read_bytes()
            except OSError:
                found[name] = "is missing"
                continue
            if name == "HEAD" and not content.startswith(b"ref: refs/"):
                found[name] = "is garbage"
            elif name == _ALTERNATES and _alternate_line(repo.common_dir / "objects") not in content:
                found[name] = "does not lead to the repository's objects"
            elif name == "config":
                asked = door.run(
                    "config", "--file", os.fspath(self.path / name), "core.bare", git_dir=repo.common_dir, expect=None
                )
                if asked.text != "true":
                    found[name] = "is garbage"
        return found

    def mend(self, repo: Repo, name: str) -> None:
        """Puts a damaged part back as `ensure` makes it; objects and refs that are there stay."""
        if name == ".":
            self.ensure(repo)
            return
        with self._fresh(repo) as fresh:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            os.rename(fresh / name, self.path / name)

    def git(
        self,
        *args: str | bytes,
        work_tree: Path | str | None = None,
        index: Path | str | None = None,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        config: Iterable[str] = (),
        expect: tuple[int, ...] | None = (0,),
        durable: bool = False,
    ) -> door.Completed:
        """Runs git on this store; with a work tree and an index of ours, never those of a worker."""
        return door.run(
            *args, git_dir=self.path, work_tree=work_tree, index=index, stdin=stdin, env=env, config=config,
            expect=expect, durable=durable,
        )  # fmt: skip

    def ref(self, name: str) -> Oid | None:
        """What a ref of the store points at."""
        done = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", name, expect=(0, 1))
        return Oid(done.text) if done.status == 0 else None

    def refs(self, prefix: str) -> dict[str, Oid]:
        """Refs below a prefix."""
        done = self.git("for-each-ref", "--format=%(refname) %(objectname)", prefix)
        pairs = (line.split(" ") for line in done.text.splitlines())
        return {name: Oid(oid) for name, oid in pairs}

    def set_ref(self, name: str, new: Oid, *, durable: bool = False) -> None:
        """Points a ref at a commit."""
        break_dead(self.path / f"{name}.lock")
        self.git("update-ref", "--no-deref", name, new, durable=durable)
        if durable:
            self.make_durable()

    def delete_refs(self, prefix: str) -> None:
        """Removes refs below a prefix."""
        names = list(self.refs(prefix))
        break_dead(self.path / "packed-refs.lock", *(self.path / f"{name}.lock" for name in names))
        if names:
            self.git(
                "update-ref", "--no-deref", "--stdin", stdin="".join(f"delete {name}\n" for name in names).encode()
            )

    def commit(
        self,
        tree: Oid,
        parents: Sequence[Oid],
        message: str,
        *,
        author: tuple[str, str] | None = None,
        committer: tuple[str, str] | None = None,
        date: str | None = None,
        durable: bool = False,
    ) -> Oid:
        """Writes a commit object. `date` is anything git reads, now by default."""
        author = author or TOOL_IDENTITY
        committer = committer or author
        env = {
            "GIT_AUTHOR_NAME": author[0],
            "GIT_AUTHOR_EMAIL": author[1],
            "GIT_COMMITTER_NAME": committer[0],
            "GIT_COMMITTER_EMAIL": committer[1],
        }
        if date is not None:
            env.update(GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)
        words = [word for parent in parents for word in ("-p", parent)]
        done = self.git("commit-tree", *words, "-F", "-", tree, stdin=message.encode(), env=env, durable=durable)
        return Oid(done.text)

    def adopt(self, new: Oid, pinned: Oid | None) -> None:
        """Copies into the store what `new` has beyond `pinned` and only the user's objects hold.

        git writes no object that an alternate has already; there it may be unreachable (staged once, committed by a
        worker), and the user's gc takes it. `pinned` is a commit that a ref of the user's repository holds, None for
        nothing. History is not copied: parents of `new` must be safe already. Cost: one `diff-tree`, nothing more where
        nothing is to be copied.
        """
        if pinned is None:
            entries = [
                record.partition(b"\t")[0].split(b" ") for record in self.git("ls-tree", "-r", "-t", "-z", new).records
            ]
            inside = [oid for mode, _, oid in entries if mode != b"160000"]
        else:
            done = self.git("diff-tree", "-r", "-t", "-z", "--raw", "--no-renames", "--no-abbrev", pinned, new)
            raw = [record.split(b" ") for record in done.records[::2]]
            inside = [oid for _, mode, _, oid, _ in raw if mode not in (b"160000", b"000000")]
        oids = [new, *dict.fromkeys(oid.decode() for oid in inside)]
        if inside:
            oids.append(self.git("rev-parse", "--verify", f"{new}^{{tree}}").text)
        objects = self.path / "objects"
        borrowed = [oid for oid in oids if not os.path.exists(f"{objects}/{oid[:2]}/{oid[2:]}")]
        if borrowed:
            wanted = "".join(f"{oid}\n" for oid in borrowed).encode()
            self.git("pack-objects", "-q", "--window=0", os.fspath(objects / "pack" / "pack"), stdin=wanted)

    def make_durable(self) -> None:
        """Everything written to this store so far survives a power cut; git never syncs directories itself."""
        sync_filesystem(self.path)

    @contextlib.contextmanager
    def transfer_to(self, repo: Repo, commit: Oid, *, known: Sequence[Oid]) -> Iterator[None]:
        """Copies what `commit` reaches and `known` does not into the user's repository as one pack, kept against gc
        meanwhile.

        The pack's `.keep` goes when the block ends: by then a ref must hold the commit.

        Raises: GitFailed; objects that arrived are unreachable then and the user's gc collects them.
        """
        name = self._send(repo, commit, known, "--keep=wt landing")
        keep = repo.common_dir / "objects" / "pack" / f"pack-{name}.keep"
        try:
            _check_whole(repo, commit, known)
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                keep.unlink()

    def copy_to(self, repo: Repo, commit: Oid, *, known: Sequence[Oid]) -> None:
        """The same for what may go again: nothing is kept against gc, and nothing left behind that says so.

        Raises: GitFailed.
        """
        self._send(repo, commit, known)
        _check_whole(repo, commit, known)

    def _send(self, repo: Repo, commit: Oid, known: Sequence[Oid], *words: str) -> str:
        """One pack into the user's repository, on disk when this returns; its name."""
        wanted = "".join([f"{commit}\n", *(f"^{oid}\n" for oid in known)]).encode()
        done = door.pipe(
            ("pack-objects", "--revs", "--stdout", "--thin", "--delta-base-offset", "-q"),
            ("index-pack", "--stdin", "--fix-thin", *words),
            producer_git_dir=self.path,
            consumer_git_dir=repo.common_dir,
            stdin=wanted,
            durable=True,
        )
        return done.text.split("\t")[-1]


def _check_whole(repo: Repo, commit: Oid, known: Sequence[Oid]) -> None:
    """The same question `git fetch` asks before it moves a ref: is everything there? Raises: GitFailed."""
    check = repo.git("rev-list", "--objects", "--quiet", commit, "--not", *known, expect=None)
    if check.status != 0:
        raise GitFailed(["rev-list", "--objects", commit], check.status, check.stderr)


def _alternate_line(objects: Path) -> bytes:
    """A line of `objects/info/alternates`; names with a newline or a leading quote or `#` need C quoting."""
    raw = os.fsencode(objects)
    if b"\n" in raw or raw.startswith((b'"', b"#")):
        escaped = b"".join(
            b"\\n" if byte == 10 else b"\\" + bytes([byte]) if byte in b'"\\' else bytes([byte]) for byte in raw
        )
        raw = b'"' + escaped + b'"'
    return raw + b"\n"
