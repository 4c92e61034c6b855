"""Tidemill closes the MLOps loop: data, checks, features, training, gates, registry, deployment, monitoring, retraining.

`import tidemill as tm` gives the names that a project's files use. They are looked up on first use, so that importing
the package loads no heavy library:

>>> import tidemill as tm
>>> tm.mean("dep_delay").expression
'dep_delay'
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_PUBLIC = {
    "Source": "data",
    "Dataset": "data",
    "in_range": "data",
    "not_null": "data",
    "unique": "data",
    "fresh": "data",
    "Entity": "features",
    "FeatureView": "features",
    "RequestView": "features",
    "approx_quantile": "features",
    "category": "features",
    "count": "features",
    "count_distinct": "features",
    "first": "features",
    "last": "features",
    "max": "features",
    "mean": "features",
    "min": "features",
    "output_of": "features",
    "request_view": "features",
    "shared": "features",
    "std": "features",
    "sum": "features",
    "Label": "training",
    "Params": "training",
    "Task": "training",
    "TrainingSet": "training",
    "model": "training",
    "convert": "models",
    "gates": "evaluation",
    "Canary": "serving",
    "Shadow": "serving",
    "Holdout": "serving",
    "PredictionLog": "serving",
    "SimplerModel": "serving",
    "LastAnswer": "serving",
    "Expect": "serving",
    "Batching": "serving",
    "Breaker": "serving",
    "Cache": "serving",
    "Constant": "serving",
    "Deployment": "serving",
    "PreviousVersion": "serving",
    "Drift": "monitoring",
    "Int8": "models",
    "Network": "models",
    "Monitor": "monitoring",
    "Skew": "monitoring",
    "Age": "loop",
    "DriftFound": "loop",
    "Every": "loop",
    "Never": "loop",
    "PolicyComparison": "loop",
    "QualityDrop": "loop",
    "RetrainPolicy": "loop",
    "SkewFound": "loop",
    "open": "session",
    "run": "tracking",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 – the table above is the one list of public names

if TYPE_CHECKING:
    from tidemill.data import Dataset as Dataset
    from tidemill.data import Source as Source
    from tidemill.data import fresh as fresh
    from tidemill.data import in_range as in_range
    from tidemill.data import not_null as not_null
    from tidemill.data import unique as unique
    from tidemill.evaluation import gates as gates
    from tidemill.features import Entity as Entity
    from tidemill.features import FeatureView as FeatureView
    from tidemill.features import RequestView as RequestView
    from tidemill.features import approx_quantile as approx_quantile
    from tidemill.features import category as category
    from tidemill.features import count as count
    from tidemill.features import count_distinct as count_distinct
    from tidemill.features import first as first
    from tidemill.features import last as last
    from tidemill.features import max as max
    from tidemill.features import mean as mean
    from tidemill.features import min as min
    from tidemill.features import output_of as output_of
    from tidemill.features import request_view as request_view
    from tidemill.features import shared as shared
    from tidemill.features import std as std
    from tidemill.features import sum as sum
    from tidemill.loop import Age as Age
    from tidemill.loop import DriftFound as DriftFound
    from tidemill.loop import Every as Every
    from tidemill.loop import Never as Never
    from tidemill.loop import PolicyComparison as PolicyComparison
    from tidemill.loop import QualityDrop as QualityDrop
    from tidemill.loop import RetrainPolicy as RetrainPolicy
    from tidemill.loop import SkewFound as SkewFound
    from tidemill.models import Int8 as Int8
    from tidemill.models import convert as convert
    from tidemill.monitoring import Drift as Drift
    from tidemill.monitoring import Monitor as Monitor
    from tidemill.monitoring import Skew as Skew
    from tidemill.serving import Batching as Batching
    from tidemill.serving import Breaker as Breaker
    from tidemill.serving import Cache as Cache
    from tidemill.serving import Canary as Canary
    from tidemill.serving import Constant as Constant
    from tidemill.serving import Deployment as Deployment
    from tidemill.serving import Expect as Expect
    from tidemill.serving import Holdout as Holdout
    from tidemill.serving import LastAnswer as LastAnswer
    from tidemill.serving import PredictionLog as PredictionLog
    from tidemill.serving import PreviousVersion as PreviousVersion
    from tidemill.serving import Shadow as Shadow
    from tidemill.serving import SimplerModel as SimplerModel
    from tidemill.session import open as open
    from tidemill.tracking import run as run
    from tidemill.training import Label as Label
    from tidemill.training import Params as Params
    from tidemill.training import Task as Task
    from tidemill.training import TrainingSet as TrainingSet
    from tidemill.training import model as model


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tidemill' has no attribute {name!r}; it has: {', '.join(sorted(_PUBLIC))}")
    value = getattr(import_module(f"tidemill.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
