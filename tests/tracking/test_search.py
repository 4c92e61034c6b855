"""Search of runs against brute force: every filter, every order, every page size; and a grammar that says what is wrong."""

import fnmatch
import math
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postgres import new_schema
from tidemill import tracking
from tidemill.core import DataError
from tidemill.ledger import Ledger
from tidemill.store import MemoryBlobs, Records
from tidemill.tracking import conditions
from tidemill.tracking.experiments import create_experiment
from tidemill.tracking.filters import RUNS, parse, parse_order
from tidemill.tracking.runs import create_run, delete_run, log_batch, update_run
from tidemill.tracking.search import search_experiments, search_runs
from tidemill.tracking.values import Metric, Pair, Run

LONG = "long " * 13
STATUSES = ["RUNNING", "FINISHED", "FAILED", "KILLED"]


@pytest.fixture(scope="module", params=["memory", "postgres"])
def filled(request: pytest.FixtureRequest) -> Iterator[tuple[Ledger, list[str]]]:
    """Two experiments with sixty runs of few different values, so that there are ties; some values are missing or not a number."""
    with new_schema() if request.param == "postgres" else nullcontext() as address:
        records = Records(address)
        yield fill(Ledger(records, MemoryBlobs(), count().__next__))
        records.close()


def fill(ledger: Ledger) -> tuple[Ledger, list[str]]:
    tracking.prepare(ledger)
    chance = random.Random(5)
    experiments = [create_experiment(ledger, name) for name in ("one", "two")]
    for i in range(60):
        run = create_run(ledger, chance.choice(experiments), name=f"run {i % 7}", who=chance.choice("ab"), started_at=chance.randrange(8))
        uid = run.info.run_id
        values = {
            "loss": chance.choice([0.1, 0.2, 0.3, math.nan, math.inf, -math.inf, None]),
            "acc": chance.choice([1.0, 2.0, 0.0, -0.0, None]),
        }
        metrics = [Metric(key, value, 1, 1) for key, value in values.items() if value is not None]
        params = (
            [Pair("kind", chance.choice(["Tree", "tree", "linear", "li%near", LONG + "b", LONG + "a", "", "ä", "💥"]))]
            if chance.random() < 0.8
            else []
        )
        tags = [Pair("my tag", chance.choice("xyz"))] if chance.random() < 0.7 else []
        log_batch(ledger, uid, metrics, params, tags)
        if chance.random() < 0.8:
            update_run(ledger, uid, status=chance.choice(STATUSES), ended_at=chance.randrange(100))
        if chance.random() < 0.1:
            delete_run(ledger, uid)
    return ledger, experiments


def pages(ledger: Ledger, experiments: list[str], text: str, size: int, **asked: Any) -> list[Run]:
    found, token = search_runs(ledger, experiments, text, max_results=size, **asked)
    while token:
        more, token = search_runs(ledger, experiments, text, max_results=size, page_token=token, **asked)
        assert 0 < len(more) <= size
        found += more
    return found


def value(run: Run, kind: str, key: str) -> Any:
    data = {"metric": run.data.metrics, "param": run.data.params, "tag": run.data.tags}.get(kind)
    if kind == "attribute":
        return getattr(run.info, {"created": "start_time"}.get(key, key))
    return next((one.value for one in data or () if one.key == key), None)


def glob(pattern: str) -> str:
    return pattern.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]").replace("%", "*").replace("_", "?")


OPS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "LIKE": lambda a, b: fnmatch.fnmatchcase(a, glob(b)),
    "ILIKE": lambda a, b: fnmatch.fnmatchcase(a.lower(), glob(b.lower())),
    "IN": lambda a, b: a in b,
    "NOT IN": lambda a, b: a not in b,
}


def fits(run: Run, text: str) -> bool:
    for one in parse(text, RUNS):
        found = value(run, one.kind, one.key)
        if one.op in ("IS NULL", "IS NOT NULL"):
            if (found is None) != (one.op == "IS NULL"):
                return False
        elif found is None or (isinstance(found, float) and math.isnan(found)) or not OPS[one.op](found, one.value):
            return False
    return True


