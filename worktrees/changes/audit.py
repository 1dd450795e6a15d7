"""What became of the repository's vital files while a worker ran, by plain file reads: no git runs here.

`fingerprint` before and `audit` after look at the same files. Damage that could run code or lead git elsewhere is
quarantine: configuration, hooks, attributes, alternates, a worktree's pointers, wt's own store, the user's git files.
Everything else is only reported: refs, the boss's HEAD, the stash. The boss may have moved those itself meanwhile, and
the messages say so; what a worker did to its own worktree's HEAD nobody else can have done.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worktrees.changes.plain import all_refs, as_key, from_key, loose_refs, read
from worktrees.changes.scan import Notes
from worktrees.model import Audit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from worktrees.git import Repo

# Above this many refs only a digest of them all is kept.
_MOST_REFS = 20_000
_ALL = "all refs"
_MEANWHILE = "; you or another job may have done it"
_POINTER = "workspace/.git"
_STORE = "wt-state/store.git"
_GUARD = "wt-state/guard"
# Lines that the boss's own `git push -u` and the like write, and that run nothing.
_HARMLESS_SECTION = re.compile(r'\[branch "[^"\\]+"\]')
_HARMLESS_LINE = re.compile(
    r"(remote *= *[\w.-]+|(merge|rebase|description|vscode-merge-base|gh-merge-base) *=[^\\\";#]*)", re.IGNORECASE
)
_OPEN_OPERATIONS = (
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "BISECT_LOG",
    "rebase-merge/head-name",
    "rebase-apply/head-name",
)


# ---------------------------------------------------------------------------------------------------- fingerprint
def fingerprint(repo: Repo, workspace: Path | None = None, admin_dir: Path | None = None) -> dict[str, Any]:
    """The vital files as they are now, as a JSON object; taken when the workspace stands, before its worker starts.

    `admin_dir` is the workspace's own directory below `worktrees/`. Costs one read of each loose ref.
    """
    return _look(repo, workspace, admin_dir, _user_files())


def expecting(before: dict[str, Any], files: Mapping[str, list[Any]], config: bytes | None) -> dict[str, Any]:
    """A fingerprint for which these states of files are no finding either: changes of our own, made meanwhile.

    `files` are names below the git directory with their state, [] for gone; `config` is the configuration's new text.
    """
    expected = {name: list(states) for name, states in before.get("expected", {}).items()}
    for name, state in files.items():
        expected.setdefault(name, []).append(state)
    texts = [*before.get("expectedConfig", ()), *([config.decode("latin-1")] if config is not None else [])]
    return {**before, "expected": expected, "expectedConfig": texts}


def _look(
    repo: Repo,
    workspace: Path | None,
    admin_dir: Path | None,
    user_files: Iterable[Path],
    *,
    own_refs: str = "refs/wt/",
    one_digest: bool | None = None,
) -> dict[str, Any]:
    """A fingerprint; `one_digest` says whether all refs are one, None to decide by their number."""
    common = repo.common_dir
    refs = {name: value for name, value in all_refs(common).items() if not name.startswith(own_refs)}
    if len(refs) > _MOST_REFS if one_digest is None else one_digest:
        text = "\n".join(f"{name} {value}" for name, value in sorted(refs.items()))
        import hashlib

        refs = {_ALL: hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()}
    if admin_dir is not None:
        own = f"worktrees/{admin_dir.name}"
        refs |= {f"{own}/{name}": value for name, value in loose_refs(admin_dir, "refs").items()}
    return {
        "files": {as_key(name): _state(path) for name, path in _vital(repo, workspace, user_files)},
        "refs": {as_key(name): as_key(value) for name, value in refs.items()},
        "reflogs": {as_key(name): size for name, size in _reflogs(common)},
        "config": (read(common / "config", 1 << 20) or b"").decode("latin-1"),
        "head": [
            os.path.relpath(repo.git_dir / "HEAD", common),
            (read(repo.git_dir / "HEAD") or b"").decode("latin-1").strip(),
        ],
    }


def _state(path: Path) -> list[Any]:
    """Mode and content of a file; a file that cannot be read has its mode to be known by."""
    try:
        found = os.lstat(path)
    except OSError:
        return []
    if stat.S_ISLNK(found.st_mode):
        return [found.st_mode, as_key(os.readlink(path))]
    if not stat.S_ISREG(found.st_mode):
        return [found.st_mode, ""]
    import hashlib

    with suppress(OSError), open(path, "rb") as file:
        return [found.st_mode, hashlib.file_digest(file, "sha256").hexdigest(), found.st_size]
    return [found.st_mode, "unreadable"]


def _vital(repo: Repo, workspace: Path | None, user_files: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Name and place of every file that is compared; files that are not there count too where they are named."""
    common = repo.common_dir
    for name in (
        "config",
        "config.worktree",
        "HEAD",
        "shallow",
        "objects/info/alternates",
        "objects/info/http-alternates",
    ):
        yield name, common / name
    for directory in ("hooks", "info", "reftable"):
        yield from _below(common, directory)
    yield "logs/refs/stash", common / "logs/refs/stash"
    for name in ("config", "HEAD", "objects/info/alternates"):
        yield f"{_STORE}/{name}", common / _STORE / name
    for directory in ("hooks", "info"):
        yield from _below(common, f"{_STORE}/{directory}")
    yield from _below(common, _GUARD)
    for entry in _names(common / "worktrees"):
        for name in ("gitdir", "commondir", "HEAD", "locked", "config.worktree", "logs/HEAD", *_OPEN_OPERATIONS):
            yield f"worktrees/{entry}/{name}", common / "worktrees" / entry / name
        yield from _below(common, f"worktrees/{entry}/info")
    yield from _submodules(common, "modules")
    yield from _hooks_elsewhere(repo)
    for path in user_files:
        yield f"user:{path}", path
    if workspace is not None:
        yield _POINTER, workspace / ".git"


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _below(top: Path, directory: str) -> Iterator[tuple[str, Path]]:
    """Every file below a directory, symlinks as such."""
    for name in _names(top / directory):
        place = f"{directory}/{name}"
        if (top / place).is_dir() and not (top / place).is_symlink():
            yield from _below(top, place)
        # The list of refs for dumb transports: the user's own gc writes it.
        elif place != "info/refs":
            yield place, top / place


