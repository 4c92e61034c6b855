"""Runs read again: found, set side by side, with curves that keep their extremes, code and environment that can be told apart."""

import json
import math
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill import tracking
from tidemill.core import DataError, StoreError, UnknownName
from tidemill.ledger import Ledger
from tidemill.store import MemoryBlobs, Records
from tidemill.tracking import Runs, find_run, find_runs
from tidemill.tracking.comparison import comparison_rows, text_diff
from tidemill.tracking.experiments import create_experiment
from tidemill.tracking.metrics import _sample
from tidemill.tracking.models import create_model
from tidemill.tracking.plots import Curves
from tidemill.tracking.runs import create_run, log_batch, log_inputs, log_metric, update_run
from tidemill.tracking.values import Dataset, DatasetInput, Metric, ModelRef, Pair

Make = Callable[..., str]


@pytest.fixture
def make(ledger: Ledger) -> Make:
    tracking.prepare(ledger)
    experiment = create_experiment(ledger, "digits")

    def made(name: str, *, params: dict[str, str], metrics: dict[str, list[float]], code: dict[str, str] | None = None) -> str:
        run = create_run(ledger, experiment, name=name, started_at=len(name)).info.run_id
        log_batch(ledger, run, [], [Pair(key, value) for key, value in params.items()], [])
        for key, curve in metrics.items():
            for step, value in enumerate(curve):
                log_metric(ledger, run, Metric(key, value, step, step))
        for path, text in (code or {}).items():
            part = ledger.blobs.part()
            part.write(text.encode())
            tracking.put_file(ledger, f"{experiment}/{run}/artifacts/code/{path}", part)
        update_run(ledger, run, status="FINISHED", ended_at=1000)
        return run

    return made


def two(make: Make) -> tuple[str, str]:
    first = make("one", params={"depth": "3", "rate": "0.1"}, metrics={"auc": [0.5, 0.7]}, code={"train.py": "x = 1\n"})
    second = make("other", params={"depth": "4", "rate": "0.1"}, metrics={"auc": [0.5, 0.8], "extra": [1.0]}, code={"train.py": "x = 2\n"})
    return first, second


@pytest.mark.parametrize(
    "curve",
    [
        [(0, -1.7e308), (1, 1.7e308)],
        [(0, 1e308)],
        [(0, 9e299), (1, -9e299)],
        [(0, 5e-324), (1, 0.0)],
        [(2**62, 1.0), (-(2**62), 2.0)],
        [(0, math.inf), (1, 1.0), (2, 1.7e308)],
        [(0, 1e16), (1, 1e16 + 2)],
    ],
)
def test_a_curve_of_any_numbers_can_be_drawn(curve: list[tuple[float, float]]) -> None:
    found = Curves("m", {"a": curve}).svg()
    assert not {"nan", "inf"} & set(re.split(r"[^a-z]+", found))


def test_runs_are_found_by_filter_order_and_experiment(ledger: Ledger, make: Make) -> None:
    first, second = two(make)
    assert [run.id for run in find_runs(ledger)] == [second, first], "the newest first"
    assert [run.id for run in find_runs(ledger, "params.depth = '3'")] == [first]
    assert [run.id for run in find_runs(ledger, order_by=["metrics.auc ASC"], limit=1)] == [first]
    assert len(find_runs(ledger, experiments=["digits"])) == 2
    with pytest.raises(UnknownName, match="there is no experiment 'none'"):
        find_runs(ledger, experiments=["none"])
    with pytest.raises(DataError):
        find_runs(ledger, "metrics.auc >")


def test_a_run_is_named_by_its_id_its_beginning_or_its_name(ledger: Ledger, make: Make) -> None:
    first, _ = two(make)
    assert find_run(ledger, first) == find_run(ledger, first[:8]) == find_run(ledger, "one")
    with pytest.raises(UnknownName, match="no run is 'nobody'"):
        find_run(ledger, "nobody")
    make("one", params={}, metrics={})
    with pytest.raises(DataError, match="may be one of several"):
        find_run(ledger, "one")


