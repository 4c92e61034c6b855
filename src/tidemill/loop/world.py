"""What the loop sees of the world: requests, labels and scores up to a time. Nothing here looks beyond `now`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidemill.core import DAY, HOUR, METRICS, Array, Bools, Coded, DataError, Floats, Ints, Profile, show
from tidemill.data import Prediction, Predictions, Segment, segments
from tidemill.evaluation import Evidence
from tidemill.ledger import Artifact, Ledger
from tidemill.loop.origin import examples_of, otherwise, reads
from tidemill.loop.skew import Measured
from tidemill.models import Predictor, load_model
from tidemill.monitoring import Skew, local_days, mature_rows
from tidemill.serving import Deployment, Route, to_challenger
from tidemill.training import Examples, load_examples

LOADED = 8  # models that stay: champion, candidate, the frozen one, the champion before, and those of weights


@dataclass
class _By:
    """Which version and rung gave each of n answers, as codes (n,) of the names."""

    versions: list[str]
    rungs: list[str]
    version: Array
    rung: Array

    def set(self, place: int, answer: Prediction) -> None:
        """Name those of one answer."""
        for names, codes, name in ((self.versions, self.version, answer.version), (self.rungs, self.rung, answer.rung)):
            if name not in names:
                names.append(name)
            codes[place] = names.index(name)


@dataclass
class World:
    """The examples of a task on one branch, and the scores (n,) that versions gave so far, NaN where none.

    `champion`: what the champion of each request's time answered; where another version or a fallback answered, what it says of it.
    `told` is what the gateway has answered so far, the newest last: of a request that somebody asked about before its outcome was known,
    it is that answer which counts. `rung` names what answers the rest. `former`: the same requests with the features as they were
    defined before an edit, where there is one. `late`: rows of a time that was answered already, which the files did not hold then.
    `skew` compares the features of what the gateway answered in a period; None where no gateway answers, as in a replay.
    """

    ledger: Ledger
    branch: str
    deployment: Deployment
    examples: Examples
    timezone: str
    maturity: float
    told: Sequence[Prediction] = ()
    rung: str = "champion"
    former: Examples | None = None
    late: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    skew: Callable[[Skew, int, int], Measured] | None = None
    champion: Floats = field(init=False)
    frozen: Floats = field(init=False)
    candidate: Floats = field(init=False)
    days: Ints = field(init=False)
    _loaded: dict[str, tuple[Predictor, Examples | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = len(self.examples.at)
        self.champion, self.frozen, self.candidate = (np.full(rows, np.nan) for _ in range(3))
        self.days = local_days(self.examples.requests.event, self.timezone)

    # ── rows and scores ─────────────────────────────────────────────────────────────────────────────────────────

    def rows(self, start: int, end: int) -> Ints:
        """Requests asked in [start, end)."""
        low, high = np.searchsorted(self.examples.at, [start, end])
        return np.arange(low, high)

    def model(self, digest: str) -> Artifact:
        """The model artifact of a digest; its name may be another than the deployment's of today."""
        return self.ledger.artifact_of("model", digest)

    def score(self, digest: str, rows: Ints) -> Floats:
        """Probabilities of requests (NaN: it never saw them) by a model, over the features as they were defined when it was trained."""
        (predictor, theirs), matrix = self._asked(digest), self.examples.matrix
        if not len(rows):
            return np.empty(0)
        if theirs is None:
            return predictor.predict(predictor.signature.align(matrix.names, matrix.values[rows], matrix.vocabularies))
        return self._score_elsewhere(predictor, theirs, rows)

    def _asked(self, digest: str) -> tuple[Predictor, Examples | None]:
        """A model and its own examples. Those that were asked last stay: a replay makes many, and each may have a process of its own."""
        self._loaded[digest] = found = self._loaded.pop(digest, None) or (
            load_model(self.ledger, self.model(digest)),
            self._own_examples(digest),
        )
        for oldest in list(self._loaded)[:-LOADED]:
            del self._loaded[oldest]
        return found

    def _own_examples(self, digest: str) -> Examples | None:
        """The examples with the features of a model, where those were defined otherwise than these, down to the queries of their
        datasets: the former, if they are the same features, or those that it was trained on. None where nothing differs."""
        own = examples_of(self.ledger, self.model(digest))
        if self._as_in(own, self.examples):
            return None
        if self.former is not None and self._as_in(own, self.former):
            return self.former
        return load_examples(self.ledger, own)

    def _as_in(self, own: Artifact, examples: Examples) -> bool:
        """Whether all that a model reads is defined in some examples as in its own; the label is no feature."""
        return own.ref == examples.ref or set(otherwise(reads(self.ledger, own.ref), reads(self.ledger, examples.ref))) <= {"label"}

    def _score_elsewhere(self, predictor: Predictor, theirs: Examples, rows: Ints) -> Floats:
        found = np.array([theirs.requests.find(key.decode()) for key in self.examples.requests.keys[rows].tolist()])
        scores, there = np.full(len(rows), np.nan), found >= 0
        matrix = theirs.matrix
        if there.any():
            scores[there] = predictor.predict(predictor.signature.align(matrix.names, matrix.values[found[there]], matrix.vocabularies))
        return scores

    def sticky(self, column: str, rows: Ints) -> list[str]:
        """The key by which a rollout keeps requests together: a column of the request, or its own key."""
        texts = self.examples.requests.texts.get(column)
        own = [key.decode() for key in self.examples.requests.keys[rows].tolist()]
        return own if texts is None else [text or key for text, key in zip(texts.take(rows).texts(), own, strict=True)]

    def answer(self, rows: Ints, route: Route, champion: str, candidate: str, frozen: str) -> Predictions:
        """Answer requests by a route, with every version that is watched scoring every row. `champion` … are digests."""
        scores = {digest: self.score(digest, rows) for digest in {champion, candidate, frozen} - {""}}
        sticky_by = self.deployment.rollout.sticky_by if self.deployment.rollout else ""
        chosen = to_challenger(route, self.sticky(sticky_by, rows)) if route.weight > 0 else np.zeros(len(rows), dtype=bool)
        given = np.where(chosen, scores.get(candidate, scores[champion]), scores[champion])
        self.frozen[rows] = scores[frozen]
        shadows = {"champion": (route.champion, scores[champion]), "frozen": ("", scores[frozen])}
        if candidate:
            self.candidate[rows] = scores[candidate]
            shadows["candidate"] = (route.challenger, scores[candidate])
        versions = (route.champion, route.challenger) if route.challenger else (route.champion,)
        by = _By(list(versions), [self.rung], chosen.astype(np.int32), np.zeros(len(rows), np.int32))
        keys, at = self.examples.requests.keys[rows], self.examples.requests.at[rows]
        for place, answer in self._told_of(rows):
            given[place], at[place] = answer.probability, answer.at
            by.set(place, answer)
        answers = Predictions(keys, at, given, by.version, tuple(by.versions), by.rung, tuple(by.rungs), shadows)
        self.champion[rows] = _of_champion(answers)
        return answers

    def _told_of(self, rows: Ints) -> list[tuple[int, Prediction]]:
        """Those of these rows (ascending), by their place, that the gateway has answered before their outcome was known: an answer of
        later, asked as of a time when features may tell the outcome, shows no quality."""
        found = self._rows_of(np.array([answer.key.encode() for answer in self.told] or [b""]))
        places = np.minimum(np.searchsorted(rows, found), len(rows) - 1)
        pairs = zip(places.tolist(), rows[places] == found, self.told, strict=False)
        return [(place, answer) for place, there, answer in pairs if there and answer.at < self.examples.resolved[rows[place]]]

    def recall(self, count: int, candidate: str, lost: Sequence[Segment] = ()) -> Bools:
        """Take back what the first `count` segments of the log hold: the champion's, the frozen and a candidate's scores. Gives which of
        all requests (n,) were answered there.

        Requests are found by their keys: new data may have come between since they were answered. Those of `lost` segments stay unknown,
        but they were answered.
        """
        answered = np.zeros(len(self.examples.at), dtype=bool)
        for number, segment in segments(self.ledger, self.branch, self.deployment.name, without=[one.number for one in lost]):
            if number >= count:
                continue
            rows = self._rows_of(segment.keys)
            there = rows >= 0
            answered[rows[there]] = True
            self.champion[rows[there]] = _of_champion(segment)[there]
            self.frozen[rows[there]] = segment.shadows["frozen"][1][there]
            if candidate and segment.shadows.get("candidate", ("",))[0] == candidate:
                self.candidate[rows[there]] = segment.shadows["candidate"][1][there]
        for one in lost:
            answered[self.rows(one.first_at, one.last_at + 1)] = True
        return answered

    def _rows_of(self, keys: Any) -> Ints:
        """The rows of keys, −1 where there is none."""
        known, order = self.examples.requests.keys, self.examples.requests.order
        if order is None or not len(known):
            return np.full(len(keys), -1)
        place = np.minimum(np.searchsorted(known, keys, sorter=order), len(known) - 1)
        return np.where(known[order[place]] == keys, order[place], -1)

    # ── what is known ───────────────────────────────────────────────────────────────────────────────────────────

    def mature(self, start: int, now: int) -> Ints:
        """Labelled requests asked since `start` whose days are mature at `now`."""
        rows = self.rows(start, now)
        chosen = mature_rows(self.days[rows], self.examples.label[rows], self.examples.resolved[rows], now, self.maturity)
        return np.asarray(rows[chosen])

    def nothing_to_judge(self, start: int, now: int) -> DataError:
        """Why no request asked since `start` is mature: which of all that a label needs is missing."""
        rows, since = self.rows(start, now), f"since {show(start)}"
        labels, late = int(self.known(rows, now).sum()), "run again when more labels are known"
        if not labels:
            what = f"none of {len(rows):,} requests asked {since} has a label yet"
            hint = f"{late}: a model is judged on requests that neither it nor the champion has learnt from"
            return DataError(f"there is nothing to judge a model on: {what}", where=self.deployment.name, hint=hint)
        known = float((self.examples.resolved[rows] <= now).mean())
        what = f"of {len(rows):,} requests asked {since} {labels:,} have a label, none of them on a mature day"
        what += f": {known:.0%} of the outcomes are known, and a day counts from maturity={self.maturity:g} on"
        hint = f'{late}; where some never get one, say after what time they have none: tm.Label(…, none_after="7d"), or lower the maturity'
        return DataError(f"there is nothing to judge a model on: {what}", where=self.deployment.name, hint=hint)

    def labelled(self, start: int, now: int) -> Ints:
        """Labelled requests asked since `start`, known at `now`."""
        rows = self.rows(start, now)
        return np.asarray(rows[self.known(rows, now)])

    def known(self, rows: Ints, now: int) -> Bools:
        """Which rows have a label that is known at `now`."""
        return (self.examples.resolved[rows] <= now) & ~np.isnan(self.examples.label[rows])

    def new_labels(self, since: int, now: int) -> int:
        """Labels that became known in (since, now]."""
        resolved, label = self.examples.resolved, self.examples.label
        return int(np.sum((resolved > since) & (resolved <= now) & ~np.isnan(label)))

    def newest_label(self, now: int) -> int:
        """When the newest label that is known at `now` became known; at most `now`."""
        resolved = self.examples.resolved
        return int(resolved[(resolved <= now) & ~np.isnan(self.examples.label)].max(initial=0)) or now

    def evidence(self, rows: Ints, candidate: Floats, champion: Floats | None, base_rate: float) -> Evidence:
        """The evidence of rows, with the columns to slice by."""
        slices: dict[str, Coded] = {name: column.take(rows) for name, column in self.examples.requests.texts.items()}
        return Evidence(self.examples.label[rows], candidate, champion, base_rate, self.days[rows], slices)

    def reference(self, rows: Ints, scores: Floats) -> dict[str, float]:
        """Every metric of scores on rows, to compare later windows with."""
        label = self.examples.label[rows]
        found = {name: float(metric.function(label, scores)) for name, metric in METRICS.items()} if len(rows) else {}
        return {name: value for name, value in found.items() if not np.isnan(value)}

    def profile(self, digest: str) -> Profile:
        """The reference profile that a model carries."""
        import msgspec

        blob = self.ledger.blobs.get(self.model(digest).meta["blobs"]["profile"])
        return Profile.from_dict(msgspec.json.decode(bytes(blob)))

    def aligned(self, digest: str, rows: Ints) -> Floats:
        """Feature rows in the order and codes of a model."""
        matrix = self.examples.matrix
        return self._asked(digest)[0].signature.align(matrix.names, matrix.values[rows], matrix.vocabularies)

    def days_since(self, start: int, end: int, rows: Ints) -> Ints:
        """Days of rows counted from `start`; the odd hour of a day on which clocks change belongs to the last day before `end`."""
        return np.minimum((self.examples.at[rows] - start) // DAY, max((end - start + HOUR) // DAY - 1, 0))


def _of_champion(answers: Predictions) -> Floats:
    """What the champion answered, and beside other versions' answers what it says: they are not charged to it."""
    label, scores = answers.shadows["champion"]
    return np.where(np.array(answers.versions)[answers.version] == label, answers.probability, scores)