FILTERS = [
    "",
    "metrics.loss < 0.25",
    "metrics.loss >= 0.2 AND metrics.acc = 1",
    "metrics.acc != 1",
    "metrics.never > 0",
    "params.kind = 'tree'",
    "params.kind LIKE 'T%'",
    "params.kind ILIKE 't%e'",
    "params.kind LIKE 'li_near%'",
    "params.kind != 'tree' and tags.`my tag` = 'x'",
    'tags."my tag" IS NULL',
    "tags.`my tag` IS NOT NULL AND metrics.loss > 0",
    "status = 'FINISHED'",
    "attributes.status != 'RUNNING' AND attributes.start_time > 2",
    "run_name LIKE 'run %' AND user_id = 'a'",
    "end_time <= 50",
    "attribute.run_name = 'run 3'",
]
ORDERS = [
    [], ["metrics.loss"], ["metrics.loss DESC"], ["metrics.never"], ["start_time"], ["attributes.start_time DESC"], ["params.kind"],
    ["tags.`my tag` DESC", "metrics.loss"], ["end_time DESC"], ["metrics.acc DESC", "params.kind ASC"], ["run_name"], ["run_id DESC"],
    ["params.kind DESC", "metrics.loss DESC", "tags.`my tag`"], ["tags.`my tag`", "params.kind", "start_time"],
    ["end_time", "metrics.loss"], ["metrics.loss", "metrics.acc", "run_name DESC"], ["status", "params.kind DESC"],
    ["start_time", "metrics.acc DESC"],
]  # fmt: skip


def in_order(runs: list[Run], orders: list[str]) -> list[str]:
    """The ids as the protocol has them: values, then those that are not numbers, then missing ones; the newest first among equals."""
    found = sorted(runs, key=lambda run: (-run.info.start_time, run.info.run_id))
    for order in reversed(parse_order(orders, RUNS)):
        held = [(value(run, order.kind, order.key), run) for run in found]
        real = [(v, run) for v, run in held if v is not None and v == v]
        real.sort(key=lambda pair: pair[0], reverse=order.descending)
        if order.descending:  # sorting backwards turns equals around
            values = sorted({v for v, _ in real}, reverse=True)
            real = [(v, run) for wanted in values for v, run in held if v == wanted]
        rest = [run for v, run in held if v is not None and v != v] + [run for v, run in held if v is None]
        found = [*(run for _, run in real), *rest]
    return [run.info.run_id for run in found]


