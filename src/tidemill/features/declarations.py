"""Entities, views and features, as a project's files declare them. Expressions are SQL over the columns of the dataset."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
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
from tidemill.features.arrays import Function
from tidemill.features.outputs import Output
from tidemill.ledger import code_of

LIFETIME = "lifetime"  # a window without a begin
MOST = 1_000  # of the newest events
VALUES = {"true", "false", "null"}
LONGEST = 10_000  # characters of an expression


@dataclass(frozen=True)
class Feature:
    """One number (or category) for each row or window: an SQL expression, and the function that folds a window. `filter`: which events
    count; `n`: of the newest n; `q`: of a quantile."""

    function: str
    expression: str
    category: bool = False
    filter: str = ""
    n: int | None = None
    q: float = 0.0
    description: str = field(default="", compare=False, kw_only=True)

    def described(self, text: str) -> "Feature":
        """The same feature with a description for people."""
        return replace(self, description=text)

    @property
    def gives(self) -> str:
        """What its values are: "category", "whole number" or "number"."""
        return "category" if self.category else "whole number" if self.function in ("count", "count_distinct") else "number"

    def definition(self) -> dict[str, Any]:
        """Plain data: what is not said is not in it."""
        plain: dict[str, Any] = {"type": "Feature", "function": self.function, "expression": self.expression, "category": self.category}
        return plain | {name: value for name, value in (("filter", self.filter), ("n", self.n), ("q", self.q)) if value}


def mean(expression: str, *, filter: str = "") -> Feature:
    """Mean over a window's events, nulls left out: the exactly rounded sum, divided by how many there are; null for no value."""
    return Feature("mean", expression, filter=filter)


def sum(expression: str, *, filter: str = "") -> Feature:
    """Sum over a window's events, nulls left out, exactly rounded; null for no value."""
    return Feature("sum", expression, filter=filter)


def min(expression: str, *, filter: str = "") -> Feature:
    """Smallest value of a window's events."""
    return Feature("min", expression, filter=filter)


def max(expression: str, *, filter: str = "") -> Feature:
    """Largest value of a window's events."""
    return Feature("max", expression, filter=filter)


def std(expression: str, *, filter: str = "") -> Feature:
    """Standard deviation of a sample (divided by n − 1) over a window's events, nulls left out; null for fewer than two values."""
    return Feature("std", expression, filter=filter)


def count(expression: str = "TRUE", *, filter: str = "") -> Feature:
    """Number of a window's events for which the expression is not null; 0 for none."""
    return Feature("count", expression, filter=filter)


def count_distinct(expression: str, *, filter: str = "") -> Feature:
    """Number of different values in a window, nulls left out; 0 for none. Values are told apart by the digest of their text, as SQL spells
    it: of a million different ones two are taken for one once in 18,000 cases."""
    return Feature("count_distinct", expression, filter=filter)


def approx_quantile(expression: str, q: float, *, filter: str = "") -> Feature:
    """The value of rank ⌊q · (n − 1)⌋ of a window, within 1/128 of its size: values are counted in buckets (64 between a number and its
    double, as in HdrHistogram), so that windows can be merged."""
    return Feature("approx_quantile", expression, filter=filter, q=q)


def first(expression: str, *, filter: str = "") -> Feature:
    """Value of a window's oldest event."""
    return Feature("first", expression, filter=filter)


