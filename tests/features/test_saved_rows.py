"""Training rows: made a part at a time and always the same, recorded with what they came from, and whole or not at all."""

import json
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidemill as tm
from features.oracle import EXAMPLES, Row
from features.ours import write_table
from features.test_historical import ELEVEN, ROWS, SALES, SQL, TYPES, Streamed, plain, rows_of_stream, sorted_plain
from features.test_historical import shops as shops
from features.test_point_in_time import VIEWS, asked, expected, log_of, rows_of
from processes import other, run_python
from tidemill.cli import tidemill as tidemill_
from tidemill.core import Damaged, DataError, DefinitionError, MissingFile, StoreError, UnknownName
from tidemill.features import Historical, Opened, Question, choose, historical
from tidemill.ledger import lineage
from tidemill.session import Session
from tidemill.store import FolderBlobs


def read(file: Path | None) -> dict[str, list[Any]]:
    found = duckdb.connect().execute(f"SELECT * FROM read_parquet('{file}')").fetchnumpy()
    return {name: plain(column.tolist()) for name, column in found.items()}


def save(shops: Session, rows: Any = None, views: Sequence[str] = ("newest", "counts"), **more: Any) -> Historical:
    return shops.historical_features(pd.DataFrame(ROWS) if rows is None else rows, views, **{"save": "orders", **more})


def rows_file(folder: Path, count: int = 20_000) -> Path:
    """Rows of three shops over some hours, in no order, with doubles."""
    random = np.random.default_rng(2)
    file = folder / "orders.parquet"
    times = np.datetime64("2024-03-10T09:00") + random.integers(0, 300, count).astype("timedelta64[m]")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register(
            "rows", {"row": np.arange(count), "shop": random.choice([7, 8, 9], count), "asked": times.astype("datetime64[s]")}
        )
        connection.execute(f"COPY (SELECT row, shop, CAST(asked AS TIMESTAMPTZ) AS event_timestamp FROM rows) TO '{file}'")
    return file


# ── the same, whatever the way ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", VIEWS)
@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(
    rows=st.lists(rows_of, max_size=25),
    requests=asked,
    as_known=st.booleans(),
    chunk=st.integers(1, 30),
    until=st.none() | st.integers(-50, 200).map(lambda minutes: minutes * 60_000_000),
)
def test_rows_a_part_at_a_time_are_those_of_the_oracle(
    name: str, rows: list[Row], requests: Sequence[tuple[str | None, int]], as_known: bool, chunk: int, until: int | None
) -> None:
    view = VIEWS[name]
    opened = {name: Opened(log_of(view, rows), {"entity": "VARCHAR"})}
    question = Question(choose([view], {}), opened, "at", as_known=as_known, timezone="UTC", status=True, until=until)
    entities, times = [entity for entity, _ in requests], [at for _, at in requests]
    given_ = {"entity": np.array(entities, dtype=object), "at": np.array(times, dtype="datetime64[us]"), "row": np.arange(len(requests))}
    whole = historical(given_, question)
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{size}.parquet" for size in (chunk, 1_000)]
        reports = [historical(given_, question, file, chunk=int(file.stem)).report for file in files]
        assert reports == [whole.report] * 2
        assert files[0].read_bytes() == files[1].read_bytes()
        found = read(files[0])
    assert found["row"] == list(range(len(requests)))
    known = [row for row in rows if until is None or row.known <= until]
    told = [expected(view, known if as_known else sorted_plain(known), entity, at) for entity, at in requests]
    assert [list(row) for row in zip(*(found[full] for full in view.names), strict=True)] == [values for values, _ in told]
    assert found[f"{name}__status"] == [status for _, status in told]
    for column, values in whole.columns.items():
        assert plain(values) == found[column]


def test_a_text_is_one_also_where_a_part_has_none(shops: Session, tmp_path: Path) -> None:
    for views in (["newest"], ["newest:kind"]):
        found = shops.historical_features(pd.DataFrame(ROWS), views, to=tmp_path / "out.parquet", chunk=1)
        assert read(found.file)["newest__kind"] == [None, "x", None, "x"]
    with duckdb.connect() as connection:
        connection.register("alone", shops.historical_features(Streamed(f"{SQL} LIMIT 1"), ["newest"]).frame)
        assert connection.execute("SELECT typeof(newest__kind) FROM alone").fetchall() == [("VARCHAR",)]


