"""Acceptance suite of `OnlineStore`: every implementation passes it (the fixture `online` makes them)."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from features.held import states_of
from processes import other, run_python
from redis_server import ADDRESS, names_of, new_prefix
from tidemill.core import Damaged, DefinitionError, StoreError
from tidemill.features import LmdbOnline, OnlineStore, _lmdb_folder, is_whole, open_online
from tidemill.features.online import Name, checksum, mark_of

V1, V2 = "a" * 40, "b" * 40


def put(store: OnlineStore, space: str, states: Mapping[Name, bytes | None], mark: bytes | None = b"mark") -> None:
    """Store without looking."""
    store.update(space, [], lambda *_: (mark, states))


def test_nothing_is_stored_at_first(online: OnlineStore) -> None:
    assert states_of(online, V1, ["x"]) == [None]
    assert states_of(online, V1, []) == []
    assert mark_of(online, V1) is None
    assert online.spaces() == {}


def test_what_goes_in_comes_out_in_the_order_asked(online: OnlineStore) -> None:
    put(online, V1, {"x": b"1", "y": b"2"}, b"one")
    assert states_of(online, V1, ["y", "none", "x", "y"]) == [b"2", None, b"1", b"2"]
    assert (mark_of(online, V1), online.spaces()) == (b"one", {V1: b"one"})


def test_spaces_do_not_see_each_other(online: OnlineStore) -> None:
    put(online, V1, {"x": b"1"}, b"one")
    put(online, V2, {"x": b"2"}, b"two")
    assert (states_of(online, V1, ["x"]), states_of(online, V2, ["x"])) == ([b"1"], [b"2"])
    assert online.spaces() == {V1: b"one", V2: b"two"}


def test_a_change_sees_what_is_there_and_takes_its_place(online: OnlineStore) -> None:
    def change(mark: bytes | None, states: list[bytes | None]) -> tuple[bytes | None, dict[str, bytes | None]]:
        seen.append((mark, states))
        return b"two", {"x": b"2", "y": None, "z": b"3"}

    seen: list[tuple[bytes | None, list[bytes | None]]] = []
    put(online, V1, {"x": b"1", "y": b"1"}, b"one")
    online.update(V1, ["y", "none", "x"], change)
    assert seen[-1] == (b"one", [b"1", None, b"1"])
    assert (states_of(online, V1, ["x", "y", "z"]), mark_of(online, V1)) == ([b"2", None, b"3"], b"two")


def test_a_change_may_leave_all_as_it_is_or_take_the_mark_away(online: OnlineStore) -> None:
    put(online, V1, {"x": b"1"})
    online.update(V1, ["x"], lambda *_: None)
    assert (states_of(online, V1, ["x"]), mark_of(online, V1)) == ([b"1"], b"mark")
    put(online, V1, {}, None)
    assert (states_of(online, V1, ["x"]), mark_of(online, V1), online.spaces()) == ([b"1"], None, {})


def test_all_or_nothing(online: OnlineStore) -> None:
    put(online, V1, {"x": b"whole"})
    with pytest.raises(ZeroDivisionError):
        online.update(V1, ["x"], lambda *_: 1 / 0)  # type: ignore[arg-type,return-value]
    assert (states_of(online, V1, ["x"]), mark_of(online, V1)) == ([b"whole"], b"mark")


def test_no_change_is_lost_among_many_writers(online: OnlineStore) -> None:
    def more(_: int) -> None:
        online.update(V1, ["x"], lambda mark, states: (b"%d" % (int(mark or 0) + 1), {"x": b"%d" % (int(states[0] or 0) + 1)}))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(more, range(200)))
    assert (states_of(online, V1, ["x"]), mark_of(online, V1)) == ([b"200"], b"200")


def test_what_no_space_needs_is_dropped(online: OnlineStore) -> None:
    for space in (V1, V2, "0" * 40, "f" * 40):
        put(online, space, dict.fromkeys(("", "x", "\xff", "z" * 5000), b"1"))
    online.keep([V2, "c" * 40])
    assert states_of(online, V2, ["", "x", "\xff", "z" * 5000]) == [b"1"] * 4
    assert online.spaces() == {V2: b"mark"}
    for space in (V1, "0" * 40, "f" * 40):
        assert states_of(online, space, ["", "x", "\xff", "z" * 5000]) == [None] * 4
    online.keep([])
    assert (states_of(online, V2, ["x"]), mark_of(online, V2)) == ([None], None)


def test_one_space_is_dropped_and_no_other_is_touched(online: OnlineStore) -> None:
    names = ("", "x", "\xff", "z" * 5000)
    for space in ("0" * 40, V1, V2, "f" * 40):
        put(online, space, dict.fromkeys(names, b"1"))
    put(online, "f" * 40, {}, None)
    for space in (V1, "c" * 40, "f" * 40):
        online.drop(space)
        assert (states_of(online, space, names), mark_of(online, space)) == ([None] * 4, None)
    assert online.spaces() == {"0" * 40: b"mark", V2: b"mark"}
    assert [states_of(online, space, names) for space in ("0" * 40, V2)] == [[b"1"] * 4] * 2
    put(online, V1, {"x": b"2"})
    assert (states_of(online, V1, ["", "x"]), online.spaces()) == ([None, b"2"], {"0" * 40: b"mark", V1: b"mark", V2: b"mark"})


def test_several_spaces_are_read_in_one_go(online: OnlineStore) -> None:
    put(online, V1, {"x": b"1", "z" * 5000: b"long"}, b"first")
    put(online, V2, {"x": b"2"}, None)
    asked = [(V1, ["x", "never", "z" * 5000, "x"]), (V2, ["x"]), ("f" * 40, ["x"]), (V1, [])]
    first = (b"first", [b"1", None, b"long", b"1"])
    assert online.read(asked) == [first, (None, [b"2"]), (None, [None]), (b"first", [])]
    assert online.read(asked[:1]) == [first]
    assert online.read([]) == []


@pytest.mark.parametrize("entity", ["", " ", "ü€𝄞", "a/b", "\x1f", "x" * 99, "€" * 99, "x" * 100, "x" * 399, "x" * 400, "x" * 5000])
def test_any_text_names_an_entity(online: OnlineStore, entity: str) -> None:
    put(online, V1, {entity: b"it", entity + "2": b"another"})
    assert states_of(online, V1, [entity, entity + "2", entity + "3"]) == [b"it", b"another", None]
    assert online.read([(V1, [entity, entity + "2", entity + "3"])]) == [(b"mark", [b"it", b"another", None])]


@pytest.mark.parametrize("name", [b"", b"kind/0", b"\xfe", b"x" * 399, b"x" * 400, b"x" * 5000])
def test_what_bytes_name_is_no_entity_of_the_space_and_goes_with_it(online: OnlineStore, name: bytes) -> None:
    entities = (name.decode("latin-1"), "\xfe" + name.decode("latin-1"), "")
    for space in (V1, V2):
        put(online, space, {name: b"beside", name + b"2": b"another", **dict.fromkeys(entities, b"state")})
    assert online.read([(V1, [name, *entities, None, name + b"2", name + b"3"])]) == [
        (b"mark", [b"beside", b"state", b"state", b"state", None, b"another", None])
    ]
    seen: list[list[bytes | None]] = []
    online.update(V1, [name], lambda mark, states: seen.append(states) or (mark, {name: None}))
    assert (seen, states_of(online, V1, [name, name + b"2"])) == ([[b"beside"]], [None, b"another"])
    online.drop(V1)
    online.keep([V2])
    assert states_of(online, V1, [name, name + b"2", *entities]) == [None] * 5
    assert states_of(online, V2, [name, *entities]) == [b"beside", *[b"state"] * 3]
    online.keep([])
    assert states_of(online, V2, [name, *entities]) == [None] * 4


# ── LMDB, on disk ───────────────────────────────────────────────────────────────────────────────────────────────────

WRITE = """
import sys
from pathlib import Path
from tidemill.features import LmdbOnline
store = LmdbOnline(Path(sys.argv[1]), gigabytes=0.1)
store.update("a" * 40, [], lambda *_: (b"10", {"x": b"written"}))
def change(mark, states):
    print("half", flush=True)
    input()
