"""Hard cases of the log of answers: the unsure, the wrong, and those with something out of its range, to be labelled and learnt from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tidemill.core import show
from tidemill.serving.dataset import answers_at
from tidemill.serving.feedback import last_feedback
from tidemill.serving.lines import Labelled

COLUMNS = ("id", "asked", "key", "predicted_at", "version", "rung", "probability", "why", "label", "comment")


class Answered(msgspec.Struct):
    """What a line of the log must have to be one of them."""

    id: str
    asked: int
    at_us: int
    key: str
    version: str
    rung: str
    probability: float
    unexpected: dict[str, str] | None = None
    inputs: dict[str, float | str | None] | None = None
    sent: dict[str, Any] | None = None


@dataclass(frozen=True)
class Wanted:
    """Which answers: those within `unsure` of the threshold, those whose label says otherwise (`wrong`), those where something was not as
    expected (`unexpected`); any of what is asked for, all where nothing is. Only those of a `rung`, if one is named."""

    unsure: float | None = None
    wrong: bool = False
    unexpected: bool = False
    rung: str = ""
    threshold: float = 0.5

    @property
    def everything(self) -> bool:
        return self.unsure is None and not self.wrong and not self.unexpected

    def why(self, line: Answered, label: int | None) -> list[str] | None:
        """Why an answer is one of them, in words; None where it is not."""
        probability, found = line.probability, list[str]()
        if self.rung and line.rung != self.rung:
            return None
        if self.unsure is not None and line.version and abs(probability - self.threshold) <= self.unsure:  # no model is sure of a constant
            found.append("unsure")
        if self.wrong and label is not None and (probability >= self.threshold) != bool(label):
            found.append("wrong")
        if self.unexpected:
            found += [f"{name} {text}" for name, text in (line.unexpected or {}).items()]
        return found if found or self.everything else None

    def order(self, case: Mapping[str, Any]) -> tuple[float, ...]:
        """By what they are sorted: the most wrong first, then the least sure; all of them by time, the newest first."""
        probability, label = case["probability"], case["label"]
        if self.everything:
            return (-int(case["id"][:13], 16),)
        return (-abs(probability - label) if "wrong" in case["why"].split("; ") else 0.0, abs(probability - self.threshold))


def find_cases(answers: Path, wanted: Wanted, since: int = 0) -> list[dict[str, Any]]:
    """The answers of a log that are wanted, asked from a time on, hardest first: `COLUMNS`, and then what is kept of the features, and of
    the columns that were sent, as `sent.COLUMN`."""
    said = last_feedback(answers)
    return sorted(_cases(answers, wanted, since, said), key=wanted.order)


def _cases(answers: Path, wanted: Wanted, since: int, said: Mapping[str, Labelled]) -> Iterator[dict[str, Any]]:
    for line in answers_at(answers).read(Answered, since=since):
        one = said.get(line.id)
        why = wanted.why(line, one.label if one else None)
        if why is not None:
            told: dict[str, Any] = {name: getattr(line, name) for name in ("id", "key", "version", "rung", "probability")}
            told |= {"asked": show(line.asked), "predicted_at": show(line.at_us), "why": "; ".join(why)}
            told |= {"label": one.label if one else None, "comment": one.comment if one else ""}
            beside = {f"sent.{name}": value for name, value in (line.sent or {}).items()}
            yield {name: told[name] for name in COLUMNS} | (line.inputs or {}) | beside