def last(expression: str, *, n: int | None = None, filter: str = "") -> Feature:
    """Value of the newest event; with `n`, those of the newest n of a window, each a feature of its own: `…_1` is the newest."""
    return Feature("last", expression, filter=filter, n=n)


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
    the same number); "lifetime" begins with the first event. Without, a feature is the newest row's value, for as long as `ttl`
    (inclusive). A row counts from the moment it is known, and only if it fulfils `filter`, an SQL condition on itself alone.

    `shared` says that other projects may use the view, and with it all rows of its dataset. It is no part of the definition.
    """

    kind: ClassVar[str] = "feature view"
    family: ClassVar[str] = "view"  # a feature's full name, `view__feature`, does not tell the kind
    name: str
    dataset: Dataset
    entity: Entity
    features: Mapping[str, Feature] | Sequence[str] | Output
    windows: Sequence[str] = ()
    ttl: str = ""
    filter: str = ""
    shared: bool = field(default=False, compare=False, repr=False, kw_only=True)

    def problems(self) -> Problems:
        yield from odd_name(self.kind, self.name)
        yield from odd_type(f"the dataset of view {self.name!r}", self.dataset, Dataset, "give the tm.Dataset itself")
        yield from odd_type(f"the entity of view {self.name!r}", self.entity, Entity, "give the tm.Entity itself")
        yield from self._odd_words(self.name)
        yield from odd_type(
            f"shared of view {self.name!r}", self.shared, bool, "True: other projects may use it, with all rows of its dataset"
        )
        if self.shared and self.dataset.elsewhere:
            what = f"view {self.name!r} is over rows of another project, and shared"
            yield DefinitionError(what, hint="their owner shares them: whoever wants them takes them from there")
        yield from _odd_output(self.name, self.features) if isinstance(self.features, Output) else _odd_features(self.name, self.features)
        yield from odd_list("windows", self.windows, str, 'windows=["1h", "24h"]')
        if self.shared and isinstance(self.features, Output):
            what = f"view {self.name!r} is the output of a model, and shared"
            yield DefinitionError(what, hint="another project has rows of yours, and not the model: share a view of the rows themselves")
        if self.windows and isinstance(self.features, Output):
            what = f"view {self.name!r} folds the output of a model over windows"
            yield DefinitionError(what, hint="leave the windows out: the newest row of an entity counts, for as long as `ttl`")
        if self.filter != "":
            yield from odd_text(f"the filter of view {self.name!r}", self.filter, "write an SQL condition over the columns of the dataset")
        if self.windows and self.ttl:
            yield DefinitionError(f"view {self.name!r} has windows and a ttl", hint="a window is its own limit: drop the ttl")
        for window in self.windows:
            if window != LIFETIME:
                yield from odd_duration(f"a window of view {self.name!r}", window, f'"24h", or "{LIFETIME}"')
        lengths = {width(window): window for window in reversed(self.windows)}
        same = next((window for window in self.windows if lengths[width(window)] != window), None)
        if same:
            what = f"the windows {lengths[width(same)]!r} and {same!r} of view {self.name!r} are as long"
            yield DefinitionError(what, hint="leave one out")
        if self.ttl:
            yield from odd_duration(f"the ttl of view {self.name!r}", self.ttl, 'ttl="2d"')
        for name, feature in self.columns.items():
            yield from _odd_fold(f"{feature.function} of {name!r} in view {self.name!r}", feature, windows=bool(self.windows))

    @cached_property
    def columns(self) -> dict[str, Feature]:
        """Features by name; a bare column name is its newest value, and an output of a model is told as such."""
        if isinstance(self.features, Output):
            return {name: last(f"output {i} of {self.features.ref}") for i, name in enumerate(self.features.returns)}
        if isinstance(self.features, Mapping):
            return dict(self.features)
        return {name: last(name) for name in self.features}

    def about(self) -> dict[str, Any]:
        """What is said of the view and of its features for people, as plain data."""
        return {**super().about(), "features": {name: feature.description for name, feature in self.columns.items()}}

    @cached_property
    def names(self) -> list[str]:
        """Names of the numbers that the view gives, in their order: `view__feature_window`."""
        return [name for window in self.windows or [""] for feature in self.columns for name in self._names(feature, window)]

    def names_of(self, feature: str) -> list[str]:
        """The same of one feature."""
        return [name for window in self.windows or [""] for name in self._names(feature, window)]

    def _names(self, feature: str, window: str) -> list[str]:
        name = f"{self.name}__{feature}_{window}" if window else f"{self.name}__{feature}"
        return [f"{name}_{i + 1}" for i in range(self.columns[feature].n or 0)] or [name]

    @cached_property
    def kept(self) -> dict[str, tuple[str, str]]:
        """What is kept of each event: array → (SQL, kind). `x:` a feature's value, `w:` whether the event counts for it."""
        found = {}
        for name, one in self.columns.items():
            folded, kind = one.function not in ("first", "last"), "text" if one.category or one.function == "count_distinct" else "number"
            sql = f"CASE WHEN ({one.filter}) THEN ({one.expression}) END" if one.filter and folded else one.expression
            found[f"x:{name}"] = (sql, kind)
            if one.filter and not folded:
                found[f"w:{name}"] = (f"CASE WHEN ({one.filter}) THEN 1 ELSE 0 END", "number")
        return found

    def definition(self) -> dict[str, Any]:
        """Plain data; the dataset by name, since its version is an input of its own."""
        features = {name: definition(feature) for name, feature in self.columns.items()}
        key = self.entity.keys if len(self.entity.keys) > 1 else self.entity.keys[0]
        plain: dict[str, Any] = {"name": self.name, "entity": definition(key), "windows": list(self.windows), "ttl": self.ttl}
        plain |= {"filter": self.filter} if self.filter else {}
        made = _made(self.features, {"features": features, "order": list(features)})
        return {"type": "FeatureView", **plain, "dataset": self.dataset.name, **made}


