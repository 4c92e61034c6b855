"""The prediction log: a dataset that serving appends to and monitoring, lineage and the next training read.

It is kept in segments: one blob of arrays each, named in the records by branch, deployment and number. A segment that is
written again with the same number takes the place of the first, so a replay that was killed goes on without doubles.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, select

from tidemill.core import Array, Damaged, Floats, Instants, MissingFile, StoreError, pack, show, unpack
from tidemill.ledger import Ledger
from tidemill.store import upsert

prediction_tables = MetaData()
segment_table = Table(
    "prediction_segment",
    prediction_tables,
    Column("branch", Text, primary_key=True),
    Column("deployment", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("first_at", Integer, nullable=False),
    Column("last_at", Integer, nullable=False),
)


@dataclass(frozen=True)
class Predictions:
    """n answers: `keys` (n,) bytes, `at` (n,) prediction times, `probability` (n,), and which of `versions` and `rungs` gave it.

    `shadows`: by role, the version that also scored these rows, and its probabilities (n,), NaN where it did not.
    """

    keys: Array
    at: Instants
    probability: Floats
    version: Array
    versions: tuple[str, ...]
    rung: Array
    rungs: tuple[str, ...]
    shadows: dict[str, tuple[str, Floats]] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """One answer of the log."""

    branch: str
    deployment: str
    key: str
    at: int
    probability: float
    version: str
    rung: str

    @property
    def name(self) -> str:
        """What follows `prediction:` in its ref."""
        return f"{self.deployment}/{self.key}"

    def plain(self) -> dict[str, Any]:
        return {"key": self.key, "at": show(self.at), "probability": self.probability, "version": self.version, "rung": self.rung}


class Segment(NamedTuple):
    """A segment as the records name it: of `rows` answers, the first and the last asked at these times (microseconds UTC)."""

    branch: str
    deployment: str
    number: int
    digest: str
    rows: int
    first_at: int
    last_at: int


def pack_predictions(rows: Predictions) -> bytes:
    """The bytes of a segment."""
    arrays: dict[str, Array] = {"at": rows.at, "probability": rows.probability, "version": rows.version, "rung": rows.rung}
    arrays["keys"] = np.ascontiguousarray(rows.keys).view(np.uint8).reshape(len(rows.keys), rows.keys.dtype.itemsize)
    arrays |= {f"shadow:{role}": scores for role, (_, scores) in rows.shadows.items()}
    names = {role: version for role, (version, _) in rows.shadows.items()}
    return pack(arrays, {"versions": list(rows.versions), "rungs": list(rows.rungs), "shadows": names})


def unpack_predictions(data: bytes | memoryview) -> Predictions:
    """The rows of a segment."""
    arrays, meta = unpack(data)
    keys = np.ascontiguousarray(arrays["keys"])
    texts = keys.view(f"S{keys.shape[1]}").ravel() if keys.size else np.empty(0, "S1")
    shadows = {role: (version, arrays[f"shadow:{role}"]) for role, version in meta["shadows"].items()}
    parts = arrays["at"], arrays["probability"], arrays["version"], tuple(meta["versions"]), arrays["rung"], tuple(meta["rungs"])
    return Predictions(texts, *parts, shadows)


def append_predictions(connection: Connection, branch: str, deployment: str, number: int, digest: str, rows: Predictions) -> None:
    """Name a stored segment in the log."""
    row: Mapping[str, Any] = {
        "branch": branch,
        "deployment": deployment,
        "number": number,
        "digest": digest,
        "rows": len(rows.at),
        "first_at": int(rows.at.min()) if len(rows.at) else 0,
        "last_at": int(rows.at.max()) if len(rows.at) else 0,
    }
    insertion = upsert(connection, segment_table).values(row)
    connection.execute(insertion.on_conflict_do_update(index_elements=["branch", "deployment", "number"], set_=dict(row)))


def logged(ledger: Ledger, branch: str = "") -> list[Segment]:
    """The segments that the records name, of all branches or of one, by number."""
    query = select(segment_table).order_by(segment_table.c.branch, segment_table.c.deployment, segment_table.c.number)
    with ledger.records.read() as connection:
        rows = connection.execute(query.where(segment_table.c.branch == branch) if branch else query).all()
    return [Segment(*row) for row in rows]


def broken(ledger: Ledger, branch: str) -> list[Segment]:
    """The segments of a branch whose bytes are lost, or not what was written."""
    found = []
    for segment in logged(ledger, branch):
        try:
            ledger.blobs.verify(segment.digest)
        except (MissingFile, Damaged):
            found.append(segment)
    return found


def segments(ledger: Ledger, branch: str, deployment: str, *, without: Collection[int] = ()) -> list[tuple[int, Predictions]]:
    """The log of a deployment on a branch, by number, but for some. Raises MissingFile and Damaged."""
    chosen = [one for one in logged(ledger, branch) if one.deployment == deployment and one.number not in without]
    return [(one.number, unpack_predictions(ledger.blobs.get(one.digest))) for one in chosen]


def find_predictions(ledger: Ledger, branch: str, deployment: str, key: str) -> list[Prediction]:
    """The answers that a key got, oldest first. Raises MissingFile or Damaged where none is found and a segment cannot be read."""
    found, wanted, unread = [], key.encode(), list[StoreError | MissingFile]()
    for one in logged(ledger, branch):
        if one.deployment != deployment:
            continue
        try:
            rows = unpack_predictions(ledger.blobs.get(one.digest))
        except (MissingFile, Damaged) as error:
            unread.append(error)
            continue
        for i in np.flatnonzero(rows.keys == wanted).tolist():
            version, rung = rows.versions[int(rows.version[i])], rows.rungs[int(rows.rung[i])]
            found.append(Prediction(branch, deployment, key, int(rows.at[i]), float(rows.probability[i]), version, rung))
    if unread and not found:
        raise unread[0]
    return found
