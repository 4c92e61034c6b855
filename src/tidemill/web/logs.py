"""The server's own log: one line for each event on standard error, `key=value` or JSON, with the id of the request that it belongs to.

A server never waits for who reads it: a thread writes, and what finds no room is counted and dropped. What happens often is told often, but
no more than so many times a second, and then how many more there were.
"""

import json
import logging
import os
import re
import sys
import time
from asyncio import CancelledError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import zip_longest
from queue import Full, Queue
from threading import Lock, Thread
from typing import Any

from tidemill.serving import CALLER, NOBODY, Counters

ACCESS = logging.getLogger("tidemill.access")
MOST_LINES, MOST_A_SECOND = 1_000, 20  # lines that wait to be written; lines of one kind
LOST = "log", "dropped"  # what lines are counted by that nobody read
LONGEST_WAIT = 1.0  # seconds that the end waits for who reads
_FIELD = re.compile(r"(?:\b(\w+)=)?(%[-0-9.]*[a-z])")
_STATIC = re.compile(r"(?<!\S)(\w+)=(\S+)")
_PLAIN = re.compile(r"[^\s\"=\x00-\x1f\x7f]+")


@contextmanager
def logged(*, as_json: bool = False, access: bool = False, to: int | None = None, counters: Counters | None = None) -> Iterator[None]:
    """Log so while the block runs, warnings and errors, with `access` each request too. `to` is a file descriptor; what is dropped is
    counted in `counters`."""
    to = sys.stderr.fileno() if to is None else to
    handler, root, level = Lined(to, as_json=as_json, counters=counters), logging.getLogger(), ACCESS.level
    root.addHandler(handler)
    ACCESS.setLevel(logging.INFO if access else logging.WARNING)
    try:
        yield
    finally:
        ACCESS.setLevel(level)
        root.removeHandler(handler)
        handler.close()


def note_access(method: str, path: str, status: int | str, seconds: float) -> None:
    """A request was answered."""
    if ACCESS.isEnabledFor(logging.INFO):
        ACCESS.info("method=%s path=%s status=%s seconds=%.6f", method, path, status, seconds)


class Lined(logging.Handler):
    """Writes lines to a file descriptor, by a thread of its own."""

    def __init__(self, to: int, *, as_json: bool = False, clock: Any = time.time, counters: Counters | None = None) -> None:
        """`clock` gives seconds since 1970; what is dropped is counted."""
        super().__init__()
        self._to, self._as_json, self._clock, self._dropped = to, as_json, clock, 0
        self._lost = (counters or Counters()).row(*LOST)
        self._kinds, self._counting = dict[str, list[int]](), Lock()  # of each kind the second, and how many came in it
        self._waiting: Queue[bytes | None] = Queue(MOST_LINES)
        self._thread = Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a line written, later; none for what the end of the server broke off, which it tells itself."""
        if record.exc_info and isinstance(record.exc_info[1], CancelledError):
            return
        more = self._suppressed(record)
        if more is not None:
            self._put(line_of({**fields_of(record), **({"suppressed": more} if more else {})}, as_json=self._as_json))

    def close(self) -> None:
        """End, after what is waiting, but for who does not read."""
        for kind, (_, count) in [*self._kinds.items()]:
            if count > MOST_A_SECOND:
                self._put(self._told("tidemill.web.logs", {"suppressed": count - MOST_A_SECOND, "message": kind}))
        try:
            self._waiting.put(None, timeout=LONGEST_WAIT)
            self._thread.join(LONGEST_WAIT)
        except Full:
            pass
        super().close()

    def _suppressed(self, record: logging.LogRecord) -> int | None:
        """How many like it were left out before it; None where it is to be left out too."""
        if record.name == ACCESS.name:
            return 0
        second, kind = int(self._clock()), str(record.msg)[:200]
        with self._counting:
            before, count = self._kinds.get(kind, (second, 0))
            again = second == before
            self._kinds[kind] = [second, count + 1 if again else 1]
            if len(self._kinds) > MOST_LINES:
                self._kinds.clear()
        return max(count - MOST_A_SECOND, 0) if not again else None if count >= MOST_A_SECOND else 0

    def _put(self, line: bytes) -> None:
        try:
            self._waiting.put_nowait(line)
        except Full:
            with self._counting:
                self._dropped += 1
                self._lost[0] += 1

    def _told(self, name: str, fields: Mapping[str, Any]) -> bytes:
        return line_of({"time": _time(self._clock()), "level": "warning", "logger": name, **fields}, as_json=self._as_json)

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            self._write(line)
            if self._dropped:
                with self._counting:
                    dropped, self._dropped = self._dropped, 0
                self._write(self._told("tidemill.web.logs", {"dropped": dropped, "message": "nobody read this log fast enough"}))

    def _write(self, line: bytes) -> None:
        try:
            while line:
                line = line[os.write(self._to, line) :]
        except OSError:
            pass  # nobody reads it any more


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says, by name. Of our own messages each `name=%s` is a field, and the rest the message."""
    found: dict[str, Any] = {"time": _time(record.created), "level": record.levelname.lower(), "logger": record.name}
    caller = CALLER.get()
    if caller is not NOBODY:
        found |= {"request": caller.name, **({"trace": caller.trace} if caller.trace else {}), **caller.about}
    if record.name.startswith("tidemill") and isinstance(record.args, tuple):
        found |= _parsed(str(record.msg), record.args)
    else:
        found["message"] = record.getMessage()
    if record.exc_info:
        found["exception"] = logging.Formatter().formatException(record.exc_info)
    return found


def _parsed(template: str, args: tuple[Any, ...]) -> dict[str, Any]:
    """
    >>> _parsed("deployment=%s rung=%s circuit=open tried_again_in=%s", ("late", "champion", "10s"))
    {'deployment': 'late', 'rung': 'champion', 'circuit': 'open', 'tried_again_in': '10s'}
    >>> _parsed("view=%s is left as it is: %s", ("delays", "no room"))
    {'view': 'delays', 'message': 'is left as it is: no room'}
    """
    found, words, left = dict[str, Any](), list[str](), iter(args)
    for text, name, directive in zip_longest(*[iter(_FIELD.split(template))] * 3):
        found |= dict(_STATIC.findall(text))
        words.append(_STATIC.sub("", text))
        if directive:
            value = next(left, "")
            shown = directive % value
            found |= {name: type(value)(shown) if type(value) in (int, float) else shown} if name else {}
            words.append("" if name else shown)
    message = " ".join(" ".join(words).split())
    return found | ({"message": message} if message else {})


def line_of(fields: Mapping[str, Any], *, as_json: bool) -> bytes:
    """One line; as text, an exception is told below it, indented: what stands at the beginning of a line is ours. A text of a client can
    tell a terminal nothing.

    >>> print(line_of({"level": "warning", "rung": "previous version", "rows": 3}, as_json=False).decode(), end="")
    level=warning rung="previous version" rows=3
    """
    if as_json:
        return _json(fields).encode(errors="backslashreplace") + b"\n"
    text = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items() if name != "exception")
    below = "".join(f"  {_shown(line)}\n" for line in str(fields.get("exception", "")).splitlines())
    return f"{text}\n{below}".encode(errors="backslashreplace")


def _quoted(value: Any) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text.isprintable() else _json(text)


def _json(value: Any) -> str:
    """As JSON, readable where each character is one that can be seen."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if text.isprintable() else json.dumps(value, default=str).replace("\x7f", "\\u007f")


def _shown(line: str) -> str:
    return line if line.isprintable() else line.encode("unicode_escape").decode()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