def _submodules(common: Path, directory: str) -> Iterator[tuple[str, Path]]:
    """The configuration and hooks of submodules' repositories, and of those inside them."""
    for name in _names(common / directory):
        place = f"{directory}/{name}"
        if (common / place / "HEAD").exists():
            yield f"{place}/config", common / place / "config"
            yield from _below(common, f"{place}/hooks")
            yield from _submodules(common, f"{place}/modules")
        elif (common / place).is_dir():
            yield from _submodules(common, place)


def _hooks_elsewhere(repo: Repo) -> Iterator[tuple[str, Path]]:
    """Hooks in a directory that the repository's configuration names."""
    found = re.findall(rb"(?im)^\s*hookspath\s*=\s*(.+?)\s*$", read(repo.common_dir / "config", 1 << 20) or b"")
    if found and repo.work_tree is not None:
        place = repo.work_tree / Path(os.fsdecode(found[-1].strip(b'"'))).expanduser()
        for name in _names(place):
            yield f"hooks:{place / name}", place / name


def _user_files() -> Iterator[Path]:
    """The user's own configuration, attributes and ignore rules."""
    home = Path.home()
    yield Path(os.environ.get("GIT_CONFIG_GLOBAL") or home / ".gitconfig")
    yield from (
        Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "git" / name
        for name in ("config", "attributes", "ignore")
    )


def _reflogs(common: Path) -> Iterator[tuple[str, int]]:
    """Reflogs and their sizes: they only grow, unless somebody rewrites them."""
    for directory, _, names in os.walk(common / "logs"):
        for name in names:
            path = os.path.join(directory, name)
            with suppress(OSError):
                yield os.path.relpath(path, common), os.lstat(path).st_size


# ---------------------------------------------------------------------------------------------------- audit
@dataclass(frozen=True, slots=True)
class _Rule:
    """What a change of a file means; `{}` in the message stands for its name."""

    code: str
    damage: bool
    message: str


