"""What the online store holds of one entity: words of eight bytes, from which every read since a time is answered.

Each begins with that time: all that was known by then is in it. Of events that came later, or are still to happen, it has the rows
themselves. `latest.py` has the form for views of the newest row, `tiles.py` that for windows.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from tidemill.core import SECOND, Array, Damaged, Floats, Ints, place_of
from tidemill.features.declarations import FeatureView

NEVER = -(2**62)  # before all times
UNDER_WAY = 2 * SECOND  # for so long a question may take: states can be read at times so much before the newest row
SEQ, EVENT, KNOWN, FIRST = 0, 1, 2, 3  # words of a row: where it stands in what was pushed, its times; and then its columns
Words = Mapping[str, Sequence[str]]  # the categories of a feature, by its name: a column of it has their numbers
Row = tuple[int, ...]
Value = float | str | None  # of a feature: a text where it is a category, None where there is nothing


@dataclass(frozen=True)
class Layout:
    """The columns of a view's rows: one for each expression, however many features are of it."""

    view: FeatureView

    @cached_property
    def columns(self) -> list[str]:
        """The kept columns that are stored."""
        return list({self._key(name): name for name in reversed(self.view.kept)}.values())[::-1]

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each kept column stands among them."""
        stored = [self._key(name) for name in self.columns]
        return {name: stored.index(self._key(name)) for name in self.view.kept}

    @cached_property
    def width(self) -> int:
        """How many words a row has."""
        return FIRST + len(self.columns)

    @cached_property
    def coded(self) -> dict[str, str]:
        """The features of categories, by the stored column."""
        return {name: name[2:] for name in self.columns if self.view.columns[name[2:]].category}

    def _key(self, name: str) -> tuple[str, ...]:
        return (*self.view.kept[name], str(self.view.columns[name[2:]].category))

    def table(self, event: Ints, known: Ints, columns: Sequence[Array]) -> Ints:
        """Rows (n, width) of what was not pushed."""
        table = np.zeros((len(event), self.width), dtype="<i8")
        table[:, EVENT], table[:, KNOWN] = event, known
        for i, column in enumerate(columns):
            table[:, FIRST + i] = column.view(np.int64)
        return table


def not_a_state() -> Damaged:
    """The error for bytes that no writer of states gives."""
    return Damaged("the online store is damaged: a state is not what was written", hint="start `tidemill up`, which makes it anew")


def settled(rows: Sequence[Row], since: int, most: int) -> int:
    """The time, not before `since`, up to which rows are folded: a question that is under way is a moment older than what came meanwhile.
    What became known later than that is kept as it came, at most so many rows."""
    known = sorted(row[KNOWN] for row in rows)
    return max(since, known[-1] - UNDER_WAY, *known[-most - 1 : -most])


def numbers_of(own: Sequence[str], words: Sequence[str]) -> Floats:
    """The number of each word among others, which have all of them; NaN behind them.

    >>> numbers_of(["b", "a"], ["a", "b"])
    array([ 1.,  0., nan])
    """
    number = {word: i for i, word in enumerate(words)}
    return np.array([*(number[word] for word in own), np.nan])


def in_numbers(column: Floats, numbers: Floats) -> Floats:
    """A column of categories (n,) in other numbers: those of each of its own, and behind them NaN. Raises Damaged for one beyond them.

    >>> in_numbers(np.array([0.0, np.nan, 1.0]), np.array([7.0, 8.0, np.nan]))
    array([ 7., nan,  8.])
    """
    if (column >= len(numbers) - 1).any():  # NaN is not
        raise not_a_state()
    return numbers[np.where(np.isnan(column), -1, column).astype(np.int64)]


@dataclass(frozen=True)
class Among:
    """Words, told by their numbers among others, which are sorted: each is sought when it is first asked for.

    >>> among = Among(["b", "never", "new"], ("a", "b"))
    >>> among([2.0, None, 0.0]), among([0.0, 0.0])
    (([2, None, 1], ('a', 'b', 'new')), ([1, 1], ('a', 'b')))
    """

    own: Sequence[str]
    others: tuple[str, ...]
    _known: dict[Value, Value] = field(default_factory=lambda: {None: None})

    def __call__(self, column: Sequence[Value]) -> tuple[list[Value], tuple[str, ...]]:
        """A column of categories in the numbers of the others, and these, with what they lack of it behind them; NaN and None stay. Raises
        Damaged for a number that no word has."""
        known = self._known
        with suppress(KeyError):
            return [known[code] for code in column], self.others
        found, more = list[Value](), dict[str, int]()
        for code in column:
            if code not in known and code == code:  # NaN: not itself
                try:
                    word = self.own[int(code)]  # type: ignore[arg-type]  # None is known
                except IndexError as error:
                    raise not_a_state() from error
                place = place_of(self.others, word)
                if place < 0:
                    found.append(more.setdefault(word, len(self.others) + len(more)))
                    continue
                known[code] = place
            found.append(known.get(code, code))
        return found, (*self.others, *more) if more else self.others


def sliced(words: Ints, counts: Ints) -> list[bytes]:
    """One run of words as bytes for each of its stretches."""
    data, edges = words.tobytes(), [0, *(np.cumsum(counts) * 8).tolist()]
    return [data[start:end] for start, end in pairwise(edges)]
