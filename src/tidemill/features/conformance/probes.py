"""What is asked of a store's online half, step by step, worked by hand: what it is brought, what is pushed to it, what it answers then.

Times are those of 10 March 2024, UTC, as in `cases.py`. A push is known from its own time on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tidemill.features.conformance.cases import A2, LATE, A, B, H, key_of, view_of
from tidemill.features.conformance.values import History, Key, Value, View, time


@dataclass(frozen=True)
class Materialise:
    """Bring what was known by a time from the view's rows to where requests are answered."""

    until: datetime


@dataclass(frozen=True)
class Push:
    """Rows that come by themselves; all are known from then on. `offsets` are their numbers in a source, where it numbers them."""

    at: datetime
    rows: tuple[History, ...]
    offsets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ask:
    """Features of some keys at a time, which is then, and what each must get."""

    at: datetime
    keys: tuple[Key, ...]
    answers: tuple[tuple[Value, ...], ...]
    features: tuple[str, ...] = ("x", "y")


Step = Materialise | Push | Ask


@dataclass(frozen=True)
class Probe:
    """A view with its rows, and steps in the order of time."""

    name: str
    view: View
    steps: tuple[Step, ...]


def _probe(name: str, rows: Sequence[tuple[Any, ...]], *steps: Step, ttl: timedelta | None = None, keys: tuple[str, ...] = ("k",)) -> Probe:
    return Probe(name, view_of(rows, ttl, keys=keys), steps)


def _until(at: str) -> Materialise:
    return Materialise(time(at))


def _push(at: str, *rows: tuple[Any, ...], offsets: tuple[int, ...] = ()) -> Push:
    """Rows are `(key, event, x)`, with `y` behind where it matters."""
    return Push(time(at), tuple(History(key_of(r[0]), time(r[1]), time(at), (r[2], r[3] if len(r) > 3 else 0.5)) for r in rows), offsets)


def _ask(at: str, **x: float | None) -> Ask:
    """The `x` that each key must get, with the usual `y`; None: nothing."""
    answers = tuple((None, None) if value is None else (float(value), 0.5) for value in x.values())
    return Ask(time(at), tuple((key,) for key in x), answers)


MATERIALISED = [
    _probe("what was known by then is there", [A, A2, B], _until("10:30"), _ask("10:30", a=1, b=9)),
    _probe("what became known since is there after the next time", [A, A2], _until("10:30"), _until("11:30"), _ask("11:30", a=2)),
    _probe("an old window again leaves the newest value", [A, A2], _until("11:30"), _until("10:30"), _ask("11:30", a=2)),
    _probe("the same window again changes nothing", [A, A2], _until("11:30"), _until("11:30"), _ask("11:30", a=2)),
    _probe("a window without news keeps the last value", [A], _until("10:30"), _until("20:00"), _ask("20:00", a=1)),
    _probe(
        "a late row that is newer takes the place when it is known",
        [A, LATE],
        _until("11:30"),
        _ask("11:30", a=1),
        _until("12:00"),
        _ask("12:00", a=2),
    ),
    _probe("a late row that is older does not", [A2, ("a", "10:00", "12:00", 1.0)], _until("11:30"), _until("12:30"), _ask("12:30", a=2)),
    _probe(
        "a late row is not lost, though its event lies before the last time",
        [A, ("b", "10:10", "12:00", 5.0)],
        _until("11:00"),
        _ask("11:00", b=None),
        _until("12:00"),
        _ask("12:00", b=5),
    ),
    _probe(
        "a correction of equal event time wins by when it was known",
        [A, ("a", "10:00", "11:00", 2.0)],
        _until("10:30"),
        _ask("10:30", a=1),
        _until("11:00"),
        _ask("11:00", a=2),
    ),
    _probe(
        "of a correction and its first report that come together the correction wins",
        [("a", "10:00", "11:00", 2.0), A],
        _until("11:00"),
        _ask("11:00", a=2),
    ),
]

TTL = [
    _probe("an age of exactly the TTL is young enough", [A], _until("10:30"), _ask("11:00", a=1), ttl=H),
    _probe("a microsecond more is too old, though nothing new came", [A], _until("10:30"), _ask("11:00:00.000001", a=None), ttl=H),
    _probe("what was too old when it came is too old", [A], _until("12:00"), _ask("12:00", a=None), ttl=H),
    _probe("a late row counts from its event", [LATE], _until("12:00"), _ask("12:00", a=2), _ask("12:00:00.000001", a=None), ttl=H),
    _probe(
        "a pushed row makes an expired entity young", [A], _until("12:00"), _push("12:00", ("a", "11:45", 3.0)), _ask("12:30", a=3), ttl=H
    ),
]