store.update("a" * 40, [], change)
"""


READ = """
import sys
from pathlib import Path
from tidemill.features import LmdbOnline
print(LmdbOnline(Path(sys.argv[1]), gigabytes=0.1).read([("a" * 40, ["x"])])[0][1])
"""


def test_what_was_written_survives_sigkill_and_half_a_write_does_not(tmp_path: Path) -> None:
    with other(WRITE, tmp_path) as process:
        assert process.says() == "half"
        process.kill()
    store = LmdbOnline(tmp_path, gigabytes=0.1)
    assert (states_of(store, V1, ["x"]), mark_of(store, V1)) == ([b"written"], b"10")
    put(store, V1, {"x": b"next"})
    store.close()


def test_another_process_reads_what_this_one_wrote(tmp_path: Path) -> None:
    store = LmdbOnline(tmp_path, gigabytes=0.1)
    put(store, V1, {"x": b"1"})
    assert run_python(READ, tmp_path).stdout == "[b'1']\n"
    store.close()


def test_a_store_of_a_few_pages_takes_any_number_of_versions_one_after_another(tmp_path: Path) -> None:
    store = LmdbOnline(tmp_path, gigabytes=0.001)
    for number in range(100):
        space = f"{number:040}"[::-1]
        put(store, space, {f"e{i}": bytes(1000) for i in range(100)})
        store.keep([space])
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
    put(store, V1, {f"e{i}": bytes(1000) for i in range(100)})
    store.close()
    assert is_whole(tmp_path)
    store = open_online(tmp_path)
    assert (mark_of(store, V1), states_of(store, V1, ["e7"]), caplog.text) == (b"mark", [bytes(1000)], "")
    store.close()
    how(tmp_path / name)
    with pytest.raises(Damaged, match="not what was written"):
        is_whole(tmp_path)
    store = open_online(tmp_path)
    assert (mark_of(store, V1), states_of(store, V1, ["e7"])) == (None, [None])
    assert caplog.text.count("begun_anew=true") == 1
    store.close()


def test_a_store_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").mkdir()
    (tmp_path / "data.sum").write_text("a digest")
    with pytest.raises(StoreError, match="the online store cannot be read: Is a directory"):
        is_whole(tmp_path)


def test_a_value_that_is_not_what_was_written_is_not_given(tmp_path: Path) -> None:
    store = LmdbOnline(tmp_path, gigabytes=0.1)
    put(store, V1, {"x": b"written" * 100})
    file = tmp_path / "data.mdb"
    data = file.read_bytes()
    file.write_bytes(data.replace(b"writtenwritten", b"writtenwrittem"))
    for read in (lambda: states_of(store, V1, ["x"]), lambda: store.read([(V1, ["x"])])):
        with pytest.raises(Damaged, match="a value is not what was written"):
            read()
    assert mark_of(store, V1) == b"mark"
    store.close()


def test_a_store_whose_writer_was_killed_is_kept_unless_the_machine_went_down_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with other(WRITE, tmp_path) as process:
        assert process.says() == "half"
        process.kill()
    assert is_whole(tmp_path)
    store = open_online(tmp_path)
    assert (mark_of(store, V1), states_of(store, V1, ["x"]), caplog.text) == (b"10", [b"written"], "")
    put(store, V1, {"x": b"more"})
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    monkeypatch.setattr(_lmdb_folder, "boot", lambda: b"another start")
    assert not is_whole(tmp_path.with_name("copy"))
    other_store = open_online(tmp_path.with_name("copy"))
    assert (mark_of(other_store, V1), caplog.text.count("begun_anew=true")) == (None, 1)
    other_store.close()
    store.close()


def test_a_store_that_was_only_opened_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        open_online(tmp_path).close()
    assert (is_whole(tmp_path), caplog.text) == (True, "")


SHARE = """
import sys
from pathlib import Path
from tidemill.features import open_online
store = open_online(Path(sys.argv[1]))
store.update("a" * 40, ["x"], lambda mark, states: (b"two", {"x": states[0] + b" and theirs"}))
print("written", flush=True)
input()
store.close()
print("closed", flush=True)
"""


def test_two_processes_write_to_one_store_and_the_last_one_sums_it(tmp_path: Path) -> None:
    store = open_online(tmp_path)
    put(store, V1, {"x": b"ours"})
    with other(SHARE, tmp_path) as process:
        assert process.says() == "written"
        assert states_of(store, V1, ["x"]) == [b"ours and theirs"]
        put(store, V1, {"y": b"ours"}, b"three")
        process.go_on()
        assert process.says() == "closed"
    store.settle()
    assert is_whole(tmp_path)
    put(store, V1, {"z": b"ours"}, b"four")
    store.close()
    assert is_whole(tmp_path)
    store = open_online(tmp_path)
    assert (mark_of(store, V1), states_of(store, V1, ["x", "y", "z"])) == (b"four", [b"ours and theirs", b"ours", b"ours"])
    store.close()


PURGE = """
import sys, threading
from pathlib import Path
from tidemill.features import open_online
store = open_online(Path(sys.argv[1]))
print("open", flush=True)
end, purged = threading.Event(), []
threading.Thread(target=lambda: (input(), end.set()), daemon=True).start()
while not (end.is_set() or purged):
    purged += [1] * store.purge()
