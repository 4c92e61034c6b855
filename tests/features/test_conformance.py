"""The conformance suite: its cases follow from its rule, it finds stores that are wrong, and ours is right."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest

from features.ours import Ours, OursInLmdb, OursInRedis, OursOnline
from tidemill.features.conformance import (
    CASES,
    PROBES,
    Ask,
    Cannot,
    Case,
    History,
    Materialise,
    Probe,
    Push,
    View,
    check,
    check_online,
    expected,
    random_cases,
    run,
    run_probe,
)
from tidemill.features.conformance.__main__ import main
from tidemill.features.conformance.values import Value, time


def test_answers_worked_by_hand_follow_from_the_rule() -> None:
    assert len(CASES) >= 50
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        for view, answer in zip(case.views, case.answers, strict=True):
            told = tuple(expected(view.rows, key, at, view.ttl, as_known=case.as_known) for key, at in case.asked)
            assert told == answer, case.name


@pytest.mark.parametrize("case", [*CASES, *random_cases(10)], ids=lambda case: case.name)
def test_ours_is_right(case: Case) -> None:
    assert run(Ours(), case).wrong == ""


class Naive(Ours):
    """A store that answers by a rule, which a test may break."""

    def __init__(self) -> None:
        self.views: dict[str, tuple[Sequence[History], object]] = {}

    def define(self, view: object) -> None: ...

    def write(self, view) -> None:  # type: ignore[no-untyped-def]
        self.views[view.name] = view

    def read(self, rows, views, *, as_known):  # type: ignore[no-untyped-def]
        names = [name for name in rows[0] if name != "at"] if rows else []
        return [[self.answer(self.views[v], tuple(r[n] for n in names), r["at"], as_known) for r in rows] for v in views]

    def answer(self, view, key, at, as_known) -> tuple[Value, Value]:  # type: ignore[no-untyped-def]
        return expected(view.rows, key, at, view.ttl, as_known=as_known)

    def close(self) -> None: ...


class Leaky(Naive):
    def answer(self, view, key, at, as_known):  # type: ignore[no-untyped-def]
        return expected(view.rows, key, at, view.ttl, as_known=False)


class NullMatchesNull(Naive):
    def answer(self, view, key, at, as_known):  # type: ignore[no-untyped-def]
        rows = [replace(row, key=tuple("none" if part is None else part for part in row.key)) for row in view.rows]
        return expected(rows, tuple("none" if part is None else part for part in key), at, view.ttl, as_known=as_known)


class RunTogether(Naive):
    def answer(self, view, key, at, as_known):  # type: ignore[no-untyped-def]
        rows = [replace(row, key=("".join(map(str, row.key)),)) for row in view.rows]
        return expected(rows, ("".join(map(str, key)),), at, view.ttl, as_known=as_known)


class TooOld(Naive):
    def answer(self, view, key, at, as_known):  # type: ignore[no-untyped-def]
        return expected(view.rows, key, at, None, as_known=as_known)


class LosesRows(Naive):
    def read(self, rows, views, *, as_known):  # type: ignore[no-untyped-def]
        return [[pair for pair in answer if pair != (None, None)] for answer in super().read(rows, views, as_known=as_known)]


class SaysNothing(Naive):
    def read(self, rows, views, *, as_known):  # type: ignore[no-untyped-def]
        return []


class DoesNotClose(Naive):
    def close(self) -> None:
        raise OSError("no such folder")


class Fails(Naive):
    def write(self, view) -> None:  # type: ignore[no-untyped-def]
        raise OSError("no space")


def test_the_rule_itself_is_right_everywhere() -> None:
    assert not [outcome for outcome in check(Naive) if outcome.wrong]


@pytest.mark.parametrize(
    ("store", "least"),
    [
        (Leaky, 8),
        (NullMatchesNull, 2),
        (RunTogether, 2),
        (TooOld, 5),
        (LosesRows, 20),
        (Fails, 80),
        (SaysNothing, 100),
        (DoesNotClose, 100),
    ],
)
def test_a_store_that_is_wrong_is_found_out(store: type[Naive], least: int) -> None:
    wrong = [outcome for outcome in check(store) if outcome.wrong]
    assert len(wrong) >= least


def test_an_answer_of_another_shape_is_told() -> None:
    assert run(SaysNothing(), CASES[0]).wrong == "0 views are answered, 1 are asked for"


def test_the_suite_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("features.test_conformance:Naive") == 0
    assert capsys.readouterr().out == "100 of 100 cases are right\n"
    assert main("features.test_conformance:TooOld") > 0
    assert "a microsecond more is too old: view v, row 0: (1.0, 0.5), not (None, None)\n" in capsys.readouterr().out


def test_a_time_says_its_zone() -> None:
    assert time("10:00") == time("2024-03-10T11:00:00+01:00")


# ── the online half ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("store", [OursInLmdb, OursInRedis], ids=["lmdb", "redis"])
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_our_online_half_is_right(store: type[OursOnline], probe: Probe) -> None:
    outcome = run_probe(store(), probe)
    assert (outcome.wrong, outcome.cannot) == ("", "")


class Plain:
    """An online store that keeps all rows and answers by the rule, which a test may break."""

    def __init__(self) -> None:
        self.rows: list[History] = []
        self.there: list[History] = []
        self.seen: set[int] = set()

    def define(self, view: View) -> None:
        self.ttl = view.ttl

    def write(self, view: View) -> None:
        self.rows = list(view.rows)

    def materialise(self, until: datetime) -> None:
        self.there += [row for row in self.rows if row.known <= until and row not in self.there]

    def push(self, rows: Sequence[History], at: datetime, offsets: Sequence[int]) -> None:
        fresh = [row for row, offset in zip(rows, offsets or range(-len(rows), 0), strict=True) if offset not in self.seen]
        self.there += fresh
        self.seen |= set(offsets)

    def online(self, keys: Sequence[tuple[object, ...]], features: Sequence[str], at: datetime) -> Sequence[Sequence[Value]]:
        found = [expected(self.there, key, at, self.ttl, as_known=True) for key in keys]  # type: ignore[arg-type]
        return [[pair["xy".index(name)] for name in features] for pair in found]

    def close(self) -> None: ...


class Overwrites(Plain):
    """What was written last is what is answered, as in a store of one row for each key."""

    def materialise(self, until: datetime) -> None:
        self.put([row for row in self.rows if row.known <= until])

    def push(self, rows: Sequence[History], at: datetime, offsets: Sequence[int]) -> None:
        self.put(rows)

    def put(self, rows: Sequence[History]) -> None:
        for row in rows:
            self.there = [one for one in self.there if one.key != row.key] + [row]


class NoTtl(Plain):
    def define(self, view: View) -> None:
        self.ttl = None


class ByEventTime(Plain):
    """Materialises a window of event times, as a job does: what comes late is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.last: datetime | None = None

    def materialise(self, until: datetime) -> None:
        self.there += [row for row in self.rows if row.known <= until and (self.last is None or row.event > self.last)]
        self.last = until


