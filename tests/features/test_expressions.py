"""What is compiled for one row is what the engine computes, to the last bit: for every function and cast of the tables, on hostile values;
and what the tables do not hold is refused."""

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tidemill as tm
from features.oracle import EXAMPLES
from tidemill.core import DAY, DataError, DefinitionError
from tidemill.data import confine, engine
from tidemill.features import casts
from tidemill.features.calendar import MONTHS, UNITS, civil, days_of
from tidemill.features.casts import cast
from tidemill.features.expressions import Expression, Value, compiled
from tidemill.features.functions import NULLS, TABLE
from tidemill.features.kinds import LETTERS, LIMITS, kind_of

Rows = list[dict[str, Any]]

# two columns of each type that matters; the first letter is the family by which the tables name it
TYPES = {
    f"{letter}{place}": kind
    for letter, kinds in {
        "i": ("INTEGER", "SMALLINT", "BIGINT", "UBIGINT", "HUGEINT", "TINYINT"),
        "d": ("DOUBLE", "DOUBLE", "FLOAT"),
        "n": ("DECIMAL(9,2)", "DECIMAL(18,4)", "DECIMAL(38,6)"),
        "f": ("BOOLEAN",) * 2,
        "s": ("VARCHAR",) * 3,
        "a": ("DATE",) * 2,
        "t": ("TIMESTAMP",) * 2,
        "z": ("TIMESTAMP WITH TIME ZONE",) * 2,
    }.items()
    for place, kind in enumerate(kinds, 1)
}
V = (
    "(t1 - t2)",
    *(f"INTERVAL '{text}'" for text in ("1 month 2 days 3 hours", "-1 month -2 days -3 hours", "1 month -2 days", "-1 month 26 hours")),
)  # no column is an interval
INFIX = {"+", "-", "*", "/", "//", "%", "**", "^", "||", "^@", "~~", "!~~"}
ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe")
ALPHABET = "abABz %_-.09éÜßİıΣς😀\xa0\t\n'\\日\u3000\u0301"