@dataclass(frozen=True)
class RequestView(Described):
    """Features computed from the request itself, for a million rows or for one: by expressions, by one function on arrays, or by a
    registered model."""

    kind: ClassVar[str] = "request view"
    family: ClassVar[str] = "view"
    name: str
    dataset: Dataset
    features: Mapping[str, Feature | str] | Function | Output

    def problems(self) -> Problems:
        yield from odd_name(self.kind, self.name)
        yield from odd_type(f"the dataset of view {self.name!r}", self.dataset, Dataset, "give the tm.Dataset of the request itself")
        yield from self._odd_words(self.name)
        if isinstance(self.features, Function):
            yield from odd_list("columns", self.features.columns, str, 'columns=["lat", "lon"]', some=True)
            yield from odd_list("returns", self.features.returns, str, 'returns=["km"]', some=True)
            yield from _odd_names(self.name, self.features.returns)
            return
        if isinstance(self.features, Output):
            yield from _odd_output(self.name, self.features)
            return
        yield from odd_type(f"features of view {self.name!r}", self.features, Mapping, 'for example features={"hour": "hour(sched_dep)"}')
        yield from _odd_features(self.name, self.columns)
        for name, feature in self.columns.items():
            if feature.function != "last" or feature.filter or feature.n:
                hint = f"write the expression alone, or fold rows of a dataset in a tm.FeatureView: {name!r}: {feature.expression!r}"
                yield DefinitionError(f"{feature.function} of {name!r} in view {self.name!r}: a request is one row", hint=hint)

    @property
    def columns(self) -> dict[str, Feature]:
        """Features by name, where they are expressions; a bare text is one that gives a number."""
        given = {} if isinstance(self.features, Function | Output) else self.features
        return {name: last(f) if isinstance(f, str) else f for name, f in given.items()}

    def about(self) -> dict[str, Any]:
        """What is said of the view and of its features for people, as plain data."""
        return {**super().about(), "features": {name: feature.description for name, feature in self.columns.items()}}

    @property
    def names(self) -> list[str]:
        names = self.features.returns if isinstance(self.features, Function | Output) else self.columns
        return [f"{self.name}__{name}" for name in names]

    def definition(self) -> dict[str, Any]:
        """Plain data; the dataset by name, a function by the digest of its code."""
        features = {name: definition(feature) for name, feature in self.columns.items()}
        made = _made(self.features, {"features": features, "order": list(features)})
        return {"type": "RequestView", "name": self.name, "dataset": self.dataset.name, **made}


def _made(features: object, expressions: dict[str, Any]) -> dict[str, Any]:
    """How features are made, as plain data: a function by the digest of its code, the outputs of a model by its digest."""
    nothing: dict[str, Any] = {"features": {}, "order": []}
    if isinstance(features, Function):
        return nothing | {"function": features.definition()}
    return nothing | {"output": features.definition()} if isinstance(features, Output) else expressions


def request_view(
    dataset: Dataset, *, columns: Sequence[str], returns: Sequence[str], description: str = "", owner: str = "", tags: Sequence[str] = ()
) -> Callable[[Callable[[Mapping[str, Any]], Any]], RequestView]:
    """Declare a function `(arrays by column) -> arrays by feature` as a view of the request; its version is the digest of its code."""

    def declare(call: Callable[[Mapping[str, Any]], Any]) -> RequestView:
        function = Function(columns, returns, code_of(call).digest, call)
        said = description or (call.__doc__ or "").strip().partition("\n")[0]
        return RequestView(call.__name__, dataset, function, description=said, owner=owner, tags=tags)

    return declare


