"""Runs as they are read: found by a filter, set side by side, with their curves, code and environment."""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import msgspec

from tidemill.core import DataError, MissingExtra, StoreError, UnknownName, show
from tidemill.ledger import Ledger
from tidemill.tracking.artifacts import find_file, place_of
from tidemill.tracking.comparison import changes, comparison_rows, text_diff
from tidemill.tracking.metrics import sampled_history
from tidemill.tracking.plots import Curves, page, shown, table
from tidemill.tracking.runs import get_run
from tidemill.tracking.search import search_runs
from tidemill.tracking.values import Run

POINTS = 1_000  # of a curve that is drawn
SOURCE = {"command": "tidemill.command", "script": "mlflow.source.name", "folder": "tidemill.folder", "host": "tidemill.host"}
SOURCE |= {"machine": "tidemill.machine", "user": "mlflow.user"}
_OWN, _SEED = ("mlflow.", "tidemill."), "tidemill.seed."  # tags that are told otherwise


@dataclass(frozen=True)
class Recorded:
    """One run, as it was logged up to now. Instants are microseconds UTC."""

    ledger: Ledger = field(repr=False)
    id: str
    name: str
    experiment: str
    status: str
    started: int
    ended: int | None
    params: dict[str, str] = field(repr=False)
    metrics: dict[str, float] = field(repr=False)
    tags: dict[str, str] = field(repr=False)
    data: dict[str, str] = field(repr=False)  # what it read: name → digest
    root: str = field(repr=False)

    def curve(self, metric: str, points: int = POINTS) -> list[tuple[int, float]]:
        """(step, value) of a metric by step; of a longer one at most `points`, the extremes of every stretch among them."""
        found = sampled_history(self.ledger, [self.id], metric, points=points)
        return [(one.step or 0, float("nan") if one.value is None else one.value) for one in found]

    @cached_property
    def files(self) -> dict[str, int]:
        """Its artifacts: path → bytes. The source files that it had loaded are in `code`."""
        return {path: size for path, _, size in self._below("") if not path.startswith("code/")}

    @cached_property
    def code(self) -> dict[str, str]:
        """The source files that the run had loaded, by path."""
        return {path: bytes(self.ledger.blobs.get(digest)).decode(errors="replace") for path, digest, _ in self._below("code/")}

    def _below(self, folder: str) -> list[tuple[str, str, int]]:
        """(path below it, digest, bytes) of the artifacts in a folder."""
        prefix = f"{self.root}/{folder}"
        with self.ledger.records.snapshot() as sql:
            query = "SELECT path, digest, size FROM artifact_file WHERE path >= ? AND path < ? ORDER BY path"
            return [(path[len(prefix) :], digest, size) for path, digest, size in sql.all(query, (prefix, f"{prefix}\U0010ffff"))]

    @property
    def source(self) -> dict[str, str]:
        """Who ran it, where, and by which command, as far as that was captured."""
        return {word: self.tags[tag] for word, tag in SOURCE.items() if self.tags.get(tag)}

    @cached_property
    def environment(self) -> dict[str, str]:
        """Python, the machine, and the version of every installed distribution."""
        query = "SELECT e.environment FROM execution AS e JOIN run AS r ON r.execution = e.id WHERE r.uid = ?"
        row = self.ledger.records.row(query, (self.id,))
        try:
            found = msgspec.json.decode(self.ledger.blobs.get(row[0])) if row and row[0] else {}
        except StoreError:  # of a step that never finished only the digest is known
            return {}
        lock = dict(line.split("==", 1) for line in found.get("lock", []))
        return {name: str(found[name]) for name in ("python", "machine") if name in found} | lock

    def artifact(self, path: str) -> memoryview:
        """The content of a file of the run's artifacts; raises UnknownName."""
        return self.ledger.blobs.get(find_file(self.ledger, posixpath.join(self.root, path))[0])

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """What a comparison sets side by side."""
        own = {key: value for key, value in self.tags.items() if not key.startswith(_OWN)}
        code = {key.rpartition("git.")[2]: self.tags[key] for key in ("mlflow.source.git.commit", "tidemill.git.dirty") if key in self.tags}
        seeds = {key.removeprefix(_SEED): value for key, value in self.tags.items() if key.startswith(_SEED)}
        found: dict[str, dict[str, Any]] = {"run": {"experiment": self.experiment, "status": self.status}, "params": dict(self.params)}
        own_metrics = {key: value for key, value in self.metrics.items() if not key.startswith("system/")}  # the machine's are no result
        found |= {"metrics": own_metrics, "data": dict(self.data), "tags": own, "code": code, "seeds": seeds}
        return found | {"environment": self.environment}

    def _repr_html_(self) -> str:
        every = comparison_rows([self.sections], everything=True)
        return table(["", "", self.name], [(row.section, row.name, *row.values) for row in every])