def test_the_digest_does_not_depend_on_how_many_rows_are_read_at_once(shops: Session, tmp_path: Path) -> None:
    file, told = rows_file(tmp_path), list[tuple[int, int]]()
    first = save(shops, file, chunk=7_777, listen=lambda *rows: told.append(rows))
    assert told == [(0, 20_000), (7_777, 20_000), (15_554, 20_000), (20_000, 20_000)]
    forget(shops, first)
    assert save(shops, file).ref == first.ref
    unsaved = shops.historical_features(file, ["newest", "counts"], to=tmp_path / "out.parquet", chunk=999)
    assert read(unsaved.file) == read(first.file)
    assert unsaved.report == first.report


def test_nor_where_the_rows_are_more_than_one_group_of_the_file(shops: Session, tmp_path: Path) -> None:
    file = tmp_path / "orders.parquet"
    rows = pl.DataFrame({"shop": [7, 8, 9] * 50_000, "event_timestamp": "2024-03-10T12:00Z"})
    rows.write_parquet(file, row_group_size=99_999)  # no group is a whole number of what the engine reads at once
    first = save(shops, file, ["newest"], chunk=50_000)
    assert shops.saved_rows("orders", again=True).ref == first.ref


def forget(shops: Session, found: Historical) -> None:
    assert found.file is not None
    found.file.unlink()


# ── an artifact ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_saved_rows_are_found_again_and_know_what_they_came_from(shops: Session) -> None:
    first = save(shops)
    assert first.why == "first time"
    assert str(first.ref).startswith("training rows:orders@")
    assert rows_of_stream(first.frame) == rows_of_stream(first.frame)
    assert plain(read(first.file)["newest__amount"]) == [None, 1.0, None, 1.0]
    again = save(shops)
    assert (again.ref, again.why, again.report) == (first.ref, "", first.report)
    assert first.ref is not None
    tree = shops.lineage(first.ref)
    assert repr(shops.lineage("training rows:orders")) == repr(tree)
    forward = repr(shops.lineage("dataset:sales", forward=True))
    assert "training rows:orders@" in forward
    parents = sorted(str(node.ref).partition("@")[0] for node in tree.parents)
    assert parents == ["feature view:counts", "feature view:newest", "rows:orders"]
    assert "source:sales.parquet" in repr(tree)
    assert shops.ledger.artifact(first.ref).meta["rows"] == 4


def test_rows_of_whatever_holds_them_are_saved_alike(shops: Session) -> None:
    arrays = {"label": np.array(ROWS["label"]), "shop": np.array(ROWS["shop"])}
    arrays["event_timestamp"] = np.array(["2024-03-10T11:00"] * 4, dtype="datetime64[us]")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        several = [Streamed(SQL), connection.sql(SQL), arrays, pd.DataFrame(ROWS)]
        found = [save(shops, rows, timezone="UTC") for rows in several]
    for one in found:
        assert read(one.file)["newest__amount"] == [None, 1.0, None, 1.0]
        assert read(one.file)["shop"] == [8, 7, 9, 7]
    assert found[0].ref == found[1].ref, "the same rows of the same types"


def test_rows_of_a_file_are_known_by_its_content(shops: Session, tmp_path: Path) -> None:
    file = rows_file(tmp_path)
    first = save(shops, file)
    (tmp_path / "moved").mkdir()
    assert save(shops, file.rename(tmp_path / "moved" / "orders.parquet")).why == ""
    assert first.ref is not None
    assert {node.ref.kind for node in lineage(shops.ledger, first.ref).parents} == {"source", "feature view"}
    rows_file(tmp_path, 10)
    other_ = save(shops, file.with_name("orders.parquet"))
    assert other_.ref != first.ref
    assert other_.why.startswith("rows: source:orders.parquet@")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"until": "2024-03-10T11:00Z"}, "until: nothing → "),
        ({"as_known": False}, "as_known: true → false"),
        ({"views": ["newest"]}, "features: "),
        ({"status": True}, "features: "),
        ({"rows": pd.DataFrame(ROWS).iloc[::-1]}, "rows: rows:orders@"),
    ],
)
def test_what_is_asked_otherwise_is_made_and_says_what_differs(shops: Session, more: dict[str, Any], why: str) -> None:
    first, found = save(shops), save(shops, **more)
    assert why in found.why
    assert found.ref != first.ref or "as_known" in more or "until" in more


