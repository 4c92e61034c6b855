"""A small project on which the whole loop runs in seconds: parcels, asked at booking whether they will arrive late.

On CHANGE the world changes: what made a parcel late no longer does, and more are late. The rows are generated from a seed, so
every test and every process sees the same; `rows` may be altered before they are written.
"""

import csv
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from tidemill import loop, project
from tidemill.core import instant
from tidemill.ledger import Branch, Decision, Ledger
from tidemill.loop import Built, Progress, Replay, RetrainPolicy
from tidemill.project import Project
from tidemill.store import MemoryBlobs, Records

ZONE = "America/New_York"
FIRST, CHANGE, LAST = (datetime(2024, *day, tzinfo=UTC) for day in ((1, 1), (4, 1), (5, 6)))
TRAIN_UNTIL, END = "2024-03-01", "2024-05-01"
COLUMNS = ("parcel", "depot", "courier", "grade", "weight", "sent", "booked", "arrived", "late")
Row = dict[str, Any]

SETTINGS = f"""[project]
name = "parcels"
objective = "Say at booking which parcels arrive late"
timezone = "{ZONE}"

[replay]
train_until = {TRAIN_UNTIL}
end = {END}

[serve]
client_time = true
"""

DECLARATIONS = '''"""Will this parcel arrive late? Asked an hour before it is sent."""

import tidemill as tm

parcels = tm.Source("parcels.csv", format="csv", null_values=["NA"])

bookings = tm.Dataset("bookings", {"parcels": parcels}, key="parcel", event_time="sent", known_at="booked",
    query="SELECT parcel, sent, booked, depot, courier, grade, weight FROM parcels")
deliveries = tm.Dataset("deliveries", {"parcels": parcels}, key="parcel", event_time="arrived",
    query="SELECT parcel, arrived, depot, courier, late FROM parcels WHERE late IS NOT NULL")

depot = tm.Entity("depot", key="depot")
courier = tm.Entity("courier", key="courier")

depot_recent = tm.FeatureView("depot_recent", deliveries, entity=depot, windows=["12h", "3d"],
    features={"late_share": tm.mean("late"), "delivered": tm.count()})
courier_last = tm.FeatureView("courier_last", deliveries, entity=courier, ttl="2d", features={"late": tm.last("late")})
booking = tm.RequestView("booking", bookings,
    features={"grade": tm.category("grade"), "weight": "weight", "hour": "hour(timezone('America/New_York', sent))"})

late = tm.Task("late", request=bookings, predict_at="sent - INTERVAL 1 HOUR", features=[booking, depot_recent, courier_last],
    label=tm.Label(deliveries, "late > 0", none_after="36h"))


@tm.model(late, seed=5, params={"num_leaves": 7, "learning_rate": 0.15, "n_estimators": 30, "min_child_samples": 20})
def trees(train: tm.TrainingSet, params: tm.Params):
    from lightgbm import LGBMClassifier  # commands that train nothing start faster

    model = LGBMClassifier(**params, random_state=train.seed, deterministic=True, force_row_wise=True, n_jobs=1, verbose=-1)
    return model.fit(train.X, train.y, categorical_feature=train.categorical)


gates = [
    tm.gates.better_than_champion("log_loss", holdout="8d"),
    tm.gates.no_worse_slice("log_loss", by=["depot"], margin=0.2, min_rows=100),
    tm.gates.calibration(max_ece=0.12, bins=10),
]
serve = tm.Deployment("late", trees, gates=gates,
    rollout=tm.Canary(steps=[0.1, 0.5, 1.0], min_labels=40, alpha=0.05, sticky_by="courier"),
    fallback=[tm.PreviousVersion(), tm.Constant(0.3)], timeout="2s")
watch = tm.Monitor(serve, every="4d", quality=["log_loss"], drift=tm.Drift(false_alarm_rate=0.05), maturity=0.9)
keep_good = tm.RetrainPolicy(watch, on=[tm.QualityDrop("log_loss", by=0.03), tm.DriftFound()], cooldown="4d", min_new_labels=100)
'''


def make_rows(*, per_day: int = 60, last: datetime = LAST, seed: int = 7) -> list[Row]:
    """Parcels of every day: some couriers are unknown, a few parcels never arrive."""
    return [dict(row) for row in _rows(per_day, last, seed)]


@cache
def _rows(per_day: int, last: datetime, seed: int) -> list[Row]:
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for day in range((last - FIRST).days):
        for place in range(per_day):
            sent = FIRST + timedelta(days=day, minutes=int(rng.integers(0, 24 * 60)), seconds=place)
            rows.append(_row(rng, sent, f"p{day:03}-{place:03}"))
    return rows


