"""Outputs of a registered model as features: which model, by its digest, and what it is asked of each row.

The model is one of the ledger, read where it is asked: neither a training library nor a pickle is loaded.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from tidemill.core import (
    Coded,
    Declaration,
    DefinitionError,
    Floats,
    MissingFile,
    Problems,
    Ref,
    StoreError,
    UnknownName,
    odd_list,
    odd_text,
    odd_type,
)
from tidemill.data import Column, Columns, quote
from tidemill.features.arrays import difference
from tidemill.ledger import Artifact, Ledger, Node, lineage, own_code
from tidemill.models import Predictor, load_model, signature_of

V = TypeVar("V", bound=Declaration)
BOUND = re.compile(r"model:(.+)@([0-9a-f]{12})([0-9a-f]{28})?")
SHOWN = "`tidemill models show NAME` prints the ref of each version"


_LOADED = WeakValueDictionary[str, Predictor]()  # by digest, as long as somebody holds them


class Registered:
    """A model of the ledger; its bytes are read when it is first asked, once for all in a process that are bound to it."""

    def __init__(self, ledger: Ledger, artifact: Artifact) -> None:
        self._ledger, self.artifact, self.signature = ledger, artifact, signature_of(artifact)
        self.codes = {name: {word: float(i) for i, word in enumerate(words)} for name, words in self.signature.categories.items()}

    @cached_property
    def predictor(self) -> Predictor:
        """What answers. Raises MissingFile or Damaged where its bytes are not what was written."""
        digest = self.artifact.ref.digest
        found = _LOADED.get(digest) or load_model(self._ledger, self.artifact)
        return _LOADED.setdefault(digest, found)

    @cached_property
    def learned_until(self) -> int | None:
        """Up to when it has learned what became known (microseconds UTC), or a model has whose output it learned from; None where the
        ledger does not know."""
        return max(_cuts(lineage(self._ledger, self.artifact.ref)), default=None)


def _cuts(node: Node) -> list[int]:
    """The cut-offs of the training sets, and of the saved rows, that a thing was made from."""
    until = node.execution.inputs.get("until") if node.execution else None
    return [*([until] if isinstance(until, int) else []), *(cut for parent in node.parents for cut in _cuts(parent))]


@dataclass(frozen=True)
class Output:
    """What a model gives, in its order, as `returns`; `columns` has an SQL expression for each feature that the model takes. `bound` is
    the model itself, None where no ledger was asked for it yet."""

    model: str
    columns: Mapping[str, str]
    returns: Sequence[str]
    bound: Registered | None = field(default=None, compare=False, repr=False)

    def problems(self, view: str) -> Problems:
        """What cannot work about it, before any ledger is asked."""
        yield from odd_text(f"the model of view {view!r}", self.model, f"write model:NAME@DIGEST; {SHOWN}")
        if not BOUND.fullmatch(self.model):
            what = f"view {view!r} takes the output of {self.model!r}, which is no ref with a digest"
            yield DefinitionError(what, hint=f"a feature is bound to one version, by what it is: write model:NAME@DIGEST; {SHOWN}")
        yield from odd_type(f"columns of view {view!r}", self.columns, Mapping, 'for example columns={"temp": "temp"}')
        for name, sql in self.columns.items():
            yield from odd_text(f"the expression of {name!r} in view {view!r}", sql, "write SQL over the columns of the dataset")
        yield from odd_list("returns", self.returns, str, 'returns=["score"]', some=True)

    def definition(self) -> dict[str, Any]:
        """Plain data: the model by its digest."""
        return {"model": str(self.ref), "columns": dict(self.columns), "returns": list(self.returns)}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Output":
        """From its definition."""
        return cls(plain["model"], dict(plain["columns"]), tuple(plain["returns"]))

    @property
    def ref(self) -> Ref:
        """The model: its name and its digest, or the beginning of it."""
        found = BOUND.fullmatch(self.model)
        assert found is not None
        name, start, rest = found.groups()
        return Ref("model", name, start, start + rest if rest else "")

    def bind(self, ledger: Ledger, view: str, where: str) -> "Output":
        """The same with its model. Raises UnknownName where there is none in this ledger, and DefinitionError where it takes or gives
        something else."""
        try:
            found = ledger.artifact(self.ref)
        except UnknownName as error:
            what = f"the model of view {view!r} is not in this ledger: {error.what}"
            hint = f"train or adopt it here first: the same training gives the same digest; {SHOWN}"
            raise UnknownName(what, where=where, available=error.available, hint=hint) from None
        model = Registered(ledger, found)
        for problem in self._misfits(model, view):
            problem.where = where
            raise problem
        return replace(self, bound=model)

    def _misfits(self, model: Registered, view: str) -> Problems:
        takes, gives = model.signature.features, model.signature.width
        missing = [name for name in takes if name not in self.columns]
        if missing:
            what = f"{self.ref} takes {missing[0]!r}, which view {view!r} does not give it"
            hint = "say in `columns` what each is, as SQL over the columns of the dataset"
            yield DefinitionError(what, available=list(takes), hint=hint)
        odd = [name for name in self.columns if name not in takes]
        if odd:
            yield DefinitionError(f"view {view!r} gives {self.ref} {odd[0]!r}, which it does not take", available=list(takes))
        if len(self.returns) != gives:
            what = f"{self.ref} gives {gives} number{'s' if gives > 1 else ''} for a row, and view {view!r} names {len(self.returns)}"
            yield DefinitionError(what, hint="name each of them in `returns`, in their order")

    def _there(self, view: str) -> Registered:
        if self.bound is None:
            raise DefinitionError(f"the model of view {view!r} is asked where there is no ledger")
        return self.bound

    def inputs(self, view: str) -> dict[str, tuple[str, str]]:
        """SQL and kind of what the model is asked. Its categories are texts."""
        words = self._there(view).signature.categories
        return {f"m:{view}__{name}": (sql, "text" if name in words else "number") for name, sql in self.columns.items()}

    def features(self, raw: Columns, view: str, where: str) -> dict[str, Floats]:
        """The outputs of rows, each by itself. Raises MissingFile and Damaged where the model's bytes are not what was written."""
        model = self._there(view)
        columns = [_numbers(raw[f"m:{view}__{name}"], model.codes.get(name, {})) for name in model.signature.features]
        found = self.loaded(view, where).outputs(np.stack(columns, axis=1))
        return {name: np.ascontiguousarray(found[:, i]) for i, name in enumerate(self.returns)}

    def loaded(self, view: str, where: str) -> Predictor:
        """What answers; its bytes are read here, if they were not before."""
        try:
            return self._there(view).predictor
        except (StoreError, MissingFile) as error:
            error.what, error.where = f"the model of view {view!r}, {self.ref}, cannot be read: {error.what}", where or error.where
            raise

    def difference(self, raw: Columns, rows: int, view: str, where: str) -> str:
        """What is another value for one row than among these, to the last bit; empty for nothing."""
        return difference(lambda some: self.features(some, view, where), raw, rows, f"{self.ref} in view {view!r}")