_CONFIG = _Rule("config-changed", True, "{} changed: it can run programs")
_HOOKS = _Rule("hooks-changed", True, "the hook {} changed")
_ADMIN = _Rule("admin-changed", True, "{} changed: it leads git elsewhere")
_INFO = _Rule("info-changed", True, "{} changed: it can run filters or rewrite history")
_RULES = {
    "config": _CONFIG,
    "config.worktree": _CONFIG,
    "shallow": _Rule("shallow-changed", False, f"{{}} changed{_MEANWHILE}"),
    "objects/info/alternates": _Rule("alternates-changed", True, "{} changed: it decides which objects git sees"),
    "objects/info/http-alternates": _Rule("alternates-changed", True, "{} changed: it decides which objects git sees"),
    "info/attributes": _INFO,
    "info/grafts": _INFO,
    "logs/refs/stash": _Rule("stash-changed", False, f"the stash changed{_MEANWHILE}"),
    _POINTER: _Rule("git-pointer-changed", True, "the `.git` of the workspace was replaced: it leads git elsewhere"),
}
_BY_PLACE = (
    ("hooks/", _HOOKS),
    ("hooks:", _HOOKS),
    ("info/", _Rule("info-changed", False, "{} changed: git sees other files as ignored or present")),
    ("reftable/", _Rule("refs-moved", False, f"refs moved{_MEANWHILE}")),
    (f"{_GUARD}/", _HOOKS),
    (f"{_STORE}/", _Rule("store-changed", True, "{} of wt's own store changed")),
    ("modules/", _Rule("config-changed", True, "{} of a submodule's repository changed: it can run programs")),
    ("user:", _Rule("user-config-changed", True, "the user's {} changed: it can run programs")),
)


def audit(
    repo: Repo,
    workspace: Path,
    admin_dir: Path | None,
    before: dict[str, Any],
    *,
    own_refs: str = "refs/wt/",
    expected: Collection[str] = (),
) -> Audit:
    """Compares with a fingerprint of the same workspace.

    `own_refs` are spared. `expected` are commits that landings of ours gave to refs meanwhile: no finding for those.
    """
    # The same files of the user's: whoever settles a job may have another HOME than who started it.
    user_files = [Path(from_key(name.removeprefix("user:"))) for name in before["files"] if name.startswith("user:")]
    after = _look(repo, workspace, admin_dir, user_files, own_refs=own_refs, one_digest=_ALL in before["refs"])
    comparison = _Comparison(
        before, after, admin_dir.name if admin_dir is not None else None, own_refs, frozenset(expected)
    )
    comparison.files()
    comparison.refs()
    comparison.reflogs()
    findings = comparison.notes.result()
    return Audit(clean=not findings, quarantine=comparison.damage, findings=list(findings))


