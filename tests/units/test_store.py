"""Files that arrive whole, lines with a cursor, locks that name their holder, processes that are who they were."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from worktrees import store
from worktrees.errors import Busy, StateBroken, Usage
from worktrees.store import AliveLock, State


def test_times_are_utc_with_milliseconds_and_come_back() -> None:
    assert store.timestamp(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"
    assert store.seconds_of("2023-11-14T22:13:20.123Z") == pytest.approx(1_700_000_000.123)


def test_a_record_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    store.write_json(path, {"a": 1}, durable=True)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TypeError):
        store.write_json(path, {"a": object()})
    assert store.read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".record")] == []


def test_a_full_disk_leaves_the_old_record(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    store.write_json(path, {"a": 1})
    script = (
        "import resource, signal, sys; from worktrees.store import write_json\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_json(sys.argv[1], {'a': 'x' * 5000}, durable=True)\n"
        "except OSError: sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == 7
    assert store.read_json(path) == {"a": 1}
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".tmp")]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(StateBroken) as caught:
        store.read_json(path)
    assert str(path) in caught.value.message
    assert store.read_json(tmp_path / "missing.json") is None


def test_lines_are_read_once_each_and_a_torn_one_not_yet(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert store.read_lines(path, 0) == ([], 0)
    for number in range(10):
        store.append_line(path, {"n": number, "text": "é\n"})
    with path.open("ab") as file:
        file.write(b'{"n": 10')

    first, cursor = store.read_lines(path, 0, most=4)
    rest, end = store.read_lines(path, cursor)

    assert [value["n"] for value in first + rest] == list(range(10))
    assert store.read_lines(path, end) == ([], end)
    with path.open("ab") as file:
        file.write(b"}\n")
    assert store.read_lines(path, end)[0] == [{"n": 10}]


def test_a_line_for_which_there_is_no_room_is_not_begun(tmp_path: Path) -> None:
    store.append_line(tmp_path / "stream", {"number": 1})
    script = (
        "import resource, sys; from worktrees.store import append_line; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40)); append_line(sys.argv[1], {'long': 'x' * 100})"
    )
    full = subprocess.run([sys.executable, "-c", script, tmp_path / "stream"], capture_output=True, check=False)
    assert b"No space left on device" in full.stderr
    store.append_line(tmp_path / "stream", {"number": 2})
    assert store.read_lines(tmp_path / "stream", 0)[0] == [{"number": 1}, {"number": 2}]


@pytest.mark.parametrize("offset", [3, 10_000])
def test_a_cursor_that_is_not_ours_is_refused(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "lines.jsonl"
    store.append_line(path, {"n": 1})
    with pytest.raises(Usage):
        store.read_lines(path, offset)
    with pytest.raises(Usage):
        store.read_lines(tmp_path / "missing", offset)


def test_a_newer_format_is_refused_and_nothing_touched(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert not state.exists()
    state.prepare()
    assert State(tmp_path).exists()
    (state.root / "format").write_text(f"{store.FORMAT + 1}\n")
    with pytest.raises(StateBroken) as caught:
        State(tmp_path).prepare()
    assert "upgrade" in (caught.value.hint or "")
    (state.root / "format").write_text("what\n")
    with pytest.raises(StateBroken):
        State(tmp_path).exists()


HOLDER = (
    "import sys; from pathlib import Path; from worktrees.store import State\n"
    "with State(Path(sys.argv[1])).lock('repository', purpose='a test'):\n"
    "    print('held', flush=True); sys.stdin.read()\n"
)


def test_a_lock_names_its_holder_and_is_free_when_the_holder_is_killed(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.prepare()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Busy) as caught, state.lock("repository", purpose="another", timeout_seconds=0.05):
        pass
    assert f"process {holder.pid} for `a test`" in caught.value.message
    holder.kill()
    holder.wait()
    with state.lock("repository", purpose="another", timeout_seconds=5):
        record = json.loads((state.root / "locks" / "repository.holder").read_text())
    assert record["pid"] == os.getpid()
    holder.stdin.close()
    holder.stdout.close()


def test_liveness_is_the_lock_and_survives_exec(tmp_path: Path) -> None:
    lock = AliveLock(tmp_path / "alive")
    assert not lock.is_held()
    taken = lock.take()
    assert taken is not None
    assert lock.is_held()
    assert AliveLock(tmp_path / "alive").take() is None
    child = subprocess.Popen(["sleep", "60"], pass_fds=(taken,))
    os.close(taken)
    assert lock.is_held(), "the child inherited it"
    child.kill()
    child.wait()
    assert not lock.is_held()


def test_a_process_is_told_from_a_later_one_with_its_pid(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"])
    record = store.identity(child.pid)
    assert store.is_alive(record)
    assert not store.is_alive({**record, "startTicks": record["startTicks"] - 1})
    assert not store.is_alive({**record, "bootId": "another"})
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not store.is_alive(record), "a zombie is dead"
    child.wait()
    assert not store.is_alive(record)
    assert not store.is_alive(None)