def near(*corners: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(corners)


def whole(kind: str) -> st.SearchStrategy[int]:
    low, high = LIMITS[kind]
    return near(0, 1, 2, 7, low, high, low + 1, high - 1, max(low, -1)) | st.integers(max(low, -100), 100) | st.integers(low, high)


CORNERS = (0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, -0.3, 1.005, 0.1, 1e16, 1e308, -1e308, 5e-324, 2.0**53, -(2.0**63), 2147483647.5)
NUMBERS = near(*CORNERS, 0.49999999999999994, math.pi, math.nan, math.inf, -math.inf) | st.floats(-1000, 1000) | st.floats()
TEXTS = near("", "a", "abc", " abc ", "ABC", "a%", "%a_c%", "_", "5", "-7", "12.5", "true", "2013-05-01", "2013-05-01 10:00:00") | st.text(
    ALPHABET, max_size=8
)
DAYS = near(0, -1, 59, 15706) | st.integers(-719_162, 2_932_896)  # years 1 to 9999
TIMES = near(0, -1, 1, DAY, -DAY, 1_356_998_400_000_000) | st.integers(-62_100_000_000, 253_300_000_000).map(lambda s: s * 1_000_000)
TIMES |= st.integers(-62_100_000_000_000_000, 253_300_000_000_000_000) | st.integers(1, 2**31).map(lambda s: s * 1_000_000)


def values_of(kind: str) -> st.SearchStrategy[Any]:
    known = kind_of(kind)
    plain = {"d": NUMBERS, "f": st.booleans(), "s": TEXTS, "a": DAYS, "t": TIMES, "z": TIMES}
    if known.letter == "i":
        found: st.SearchStrategy[Any] = whole(kind)
    elif known.letter == "n":
        most = 10**known.width - 1
        found = near(0, 5, -5, 50, -150, 250, most, -most) | st.integers(-10_000, 10_000) | st.integers(-most, most)
    else:
        found = plain[known.letter]
    if kind == "FLOAT":
        found = st.floats(width=32) | near(0.5, 2.5, 2.0**127)
    return st.none() | found


def rows_of(columns: Sequence[str]) -> st.SearchStrategy[Rows]:
    return st.lists(st.fixed_dictionaries({name: values_of(TYPES[name]) for name in columns}), min_size=1, max_size=25)


def literal(name: str, value: Any) -> str:
    kind = TYPES[name]
    match "NULL" if value is None else name[0]:
        case "n":
            scale = kind_of(kind).scale
            text = str(abs(value)).rjust(scale + 1, "0")
            return f"'{'-' * (value < 0)}{text[:-scale]}.{text[-scale:]}'::{kind}"
        case "s":
            return "'" + value.replace("'", "''") + "'"
        case "a":
            return f"(DATE '1970-01-01' + {value})"
        case "t" | "z":
            return f"make_timestamp{'tz' * (name[0] == 'z')}({value}::BIGINT)"
        case "NULL":
            return f"NULL::{kind}"
    return f"'{value}'::{kind}"


def typed(connection: Any, cases: Sequence[str]) -> list[str]:
    """The types of expressions."""
    connection.execute("CREATE OR REPLACE TABLE r (" + ", ".join(f"{name} {kind}" for name, kind in TYPES.items()) + ", place INTEGER)")
    return [str(connection.execute(f"SELECT {case} FROM r").description[0][1]) for case in cases]


HELD = {"DATE": "(({}) - DATE '1970-01-01')::BIGINT", "TIMESTAMP": "epoch_us({})", "TIMESTAMP WITH TIME ZONE": "epoch_us({})"}


def by_engine(connection: Any, cases: Sequence[str], kinds: Sequence[str], rows: Rows) -> list[tuple[Any, ...]]:
    """What the engine gives for each row; null where it refuses."""
    connection.execute("DELETE FROM r")
    names = list(rows[0])
    lines = [", ".join([*(literal(name, row[name]) for name in names), str(place)]) for place, row in enumerate(rows)]
    connection.execute(f"INSERT INTO r ({', '.join(names)}, place) VALUES ({'), ('.join(lines)})")
    shown = [HELD.get(kind, "CAST({} AS VARCHAR)" if kind.startswith("DECIMAL") else "{}") for kind in kinds]
    chosen = ", ".join(held.format(f"TRY({case})") for case, held in zip(cases, shown, strict=True))
    return list(connection.execute(f"SELECT {chosen} FROM r ORDER BY place").fetchall())


def one(value: Value, row: Mapping[str, Any]) -> Any:
    try:
        return value([row.get(name) for name in TYPES])
    except DataError:
        return None


def same(ours: Any, theirs: Any, kind: str) -> bool:
    if kind.startswith("DECIMAL") and theirs is not None:
        theirs = int(theirs.replace(".", ""))
    if ours is None and theirs in ("nan", "-nan"):
        return True  # a text that is refused
    if isinstance(ours, float) and isinstance(theirs, float):
        return struct.pack("d", ours) == struct.pack("d", theirs) or (math.isnan(ours) and math.isnan(theirs))
    return ours == theirs and type(ours) is type(theirs)


class Engine:
    """The engine, and cases that are compiled once."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.known: dict[tuple[str, ...], tuple[list[str], list[Value]]] = {}

    def check(self, cases: Sequence[str], rows: Rows) -> None:
        if tuple(cases) not in self.known:
            kinds = typed(self.connection, cases)
            values = compiled(TYPES, {case: Expression(case, kind) for case, kind in zip(cases, kinds, strict=True)})
            self.known[tuple(cases)] = (kinds, list(values.values()))
        kinds, values = self.known[tuple(cases)]
        for row, theirs in zip(rows, by_engine(self.connection, cases, kinds, rows), strict=True):
            for case, kind, value, their in zip(cases, kinds, values, theirs, strict=True):
                our = one(value, row)
                assert same(our, their, kind), f"{case}: {our!r} for one row, {their!r} by the engine: {row}"


@pytest.fixture(scope="module")
def reference() -> Iterator[Engine]:
    with engine() as connection:
        yield Engine(connection)


# ── every function of the table ─────────────────────────────────────────────────────────────────────────────────────


def calls(entry: str) -> list[str]:
    """Calls of a function of the table, with columns of its families, each as first and as second argument."""
    name, _, families = entry.partition(" ")
    columns = [[column for column in TYPES if column[0] == letter] or list(V) for letter in families]
    if name.startswith(("date_", "datetrunc", "datediff", "datesub")):
        columns[0] = [f"'{unit}'" for unit in [*UNITS, *([] if "sub" in name else MONTHS), "hours", "dow"][:-1]]
    elif name == "timezone":
        columns[0] = [f"'{zone}'" for zone in ZONES]
    elif entry == "round ni":
        columns[1] = ["-1", "0", "1", "5"]
    elif name.endswith("like_escape"):
        columns[2] = ["'!'"]
    elif families == "ai":  # a date of the engine wraps around at its lower end
        columns[1] = ["i2", "i6"]
    elif name in ("substr", "substring", "left", "right"):
        columns[1:] = [["i2", "-2", "0", "3", "i3"] for _ in columns[1:]]
    if name == "position":
        return ["position(s1 IN s2)", "position('a' IN s1)"]
    if name == "normalized_interval":
        return ["(t1 - t2) > INTERVAL 1 DAY", "(t1 - t2) = (t2 - t1)"]
    found = []
    for place, shift in product(range(5), range(3)):
        arguments = [column[(place + shift * k) % len(column)] for k, column in enumerate(columns)]
        infix = f"{arguments[0]} {name} {arguments[1]}" if len(arguments) == 2 else f"{name} {arguments[-1]}" if arguments else ""
        found.append(f"({infix})" if name in INFIX else f"{name}({', '.join(arguments)})")
    return sorted(set(found))


def asked(entry: str) -> list[str]:
    """The same with what can be compared: an interval by its length."""
    name, _, families = entry.partition(" ")
    interval = name.startswith("to_") or (name == "-" and families in ("tt", "zz"))
    return [f"epoch({call})" if interval else call for call in calls(entry)]


def bound(connection: Any, sql: str) -> bool:
    """Whether the engine takes a call; some of the calls above have no overload for just these widths."""
    typed(connection, ["1"])
    try:
        return connection.execute(f"SELECT {sql} FROM r LIMIT 0") is not None
    except duckdb.Error:
        return False


@pytest.mark.parametrize("entry", sorted(TABLE))
def test_every_function_gives_what_the_engine_gives(reference: Engine, entry: str) -> None:
    cases = [case for case in asked(entry) if bound(reference.connection, case)]
    assert cases, f"no call of {entry!r} is known"
    used = [name for name in TYPES if any(name in case for case in cases)] or ["i1"]

    @settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(rows_of(used))
    def check(rows: Rows) -> None:
        if entry == "- zz":  # the engine errs by a millisecond before 1970: such are refused
            rows = [{name: value and value // 1_000 * 1_000 for name, value in row.items()} for row in rows]
        reference.check(cases, rows)

    check()


PAIRS = [(a, b) for a, b in product(sorted({*TYPES.values()}), repeat=2) if a != b and cast(kind_of(a), kind_of(b))]


@pytest.mark.parametrize("source", sorted({a for a, _ in PAIRS}))
def test_every_cast_gives_what_the_engine_gives(reference: Engine, source: str) -> None:
    name = next(column for column, kind in TYPES.items() if kind == source)
    cases = [f"CAST({name} AS {b})" for a, b in PAIRS if a == source]

    @settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(rows_of([name]))
    def check(rows: Rows) -> None:
        reference.check(cases, rows)

    check()


COMPARED = [
    ("i1", "i3"),
    ("d1", "d2"),
    ("n1", "n2"),
    ("s1", "s2"),
    ("f1", "f2"),
    ("a1", "a2"),
    ("t1", "t2"),
    ("z1", "z2"),
    ("i1", "d1"),
    ("t1", "z1"),
    ("a1", "t1"),
]
COMPOUND = [
    *(f"{a} {sign} {b}" for a, b in COMPARED for sign in ("=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM")),
    *(f"{name}({a}, {b})" for a, b in COMPARED for name in ("greatest", "least", "coalesce", "nullif", "ifnull")),
    *(f"{name}({a}, {b}, NULL)" for a, b in COMPARED for name in ("greatest", "least")),
    *(f"{a} {sign} ({b}, NULL)" for a, b in COMPARED for sign in ("IN", "NOT IN")),
    *(f"{a} {sign} ({b}, {a})" for a, b in COMPARED[:3] for sign in ("IN", "NOT IN")),
    *(f"{a} BETWEEN {b} AND {a}" for a, b in COMPARED),
    *"""\
f1 AND f2
f1 OR f2
NOT f1
f1 AND NOT f2 OR i1 > 1
f1 IS NULL
d1 IS NOT NULL
f1 AND NULL
f1 OR NULL
CASE i1 WHEN 1 THEN 'a' WHEN 2 THEN s1 END
CASE WHEN d1 > 1 THEN 'x' WHEN f1 THEN s1 ELSE s2 END
if(f1, 1, 2.5)
CASE WHEN i1 <> 0 THEN 10 // i1 ELSE 0 END
CASE WHEN true THEN i1 ELSE i3 END
TRY(CAST(s1 AS INTEGER))
TRY_CAST(s1 AS DOUBLE)
TRY_CAST(d1 AS SMALLINT)
s1 LIKE 'a%'
s1 LIKE '%a_c'
s1 ILIKE s2
s1 NOT ILIKE 'A%'
s1 LIKE 'a!%' ESCAPE '!'
concat(s1, i1, s2)
concat_ws('-', s1, s2)
concat_ws(s1, s2, i1)
trim(upper(s1))
t1 > '2013-01-01'
z1 > TIMESTAMPTZ '2013-01-01 00:00:00+00'
a1 = DATE '2013-01-01'
n1 > 5
n1 * 0.1 + i1
3000000000 + i1
99999999999999999999 + i5
i1 + 0.5
d1 BETWEEN 0 AND 1.5
extract(epoch FROM z1)
date_part('dow', t1)
i1 + NULL
t1 + INTERVAL (i2) HOUR
z1 + INTERVAL 13 MONTH
t1 - INTERVAL '1 month 2 days 3 hours'
hour(z1 AT TIME ZONE 'Europe/London')
2 * 6371 * asin(sqrt(pow(sin(radians(d1 - d2) / 2), 2) + cos(radians(d1)) * cos(radians(d2)) * pow(sin(radians(d2 - d1) / 2), 2)))
""".splitlines(),
]


@settings(max_examples=2 * EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(rows=rows_of([name for name in TYPES if name not in ("d3", "n3", "i4", "i6", "s3")]))
def test_what_is_put_together_gives_what_the_engine_gives(reference: Engine, rows: Rows) -> None:
    reference.check(COMPOUND, rows)


def test_the_hours_when_clocks_change(reference: Engine) -> None:
    """Local times that are left out and that come twice, in both directions."""
    cases = [f"{name} AT TIME ZONE '{zone}'" for zone in ZONES for name in ("t1", "z1")]
    quarters = [hour * 3_600_000_000 + minute * 60_000_000 for hour in range(-26, 27) for minute in (0, 15, 30, 45)]
    changes = [1_363_000_000_000_000 // DAY * DAY + days * DAY for days in (-1, 19, 26, 208, 229, 236)]  # of 2013
    reference.check(cases, [{"t1": day + quarter, "z1": day + quarter} for day in changes for quarter in quarters])


@given(st.integers(-(2**40), 2**40))
def test_days_are_dates_both_ways(days: int) -> None:
    assert days_of(*civil(days)) == days


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────────

OUTSIDE = [
    "",
    *"""\
random()
now()
current_date
current_timestamp
today()
nextval('s')
getenv('HOME')
uuid()
(SELECT 1)
i1 IN (SELECT 1)
EXISTS (SELECT 1)
(SELECT max(i1) FROM __row)
(SELECT count(*) FROM read_csv('/etc/passwd'))
sum(i1)
count(*)
avg(d1) OVER ()
row_number() OVER ()
lag(i1) OVER (ORDER BY i3)
unnest([1, 2])
[i1, i3]
[i1, i3][1]
{'a': i1}
list_sum(list_transform([1, 2], lambda x: x + 1))
md5(s1)
hash(s1)
regexp_matches(s1, 'a')
strftime(t1, '%H')
repeat(s1, 1000000000)
s1[1]
s1[1:2]
columns(*)
*
__row
1 FROM __row; DROP TABLE __row; SELECT (1
1), (2
i1;
1) AS x FROM (SELECT 1 AS i1) --
i1) AS DOUBLE) FROM __row WHERE (i1 > 1
date_trunc(s1, t1)
date_trunc('fortnight', t1)
timezone(s1, t1)
n3 % floor(n3)
s1 LIKE 'a' ESCAPE s2
s1 LIKE 'a' ESCAPE '!!'
t1 AT TIME ZONE 'Nowhere/Else'
round(n1, i1)
nothing
i1 +
pragma_version()
query('SELECT 1')
error('x')
'a' COLLATE NOCASE = s1
CAST(s1 AS UUID)
CAST(s1 AS INTEGER[])
i1 & 1
age(t1)
""".splitlines(),
]


@pytest.mark.parametrize("sql", OUTSIDE)
def test_what_the_subset_lacks_is_refused_with_its_place(sql: str) -> None:
    with pytest.raises(DefinitionError) as error:
        compiled(TYPES, {"x": Expression(sql, "VARCHAR", "features.py:7")})
    assert error.value.where == "features.py:7"
    assert error.value.hint


ODD = {"ns": "TIMESTAMP_NS", "id": "UUID", "clock": "TIME", "level": "ENUM('low', 'high')", "list": "INTEGER[]", "one": "STRUCT(a INTEGER)"}


@pytest.mark.parametrize(
    "sql", ["ns > '2013-01-01'", "list[1]", "one.a", "hour(clock)", "ns IN (ns)", "id::VARCHAR::UUID = id", "greatest(ns, ns)"]
)
def test_types_that_are_not_known_are_read_as_text_and_no_otherwise(sql: str) -> None:
    """As text they would be compared by their letters, and by what they mean among all rows."""
    with pytest.raises(DefinitionError):
        compiled(ODD, {"x": Expression(sql, "VARCHAR")})
    value = compiled(ODD, {"x": Expression("CASE WHEN id IS NOT NULL THEN lower(CAST(level AS VARCHAR)) END", "VARCHAR")})["x"]
    assert value([None, "6ccd", None, "low", None, None]) == "low"


def test_the_part_that_is_refused_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"'md5\(s1\)' in the expression .* md5\(VARCHAR\) is not in the subset") as error:
        compiled(TYPES, {"x": Expression("length('é') + length(md5(s1))", "DOUBLE")})
    assert "docs/expressions.md" in str(error.value)


@pytest.mark.parametrize(
    "sql", ["(" * 300 + "i1" + ")" * 300, "abs(" * 300 + "i1" + ")" * 300, "+".join(["i1"] * 2_000), "NOT " * 900 + "f1"]
)
def test_deep_nesting_neither_ends_the_process_nor_gets_to_a_request(sql: str) -> None:
    try:
        value = compiled(TYPES, {"x": Expression(sql, "VARCHAR")})["x"]
    except DefinitionError:
        return
    assert one(value, {"i1": 3, "f1": True}) == "3"  # parentheses alone are nothing


def test_a_text_of_megabytes_is_refused_where_it_is_declared() -> None:
    trips = tm.Dataset("trips", {"s": tm.Source("x.csv")}, event_time="t", key="id")
    with pytest.raises(DefinitionError, match="has 10,000,001 characters") as error:
        tm.RequestView("v", trips, features={"x": "1" + "+" * 10_000_000})
    assert "test_expressions.py:" in str(error.value.where)


def test_a_like_pattern_takes_no_longer_for_being_hostile(reference: Engine) -> None:
    value = compiled({"s1": "VARCHAR", "s2": "VARCHAR"}, {"x": Expression("s1 LIKE s2", "BOOLEAN")})["x"]
    assert value(["a" * 5_000 + "b", "%a" * 500 + "%c"]) is False
    assert value(["a" * 5_000 + "b", "%a" * 500 + "%b"]) is True


@pytest.mark.parametrize(
    "sql", ["TRY_CAST(d1 AS VARCHAR)", "TRY(epoch(z1 - z2))", "TRY(t1 AT TIME ZONE 'Asia/Tokyo')", "TRY_CAST(s1 AS DATE)"]
)
def test_what_the_engine_may_give_otherwise_is_refused_within_try_too(sql: str) -> None:
    """Null would be a value, and another one than that of all rows."""
    value = compiled(TYPES, {"x": Expression(sql, "VARCHAR")})["x"]
    row = {"d1": math.nan, "z1": 5, "z2": -5, "t1": 2**62, "s1": "infinity"}
    with pytest.raises(DataError):
        value([row.get(name) for name in TYPES])


def test_what_is_no_number_is_said_once() -> None:
    with pytest.raises(DataError) as error:
        compiled(TYPES, {"x": Expression("CAST(s1 AS DOUBLE)", "DOUBLE")})["x"]([{"s1": "a"}.get(name) for name in TYPES])
    assert error.value.what == "cast to DOUBLE: 'a' is no number"


def test_texts_of_a_client_fill_no_memory() -> None:
    value = compiled(TYPES, {"x": Expression("replace(s1, 'a', s2)", "VARCHAR")})["x"]
    with pytest.raises(DataError, match="more than 10,000,000 characters"):
        value([{"s1": "a" * 100_000, "s2": "b" * 100_000}.get(name) for name in TYPES])
    casts.by_engine.__wrapped__.cache_clear()
    assert casts.by_engine("1" + "0" * 200, "VARCHAR", kind_of("DOUBLE")) == 1e200
    assert casts.by_engine.__wrapped__.cache_info().currsize == 0, "what is long is not kept"


@pytest.mark.parametrize("kind", ["BIGINT", "DOUBLE", "DECIMAL(9,2)", "VARCHAR", "TIMESTAMP", "BOOLEAN"])
@pytest.mark.parametrize("value", [10**400, -(10**40), "soon", 1e300, object()])
def test_a_value_that_is_none_of_its_type_is_no_error_of_ours(kind: str, value: Any) -> None:
    try:
        casts.received(kind)(value)
    except DataError:
        return
    assert (kind, type(value)) in {
        ("DOUBLE", float),
        ("DOUBLE", int),
        ("VARCHAR", str),
        ("VARCHAR", float),
        ("BOOLEAN", float),
        ("BOOLEAN", int),
    }


def test_nothing_of_a_row_calls_the_engine() -> None:
    """The engine may not be asked for usual values: it would cost more than all else."""
    values = compiled(TYPES, {case: Expression(case, "VARCHAR") for case in COMPOUND})
    casts.by_engine.__wrapped__.cache_clear()
    row = {"i1": 1, "i2": 2, "i3": 3, "i5": 5, "d1": 0.5, "d2": 2.5, "n1": 150, "n2": 5, "f1": True, "f2": False, "s1": "12", "s2": "ab"}
    row |= {"a1": 15_706, "a2": 59, "t1": 1_356_998_400_000_000, "t2": 0, "z1": 1_356_998_400_000_000, "z2": 1}
    for value in values.values():
        one(value, row)
    assert casts.by_engine.__wrapped__.cache_info().misses == 0


def test_every_function_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "expressions.md").read_text(encoding="utf-8")
    words = {word.replace("\\", "") for word in re.findall(r"[^\s,`;()'\[\]]+", text)}
    names = {entry.split()[0] for entry in TABLE} | set(NULLS)
    spelt = {"~~": "LIKE", "!~~": "LIKE", "like_escape": "ESCAPE", "not_like_escape": "ESCAPE", "normalized_interval": "INTERVAL"}
    assert not {name for name in names if spelt.get(name, name) not in words}
    assert set(LETTERS.values()) <= set("idnfsatzv0")


def test_plans_are_read_as_this_engine_writes_them() -> None:
    """Where the engine writes its tree otherwise, all is refused: this says so before a user finds out."""
    with engine() as connection:
        confine(connection)
        connection.execute("CREATE TABLE r (i INTEGER)")
        text = (connection.execute("SELECT json_serialize_plan('SELECT i + 1 FROM r')").fetchone() or ("",))[0]
    node = json.loads(text)["plans"][0]["expressions"][0]
    assert {"expression_class", "children", "return_type", "qname", "query_location"} <= set(node)
