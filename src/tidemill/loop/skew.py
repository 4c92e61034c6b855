"""The skew of a deployment, measured: answers of the log, computed again by what their model is bound to, and compared.

An execution of the ledger like any other. Comes in: a sample of the log. Goes out: a report, made from the models, the versions of views
and requests that served, those of today, and the log.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import msgspec
import numpy as np

from tidemill import data, registry
from tidemill.core import Damaged, MissingFile, Ref, UnknownName, canonical, definition, digest_value, show
from tidemill.features import Function
from tidemill.ledger import Artifact, Execution, Ledger, Made, own_code
from tidemill.loop.origin import examples_of, reads
from tidemill.monitoring import Compared, Skew, Skewed, compare, too_many
from tidemill.serving import Logged, Recomputed, Sample, recompute

STAGES = ("core", "data", "features", "serving", "monitoring", "loop")
MOST = 200  # executions that are looked at for the newest version of a definition
GONE = "what they were read from is no longer kept"
UNBUILT = "the features of their model are no longer built"
UNKNOWN = "their version is not known on this branch"
PUSHED = "what was pushed by then is not in a version yet: the next one has it"
UNKEPT = "columns that they were sent with are not kept in the log"
UNHELD = "their request is no longer held, or cannot be computed any more"

Recipe = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """What was found, the report that says so, and the execution that made it."""

    found: Skewed
    report: Ref
    execution: int


@dataclass(frozen=True)
class _Bound:
    """A version's model, the recipe that it learnt from, and the same definitions over the newest data."""

    model: Ref
    learnt: Recipe
    today: Recipe


@dataclass(frozen=True)
class _Group:
    """Answers of one version that were read from the same things: how they are computed again today, and as then."""

    rows: Sequence[Logged]
    model: Ref
    today: Recipe
    then: Recipe


def measure(ledger: Ledger, branch: str, deployment: str, sample: Sample, check: Skew, functions: Sequence[Function] = ()) -> Measured:
    """Compare a sample of a deployment's answers; `functions` are those that are here, for views that are one."""
    groups, left_out = _groups(ledger, branch, sample.rows)
    log = _log(ledger, deployment, sample)
    inputs: dict[str, Any] = {"skew": definition(check), "log": log, "models": _once(one.model for one in groups)}
    inputs["functions"] = sorted(one.code for one in functions)
    inputs |= {name: _once(ref for one in groups for ref in _refs(getattr(one, name))) for name in ("today", "then")}

    def make() -> Made:
        found = _found(ledger, groups, sample, check, left_out, functions)
        blob = ledger.blobs.put(canonical(asdict(found)))
        report = Artifact(Ref.of("skew report", deployment, digest_value([blob, str(log)])), {"blobs": {"report": blob}, "why": found.why})
        metrics = {"rows": found.rows, "differing": sum(bool(one.differing) for one in found.features), "over": len(found.over)}
        return Made({"report": report}, metrics={name: float(value) for name, value in metrics.items()})

    once = ledger.once("skew test", deployment, inputs, make, branch=branch, code=own_code(*STAGES))
    plain = ledger.blobs.get(once.output.meta["blobs"]["report"])
    return Measured(msgspec.json.decode(bytes(plain), type=Skewed), once.output.ref, once.execution)


def _once(refs: Iterable[Ref]) -> list[Ref]:
    return list(dict.fromkeys(refs))


def _log(ledger: Ledger, deployment: str, sample: Sample) -> Ref:
    """The sampled part of the log, by its digest: the lines themselves stay where they are."""
    digest = digest_value([sample.since, sample.until, sample.answers, sample.kept, msgspec.to_builtins(sample.rows)])
    meta = {"asked": [sample.since, sample.until], "answers": sample.answers, "kept": sample.kept, "rows": len(sample.rows)}
    return ledger.put_artifact(Artifact(Ref.of("prediction log", deployment, digest), meta))


# ── what a model is bound to ────────────────────────────────────────────────────────────────────────────────────────


