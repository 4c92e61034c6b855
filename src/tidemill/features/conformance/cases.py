"""Cases worked by hand. Each says what it is about; rows are `(key, event, known, x)`, with `y` behind where it matters.

Times are those of 10 March 2024, UTC, unless they say another day (`03-09 10:00`) or are ISO 8601.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from tidemill.features.conformance.values import Case, History, Key, View, time

H, D = timedelta(hours=1), timedelta(days=1)


def key_of(key: Any) -> Key:
    return key if isinstance(key, tuple) else (key,)


def view_of(rows: Sequence[tuple[Any, ...]], ttl: timedelta | None = None, name: str = "v", keys: tuple[str, ...] = ("k",)) -> View:
    history = (History(key_of(row[0]), time(row[1]), time(row[2]), (row[3], row[4] if len(row) > 4 else 0.5)) for row in rows)
    return View(name, keys, tuple(history), ttl)


def _case(name: str, rows: Any, asked: Any, x: Any, ttl: timedelta | None = None, *, as_known: bool = True, keys: Any = ("k",)) -> Case:
    """One view; the answer is the row with this `x`, or where `x` is None nothing."""
    view = view_of(rows, ttl, keys=keys)
    answers = tuple(
        next((row.values for row in view.rows if row.values[0] == one), (None, None)) if one is not None else (None, None) for one in x
    )
    return Case(name, (view,), tuple((key_of(key), time(at)) for key, at in asked), (answers,), as_known)


A = ("a", "10:00", "10:00", 1.0)
A2 = ("a", "11:00", "11:00", 2.0)
A3 = ("a", "12:00", "12:00", 3.0)
B = ("b", "10:00", "10:00", 9.0)
LATE = ("a", "11:00", "12:00", 2.0)  # known an hour after it happened

NEWEST = [
    _case("a row at exactly the time asked is taken", [A], [("a", "10:00")], [1]),
    _case("a row a microsecond later is not", [("a", "10:00:00.000001", "10:00:00.000001", 1.0)], [("a", "10:00")], [None]),
    _case("a row a microsecond earlier is", [("a", "09:59:59.999999", "09:59:59.999999", 1.0)], [("a", "10:00")], [1]),
    _case("the newest of several is taken", [A, A2, A3], [("a", "11:30")], [2]),
    _case("the order of the rows says nothing about their age", [A3, A, A2], [("a", "11:30")], [2]),
    _case("the last row counts for ever without a TTL", [A], [("a", "2034-03-10T10:00:00Z")], [1]),
    _case("before the first row there is nothing", [A], [("a", "09:00")], [None]),
    _case("a key that never was has nothing", [A], [("z", "12:00")], [None]),
    _case("a key sees its own rows alone", [A, B, A2], [("b", "12:00"), ("a", "10:30")], [9, 1]),
    _case("one key at several times", [A, A2, A3], [("a", "10:00"), ("a", "11:00"), ("a", "12:00")], [1, 2, 3]),
    _case("answers come in the order asked", [A, A2, B], [("b", "12:00"), ("a", "12:00"), ("z", "12:00"), ("a", "10:00")], [9, 2, None, 1]),
    _case("a row asked twice is answered twice", [A], [("a", "10:00"), ("a", "10:00")], [1, 1]),
    _case("rows without an answer stay", [A], [("z", "10:00"), ("a", "09:00"), ("a", "10:00")], [None, None, 1]),
    _case("nothing asked is nothing answered", [A], [], []),
    _case("a view without rows has nothing", [], [("a", "10:00"), ("b", "10:00")], [None, None]),
    _case("later rows of another key do not reach back", [("b", "11:00", "11:00", 9.0), A], [("a", "12:00")], [1]),
]

TTL = [
    _case("an age of exactly the TTL is young enough", [A], [("a", "11:00")], [1], H),
    _case("a microsecond more is too old", [A], [("a", "11:00:00.000001")], [None], H),
    _case("a microsecond less is young enough", [A], [("a", "10:59:59.999999")], [1], H),
    _case("the age counts from the event, not from when it was known", [LATE], [("a", "12:00"), ("a", "12:30")], [2, None], H),
    _case("what is expired does not call back an older row", [A, A2], [("a", "12:30")], [None], H),
    _case("a row to come does not make an expired one young", [A, A3], [("a", "11:30")], [None], H),
    _case("each row asked has its own age", [A], [("a", "10:30"), ("a", "11:30"), ("a", "11:00")], [1, None, 1], H),
    _case("a TTL of days over midnight", [("a", "03-09 23:00", "03-09 23:00", 1.0)], [("a", "23:00"), ("a", "23:00:01")], [1, None], D),
]

TIES = [
    _case("of one event time the later known wins", [A, ("a", "10:00", "10:05", 2.0)], [("a", "11:00")], [2]),
    _case("also where it stands first", [("a", "10:00", "10:05", 2.0), A], [("a", "11:00")], [2]),
    _case("of one event and one known time the last row wins", [A, ("a", "10:00", "10:00", 2.0)], [("a", "11:00")], [2]),
    _case("also where its value is smaller", [("a", "10:00", "10:00", 2.0), A], [("a", "11:00")], [1]),
    _case(
        "of three corrections the last known wins",
        [("a", "10:00", "10:20", 3.0), ("a", "10:00", "10:30", 4.0), ("a", "10:00", "10:10", 2.0)],
        [("a", "11:00")],
        [4],
    ),
    _case(
        "a later event wins over a later correction", [("a", "10:00", "10:45", 5.0), ("a", "10:30", "10:30", 6.0)], [("a", "11:00")], [6]
    ),
    _case("ties of one key do not touch another", [A, B, ("a", "10:00", "10:05", 2.0)], [("b", "11:00"), ("a", "11:00")], [9, 2]),
    _case("a tie within the TTL", [A, ("a", "10:00", "10:05", 2.0)], [("a", "11:00"), ("a", "11:01")], [2, None], H),
]

KNOWN = [
    _case("what is not known yet is not used", [A, LATE], [("a", "11:30")], [1]),
    _case("known at exactly the time asked is known", [A, LATE], [("a", "12:00")], [2]),
    _case("a microsecond before it is not", [A, LATE], [("a", "11:59:59.999999")], [1]),
    _case("a row that is not known and alone is nothing", [LATE], [("a", "11:30")], [None]),
    _case("a correction that is not known yet leaves the first report", [A, ("a", "10:00", "12:00", 2.0)], [("a", "11:00")], [1]),
    _case("a correction that is known takes its place", [A, ("a", "10:00", "12:00", 2.0)], [("a", "12:00")], [2]),
    _case("a late row of an older event does not win over a newer one", [A2, ("a", "10:00", "12:00", 1.0)], [("a", "12:30")], [2]),
    _case(
        "several rows that are not known are passed over",
        [A, *(("a", f"11:0{n}", "13:00", 10.0 + n) for n in range(5))],
        [("a", "12:00"), ("a", "13:00")],
        [1, 14],
    ),
    _case(
        "known ones among those that are not",
        [A, ("a", "10:10", "13:00", 2.0), ("a", "10:20", "10:20", 3.0), ("a", "10:30", "13:00", 4.0)],
        [("a", "11:00"), ("a", "10:15"), ("a", "14:00")],
        [3, 1, 4],
    ),
    _case("what was announced before counts from its event", [("a", "11:00", "09:00", 2.0), A], [("a", "10:30"), ("a", "11:00")], [1, 2]),
    _case(
        "history that was loaded later was not known then",
        [("a", "10:00", "03-20 00:00", 1.0)],
        [("a", "11:00"), ("a", "03-21 00:00")],
        [None, 1],
    ),
    _case("the row before one that is not known can be too old", [A, LATE], [("a", "11:30")], [None], H / 2),
    _case("what nobody knew is used where that is asked for", [A, LATE], [("a", "11:30")], [2], as_known=False),
    _case("also a correction", [A, ("a", "10:00", "12:00", 2.0)], [("a", "10:00")], [2], as_known=False),
    _case("a row to come is not, known or not", [("a", "11:00", "09:00", 2.0), A], [("a", "10:30")], [1], as_known=False),
    _case("the TTL holds there too", [LATE], [("a", "11:30"), ("a", "12:30")], [2, None], H, as_known=False),
]

NULLS = [
    _case("a null key has nothing", [A], [(None, "11:00"), ("a", "11:00")], [None, 1]),
    _case("a row with a null key belongs to nobody", [(None, "10:00", "10:00", 5.0), A], [("a", "11:00"), ("z", "11:00")], [1, None]),
    _case("null is not null", [(None, "10:00", "10:00", 5.0)], [(None, "11:00")], [None]),
    _case(
        "a newest value that is null is the answer", [A, ("a", "11:00", "11:00", None, None)], [("a", "12:00"), ("a", "10:30")], [None, 1]
    ),
    Case(
        "a row is taken whole: a null beside a value does not call back an older value",
        (view_of([("a", "10:00", "10:00", 1.0, 2.0), ("a", "11:00", "11:00", None, 3.0)]),),
        ((("a",), time("12:00")),),
        (((None, 3.0),),),
    ),
    _case("a correction to null is one", [A, ("a", "10:00", "10:05", None, None)], [("a", "11:00"), ("a", "10:01")], [None, 1]),
]

KEYS = [
    _case("capitals tell keys apart", [A, ("A", "10:00", "10:00", 2.0)], [("A", "11:00"), ("a", "11:00")], [2, 1]),
    _case("a space at the end does too", [A, ("a ", "10:00", "10:00", 2.0)], [("a ", "11:00"), ("a", "11:00")], [2, 1]),
    _case("an empty text is a key", [("", "10:00", "10:00", 2.0)], [("", "11:00"), (None, "11:00")], [2, None]),
    _case("texts beyond ASCII", [("Zürich ☃", "10:00", "10:00", 2.0)], [("Zürich ☃", "11:00"), ("Zurich", "11:00")], [2, None]),
    _case("quotes and percent signs", [("o'x\"%_\\", "10:00", "10:00", 2.0)], [("o'x\"%_\\", "11:00"), ("o'x", "11:00")], [2, None]),
    _case(
        "a text of digits is that text",
        [("7", "10:00", "10:00", 7.0), ("07", "10:00", "10:00", 8.0)],
        [("07", "11:00"), ("7", "11:00")],
        [8, 7],
    ),
    _case(
        "whole numbers",
        [(7, "10:00", "10:00", 7.0), (70, "10:00", "10:00", 8.0), (-7, "10:00", "10:00", 9.0)],
        [(-7, "11:00"), (7, "11:00")],
        [9, 7],
    ),
    _case(
        "whole numbers that a float cannot tell apart",
        [(2**53, "10:00", "10:00", 1.0), (2**53 + 1, "10:00", "10:00", 2.0)],
        [(2**53 + 1, "11:00"), (2**53, "11:00")],
        [2, 1],
    ),
    _case("zero is a key", [(0, "10:00", "10:00", 3.0)], [(0, "11:00"), (None, "11:00"), (1, "11:00")], [3, None, None]),
]

PAIR = ("k", "l")
COMPOSITE = [
    _case(
        "parts do not run together",
        [(("1", "11"), "10:00", "10:00", 1.0)],
        [(("11", "1"), "11:00"), (("1", "11"), "11:00")],
        [None, 1],
        keys=PAIR,
    ),
    _case(
        "nor over an empty part", [(("a", ""), "10:00", "10:00", 1.0)], [(("", "a"), "11:00"), (("a", ""), "11:00")], [None, 1], keys=PAIR
    ),
    _case(
        "nor over characters that others use to part them",
        [(("a|b", "c"), "10:00", "10:00", 1.0), (("a\x1fb", "c"), "10:00", "10:00", 2.0), (("a", "b__c"), "10:00", "10:00", 3.0)],
        [(("a", "b|c"), "11:00"), (("a", "b\x1fc"), "11:00"), (("a\x1fb", "c"), "11:00"), (("a", "b__c"), "11:00")],
        [None, None, 2, 3],
        keys=PAIR,
    ),
    _case(
        "every part counts",
        [(("a", "x"), "10:00", "10:00", 1.0), (("a", "y"), "10:00", "10:00", 2.0)],
        [(("a", "y"), "11:00"), (("b", "y"), "11:00"), (("a", "x"), "11:00")],
        [2, None, 1],
        keys=PAIR,
    ),
    _case(
        "a null in one part matches nothing",
        [(("a", None), "10:00", "10:00", 1.0), (("a", "x"), "10:00", "10:00", 2.0)],
        [(("a", None), "11:00"), ((None, "x"), "11:00"), (("a", "x"), "11:00")],
        [None, None, 2],
        keys=PAIR,
    ),
    _case("whole numbers as parts", [((1, 11), "10:00", "10:00", 1.0)], [((11, 1), "11:00"), ((1, 11), "11:00")], [None, 1], keys=PAIR),
    _case(
        "ties of a composite key", [((1, 1), "10:00", "10:00", 1.0), ((1, 1), "10:00", "10:01", 2.0)], [((1, 1), "11:00")], [2], keys=PAIR
    ),
]

TIMES = [
    _case(
        "an offset is another way to say a moment", [A], [("a", "2024-03-10T15:30:00+05:30"), ("a", "2024-03-10T15:29:59+05:30")], [1, None]
    ),
    _case(
        "an offset of the history too",
        [("a", "2024-03-10T05:00:00-05:00", "2024-03-10T05:00:00-05:00", 1.0)],
        [("a", "10:00"), ("a", "09:59")],
        [1, None],
    ),
    _case(
        "clocks that are set back do not turn moments round",
        [
            ("a", "2024-11-03T01:30:00-04:00", "2024-11-03T01:30:00-04:00", 1.0),
            ("a", "2024-11-03T01:10:00-05:00", "2024-11-03T01:10:00-05:00", 2.0),
        ],
        [("a", "2024-11-03T01:40:00-04:00"), ("a", "2024-11-03T01:20:00-05:00")],
        [1, 2],
    ),
    _case(
        "years before 1970",
        [("a", "1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z", 1.0), ("a", "1955-06-01T00:00:00Z", "1955-06-01T00:00:00Z", 2.0)],
        [("a", "1969-12-31T23:59:58Z"), ("a", "1970-01-01T00:00:00Z"), ("a", "1950-01-01T00:00:00Z")],
        [2, 1, None],
    ),
    _case(
        "a TTL over the end of 1969",
        [("a", "1969-12-31T23:30:00Z", "1969-12-31T23:30:00Z", 1.0)],
        [("a", "1970-01-01T00:30:00Z"), ("a", "1970-01-01T00:30:00.000001Z")],
        [1, None],
        H,
    ),
    _case(
        "microseconds before 1970",
        [("a", "1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z", 1.0)],
        [("a", "1969-12-31T23:59:59.999998Z"), ("a", "1969-12-31T23:59:59.999999Z")],
        [None, 1],
    ),
    _case(
        "times centuries apart",
        [("a", "1900-01-01T00:00:00Z", "1900-01-01T00:00:00Z", 1.0), ("a", "2200-01-01T00:00:00Z", "2200-01-01T00:00:00Z", 2.0)],
        [("a", "2199-12-31T23:59:59Z"), ("a", "2200-01-01T00:00:00Z")],
        [1, 2],
    ),
    _case(
        "a day that most years lack",
        [("a", "2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z", 1.0)],
        [("a", "2024-03-01T12:00:00Z"), ("a", "2024-03-01T12:00:01Z")],
        [1, None],
        D,
    ),
]

TWO = (view_of([A, A2], H, "first"), view_of([("a", "10:30", "10:30", 7.0), B], None, "second"))
SEVERAL = [
    Case(
        "views have their own rows and TTL",
        TWO,
        ((("a",), time("12:30")), (("b",), time("12:30")), (("a",), time("10:15"))),
        (((None, None), (None, None), (1.0, 0.5)), ((7.0, 0.5), (9.0, 0.5), (None, None))),
    ),
    Case(
        "values come under the names that were asked for, in their order",
        tuple(reversed(TWO)),
        ((("a",), time("11:00")),),
        (((7.0, 0.5),), ((2.0, 0.5),)),
    ),
]

CASES: Sequence[Case] = [*NEWEST, *TTL, *TIES, *KNOWN, *NULLS, *KEYS, *COMPOSITE, *TIMES, *SEVERAL]
