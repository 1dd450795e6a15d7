"""The full state of a workspace as a commit in wt's own store, whatever the worker did to git.

Before the worker starts, `prime` records what a capture trusts: an index with the stat data of the fresh checkout, the
ignore rules of the baseline, the settings and attributes that decide about contents, and what setup had put there.
`capture` works on a copy:

1. its own walk lists what is there (`scan`); git's stat comparison lists which known files may have changed
2. ignored are only paths that the recorded rules ignore, so a rule of the worker's hides nothing
3. what is to be hashed is checked against the limits and made readable
4. one `update-index` hashes it; a path that git refuses is found by halving and reported, the rest is recorded
5. tree, commit; objects that only the user's repository holds are copied into the store, where no gc of the user's
   comes
6. with a ref: everything is made durable, then the ref, then the ref is made durable

Nothing is written into the workspace, but for owner's permissions that were taken away (mode 000), once the worker is
dead. A submodule of the baseline is read by plain file reads; a nested repository that the worker made counts as
ordinary files.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from worktrees.changes import cut, submodules
from worktrees.changes.desk import Desk, desk
from worktrees.changes.rules import joined
from worktrees.changes.scan import Notes, Scan, Walk, Walker, measure, note_links
from worktrees.errors import GitFailed, StateBroken
from worktrees.git import reader
from worktrees.model import IgnoredFile, Oid, path_base64, path_text
from worktrees.store import boot_id, read_json, write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from worktrees.config import Settings
    from worktrees.git import ObjectStore, Repo
    from worktrees.model import Baseline, JobId, RepoPath

# The user's gc may take an object between two of our looks at it. The next try writes that one anew, so each try needs
# one that was still there to be taken.
_ATTEMPTS = 10
# Failed processes spent on finding the paths that git refuses.
_PATIENCE = 2000
_SETTINGS = (
    r"^(filter\..*|lfs\.storage"
    r"|core\.(autocrlf|eol|attributesfile|excludesfile|ignorecase|precomposeunicode|bigfilethreshold))$"
)
_FILES = ("core.attributesfile=", "core.excludesfile=")
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Record:
    """What was known before the worker ran.

    `submodules` are paths with oid, whether they were there, and the measure of those checked out; `present` the
    measures of untracked paths that setup had made. A `sparse` index has entries that are not there by design.

    `young` is the rest of the second in which the worker may have started, by the clock of the workspace's file system
    in nanoseconds. git compares seconds, so an edit in that time may look to it as if nothing had happened. Left to
    itself it reads every file of that age again, which is most of a fresh checkout, in every look; so it is told that
    the index is older than that, and what changed in that time is found by its change time, which nobody can set.
    """

    settings: tuple[str, ...] = ()
    excludes: bytes = b""
    attributes: bytes = b""
    info_attributes: bytes = b""
    submodules: dict[str, tuple[str, bool, list[int] | None]] = field(default_factory=dict)
    present: dict[str, list[int] | None] = field(default_factory=dict)
    sparse: bool = False
    young: tuple[int, int] | None = None
    boot: str | None = None

    def dump(self) -> bytes:
        rules = {name: base64.b64encode(getattr(self, name)).decode() for name in _RULES}
        rest = {
            "settings": self.settings,
            "submodules": self.submodules,
            "present": self.present,
            "sparse": self.sparse,
            "young": self.young,
            "boot": self.boot,
        }
        return json.dumps({**rules, **rest}).encode()


_RULES = ("excludes", "attributes", "info_attributes")


def filters_since(repo: Repo, indexes: Iterable[Path]) -> list[str]:
    """Names of filter settings that are not what they were when the workspaces of these indexes were primed."""
    done = repo.git("config", "--null", "--get-regexp", r"^filter\.", expect=(0, 1))
    pairs = [os.fsdecode(entry).partition("\n") for entry in done.records]
    known = [set(record.settings) if (record := record_of(index)) else set() for index in indexes]
    trusted: set[str] = set.intersection(*known) if known else set()
    return list(
        dict.fromkeys(name for name, mark, value in pairs if f"{name}={value if mark else 'true'}" not in trusted)
    )


def record_of(index: Path) -> _Record | None:
    """What `prime` wrote beside an index, None when it did not, or when a power cut tore it: neither is synced."""
    with suppress(StateBroken):
        value = read_json(_record_path(index))
        if value and index.is_file() and (value.get("boot") in (None, boot_id()) or cut.is_whole(index)):
            return _parsed(value)
    return None


def _parsed(value: dict[str, Any]) -> _Record:
    return _Record(
        settings=tuple(value["settings"]),
        submodules={path: (oid, there, size) for path, (oid, there, size) in value["submodules"].items()},
        present=value["present"],
        sparse=value["sparse"],
        young=tuple(value["young"]) if value.get("young") else None,
        boot=value.get("boot"),
        **{name: base64.b64decode(value[name]) for name in _RULES},
    )


def _record_path(index: Path) -> Path:
    return index.with_name(f"{index.name}.json")


def after_path(index: Path) -> Path:
    """Where a capture leaves its index, with the stat data of what it took."""
    return index.with_name(f"{index.name}.after")


# ---------------------------------------------------------------------------------------------------- before the worker
def prime(
    store: ObjectStore,
    repo: Repo,
    workspace: Path,
    baseline: Baseline,
    index: Path,
    *,
    seed: Path | None = None,
    brought: Collection[bytes] | None = None,
) -> None:
    """Records, before the worker starts, what a capture trusts.

    `seed` is the index that git's checkout of this workspace just wrote; without it every file is hashed once. Called
    after setup has filled the workspace. `brought` are the untracked paths that setup made, None for all there are,
    in a workspace that nobody has worked in yet. Writes `index` and `<index>.json`. Cost: about a `git status`.
    """
    settings, user_excludes, attributes = _user_rules(repo)
    with desk(index.parent, repo.object_format, store.path / "objects", workspace, config=settings) as own:
        _read_baseline(own, baseline.start, seed)
        entries = _entries(own)
        excludes = user_excludes + _content(repo.common_dir / "info" / "exclude") + _ignore_rules(store, entries)
        modules = _take_out_submodules(own, workspace, entries)
        record = _Record(
            settings=settings,
            excludes=excludes,
            attributes=attributes,
            info_attributes=_content(repo.common_dir / "info" / "attributes"),
            submodules=modules,
            present=_present(own, workspace, excludes, modules, brought),
            sparse=any(entry.tag in b"Ss" for entry in entries),
            young=_young(workspace) if brought is None else None,
            boot=boot_id(),
        )
        if record.young is not None:
            os.utime(own.index, ns=(record.young[1], record.young[1]))
        write_bytes(_record_path(index), record.dump())
        os.replace(own.index, index)


def _young(workspace: Path) -> tuple[int, int] | None:
    """From now to the end of this second by the clock of the workspace's file system; None if it has no fine one."""
    try:
        fd = os.open(workspace, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (AttributeError, OSError):
        return None
    try:
        now = os.fstat(fd).st_ctime_ns
    finally:
        os.close(fd)
    return (now, now - now % _SECOND + _SECOND) if now % _SECOND else None


def _user_rules(repo: Repo) -> tuple[tuple[str, ...], bytes, bytes]:
    """The user's settings about contents as `name=value`, and the excludes and attributes of all their repositories."""
    done = repo.git("config", "--null", "--get-regexp", _SETTINGS, expect=(0, 1))
    settings = []
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()) / "git"
    files = {_FILES[0]: home / "attributes", _FILES[1]: home / "ignore"}
    for entry in done.records:
        name, separator, value = os.fsdecode(entry).partition("\n")
        setting = f"{name}={value if separator else 'true'}"
        if setting.startswith(_FILES):
            files[f"{name}="] = Path(value).expanduser()
        else:
            settings.append(setting)
    if any(setting.startswith("filter.lfs.") for setting in settings):
        # Large files go where the user's own repository looks for them; a relative place starts at its git directory.
        chosen = [setting.removeprefix("lfs.storage=") for setting in settings if setting.startswith("lfs.storage=")]
        settings.append(f"lfs.storage={repo.common_dir / (chosen or ['lfs'])[-1]}")
    attributes, excludes = (_content(files[name]) for name in _FILES)
    return tuple(settings), excludes.rstrip(b"\n") + b"\n", attributes


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes().rstrip(b"\n") + b"\n"
    except OSError:
        return b""


