"""Files → dataset versions: what is wrong is said with file and line and loses nothing; equal content gives equal digests."""

import tempfile
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from data.conftest import ROWS, Folder
from disks import small_disk
from tidemill.core import DAY, HOUR, DataError, DefinitionError, MissingFile, StoreError, instant, version_of
from tidemill.data import Check, Dataset, Source, ask, engine, fresh, in_range, ingest, kept_open, not_null, stale, unique, versions
from tidemill.ledger import Artifact, Ledger

# ── what a version is ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_version_has_rows_types_and_a_profile_in_order_of_knowledge(here: Folder) -> None:
    version = here.ingest(key="id").output
    assert version.meta["types"] == {"id": "BIGINT", "t": "TIMESTAMP WITH TIME ZONE", "v": "BIGINT", "origin": "VARCHAR"}
    assert version.meta["rows"] == 3
    assert version.meta["profile"]["v"] == {"nulls": 1, "distinct": 2, "min": 5.0, "max": 7.0, "mean": 6.0}
    assert version.meta["first_event"] == instant("2013-01-01T09:00:00Z")
    assert version.meta["last_known"] == instant("2013-01-01T11:00:00Z")
    rows = here.scan(version, {"id": ("id", "number"), "known": ("__known", "instant"), "o": ("origin", "text")})
    assert rows["id"].tolist() == [3, 1, 2]  # type: ignore[union-attr]
    assert rows["known"].tolist() == [instant(f"2013-01-01T{hour}:00:00Z") for hour in ("09", "10", "11")]  # type: ignore[union-attr]
    assert rows["o"].texts() == ["JFK", "JFK", "LGA"]  # type: ignore[union-attr]


def test_known_times_are_their_own(here: Folder) -> None:
    version = here.ingest(query="SELECT *, t - INTERVAL 2 HOUR AS published FROM s", known_at="published").output
    assert version.meta["last_event"] - version.meta["last_known"] == 2 * HOUR


def test_unchanged_files_are_not_read_twice(here: Folder) -> None:
    assert not here.ingest().cached
    assert here.ingest().cached
    assert here.ingest(ROWS + "4,2013-01-02T10:00:00Z,5,JFK\n").why.startswith("sources.s: source:rows.csv@")


def test_a_changed_query_or_check_is_read_again_and_says_so(here: Folder) -> None:
    here.ingest(query="SELECT * FROM s")
    assert "definition.query" in here.ingest(query="SELECT * FROM s WHERE v > 0").why
    assert "definition.checks" in here.ingest(query="SELECT * FROM s WHERE v > 0", checks=[not_null("v")]).why


def test_equal_bytes_in_another_folder_are_the_same_version(tmp_path: Path, ledger: Ledger, folder_ledger: Ledger) -> None:
    one = Folder(tmp_path / "one", ledger).ingest().output
    assert Folder(tmp_path / "two", ledger).ingest().cached
    assert Folder(tmp_path / "three", folder_ledger).ingest().output.ref == one.ref


def test_another_key_is_another_version(here: Folder) -> None:
    assert here.ingest(key="id").output.ref != here.ingest(key=["id", "origin"]).output.ref


def test_lines_and_places_of_a_declaration_do_not_count(tmp_path: Path, ledger: Ledger) -> None:
    one, two = (Folder(tmp_path / name, ledger).dataset(query="q.sql") for name in "ab")
    for name in "ab":
        (tmp_path / name / "q.sql").write_text("SELECT * FROM s;\n")
    assert version_of(one) == version_of(two)


def test_a_version_leads_back_to_its_files(here: Folder) -> None:
    version = here.ingest().output
    (edge,) = here.ledger.parents(version.ref)
    assert (edge.role, edge.parent.split("@")[0]) == ("sources", "source:rows.csv")


# ── what a query may read ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("table", ["read_csv('{}')", "'{}'", "read_text('{}')", "s WHERE v IN (SELECT v FROM read_csv('{}'))"])
def test_a_query_reads_its_sources_and_no_other_file(here: Folder, tmp_path: Path, table: str) -> None:
    other = tmp_path / "other.csv"
    other.write_text(ROWS)
    here.folder.joinpath("q.sql").write_text(f"SELECT *\nFROM {table.format(other)}")
    error = here.refuses(DefinitionError, f"it reads {other}, which is no declared source", query="q.sql")
    assert error.where == f"{here.folder / 'q.sql'}:2"


