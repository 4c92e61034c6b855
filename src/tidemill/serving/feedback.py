"""What people say of predictions: labels and comments by the id of an answer, appended to a log of their own.

Each line says what it is about too: the request's key and time, the version and its probability. So the log is a dataset as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidemill.core import DataError, UnknownName, canonical, show
from tidemill.serving.appending import Lines
from tidemill.serving.dataset import Log, answers_at
from tidemill.serving.ids import asked_of
from tidemill.serving.lines import FEEDBACK, Labelled

EXAMPLE = 'for example {"id": "…", "label": 1, "comment": "…"}'
ONE_OF = "send the `id` of an answer, as /predict gives it; of a request with several rows each has its own"


class Feedback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said of the answer `id`: the `label`, 0 or 1, or a `comment`, or both."""

    id: str
    label: bool | int | float | None = None
    comment: str | None = None

    @property
    def says_nothing(self) -> bool:
        return self.label is None and not self.comment


class _Answer(msgspec.Struct):
    """What is kept of an answer."""

    id: str
    key: str
    at_us: int
    version: str
    rung: str
    probability: float
    branch: str

    def labelled(self, said: Feedback, now: int) -> Labelled:
        label = None if said.label is None else int(said.label)
        told = show(self.at_us), self.version, self.rung, self.probability, label, said.comment or "", show(now), self.branch
        return Labelled(self.id, self.key, *told)


class FeedbackLog(Lines):
    """The feedback on the answers of a log."""

    what = "the log of feedback"

    def __init__(self, answers: Path) -> None:
        super().__init__(feedback_of(answers))
        self.answers = answers

    def add(self, rows: Sequence[Feedback], now: int, *, by_hand: bool = False) -> int:
        """Append what is said, all of it or nothing, and return how many rows that were. `by_hand`: rows that say nothing are left out, and
        answers are looked for in the whole log, where the clock went back. Raises DataError for a wrong row, UnknownName for an answer
        that there is not, StoreError."""
        said = {place: one for place, one in enumerate(rows) if not (by_hand and one.says_nothing)}
        for place, one in said.items():
            _check(place, one)
        found = answers_at(self.answers).find({one.id for one in said.values()}, _Answer, thorough=by_hand)
        for place, one in said.items():
            if one.id not in found:
                raise UnknownName(f"rows[{place}]: {self.answers.stem!r} has no answer with the id {one.id!r}", hint=ONE_OF)
        if said:
            self.write([canonical(found[one.id].labelled(one, now)) for one in said.values()])
        return len(said)


def feedback_of(answers: Path) -> Path:
    """The log of feedback on a log of answers."""
    return answers.parent / "feedback" / answers.name


def read_feedback(answers: Path) -> Iterator[Labelled]:
    """All that was said of the answers of a log, the oldest first."""
    return Log(feedback_of(answers), answers.parent, FEEDBACK).read(Labelled)


def last_feedback(answers: Path) -> dict[str, Labelled]:
    """What counts of each answer, by its id: the last label, and the last comment."""
    found = dict[str, Labelled]()
    for one in read_feedback(answers):
        before = found.get(one.id)
        if before is not None and one.label is None:
            one = msgspec.structs.replace(one, label=before.label, labelled_at=before.labelled_at)
        if before is not None and not one.comment:
            one = msgspec.structs.replace(one, comment=before.comment)
        found[one.id] = one
    return found


def said_of(rows: Sequence[Any]) -> list[Feedback]:
    """Rows as a person has them: of each `id`, `label` and `comment`, NaN for nothing; other columns are not looked at. Raises
    DataError."""
    found = list[Feedback]()
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"rows[{place}] is {row!r:.100}, and no dict", hint=EXAMPLE)
        plain = {name: row[name] for name in Feedback.__struct_fields__ if name in row and row[name] == row[name]}
        try:
            found.append(msgspec.convert(plain, Feedback))
        except msgspec.ValidationError as error:
            raise DataError(f"rows[{place}]: {error}", hint=EXAMPLE) from None
    return found


def _check(place: int, said: Feedback) -> None:
    try:
        asked_of(said.id)
    except DataError as error:
        raise DataError(f"rows[{place}].id: {error.what}", hint=error.hint) from None
    if said.says_nothing:
        raise DataError(f"rows[{place}] has neither a label nor a comment", hint=EXAMPLE)
    if said.label not in (0, 1, None):
        raise DataError(
            f"rows[{place}].label is {said.label!r}, and not 0 or 1", hint="1 where what the model predicts came true, 0 where not"
        )
