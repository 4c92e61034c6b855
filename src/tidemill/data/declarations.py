"""Sources, datasets and checks, as a project's files declare them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from tidemill.core import Declaration, DefinitionError, MissingFile, definition, duration

FORMATS = ("csv", "parquet", "json")


@dataclass(frozen=True)
class Source(Declaration):
    """A file: a path from the declaring file's folder, or `package:path` inside an installed package, which is not imported.

    A `.zip` that holds one file is read as that file. CSV is text in UTF-8, its first line the names (above them a title may stand),
    with `"` around a field that needs it; `null_values` are texts that mean null, as an empty field does.
    """

    kind: ClassVar[str] = "source"
    path: str
    format: str = "csv"
    null_values: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format not in FORMATS:
            raise DefinitionError(f"source format {self.format!r} is not known", where=str(self.where), available=list(FORMATS))

    @property
    def name(self) -> str:
        return self.path

    def file(self) -> Path:
        """The file itself; raises MissingFile."""
        package, colon, inside = self.path.partition(":")
        if colon:
            spec = find_spec(package)
            if spec is None or not spec.submodule_search_locations:
                hint = f"pip install {package}"
                raise MissingFile(f"the package {package!r} is not installed", where=str(self.where), hint=hint)
            path = Path(next(iter(spec.submodule_search_locations))) / inside
        else:
            path = Path(self.where.file).parent / self.path
        if not path.is_file():
            raise MissingFile(f"there is no file {self.path!r}", where=str(self.where), hint=f"looked at {path}")
        return path


@dataclass(frozen=True)
class Check(Declaration):
    """A rule that the rows of a dataset version must keep. `kind_of` is one of in_range, not_null, unique, fresh."""

    kind: ClassVar[str] = "check"
    part: ClassVar[bool] = True
    kind_of: str
    column: str = ""
    low: float | None = None
    high: float | None = None
    within: str = ""

    @property
    def name(self) -> str:
        limits = [f"{side}={limit}" for side, limit in (("low", self.low), ("high", self.high)) if limit is not None]
        return f"{self.kind_of}({', '.join([self.column or self.within, *limits])})"


def in_range(column: str, low: float | None = None, high: float | None = None) -> Check:
    """Every value that is not null lies in [low, high]."""
    return Check("in_range", column, low, high)


def not_null(column: str) -> Check:
    """No value is null."""
    return Check("not_null", column)


def unique(column: str) -> Check:
    """No value that is not null stands twice."""
    return Check("unique", column)


def fresh(within: str) -> Check:
    """The newest row became known no longer ago than this. Stale data is an alert, not an error: nothing is wrong with the rows."""
    duration(within)
    return Check("fresh", within=within)


@dataclass(frozen=True)
class Dataset(Declaration):
    """Rows with the time they happened and the time they could be known.

    `query` is SQL, or a file of SQL beside the declaring file, over the sources by their keys; without one the only source is
    taken as it is. `known_at` defaults to `event_time`. A time without a zone is refused unless `timezone` says what it is.
    A dataset with a `key` has one row for each key.
    """

    kind: ClassVar[str] = "dataset"
    name: str
    sources: Mapping[str, Source]
    event_time: str
    query: str = ""
    key: str | Sequence[str] = ()
    known_at: str = ""
    timezone: str = ""
    checks: Sequence[Check] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    def query_file(self) -> Path | None:
        """The file that holds the query, if one does."""
        return Path(self.where.file).parent / self.query if self.query.endswith(".sql") else None

    def sql(self) -> str:
        """The query's text; raises MissingFile."""
        path = self.query_file()
        if path is not None and not path.is_file():
            raise MissingFile(f"there is no file {self.query!r}", where=str(self.where), hint=f"looked at {path}")
        text = path.read_text(encoding="utf-8") if path else self.query or f'SELECT * FROM "{next(iter(self.sources))}"'
        return text.rstrip().rstrip(";")

    def definition(self) -> dict[str, Any]:
        """Plain data: the query by its text, whatever file holds it."""
        plain = {name: definition(getattr(self, name)) for name in ("name", "event_time", "known_at", "timezone")}
        sources = {name: {"format": s.format, "null_values": list(s.null_values), "path": s.path} for name, s in self.sources.items()}
        return {
            "type": "Dataset",
            **plain,
            "query": self.sql(),
            "key": list(self.keys),
            "sources": sources,
            "checks": definition(self.checks),
        }