def test_an_expression_reads_its_dataset_and_no_other_file(here: Folder) -> None:
    version = here.ingest().output
    with pytest.raises(DefinitionError, match=r"rows\.csv, which is no declared source"):
        here.scan(version, {"x": (f"(SELECT max(v) FROM read_csv('{here.folder / 'rows.csv'}'))", "number")})


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("now()", r"now\(\)"),
        ("current_date", "current_date"),
        ("CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP"),
        ("age(t)", r"age\(…\)"),
        ("ago(INTERVAL 1 DAY)", r"ago\(…\)"),
        ("(SELECT max(v) FROM s USING SAMPLE 2)", "a sample"),
        ("CASE WHEN v > 5 THEN list_transform([v], lambda x: x + random())[1] END", r"random\(\)"),
        ("sum(v) OVER (ORDER BY uuid())", r"uuid\(\)"),
    ],
)
def test_what_gives_another_value_tomorrow_is_refused(here: Folder, sql: str, name: str) -> None:
    here.folder.joinpath("q.sql").write_text(f"SELECT id, t, 'é' AS e,\n  {sql} AS v\nFROM s")
    error = here.refuses(DefinitionError, f"'d' cannot be reproduced: {name} gives another value each time", query="q.sql")
    assert error.where == f"{here.folder / 'q.sql'}:2"
    version = here.ingest().output
    with pytest.raises(DefinitionError, match=r"the expression .* over dataset 'd' cannot be reproduced"):
        here.scan(version, {"x": (sql, "number")})


def test_a_column_may_be_named_like_the_clock(here: Folder) -> None:
    version = here.ingest(
        ROWS.replace(",v,", ",current_date,"), query="SELECT * EXCLUDE (now), now FROM (SELECT *, id AS now FROM s) WHERE current_date > 5"
    )
    assert version.output.meta["rows"] == 1


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_file_is_said_with_the_declaration_and_the_place(here: Folder) -> None:
    error = here.refuses(MissingFile, "no file 'rows.csv'", rows=None)
    assert error.where == str(here.where)
    assert str(here.folder / "rows.csv") in error.hint


def test_a_missing_package_is_said_with_the_way_to_get_it(here: Folder) -> None:
    error = here.refuses(MissingFile, "package 'nosuchpackage' is not installed", rows=None, file="nosuchpackage:data/x.csv")
    assert error.hint == "pip install nosuchpackage"


def test_a_file_inside_a_package_is_found_without_importing_it(here: Folder) -> None:
    assert Source("numpy:version.py").file().name == "version.py"
    with pytest.raises(MissingFile, match=r"no file 'numpy:nothing\.csv'"):
        Source("numpy:nothing.csv").file()