def output_of(model: str, *, columns: Mapping[str, str] | Sequence[str], returns: Sequence[str]) -> Output:
    """The outputs of a registered model as the features of a view: `model` is a ref with its digest (`model:boosted@49061ef94337`), so a
    feature is bound to one version. `columns` has an SQL expression over the dataset's columns for each feature that the model takes, or
    names the columns that are called as these; `returns` names what it gives, in its order."""
    named: Any = {str(name): quote(str(name)) for name in columns} if isinstance(columns, list | tuple) else columns
    return Output(model, named, returns)


def bound(ledger: Ledger, view: V) -> V:
    """A view with the model whose output it is, if it is one. Raises UnknownName, and DefinitionError where the model does not fit."""
    features = getattr(view, "features", None)
    if not isinstance(features, Output):
        return view
    changes: Any = {"features": features.bind(ledger, str(getattr(view, "name", "")), str(view.where))}
    return replace(view, **changes)


def outputs_of(views: Iterable[Declaration]) -> dict[str, Registered]:
    """By the view that is the output of a model, that model."""
    found = {str(getattr(view, "name", "")): getattr(view, "features", None) for view in views}
    return {name: one.bound for name, one in found.items() if isinstance(one, Output) and one.bound}


def learned_until(views: Iterable[Declaration]) -> dict[str, int]:
    """By the view that is the output of a model, up to when that has learned (microseconds UTC), where the ledger knows it."""
    found = {name: model.learned_until for name, model in outputs_of(views).items()}
    return {name: until for name, until in found.items() if until is not None}


def models_of(views: Iterable[Declaration]) -> dict[str, list[Ref]]:
    """The models whose outputs views are, as an input of what is made of them; nothing where there is none."""
    refs = list(dict.fromkeys(model.artifact.ref for model in outputs_of(views).values()))
    return {"models": refs} if refs else {}


def code_for(views: Iterable[Declaration], stages: Sequence[str]) -> str:
    """The digest of the code that computes views: with models, that too which asks them."""
    return own_code(*stages, "models") if outputs_of(views) else own_code(*stages)


def _numbers(column: Column, codes: Mapping[str, float]) -> Floats:
    """A column as the model takes it: a category by its number, NaN for one that it does not know."""
    if not isinstance(column, Coded):
        return np.asarray(column, dtype=np.float64)
    table = np.array([*(codes.get(word, np.nan) for word in column.vocabulary), np.nan])
    return table[column.codes]