def _groups(ledger: Ledger, branch: str, rows: Sequence[Logged]) -> tuple[list[_Group], Counter[str]]:
    """Answers with all that computing them again needs, and how many lack it, by reason."""
    parts: dict[tuple[str, tuple[tuple[str, str], ...]], list[Logged]] = {}
    whole = [row for row in rows if "sent" not in row.withheld]
    for row in whole:
        parts.setdefault((row.version, tuple(sorted(row.versions.items()))), []).append(row)
    bound = {label: _bound(ledger, branch, label) for label in dict.fromkeys(label for label, _ in parts)}
    groups, left_out = list[_Group](), Counter({UNKEPT: len(rows) - len(whole)})
    for (label, versions), alike in parts.items():
        known = bound[label]
        then = known if isinstance(known, str) else _then(ledger, dict(versions), known)
        if isinstance(known, str) or isinstance(then, str):
            left_out[str(then)] += len(alike)
        else:
            sure = [row for row in alike if row.at_us < _pushed_since(ledger, known.today)]
            left_out[PUSHED] += len(alike) - len(sure)
            groups += [_Group(sure, known.model, known.today, then)] if sure else []
    return groups, +left_out


def _pushed_since(ledger: Ledger, recipe: Recipe) -> float:
    """From when the online store knows pushed rows that the versions of a recipe have not."""
    times = []
    for view in recipe["views"]:
        if view["digest"]:
            meta = ledger.artifact(Ref("feature view", view["definition"]["name"], "", view["digest"])).meta
            times.append(data.pushed_since(ledger, view["definition"]["dataset"], meta.get("pushed", 0)))
    return min((time for time in times if time is not None), default=inf)


def _bound(ledger: Ledger, branch: str, label: str) -> _Bound | str:
    """What a version is bound to; or why that is not known."""
    try:
        model = ledger.artifact_of("model", registry.version(ledger, branch, label).digest)
    except UnknownName:
        return UNKNOWN
    made = _made(ledger, examples_of(ledger, model).ref)
    refs = {"requests": _ref(made.inputs["requests"])} | {f"view {name}": _ref(ref) for name, ref in made.inputs["views"].items()}
    newest = {name: _newest(ledger, ref) for name, ref in refs.items()}
    today = {name: ref for name, ref in newest.items() if ref is not None}
    if len(today) < len(refs):
        return UNBUILT
    order = made.inputs["definition"]["features"]
    return _Bound(model.ref, _recipe(ledger, refs, order), _recipe(ledger, today, order))


def _then(ledger: Ledger, versions: Mapping[str, str], bound: _Bound) -> Recipe | str:
    """A recipe of the versions that served; or why there is none. One that is defined otherwise than what the model learnt from excuses no
    difference: today's stands in its place."""
    refs = dict(_parts(bound.today))
    for name, learnt in _parts(bound.learnt):
        try:
            served = ledger.artifact(Ref(learnt.kind, learnt.name, versions.get(name, "none"))).ref
        except UnknownName:
            return GONE
        if not _kept(ledger, served):
            return GONE
        refs[name] = served if _meaning(ledger, served) == _meaning(ledger, learnt) else refs[name]
    return _recipe(ledger, refs, [view["definition"]["name"] for view in bound.learnt["views"]])


def _ref(text: str) -> Ref:
    """A ref as the inputs of an execution spell it."""
    head, _, digest = text.partition("#")
    kind, _, name = head.partition(":")
    return Ref.of(kind, name, digest)


def _made(ledger: Ledger, ref: Ref) -> Execution:
    """The execution that gave an artifact last."""
    return ledger.execution(max(edge.execution for edge in ledger.parents(ref)))


def _meaning(ledger: Ledger, ref: Ref) -> Recipe:
    """How a version of a view or of requests is defined, down to the queries of its datasets."""
    made = _made(ledger, ref).inputs
    return reads(ledger, ref) | {name: made[name] for name in ("predict_at", "lookups") if name in made}


def _newest(ledger: Ledger, like: Ref) -> Ref | None:
    """The newest version that is defined as this one, and still kept."""
    meaning = _meaning(ledger, like)
    found = ledger.executions(kind=like.kind, name=like.name, status="finished", limit=MOST)
    refs = dict.fromkeys(Ref(**one.outputs["version"]) for one in found)
    return next((ref for ref in refs if _kept(ledger, ref) and _meaning(ledger, ref) == meaning), None)


def _kept(ledger: Ledger, ref: Ref) -> bool:
    found = ledger.artifact(ref)
    return not found.erased and all(ledger.blobs.has(digest) for digest in found.meta["blobs"].values())