def _odd_output(view: str, output: Output) -> Problems:
    yield from output.problems(view)
    yield from _odd_names(view, output.returns)


def _odd_names(view: str, names: Sequence[str]) -> Problems:
    yield from (error for name in names for error in odd_name("feature", name))
    yield from _odd_twins(view, names)


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
            if name.casefold() in VALUES or name[:1].isdecimal():
                hint = f'quote it: features={{"{name}": tm.last(\'"{name}"\')}}'
                yield DefinitionError(f"the feature {name!r} of view {view!r} is a value in SQL, and no column", hint=hint)
        yield from _odd_twins(view, features)
        return
    if not features:
        yield DefinitionError(f"view {view!r} has no features", hint='for example features={"mean": tm.mean("temp")}')
    yield from _odd_twins(view, features)
    for name, feature in features.items():
        yield from odd_name("feature", name)
        hint = f'say how it is made: "{name}": tm.last("{name}"), or tm.mean, sum, count, category, …'
        yield from odd_type(f"the feature {name!r} of view {view!r}", feature, Feature, hint)
        yield from odd_text(f"the expression of {name!r} in view {view!r}", feature.expression, "write SQL over the columns of the dataset")
        if len(feature.expression) > LONGEST:
            what = f"the expression of {name!r} in view {view!r} has {len(feature.expression):,} characters"
            yield DefinitionError(what, hint=f"write at most {LONGEST:,}, or compute it in the query of the dataset")


def _odd_twins(view: str, names: Iterable[str]) -> Problems:
    """Names that are one to the engine."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(str(name).casefold(), name)
        if other != name:
            hint = "give one of them another name: SQL does not tell them apart"
            yield DefinitionError(f"the features {other!r} and {name!r} of view {view!r} differ by case alone", hint=hint)


def functions_of(views: Iterable[Declaration]) -> list[Function]:
    """The functions on arrays among views."""
    return [view.features for view in views if isinstance(view, RequestView) and isinstance(view.features, Function)]


def from_definition(plain: Mapping[str, Any], functions: Iterable[Function] = ()) -> FeatureView | RequestView:
    """A view from its definition as plain data: what serves is read from the ledger, not from the user's files of today. Of code it has the
    digest: `functions` are those that are here, of which it takes its own."""
    dataset = Dataset.recorded(plain["dataset"], "event")
    features: Any = {name: Feature(**{k: v for k, v in plain["features"][name].items() if k != "type"}) for name in plain["order"]}
    if "output" in plain:
        features = Output.of(plain["output"])
    if "function" in plain:
        names = plain["function"]
        call = next((function.call for function in functions if function.code == names["code"]), None)
        function = Function(tuple(names["columns"]), tuple(names["returns"]), names["code"], call)
        return RequestView(plain["name"], dataset, function)
    if plain["type"] == "RequestView":
        return RequestView(plain["name"], dataset, features)
    entity = Entity("entity", plain["entity"])
    return FeatureView(plain["name"], dataset, entity, features, tuple(plain["windows"]), plain["ttl"], plain.get("filter", ""))


def _odd_fold(what: str, feature: Feature, *, windows: bool) -> Problems:
    """A function without the windows that it needs, or with a number that cannot be."""
    if not windows and (feature.function != "last" or feature.n or feature.filter):
        yield DefinitionError(f"{what} needs windows", hint='give the view windows, for example windows=["24h"]')
    if feature.filter:
        yield from odd_text(f"the filter of {what}", feature.filter, "write an SQL condition over the columns of the dataset")
    if feature.n is not None and feature.n not in range(1, MOST + 1):
        yield DefinitionError(f"{what} has n={feature.n!r}", hint=f"of the newest 1 to {MOST:,} events")
    if feature.function == "approx_quantile" and not 0 < feature.q < 1:
        yield DefinitionError(f"{what} has q={feature.q!r}", hint="give a number between 0 and 1; the ends are tm.min and tm.max")


def width(window: str) -> int | None:
    """A window's length in microseconds; None for a lifetime."""
    return None if window == LIFETIME else duration(window)


def hop(window: int) -> int:
    """The step by which the tail of a window moves, in microseconds."""
    return 5 * MINUTE if window <= 12 * HOUR else HOUR if window <= 12 * DAY else DAY
