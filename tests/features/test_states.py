"""States of the online store: made of all events at once, or of some with the rest added in any portions, they read the same."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from features.held import states_of, words_of
from features.oracle import EXAMPLES, Row
from features.test_point_in_time import (
    ENTITY,
    EVENTS,
    NOWHERE,
    START,
    VIEWS,
    asked,
    log_of,
    read,
    requests_of,
    rows_of,
    thorough,
    times,
    until_of,
)
from tidemill.core import DAY, HOUR, MINUTE, SECOND, Coded
from tidemill.features import (
    FeatureView,
    MemoryOnline,
    Reader,
    ViewLog,
    approx_quantile,
    latest,
    materialise,
    materialising,
    mean,
    merging,
    space_of,
    std,
)
from tidemill.features.forms import Windowed, form_of
from tidemill.features.latest import Latest
from tidemill.features.state import Layout
from tidemill.features.views import Block
from tidemill.features.windows import PRESENT, UNKNOWN

RANKS = FeatureView(
    "ranks",
    EVENTS,
    entity=ENTITY,
    windows=["10min", "1h", "13d", "lifetime"],
    features={"median": approx_quantile("number", 0.5), "most": approx_quantile("number", 0.9), "std": std("number")},
    where=NOWHERE,
)
ALL = {**VIEWS, "ranks": RANKS}


@pytest.fixture(params=[2, 1_000], ids=["merged often", "merged never"])
def seldom(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """From how many rows on those that came later are merged."""
    monkeypatch.setattr(merging, "MANY", request.param)
    monkeypatch.setattr(latest, "KEPT", request.param)


def layout_of(form: Latest | Windowed) -> Layout:
    return form.tiles.layout if isinstance(form, Windowed) else form.layout


def word_rows(layout: Layout, words: list[str], rows: Sequence[Row], first: int) -> list[tuple[int, ...]]:
    """Rows as the store has them; new words get the next numbers."""
    found = []
    for seq, row in enumerate(rows, first):
        if row.word is not None and row.word not in words:
            words.append(row.word)
        number, word = (np.nan if row.number is None else row.number), np.nan if row.word is None else float(words.index(row.word))
        own = {"x:word": word, "x:sum_x": number if row.word == "x" else np.nan}
        values = [own.get(name, float(row.word == "x") if name[:2] == "w:" else number) for name in layout.columns]
        found.append((seq, row.event, row.known, *np.array(values).view(np.int64).tolist()))
    return found


@pytest.mark.usefixtures("seldom")
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=6 * EXAMPLES, deadline=None)
@given(rows=st.lists(rows_of, max_size=15), later=st.lists(rows_of, max_size=15), requests=asked, mark=times, many=st.integers(1, 6))
@example(rows=[], later=[Row("a", START + i * MINUTE, START, 0.1, "x") for i in range(9)], requests=[("a", START)], mark=START, many=2)
@example(rows=[], later=[Row("a", START - i * HOUR, START, 0.1, "x") for i in range(9)], requests=[("a", START)], mark=START, many=4)
def test_what_comes_later_is_as_if_it_had_always_been_there(
    name: str, rows: list[Row], later: list[Row], requests: list[tuple[str | None, int]], mark: int, many: int
) -> None:
    view, store = ALL[name], MemoryOnline()
    rows = [Row(row.entity, row.event, min(row.known, mark), row.number, row.word) for row in rows]
    later = [Row(row.entity, row.event, max(row.known, mark + 1), row.number, row.word) for row in later if row.entity is not None]
    materialise(store, log_of(view, rows), mark)
    form, words = form_of(view), add(store, view, later, many)
    end = max([mark, *(row.known for row in later)])
    log = log_of(view, [*rows, *later])
    asked_then = [(entity, max(at, end)) for entity, at in requests]
    expected = read(log, asked_then)
    keys, at = Coded.of(entity for entity, _ in asked_then), np.array([at for _, at in asked_then], dtype=np.int64)
    values, status = form.read(*_found(store, view, keys), at)
    for i, data in enumerate(states_of(store, space_of(view), [entity or "nobody" for entity, _ in asked_then])):
        [each], [one] = form.each([data], int(at[i]))
        assert np.array(each, dtype=np.float64).tobytes() == values[i].tobytes()
        assert one == status[i]
    assert values.tobytes() == in_words(expected, words).tobytes()
    assert status.tobytes() == expected.status.tobytes()


def add(store: MemoryOnline, view: FeatureView, later: Sequence[Row], many: int) -> list[str]:
    """Add rows to the states, some at a time; returns the words by their numbers."""
    form, words = form_of(view), words_of(store, space_of(view), "word")
    for first in range(0, len(later), many):
        part = later[first : first + many]
        for entity in {row.entity for row in part if row.entity is not None}:
            fresh = word_rows(layout_of(form), words, [row for row in part if row.entity == entity], first)
            [(_, before)] = store.read([(space_of(view), [entity])])
            data = form.added(before[0], fresh)
            store.update(space_of(view), [], lambda mark, _, entity=entity, data=data: (mark, {entity: data}))  # type: ignore[misc]
    return words


def in_words(block: Block, words: list[str]) -> np.ndarray:
    """The values of a block, with categories in the numbers of words."""
    found = np.ascontiguousarray(block.values)
    for i, one in enumerate(block.names):
        if vocabulary := block.vocabularies.get(one):
            number = np.array([*(words.index(word) if word in words else np.nan for word in vocabulary), np.nan])
            found[:, i] = number[np.where(np.isnan(found[:, i]), -1, found[:, i]).astype(int)]
    return found


news = st.builds(
    lambda event, known, number, word: Row("a", START + event, START + known, number, word),
    st.sampled_from([-DAY, -HOUR, -MINUTE, 0, SECOND, SECOND, HOUR]),
    st.integers(1, 16).map(lambda n: n * SECOND // 4),
    st.sampled_from([None, 0.5, 2.0, 7.25]),
    st.sampled_from([None, "x", "z"]),
)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=6 * EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(later=st.lists(news, min_size=1, max_size=40), at=st.integers(0, 20).map(lambda n: START + n * SECOND // 4), many=st.integers(1, 6))
def test_a_question_that_is_under_way_is_answered_from_the_states_of_a_moment_later(
    name: str, later: list[Row], at: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was pushed meanwhile is not yet in the log, so nothing else could answer it; but for entities with too much news to keep."""
    monkeypatch.setattr(merging, "MANY", 8)
    monkeypatch.setattr(latest, "KEPT", 1)
    monkeypatch.setattr(latest, "MANY", 2)
    view, store = ALL[name], MemoryOnline()
    rows = [Row("a", START - HOUR, START - HOUR, 1.0, "y")]
    materialise(store, log_of(view, rows), START)
    later = sorted(later, key=lambda row: row.known)
    words = add(store, view, later, many)
    [(_, states)] = store.read([(space_of(view), ["a"])])
    try:
        [values], [status] = form_of(view).each(states, at)
        two, statuses = form_of(view).each(states * 2, at)  # which looks at them as one array
        assert [repr([*one]) for one in two] == [repr([*values])] * 2
        assert statuses == [status] * 2
    except LookupError:
        few = 8 if not view.windows else 4
        assert at < later[-1].known - 2 * SECOND or sum(row.known > at for row in later) > few
        return
    expected = read(log_of(view, [*rows, *later]), [("a", at)])
    assert np.array(values, dtype=np.float64).tobytes() == in_words(expected, words)[0].tobytes()
    assert status == expected.status[0]


