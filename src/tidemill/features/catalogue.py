"""What a catalogue says of features: how each is made, what its values are like, and where words are found.

Comes in: declarations, and columns of values. Goes out: plain data.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.core import DataError, Floats
from tidemill.data import quote
from tidemill.features.arrays import Function
from tidemill.features.declarations import Feature, FeatureView, RequestView
from tidemill.features.outputs import Output

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TOP = 5  # categories that are named
WEIGHTS = {"name": 8.0, "value": 6.0, "tag": 5.0, "owner": 4.0, "description": 3.0, "entity": 3.0, "dataset": 2.0, "expression": 2.0}

View = FeatureView | RequestView
Words = Sequence[tuple[str, str]]  # what a text is, and the text


def spelled(feature: Feature) -> str:
    """How a feature is made, on one line.

    >>> spelled(Feature("mean", "delay", filter="carrier = 'AA'")), spelled(Feature("count", "TRUE")), spelled(Feature("last", "temp"))
    ("mean(delay) where carrier = 'AA'", 'count()', 'temp')
    """
    given = [] if feature.function == "count" and feature.expression == "TRUE" else [feature.expression]
    given += [f"n={feature.n}"] if feature.n else [f"q={feature.q:g}"] if feature.q else []
    bare = feature.function == "last" and not feature.category and len(given) == 1
    made = feature.expression if bare else f"{'category' if feature.category else feature.function}({', '.join(given)})"
    return f"{made} where {feature.filter}" if feature.filter else made


def made_by(view: View) -> dict[str, str]:
    """How each feature of a view is made, on one line: its expression, or the function or model with what it reads."""
    if isinstance(view, RequestView) and isinstance(view.features, Function):
        return dict.fromkeys(view.features.returns, f"{view.name}({', '.join(view.features.columns)}), a function of Python")
    if isinstance(view.features, Output):
        asked = ", ".join(name if quote(name) == sql else f"{name} = {sql}" for name, sql in view.features.columns.items())
        each = [""] if len(view.features.returns) == 1 else [f"[{i}]" for i in range(len(view.features.returns))]
        return {name: f"{view.features.ref}({asked}){i}" for name, i in zip(view.features.returns, each, strict=True)}
    return {name: spelled(feature) for name, feature in view.columns.items()}


def values_of(view: View, feature: str) -> list[str]:
    """The names of the values that a feature gives: one, or one for each window."""
    return view.names_of(feature) if isinstance(view, FeatureView) else [f"{view.name}__{feature}"]


def source_of(view: View) -> str:
    """The source of a view's function; empty where there is none, or its file is gone."""
    with suppress(OSError, TypeError):
        if isinstance(view, RequestView) and isinstance(view.features, Function) and view.features.call:
            return inspect.cleandoc(inspect.getsource(view.features.call))
    return ""


def summarise(values: Floats, words: Sequence[str] | None = None) -> dict[str, Any]:
    """What a column (n,) is like, NaN being null: of numbers mean, spread and quantiles, of codes of `words` the most frequent."""
    present = values[~np.isnan(values)]
    found: dict[str, Any] = {"count": len(values), "nulls": len(values) - len(present)}
    found["null_share"] = found["nulls"] / len(values) if len(values) else None
    if words is not None:
        counts = np.bincount(present.astype(np.int64), minlength=len(words))
        order = np.argsort(-counts, kind="stable")[:TOP].tolist()
        top = [{"value": words[i], "count": int(counts[i]), "share": float(counts[i] / len(values))} for i in order if counts[i]]
        return found | {"distinct": int(np.sum(counts > 0)), "top": top}
    if not len(present):
        return found | dict.fromkeys(("mean", "std", "min", "max")) | {"quantiles": {}}
    with np.errstate(all="ignore"):  # infinite values have no spread
        spread = float(present.std(ddof=1)) if len(present) > 1 else None
        numbers = {"mean": float(present.mean()), "std": spread, "min": float(present.min()), "max": float(present.max())}
        quantiles = np.quantile(present, QUANTILES).tolist()
    return found | numbers | {"quantiles": {f"{q:g}": value for q, value in zip(QUANTILES, quantiles, strict=True)}}


@dataclass(frozen=True)
class Hit:
    """A view, or a feature of it, in which all words were found, and where: what a text is (name, tag, …), and the text."""

    view: str
    feature: str
    score: float
    where: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """What `features show` is asked for."""
        return f"{self.view}:{self.feature}" if self.feature else self.view

    def plain(self) -> dict[str, Any]:
        where = [{"what": what, "text": text} for what, text in self.where]
        return {"name": self.name, "view": self.view, "feature": self.feature, "score": self.score, "where": where}


def search(views: Iterable[View], text: str) -> list[Hit]:
    """Views and features in which all words of a text are found, the best first: a name counts more than a tag, a tag more than a
    description, a whole word more than a part of one. Raises DataError for a text without words."""
    words = text.casefold().split()
    if not words:
        raise DataError("there is no word to look for", hint="give a part of a name, a description, an owner, a tag or an expression")
    found = [hit for view in views for hit in _hits(view, words)]
    return sorted(found, key=lambda hit: -hit.score)  # those that are as good stay in the order of the files


def _hits(view: View, words: Sequence[str]) -> Iterator[Hit]:
    above = list(_about(view))
    if hit := _hit(view.name, "", above, (), words):
        yield hit
    for name, made in made_by(view).items():
        own = [("name", name), ("description", view.columns[name].description if name in view.columns else ""), ("expression", made)]
        own += [("value", full) for full in values_of(view, name)]
        if hit := _hit(view.name, name, own, above, words):
            yield hit


def _about(view: View) -> Iterator[tuple[str, str]]:
    yield from (("name", view.name), ("description", view.description), ("owner", view.owner))
    yield from (("tag", tag) for tag in view.tags)
    if isinstance(view, FeatureView):
        one = view.entity
        yield from (("entity", text) for text in dict.fromkeys((one.name, *one.keys, one.description, one.owner, *one.tags)))
        yield "expression", view.filter
    yield "dataset", view.dataset.name


def _hit(view: str, feature: str, own: Words, above: Words, words: Sequence[str]) -> Hit | None:
    """Each word in the best of the own texts, else of those of the view, where it counts half: at least one in an own text."""
    places = [max(_places(own, word, 1.0), default=None) or max(_places(above, word, 0.5), default=None) for word in words]
    found = [place for place in places if place is not None]
    if len(found) < len(words) or all(share < 1 for _, share, _, _ in found):
        return None
    return Hit(view, feature, sum(score for score, _, _, _ in found), tuple(dict.fromkeys((what, text) for _, _, what, text in found)))


def _places(texts: Words, word: str, share: float) -> Iterator[tuple[float, float, str, str]]:
    for what, text in texts:
        folded = text.casefold()
        if word in folded:
            whole = 2.0 if folded == word else 1.5 if word in re.split(r"[\W_]+", folded) else 1.0
            yield share * whole * WEIGHTS[what], share, what, text
