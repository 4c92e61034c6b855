"""Batch = one row = online = a slow oracle, for random events with ties, late rows, null keys and values on every edge."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from features.held import states_of
from features.oracle import EXAMPLES, Row, Value, hop_of, in_window, newest, quantile, visible, windowed
from tidemill.core import DAY, HOUR, MINUTE, SECOND, Coded, Where, show
from tidemill.data import Dataset, Source, ingest
from tidemill.features import (
    STATUS,
    Block,
    Entity,
    Feature,
    FeatureView,
    MemoryOnline,
    OnlineStore,
    Reader,
    Requests,
    ViewLog,
    approx_quantile,
    build,
    category,
    count,
    count_distinct,
    first,
    last,
    load,
    materialise,
    mean,
    space_of,
    std,
)
from tidemill.features import max as largest
from tidemill.features import min as smallest
from tidemill.features import sum as total
from tidemill.features.online import Mark, mark_of
from tidemill.features.views import of_arrays
from tidemill.ledger import Ledger
from tidemill.store import MemoryBlobs, Records

START = 15_706 * DAY  # midnight UTC of a day in 2013; windows' edges lie on multiples of 5 minutes from there
NOWHERE = Where("views.py", 1)
FILE = Source("events.csv", null_values=["NA"], where=NOWHERE)
EVENTS = Dataset("events", {"s": FILE}, event_time="event", known_at="known", where=NOWHERE)
ENTITY = Entity("thing", key="entity", where=NOWHERE)
FUNCTIONS: dict[str, Feature] = {
    "mean": mean("number"),
    "sum": total("number"),
    "min": smallest("number"),
    "max": largest("number"),
    "count": count("number"),
    "last": last("number"),
    "std": std("number"),
    "first": first("number"),
    "newest": last("number", n=3),
    "different": count_distinct("number"),
    "sum_x": total("number", filter="word = 'x'"),
    "first_x": first("number", filter="word = 'x'"),
    "newest_x": last("number", n=2, filter="word = 'x'"),
}
ASKED = [(one.function, one.n, "x" if one.filter else None) for one in FUNCTIONS.values()]
NEWEST = FeatureView(
    "newest", EVENTS, entity=ENTITY, ttl="1h", features={"number": last("number"), "word": category("word")}, where=NOWHERE
)
FOREVER = FeatureView("forever", EVENTS, entity=ENTITY, features={"number": last("number"), "word": category("word")}, where=NOWHERE)
WINDOWS = FeatureView("windows", EVENTS, entity=ENTITY, windows=["10min", "1h"], features=FUNCTIONS, where=NOWHERE)
WIDE = FeatureView("wide", EVENTS, entity=ENTITY, windows=["13h", "13d"], features=FUNCTIONS, where=NOWHERE)
LIFE = FeatureView("life", EVENTS, entity=ENTITY, windows=["1h", "lifetime"], features=FUNCTIONS, where=NOWHERE)
WIDTHS: dict[str, list[int | None]] = {"windows": [10 * MINUTE, HOUR], "wide": [13 * HOUR, 13 * DAY], "life": [HOUR, None]}
VIEWS = {view.name: view for view in (NEWEST, FOREVER, WINDOWS, WIDE, LIFE)}

# Times on the edges of windows and hops and a microsecond beside them, ties included; numbers that add up to the same in any order.
beside = st.sampled_from([0, 0, 0, 1, -1, 2 * MINUTE])
minutes = st.integers(-3, 26).map(lambda five: five * 5 * MINUTE)
wide = st.sampled_from([-14 * DAY, -13 * DAY, -13 * DAY - HOUR, -13 * HOUR, -14 * HOUR, 0, 0, 0, 0, 0])
times = st.tuples(minutes, beside, wide).map(lambda parts: START + sum(parts))
entities = st.sampled_from(["a", "a", "a", "b", "ü", None])
numbers = st.none() | st.integers(-20, 20).map(lambda n: n / 4)
delays = st.sampled_from([0, 0, 0, 0, MINUTE, 5 * MINUTE, HOUR, DAY, -HOUR])
rows_of = st.builds(lambda e, at, d, n, w: Row(e, at, at + d, n, w), entities, times, delays, numbers, st.sampled_from([None, "x", "y"]))
asked = st.lists(st.tuples(st.sampled_from(["a", "a", "b", "ü", "never", None]), times), min_size=1, max_size=12)


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["place", "entity", "event", "known", "number", "word"])
    for place, row in enumerate(rows):
        written = [row.entity, show(row.event), show(row.known), row.number, row.word]
        writer.writerow([place, *("NA" if value is None else value for value in written)])
    (folder / "events.csv").write_text(text.getvalue())


TYPES = "place, CAST(entity AS VARCHAR) AS entity, CAST(event AS TIMESTAMPTZ) AS event, CAST(known AS TIMESTAMPTZ) AS known"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("events")


def in_file_order(rows: Sequence[Row]) -> list[Row]:
    """Ties are broken by the order of the dataset: by knowledge time, event time, then its columns, of which `place` comes first."""
    return [row for _, row in sorted(enumerate(rows), key=lambda item: (item[1].known, item[1].event, item[0]))]


def log_through_files(view: FeatureView, rows: Sequence[Row], folder: Path) -> ViewLog:
    """The log of a view over these rows, the whole way from a file."""
    ledger = Ledger(Records(None), MemoryBlobs(), lambda: 0)
    write_rows(rows, folder)
    where = Where(str(folder / "views.py"), 1)
    query = f"SELECT {TYPES}, CAST(number AS DOUBLE) AS number, CAST(word AS VARCHAR) AS word FROM s"
    source = Source("events.csv", null_values=["NA"], where=where)
    dataset = Dataset("events", {"s": source}, event_time="event", known_at="known", query=query, where=where)
    return load(ledger, view, build(ledger, view, ingest(ledger, dataset).output).output)


def log_of(view: FeatureView, rows: Sequence[Row]) -> ViewLog:
    """The same log, made from its arrays; that it is the same is a test of its own."""
    ordered = [row for row in in_file_order(rows) if row.entity is not None]
    entity, word = Coded.of(row.entity for row in ordered), Coded.of(row.word for row in ordered)
    event, known = (np.array([getattr(row, name) for row in ordered], dtype=np.int64) for name in ("event", "known"))
    number = np.array([np.nan if row.number is None else row.number for row in ordered], dtype=np.float64)
    order = np.lexsort((np.arange(len(ordered)), known, event, entity.codes))
    words = np.where(word.codes >= 0, word.codes, np.nan)
    is_x = np.array([row.word == "x" for row in ordered], dtype=bool)
    columns = {name: words if name == "x:word" else is_x.astype(float) if name[:2] == "w:" else number for name in view.kept}
    columns["x:sum_x"] = np.where(is_x, number, np.nan)
    arrays = {name: array[order] for name, array in {"entity": entity.codes, "event": event, "known": known, **columns}.items()}
    return of_arrays(view, entity.vocabulary, arrays, {"word": word.vocabulary} if "word" in view.columns else {})


def expected(view: FeatureView, rows: Sequence[Row], entity: str | None, at: int) -> tuple[list[Value | str], str]:
    ordered = in_file_order(rows)
    if view.windows:
        values, status = windowed(ordered, entity, at, WIDTHS[view.name], ASKED)
        return list(values), status
    row, status = newest(ordered, entity, at, HOUR if view.ttl else None)
    return [row.number if row else None, row.word if row else None], status


class Near(float):
    """A standard deviation, whose last bit depends on how it is divided and rooted."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and math.isclose(self, other, rel_tol=1e-15)

    __hash__ = float.__hash__


