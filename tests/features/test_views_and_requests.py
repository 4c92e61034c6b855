"""Declared views and requests over real files: versions, errors with their places, and one answer by key and by own columns."""

import re
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tidemill as tm
from tidemill.core import DAY, HOUR, Coded, DataError, DefinitionError, Where, instant
from tidemill.data import ingest
from tidemill.features import (
    Matrix,
    MemoryOnline,
    OnlineStore,
    OwnColumns,
    Reader,
    Requests,
    build,
    build_requests,
    check_values,
    key_text,
    load,
    load_requests,
    parts_of,
)
from tidemill.features.online import Asked, Stored
from tidemill.ledger import Artifact, Ledger

FLIGHTS = """id,part,origin,seat,published,departs,delay,carrier
1,a,JFK,7,2013-01-01T00:00:00Z,2013-01-01T10:00:00Z,5,AA
1,b,LGA,8,2013-01-01T00:00:00Z,2013-01-01T10:00:00Z,,
2,a,JFK,7,2013-01-01T00:00:00Z,2013-01-02T12:00:00Z,20,ünï
3,a,,9,2013-01-01T00:00:00Z,2013-01-03T09:00:00Z,-3,BB
"""
PREDICT_AT = "departs - INTERVAL 1 HOUR"


class World:
    """Departures and requests over one file."""

    def __init__(self, folder: Path, ledger: Ledger, text: str = FLIGHTS) -> None:
        (folder / "flights.csv").write_text(text)
        self.ledger, self.where = ledger, Where(str(folder / "flights.py"), 3)
        source = {"s": tm.Source("flights.csv", where=self.where)}
        casts = "CAST(departs AS TIMESTAMPTZ) AS departs, CAST(published AS TIMESTAMPTZ) AS published, CAST(delay AS DOUBLE) AS delay"
        query = f"SELECT * REPLACE ({casts}) FROM s"
        self.request = tm.Dataset(
            "asked", source, key=["id", "part"], event_time="departs", known_at="published", query=query, where=self.where
        )
        self.departures = tm.Dataset("departures", source, event_time="departs", query=query, where=self.where)
        self.airport = tm.Entity("airport", key="origin", where=self.where)
        self.calendar = tm.RequestView(
            "calendar",
            self.request,
            features={"carrier": tm.category("carrier"), "hour": "hour(departs)", "late": "delay > 10"},
            where=self.where,
        )

    def view(self, **more: Any) -> tm.FeatureView:
        given = {"windows": ["24h"], "features": {"mean": tm.mean("delay"), "n": tm.count()}, "entity": self.airport} | more
        return tm.FeatureView("delays", self.departures, where=self.where, **given)

    def built(self, view: tm.FeatureView) -> Artifact:
        return build(self.ledger, view, ingest(self.ledger, self.departures).output).output

    def types(self) -> dict[str, str]:
        return dict(ingest(self.ledger, self.request).output.meta["types"])

    def requests(self, predict_at: str = PREDICT_AT, **more: Any) -> Requests:
        version = ingest(self.ledger, self.request).output
        return load_requests(self.ledger, build_requests(self.ledger, self.request, version, [self.calendar], predict_at, **more).output)

    def reader(self, view: tm.FeatureView, online: OnlineStore | None = None) -> Reader:
        version = self.built(view)
        return Reader([self.calendar, view], {view.name: load(self.ledger, view, version)}, {view.name: version.ref.digest}, online)


@pytest.fixture
def world(tmp_path: Path, ledger: Ledger) -> World:
    return World(tmp_path, ledger)


def evaluate(
    dataset: tm.Dataset,
    types: dict[str, str],
    views: Sequence[tm.RequestView],
    predict_at: str,
    rows: Sequence[Mapping[str, Any]],
    lookups: Sequence[str] = (),
) -> Requests:
    """Requests that bring their own columns."""
    return OwnColumns.of(dataset, types, views, predict_at, lookups=lookups).requests(rows)


