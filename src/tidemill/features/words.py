"""The words of a space's categories in the online store: in chunks beside its states, so that a read or a push costs the same however many
there are.

The mark tells how many words a feature has, and their checksum. More are only appended: who knows the first of them reads but the chunks
with the others. A space that was made anew has other words, and so another checksum.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, islice
from threading import Lock
from zlib import crc32

import msgspec

from tidemill.core import Damaged
from tidemill.features.online import Count, Mark, Name, OnlineStore, mark_of

CHUNK = 1_000  # words that are stored together
NONE = Count()
_GROWING = Lock()  # of whoever appends to a list that others may have, too


@dataclass(frozen=True)
class Vocabulary:
    """The words of a feature by their numbers: so many of a list as `count` tells, which who knows more has continued."""

    count: Count = NONE
    words: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, word: str) -> int | None:
        """The number of a word; None for another."""
        if len(self._numbers) < len(self.words):  # made when it is asked for: who only reads does without
            start = len(self._numbers)
            self._numbers.update(zip(self.words[start:], count(start), strict=False))
        found = self._numbers.get(word)
        return found if found is not None and found < self.count.many else None

    def grown(self, more: Sequence[str], after: Count) -> "Vocabulary":
        """With more words behind these, and the count of all."""
        many = self.count.many
        with _GROWING:
            there = self.words[many : after.many]
            if there == [*more[: len(there)]]:
                self.words.extend(more[len(there) :])
                return Vocabulary(after, self.words, self._numbers)
        return Vocabulary(after, [*self.words[:many], *more])  # it was continued otherwise

    def first(self, many: int) -> "Vocabulary":
        """The first words alone."""
        return self if many >= self.count.many else Vocabulary(counted(self.words[:many]), self.words, self._numbers)


def counted(words: Sequence[str], before: Count = NONE) -> Count:
    """How many words there are with others before them, and the checksum of all: it is that of each behind the other.

    >>> counted(["a", "b", "c"]) == counted(["c"], counted(["a", "b"])), counted(["ab"]).sum == counted(["a", "b"]).sum
    (True, False)
    """
    spelled = msgspec.json.encode(words)[1:-1] + b"," if words else b""
    return Count(before.many + len(words), crc32(spelled, before.sum))


class Numbering:
    """Gives words their numbers: those that are known theirs, and new ones the next."""

    def __init__(self, known: Vocabulary) -> None:
        self.known, self.new = known, dict[str, int]()

    def __call__(self, word: str) -> int:
        found = self.known.number(word)
        return self.new.setdefault(word, self.known.count.many + len(self.new)) if found is None else found

    @property
    def count(self) -> Count:
        """Of all of them."""
        return counted([*self.new], self.known.count)

    @property
    def words(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.known.words[: self.known.count.many], *self.new)

    def grown(self) -> Vocabulary:
        """All of them, as what is known."""
        return self.known.grown([*self.new], self.count) if self.new else self.known

    def chunks(self, feature: str) -> Iterator[tuple[bytes, bytes]]:
        """What is to be stored, under its name within the space: the chunks with new words."""
        many = self.known.count.many
        start = many - many % CHUNK
        words = [*self.known.words[start:many], *self.new] if self.new else []
        for i in range(0, len(words), CHUNK):
            yield _chunk(feature, (start + i) // CHUNK), msgspec.json.encode(words[i : i + CHUNK])


def counts_of(words: Mapping[str, Numbering]) -> dict[str, Count]:
    """What the mark tells of the words of each feature."""
    return {feature: one.count for feature, one in words.items()}


def chunks_of(words: Mapping[str, Numbering]) -> dict[Name, bytes | None]:
    """What is to be stored of the words of each feature."""
    return {name: data for feature, one in words.items() for name, data in one.chunks(feature)}


class SpaceWords:
    """The words of a space by feature, as far as they were read here."""

    def __init__(self, space: str) -> None:
        self._space, self._known = space, dict[str, Vocabulary]()

    def at(self, counts: Mapping[str, Count]) -> Mapping[str, Vocabulary] | None:
        """The words that a mark tells of; None where others are known here."""
        known = self._known
        return known if {feature: one.count for feature, one in known.items()} == counts else None

    def keep(self, words: Mapping[str, Numbering]) -> None:
        """These are stored."""
        if words:
            self._known = {feature: one.grown() for feature, one in words.items()}

    def read(self, store: OnlineStore, data: bytes | None, counts: Mapping[str, Count]) -> Mapping[str, Vocabulary]:
        """The words that a mark tells of, whose bytes these are: what is lacking is read. Raises Damaged where they are not what was
        written, and LookupError where the space has other words by now."""
        found = self.at(counts)
        if found is None:
            found = self._known = {feature: self._feature(store, data, feature, count) for feature, count in counts.items()}
        return found

    def catch_up(self, store: OnlineStore) -> None:
        """Read the words that the space has by now. Raises Damaged and LookupError, as `read` does."""
        data = mark_of(store, self._space)
        mark = Mark.of(data)
        if mark is not None:
            self.read(store, data, mark.words)

    def _feature(self, store: OnlineStore, data: bytes | None, feature: str, count: Count) -> Vocabulary:
        now = data
        for start in (self._known.get(feature, Vocabulary()).first(count.many), Vocabulary()):
            if start.count == count:
                return start
            known = start.count.many % CHUNK  # in the first chunk that is read
            [(now, stored)] = store.read([(self._space, [_chunk(feature, i) for i in _chunks(start.count.many, count.many)])])
            words = chain.from_iterable(msgspec.json.decode(chunk, type=list[str]) for chunk in stored if chunk)
            more = list(islice(words, known, known + count.many - start.count.many))
            if counted(more, start.count) == count:
                return start.grown(more, count)
        if now == data:
            raise Damaged(f"the online store is damaged: words of {feature} are not what was written", hint="`tidemill up` makes it anew")
        raise LookupError(feature)


def _chunks(known: int, many: int) -> range:
    """The numbers of the chunks that hold the others of so many words.

    >>> _chunks(0, 0), _chunks(0, 1_000), _chunks(999, 1_001), _chunks(1_000, 1_001)
    (range(0, 0), range(0, 1), range(0, 2), range(1, 2))
    """
    return range(known // CHUNK, -(-many // CHUNK))


def _chunk(feature: str, number: int) -> bytes:
    """The name of a chunk within the space."""
    return b"%s/%d" % (feature.encode(), number)
