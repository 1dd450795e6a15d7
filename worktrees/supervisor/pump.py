r"""Stdout and stderr of a worker into typed events, while it runs and after.

`events.jsonl` has one object a line: `type`, `content`, `timestamp` (when the pump read it) and `at`, the two log
offsets behind the event. The last whole line therefore says where to go on, whoever goes on: a torn line is cut off
first. One process pumps at a time, the one that holds `alive`.

Without a dialect each line of stdout is a `message`, of stderr `progress`; bytes that are not UTF-8 appear as
`\xNN`; a line longer than `LONGEST` comes in pieces. Nothing is dropped, and memory stays flat: a chunk is read, its
events are written in slices, and only then the position moves on.

With one (`dialects`) a line of stdout is a record with any number of events. `part` counts, in each event but the last
of a record, how many of them are written, so that whoever goes on repeats none; and he reads what was read before once
more, for what the dialect remembers. A record longer than `LONGEST_RECORD` is text. The `final` event carries what the
dialect knows of the run as `run`.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from json.encoder import encode_basestring

from worktrees.supervisor.dialects import DIALECTS, clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worktrees.supervisor.dialects import Dialect

LONGEST = 1 << 16
LONGEST_RECORD = 1 << 22
_CHUNK = 1 << 17
_SLICE = 2048
_REASON = 500
_TYPES = ("message", "progress")


def timestamp() -> str:
    """The time as `store.now` writes it."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"


