"""What the log keeps, as declared: a share of the features, and columns left out or replaced by a keyed digest."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

import tidemill as tm
from serving.test_app import client_of
from tidemill.core import DefinitionError
from tidemill.serving import read_log, sample_answers
from tidemill.serving.withheld import Withheld
from toy import DECLARATIONS

OWN = {"parcel": "new", "depot": "N", "courier": "a", "grade": "x", "weight": 2.5, "sent": "2024-04-29T01:00:00Z"}
OWN |= {"booked": "2024-04-28T00:00:00Z"}
AT = "2024-04-29T00:00:00Z"


def asked(folder: Path, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of the log after these rows were asked."""
    answer = client_of(folder).post("/predict/late", content=json.dumps({"rows": rows, "at": AT}))
    assert answer.status_code == 200, answer.json()
    return [*read_log(folder / ".tidemill" / "log" / "late.jsonl")][-len(rows) :]


def test_columns_are_left_out_or_replaced_and_the_line_says_so(copied: Path) -> None:
    text = DECLARATIONS.replace('tm.Deployment("late", trees,', 'tm.Deployment("late", trees, log=LOG, expect=EXPECT,')
    log = 'tm.PredictionLog(omit=["courier", "booking__weight"], hash=["depot", "booking__grade"])'
    text = text.replace("serve = ", f"LOG = {log}\nserve = ")
    text = text.replace("serve = ", 'EXPECT = [tm.Expect("booking__weight", low=3, high=9)]\nserve = ')
    (copied / "parcels.py").write_text(text)
    one, two, key = asked(copied, OWN, OWN | {"parcel": "other", "depot": "S", "weight": 7.0}, {"parcel": "p118-003"})
    assert one["withheld"] == {"inputs": ["booking__grade", "booking__weight"], "sent": ["courier", "depot"]}
    assert key["withheld"] == {"inputs": ["booking__grade", "booking__weight"]}
    assert ("courier" in one["sent"], "booking__weight" in one["inputs"], one["sent"]["weight"]) == (False, False, 2.5)
    assert one["sent"]["depot"].startswith("#")
    assert one["sent"]["depot"] != two["sent"]["depot"]
    assert one["inputs"]["booking__grade"] == two["inputs"]["booking__grade"], "equal values stay equal, also of another row"
    assert (one["unexpected"], "unexpected" in two) == ({"booking__weight": "withheld: counted"}, False)
    (again,) = asked(copied, OWN)  # of another server
    assert again["sent"]["depot"] == one["sent"]["depot"]
    secret = copied / ".tidemill" / "log" / "key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_features_are_kept_of_the_declared_share(copied: Path) -> None:
    text = DECLARATIONS.replace('tm.Deployment("late", trees,', 'tm.Deployment("late", trees, log=tm.PredictionLog(features=0.0),')
    (copied / "parcels.py").write_text(text)
    (line,) = asked(copied, OWN)
    assert {"inputs", "sent", "withheld"} & set(line) == set()
    sample = sample_answers(copied / ".tidemill" / "log" / "late.jsonl", line["branch"], 0, 2**62, 10)
    assert (sample.answers, sample.kept) == (1, 0)


@pytest.mark.parametrize(("name", "what"), [("parcel", "cannot be without the key"), ("weigth", "neither a column of the request")])
def test_a_name_that_is_none_is_refused_when_the_server_starts(copied: Path, name: str, what: str) -> None:
    text = DECLARATIONS.replace('tm.Deployment("late", trees,', f'tm.Deployment("late", trees, log=tm.PredictionLog(omit=["{name}"]),')
    (copied / "parcels.py").write_text(text)
    with pytest.raises(DefinitionError, match=what):
        client_of(copied)


@pytest.mark.parametrize("odd", [{"features": 1.5}, {"omit": "courier"}, {"hash": [3]}, {"omit": ["a"], "hash": ["a"]}])
def test_an_odd_declaration_is_a_problem(odd: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        tm.PredictionLog(**odd)


def test_nobody_without_the_key_can_try_values() -> None:
    line = {"sent": {"depot": "N"}}
    one, two = (Withheld((), ("depot",), key).of(line)["sent"]["depot"] for key in (b"a" * 32, b"b" * 32))
    assert one != two
