"""What only a database can suffer: a server that is away or comes back, a wrong address, a failed statement, another machine's writer."""

import threading
from itertools import count

import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text
from sqlalchemy.exc import DBAPIError

from postgres import ask, new_schema
from processes import other, run_python
from tidemill.core import Busy, Damaged, DataError, DefinitionError, MissingFile, StoreError
from tidemill.ledger import Ledger
from tidemill.store import MemoryBlobs, Records
from tidemill.store.postgres import explain, parse_address

tables = MetaData()
event = Table("event", tables, Column("id", Integer, primary_key=True), Column("text", Text))


def add(records: Records, text: str = "x") -> None:
    with records.transaction() as sql:
        sql.run("INSERT INTO event (text) VALUES (?)", (text,))


def number(records: Records) -> int:
    with records.snapshot() as sql:
        return int((sql.one("SELECT count(*) FROM event") or (0,))[0])


def end_all(records: Records) -> None:
    """As the server does when it is started anew: all connections of these records end."""
    schema = records.where.split("schema=")[1]
    quoted = f"'tidemill {schema}'"
    assert ask(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = {quoted}")


@pytest.fixture
def made(postgres: str) -> Records:
    records = Records(postgres)
    records.ensure(tables)
    return records


# ── the server ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_was_started_anew_is_found_again(made: Records) -> None:
    add(made)
    with made.read():  # two connections lie idle then
        assert number(made) == 1
    for act in (lambda: add(made), lambda: number(made), lambda: made.ensure(tables), lambda: made.check()):
        end_all(made)
        act()
    assert number(made) == 2


def test_a_connection_that_breaks_in_the_middle_leaves_nothing_and_says_so(made: Records) -> None:
    def broken() -> None:
        with made.transaction() as sql:
            sql.run("INSERT INTO event (text) VALUES ('lost')")
            end_all(made)
            sql.run("INSERT INTO event (text) VALUES ('lost')")

    def broken_at_the_end() -> None:
        with made.begin() as connection:
            connection.exec_driver_sql("INSERT INTO event (text) VALUES ('lost')")
            end_all(made)

    def broken_at_the_drivers_end() -> None:
        with made.transaction() as sql:
            sql.run("INSERT INTO event (text) VALUES ('lost')")
            end_all(made)

    for act in (broken, broken_at_the_end, broken_at_the_drivers_end):
        with pytest.raises(StoreError, match="the database") as error:
            act()
        assert "start the server" in error.value.hint
    add(made)
    assert number(made) == 1


def test_a_server_that_is_away_is_said() -> None:
    with pytest.raises(StoreError, match="does not answer") as error:
        Records("postgresql://127.0.0.1:1/test")
    assert error.value.where == "postgresql://127.0.0.1:1/test?schema=tidemill"
    assert "start the server" in error.value.hint


def test_a_database_that_is_not_there_is_said(postgres: str) -> None:
    plain, _ = parse_address(postgres)
    base = plain.rsplit("/", 1)[0]
    with pytest.raises(StoreError, match="no such database") as error:
        Records(f"{base}/never_made")
    assert "createdb" in error.value.hint


@pytest.mark.parametrize(
    "address",
    ["postgresql://h/d?schema=", "postgresql://h/d?schema=pg_x", "postgresql://h/d?never=1", f"postgresql://h/d?schema={'x' * 64}"],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(DefinitionError):
        Records(address)


@pytest.mark.parametrize(
    ("address", "plain", "schema"),
    [
        ("postgresql://h/d", "postgresql://h/d", "tidemill"),
        ("postgresql:///d?schema=a%20b&host=/run/pg", "postgresql:///d?host=/run/pg", "a b"),
        ("postgres://u@[::1]:7/d?options=-c%20x%3D1&schema=s", "postgres://u@[::1]:7/d?options=-c%20x%3D1", "s"),
        ("postgresql://", "postgresql://", "tidemill"),
    ],
)
def test_an_address_is_libpqs_but_for_the_schema(address: str, plain: str, schema: str) -> None:
    assert parse_address(address) == (plain, schema)


def test_a_password_is_never_shown() -> None:
    with pytest.raises(StoreError) as error:
        Records("postgresql://ann:s3cret@127.0.0.1:1/test?schema=x")
    assert "s3cret" not in str(error.value)
    assert "ann@127.0.0.1:1/test" in error.value.where


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"), Busy, "doctor"),
        (psycopg.errors.SerializationFailure("could not serialize"), Busy, "again"),
        (psycopg.errors.DiskFull("could not extend file"), StoreError, "free some space"),
        (psycopg.errors.InsufficientPrivilege("permission denied"), StoreError, "SELECT on its tables"),
        (psycopg.errors.DataCorrupted("invalid page"), Damaged, "backup"),
        (psycopg.errors.AdminShutdown("terminating connection"), StoreError, "start the server"),
        (psycopg.OperationalError("FATAL: password authentication failed"), StoreError, "PGPASSWORD"),
        (psycopg.OperationalError("FATAL: sorry, too many clients already"), StoreError, "max_connections"),
        (psycopg.errors.NumericValueOutOfRange("bigint out of range"), DataError, "2⁶³"),
        (psycopg.errors.UndefinedTable("relation never"), StoreError, "doctor"),
    ],
)
def test_an_error_says_what_to_do(error: psycopg.Error, kind: type[Exception], words: str) -> None:
    told = explain(error, "here")
    assert type(told) is kind
    assert words in told.hint


