"""Rows that are pushed: in the log once, online at once, and in the next version as they were online."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tidemill as tm
from features.held import words_of
from features.oracle import EXAMPLES
from tidemill.core import DAY, HOUR, MINUTE, SECOND, Coded, DataError, Ref, StoreError, Where, instant, show
from tidemill.data import erase_pushed, ingest, pushed, pushed_offset, pushes
from tidemill.features import Feed, MemoryOnline, OnlineStore, Pusher, Reader, Requests, build, load, materialising, space_of
from tidemill.features.looked import entities_of
from tidemill.features.online import Asked, Mark, Stored, mark_of
from tidemill.ledger import Ledger
from tidemill.store import FolderBlobs, MemoryBlobs, Records

SALES = """shop,sold,amount,kind
1,2024-03-10T10:00:00Z,20,new
1,2024-03-10T10:30:00Z,35,
2,2024-03-10T09:00:00Z,7,old
"""
NOW = instant("2024-03-10T12:00:00Z")
CHECKS = [tm.in_range("amount", 0, 1_000), tm.not_null("shop")]


class Shops:
    """Sales over one file, a view of the newest and one of windows over them."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        if not (folder / "sales.csv").exists():  # another process may read it
            (folder / "sales.csv").write_text(SALES)
        self.ledger, self.where = ledger, Where(str(folder / "shops.py"), 3)
        query = "SELECT CAST(shop AS INT) AS shop, CAST(sold AS TIMESTAMPTZ) AS sold, CAST(amount AS DOUBLE) AS amount, kind FROM s"
        source = {"s": tm.Source("sales.csv", where=self.where)}
        self.sales = tm.Dataset("sales", source, event_time="sold", query=query, checks=CHECKS, where=self.where)
        shop = tm.Entity("shop", key="shop")
        self.newest = tm.FeatureView("newest", self.sales, shop, {"amount": tm.last("amount"), "kind": tm.category("kind")}, ttl="1d")
        kinds = {"n": tm.count(), "mean": tm.mean("amount * 2"), "kinds": tm.count_distinct("kind"), "sd": tm.std("amount")}
        self.recent = tm.FeatureView("recent", self.sales, shop, kinds, windows=["1h", "1d", "lifetime"], filter="amount > 1")
        self.views = [self.newest, self.recent]

    def reader(self, online: OnlineStore | None = None) -> Reader:
        """Over what there is now."""
        versions = {view.name: build(self.ledger, view, ingest(self.ledger, self.sales).output).output for view in self.views}
        logs = {view.name: load(self.ledger, view, versions[view.name]) for view in self.views}
        feeds = {view.name: Feed.of(self.ledger, view, versions[view.name]) for view in self.views}
        return Reader(self.views, logs, {name: one.ref.digest for name, one in versions.items()}, online, feeds)

    def pusher(self, online: OnlineStore) -> Pusher:
        types = self.ledger.artifact(Ref("dataset", "sales")).meta["types"]
        return Pusher(self.ledger, self.sales, types, online)


def sale(shop: int | None, sold: str | int, amount: float | None, kind: str | None = None) -> dict[str, Any]:
    return {"shop": shop, "sold": show(sold) if isinstance(sold, int) else sold, "amount": amount, "kind": kind}


def asked(at: int, shops: str = "1239") -> Requests:
    when = np.full(len(shops), at)
    keys = np.array([shop.encode() for shop in shops])
    return Requests(keys, when, when, when, {"shop": Coded.of(shops)}, [], np.empty((len(shops), 0)), {})


def shown(reader: Reader, at: int, shops: str = "1239") -> list[dict[str, Any]]:
    """What is read, with words for categories, and from where."""
    requests = asked(at, shops)
    matrix = reader.read(requests, requests.at)
    rows: list[dict[str, Any]] = [{} for _ in requests.at]
    for name, column in zip(matrix.names, matrix.values.T.tolist(), strict=True):
        words = matrix.vocabularies.get(name)
        for row, value in zip(rows, column, strict=True):
            row[name] = None if value != value else words[int(value)] if words else value
    for row, status, online in zip(rows, matrix.status.tolist(), matrix.online.tolist(), strict=True):
        row |= {"status": status, "online": online}
    return rows


@contextmanager
def opened(place: Path | str, folder: Path) -> Iterator[Shops]:
    records = Records(place)
    yield Shops(folder, Ledger(records, FolderBlobs(folder / "blobs"), lambda: 0))
    records.close()


@pytest.fixture
def shops(tmp_path: Path) -> Iterator[Shops]:
    with opened(tmp_path / "records.db", tmp_path) as shops:
        yield shops


@pytest.fixture
def anywhere(place: Path | str, tmp_path: Path) -> Iterator[Shops]:
    """The same, with records in a file and in a database."""
    with opened(place, tmp_path) as shops:
        yield shops


