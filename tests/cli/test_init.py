"""`tidemill init`: from somebody's CSV file to a project that trains, serves and can be edited; bad files are refused with a reason."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tidemill.cli import tidemill
from tidemill.cli.guess import guess_key, guess_known, guess_pair
from tidemill.cli.table import opened
from tidemill.core import DataError, DefinitionError, MissingFile, Refused, TidemillError, duration
from tidemill.project import load
from tidemill.session import Session
from tidemill.session import open as open_project
from tidemill.training import Task

START = datetime(2024, 1, 1, tzinfo=UTC)
ROWS = 900
RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=ROWS)
Y = (RANDOM.random(ROWS) < 1 / (1 + np.exp(-2.5 * X))).astype(int)
TIMES = [(START + timedelta(hours=3 * i)).replace(tzinfo=None).isoformat(sep=" ") for i in range(ROWS)]
CITY = [("Ulm", "Köln", "Bonn")[i % 3] for i in range(ROWS)]
PLAIN = {"id": list(range(ROWS)), "at": TIMES, "x": X.tolist(), "city": CITY, "y": Y.tolist()}


def write(folder: Path, columns: dict[str, Sequence[Any]], name: str = "data.csv", delimiter: str = ",") -> Path:
    path = folder / name
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, delimiter=delimiter)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    return path


def run(folder: Path, *arguments: str) -> str:
    """What a command prints; raises its error."""
    result = CliRunner(catch_exceptions=False).invoke(tidemill, ["-C", str(folder), *arguments], standalone_mode=False)
    return str(result.stdout)


def init(data: Path, *options: str) -> dict[str, Any]:
    return dict(json.loads(run(data.parent, "init", str(data), "--into", str(data.parent / "project"), "--yes", "--json", *options)))


def test_a_file_becomes_a_project_that_answers(tmp_path: Path) -> None:
    told = init(write(tmp_path, PLAIN), "--label-known", "2d")
    assert told["champion"] == "boosted/1"
    assert told["answers"] == {"label": "y", "time": "at", "label_known": "2d", "key": ["id"]}
    assert any("no zone and are taken as UTC" in note for note in told["notes"])
    assert any("requests may state their own time (serve.client_time = true" in note for note in told["notes"])
    session = Session(tmp_path / "project")
    answer = session.deployments["y"].predict({"id": "899"}, at="2024-04-22T09:00Z")
    assert answer["rung"] == "champion"
    assert told["curl"].startswith('curl -s http://127.0.0.1:8642/predict/y -d \'{"rows": [{"id": "899"}]')
    session.close()


def test_rows_without_a_time_are_left_out_of_requests_and_labels(tmp_path: Path) -> None:
    told = init(write(tmp_path, PLAIN | {"at": ["" if i % 3 == 0 else at for i, at in enumerate(TIMES)]}), "--label-known", "2d")
    assert "300 rows without a time are left out" in told["notes"]
    assert told["champion"] == "boosted/1"


def test_a_guessed_delay_of_the_label_is_called_an_assumption(tmp_path: Path) -> None:
    told = init(write(tmp_path, PLAIN))
    assert any(note.startswith("known 1d after the request is an assumption") for note in told["notes"])
    assert not any("sticky_by" in path.read_text() for path in (tmp_path / "project").glob("*.py"))  # three cities: too few to split by


def test_stopped_halfway_it_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path, PLAIN)

    def stop(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tidemill.loop.prepare", stop)
    result = CliRunner().invoke(tidemill, ["init", str(data), "--into", str(tmp_path / "p"), "--yes", "--label-known", "2d"])
    monkeypatch.undo()
    assert (result.exit_code, "; tidemill run" in result.stderr) == (130, True)
    assert "serves deployment y" in run(tmp_path / "p", "run")


def test_change_one_line_and_be_told(tmp_path: Path) -> None:
    told = init(write(tmp_path, PLAIN), "--label-known", "2d")
    path, line = told["edit"].rsplit(":", 1)
    lines = Path(path).read_text().splitlines()
    assert lines[int(line) - 1].strip() == told["edit_line"] == 'windows=["6h", "1d", "7d"],'
    lines[int(line) - 1] = '    windows=["3d"],'
    Path(path).write_text("\n".join(lines) + "\n")
    (again,) = json.loads(run(tmp_path / "project", "run", "--json"))["deployments"]
    cached = {step["step"]: step["cached"] for step in again["steps"]}
    assert cached == {"dataset requests": True, "dataset labels": True, "requests": True, "view city_history": False, "examples": False}
    assert next("windows" in step["why"] for step in again["steps"] if step["step"] == "view city_history")
    assert "windows" in again["changed"]


def test_no_feature_rests_on_a_label_that_was_not_known(tmp_path: Path) -> None:
    """Turn the labels that are known only after a time: features of requests before it stay as they are."""
    init(write(tmp_path, PLAIN), "--label-known", "2d")
    frames = []
    for labels in (PLAIN["y"], [1 - y if i > 600 else y for i, y in enumerate(PLAIN["y"])]):
        write(tmp_path, PLAIN | {"y": labels})
        frames.append(open_project(tmp_path / "project").training_set("y", until="2025-01-01"))
    known = frames[0].at < np.datetime64(TIMES[600]).astype("datetime64[us]").astype(np.int64) + duration("2d")
    assert known.sum() > 600
    np.testing.assert_array_equal(frames[0].X[known], frames[1].X[known])
    assert not np.array_equal(frames[0].X, frames[1].X, equal_nan=True)


def test_odd_names_texts_and_zones(tmp_path: Path) -> None:
    """Spaces, quotes, words of SQL, other letters; German dates; no key; labels that stay empty; a leak; semicolons; NA for null."""
    odd = {
        "Datum der Anfrage": [(START + timedelta(hours=3 * i)).strftime("%d.%m.%Y %H:%M") for i in range(ROWS)],
        'a "b"': [f"{x:.3f}" if i % 9 else "NA" for i, x in enumerate(X)],
        "select": CITY,
        "客户": [i % 7 for i in range(ROWS)],
        "storniert am": ["01.02.2024" if y else "" for y in Y],
        "gekauft?": [("ja" if y else "nein") if i % 11 else "" for i, y in enumerate(Y)],
        "bezahlt": [(START + timedelta(hours=3 * i + 20)).strftime("%Y-%m-%d %H:%M:%S") for i in range(ROWS)],
    }
    told = init(
        write(tmp_path, odd, "Käufe & mehr.csv", ";"), "--timezone", "Europe/Berlin", "--label-known", "bezahlt", "--label", "gekauft?"
    )
    assert told["champion"] == "boosted/1"
    assert told["answers"]["key"] == []
    notes = " ".join(told["notes"])
    assert "taken as Europe/Berlin" in notes
    assert "rows are numbered" in notes
    assert "an older row that the file gains later moves the numbers after it" in notes
    assert "moves the numbers after it" in (tmp_path / "project" / "requests.sql").read_text()
    assert "storniert am: alone it tells the label" in notes
    task = load(tmp_path / "project").only(Task)
    assert task.label.none_after
    assert set(task.request_views[0].columns) == {"a_b", "select", "客户", "weekday", "hour"}


def test_the_label_may_be_an_expression(tmp_path: Path) -> None:
    path = write(tmp_path, {**PLAIN, "amount": (X * 10 + RANDOM.normal(size=ROWS) * 9).tolist()})
    told = init(path, "--label", "amount > 3", "--label-known", "1d")
    assert told["champion"] == "boosted/1"
    assert "left out: amount" not in told["notes"], "what makes the label is no news"
    assert "amount" not in load(tmp_path / "project").only(Task).request_views[0].columns


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        (None, MissingFile, "there is no file"),
        (b"", DataError, "is empty"),
        (b"a,b,c\n", DataError, "has column names and no rows"),
        (b"1,2024-01-01,3\n2,2024-01-02,4\n", DataError, "no line of column names"),
        (bytes(range(256)), DataError, "not a CSV file"),
        ("a,b,c\n1,ö,2\n".encode("latin-1"), DataError, "not text in UTF-8"),
        (b"hello\nworld\n", DataError, "not a table"),
        (b"PK\x03\x04zip", DataError, "not a CSV file"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: bytes | None, kind: type[TidemillError], what: str) -> None:
    if text is not None:
        (tmp_path / "data.csv").write_bytes(text)
    with pytest.raises(kind, match=what):
        init(tmp_path / "data.csv")
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize(
    ("changes", "options", "what"),
    [
        ({"at": ["soon"] * ROWS}, [], "no column looks like the answer to --time"),
        ({"y": [1] * ROWS}, ["--label", "y"], "the label 'y' is always '1'"),
        ({"y": [0] * ROWS}, ["--label", "y"], "the label 'y' is always '0'"),
        ({"y": [""] * ROWS}, ["--label", "y"], "always null"),
        ({"y": [int(i < 3) for i in range(ROWS)]}, [], "too few rows to learn from: 3 rows are true"),
        ({}, ["--label", "x"], r"900 different values; tasks with two \(binary\) are supported"),
        ({}, ["--label", "city"], "--label"),
        ({}, ["--label", "x >"], "neither a column nor an SQL expression"),
        ({}, ["--label", "sum(x) > 1"], "neither a column nor an SQL expression"),
        ({}, ["--label", "x > 'a'"], "the label \"x > 'a'\" cannot be computed: 'a' is no number"),
        ({}, ["--label", "CAST(city AS INT) > 1"], "cannot be computed: 'Ulm' in column 'city' is no whole number"),
        ({}, ["--label", "x + 1"], "not true or false"),
        ({}, ["--time", "x"], "holds no times: it was read as DOUBLE"),
        ({}, ["--time", "nope"], "there is no column 'nope'"),
        ({}, ["--label-known", "soon"], "neither a column nor a duration"),
        ({}, ["--label-known", "0d"], "cannot be known when it is asked"),
        ({}, ["--label-known", "at"], "at or before the time of their request"),
        ({}, ["--label-known", "111d"], "too little to learn from"),
        ({}, ["--label-known", "90000d"], "known only after now"),
        ({"done": [t if y else "" for t, y in zip(TIMES[1:] + TIMES[-1:], Y, strict=True)]}, ["--label-known", "done"], "0 false labels"),
        ({}, ["--key", "city"], "city is no key"),
        ({}, ["--timezone", "Mars"], "is not a time zone"),
        ({"at": [*TIMES[:-1], "soon"]}, ["--time", "at"], "line 901 of data.csv has 'soon' in column 'at': no time, as 899 others are"),
    ],
)
def test_answers_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, Any], options: list[str], what: str) -> None:
    with pytest.raises(TidemillError) as error:
        init(write(tmp_path, PLAIN | changes), *options)
    assert what.replace(r"\(", "(").replace(r"\)", ")") in str(error.value)
    assert not (tmp_path / "project").exists()


def test_a_text_among_numbers_is_noted_with_its_line(tmp_path: Path) -> None:
    sizes = ["7"] * 300 + ["a lot"] + ["8"] * (ROWS - 301)
    x, when = [str(one) for one in X], ["2024-01-01"] * ROWS
    x[5], x[9], x[10], x[11], when[70] = "12x", "n/a?", "12x", "NA", "soon"
    temp = [f"err {i}!" if i < 14 else str(20 + i % 200 / 10) for i in range(ROWS)]  # comes again and again, and is no name of anything
    data = write(tmp_path, PLAIN | {"size": sizes, "more": x, "when": when, "temp": temp})
    told = init(data, "--label", "y", "--label-known", "1d")
    found = {note.removeprefix("left out: ").split(maxsplit=1)[0]: note for note in told["notes"]}
    what = "1 of 900 values are no number: 'a lot' in line 302; correct it; where it stands for nothing, say --null 'a lot'"
    assert found["size"] == f"size is read as text: {what}"
    what = "3 of 899 values are no number, the first: '12x' in line 7; correct them; where they stand for nothing, say --null 12x --null"
    assert found["more:"] == f"left out: more: it is text: {what} 'n/a?'"
    assert "'soon' in line 72" in found["when"]
    assert found["temp:"].startswith("left out: temp: it is text: 14 of 900 values are no number, the first: 'err 0!' in line 2;")
    assert found["temp:"].endswith("--null 'err 10!' --null 'err 11!', and so for 2 more")
    assert found["temp:"].count("--null") == 12
    assert found["read"] == "read as null: NA"
    assert [view.name for view in load(tmp_path / "project").only(Task).feature_views] == ["city_history"]
    with opened(write(tmp_path, {"at": TIMES, "x": ["12x", *map(str, X[1:])], "y": Y.tolist()})) as table:
        assert guess_key(table, {"at", "y"}) == "", "numbers but for one are no key"


def test_what_stands_for_nothing_can_be_said(tmp_path: Path) -> None:
    x = [f"{one:.3f}" if i % 9 else "12x" for i, one in enumerate(X)]
    told = init(write(tmp_path, PLAIN | {"x": x}), "--label-known", "1d", "--null", "12x")
    assert "read as null: 12x" in told["notes"]
    assert "x" in load(tmp_path / "project").only(Task).request_views[0].columns


def test_a_guess_prefers_what_is_known_with_the_label_and_names_a_key_of_two(tmp_path: Path) -> None:
    """A date that was agreed on is there before the label is; two columns together are a key; spaces alone are nothing."""
    due = [(START + timedelta(hours=3 * i, days=4)).strftime("%Y-%m-%d %H:%M:%S") for i in range(ROWS)]
    done = [(START + timedelta(hours=3 * i, days=i % 3 + 1)).strftime("%Y-%m-%d %H:%M:%S") if i < 890 else "" for i in range(ROWS)]
    pairs = {"at": [TIMES[i // 3] for i in range(ROWS)], "x": [f"{one:.3f}" if i % 90 else " " for i, one in enumerate(X)]}
    data = write(tmp_path, {"city": CITY, "due": due, "done": done} | pairs | {"y": [y if i < 890 else "" for i, y in enumerate(Y)]})
    with opened(data) as table:
        assert guess_known(table, table.need("at", "the time"), "(y = 1)", "UTC")[0] == "done"
        assert guess_pair(table, "at", set()) == ("city", "at")
        assert table.null_values == (" ",)


def test_a_part_of_a_key_has_a_history(tmp_path: Path) -> None:
    init(write(tmp_path, {name: PLAIN[name] for name in ("at", "x", "city", "y")}), "--label-known", "2d", "--key", "city", "--key", "at")
    assert [view.name for view in load(tmp_path / "project").only(Task).feature_views] == ["city_history"]


def test_numbers_with_commas_are_numbers(tmp_path: Path) -> None:
    """As a European office exports them; 1.234,5 is a number like 12. What they mean is said."""
    german = [f"{2000 + 900 * one:,.2f}".translate(str.maketrans(",.", ".,")) if i % 50 else "-" for i, one in enumerate(X)]
    changed = PLAIN | {"x": german, "thousands": [f"{i * 7:,}.5" for i in range(ROWS)], "either": [f"{i + 1},250" for i in range(ROWS)]}
    told = init(write(tmp_path, changed, delimiter=";"), "--label", "x > 2000", "--label-known", "1d")
    assert told["champion"] == "boosted/1"
    notes = [note for note in told["notes"] if "comma" in note]
    first = next(text for text in german if "," in text)
    assert notes == [
        f"x holds numbers with decimal comma, such as {first}, and is read so",
        "thousands holds numbers with commas between thousands, such as 1,001.5, and is read so",
        "either holds numbers with decimal comma, such as 1,250, and is read so",
    ]
    found = open_project(tmp_path / "project").training_set("data", until="2025-01-01")
    frame = found.frame()
    assert frame["request__either"].tolist()[:3] == [2.25, 3.25, 4.25]
    assert 1001.5 in frame["request__thousands"].tolist()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    data, folder = write(tmp_path, PLAIN), tmp_path / "project"
    folder.mkdir()
    (folder / "mine.py").write_text("raise SystemExit('run by mistake')\n")
    with pytest.raises(DefinitionError, match="a part of one") as error:
        init(data)
    assert error.value.available == ["mine.py"]
    assert [path.name for path in folder.iterdir()] == ["mine.py"]


def test_a_label_that_follows_from_nothing_is_refused_and_the_files_stay(tmp_path: Path) -> None:
    noise = PLAIN | {"y": (np.random.default_rng(0).random(ROWS) < 0.3).astype(int).tolist()}
    with pytest.raises(Refused, match="does not pass its gates") as error:
        init(write(tmp_path, noise))
    assert "the files stay" in error.value.hint
    assert load(tmp_path / "project").only(Task)


def test_without_a_terminal_nothing_waits(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tidemill.cli import main; main()", "init", str(write(tmp_path, PLAIN)), "--label", "y"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert done.returncode == 2
    assert "no terminal to ask at" in done.stderr
    assert "--time at --label-known" in done.stderr
    assert not (tmp_path / "data").exists()


def test_at_a_terminal_it_asks_again_after_a_wrong_answer(tmp_path: Path) -> None:
    master, slave = os.openpty()
    command = [sys.executable, "-c", "from tidemill.cli import main; main()", "init", str(write(tmp_path, PLAIN)), "--json"]
    with subprocess.Popen(command, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        os.write(master, b"x\ny\n\n2d\nnone\n")  # a wrong label, the label, the guessed time, a duration, no key
        out, err = process.communicate(timeout=120)
    os.close(master)
    os.close(slave)
    assert process.returncode == 0, err
    assert "900 different values" in err
    assert json.loads(out)["answers"] == {"label": "y", "time": "at", "label_known": "2d", "key": []}
