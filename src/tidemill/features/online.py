"""The online store: for each entity of a view, the state from which any read since a time is answered.

It is a cache, made anew from the view log where it is lost. What is stored belongs to a *space*: one definition of a view. Its mark says
up to which knowledge time it holds all, and of which version of the view.
"""

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from threading import Lock
from typing import Any, Protocol

import msgspec

from tidemill.core import definition, digest_bytes, digest_value
from tidemill.features.declarations import FeatureView

LONG = 400  # bytes of an entity from which on its digest stands for it: LMDB takes 511
NOBODY, BESIDE = b"\xff", b"\xfe"  # no text has these bytes
CHECKSUM = 4  # bytes
WHOLE = zlib.crc32(bytes(CHECKSUM))  # the checksum of whatever has its own checksum behind it
MARK = b"mark 4/"  # before the name of a space: the number is that of the form of states, so that those of another are made anew
Name = str | bytes  # within a space: of an entity, or bytes for what else is there, which no entity is called
States = Mapping[str, bytes | None] | Mapping[Name, bytes | None]
Change = Callable[[bytes | None, list[bytes | None]], tuple[bytes | None, States] | None]
Asked = tuple[str, Sequence[Name | None]]  # a space, and entities
Stored = tuple[bytes | None, list[bytes | None]]  # its mark, and their states


class OnlineStore(Protocol):
    """Bytes by (space, entity), and a mark for each space. What bytes name in place of an entity is no entity's: words of categories."""

    def read(self, asked: Sequence[Asked]) -> list[Stored]:
        """Of each space its mark and what is stored for some entities; None for None. In one go, for it is asked with each request."""

    def update(self, space: str, entities: Sequence[Name], change: Change) -> None:
        """Give `change` the mark of a space and what is stored for some entities, and store the mark and the states that it gives instead
        (None: nothing is to be there): all or nothing, and nobody else writes between. Where it gives None, nothing changes. It may be
        called several times."""

    def spaces(self) -> dict[str, bytes]:
        """The mark of each space."""

    def keep(self, spaces: Collection[str]) -> None:
        """Drop what is stored of all spaces but these."""

    def drop(self, space: str) -> None:
        """Drop what is stored of one space."""

    def settle(self) -> None:
        """Much was written, and nothing more is to follow soon."""

    def purge(self) -> bool:
        """Leave no byte of what was deleted; False where somebody else has the store open."""

    def close(self) -> None:
        """Nothing is read or written any more."""


class MemoryOnline:
    """An online store that ends with the process."""

    def __init__(self) -> None:
        self._states: dict[str, dict[Name, bytes]] = {}
        self._marks: dict[str, bytes] = {}
        self._writer = Lock()

    def read(self, asked: Sequence[Asked]) -> list[Stored]:
        found = []
        with self._writer:  # a mark and states of one moment
            for space, entities in asked:
                states = self._states.get(space, {})
                found.append((self._marks.get(space), [None if entity is None else states.get(entity) for entity in entities]))
        return found

    def update(self, space: str, entities: Sequence[Name], change: Change) -> None:
        with self._writer:
            states = self._states.get(space, {})
            found = change(self._marks.get(space), [states.get(entity) for entity in entities])
            if found is None:
                return
            _put(self._marks, {space: found[0]})
            _put(self._states.setdefault(space, {}), found[1])

    def spaces(self) -> dict[str, bytes]:
        return dict(self._marks)

    def keep(self, spaces: Collection[str]) -> None:
        for space in [*self._states, *self._marks]:
            if space not in spaces:
                self.drop(space)

    def drop(self, space: str) -> None:
        with self._writer:
            self._marks.pop(space, None)
            self._states.pop(space, None)

    def settle(self) -> None:
        """Nothing is to be done."""

    def purge(self) -> bool:
        """Nothing is to be done."""
        return True

    def close(self) -> None:
        """Nothing is to be done."""


def _put(there: dict[Any, bytes], values: Mapping[Any, bytes | None]) -> None:
    for name, data in values.items():
        if data is None:
            there.pop(name, None)
        else:
            there[name] = data


def named(entity: Name | None) -> bytes:
    """The bytes by which an entity is found within a space; None is not there.

    >>> named("JFK"), len(named("x" * 5_000)), named(b"kind/0")
    (b'JFK', 40, b'\\xfekind/0')
    """
    if isinstance(entity, str):
        text = entity.encode()
        return text if len(text) < LONG else digest_bytes(text).encode()
    if entity is None:
        return NOBODY
    return BESIDE + (entity if len(entity) < LONG else digest_bytes(entity).encode())


def checksum(key: bytes, data: bytes) -> bytes:
    """What stands behind a value: of it and its name."""
    return zlib.crc32(data, zlib.crc32(key)).to_bytes(CHECKSUM, "little")


def is_whole(key: bytes, stored: bytes) -> bool:
    """Whether a value is what was written under a name, with its checksum behind it.

    >>> is_whole(b"name", b"value" + checksum(b"name", b"value")), is_whole(b"other", b"value" + checksum(b"name", b"value"))
    (True, False)
    """
    return zlib.crc32(stored, zlib.crc32(key)) == WHOLE


class Making(msgspec.Struct, frozen=True):
    """A space that is being written: of which version, up to when, and how many entities are done; `whole`: all of them, not only news;
    `pushed`: the last row that was pushed when it began."""

    version: str
    until: int
    done: int
    whole: bool
    pushed: int = 0


class Count(msgspec.Struct, frozen=True, array_like=True):
    """How many words there are, and their checksum."""

    many: int = 0
    sum: int = 0


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a space: the view as it is `written` there; all that was known by `until` (None: nothing yet) is there, `digest` is
    that of its rows, and `words` tells of the categories of each feature, which lie beside the states. `pushed`: up to where what was
    pushed is there. `gone` (`gone_as`): entities of this version that were erased since: who misses their states has lost nothing."""

    written: msgspec.Raw = msgspec.field(name="view")  # a push reads and writes marks, and needs no definition
    version: str = ""
    until: int | None = None
    digest: str = ""
    words: dict[str, Count] = {}
    pushed: int = 0
    making: Making | None = None
    gone: list[str] = []

    @classmethod
    def of(cls, data: bytes | None) -> "Mark | None":
        """From bytes."""
        return msgspec.json.decode(data, type=cls) if data else None

    @classmethod
    def new(cls, view: FeatureView) -> "Mark":
        """Of a space in which nothing is yet."""
        return cls(msgspec.Raw(msgspec.json.encode(definition(view))))

    @property
    def view(self) -> dict[str, Any]:
        """The definition of the view, as plain data."""
        return msgspec.json.decode(self.written, type=dict[str, Any])

    def bytes(self) -> bytes:
        """As bytes."""
        return msgspec.json.encode(self)


def gone_as(entity: str) -> str:
    """How an entity is told that was erased: who knows it finds it, who reads the mark does not."""
    return digest_bytes(entity.encode())


def mark_of(store: OnlineStore, space: str) -> bytes | None:
    """The mark of a space."""
    return store.read([(space, ())])[0][0]


def space_of(view: FeatureView) -> str:
    """The name of the space of a view: the digest of its definition."""
    return digest_value(definition(view))