def zipped(folder: Path, files: dict[str, str]) -> str:
    with zipfile.ZipFile(folder / "rows.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return "rows.zip"


def test_a_zip_with_one_file_is_that_file(here: Folder) -> None:
    file = zipped(here.folder, {"inner/rows.csv": ROWS, "__MACOSX/._rows.csv": "what a Mac adds"})
    assert here.ingest(None, file=file).output.meta["rows"] == 3


def test_a_zip_with_several_files_names_them(here: Folder) -> None:
    error = here.refuses(DataError, "holds 2 files, one is needed", rows=None, file=zipped(here.folder, {"a.csv": ROWS, "b.csv": ROWS}))
    assert error.available == ["a.csv", "b.csv"]


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_a_broken_zip_says_so(here: Folder, data: bytes) -> None:
    (here.folder / "rows.zip").write_bytes(data)
    error = here.refuses(DataError, "rows.zip cannot be unpacked", rows=None, file="rows.zip")
    assert error.where == str(here.folder / "rows.zip")


def test_an_unknown_format_is_refused_when_declared() -> None:
    with pytest.raises(DefinitionError, match="format 'xls' is not known") as error:
        Source("x.xls", format="xls")
    assert error.value.available == ["csv", "parquet", "json", "delta"]


def test_parquet_and_json_are_read_too(here: Folder) -> None:
    import duckdb

    (here.folder / "rows.csv").write_text(ROWS)
    for kind in ("parquet", "json"):
        path = here.folder / f"rows.{kind}"
        duckdb.sql(f"COPY (SELECT * FROM read_csv('{here.folder / 'rows.csv'}')) TO '{path}' (FORMAT {kind})")
        source = Source(path.name, format=kind, where=here.where)
        query = "SELECT id, CAST(t AS TIMESTAMPTZ) AS t, v, origin FROM s"
        version = ingest(here.ledger, Dataset(kind, {"s": source}, event_time="t", query=query, where=here.where)).output
        assert version.meta["rows"] == 3


@pytest.mark.parametrize("kind", ["TINYINT", "UTINYINT", "UINTEGER", "UBIGINT", "FLOAT", "DECIMAL(5,1)"])
def test_a_column_of_any_numbers_has_a_range_in_the_profile(here: Folder, kind: str) -> None:
    version = here.ingest(query=f"SELECT id, t, CAST(v AS {kind}) AS v FROM s").output
    assert version.meta["profile"]["v"] == {"nulls": 1, "distinct": 2, "min": 5.0, "max": 7.0, "mean": 6.0}


def test_an_empty_field_is_null_beside_other_words_for_it(here: Folder) -> None:
    version = here.ingest(
        "id,t,v\n1,2013-01-01T10:00:00Z,NA\n2,2013-01-01T10:00:00Z,\n3,2013-01-01T10:00:00Z,5\n", null_values=["NA"]
    ).output
    assert version.meta["types"]["v"] == "BIGINT"
    assert version.meta["profile"]["v"]["nulls"] == 2


def test_no_rows_are_a_version_too(here: Folder) -> None:
    version = here.ingest(
        "id,t\n", query="SELECT id, CAST(t AS TIMESTAMPTZ) AS t FROM s", key="id", checks=[not_null("id"), unique("id")]
    ).output
    assert (version.meta["rows"], version.meta["last_known"]) == (0, None)


# ── columns and times ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("more", "column"),
    [
        ({"event_time": "when"}, "when"),
        ({"known_at": "published"}, "published"),
        ({"key": ["id", "part"]}, "part"),
        ({"checks": [in_range("delay", 0, 1)]}, "delay"),
    ],
)
def test_a_missing_column_names_those_there_are(here: Folder, more: dict[str, Any], column: str) -> None:
    error = here.refuses(DefinitionError, f"no column '{column}'", **more)
    assert error.available == ["id", "t", "v", "origin"]
    assert error.where == str(here.where)


def test_a_column_that_is_no_time_is_refused(here: Folder) -> None:
    here.refuses(DataError, "column 'v' of dataset 'd' is a whole number, not a time", event_time="v")
    here.refuses(DataError, "column 'origin' of dataset 'd' is a text, not a time", known_at="origin")


def test_a_wrong_type_is_said_with_the_line_of_the_query(here: Folder) -> None:
    (here.folder / "d.sql").write_text("SELECT id, t,\n\n  CAST(origin AS INTEGER) AS o\nFROM s\n")
    error = here.refuses(DataError, "'JFK' in column 'origin' is no whole number", query="d.sql")
    assert error.where in (f"{here.folder / 'd.sql'}:3", str(here.folder / "d.sql"))


NAIVE = "id,t\n1,2013-07-01 10:00:00\n2,2013-01-01 10:00:00\n"


def test_times_without_a_zone_are_refused(here: Folder) -> None:
    error = here.refuses(DataError, "times of 't' in dataset 'd' have no time zone", NAIVE)
    assert "timezone=" in error.hint


def test_times_without_a_zone_are_read_in_the_declared_one(here: Folder) -> None:
    version = here.ingest(NAIVE, timezone="America/New_York").output
    assert version.meta["first_event"] == instant("2013-01-01T15:00:00Z")
    assert version.meta["last_event"] == instant("2013-07-01T14:00:00Z")


