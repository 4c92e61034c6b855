"""Sources, datasets and checks, as a project's files declare them."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from tidemill.core import (
    Declaration,
    DefinitionError,
    MissingFile,
    Problems,
    definition,
    odd_duration,
    odd_list,
    odd_name,
    odd_number,
    odd_text,
)

FORMATS = ("csv", "parquet", "json", "delta")
RECORDED, SHARED = "recorded", "shared"  # no files: what the ledger tells of a version, and rows of another project


_SQL = re.compile(
    r"""(?P<kept>'(?<=(?<!\w)[eE]')(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|(?P<dollar>\$\w*\$).*?(?P=dollar))"""
    r"|(?P<gap>(?:\s|--[^\n]*|/\*(?:(?!/\*).)*?\*/)+)",
    re.DOTALL,
)


def meaning(sql: str) -> str:
    """A query without its comments, each gap one space: two texts of one meaning are one definition.

    >>> meaning("SELECT a,  -- the first\\n  '--  kept' AS b /* both */ FROM t")
    "SELECT a, '--  kept' AS b FROM t"
    """
    return _SQL.sub(lambda found: found["kept"] or " ", sql).strip()


@dataclass(frozen=True)
class Source(Declaration):
    """A file: a path from the declaring file's folder, or `package:path` inside an installed package, which is not imported.

    A `.zip` that holds one file is read as that file. CSV is text in UTF-8, its first line the names (above them a title may stand),
    with `"` around a field that needs it; `null_values` are texts that mean null, as an empty field does. Of format `delta` it is the
    folder of a Delta Lake table, of which the newest version is read.
    """

    kind: ClassVar[str] = "source"
    path: str
    format: str = "csv"
    null_values: Sequence[str] = ()

    def problems(self) -> Problems:
        yield from odd_text("the source's path", self.path, 'for example tm.Source("flights.csv")')
        if self.format not in (*FORMATS, RECORDED, SHARED):
            yield DefinitionError(f"source format {self.format!r} is not known", available=list(FORMATS))
        yield from odd_list("null_values", self.null_values, str, 'null_values=["NA"]; an empty field is null as it is')

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
        if self.format == "delta":
            if not (path / "_delta_log").is_dir():
                raise MissingFile(f"there is no Delta table {self.path!r}", where=str(self.where), hint=f"looked for {path / '_delta_log'}")
            return path
        if path.is_dir():
            raise MissingFile(f"{self.path!r} is a folder", where=str(self.where), hint=f"name one file, such as {self.path}/rows.csv")
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

    def problems(self) -> Problems:
        if self.kind_of == "fresh":
            yield from odd_duration("fresh", self.within, 'tm.fresh("2d")')
            return
        yield from odd_text(f"the column of {self.kind_of}", self.column, f'for example tm.{self.kind_of}("dep_delay")')
        if self.kind_of == "in_range":
            example = f'tm.in_range("{self.column}", 0, 100)'
            for side, limit in (("low", self.low), ("high", self.high)):
                if limit not in (None, -inf, inf):
                    yield from odd_number(side, limit, "(-inf, inf)", example)
            low, high = -inf if self.low is None else self.low, inf if self.high is None else self.high
            if low > high or (low, high) == (-inf, inf):
                why = "holds no number" if low > high else "holds every number"
                yield DefinitionError(f"the range of {self.column!r}, low={self.low} and high={self.high}, {why}", hint=f"write {example}")

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
    return Check("fresh", within=within)


def _is_zone(text: object) -> bool:
    with suppress(KeyError, ValueError, OSError, TypeError):
        return bool(ZoneInfo(text))  # type: ignore[arg-type]
    return False


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

    def problems(self) -> Problems:
        given: Any = self.sources
        values = list(given.values()) if isinstance(given, Mapping) else []
        own = all(getattr(source, "format", "") in FORMATS for source in values)
        yield from odd_name(self.kind, self.name if own else str(self.name).replace(".", "_", 1))  # PROJECT.DATASET
        if not isinstance(given, Mapping) or not given:
            hint = 'name each source as its query does: {"flights": tm.Source("flights.csv")}'
            yield DefinitionError(f"the sources of dataset {self.name!r} are {self.sources!r}", hint=hint)
        if self.elsewhere and len(values) > 1:
            hint = "declare features over each dataset: a task joins them"
            yield DefinitionError(f"dataset {self.name!r} is of another project, and has other sources", hint=hint)
        for name, source in given.items():
            yield from odd_name("source", name)
            if not isinstance(source, Source):
                yield DefinitionError(f"the source {name!r} of dataset {self.name!r} is {source!r}", hint="give a tm.Source")
        alike = [name for name in self.sources if [other.casefold() for other in self.sources].count(name.casefold()) > 1]
        if alike:
            yield DefinitionError(f"the sources {' and '.join(map(repr, alike))} are one name in SQL", hint="give them different names")
        if len(self.sources) > 1 and not self.query:
            hint = 'say how they come together: query="flights.sql", or the SQL itself'
            yield DefinitionError(f"dataset {self.name!r} has {len(self.sources)} sources and no query", hint=hint)
        yield from odd_text(f"the event_time of dataset {self.name!r}", self.event_time, "name the column with the time it happened")
        yield from odd_list("key", [self.key] if isinstance(self.key, str) else self.key, str, 'key="id", or key=["id", "part"]')
        if self.timezone and not _is_zone(self.timezone):
            hint = "write a name of the IANA database, for example Europe/Berlin"
            yield DefinitionError(f"timezone={self.timezone!r} is not a time zone", hint=hint)
        yield from odd_list("checks", self.checks, Check, 'checks=[tm.not_null("dep_delay")]')

    @classmethod
    def recorded(cls, name: str, event_time: str, **more: Any) -> "Dataset":
        """A dataset as its versions in the ledger know it: what they were made of is in their lineage."""
        return cls(name, {"recorded": Source("recorded", RECORDED)}, event_time, **more)

    @property
    def elsewhere(self) -> Source | None:
        """What names the project and the dataset there, `PROJECT/DATASET`, of a dataset that is taken from it as it is."""
        return next((source for source in self.sources.values() if getattr(source, "format", "") == SHARED), None)

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
        """Plain data: the query by what it says, whatever file holds it and whatever is remarked beside it."""
        plain = {name: definition(getattr(self, name)) for name in ("name", "event_time", "known_at", "timezone")}
        sources = {name: {"format": s.format, "null_values": list(s.null_values), "path": s.path} for name, s in self.sources.items()}
        return {
            "type": "Dataset",
            **plain,
            "query": meaning(self.sql()),
            "key": list(self.keys),
            "sources": sources,
            "checks": definition(self.checks),
        }
