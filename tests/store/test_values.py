"""What rows hold is the same on every store: texts, numbers at their limits, the order of texts, patterns; and what a transaction sees."""

import math
import re
import threading

import pytest
from sqlalchemy import BigInteger, Column, Float, Integer, MetaData, Table, Text, insert, select

from tidemill.core import DataError, StoreError
from tidemill.store import Records, upsert

tables = MetaData()
thing = Table(
    "thing",
    tables,
    Column("id", Integer, primary_key=True),
    Column("name", Text, unique=True),
    Column("number", Float),
    Column("count", Integer),
    Column("big", BigInteger),
)
TEXTS = [
    "",
    "a",
    "A",
    "Z",
    "z",
    "_",
    "%",
    "a%b",
    "a_b",
    "a*b",
    "a?b",
    "[ab]",
    "a\\b",
    "\\%",
    "'",
    '"',
    "ab\n",
    "ä",
    "Ä",
    "ß",
    "é",
    "𝄞",
    "A1",
    "a b",
]


@pytest.fixture
def made(records: Records) -> Records:
    records.ensure(tables)
    return records


def put(records: Records, column: str, *values: object) -> None:
    with records.transaction() as sql:
        sql.many(f"INSERT INTO thing ({column}) VALUES (?)", [(value,) for value in values])


def found(records: Records, query: str, *values: object) -> list[object]:
    with records.snapshot() as sql:
        return [row[0] for row in sql.all(query, values)]


def test_texts_come_back_as_they_were_and_in_the_order_of_their_bytes(made: Records) -> None:
    put(made, "name", *reversed(TEXTS))
    assert found(made, "SELECT name FROM thing ORDER BY name") == sorted(TEXTS, key=str.encode)
    with made.read() as connection:
        assert connection.execute(select(thing.c.name).order_by(thing.c.name.desc())).scalars().first() == "𝄞"
        assert connection.execute(select(thing.c.id).where(thing.c.name == "ä")).scalars().all()


@pytest.mark.parametrize("pattern", ["%", "_", "a%", "%b", "a_b", "A%", "a*%", "[%", "a\\%", "\\%", "%\n", "Ä", "a?b", "%1", "'%", ""])
def test_patterns_are_those_of_sql_without_an_escape(made: Records, pattern: str) -> None:
    put(made, "name", *TEXTS)
    for any_case in (False, True):
        with made.snapshot() as sql:
            rows = sql.like(
                "name", pattern, any_case=any_case, make=lambda text, values: sql.all(f"SELECT name FROM thing WHERE {text}", values)
            )
        plain = re.escape(pattern).replace("%", ".*").replace("_", ".")
        wanted = re.compile(plain, re.DOTALL | (re.IGNORECASE | re.ASCII if any_case else 0))
        ascii_only = {name for name in TEXTS if wanted.fullmatch(name)}
        assert {row[0] for row in rows} == ascii_only, any_case


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, 1e-300, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, 2.0**53 + 2, math.pi])
def test_floats_come_back_to_the_bit(made: Records, value: float) -> None:
    put(made, "number", value)
    (back,) = found(made, "SELECT number FROM thing WHERE number = ?", value)
    assert back == value


@pytest.mark.parametrize("value", [0, 1, -1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)])
def test_whole_numbers_have_64_bits_in_every_column(made: Records, value: int) -> None:
    with made.begin() as connection:
        connection.execute(insert(thing).values(count=value, big=value))
    with made.read() as connection:
        assert connection.execute(select(thing.c.count, thing.c.big).where(thing.c.count == value)).one() == (value, value)
    assert found(made, "SELECT big FROM thing WHERE count = ?", value) == [value]


def test_a_number_that_is_too_large_is_refused_and_leaves_nothing(made: Records) -> None:
    for value in (2**63, -(2**63) - 1, 10**40):
        with pytest.raises(DataError, match="cannot hold"):
            put(made, "big", 1, value)
        with pytest.raises(DataError, match="cannot hold"):
            found(made, "SELECT id FROM thing WHERE big = ?", value)
    with pytest.raises(DataError, match="cannot hold"):
        put(made, "name", "\ud800")
    assert found(made, "SELECT id FROM thing") == []


def test_a_number_that_the_store_gives_is_returned_and_grows(made: Records) -> None:
    with made.transaction() as sql:
        first = sql.one("INSERT INTO thing (name) VALUES (?) RETURNING id", ("a",))
        again = sql.one("INSERT INTO thing (name) VALUES (?) ON CONFLICT DO NOTHING RETURNING id", ("a",))
    with made.begin() as connection:
        key = connection.execute(insert(thing).values(name="b")).inserted_primary_key
        connection.execute(upsert(connection, thing).values(name="b").on_conflict_do_nothing())
        changed = upsert(connection, thing).values(name="b", big=7)
        connection.execute(changed.on_conflict_do_update(index_elements=["name"], set_={"big": 7}))
    assert first is not None
    assert key is not None
    assert again is None
    assert key[0] > first[0]
    assert found(made, "SELECT big FROM thing ORDER BY id") == [None, 7]


