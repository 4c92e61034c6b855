"""CSV files as people send them: what is wrong is said with line, column and value; what is only unusual is read."""

import gzip
import zipfile

import pytest

from data.conftest import Folder
from tidemill.core import DataError, DefinitionError

NAMES, COUNT = "id,t,city,v", 300


def csv_of(changed: dict[int, str] | None = None, names: str = NAMES) -> str:
    """A CSV file of 300 rows; `changed` are lines of it, by number."""
    lines = [names, *(f"{i},2013-01-01T10:00:00Z,Bonn,{i}.5" for i in range(2, COUNT + 2))]
    for number, line in (changed or {}).items():
        lines[number - 1] = line
    return "\n".join(lines) + "\n"


# ── what breaks the shape ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("line", [3, 200, COUNT + 1])
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("7,2013-01-01T10:00:00Z,Bonn", "3 fields, there are 4 columns: 7,2013-01-01T10:00:00Z,Bonn"),
        ("total", "1 fields, there are 4 columns: total"),
        ("7,2013-01-01T10:00:00Z,Bonn,1,5", "5 fields, there are 4 columns"),
        ('7,2013-01-01T10:00:00Z,"Bonn,1.5', 'a quote that is not closed, .*: 7,2013-01-01T10:00:00Z,"Bonn,1.5'),
        ('7,2013-01-01T10:00:00Z,"Bo"nn",1.5', "stands alone inside a field"),
    ],
)
def test_a_line_of_another_shape_is_named(here: Folder, line: int, text: str, what: str) -> None:
    error = here.refuses(DataError, f"line {line} of rows.csv has .*{what}", csv_of({line: text}))
    assert error.where == f"{here.folder / 'rows.csv'}:{line}"
    assert error.hint


def test_a_quote_that_is_not_closed_does_not_change_the_values_of_others(here: Folder) -> None:
    """Left to guess, the engine takes all quotes as part of the values once one of them does not fit."""
    rows = csv_of().replace("Bonn", '"Bonn"')
    here.refuses(DataError, "line 200 of rows.csv has a quote", rows.replace('"Bonn",200.5', '"Bonn,200.5'))


@pytest.mark.parametrize(
    ("data", "what", "hint"),
    [
        (b"", "empty", "column names"),
        (b"\n\n \n", "empty", "column names"),
        (csv_of().encode("utf-16"), "looks like UTF-16", "iconv -f utf-16"),
        (csv_of({9: "7,2013-01-01T10:00:00Z,Köln,1"}).encode("latin-1"), r"not text in UTF-8: line 9 has b'.*K.xf6ln", "iconv -f latin1"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00" + bytes(range(256)), "not a CSV file", "save it as CSV"),
        (b"PAR1" + bytes(range(256)), "not a CSV file: it is Parquet", 'tm.Source("rows.csv", format="parquet")'),
        (b"PK\x03\x04" + bytes(range(256)), "not a CSV file", "unpack it"),
    ],
)
def test_a_file_that_is_no_text_says_what_it_is(here: Folder, data: bytes, what: str, hint: str) -> None:
    (here.folder / "rows.csv").write_bytes(data)
    error = here.refuses(DataError, f"rows.csv is .*{what}", rows=None)
    assert error.where.split(":")[0] == str(here.folder / "rows.csv")
    assert hint in error.hint


@pytest.mark.parametrize(("first", "other"), [("\n", "\r\n"), ("\r\n", "\n")])
def test_mixed_line_ends_are_named(here: Folder, first: str, other: str) -> None:
    lines = csv_of().splitlines()
    rows = first.join(lines[:200]) + other + other.join(lines[200:]) + other
    error = here.refuses(DataError, "line 200 of rows.csv ends with .*, the first line with ", rows)
    assert error.where == f"{here.folder / 'rows.csv'}:200"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (gzip.compress(csv_of().encode())[:-20], r"rows\.csv is packed with gzip and cannot be unpacked: it ends too early"),
        (b"\x1f\x8b" + bytes(50), "cannot be unpacked: it is damaged"),
    ],
)
def test_a_damaged_packed_file_is_told(here: Folder, data: bytes, what: str) -> None:
    (here.folder / "rows.csv").write_bytes(data)
    assert here.refuses(DataError, what, rows=None).where == str(here.folder / "rows.csv")


def test_a_packed_file_may_have_any_name(here: Folder) -> None:
    (here.folder / "rows.csv").write_bytes(gzip.compress(csv_of().encode()))
    assert here.ingest(None).output.meta["rows"] == COUNT