class _Comparison:
    """Two fingerprints side by side."""

    def __init__(
        self, before: dict[str, Any], after: dict[str, Any], own: str | None, own_refs: str, expected: frozenset[str]
    ) -> None:
        self.before = before
        self.after = after
        self.own = f"worktrees/{own}/" if own is not None else None
        self.own_refs = own_refs
        self.expected = expected
        self.notes = Notes()
        self.damage = False

    def note(self, rule: _Rule, key: str) -> None:
        self.notes.add(rule.code, from_key(key).removeprefix("user:").removeprefix("hooks:"), rule.message)
        self.damage = self.damage or rule.damage

    def files(self) -> None:
        """Findings about the files themselves."""
        old, new = self.before["files"], self.after["files"]
        ours = self.before.get("expected", {})
        for name in sorted(old.keys() | new.keys()):
            if new.get(name, []) in (old.get(name, []), *ours.get(name, ())):
                continue
            if (rule := self._rule(name)) is not None:
                self.note(rule, name)

    def _rule(self, name: str) -> _Rule | None:
        if name.startswith("worktrees/"):
            return self._worktree_rule(name)
        if name == self.before["head"][0]:
            return _Rule("boss-head-moved", False, f"the boss's {{}} was switched{_MEANWHILE}")
        if name == "HEAD":
            return _Rule("refs-moved", False, f"{{}} of the main work tree was switched{_MEANWHILE}")
        if name == "config" and self._config_is_harmless():
            return _Rule("config-changed", False, f"{{}} changed: only what branches follow{_MEANWHILE}")
        return _RULES.get(name) or next((rule for place, rule in _BY_PLACE if name.startswith(place)), None)

    def _config_is_harmless(self) -> bool:
        modes = [side["files"]["config"][:1] for side in (self.before, self.after)]
        texts = [self.before["config"], *self.before.get("expectedConfig", ())]
        new = _weighty(self.after["config"])
        return modes[0] == modes[1] and new is not None and new in map(_weighty, texts)

    def _worktree_rule(self, name: str) -> _Rule | None:
        _, entry, file = name.split("/", 2)
        if self.own is not None and name.startswith(self.own):
            if file == "HEAD" or (file == "logs/HEAD" and self._grew(name) and self._same(f"{self.own}HEAD")):
                return _Rule("worker-committed", False, "the worker moved its HEAD: it committed, reset or switched")
            if file == "logs/HEAD":
                return None
            if file in _OPEN_OPERATIONS:
                return _Rule("worker-committed", False, "the worker left {}: a merge or the like is open")
            if file == "locked":
                return _Rule("admin-changed", False, "the worktree was unlocked")
            return _Rule("info-changed", False, "{} changed") if file.startswith("info/") else _ADMIN
        if name == self.before["head"][0]:
            return _Rule("boss-head-moved", False, f"the boss's {{}} moved{_MEANWHILE}")
        # Other worktrees come and go, and may be half made or half gone; those of other jobs have audits of their own.
        old, new = (side["files"].get(name) for side in (self.before, self.after))
        whole = bool(old and old[2:] != [0] and new)
        if file in ("gitdir", "commondir"):
            return _ADMIN if whole else None
        if file == "config.worktree":
            place = f"worktrees/{entry}/gitdir"
            return _ADMIN if self.before["files"].get(place) and self._same(place) else None
        if file == "HEAD" and whole and not entry.startswith("j-"):
            return _Rule("refs-moved", False, f"{{}} moved{_MEANWHILE}")
        return None

    def _grew(self, name: str) -> bool:
        old, new = (side["files"].get(name) or [0, "", 0] for side in (self.before, self.after))
        return bool(new[2:] > old[2:])

    def _same(self, name: str) -> bool:
        return bool(self.before["files"].get(name) == self.after["files"].get(name))

    def refs(self) -> None:
        """Findings about refs: made, gone or moved."""
        old, new = self.before["refs"], self.after["refs"]
        for name in sorted(old.keys() | new.keys()):
            was, now = old.get(name), new.get(name)
            if was == now or name.startswith(self.own_refs) or (now is not None and now in self.expected):
                continue
            what = (
                "was made"
                if was is None
                else "was deleted"
                if now is None
                else f"moved from {was[:10]} to {(now or '')[:10]}"
            )
            if name == "refs/stash":
                self.note(_RULES["logs/refs/stash"], name)
                continue
            code = "boss-head-moved" if self.before["head"][1] == f"ref: {name}" else "refs-moved"
            self.note(_Rule(code, False, f"{{}} {what}" + ("" if name.startswith("worktrees/") else _MEANWHILE)), name)

    def reflogs(self) -> None:
        """Findings about reflogs that lost entries while their ref stayed."""
        old, new = self.before["reflogs"], self.after["reflogs"]
        for name, size in sorted(old.items()):
            ref = name.removeprefix("logs/")
            kept = ref == "HEAD" or ref in self.after["refs"]
            if kept and new.get(name, 0) < size and not ref.startswith(self.own_refs) and ref != "refs/stash":
                self.note(_Rule("reflogs-rewritten", False, f"{{}} lost entries{_MEANWHILE}"), name)


def _weighty(config: str) -> list[tuple[str, str]] | None:
    """The lines of a configuration, each with its section, without those that run nothing; None if not plain."""
    found = []
    section = ""
    for line in map(str.strip, config.split("\n")):
        if line.endswith("\\"):
            return None
        if line.startswith("["):
            section = line  # with whatever stands behind it, so only a bare header is one of the harmless
        harmless = _HARMLESS_SECTION.fullmatch(section) and (line == section or _HARMLESS_LINE.fullmatch(line))
        if line and not harmless:
            found.append((section, line))
    return found
