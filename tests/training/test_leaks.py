"""Nothing that was not known at a time touches what was computed for that time: change the future, get the same bits."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from tidemill import training
from tidemill.models import load_model
from tidemill.training import Examples, Trained
from toy import Row, Toy, make_rows, open_toy, write_project

NOWS = [datetime(2024, 2, 10, 15, 30, tzinfo=UTC), datetime(2024, 3, 10, 7, 0, tzinfo=UTC), datetime(2024, 4, 3, 23, 59, tzinfo=UTC)]


def micros(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


def another_future(rows: list[Row], now: datetime, seed: int = 1) -> list[Row]:
    """The same facts up to `now`, others after it: values altered, parcels lost or arriving at other times, bookings gone and new."""
    rng = np.random.default_rng(seed)
    found = []
    for row in rows:
        new = dict(row)
        if row["booked"] > now:
            if rng.random() < 0.3:
                continue
            new |= {"weight": float(rng.normal(50, 9)), "grade": "A new word", "depot": rng.choice(["N", "Elsewhere"]), "courier": "zz"}
            new["sent"] = new["booked"] + timedelta(days=1)
        if row["late"] is not None and row["arrived"] > now:
            new["late"] = 1 - row["late"]
            new["arrived"] = max(row["arrived"], new["sent"]) + timedelta(minutes=int(rng.integers(0, 600)))
            if rng.random() < 0.3:
                new |= {"late": None, "arrived": None}
        elif row["late"] is None and row["sent"] + timedelta(hours=36) > now:
            new |= {"late": 1, "arrived": max(now, row["sent"]) + timedelta(minutes=1)}
        found.append(new)
    start = now + timedelta(days=1, minutes=1)
    more = [
        {**rows[i], "parcel": f"new{i}", "sent": start + timedelta(minutes=i), "arrived": start + timedelta(minutes=i + 1)}
        for i in range(50)
    ]
    return found + [row | {"booked": row["sent"] - timedelta(days=1), "late": 1, "weight": 99.0} for row in more]


def texts(examples: Examples, rows: np.ndarray) -> list[dict[str, object]]:
    """Features of rows: bits of numbers, words of categories (another future may shift their codes), and why one is missing."""
    matrix, found = examples.matrix, []
    for row in np.flatnonzero(rows).tolist():
        one: dict[str, object] = {"key": examples.requests.keys[row], "status": matrix.problems(row)}
        for name, value in zip(matrix.names, matrix.values[row], strict=True):
            words = matrix.vocabularies.get(name)
            one[name] = value.tobytes() if words is None else None if np.isnan(value) else words[int(value)]
        found.append(one)
    return found


def train(toy: Toy, until: int) -> Trained:
    chosen = training.training_set(toy.ledger, toy.built.examples, until)
    return training.train(toy.ledger, toy.policy.monitor.deployment.model, chosen)


def predictions(toy: Toy, trained: Trained, rows: np.ndarray) -> bytes:
    predictor, matrix = load_model(toy.ledger, trained.model), toy.built.examples.matrix
    return predictor.predict(predictor.signature.align(matrix.names, matrix.values[rows], matrix.vocabularies)).tobytes()


@pytest.fixture(params=range(len(NOWS)), scope="module")
def worlds(request: pytest.FixtureRequest, parcels: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[datetime, Toy, Toy]:
    """A time, and two worlds that are one up to it."""
    now = NOWS[request.param]
    return now, open_toy(parcels), open_toy(write_project(tmp_path_factory.mktemp("other"), another_future(make_rows(), now)))


def test_the_futures_do_differ(worlds: tuple[datetime, Toy, Toy]) -> None:
    now, one, two = worlds
    later = [toy.built.examples.at > micros(now) + 86_400_000_000 for toy in (one, two)]
    assert texts(one.built.examples, later[0]) != texts(two.built.examples, later[1])
    dataset = [toy.built.dataset("deliveries").ref.digest for toy in (one, two)]
    assert dataset[0] != dataset[1]


def test_features_of_what_was_asked_by_then_are_the_same_bits(worlds: tuple[datetime, Toy, Toy]) -> None:
    now, one, two = worlds
    asked = [toy.built.examples.at <= micros(now) for toy in (one, two)]
    assert asked[0].sum() == asked[1].sum() > 1000
    assert texts(one.built.examples, asked[0]) == texts(two.built.examples, asked[1])


def test_a_training_set_uses_no_label_that_was_not_known(worlds: tuple[datetime, Toy, Toy]) -> None:
    now, one, two = worlds
    sets = [training.training_set(toy.ledger, toy.built.examples, micros(now)) for toy in (one, two)]
    assert sets[0].ref.digest == sets[1].ref.digest
    examples = one.built.examples
    chosen = examples.known(micros(now))
    assert (examples.resolved[chosen] <= micros(now)).all()
    arrived = {row["parcel"].encode(): row["arrived"] for row in make_rows() if row["late"] is not None}
    assert all(arrived[key] <= now for key in examples.requests.keys[chosen].tolist())
    missing = [key for key in examples.requests.keys[(examples.at < micros(now)) & ~chosen].tolist() if key in arrived]
    assert all(arrived[key] > now for key in missing), "and it uses every one that was"


def test_models_and_predictions_of_that_time_are_the_same_bits(worlds: tuple[datetime, Toy, Toy]) -> None:
    now, one, two = worlds
    trained = [train(toy, micros(now)) for toy in (one, two)]
    assert trained[0].model.ref.digest == trained[1].model.ref.digest
    rows = [(toy.built.examples.at <= micros(now)) & (toy.built.examples.at > micros(now - timedelta(days=5))) for toy in (one, two)]
    assert predictions(one, trained[0], rows[0]) == predictions(two, trained[1], rows[1])


def test_a_replay_up_to_that_time_is_the_same(parcels: Path, tmp_path: Path) -> None:
    """The whole loop: what was decided by then does not depend on what came later."""
    now = datetime(2024, 4, 15, 4, 0, tzinfo=UTC)  # midnight in New York
    one, two = open_toy(parcels), open_toy(write_project(tmp_path / "other", another_future(make_rows(), now)))
    branches = [toy.replay(end="2024-04-15") for toy in (one, two)]
    told: Callable[[Toy, int], list[tuple[object, ...]]] = lambda toy, i: [  # noqa: E731
        (d.at, d.kind, d.subject, d.why, d.evidence) for d in toy.decisions(branches[i])
    ]
    assert told(one, 0) == told(two, 1)
    assert "promoted" in one.kinds(branches[0])[2:]
    assert branches[0].result == branches[1].result
    assert branches[0].state == branches[1].state


def test_the_oracle_agrees_on_a_window(toy: Toy) -> None:
    """The share of late parcels at a depot over 12 hours, counted again from the rows, without the house's own code."""
    examples, rows = toy.built.examples, [row for row in make_rows() if row["late"] is not None]
    column = examples.matrix.names.index("depot_recent__late_share_12h")
    rng = np.random.default_rng(3)
    arrived = np.array([micros(row["arrived"]) for row in rows])
    late, depots = np.array([row["late"] for row in rows]), np.array([row["depot"] for row in rows])
    asked = examples.requests.texts["depot"].texts()
    for i in rng.integers(500, len(examples.at), size=200).tolist():
        at, five = int(examples.at[i]), 300_000_000
        start = (at - 12 * 3_600_000_000) // five * five
        chosen = late[(depots == asked[i]) & (arrived >= start) & (arrived <= at)]
        expected = chosen.mean() if len(chosen) else np.nan
        assert np.array_equal(examples.matrix.values[i, column], expected, equal_nan=True)