@pytest.mark.parametrize("times", [1, 3, 40])
def test_many_rows_are_as_one_by_one(made: Records, times: int) -> None:
    odd = [None, *TEXTS, "{}", "NULL", "null", "a,b", '"\\"', "\\\\", " "]
    rows = [(f"{i} {odd[i % len(odd)]}", i / 7 if i % 3 else math.inf, None if i % 5 == 4 else i - 20, 2**62 + i) for i in range(times)]
    again = "INSERT INTO thing (name, number, count, big) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
    with made.transaction() as sql:
        sql.many(again, rows)
        sql.many(again.replace("DO NOTHING", "(name) DO UPDATE SET big = excluded.big - 1"), [*rows, rows[0]])
        sql.many(again, [*rows, rows[-1]])
    with made.snapshot() as sql:
        found = sql.all("SELECT name, number, count, big + 1 FROM thing ORDER BY big")
    assert found == rows
    texts = [(text, 0.5 if text is None else 1) for text in odd * times]
    with made.transaction() as sql:
        sql.run("DELETE FROM thing")
        sql.many("INSERT INTO thing (name, number) VALUES (?, ?) ON CONFLICT DO NOTHING", texts)
        assert {row[0] for row in sql.all("SELECT name FROM thing")} == set(odd)
        assert sql.one("SELECT count(*) FROM thing WHERE name IS NULL AND number = 0.5") == (times,)


def test_many_rows_may_have_a_column_of_nothing(made: Records) -> None:
    with made.transaction() as sql:
        sql.many("INSERT INTO thing (name, number, count, big) VALUES (?, ?, ?, ?)", [(None, None, None, i) for i in range(20)])
    assert found(made, "SELECT big FROM thing WHERE name IS NULL AND number IS NULL AND count IS NULL ORDER BY big") == list(range(20))


def test_rows_changed_are_counted(made: Records) -> None:
    put(made, "big", 1, 1, 2)
    with made.transaction() as sql:
        assert sql.run("UPDATE thing SET number = ? WHERE big = ?", (0.5, 1)) == 2
        assert sql.run("DELETE FROM thing WHERE big = ?", (9,)) == 0
        sql.many("DELETE FROM thing WHERE big = ?", [])
        assert sql.one("SELECT count(*) FROM thing") == (3,)
        assert sql.one("SELECT big FROM thing WHERE big = ?", (9,)) is None


@pytest.mark.parametrize("synced", [True, False])
def test_a_block_on_the_driver_that_raises_leaves_nothing(made: Records, synced: bool) -> None:
    def half(then: str) -> None:
        with made.transaction(synced=synced) as sql:
            sql.run("INSERT INTO thing (big) VALUES (1)")
            sql.run(then) if then else 1 / 0

    with pytest.raises(ZeroDivisionError):
        half("")
    with pytest.raises(StoreError):
        half("INSERT INTO never (big) VALUES (1)")
    put(made, "big", 2)
    assert found(made, "SELECT big FROM thing") == [2]


def test_a_view_stays_as_it_is_while_another_thread_writes(place: str) -> None:
    records = Records(place)
    records.ensure(tables)
    put(records, "big", 1)
    with records.snapshot() as sql, records.read() as connection:
        assert sql.one("SELECT count(*) FROM thing") == (1,)
        assert len(connection.execute(select(thing.c.id)).all()) == 1
        writer = threading.Thread(target=put, args=(records, "big", 2))
        writer.start()
        writer.join(timeout=20)
        assert not writer.is_alive(), "a reader keeps nobody from writing"
        assert sql.one("SELECT count(*) FROM thing") == (1,)
        assert len(connection.execute(select(thing.c.id)).all()) == 1
    assert found(records, "SELECT count(*) FROM thing") == [2]
    records.close()


def test_what_a_writer_reads_stays_true_until_it_is_done(place: str) -> None:
    """Two writers that count first and then add one more: the second counts what the first added."""
    one, two = Records(place), Records(place)
    one.ensure(tables)
    begun = threading.Event()

    def add(records: Records, tell: threading.Event | None = None) -> None:
        with records.transaction() as sql:
            row = sql.one("SELECT count(*) FROM thing")
            assert row is not None
            if tell:
                tell.set()
                other.join(timeout=0.3)  # it cannot be done: it waits for this one
                assert other.is_alive()
            sql.run("INSERT INTO thing (big) VALUES (?)", (row[0],))

    def later() -> None:
        begun.wait()
        add(two)

    other = threading.Thread(target=later)
    other.start()
    add(one, begun)
    other.join(timeout=20)
    assert found(one, "SELECT big FROM thing ORDER BY id") == [0, 1]
    one.close()
    two.close()
