"""Acceptance suite of `OnlineStore`: every implementation passes it (the fixture `online` makes them)."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from processes import other, run_python
from redis_server import ADDRESS, names_of, new_prefix
from tidemill.core import Damaged, DefinitionError, StoreError
from tidemill.features import LmdbOnline, OnlineStore, is_whole, open_online
from tidemill.features.online import checksum

V1, V2 = "a" * 40, "b" * 40


def test_nothing_is_stored_at_first(online: OnlineStore) -> None:
    assert online.get(V1, ["x"]) == [None]
    assert online.get(V1, []) == []
    assert online.watermark(V1) is None


def test_what_goes_in_comes_out_in_the_order_asked(online: OnlineStore) -> None:
    online.write(V1, [("x", b"1"), ("y", b"2")], 10)
    assert online.get(V1, ["y", "none", "x", "y"]) == [b"2", None, b"1", b"2"]
    assert online.watermark(V1) == 10


def test_versions_do_not_see_each_other(online: OnlineStore) -> None:
    online.write(V1, [("x", b"1")], 10)
    online.write(V2, [("x", b"2")], 5)
    assert (online.get(V1, ["x"]), online.get(V2, ["x"])) == ([b"1"], [b"2"])
    assert (online.watermark(V1), online.watermark(V2)) == (10, 5)


def test_newer_rows_take_the_place_of_older_ones(online: OnlineStore) -> None:
    online.write(V1, [("x", b"1"), ("y", b"1")], 10)
    online.write(V1, [("x", b"2")], 20)
    online.write(V1, [("z", b"2")], 20)
    assert online.get(V1, ["x", "y", "z"]) == [b"2", b"1", b"2"]
    assert online.watermark(V1) == 20


def test_an_older_watermark_changes_nothing(online: OnlineStore) -> None:
    online.write(V1, [("x", b"new")], 20)
    online.write(V1, [("x", b"old"), ("y", b"old")], 19)
    assert online.get(V1, ["x", "y"]) == [b"new", None]
    assert online.watermark(V1) == 20


def test_times_before_1970_are_times(online: OnlineStore) -> None:
    online.write(V1, [], -5)
    assert online.watermark(V1) == -5


def test_all_or_nothing(online: OnlineStore) -> None:
    def rows() -> Iterator[tuple[str, bytes]]:
        yield "x", b"half"
        raise ZeroDivisionError

    online.write(V1, [("x", b"whole")], 10)
    with pytest.raises(ZeroDivisionError):
        online.write(V1, rows(), 20)
    assert (online.get(V1, ["x"]), online.watermark(V1)) == ([b"whole"], 10)


def test_what_no_version_needs_is_dropped(online: OnlineStore) -> None:
    for version in (V1, V2, "0" * 40, "f" * 40):
        online.write(version, [(entity, b"1") for entity in ("", "x", "\xff", "z" * 5000)], 10)
    online.keep([V2, "c" * 40])
    assert online.get(V2, ["", "x", "\xff", "z" * 5000]) == [b"1"] * 4
    assert online.watermark(V2) == 10
    for version in (V1, "0" * 40, "f" * 40):
        assert (online.get(version, ["", "x", "\xff", "z" * 5000]), online.watermark(version)) == ([None] * 4, None)
    online.keep([])
    assert (online.get(V2, ["x"]), online.watermark(V2)) == ([None], None)


@pytest.mark.parametrize("entity", ["", " ", "ü€𝄞", "a/b", "\x1f", "x" * 399, "x" * 400, "x" * 5000])
def test_any_text_names_an_entity(online: OnlineStore, entity: str) -> None:
    online.write(V1, [(entity, b"it"), (entity + "2", b"another")], 1)
    assert online.get(V1, [entity, entity + "2", entity + "3"]) == [b"it", b"another", None]


# ── LMDB, on disk ───────────────────────────────────────────────────────────────────────────────────────────────────

WRITE = """
import sys
from pathlib import Path
from tidemill.features import LmdbOnline
store = LmdbOnline(Path(sys.argv[1]), gigabytes=0.1)
store.write("a" * 40, [("x", b"written")], 10)
def rows():
    yield "x", b"half"
    print("half"); input()