def test_times_with_a_zone_keep_it(here: Folder) -> None:
    version = here.ingest("id,t\n1,2013-01-01T10:00:00+05:30\n", timezone="America/New_York").output
    assert version.meta["last_event"] == instant("2013-01-01T04:30:00Z")


def test_a_zone_that_is_none_is_refused(here: Folder) -> None:
    with pytest.raises(DefinitionError, match="timezone='America/Nowhere' is not a time zone"):
        here.ingest(NAIVE, timezone="America/Nowhere")


# ── queries ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sql", "what", "line"),
    [
        ("SELECT id,\n  nope AS x, t\nFROM s\n", "there is no column 'nope'", 2),
        ("SELECT id, t,\n  gone AS Gone\nFROM s\n", "there is no column 'gone'", 2),
        ("SELECT id, t\nFRM s\n", "syntax error", 2),
        ("SELECT id, t\nFROM\n  nowhere\n", "there is no table 'nowhere'", 3),
        ("SELECT id, t FROM s;\nDROP TABLE s;\n", "syntax error", 1),
        ("-- nothing here\n", "syntax error: it ends too early", 2),
        ("DROP TABLE s", "syntax error", 1),
    ],
)
def test_wrong_sql_is_said_with_the_file_and_its_line(here: Folder, sql: str, what: str, line: int) -> None:
    (here.folder / "d.sql").write_text(sql)
    error = here.refuses(DefinitionError, what, query="d.sql")
    assert error.where == f"{here.folder / 'd.sql'}:{line}"


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("SELECT *, s.nope FROM s", "is wrong: there is no column 'nope' in 's'"),
        ("SELECT * FROM x, s WHERE y.id = 1", "is wrong: there is no table 'x'"),
        ("SELECT id FROM s, s AS other", "is wrong: column 'id' is in several tables"),
        ("SELECT *, CAST(origin AS DATE) AS w FROM s", r"'JFK' in column 'origin' is no date \(line 2 of rows.csv\)"),
        ("SELECT *, extract(foo FROM t) AS w FROM s", "'foo' is no part of a time"),
        ("SELECT *, foo(v) AS w FROM s", "is wrong: there is no function 'foo'"),
        ("SELECT *, origin + 1 AS w FROM s", r"is wrong: \+ does not take text, whole number"),
        ("SELECT *, origin > 1 AS w FROM s", "is wrong: text is compared with whole number"),
        ("SELECT t FROM s GROUP BY id", "is wrong: column 't' is neither in GROUP BY nor inside a function"),
        ("SELECT *, CAST(origin AS INT) AS w FROM s", r"'JFK' in column 'origin' is no whole number \(line 2 of rows.csv\)"),
        ("SELECT *, strptime(origin, '%Y') AS w FROM s", "'JFK' does not fit the format '%Y'"),
        ("SELECT *, CAST(5.5::DOUBLE AS DATE) AS w FROM s", "number cannot become date"),
        ("SELECT *, 9223372036854775807 + id AS w FROM s", "a number becomes too large: 9223372036854775807 . 1"),
        ("SELECT id, origin AS t FROM s", "column 't' of dataset 'd' is a text, not a time"),
        ("SELECT *, id FROM s", "the query of dataset 'd' gives two columns 'id'"),
        ("SELECT *, 1 AS V FROM s", "the query of dataset 'd' gives the columns 'v' and 'V', which differ by case alone"),
        ("SELECT s.*, o.* FROM s JOIN s AS o USING (id)", "the query of dataset 'd' gives two columns"),
        ("SELECT *, v AS __known FROM s", "has a column '__known': names that begin with __ are Tidemill's own"),
    ],
)
def test_what_the_engine_refuses_is_said_in_plain_words(here: Folder, sql: str, what: str) -> None:
    with pytest.raises((DefinitionError, DataError), match=what) as error:
        here.ingest(query=sql)
    assert error.value.where == str(here.where)  # type: ignore[attr-defined]
    assert error.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "data", "what"),
    [
        ("json", b"", "rows.json is empty"),
        ("json", b"[[1, 2], [3]]", "rows.json holds no objects with named fields"),
        ("json", b'[{"id": 1}, {"id":', "it is no JSON: record [0-9]+, byte 7: unexpected end of data"),
        ("parquet", b"", "rows.parquet is empty"),
        ("parquet", b"id,t\n1,2013-01-01\n", "it is no Parquet file, or a damaged one"),
    ],
)
def test_a_file_of_another_format_or_cut_off_is_said(here: Folder, kind: str, data: bytes, what: str) -> None:
    (here.folder / f"rows.{kind}").write_bytes(data)
    source = {"s": Source(f"rows.{kind}", format=kind, where=here.where)}
    with pytest.raises(DataError, match=what) as error:
        ingest(here.ledger, Dataset("d", source, "t", where=here.where))
    assert error.value.where == str(here.folder / f"rows.{kind}")
    assert error.value.hint