def test_a_cut_off_gives_the_same_rows_when_more_is_known(shops: Session, tmp_path: Path) -> None:
    cut = {"until": "2024-03-10T11:30Z"}
    first, open_ = save(shops, as_known=False, **cut), save(shops, as_known=False)
    assert plain(read(first.file)["newest__amount"]) == [None, 1.0, None, 1.0], "the sale of 10:30 became known at 12:00"
    assert plain(read(open_.file)["newest__amount"]) == [None, 2.0, None, 2.0]
    assert "and by 2024-03-10T11:30:00Z" in repr(first)
    early = (9, "2024-03-10T10:00Z", "2024-03-11T10:00Z", 5.0, "y")
    write_table(tmp_path / "sales.parquet", TYPES, [(6, "2024-03-10T08:00Z", "2024-03-12T00:00Z", 9.0, "a"), *SALES, early])
    again, grown = save(shops, as_known=False, **cut), save(shops, as_known=False)
    assert "views.newest: feature view:newest@" in again.why
    assert again.ref == first.ref
    assert again.report == first.report
    assert grown.ref != open_.ref
    assert plain(read(grown.file)["newest__amount"]) == [None, 2.0, 5.0, 2.0]


def test_lost_rows_are_made_again_to_the_same_digest(shops: Session) -> None:
    first = save(shops)
    forget(shops, first)
    again = save(shops)
    assert (again.ref, again.why) == (first.ref, "its result was not kept")
    assert again.file is not None
    assert again.file.is_file()


def test_saved_rows_are_opened_by_their_name(shops: Session, tmp_path: Path) -> None:
    first, second = save(shops), save(shops, views=["newest"])
    assert shops.saved_rows("orders").ref == second.ref
    for name in (str(first.ref), str(first.ref).removeprefix("training rows:"), str(first.ref)[:-8]):
        found = shops.saved_rows(name, to=tmp_path / "out.parquet")
        assert (found.ref, found.report, found.why) == (first.ref, first.report, "")
        assert read(found.file) == read(first.file)
    newest, before = shops.features.saved()
    assert (newest["ref"], before["ref"], before["rows"], before["until"]) == (str(second.ref), str(first.ref), 4, None)
    assert before["features"][:2] == ["newest__amount", "newest__kind"]
    with pytest.raises(UnknownName, match="nothing is recorded as training rows:order"):
        shops.saved_rows("order")


@pytest.mark.parametrize("rows", ["frame", "file", "dataset"])
@pytest.mark.parametrize("more", [{}, {"as_known": False, "status": True, "until": "2024-03-10T11:00Z"}, {"views": ["newest:kind", "own"]}])
def test_saved_rows_are_made_again_from_the_ledger_alone(shops: Session, tmp_path: Path, rows: str, more: dict[str, Any]) -> None:
    frame = pd.DataFrame(ROWS).assign(sold=ELEVEN)
    frame.to_csv(tmp_path / "orders.csv", index=False)
    given_ = {"frame": frame, "file": tmp_path / "orders.csv", "dataset": "dataset:sales"}[rows]
    found = save(shops, given_, **more)
    (tmp_path / "views.py").write_text("import tidemill as tm\n")
    write_table(tmp_path / "sales.parquet", TYPES, SALES[:1])
    forget(shops, found)
    again = tm.open(tmp_path).saved_rows("orders", again=True)
    assert (again.ref, again.report) == (found.ref, found.report)
    assert again.file is not None
    assert again.file.is_file()


def test_rows_that_cannot_be_made_again_say_why(shops: Session, tmp_path: Path) -> None:
    file = rows_file(tmp_path, 100)
    found = save(shops, file)
    rows_file(tmp_path, 99)
    with pytest.raises(DataError, match=r"orders\.parquet is not what it was"):
        shops.saved_rows("orders", again=True)
    file.unlink()
    with pytest.raises(MissingFile, match=r"there is no file 'orders\.parquet'"):
        shops.saved_rows("orders", again=True)
    assert shops.saved_rows("orders").ref == found.ref
    rows_file(tmp_path, 100)
    assert shops.saved_rows("orders", again=True).ref == found.ref