store.write("a" * 40, rows(), 20)
"""


READ = """
import sys
from pathlib import Path
from tidemill.features import LmdbOnline
print(LmdbOnline(Path(sys.argv[1]), gigabytes=0.1).get("a" * 40, ["x"]))
"""


def test_what_was_written_survives_sigkill_and_half_a_write_does_not(tmp_path: Path) -> None:
    with other(WRITE, tmp_path) as process:
        assert process.says() == "half"
        process.kill()
    store = LmdbOnline(tmp_path, gigabytes=0.1)
    assert (store.get(V1, ["x"]), store.watermark(V1)) == ([b"written"], 10)
    store.write(V1, [("x", b"next")], 30)
    store.close()


def test_another_process_reads_what_this_one_wrote(tmp_path: Path) -> None:
    store = LmdbOnline(tmp_path, gigabytes=0.1)
    store.write(V1, [("x", b"1")], 10)
    assert run_python(READ, tmp_path).stdout == "[b'1']\n"
    store.close()


def test_a_damaged_store_says_that_it_can_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a store" * 1000)
    with pytest.raises(Damaged, match="online store cannot be used") as error:
        LmdbOnline(tmp_path)
    assert "delete the folder" in error.value.hint


def test_a_store_of_a_few_pages_takes_any_number_of_versions_one_after_another(tmp_path: Path) -> None:
    store = LmdbOnline(tmp_path, gigabytes=0.001)
    for number in range(100):
        version = f"{number:040}"[::-1]
        store.write(version, [(f"e{i}", bytes(1000)) for i in range(100)], 1)
        store.keep([version])
    store.close()


def damage(file: Path, first: int, step: int = 997) -> None:
    data = bytearray(file.read_bytes())
    for place in range(first, len(data), step):
        data[place] ^= 0xFF
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("data.mdb", lambda file: damage(file, 0)),
        ("data.mdb", lambda file: damage(file, 8392)),
        ("data.mdb", lambda file: file.write_bytes(b"")),
        ("data.sum", lambda file: file.write_bytes(file.read_bytes()[:7])),
        ("data.sum", lambda file: file.write_bytes(b"\xff\xfe")),
    ],
    ids=["from its start", "in a value", "cut to nothing", "its sum cut", "its sum no text"],
)
def test_a_damaged_store_is_begun_anew_and_a_sound_one_is_kept(
    tmp_path: Path, name: str, how: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    store = open_online(tmp_path)
    store.write(V1, [(f"e{i}", bytes(1000)) for i in range(100)], 10)
    store.close()
    assert is_whole(tmp_path)
    store = open_online(tmp_path)
    assert (store.watermark(V1), store.get(V1, ["e7"]), caplog.text) == (10, [bytes(1000)], "")
    store.close()
    how(tmp_path / name)
    with pytest.raises(Damaged, match="not what was written"):
        is_whole(tmp_path)
    store = open_online(tmp_path)
    assert (store.watermark(V1), store.get(V1, ["e7"])) == (None, [None])
    assert caplog.text.count("begun_anew=true") == 1
    store.close()


def test_a_store_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").mkdir()
    (tmp_path / "data.sum").write_text("a digest")
    with pytest.raises(StoreError, match="the online store cannot be read: Is a directory"):
        is_whole(tmp_path)


def test_a_value_that_is_not_what_was_written_is_not_given(tmp_path: Path) -> None:
    store = LmdbOnline(tmp_path, gigabytes=0.1)
    store.write(V1, [("x", b"written" * 100)], 10)
    file = tmp_path / "data.mdb"
    data = file.read_bytes()
    file.write_bytes(data.replace(b"writtenwritten", b"writtenwrittem"))
    with pytest.raises(Damaged, match="a value is not what was written"):
        store.get(V1, ["x"])
    assert store.watermark(V1) == 10
    store.close()


def test_a_store_whose_writer_was_killed_is_begun_anew(tmp_path: Path) -> None:
    with other(WRITE, tmp_path) as process:
        assert process.says() == "half"
        process.kill()
    assert not is_whole(tmp_path)
    store = open_online(tmp_path)
    assert store.watermark(V1) is None
    store.close()


# ── Redis ───────────────────────────────────────────────────────────────────────────────────────────────────────────

WRITE_TO_REDIS = """
import sys
from tidemill.features import open_online
store = open_online(sys.argv[1], prefix=sys.argv[2])
for watermark in range(1_000_000):
    store.write("a" * 40, [(f"e{i}", b"%d" % watermark) for i in range(50)], watermark)
    if watermark == 3:
        print("begun", flush=True)