# ── views ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("TINYINT", -(2**7), 2**7 - 1),
        ("UINTEGER", 0, 2**32 - 1),
        ("BIGINT", -(2**63), 2**63 - 1),
        ("UBIGINT", 0, 2**64 - 1),
        ("HUGEINT", -(2**126), 2**126),
    ],
)
def test_whole_numbers_of_any_width_are_keys(world: World, kind: str, low: int, high: int) -> None:
    values = [low, high, 7, 10, 9, 7]
    rows = ", ".join(f"({i}, CAST('{value}' AS {kind}))" for i, value in enumerate([*values, None])).replace("'None'", "NULL")
    query = f"SELECT key, make_timestamptz(n) AS moment, n AS value FROM (VALUES {rows}) AS t(n, key), s WHERE s.id = 2"
    dataset = tm.Dataset("keyed", world.request.sources, event_time="moment", query=query, where=world.where)
    view = tm.FeatureView("newest", dataset, tm.Entity("one", key="key"), features=["value"], where=world.where)
    log = load(world.ledger, view, build(world.ledger, view, ingest(world.ledger, dataset).output).output)
    assert list(log.entities) == sorted({str(value) for value in values})
    found = log.read(Coded.of([str(value) for value in values]), np.full(6, 100))
    assert found.values[:, 0].tolist() == [0, 1, 5, 3, 4, 5]


def test_names_are_view_feature_and_window() -> None:
    source = tm.Dataset("d", {"s": tm.Source("x.csv")}, event_time="t")
    airport = tm.Entity("airport", key="origin")
    windows = tm.FeatureView("v", source, entity=airport, windows=["1h", "2d"], features={"a": tm.mean("x"), "b": tm.count()})
    assert windows.names == ["v__a_1h", "v__b_1h", "v__a_2d", "v__b_2d"]
    assert tm.FeatureView("v", source, entity=airport, features=["temp", "wind"]).names == ["v__temp", "v__wind"]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"ttl": "1h"}, "has windows and a ttl"),
        ({"windows": [], "features": {"m": tm.mean("delay")}}, "mean of 'm' in view 'delays' needs windows"),
        ({"windows": ["a day"]}, "'a day' is not a duration"),
        ({"features": {"m": tm.last("delay", n=0)}}, "last of 'm' in view 'delays' has n=0"),
    ],
)
def test_a_view_that_cannot_work_is_refused_when_declared(world: World, more: dict[str, Any], what: str) -> None:
    with pytest.raises(DefinitionError, match=what):
        world.view(**more)


@pytest.mark.parametrize(
    ("more", "kind", "what"),
    [
        ({"features": {"m": tm.mean("dealy")}}, DefinitionError, "there is no column 'dealy'"),
        ({"features": {"m": tm.mean("_event")}}, DefinitionError, "there is no column '_event'"),
        ({"features": {"m": tm.mean("delay >")}}, DefinitionError, "syntax error"),
        ({"features": {"m": tm.mean("avg(delay) OVER ()")}}, DefinitionError, "may only use its own row"),
        ({"features": {"m": tm.mean("origin")}}, DataError, "'JFK' in column 'origin' is no number"),
        ({"entity": tm.Entity("airport", key="orign")}, DefinitionError, "there is no column 'orign'"),
    ],
)
def test_a_wrong_expression_is_said_with_the_views_line(world: World, more: dict[str, Any], kind: type[Exception], what: str) -> None:
    with pytest.raises(kind, match=what) as error:
        world.built(world.view(**more))
    assert error.value.where == str(world.where)  # type: ignore[attr-defined]
    assert "__" not in str(error.value), "columns of Tidemill's own are no proposal"


@pytest.mark.parametrize(
    ("wrong", "what", "hint"),
    [
        ("departs", "time cannot become number", "epoch"),
        ("departs - published", "duration cannot become number", "epoch"),
        ("1 // (delay - delay)::INTEGER", "division by zero", "nullif"),
        ("avg(delay)", "may only use its own row: it holds an aggregate", "a tm.FeatureView with windows"),
        ("delay - avg(delay)", "may only use its own row: it holds an aggregate", "a tm.FeatureView with windows"),
        ("origin", "'JFK' in column 'origin' is no number", 'tm.category("column"); else'),
        ("origin + 1", "does not take text", 'tm.category("column"); else'),
    ],
)
def test_a_wrong_expression_says_what_helps(world: World, wrong: str, what: str, hint: str) -> None:
    with pytest.raises((DefinitionError, DataError), match=what) as error:
        world.built(world.view(features={"m": tm.mean(wrong)}))
    assert hint in error.value.hint