class Runs(Sequence[Recorded]):
    """Some runs, in an order."""

    def __init__(self, found: Iterable[Recorded]) -> None:
        self._found = list(found)

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, place: int) -> Recorded: ...
    @overload
    def __getitem__(self, place: slice) -> "Runs": ...
    def __getitem__(self, place: int | slice) -> "Recorded | Runs":
        return self._found[place] if isinstance(place, int) else Runs(self._found[place])

    def __iter__(self) -> Iterator[Recorded]:
        return iter(self._found)

    def __repr__(self) -> str:
        return f"Runs({', '.join(repr(run.name) for run in self._found[:5])}{', …' if len(self) > 5 else ''}: {len(self)})"

    def columns(self) -> dict[str, list[Any]]:
        """Values by name and run: `params.depth`, `metrics.loss`, …, None where a run lacks one."""
        found: dict[str, list[Any]] = {name: [getattr(run, name) for run in self] for name in ("id", "name", "experiment", "status")}
        found |= {"started": [show(run.started) for run in self], "seconds": [_seconds(run) for run in self]}
        for section in ("params", "metrics", "data", "tags"):
            for name in sorted({name for run in self for name in getattr(run, section) if not name.startswith(_OWN)}):
                found[f"{section}.{name}"] = [getattr(run, section).get(name) for run in self]
        return found

    def frame(self) -> Any:
        """One line for each run, as a frame: pandas, or polars where only that is installed. Raises MissingExtra without either."""
        return frame_of(self.columns())

    def compare(self) -> "Comparison":
        """The runs side by side, with only what differs."""
        return Comparison(self)

    def plot(self, metric: str) -> Curves:
        """The curves of a metric, down-sampled without losing an extreme. Raises UnknownName when no run has logged it."""
        with_it = [run for run in self if metric in run.metrics]
        if not with_it:
            raise UnknownName(f"no run has a metric {metric!r}", available=sorted({name for run in self for name in run.metrics}))
        return Curves(metric, {_label(run, with_it): run.curve(metric) for run in with_it})

    def _repr_html_(self) -> str:
        columns = self.columns()
        return table(list(columns), list(zip(*columns.values(), strict=True)))


def _label(run: Recorded, among: Sequence[Recorded]) -> str:
    return run.name if sum(other.name == run.name for other in among) == 1 else f"{run.name} {run.id[:6]}"


def _seconds(run: Recorded) -> float | None:
    return None if run.ended is None else (run.ended - run.started) / 1e6


class Comparison:
    """Runs side by side: what differs in parameters, metrics, data, tags, code and environment."""

    def __init__(self, runs: Runs) -> None:
        if len(runs) < 2:
            raise DataError(f"{len(runs)} run cannot be compared", hint="name two or more")
        self.runs, self.rows = runs, comparison_rows([run.sections for run in runs])
        self.names = [_label(run, runs) for run in runs]

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        differ = [{"section": row.section, "name": row.name, "values": list(row.values)} for row in self.rows]
        return {"runs": [{"id": run.id, "name": run.name} for run in self.runs], "differ": differ}

    def frame(self) -> Any:
        """One line for each name that differs, one column for each run."""
        columns: dict[str, list[Any]] = {"section": [row.section for row in self.rows], "name": [row.name for row in self.rows]}
        return frame_of(columns | {name: [row.values[i] for row in self.rows] for i, name in enumerate(self.names)})

    def code(self) -> str:
        """The unified diff of the source files of the first two runs."""
        one, two = self.runs[0], self.runs[1]
        return text_diff(one.code, two.code, (self.names[0], self.names[1]))

    def environment(self) -> list[dict[str, Any]]:
        """The libraries whose versions differ between the first two runs."""
        return changes(self.runs[0].environment, self.runs[1].environment)

    def __repr__(self) -> str:
        cells = [["", "", *self.names], *([str(shown(cell))[:40] for cell in row] for row in self._cells())]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
        return "\n".join(lines)

    def _cells(self) -> list[tuple[Any, ...]]:
        return [(row.section, row.name, *row.values) for row in self.rows]

    def _repr_html_(self) -> str:
        return table(["", "", *self.names], self._cells())

    def html(self) -> str:
        """One page that stands alone: the table of differences, the curves that two or more runs have, and the diff of the code of two."""
        shared = sorted({name for run in self.runs for name in run.metrics if not name.startswith("system/")})
        curves = [self.runs.plot(name) for name in shared if sum(name in run.metrics for run in self.runs) > 1]
        drawn = [one for one in curves if any(len(points) > 1 for points in one.series.values())]
        return page(", ".join(self.names), self._repr_html_(), drawn, self.code() if len(self.runs) == 2 else "")