def test_only_what_differs_is_set_side_by_side(ledger: Ledger, make: Make) -> None:
    found = find_runs(ledger, order_by=["attributes.start_time ASC"])
    assert len(found) == 0
    two(make)
    found = find_runs(ledger, order_by=["attributes.start_time ASC"])
    differ = {(row.section, row.name): row.values for row in found.compare().rows}
    assert differ == {("params", "depth"): ("3", "4"), ("metrics", "auc"): (0.7, 0.8), ("metrics", "extra"): (None, 1.0)}
    assert found.compare().code() == "--- one/train.py\n+++ other/train.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
    assert json.dumps(found.compare().plain())
    frame = found.compare().frame()
    assert list(frame.columns) == ["section", "name", "one", "other"]
    assert list(found.frame()["metrics.auc"]) == [0.7, 0.8]
    with pytest.raises(DataError, match="1 run cannot be compared"):
        found[:1].compare()


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.floats() | st.integers(0, 3), max_size=4), min_size=2, max_size=5))
def test_a_comparison_holds_what_differs_and_nothing_else(runs: list[dict[str, float]]) -> None:
    found = {row.name: row.values for row in comparison_rows([{"params": run} for run in runs])}
    for name in "abcd":
        values = [run.get(name) for run in runs]
        differs = len({"nan" if value != value else value for value in values}) > 1
        assert (name in found) == differs
        assert name not in found or list(map(repr, found[name])) == list(map(repr, values))


def test_a_diff_of_code_is_one_that_git_takes(tmp_path: Path) -> None:
    rng = random.Random(3)
    before = {"a.py": "".join(f"line {rng.randrange(30)}\n" for _ in range(60)), "gone.py": "x\n"}
    after = {"a.py": "".join(f"line {rng.randrange(30)}\n" for _ in range(60)), "new.py": "y\n"}
    for path, text in before.items():
        (tmp_path / path).write_text(text)
    subprocess.run(["git", "apply"], input=text_diff(before, after, ("a", "b")), cwd=tmp_path, text=True, check=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == after


# ── curves ──────────────────────────────────────────────────────────────────────────────────────────────────────


def curve_of(values: list[tuple[int, int, float]], points: int, small: int) -> list[tuple[int, int, float, int]]:
    """What `_sample` gives of values (step, timestamp, value) in a ledger of their own."""
    records = Records(None)
    ledger = Ledger(records, MemoryBlobs(), lambda: 0)
    tracking.prepare(ledger)
    run = create_run(ledger, "0").info.run_id
    for at in range(0, len(values), 1000):
        log_batch(ledger, run, [Metric("m", value, timestamp, step) for step, timestamp, value in values[at : at + 1000]], [], [])
    with records.snapshot() as sql:
        (number,), (name,) = sql.all("SELECT execution FROM run") + sql.all("SELECT id FROM metric_name")
        found = _sample(sql, number, name, None, None, points, small)
    records.close()
    return found


steps_and_values = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.nan, math.inf, -math.inf])),
    min_size=1,
    max_size=120,
)


@settings(max_examples=60, deadline=None)
@given(values=steps_and_values, points=st.integers(4, 60))
def test_a_down_sampled_curve_keeps_its_ends_and_extremes_and_makes_nothing_up(values: list[tuple[int, int, float]], points: int) -> None:
    for small in (0, 10_000):
        found = curve_of(values, points, small)
        logged = {(step, at, 0.0 if math.isnan(value) else value, int(math.isnan(value))) for step, at, value in values}
        assert set(found) <= logged
        assert found == sorted(found)
        assert len(found) <= max(points, 0) or len(logged) <= points
        numbers = [row[2] for row in logged if not row[3]]
        if numbers and len(found) < points:
            shown = [row[2] for row in found if not row[3]]
            assert (min(shown), max(shown)) == (min(numbers), max(numbers))