@pytest.mark.parametrize("wrong", ["dealy", "delay >", "avg(delay)", "origin", "1 // 0", "random()"])
def test_of_several_expressions_the_wrong_one_is_said(world: World, wrong: str) -> None:
    features = {"good": tm.mean("delay"), "bad": tm.mean(wrong), "other": tm.mean("delay + 1")}
    with pytest.raises((DefinitionError, DataError), match=re.escape(f"the expression '{wrong}' over dataset 'departures'")):
        world.built(world.view(features=features))


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        ("random() < 0.5", "random"),
        ("now() > departs", "now"),
        ("row_number() OVER () > 1", "may only use its own row"),
        ("sum(delay) > 1", "a condition over dataset 'departures' may only use its own row: it holds an aggregate"),
        ("dealy > 5", "there is no column 'dealy'"),
        ("delay >", "syntax error"),
    ],
)
def test_a_filter_that_a_row_cannot_answer_by_itself_is_refused(world: World, condition: str, what: str) -> None:
    with pytest.raises(DefinitionError, match=what) as error:
        world.built(world.view(filter=condition))
    assert error.value.where == str(world.where)


def test_every_change_of_a_view_is_another_version(world: World) -> None:
    views = [
        world.view(),
        world.view(windows=["12h"]),
        world.view(windows=["24h", "12h"]),
        world.view(features={"mean": tm.mean("delay")}),
        world.view(features={"mean": tm.sum("delay"), "n": tm.count()}),
        world.view(features={"n": tm.count(), "mean": tm.mean("delay")}),
        world.view(entity=tm.Entity("plane", key="carrier")),
        world.view(windows=[], features=["delay"]),
        world.view(windows=[], features=["delay"], ttl="1h"),
        world.view(windows=[], features=["delay"], ttl="2h"),
    ]
    assert len({world.built(view).ref.digest for view in views}) == len(views)


def test_a_view_that_did_not_change_is_not_built_again(world: World) -> None:
    assert world.built(world.view()).ref == world.built(world.view()).ref
    assert len(world.ledger.executions(kind="feature view")) == 1


def test_why_a_view_was_built_again(world: World) -> None:
    world.built(world.view())
    once = build(world.ledger, world.view(windows=["12h"]), ingest(world.ledger, world.departures).output)
    assert once.why == 'definition.windows: ["24h"] → ["12h"]'


def test_online_values_of_one_window_are_not_read_for_another(world: World, online: OnlineStore) -> None:
    requests, until = world.requests(), instant("2013-01-02T12:00:00Z")
    for windows in (["1h"], ["2d"]):
        reader = world.reader(world.view(windows=windows), online)
        reader.materialise(until)
        at = np.full(len(requests), until)
        matrix = reader.read(requests, at)
        assert matrix.online.all()
        assert matrix.values.tobytes() == world.reader(world.view(windows=windows)).read(requests, at).values.tobytes()


def test_an_entity_under_another_column(world: World) -> None:
    view = world.view(entity=world.airport.on("carrier"))
    assert view.entity.key == "carrier"
    with pytest.raises(DefinitionError, match="looked up by 'nowhere'") as error:
        Reader(
            [world.view(entity=tm.Entity("x", key="nowhere"))], {"delays": load(world.ledger, world.view(), world.built(world.view()))}, {}
        ).read(world.requests(), world.requests().at)
    assert error.value.available == ["carrier", "origin", "part"]


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_requests_are_sorted_by_prediction_time_and_found_by_key(world: World) -> None:
    requests = world.requests()
    assert requests.at.tolist() == sorted(requests.event - HOUR)
    assert requests.keys.tolist() == [b"1\x1fa", b"1\x1fb", b"2\x1fa", b"3\x1fa"]
    assert [requests.find(key_text(["2", "a"])), requests.find(key_text(["1", "b"]))] == [2, 1]
    assert requests.known.tolist() == [instant("2013-01-01T00:00:00Z")] * 4
    assert requests.texts["origin"].texts() == ["JFK", "LGA", "JFK", None]