def shown(block: Block) -> list[tuple[list[Value | str], str]]:
    """A block as the oracle writes it."""
    kinds = [Near if "__std" in name else float for name in block.names]
    words = [block.vocabularies.get(name) for name in block.names]
    return [
        (
            [
                None if np.isnan(v) else vocabulary[int(v)] if vocabulary else kind(v)
                for v, vocabulary, kind in zip(row, words, kinds, strict=True)
            ],
            STATUS[status],
        )
        for row, status in zip(block.values, block.status, strict=True)
    ]


def read(log: ViewLog, requests: Sequence[tuple[str | None, int]]) -> Block:
    return log.read(Coded.of(entity for entity, _ in requests), np.array([at for _, at in requests], dtype=np.int64))


def same_bits(one: Block, two: Block) -> bool:
    return one.values.tobytes() == two.values.tobytes() and one.status.tobytes() == two.status.tobytes()


TIES = [Row("a", START, START, 1.0, "x"), Row("a", START, START, 2.0, "y")]
BEFORE_THE_HOP = [Row("a", START - 54 * MINUTE + i, START - 54 * MINUTE + i, 1.0, None) for i in range(3)]
thorough = settings(max_examples=12 * EXAMPLES, deadline=None)


@pytest.mark.parametrize("name", VIEWS)
@thorough
@given(rows=st.lists(rows_of, max_size=25), requests=asked)
@example(rows=[], requests=[("a", START), (None, START)])
@example(rows=[Row("a", START, START, 1.0, "x")], requests=[("a", START + HOUR), ("a", START + HOUR + 1), ("a", START - 1), ("a", START)])
@example(
    rows=[Row("a", START - HOUR, START - HOUR, 1.0, None), Row("a", START, START + DAY, 2.0, None)], requests=[("a", START + 2 * HOUR)]
)
@example(rows=[Row(None, START, START, 1.0, "x")], requests=[(None, START), ("a", START)])
def test_every_way_to_read_gives_what_the_oracle_gives(name: str, rows: list[Row], requests: list[tuple[str | None, int]]) -> None:
    view = VIEWS[name]
    log = log_of(view, rows)
    batch = read(log, requests)
    assert shown(batch) == [expected(view, rows, entity, at) for entity, at in requests]
    for i, request in enumerate(requests):
        one = read(log, [request])
        assert one.values.tobytes() == batch.values[i : i + 1].tobytes()
        assert one.status.tobytes() == batch.status[i : i + 1].tobytes()


