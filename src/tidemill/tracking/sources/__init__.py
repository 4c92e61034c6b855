"""Where experiments, runs and registered models of MLflow are read from: a server, a folder of its file store, a file of its SQLite store.

Each gives the same values, with the ids that they have there. What cannot be read is told as a problem with its place; the rest goes on.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from tidemill.core import MissingFile
from tidemill.tracking.models import LoggedModel
from tidemill.tracking.values import Experiment, Metric, Run


class Source(Protocol):
    """What an import reads. `problems` grows with what could not be read."""

    where: str
    problems: list[str]

    def experiments(self) -> Iterator[Experiment]:
        """Experiments, also deleted ones."""

    def runs(self, experiment: Experiment) -> Iterator[Run]:
        """Runs, also deleted ones; of each metric the newest value, or only its key."""

    def history(self, run: Run, keys: list[str]) -> Iterator[Metric]:
        """Every value of these metrics, which are all of a run."""

    def logged_models(self, experiment: Experiment) -> Iterator[LoggedModel]:
        """Logged models that are not deleted."""

    def files(self, kind: str, owner: str, uri: str) -> Iterator[tuple[str, int]]:
        """Path and size of every file of a `run` or a `model` (by its id), or a `version` of a registered model (by NAME/NUMBER), whose
        files lie at a URI. Raises UnknownName where they lie out of reach."""

    def read(self, kind: str, owner: str, uri: str, path: str) -> Iterator[bytes]:
        """The bytes of such a file in pieces."""

    def registered(self) -> Iterator[dict[str, Any]]:
        """Registered models: `name`, `description`, times, `tags` and `aliases` as mappings."""

    def versions(self, name: str) -> Iterator[dict[str, Any]]:
        """Versions of a registered model with the names of MLflow's protocol, `tags` as a mapping, and `location` where it is known."""


_HINT = "name a server (http://…), a folder `mlruns`, or MLflow's SQLite file"


def open_source(text: str, artifacts: Path | None = None) -> Source:
    """The source that a text names: an address, a folder, or a SQLite file (a path or `sqlite:///…`). `artifacts`: the folder where files
    of a SQLite store lie. Raises MissingFile."""
    if text.startswith(("http://", "https://")):
        from tidemill.tracking.sources.server import Server

        return Server(text)
    path = Path(text.removeprefix("sqlite:///").removeprefix("file://"))
    if path.is_dir():
        if not any(path.glob("*/meta.yaml")) and not any(path.glob("*/*/meta.yaml")):
            raise MissingFile("nothing in this folder has a meta.yaml: it is no `mlruns`", where=str(path), hint=_HINT)
        from tidemill.tracking.sources.folder import Folder

        return Folder(path)
    if path.is_file():
        from tidemill.tracking.sources.sqlite import SqliteFile

        return SqliteFile(path, artifacts)
    raise MissingFile("there is nothing to import", where=str(path), hint=_HINT)