def test_parts_of_a_composite_key_are_columns_like_others(world: World) -> None:
    requests = world.requests()
    assert requests.texts["part"].texts() == ["a", "b", "a", "a"]
    assert by_own_columns(world, requests, [1]).texts["part"].texts() == ["b"]


@pytest.mark.parametrize("key", ["", "1", "1\x1f", "1\x1fc", "4\x1fa", "0", "1\x1fab", "1\x1fa" + "x" * 100, "ü"])
def test_a_key_that_is_not_there_is_not_found(world: World, key: str) -> None:
    assert world.requests().find(key) == -1


def test_parts_of_a_key_keep_their_border(tmp_path: Path, ledger: Ledger) -> None:
    rows = "id,part,origin,seat,published,departs,delay,carrier\n"
    keys = [["x1", "11"], ["x11", "1"], ["x1\x1f1", "1"], ["x1", "1\x1f1"], ["x\x1e", "1"]]
    rows += "".join(f"{i},{p},J,1,2013-01-01T00:00:00Z,2013-01-01T10:00:00Z,5,A\n" for i, p in keys)
    world = World(tmp_path, ledger, rows)
    requests = world.requests()
    places = [requests.find(key_text(key)) for key in keys]
    assert sorted(places) == [0, 1, 2, 3, 4]
    assert [parts_of(requests.keys[place].decode(), 2) for place in places] == keys
    sent = dict(zip(FLIGHTS.splitlines()[0].split(","), rows.splitlines()[3].split(","), strict=True))
    own = evaluate(world.request, world.types(), [], PREDICT_AT, [sent])
    assert own.keys.tolist() == [requests.keys[places[2]]], "a request with its own columns has the same key"
    assert requests.find(key_text("x111")) == -1
    tracemalloc.start()
    assert requests.find("x" * 1_000_000) == -1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_500_000, "the keys that are there were made as long"


def test_no_requests_are_requests_too(tmp_path: Path, ledger: Ledger) -> None:
    world = World(tmp_path, ledger, FLIGHTS.splitlines()[0] + "\n")
    requests = world.requests()
    assert len(requests) == 0
    assert requests.find("1\x1fa") == -1
    assert world.reader(world.view()).read(requests, requests.at).values.shape == (0, 5)


def by_own_columns(world: World, requests: Requests, rows: list[int]) -> Requests:
    """The same requests as a client sends them that brings its own columns."""
    lines = [dict(zip(FLIGHTS.splitlines()[0].split(","), line.split(","), strict=True)) for line in FLIGHTS.splitlines()[1:]]
    sent = [{name: value or None for name, value in line.items()} for line in lines]
    keys = [key_text([line["id"], line["part"]]) for line in lines]
    chosen = [sent[keys.index(requests.keys[row].decode())] for row in rows]
    return evaluate(world.request, world.types(), [world.calendar], PREDICT_AT, chosen, lookups=["seat"])


def shown(matrix: Matrix) -> list[list[object]]:
    """Values with categories as text."""
    words = [matrix.vocabularies.get(name) for name in matrix.names]
    return [
        [None if np.isnan(v) else vocabulary[int(v)] if vocabulary else v for v, vocabulary in zip(row, words, strict=True)]
        for row in matrix.values.tolist()
    ]


def test_a_request_by_key_and_one_by_its_own_columns_give_the_same(world: World) -> None:
    reader, requests = world.reader(world.view()), world.requests(lookups=["seat"])
    whole = shown(reader.read(requests, requests.at))
    assert whole[0] == ["AA", 10.0, 0.0, None, None]
    assert whole[2][:3] == ["ünï", 12.0, 1.0]
    for rows in ([0], [1], [3, 2, 1, 0]):
        own = by_own_columns(world, requests, rows)
        assert own.at.tolist() == requests.at[rows].tolist()
        assert own.event.tolist() == requests.event[rows].tolist()
        assert own.known.tolist() == requests.known[rows].tolist()
        assert own.keys.tolist() == requests.keys[rows].tolist()
        assert {name: column.texts() for name, column in own.texts.items()} == {
            name: column.take(rows).texts() for name, column in requests.texts.items()
        }
        assert shown(reader.read(own, own.at)) == [whole[row] for row in rows]