def _row(rng: np.random.Generator, sent: datetime, name: str) -> Row:
    depot, courier, grade = (str(rng.choice(list(words))) for words in ("NSW", "abcdefgh", "xyz"))
    weight, changed = float(np.round(rng.normal(2.0, 1.0), 3)), sent >= CHANGE
    push = 1.8 * (weight - 2.0) * (-1 if changed else 1) + {"x": -0.7, "y": 0.0, "z": 0.7}[grade] + (1.2 if changed else -0.8)
    late = bool(rng.random() < 1 / (1 + np.exp(-push)))
    takes = timedelta(hours=float(np.round(rng.uniform(4, 10) + (8 if late else 0), 3)))
    lost, unknown = rng.random() < 0.03, rng.random() < 0.05
    return {
        "parcel": name,
        "depot": depot,
        "courier": None if unknown else courier,
        "grade": grade,
        "weight": weight,
        "sent": sent,
        "booked": sent - timedelta(days=1),
        "arrived": None if lost else sent + takes,
        "late": None if lost else int(late),
    }


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Write the source file of a project."""
    with (folder / "parcels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            values = [row[column] for column in COLUMNS]
            writer.writerow(["NA" if v is None else v.isoformat() if isinstance(v, datetime) else v for v in values])


def write_project(folder: Path, rows: Iterable[Row] | None = None, *, declarations: str = DECLARATIONS, settings: str = SETTINGS) -> Path:
    """A folder with settings, declarations and rows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tidemill.toml").write_text(settings)
    (folder / "parcels.py").write_text(declarations)
    write_rows(folder, make_rows() if rows is None else rows)
    return folder


def in_memory() -> Ledger:
    """A ledger that ends with the test."""
    return loop.prepare(Ledger(Records(None), MemoryBlobs(), count().__next__))


def copy_of(ledger: Ledger) -> Ledger:
    """A ledger in memory with all that another one has, and its clock: to build again what was built takes a hundredth of the time."""
    records, blobs = Records(None), MemoryBlobs()
    source, target = (one.engine.raw_connection().driver_connection for one in (ledger.records, records))
    source.backup(target)
    for digest in ledger.blobs.digests():
        blobs.put(bytes(ledger.blobs.get(digest)))
    return Ledger(records, blobs, count(ledger.wall()).__next__)


@dataclass(frozen=True)
class Toy:
    """A project over a ledger, built: what a replay needs."""

    declared: Project
    ledger: Ledger
    built: Built

    @property
    def policy(self) -> RetrainPolicy:
        return self.declared.only(RetrainPolicy)

    def at(self, day: str) -> int:
        """Midnight of a day, or a time, in the project's zone."""
        moment = datetime.fromisoformat(day)
        return instant(moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(ZONE)))

    def job(self, policy: RetrainPolicy | None = None, *, start: str = TRAIN_UNTIL, end: str = END) -> Replay:
        return Replay(self.built, policy or self.policy, self.at(start), self.at(end), ZONE)

    def replay(
        self,
        policy: RetrainPolicy | None = None,
        *,
        start: str = TRAIN_UNTIL,
        end: str = END,
        listen: Callable[[Progress], None] = lambda progress: None,
    ) -> Branch:
        """The finished branch of a replay."""
        branch, _ = loop.replay(self.ledger, self.job(policy, start=start, end=end), listen=listen)
        return branch

    def decisions(self, branch: Branch, *kinds: str) -> list[Decision]:
        """What was decided, in order; of some kinds only."""
        return [one for one in self.ledger.decisions(branch.id) if not kinds or one.kind in kinds]

    def kinds(self, branch: Branch) -> list[str]:
        """The kinds of all decisions, in order."""
        return [one.kind for one in self.decisions(branch)]


def open_toy(folder: Path, ledger: Ledger | None = None) -> Toy:
    """Build the project of a folder over a ledger, in memory by default."""
    declared = project.load(folder)
    ledger = ledger or in_memory()
    return Toy(declared, ledger, loop.build(ledger, declared.only(RetrainPolicy).monitor.deployment.model.task))


def parcels_of(folder: Path) -> Toy:
    """The project, written to a folder and built."""
    return open_toy(write_project(folder / "parcels"))


def with_deployment(policy: RetrainPolicy, **changes: Any) -> RetrainPolicy:
    """A policy whose deployment differs."""
    return replace(policy, monitor=replace(policy.monitor, deployment=replace(policy.monitor.deployment, **changes)))


# ── fixtures: a conftest takes those that its tests need ─────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def parcels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the project; nothing is written to it."""
    return write_project(tmp_path_factory.mktemp("toy") / "parcels")


@pytest.fixture(scope="session")
def ready(parcels: Path) -> Toy:
    """The project, built; nothing is written to its ledger any more."""
    return open_toy(parcels)


@pytest.fixture
def toy(ready: Toy) -> Toy:
    """The project, built over a ledger of its own."""
    return open_toy(ready.declared.folder, copy_of(ready.ledger))


@pytest.fixture(scope="session")
def replayed(parcels: Path) -> tuple[Toy, Branch]:
    """The project with its default policy replayed; nothing is written to its ledger any more."""
    found = open_toy(parcels)
    return found, found.replay()


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with its replay done, on disk. Tests that change something take a copy."""
    folder = write_project(tmp_path_factory.mktemp("kept") / "parcels")
    declared = project.load(folder)
    with declared.writing("replay") as ledger:
        toy = open_toy(folder, loop.prepare(ledger))
        toy.replay()
    return folder


@pytest.fixture
def copied(kept: Path, tmp_path: Path) -> Path:
    """A copy of the folder with its replay done."""
    return shutil.copytree(kept, tmp_path / "parcels")
