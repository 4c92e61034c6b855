"""Asking a store the cases: what it must be able to do, and what it answered."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isnan
from typing import Any, Protocol, assert_never

from tidemill.features.conformance.cases import CASES
from tidemill.features.conformance.probes import PROBES, Ask, Materialise, Probe, Push
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


class Cannot(Exception):
    """What an adapter raises where its store cannot do something, and says what; the probe then counts neither as right nor as wrong."""


class Online(Protocol):
    """What the online half of a feature store must be able to do, or its adapter raise `Cannot`; made anew for each probe."""

    def define(self, view: View) -> None:
        """Declare a view, as a `Store` does."""

    def write(self, view: View) -> None:
        """Bring its rows to where they are materialised from."""

    def materialise(self, until: datetime) -> None:
        """Bring what was known by a time to where requests are answered."""

    def push(self, rows: Sequence[History], at: datetime, offsets: Sequence[int]) -> None:
        """Take rows that are known from `at` on; `offsets`, if any, are their numbers in one source."""

    def online(self, keys: Sequence[Key], features: Sequence[str], at: datetime) -> Sequence[Sequence[Value]]:
        """The values of some features for each key, as they are answered at a time, which no step came after."""

    def close(self) -> None:
        """The probe is over."""


@dataclass(frozen=True)
class Outcome:
    """A case or a probe and what is wrong with its answer; empty where it is right. `cannot`: what the store says that it cannot do."""

    case: Case | Probe
    wrong: str
    cannot: str = ""


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


def run_probe(store: Online, probe: Probe) -> Outcome:
    """Ask the online half of a store one probe."""
    try:
        try:
            store.define(probe.view)
            store.write(probe.view)
            for number, step in enumerate(probe.steps):
                match step:
                    case Materialise(until):
                        store.materialise(until)
                    case Push(at, rows, offsets):
                        store.push(rows, at, offsets)
                    case Ask(at, keys, answers, features):
                        found = tuple(tuple(map(_plain, row)) for row in store.online(keys, features, at))
                        if found != answers:
                            return Outcome(probe, f"step {number}: {found}, not {answers}")
                    case _:
                        assert_never(step)
        finally:
            store.close()
    except Cannot as error:
        return Outcome(probe, "", str(error) or "it does not say what")
    except Exception as error:  # noqa: BLE001 – as above
        return Outcome(probe, f"{type(error).__name__}: {error}")
    return Outcome(probe, "")


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


def check_online(make: Callable[[], Online], probes: Sequence[Probe] = PROBES) -> list[Outcome]:
    """Ask the online half of a store every probe; it is made anew for each."""
    return [run_probe(make(), probe) for probe in probes]


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