def test_no_own_columns_are_no_requests(world: World) -> None:
    assert len(evaluate(world.request, world.types(), [world.calendar], PREDICT_AT, [])) == 0


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"origin": "absent"}, "the request lacks 'origin'"),
        ({"delay": "late"}, "the request's delay = 'late' is no number"),
        ({"departs": "2013-01-01T10:00:00"}, "departs = 2013-01-01T10:00:00 is not a time with its zone"),
        ({"departs": "soon"}, "departs = soon is not a time with its zone"),
        ({"departs": None}, "a time is null"),
    ],
)
def test_a_wrong_own_column_is_refused(world: World, changed: dict[str, Any], what: str) -> None:
    row = dict(zip(FLIGHTS.splitlines()[0].split(","), FLIGHTS.splitlines()[1].split(","), strict=True)) | changed
    with pytest.raises(DataError, match=what):
        evaluate(world.request, world.types(), [], PREDICT_AT, [{name: value for name, value in row.items() if value != "absent"}])


KINDS = {"BIGINT": 3, "DOUBLE": 2.5, "DECIMAL(4,2)": 1, "VARCHAR": "a", "BOOLEAN": True, "TIMESTAMP": "2013-01-01 10:00:00", "UUID": {}}


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        *(("BIGINT", wrong) for wrong in (1.5, "1.5", True, "nan", "inf", float("inf"), [1], {})),
        *(("DOUBLE", wrong) for wrong in (True, "nan", " -Infinity ", "1e400", float("inf"), [1.0], {})),
        *(("DECIMAL(4,2)", wrong) for wrong in (False, "NaN")),
        *(("VARCHAR", wrong) for wrong in (["a"], {"a": 1}, True, 1.0)),
        *(("BOOLEAN", wrong) for wrong in (1, "yes", [])),
        *(("TIMESTAMP", wrong) for wrong in (7, True, ["2013-01-01"])),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_and_neither_rounded_nor_spelt_out(kind: str, wrong: object) -> None:
    with pytest.raises(DataError, match=f"the request's x = .* is not {re.escape(kind)}"):
        check_values({"y": "BIGINT", "x": kind}, {"x": wrong, "y": 1})
    check_values({"x": kind}, {"x": KINDS[kind]})
    check_values({"x": kind}, {"x": None})


@pytest.mark.parametrize("number", [7, 7.0, "7", "7.0", np.int64(7), np.float64(7)])
def test_a_whole_number_may_be_spelt_in_any_way(number: object) -> None:
    check_values({"x": "BIGINT", "y": "DOUBLE"}, {"x": number, "y": number})
    check_values({"x": "DOUBLE"}, {"x": float("nan")})


@pytest.mark.parametrize("gap", [float("nan"), np.float64("nan"), pd.NA, pd.NaT], ids=str)
def test_a_gap_fits_every_column(gap: object) -> None:
    check_values(dict.fromkeys(KINDS, "BIGINT") | {kind: kind for kind in KINDS}, dict.fromkeys(KINDS, gap))


def test_numbers_and_keys_are_looked_up_when_asked_for(world: World) -> None:
    seats = world.view(entity=tm.Entity("seat", key="seat"))
    requests = world.requests(lookups=["seat", "id"])
    assert requests.texts["id"].texts() == ["1", "1", "2", "3"]
    matrix = world.reader(seats).read(requests, requests.event)
    assert matrix.values[:, matrix.names.index("delays__n_24h")].tolist() == [1.0, 1.0, 1.0, 1.0]


def test_a_prediction_time_without_a_zone_is_read_in_the_datasets_or_refused(tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "r.csv").write_text("id,t\n1,2013-01-01 10:00:00\n")
    where = Where(str(tmp_path / "x.py"), 1)
    dataset = tm.Dataset("r", {"s": tm.Source("r.csv", where=where)}, key="id", event_time="t", timezone="America/New_York", where=where)
    version = ingest(ledger, dataset).output
    requests = load_requests(ledger, build_requests(ledger, dataset, version, [], "t + INTERVAL 1 HOUR").output)
    assert requests.at.tolist() == [instant("2013-01-01T16:00:00Z")]
    own = evaluate(dataset, version.meta["types"], [], "t + INTERVAL 1 HOUR", [{"id": 1, "t": "2013-01-01 10:00:00"}])
    assert (own.at.tolist(), own.event.tolist()) == (requests.at.tolist(), requests.event.tolist())
    for zoned in ("2013-01-01T15:00:00Z", datetime(2013, 1, 1, 15, tzinfo=UTC)):
        with pytest.raises(DataError, match=r"the request's t = 2013-01-01.15:00:00.* has a zone, which its column has not"):
            evaluate(dataset, version.meta["types"], [], "t", [{"id": 1, "t": zoned}])
    same = evaluate(replace(dataset, timezone="UTC"), version.meta["types"], [], "t", [{"id": 1, "t": "2013-01-01T15:00:00Z"}])
    assert same.at.tolist() == [instant("2013-01-01T15:00:00Z")]


