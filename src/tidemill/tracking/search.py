"""Search of runs and experiments: filters and orders as SQL, page by page."""

from collections.abc import Sequence

from tidemill.core import DataError
from tidemill.ledger import Ledger
from tidemill.store import Driver
from tidemill.tracking.conditions import Sql, all_of, compare
from tidemill.tracking.experiments import COLUMNS as EXPERIMENT_COLUMNS
from tidemill.tracking.experiments import experiments_of, number_of
from tidemill.tracking.filters import EXPERIMENTS, RUNS, Comparison, Order, parse, parse_order
from tidemill.tracking.limits import experiment_numbers, page_size
from tidemill.tracking.metrics import read_token, rows_before, write_token
from tidemill.tracking.ordered import Place, Search
from tidemill.tracking.runs import rows_of, runs_of
from tidemill.tracking.values import Experiment, Run

STAGES = {"ACTIVE_ONLY": ("active",), "DELETED_ONLY": ("deleted",), "ALL": ("active", "deleted")}
_EXPERIMENT = {"name": "name", "experiment_id": "CAST(id AS TEXT)", "creation_time": "created_at", "last_update_time": "updated_at"}


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def search_runs(
    ledger: Ledger,
    experiment_ids: Sequence[str],
    text: str = "",
    *,
    view: str = "ACTIVE_ONLY",
    order_by: Sequence[str] = (),
    max_results: int | None = None,
    page_token: str = "",
) -> tuple[list[Run], str | None]:
    """A page of runs and the token of the next. Without an order, and among equals: the newest first, then by id. Missing values come
    last, and just before them those that are not numbers. Raises DataError."""
    size = page_size(max_results, 1_000, 50_000)
    if view not in STAGES:
        raise DataError(f"Invalid run_view_type {view!r}", available=list(STAGES))
    wanted, orders = parse(text, RUNS), parse_order(order_by, RUNS)
    numbers = experiment_numbers(experiment_ids)
    if not numbers:
        return [], None
    with ledger.records.snapshot() as sql:
        after = _place(page_token, orders) if page_token else None
        found = Search(sql, numbers, STAGES[view]).rows(wanted, orders, after, size + 1)
        page = found[:size]
        rows = {row[0]: row for row in rows_of(sql, [one.number for one in page])}  # only now: what is sorted is as narrow as can be
        runs = runs_of(sql, [rows[one.number] for one in page])
        return runs, write_token(page[-1].place) if len(found) > size else None


def _place(token: str, orders: Sequence[Order]) -> Place:
    """Where a page ended, from its token; raises DataError for one that is of another order."""
    after = read_token(token, Place)
    kinds = [float if one.kind == "metric" else int if one.key in ("start_time", "end_time") else str for one in orders]
    fits = len(kinds) == len(after.keys) and all(
        value is None if rank == 2 else isinstance(value, kind) for (rank, value), kind in zip(after.keys, kinds, strict=True)
    )
    if not fits:
        raise DataError("Invalid page token: it is of a search in another order", hint="ask for the next page in the order of the first")
    return after


# ── experiments ─────────────────────────────────────────────────────────────────────────────────────────────────


def search_experiments(
    ledger: Ledger,
    text: str = "",
    *,
    view: str = "ACTIVE_ONLY",
    order_by: Sequence[str] = (),
    max_results: int | None = None,
    page_token: str = "",
) -> tuple[list[Experiment], str | None]:
    """A page of experiments and the token of the next; the newest first where no order is given. Raises DataError."""
    size = page_size(max_results, 1_000, 50_000)
    if view not in STAGES:
        raise DataError(f"Invalid view_type {view!r}", available=list(STAGES))
    wanted, orders = parse(text, EXPERIMENTS), parse_order(order_by, EXPERIMENTS)
    stages = STAGES[view]
    before = rows_before(page_token)
    with ledger.records.snapshot() as sql:
        where = [Sql(f"stage IN ({', '.join('?' * len(stages))})", stages), *(_experiment_condition(sql, one) for one in wanted)]
        chosen = all_of(where)
        keys = [f"{_EXPERIMENT[order.key]} {'DESC' if order.descending else 'ASC'}" for order in orders if order.kind == "attribute"]
        sort = ", ".join([*(keys or ["created_at DESC"]), "id DESC" if not keys else "id"])
        query = f"SELECT {EXPERIMENT_COLUMNS} FROM experiment WHERE {chosen.text} ORDER BY {sort} LIMIT ? OFFSET ?"
        rows = sql.all(query, (*chosen.values, size + 1, before))
        return experiments_of(sql, rows[:size]), write_token([before + size]) if len(rows) > size else None


def _experiment_condition(sql: Driver, one: Comparison) -> Sql:
    if one.kind == "attribute":
        return compare(sql, _EXPERIMENT[one.key], one)
    there = Sql("EXISTS (SELECT 1 FROM experiment_tag AS t WHERE t.experiment = experiment.id AND t.key = ?", (one.key,))
    if one.value is None:
        return Sql("NOT " if one.op == "IS NULL" else "") + there + Sql(")")
    return there + Sql(" AND ") + compare(sql, "t.value", one) + Sql(")")


def search_datasets(ledger: Ledger, experiment_ids: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """(experiment, name, digest, context) of the datasets that runs of these experiments read."""
    with ledger.records.snapshot() as sql:
        numbers = [number_of(sql, one) for one in experiment_ids]
        query = (
            "SELECT DISTINCT d.experiment, d.name, d.digest, i.context FROM run_dataset AS d JOIN run_input AS i ON i.dataset = d.id "
            f"WHERE d.experiment IN ({', '.join('?' * len(numbers))}) ORDER BY 1, 2, 3, 4 LIMIT 1000"
        )
        return [(str(e), name, digest, context) for e, name, digest, context in (sql.all(query, numbers) if numbers else [])]