def test_wrong_sql_in_the_declaration_is_said_with_its_line(here: Folder) -> None:
    assert here.refuses(DefinitionError, "syntax error", query="SELECT id t FRM s").where == str(here.where)


def test_a_folder_is_no_source(here: Folder) -> None:
    (here.folder / "rows.csv").mkdir()
    assert here.refuses(MissingFile, "'rows.csv' is a folder", None).where == str(here.where)


def test_a_missing_query_file_is_said(here: Folder) -> None:
    assert here.refuses(MissingFile, "no file 'd.sql'", query="d.sql").where == str(here.where)


@pytest.mark.parametrize("end", ["", ";", ";\n", " ; \n\n", "\n-- a last word"])
def test_a_query_may_end_as_people_end_it(here: Folder, end: str) -> None:
    assert here.ingest(query=f"WITH a AS (SELECT * FROM s) SELECT * FROM a{end}").output.meta["rows"] == 3


# ── keys and checks ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (
            "id,part,t\n1,a,2013-01-01T10:00:00Z\n1,a,2013-01-02T10:00:00Z\n",
            r"unique key \(id, part\) fails for 2 rows, for example id=1, part=a",
        ),
        ("id,part,t\n1,a,2013-01-01T10:00:00Z\n2,,2013-01-02T10:00:00Z\n", "NULL key fails for 1 rows, for example id=2, part=None"),
        ("id,part,t\n1,a,2013-01-01T10:00:00Z\n2,b,\n", "NULL time fails for 1 rows"),
    ],
)
def test_keys_and_times_must_be_there_and_keys_unique(here: Folder, rows: str, what: str) -> None:
    assert here.refuses(DataError, what, rows, key=["id", "part"]).where == str(here.where)


def test_parts_of_a_key_may_repeat(here: Folder) -> None:
    rows = "id,part,t\n1,a,2013-01-01T10:00:00Z\n1,b,2013-01-02T10:00:00Z\n"
    assert here.ingest(rows, key=["id", "part"]).output.meta["rows"] == 2


@pytest.mark.parametrize(
    ("check", "what"),
    [
        (in_range("v", 6), r"in_range\(v, low=6\) fails for 1 rows, for example id=1, v=5"),
        (in_range("v", high=6), r"in_range\(v, high=6\) fails for 1 rows, for example id=3, v=7"),
        (not_null("v"), r"not_null\(v\) fails for 1 rows, for example id=2, v=None"),
        (unique("origin"), r"unique\(origin\) fails for 2 rows, for example id=3, origin=JFK"),
    ],
)
def test_a_check_that_fails_shows_a_row(here: Folder, check: Check, what: str) -> None:
    here.refuses(DataError, what, key="id", checks=[check])


@pytest.mark.parametrize("check", [in_range("v", 5, 7), in_range("v", 0, float("inf")), not_null("id"), unique("v"), fresh("1s")])
def test_a_check_that_holds_is_silent(here: Folder, check: Check) -> None:
    assert here.ingest(checks=[check]).output.meta["rows"] == 3


def test_a_check_that_cannot_run_is_the_declarations_fault(here: Folder) -> None:
    here.refuses(DefinitionError, r"check in_range\(origin, low=0\).* cannot run", checks=[in_range("origin", 0)])


