"""Experiments: named groups of runs. Experiment 0, `Default`, is there from the start."""

import re
from collections.abc import Sequence

from tidemill.core import DataError, Taken, UnknownName
from tidemill.ledger import Ledger
from tidemill.store import Driver, Row
from tidemill.tracking.limits import check_experiment_id, check_experiment_name, check_experiment_tag, check_path, missing
from tidemill.tracking.values import Experiment, Pair

ROOT = "mlflow-artifacts:/"
FROZEN = "registered/"  # below it: where the files of registered versions lie
COLUMNS = "id, name, location, stage, created_at, updated_at"


def below(location: str, *parts: str) -> str:
    """A place below a location: in its path, before a query (`s3://bucket/a?region=x`) or a fragment. A path without a
    scheme has neither."""
    path = re.split(r"[?#]", location, maxsplit=1)[0] if re.match(r"[A-Za-z][\w+.-]+:", location) else location
    return "/".join((path.rstrip("/"), *parts)) + location[len(path) :]


def create_experiment(ledger: Ledger, name: str, location: str = "", tags: Sequence[Pair] = ()) -> str:
    """A new experiment's id. Raises Taken when the name is in use, also by a deleted one."""
    check_experiment_name(name)
    pairs = [check_experiment_tag(one) for one in tags]
    with ledger.records.transaction() as sql:
        if location.startswith(ROOT) and check_path(below(location, "x").removeprefix(ROOT).lstrip("/")).startswith(FROZEN):
            raise DataError(f"Invalid artifact location: '{location}'", hint="the files of registered versions lie there")
        if sql.one("SELECT 1 FROM experiment WHERE name = ?", (name,)):
            raise Taken(f"Experiment(name={name}) already exists.", hint="choose another name; a deleted experiment keeps its own")
        return str(insert_experiment(ledger, sql, name, location, pairs))


def insert_experiment(
    ledger: Ledger, sql: Driver, name: str, location: str = "", tags: Sequence[tuple[str, str]] = (), *, number: int | None = None
) -> int:
    """A new experiment, in an open transaction; of the next number where none is given. Ids of 15 digits and more are those that MLflow's
    file store made up: they are not counted on from."""
    now = ledger.wall() // 1000
    if number is None:
        row = sql.one("SELECT coalesce(max(id), 0) + 1 FROM experiment WHERE id < 100000000000000")
        assert row is not None
        number = int(row[0])
    sql.run(
        "INSERT INTO experiment (id, name, location, stage, created_at, updated_at) VALUES (?, ?, ?, 'active', ?, ?)",
        (number, name, location or f"{ROOT}{number}", now, now),
    )
    _put_tags(sql, number, tags)
    return number


def _put_tags(sql: Driver, number: int, tags: Sequence[tuple[str, str]]) -> None:
    sql.many(
        "INSERT INTO experiment_tag (experiment, key, value) VALUES (?, ?, ?) "
        "ON CONFLICT (experiment, key) DO UPDATE SET value = excluded.value",
        [(number, key, value) for key, value in tags],
    )


def ensure_default(ledger: Ledger) -> None:
    """Make experiment 0 where it is not there yet."""
    now = ledger.wall() // 1000
    with ledger.records.transaction() as sql:
        sql.run(
            "INSERT INTO experiment (id, name, location, stage, created_at, updated_at) VALUES (0, 'Default', ?, 'active', ?, ?) "
            "ON CONFLICT DO NOTHING",
            (f"{ROOT}0", now, now),
        )


def experiment_named(ledger: Ledger, sql: Driver, name: str) -> int:
    """The number of an experiment, made where it is not there yet."""
    row = sql.one("SELECT id FROM experiment WHERE name = ?", (name,))
    return int(row[0]) if row else insert_experiment(ledger, sql, name, "")


def number_of(sql: Driver, experiment_id: str) -> int:
    """The number behind an id; raises UnknownName."""
    number = int(check_experiment_id(experiment_id)) if experiment_id.isdecimal() and len(experiment_id) < 19 else -1
    if number < 0 or not sql.one("SELECT 1 FROM experiment WHERE id = ?", (number,)):
        raise UnknownName(f"No Experiment with id={experiment_id} exists")
    return number


def get_experiment(ledger: Ledger, experiment_id: str) -> Experiment:
    """An experiment by its id, active or deleted; raises UnknownName."""
    with ledger.records.snapshot() as sql:
        return one_of(sql, number_of(sql, experiment_id))