@pytest.mark.parametrize("name", ["rows[1].csv", "row*.csv", "rows?.csv"])
def test_a_name_is_no_pattern(here: Folder, name: str) -> None:
    (here.folder / "rows1.csv").write_text(csv_of())
    (here.folder / name).write_text("".join(csv_of().splitlines(keepends=True)[:3]))
    assert here.ingest(rows=None, file=name).output.meta["rows"] == 2


def test_lines_are_found_in_packed_files_too(here: Folder) -> None:
    text = csv_of({200: "7"})
    with gzip.open(here.folder / "rows.csv.gz", "wt") as file:
        file.write(text)
    assert here.refuses(DataError, "line 200 of rows.csv.gz has 1 fields", rows=None, file="rows.csv.gz").where.endswith(".gz:200")
    with zipfile.ZipFile(here.folder / "rows.zip", "w") as archive:
        archive.writestr("inner.csv", text)
    error = here.refuses(DataError, "line 200 of rows.zip has 1 fields", rows=None, file="rows.zip")
    assert error.where == f"{here.folder / 'rows.zip'}:200"


@pytest.mark.parametrize(
    "rows",
    [
        csv_of().replace("\n", "\r\n"),
        "\ufeff" + csv_of(),
        csv_of().replace(",", ";"),
        csv_of().replace(",", "\t"),
        csv_of().replace("Bonn", '"Bonn, ""North"""'),
        csv_of().replace("Bonn", '"Bo\nnn"'),
        csv_of().replace("Bonn", '5" pipe'),
        csv_of().replace("Bonn", r'"the \"old\", town"'),
        csv_of().replace("\n", "\n\n"),
        "# exported today, by hand\n" + csv_of(),
        "Report of today\n\n" + csv_of(),
    ],
)
def test_what_is_only_unusual_is_read(here: Folder, rows: str) -> None:
    version = here.ingest(rows).output
    assert (version.meta["rows"], list(version.meta["types"])) == (COUNT, NAMES.split(","))
    assert version.meta["profile"]["city"]["distinct"] == 1


# ── what is in the wrong column ─────────────────────────────────────────────────────────────────────────────────────

SUM = "SELECT id, CAST(t AS TIMESTAMPTZ) AS t, v + 1 AS more FROM s"
ODD = [("lots", 200), ("1,5", 2), ("1.234.5", COUNT + 1)]


@pytest.mark.parametrize(("value", "line"), ODD)
@pytest.mark.parametrize("query", [SUM, SUM.replace("v + 1", "CAST(v AS DOUBLE)"), SUM.replace("v + 1", "round(v)")])
def test_a_text_among_numbers_is_named(here: Folder, value: str, line: int, query: str) -> None:
    rows = csv_of({line: f'7,2013-01-01T10:00:00Z,Bonn,"{value}"'})
    error = here.refuses(DataError, f"line {line} of rows.csv has '{value}' in column 'v': no number, as 299 others are", rows, query=query)
    assert error.where == f"{here.folder / 'rows.csv'}:{line}"
    assert f'null_values=["{value}"]' in error.hint


@pytest.mark.parametrize("value", ["soon", "2013-02-30 10:00:00"])
@pytest.mark.parametrize("query", ["SELECT * FROM s", "SELECT id, timezone('UTC', t) AS t FROM s"])
def test_a_text_among_times_is_named(here: Folder, value: str, query: str) -> None:
    rows = csv_of({200: f"7,{value},Bonn,1"}).replace("T10:00:00Z", " 10:00:00")
    error = here.refuses(DataError, f"line 200 of rows.csv has '{value}' in column 't': no time, as 299 others are", rows, query=query)
    assert error.where.endswith("rows.csv:200")


@pytest.mark.parametrize("value", ["2013-01-01T10:00:00", "2013-01-01 10:00", "2013-01-01"])
def test_a_time_without_a_zone_among_others_with_one_is_named(here: Folder, value: str) -> None:
    """The engine would take it for one in UTC."""
    error = here.refuses(DataError, f"line 7 of rows.csv has '{value}' in column 't': no time zone", csv_of({7: f"7,{value},Bonn,1"}))
    assert error.where == f"{here.folder / 'rows.csv'}:7"


def test_offsets_and_zones_may_differ_from_line_to_line(here: Folder) -> None:
    zones = ("+02:00", "+0530", "-03", " Europe/Berlin", " UTC")
    version = here.ingest(csv_of({i: f"{i},2013-01-01T10:00:00{zone},Bonn,1" for i, zone in enumerate(zones, 2)}))
    assert version.output.meta["types"]["t"] == "TIMESTAMP WITH TIME ZONE"