def test_stale_data_is_an_alert_and_no_error(here: Folder) -> None:
    dataset, version = here.dataset(checks=[fresh("6h"), fresh("2d")]), here.ingest(checks=[fresh("6h"), fresh("2d")]).output
    newest = instant("2013-01-01T11:00:00Z")
    assert stale(dataset, version, newest + 6 * HOUR) == []
    assert stale(dataset, version, newest + 6 * HOUR + 1) == [
        "dataset 'd' is older than 6h: its newest row became known at 2013-01-01T11:00:00Z"
    ]
    assert len(stale(dataset, version, newest + 3 * DAY)) == 2
    assert len(stale(dataset, Artifact(version.ref, {"last_known": None}), newest)) == 2


def test_an_expression_over_a_version_that_is_wrong_is_said_with_its_place(here: Folder) -> None:
    version = here.ingest().output
    with pytest.raises(DefinitionError, match="nope") as error:
        here.scan(version, {"x": ("nope + 1", "number")}, "TRUE", source="flights.py:9")
    assert error.value.where == "flights.py:9"
    with pytest.raises(DataError, match="'JFK' in column 'origin' is no number"):
        here.scan(version, {"x": ("origin", "number")}, "TRUE")


@pytest.mark.parametrize("expression", ["avg(v) OVER ()", "lead(v) OVER (ORDER BY t)", "row_number() OVER ()"])
def test_an_expression_may_not_look_at_other_rows(here: Folder, expression: str) -> None:
    with pytest.raises(DefinitionError, match="may only use its own row"):
        here.scan(here.ingest().output, {"x": (expression, "number")}, "TRUE")


def test_a_column_is_named_as_the_query_says_not_as_the_file_does(here: Folder) -> None:
    """The engine's DESCRIBE gives the source's spelling where only the case differs."""
    rows = "Id,T,Origin\n1,2013-01-01T10:00:00Z,JFK\n"
    version = here.ingest(rows, query='SELECT "Id" AS id, "T" AS t, "Origin" AS origin FROM s', key="id").output
    assert list(version.meta["types"]) == ["id", "t", "origin"]


# ── files that move or cannot be read ───────────────────────────────────────────────────────────────────────────────


