"""Acceptance suite of `Records`, in memory and in a file; then what only a file can suffer."""

import random
import threading
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, func, insert, select

from processes import other, run_python
from tidemill.core import Busy, Damaged, MissingFile, StoreError
from tidemill.store import Records

tables = MetaData()
event = Table("event", tables, Column("id", Integer, primary_key=True), Column("text", Text, nullable=False))

TABLES = """
import sys
from pathlib import Path
from sqlalchemy import Column, Integer, MetaData, Table, Text, func, insert, select
from tidemill.core import TidemillError
from tidemill.store import Records
tables = MetaData()
event = Table("event", tables, Column("id", Integer, primary_key=True), Column("text", Text, nullable=False))
"""


def add(records: Records, *texts: str) -> None:
    with records.begin() as connection:
        connection.execute(insert(event), [{"text": text} for text in texts])


def count(records: Records) -> int:
    with records.read() as connection:
        return int(connection.execute(select(func.count()).select_from(event)).scalar_one())


# ── what every kind of records does ─────────────────────────────────────────────────────────────────────────────────


def test_a_committed_row_is_read(records: Records) -> None:
    records.ensure(tables)
    add(records, "a", "b")
    with records.read() as connection:
        assert connection.execute(select(event.c.text).order_by(event.c.id)).scalars().all() == ["a", "b"]


def test_the_first_row_of_a_query_is_the_one_of_now(records: Records) -> None:
    records.ensure(tables)
    third = "SELECT text FROM event WHERE id = ?"
    assert records.row(third, (3,)) is None
    add(records, "a", "b", "c")
    assert records.row(third, (3,)) == ("c",)
    assert records.row("SELECT text FROM event ORDER BY id DESC") == ("c",)
    with pytest.raises(StoreError):
        records.row("SELECT text FROM nothing")
    add(records, "d")  # nothing is left open
    assert count(records) == 4


def test_a_block_that_raises_leaves_nothing(records: Records) -> None:
    records.ensure(tables)
    add(records, "before")

    def half() -> None:
        with records.begin() as connection:
            connection.execute(insert(event), [{"text": "half"}])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert count(records) == 1


def test_making_tables_again_keeps_their_rows(records: Records) -> None:
    records.ensure(tables)
    add(records, "kept")
    records.ensure(tables)
    assert count(records) == 1


def test_a_broken_rule_is_an_error_of_ours_and_leaves_nothing(records: Records) -> None:
    records.ensure(tables)

    def without_text() -> None:
        with records.begin() as connection:
            connection.execute(insert(event).values(text="first"))
            connection.execute(insert(event).values(id=7))

    with pytest.raises(StoreError, match=r"(?i)not.null"):
        without_text()
    assert count(records) == 0


def test_threads_take_turns(records: Records) -> None:
    records.ensure(tables)
    threads = [threading.Thread(target=lambda: [add(records, "x") for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(records) == 80


def test_sound_records_have_no_complaints(records: Records) -> None:
    records.ensure(tables)
    add(records, "x")
    assert records.check() == []


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "100% #1 ünd? so" / "records.db"
    code = TABLES + 'r = Records(Path(sys.argv[1])); r.ensure(tables)\nwith r.begin() as c: c.execute(insert(event), [{"text": "x"}])'
    made = run_python(code, path)
    assert made.returncode == 0, made.stderr
    assert [file.name for file in path.parent.parent.iterdir()] == [path.parent.name]
    assert count(Records(path, read_only=True)) == 1


def test_a_thread_reads_while_another_writes(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.db")
    records.ensure(tables)
    add(records, "old")
    found: list[int] = []
    with records.begin() as connection:
        connection.execute(insert(event), [{"text": "new"}])
        reader = threading.Thread(target=lambda: found.append(count(records)))
        reader.start()
        reader.join(timeout=20)
    assert found == [1]
    assert count(records) == 2
    records.close()


def test_another_process_reads_while_this_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    records = Records(path)
    records.ensure(tables)
    add(records, "old")
    code = (
        TABLES
        + "r = Records(Path(sys.argv[1]), read_only=True)\nwith r.read() as c: print(c.execute(select(func.count(event.c.id))).scalar())"
    )
    with records.begin() as connection:
        connection.execute(insert(event), [{"text": "new"}])
        assert run_python(code, path).stdout == "1\n"
    assert run_python(code, path).stdout == "2\n"


def test_a_commit_survives_sigkill_and_an_open_transaction_does_not(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    code = (
        TABLES
        + """
r = Records(Path(sys.argv[1])); r.ensure(tables)
with r.begin() as c: c.execute(insert(event), [{"text": "committed"}])
with r.begin() as c:
    c.execute(insert(event), [{"text": "open"}])
    print("open"); input()
"""
    )
    with other(code, path) as writer:
        assert writer.says() == "open"
        writer.kill()
    records = Records(path)
    assert count(records) == 1
    add(records, "next")  # the lock went with the process
    assert records.check() == []


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    Records(tmp_path / "records.db").ensure(tables)
    with pytest.raises(StoreError, match="readonly") as error:
        add(Records(tmp_path / "records.db", read_only=True), "x")
    assert "right to write" in error.value.hint


def test_reading_what_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no ledger yet") as error:
        Records(tmp_path / "records.db", read_only=True)
    assert "tidemill run" in error.value.hint
    assert not (tmp_path / "records.db").exists()


def filled(path: Path) -> None:
    records = Records(path)
    records.ensure(tables)
    add(records, *(f"row {i} " + "x" * 200 for i in range(2000)))
    records.close()
    assert not path.with_name("records.db-wal").exists()


@pytest.mark.parametrize("read_only", [True, False])
def test_what_is_not_a_database_is_damage(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "records.db"
    path.write_bytes(b"this is not a database, it only lies where one should be\n" * 100)
    with pytest.raises(Damaged, match="damaged") as error:
        Records(path, read_only=read_only)
    assert error.value.where == str(path)
    assert "backup" in error.value.hint


def test_random_bytes_in_the_middle_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    filled(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(random.Random(0).randbytes(20_000))
    records = Records(path, read_only=True)
    with pytest.raises(Damaged, match="damaged"), records.read() as connection:
        connection.execute(select(event)).all()
    assert records.check()


def test_a_cut_file_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    filled(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(Damaged, match="damaged"), Records(path, read_only=True).read() as connection:
        connection.execute(select(event)).all()
    with pytest.raises(Damaged, match="damaged"):
        Records(path)


def test_a_writer_that_waits_too_long_is_told(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    records = Records(path)
    records.ensure(tables)
    impatient = Records(path)
    with impatient.engine.connect().execution_options(reading=True) as connection:
        connection.exec_driver_sql("pragma busy_timeout=10")
    with records.begin(), pytest.raises(Busy, match="another process is writing"):
        add(impatient, "x")
