"""SQL expressions over one row, compiled once: a request is computed without a call of the engine, which costs hundreds of microseconds.

The engine parses and binds a text, so names, types and casts are its own. Its tree becomes functions of a row (`functions.py`), a value
each, null as None (`kinds.py`). What the tables do not hold is refused: nothing is computed almost alike.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tidemill.core import DataError, DefinitionError
from tidemill.data import confine, engine, explained, ours, quote
from tidemill.features.casts import cast
from tidemill.features.functions import COMPARISONS, NULLS, TABLE
from tidemill.features.kinds import Kind, Shape, Unsure, single

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Row = Sequence[Any]
Value = Callable[[Row], Any]
Node = dict[str, Any]
DEEPEST = 100  # functions within each other: each is a call of Python
START = "SELECT CAST(("
SUBSET = "write it with what docs/expressions.md lists, or compute it in the query of the dataset"


class Beyond(Exception):
    """A part of an expression that the tables do not hold."""

    def __init__(self, what: str, node: Node) -> None:
        super().__init__(what)
        self.place, self.size = node.get("query_location", 0), node.get("query_location_length", 0)


@dataclass(frozen=True)
class Expression:
    """One SQL expression, what it is cast to, and the file and line to name in errors."""

    sql: str
    kind: str
    where: str = ""


def compiled(types: Mapping[str, str], expressions: Mapping[str, Expression]) -> dict[str, Value]:
    """Expressions by name, as functions of a row that holds the columns in their order. Raises DefinitionError for what cannot be."""
    return dict(zip(expressions, _values(tuple(types.items()), tuple(expressions.values())), strict=True))


@lru_cache(1_000)
def _values(types: tuple[tuple[str, str], ...], expressions: tuple[Expression, ...]) -> list[Value]:
    """The functions hold nothing of their rows: who asks for the same again, as each read and push does, needs no engine."""
    columns = dict(types)
    with _over(columns) as connection:
        return [_compiled(connection, list(columns), expression) for expression in expressions]


def columns_read(types: Mapping[str, str], expressions: Sequence[str]) -> list[str]:
    """The columns that expressions read, in the order of `types`. They are such as can be compiled."""
    with engine() as connection:
        connection.execute(f"CREATE TABLE __row ({', '.join(f'{quote(name)} {kind}' for name, kind in types.items())})")
        shown = ", ".join(f"({sql}\n)" for sql in expressions)
        row = connection.execute("SELECT json_serialize_plan(?)", [f"SELECT {shown} FROM __row"]).fetchone()
    places = {column["index"] for column in json.loads(row[0] if row else "")["plans"][0]["children"][0]["column_indexes"]}
    return [name for place, name in enumerate(types) if place in places]  # without any the engine names one that is none


def as_the_engine(types: Mapping[str, str], expressions: Sequence[Expression]) -> bool:
    """Whether the engine gives for many rows what is compiled, wherever the latter gives a value. It does where no floating number becomes
    a text and no text a time: of some of these (NaN, infinity) what is compiled gives none, as nobody knows what the engine would."""
    with _over(types) as connection:
        level = [top for one in expressions for plan in _planned(connection, one)["plans"] for top in plan["expressions"]]
    while level:
        for node in level:
            if node["type"] == "OPERATOR_CAST":
                ways = _kind(node["children"][0]).letter + _kind(node).letter
                if ways in ("ds", "sa", "st", "sz"):
                    return False
        level = [part for node in level for part in _parts(node)]
    return True


@contextmanager
def _over(types: Mapping[str, str]) -> Iterator["DuckDBPyConnection"]:
    """An engine with a table of such rows, and nothing else that an expression could read."""
    columns = ", ".join(f"{quote(name)} {kind}" for name, kind in types.items())
    with engine() as connection:
        confine(connection)
        with explained("the columns of a request cannot be made"):
            connection.execute(f"CREATE TABLE __row ({columns})")
        yield connection


def _planned(connection: "DuckDBPyConnection", expression: Expression) -> Node:
    """The tree of an expression, or its error, as the engine tells it."""
    what, where = f"the expression {expression.sql!r} is wrong", expression.where
    with explained(what, where):
        row = connection.execute(
            "SELECT json_serialize_plan(?)", [f"{START}{expression.sql}\n) AS {expression.kind}) FROM __row"]
        ).fetchone()
    try:
        tree: Node = json.loads(row[0] if row else "")
    except (ValueError, RecursionError):
        raise DefinitionError(f"the expression {expression.sql!r} cannot be read", where=where, hint=SUBSET) from None
    return tree


def _compiled(connection: "DuckDBPyConnection", columns: list[str], expression: Expression) -> Value:
    sql, where = expression.sql, expression.where
    what, tree = f"the expression {sql!r} is wrong", _planned(connection, expression)
    if tree["error"]:
        said, hint = ours(str(tree["error_message"]))
        raise DefinitionError(f"{what}: {said}", where=where, available=columns, hint=hint or SUBSET)
    try:
        return _of_plan(tree["plans"], columns)
    except Beyond as beyond:
        text = sql.encode()[max(beyond.place - len(START), 0) :][: beyond.size].decode(errors="replace") if beyond.size else ""
        part = f"{text!r} in " if text and text != sql else ""
        problem = f"{part}the expression {sql!r} cannot be computed for one request: {beyond}"
        raise DefinitionError(problem, where=where, hint=SUBSET) from None


def _of_plan(plans: list[Node], columns: list[str]) -> Value:
    top = plans[0]
    source = top["children"][0] if top.get("children") else {}
    only = len(plans) == 1 and top["type"] == "LOGICAL_PROJECTION" and len(top["expressions"]) == 1
    if not only or source.get("type") != "LOGICAL_GET" or source.get("function_data", {}).get("table") != "__row":
        raise Beyond("it reads more than its row", {})
    if _depth(top["expressions"][0]) > DEEPEST:
        raise Beyond("it is nested too deep", {})
    return Compiler([column["index"] for column in source["column_indexes"]]).value(top["expressions"][0])


def _depth(node: Node) -> int:
    """How many functions stand within each other."""
    depth, level = 0, [node]
    while level:
        depth, level = depth + 1, [part for parent in level for part in _parts(parent)]
    return depth


def _parts(node: Node) -> list[Node]:
    checks = [part for check in node.get("case_checks", ()) for part in check.values()]
    return [*node.get("children", ()), *checks, *([node["else_expr"]] if "else_expr" in node else [])]


@dataclass(frozen=True)
class Compiler:
    """The engine's tree as functions of a row; `columns` are those that the tree reads, by their places in the row."""

    columns: Sequence[int]

    def value(self, node: Node) -> Value:
        """A node as a function. Raises Beyond."""
        match node["expression_class"]:
            case "BOUND_REF":
                return _column(self.columns[node["index"]])
            case "BOUND_CONSTANT":
                return _Constant(_constant(node))
            case "BOUND_CASE":
                return self._case(node)
            case "BOUND_CONJUNCTION":
                return _all(self._children(node), decides=node["type"] == "CONJUNCTION_OR")
            case "BOUND_OPERATOR":
                return self._operator(node)
            case "BOUND_FUNCTION":
                return self._cast(node) if node["type"] == "OPERATOR_CAST" else self._function(node)
        raise Beyond(f"{node['expression_class'].removeprefix('BOUND_').lower()} is not in the subset", node)

    def _children(self, node: Node) -> list[Value]:
        return [self.value(child) for child in node["children"]]

    def _case(self, node: Node) -> Value:
        branches = []
        otherwise = None
        for check in node["case_checks"]:
            when = self.value(check["when_expr"])
            if isinstance(when, _Constant) and not when.constant:
                continue
            branches.append((when, self.value(check["then_expr"])))
            if isinstance(when, _Constant):
                otherwise = branches.pop()[1]
                break
        otherwise = otherwise or self.value(node["else_expr"])
        if not branches:
            return otherwise
        return _choice(branches, otherwise)

    def _cast(self, node: Node) -> Value:
        child = node["children"][0]
        source, target = _kind(child), _kind(node)
        convert = cast(source, target)
        if convert is None or not target.letter:
            raise Beyond(f"a cast from {source} to {target} is not in the subset", node)
        value = self.value(child)
        if source == target:
            return value
        found = _strict(convert, [value])
        return _tried(found) if node["function_data"]["try_cast"] else found

    def _operator(self, node: Node) -> Value:
        children = self._children(node)
        match node["type"]:
            case "OPERATOR_NOT":
                return _strict(lambda flag: not flag, children)
            case "OPERATOR_IS_NULL":
                return lambda row: children[0](row) is None
            case "OPERATOR_IS_NOT_NULL":
                return lambda row: children[0](row) is not None
            case "OPERATOR_COALESCE":
                return _first(children)
            case "OPERATOR_TRY":
                return _tried(children[0])
            case "COMPARE_IN":
                return _member(children, self._comparison("COMPARE_EQUAL", node))
        raise Beyond(f"{node['type']} is not in the subset", node)

    def _comparison(self, name: str, node: Node) -> Callable[..., Any]:
        kinds = tuple(_kind(child) for child in node["children"])
        if not all(kind.letter for kind in kinds) or len(kinds) < 2:
            raise Beyond(f"values of {kinds[0]} are not compared", node)
        function = COMPARISONS[name](Shape(kinds, Kind("BOOLEAN")))
        assert function is not None
        return function

    def _function(self, node: Node) -> Value:
        if node["type"] in COMPARISONS:
            return _strict(self._comparison(node["type"], node), self._children(node))
        if node["type"] in ("COMPARE_DISTINCT_FROM", "COMPARE_NOT_DISTINCT_FROM"):
            return _distinct(self._comparison("COMPARE_EQUAL", node), self._children(node), node["type"] == "COMPARE_DISTINCT_FROM")
        name = node["qname"]["path"][-1]
        kinds, children = tuple(_kind(child) for child in node["children"]), self._children(node)
        letters = "".join(kind.letter or "?" for kind in kinds)
        shape = Shape(kinds, _kind(node), tuple(child.constant if isinstance(child, _Constant) else None for child in children))
        if name in NULLS and "?" not in letters and (not name.startswith("concat") or set(letters) <= {"s", "0"}):
            function = NULLS[name](shape)
            return lambda row: function(*[child(row) for child in children])
        if name in ("~~*", "!~~*"):
            name = name.removesuffix("*")
            children = [_strict(TABLE["lower s"](shape), [child]) for child in children]  # type: ignore[arg-type]
        entry = TABLE.get(f"{name} {letters}".strip())
        found = entry(shape) if entry else None
        if found is None or (name == "%" and letters == "dd" and _of_decimals(node)):
            said = ", ".join(map(str, kinds))
            raise Beyond(f"{name}({said}) is not in the subset", node)
        if shape.gives.name == "FLOAT":
            exact, found = found, lambda *values: single(exact(*values))
        return _strict(found, children)


