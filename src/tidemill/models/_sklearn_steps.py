"""Steps of scikit-learn before the model → ONNX in double precision: column transformers, imputers, encoders, scalers.

Comes in: columns, numbers in one tensor, texts each in its own. A missing text is the empty one: ONNX has no other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tidemill.core import NoExactForm
from tidemill.models.graph import DOUBLE, Columns, Graph, Origin

Parts = list[Columns]
UNKNOWN = -1.0  # the code of a category that was not learnt


def transformed(graph: Graph, step: Any, parts: Parts) -> Parts:
    """Append a fitted step; raises NoExactForm for one that has none."""
    if isinstance(step, str) and step == "passthrough":
        return parts
    kind = type(step).__name__
    if kind not in STEPS or (kind == "FunctionTransformer" and step.func is not None):
        raise NoExactForm(f"{kind} has no exact form here", available=sorted(STEPS), hint="use these steps, or LightGBM")
    return STEPS[kind](graph, step, parts)


def numbers(graph: Graph, step: Any, parts: Parts) -> Columns:
    """The columns in one tensor of doubles."""
    if any(part.text for part in parts):
        raise NoExactForm(f"{type(step).__name__} over texts has no exact form here", hint="encode texts first, with OneHotEncoder say")
    return graph.joined(parts)


def picked(graph: Graph, parts: Parts, places: Sequence[int]) -> Parts:
    """Some of the columns, in this order."""
    if len(parts) == 1:
        return [graph.picked(parts[0], places)]
    where = [(part, i) for part in parts for i in range(part.width)]
    return [part if part.width == 1 else graph.picked(part, [i]) for part, i in (where[place] for place in places)]


def _one_hot(graph: Graph, step: Any, parts: Parts) -> Parts:
    if step.handle_unknown == "error":
        raise NoExactForm("OneHotEncoder fails on a category that it has not seen", hint='give it handle_unknown="ignore"')
    columns = [picked(graph, parts, [i])[0] for i in range(sum(part.width for part in parts))]
    hot = [_hot(graph, step, i, column) for i, column in enumerate(columns)]
    tensors, width = [name for names, _ in hot for name in names], sum(size for _, size in hot)
    return [Columns(graph.op("Concat", *tensors, axis=1), (None,) * width)] if width else []


def _hot(graph: Graph, step: Any, i: int, column: Columns) -> tuple[list[str], int]:
    """Tensors of zeros and ones for one column, and how many columns they have."""
    categories, groups = step.categories_[i], _groups(step, i)
    if column.text:
        codes = graph.coded(column, categories, range(len(categories)), UNKNOWN).tensor
        names = [graph.op("Cast", graph.op("Equal", codes, graph.constant(np.arange(len(categories)).reshape(1, -1))), to=DOUBLE)]
    else:
        known = np.asarray(categories, dtype=np.float64)
        hit = graph.op("Equal", column.tensor, graph.constant(known[~np.isnan(known)].reshape(1, -1)))
        names = [graph.op("Cast", hit, to=DOUBLE)]
        if np.isnan(known).any():
            names.append(graph.op("Cast", graph.op("IsNaN", column.tensor), to=DOUBLE))
    if groups is None:
        return names, len(categories)
    hits = graph.op("Concat", *names, axis=1)
    unknown = graph.op("Sub", graph.constant([[1.0]]), graph.op("ReduceSum", hits, graph.constant([1], np.int64), keepdims=1))
    return [graph.op("MatMul", graph.op("Concat", hits, unknown, axis=1), graph.constant(groups))], groups.shape[1]


def _groups(step: Any, i: int) -> np.ndarray[Any, Any] | None:
    """Which categories, and at last the unknown ones, count to which column (categories + 1, columns); None where each is its own."""
    mapping = step._default_to_infrequent_mappings[i] if step._infrequent_enabled else None
    dropped = step._drop_idx_after_grouping[i] if step._drop_idx_after_grouping is not None else None
    if mapping is None and dropped is None:
        return None
    size = len(step.categories_[i])
    group = np.arange(size) if mapping is None else mapping
    made = np.zeros((size + 1, int(group.max()) + 1))
    made[np.arange(size), group] = 1.0
    if mapping is not None and step.handle_unknown in ("infrequent_if_exist", "warn"):
        made[size, group.max()] = 1.0
    return made if dropped is None else np.delete(made, int(dropped), axis=1)


def _ordinal(graph: Graph, step: Any, parts: Parts) -> Parts:
    if step.handle_unknown == "error":
        hint = 'give it handle_unknown="use_encoded_value"'
        raise NoExactForm("OrdinalEncoder fails on a category that it has not seen", hint=hint)
    made = []
    for i, categories in enumerate(step.categories_):
        mapping = step._default_to_infrequent_mappings[i] if step._infrequent_enabled else None
        values = [float(code) for code in (range(len(categories)) if mapping is None else [*mapping, 0])]  # a missing one is never rare
        values = values[: len(categories)]
        if i in step._missing_indices:
            values[step._missing_indices[i]] = float(step.encoded_missing_value)
        made.append(graph.coded(picked(graph, parts, [i])[0], categories, values, float(step.unknown_value)))
    return [graph.joined(made)]


def _by_target(graph: Graph, step: Any, parts: Parts) -> Parts:
    if step.target_type_ == "multiclass":
        raise NoExactForm("TargetEncoder of several classes has no exact form here", hint="use OneHotEncoder")
    columns = [picked(graph, parts, [i])[0] for i in range(len(step.categories_))]
    named = zip(columns, step.categories_, step.encodings_, strict=True)
    return [graph.joined([graph.coded(*one, float(step.target_mean_)) for one in named])]


def _impute(graph: Graph, step: Any, parts: Parts) -> Parts:
    if step.add_indicator:
        raise NoExactForm("SimpleImputer with an indicator has no exact form here", hint="leave add_indicator out")
    if any(part.text for part in parts):
        columns = [picked(graph, parts, [i])[0] for i in range(len(step.statistics_))]
        return [_filled(graph, column, value) for column, value in zip(columns, step.statistics_, strict=True)]
    given, statistics = graph.joined(parts), np.asarray(step.statistics_, dtype=np.float64)
    of_nan = isinstance(step.missing_values, float) and np.isnan(step.missing_values)
    if np.isnan(statistics).any() or not of_nan:
        raise NoExactForm("SimpleImputer: only NaN is imputed, and no column may be empty", hint="drop empty columns")
    filled = graph.op("Where", graph.op("IsNaN", given.tensor), graph.constant(statistics.reshape(1, -1)), given.tensor)
    return [Columns(filled, given.origins)]


def _filled(graph: Graph, column: Columns, value: Any) -> Columns:
    """A column of texts, or of numbers among them, without missing ones."""
    if not column.text and isinstance(value, str):
        raise NoExactForm(
            f"SimpleImputer puts {value!r} into a column of numbers", hint="impute texts and numbers by imputers of their own"
        )
    if not column.text:
        return Columns(graph.op("Where", graph.op("IsNaN", column.tensor), graph.constant([[value]]), column.tensor), column.origins)
    if column.whole:
        return column
    missing = graph.op("Equal", column.tensor, graph.texts([""]))
    return Columns(graph.op("Where", missing, graph.texts([str(value)]), column.tensor), column.origins, text=True)


def _scaled(graph: Graph, step: Any, parts: Parts, *ways: tuple[str, Any]) -> Parts:
    """Columns after one operator with a constant for each of them, then another."""
    given = numbers(graph, step, parts)
    name, origins = given.tensor, given.origins
    for kind, values in ways:
        if values is not None:
            name = graph.op(kind, name, graph.constant(np.reshape(values, (1, -1))))
            origins = tuple(_undone(origin, kind, float(value)) for origin, value in zip(origins, np.ravel(values), strict=True))
    return [Columns(name, origins)]


def _undone(origin: Origin | None, kind: str, value: float) -> Origin | None:
    if origin is None:
        return None
    if kind in ("Sub", "Add"):
        return Origin(origin.column, origin.scale, origin.shift + origin.scale * (value if kind == "Sub" else -value))
    return Origin(origin.column, origin.scale * (value if kind == "Div" else 1 / value), origin.shift)


def _standard(graph: Graph, step: Any, parts: Parts) -> Parts:
    return _scaled(graph, step, parts, ("Sub", step.mean_ if step.with_mean else None), ("Div", step.scale_))


def _min_max(graph: Graph, step: Any, parts: Parts) -> Parts:
    (made,) = _scaled(graph, step, parts, ("Mul", step.scale_), ("Add", step.min_))
    if not step.clip:
        return [made]
    low, high = (graph.constant(np.float64(end)) for end in step.feature_range)
    return [Columns(graph.op("Clip", made.tensor, low, high), made.origins)]


def _robust(graph: Graph, step: Any, parts: Parts) -> Parts:
    return _scaled(
        graph, step, parts, ("Sub", step.center_ if step.with_centering else None), ("Div", step.scale_ if step.with_scaling else None)
    )


def _chain(graph: Graph, step: Any, parts: Parts) -> Parts:
    for _, part in step.steps:
        parts = transformed(graph, part, parts)
    return parts


def _by_columns(graph: Graph, step: Any, parts: Parts) -> Parts:
    made: Parts = []
    for name, part, _ in step.transformers_:
        chosen = list(step._transformer_to_input_indices[name])
        if chosen and not (isinstance(part, str) and part == "drop"):
            made += transformed(graph, part, picked(graph, parts, chosen))
    if any(part.text for part in made):
        return made
    return [Columns(graph.op("Concat", *(part.tensor for part in made), axis=1), tuple(origin for part in made for origin in part.origins))]


STEPS: dict[str, Callable[[Graph, Any, Parts], Parts]] = {
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
    "TargetEncoder": _by_target,
    "SimpleImputer": _impute,
    "StandardScaler": _standard,
    "MinMaxScaler": _min_max,
    "RobustScaler": _robust,
    "MaxAbsScaler": lambda graph, step, parts: _scaled(graph, step, parts, ("Div", step.scale_)),
    "Pipeline": _chain,
    "ColumnTransformer": _by_columns,
    "FunctionTransformer": lambda graph, step, parts: parts,  # checked above: only the identity
}