@pytest.mark.parametrize("name", VIEWS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(rows_of, max_size=25), requests=asked)
@example(rows=[], requests=[("a", START)])
@example(rows=[Row(None, START, START, 1.0, "x")], requests=[(None, START)])
@example(rows=TIES, requests=[("a", START)])
@example(rows=TIES[::-1], requests=[("a", START)])
def test_the_whole_way_from_a_file_gives_the_same(folder: Path, name: str, rows: list[Row], requests: list[tuple[str | None, int]]) -> None:
    view = VIEWS[name]
    through, straight = read(log_through_files(view, rows, folder), requests), read(log_of(view, rows), requests)
    assert shown(through) == shown(straight) == [expected(view, rows, entity, at) for entity, at in requests]


@pytest.mark.parametrize("name", VIEWS)
@thorough
@given(rows=st.lists(rows_of, max_size=25), requests=asked, marks=st.lists(times, min_size=1, max_size=3))
@example(rows=BEFORE_THE_HOP, requests=[("a", START + 7 * MINUTE)], marks=[START + 7 * MINUTE])
@example(rows=[Row("a", START, START, 1.0, "x")], requests=[("a", START), ("b", START)], marks=[START - DAY])
def test_online_is_offline_bit_for_bit(name: str, rows: list[Row], requests: list[tuple[str | None, int]], marks: list[int]) -> None:
    """After any steps of materialisation, a reader gives what it gives without a store, at any time; the store answers those times
    since its watermark by which nothing more was known."""
    view, until = VIEWS[name], max(marks)
    log, store = log_of(view, rows), MemoryOnline()
    for mark in marks:
        materialise(store, log, mark)
    assert until_of(store, view) == until
    asked = requests_of([*requests, *((entity, until) for entity, _ in requests)])
    offline, both = (Reader([view], {name: log}, {name: "v"}, online).read(asked, asked.at) for online in (None, store))
    assert both.values.tobytes() == offline.values.tobytes()
    assert both.status.tobytes() == offline.status.tobytes()
    known = [sum(row.known <= at for row in rows if row.entity is not None) for at in (until, *asked.at.tolist())]
    assert both.online.tolist() == [at >= until and n == known[0] for at, n in zip(asked.at.tolist(), known[1:], strict=True)]


def until_of(store: OnlineStore, view: FeatureView) -> int | None:
    """Up to which knowledge time a store holds a view."""
    mark = Mark.of(mark_of(store, space_of(view)))
    return mark.until if mark else None


def requests_of(asked: Sequence[tuple[str | None, int]]) -> Requests:
    """Requests that are nothing but an entity and a time."""
    at = np.array([at for _, at in asked], dtype=np.int64)
    keys = np.array([str(i).encode() for i in range(len(asked))])
    return Requests(keys, at, at, at, {"entity": Coded.of(entity for entity, _ in asked)}, [], np.empty((len(asked), 0)), {})


rounding = st.none() | st.floats(-1e9, 1e9, allow_nan=False) | st.sampled_from([0.1, 1e16, -1e16])
late_rows = st.builds(
    lambda at, d, n: Row("a", at, at + d, n, None), times, st.sampled_from([0, MINUTE, HOUR, HOUR, DAY, 30 * DAY]), rounding
)