def frame_of(columns: dict[str, list[Any]]) -> Any:
    """Columns as a frame: pandas, or polars where only that is installed. Raises MissingExtra without either."""
    try:
        import pandas as pd

        return pd.DataFrame(columns)
    except ImportError:
        try:
            import polars as pl
        except ImportError as error:
            raise MissingExtra("a frame needs pandas or polars", hint="pip install pandas") from error
        return pl.DataFrame(columns, strict=False)


def find_runs(ledger: Ledger, text: str = "", *, experiments: Sequence[str] = (), order_by: Sequence[str] = (), limit: int = 100) -> Runs:
    """The active runs that a filter leaves, of some experiments (by name) or of all; the newest first where no order is given. Raises
    UnknownName for an experiment that is not there, DataError for a filter that is none."""
    with ledger.records.snapshot() as sql:
        known = {str(name): str(number) for number, name in sql.all("SELECT id, name FROM experiment ORDER BY id")}
    unknown = [name for name in experiments if name not in known]
    if unknown:
        raise UnknownName(f"there is no experiment {unknown[0]!r}", available=list(known)[:50])
    numbers = [known[name] for name in experiments] or list(known.values())
    found, token = search_runs(ledger, numbers, text, order_by=order_by, max_results=min(limit, 1_000))
    while token and len(found) < limit:
        more, token = search_runs(ledger, numbers, text, order_by=order_by, max_results=min(limit - len(found), 1_000), page_token=token)
        found += more
    called = {number: name for name, number in known.items()}
    return Runs(_recorded(ledger, run, called[run.info.experiment_id]) for run in found)


def find_run(ledger: Ledger, text: str) -> Recorded:
    """The run of an id, of the beginning of one (six characters or more), or of a name that only one has. Raises UnknownName, and
    DataError where several fit."""
    with ledger.records.snapshot() as sql:
        found = sql.all("SELECT uid FROM run WHERE uid = ? OR name = ? ORDER BY started_at DESC LIMIT 20", (text, text))
        if not found and len(text) >= 6:
            found = sql.all("SELECT uid FROM run WHERE uid >= ? AND uid < ? ORDER BY uid LIMIT 20", (text, f"{text}\U0010ffff"))
        if not found:
            raise UnknownName(f"no run is {text!r}", hint="`tidemill runs list` shows them")
        if len(found) > 1:
            raise DataError(f"{text!r} may be one of several runs", available=[row[0] for row in found], hint="name it by its id")
    run = get_run(ledger, found[0][0])
    row = ledger.records.row("SELECT name FROM experiment WHERE id = ?", (int(run.info.experiment_id),))
    return _recorded(ledger, run, row[0] if row else "")


def _recorded(ledger: Ledger, run: Run, experiment: str) -> Recorded:
    info = run.info
    datasets = [one.dataset for one in run.inputs.dataset_inputs or () if one.dataset]
    return Recorded(
        ledger,
        info.run_id,
        info.run_name,
        experiment,
        info.status,
        info.start_time * 1000,
        None if info.end_time is None else info.end_time * 1000,
        {one.key: one.value or "" for one in run.data.params or ()},
        {one.key: float("nan") if one.value is None else one.value for one in run.data.metrics or ()},
        {one.key: one.value or "" for one in run.data.tags or ()},
        {one.name: one.digest for one in datasets},
        place_of(info.artifact_uri),
    )