def test_without_psycopg_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['psycopg'] = None\nfrom tidemill.store import Records\ntry: Records('postgresql://h/d')\n"
    found = run_python(code + "except ImportError as error: print(type(error).__name__, error.hint)")
    assert found.stdout == "MissingExtra pip install 'tidemill[postgres]'\n", found.stderr


# ── transactions ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_statement_that_failed_is_not_passed_over(made: Records) -> None:
    def quiet() -> None:
        with made.transaction() as sql:
            sql.run("INSERT INTO event (text) VALUES ('lost')")
            with pytest.raises(psycopg.Error):
                sql.run("INSERT INTO never (text) VALUES ('x')")

    def quiet_too() -> None:
        with made.begin() as connection:
            connection.exec_driver_sql("INSERT INTO event (text) VALUES ('lost')")
            with pytest.raises(DBAPIError):
                connection.exec_driver_sql("INSERT INTO never (text) VALUES ('x')")

    for act in (quiet, quiet_too):
        with pytest.raises(StoreError, match="none of it is kept"):
            act()
    assert number(made) == 0


def test_a_text_with_nul_is_refused(made: Records) -> None:
    with pytest.raises(DataError, match="NUL"):
        add(made, "a\0b")
    assert number(made) == 0


def test_a_writer_that_waits_too_long_is_told(made: Records, postgres: str) -> None:
    impatient = Records(postgres)
    with impatient.snapshot() as sql:
        sql.run("SET lock_timeout = '10ms'")
    with made.begin(), pytest.raises(Busy, match="has been writing") as error:
        add(impatient)
    assert "doctor" in error.value.hint
    add(impatient)
    assert number(made) == 1


def test_many_threads_read_and_write(made: Records) -> None:
    def work() -> None:
        for _ in range(10):
            add(made)
            number(made)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number(made) == 80


# ── schemas and readers ─────────────────────────────────────────────────────────────────────────────────────────────


def test_two_schemas_are_two_ledgers(made: Records) -> None:
    add(made)
    with new_schema() as address:
        beside = Records(address)
        beside.ensure(tables)
        assert number(beside) == 0
        with made.begin():  # a writer of the one keeps no writer of the other waiting
            add(beside)
        beside.close()
    assert number(made) == 1


def test_a_schema_of_any_name(postgres: str) -> None:
    name = 'it\'s "odd"; drop & so'
    plain, _ = parse_address(postgres)
    address = f"{plain}?schema=it%27s%20%22odd%22%3B%20drop%20%26%20so"
    try:
        records = Records(address)
        records.ensure(tables)
        add(records)
        assert number(Records(address, read_only=True)) == 1
        records.close()
    finally:
        ask('DROP SCHEMA IF EXISTS "{}" CASCADE'.format(name.replace('"', '""')))


def test_reading_what_is_not_there_makes_nothing(postgres: str) -> None:
    with pytest.raises(MissingFile, match="no ledger yet") as error:
        Records(postgres, read_only=True)
    assert "tidemill run" in error.value.hint
    assert ask(f"SELECT 1 FROM pg_namespace WHERE nspname = '{postgres.split('schema=')[1]}'") == []


def test_a_reader_cannot_write(made: Records, postgres: str) -> None:
    reader = Records(postgres, read_only=True)
    with pytest.raises(StoreError, match="reading only"):
        add(reader)
    with pytest.raises(StoreError, match="reading only"):
        Ledger(reader, MemoryBlobs(), count().__next__)
    assert number(reader) == 0


# ── the one long writer ─────────────────────────────────────────────────────────────────────────────────────────────

HOLD = """
import sys
from tidemill.store import Records
with Records(sys.argv[1]).alone("replay"):
    print("held"); input()
"""


def test_one_long_writer_at_a_time_on_whatever_machine(made: Records, postgres: str) -> None:
    with other(HOLD, postgres) as holder:
        assert holder.says() == "held"
        with pytest.raises(Busy, match=f"tidemill replay, process {holder.pid} on") as error, made.alone("run"):
            pass
        assert "wait until it is done" in error.value.hint
        add(made)  # the short ones go on
        holder.kill()
    told: list[str] = []
    with made.alone("run", wait=20, waiting=told.append):  # the lock went with the process
        add(made)
    assert number(made) == 2
