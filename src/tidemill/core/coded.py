"""`Coded`: a column of text as whole numbers into a sorted vocabulary, so that it can be compared, sorted and stored as an array."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Codes = np.ndarray[Any, np.dtype[np.int32]]
_FIRST: Codes = np.zeros(1, dtype=np.int32)
_FIRST.flags.writeable = False


@dataclass(frozen=True)
class Coded:
    """`codes` (n,) int32 into `vocabulary`, −1 for null.

    >>> column = Coded.of(["b", None, "a"])
    >>> column.codes.tolist(), column.vocabulary
    ([1, -1, 0], ('a', 'b'))
    """

    codes: Codes
    vocabulary: tuple[str, ...]

    @classmethod
    def of(cls, values: Iterable[str | None]) -> "Coded":
        """Code texts against their own sorted vocabulary."""
        values = list(values)
        if len(values) == 1 and values[0] is not None:  # a request
            return cls(_FIRST, (values[0],))
        vocabulary = tuple(sorted(value for value in set(values) if value is not None))
        codes: dict[str | None, int] = {value: code for code, value in enumerate(vocabulary)}
        codes[None] = -1
        return cls(np.fromiter(map(codes.__getitem__, values), dtype=np.int32, count=len(values)), vocabulary)

    @classmethod
    def of_whole(cls, values: np.ndarray[Any, np.dtype[np.int64]], null: np.ndarray[Any, np.dtype[np.bool_]] | None = None) -> "Coded":
        """Code the texts of whole numbers (n,), of which only different ones are written out; `null` (n,): where there is none.

        >>> column = Coded.of_whole(np.array([9, 10, 0, 9]), np.array([False, False, True, False]))
        >>> column.codes.tolist(), column.vocabulary
        ([1, 0, -1, 1], ('10', '9'))
        """
        some = values if null is None else values[~null]
        low, span = (int(some.min()), int(some.max()) - int(some.min()) + 1) if len(some) else (0, 0)
        if span <= 4 * len(some):  # close to each other, as most keys: without a search
            there = np.zeros(span, dtype=bool)
            there[some - low] = True
            numbers, which = np.flatnonzero(there) + low, (np.cumsum(there) - 1)[some - low]
        else:
            numbers, which = np.unique(some, return_inverse=True)
        texts = list(map(str, numbers.tolist()))
        order = sorted(range(len(texts)), key=texts.__getitem__)
        code = np.empty(len(texts), dtype=np.int32)
        code[order] = np.arange(len(texts))
        codes = code[which]
        if null is not None:
            codes = np.full(len(values), -1, dtype=np.int32)
            codes[~null] = code[which]
        return cls(codes, tuple(map(texts.__getitem__, order)))

    def to(self, vocabulary: Sequence[str]) -> Codes:
        """The same column in codes of another (sorted) vocabulary; −1 for what that one lacks."""
        if vocabulary is self.vocabulary:
            return self.codes
        if len(self.codes) * 8 < max(len(self.vocabulary), len(vocabulary)):  # a few are searched for
            return np.array([place_of(vocabulary, text) for text in self.texts()], dtype=np.int32)
        table = np.append(find(vocabulary, self.vocabulary), np.int32(-1))
        return np.asarray(table[self.codes], dtype=np.int32)

    def texts(self) -> list[str | None]:
        """The column as text."""
        if self.codes is _FIRST:
            return [self.vocabulary[0]]
        return [self.vocabulary[code] if code >= 0 else None for code in self.codes.tolist()]

    def numbers(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The codes as numbers, NaN for null."""
        return np.where(self.codes >= 0, self.codes, np.nan)

    def take(self, rows: Any) -> "Coded":
        """Some rows, with the whole vocabulary."""
        return Coded(self.codes[rows], self.vocabulary)

    def __len__(self) -> int:
        return len(self.codes)


def place_of(vocabulary: Sequence[str], text: str | None) -> int:
    """The code of one value in a sorted vocabulary, −1 where it is null or unknown."""
    place = bisect_left(vocabulary, text) if text is not None else len(vocabulary)
    return place if place < len(vocabulary) and vocabulary[place] == text else -1


def find(vocabulary: Sequence[str], values: Iterable[str | None]) -> Codes:
    """The code of each value in a vocabulary, −1 where it is null or unknown."""
    codes: dict[str | None, int] = {value: code for code, value in enumerate(vocabulary)}
    return np.fromiter((codes.get(value, -1) for value in values), dtype=np.int32)
