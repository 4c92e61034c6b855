"""Features by entity keys, as a request reads them: what `Reader` gives, and the oracle, from every store."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from features.oracle import EXAMPLES, Row
from features.test_point_in_time import (
    ENTITY,
    EVENTS,
    NOWHERE,
    START,
    VIEWS,
    Near,
    asked,
    expected,
    log_of,
    requests_of,
    rows_of,
    times,
)
from tidemill.core import DAY, HOUR, MINUTE, Damaged, DataError, DefinitionError, StoreError
from tidemill.data import ask
from tidemill.features import (
    STATUS,
    Entity,
    FeatureView,
    Getter,
    Looked,
    MemoryOnline,
    OnlineStore,
    Reader,
    ViewLog,
    category,
    last,
    latest,
    materialise,
    space_of,
)
from tidemill.features.getter import rows_of as given_rows
from tidemill.features.historical import choose
from tidemill.features.keys import Keys
from tidemill.features.online import Mark, Name
from tidemill.features.words import Numbering, Vocabulary, chunks_of, counts_of

TYPES = {"entity": "VARCHAR"}


def getter_of(logs: Sequence[ViewLog], store: OnlineStore | None, names: Sequence[str] = (), now: int = START) -> Getter:
    views = {log.view.name: log.view for log in logs}
    chosen = choose(names or list(views), dict(views))
    return Getter(chosen, {log.view.name: Looked(log, "", TYPES) for log in logs}, {}, store, lambda: now)


ALIKE = [("a", START), ("b", START)]
LATER = [("a", START + 400 * DAY), ("b", START + 400 * DAY)]


@pytest.mark.parametrize("name", VIEWS)
@settings(max_examples=2 * EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(rows_of, max_size=25), requests=asked, marks=st.lists(times, min_size=1, max_size=3), many=st.sampled_from([2, 50]))
@example(rows=[Row("a", START, START, 1.0, "x")], requests=[("a", START), ("b", START), (None, START)], marks=[START - DAY], many=2)
@example(rows=[Row("a", START, START, None, None), Row("b", START, START, 2.0, None)], requests=ALIKE, marks=[START], many=2)
@example(rows=[Row("a", START, START, 0.5, "x"), Row("b", START, START, 2.0, "y")], requests=ALIKE, marks=[START], many=2)
@example(rows=[Row("a", START, START, 0.5, "x"), Row("b", START, START, 2.0, "y")], requests=LATER, marks=[START], many=2)
def test_a_getter_gives_what_the_reader_and_the_oracle_give(
    online: OnlineStore,
    name: str,
    rows: list[Row],
    requests: list[tuple[str | None, int]],
    marks: list[int],
    many: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(latest, "MANY", many)
    view, log = VIEWS[name], log_of(VIEWS[name], rows)
    online.keep([])
    for mark in marks:
        materialise(online, log, mark)
    reader, getter = Reader([view], {name: log}, {name: "v"}, online), getter_of([log], online)
    for at in {at for _, at in requests} | {max(marks)}:
        matrix = reader.read(requests_of([(entity, at) for entity, _ in requests]), np.full(len(requests), at))
        found = getter.read({"entity": [entity for entity, _ in requests]}, at=at)
        words = [matrix.vocabularies.get(one) for one in matrix.names]
        for i, (entity, _) in enumerate(requests):
            plain = [None if np.isnan(v) else w[int(v)] if w else v for v, w in zip(matrix.values[i].tolist(), words, strict=True)]
            assert [repr(value) for value in found.rows[i]] == [repr(value) for value in plain]  # to the bit
            near = [Near(value) if "__std" in one and value is not None else value for one, value in zip(found.names, plain, strict=True)]
            assert (near, found.status[name][i]) == expected(view, rows, entity, at)
        assert found.status[name] == [STATUS[code] for code in matrix.status[:, 0]]
        assert [name not in found.offline] * len(requests) == matrix.online.tolist()
        assert found.until[name] == max(marks)


ROWS = [Row("a", START, START, 0.5, "x"), Row("a", START - MINUTE, START - MINUTE, None, None), Row("ü", START - DAY, START, 2.0, "y")]


def filled(store: OnlineStore, *names: str, until: int = START) -> list[ViewLog]:
    logs = [log_of(VIEWS[name], ROWS) for name in names]
    for log in logs:
        materialise(store, log, until)
    return logs


def test_features_come_in_the_order_asked_of_several_views(online: OnlineStore) -> None:
    logs = filled(online, "newest", "windows", "forever")
    asked_for = ["windows:count", "forever:word", "newest", "forever:number"]
    getter = getter_of(logs, online, asked_for)
    assert list(getter.get({"entity": "ü", "another": 7}).items()) == [
        ("windows__count_10min", 0.0),
        ("windows__count_1h", 0.0),
        ("forever__word", "y"),
        ("newest__number", None),
        ("newest__word", None),
        ("forever__number", 2.0),
    ]
    assert getter.get_many([{"entity": "ü"}, {"entity": "a"}])[1]["newest__word"] == "x"
    assert getter.read({"entity": "ü"}).status == {"newest": ["expired"], "windows": ["expired"], "forever": ["present"]}


def test_a_time_may_be_a_text_and_the_answer_is_plain_data(online: OnlineStore) -> None:
    getter = getter_of(filled(online, "newest"), online, now=START + HOUR)
    assert getter.read({"entity": "a"}).at == START + HOUR
    assert getter.read({"entity": "a"}, at="2013-01-01T00:30:00Z").plain() == {
        "at": "2013-01-01T00:30:00Z",
        "features": ("newest__number", "newest__word"),
        "rows": [[0.5, "x"]],
        "views": {"newest": {"status": ["present"], "from": "online", "until": "2013-01-01T00:00:00Z"}},
    }
    old = getter.read([{"entity": "a"}], at=START - 1)
    assert (old.status, "before what the online store holds" in old.plain()["views"]["newest"]["why"]) == ({"newest": ["null"]}, True)
    assert "1 rows, 2 features" in repr(old)


@pytest.mark.parametrize(("many", "unit"), [(1_000_000, "seconds"), (1_000, "milliseconds"), (1 / 1_000, "nanoseconds")])
def test_a_whole_number_is_a_time_in_microseconds(online: OnlineStore, many: float, unit: str) -> None:
    getter = getter_of(filled(online, "newest"), online, now=START + HOUR)
    assert getter.read({"entity": "a"}, at=START + MINUTE).status == {"newest": ["present"]}
    assert getter.read({"entity": "a"}, at=0).status == {"newest": ["unknown"]}
    for read in (getter.get, getter.get_many, getter.read):
        with pytest.raises(DefinitionError, match=f"{round(START / many)} is a time in {unit}"):
            read({"entity": "a"}, at=round(START / many))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, dict, lambda columns: {n: np.array(v) for n, v in columns.items()}])
def test_rows_come_in_any_form(frame: type) -> None:
    rows = given_rows(frame({"entity": ["a", "b"], "shop": [1, 2]}), ["entity", "shop"])
    assert [dict(row) for row in rows] == [{"entity": "a", "shop": 1}, {"entity": "b", "shop": 2}]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (7, "int is no rows with entity"),
        ("JFK", "str is no rows with entity"),
        (["JFK"], "row 0 is 'JFK'"),
        ({"entity": ["a"], "shop": ["b", "c"]}, "the columns have different lengths"),
        ({"entity": ["a"], "shop": "b"}, "dict is no rows with entity, shop"),
        ([{"entity": "a"}, {"entity": "a", "shop": "b"}], "row 0 lacks the key 'shop'"),
        ({"entity": "a"}, "row 0 lacks the key 'shop'"),
        (pd.DataFrame({"entity": ["a"]}), "DataFrame is no rows with entity, shop"),
        ([{"entity": "a", "shop": ["b"]}], "the key 'shop' is"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused(rows: object, what: str) -> None:
    view = replace(VIEWS["forever"], entity=Entity("pair", key=["entity", "shop"], where=NOWHERE))
    log = replace(log_of(VIEWS["forever"], ROWS), view=view)
    getter = Getter(choose(["forever"], {"forever": view}), {"forever": Looked(log, "", TYPES | {"shop": "VARCHAR"})}, {}, None, int)
    with pytest.raises(DataError) as error:
        getter.read(rows)
    assert error.value.what.startswith(what)


@pytest.mark.parametrize(
    ("kind", "given", "text"),
    [
        ("VARCHAR", "07", "07"),
        ("VARCHAR", 7, "7"),
        ("BIGINT", 7, "7"),
        ("BIGINT", 7.0, "7"),
        ("INTEGER", np.int64(7).item(), "7"),
        ("BIGINT", 7.5, None),
        ("BIGINT", float("nan"), None),
        ("BIGINT", None, None),
        ("BIGINT", np.int64(7), "7"),
        ("VARCHAR", np.int8(7), "7"),
        ("BIGINT", np.float32(7), "7"),
        ("BIGINT", np.float64("nan"), None),
        ("BOOLEAN", np.bool_(True), "true"),
        ("BIGINT", pd.NA, None),
        ("VARCHAR", pd.NA, None),
        ("DATE", pd.NaT, None),
        ("DATE", np.datetime64("2013-01-01"), "2013-01-01"),
        ("BOOLEAN", True, "true"),
        ("DATE", date(2013, 1, 1), "2013-01-01"),
        ("DATE", np.datetime64("2013-01-01T00:00", "ns"), "2013-01-01"),
        ("DATE", pd.Timestamp("2013-01-01"), "2013-01-01"),
        ("DATE", pd.Timestamp("2013-01-01T01:00"), None),
        ("TIMESTAMP", pd.Timestamp("2013-01-01T01:00:00.000000001"), "2013-01-01 01:00:00"),
        ("TIMESTAMP", np.datetime64("2013-01-01T10:00:00.5", "ns"), "2013-01-01 10:00:00.5"),
        ("TIMESTAMP WITH TIME ZONE", datetime(2013, 1, 1, 10, tzinfo=UTC), "2013-01-01 10:00:00+00"),
        ("UUID", UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        ("BIGINT", Decimal("7.0"), "7"),
        ("BIGINT", Decimal("7.5"), None),
        ("DECIMAL(5,2)", Decimal("7.5"), "7.50"),
        ("DECIMAL(5,2)", Decimal("7.555"), None),
        ("HUGEINT", Decimal(2**100 + 1), str(2**100 + 1)),
    ],
)
def test_a_key_is_spelled_as_its_files_are(kind: str, given: object, text: str | None) -> None:
    assert Keys(("key",), (kind,)).texts([{"key": given}]) == [text]


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("VARCHAR", 7.5),
        ("BIGINT", True),
        ("BIGINT", b"7"),
        ("DATE", 7),
        ("DECIMAL(3,1)", 7e9),
        ("VARCHAR", {"a": 1}),
        ("BIGINT", np.array([7])),
        ("BIGINT", np.longdouble(7)),
        ("BIGINT", float(2**53)),
        ("DECIMAL(20,0)", float(2**53)),
        ("BIGINT", np.float32(2**24)),
        ("TIMESTAMP WITH TIME ZONE", pd.Timestamp("2013-01-01")),
    ],
)
def test_a_key_that_nothing_can_be_equal_to_is_refused(kind: str, given: object) -> None:
    with pytest.raises(DataError, match="the key 'key' is"):
        Keys(("key",), (kind,)).texts([{"key": given}])


@pytest.mark.parametrize(
    ("kind", "column", "texts"),
    [("BIGINT", pd.array([1, None], dtype="Int64"), ["1", None]), ("VARCHAR", pd.array(["a", None], dtype="string"), ["a", None])],
)
def test_a_gap_in_a_frame_is_a_null_key(kind: str, column: object, texts: list[str | None]) -> None:
    assert Keys(("key",), (kind,)).texts(given_rows(pd.DataFrame({"key": column}), ["key"])) == texts


def test_an_infinite_number_is_a_text_in_json(online: OnlineStore) -> None:
    log = log_of(VIEWS["forever"], [*ROWS, Row("b", START, START, float("-inf"), None)])
    materialise(online, log, START)
    getter = getter_of([log], online, ["forever:number"])
    found = getter.read({"entity": ["a", "b", "never"]})
    assert found.rows == [[0.5], [float("-inf")], [None]]
    assert found.plain()["rows"] == [[0.5], ["-inf"], [None]]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        *(
            ("DOUBLE", 7, "7.0"),
            ("DOUBLE", 7.5, "7.5"),
            ("DOUBLE", 1e20, "1e+20"),
            ("DOUBLE", -0.0, "-0.0"),
            ("DOUBLE", float("inf"), "inf"),
        ),
        *(("FLOAT", 7.1, "7.1"), ("FLOAT", float(np.float32(7.1)), "7.1"), ("FLOAT", 7.10000001, None), ("DOUBLE", float("nan"), None)),
        *(("DECIMAL(3,1)", 7, "7.0"), ("DECIMAL(3,1)", 7.5, "7.5"), ("DECIMAL(3,1)", 7.55, None)),
    ],
)
def test_a_number_is_the_key_that_the_engine_makes_of_its_value(kind: str, value: float, text: str | None) -> None:
    assert Keys(("key",), (kind,)).texts([{"key": value}]) == [text]
    assert text is None or ask(f"SELECT CAST(CAST(? AS {kind}) AS VARCHAR)", value) == text


def test_parts_of_a_key_do_not_run_together() -> None:
    rows = [{"a": "1", "b": "11"}, {"a": "11", "b": "1"}, {"a": "1\x1f", "b": ""}, {"a": "1", "b": "\x1f"}, {"a": None, "b": "1"}]
    found = Keys(("a", "b"), ("VARCHAR", "VARCHAR")).texts(rows)
    assert (len(set(found)), found[-1]) == (5, None)


# ── a store that cannot answer ──────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_in_the_store_comes_from_the_offline_path_and_is_said(online: OnlineStore) -> None:
    logs = [*filled(online, "newest"), log_of(VIEWS["forever"], ROWS)]
    found = getter_of(logs, online).read({"entity": "a"})
    assert found.rows == [[0.5, "x", 0.5, "x"]]
    assert (list(found.offline), found.until) == (["forever"], {"newest": START, "forever": None})
    assert "tidemill features materialise forever" in found.offline["forever"]


def test_what_became_known_after_the_mark_comes_from_the_offline_path_until_it_is_stored(online: OnlineStore) -> None:
    filled(online, "forever")
    later = log_of(VIEWS["forever"], [*ROWS, Row("a", START + 1, START + HOUR, 7.0, "z")])
    getter = getter_of([later], online)
    for at, value, why in ((START + HOUR - 1, 0.5, ""), (START + HOUR, 7.0, "more is known by then")):
        found = getter.read({"entity": "a"}, at=at)
        assert (found.rows[0][0], bool(found.offline)) == (value, bool(why))
        assert why in found.offline.get("forever", "")
    materialise(online, later, START + HOUR)
    found = getter.read({"entity": "a"}, at=START + HOUR)
    assert (found.rows, found.offline) == ([[7.0, "z"]], {})


class Ailing(MemoryOnline):
    """A store that may be away, or give what is damaged."""

    error: StoreError | None = None
    state: bytes | None = b""

    def read(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[bytes | None, list[bytes | None]]]:
        if self.error:
            raise self.error
        found = super().read(asked)
        return found if self.state == b"" else [(mark, [self.state for _ in states]) for mark, states in found]


@pytest.mark.parametrize("name", ["newest", "windows"])
@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (StoreError("connection refused"), b"", "connection refused"),
        (Damaged("a value is not what was written"), b"", "a value is not what was written"),
        (None, None, "has lost an entity"),
        (None, b"1234567", "a state is not what was written"),
        (None, b"12345678" * 7, "a state is not what was written"),
    ],
)
def test_a_store_that_cannot_be_read_is_said_and_the_offline_path_answers(
    name: str, error: StoreError | None, state: bytes | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Ailing()
    getter = getter_of(filled(store, name), store)
    right = getter.read({"entity": "a"})
    assert right.offline == {}
    store.error, store.state = error, state
    for _ in range(2):
        found = getter.read({"entity": "a"})
        assert (found.rows, found.status) == (right.rows, right.status)
        assert why in found.offline[name]
    said = "away" if error and not isinstance(error, Damaged) else "damaged"
    assert caplog.text.count(f"online_store={said} answered_from=offline") == caplog.text.count("online_store=") == 1
    store.error, store.state = None, b""
    assert getter.read({"entity": "a"}).offline == {}


@pytest.mark.parametrize("kind", ["reader", "getter"])
def test_each_change_of_a_store_is_said_once(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Damage is met by those alone who ask for what is damaged: it is said again when the store was brought up anew, and is still there."""
    store = Ailing()
    [log] = filled(store, "forever")
    getter, reader = getter_of([log], store), Reader([log.view], {"forever": log}, {}, store)
    one = requests_of([("a", START + HOUR)])

    def ask(error: StoreError | None) -> list[str]:
        caplog.clear()
        store.error = error
        for _ in range(2):
            reader.read(one, one.at) if kind == "reader" else getter.read({"entity": "a"}, at=START + HOUR)
        return [record.message.split(" ")[0] for record in caplog.records]

    away, damaged = StoreError("connection refused"), Damaged("a value is not what was written")
    steps = [away, away, None, None, damaged, None, damaged, away, None, StoreError("timed out")]
    assert [ask(step) for step in steps] == [
        ["online_store=away"],
        [],
        ["online_store=back"],
        [],
        ["online_store=damaged"],
        [],
        [],
        ["online_store=away"],
        ["online_store=back"],
        ["online_store=away"],
    ]
    store.error = None
    materialise(store, log, START + HOUR)
    assert (ask(None), ask(damaged)) == (["online_store=back"], ["online_store=damaged"])


