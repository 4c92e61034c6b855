"""Skew of each kind, put into what is served: it is found and counted; what came late is told apart; without any, nothing is said."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill import loop
from tidemill.core import DAY, HOUR, DefinitionError, Ref, instant, show
from tidemill.data import append_push
from tidemill.evaluation import gates
from tidemill.features import MemoryOnline
from tidemill.ledger import Ledger, lineage
from tidemill.loop import Every, Measured, Passed, RetrainPolicy, SkewFound
from tidemill.monitoring import Skew
from tidemill.serving import AnswerLog, Endpoint, Withheld, sample_answers
from tidemill.session.session import open_endpoint
from toy import CHANGE, DECLARATIONS, LAST, ZONE, Row, Toy, make_rows, open_toy, with_deployment, write_project

BEGIN, FOREVER = "2024-03-01", instant("2100-01-01")
CHECK = Skew(rows=500)


@dataclass
class Live:
    """A live deployment: its log, and how it is asked."""

    toy: Toy
    branch: str
    log: Path

    @property
    def endpoint(self) -> Endpoint:
        branch = self.toy.ledger.branch(self.branch)
        assert branch is not None
        return open_endpoint(self.toy.ledger, self.toy.declared, branch, MemoryOnline())

    def rows(self, start: str, days: int) -> list[int]:
        at = self.toy.built.examples.at
        return np.flatnonzero((at >= self.toy.at(start)) & (at < self.toy.at(start) + days * DAY)).tolist()

    def serve(self, endpoint: Endpoint, rows: Sequence[int], *, keep: float = 1.0, own: bool = False, asked: int = 0, **more: Any) -> None:
        """Ask about requests at their own times, through the endpoint and the log."""
        examples, log = self.toy.built.examples, AnswerLog(self.log, keep, **more)
        for row in rows:
            at = int(examples.at[row])
            body: Mapping[str, Any] = {"parcel": examples.requests.keys[row].decode()}
            log.append(endpoint.answer([self.sent(row) if own else body], [at], keep=keep), asked or at, self.branch)
        log.close()

    def sent(self, row: int) -> dict[str, Any]:
        """A request by its own columns, as a client would send it."""
        requests = self.toy.built.examples.requests
        texts = {name: requests.texts[name].texts()[row] for name in ("depot", "courier", "grade")}
        times = {"sent": show(int(requests.event[row])), "booked": show(int(requests.known[row]))}
        weight = float(requests.values[row, list(requests.names).index("booking__weight")])
        return {"parcel": requests.keys[row].decode(), **texts, **times, "weight": weight}

    def toy_count(self, depot: str, at: int) -> int:
        """Parcels delivered from a depot in the three days before a time, from the rows themselves."""
        start = at // HOUR * HOUR - 3 * DAY  # the tail of a window moves by the hour
        arrived = [instant(row["arrived"]) for row in make_rows() if row["depot"] == depot and row["arrived"]]
        return sum(start <= one < at for one in arrived)

    def measure(self, check: Skew = CHECK, *, ledger: Ledger | None = None, since: int = 0, until: int = FOREVER) -> Measured:
        sample = sample_answers(self.log, self.branch, since, until, check.rows)
        return loop.measure(ledger or self.toy.ledger, self.branch, "late", sample, check)


@pytest.fixture(scope="module")
def began(tmp_path_factory: pytest.TempPathFactory) -> tuple[Toy, Passed]:
    """A live branch with its first champion."""
    toy = open_toy(write_project(tmp_path_factory.mktemp("skew") / "parcels"))
    return toy, loop.run_once(toy.ledger, toy.built, toy.policy, toy.at(BEGIN), ZONE)


@pytest.fixture
def live(began: tuple[Toy, Passed], tmp_path: Path) -> Live:
    toy, passed = began
    return Live(toy, passed.branch, tmp_path / "late.jsonl")


def differing(found: Measured) -> dict[str, tuple[int, int, int]]:
    """By feature that is off, the numbers of mismatch, missing and extra."""
    return {one.name: (one.mismatch, one.missing, one.extra) for one in found.found.features if one.differing}


@pytest.mark.parametrize("own", [False, True], ids=["by key", "by own columns"])
def test_what_is_served_as_it_is_learnt_has_no_skew(live: Live, *, own: bool) -> None:
    endpoint, rows = live.endpoint, live.rows("2024-03-02", 2)
    for day in ("2024-03-02", "2024-03-03"):
        endpoint.reader.materialise(live.toy.at(day))
        live.serve(endpoint, live.rows(day, 1), own=own)
    found = live.measure().found
    assert (found.answers, found.kept, found.rows, found.left_out) == (len(rows), len(rows), len(rows), {})
    assert [one.name for one in found.features] == list(live.toy.built.examples.matrix.names)
    assert all(one.equal == one.rows == len(rows) and one.known_later == 0 for one in found.features)
    assert found.over == ()
    assert f"all {len(found.features)} features equal" in found.why


def test_what_the_log_withholds_is_no_skew(live: Live) -> None:
    endpoint, rows = live.endpoint, live.rows("2024-03-02", 1)
    endpoint.reader.materialise(live.toy.at("2024-03-02"))
    withheld = Withheld({"booking__weight", "courier"}, {"booking__grade"}, b"key")
    live.serve(endpoint, rows, withheld=withheld)
    live.serve(endpoint, rows[:7], own=True, withheld=withheld)
    found = live.measure().found
    assert (found.rows, found.left_out) == (len(rows), {"columns that they were sent with are not kept in the log": 7})
    assert [one.name for one in found.features] == [
        name for name in live.toy.built.examples.matrix.names if name not in ("booking__weight", "booking__grade")
    ]
    assert all(one.equal == one.rows == len(rows) for one in found.features)


# ── skew of each kind ───────────────────────────────────────────────────────────────────────────────────────────────

MARK = "2024-05-07"  # all is known by then, and nothing has expired


def served_at(live: Live, endpoint: Endpoint, at: int, rows: Sequence[int]) -> list[str | None]:
    """Ask about requests as of a time; gives their couriers."""
    requests, log = live.toy.built.examples.requests, AnswerLog(live.log)
    for row in rows:
        log.append(endpoint.answer([{"parcel": requests.keys[row].decode()}], [at], keep=1.0), at, live.branch)
    log.close()
    return requests.texts["courier"].take(np.array(rows)).texts()


@dataclass
class Online:
    """The deployment over an online store that was made from other rows than its views."""

    live: Live
    folder: Path

    def of(self, rows: list[Row], until: int = 0) -> Endpoint:
        other, endpoint, store = open_toy(write_project(self.folder / "other", rows)), self.live.endpoint, MemoryOnline()
        logs = other.built.reader(other.ledger).logs
        replace(endpoint.reader, logs=logs, online=store).materialise(until or self.live.toy.at(MARK))
        endpoint.rows = replace(endpoint.rows, reader=replace(endpoint.reader, online=store))
        return endpoint


@pytest.fixture
def online_store(live: Live, tmp_path: Path) -> Online:
    return Online(live, tmp_path)


def test_online_rows_under_the_names_of_others_are_found_and_nothing_else(live: Live, online_store: Online) -> None:
    at, rows, other = live.toy.at(MARK) + HOUR, live.rows("2024-05-01", 4), {"N": "S", "S": "N", "W": "W"}
    served_at(live, online_store.of([row | {"depot": other[row["depot"]]} for row in make_rows()]), at, rows)
    depots = live.toy.built.examples.requests.texts["depot"].take(np.array(rows)).texts()
    off_rows = sum(depot != "W" for depot in depots)
    found = live.measure()
    off = {one.name: one for one in found.found.features if one.differing}
    assert off, "the depots differ"
    assert all(name.startswith("depot_recent__") for name in off)
    assert {one.mismatch for one in off.values()} == {off_rows}
    assert set(found.found.over) == set(off)
    one = off["depot_recent__delivered_3d"]
    assert one.share.low < one.share.estimate == off_rows / len(rows) < one.share.high
    counts = {depot: live.toy_count(depot, at) for depot in other}
    for example in one.examples:
        asked = next(row for row in rows if live.toy.built.examples.requests.keys[row].decode() == example.answer["key"])
        depot = str(depots[rows.index(asked)])
        assert (example.served, example.offline) == (counts[other[depot]], counts[depot])
    assert one.greatest == pytest.approx(abs(counts["N"] - counts["S"]) / max(counts["N"], counts["S"]))
    assert one.mean == pytest.approx(one.greatest * off_rows / len(rows))


def test_a_stale_online_row_is_missing(live: Live, online_store: Online) -> None:
    stale = [row | {"late": None} if row["courier"] == "a" and row["sent"] > CHANGE else row for row in make_rows()]
    couriers = served_at(live, online_store.of(stale), live.toy.at(MARK) + HOUR, live.rows("2024-05-01", 4))
    found = live.measure()
    off = differing(found)
    assert off.pop("courier_last__late") == (0, couriers.count("a"), 0)
    assert all(name.startswith("depot_recent") for name in off), "his parcels are lacking there too"
    (example, *_) = next(one for one in found.found.features if one.name == "courier_last__late").examples
    assert (example.served, example.status) == (None, ("expired", "present"))


def test_a_value_served_where_there_is_none_offline_is_extra(live: Live, online_store: Online) -> None:
    asked = live.toy.at("2024-05-16")
    endpoint = online_store.of(make_rows(last=LAST + timedelta(days=12)), asked)
    couriers = served_at(live, endpoint, asked + HOUR, live.rows("2024-05-01", 4))
    found = differing(live.measure())
    assert found.pop("courier_last__late") == (0, 0, len(couriers) - couriers.count(None))
    assert set(found) <= {f"depot_recent__{name}_{window}" for name in ("late_share", "delivered") for window in ("12h", "3d")}


def test_an_entity_that_the_online_store_lost_is_answered_offline_without_skew(live: Live, online_store: Online) -> None:
    endpoint = online_store.of([row | {"courier": None} if row["courier"] == "a" else row for row in make_rows()])
    couriers = served_at(live, endpoint, live.toy.at(MARK) + HOUR, live.rows("2024-05-01", 2))
    sample = sample_answers(live.log, live.branch, 0, FOREVER, 500)
    assert {one.features_from for one in sample.rows} == {"online", "offline"}
    assert "a" in couriers
    assert differing(live.measure()) == {}


def test_a_view_whose_served_code_differs_is_found(live: Live, tmp_path: Path) -> None:
    declarations = DECLARATIONS.replace('"weight": "weight"', '"weight": "weight * 1000"').replace('tm.mean("late")', 'tm.mean("1 - late")')
    other = open_toy(write_project(tmp_path / "other", declarations=declarations), live.toy.ledger)
    branch = live.toy.ledger.branch(live.branch)
    assert branch is not None
    served = open_endpoint(live.toy.ledger, other.declared, replace(branch, parts=branch.parts | {"recipe": other.built.recipe()}))
    rows = live.rows("2024-03-05", 3)
    live.serve(served, rows)
    found = differing(live.measure())
    assert set(found) == {"booking__weight", "depot_recent__late_share_12h", "depot_recent__late_share_3d"}
    assert found["booking__weight"] == (len(rows), 0, 0)
    (weight,) = [one for one in live.measure().found.features if one.name == "booking__weight"]
    assert weight.greatest == pytest.approx(0.999)


def test_a_vocabulary_of_another_order_is_found(live: Live) -> None:
    endpoint, rows = live.endpoint, live.rows("2024-03-05", 3)
    endpoint.rows = replace(endpoint.rows, known=replace(endpoint.rows.known, vocabularies={"booking__grade": ("y", "x", "z")}))
    live.serve(endpoint, rows)
    found = live.measure()
    grades = live.toy.built.examples.requests.texts["grade"].take(np.array(rows)).texts()
    assert differing(found) == {"booking__grade": (sum(grade in "xy" for grade in grades if grade), 0, 0)}
    (one,) = [one for one in found.found.features if one.differing]
    assert {example.served for example in one.examples} | {example.offline for example in one.examples} == {"x", "y"}
    assert (one.greatest, one.mean) == (None, None)


# ── what came late ──────────────────────────────────────────────────────────────────────────────────────────────────


def without_every_third(rows: list[Row]) -> list[Row]:
    """Rows of which some parcels have not come yet."""
    return [row | {"arrived": None, "late": None} if place % 3 == 0 else row for place, row in enumerate(rows)]


def test_what_came_later_with_an_earlier_time_is_told_apart(tmp_path: Path) -> None:
    first = open_toy(write_project(tmp_path / "first", without_every_third(make_rows())))
    branch = loop.run_once(first.ledger, first.built, first.policy, first.at(BEGIN), ZONE).branch
    live = Live(first, branch, tmp_path / "late.jsonl")
    endpoint, rows = live.endpoint, live.rows("2024-03-05", 3)
    live.serve(endpoint, rows)
    assert differing(live.measure()) == {}, "nothing else is known yet"
    open_toy(write_project(tmp_path / "whole"), first.ledger)
    found = live.measure()
    later = {one.name for one in found.found.features if one.known_later}
    assert {"depot_recent__delivered_12h", "depot_recent__delivered_3d"} <= later
    assert not any(name.startswith("booking") for name in later)
    assert (differing(found), found.found.over) == ({}, ())
    assert "values known later" in found.found.why
    endpoint.rows = replace(endpoint.rows, known=replace(endpoint.rows.known, values=endpoint.rows.known.values * [1.0, 2.0, 1.0]))
    live.serve(endpoint, rows[:50], asked=7)
    assert differing(live.measure(until=8)) == {"booking__weight": (50, 0, 0)}, "skew is seen beside it"
    gone = first.built.versions["view depot_recent"].meta["blobs"]["events"]
    first.ledger.blobs.delete(gone)
    assert live.measure(replace(CHECK, rows=10)).found.left_out == {"what they were read from is no longer kept": 10}


def test_answers_with_pushed_rows_wait_for_the_version_that_has_them(tmp_path: Path) -> None:
    toy = open_toy(write_project(tmp_path / "parcels"))
    live = Live(toy, loop.run_once(toy.ledger, toy.built, toy.policy, toy.at(BEGIN), ZONE).branch, tmp_path / "late.jsonl")
    before, after = live.rows("2024-03-02", 1), live.rows("2024-03-03", 1)
    append_push(toy.ledger, "deliveries", [{"parcel": "pushed"}], toy.at("2024-03-03"))
    live.serve(live.endpoint, [*before, *after])
    found = live.measure().found
    assert found.rows == len(before)
    assert found.left_out == {"what was pushed by then is not in a version yet: the next one has it": len(after)}


# ── the job ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_report_comes_from_the_model_the_views_and_the_log(live: Live) -> None:
    live.serve(live.endpoint, live.rows("2024-03-05", 1))
    measured = live.measure()
    tree = lineage(live.toy.ledger, measured.report)
    roles = {(parent.role, parent.ref.kind, parent.ref.name) for parent in tree.parents}
    assert ("log", "prediction log", "late") in roles
    assert ("models", "model", "trees") in roles
    assert {("today", "feature view", "depot_recent"), ("then", "requests", "bookings")} <= roles
    execution = live.toy.ledger.execution(measured.execution)
    assert (execution.kind, execution.name, execution.status) == ("skew test", "late", "finished")
    assert live.measure().execution == measured.execution, "the same answers are not compared twice"


def test_a_sample_is_the_same_every_time_and_spares_no_row(live: Live) -> None:
    rows = live.rows("2024-03-02", 4)
    live.serve(live.endpoint, rows)
    drawn = sample_answers(live.log, live.branch, 0, FOREVER, 40)
    assert [one.key for one in drawn.rows] == [one.key for one in sample_answers(live.log, live.branch, 0, FOREVER, 40).rows]
    assert (drawn.answers, drawn.kept, len({one.key for one in drawn.rows})) == (len(rows), len(rows), 40)
    more = {one.key for one in sample_answers(live.log, live.branch, 0, FOREVER, 80).rows}
    assert {one.key for one in drawn.rows} < more, "a larger sample holds the smaller"
    times = [one.at_us for one in drawn.rows]
    assert times == sorted(times), "in the order of the log"
    half = live.toy.at("2024-03-04")
    late = sample_answers(live.log, live.branch, half, FOREVER, 1000)
    assert {one.asked >= half for one in late.rows} == {True}
    assert len(late.rows) == late.answers == sum(int(live.toy.built.examples.at[row]) >= half for row in rows)


def test_a_share_of_answers_is_kept_with_features_and_the_others_are_counted(live: Live) -> None:
    rows = live.rows("2024-03-02", 5)
    live.serve(live.endpoint, rows, keep=0.3)
    found = live.measure().found
    assert found.answers == len(rows)
    assert found.kept == found.rows
    assert 0.2 * len(rows) < found.kept < 0.4 * len(rows)
    live.log.unlink()
    live.serve(live.endpoint, rows, keep=0.0)
    empty = live.measure().found
    assert (empty.answers, empty.kept, empty.rows, empty.features, empty.over) == (len(rows), 0, 0, (), ())
    assert f"none of {len(rows)} has its features in the log" in empty.why


def test_answers_of_before_features_were_kept_and_damaged_lines_are_passed_over(live: Live) -> None:
    live.serve(live.endpoint, live.rows("2024-03-02", 1))
    lines = live.log.read_bytes()
    older = b'{"asked":5,"at_us":1709355600000000,"branch":"%s","features_from":"offline","features_missing":{},'
    older += b'"key":"p061-001","probability":0.3,"rung":"champion","version":"trees/1"}\n'
    live.log.write_bytes(older % live.branch.encode() + b'{"asked":\n' + lines[: len(lines) // 2].rpartition(b"\n")[0] + b"\n" + lines[:40])
    found = live.measure().found
    assert found.answers == found.kept + 1
    assert found.rows == found.kept > 0


def test_a_version_or_a_request_that_is_not_known_is_left_out(live: Live) -> None:
    live.serve(live.endpoint, live.rows("2024-03-02", 1)[:4], own=True)
    live.serve(live.endpoint, live.rows("2024-03-02", 1)[4:8])
    text = live.log.read_text().splitlines()
    text[0] = text[0].replace('"grade":', '"no_longer":')
    text[4] = text[4].replace('"version":"trees/1"', '"version":"trees/9"')
    text[5] = text[5].replace('"key":"p', '"key":"q')
    text[6] = text[6].replace('"requests":"', '"requests":"f')
    live.log.write_text("\n".join(text) + "\n")
    found = live.measure().found
    unheld, gone = "their request is no longer held, or cannot be computed any more", "what they were read from is no longer kept"
    assert found.left_out == {unheld: 2, gone: 1, "their version is not known on this branch": 1}
    assert found.rows == 4


# ── in the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Passes:
    """Passes of a live loop that compares what was served."""

    live: Live
    policy: RetrainPolicy

    def make(self, day: str) -> Passed:
        sample, toy = partial(sample_answers, self.live.log), self.live.toy
        return loop.run_once(toy.ledger, toy.built, self.policy, toy.at(day), ZONE, sample=sample)

    def serve(self, day: str, days: int, *, tampered: bool) -> None:
        endpoint = self.live.endpoint
        if tampered:
            endpoint.rows = replace(endpoint.rows, known=replace(endpoint.rows.known, values=endpoint.rows.known.values * [1.0, 2.0, 1.0]))
        self.live.serve(endpoint, self.live.rows(day, days))


Begin = Callable[..., Passes]


@pytest.fixture
def begin(parcels: Path, tmp_path: Path) -> Begin:
    """Begin a live loop with a comparison; `changes` are of its policy."""

    def begun(check: Skew = CHECK, **changes: Any) -> Passes:
        toy = open_toy(parcels)
        policy = replace(toy.policy, monitor=replace(toy.policy.monitor, skew=check), **changes)
        passed = loop.run_once(toy.ledger, toy.built, policy, toy.at(BEGIN), ZONE)
        return Passes(Live(toy, passed.branch, tmp_path / "late.jsonl"), policy)

    return begun


def kinds(passed: Passed) -> list[str]:
    return [one.kind for one in passed.decisions]


def test_windows_without_skew_are_written_down_and_raise_no_alert(begin: Begin) -> None:
    passes = begin()
    passes.serve("2024-03-01", 9, tampered=False)
    assert "features compared" not in kinds(passes.make("2024-03-04")), "the window is not over"
    found = [one for day in ("2024-03-05", "2024-03-06", "2024-03-09") for one in passes.make(day).decisions]
    compared = [one for one in found if one.kind == "features compared"]
    assert [one.evidence["rows"] for one in compared] == [len(passes.live.rows(day, 4)) for day in ("2024-03-01", "2024-03-05")]
    assert all("all 8 features equal" in one.why and one.evidence["differing"] == {} for one in compared)
    assert not any(one.kind == "skew found" for one in found)
    assert passes.make("2024-03-09").state.skew == ""


def test_skew_is_an_alert_that_a_policy_may_retrain_on(begin: Begin) -> None:
    passes = begin(Skew(rows=200), on=[SkewFound()], cooldown="2d", min_new_labels=10)
    passes.serve("2024-03-01", 4, tampered=True)
    passed = passes.make("2024-03-05")
    (alert,) = [one for one in passed.decisions if one.kind == "skew found"]
    assert alert.subject == "trees/1"
    assert alert.why.startswith(
        "booking__weight differs in 200 of 200 answers (100.00%, 95%: 98.17% to 100.00%): 200 mismatch; allowed is 0.10%"
    )
    assert list(alert.evidence["features"]) == ["booking__weight"]
    assert passed.state.skew == alert.why
    (retrained,) = [one for one in passed.decisions if one.kind == "retrained"]
    assert retrained.why.startswith("skew: booking__weight differs")
    (compared,) = [one for one in passed.decisions if one.kind == "features compared"]
    report = passes.live.toy.ledger.artifact(Ref.parse(compared.evidence["report"]))
    assert report.meta["why"] == compared.why


@pytest.mark.parametrize("hold", [True, False])
def test_nothing_goes_live_from_a_look_that_finds_skew_until_one_that_does_not(begin: Begin, *, hold: bool) -> None:
    gate = gates.calibration(max_ece=1.0)
    passes = begin(Skew(rows=200, hold=hold), on=[Every("4d")], cooldown="4d", min_new_labels=10)
    passes.policy = with_deployment(passes.policy, gates=[gate])
    passes.serve("2024-03-01", 4, tampered=True)
    first = passes.make("2024-03-05")
    assert "retrained" in kinds(first)
    assert ("canary" in kinds(first)) is not hold
    assert ("canary" in kinds(passes.make("2024-03-06"))) is False
    assert passes.make("2024-03-07").state.skew
    passes.serve("2024-03-05", 4, tampered=False)
    second = passes.make("2024-03-09")
    assert second.state.skew == ""
    if hold:
        assert "canary" in kinds(second), "the candidate waited"


def test_a_window_in_which_nothing_was_asked_neither_finds_skew_nor_ends_it(begin: Begin) -> None:
    passes = begin()
    passes.serve("2024-03-01", 4, tampered=True)
    assert passes.make("2024-03-05").state.skew
    passed = passes.make("2024-03-09")
    (compared,) = [one for one in passed.decisions if one.kind == "features compared"]
    assert compared.evidence["rows"] == 0
    assert passed.state.skew


def test_skew_found_without_a_comparison_is_refused(begin: Begin) -> None:
    with pytest.raises(DefinitionError, match="compares no features"):
        begin(None, on=[SkewFound()])


def test_a_replay_with_the_comparison_on_stays_silent(toy: Toy) -> None:
    policy = replace(toy.policy, monitor=replace(toy.policy.monitor, skew=CHECK))
    branch = toy.replay(policy, end="2024-03-20")
    assert not {"skew found", "features compared"} & set(toy.kinds(branch))
    assert "watched" in toy.kinds(branch)