def test_a_file_that_is_written_while_it_is_read_makes_no_version(here: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version would be told to come from a content that its rows are not of."""
    load = versions.load_csv

    def written_before(connection: Any, name: str, path: Path, *more: Any) -> None:
        path.write_text(ROWS + "4,2013-01-02T10:00:00Z,5,JFK\n")
        load(connection, name, path, *more)

    monkeypatch.setattr(versions, "load_csv", written_before)
    here.refuses(DataError, "'rows.csv' changed while it was read")
    monkeypatch.undo()
    assert here.ingest(None).output.meta["rows"] == 4


def test_a_disk_that_is_full_while_unpacking_is_said(tmp_path: Path, here: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(here.folder / "rows.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", "id,t,v,origin\n" + "1,2013-01-01T10:00:00Z,5,JFK\n" * 100_000)
    with small_disk(tmp_path / "disk", "1m") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        error = here.refuses(StoreError, "cannot write rows.zip, unpacked: No space left", None, file="rows.zip")
    assert "free some space" in error.hint


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("SELECT a, b FROM t", "SELECT a,  -- the first\n  b /* both */\nFROM t", True),
        ("SELECT 'a -- b' FROM t", "SELECT 'a' FROM t", False),
        ("SELECT 'a  b' FROM t", "SELECT 'a b' FROM t", False),
        (r"SELECT e'\' -- x' FROM t", r"SELECT e'\' -- y' FROM t", False),
        ('SELECT "a  b" FROM t', 'SELECT "a b" FROM t', False),
        ("SELECT $$ a  b $$ FROM t", "SELECT $$ a b $$ FROM t", False),
        ("SELECT a - -b FROM t", "SELECT a --b\nFROM t", False),
    ],
)
def test_a_remark_in_a_query_is_no_change_of_it(one: str, two: str, same: bool) -> None:
    source = Source("t.csv")
    made = [version_of(Dataset("d", {"t": source}, query=query, event_time="a")) for query in (one, two)]
    assert (made[0] == made[1]) is same


def test_a_question_is_answered_alike_by_an_engine_of_its_own_and_by_one_that_is_kept_open() -> None:
    lower = partial(ask, "SELECT lower(?)")
    with kept_open():
        kept = [lower(text) for text in ("ÄÖ", "Ü", None)]
        with pytest.raises(duckdb.Error):
            ask("SELECT CAST(? AS INTEGER)", "ü")
        with kept_open():
            assert lower("Ü") == "ü", "an error ends nothing"
        assert lower("É") == "é", "nor does the end of what stands within"
    assert kept == [lower(text) for text in ("ÄÖ", "Ü", None)] == ["äö", "ü", None]


def test_a_query_that_takes_long_prints_nothing() -> None:
    with engine() as connection:  # to wait for its bar takes two seconds; to shorten that turns it on
        assert connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (False,)


def test_different_values_are_counted_and_very_many_estimated(here: Folder) -> None:
    columns = "range AS id, make_timestamptz(range) AS t, range % 9999 AS few, CASE WHEN range % 2 = 0 THEN range / 7 END AS many"
    found = here.ingest("id\n1\n", query=f"SELECT {columns} FROM range(100_000), s").output.meta["profile"]
    assert found["few"]["distinct"] == 9999
    assert found["many"] | {"distinct": 0} == {
        "nulls": 50_000,
        "distinct": 0,
        "min": 0.0,
        "max": 99_998 / 7,
        "mean": pytest.approx(49_999 / 7),
    }
    assert 45_000 < found["many"]["distinct"] <= 50_000
    assert 95_000 < found["id"]["distinct"] <= 100_000


@pytest.mark.parametrize("name", ["count(*)", "1 + 1", "random()", "(SELECT 1)"])
def test_a_column_whose_name_reads_as_an_expression_is_none_where_it_is_not_quoted(here: Folder, name: str) -> None:
    version = here.ingest(query=f'SELECT id, t, v AS "{name}" FROM s').output
    column = here.scan(version, {"x": (f'"{name}"', "number")})["x"]
    assert isinstance(column, np.ndarray)
    assert column[~np.isnan(column)].tolist() == [7.0, 5.0]
    if name in ("1 + 1", "(SELECT 1)"):  # the expression, not the column
        assert here.scan(version, {"x": (name, "number")})["x"].tolist() == [2.0 if name == "1 + 1" else 1.0] * 3
    else:
        with pytest.raises(DefinitionError, match=r"may only use its own row|cannot be reproduced"):
            here.scan(version, {"x": (name, "number")})


def test_a_column_whose_name_is_a_word_of_sql_is_refused_in_words_where_it_is_not_quoted(here: Folder) -> None:
    version = here.ingest(query='SELECT id, t, v AS "order" FROM s').output
    with pytest.raises(DefinitionError, match="the expression 'order' over dataset 'd' is wrong: syntax error"):
        here.scan(version, {"x": ("order", "number")}, source="views.py:7")


def test_what_is_ours_alone_is_read_with_the_engine_that_is_open(here: Folder) -> None:
    version = here.ingest().output
    with kept_open():
        ask("SELECT ?", 1)
        column = here.scan(version, {"x": ("v", "number"), "k": ("id", "whole")})
        with pytest.raises(DefinitionError, match="which is no declared source"):  # what a user wrote is confined as ever
            here.scan(version, {"x": (f"(SELECT count(*) FROM read_csv('{here.folder}/rows.csv'))", "number")})
    assert column["k"].texts() == ["3", "1", "2"]


def test_a_table_of_many_columns_is_profiled_as_one_of_few(here: Folder) -> None:
    """The engine takes minutes and gigabytes for thousands of counts of different values at once."""
    columns = ", ".join(f"v + {i} AS c{i}" for i in range(600))
    profile = here.ingest(query=f"SELECT id, t, {columns} FROM s").output.meta["profile"]
    assert {name: one["distinct"] for name, one in profile.items()} == {"id": 3, "t": 3} | {f"c{i}": 2 for i in range(600)}
    assert profile["c599"] == {"nulls": 1, "distinct": 2, "min": 604.0, "max": 606.0, "mean": 605.0}
