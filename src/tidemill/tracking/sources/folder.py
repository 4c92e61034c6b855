"""MLflow's file store: a folder `mlruns`, with a `meta.yaml` for each experiment, run and model, a file for each metric, parameter, tag."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tidemill.core import DataError, MissingExtra, UnknownName
from tidemill.tracking.models import STATUSES, LoggedModel, LoggedModelData, LoggedModelInfo
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

META, TRASH, MODELS = "meta.yaml", ".trash", "models"
NO_META = (TRASH, MODELS, "tags", "aliases", "datasets", "traces")  # folders beside those that have one
LONGEST = 1 << 22  # bytes of a text that is read whole
STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
T = TypeVar("T")


def read_yaml(path: Path) -> dict[str, Any]:
    """A small file of plain data; raises DataError with its path, and MissingExtra."""
    try:
        if path.is_symlink() or path.stat().st_size > LONGEST:
            raise DataError("a link, or larger than any that MLflow writes", where=str(path))
        return parse_yaml(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error


def parse_yaml(text: bytes, where: str = "") -> dict[str, Any]:
    """A mapping of plain data; raises DataError, and MissingExtra."""
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("YAML cannot be read", hint="pip install 'tidemill[mlflow]'") from error
    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 – both are safe
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"cannot be read: {str(error).splitlines()[0]}", where=where) from error
    if not isinstance(found, dict):
        raise DataError("is no mapping", where=where)
    return found


class Folder:
    """A folder `mlruns`."""

    def __init__(self, root: Path) -> None:
        self.root, self.where = root, str(root)
        self.problems: list[str] = []
        self._experiments: dict[str, Path] = {}
        self._runs: dict[str, Path] = {}
        self._models: dict[str, Path] = {}

    # ── reading what lies there ─────────────────────────────────────────────────────────────────────────────────

    def _each(self, folders: list[Path], make: Callable[[Path], T]) -> Iterator[T]:
        """What `make` gives for each folder with a `meta.yaml`; what is wrong is told."""
        for folder in folders:
            try:
                yield make(folder)
            except DataError as error:
                self.problems.append(f"{error.where or folder}: {error.what}")
            except (msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
                self.problems.append(f"{folder / META}: {error if not isinstance(error, KeyError) else f'{error} is missing'}")

    def _folders(self, where: Path) -> list[Path]:
        """Folders with a `meta.yaml`, by name. A folder of an experiment or run that has lost it is told."""
        if not where.is_dir() or where.is_symlink():
            return []
        found = [one for one in sorted(where.iterdir()) if one.is_dir() and one.name not in NO_META]
        links = [one for one in found if one.is_symlink()]
        self.problems += [f"{one}: a symbolic link is not followed" for one in links]
        lost = [one for one in found if one not in links and not (one / META).exists()]
        self.problems += [f"{one / META}: is not there" for one in lost]
        return [one for one in found if one not in links and one not in lost]

    def _texts(self, folder: Path) -> dict[str, str]:
        """A value for each file below a folder, by its path: parameters and tags."""
        found = {}
        for name, size in files_below(folder, self.problems) if folder.is_dir() else ():
            if size > LONGEST:
                self.problems.append(f"{folder / name}: {size} bytes are more than a value may have")
            else:
                found[name] = b"".join(read_below(folder, name)).decode("utf-8", errors="replace")
        return found

    def _pairs(self, folder: Path) -> list[Pair] | None:
        return [Pair(key, value) for key, value in self._texts(folder).items()] or None

    # ── experiments and runs ────────────────────────────────────────────────────────────────────────────────────

    def experiments(self) -> Iterator[Experiment]:
        yield from self._each(self._folders(self.root) + self._folders(self.root / TRASH), self._experiment)

    def _experiment(self, folder: Path) -> Experiment:
        meta = read_yaml(folder / META)
        plain = {"experiment_id": str(meta["experiment_id"]), "name": str(meta["name"])}
        times = {"creation_time": meta.get("creation_time") or 0, "last_update_time": meta.get("last_update_time") or 0}
        place = {"artifact_location": str(meta.get("artifact_location", "")), "lifecycle_stage": str(meta.get("lifecycle_stage", "active"))}
        found = msgspec.convert({**plain, **times, **place}, Experiment)
        found.tags = self._pairs(folder / "tags")
        self._experiments[found.experiment_id] = folder
        return found

    def runs(self, experiment: Experiment) -> Iterator[Run]:
        yield from self._each(self._folders(self._experiments[experiment.experiment_id]), self._run)

    def _run(self, folder: Path) -> Run:
        meta = read_yaml(folder / META)
        uid = str(meta.get("run_id") or meta["run_uuid"])
        status = meta.get("status", 1)
        info = RunInfo(
            uid,
            uid,
            str(meta.get("run_name") or ""),
            str(meta["experiment_id"]),
            str(meta.get("user_id") or ""),
            STATUS.get(status, str(status)) if isinstance(status, int) else str(status),
            int(meta.get("start_time") or 0),
            str(meta.get("artifact_uri") or ""),
            str(meta.get("lifecycle_stage", "active")),
            int(meta["end_time"]) if meta.get("end_time") is not None else None,
        )
        self._runs[uid] = folder
        keys = sorted(name for name, _ in files_below(folder / "metrics", self.problems)) if (folder / "metrics").is_dir() else []
        data = RunData([Metric(key) for key in keys] or None, self._pairs(folder / "params"), self._pairs(folder / "tags"))
        return Run(info, data, self._inputs(folder), self._outputs(folder))

    def _inputs(self, folder: Path) -> Inputs:
        datasets, models = list[DatasetInput](), list[ModelRef]()
        for meta in self._each(self._folders(folder / "inputs"), lambda one: read_yaml(one / META)):
            if meta.get("source_type") == "MODEL":
                models.append(ModelRef(str(meta["source_id"])))
            elif meta.get("source_type") == "DATASET":
                where = folder.parent / "datasets" / Path(str(meta["source_id"])).name
                tags = [Pair(str(key), str(value)) for key, value in (meta.get("tags") or {}).items()]
                datasets += [DatasetInput(one, tags) for one in self._each([where], _dataset)]
        return Inputs(datasets or None, models or None)

    def _outputs(self, folder: Path) -> Outputs | None:
        found = list(self._each(self._folders(folder / "outputs"), lambda one: read_yaml(one / META)))
        return Outputs([ModelRef(str(one["destination_id"]), int(one.get("step") or 0)) for one in found]) if found else None

    def history(self, run: Run, keys: list[str]) -> Iterator[Metric]:
        for key in keys:
            yield from self._points(self._runs[run.info.run_id] / "metrics" / key, key)

    def _points(self, path: Path, key: str) -> Iterator[Metric]:
        """A line is a time, a value, a step, and of a logged model's metric more. What is wrong is told with its line."""
        wrong = 0
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                parts = line.split()
                try:
                    point = Metric(key, float(parts[1]), int(parts[0]), int(parts[2]) if len(parts) > 2 else 0)
                    point.dataset_name, point.dataset_digest = (parts[3], parts[4]) if len(parts) > 5 else (None, None)
                    point.run_id = parts[-1] if len(parts) > 3 else None
                except (ValueError, IndexError):
                    wrong += 1
                    if wrong == 1:
                        self.problems.append(f"{path}:{number}: {line[:80].rstrip()!r} is no value of a metric")
                    continue
                yield point

    # ── logged models ───────────────────────────────────────────────────────────────────────────────────────────

    def logged_models(self, experiment: Experiment) -> Iterator[LoggedModel]:
        for found in self._each(self._folders(self._experiments[experiment.experiment_id] / MODELS), self._logged):
            if found is not None:
                yield found

    def _logged(self, folder: Path) -> LoggedModel | None:
        meta = read_yaml(folder / META)
        if meta.get("lifecycle_stage") == "deleted":
            return None
        model = str(meta["model_id"])
        info = LoggedModelInfo(
            model,
            str(meta["experiment_id"]),
            str(meta.get("name") or ""),
            int(meta.get("creation_timestamp") or 0),
            int(meta.get("last_updated_timestamp") or 0),
            str(meta.get("artifact_location") or ""),
            logged_status(meta.get("status")),
            meta.get("model_type") or None,
            meta.get("source_run_id") or None,
            meta.get("status_message") or None,
            self._pairs(folder / "tags"),
        )
        metrics = folder / "metrics"
        names = [name for name, _ in files_below(metrics, self.problems)] if metrics.is_dir() else []
        points = [point for name in names for point in self._points(metrics / name, name)]
        return LoggedModel(info, LoggedModelData(self._pairs(folder / "params"), points or None))

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _place(self, kind: str, owner: str, uri: str) -> Path | None:
        own = self._runs[owner] / "artifacts" if kind == "run" else None
        return own if own is not None and own.is_dir() and not own.is_symlink() else folder_of(self.root, uri)

    def files(self, kind: str, owner: str, uri: str) -> Iterator[tuple[str, int]]:
        folder = self._place(kind, owner, uri)
        yield from files_below(folder, self.problems) if folder else ()

    def read(self, kind: str, owner: str, uri: str, path: str) -> Iterator[bytes]:
        folder = self._place(kind, owner, uri)
        if folder is None:
            raise UnknownName(f"{path} of {kind} {owner} is not there")
        yield from read_below(folder, path)

    # ── the registry ────────────────────────────────────────────────────────────────────────────────────────────

    def registered(self) -> Iterator[dict[str, Any]]:
        yield from self._each(self._folders(self.root / MODELS), self._registered)

    def _registered(self, folder: Path) -> dict[str, Any]:
        meta = read_yaml(folder / META)
        aliases = {name: text.strip() for name, text in self._texts(folder / "aliases").items()}
        self._models[str(meta["name"])] = folder
        return {**meta, "name": str(meta["name"]), "tags": self._texts(folder / "tags"), "aliases": aliases}

    def versions(self, name: str) -> Iterator[dict[str, Any]]:
        folders = self._folders(self._models[name])
        yield from self._each([one for one in folders if one.name.startswith("version-")], self._version)

    def _version(self, folder: Path) -> dict[str, Any]:
        meta = read_yaml(folder / META)
        return {**meta, "version": str(meta["version"]), "location": meta.get("storage_location"), "tags": self._texts(folder / "tags")}


def logged_status(status: Any) -> str:
    """The status of a logged model by its number or its name."""
    names = {1: STATUSES[0], 2: STATUSES[1], 3: STATUSES[2]}
    return names.get(status, status if status in STATUSES else STATUSES[1])


def _dataset(folder: Path) -> Dataset:
    meta = read_yaml(folder / META)
    texts = {key: str(meta[key]) if meta.get(key) is not None else None for key in ("schema", "profile")}
    return Dataset(str(meta["name"]), str(meta["digest"]), str(meta.get("source_type", "")), str(meta.get("source", "")), **texts)