def test_a_request_that_is_known_only_after_its_prediction_time_is_refused(tmp_path: Path, ledger: Ledger) -> None:
    """Its columns would be a leak: the row stands for something that nobody knew when it was asked."""
    (tmp_path / "r.csv").write_text("id,t\n1,2013-01-01 10:00:00\n")
    where = Where(str(tmp_path / "x.py"), 1)
    dataset = tm.Dataset("r", {"s": tm.Source("r.csv", where=where)}, key="id", event_time="t", timezone="UTC", where=where)
    with pytest.raises(DataError, match="known only after their prediction time"):
        build_requests(ledger, dataset, ingest(ledger, dataset).output, [], "t - INTERVAL 1 HOUR")


@pytest.mark.parametrize(
    ("predict_at", "what"),
    [
        ("CAST(departs AS TIMESTAMP)", "a time has no time zone"),
        ("delay", "a time has no time zone"),
        ("CASE WHEN id > 1 THEN departs END", "a time is null"),
        ("max(departs) OVER ()", "may only use its own row"),
        ("depart - INTERVAL 1 HOUR", "there is no column 'depart'"),
        ("now()", r"now\(\) gives another value each time"),
    ],
)
def test_a_wrong_prediction_time_is_refused(world: World, predict_at: str, what: str) -> None:
    with pytest.raises((DataError, DefinitionError), match=what):
        world.requests(predict_at)


def test_a_feature_that_one_request_cannot_be_given_is_refused_with_its_place(world: World) -> None:
    """Before anything is trained on it; what is not in the subset is a matter of the dataset's query."""
    world.calendar = tm.RequestView("calendar", world.request, features={"id": "length(md5(part))"}, where=Where("calendar.py", 7))
    with pytest.raises(DefinitionError, match=r"'md5\(part\)' in the expression 'length\(md5\(part\)\)'") as error:
        world.requests()
    assert error.value.where == "calendar.py:7"


def test_what_one_request_gives_otherwise_than_all_is_seen(world: World) -> None:
    own = OwnColumns.of(world.request, world.types(), [world.calendar], PREDICT_AT)
    rows = [dict.fromkeys(world.types()) | {"id": "1", "part": "a", "departs": f"2013-01-0{day} 10:00:00+00"} for day in (1, 2)]
    rows = [row | {"published": row["departs"]} for row in rows]
    whole = own.requests([row | {"departs": f"{row['departs']}:00", "published": f"{row['departs']}:00"} for row in rows])
    assert whole.values[:, 1].tolist() == [10.0, 10.0]
    computed = own.computed([[own.taken(name, row[name]) for name in own.types] for row in rows])
    assert not list(own.differences(rows, computed))
    other = replace(own, values={**own.values, "x:calendar__hour": lambda row: 10.000000000000002})
    assert list(other.differences(rows, computed)) == [("x:calendar__hour", "10.000000000000002", "10.0")] * 2


def test_a_value_that_cannot_be_computed_is_refused_with_the_feature(world: World) -> None:
    view = tm.RequestView("v", world.request, features={"share": "7 // seat"})
    row = {"id": 1, "part": "a", "origin": None, "seat": 0, "published": "2013-01-01T00:00:00Z", "departs": "2013-01-01T10:00:00Z"}
    row |= {"delay": None, "carrier": None}
    with pytest.raises(DataError, match="the request cannot be evaluated: v__share: division by zero"):
        evaluate(world.request, world.types(), [view], PREDICT_AT, [row])
    assert evaluate(world.request, world.types(), [view], PREDICT_AT, [row | {"seat": 2}]).values.tolist() == [[3.0]]


