"""Tasks, models, training sets and fitting. Comes in: features as known at each row's time. Goes out: tracked, compiled model versions."""

from tidemill.training.declarations import Label, Model, Params, Task, model
from tidemill.training.examples import CODE, Examples, build_examples, load_examples, reader
from tidemill.training.fit import Trained, train
from tidemill.training.sets import TrainingSet, training_set

__all__ = [
    "CODE",
    "Examples",
    "Label",
    "Model",
    "Params",
    "Task",
    "Trained",
    "TrainingSet",
    "build_examples",
    "load_examples",
    "model",
    "reader",
    "train",
    "training_set",
]
