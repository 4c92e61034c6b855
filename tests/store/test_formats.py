"""An older ledger moves forward with its data in place, on every store; several processes may start at once."""

import re
import sqlite3
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import inspect, text

from processes import several
from tidemill import loop
from tidemill.core import Ref, StoreError
from tidemill.ledger import Ledger
from tidemill.registry import aliases
from tidemill.store import MemoryBlobs, Records, is_address
from tidemill.store.formats import STEPS, Step, newest
from tidemill.tracking import runs

FORMAT_1 = (Path(__file__).parent / "format-1.sql").read_text()  # as the last version that wrote it left it
RUN = "496722b160a14d458d8a9c31f98a7e1c"
Place = Path | str


def plant(place: Place, script: str) -> None:
    """Make what a script of SQLite says; for PostgreSQL in its own types."""
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(place) as connection:
            connection.executescript(script)
        return
    number = re.findall(r"user_version = (\d+)", script)[-1]
    for wrong, right in (
        (r"PRAGMA.*?;|WITHOUT ROWID|BEGIN TRANSACTION;|COMMIT;", ""),
        (r"\bid INTEGER\b", "id BIGSERIAL"),
        (r"\bINTEGER\b", "BIGINT"),
        (r"\bTEXT\b", 'TEXT COLLATE "C"'),
        (r"\bFLOAT\b", "DOUBLE PRECISION"),
    ):
        script = re.sub(wrong, right, script)
    plain, schema = place.split("schema=")
    with psycopg.connect(plain.rstrip("?&"), autocommit=False) as connection:
        connection.execute(f"CREATE SCHEMA {schema}; SET search_path TO {schema}; {script}")
        connection.execute(f"CREATE TABLE tidemill_format (format BIGINT NOT NULL); INSERT INTO tidemill_format VALUES ({number})")


def shape(records: Records) -> dict[str, Any]:
    """Tables with their columns, keys and indexes."""
    with records.read() as connection:
        found = inspect(connection)
        return {
            table: (
                [(one["name"], str(one["type"]), one["nullable"]) for one in found.get_columns(table)],
                found.get_pk_constraint(table)["constrained_columns"],
                sorted((str(one["name"]), str(one["column_names"]), bool(one["unique"])) for one in found.get_indexes(table)),
            )
            for table in found.get_table_names()
        }


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_a_ledger_of_format_1_moves_forward_and_is_then_as_a_new_one(place: Place, tmp_path: Path) -> None:
    plant(place, FORMAT_1)
    records = Records(place)
    assert (records.found, records.format) == (1, newest())
    ledger = loop.prepare(Ledger(records, MemoryBlobs(), count(2_000_000_000_000_000).__next__))
    assert ledger.verify_decisions() == 1
    assert ledger.alias("live-flights", "flights", "champion") == ledger.artifact(Ref("dataset", "flights")).ref
    assert [one.status for one in ledger.executions()] == ["finished", "finished"]
    run = runs.get_run(ledger, RUN)
    assert [(one.key, str(one.value)) for one in run.data.metrics or ()] == [("auc", "0.75"), ("loss", "nan")]
    assert {one.key: one.value for one in run.data.tags or ()} == {"mlflow.runName": "first", "why": "größer"}
    assert aliases.version_by_alias(ledger, "late", "prod").run_id == RUN
    if not is_address(place):
        fresh = loop.prepare(Ledger(Records(tmp_path / "new.db"), MemoryBlobs(), count().__next__)).records
        assert shape(records) == shape(fresh)
        fresh.close()
    records.close()
    assert Records(place, read_only=True).found == newest()


def test_what_only_reads_leaves_an_older_ledger_and_says_what_to_do(place: Place) -> None:
    plant(place, FORMAT_1)
    with pytest.raises(StoreError, match=f"format 1; this Tidemill reads {newest()}") as error:
        Records(place, read_only=True)
    assert "tidemill migrate" in error.value.hint
    assert Records(place).found == 1


def test_a_newer_format_is_refused(place: Place) -> None:
    Records(place, steps=(*STEPS, Step(99, "later", ()))).close()
    for read_only in (True, False):
        with pytest.raises(StoreError, match="format 99") as error:
            Records(place, read_only=read_only)
        assert "newer Tidemill" in error.value.hint


SMALL = "PRAGMA user_version = 1; CREATE TABLE kept (id INTEGER NOT NULL, n INTEGER NOT NULL); INSERT INTO kept VALUES (1, 40);"
ADD = (("kept", "ALTER TABLE kept ADD COLUMN more INTEGER"), ("kept", "UPDATE kept SET more = n + 2, n = n + 1"))


def test_a_step_is_taken_whole_or_not_at_all_and_only_where_its_table_is(place: Place) -> None:
    plant(place, SMALL)
    wrong = (Step(2, "more", ADD), Step(3, "wrong", (("kept", "UPDATE kept SET never = 1"),)))
    with pytest.raises(StoreError, match="never"):
        Records(place, steps=wrong)
    right = (Step(2, "more", ADD), Step(3, "elsewhere", (("never", "UPDATE never SET never = 1"),)))
    records = Records(place, steps=right)
    with records.read() as connection:
        assert connection.execute(text("SELECT n, more FROM kept")).all() == [(41, 42)]
    assert (records.found, records.format) == (1, 3)


START = """
import sys
from itertools import count
from pathlib import Path
from tidemill import registry, tracking
from tidemill.ledger import Ledger
from tidemill.store import MemoryBlobs, Records
from tidemill.store.formats import STEPS, Step
place = sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1])
steps = (*STEPS, Step(7, "count", (("kept", "ALTER TABLE kept ADD COLUMN more INTEGER DEFAULT 0"), ("kept", "UPDATE kept SET n = n + 1"))))
print("ready"); input()
records = Records(place, steps=steps)
tracking.prepare(Ledger(records, MemoryBlobs(), count().__next__))
records.ensure(registry.tables)
"""


@pytest.mark.parametrize("there", ["nothing", "format 1"])
def test_several_processes_start_at_once(place: Place, there: str) -> None:
    if there != "nothing":
        plant(place, FORMAT_1 + SMALL)
    with several(START, place, times=3) as others:
        for one in others:
            assert one.says() == "ready"
        for one in others:
            one.go_on()
        assert [one.process.wait(60) for one in others] == [0, 0, 0]
    records = Records(place, steps=(*STEPS, Step(7, "count", ())))
    assert records.found == 7
    if there != "nothing":
        with records.read() as connection:
            assert connection.execute(text("SELECT n FROM kept")).scalar_one() == 41
    records.close()
