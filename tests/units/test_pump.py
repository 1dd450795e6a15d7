"""Lines into events: nothing dropped, nothing twice, whatever the bytes are and wherever it was interrupted."""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worktrees.supervisor import pump as pump_module
from worktrees.supervisor.pump import LONGEST, Pump

BYTES = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from([b"\n", b"\r\n", "é中😀".encode(), b"\xe4\xb8", b"\0", b'"\\']))
).map(b"".join)


def events(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "events.jsonl").read_bytes().split(b"\n")[:-1]]


def drain(pump: Pump) -> None:
    while pump.step():
        pass


def said(directory: Path, kind: str) -> list[str]:
    return [event["content"] for event in events(directory) if event["type"] == kind]


def lines(content: bytes) -> list[str]:
    """What the generic adapter should say, one line after the other."""
    parts = content.split(b"\n")
    if not parts[-1]:
        parts.pop()
    return [part.decode("utf-8", "backslashreplace") for part in parts]


@given(out=st.lists(BYTES, max_size=6), err=BYTES, cut=st.integers(min_value=0))
@example(out=[b"", b"\n\n"], err=b"", cut=0)
@example(out=[b"a\r\nb", "ü".encode()[:1], "ü".encode()[1:] + b"\n"], err=b"\xff", cut=7)
def test_every_line_becomes_one_event_in_order(out: list[bytes], err: bytes, cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        pump = Pump(name)
        (directory / "stderr.log").write_bytes(err)
        for piece in out:
            with (directory / "stdout.log").open("ab") as file:
                file.write(piece)
            drain(pump)
        pump.close()
        # Somebody else goes on, from wherever the first was killed.
        whole = (directory / "events.jsonl").read_bytes()
        (directory / "events.jsonl").write_bytes(whole[: cut % (len(whole) + 1)])
        with contextlib.closing(Pump(name)) as last:
            last.finish()
        content = b"".join(out)
        assert said(directory, "message") == lines(content)
        assert said(directory, "progress") == lines(err)
        *before, final = events(directory)
        assert final["type"] == "final"
        assert all(event["type"] != "final" for event in before)
        assert final["at"] == [len(content), len(err)]
        assert final["content"] in ["", *(line.rstrip(" \t\n\r\v\f") for line in lines(content))]


def test_a_long_line_comes_in_pieces_and_whole(tmp_path: Path) -> None:
    content = ("x" * (LONGEST - 1) + "é" + "中" * LONGEST + "\n" + "y" * LONGEST + "\n" + "z" * LONGEST).encode()
    (tmp_path / "stdout.log").write_bytes(content)
    with contextlib.closing(Pump(str(tmp_path))) as last:
        last.finish()
    pieces = said(tmp_path, "message")
    assert "".join(pieces) == content.decode().replace("\n", "")
    assert max(len(piece.encode()) for piece in pieces) <= LONGEST
    assert pieces[0] == "x" * (LONGEST - 1)  # no character is cut in two
    assert pieces[-2:] == ["y" * LONGEST, "z" * LONGEST]
    assert len(events(tmp_path)[-1]["content"].encode()) <= LONGEST


def test_a_line_is_held_until_it_ends(tmp_path: Path) -> None:
    pump = Pump(str(tmp_path))
    (tmp_path / "stdout.log").write_bytes(b"half")
    assert not pump.step()
    (tmp_path / "stdout.log").write_bytes(b"half and half\n")
    assert pump.step()
    assert said(tmp_path, "message") == ["half and half"]


def test_the_final_message_is_the_last_one_that_says_something(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_bytes(b"first\n  the answer  \n\n \n")
    with contextlib.closing(Pump(str(tmp_path))) as last:
        last.finish()
    assert events(tmp_path)[-1]["content"].strip() == "the answer"


def test_a_short_write_is_taken_back_and_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a full disk does: some bytes arrive, then none."""
    (tmp_path / "stdout.log").write_bytes(b"".join(b"line %d\n" % number for number in range(9000)))
    pump = Pump(str(tmp_path))
    room = [200_000]

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        count = min(len(data), room[0])
        room[0] -= count
        return os.pwrite(fd, data[:count], offset)

    class Full:
        def __getattr__(self, name: str) -> Any:
            return pwrite if name == "pwrite" else getattr(os, name)

    monkeypatch.setattr(pump_module, "os", Full())
    with pytest.raises(OSError, match="No space left"):
        drain(pump)
    torn = events(tmp_path)
    assert 0 < len(torn) < 9000
    room[0] = 1 << 30
    pump.finish()
    assert events(tmp_path)[: len(torn)] == torn
    assert said(tmp_path, "message") == [f"line {number}" for number in range(9000)]
