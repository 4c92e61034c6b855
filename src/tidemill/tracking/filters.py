"""MLflow's filter language: comparisons joined by AND, and lists of orders. Text in, values out; pure.

>>> parse("metrics.loss < 0.5 AND params.`a b` LIKE 'x%'", RUNS)[1]
Comparison(kind='param', key='a b', op='LIKE', value='x%')
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidemill.core import DataError

LONGEST = 20_000  # characters of a filter
PATTERN = 16_000  # bytes of a text with % and _: SQLite reads 50,000, where some signs are written as three
MOST = 100  # comparisons in one
MOST_ORDERS = 10  # keys of an order: each is one more table in the query
NUMBER_OPS = ("<=", ">=", "!=", "=", "<", ">")
TEXT_OPS = ("=", "!=", "LIKE", "ILIKE")
LIST_OPS = ("IN", "NOT IN")
NULL_OPS = ("IS NULL", "IS NOT NULL")

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<op><=|>=|!=|<>|=|<|>|\bNOT\s+IN\b|\bIN\b|\bIS\s+NOT\s+NULL\b|\bIS\s+NULL\b|\bILIKE\b|\bLIKE\b)
    |(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    |(?P<name>(?:[A-Za-z_][\w\-/:]*|`[^`]*`|"[^"]*")(?:\.(?:[\w\-/:]+|`[^`]*`|"[^"]*"))*)
    |(?P<text>'(?:[^']|'')*')
    |(?P<other>[(),])
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_NAME = re.compile(r"""(?:[\w\-/:.]|`[^`]*`|"[^"]*")+""")  # each sign fits one way only, or a text that does not fit takes for ever


@dataclass(frozen=True)
class Comparison:
    """`kind` is attribute, metric, param, tag or dataset; `value` is a float, a text, a list of texts, or None for a null test."""

    kind: str
    key: str
    op: str
    value: Any


@dataclass(frozen=True)
class Order:
    """One key of a sort."""

    kind: str
    key: str
    descending: bool


@dataclass(frozen=True)
class Grammar:
    """What may be asked of an entity: `attributes` are its own fields as `number` or `text`, `names` other spellings of them, `lists` those
    that know IN, and `kinds` what else it has."""

    attributes: Mapping[str, str]
    kinds: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    lists: Sequence[str] = ()
    orders: Sequence[str] = ()


_KINDS = {
    "metric": ("metric", "metrics"),
    "param": ("param", "params", "parameter", "parameters"),
    "tag": ("tag", "tags"),
    "attribute": ("attribute", "attributes", "attr", "run", "trace"),
    "metadata": ("metadata", "request_metadata"),
    "dataset": ("dataset", "datasets"),
    "model": ("model", "models"),  # ours: MLflow's own language has none
}
_OF = {"dataset": ("name", "digest", "context"), "model": ("name", "model_id")}  # what a run may have several of
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}
_TEXT, _NUMBER = "text", "number"
RUNS = Grammar(
    dict.fromkeys(("run_id", "run_name", "user_id", "status", "artifact_uri", "experiment_id"), _TEXT)
    | dict.fromkeys(("start_time", "end_time"), _NUMBER),
    ("metric", "param", "tag", "dataset", "model"),
    {"created": "start_time", "Created": "start_time", "run name": "run_name", "Run name": "run_name", "Run Name": "run_name"},
    ("run_id", "dataset", "model", "experiment_id"),
)
EXPERIMENTS = Grammar(
    {"name": _TEXT, "experiment_id": _TEXT, "creation_time": _NUMBER, "last_update_time": _NUMBER},
    ("tag",),
    {},
    ("experiment_id",),
)
MODELS = Grammar(
    dict.fromkeys(("name", "model_id", "model_type", "status", "source_run_id", "status_message", "experiment_id"), _TEXT)
    | {"creation_timestamp": _NUMBER, "last_updated_timestamp": _NUMBER},
    ("metric", "param", "tag"),
    {"creation_time": "creation_timestamp"},
    ("name", "model_id", "model_type", "status", "source_run_id"),
)


TRACES = Grammar(
    dict.fromkeys(("name", "status", "trace_id", "run_id", "client_request_id"), _TEXT) | {"timestamp": _NUMBER, "execution_time": _NUMBER},
    ("tag", "metadata"),
    {"timestamp_ms": "timestamp", "execution_time_ms": "execution_time", "request_id": "trace_id", "state": "status"},
    ("name", "status", "trace_id", "run_id"),
)
REGISTERED = Grammar({"name": _TEXT, "creation_timestamp": _NUMBER, "last_updated_timestamp": _NUMBER}, ("tag",), {}, ("name",))
VERSIONS = Grammar(
    dict.fromkeys(("name", "run_id", "source_path"), _TEXT)
    | dict.fromkeys(("version_number", "creation_timestamp", "last_updated_timestamp"), _NUMBER),
    ("tag",),
    {},
    ("name", "run_id"),
)


def parse(text: str | None, grammar: Grammar) -> list[Comparison]:
    """The comparisons of a filter; none for an empty one. Raises DataError with what is wrong and what there is."""
    tokens = _tokens(text or "")
    found: list[Comparison] = []
    at = 0
    while at < len(tokens):
        if found:
            if not (tokens[at][0] == "name" and tokens[at][1].upper() == "AND"):
                raise _wrong(text, f"expected AND before {tokens[at][1]!r}; there is no OR, NOT or grouping")
            at += 1
        one, at = _comparison(tokens, at, text, grammar)
        found.append(one)
        if len(found) > MOST:
            raise _wrong(text, f"more than {MOST} comparisons")
    return found


def _wrong(text: str | None, why: str) -> DataError:
    return DataError(
        f"Invalid filter string {(text or '')[:200]!r}: {why}", hint="for example metrics.loss < 0.5 AND params.model = 'tree'"
    )


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > LONGEST:
        raise _wrong(text, f"it is longer than {LONGEST} characters")
    found, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.end() == at:
            raise _wrong(text, f"cannot read {text[at : at + 20]!r}")
        kind = str(match.lastgroup)
        found.append((kind, match.group(kind)))
        at = match.end()
    return found


def _comparison(tokens: list[tuple[str, str]], at: int, text: str | None, grammar: Grammar) -> tuple[Comparison, int]:
    kind, word = tokens[at] if at < len(tokens) else ("", "")
    if kind != "name":
        raise _wrong(text, f"expected a name such as metrics.loss, found {word!r}" if word else "it ends where a comparison should begin")
    if at + 1 >= len(tokens) or tokens[at + 1][0] != "op":
        raise _wrong(text, f"expected a comparison after {word!r}")
    of, key = identify(word, grammar)
    op = " ".join(tokens[at + 1][1].upper().split()).replace("<>", "!=")
    if op in NULL_OPS:
        if of not in ("param", "tag"):
            raise _wrong(text, f"{op} works on params and tags only")
        return Comparison(of, key, op, None), at + 2
    value, end = _value(tokens, at + 2, op, text)
    numeric = of == "metric" or (of == "attribute" and grammar.attributes[key] == _NUMBER)
    _check(of, key, op, value, numeric, text, grammar)
    return Comparison(of, key, op, value), end


def _value(tokens: list[tuple[str, str]], at: int, op: str, text: str | None) -> tuple[Any, int]:
    if at >= len(tokens):
        raise _wrong(text, f"nothing stands after {op}")
    if op in LIST_OPS:
        if tokens[at][1] != "(":
            raise _wrong(text, f"{op} needs a list such as ('a', 'b')")
        found: list[Any] = []
        at += 1
        while at < len(tokens) and tokens[at][1] != ")":
            if tokens[at][1] != ",":
                found.append(_plain(*tokens[at], text))
            at += 1
        if at >= len(tokens) or not found or not all(isinstance(one, str) for one in found):
            raise _wrong(text, f"{op} needs a list of quoted texts such as ('a', 'b')")
        return found, at + 1
    return _plain(*tokens[at], text), at + 1


def _plain(kind: str, word: str, text: str | None) -> Any:
    if kind == "number":
        return float(word)
    if kind == "text":
        return word[1:-1].replace("''", "'")
    if kind == "name" and word[0] == '"' and word[-1] == '"':
        return word[1:-1]
    raise _wrong(text, f"{word!r} is neither a number nor a quoted text")


def _check(of: str, key: str, op: str, value: Any, numeric: bool, text: str | None, grammar: Grammar) -> None:
    if numeric:
        if op not in NUMBER_OPS:
            raise _wrong(text, f"{key!r} is a number: {op} does not work on it, but {', '.join(NUMBER_OPS)} do")
        if not isinstance(value, float):
            raise _wrong(text, f"{key!r} is a number; {value!r} is not")
        return
    lists = key in grammar.lists if of == "attribute" else of in grammar.lists
    if op not in (*TEXT_OPS, *(LIST_OPS if lists else ())):
        raise _wrong(text, f"{key!r} is a text: {op} does not work on it, but {', '.join(TEXT_OPS)} do")
    if isinstance(value, float):
        raise _wrong(text, f"{key!r} is a text: put its value in quotes")
    if op in ("LIKE", "ILIKE") and len(value.encode(errors="replace")) > PATTERN:
        raise _wrong(text, f"the text that {key!r} is to be {op} is longer than {PATTERN} bytes")


def identify(word: str, grammar: Grammar) -> tuple[str, str]:
    """(kind, key) of an identifier; raises DataError for what the entity does not have."""
    head, dot, rest = _split(word)
    if dot and head.lower() in _KIND_OF:
        kind, key = _KIND_OF[head.lower()], rest
    else:
        kind, key = "attribute", f"{head}{dot}{rest}"
    if kind == "attribute":
        key = grammar.names.get(key, key)
        if key not in grammar.attributes:
            raise DataError(f"Invalid attribute key '{key}' specified.", available=sorted(grammar.attributes))
    elif kind not in grammar.kinds:
        raise DataError(f"Invalid entity type '{head}'.", available=["attributes", *(f"{kind}s" for kind in grammar.kinds)])
    if kind in _OF and key not in _OF[kind]:
        raise DataError(f"Invalid {kind} attribute key '{key}' specified.", available=list(_OF[kind]))
    return kind, key


def _split(word: str) -> tuple[str, str, str]:
    """Head, dot and rest, without the quotes around either."""
    if word[0] in '`"':
        end = word.index(word[0], 1)
        return word[1:end], word[end + 1 : end + 2], _bare(word[end + 2 :])
    head, dot, rest = word.partition(".")
    return head, dot, _bare(rest)


def _bare(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] in '`"' and text[-1] == text[0] else text


def parse_order(texts: Sequence[str], grammar: Grammar) -> list[Order]:
    """The keys of a sort, such as `metrics.loss DESC`; raises DataError."""
    if len(texts) > MOST_ORDERS:
        raise DataError(f"order_by has {len(texts)} keys; at most {MOST_ORDERS} are taken", hint="what comes later decides nothing")
    found = []
    for text in texts:
        plain = text.strip()
        to = re.search(r"\s(ASC|DESC)$", plain, re.IGNORECASE)
        name = plain[: to.start()].rstrip() if to else plain
        if len(text) > LONGEST or not _NAME.fullmatch(name):
            raise DataError(f"Invalid order_by clause {text[:200]!r}", hint="for example metrics.loss DESC")
        kind, key = identify(name, grammar)
        if kind in _OF:
            raise DataError(f"runs cannot be ordered by their {kind}s", available=["metrics", "params", "tags", "attributes"])
        found.append(Order(kind, key, to is not None and to[1].upper() == "DESC"))
    return found