def _read_baseline(own: Desk, start: Oid, seed: Path | None) -> None:
    """Fills the index with the start's tree and, where the seed has it, the stat data of the checkout."""
    if seed is not None and seed.is_file():
        # The time of the index file is what git tells young entries by, so the copy keeps it.
        shutil.copy2(seed, own.index)
        if (
            own.git("diff-index", "--cached", "--quiet", "--ignore-submodules=none", start, "--", expect=None).status
            == 0
        ):
            return
        if own.git("read-tree", "-m", start, expect=None).status == 0:
            return
        own.index.unlink()
    own.git("read-tree", start)
    own.git("update-index", "-q", "--refresh", expect=(0, 1))


class _Entry(NamedTuple):
    """An entry of an index as `ls-files` tells it."""

    tag: bytes
    mode: bytes
    oid: bytes
    path: bytes


def _entries(own: Desk) -> list[_Entry]:
    """Entries worth a look: ignore rules, submodules, flagged ones; assumptions that hide changes are taken back."""
    entries = []
    for record in own.git("ls-files", "-v", "-s", "-z").records:
        # Nearly all are plain files, and there may be a hundred thousand.
        if record[:5] != b"H 100" or record.endswith(b".gitignore"):
            words, _, path = record.partition(b"\t")
            tag, mode, oid, _ = words.split(b" ")
            entries.append(_Entry(tag, mode, oid, path))
    if assumed := [entry.path for entry in entries if entry.tag.islower()]:
        own.git("update-index", "-z", "--no-assume-unchanged", "--stdin", stdin=_joined(assumed))
    return entries


