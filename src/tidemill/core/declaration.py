"""What a project's files declare: frozen values that know their name, and the file and line that made them.

`definition(value)` gives the value as plain data; its digest is the version of the declaration. Where it was written does
not enter: moving a line changes nothing.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

from tidemill.core.digests import digest_value
from tidemill.core.problems import Problems


@dataclass(frozen=True)
class Where:
    """A file and a line of it."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else ""


def caller() -> Where:
    """The nearest line outside of Tidemill that led here."""
    frame = sys._getframe(1)
    while frame.f_back and (frame.f_globals.get("__name__", "").split(".")[0] == "tidemill" or frame.f_code.co_filename == "<string>"):
        frame = frame.f_back
    return Where(frame.f_code.co_filename, frame.f_lineno)


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The generic type that `project` collects. A subclass is a frozen dataclass with a `name` and a `kind`; `part` says that it is only
    a part of what it is declared in, such as a gate, so that two of one name may differ. Kinds of one `family` share their names."""

    kind: ClassVar[str] = "declaration"
    family: ClassVar[str] = ""
    part: ClassVar[bool] = False
    where: Where = field(default_factory=Where, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.where.file:
            object.__setattr__(self, "where", caller())
        for problem in self.problems():
            problem.where = problem.where or str(self.where)
            raise problem

    def problems(self) -> Problems:
        """What cannot work about it; making the value raises the first. Later ones may rest on it."""
        yield from ()


def definition(value: Any) -> Any:
    """A declaration, and all that it is made of, as plain data. Fields that do not compare, as where it was written and words for
    people, are no part of it."""
    if isinstance(value, type) or callable(getattr(value, "definition", None)):
        return value.definition() if not isinstance(value, type) else value.__name__
    if is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: definition(getattr(value, f.name)) for f in fields(value) if f.compare}
        return {"type": type(value).__name__, **plain}
    if isinstance(value, Mapping):
        return {str(key): definition(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [definition(item) for item in value]
    return value


def version_of(value: Any) -> str:
    """Digest of a declaration's definition."""
    return digest_value(definition(value))


def walk(value: Any, above: frozenset[int] = frozenset()) -> Iterator[Declaration]:
    """The declarations that a value is made of, innermost first, then the value itself; `above` are the ids of what it lies in."""
    if id(value) in above:
        return
    if isinstance(value, Mapping):
        value_parts = list(value.values())
    elif isinstance(value, (list, tuple)):
        value_parts = list(value)
    elif is_dataclass(value) and not isinstance(value, type):
        value_parts = [getattr(value, f.name, None) for f in fields(value) if f.compare]
    else:
        return
    above |= {id(value)}
    for part in value_parts:
        yield from walk(part, above)
    if isinstance(value, Declaration):
        yield value