def get_experiment_by_name(ledger: Ledger, name: str) -> Experiment:
    """An experiment by its name; raises UnknownName."""
    if not name:
        raise missing("experiment_name")
    with ledger.records.snapshot() as sql:
        row = sql.one("SELECT id FROM experiment WHERE name = ?", (name,))
        if row is None:
            raise UnknownName(f"Could not find experiment with name '{name}'")
        return one_of(sql, row[0])


def one_of(sql: Driver, number: int) -> Experiment:
    """An experiment by its number."""
    return experiments_of(sql, sql.all(f"SELECT {COLUMNS} FROM experiment WHERE id = ?", (number,)))[0]


def experiments_of(sql: Driver, rows: Sequence[Row]) -> list[Experiment]:
    """Rows of the table as values, with their tags."""
    tags: dict[object, list[Pair]] = {}
    numbers = [row[0] for row in rows]
    for some in (numbers[at : at + 500] for at in range(0, len(numbers), 500)):  # a query has only so many marks
        query = f"SELECT experiment, key, value FROM experiment_tag WHERE experiment IN ({', '.join('?' * len(some))}) ORDER BY key"
        for number, key, value in sql.all(query, some):
            tags.setdefault(number, []).append(Pair(key, value))
    return [
        Experiment(str(number), name, location, stage, created, updated, tags.get(number))
        for number, name, location, stage, created, updated in rows
    ]


def rename_experiment(ledger: Ledger, experiment_id: str, name: str) -> None:
    """Give an active experiment another name; raises Taken and DataError."""
    check_experiment_name(name)
    with ledger.records.transaction() as sql:
        number = number_of(sql, experiment_id)
        taken = sql.one("SELECT id FROM experiment WHERE name = ?", (name,))
        if taken and taken[0] != number:
            raise Taken(f"Experiment(name={name}) already exists.")
        _must_be(sql, number, "active")
        _touch(ledger, sql, number, name=name)


def delete_experiment(ledger: Ledger, experiment_id: str) -> None:
    """Mark an experiment and its runs as deleted."""
    _move(ledger, experiment_id, "active", "deleted")


def restore_experiment(ledger: Ledger, experiment_id: str) -> None:
    """Take an experiment and its runs back."""
    _move(ledger, experiment_id, "deleted", "active")


def _move(ledger: Ledger, experiment_id: str, before: str, stage: str) -> None:
    with ledger.records.transaction() as sql:
        number = number_of(sql, experiment_id)
        _must_be(sql, number, before)
        _touch(ledger, sql, number, stage=stage)
        deleted = ledger.wall() if stage == "deleted" else None
        sql.run("UPDATE run SET stage = ?, deleted_at = ? WHERE experiment = ? AND stage = ?", (stage, deleted, number, before))


def _must_be(sql: Driver, number: int, stage: str) -> None:
    found = sql.one("SELECT stage FROM experiment WHERE id = ?", (number,))
    if not found or found[0] != stage:
        if stage == "active":
            raise DataError(f"The experiment {number} must be in the 'active' state. Current state is {found[0] if found else 'unknown'}.")
        raise UnknownName(f"No Experiment with id={number} exists in the '{stage}' state")


def _touch(ledger: Ledger, sql: Driver, number: int, **changes: str) -> None:
    sets = ", ".join(f"{name} = ?" for name in changes)
    sql.run(f"UPDATE experiment SET {sets}, updated_at = ? WHERE id = ?", (*changes.values(), ledger.wall() // 1000, number))


def set_experiment_tag(ledger: Ledger, experiment_id: str, one: Pair) -> None:
    """Set a tag of an active experiment."""
    pair = check_experiment_tag(one)
    with ledger.records.transaction() as sql:
        number = number_of(sql, experiment_id)
        _must_be(sql, number, "active")
        _put_tags(sql, number, [pair])


def delete_experiment_tag(ledger: Ledger, experiment_id: str, key: str) -> None:
    """Take a tag away; raises UnknownName when there is none."""
    with ledger.records.transaction() as sql:
        number = number_of(sql, experiment_id)
        _must_be(sql, number, "active")
        if not sql.run("DELETE FROM experiment_tag WHERE experiment = ? AND key = ?", (number, key)):
            raise UnknownName(f"No tag with name: {key} in experiment with id {experiment_id}")
