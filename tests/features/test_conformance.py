"""The conformance suite: its cases follow from its rule, it finds stores that are wrong, and ours is right."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from features.ours import Ours
from tidemill.features.conformance import CASES, Case, History, check, expected, random_cases, run
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
