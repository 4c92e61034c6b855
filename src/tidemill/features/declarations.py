"""Entities, views and features, as a project's files declare them. Expressions are SQL over the columns of the dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tidemill.core import (
    DAY,
    HOUR,
    MINUTE,
    Declaration,
    DefinitionError,
    Problems,
    definition,
    duration,
    odd_duration,
    odd_list,
    odd_name,
    odd_text,
    odd_type,
)
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

    def problems(self) -> Problems:
        yield from odd_name(self.kind, str(self.name).removesuffix(f".{self.key}"))  # as `on` names it
        hint = 'name one column, for example key="origin"; of several make one in the query'
        yield from odd_text(f"the key of entity {self.name!r}", self.key, hint)

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

    def problems(self) -> Problems:
        yield from odd_name(self.kind, self.name)
        yield from odd_type(f"the dataset of view {self.name!r}", self.dataset, Dataset, "give the tm.Dataset itself")
        yield from odd_type(f"the entity of view {self.name!r}", self.entity, Entity, "give the tm.Entity itself")
        yield from _odd_features(self.name, self.features)
        yield from odd_list("windows", self.windows, str, 'windows=["1h", "24h"]')
        if self.windows and self.ttl:
            yield DefinitionError(f"view {self.name!r} has windows and a ttl", hint="a window is its own limit: drop the ttl")
        for window in self.windows:
            yield from odd_duration(f"a window of view {self.name!r}", window, '"24h"')
        lengths = {duration(window): window for window in reversed(self.windows)}
        same = next((window for window in self.windows if lengths[duration(window)] != window), None)
        if same:
            what = f"the windows {lengths[duration(same)]!r} and {same!r} of view {self.name!r} are as long"
            yield DefinitionError(what, hint="leave one out")
        if self.ttl:
            yield from odd_duration(f"the ttl of view {self.name!r}", self.ttl, 'ttl="2d"')
        for name, feature in self.columns.items():
            if not self.windows and feature.function != "last":
                hint = 'give the view windows, for example windows=["24h"]'
                yield DefinitionError(f"{feature.function} of {name!r} in view {self.name!r} needs windows", hint=hint)

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

    def problems(self) -> Problems:
        yield from odd_name(self.kind, self.name)
        yield from odd_type(f"the dataset of view {self.name!r}", self.dataset, Dataset, "give the tm.Dataset of the request itself")
        yield from odd_type(f"features of view {self.name!r}", self.features, Mapping, 'for example features={"hour": "hour(sched_dep)"}')
        yield from _odd_features(self.name, self.columns)
        for name, feature in self.columns.items():
            if feature.function != "last":
                hint = f"write the expression alone, or fold rows of a dataset in a tm.FeatureView: {name!r}: {feature.expression!r}"
                yield DefinitionError(f"{feature.function} of {name!r} in view {self.name!r}: a request is one row", hint=hint)

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


def _odd_features(view: str, features: object) -> Problems:
    """Features by name, or a list of columns that are features as they are."""
    what = "features"
    if not isinstance(features, Mapping):
        yield from odd_list(what, features, str, 'features=["temp"], or features={"mean": tm.mean("temp")}', some=True)
        assert isinstance(features, Sequence)
        for name in features:
            for error in odd_name("feature", name):
                error.hint = f'give it a name: features={{"name": tm.last(\'"{name}"\')}}'
                yield error
        return
    if not features:
        yield DefinitionError(f"view {view!r} has no features", hint='for example features={"mean": tm.mean("temp")}')
    for name, feature in features.items():
        yield from odd_name("feature", name)
        hint = f'say how it is made: "{name}": tm.last("{name}"), or tm.mean, sum, min, max, count, category'
        yield from odd_type(f"the feature {name!r} of view {view!r}", feature, Feature, hint)
        yield from odd_text(f"the expression of {name!r} in view {view!r}", feature.expression, "write SQL over the columns of the dataset")


def from_definition(plain: Mapping[str, Any]) -> FeatureView | RequestView:
    """A view from its definition as plain data: what serves is read from the ledger, not from the user's files of today."""
    dataset = Dataset.recorded(plain["dataset"], "event")
    features = {name: Feature(**{k: v for k, v in plain["features"][name].items() if k != "type"}) for name in plain["order"]}
    if plain["type"] == "RequestView":
        return RequestView(plain["name"], dataset, features)
    entity = Entity("entity", plain["entity"])
    return FeatureView(plain["name"], dataset, entity, features, tuple(plain["windows"]), plain["ttl"])


def hop(window: int) -> int:
    """The step by which the tail of a window moves, in microseconds."""
    return 5 * MINUTE if window <= 12 * HOUR else HOUR if window <= 12 * DAY else DAY