def test_a_text_among_numbers_that_a_feature_needs_is_named(here: Folder) -> None:
    version = here.ingest(csv_of({200: "7,2013-01-01T10:00:00Z,Bonn,lots"})).output
    assert version.meta["types"]["v"] == "VARCHAR"  # nobody has said yet that it must be a number
    with pytest.raises(DataError, match=r"line 200 of rows\.csv has 'lots' in column 'v'"):
        here.scan(version, {"x": ("v", "number")}, source="flights.py:9")


def test_numbers_with_commas_that_a_query_needs_are_told_with_the_sql_for_them(here: Folder) -> None:
    rows = csv_of().replace(",", ";").replace(".5", ",5")
    error = here.refuses(DataError, "column 'v' of rows.csv holds numbers with decimal comma, such as '2,5' in line 2", rows, query=SUM)
    assert error.where == f"{here.folder / 'rows.csv'}:2"
    made = here.ingest(rows, query=SUM.replace("v + 1", error.hint.split(": ")[1])).output
    assert (made.meta["types"]["more"], made.meta["profile"]["more"]["min"]) == ("DOUBLE", 2.5)


def test_a_value_that_was_changed_on_its_way_is_found_in_the_file(here: Folder) -> None:
    rows = csv_of().replace(",", ";").replace(".5", ",5").replace("Bonn;9,5", "Bonn;12x")
    what = "line 9 of rows.csv has '12x' in column 'v': no number with decimal comma, as 299 others are"
    query = "SELECT id, t, CAST(replace(replace(v, '.', ''), ',', '.') AS DOUBLE) AS more FROM s"
    (here.folder / "d.sql").write_text(query)
    assert here.refuses(DataError, what, rows, query="d.sql").where == f"{here.folder / 'rows.csv'}:9"


def test_columns_of_text_are_not_blamed(here: Folder) -> None:
    rows = csv_of({i: f"{i},2013-01-01T10:00:00Z,Ulm,x{i}" for i in range(2, 100)})
    error = here.refuses(DataError, "'x2' in column 'v' is no number", rows, query=SUM.replace("v + 1", "CAST(v AS DOUBLE)"))
    assert error.what.endswith("(line 2 of rows.csv)")
    assert error.where == str(here.where), "the query is at fault"


def test_names_without_rows_are_said_where_types_are_needed(here: Folder) -> None:
    error = here.refuses(DataError, "rows.csv has column names and no rows", NAMES + "\n", query="SELECT timezone('UTC', t) AS t FROM s")
    assert error.where == str(here.folder / "rows.csv")
    assert "CAST(t AS TIMESTAMPTZ)" in error.hint
    assert "Parquet" in error.hint


def test_names_without_rows_are_enough_where_the_query_says_the_types(here: Folder) -> None:
    query = "SELECT CAST(id AS BIGINT) AS id, CAST(t AS TIMESTAMPTZ) AS t FROM s"
    version = here.ingest(NAMES + "\n", query=query).output
    assert (version.meta["rows"], version.meta["types"]) == (0, {"id": "BIGINT", "t": "TIMESTAMP WITH TIME ZONE"})


@pytest.mark.parametrize(
    ("names", "what"),
    [("id,t,id,v", "rows.csv has two columns 'id'"), ("id,t,ID,v", "rows.csv has the columns 'id' and 'ID', which differ by case alone")],
)
def test_two_columns_of_one_name_are_refused(here: Folder, names: str, what: str) -> None:
    error = here.refuses(DataError, what, csv_of(names=names))
    assert (error.available, "rename or drop one" in error.hint) == (names.split(","), True)


def test_columns_without_a_name_are_no_two_of_one(here: Folder) -> None:
    assert here.ingest(csv_of(names="id,t,,")).output.meta["rows"]


@pytest.mark.parametrize("names", ["id,t,city,w", "id,t,city"])
def test_a_column_that_is_gone_is_said_with_those_there_are(here: Folder, names: str) -> None:
    rows = csv_of(names=names) if names.count(",") == 3 else "\n".join([names, "1,2013-01-01T10:00:00Z,Bonn"]) + "\n"
    (here.folder / "d.sql").write_text("SELECT id, t,\n  v\nFROM s\n")
    error = here.refuses(DefinitionError, "there is no column 'v'", rows, query="d.sql")
    assert error.where == f"{here.folder / 'd.sql'}:2"
    assert error.available == [f"rows.csv: {names.replace(',', ', ')}"]
