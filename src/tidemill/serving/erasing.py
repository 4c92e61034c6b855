"""What the logs hold of one entity: answers, feedback, copies for a shadow; counted, or deleted so that no byte of it stays.

All is compacted first, so a server that is answering writes to a new file meanwhile; what it answers from then on is new.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec

from tidemill.core import TidemillError, canonical
from tidemill.serving.appending import rewrite
from tidemill.serving.compaction import COMMAND, compact
from tidemill.serving.dataset import Log, answers_at, deployments_in
from tidemill.serving.feedback import feedback_of
from tidemill.serving.lines import FEEDBACK, Labelled
from tidemill.serving.withheld import digest_of
from tidemill.store import writer

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Told:
    """How lines of a deployment tell of an entity: by the `keys` of requests, or by columns of which what was sent has all of a set;
    `forms` are the texts of the entity's key, as columns of several types spell them, and `secret` is that of digests in the log."""

    keys: Collection[str]
    columns: Collection[tuple[str, ...]]
    forms: Collection[tuple[str, ...]]
    secret: bytes = b""

    def has(self, line: Line) -> bool:
        """Whether a line is of the entity."""
        sent = line.get("sent") or {}
        return line["key"] in self.keys or any(
            all(self._is(sent[name], part) for name, part in zip(names, parts, strict=True))
            for names in self.columns
            if set(names) <= sent.keys()
            for parts in self.forms
        )

    def _is(self, value: Any, part: str) -> bool:
        if isinstance(value, bool):
            return str(value).lower() == part
        return str(value) == part or (isinstance(value, str) and value in self._digests.get(part, ()))

    @cached_property
    def _digests(self) -> Mapping[str, set[str]]:
        """Each part as a withheld column shows it: as a text, and as a number."""
        if not self.secret:
            return {}
        return {part: {digest_of(value, self.secret) for value in _values(part)} for parts in self.forms for part in parts}


def _values(part: str) -> Iterator[Any]:
    yield part
    for kind in (int, float):
        try:
            yield kind(part)
        except ValueError:
            continue


@dataclass(frozen=True)
class Lines:
    """How many lines of a log are of an entity: `what` is answers, feedback or shadow."""

    deployment: str
    what: str
    rows: int


def lines_of(folder: Path, told: Mapping[str, Told]) -> list[Lines]:
    """What there is of an entity in the logs of a folder; `told` by deployment."""
    found = list[Lines]()
    for name in deployments_in(folder):
        ids, said = _ids(folder, name, told[name])
        shadow = sum(_is_of(line, told[name]) for line in _lines(folder / "shadow" / f"{name}.jsonl"))
        found += [Lines(name, "answers", len(ids)), Lines(name, "feedback", said), Lines(name, "shadow", shadow)]
    return [one for one in found if one.rows]


def erase_lines(folder: Path, told: Mapping[str, Told], *, wait: float = 0.0) -> None:
    """Delete what there is of an entity in the logs of a folder. Killed at any moment, the same call again goes on. Raises Busy,
    StoreError and Damaged."""
    compact(folder, wait=wait)
    with writer(folder / "compaction.lock", COMMAND, wait=wait):
        for name in deployments_in(folder):
            answers, of = answers_at(folder / f"{name}.jsonl"), told[name]
            said = Log(feedback_of(answers.live), folder, FEEDBACK)
            ids, _ = _ids(folder, name, of)
            for log in (said, answers):  # what was said is found by the answers
                log.table.erase(name, ids | {one.id for one in said.read(Labelled) if one.key in of.keys})
            rewrite(folder / "shadow" / f"{name}.jsonl", partial(_is_of, told=of))
            for path in (*folder.glob(f"damaged/{name}-*.txt"), *folder.glob(f"feedback/damaged/{name}-*.txt")):
                rewrite(path, partial(_may_be_of, told=of))


def _ids(folder: Path, name: str, told: Told) -> tuple[set[str], int]:
    """The ids of a deployment's answers that are of the entity, and of how many rows of feedback it is."""
    answers = answers_at(folder / f"{name}.jsonl")
    ids = {one.get("id", str(place)) for place, one in enumerate(answers.read(dict[str, Any])) if "key" in one and told.has(one)}
    said = Log(feedback_of(answers.live), folder, FEEDBACK).read(Labelled)
    return ids, sum(one.id in ids or one.key in told.keys for one in said)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return


def _is_of(line: bytes, told: Told) -> bool:
    try:
        return told.has(msgspec.json.decode(line, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TidemillError):
        return _may_be_of(line, told)


def _may_be_of(line: bytes, told: Told) -> bool:
    """Whether a damaged line holds a text of the entity."""
    texts = {*told.keys, *(parts[0] for parts in told.forms if len(parts) == 1)}
    return any(canonical(text) in line for text in texts)