class _Constant:
    """A value that is the same for each row."""

    def __init__(self, constant: Any) -> None:
        self.constant = constant

    def __call__(self, row: Row) -> Any:
        return self.constant


def _kind(node: Node) -> Kind:
    plain: Node = node.get("return_type") or (node["value"]["type"] if "value" in node else {"id": "BOOLEAN"})  # AND and OR say none
    more = plain.get("type_info") or {}
    if plain["id"] == "VARCHAR" and more:
        raise Beyond("a collation is not in the subset", node)
    return Kind(plain["id"], more.get("width", 0), more.get("scale", 0)) if plain["id"] == "DECIMAL" else Kind(plain["id"])


def _of_decimals(node: Node) -> bool:
    """Whether all arguments were cast, and one from a DECIMAL: such a remainder may end at a zero, and nothing tells which does."""
    sources = [_kind(child["children"][0]).letter for child in node["children"] if child["type"] == "OPERATOR_CAST"]
    return len(sources) == len(node["children"]) and "n" in sources


def _constant(node: Node) -> Any:
    value = node["value"]
    kind = _kind(node)
    if not kind.letter:
        raise Beyond(f"a constant of type {kind} is not in the subset", node)
    found = None if value["is_null"] else value["value"]
    if kind.letter == "v" and found is not None:
        return found["months"], found["days"], found["micros"]
    if isinstance(found, dict):  # of 128 bits
        return found["upper"] * 2**64 + found["lower"]
    return found


