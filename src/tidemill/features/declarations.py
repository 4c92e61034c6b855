"""Entities, views and features, as a project's files declare them. Expressions are SQL over the columns of the dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tidemill.core import DAY, HOUR, MINUTE, Declaration, DefinitionError, definition, duration
from tidemill.data import Dataset


@dataclass(frozen=True)
class Feature:
    """One number (or category) for each row or window: an SQL expression, and the function that folds a window."""

    function: str
    expression: str
    category: bool = False


def mean(expression: str) -> Feature:
    """Mean over a window's events, nulls left out; null for no value."""
    return Feature("mean", expression)


def sum(expression: str) -> Feature:
    """Sum over a window's events, nulls left out; null for no value."""
    return Feature("sum", expression)


def min(expression: str) -> Feature:
    """Smallest value of a window's events."""
    return Feature("min", expression)


def max(expression: str) -> Feature:
    """Largest value of a window's events."""
    return Feature("max", expression)


def count(expression: str = "TRUE") -> Feature:
    """Number of a window's events for which the expression is not null; 0 for none."""
    return Feature("count", expression)


def last(expression: str) -> Feature:
    """Value of the newest event."""
    return Feature("last", expression)


def category(expression: str) -> Feature:
    """A text taken as a category."""
    return Feature("last", expression, category=True)


@dataclass(frozen=True)
class Entity(Declaration):
    """What features describe, and the column that names it. A null key matches nothing."""

    kind: ClassVar[str] = "entity"
    name: str
    key: str

    def on(self, column: str) -> "Entity":
        """The same entity, found in the request under another column."""
        return Entity(f"{self.name}.{column}", column, where=self.where)


@dataclass(frozen=True)
class FeatureView(Declaration):
    """Features of an entity over the rows of a dataset.

    With `windows`, each feature folds the events in [floor(at − window, hop), at]; the hop is 5 minutes for windows up to 12
    hours, an hour up to 12 days, a day above (the sawtooth of Chronon: a window's state stays small, and both paths give
    the same number). Without, a feature is the newest row's value, for as long as `ttl` (inclusive). A row counts from the
    moment it is known.
    """

    kind: ClassVar[str] = "feature view"
    name: str
    dataset: Dataset
    entity: Entity
    features: Mapping[str, Feature] | Sequence[str]
    windows: Sequence[str] = ()
    ttl: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.windows and self.ttl:
            raise DefinitionError(
                f"view {self.name!r} has windows and a ttl", where=str(self.where), hint="a window is its own limit: drop the ttl"
            )
        for window in [*self.windows, *([self.ttl] if self.ttl else [])]:
            duration(window)
        for name, feature in self.columns.items():
            if not self.windows and feature.function != "last":
                hint = 'give the view windows, for example windows=["24h"]'
                raise DefinitionError(
                    f"{feature.function} of {name!r} in view {self.name!r} needs windows", where=str(self.where), hint=hint
                )

    @property
    def columns(self) -> dict[str, Feature]:
        """Features by name; a bare column name is its newest value."""
        if isinstance(self.features, Mapping):
            return dict(self.features)
        return {name: last(name) for name in self.features}

    @property
    def names(self) -> list[str]:
        """Names of the numbers that the view gives, in their order: `view__feature_window`."""
        windows = [f"_{window}" for window in self.windows] or [""]
        return [f"{self.name}__{name}{window}" for window in windows for name in self.columns]

    def definition(self) -> dict[str, Any]:
        """Plain data; the dataset by name, since its version is an input of its own."""
        features = {name: definition(feature) for name, feature in self.columns.items()}
        plain: dict[str, Any] = {"name": self.name, "entity": self.entity.key, "windows": list(self.windows), "ttl": self.ttl}
        return {"type": "FeatureView", **plain, "dataset": self.dataset.name, "features": features, "order": list(features)}


@dataclass(frozen=True)
class RequestView(Declaration):
    """Features computed from the request itself, for a million rows or for one."""

    kind: ClassVar[str] = "request view"
    name: str
    dataset: Dataset
    features: Mapping[str, Feature | str]

    @property
    def columns(self) -> dict[str, Feature]:
        """Features by name; a bare text is an expression that gives a number."""
        return {name: last(f) if isinstance(f, str) else f for name, f in self.features.items()}

    @property
    def names(self) -> list[str]:
        return [f"{self.name}__{name}" for name in self.columns]

    def definition(self) -> dict[str, Any]:
        """Plain data; the dataset by name."""
        features = {name: definition(feature) for name, feature in self.columns.items()}
        return {"type": "RequestView", "name": self.name, "dataset": self.dataset.name, "features": features, "order": list(features)}


def from_definition(plain: Mapping[str, Any]) -> FeatureView | RequestView:
    """A view from its definition as plain data: what serves is read from the ledger, not from the user's files of today."""
    dataset = Dataset(plain["dataset"], {}, "event")
    features = {name: Feature(**{k: v for k, v in plain["features"][name].items() if k != "type"}) for name in plain["order"]}
    if plain["type"] == "RequestView":
        return RequestView(plain["name"], dataset, features)
    entity = Entity(plain["entity"], plain["entity"])
    return FeatureView(plain["name"], dataset, entity, features, tuple(plain["windows"]), plain["ttl"])


def hop(window: int) -> int:
    """The step by which the tail of a window moves, in microseconds."""
    return 5 * MINUTE if window <= 12 * HOUR else HOUR if window <= 12 * DAY else DAY
