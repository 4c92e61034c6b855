"""Asking a store the cases: what it must be able to do, and what it answered."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isnan
from typing import Any, Protocol

from tidemill.features.conformance.cases import CASES
from tidemill.features.conformance.values import Case, History, Key, Value, View, expected, time

Pair = tuple[Value, Value]


class Store(Protocol):
    """What a feature store must be able to do; an adapter is made anew for each case, without arguments."""

    def define(self, view: View) -> None:
        """Declare a view with the features `x` and `y` (numbers) over rows with these columns of the key, which are all integers or all
        texts, an event time and a time at which a row became known."""

    def write(self, view: View) -> None:
        """Bring the rows of a view that was defined, in their order."""

    def read(self, rows: Sequence[Mapping[str, Any]], views: Sequence[str], *, as_known: bool) -> Sequence[Sequence[Pair]]:
        """For each view the values `(x, y)` of each row. A row has its time under `at` and its key under the columns of all views.
        Without `as_known` the time at which a row became known is only used to choose among rows of one event time."""

    def close(self) -> None:
        """The case is over."""


@dataclass(frozen=True)
class Outcome:
    """A case and what is wrong with its answer; empty where it is right."""

    case: Case
    wrong: str


def run(store: Store, case: Case) -> Outcome:
    """Ask a store one case."""
    try:
        try:
            for view in case.views:
                store.define(view)
                store.write(view)
            keys = case.views[0].keys
            rows = [{**dict(zip(keys, key, strict=True)), "at": at} for key, at in case.asked]
            answers = store.read(rows, [view.name for view in case.views], as_known=case.as_known)
        finally:
            store.close()
        return Outcome(case, _wrong(case, [[(_plain(x), _plain(y)) for x, y in answer] for answer in answers]))
    except Exception as error:  # noqa: BLE001 – a store that fails has an outcome like any other
        return Outcome(case, f"{type(error).__name__}: {error}")


def _plain(value: Any) -> Value:
    return None if value is None or isnan(value) else float(value)


def _wrong(case: Case, answers: Sequence[Sequence[Pair]]) -> str:
    if len(answers) != len(case.views):
        return f"{len(answers)} views are answered, {len(case.views)} are asked for"
    for view, told, found in zip(case.views, case.answers, answers, strict=True):
        if len(found) != len(told):
            return f"view {view.name}: {len(found)} rows for {len(told)} that were asked for"
        for row, (right, given) in enumerate(zip(told, found, strict=True)):
            if right != given:
                return f"view {view.name}, row {row}: {given}, not {right}"
    return ""


def check(make: Callable[[], Store], cases: Sequence[Case] | None = None) -> list[Outcome]:
    """Ask a store every case, by default those worked by hand and twenty random ones; it is made anew for each."""
    return [run(make(), case) for case in (cases if cases is not None else [*CASES, *random_cases(20)])]


def random_cases(count: int, seed: int = 0) -> Iterator[Case]:
    """Cases with many ties, late rows, nulls and times on every edge, whose answers follow from the rule."""
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")  # noqa: S311 – cases, no secrets
        moments = [time("10:00") + timedelta(minutes=chance.randrange(12)) for _ in range(8)]
        keys: list[Key] = [(chance.choice(["a", "b", "c", None]), chance.choice(["a", "b"])) for _ in range(4)]
        ttl = chance.choice([None, timedelta(minutes=3)])
        rows = tuple(_row(chance, keys, moments) for _ in range(chance.randrange(40)))
        asked = tuple((chance.choice(keys), chance.choice(moments)) for _ in range(30))
        as_known = chance.random() < 0.7
        answers = tuple(expected(rows, key, at, ttl, as_known=as_known) for key, at in asked)
        yield Case(f"random {seed}/{number}", (View("r", ("k", "l"), rows, ttl),), asked, (answers,), as_known)


def _row(chance: random.Random, keys: Sequence[Key], moments: Sequence[datetime]) -> History:
    event = chance.choice(moments)
    known = event + timedelta(minutes=chance.choice([0, 0, 1, 5, -2]))
    return History(chance.choice(keys), event, known, (chance.choice([None, chance.random()]), chance.random()))