def test_every_stretch_of_a_long_curve_keeps_its_extremes_whoever_looks_through_it() -> None:
    rng = random.Random(5)
    values = [(i, i // 7, math.sin(i / 500) + rng.random()) for i in range(8000)]
    here, there = (curve_of(values, 200, small) for small in (10_000, 0))
    assert here == there
    assert len(here) <= 200
    kept, size = {row[2] for row in here}, -(-8000 // 99)
    for at in range(0, 8000, size):
        stretch = [value for _, _, value in values[at : at + size]]
        assert {min(stretch), max(stretch)} <= kept


def test_a_plot_stands_alone_and_escapes_what_people_wrote(ledger: Ledger, make: Make, tmp_path: Path) -> None:
    make("<script>alert(1)</script>", params={"a": "<i>"}, metrics={"loss": [1.0, math.nan, 0.5]})
    make("b", params={"a": "2"}, metrics={"loss": [1.0, 0.7, 0.4]})
    page = find_runs(ledger).compare().html()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;i&gt;" in page
    assert page.count("<path d=") >= 2
    assert "http" not in page.replace("http-equiv", "")
    path = find_runs(ledger).plot("loss").save(tmp_path / "loss.html")
    assert path.read_text().startswith("<!doctype html>")
    with pytest.raises(StoreError, match="cannot be written"):
        find_runs(ledger).plot("loss").save(tmp_path / "none" / "loss.html")
    with pytest.raises(UnknownName, match="no run has a metric 'none'"):
        find_runs(ledger).plot("none")


def test_a_plot_is_a_figure_too() -> None:
    figure = Curves("loss", {"a": [(0, 1.0), (1, 0.5)], "b": [(0, 2.0)]}).figure()
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[1.0, 0.5], [2.0]]


@pytest.mark.parametrize("values", [[], [(0, math.nan)], [(5, 1.0)], [(0, 1e300), (1, -1e300)], [(0, 3.0), (1, 3.0)]])
def test_every_curve_can_be_drawn(values: list[tuple[int, float]]) -> None:
    assert Curves("m", {"a": values})._repr_html_()


def test_runs_are_shown_in_a_notebook(ledger: Ledger, make: Make) -> None:
    two(make)
    found = find_runs(ledger)
    assert "params.depth" in found._repr_html_()
    assert "0.8" in found[0]._repr_html_()
    assert isinstance(found[:1], Runs)


def test_runs_are_found_by_the_data_that_they_read_and_the_models_that_they_made_or_read(ledger: Ledger, make: Make) -> None:
    first, second = two(make)
    experiment = find_run(ledger, first).root.split("/")[0]
    model = create_model(ledger, experiment, name="trees", run_id=first).info.model_id
    log_inputs(ledger, second, [DatasetInput(Dataset("flights", "d1", "local", "x"))], [ModelRef(model)])

    def found(text: str) -> set[str]:
        return {run.id for run in find_runs(ledger, text)}

    assert found("models.name = 'trees'") == {first, second}
    assert found(f"models.model_id = '{model}'") == {first, second}
    assert found("models.name LIKE 'tr%' and metrics.auc > 0.75") == {second}
    assert found("models.name != 'trees'") == found("models.name = 'other'") == set()
    assert found("datasets.digest = 'd1'") == {second}
    with pytest.raises(DataError, match="Invalid model attribute key 'size'"):
        found("models.size = 'x'")


def test_a_long_curve_of_one_step_keeps_its_last_value() -> None:
    values = [(0, i // 300, math.sin(i)) for i in range(6000)]
    found = curve_of(values, 100, 0)
    assert 90 <= len(found) <= 100
    assert max(row[1] for row in found) == values[-1][1]
    assert found == curve_of(values, 100, 10_000)