def _recipe(ledger: Ledger, refs: Mapping[str, Ref], order: Sequence[str]) -> Recipe:
    """What reads features from versions of views and of requests, as plain data: `serving.recompute` takes it. `order` is of the views."""
    asked = _made(ledger, refs["requests"]).inputs
    dataset = _ref(asked["dataset"])
    plain = _made(ledger, dataset).inputs["definition"]
    views = [{"definition": view, "digest": ""} for view in asked["views"]]
    for name, ref in refs.items():
        if name != "requests":
            views.append({"definition": _made(ledger, ref).inputs["definition"], "digest": ref.digest})
    request = {name: plain[name] for name in ("name", "key", "event_time", "known_at", "timezone")}
    digests = {"requests": refs["requests"].digest, "dataset": dataset.digest}
    views.sort(key=lambda view: order.index(view["definition"]["name"]))
    return {"views": views, "request": request, "predict_at": asked["predict_at"], **digests}


def _parts(recipe: Recipe) -> Iterator[tuple[str, Ref]]:
    """The versions that a recipe reads, by name."""
    yield "requests", Ref.of("requests", recipe["request"]["name"], recipe["requests"])
    for view in recipe["views"]:
        if view["digest"]:
            yield f"view {view['definition']['name']}", Ref.of("feature view", view["definition"]["name"], view["digest"])


def _refs(recipe: Recipe) -> list[Ref]:
    return [ref for _, ref in _parts(recipe)]


# ── computed again, and compared ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Row:
    """An answer with what it should have rested on, by today's data and by those of then."""

    served: Logged
    today: Recomputed
    then: Recomputed


def _found(
    ledger: Ledger, groups: Sequence[_Group], sample: Sample, check: Skew, lacking: Mapping[str, int], functions: Sequence[Function]
) -> Skewed:
    rows, left_out = list[_Row](), Counter(lacking)
    for group in groups:
        try:
            then = recompute(ledger, group.then, group.rows, functions)
            today = then if group.then == group.today else recompute(ledger, group.today, group.rows, functions)
        except (Damaged, MissingFile):
            left_out[GONE] += len(group.rows)
            continue
        rows += [_Row(one, now, before or now) for one, now, before in zip(group.rows, today, then, strict=True) if now]
        left_out += Counter({UNHELD: sum(now is None for now in today)})
    features = compare(_columns(rows), check.tolerance)
    compared, reasons = (sample.answers, sample.kept, len(rows)), {why: count for why, count in sorted(left_out.items()) if count}
    return Skewed(sample.since, sample.until, *compared, reasons, features, too_many(features, check))


def _columns(rows: Sequence[_Row]) -> Compared:
    """The values of rows side by side, by the names of their models' features and of what was served beside them."""
    sides = [[_kept_of(row, getattr(row, side).inputs) for row in rows] for side in ("served", "today", "then")]
    both = list(zip(sides[1], sides[0], strict=True))
    names = tuple(dict.fromkeys(name for now, served in both for name in (*now, *served)))
    words: dict[str, list[str]] = {}
    values = np.full((3, len(rows), len(names)), np.nan)
    for place, name in enumerate(names):
        columns = [[one.get(name) for one in side] for side in sides]
        found = {value for column in columns for value in column}
        texts = any(isinstance(value, str) and value not in ("inf", "-inf") for value in found)
        if texts:
            words[name] = sorted(str(value) for value in found if value is not None)
            codes = {word: float(code) for code, word in enumerate(words[name])}
            columns = [[None if value is None else codes[str(value)] for value in column] for column in columns]
        for side, column in enumerate(columns):
            values[side, :, place] = [np.nan if value is None else float(value) for value in column]
    asked = np.array([[name in now or name in served for name in names] for now, served in both], dtype=bool)
    told = [{"key": row.served.key, "at": show(row.served.at_us), "version": row.served.version} for row in rows]
    status = [(row.served.features_missing, row.today.missing) for row in rows]
    served, today, then = values
    return Compared(names, served, today, then, asked.reshape(len(rows), len(names)), words, told, status)


def _kept_of(row: _Row, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the features of an answer that its log withholds."""
    withheld = row.served.withheld.get("inputs")
    return {name: value for name, value in inputs.items() if name not in withheld} if withheld else inputs