def test_an_entity_that_the_version_in_the_store_lacks_is_not_lost() -> None:
    """Whoever opened an earlier version is told what the store holds now."""
    store = MemoryOnline()
    both, one = log_of(VIEWS["forever"], ROWS), log_of(VIEWS["forever"], ROWS[:2])
    materialise(store, both, START, version="1")
    getter = Getter(choose(["forever"], {"forever": both.view}), {"forever": Looked(both, "1", TYPES)}, {}, store, lambda: START + 1)
    reader = Reader([both.view], {"forever": both}, {"forever": "1"}, store)
    materialise(store, one, START + 1, version="2")
    found = getter.read([{"entity": "a"}, {"entity": "ü"}])
    assert (found.rows, found.status, found.offline) == ([[0.5, "x"], [None, None]], {"forever": ["present", "unknown"]}, {})
    asked_then = requests_of([("a", START + 1), ("ü", START + 1)])
    matrix = reader.read(asked_then, asked_then.at)
    assert (matrix.status.tolist(), matrix.damaged, matrix.online.all()) == ([[0], [2]], False, True)


def test_a_new_category_costs_a_long_vocabulary_nothing() -> None:
    """Each request would take minutes if every word were sought among all."""
    view = FeatureView("many", EVENTS, entity=ENTITY, features={"word": category("word")}, where=NOWHERE)
    rows = [Row("a", START, START, None, f"word{i:05}") for i in range(100_000)]
    log, store = log_of(view, [*rows, Row("b", START, START, None, "word00000")]), MemoryOnline()
    materialise(store, log, START)

    def more(data: bytes | None, _: object) -> tuple[bytes, dict[Name, bytes | None]]:
        mark, words = Mark.of(data) or pytest.fail("no mark"), {"word": Numbering(Vocabulary())}
        for word in ["new", *log.vocabularies["many__word"]]:
            words["word"](word)
        return msgspec.structs.replace(mark, words=counts_of(words)).bytes(), chunks_of(words)

    store.update(space_of(view), [], more)
    asked_then = requests_of([("a", START), ("b", START)])
    matrix = Reader([view], {"many": log}, {}, store).read(asked_then, asked_then.at)
    words = matrix.vocabularies["many__word"]
    assert (words, matrix.online.all()) == ((*log.vocabularies["many__word"], "new"), True)
    assert [words[int(code)] for code in matrix.values[:, 0]] == ["word99998", "new"], "all have moved by one"


def test_an_entity_that_nobody_knows_is_unknown_online(online: OnlineStore) -> None:
    found = getter_of(filled(online, "newest", "windows"), online).read([{"entity": "never"}, {"entity": None}, {"entity": "a"}])
    assert found.status["newest"] == found.status["windows"] == ["unknown", "unknown", "present"]
    assert found.offline == {}


def test_views_of_other_entities_are_read_by_their_own_keys() -> None:
    thing = log_of(VIEWS["forever"], ROWS)
    other = FeatureView(
        "other", EVENTS, entity=Entity("place", key="place", where=NOWHERE), features={"number": last("number")}, where=NOWHERE
    )
    log = replace(log_of(replace(other, entity=ENTITY), ROWS), view=other)
    store = MemoryOnline()
    for one in (thing, log):
        materialise(store, one, START)
    looked = {"forever": Looked(thing, "", TYPES), "other": Looked(log, "", {"place": "VARCHAR"})}
    getter = Getter(choose(["other", "forever:number"], {"other": other, "forever": thing.view}), looked, {}, store, lambda: START)
    assert getter.get({"entity": "a", "place": "ü"}) == {"other__number": 2.0, "forever__number": 0.5}
    assert getter.needed == ("entity", "place")