@pytest.mark.parametrize(("event", "known"), [(0, 1), (1, 0), (1, 1), (0, 0)])
def test_among_many_a_row_is_not_read_before_it_happened_and_is_known(event: int, known: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest, "MANY", 2)
    form = form_of(VIEWS["newest"])
    rows = Row("a", 0, 0, 1.0, "x"), Row("b", event, known, 2.0, "x")
    states = [form.added(None, word_rows(layout_of(form), ["x"], [row], 0)) for row in rows]
    values, statuses = form.each(states, 0)
    apart = [form.each([data], 0) for data in states]
    assert [[*row] for row in values] == [[*row] for [row], _ in apart]
    assert statuses == [PRESENT, UNKNOWN if event or known else PRESENT]


def _found(store: MemoryOnline, view: FeatureView, keys: Coded) -> tuple[list[bytes], np.ndarray]:
    found = states_of(store, space_of(view), keys.vocabulary)
    places = np.cumsum([data is not None for data in found]) - 1
    which = [int(places[code]) if code >= 0 and found[code] else -1 for code in keys.codes.tolist()]
    return [data for data in found if data], np.array(which, dtype=np.int64)


@thorough
@given(rows=st.lists(rows_of, max_size=25), requests=asked, marks=st.lists(times, min_size=1, max_size=3))
def test_quantiles_are_the_same_from_events_and_from_states(
    rows: list[Row], requests: list[tuple[str | None, int]], marks: list[int]
) -> None:
    log, store = log_of(RANKS, rows), MemoryOnline()
    for mark in marks:
        materialise(store, log, mark)
    asked_then = requests_of([(entity, max(marks)) for entity, _ in requests])
    offline, online = (Reader([RANKS], {"ranks": log}, {}, one).read(asked_then, asked_then.at) for one in (None, store))
    assert online.online.all()
    assert online.values.tobytes() == offline.values.tobytes()
    assert online.status.tobytes() == offline.status.tobytes()


