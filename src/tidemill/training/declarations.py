"""Tasks, labels and models, as a project's files declare them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tidemill.core import (
    Declaration,
    DefinitionError,
    Problems,
    canonical,
    definition,
    odd_duration,
    odd_list,
    odd_name,
    odd_number,
    odd_text,
    odd_type,
)
from tidemill.data import Dataset
from tidemill.features import FeatureView, RequestView
from tidemill.ledger import Code, code_of
from tidemill.models import Int8

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Label(Declaration):
    """What is to be predicted: an SQL expression over a dataset with the request's key, known when that row is known.

    `none_after`: how long after the request's event time a missing label counts as "no label" (cancelled, diverted).
    """

    kind: ClassVar[str] = "label"
    part: ClassVar[bool] = True
    dataset: Dataset
    expression: str
    none_after: str = ""

    def problems(self) -> Problems:
        yield from odd_type("the label's dataset", self.dataset, Dataset, "give the tm.Dataset itself")
        yield from odd_text("the label's expression", self.expression, 'write SQL that is true or false, for example "arr_delay > 15"')
        if self.none_after:
            yield from odd_duration("none_after", self.none_after, 'none_after="36h"')

    @property
    def name(self) -> str:
        return f"{self.dataset.name}:{self.expression}"

    def definition(self) -> dict[str, Any]:
        """Plain data; the dataset by name."""
        return {"type": "Label", "dataset": self.dataset.name, "expression": self.expression, "none_after": self.none_after}


@dataclass(frozen=True)
class Task(Declaration):
    """One prediction problem: the request, when it is asked, the features, and the label with the time it is known."""

    kind: ClassVar[str] = "task"
    name: str
    request: Dataset
    predict_at: str
    features: Sequence[FeatureView | RequestView]
    label: Label
    type: str = "binary"

    def problems(self) -> Problems:
        yield from odd_name(self.kind, self.name)
        if self.type != "binary":
            yield DefinitionError(f"task type {self.type!r} is not supported", available=["binary"])
        yield from odd_type(f"the request of task {self.name!r}", self.request, Dataset, "give the tm.Dataset itself")
        yield from odd_type(f"the label of task {self.name!r}", self.label, Label, 'for example label=tm.Label(arrivals, "late")')
        yield from odd_text(f"predict_at of task {self.name!r}", self.predict_at, "write the time of the request as SQL over its columns")
        yield from odd_list("features", self.features, object, "features=[calendar, airport_delays]")
        given: Sequence[object] = self.features
        odd = next((view for view in given if not isinstance(view, (FeatureView, RequestView))), None)
        if odd is not None:
            hint = "give the view itself, not its name: a task takes all features of a view"
            yield DefinitionError(f"task {self.name!r} lists {odd!r}, which is no feature view", hint=hint)
        label, request = self.label.dataset, self.request
        if label.keys != request.keys:
            keys = f"{list(label.keys)}, the request {request.name!r} has {list(request.keys)}"
            what = f"the label's dataset {label.name!r} has the key {keys}"
            hint = "give both the same key: a label is found by the key of its request"
            yield DefinitionError(what, where=str(self.label.where), hint=hint)
        names = [view.name for view in self.features]
        twice = {name for name in names if names.count(name) > 1}
        if twice or not names:
            yield DefinitionError(f"task {self.name!r} lists {'a view twice' if twice else 'no view'}", available=names)
        views: dict[str, str] = {}
        for view, column in [(one.name, column) for one in self.features for column in one.names]:
            if views.setdefault(column, view) != view:
                what = f"the views {views[column]!r} and {view!r} of task {self.name!r} both give {column!r}"
                yield DefinitionError(what, hint="name one of the features in another way")

    @property
    def feature_views(self) -> list[FeatureView]:
        return [view for view in self.features if isinstance(view, FeatureView)]

    @property
    def request_views(self) -> list[RequestView]:
        return [view for view in self.features if isinstance(view, RequestView)]

    @property
    def datasets(self) -> list[Dataset]:
        """Every dataset that the task reads, each once."""
        found = [self.request, self.label.dataset, *(view.dataset for view in self.feature_views)]
        return list({dataset.name: dataset for dataset in found}.values())

    def definition(self) -> dict[str, Any]:
        """Plain data; views and datasets by name."""
        plain = {"name": self.name, "request": self.request.name, "predict_at": self.predict_at, "type_of": self.type}
        return {"type": "Task", **plain, "features": [view.name for view in self.features], "label": self.label.definition()}


@dataclass(frozen=True)
class Model(Declaration):
    """A task, a function that fits, its parameters and its seed; with `quantise` it serves in eight bits. Calling it calls the function.
    `pickle`: what it returns may be kept as a pickle where nothing safer can keep it; only a process of its own reads that."""

    kind: ClassVar[str] = "model"
    name: str
    task: Task
    function: Callable[..., Any]
    seed: int = 0
    params: Params = field(default_factory=dict)
    quantise: Int8 | None = None
    pickle: bool = False

    def problems(self) -> Problems:
        yield from odd_name(self.kind, self.name)
        yield from odd_type(f"the task of model {self.name!r}", self.task, Task, "give the tm.Task itself: @tm.model(task)")
        yield from odd_number("seed", self.seed, "[0, 2147483647]", "seed=13", whole=True)  # what every library takes
        if self.quantise is not None:
            yield from odd_type(f"quantise of model {self.name!r}", self.quantise, Int8, "for example quantise=tm.Int8(most_loss=0.01)")
        example = 'for example params={"num_leaves": 31}'
        yield from odd_type(f"pickle of model {self.name!r}", self.pickle, bool, "pickle=True")
        yield from odd_type(f"params of model {self.name!r}", self.params, Mapping, example)
        for name in self.params:
            yield from odd_text(f"params of model {self.name!r}: a name", name, example)
        for name, value in self.params.items():
            try:
                canonical(definition(value))
            except TypeError:
                what = f"params: {name!r} of model {self.name!r} is {value!r}, a {type(value).__name__}"
                yield DefinitionError(what, hint="write numbers, texts, lists and dicts, and make the rest of them in the function")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def code(self) -> Code:
        """Digest of the function and of what it calls."""
        return code_of(self.function)

    def definition(self) -> dict[str, Any]:
        """Plain data: the code by its digest."""
        plain = {"name": self.name, "task": self.task.name, "seed": self.seed, "params": definition(self.params)}
        plain |= {"quantise": definition(self.quantise)} if self.quantise else {}
        plain |= {"pickle": True} if self.pickle else {}
        return {"type": "Model", **plain, "code": self.code.digest, "libraries": self.code.libraries}


def model(
    task: Task, *, seed: int = 0, params: Params | None = None, quantise: Int8 | None = None, pickle: bool = False
) -> Callable[[Callable[..., Any]], Model]:
    """Declare a function `(train: TrainingSet, params: Params) -> fitted model` as a model of a task. `pickle`: what it returns may be kept
    as a pickle where it has no exact form and skops cannot keep it; only a process of its own reads that."""

    def declare(function: Callable[..., Any]) -> Model:
        return Model(function.__name__, task, function, seed, params if params is not None else {}, quantise, pickle)

    return declare