def _ignore_rules(store: ObjectStore, entries: Iterable[_Entry]) -> bytes:
    """The rules of all `.gitignore` files of an index; a symlink of that name is none to git either."""
    files = [
        (path, oid) for _, mode, oid, path in entries if (b"/" + path).endswith(b"/.gitignore") and mode != b"120000"
    ]
    with reader(store.path, native=False) as objects:
        return joined((path, objects.blob(Oid(oid.decode()))) for path, oid in files)


def _take_out_submodules(
    own: Desk, workspace: Path, entries: Iterable[_Entry]
) -> dict[str, tuple[str, bool, list[int] | None]]:
    """Removes submodules from the index, because git looks into the repositories of those it knows."""
    found = {}
    for _, mode, oid, path in entries:
        if mode == b"160000":
            name = os.fsdecode(path)
            place = workspace / name
            size = submodules.measured(place) if os.path.lexists(place / ".git") else None
            found[name] = (oid.decode(), place.is_dir(), size)
    if found:
        own.git("update-index", "-z", "--index-info", stdin=_removal(map(os.fsencode, found), own))
    return found


def _removal(paths: Iterable[bytes], own: Desk) -> bytes:
    zero = b"0" * (64 if own.object_format == "sha256" else 40)
    return b"".join(b"0 %s\t%s\0" % (zero, path) for path in paths)


