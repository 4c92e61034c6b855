"""Fitting a declared model: train → compile, or keep the original → parity, as one tracked run that is not run again for equal inputs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.core import DAY, Array, DataError, DefinitionError, Floats, NoExactForm, TidemillError, build_profile, definition, show
from tidemill.ledger import Artifact, Ledger, Made, own_code
from tidemill.models import Compiled, Kept, compile_model, keep, store_model
from tidemill.tracking import Run, track
from tidemill.training.declarations import Model
from tidemill.training.examples import CODE
from tidemill.training.sets import TrainingSet

RECORDED = 2_000  # rows of the training set on which parity is proven


@dataclass(frozen=True)
class Trained:
    """A run and the model version that it made; `cost` is rows × rounds, the declared price of training."""

    run: Run
    model: Artifact
    cached: bool

    @property
    def cost(self) -> int:
        return int(self.run.execution.params["rows"]) * int(self.model.meta["rounds"])


def train(ledger: Ledger, model: Model, train_set: TrainingSet, *, branch: str = "") -> Trained:
    """Fit a model on a training set; raises DefinitionError with the file and line when its function fails, and DataError where all labels
    are the same."""
    if len(kinds := np.unique(train_set.y)) == 1:
        said = f"all {len(train_set.y):,} labels known by {show(train_set.until)} are {bool(kinds[0])}: there is nothing to tell apart"
        raise DataError(
            said, where=f"model {model.name}", hint="look at the label's expression and the query of its dataset, or wait for more"
        )
    started: list[Run] = []

    def start(execution: int) -> None:
        started.append(track(ledger, execution, model.name, model.name))

    def make() -> Made:
        run = started[0]
        fitted = _fit(model, replace(train_set, seed=model.seed, log_metric=run.log_metric))
        spread = np.linspace(0, len(train_set.y) - 1, min(RECORDED, len(train_set.y))).astype(np.int64)
        recorded = np.ascontiguousarray(train_set.X[spread])
        compiled = _compiled(model, fitted, train_set, recorded, train_set.y[spread])
        made = store_model(ledger, model.name, compiled, compiled.signature, recorded, _profile(train_set))
        parity = {key: float(value) for key, value in compiled.parity.items() if key.endswith("difference") or key.startswith("int8_")}
        params = _params(model, train_set) | ({"isolated": compiled.why} if isinstance(compiled, Kept) else {})
        metrics = {"rows": float(len(train_set.y)), "rounds": float(compiled.rounds), **parity}
        run.log_params(params)
        run.log_metrics(metrics)
        return Made({"model": made}, params, metrics)

    inputs = {"definition": definition(model), "training set": train_set.ref}
    code = own_code(*CODE, "models")
    once = ledger.once("training run", model.name, inputs, make, branch=branch, code=code, on_start=start)
    return Trained(Run(ledger, once.execution), once.output, once.cached)


def _compiled(model: Model, fitted: Any, train_set: TrainingSet, recorded: Floats, truth: Array) -> Compiled | Kept:
    try:
        compiled = _exact_or_kept(model, fitted, train_set, recorded, truth)
    except NoExactForm as error:
        error.where = error.where or str(model.where)
        raise
    except TidemillError:
        raise
    except Exception as error:
        lacks = isinstance(error, AttributeError) and str(error.name).endswith("_")  # scikit-learn's names of what fitting gives
        unfitted = lacks or "NotFitted" in type(error).__name__
        said = f"{type(error).__name__}: {error}"
        what = f"model {model.name!r} was not fitted ({said})" if unfitted else f"model {model.name!r} cannot be compiled: {said}"
        hint = "call `fit` before the function returns the model" if unfitted else "return a fitted model of this library"
        raise DefinitionError(what, where=str(model.where), hint=hint) from error
    gives = compiled.signature.output
    if gives != "probability":
        what = f"model {model.name!r} gives {gives} of {len(compiled.signature.classes)} classes" if compiled.signature.classes else ""
        hint = "return a classifier of two classes: the label of a task is true or false"
        hint = 'return tm.Network(module, gives="logits"), which says what its numbers are' if compiled.library == "torch" else hint
        raise DefinitionError(what or f"model {model.name!r} gives a {gives}, not a probability", where=str(model.where), hint=hint)
    return compiled


def _exact_or_kept(model: Model, fitted: Any, train_set: TrainingSet, recorded: Floats, truth: Array) -> Compiled | Kept:
    """The compiled form, or where there is no exact one the original. Raises NoExactForm where neither can serve."""
    signature = train_set.signature
    try:
        return compile_model(fitted, signature, recorded, model.quantise, truth)
    except NoExactForm as error:
        if model.quantise:
            raise
        folder = Path(model.where.file).parent
        return keep(fitted, signature, recorded, error, folder=folder, pickled=model.pickle, label=model.name)


def _params(model: Model, train_set: TrainingSet) -> dict[str, Any]:
    return {**model.params, "seed": model.seed, "rows": len(train_set.y), "features": len(train_set.signature.features)}


def _fit(model: Model, train_set: TrainingSet) -> Any:
    try:
        return model.function(train_set, model.params)
    except TidemillError:
        raise
    except (Exception, SystemExit) as error:  # a function that leaves the process has not given a model
        what = f"model {model.name!r} cannot be trained: {type(error).__name__}: {error}"
        late = "install it; what lies in the project is imported at the top of its file, not in the function"
        hint = late if isinstance(error, ModuleNotFoundError) else "correct the function or its parameters"
        raise DefinitionError(what, where=str(model.where), hint=hint) from error


def _profile(train_set: TrainingSet) -> dict[str, Any]:
    """The reference for drift: histograms of each feature by day, counted back from the cut-off."""
    categorical = np.zeros(len(train_set.signature.features), dtype=bool)
    categorical[train_set.categorical] = True
    days = (train_set.at - train_set.until) // DAY
    return build_profile(train_set.X, list(train_set.signature.features), categorical, days).to_dict()
