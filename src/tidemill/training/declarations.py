"""Tasks, labels and models, as a project's files declare them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tidemill.core import Declaration, DefinitionError, definition, duration
from tidemill.data import Dataset
from tidemill.features import FeatureView, RequestView
from tidemill.ledger import Code, code_of

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.type != "binary":
            raise DefinitionError(f"task type {self.type!r} is not supported", where=str(self.where), available=["binary"])
        given: Sequence[object] = self.features
        odd = next((view for view in given if not isinstance(view, (FeatureView, RequestView))), None)
        if odd is not None:
            hint = "give the view itself, not its name: a task takes all features of a view"
            raise DefinitionError(f"task {self.name!r} lists {odd!r}, which is no feature view", where=str(self.where), hint=hint)
        label, request = self.label.dataset, self.request
        if label.keys != request.keys:
            keys = f"{list(label.keys)}, the request {request.name!r} has {list(request.keys)}"
            what = f"the label's dataset {label.name!r} has the key {keys}"
            hint = "give both the same key: a label is found by the key of its request"
            raise DefinitionError(what, where=str(self.label.where), hint=hint)
        if self.label.none_after:
            duration(self.label.none_after)
        names = [view.name for view in self.features]
        twice = {name for name in names if names.count(name) > 1}
        if twice or not names:
            raise DefinitionError(
                f"task {self.name!r} lists {'a view twice' if twice else 'no view'}", where=str(self.where), available=names
            )

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
    """A task, a function that fits, its parameters and its seed. Calling it calls the function."""

    kind: ClassVar[str] = "model"
    name: str
    task: Task
    function: Callable[..., Any]
    seed: int = 0
    params: Params = field(default_factory=dict)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def code(self) -> Code:
        """Digest of the function and of what it calls."""
        return code_of(self.function)

    def definition(self) -> dict[str, Any]:
        """Plain data: the code by its digest."""
        plain = {"name": self.name, "task": self.task.name, "seed": self.seed, "params": definition(self.params)}
        return {"type": "Model", **plain, "code": self.code.digest, "libraries": self.code.libraries}


def model(task: Task, *, seed: int = 0, params: Params | None = None) -> Callable[[Callable[..., Any]], Model]:
    """Declare a function `(train: TrainingSet, params: Params) -> fitted model` as a model of a task."""

    def declare(function: Callable[..., Any]) -> Model:
        return Model(function.__name__, task, function, seed, dict(params or {}))

    return declare