# ── other data ──────────────────────────────────────────────────────────────────────────────────────────────────────

MEAN = FeatureView("mean", EVENTS, entity=ENTITY, windows=["1h"], features={"m": mean("number")}, where=NOWHERE)


def logs() -> tuple[ViewLog, ViewLog, ViewLog]:
    """A log, the same that went on, and one whose past is another."""
    rows = [Row("abc"[i % 3], START + i * MINUTE, START + i * MINUTE, float(i), None) for i in range(30)]
    more = [Row("a", START + HOUR, START + HOUR, 1.0, None), Row("d", START + HOUR, START + HOUR, 2.0, None)]
    return log_of(MEAN, rows), log_of(MEAN, [*rows, *more]), log_of(MEAN, [row for row in rows if row.entity != "c"])


def test_of_data_that_went_on_only_the_news_are_written() -> None:
    store, (first, second, _) = MemoryOnline(), logs()
    assert materialise(store, first, START + 30 * MINUTE, version="1") == 3
    assert materialise(store, second, START + HOUR, version="2") == 2
    assert _answers(store, second, START + HOUR) == _answers(None, second, START + HOUR)


def test_of_data_whose_past_is_another_all_is_made_anew() -> None:
    store, (first, _, other) = MemoryOnline(), logs()
    materialise(store, first, START + 30 * MINUTE, version="1")
    assert materialise(store, other, START + 30 * MINUTE, version="2") == 2
    assert states_of(store, space_of(MEAN), ["c"]) == [None]
    assert _answers(store, other, START + HOUR) == _answers(None, other, START + HOUR)


def test_an_older_version_of_the_data_changes_nothing() -> None:
    store, (first, second, _) = MemoryOnline(), logs()
    materialise(store, second, START + DAY, version="2")
    before = store.spaces()
    assert materialise(store, first, START + HOUR, version="1") == 0
    assert store.spaces() == before


class Dying(MemoryOnline):
    """A store whose process is killed at one of its writes."""

    writes = 0

    def update(self, *change: object) -> None:
        self.writes -= 1
        if not self.writes:
            raise KeyboardInterrupt
        super().update(*change)  # type: ignore[arg-type]


@pytest.mark.parametrize("writes", range(1, 6))
def test_a_killed_writer_is_gone_on_from_and_until_then_nothing_is_read(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialising, "PART", 1)
    store, (first, second, _), told = Dying(), logs(), list[tuple[int, int]]()
    store.writes = writes
    with pytest.raises(KeyboardInterrupt):
        materialise(store, first, START + 30 * MINUTE, version="1")
    assert until_of(store, MEAN) is None
    assert materialise(store, first, START + 30 * MINUTE, version="1", tell=lambda *done: told.append(done)) == min(3, 5 - writes)
    assert told == [(done, 3) for done in range(max(0, writes - 2), 4)]
    assert _answers(store, first, START + 30 * MINUTE) == _answers(None, first, START + 30 * MINUTE)
    store.writes = 2 + writes % 2
    with pytest.raises(KeyboardInterrupt):
        materialise(store, second, START + HOUR, version="2")
    assert materialise(store, first, START + HOUR, version="3") == 3, "what was begun is of other data"
    assert _answers(store, first, START + HOUR) == _answers(None, first, START + HOUR)


class Settling(MemoryOnline):
    """A store that counts how often it is settled: one in a folder is read whole for that."""

    settled = 0

    def settle(self) -> None:
        self.settled += 1


def test_a_store_is_settled_once_however_many_views_were_written() -> None:
    store, (first, _, _) = Settling(), logs()
    often = log_of(ALL["newest"], [Row("a", START, START, 1.0, "x")])
    reader = Reader([MEAN, often.view], {"mean": first, "newest": often}, {"mean": "1", "newest": "1"}, store)
    assert (reader.materialise(START + HOUR), store.settled) == ({"mean": 3, "newest": 1}, 1)
    assert (reader.materialise(START + HOUR), store.settled) == ({"mean": 0, "newest": 0}, 1), "there was nothing to write"


def _answers(store: MemoryOnline | None, log: ViewLog, at: int) -> tuple[bytes, bytes]:
    asked_then = requests_of([(entity, at) for entity in "abcd"])
    found = Reader([MEAN], {"mean": log}, {}, store).read(asked_then, asked_then.at)
    assert store is None or found.online.all()
    return found.values.tobytes(), found.status.tobytes()