def test_rows_that_come_out_otherwise_are_refused(shops: Session, tmp_path: Path) -> None:
    found = save(shops)
    with sqlite3.connect(tmp_path / ".tidemill" / "records.db") as records:  # as if they had been made by other code
        records.execute("""UPDATE execution SET inputs = replace(inputs, '"as_known":true', '"as_known":false')""")
    with pytest.raises(Damaged, match="made again is something else"):
        tm.open(tmp_path).saved_rows("orders", again=True)
    assert read(shops.saved_rows("orders").file) == read(found.file)


def test_rows_of_a_dataset_are_those_that_were_known(shops: Session, tmp_path: Path) -> None:
    sales = shops.project.get(tm.Dataset, "sales")
    first = save(shops, sales, until="2024-03-10T11:00Z")
    assert read(first.file)["shop"] == [7, 8]
    assert list(read(first.file))[:5] == list(TYPES)
    assert read(save(shops, "dataset:sales").file)["newest__amount"] == [1.0, None, 1.0], "at the event time of each row"
    assert shops.historical_features(sales, ["newest:amount"]).columns["newest__amount"].tolist()[0] == 1.0
    write_table(tmp_path / "sales.parquet", TYPES, [*SALES, (9, "2024-03-09T10:00Z", "2024-03-11T10:00Z", 5.0, "y")])
    assert save(shops, "dataset:sales", until="2024-03-10T11:00Z").ref == first.ref
    assert first.ref is not None
    assert {node.ref.kind for node in lineage(shops.ledger, first.ref).parents} == {"dataset", "feature view"}


def test_a_saved_file_is_copied_too(shops: Session, tmp_path: Path) -> None:
    found = save(shops, to=tmp_path / "out.parquet")
    assert found.file == tmp_path / "out.parquet"
    assert read(found.file)["shop"] == [row[1] for row in rows_of_stream(found.frame)]
    with pytest.raises(StoreError, match="cannot write"):
        save(shops, to=tmp_path / "nowhere" / "out.parquet")


def test_no_rows_are_saved_too(shops: Session) -> None:
    nothing = pd.DataFrame({"shop": pd.Series([], dtype="int64"), "event_timestamp": pd.Series([], dtype="datetime64[us, UTC]")})
    assert read(save(shops, nothing).file)["newest__amount"] == []