@pytest.mark.parametrize("view", [WINDOWS, WIDE], ids=lambda view: view.name)
@thorough
@given(rows=st.lists(late_rows, max_size=60), at=st.lists(times, min_size=1, max_size=12))
@example(rows=[Row("a", START + i * MINUTE, START + i * MINUTE + HOUR * (i % 3), 0.1 * i, None) for i in range(60)], at=[START + HOUR] * 2)
def test_late_rows_fold_to_the_bits_that_they_give_one_by_one(view: FeatureView, rows: list[Row], at: list[int]) -> None:
    """Windows of which some rows were not known yet: many at once give what the visible rows of each give when folded alone."""
    log = log_of(view, rows)
    block = read(log, [("a", t) for t in at])
    for i, t in enumerate(at):
        alone = of_arrays(view, log.entities, _known_by(log, t), {}).read(Coded.of(["a"]), np.array([t]))
        assert block.values[i].tobytes() == alone.values[0].tobytes()
        assert block.status[i] == alone.status[0]


def test_many_late_rows_at_once_are_each_folded_alone() -> None:
    """So many that they are copied in several parts."""
    random = np.random.default_rng(3)
    event = [START + int(minute) * MINUTE for minute in np.sort(random.integers(0, 50, 500))]
    delays = random.integers(0, 40, 500) * MINUTE
    rows = [Row("a", e, e + int(d), float(n), None) for e, d, n in zip(event, delays, random.lognormal(0, 8, 500), strict=True)]
    log = log_of(WINDOWS, rows)
    at = [START + 7 * SECOND * i for i in range(500)]
    block = read(log, [("a", t) for t in at])
    for i in range(0, 500, 7):
        alone = of_arrays(WINDOWS, log.entities, _known_by(log, at[i]), {}).read(Coded.of(["a"]), np.array([at[i]]))
        assert block.values[i].tobytes() == alone.values[0].tobytes()


def _known_by(log: ViewLog, at: int) -> dict[str, np.ndarray]:
    """The arrays of a log of one entity, without what was not known at `at`: nothing of it is late then."""
    use = log.events.known <= at
    event = log.events.event[use]
    entity, known = np.zeros(len(event), np.int32), np.minimum(log.events.known[use], event)
    return {"entity": entity, "event": event, "known": known, **{name: column[use] for name, column in log.columns.items()}}


