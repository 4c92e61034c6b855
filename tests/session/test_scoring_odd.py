"""Odd rows, scored by columns: each gets what a request with that row alone gets, to the bit, or no answer where that gets none."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest

import tidemill as tm
from tidemill import features
from tidemill.core import TidemillError, instant
from tidemill.serving import Answer, Batch, Endpoint, When, write_scores
from toy import make_rows

AT = instant("2024-05-01T00:00:00Z")  # behind all bookings, and not behind all windows
SENT = ("parcel", "sent", "booked", "depot", "courier", "grade", "weight")
NUMBERS = (None, 0.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e308, 5e-324, -1.5, 2.0, 0.1)
TEXTS = (None, "", "x", "y", "unseen", "é", "a" * 50, "x ")
ROWS = 150


@pytest.fixture(scope="module")
def endpoint(kept: Path) -> Endpoint:
    return tm.open(kept).deployments["late"].endpoint()


def held(endpoint: Endpoint, form: str, frame: pl.DataFrame, rows: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, int]:
    """Score a frame, and ask with each row by itself. How many have which rung; "" for none."""
    batch = Batch.of(endpoint, form, own_time=False, now=AT)
    with features.bring(frame, "rows") as brought:
        write_scores(brought, batch, When(time=AT), folder / "s.parquet", folder / "kept", keep_going=True)
    counts = dict[str, int]()
    for number, (found, row) in enumerate(zip(pl.read_parquet(folder / "s.parquet").iter_rows(named=True), rows, strict=True)):
        one = alone(batch.endpoint, row)
        if one is None:
            assert found["error"], (number, row)
            assert found["probability"] is None
            counts[""] = counts.get("", 0) + 1
            continue
        assert found["error"] is None, (number, row, found["error"])
        assert np.float64(found["probability"]).tobytes() == np.float64(one.probability).tobytes(), (number, row)
        assert (found["key"], found["version"], found["rung"]) == (one.key, one.version, one.rung)
        assert json.loads(found["missing"] or "{}") == one.problems
        assert json.loads(found["unexpected"] or "{}") == one.unexpected
        counts[one.rung] = counts.get(one.rung, 0) + 1
    return counts


def alone(endpoint: Endpoint, row: Mapping[str, Any]) -> Answer | None:
    """What a request with one row gets; None for an error."""
    try:
        return endpoint.answer([row], [AT])[0]
    except TidemillError:
        return None


def columns(names: Sequence[str], categories: Mapping[str, Any], random: Random) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """Features in columns of any type, and the same as a client has them."""
    kinds: list[tuple[Any, Callable[[], Any]]] = [
        (pl.Float64, lambda: random.choice([*NUMBERS, random.gauss(0, 10)])),
        (pl.Float32, lambda: random.choice([None, 0.5, float("inf"), float("nan")])),
        (pl.Int64, lambda: random.choice([None, 0, -3, 2**62 + 1, random.randrange(100)])),
        (pl.UInt64, lambda: random.choice([None, 0, 2**64 - 1])),
        (pl.UInt8, lambda: random.choice([None, 0, 255])),
        (pl.Decimal(9, 2), lambda: random.choice([None, Decimal("1.25"), Decimal("-7.10")])),
    ]
    odd: list[tuple[Any, Callable[[], Any]]] = [
        (pl.String, lambda: random.choice([None, "inf", "-inf", "1", ""])),
        (pl.Boolean, lambda: random.choice([None, None, True])),
    ]
    made = dict[str, tuple[Any, list[Any]]]()
    for name in names:
        kind, value = (pl.String, lambda: random.choice(TEXTS)) if name in categories else random.choice(kinds)
        made[name] = kind, [value() for _ in range(ROWS)]
    if random.random() < 0.5:
        name = random.choice([*names])
        kind, value = random.choice([*odd, kinds[2]])
        made[name] = kind, [value() for _ in range(ROWS)]
    made["parcel"] = pl.String, [random.choice(["p", "é", "", f"k{i}"]) for i in range(ROWS)]
    for place in random.sample(range(ROWS), 5):
        made["parcel"][1][place] = random.choice([None, "zero\0", "k" * 1_200])
    frame = pl.DataFrame({name: pl.Series(values, dtype=kind) for name, (kind, values) in made.items()})
    rows = [{name: float(one) if isinstance(one, Decimal) else one for name, one in row.items()} for row in frame.iter_rows(named=True)]
    return frame, rows


@pytest.mark.parametrize("seed", range(6))
def test_features(endpoint: Endpoint, tmp_path: Path, seed: int) -> None:
    signature, random = endpoint.given.signature, Random(seed)
    frame, rows = columns(signature.features, signature.categories, random)
    otherwise = random.choice(["count", "clip", "fall back", "reject"])
    expect = [
        tm.Expect("booking__weight", low=0, high=3, null=otherwise == "clip", otherwise=otherwise),
        tm.Expect("probability", high=0.3),
    ]  # type: ignore[arg-type]
    odd = replace(endpoint, expect=expect, holdout=tm.Holdout(0.3, 0.5) if seed % 2 else None, fallback=[tm.Constant(0.25)])
    counts = held(odd, "features", frame, rows, tmp_path)
    assert counts.get("", 0) >= 5, counts


def sent(random: Random) -> list[dict[str, Any]]:
    """Requests with values that are seldom."""
    rows = [{name: row[name] for name in SENT} for row in make_rows()[:ROWS]]
    for row in rows:
        if random.random() < 0.7:
            continue
        odd: dict[str, Any] = {
            "weight": random.choice(NUMBERS),
            "grade": random.choice(TEXTS),
            "depot": random.choice([*TEXTS, "inf"]),
            "courier": random.choice(TEXTS),
            "sent": random.choice([None, row["sent"], datetime(1960, 1, 1, 1, 1, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)]),
            "booked": random.choice([None, row["booked"] - timedelta(days=40_000), row["sent"] + timedelta(days=1)]),
            "parcel": random.choice([None, "zero\0", "k" * 1_200, "é", ""]),
        }
        row |= {name: odd[name] for name in random.sample([*odd], random.choice([1, 1, 2]))}
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_own_columns(endpoint: Endpoint, tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    rows = sent(random)
    wider = {} if seed % 2 else {"weight": pl.Float32}
    frame = pl.DataFrame(rows, infer_schema_length=None, schema_overrides=wider)
    rows = [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        for row in frame.iter_rows(named=True)
    ]
    assert endpoint.rows.own.as_the_engine
    odd = replace(
        endpoint, expect=[tm.Expect("booking__weight", low=-1, high=2, otherwise="clip")], fallback=[tm.PreviousVersion(), tm.Constant(0.5)]
    )
    counts = held(odd, "columns", frame, rows, tmp_path)
    assert counts[""] > 5
    assert counts["champion"] > 50


def test_texts_in_place_of_times_and_numbers_are_looked_at_one_by_one(endpoint: Endpoint, tmp_path: Path) -> None:
    rows = [
        {**row, "sent": row["sent"].isoformat(), "booked": row["booked"].isoformat(), "weight": str(row["weight"])}
        for row in sent(Random(9))
        if row["sent"] and row["booked"] and row["weight"]
    ]
    rows[3]["sent"], rows[5]["booked"], rows[7]["weight"] = "soon", rows[5]["booked"][:19], "heavy"
    counts = held(endpoint, "columns", pl.DataFrame(rows), rows, tmp_path)
    assert counts[""] >= 3


def test_keys(endpoint: Endpoint, tmp_path: Path) -> None:
    random = Random(1)
    known = [key.decode() for key in endpoint.rows.known.keys.tolist()]
    keys = [
        random.choice([*random.sample(known, 20), None, "", "nobody", known[0] + "\0", known[0][:-1], "k" * 2_000]) for _ in range(ROWS)
    ]
    rows = [{"parcel": key} for key in keys]
    counts = held(endpoint, "key", pl.DataFrame({"parcel": keys}), rows, tmp_path)
    assert counts[""] > 5
    assert counts["champion"] > 50