class SkipsNull(Plain):
    def online(self, keys, features, at):  # type: ignore[no-untyped-def]
        self.there = [row for row in self.there if row.values[0] is not None]
        return super().online(keys, features, at)


class OwnOrder(Plain):
    def online(self, keys, features, at):  # type: ignore[no-untyped-def]
        return super().online(keys, sorted(features), at)


class TakesTwice(Plain):
    def push(self, rows: Sequence[History], at: datetime, offsets: Sequence[int]) -> None:
        super().push(rows, at, ())


class NoPush(Plain):
    def push(self, rows: Sequence[History], at: datetime, offsets: Sequence[int]) -> None:
        raise Cannot("it takes no single rows")


def test_answers_of_probes_follow_from_the_rule_and_each_is_in_the_order_of_time() -> None:
    assert not [outcome for outcome in check_online(Plain) if outcome.wrong or outcome.cannot]
    assert len({probe.name for probe in PROBES}) == len(PROBES) >= 30
    for probe in PROBES:
        times = [step.at for step in probe.steps if not isinstance(step, Materialise)]  # but an old window may come again
        assert times == sorted(times)
        assert any(isinstance(step, Ask) for step in probe.steps)
        assert all(row.known == step.at for step in probe.steps if isinstance(step, Push) for row in step.rows)


@pytest.mark.parametrize(
    ("store", "least"), [(Overwrites, 5), (NoTtl, 3), (ByEventTime, 2), (SkipsNull, 3), (OwnOrder, 1), (TakesTwice, 2)], ids=str
)
def test_an_online_half_that_is_wrong_is_found_out(store: type[Plain], least: int) -> None:
    assert len([outcome for outcome in check_online(store) if outcome.wrong]) >= least


def test_what_a_store_cannot_do_is_neither_right_nor_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("features.test_conformance:NoPush", online=True) == 0
    out = capsys.readouterr().out
    assert "a pushed row is there at once: cannot be asked: it takes no single rows\n" in out
    pushes = sum(any(isinstance(step, Push) for step in probe.steps) for probe in PROBES)
    assert out.endswith(f"{len(PROBES) - pushes} of {len(PROBES) - pushes} probes are right; {pushes} cannot be asked\n")
    assert main("features.test_conformance:NoTtl", online=True) >= 3
    assert "a microsecond more is too old, though nothing new came: step 1: ((1.0, 0.5),), not ((None, None),)" in capsys.readouterr().out
