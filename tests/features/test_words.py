"""The words of categories, in chunks beside the states: what is read is what was written, by whoever knows some of them already."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.held import words_of
from features.oracle import EXAMPLES
from features.test_pushing import NOW, Shops, opened, sale, same_offline, shown
from processes import other
from redis_server import ADDRESS, new_prefix
from tidemill.core import MINUTE, SECOND, Damaged
from tidemill.data import pushed
from tidemill.features import MemoryOnline, OnlineStore, open_online, space_of, words
from tidemill.features.online import Asked, Change, Count, Mark, Name, Stored, mark_of
from tidemill.features.words import Numbering, SpaceWords, chunks_of, counts_of
from tidemill.ledger import Ledger
from tidemill.store import MemoryBlobs, Records

SPACE = "a" * 40


def append(store: OnlineStore, known: SpaceWords, more: Mapping[str, Sequence[str]]) -> dict[str, Count]:
    """Append words to a space, as who pushes does."""
    data = mark_of(store, SPACE)
    before = known.read(store, data, (Mark.of(data) or Mark(msgspec.Raw(b"{}"), words=dict.fromkeys(more, Count()))).words)
    now = {feature: Numbering(one) for feature, one in before.items()}
    for feature, several in more.items():
        for word in several:
            now[feature](word)
    counts = counts_of(now)
    store.update(SPACE, [], lambda *_: (Mark(msgspec.Raw(b"{}"), words=counts).bytes(), chunks_of(now)))
    known.keep(now)
    return counts


def spelled(store: OnlineStore, known: SpaceWords, counts: Mapping[str, Count], data: bytes | None = None) -> dict[str, list[str]]:
    """What a reader has by a mark."""
    found = known.read(store, data or mark_of(store, SPACE), counts)
    return {feature: one.words[: one.count.many] for feature, one in found.items()}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three words."""
    monkeypatch.setattr(words, "CHUNK", 3)


@pytest.fixture
def shops(tmp_path: Path) -> Iterator[Shops]:
    with opened(tmp_path / "records.db", tmp_path) as found:
        yield found


pieces = st.lists(st.tuples(*[st.lists(st.sampled_from([*"abcdefghijklm", "", "ü", '","', "x" * 999]), max_size=5)] * 2), max_size=6)