@pytest.mark.parametrize("delays", ["late by an hour or so", "late by days", "some much later or sooner"])
def test_thousands_of_late_rows_are_seen_as_the_oracle_sees_them(delays: str) -> None:
    random = np.random.default_rng(7)
    n = 2_000
    event = START + random.integers(0, 20 * DAY // MINUTE, n) * MINUTE
    late = random.integers(0, 90, n) * MINUTE + (3 * DAY if "days" in delays else 0)
    if "much" in delays:
        odd = random.choice(n, 12, replace=False)
        late[odd] = random.choice([-5 * DAY, 9 * DAY, 30 * DAY], 12)
    numbers = np.round(random.lognormal(0, 8, n), 2)
    rows = [
        Row("abc"[e], int(t), int(t + d), float(v), "xy"[w])
        for e, t, d, v, w in zip(random.zipf(2, n) % 3, event, late, numbers, random.integers(0, 2, n), strict=True)
    ]
    asked = [("abc"[i % 3], int(t)) for i, t in enumerate(START + random.integers(-1, 40 * DAY // MINUTE, 60) * MINUTE)]
    for name in ("windows", "wide", "life"):
        block = read(log_of(VIEWS[name], rows), asked)
        assert shown(block) == [expected(VIEWS[name], rows, entity, at) for entity, at in asked]


@thorough
@example(rows=[Row("a", START, START, 5e-324, None)], at=START, q=0.5)
@given(rows=st.lists(late_rows, max_size=60), at=times, q=st.sampled_from([0.01, 0.25, 0.5, 0.9, 0.999]))
def test_an_approximate_quantile_is_near_the_value_of_its_rank(rows: list[Row], at: int, q: float) -> None:
    view = FeatureView("v", EVENTS, entity=ENTITY, windows=["13d"], features={"q": approx_quantile("number", q)}, where=NOWHERE)
    found = read(log_of(view, rows), [("a", at)]).values[0, 0]
    wanted = quantile(in_window(visible(in_file_order(rows), "a", at), at, 13 * DAY), q)
    assert np.isnan(found) if wanted is None else abs(found - wanted) <= max(abs(wanted) / 128, 1e-300)


@pytest.mark.parametrize("name", VIEWS)
@thorough
@given(rows=st.lists(rows_of, max_size=25), future=st.lists(rows_of, max_size=10), requests=asked, now=times)
def test_the_future_changes_nothing(
    name: str, rows: list[Row], future: list[Row], requests: list[tuple[str | None, int]], now: int
) -> None:
    """Rows that are not known at `now` may be added, changed or taken away: values at `now` and before stay equal."""
    view = VIEWS[name]
    asked_by_now = [(entity, min(at, now)) for entity, at in requests]
    past = [row for row in rows if row.known <= now]
    others = [Row(row.entity, row.event, row.known + max(0, now + 1 - row.known), row.number, row.word) for row in future]
    assert shown(read(log_of(view, rows), asked_by_now)) == shown(read(log_of(view, [*past, *others]), asked_by_now))


@thorough
@given(rows=st.lists(rows_of, max_size=25), mark=times, older=times)
def test_materialising_again_or_to_an_older_time_changes_nothing(rows: list[Row], mark: int, older: int) -> None:
    log, store = log_of(WINDOWS, rows), MemoryOnline()
    materialise(store, log, mark)
    before = states_of(store, space_of(WINDOWS), log.entities)
    assert materialise(store, log, mark) == 0
    assert materialise(store, log, min(older, mark)) == 0
    assert states_of(store, space_of(WINDOWS), log.entities) == before
    assert until_of(store, WINDOWS) == mark


def test_only_entities_with_news_are_written() -> None:
    rows = [Row("a", START, START, 1.0, None), Row("b", START, START, 2.0, None), Row("a", START + HOUR, START + HOUR, 3.0, None)]
    log, store = log_of(WINDOWS, rows), MemoryOnline()
    assert materialise(store, log, START) == 2
    assert materialise(store, log, START + HOUR) == 1
    assert materialise(store, log, START + 2 * HOUR) == 0
    assert until_of(store, WINDOWS) == START + 2 * HOUR


@pytest.mark.parametrize(
    ("width", "step"), [(5 * MINUTE, 5 * MINUTE), (12 * HOUR, 5 * MINUTE), (13 * HOUR, HOUR), (12 * DAY, HOUR), (13 * DAY, DAY)]
)
def test_a_window_begins_at_its_hop_and_ends_at_the_request(width: int, step: int) -> None:
    assert hop_of(width) == step
    text = f"{width // MINUTE}min"
    view = FeatureView("v", EVENTS, entity=ENTITY, windows=[text], features={"n": count("number")}, where=NOWHERE)
    at = START + 7 * SECOND
    edge = (at - width) // step * step
    log = log_of(view, [Row("a", t, t, 1.0, None) for t in (edge - 1, edge, at - width, at, at + 1)])
    assert read(log, [("a", at)]).values.tolist() == [[3.0]]
    assert read(log, [("a", at + 1)]).values.tolist() == [[4.0]]


def test_many_entities_and_windows_do_not_run_into_each_other() -> None:
    rows = [Row(f"e{i:03}", START + j * MINUTE, START + j * MINUTE, float(i), None) for i in range(50) for j in range(5)]
    log = log_of(WINDOWS, rows)
    block = read(log, [(f"e{i:03}", START + HOUR) for i in range(50)])
    assert block.values[:, block.names.index("windows__mean_1h")].tolist() == [float(i) for i in range(50)]


def test_sums_are_bit_equal_where_rounding_shows(online: OnlineStore) -> None:
    """Numbers whose sum depends on the order of adding: one row, a batch and online must add them in one order."""
    random = np.random.default_rng(0)
    rows = [
        Row(entity, START + int(random.integers(0, 60)) * MINUTE, START + 60 * MINUTE, float(value), None)
        for entity in ("a", "b", "c")
        for value in random.lognormal(0, 8, 400)
    ]
    log = log_of(WINDOWS, rows)
    requests = [(entity, START + minute * MINUTE) for entity in ("a", "b", "c", "never") for minute in range(60, 130, 3)]
    batch = read(log, requests)
    alone = [read(log, [request]).values.tobytes() for request in requests]
    assert alone == [batch.values[i].tobytes() for i in range(len(requests))]
    materialise(online, log, START + 60 * MINUTE)
    asked = requests_of(requests)
    matrix = Reader([WINDOWS], {"windows": log}, {}, online).read(asked, asked.at)
    assert (matrix.online.all(), matrix.values.tobytes()) == (True, batch.values.tobytes())
    assert matrix.status[:, 0].tolist() == batch.status.tolist()