def same_offline(shops: Shops, online: list[dict[str, Any]], at: int, asked_for: str = "1239") -> None:
    """What was read online is what the next version gives."""
    offline = [{**row, "online": True} for row in shown(shops.reader(), at, asked_for)]
    assert offline == online


def test_a_pushed_row_is_online_at_once_and_in_the_next_version(anywhere: Shops, online: OnlineStore) -> None:
    reader = anywhere.reader(online)
    reader.materialise(NOW)
    before = shown(reader, NOW)
    rows = [sale(1, NOW - HOUR // 2, 9.0, "never seen"), sale(3, NOW - MINUTE, 4.0, "new"), sale(2, "2024-03-10T08:00:00Z", 50.0)]
    push = anywhere.pusher(online).push(rows, NOW + SECOND)
    assert push is not None
    assert (push.first, push.last, push.known) == (1, 3, NOW + SECOND)
    after = shown(reader, NOW + SECOND)
    assert all(row["online"] for row in after)
    assert (after[0]["newest__amount"], after[0]["newest__kind"], after[0]["recent__n_lifetime"]) == (9.0, "never seen", 3)
    assert (after[1]["newest__amount"], after[1]["recent__n_lifetime"]) == (7.0, 2), "an older sale does not hide a newer one"
    assert (after[2]["newest__kind"], after[3]["status"]) == ("new", [2, 2])
    assert shown(reader, NOW) == before, "a moment before, it was not known"
    same_offline(anywhere, after, NOW + SECOND)


def test_a_version_that_holds_what_was_pushed_is_no_news_to_a_store_that_holds_it_too(anywhere: Shops, online: OnlineStore) -> None:
    anywhere.reader(online).materialise(NOW)
    for number in range(3):
        anywhere.pusher(online).push(
            [sale(1, NOW, 9.0 + number), sale(2, NOW, None), sale(2, NOW, 0.5)][: 1 + 2 * (number == 1)], NOW + number
        )
    at = NOW + SECOND
    after = shown(anywhere.reader(online), at)
    assert all(row["online"] for row in after)
    same_offline(anywhere, after, at)


def test_a_row_of_a_file_is_news_also_where_it_is_known_since_a_push(shops: Shops, tmp_path: Path) -> None:
    store, at = MemoryOnline(), NOW + SECOND
    shops.reader(store).materialise(NOW)
    shops.pusher(store).push([sale(1, NOW, 9.0)], at)
    (tmp_path / "sales.csv").write_text(f"{SALES}2,{show(at)},8,old\n")
    reader = shops.reader(store)
    assert [row["online"] for row in shown(reader, at - 1)] == [True] * 4
    after = shown(reader, at)
    assert [(row["newest__amount"], row["online"]) for row in after[:2]] == [(9.0, False), (8.0, False)]
    reader.materialise(at)
    assert shown(reader, at) == [{**row, "online": True} for row in after]


def test_also_where_the_row_that_was_pushed_then_counts_for_nothing(shops: Shops, tmp_path: Path) -> None:
    store, at = MemoryOnline(), NOW + SECOND
    shops.reader(store).materialise(NOW)
    shops.pusher(store).push([sale(1, NOW, 0.5)], at)  # the view's filter leaves it out
    (tmp_path / "sales.csv").write_text(f"{SALES}2,{show(at)},8,old\n")
    shops.views = [shops.recent]
    assert [(row["recent__n_1d"], row["online"]) for row in shown(shops.reader(store), at, "2")] == [(2, False)]
    assert [row["online"] for row in shown(shops.reader(store), at - 1, "2")] == [True]


def test_what_was_pushed_while_the_store_was_away_is_news_to_it_where_its_version_is_open(shops: Shops) -> None:
    away = Away()
    shops.reader(away).materialise(NOW)
    shops.pusher(away).push([sale(1, NOW, 9.0)], NOW + 1)
    away.is_away = True
    shops.pusher(away).push([sale(1, NOW, 10.0)], NOW + 2)
    away.is_away = False
    reader = shops.reader(away)
    assert [(row["newest__amount"], row["online"]) for at in (NOW + 1, NOW + 2) for row in shown(reader, at, "1")] == [
        (9.0, True),
        (10.0, False),
    ]
    reader.catch_up()
    assert [(row["newest__amount"], row["online"]) for row in shown(reader, NOW + 2, "1")] == [(10.0, True)]


def test_categories_keep_their_numbers_when_the_space_is_made_anew_between_pushes(shops: Shops) -> None:
    """One pusher, whose categories have other numbers then, and a second one that adds some of its own."""
    online, reader = MemoryOnline(), shops.reader()
    one, two = shops.pusher(online), shops.pusher(online)
    for number, kinds in enumerate((["x", "old", "y"], ["z", "x", "new"], ["y", "w", "z"], ["v", "w", "old"])):
        reader = shops.reader(online)
        if number == 2:
            online.drop(space_of(shops.newest))
        reader.materialise(NOW + number * MINUTE)
        for pusher, shop, kind in zip((one, two, one), (1, 2, 3), kinds, strict=True):
            pusher.push([sale(shop, NOW + number * MINUTE, 9.0, kind)], NOW + number * MINUTE + SECOND)
        after = shown(reader, NOW + number * MINUTE + SECOND)
        assert [row["newest__kind"] for row in after[:3]] == kinds
    same_offline(shops, after, NOW + 3 * MINUTE + SECOND)


def test_a_push_of_many_categories_does_not_look_through_all_of_them_for_each(shops: Shops) -> None:
    online = MemoryOnline()
    reader = shops.reader(online)
    reader.materialise(NOW)
    many = [sale(i, NOW - MINUTE, 9.0, f"kind {i}") for i in range(10_000)]
    shops.pusher(online).push(many, NOW + SECOND)
    assert words_of(online, space_of(shops.newest), "kind") == ["new", "old", *(f"kind {i}" for i in range(10_000))]
    assert shown(reader, NOW + SECOND, "79")[0]["newest__kind"] == "kind 7"


def test_what_a_source_gave_before_is_skipped(anywhere: Shops) -> None:
    store = MemoryOnline()
    anywhere.reader(store).materialise(NOW)
    pusher, rows = anywhere.pusher(store), [sale(1, NOW, float(i)) for i in range(5)]
    assert pushed_offset(anywhere.ledger, "sales", "clicks/0") is None
    assert len(pusher.push(rows[:3], NOW, source="clicks/0", offsets=[7, 8, 11]).rows) == 3  # type: ignore[union-attr]
    assert pushed_offset(anywhere.ledger, "sales", "clicks/0") == 11
    again = pusher.push(rows, NOW, source="clicks/0", offsets=[7, 8, 11, 12, 13])
    assert again is not None
    assert [row["amount"] for row in again.rows] == [3.0, 4.0]
    assert pusher.push(rows, NOW, source="clicks/0", offsets=[7, 8, 11, 12, 13]) is None
    assert len(pusher.push(rows[:1], NOW, source="clicks/1", offsets=[7]).rows) == 1, "another source counts for itself"  # type: ignore[union-attr]
    assert pushed(anywhere.ledger, "sales").last == 6
    with pytest.raises(DataError, match="the offsets of a push do not fit"):
        pusher.push(rows[:2], NOW, source="clicks/0", offsets=[20, 20])
    with pytest.raises(DataError, match="the offsets of a push do not fit"):
        pusher.push(rows[:2], NOW, offsets=[20, 21])


def test_who_could_not_write_to_the_store_is_caught_up_with(shops: Shops, caplog: pytest.LogCaptureFixture) -> None:
    store, away = MemoryOnline(), Away()
    readers = [shops.reader(store), shops.reader(away)]
    for reader in readers:
        reader.materialise(NOW)
    pusher = shops.pusher(away)
    pusher.push([], NOW)
    away.is_away = True
    assert pusher.push([sale(1, NOW, 9.0)], NOW + 1) is not None
    assert "online_store=away" in caplog.text
    away.is_away = False
    assert pusher.push([sale(1, NOW + 1, 10.0)], NOW + 2) is not None
    for reader in readers:
        reader.catch_up()
        assert shown(reader, NOW + 3)[0]["recent__n_1h"] == 2
    marks = [Mark.of(data) for data in (*store.spaces().values(), *away.spaces().values())]
    assert {mark.pushed for mark in marks if mark} == {2}


class Away(MemoryOnline):
    """A store that can be away."""

    is_away = False

    def spaces(self) -> dict[str, bytes]:
        if self.is_away:
            raise StoreError("the online store cannot be used: Connection refused")
        return super().spaces()

    def read(self, asked: Sequence[Asked]) -> list[Stored]:
        if self.is_away:
            raise StoreError("the online store cannot be used: Connection refused")
        return super().read(asked)


class Meanwhile(MemoryOnline):
    """A store to which is written while a request is under way: whenever it was asked for something."""

    happens: Callable[[], object] | None = None

    def read(self, asked: Sequence[Asked]) -> list[Stored]:
        found, (happens, self.happens) = super().read(asked), (self.happens, None)
        if happens:
            happens()
        return found


@pytest.mark.parametrize("kinds", [["fresh"], ["fresh", "fresher"]])
def test_a_push_that_is_committed_while_a_request_is_under_way_is_read_whole_or_not_at_all(shops: Shops, kinds: list[str]) -> None:
    store = Meanwhile()
    reader = shops.reader(store)
    reader.materialise(NOW)
    pusher, before = shops.pusher(store), shown(reader, NOW + 2)
    store.happens = lambda: pusher.push([sale(1, NOW, 9.0, kind) for kind in kinds], NOW + 1)
    assert shown(reader, NOW + 2) == before
    assert store.happens is None
    after = shown(reader, NOW + 2)
    assert [row["online"] for row in after] == [True] * 4
    same_offline(shops, after, NOW + 2)


def test_a_question_from_a_moment_before_is_answered_from_the_store_however_much_came_meanwhile(shops: Shops) -> None:
    """Only the store has what was pushed, also when what came since is folded into its states."""
    store, step, answers = MemoryOnline(), SECOND // 5, list[list[dict[str, Any]]]()
    reader = shops.reader(store)
    reader.materialise(NOW)
    pusher = shops.pusher(store)
    for i in range(1, 60):
        pusher.push([sale(1, NOW + i, 100.0 + i)], NOW + i * step)
        answers.append(shown(reader, NOW + i * step))
        assert (answers[-1][0]["newest__amount"], answers[-1][0]["recent__n_1h"], answers[-1][0]["online"]) == (100.0 + i, i, True)
        for before in range(max(i - 8, 0), i):
            assert shown(reader, NOW + (before + 1) * step) == answers[before]


def test_a_row_that_waits_for_news_takes_no_other_row_of_its_batch_offline(shops: Shops) -> None:
    store = MemoryOnline()
    reader = shops.reader(store)
    reader.materialise(NOW)
    requests = asked(NOW)
    requests.at[1] = NOW - MINUTE
    assert reader.read(requests, requests.at).online.tolist() == [True, False, True, True]


events = st.builds(
    lambda shop, at, amount, kind: (shop, NOW + at, amount, kind),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([0, MINUTE, -HOUR, -DAY, -2 * DAY, HOUR, -40 * DAY]),
    st.sampled_from([0.5, 3.0, 0.1, 7.25, 999.0]),
    st.sampled_from([None, "new", "old", "other"]),
)
steps = st.lists(
    st.tuples(st.sampled_from(["push", "materialise", "materialise older", "version"]), st.lists(events, min_size=1, max_size=3)),
    max_size=8,
)


@settings(max_examples=2 * EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_after_any_steps_online_is_what_the_next_version_gives(tmp_path: Path, steps: list[tuple[str, list[Any]]]) -> None:
    """Pushes between versions and materialisations of any of them: nothing is lost, nothing counts twice."""
    shops, store, now = Shops(tmp_path, Ledger(Records(None), MemoryBlobs(), lambda: 0)), MemoryOnline(), NOW
    reader = shops.reader(store)
    reader.materialise(now)
    pusher = shops.pusher(store)
    for step, rows in steps:
        now += MINUTE
        if step == "push":
            pusher.push([sale(shop, at, amount, kind) for shop, at, amount, kind in rows], now)
        elif step == "version":
            reader = shops.reader(store)
        else:
            reader.materialise(now if step == "materialise" else now - 3 * MINUTE)
    final = shops.reader(store)
    now += 2 * HOUR
    assert all(row["online"] for row in shown(final, now))
    keys, at = asked(now).texts["shop"], asked(now).at
    texts, which = entities_of(keys)
    for one in final.looked.values():
        [(mark, states)] = store.read([(one.space, texts)])
        block, offline = one.block(one.seen(store, mark), states, which, keys, at, np.full(len(at), True)), one.log.read(keys, at)
        assert block.status.tolist() == offline.status.tolist()
        assert _texts(block) == _texts(offline)


def _texts(block: Any) -> list[list[Any]]:
    words = [block.vocabularies.get(name) for name in block.names]
    return [[None if v != v else one[int(v)] if one else v for v, one in zip(row, words, strict=True)] for row in block.values.tolist()]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"shop": 1, "sold": "2024-03-10T10:00:00Z", "amount": 3.0}, "row 1: it lacks 'kind'"),
        (sale(1, "2024-03-10T10:00:00", 3.0), "row 1: sold = 2024-03-10T10:00:00 is not a time with its zone"),
        (sale(1, "2024-03-10T10:00:00Z", "much"), "row 1: .*amount = 'much'"),  # type: ignore[arg-type]
        (sale(1, "2024-03-10T10:00:00Z", 1e6), "row 1: .*in_range.* fails: amount = 1000000.0"),
        (sale(None, "2024-03-10T10:00:00Z", 3.0), "row 1: not_null.* fails: shop = None"),
        ({**sale(1, "2024-03-10T10:00:00Z", 3.0), "colour": "red"}, "row 1: there is no column 'colour'"),
        ({**sale(1, "x", 3.0), "sold": None}, "row 1: sold is null"),
        ("a text", "row 1: 'a text' is no row"),
        (sale(1, "2024-03-10T10:00:00Z", 3.0, b"new"), "row 1: kind = b'new' is a bytes"),  # type: ignore[arg-type]
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_all_that_came_with_it(shops: Shops, row: Any, what: str) -> None:
    store = MemoryOnline()
    shops.reader(store).materialise(NOW)
    with pytest.raises(DataError, match=what):
        shops.pusher(store).push([sale(1, NOW, 9.0), row], NOW)
    assert pushed(shops.ledger, "sales").last == 0
    assert list(pushes(shops.ledger, "sales", 0, 10)) == []


def test_a_float_that_stands_for_several_keys_is_not_pushed(shops: Shops) -> None:
    query = shops.sales.query.replace("CAST(shop AS INT)", "CAST(shop AS DOUBLE)")
    shops.sales = tm.Dataset("sales", shops.sales.sources, event_time="sold", query=query, where=shops.where)
    shops.views = [tm.FeatureView("v", shops.sales, tm.Entity("shop", key="shop"), {"amount": tm.last("amount")})]
    store = MemoryOnline()
    shops.reader(store).materialise(NOW)
    with pytest.raises(DataError, match=r"row 1: the key 'shop' = 9007199254740992.0 is DOUBLE, in which several whole numbers are one"):
        shops.pusher(store).push([sale(1, NOW, 9.0), sale(2**53, NOW, 9.0)], NOW)
    shops.pusher(store).push([sale(1, NOW, 9.0, Kind.NEW)], NOW)
    assert next(pushes(shops.ledger, "sales", 0, 10)).rows[0]["kind"] == "new"


class Kind(StrEnum):
    """A text by its name."""

    NEW = "new"


def test_where_the_log_of_pushes_cannot_be_read_once_the_store_answers_again_after_that(
    shops: Shops, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryOnline()
    shops.reader(store).materialise(NOW)
    shops.pusher(store).push([sale(1, NOW, 9.0)], NOW + 1)
    reader = shops.reader(store)

    def away(*_: object) -> set[int]:
        raise StoreError("the records cannot be read")

    with monkeypatch.context() as patched:
        patched.setattr(Feed, "times", away)
        assert not any(row["online"] for row in shown(reader, NOW + 1))
    assert all(row["online"] for row in shown(reader, NOW + 1))


def test_a_dataset_with_a_key_takes_no_pushed_rows(shops: Shops) -> None:
    keyed = tm.Dataset("sales", shops.sales.sources, event_time="sold", query=shops.sales.query, key="shop", where=shops.where)
    with pytest.raises(DataError, match="it has one row for each key"):
        Pusher(shops.ledger, keyed, {"shop": "INTEGER", "sold": "TIMESTAMP WITH TIME ZONE"}, MemoryOnline())


def test_a_view_that_cannot_be_computed_row_by_row_has_pushed_rows_with_its_next_version(
    shops: Shops, caplog: pytest.LogCaptureFixture
) -> None:
    odd = tm.FeatureView("odd", shops.sales, tm.Entity("shop", key="shop"), {"x": tm.last("list_sum([amount, 1])")})
    shops.views = [shops.newest, odd]
    store = MemoryOnline()
    shops.reader(store).materialise(NOW)
    shops.pusher(store).push([sale(1, NOW, 9.0)], NOW + 1)
    assert "view=odd pushed_rows=with the next version" in caplog.text
    mark = Mark.of(mark_of(store, space_of(shops.newest)))
    assert mark is not None
    assert mark.pushed == 1
    reader = shops.reader(store)
    reader.materialise(NOW + 1)
    assert shown(reader, NOW + 1)[0]["odd__x"] == 10


def test_versions_without_pushes_are_as_they_were(shops: Shops) -> None:
    first = ingest(shops.ledger, shops.sales)
    shops.reader(MemoryOnline())
    assert ingest(shops.ledger, shops.sales).cached
    shops.pusher(MemoryOnline()).push([sale(1, NOW, 9.0)], NOW)
    second = ingest(shops.ledger, shops.sales)
    assert (second.cached, second.output.meta["rows"], second.output.meta["pushed"]) == (False, first.output.meta["rows"] + 1, 1)
    assert "pushed" in second.why


# ── odd values ──────────────────────────────────────────────────────────────────────────────────────────────────────

LARGE = {
    "squares beyond all numbers": [1e200, -1.5e200, 1.0],
    "squares at the end of all numbers": [1.2e154, 1.3e154, -1.3e154],
    "sums beyond all numbers": [1e308] * 3,
    "sums beyond all numbers on the way alone": [1e308, 1e308, -1e308],
    "numbers of all sizes": [1e-320, -5e-324, 1e-200, 3.0, 1e15, -0.0],
    "many": [1e308 * (1 if i % 3 else -1) for i in range(70)],
}


@pytest.mark.parametrize("each", [False, True], ids=["at once", "one by one"])
@pytest.mark.parametrize("amounts", LARGE.values(), ids=LARGE)
def test_numbers_of_any_size_give_the_same_bits_pushed_materialised_and_offline(tmp_path: Path, amounts: list[float], each: bool) -> None:
    shops = Shops(tmp_path, Ledger(Records(None), MemoryBlobs(), lambda: 0))
    number = {"n": tm.count(), "sum": tm.sum("amount"), "mean": tm.mean("amount"), "sd": tm.std("amount"), "last": tm.last("amount", n=2)}
    shops.sales = tm.Dataset("sales", shops.sales.sources, event_time="sold", query=shops.sales.query, where=shops.where)
    shops.views = [tm.FeatureView("numbers", shops.sales, tm.Entity("shop", key="shop"), number, windows=["1h", "lifetime"])]
    store = MemoryOnline()
    reader = shops.reader(store)
    reader.materialise(NOW)
    rows = [sale(1, NOW - MINUTE, amount) for amount in amounts]
    for i, part in enumerate([[row] for row in rows] if each else [rows]):
        shops.pusher(store).push(part, NOW + i)
    at = NOW + SECOND
    pushed_ = shown(reader, at)
    assert all(row["online"] for row in pushed_)
    same_offline(shops, pushed_, at)
    anew = shops.reader(MemoryOnline())
    anew.materialise(at)
    assert shown(anew, at) == pushed_


def test_a_spread_beyond_all_numbers_is_null_and_other_windows_have_theirs(shops: Shops) -> None:
    """Of 1e200 the square is beyond all numbers: it once was waited for in vain."""
    rows = [(1, NOW - DAY, 1e200), (1, NOW - DAY, 2e200), (1, NOW, 1.0), (1, NOW, 3.0), (2, NOW, 1e153), (2, NOW, 3e153)]
    shops.sales = tm.Dataset("sales", shops.sales.sources, event_time="sold", query=shops.sales.query, where=shops.where)
    shops.views = [tm.FeatureView("v", shops.sales, tm.Entity("shop", key="shop"), {"sd": tm.std("amount")}, windows=["10min", "13d"])]
    store = MemoryOnline()
    shops.reader(store).materialise(NOW)
    shops.pusher(store).push([sale(*row) for row in rows], NOW)
    for reader in (shops.reader(), shops.reader(store)):
        found = shown(reader, NOW)
        assert (found[0]["v__sd_10min"], found[0]["v__sd_13d"], found[1]["v__sd_13d"]) == (2**0.5, None, None)


def test_an_infinite_number_is_refused_and_not_made_null(shops: Shops) -> None:
    store = MemoryOnline()
    shops.reader(store).materialise(NOW)
    with pytest.raises(DataError, match=r"row 1: amount = -inf"):
        shops.pusher(store).push([sale(1, NOW, 9.0), sale(1, NOW, -float("inf"))], NOW)
    shops.pusher(store).push([sale(1, NOW, float("nan"))], NOW)
    push = next(pushes(shops.ledger, "sales", 0, 10))
    assert push.rows[0]["amount"] is None, "NaN is null, as in a frame"


# ── several at work ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Beside(MemoryOnline):
    """A store in which something else happens just before one of the writes."""

    countdown = 0
    happens: Callable[[], object] = staticmethod(lambda: None)

    def update(self, space: str, entities: Sequence[str], change: Any) -> None:
        self.countdown -= 1
        if self.countdown == 0:
            self.happens()
        super().update(space, entities, change)


@pytest.mark.parametrize("write", range(1, 9))
@pytest.mark.parametrize("other", ["push", "another materialises and pushes", "another version"])
def test_who_writes_beside_a_materialisation_neither_loses_nor_counts_twice(
    tmp_path: Path, write: int, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialising, "PART", 1)
    shops, store = Shops(tmp_path, Ledger(Records(None), MemoryBlobs(), lambda: 0)), Beside()
    first = shops.reader(store)
    first.materialise(NOW)
    pusher = shops.pusher(store)
    pusher.push([sale(1, NOW, 9.0), sale(3, NOW, 9.0)], NOW + 1)
    second = shops.reader(store)
    pusher.push([sale(1, NOW, 10.0), sale(2, NOW, 10.0)], NOW + 2)
    third = shops.reader(store)

    def happens() -> None:
        if other != "push":
            (second if other == "another version" else third).materialise(NOW + MINUTE)
        pusher.push([sale(1, NOW, 11.0), sale(4, NOW, 11.0, "odd")], NOW + 2 * MINUTE)

    store.countdown, store.happens = write, happens
    third.materialise(NOW + MINUTE)
    if store.countdown > 0:
        happens()
    third.catch_up()
    online = shown(third, NOW + 3 * MINUTE, "1234")
    assert all(row["online"] for row in online)
    same_offline(shops, online, NOW + 3 * MINUTE, "1234")


def test_pushes_that_wait_are_read_a_few_at_a_time(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads many pushes never has more rows in hand than some, however many are asked for; each once."""
    monkeypatch.setattr(sys.modules["tidemill.data.pushes"], "AT_ONCE", 4)
    store = MemoryOnline()
    shops.reader(store).materialise(NOW)
    pusher = shops.pusher(store)
    for size in (1, 3, 5, 1, 1, 9, 2):
        pusher.push([sale(1, NOW, float(size)) for _ in range(size)], NOW + size)
    for after in range(23):
        for upto in range(after, 24):
            found = list(pushes(shops.ledger, "sales", after, upto))
            numbers = [push.first + i for push in found for i in range(len(push.rows))]
            assert numbers == list(range(after + 1, min(upto, 22) + 1))


def test_a_view_over_an_earlier_query_gets_pushed_rows_by_the_names_of_columns(shops: Shops) -> None:
    """What still serves was made of other columns, in another order, than the newest version of the dataset has."""
    store = MemoryOnline()
    before = shops.reader(store)
    before.materialise(NOW)
    query = "SELECT kind, CAST(amount AS DOUBLE) AS amount, CAST(shop AS INT) AS shop, CAST(sold AS TIMESTAMPTZ) AS sold, 1 AS more FROM s"
    shops.sales = tm.Dataset("sales", shops.sales.sources, event_time="sold", query=query, where=shops.where)
    ingest(shops.ledger, shops.sales)
    shops.pusher(store).push([{**sale(1, NOW, 9.0, "odd"), "more": 2}], NOW + 1)
    found = shown(before, NOW + 1)[0]
    assert (found["newest__amount"], found["newest__kind"], found["recent__n_1d"], found["online"]) == (9.0, "odd", 3, True)


VALUES: list[Any] = [7, 7.0, "7", "7.0", "1e3", 1e17, 0.1, "0.1", -0.0, 2**53 + 1, 2**64, "9007199254740993", True, "true", "t", "x", ""]
VALUES += ["7 ", "1_000", "+7", "5.", "é", "2024-01-01", "2024-01-01T10:00:00+02:00", np.int64(5), np.float32(0.1), "1.005"]
VALUES += ["6CCD780C-BABA-1026-9564-5B8C656024DB"]
KINDS = dict.fromkeys(("BIGINT", "HUGEINT", "DOUBLE", "FLOAT", "DECIMAL(9,2)", "VARCHAR"), "1")
KINDS |= {"BOOLEAN": "true", "DATE": "2024-01-01", "TIMESTAMPTZ": "2024-01-01", "UUID": "6ccd780c-baba-1026-9564-5b8c656024db"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_push_takes_the_next_version_has_as_the_same_value(kind: str, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(f"k|sold|x\n0|2024-03-10T10:00:00Z|{KINDS[kind]}\n")
    where = Where(str(tmp_path / "a.py"), 3)
    query = f"SELECT k, CAST(sold AS TIMESTAMPTZ) AS sold, CAST(CAST(x AS VARCHAR) AS {kind}) AS x FROM s"
    source = {"s": tm.Source("s.csv", where=where)}
    events = tm.Dataset("events", source, event_time="sold", query=query, timezone="UTC", where=where)
    view = tm.FeatureView("v", events, tm.Entity("k", key="k"), {"x": tm.category("CAST(x AS VARCHAR)")}, where=where)
    ledger = Ledger(Records(None), MemoryBlobs(), lambda: 0)
    version = ingest(ledger, events).output
    built, store = build(ledger, view, version).output, MemoryOnline()
    feed = Feed.of(ledger, view, built)
    reader = Reader([view], {"v": load(ledger, view, built)}, {"v": built.ref.digest}, store, {"v": feed})
    reader.materialise(NOW)
    pusher, taken = Pusher(ledger, events, version.meta["types"], store), []
    for place, value in enumerate(VALUES, 1):
        with suppress(DataError):
            pusher.push([{"k": place, "sold": "2024-03-10T11:00:00Z", "x": value}], NOW)
            taken.append(str(place))
    assert taken
    after = Reader([view], {"v": load(ledger, view, build(ledger, view, ingest(ledger, events).output).output)}, {"v": ""})
    if feed.computable:
        asks = replace(asked(NOW, "1" * len(taken)), texts={"k": Coded.of(taken)})
        online, offline = (one.read(asks, asks.at) for one in (reader, after))
        words = [[m.vocabularies["v__x"][int(code)] for code in m.values[:, 0]] for m in (online, offline)]
        assert dict(zip(taken, words[0], strict=True)) == dict(zip(taken, words[1], strict=True))
        assert online.online.all()


@pytest.mark.parametrize("kind", ["BIGINT", "DECIMAL(10,2)", "DOUBLE", "FLOAT"])
@pytest.mark.parametrize("check", [tm.in_range("amount", 0.5, 10), tm.in_range("amount", 5, 5.1), tm.in_range("amount", low=4)])
def test_a_check_says_of_a_pushed_row_what_it_says_of_a_file(kind: str, check: Any, tmp_path: Path) -> None:
    query = f"SELECT CAST(shop AS INT) AS shop, CAST(sold AS TIMESTAMPTZ) AS sold, CAST(amount AS {kind}) AS amount FROM s"

    def rows_of(amount: Any) -> tm.Dataset:
        (tmp_path / "s.csv").write_text(f"shop,sold,amount\n1,2024-03-10T10:00:00Z,{amount}\n")
        where = Where(str(tmp_path / "a.py"), 3)
        return tm.Dataset("d", {"s": tm.Source("s.csv", where=where)}, event_time="sold", query=query, checks=[check], where=where)

    def refused(act: Callable[[], object]) -> bool:
        try:
            act()
        except DataError:
            return True
        return False

    ledger = Ledger(Records(None), MemoryBlobs(), lambda: 0)
    types = ingest(ledger, rows_of(5)).output.meta["types"]
    pusher, said = Pusher(ledger, rows_of(5), types, MemoryOnline()), {}
    for amount in (0, 4, 5, "0.05", "1.50", "4.00", "5.10", 5.1, 11):
        if kind != "BIGINT" or float(amount).is_integer():
            other = Ledger(Records(None), MemoryBlobs(), lambda: 0)
            in_file = refused(partial(ingest, other, rows_of(amount)))
            row = {"shop": 1, "sold": "2024-03-10T10:00:00Z", "amount": amount}
            said[amount] = (refused(partial(pusher.push, [row], NOW)), in_file)
    assert {amount: one for amount, one in said.items() if one[0] != one[1]} == {}
    assert {pushed for pushed, _ in said.values()} == {True, False}


def test_a_clock_that_was_ahead_stops_others_before_they_are_known_too_late(shops: Shops) -> None:
    store = MemoryOnline()
    shops.reader(store)
    pusher = shops.pusher(store)
    pusher.push([sale(1, NOW, 1.0)], NOW + MINUTE)
    found = pusher.push([sale(1, NOW, 2.0)], NOW)
    assert found is not None
    assert found.known == NOW + MINUTE, "clocks may differ a little, and the log keeps its order"
    pusher.push([sale(1, NOW, 3.0)], NOW + DAY)
    with pytest.raises(StoreError, match="is known since 2024-03-11T12:00:00Z, and here it is 2024-03-10T12:00:00Z"):
        pusher.push([sale(1, NOW, 4.0)], NOW)
    assert pushed(shops.ledger, "sales").last == 3


def test_where_the_store_cannot_answer_the_log_knows_what_was_pushed(shops: Shops, online: OnlineStore) -> None:
    reader = shops.reader(online)
    reader.materialise(NOW)
    pusher = shops.pusher(online)
    pusher.push([sale(1, NOW - HOUR // 2, 9.0, "never seen"), sale(3, NOW, 4.0, "new"), sale(2, "2024-03-10T08:00:00Z", 50.0)], NOW + 1)
    pusher.push([sale(1, NOW - 2 * HOUR, 11.0, "other"), sale(9, NOW + HOUR, 3.0)], NOW + 2)
    away = replace(reader, online=None)
    for at in (NOW, NOW + 1, NOW + 2, NOW + 2 * HOUR):
        there = shown(reader, at)
        assert shown(away, at) == [{**row, "online": False} for row in there]
        same_offline(shops, [{**row, "online": True} for row in there], at)
    with shops.ledger.records.begin() as connection:
        erase_pushed(connection, "sales", [1, 4])
    assert shown(away, NOW + 2 * HOUR)[0]["newest__amount"] == 35.0, "rows that were erased since are gone"


@given(pushes_=st.lists(st.lists(events, min_size=1, max_size=3), min_size=1, max_size=4), at=st.integers(-DAY, DAY))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_log_with_what_is_behind_it_is_the_next_version(tmp_path: Path, pushes_: list[list[Any]], at: int) -> None:
    shops = Shops(tmp_path, Ledger(Records(None), MemoryBlobs(), lambda: 0))
    reader = shops.reader()
    pusher = shops.pusher(MemoryOnline())
    for place, rows in enumerate(pushes_):
        pusher.push([sale(shop, when, amount, kind) for shop, when, amount, kind in rows], NOW + place)
        behind = shown(reader, NOW + at)
    assert behind == shown(shops.reader(), NOW + at)