WAYS = {"few are looked up": (20_000, 10_000), "an index is walked": (0, 8)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", ORDERS, ids=" then ".join)
def test_every_filter_in_every_order_is_what_brute_force_finds(
    filled: tuple[Ledger, list[str]], order: list[str], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, limit in zip(("FEW", "MANY"), WAYS[way], strict=True):  # by which a search of a hundred thousand runs chooses its way
        monkeypatch.setattr(conditions, name, limit)
    ledger, experiments = filled
    everything, _ = search_runs(ledger, experiments, view="ALL")
    assert len(everything) == 60
    active = [run for run in everything if run.info.lifecycle_stage == "active"]
    for text in FILTERS:
        expected = in_order([run for run in active if fits(run, text)], order)
        for size in (7, 1000):
            assert [run.info.run_id for run in pages(ledger, experiments, text, size, order_by=order)] == expected, (text, size)


FIELDS = [
    "metrics.loss", "metrics.acc", "metrics.never", "params.kind", "tags.`my tag`", "start_time", "end_time", "run_id", "run_name",
    "user_id", "status", "artifact_uri", "experiment_id",
]  # fmt: skip
KEYS = st.builds("{} {}".format, st.sampled_from(FIELDS), st.sampled_from(["ASC", "DESC"]))


@settings(deadline=None, max_examples=50)
@given(
    filters=st.lists(st.sampled_from([one for one in FILTERS if one]), max_size=3),
    orders=st.lists(KEYS, max_size=10),
    size=st.sampled_from([1, 3, 17, 60]),
    few=st.sampled_from([0, 5, 20_000]),
    many=st.sampled_from([0, 3, 10_000]),
)
def test_any_keys_and_filters_are_what_brute_force_finds(
    filled: tuple[Ledger, list[str]], filters: list[str], orders: list[str], size: int, few: int, many: int
) -> None:
    ledger, experiments = filled
    text = " AND ".join(filters)
    active, _ = search_runs(ledger, experiments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditions, "FEW", few)
        patch.setattr(conditions, "MANY", many)
        found = pages(ledger, experiments, text, size, order_by=orders)
    assert [run.info.run_id for run in found] == in_order([run for run in active if fits(run, text)], orders)


@pytest.mark.parametrize("text", ["run_id = 'x'", "run_id IN ('x', 'y')", "start_time > 9", "end_time < 0", "metrics.never > 0"])
def test_runs_that_an_index_knows_are_looked_up(filled: tuple[Ledger, list[str]], text: str) -> None:
    ledger, experiments = filled
    with ledger.records.snapshot() as sql:
        asked = conditions.Conditions(sql, list(map(int, experiments)), ["active"])
        assert asked.few(parse(text, RUNS), [], 100) is not None


@pytest.mark.parametrize(("few", "most"), [(20_000, 60), (0, 140)], ids=["small ones", "large ones"])
def test_many_experiments_cost_a_few_statements_each(few: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "FEW", few)
    records = Records(None)
    ledger = Ledger(records, MemoryBlobs(), count().__next__)
    tracking.prepare(ledger)
    experiments = [create_experiment(ledger, f"e{i}") for i in range(40)]
    for i, experiment in enumerate(experiments):
        run = create_run(ledger, experiment, started_at=1)
        log_batch(ledger, run.info.run_id, [Metric("loss", float(i), 1, 1)], [], [])
    said = list[str]()
    with records.snapshot() as sql:
        connection = sql._connection
    connection.set_trace_callback(said.append)
    found, _ = search_runs(ledger, experiments, order_by=["metrics.loss"], max_results=5)
    connection.set_trace_callback(None)
    assert [run.info.experiment_id for run in found] == experiments[:5]
    assert len(said) < most
    records.close()


@pytest.mark.parametrize("text", ["a\0b", "\0"])
def test_values_hold_no_zeros_which_end_a_text_for_sqlite(ledger: Ledger, text: str) -> None:
    tracking.prepare(ledger)
    for i in range(3):
        log_batch(ledger, create_run(ledger, "0", started_at=i).info.run_id, [], [Pair("p", text)], [Pair("t", text)])
    kept = text.replace("\0", "")
    for order in ("params.p", "tags.t DESC"):
        assert len(pages(ledger, ["0"], f"params.p = '{kept}' AND tags.t = '{kept}'", 1, order_by=[order])) == 3


def test_deleted_runs_are_found_when_asked_for(filled: tuple[Ledger, list[str]]) -> None:
    ledger, experiments = filled
    counts = {view: len(pages(ledger, experiments, "", 9, view=view)) for view in ("ACTIVE_ONLY", "DELETED_ONLY", "ALL")}
    assert counts["ACTIVE_ONLY"] + counts["DELETED_ONLY"] == counts["ALL"] == 60
    assert counts["DELETED_ONLY"] > 0


def test_one_experiment_has_its_own_runs_only(filled: tuple[Ledger, list[str]]) -> None:
    ledger, experiments = filled
    split = [pages(ledger, [one], "", 1000, order_by=["metrics.loss"]) for one in experiments]
    assert [{run.info.experiment_id for run in part} for part in split] == [{one} for one in experiments]
    assert search_runs(ledger, [])[0] == search_runs(ledger, ["99", "no"])[0] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metrics.a = 'x'", "'a' is a number"),
        ("metrics.a > 1 OR metrics.b > 2", "there is no OR"),
        ("(metrics.a > 1)", "expected a name"),
        ("metrics.a >", "nothing stands after >"),
        ("foo = 'x'", "Invalid attribute key 'foo'"),
        ("params.a > 3", "> does not work on it"),
        ("run_name = 5", "put its value in quotes"),
        ("metrics.a > 1 and", "ends where a comparison should begin"),
        ("tags.a = b", "neither a number nor a quoted text"),
        ("datasets.size = 'x'", "Invalid dataset attribute key 'size'"),
        ("things.x = 'y'", "Invalid attribute key 'things.x'"),
        ("metrics.a > 1;DROP TABLE run", "cannot read ';DROP"),
        ("run_id IN ()", "needs a list"),
        ("params.a IN ('x')", "IN does not work"),
        ("start_time IS NULL", "works on params and tags only"),
        ("x" * 20_001, "longer than"),
        (f"params.a LIKE '{'[' * 19_900}'", "longer than 16000 bytes"),
        (" AND ".join(["metrics.a > 1"] * 101), "more than 100"),
    ],
)
def test_a_wrong_filter_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(DataError) as error:
        parse(text, RUNS)
    assert said in error.value.what