def test_columns_of_types_that_expressions_do_not_know_are_read_as_text(tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "r.csv").write_text("id,t\n6ccd780c-baba-1026-9564-5b8c656024db,2013-01-01 10:00:00\n")
    where = Where(str(tmp_path / "x.py"), 1)
    sources = {"s": tm.Source("r.csv", where=where)}
    query = "SELECT id::UUID AS id, [1, 2] AS list, t FROM s"
    dataset = tm.Dataset("r", sources, key="id", event_time="t", timezone="UTC", query=query, where=where)
    version = ingest(ledger, dataset).output
    requests = load_requests(ledger, build_requests(ledger, dataset, version, [], "t").output)
    sent = {"id": "6ccd780cbaba102695645b8c656024db", "list": [1, 2], "t": "2013-01-01 10:00:00"}
    own = evaluate(dataset, version.meta["types"], [], "t", [sent])
    assert own.keys.tolist() == requests.keys.tolist() == [b"6ccd780c-baba-1026-9564-5b8c656024db"]
    with pytest.raises(DataError, match="the request's id = 'nobody' is no"):
        evaluate(dataset, version.meta["types"], [], "t", [sent | {"id": "nobody"}])


def test_requests_need_a_key(world: World) -> None:
    with pytest.raises(DefinitionError, match="has no key"):
        build_requests(world.ledger, world.departures, ingest(world.ledger, world.departures).output, [], "departs")


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_times_that_the_store_does_not_hold_are_answered_offline_and_say_so(world: World, online: OnlineStore) -> None:
    requests, until = world.requests(), instant("2013-01-02T10:00:00Z")
    reader = world.reader(world.view(), online)
    assert not reader.read(requests, requests.at).online.any()  # nothing is stored yet
    assert reader.materialise(until) == {"delays": 2}
    at = np.array([until - 1, until, until + DAY, until - DAY])
    matrix = reader.read(requests, at)
    assert matrix.online.tolist() == [False, True, False, False]  # a day later, more is known than was stored
    assert matrix.values.tobytes() == world.reader(world.view()).read(requests, at).values.tobytes()


def test_what_is_missing_says_why(world: World) -> None:
    requests = world.requests()
    matrix = world.reader(world.view()).read(requests, np.full(len(requests), instant("2013-01-02T11:00:00Z")))
    assert [matrix.problems(row) for row in range(4)] == [
        {"delays": "expired"},
        {"delays": "expired"},
        {"delays": "expired"},
        {"delays": "unknown"},
    ]
    newest = world.view(windows=[], features=["delay"], ttl="1d")
    matrix = world.reader(newest).read(requests, np.full(len(requests), instant("2013-01-02T10:00:00Z")))
    assert [matrix.problems(row) for row in range(4)] == [{}, {"delays": "null"}, {}, {"delays": "unknown"}]
    matrix = world.reader(newest).read(requests, np.full(len(requests), instant("2013-01-02T10:00:00Z") + 1))
    assert matrix.problems(1) == {"delays": "expired"}


def test_a_reader_of_request_features_alone(world: World) -> None:
    requests = world.requests()
    matrix = Reader([world.calendar], {}, {}).read(requests, requests.at)
    assert matrix.names == ("calendar__carrier", "calendar__hour", "calendar__late")
    assert matrix.status.shape == (4, 0)
    assert matrix.problems(0) == {}


@pytest.mark.parametrize("how", ["damaged", "lost"])
def test_what_the_store_cannot_give_is_read_offline_with_one_line_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    class Broken(MemoryOnline):
        def read(self, asked: Sequence[Asked]) -> list[Stored]:
            return [(mark, [b"not what was written" if how == "damaged" else None for _ in states]) for mark, states in super().read(asked)]

    requests, until = world.requests(), instant("2013-01-02T10:00:00Z")
    reader = world.reader(world.view(), Broken())
    reader.materialise(until)
    at = np.full(len(requests), until)
    for _ in range(2):
        matrix = reader.read(requests, at)
        assert (matrix.damaged, matrix.online.any()) == (True, False)
        assert matrix.values.tobytes() == world.reader(world.view()).read(requests, at).values.tobytes()
    assert caplog.text.count("online_store=damaged") == 1