"""


def test_a_killed_writer_leaves_each_write_whole_and_its_watermark_with_it() -> None:
    with new_prefix() as prefix:
        with other(WRITE_TO_REDIS, ADDRESS, prefix) as process:
            assert process.says() == "begun"
            process.kill()
        store = open_online(ADDRESS, prefix=prefix)
        rows = store.get(V1, [f"e{i}" for i in range(50)])
        assert rows == [b"%d" % store.watermark(V1)] * 50  # type: ignore[operator]
        store.close()


def test_many_writers_leave_the_newest_watermark_with_its_rows() -> None:
    def work(first: int) -> None:
        own = open_online(ADDRESS, prefix=prefix)
        for watermark in range(first, 200, 4):
            own.write(V1, [("x", b"%d" % watermark), ("y", b"%d" % watermark)], watermark)
        own.close()

    with new_prefix() as prefix, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
        store = open_online(ADDRESS, prefix=prefix)
        assert (store.watermark(V1), store.get(V1, ["x", "y"])) == (199, [b"199", b"199"])
        store.close()


def test_projects_share_a_server_and_drop_only_what_is_theirs() -> None:
    with new_prefix() as prefix:
        one, two = (open_online(ADDRESS, prefix=f"{prefix}{name}") for name in ("*", "*2"))
        for store in (one, two):
            store.write(V1, [(f"e{i}", b"1") for i in range(2_500)], 1)
        one.keep([])
        assert (one.watermark(V1), two.watermark(V1)) == (None, 1)
        assert len(names_of(prefix)) == 2_501
        one.close()
        two.close()


def test_a_value_that_is_not_what_was_written_to_redis_is_not_given() -> None:
    with new_prefix() as prefix:
        store = open_online(ADDRESS, prefix=prefix)
        store.write(V1, [("x", b"written"), ("y", b"written")], 10)
        db = redis.Redis.from_url(ADDRESS)
        db.set(f"{prefix}:{V1[:16]}/x", db.get(f"{prefix}:{V1[:16]}/y"))  # whole, but another's
        with pytest.raises(Damaged, match="a value is not what was written"):
            store.get(V1, ["x"])
        assert store.get(V1, ["y"]) == [b"written"]
        store.close()


def test_a_redis_that_is_away_and_an_address_that_is_none_are_said() -> None:
    store = open_online("redis://ann:secret@127.0.0.1:1/0")
    for call in (lambda: store.get(V1, ["x"]), lambda: store.watermark(V1), lambda: store.write(V1, [], 1), lambda: store.keep([])):
        with pytest.raises(StoreError, match="the online store cannot be used") as error:
            call()
        assert (error.value.where, "secret" in str(error.value)) == ("redis://127.0.0.1:1/0", False)
    for address in ("redis://host:port/0", "redis://127.0.0.1/0?nonsense=1"):
        with pytest.raises(DefinitionError, match="no address of Redis"):
            open_online(address).watermark(V1)


def test_rows_of_another_form_are_made_anew(tmp_path: Path) -> None:
    """What an earlier version wrote, under a watermark of another name, is as if it were not there, and is dropped."""
    store = LmdbOnline(tmp_path, gigabytes=0.1)
    with store._db.begin(write=True) as transaction:
        for key in (b"watermark/" + V1.encode(), b"watermark 1/" + V1.encode()):
            transaction.put(key, (10).to_bytes(8, "little") + checksum(key, (10).to_bytes(8, "little")))
    assert store.watermark(V1) is None
    store.write(V1, [("x", b"new")], 5)
    store.keep([V1])
    with store._db.begin() as transaction:
        assert transaction.stat()["entries"] == 2
    store.close()