NOTHING = [
    _probe("an entity that never was has nothing", [A], _until("11:00"), _ask("11:00", z=None, a=1)),
    _probe("a view without rows has nothing", [], _until("11:00"), _ask("11:00", a=None)),
    _probe(
        "a newest value that is null is the answer",
        [A, ("a", "11:00", "11:00", None, None)],
        _until("10:30"),
        _until("11:30"),
        Ask(time("11:30"), (("a",),), ((None, None),)),
    ),
    _probe(
        "a null beside a value does not call back an older value",
        [("a", "10:00", "10:00", 1.0, 2.0), ("a", "11:00", "11:00", None, 3.0)],
        _until("11:30"),
        Ask(time("11:30"), (("a",),), ((None, 3.0),)),
    ),
    _probe(
        "a null key has nothing",
        [(None, "10:00", "10:00", 5.0), A],
        _until("11:00"),
        Ask(time("11:00"), ((None,), ("a",)), ((None, None), (1.0, 0.5))),
    ),
]

ORDER = [
    _probe(
        "features come in the order asked",
        [("a", "10:00", "10:00", 1.0, 2.0)],
        _until("11:00"),
        Ask(time("11:00"), (("a",),), ((2.0, 1.0),), ("y", "x")),
        Ask(time("11:00"), (("a",),), ((2.0,),), ("y",)),
    ),
    _probe(
        "keys come in the order asked, and as often",
        [A, B],
        _until("11:00"),
        Ask(time("11:00"), (("b",), ("a",), ("z",), ("b",)), ((9.0, 0.5), (1.0, 0.5), (None, None), (9.0, 0.5))),
    ),
    _probe(
        "parts of a key do not run together",
        [(("1", "11"), "10:00", "10:00", 1.0)],
        _until("11:00"),
        Ask(time("11:00"), (("11", "1"), ("1", "11")), ((None, None), (1.0, 0.5))),
        keys=("k", "l"),
    ),
]

PUSHED = [
    _probe("a pushed row is there at once", [A], _until("10:30"), _push("10:45", ("a", "10:40", 2.0)), _ask("10:45", a=2)),
    _probe("also of an entity that nobody knew", [A], _until("10:30"), _push("10:45", ("c", "10:40", 2.0)), _ask("10:45", c=2, a=1)),
    _probe("an old push does not hide a newer row", [A2], _until("11:30"), _push("11:45", ("a", "10:00", 1.0)), _ask("11:45", a=2)),
    _probe(
        "nor one that was pushed",
        [A],
        _until("10:30"),
        _push("10:45", ("a", "10:40", 2.0)),
        _push("10:50", ("a", "10:35", 3.0)),
        _ask("10:50", a=2),
    ),
    _probe("a pushed correction of equal event time wins", [A], _until("10:30"), _push("10:45", ("a", "10:00", 2.0)), _ask("10:45", a=2)),
    _probe(
        "a pushed null is the answer",
        [A],
        _until("10:30"),
        _push("10:45", ("a", "10:40", None, None)),
        Ask(time("10:45"), (("a",),), ((None, None),)),
    ),
    _probe(
        "a batch: of each entity its newest row, in whatever order",
        [A, B],
        _until("10:30"),
        _push("10:45", ("a", "10:40", 2.0), ("b", "10:35", 8.0), ("a", "10:35", 3.0), ("c", "10:36", 4.0)),
        _ask("10:45", a=2, b=8, c=4),
    ),
    _probe(
        "of a batch with one event time the last row wins",
        [A],
        _until("10:30"),
        _push("10:45", ("a", "10:40", 2.0), ("a", "10:40", 3.0)),
        _ask("10:45", a=3),
    ),
    _probe(
        "a window that comes after a push does not take it away",
        [A, A2],
        _until("10:30"),
        _push("11:10", ("a", "11:05", 3.0)),
        _until("11:30"),
        _ask("11:30", a=3),
    ),
    _probe("nor does an old one", [A, A2], _until("11:30"), _push("11:45", ("a", "11:40", 3.0)), _until("10:30"), _ask("11:45", a=3)),
    _probe(
        "rows whose offsets were seen change nothing",
        [A],
        _until("10:30"),
        _push("10:45", ("a", "10:40", 2.0), ("a", "10:40", 3.0), offsets=(7, 8)),
        _push("10:50", ("a", "10:40", 2.0), offsets=(7,)),
        _ask("10:50", a=3),
    ),
    _probe(
        "of a batch that was seen in part the rest is taken",
        [A],
        _until("10:30"),
        _push("10:45", ("a", "10:40", 2.0), offsets=(7,)),
        _push("10:50", ("a", "10:40", 4.0), ("b", "10:40", 5.0), offsets=(7, 8)),
        _ask("10:50", a=2, b=5),
    ),
]

PROBES: Sequence[Probe] = [*MATERIALISED, *TTL, *NOTHING, *ORDER, *PUSHED]