@settings(max_examples=10 * EXAMPLES, deadline=None)
@given(steps=pieces, anew=st.integers(0, 6), knows=st.integers(0, 6))
def test_whoever_knows_some_words_reads_the_others(steps: list[tuple[list[str], list[str]]], anew: int, knows: int) -> None:
    """Beside a plain list: who opens the store, who knew a part, who writes, and who has an earlier mark. The space is made anew once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "CHUNK", 3)
        store, writer, always, once = MemoryOnline(), SpaceWords(SPACE), SpaceWords(SPACE), SpaceWords(SPACE)
        expected: dict[str, list[str]] = {"one": [], "one/1": []}
        before = dict[str, tuple[dict[str, Count], dict[str, list[str]]]]()
        for step, more in enumerate(steps):
            if step == anew:
                store.drop(SPACE)
                expected, before = {"one": [], "one/1": []}, {}
            counts = append(store, writer, dict(zip(expected, more, strict=True)))
            expected = {feature: [*dict.fromkeys([*own, *new])] for (feature, own), new in zip(expected.items(), more, strict=True)}
            assert {feature: one.many for feature, one in counts.items()} == {feature: len(own) for feature, own in expected.items()}
            before[str(step)] = counts, expected
            for reader in (SpaceWords(SPACE), always, writer, *([once] if step == knows else [])):
                assert spelled(store, reader, counts) == expected
        for counts, then in before.values():  # of a mark that was read before the last write
            for reader in (SpaceWords(SPACE), always, once):
                assert spelled(store, reader, counts) == then


@pytest.mark.usefixtures("few")
def test_words_that_are_lost_or_others_are_noticed(online: OnlineStore) -> None:
    counts = append(online, SpaceWords(SPACE), {"kind": [*"abcdefgh"]})
    known, data = SpaceWords(SPACE), mark_of(online, SPACE)
    assert spelled(online, known, counts) == {"kind": [*"abcdefgh"]}
    [(_, chunks)] = online.read([(SPACE, [b"kind/0", b"kind/1", b"kind/2", b"kind/3"])])
    assert [chunk is None for chunk in chunks] == [False, False, False, True]
    for name, instead in ((b"kind/1", None), (b"kind/2", chunks[0]), (b"kind/0", b'["a","c","b"]'), (b"kind/2", b'["g"]')):
        whole = online.read([(SPACE, [name])])[0][1][0]
        online.update(SPACE, [], lambda mark, _, name=name, instead=instead: (mark, {name: instead}))  # type: ignore[misc]
        with pytest.raises(Damaged, match="words of kind are not what was written"):
            spelled(online, SpaceWords(SPACE), counts)
        assert spelled(online, known, counts) == {"kind": [*"abcdefgh"]}, "who knows them needs no chunk"
        with pytest.raises(LookupError):  # who has another mark asks again
            SpaceWords(SPACE).read(online, b"another", counts)
        online.update(SPACE, [], lambda mark, _, name=name, whole=whole: (mark, {name: whole}))  # type: ignore[misc]
    assert spelled(online, SpaceWords(SPACE), counts, data) == {"kind": [*"abcdefgh"]}


class Counting(MemoryOnline):
    """A store that counts the bytes that are read and written."""

    read_, written = 0, 0

    def read(self, asked: Sequence[Asked]) -> list[Stored]:
        found = super().read(asked)
        self.read_ += sum(len(data or b"") for mark, states in found for data in (mark, *states))
        return found

    def update(self, space: str, entities: Sequence[Name], change: Change) -> None:
        def counted(mark: bytes | None, states: list[bytes | None]) -> Any:
            found = change(mark, states)
            self.written += sum(len(data or b"") for data in (found[0], *found[1].values())) if found else 0
            return found

        super().update(space, entities, counted)


@pytest.mark.usefixtures("few")
def test_a_read_and_a_push_cost_the_same_however_many_words_there_are(tmp_path: Path) -> None:
    costs = []
    for many in (1, 1_500):
        (tmp_path / str(many)).mkdir()
        shops, store = Shops(tmp_path / str(many), Ledger(Records(None), MemoryBlobs(), lambda: 0)), Counting()
        reader = shops.reader(store)
        reader.materialise(NOW)
        pusher = shops.pusher(store)
        pusher.push([sale(i, NOW, 1.0, f"{i:04}") for i in range(many)], NOW + 1)
        assert shown(reader, NOW + 1, "0")[0]["newest__kind"] == "0000"
        store.read_ = store.written = 0
        pusher.push([sale(0, NOW, 2.0, "another")], NOW + 2)
        [after] = shown(reader, NOW + 2, "0")
        assert (after["newest__kind"], after["online"]) == ("another", True)
        costs.append((store.read_, store.written))
    (read, written), (read_of_many, written_of_many) = costs
    assert abs(read_of_many - read) < 100, "bytes: all words have more than 10,000"
    assert abs(written_of_many - written) < 100


def test_words_that_come_while_a_request_is_under_way_are_read_with_it(shops: Shops) -> None:
    """The states are read, then the words: who has none yet finds more than its mark tells of."""
    store = Meanwhile()
    shops.reader(store).materialise(NOW)
    pusher, fresh = shops.pusher(store), shops.reader(store)
    pusher.push([sale(1, NOW, 9.0, "first")], NOW + 1)
    store.happens = lambda: pusher.push([sale(1, NOW + 1, 9.0, "second")], NOW + 2)
    assert (shown(fresh, NOW + 2)[0]["newest__kind"], store.happens) == ("first", None)
    assert shown(fresh, NOW + 2)[0]["newest__kind"] == "second"


class Meanwhile(MemoryOnline):
    """A store in which something happens once states are read, and before words are."""

    happens: Callable[[], object] | None = None

    def read(self, asked: Sequence[Asked]) -> list[Stored]:
        found, (happens, self.happens) = super().read(asked), (self.happens, None)
        if happens:
            happens()
        return found


@pytest.mark.parametrize("many", [False, True], ids=["a row", "many rows"])
def test_a_space_that_is_made_anew_while_a_request_is_under_way_is_left_alone(shops: Shops, many: bool) -> None:
    """Its words have other numbers than the states that were read: the log answers, and the store the next."""
    store, at = Meanwhile(), NOW + SECOND
    shops.reader(store).materialise(NOW)
    pusher = shops.pusher(store)
    for i, kind in enumerate(("b", "a", "c")):
        pusher.push([sale(i, NOW, 9.0, kind)], NOW + 1 + i)
    reader = shops.reader(store)

    def anew() -> None:
        store.drop(one.space)
        reader.materialise(at)

    one, store.happens = reader.looked["newest"], anew
    [stored] = store.read([(one.space, ["1"])])
    if many:
        assert one.fresh(one.seen(store, stored[0]), stored[1], np.array([0]), np.array([at])).tolist() == [False]
    else:
        found = one.online(store, stored, ["1"], at)
        assert (found.values, found.why) == ([[9.0, "a"]], "the online store holds what became known later")
    after = shown(reader, at)
    assert (all(row["online"] for row in after), store.happens) == (True, None)
    same_offline(shops, after, at)


def test_many_rows_are_of_one_mark_while_another_request_sees_the_space_made_anew(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    store, at = MemoryOnline(), NOW + SECOND
    reader = shops.reader(store)
    reader.materialise(NOW)
    pusher = shops.pusher(store)
    for i, kind in enumerate(("b", "a", "c")):
        pusher.push([sale(i, NOW, 9.0, kind)], NOW + 1 + i)
    right, one, before = shown(reader, at), reader.looked["newest"], store.spaces()
    fresh = one.fresh

    def meanwhile(*given: Any) -> Any:
        found = fresh(*given)
        store.drop(one.space)
        shops.reader(store).materialise(at)
        one.online(store, store.read([(one.space, ["1"])])[0], ["1"], at)
        return found

    monkeypatch.setattr(one, "fresh", meanwhile)
    monkeypatch.setattr("tidemill.features.reader.FEW", 1)
    assert shown(reader, at) == right
    assert (all(row["online"] for row in right), store.spaces()[one.space] == before[one.space]) == (True, False)


def test_lost_words_are_answered_from_the_log_and_made_anew(shops: Shops, online: OnlineStore, caplog: pytest.LogCaptureFixture) -> None:
    reader, fresh, space = shops.reader(online), shops.reader(online), space_of(shops.newest)
    reader.materialise(NOW)
    shops.pusher(online).push([sale(1, NOW, 9.0, "fresh")], NOW + 1)
    right = shown(reader, NOW + 1)
    online.update(space, [], lambda mark, _: (mark, {b"kind/0": None}))
    for _ in range(2):
        assert shown(fresh, NOW + 1) == [{**row, "online": False} for row in right]
        assert shown(reader, NOW + 1) == right, "who knows them goes on"
    assert caplog.text.count("online_store=damaged") == 1
    shops.pusher(online).push([sale(2, NOW, 9.0, "fresher")], NOW + 2)
    assert "online_store=away error=the online store is damaged" in caplog.text
    fresh.materialise(NOW)  # of which all is there but its words
    after = shown(fresh, NOW + 2)
    assert (all(row["online"] for row in after), words_of(online, space, "kind")) == (True, ["new", "old", "fresh", "fresher"])
    same_offline(shops, after, NOW + 2)


def test_who_saw_a_space_while_it_was_first_made_pushes_to_it_afterwards(shops: Shops) -> None:
    store = Beside()
    reader, pusher = shops.reader(store), shops.pusher(store)
    store.happens = lambda: pusher.push([sale(1, NOW, 9.0)], NOW)
    reader.materialise(NOW)
    pusher.push([sale(1, NOW, 10.0, "later")], NOW + 1)
    assert (shown(reader, NOW + 1)[0]["newest__kind"], shown(reader, NOW + 1)[0]["online"]) == ("later", True)


class Beside(MemoryOnline):
    """A store in which something happens once, behind the first write."""

    happens: Callable[[], object] | None = None

    def update(self, space: str, entities: Sequence[Name], change: Change) -> None:
        super().update(space, entities, change)
        happens, self.happens = self.happens, None
        if happens:
            happens()


# ── several at work ─────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def place(kind: str, folder: Path) -> Iterator[str]:
    """Where an online store lies that several open."""
    if kind == "lmdb":
        yield str(folder / "online")
    else:
        with new_prefix() as prefix:
            yield f"{ADDRESS}?prefix={prefix}"


def store_at(where: str) -> OnlineStore:
    return open_online(where) if where.startswith("redis:") else open_online(Path(where), gigabytes=0.1)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_no_word_is_lost_among_several_who_push(kind: str, tmp_path: Path) -> None:
    """Each with a store of its own, all of which number words of their own and common ones."""
    with place(kind, tmp_path) as where, opened(tmp_path / "records.db", tmp_path) as shops:
        store = store_at(where)
        reader, fresh = shops.reader(store), shops.reader(store)
        reader.materialise(NOW)

        def work(who: int) -> None:
            with opened(tmp_path / "records.db", tmp_path) as own:
                one = store_at(where)
                pusher = own.pusher(one)
                for i in range(15):
                    pusher.push([sale(who, NOW + i, float(who), f"{who} {i}"), sale(9, NOW, 1.0, f"all {i}")], NOW + 1 + i)
                one.close()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, (1, 2, 3, 4)))
        reader.catch_up()
        at = NOW + MINUTE
        for one in (reader, fresh):
            after = shown(one, at, "12349")
            assert all(row["online"] for row in after)
            same_offline(shops, after, at, "12349")
        assert [row["newest__kind"] for row in after[:4]] == [f"{who} 14" for who in (1, 2, 3, 4)]
        found = words_of(store, space_of(shops.newest), "kind")
        assert (len(found), len({*found})) == (2 + 4 * 15 + 15, len(found))
        assert fresh.looked["newest"].made[0] == fresh.versions["newest"]
        store.close()


PUSH = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from features.test_pushing import NOW, opened, sale
from features.test_words import store_at
from tidemill.features import words
words.CHUNK = 3
folder, where = Path(sys.argv[1]), sys.argv[2]
with opened(folder / "records.db", folder) as shops:
    pusher = shops.pusher(store_at(where))
    for i in range(1_000_000):
        pusher.push([sale(1 + (i % 3), NOW + i, 1.0, f"word {{i}}")], NOW + 1 + i)
        if i % 10 == 3:
            print(i, flush=True)
"""


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_a_killed_pusher_leaves_words_and_states_that_fit(kind: str, tmp_path: Path) -> None:
    with place(kind, tmp_path) as where, opened(tmp_path / "records.db", tmp_path) as shops:
        store = store_at(where)
        reader, fresh = shops.reader(store), shops.reader(store)
        reader.materialise(NOW)
        with other(PUSH.format(tests=str(Path(__file__).parents[1])), tmp_path, where) as process:
            for _ in range(3):
                said = int(process.says())
                assert shown(reader, NOW + 2 * MINUTE)[said % 3]["newest__kind"].startswith("word "), "another process's words are seen"
            process.kill()
        reader.catch_up()
        for one in (reader, fresh):
            after = shown(one, NOW + 2 * MINUTE)
            assert all(row["online"] for row in after)
            same_offline(shops, after, NOW + 2 * MINUTE)
        pushed_ = pushed(shops.ledger, "sales").last
        assert words_of(store, space_of(shops.newest), "kind") == ["new", "old", *(f"word {i}" for i in range(pushed_))]
        store.close()