print(len(purged), store.read([("a" * 40, ["x"])])[0][1], flush=True)
"""


def test_nobody_purges_what_another_has_open_and_sums(tmp_path: Path) -> None:
    store = open_online(tmp_path)
    put(store, V1, {})
    with other(PURGE, tmp_path) as process:
        assert process.says() == "open"
        for _ in range(300):
            store.settle()
        put(store, V1, {"x": b"written"})
        process.go_on()
        assert process.says() == "0 [b'written']"
    store.close()


def test_a_user_that_closes_twice_leaves_the_store_to_the_others(tmp_path: Path) -> None:
    one, two = open_online(tmp_path), open_online(tmp_path / ".")
    put(one, V1, {"x": b"1"})
    one.close()
    one.close()
    assert states_of(two, V1, ["x"]) == [b"1"]
    assert not is_whole_after_a_crash(tmp_path)
    two.close()
    assert is_whole_after_a_crash(tmp_path)
    with pytest.raises(StoreError, match="the online store is closed"):
        states_of(two, V1, ["x"])


def is_whole_after_a_crash(folder: Path) -> bool:
    """Whether the file has its sum."""
    return not (folder / "data.sum").read_bytes().startswith(b"open ")


def test_who_forgets_to_close_has_it_closed(tmp_path: Path) -> None:
    store = open_online(tmp_path)
    put(store, V1, {"x": b"1"})
    del store
    assert is_whole_after_a_crash(tmp_path)
    again = "import sys; from pathlib import Path; from tidemill.features import open_online; store = open_online(Path(sys.argv[1]))"
    assert run_python(f"{again}; store.update('a' * 40, [], lambda *_: (b'm', {{}})); print(store.spaces())", tmp_path).stdout
    assert is_whole_after_a_crash(tmp_path)
    store = open_online(tmp_path)
    assert (mark_of(store, V1), states_of(store, V1, ["x"])) == (b"m", [b"1"])
    store.close()


def test_who_opens_a_store_while_its_last_user_closes_it_opens_it_anew(tmp_path: Path) -> None:
    store = open_online(tmp_path)
    put(store, V1, {f"e{i}": bytes(20_000) for i in range(1_000)})
    with ThreadPoolExecutor(2) as pool:
        closing = pool.submit(store.close)
        found = [open_online(tmp_path) for _ in range(3)]
        assert [states_of(one, V1, ["e1"]) for one in found] == [[bytes(20_000)]] * 3
        closing.result()
    for one in found:
        one.close()


def test_what_is_written_while_the_file_is_summed_makes_the_sum_void(tmp_path: Path) -> None:
    store = open_online(tmp_path)
    put(store, V1, {f"e{i}": bytes(20_000) for i in range(1_000)})
    with ThreadPoolExecutor(2) as pool:
        for number in range(5):
            settling = pool.submit(store.settle)
            put(store, V1, {"pushed": b"%d" % number})
            settling.result()
            assert is_whole(tmp_path)
    store.close()
    assert is_whole(tmp_path)


FORK = """
import os, sys
from pathlib import Path
from tidemill.features import open_online
folder = Path(sys.argv[1])
store = open_online(folder)
def put(name):
    store.update("a" * 40, ["x"], lambda mark, states: (b"mark", {"x": (states[0] or b"") + name}))
