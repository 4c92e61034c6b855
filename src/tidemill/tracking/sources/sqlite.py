"""MLflow's SQLite store: one file with the tables of its SQL store, of any version that has experiments and runs."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tidemill.core import DataError, UnknownName
from tidemill.tracking.models import LoggedModel, LoggedModelData, LoggedModelInfo
from tidemill.tracking.sources.folder import logged_status
from tidemill.tracking.sources.local import files_below, folder_of, read_below
from tidemill.tracking.values import (
    Dataset,
    DatasetInput,
    Experiment,
    Inputs,
    Metric,
    ModelRef,
    Outputs,
    Pair,
    Run,
    RunData,
    RunInfo,
)

Row = sqlite3.Row
NEEDED = {"experiments", "runs", "metrics", "params", "tags"}


class SqliteFile:
    """The file, opened for reading only. `artifacts` is the folder where files lie; by default that of the file."""

    def __init__(self, path: Path, artifacts: Path | None = None) -> None:
        self.where, self.root = str(path), artifacts or path.parent
        self.problems: list[str] = []
        try:
            self._sql = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
            self._sql.row_factory = sqlite3.Row
            self._tables = {str(row[0]) for row in self._sql.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.Error as error:
            raise DataError(f"the file is no SQLite database that can be read: {error}", where=self.where) from error
        missing = sorted(NEEDED - self._tables)
        if missing:
            raise DataError(
                f"the file is no store of MLflow: it has no table {missing[0]!r}", where=self.where, available=sorted(self._tables)
            )

    def _rows(self, table: str, where: str = "", values: tuple[Any, ...] = (), order: str = "") -> Iterator[Row]:
        """Rows of a table; none where this store has no such table. A row that cannot be read ends them, which is told."""
        if table not in self._tables:
            return
        query = f"SELECT * FROM {table}" + (f" WHERE {where}" if where else "") + (f" ORDER BY {order}" if order else "")
        try:
            yield from self._sql.execute(query, values)
        except sqlite3.Error as error:
            self.problems.append(f"{self.where}: table {table}: {error}")

    def _pairs(self, table: str, where: str, value: Any, key: str = "key", text: str = "value") -> list[Pair] | None:
        return [Pair(str(row[key]), _text(row[text])) for row in self._rows(table, where, (value,), order=key)] or None

    # ── experiments and runs ────────────────────────────────────────────────────────────────────────────────────

    def experiments(self) -> Iterator[Experiment]:
        for row in self._rows("experiments", order="experiment_id"):
            number, created = row["experiment_id"], _get(row, "creation_time") or 0
            place = (_text(row["artifact_location"]), _text(row["lifecycle_stage"] or "active"))
            tags = self._pairs("experiment_tags", "experiment_id = ?", number)
            yield Experiment(str(number), _text(row["name"]), *place, int(created), int(_get(row, "last_update_time") or created), tags)

    def runs(self, experiment: Experiment) -> Iterator[Run]:
        for row in self._rows("runs", "experiment_id = ?", (int(experiment.experiment_id),), order="start_time, run_uuid"):
            uid = str(row["run_uuid"])
            info = RunInfo(
                uid,
                uid,
                _text(row["name"]),
                experiment.experiment_id,
                _text(row["user_id"]),
                _text(row["status"] or "RUNNING"),
                int(row["start_time"] or 0),
                _text(row["artifact_uri"]),
                _text(row["lifecycle_stage"] or "active"),
                None if row["end_time"] is None else int(row["end_time"]),
            )
            keys = self._sql.execute("SELECT DISTINCT key FROM metrics WHERE run_uuid = ? ORDER BY key", (uid,))
            metrics = [Metric(str(key)) for (key,) in keys]
            data = RunData(metrics or None, self._pairs("params", "run_uuid = ?", uid), self._pairs("tags", "run_uuid = ?", uid))
            yield Run(info, data, self._inputs(uid), self._outputs(uid))

    def history(self, run: Run, keys: list[str]) -> Iterator[Metric]:
        for row in self._rows("metrics", "run_uuid = ?", (run.info.run_id,)):  # the store has an index by run, and none by run and key
            value = float("nan") if _get(row, "is_nan") else float(row["value"])
            yield Metric(str(row["key"]), value, int(row["timestamp"]), int(_get(row, "step") or 0))

    def _inputs(self, uid: str) -> Inputs:
        datasets, models = list[DatasetInput](), list[ModelRef]()
        for row in self._rows("inputs", "source_type = 'DATASET' AND destination_type = 'RUN' AND destination_id = ?", (uid,)):
            tags = self._pairs("input_tags", "input_uuid = ?", row["input_uuid"], "name")
            found = self._rows("datasets", "dataset_uuid = ?", (row["source_id"],))
            datasets += [DatasetInput(_dataset(one), tags) for one in found]
        for row in self._rows("inputs", "source_type = 'RUN_INPUT' AND destination_type = 'MODEL_INPUT' AND source_id = ?", (uid,)):
            models.append(ModelRef(str(row["destination_id"])))
        return Inputs(datasets or None, models or None)

    def _outputs(self, uid: str) -> Outputs | None:
        rows = self._rows("inputs", "source_type = 'RUN_OUTPUT' AND destination_type = 'MODEL_OUTPUT' AND source_id = ?", (uid,))
        found = [ModelRef(str(row["destination_id"]), int(_get(row, "step") or 0)) for row in rows]
        return Outputs(found) if found else None

    def logged_models(self, experiment: Experiment) -> Iterator[LoggedModel]:
        where = "experiment_id = ? AND lifecycle_stage != 'deleted'"
        for row in self._rows("logged_models", where, (int(experiment.experiment_id),), order="creation_timestamp_ms, model_id"):
            model = str(row["model_id"])
            info = LoggedModelInfo(
                model,
                experiment.experiment_id,
                _text(row["name"]),
                int(row["creation_timestamp_ms"] or 0),
                int(row["last_updated_timestamp_ms"] or 0),
                _text(row["artifact_location"]),
                logged_status(row["status"]),
                _text(row["model_type"]) or None,
                _text(row["source_run_id"]) or None,
                _text(row["status_message"]) or None,
                self._pairs("logged_model_tags", "model_id = ?", model, "tag_key", "tag_value"),
            )
            params = self._pairs("logged_model_params", "model_id = ?", model, "param_key", "param_value")
            yield LoggedModel(info, LoggedModelData(params, self._model_metrics(model)))

    def _model_metrics(self, model: str) -> list[Metric] | None:
        found = []
        for row in self._rows("logged_model_metrics", "model_id = ?", (model,)):
            point = Metric(str(row["metric_name"]), float(row["metric_value"]), int(row["metric_timestamp_ms"]), int(row["metric_step"]))
            point.dataset_name, point.dataset_digest, point.run_id = row["dataset_name"], row["dataset_digest"], row["run_id"]
            found.append(point)
        return found or None

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────

    def files(self, kind: str, owner: str, uri: str) -> Iterator[tuple[str, int]]:
        folder = folder_of(self.root, uri)
        yield from files_below(folder, self.problems) if folder else ()

    def read(self, kind: str, owner: str, uri: str, path: str) -> Iterator[bytes]:
        folder = folder_of(self.root, uri)
        if folder is None:
            raise UnknownName(f"{path} of {kind} {owner} is not there")
        yield from read_below(folder, path)

    # ── the registry ────────────────────────────────────────────────────────────────────────────────────────────

    def registered(self) -> Iterator[dict[str, Any]]:
        for row in self._rows("registered_models", order="name"):
            name = str(row["name"])
            tags = {str(one["key"]): _text(one["value"]) for one in self._rows("registered_model_tags", "name = ?", (name,))}
            aliases = {str(one["alias"]): str(one["version"]) for one in self._rows("registered_model_aliases", "name = ?", (name,))}
            times = {"creation_timestamp": row["creation_time"], "last_updated_timestamp": row["last_updated_time"]}
            yield {"name": name, "description": _text(row["description"]), **times, "tags": tags, "aliases": aliases}

    def versions(self, name: str) -> Iterator[dict[str, Any]]:
        for row in self._rows("model_versions", "name = ?", (name,), order="version"):
            query = "name = ? AND version = ?"
            tags = {str(one["key"]): _text(one["value"]) for one in self._rows("model_version_tags", query, (name, row["version"]))}
            times = {"creation_timestamp": row["creation_time"], "last_updated_timestamp": row["last_updated_time"]}
            plain = {key: row[key] for key in ("description", "user_id", "current_stage", "source", "run_id", "status", "status_message")}
            more = {"run_link": _get(row, "run_link"), "location": _get(row, "storage_location"), "tags": tags}
            yield {"version": str(row["version"]), **plain, **times, **more}


def _get(row: Row, name: str) -> Any:
    """A column that older stores lack."""
    return row[name] if name in row.keys() else None  # noqa: SIM118 – a row is asked by place otherwise


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _dataset(row: Row) -> Dataset:
    name, digest, kind, source = (_text(row[key]) for key in ("name", "digest", "dataset_source_type", "dataset_source"))
    return Dataset(name, digest, kind, source, _get(row, "dataset_schema"), _get(row, "dataset_profile"))
