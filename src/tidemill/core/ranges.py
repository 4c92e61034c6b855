"""Counting in stretches of a column of whole numbers: how many of [low, high) lie below a bound, and which is the k-th smallest.

A wavelet matrix (Claude and Navarro, The wavelet matrix, SPIRE 2012): one column of running counts for each bit, so that a question
costs as many steps as the largest number has bits, however long the stretch.
"""

from dataclasses import dataclass

import numpy as np

from tidemill.core.arrays import Bools, Ints


@dataclass(frozen=True)
class Ranges:
    """`zeros` (n + 1,) for each bit from the highest on: how many numbers before each place have it unset, after those above are sorted."""

    zeros: tuple[Ints, ...]

    @classmethod
    def of(cls, values: Ints) -> "Ranges":
        """Of numbers (n,) from 0 on.

        >>> found = Ranges.of(np.array([5, 1, 4, 1]))
        >>> found.below(np.array([0, 1]), np.array([4, 3]), np.array([5, 4])).tolist()
        [3, 1]
        >>> found.smallest(np.array([0, 2]), np.array([1, 4]), np.array([0]), np.array([1])).tolist()
        [4]
        """
        zeros = []
        for bit in reversed(range(int(values.max(initial=0)).bit_length())):
            unset = (values >> bit) & 1 == 0
            zeros.append(np.concatenate([[0], np.cumsum(unset)]))
            values = np.concatenate([values[unset], values[~unset]])
        return cls(tuple(zeros))

    def below(self, low: Ints, high: Ints, bound: Ints) -> Ints:
        """How many numbers of [low, high) are less than a bound; all (m,)."""
        found, bits = np.zeros(len(low), np.int64), len(self.zeros)
        over, size = bound >> bits > 0, high - low
        for bit, zeros in zip(reversed(range(bits)), self.zeros, strict=True):
            first, last = zeros[low], zeros[high]
            up = (bound >> bit) & 1 == 1
            found += np.where(up, last - first, 0)
            low, high = _down(up, low, high, zeros)
        return np.where(over, size, found)

    def smallest(self, low: Ints, high: Ints, starts: Ints, rank: Ints) -> Ints:
        """The number of a rank, from 0 on, among those of all stretches [low, high) of a row; rows begin at `starts`, `rank` (rows,)."""
        found, size = np.zeros(len(rank), np.int64), np.diff(starts, append=len(low))
        for bit, zeros in zip(reversed(range(len(self.zeros))), self.zeros, strict=True):
            unset = np.add.reduceat(zeros[high] - zeros[low], starts)
            up = rank >= unset
            rank = np.where(up, rank - unset, rank)
            found |= np.where(up, 1 << bit, 0)
            low, high = _down(np.repeat(up, size), low, high, zeros)
        return found


def _down(up: Bools, low: Ints, high: Ints, zeros: Ints) -> tuple[Ints, Ints]:
    """The same stretches one bit further down, among the numbers that have this one set, or unset."""
    first, last = zeros[low], zeros[high]
    return np.where(up, low - first + zeros[-1], first), np.where(up, high - last + zeros[-1], last)