def _column(place: int) -> Value:
    return lambda row: row[place]


def _strict(function: Callable[..., Any], children: Sequence[Value]) -> Value:
    """A function that is null where an argument is; of constants it is computed now."""
    if all(isinstance(child, _Constant) for child in children):
        try:
            values = [child(()) for child in children]
            return _Constant(None if None in values else function(*values))
        except DataError:
            pass  # it is an error when a row is computed, and none where no row gets there
    match children:
        case [one]:
            return _unary(function, one)
        case [one, _Constant(constant=constant)] if constant is not None:
            return _with_constant(function, one, constant)
        case [one, two]:
            return _binary(function, one, two)
    return lambda row: None if None in (values := [child(row) for child in children]) else function(*values)


def _unary(function: Callable[..., Any], one: Value) -> Value:
    def run(row: Row) -> Any:
        x = one(row)
        return None if x is None else function(x)

    return run


def _with_constant(function: Callable[..., Any], one: Value, y: Any) -> Value:
    def run(row: Row) -> Any:
        x = one(row)
        return None if x is None else function(x, y)

    return run


def _binary(function: Callable[..., Any], one: Value, two: Value) -> Value:
    def run(row: Row) -> Any:
        x, y = one(row), two(row)
        return None if x is None or y is None else function(x, y)

    return run


def _all(children: Sequence[Value], *, decides: bool) -> Value:
    """AND and OR: one value decides, and null is what nobody knows. All are computed, as the engine does for a million rows."""

    def run(row: Row) -> Any:
        values = [child(row) for child in children]
        return decides if decides in values else None if None in values else not decides

    return run


def _choice(branches: Sequence[tuple[Value, Value]], otherwise: Value) -> Value:
    def run(row: Row) -> Any:
        for when, then in branches:
            if when(row):
                return then(row)
        return otherwise(row)

    return run


def _first(children: Sequence[Value]) -> Value:
    def run(row: Row) -> Any:
        for child in children:
            value = child(row)
            if value is not None:
                return value
        return None

    return run


def _tried(child: Value) -> Value:
    def run(row: Row) -> Any:
        try:
            return child(row)
        except Unsure:
            raise
        except DataError:
            return None

    return run


def _member(children: Sequence[Value], same: Callable[..., Any]) -> Value:
    def run(row: Row) -> Any:
        value, *others = [child(row) for child in children]
        if value is None:
            return None
        found = any(same(value, other) for other in others if other is not None)
        return True if found else None if None in others else False

    return run


def _distinct(same: Callable[..., Any], children: Sequence[Value], distinct: bool) -> Value:
    def run(row: Row) -> Any:
        x, y = children[0](row), children[1](row)
        equal = x is y if x is None or y is None else same(x, y)
        return equal != distinct

    return run
