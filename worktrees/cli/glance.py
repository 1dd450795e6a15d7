"""The plainest `wt list` and `wt status`, answered in little more than the time Python takes to start.

Goes ahead only where nothing can be wrong or needs doing: an ordinary repository of this user's, used by `wt` before,
seen from its own checkout or a linked one, and jobs that are what their records say. For everything else the answer is
None before anything was printed, and the long way (`quick.show`) mends, complains or refuses. No git process runs: the
few files that lead to the state are read as git reads them.
"""

from __future__ import annotations

import json
import os
import stat
import time

from worktrees import __version__
from worktrees.jobs import ledger
from worktrees.render.envelope import encode, envelope
from worktrees.render.jobs import cells_table, job_cells, tally, word_of
from worktrees.render.text import duration, terminal

FORMAT = b"1\n"
"""What `store.FORMAT` looks like on disk; any other number is the long way's to judge."""
# Of a line of `ledger.lines`.
_WORKSPACE, _CREATED, _TEXTS = 3, 4, 5
_PRESENCE = ('"workspacePresent":true', '"workspacePresent":false')


def answer(command: str, *, as_json: bool, closed: bool) -> bytes | None:
    """All that `list` or `status` prints, None when it takes more to say."""
    try:
        state = None if os.environ.get("WT_JOB") else _state_around(os.getcwd())
        if state is None or os.path.lexists(f"{state}/merging"):  # a merge waits for its boss: the long way says so
            return None
        return _answer(f"{state}/workflows", command, as_json=as_json, closed=closed)
    except Exception:  # noqa: BLE001 - the long way meets it again, and can tell
        return None


def _answer(workflows: str, command: str, *, as_json: bool, closed: bool) -> bytes | None:
    now = time.time_ns()

    def texts(row: ledger.Row) -> list[str]:
        return [json.dumps(row, ensure_ascii=False, separators=(",", ":"))] if as_json else job_cells(row, now / 1e9)

    kind, key = ("json", __version__) if as_json else ("table", _key())
    found: list[ledger.Line] = []
    live: list[ledger.Row] = []
    damaged: list[str] = []
    for name in ledger.workflow_names(workflows):
        if not ledger.is_closed(workflows, name, damaged) or closed:
            lines, rows = ledger.lines(workflows, name, texts, kind=kind, key=key, now_ns=now)
            found += lines
            live += rows
    if damaged:
        return None
    if live:
        from worktrees.jobs.liveness import needs_mending

        if needs_mending(workflows, live):
            return None
    found.sort(key=lambda line: (line[_CREATED], line[0]))
    if as_json:
        before, after = encode(envelope(command, {"jobs": []})).split(b"[]", 1)
        jobs = ",".join(_with_presence(found)).encode("utf-8", "backslashreplace")
        return before + b"[" + jobs + b"]" + after
    cells = [line[_TEXTS:] for line in found]
    # Checked again: what is kept ready was safe when it was written down.
    if not cells or not all(map(str.isprintable, map("".join, cells))):
        return None
    text = cells_table(cells, terminal())
    if command == "status":
        text += "\n" + tally([word_of(line) for line in cells])
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _key() -> str:
    """Names the way cells are made: whoever changes it changes these files."""
    files = (job_cells.__code__.co_filename, duration.__code__.co_filename)
    return " ".join([__version__, *(str(os.stat(file).st_mtime_ns) for file in files)])


def _with_presence(found: list[ledger.Line]) -> list[str]:
    """The JSON of each job; workspaces come and go without a change in their job's directory."""
    there: dict[str, set[str]] = {}
    texts = []
    for line in found:
        root, name = os.path.split(line[_WORKSPACE])
        if root not in there:
            try:
                there[root] = set(os.listdir(root)) if root else set()
            except OSError:
                there[root] = set()
        now, was = _PRESENCE if name in there[root] else _PRESENCE[::-1]
        # In a text of the job's the quotes would be escaped, so this can only be the key.
        texts.append(line[_TEXTS].replace(was, now, 1))
    return texts


# ---------------------------------------------------------------------------------------------------- where we are
def _state_around(here: str) -> str | None:
    """The state directory of the repository around a directory; None when git itself should say, or `isolation`."""
    found = None
    place = here
    while True:
        if os.path.lexists(f"{place}/.wt.json"):
            return None  # a worker's place, perhaps
        if found is None:
            if os.path.lexists(f"{place}/HEAD"):
                return None  # inside of a git directory, perhaps
            if os.path.lexists(f"{place}/.git"):
                found = place
        above = os.path.dirname(place)
        if above == place:
            break
        place = above
    if found is None:
        return None
    common = _common_directory(found)
    if common is None or not _is_ordinary(_read(f"{common}/config")) or _read(f"{common}/wt-state/format") != FORMAT:
        return None
    return f"{common}/wt-state"


def _common_directory(work_tree: str) -> str | None:
    """Where the repository of a work tree is, if it all belongs to us."""
    git_dir = common = f"{work_tree}/.git"
    mode = os.lstat(git_dir).st_mode
    if stat.S_ISREG(mode):
        lead, _, path = _read(git_dir).rstrip(b"\n").partition(b" ")
        git_dir = os.path.join(work_tree, os.fsdecode(path))
        if lead != b"gitdir:" or _read(f"{git_dir}/commondir") != b"../..\n":
            return None
        common = os.path.dirname(os.path.dirname(git_dir))
        if _is_adopted(common, os.path.basename(git_dir)):
            return None  # a worker's place
    elif not stat.S_ISDIR(mode):
        return None
    mine = os.geteuid()
    owned = all(os.lstat(place).st_uid == mine for place in (work_tree, f"{work_tree}/.git", git_dir, common))
    return common if owned and os.path.lexists(f"{git_dir}/HEAD") else None


def _is_adopted(common: str, entry: str) -> bool:
    """Whether a linked work tree is perhaps some job's; `isolation` looks closer."""
    records = f"{common}/wt-state/workspaces"
    wanted = json.dumps({"entry": entry}, ensure_ascii=False, separators=(",", ":"))[1:-1].encode()
    return os.path.isdir(records) and any(wanted in _read(f"{records}/{name}") for name in os.listdir(records))


def _is_ordinary(config: bytes) -> bool:
    """Whether a repository's configuration says nothing of where its files are or what format it has."""
    lines = config.lower().replace(b" ", b"").replace(b"\t", b"").split(b"\n")
    unusual = any(
        line.startswith((b"worktree", b"[extensions", b"[include"))
        or (line.startswith(b"bare") and line != b"bare=false")
        or (line.startswith(b"[") and not line.endswith(b"]"))  # a setting behind the name of its section
        for line in lines
    )
    return b"repositoryformatversion=0" in lines and not unusual


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 20)