class Pump:
    """Reads two logs from where the events stop."""

    def __init__(self, job_dir: str, dialect: str | None = None) -> None:
        self._kind = DIALECTS.get(dialect or "")
        self._dialect: Dialect | None = None
        self._written = 0  # events of the record at `at` that are there already
        flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC
        self._logs = [os.open(os.path.join(job_dir, name), flags, 0o600) for name in ("stdout.log", "stderr.log")]
        self._events = os.open(os.path.join(job_dir, "events.jsonl"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = 0
        self.at = [0, 0]
        self.last: dict[str, object] = {}
        self._resume()

    def sizes(self) -> tuple[int, int]:
        """Bytes the worker has written so far to stdout and stderr."""
        return os.fstat(self._logs[0]).st_size, os.fstat(self._logs[1]).st_size

    def step(self, *, ended: bool = False) -> bool:
        """Turns one chunk of each log into events; whether there was something.

        `ended` takes an unterminated last line too. Raises: OSError (a full disk); nothing is lost, call again later.
        """
        moved = False
        for stream in (0, 1):
            try:
                moved |= self._step(stream, ended)
            except OSError:
                self._resume()
                raise
        return moved

    def finish(self, error: str | None = None) -> None:
        """The rest of the logs, an `error` event if there is one to tell, and the one `final`.

        Idempotent. Raises: OSError; call again later.
        """
        if self.last.get("type") == "final":
            return
        while self.step(ended=True):
            pass
        try:
            if self._dialect is not None:
                self._write_parts(self._dialect.rest(), self.at, held=True)
            if error is not None and self.last.get("content") != error:
                text = error.encode("utf-8", "backslashreplace").decode()
                self._write([self._line("error", encode_basestring(text), timestamp(), self.at)])
            run = f',"run":{json.dumps(self._run())}' if self._dialect is not None else ""
            self._write([self._line("final", encode_basestring(self._final_message()), timestamp(), self.at, run)])
        finally:
            self._resume()

    def close(self) -> None:
        """Lets go of the files; nothing may be called after it."""
        for descriptor in (*self._logs, self._events):
            os.close(descriptor)

    def _resume(self) -> None:
        """Takes position from the last whole line and cuts off what is behind it."""
        end = os.fstat(self._events).st_size
        tail = b""
        start = end
        while start > 0 and tail.count(b"\n") < 2:
            start = max(0, start - _CHUNK)
            tail = os.pread(self._events, end - start, start)
        whole = tail.rfind(b"\n") + 1
        self._size = start + whole
        if self._size < end:
            os.ftruncate(self._events, self._size)
        self.last = {}
        if whole:
            self.last = json.loads(tail[tail.rfind(b"\n", 0, whole - 1) + 1 : whole])
            self.at = list(self.last["at"])  # type: ignore[call-overload]
        else:
            self.at = [0, 0]
        self._written = int(self.last.get("part", 0))  # type: ignore[call-overload]
        if self._kind is not None and self.last.get("type") != "final":
            self._dialect = self._kind()
            self._read_again(self._dialect, self.at[0])

    def _read_again(self, dialect: Dialect, end: int) -> None:
        """Has a dialect read what was read before, for what it remembers."""
        start = 0
        while start < end:
            size, lines, _ = self._records(start, ended=True, end=end)
            for line in lines:
                dialect.events(line)
            start += size

    def _records(self, start: int, *, ended: bool, end: int | None = None) -> tuple[int, list[bytes], bool]:
        """Whole lines from an offset on: their size, they, and whether they may be records: not one too long."""
        chunk = b""
        for size in (_CHUNK, LONGEST_RECORD):
            chunk = os.pread(self._logs[0], size if end is None else min(size, end - start), start)
            if cut := chunk.rfind(b"\n") + 1:
                return cut, chunk[: cut - 1].split(b"\n"), True
        if len(chunk) == LONGEST_RECORD:
            return len(chunk), [chunk], False
        return (len(chunk), [chunk], True) if chunk and ended else (0, [], True)

    def _step_records(self, dialect: Dialect, ended: bool) -> bool:  # noqa: FBT001 - private
        start = self.at[0]
        size, lines, are_records = self._records(start, ended=ended)
        position = start
        for number, line in enumerate(lines):
            position = start + size if number == len(lines) - 1 else position + len(line) + 1
            found = dialect.events(line) if are_records else [("progress", line.decode("utf-8", "backslashreplace"))]
            self._write_parts(found, [position, self.at[1]])
            self.at[0] = position
        return size > 0

    def _write_parts(self, found: list[tuple[str, str]], after: list[int], *, held: bool = False) -> None:
        """Writes the events of one record, those left out that are there already.

        All but the last say how many are written; the last has the position `after` the record, unless more may follow.
        """
        parts = [(kind, piece) for kind, content in found for piece in _pieces(content)]
        now = timestamp()
        lines = []
        for number, (kind, content) in enumerate(parts[self._written :], self._written + 1):
            is_last = number == len(parts) and not held
            more = "" if is_last else f',"part":{number}'
            lines.append(self._line(kind, encode_basestring(content), now, after if is_last else self.at, more))
        self._write(lines)
        self._written = 0

    def _step(self, stream: int, ended: bool) -> bool:  # noqa: FBT001 - private
        if stream == 0 and self._dialect is not None:
            return self._step_records(self._dialect, ended)
        start = self.at[stream]
        chunk = os.pread(self._logs[stream], _CHUNK, start)
        cut = chunk.rfind(b"\n") + 1
        if cut:
            lines = chunk[: cut - 1].split(b"\n")
            if max(map(len, lines)) <= LONGEST:
                self._lines(stream, lines, chunk[: cut - 1], terminated=True)
            else:
                for line in lines:
                    self._line_in_pieces(stream, line, terminated=True)
        elif len(chunk) > LONGEST:
            piece = _piece(chunk)
            self._lines(stream, [piece], piece, terminated=False)
        elif chunk and ended:
            self._line_in_pieces(stream, chunk, terminated=False)
        return self.at[stream] != start

    def _line_in_pieces(self, stream: int, line: bytes, *, terminated: bool) -> None:
        while len(line) > LONGEST:
            piece = _piece(line)
            self._lines(stream, [piece], piece, terminated=False)
            line = line[len(piece) :]
        self._lines(stream, [line], line, terminated=terminated)

    def _lines(self, stream: int, lines: list[bytes], whole: bytes, *, terminated: bool) -> None:
        """Writes the events of some lines; `whole` are the same bytes before they were split."""
        kind, other, now = _TYPES[stream], self.at[1 - stream], timestamp()
        # Decoding all at once equals decoding each: no UTF-8 sequence holds a newline.
        texts = whole.decode("utf-8", "backslashreplace").split("\n")
        head = f'{{"type":"{kind}","content":'
        middle = f',"timestamp":"{now}","at":[' + ("" if stream == 0 else f"{other},")
        tail = f",{other}]}}\n" if stream == 0 else "]}\n"
        end = self.at[stream]
        for first in range(0, len(lines), _SLICE):
            events = []
            for line, text in zip(lines[first : first + _SLICE], texts[first : first + _SLICE], strict=True):
                end += len(line) + 1
                events.append(f"{head}{encode_basestring(text)}{middle}{end if terminated else end - 1}{tail}")
            self._write(events)
            self.at[stream] = end if terminated else end - 1

    @staticmethod
    def _line(kind: str, content: str, now: str, at: list[int], more: str = "") -> str:
        return f'{{"type":"{kind}","content":{content},"timestamp":"{now}","at":[{at[0]},{at[1]}]{more}}}\n'

    def _write(self, events: list[str]) -> None:
        view = memoryview("".join(events).encode())
        while view:
            written = os.pwrite(self._events, view, self._size)
            self._size += written
            view = view[written:]

    def _run(self) -> dict[str, object]:
        """What the dialect knows of the run; `failure` is why it failed, whatever the exit status says."""
        told = self._dialect
        if told is None:
            return {}
        failure = told.failure
        if failure is None and told.says_when_it_ends and not told.ended:
            failure = self._last_complaint() or told.last_error or "it ended without finishing its turn"
        session, failure = (text if text is None else clean(text) for text in (told.session, failure))
        return {"session": session, "usage": told.usage, "failure": failure}

    def _last_complaint(self) -> str | None:
        """The line of stderr that most likely says why a program could not start."""
        end = os.fstat(self._logs[1]).st_size
        tail = os.pread(self._logs[1], LONGEST, max(0, end - LONGEST)).decode("utf-8", "backslashreplace")
        lines = [line.strip() for line in tail.splitlines() if line.strip()]
        complaints = [line for line in lines if line.lower().startswith(("error", "fatal"))]
        return ((complaints or lines or [""])[-1][:_REASON]) or None

    def _final_message(self) -> str:
        """What the agent said last, or the last line of stdout that says something; at most `LONGEST` bytes of it."""
        if self._dialect is not None:
            return _pieces(self._dialect.message)[0]
        end = os.fstat(self._logs[0]).st_size
        lines = os.pread(self._logs[0], LONGEST, max(0, end - LONGEST)).rstrip().rsplit(b"\n", 1)
        with contextlib.suppress(IndexError):
            return lines[-1].decode("utf-8", "backslashreplace")
        return ""


def _pieces(text: str) -> list[str]:
    """A text in pieces of at most `LONGEST` bytes."""
    if len(text) * 4 <= LONGEST or len(text.encode()) <= LONGEST:
        return [text]
    return [text[first : first + LONGEST // 4] for first in range(0, len(text), LONGEST // 4)]


def _piece(line: bytes) -> bytes:
    """The first `LONGEST` bytes of a line, or up to three fewer so that no character is cut."""
    for shorter in range(4):
        if line[LONGEST - shorter] & 0xC0 != 0x80:
            return line[: LONGEST - shorter]
    return line[:LONGEST]