@pytest.mark.parametrize(
    ("more", "kind", "what"),
    [
        ({"save": "my orders"}, DefinitionError, "name 'my orders' has ' '"),
        ({"save": True}, DefinitionError, "True is no text"),
        ({"chunk": -1}, DefinitionError, "chunk=-1 is below 0"),
        ({"chunk": 1e5}, DefinitionError, r"chunk=100000\.0 is no whole number"),
        ({"rows": "nowhere.parquet"}, MissingFile, "there is no file 'nowhere.parquet'"),
        ({"rows": pd.DataFrame({"shop": [7]})}, DataError, "the frame has no column 'event_timestamp'"),
        ({"until": "2024-03-10 11:00"}, DefinitionError, "zone"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_nothing(shops: Session, more: dict[str, Any], kind: type[Exception], what: str) -> None:
    shops.historical_features(pd.DataFrame(ROWS), ["newest", "counts"])
    with pytest.raises(kind, match=what):
        save(shops, **more)
    assert not shops.ledger.executions(kind="training rows", status="finished")


def test_a_file_that_changes_while_it_is_read_is_refused(shops: Session, tmp_path: Path) -> None:
    file = rows_file(tmp_path)
    with pytest.raises(DataError, match=r"orders\.parquet changed while it was read"):
        save(shops, file, listen=lambda *_: rows_file(tmp_path, 30))
    assert shops.ledger.executions(kind="training rows")[0].status == "failed"
    assert save(shops, file).report.rows == 30


def test_the_command_saves_and_tells(shops: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-C", str(tmp_path), "features", "get", str(rows_file(tmp_path, 100)), "--views", "newest, counts:n_1h", "--save", "orders"]
    for cached in (False, True):
        tidemill_(args=[*words, "--until", "2024-03-10T11:30Z", "--json"], standalone_mode=False)
        told = json.loads(capsys.readouterr().out)
        assert (told["cached"], told["until"], told["rows"]) == (cached, "2024-03-10T11:30:00Z", 100)
    assert told["ref"] == f"training rows:orders@{told['digest'][:12]}"
    tidemill_(args=[*words, "--to", str(tmp_path / "out.parquet"), "--chunk", "10"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "until: 2024-03-10T11:30:00Z → nothing" in " ".join(said.split())
    assert len(read(tmp_path / "out.parquet")["counts__n_1h"]) == 100
    tidemill_(args=["-C", str(tmp_path), "features", "saved", "--json"], standalone_mode=False)
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["saved"]] == ["orders", "orders"]
    tidemill_(args=["-C", str(tmp_path), "features", "saved"], standalone_mode=False)
    assert "orders@" in capsys.readouterr().out
    tidemill_(args=["-C", str(tmp_path), "features", "saved", told["ref"], "--again"], standalone_mode=False)
    assert "made again, the same" in capsys.readouterr().out
    with pytest.raises(click.UsageError, match="Missing argument 'NAME'"):
        tidemill_(args=["-C", str(tmp_path), "features", "saved", "--again"], standalone_mode=False)
    with pytest.raises(click.UsageError, match="Missing option '--views' or '--model'"):
        tidemill_(args=[*words[:5], "--save", "orders"], standalone_mode=False)
    with pytest.raises(click.UsageError, match="Missing option '--to' or '--save'"):
        tidemill_(args=words[:-2], standalone_mode=False)


# ── what ends first ─────────────────────────────────────────────────────────────────────────────────────────────────

KILLED = """
import sys, tidemill
def told(done, rows):
    print(done, flush=True)
    sys.stdin.readline()
tidemill.open(sys.argv[1]).historical_features(sys.argv[2], ["newest", "counts"], save="orders", chunk=2_000, listen=told)
"""


def test_what_was_killed_leaves_nothing_and_is_made_the_next_time(shops: Session, tmp_path: Path) -> None:
    file = rows_file(tmp_path)
    with other(KILLED, tmp_path, file) as process:
        for done in ("0", "2000"):
            assert process.says() == done
            process.go_on()
        assert process.says() == "4000"
        process.kill()
    assert [one.status for one in shops.ledger.executions(kind="training rows")] == ["running"]
    found = save(shops, file)
    assert found.why == "it was interrupted before"
    assert [one.status for one in shops.ledger.executions(kind="training rows")] == ["finished", "interrupted"]
    assert not list((tmp_path / ".tidemill").rglob(".part-*"))


def test_a_disk_that_refuses_leaves_nothing_half(shops: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(shops, views=["newest", "counts"])  # the views are there

    class Full:
        def write(self, data: bytes) -> None:
            raise StoreError("cannot write: no space left on device")

        def discard(self) -> None: ...

    monkeypatch.setattr(FolderBlobs, "part", lambda self: Full())
    with pytest.raises(StoreError, match="no space left"):
        save(shops, views=["counts"])
    monkeypatch.undo()
    assert [one.status for one in shops.ledger.executions(kind="training rows")] == ["failed", "finished"]
    assert save(shops, views=["counts"]).why


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────────────

MEASURED = """
import sys, tidemill
from tidemill.features import historical as _  # the module has the limit of the engine
sys.modules["tidemill.features.historical"].MEMORY = "100MB"
most = 0
def told(done, rows):
    global most
    most = max(most, next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")))
found = tidemill.open(sys.argv[1]).historical_features(sys.argv[2], ["newest", "counts"], save=sys.argv[3], chunk=50_000, listen=told)
told(0, 0)
print(most, found.report.rows)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells no process how much it holds")
def test_memory_does_not_grow_with_the_rows(shops: Session, tmp_path: Path) -> None:
    shops.historical_features(pd.DataFrame(ROWS), ["newest", "counts"])
    most = []
    for count in (100_000, 1_000_000):
        (tmp_path / str(count)).mkdir()
        done = run_python(MEASURED, tmp_path, rows_file(tmp_path / str(count), count), f"rows{count}")
        assert done.returncode == 0, done.stderr
        most.append(int(done.stdout.split()[0]) / 1024)
        assert done.stdout.split()[1] == str(count)
    assert most[1] < most[0] + 60, f"MiB: {most}"