put(b"parent")
child = os.fork()
if not child:
    put(b" child")
    again = open_online(folder)
    print(again.read([("a" * 40, ["x"])])[0][1], again.purge(), flush=True)
    again.close()
    sys.exit()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
put(b" parent")
print(store.read([("a" * 40, ["x"])])[0][1], (folder / "data.sum").read_bytes()[:5], flush=True)
store.close()
print((folder / "data.sum").read_bytes()[:5] == b"open ", flush=True)
"""


def test_a_process_that_forks_and_its_child_go_on_with_the_store(tmp_path: Path) -> None:
    found = run_python(FORK, tmp_path)
    assert found.stdout.splitlines() == ["[b'parent child'] False", "[b'parent child parent'] b'open '", "False"], found.stderr
    assert is_whole(tmp_path)


# ── Redis ───────────────────────────────────────────────────────────────────────────────────────────────────────────

WRITE_TO_REDIS = """
import sys
from tidemill.features import open_online
store = open_online(sys.argv[1], prefix=sys.argv[2])
for mark in range(1_000_000):
    store.update("a" * 40, [], lambda *_: (b"%d" % mark, {f"e{i}": b"%d" % mark for i in range(50)}))
    if mark == 3:
        print("begun", flush=True)
"""


def test_a_killed_writer_leaves_each_write_whole_and_its_mark_with_it() -> None:
    with new_prefix() as prefix:
        with other(WRITE_TO_REDIS, ADDRESS, prefix) as process:
            assert process.says() == "begun"
            process.kill()
        store = open_online(ADDRESS, prefix=prefix)
        rows = states_of(store, V1, [f"e{i}" for i in range(50)])
        assert rows == [mark_of(store, V1)] * 50
        store.close()


def test_no_change_is_lost_among_many_clients() -> None:
    def work(_: int) -> None:
        own = open_online(ADDRESS, prefix=prefix)
        for _ in range(50):
            own.update(V1, ["x"], lambda mark, states: (b"%d" % (int(mark or 0) + 1), {"x": b"%d" % (int(states[0] or 0) + 1)}))
        own.close()

    with new_prefix() as prefix, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
        store = open_online(ADDRESS, prefix=prefix)
        assert (mark_of(store, V1), states_of(store, V1, ["x"])) == (b"200", [b"200"])
        store.close()


@pytest.mark.parametrize("more", ["*2", "*:eu", "*/" + V1[:16], "/*", "ü"])
def test_projects_share_a_server_and_drop_only_what_is_theirs(more: str) -> None:
    with new_prefix() as prefix:
        one, two = (open_online(ADDRESS, prefix=f"{prefix}{name}") for name in ("*", more))
        for store in (one, two):
            put(store, V1, {f"e{i}": b"1" for i in range(2_500)})
        one.keep([])
        assert (mark_of(one, V1), mark_of(two, V1), one.spaces(), two.spaces()) == (None, b"mark", {}, {V1: b"mark"})
        assert len(names_of(prefix)) == 2_502, "states, a mark and the set of spaces"
        one.close()
        two.close()


def test_the_spaces_of_a_redis_are_told_without_looking_through_the_server() -> None:
    with new_prefix() as prefix:
        store, db = open_online(ADDRESS, prefix=prefix), redis.Redis.from_url(ADDRESS)
        for space in (V1, V2):
            put(store, space, {f"e{i}": b"1" for i in range(10)})
        with db.monitor() as monitor:
            assert store.spaces() == {V1: b"mark", V2: b"mark"}
            db.get(f"{prefix} end")
            told = iter(lambda: monitor.next_command()["command"], f"GET {prefix} end")
            assert [command.split()[0] for command in told if prefix in command] == ["SMEMBERS", "MGET"]
        store.close()


def test_a_value_that_is_not_what_was_written_to_redis_is_not_given() -> None:
    with new_prefix() as prefix:
        store = open_online(ADDRESS, prefix=prefix)
        put(store, V1, {"x": b"written", "y": b"written"})
        db = redis.Redis.from_url(ADDRESS)
        db.set(f"{prefix}/{V1[:16]}/x", db.get(f"{prefix}/{V1[:16]}/y"))  # whole, but another's
        for read in (lambda: states_of(store, V1, ["x"]), lambda: store.read([(V1, ["y", "x"])])):
            with pytest.raises(Damaged, match="a value is not what was written"):
                read()
        assert states_of(store, V1, ["y"]) == [b"written"]
        store.close()


@contextmanager
def redis_with(tmp_path: Path, *settings: str) -> Iterator[OnlineStore]:
    """A store in a server of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path), *settings]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            next(line for line in server.stdout or () if "ready to accept connections" in line.lower())
            store = open_online(f"redis://127.0.0.1:{port}/0")
            yield store
            store.close()
        finally:
            server.kill()