def _present(
    own: Desk, workspace: Path, excludes: bytes, modules: Iterable[str], brought: Collection[bytes] | None
) -> dict[str, list[int] | None]:
    """Ignored paths that are there already, and untracked ones that setup made, with their measures."""
    if not set(names_of(own.git("ls-files", "--others", "--directory", "-z"))) - {f"{path}/" for path in modules}:
        return {}
    rules = excludes_file(own, excludes)
    untracked = names_of(own.git("ls-files", "--others", "-z", f"--exclude-from={rules}"))
    if brought is not None:
        untracked = [path for path in untracked if os.fsencode(path) in brought]
    paths = [*_ignored(own, rules), *untracked]
    root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return {path: measure(root, path) for path in (name.rstrip("/") for name in paths)}
    finally:
        os.close(root)


# ---------------------------------------------------------------------------------------------------- capture
def capture(
    store: ObjectStore,
    repo: Repo,
    workspace: Path,
    baseline: Baseline,
    *,
    job: JobId,
    ref: str | None,
    index: Path,
    settings: Settings,
    candidates: Iterable[RepoPath] | None = None,
    filters: Sequence[str] | None = None,
    durable: bool = True,
) -> tuple[Oid, Scan]:
    """Makes the snapshot commit and names it `ref` in the store; `ref` None is a live look that names nothing.

    `candidates` are the only paths that can have changed, None when nobody knows. `filters` are settings
    (`filter.x.clean=…`) in place of those `prime` recorded. May be repeated; never changes `index`. Cost: a `git
    status`, and hashing what changed.

    Raises: GitFailed, OSError; nothing is named then.
    """
    wanted = None if candidates is None else [os.fsdecode(path) for path in candidates]
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            tree, scan = _tree(store, repo, workspace, baseline, index, settings, wanted, filters, live=ref is None)
            commit = store.commit(tree, [baseline.start], f"wt snapshot of {job}\n")
            if ref is not None:
                store.adopt(commit, baseline.commit)
                if durable:
                    store.make_durable()
                store.set_ref(ref, commit, durable=durable)
        except GitFailed:
            if attempt == _ATTEMPTS:
                raise
        else:
            return commit, scan
    raise AssertionError("unreachable")


def _tree(
    store: ObjectStore,
    repo: Repo,
    workspace: Path,
    baseline: Baseline,
    index: Path,
    settings: Settings,
    candidates: list[str] | None,
    filters: Sequence[str] | None,
    *,
    live: bool,
) -> tuple[Oid, Scan]:
    notes = Notes()
    try:
        root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        # Not the same as a tree without files: merging that would delete everything.
        notes.add("workspace-missing", str(workspace), "the workspace {} is gone; the baseline stands for it")
        return Oid(store.git("rev-parse", "--verify", f"{baseline.start}^{{tree}}").text), Scan(
            notes.result(), (), verified=False
        )
    record = record_of(index)
    known = record or _Record()
    same_boot = known.boot in (None, boot_id()) if record else not _record_path(index).exists()
    chosen = (
        [setting for setting in known.settings if not setting.startswith("filter.")]
        if filters is not None
        else known.settings
    )
    try:
        with desk(
            index.parent, repo.object_format, store.path / "objects", workspace,
            config=(*chosen, *(filters or ())), attributes=known.attributes, info_attributes=known.info_attributes,
        ) as own:  # fmt: skip
            if record is not None:
                shutil.copy2(index, own.index)
            else:
                known = _unprimed(store, own, workspace, baseline.start)
            look = _Look(own, known, notes, workspace, root, repo.common_dir / "modules", settings, live, same_boot)
            tree = look.tree(candidates)
            scan = Scan(notes.result(), tuple(look.ignored()), notes.verified)
            if not live:
                if known.young is not None and own.index.stat().st_mtime_ns == known.young[1]:
                    # Nothing was staged. Whoever compares with it later knows of no young time and leaves it to git.
                    os.utime(own.index, ns=(known.young[0], known.young[0]))
                os.replace(own.index, after_path(index))
            return tree, scan
    finally:
        os.close(root)