WRONG = ["datasets.name", "nope DESC", "metrics.a SIDEWAYS", "metrics.a; DROP TABLE run", "", "x" * 30_000]
ENDLESS = [f"metrics.{'a' * 5_000}!", f"metrics.a{' ' * 5_000}!", f"{' ' * 5_000}\0", "`" * 5_001]  # for who tries every way to read them


@pytest.mark.parametrize("text", [*WRONG, *ENDLESS], ids=lambda text: text[:30])
def test_a_wrong_order_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        parse_order([text], RUNS)


@pytest.mark.parametrize("token", ["x", "bm90IGpzb24=", "W10=", "WzEsMiwzLDQsWzFdXQ==", "é"])
def test_a_wrong_token_is_refused(filled: tuple[Ledger, list[str]], token: str) -> None:
    ledger, experiments = filled
    with pytest.raises(DataError, match="Invalid page token"):
        search_runs(ledger, experiments, page_token=token)


@pytest.mark.parametrize("text", [f"params.kind LIKE '{'[' * 16_000}'", f"params.kind ILIKE '{'💥' * 3_999}%'"], ids=["signs", "letters"])
def test_the_longest_pattern_is_read(filled: tuple[Ledger, list[str]], text: str) -> None:
    ledger, experiments = filled
    assert search_runs(ledger, experiments, text) == ([], None)


@pytest.mark.parametrize("order", [[], ["params.kind"], ["metrics.loss", "metrics.acc"], ["start_time"]], ids=" then ".join)
def test_a_token_of_another_order_is_refused(filled: tuple[Ledger, list[str]], order: list[str]) -> None:
    ledger, experiments = filled
    _, token = search_runs(ledger, experiments, order_by=["metrics.loss"], max_results=1)
    with pytest.raises(DataError, match="of a search in another order"):
        search_runs(ledger, experiments, order_by=order, page_token=token or "")


def test_experiments_are_searched_by_name_tag_and_time(ledger: Ledger) -> None:
    tracking.prepare(ledger)
    for i in range(5):
        create_experiment(ledger, f"exp {i}", tags=[Pair("team", "ab"[i % 2])] if i else [])
    named: Callable[..., list[str]] = lambda text, **asked: [one.name for one in search_experiments(ledger, text, **asked)[0]]  # noqa: E731
    assert named("name LIKE 'exp %'", order_by=["name DESC"]) == ["exp 4", "exp 3", "exp 2", "exp 1", "exp 0"]
    assert named("tags.team = 'a'", order_by=["name"]) == ["exp 2", "exp 4"]
    assert named("tags.team IS NULL", order_by=["experiment_id"]) == ["Default", "exp 0"]
    assert len(named("creation_time > 0")) <= 6
    found, token = search_experiments(ledger, max_results=4)
    rest, end = search_experiments(ledger, max_results=4, page_token=token or "")
    assert len({one.name for one in found + rest}) == 6
    assert end is None