own_server = pytest.mark.skipif(not shutil.which("redis-server") and not os.environ.get("CI"), reason="it takes a server of its own")


@own_server
def test_a_redis_without_memory_says_so(tmp_path: Path) -> None:
    with redis_with(tmp_path, "--maxmemory", "1") as store, pytest.raises(StoreError, match="used memory > 'maxmemory'") as error:
        put(store, "space", {"a": b"1"})
    assert "maxmemory" in error.value.hint
    assert "start it" not in error.value.hint


@own_server
def test_a_redis_that_deletes_what_it_likes_is_not_written_to(tmp_path: Path) -> None:
    full = ["--maxmemory", "100mb", "--maxmemory-policy"]
    with redis_with(tmp_path, *full, "allkeys-lru") as store, pytest.raises(StoreError, match="without a word") as error:
        put(store, "space", {"a": b"1"})
    assert "noeviction" in error.value.hint
    for policy in ("noeviction", "volatile-lru"):  # the store's keys never run out
        with redis_with(tmp_path, *full, policy) as store:
            put(store, "space", {"a": b"1"})


def test_a_redis_that_is_away_and_an_address_that_is_none_are_said() -> None:
    store = open_online("redis://ann:secret@127.0.0.1:1/0")
    for call in (
        lambda: states_of(store, V1, ["x"]),
        lambda: mark_of(store, V1),
        lambda: store.read([(V1, [])]),
        lambda: put(store, V1, {}),
        lambda: store.keep([]),
        lambda: store.drop(V1),
        store.spaces,
    ):
        with pytest.raises(StoreError, match="the online store cannot be used") as error:
            call()
        assert (error.value.where, "secret" in str(error.value)) == ("redis://127.0.0.1:1/0", False)
    for address in ("redis://host:port/0", "redis://127.0.0.1/0?nonsense=1"):
        with pytest.raises(DefinitionError, match="no address of Redis"):
            mark_of(open_online(address), V1)


def test_states_of_another_form_are_made_anew(tmp_path: Path) -> None:
    """What an earlier version wrote, under a mark of another name, is as if it were not there, and is dropped."""
    store = LmdbOnline(tmp_path, gigabytes=0.1)
    with store._folder.db.begin(write=True) as transaction:
        for key in (b"watermark/" + V1.encode(), b"watermark 2/" + V1.encode(), b"mark 1/" + V1.encode(), b"mark 3/" + V1.encode()):
            transaction.put(key, b"10" + checksum(key, b"10"))
    assert (mark_of(store, V1), store.spaces()) == (None, {})
    put(store, V1, {"x": b"new"})
    store.keep([V1])
    with store._folder.db.begin() as transaction:
        assert transaction.stat()["entries"] == 2
    store.close()