def _unprimed(store: ObjectStore, own: Desk, workspace: Path, start: Oid) -> _Record:
    """The record of a workspace that was never primed: the rules of the baseline's tree and nothing of the user's."""
    own.git("read-tree", start)
    entries = _entries(own)
    return _Record(excludes=_ignore_rules(store, entries), submodules=_take_out_submodules(own, workspace, entries))


class _Meanwhile(Thread):
    """Something that is done while we do something else."""

    def __init__(self, work: Callable[[], list[str]]) -> None:
        super().__init__()
        self._work = work
        self._found: list[str] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Does it."""
        try:
            self._found = self._work()
        except BaseException as error:  # noqa: BLE001 - raised by `result`
            self._error = error

    def result(self) -> list[str]:
        """Waits for what was found. Raises: what the work raised."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._found


@dataclass(slots=True)
class _Look:
    """One look at a workspace."""

    own: Desk
    record: _Record
    notes: Notes
    workspace: Path
    root: int
    modules: Path
    settings: Settings
    live: bool
    same_boot: bool
    ignored_paths: list[str] = field(default_factory=list)

    def tree(self, candidates: list[str] | None) -> Oid:
        """The tree of what is there."""
        tracked, absent = self._tracked()
        # git compares stat data in its own process while we walk.
        touched = _Meanwhile(self._touched) if candidates is None else None
        try:
            seen = self._walk(tracked, candidates)
        finally:
            dirty = touched.result() if touched else list(tracked)
        there = seen.files | seen.links
        lost = (
            tracked - there - absent
            if candidates is None
            else {path for path in tracked - there if _below(path, candidates)}
        )
        if seen.blind:
            blind = tuple(seen.blind)
            lost = {path for path in lost if not path.startswith(blind)}
        fresh = self._fresh(seen, tracked)
        young = [path for path in seen.young if path in tracked]
        if self.record.young is not None and (young or candidates is not None):
            # What is staged from here on is compared by its content.
            os.utime(self.own.index, ns=(self.record.young[0], self.record.young[0]))
        changed = [path for path in dict.fromkeys([*dirty, *young]) if path in there]
        if not self.same_boot:
            cut.note_emptied(self.own, self.root, changed, self.notes)
        returned = sorted(absent & there)
        add = self._admitted([*changed, *returned, *fresh], seen, frozenset(fresh))
        links = self._submodules(seen)
        if lost or links:
            entries = _removal(map(os.fsencode, sorted(lost)), self.own)
            entries += b"".join(b"160000 %s\t%s\0" % link for link in links)
            self.own.git("update-index", "--add", "--replace", "-z", "--index-info", stdin=entries)
        if returned:
            self.own.git(
                "update-index", "-z", "--no-skip-worktree", "--stdin", stdin=_joined(map(os.fsencode, returned))
            )
        self._stage(add)
        return Oid(self.own.git("write-tree").text)

    def _tracked(self) -> tuple[set[str], set[str]]:
        """Paths of the index, and those of them that a sparse checkout left out."""
        if not self.record.sparse:
            return set(names_of(self.own.git("ls-files", "-z"))), set()
        tagged = names_of(self.own.git("ls-files", "-t", "-z"))
        return {entry[2:] for entry in tagged}, {entry[2:] for entry in tagged if entry[0] == "S"}

    def _touched(self) -> list[str]:
        return names_of(self.own.git("diff-files", "--name-only", "-z", "--ignore-submodules=all"))

    def _walk(self, tracked: set[str], candidates: list[str] | None) -> Walk:
        rules = excludes_file(self.own, self.record.excludes)
        modules = self.record.submodules.keys()
        if candidates is None:
            self.ignored_paths = [path for path in _ignored(self.own, rules) if path.rstrip("/") not in modules]
        walker = Walker(
            self.root,
            self.notes,
            known=tracked,
            ignored=frozenset(path.rstrip("/") for path in self.ignored_paths),
            submodules=modules,
            young=self.record.young,
            max_depth=self.settings.max_depth,
            repair=not self.live,
        )
        unsorted: Iterable[str] = ()
        if candidates is None:
            walker.walk()
            if walker.seen.nested:
                unsorted = [path for path in walker.seen.files | walker.seen.links if _below(path, walker.seen.nested)]
        else:
            real = os.path.realpath(self.workspace)
            for path in candidates:
                above = os.path.join(real, os.path.dirname(path)).rstrip("/")
                if os.path.realpath(above) == above:
                    walker.look(path)
            unsorted = walker.seen.files | walker.seen.links
        self._leave_out_ignored(walker.seen, [path for path in unsorted if path not in tracked])
        return walker.seen

    def _leave_out_ignored(self, seen: Walk, paths: list[str]) -> None:
        """Asks the rules about single paths, for those that `ls-files` does not see."""
        if not paths:
            return
        nowhere = self.own.path / "nowhere"
        nowhere.mkdir(exist_ok=True)
        # This command knows no literal paths, and `./` keeps a leading `:` from being magic.
        done = self.own.git(
            "check-ignore", "--no-index", "-z", "--stdin",
            stdin=_joined(b"./" + os.fsencode(path) for path in paths), work_tree=nowhere,
            config=(f"core.excludesFile={self.own.path / 'excludes'}",), literal=False, expect=(0, 1),
        )  # fmt: skip
        found = [path.removeprefix("./") for path in names_of(done)]
        seen.files.difference_update(found)
        seen.links.difference_update(found)
        self.ignored_paths += found

    def _fresh(self, seen: Walk, tracked: set[str]) -> list[str]:
        """Untracked paths, without those that setup made and nobody touched."""
        fresh = sorted((seen.files | seen.links) - tracked)
        if self.record.present:
            present = self.record.present
            fresh = [path for path in fresh if path not in present or measure(self.root, path) != present[path]]
        for path in fresh:
            if not path.isascii() and path_base64(os.fsencode(path)) is not None:
                self.notes.add("name-not-utf8", path, "the name {} is not UTF-8, which not every file system takes")
        return fresh

    def _admitted(self, paths: list[str], seen: Walk, fresh: frozenset[str]) -> list[str]:
        """Of the paths to be hashed those that are readable and within the limits."""
        most_files, most_bytes = self.settings.max_files, self.settings.max_bytes
        total = 0
        admitted: list[str] = []
        links: list[str] = []
        for path in paths:
            if path in seen.links:
                links.append(path)
            else:
                try:
                    found = os.stat(path, dir_fd=self.root, follow_symlinks=False)
                except OSError:
                    continue  # gone while the worker runs
                if most_bytes and total + found.st_size > most_bytes:
                    size = (
                        f"{{}} has {found.st_size} bytes, too many for the limit of {most_bytes} in all (`max_bytes`)"
                    )
                    self.notes.add("too-large", path, size)
                    continue
                if not self._readable(path, found):
                    continue
                total += found.st_size
            if most_files and len(admitted) >= most_files:
                self.notes.add(
                    "too-many-files", path, f"{{}} is beyond the limit of {most_files} changed files (`max_files`)"
                )
                continue
            admitted.append(path)
        note_links(self.workspace, links, self.notes)
        return admitted

    def _readable(self, path: str, found: os.stat_result) -> bool:
        if os.access(path, os.R_OK, dir_fd=self.root, effective_ids=True):
            return True
        # With a second name the file may be somebody else's business as well.
        if not self.live and stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            with suppress(OSError):
                os.chmod(path, stat.S_IMODE(found.st_mode) | stat.S_IRUSR, dir_fd=self.root)
                self.notes.add(
                    "made-readable", path, f"{{}} had mode {stat.S_IMODE(found.st_mode):04o}; its owner may read it now"
                )
                return True
        self.notes.add("unreadable", path, "{} cannot be read")
        return False

    def _submodules(self, seen: Walk) -> list[tuple[bytes, bytes]]:
        """The submodules as they stand now: object id and path."""
        links = []
        for path, (oid, there, size) in self.record.submodules.items():
            now: str | None = oid
            if path in seen.submodules:
                now = submodules.commit_now(self.own, self.modules, self.workspace, path, oid, size, self.notes)
            elif path in seen.files or path in seen.links or (there and path not in seen.empty):
                now = oid if f"{path}/".startswith(tuple(seen.blind)) and seen.blind else None
            if now is not None:
                links.append((now.encode(), os.fsencode(path)))
        return links

    def _stage(self, paths: list[str]) -> None:
        """Hashes paths into the index, and says which of them git did not take."""
        if not paths:
            return
        refused = self._refused(paths, ())
        filters = {
            setting.split(".", 1)[1].rsplit(".", 1)[0] for setting in self.own.config if setting.startswith("filter.")
        }
        if refused and filters:
            failed = refused
            refused = self._refused(failed, [f"filter.{name}.required=false" for name in filters])
            for path in sorted(set(failed).difference(refused)):
                self.notes.add("filter-failed", path, "the filter of {} failed; its content is recorded unfiltered")
        # Some names it passes over with status 0, so what it holds is looked at.
        held = set(names_of(self.own.git("ls-files", "-z")))
        for path in sorted({*refused, *(path for path in paths if path not in held)}):
            if os.path.lexists(os.path.join(self.workspace, path)):
                self.notes.add("not-recorded", path, "git refuses to record {}")

    def _refused(self, paths: list[str], config: Sequence[str]) -> list[str]:
        """Hashes paths; git ends at the first one it refuses, so those are found by halving."""
        waiting = [paths]
        refused: list[str] = []
        processes = 0
        while waiting:
            part = waiting.pop()
            done = self.own.git(
                "update-index", "--add", "--replace", "--remove", "-z", "--stdin",
                stdin=_joined(map(os.fsencode, part)), config=config, expect=None,
            )  # fmt: skip
            if done.status == 0:
                continue
            processes += 1
            if processes > _PATIENCE:
                raise GitFailed(done.command, done.status, done.stderr)
            if len(part) == 1:
                refused += part
            else:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
        return refused

    def ignored(self) -> Iterator[IgnoredFile]:
        """Ignored paths that the worker made or changed; a directory with nothing else in it is one path."""
        for path in self.ignored_paths:
            size = measure(self.root, path.rstrip("/"))
            if size is not None and size[0] and size != self.record.present.get(path.rstrip("/")):
                raw = os.fsencode(path)
                yield IgnoredFile(path=path_text(raw), path_base64=path_base64(raw), size_bytes=size[1])


def names_of(done: Any) -> list[str]:
    """The paths of a `-z` answer; decoded in one go, which is what large trees are quick by."""
    names: list[str] = os.fsdecode(done.stdout).split("\0")
    names.pop()
    return names


def _joined(paths: Iterable[bytes]) -> bytes:
    return b"".join(path + b"\0" for path in paths)


def _below(path: str, tops: Sequence[str]) -> bool:
    """Whether a path is one of `tops` or below one."""
    return path in tops or any(path.startswith(f"{top}/") for top in tops)


def excludes_file(own: Desk, excludes: bytes) -> Path:
    """The recorded ignore rules as a file of a desk."""
    path = own.path / "excludes"
    path.write_bytes(excludes)
    return path


def _ignored(own: Desk, rules: Path) -> list[str]:
    """Paths that the rules ignore, a directory (with `/` at the end) for everything below it."""
    found: list[str] = []
    for path in sorted(
        names_of(own.git("ls-files", "--others", "--ignored", "--directory", "-z", f"--exclude-from={rules}"))
    ):
        if not (found and found[-1].endswith("/") and path.startswith(found[-1])):
            found.append(path)
    return found
