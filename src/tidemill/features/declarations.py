"""Entities, views and features, as a project's files declare them. Expressions are SQL over the columns of the dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    description: str = field(default="", compare=False, kw_only=True)

    def described(self, text: str) -> "Feature":
        """The same feature with a description for people."""
        return replace(self, description=text)


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


@dataclass(frozen=True, kw_only=True)
class Described(Declaration):
    """A declaration with words for people. They are no part of the definition: who mends a sentence makes no new version."""

    description: str = field(default="", compare=False, repr=False)
    owner: str = field(default="", compare=False, repr=False)
    tags: Sequence[str] = field(default=(), compare=False, repr=False)

    def about(self) -> dict[str, Any]:
        """What is said of it for people, as plain data."""
        return {"description": self.description, "owner": self.owner, "tags": list(self.tags)}

    def _odd_words(self, name: str) -> Problems:
        for what, value in (("description", self.description), ("owner", self.owner)):
            yield from odd_type(f"the {what} of {self.kind} {name!r}", value, str, f'for example {what}="…"')
        yield from odd_list("tags", self.tags, str, 'tags=["weather", "hourly"]')


@dataclass(frozen=True)
class Entity(Described):
    """What features describe, and the column that names it, or several columns. A key of which a part is null matches nothing."""

    kind: ClassVar[str] = "entity"
    name: str
    key: str | Sequence[str]

    def problems(self) -> Problems:
        hint = 'name a column, for example key="origin", or several: key=["driver_id", "shop_id"]'
        if isinstance(self.key, (list, tuple)):
            yield from odd_list(f"the key of entity {self.name!r}: key", self.key, str, 'key=["driver_id", "shop_id"]', some=True)
        else:
            yield from odd_text(f"the key of entity {self.name!r}", self.key, hint)
        yield from odd_name(self.kind, str(self.name).removesuffix(f".{'.'.join(self.keys)}"))  # as `on` names it
        yield from self._odd_words(self.name)

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns of the key, in their order."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    def on(self, *columns: str) -> "Entity":
        """The same entity, found in the request under other columns: one for each of its key, in the order of the key."""
        if len(columns) != len(self.keys):
            what = f"entity {self.name!r} has the key {list(self.keys)}, and {len(columns)} columns are named for it"
            raise DefinitionError(what, where=str(self.where), hint="name one column for each, in the same order")
        key = columns[0] if isinstance(self.key, str) else columns
        return replace(self, name=f"{self.name}.{'.'.join(columns)}", key=key)


@dataclass(frozen=True)
class FeatureView(Described):
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
        yield from self._odd_words(self.name)
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

    def about(self) -> dict[str, Any]:
        """What is said of the view and of its features for people, as plain data."""
        return {**super().about(), "features": {name: feature.description for name, feature in self.columns.items()}}

    @property
    def names(self) -> list[str]:
        """Names of the numbers that the view gives, in their order: `view__feature_window`."""
        windows = [f"_{window}" for window in self.windows] or [""]
        return [f"{self.name}__{name}{window}" for window in windows for name in self.columns]

    def definition(self) -> dict[str, Any]:
        """Plain data; the dataset by name, since its version is an input of its own."""
        features = {name: definition(feature) for name, feature in self.columns.items()}
        key = self.entity.keys if len(self.entity.keys) > 1 else self.entity.keys[0]
        plain: dict[str, Any] = {"name": self.name, "entity": definition(key), "windows": list(self.windows), "ttl": self.ttl}
        return {"type": "FeatureView", **plain, "dataset": self.dataset.name, "features": features, "order": list(features)}


@dataclass(frozen=True)
class RequestView(Described):
    """Features computed from the request itself, for a million rows or for one."""

    kind: ClassVar[str] = "request view"
    name: str
    dataset: Dataset
    features: Mapping[str, Feature | str]

    def problems(self) -> Problems:
        yield from odd_name(self.kind, self.name)
        yield from odd_type(f"the dataset of view {self.name!r}", self.dataset, Dataset, "give the tm.Dataset of the request itself")
        yield from self._odd_words(self.name)
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

    def about(self) -> dict[str, Any]:
        """What is said of the view and of its features for people, as plain data."""
        return {**super().about(), "features": {name: feature.description for name, feature in self.columns.items()}}

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
