"""Hard cases: which answers of the log they are, and in what order."""

from pathlib import Path
from typing import Any

import pytest

from serving.conftest import TODAY
from tidemill.core import HOUR, canonical
from tidemill.serving import Wanted, feedback_of, find_cases
from tidemill.serving.ids import new_ids

ODD = {"booking__weight": "-3, below 0: clipped"}
ANSWERS: list[tuple[float, str, dict[str, str], int | None]] = [
    (0.50, "champion", {}, None),
    (0.95, "champion", {}, 0),
    (0.30, "constant", {}, 1),
    (0.56, "champion", ODD, 1),
    (0.01, "champion", {}, 0),
]

DAMAGED = [
    b'{"asked":1,"rung":"champion","probability":0.5}',
    b"{}",
    b"[1]",
    b"\0\xff",
    b'{"asked":1795360277944950,"id":"660def6fffaa8-d28d',
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Answers an hour apart, and what was said of some."""
    path, lines, said = tmp_path / "late.jsonl", list[bytes](), list[bytes]()
    for place, (probability, rung, odd, label) in enumerate(ANSWERS):
        asked = TODAY + place * HOUR
        (name,) = new_ids(asked, 1)
        known = {
            "id": name,
            "key": f"k{place}",
            "version": "" if rung == "constant" else "trees/1",
            "rung": rung,
            "probability": probability,
        }
        kept: dict[str, Any] = {"inputs": {"booking__weight": 1.0}, "sent": {"depot": "N"}} if place == 3 else {}
        lines.append(canonical({**known, **kept, "asked": asked, "at_us": asked} | ({"unexpected": odd} if odd else {})))
        if label is not None:
            more = {"predicted_at": "", "labelled_at": "", "branch": "b", "comment": ""}
            said += [canonical({**known, **more, "label": one}) for one in (1 - label, label)]
    feedback_of(path).parent.mkdir()
    path.write_bytes(b"\n".join([*lines, *DAMAGED, b""]))
    feedback_of(path).write_bytes(b"\n".join([*said, b""]))
    return path


CASES: list[tuple[Wanted, list[tuple[str, str]]]] = [
    (Wanted(), [("k4", ""), ("k3", ""), ("k2", ""), ("k1", ""), ("k0", "")]),
    (Wanted(unsure=0.1), [("k0", "unsure"), ("k3", "unsure")]),
    (Wanted(wrong=True), [("k1", "wrong"), ("k2", "wrong")]),
    (Wanted(wrong=True, threshold=0.6), [("k1", "wrong"), ("k2", "wrong"), ("k3", "wrong")]),
    (Wanted(unexpected=True), [("k3", "booking__weight -3, below 0: clipped")]),
    (Wanted(unsure=0.0, wrong=True), [("k1", "wrong"), ("k2", "wrong"), ("k0", "unsure")]),
    (Wanted(rung="constant"), [("k2", "")]),
    (Wanted(unsure=1.0, rung="constant"), []),
]


@pytest.mark.parametrize(("wanted", "found"), CASES)
def test_the_hardest_come_first_and_say_why(log: Path, wanted: Wanted, found: list[tuple[str, str]]) -> None:
    assert [(one["key"], one["why"]) for one in find_cases(log, wanted)] == found


def test_a_case_has_its_label_and_what_is_kept_of_it(log: Path) -> None:
    *_, case = find_cases(log, Wanted(), TODAY + 3 * HOUR)
    assert (case["key"], case["label"], case["booking__weight"], case["sent.depot"]) == ("k3", 1, 1.0, "N")
