"""The online store in Redis, for gateways on several machines. All names begin with the store's prefix, so that projects share a server."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import repeat
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit
from zlib import crc32

from tidemill.core import Damaged, DefinitionError, MissingExtra, StoreError
from tidemill.features.online import CHECKSUM, MARK, WHOLE, Asked, Change, Name, Stored, checksum, is_whole, named

SOON = 0.5  # seconds that a server may take for an answer, unless the address says otherwise: a request waits for it
AT_ONCE = 1_000  # names in one command
SPACES = b"spaces"  # the set of the spaces that have a mark


class RedisOnline:
    """Redis, or what speaks its protocol. One transaction for each write; behind each value lies its checksum, as in LMDB."""

    def __init__(self, address: str, prefix: str) -> None:
        try:
            import redis
        except ImportError as error:
            raise MissingExtra("the library of Redis is not installed", hint="pip install 'tidemill[redis]'") from error
        self._error, self._conflict, self._full = redis.RedisError, redis.WatchError, redis.exceptions.OutOfMemoryError
        self._refused, self._keeps = redis.ResponseError, False
        self._marks: dict[str, tuple[bytes | None, bytes | None]] = {}  # by space the last that was read: as it lies there, and alone
        try:
            parts = urlsplit(address)
            asked = dict(parse_qsl(parts.query, keep_blank_values=True))
            self._prefix = quote(asked.pop("prefix", prefix), safe=":").encode() + b"/"  # which no other prefix begins with
            self._where = f"{parts.scheme}://{parts.hostname or ''}:{parts.port or 6379}{parts.path}"
            waits = {name: SOON for name in ("socket_timeout", "socket_connect_timeout") if name not in asked}
            self._db: Any = redis.Redis.from_url(urlunsplit(parts._replace(query=urlencode(asked))), **waits)
            self._db.connection_pool.make_connection()  # which reads the rest of the address, and connects to nothing yet
        except (ValueError, TypeError) as error:
            hint = "redis://host:6379/0, or rediss:// with TLS; ?prefix=name&socket_timeout=0.5"
            raise DefinitionError(f"store.online is no address of Redis: {error}", hint=hint) from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise self._said(error) from error

    def _said(self, error: Exception) -> StoreError:
        """An error of Redis, as ours."""
        hint = "start it, or set store.online to another; until then features are read offline"
        if isinstance(error, self._full):
            hint = "give it more memory (maxmemory), or delete what else lies there; until then what is new waits, and is read offline"
        return StoreError(f"the online store cannot be used: {error}", where=self._where, hint=hint)

    def _check_keeps(self) -> None:
        """Raise StoreError for a server that deletes what it likes when its memory is full: features would be missing, and nobody told."""
        if self._keeps:
            return
        with suppress(self._refused):  # who may not ask is trusted
            memory = self._db.info("memory")
            policy = str(memory.get("maxmemory_policy", ""))
            if memory.get("maxmemory") and policy.startswith("allkeys"):
                hint = f"set its maxmemory-policy to noeviction: with {policy} it deletes features when its memory is full"
                raise StoreError("the online store would lose features without a word", where=self._where, hint=hint)
        self._keeps = True

    def _name(self, space: str, entity: Name) -> bytes:
        return b"%s%s/%s" % (self._prefix, space[:16].encode(), named(entity))

    def read(self, asked: Sequence[Asked]) -> list[Stored]:
        names: list[bytes] = []  # not `list[…]()`, which takes half a microsecond
        parts: list[tuple[str, bytes, list[bytes], int]] = []
        own: list[bytes] = []
        before = None
        for space, entities in asked:
            if entities is not before:
                before, own = entities, [named(entity) for entity in entities]
            start = b"%s%s/" % (self._prefix, space[:16].encode())
            names.append(self._prefix + MARK + space.encode())
            names += [start + name for name in own]
            parts.append((space, start, own, len(names)))
        try:
            stored = self._db.mget(names) if names else []
        except self._error as error:
            raise self._said(error) from error
        found: list[Stored] = []
        place = 0
        for space, start, own, end in parts:
            mark = self._read_mark(space, names[place], stored[place])
            found.append((mark, self._states(start, own, stored[place + 1 : end])))
            place = end
        return found

    def _read_mark(self, space: str, name: bytes, stored: bytes | None) -> bytes | None:
        """A mark, summed where it is not the last that was read."""
        last = self._marks.get(space)
        if last is None or last[0] != stored:
            last = self._marks[space] = (stored, self._whole(name, stored))
        return last[1]

    def _states(self, start: bytes, names: Sequence[bytes], stored: Sequence[bytes | None]) -> list[bytes | None]:
        """States that were read, all of them whole. Their names begin alike, which is summed once."""
        some, own = stored, names
        if None in stored:
            there = [i for i, data in enumerate(stored) if data is not None]
            some, own = [stored[i] for i in there], [names[i] for i in there]
        if some and set(map(crc32, some, map(crc32, own, repeat(crc32(start))))) != {WHOLE}:  # type: ignore[arg-type]
            raise self._damaged()
        return [data and data[:-CHECKSUM] for data in stored]

    def update(self, space: str, entities: Sequence[Name], change: Change) -> None:
        names = [self._prefix + MARK + space.encode(), *(self._name(space, entity) for entity in entities)]
        with self._explained(), self._db.pipeline(transaction=True) as pipe:
            self._check_keeps()
            while True:
                try:
                    pipe.watch(*names)
                    mark, *stored = self._wholes(names, pipe.mget(names))
                    found = change(mark, stored)
                    if found is None:
                        return
                    values = {names[0]: found[0], **{self._name(space, entity): data for entity, data in found[1].items()}}
                    pipe.multi()
                    there = {name: data + checksum(name, data) for name, data in values.items() if data is not None}
                    if there:
                        pipe.mset(there)
                    gone = [name for name, data in values.items() if data is None]
                    if gone:
                        pipe.unlink(*gone)
                    (pipe.srem if found[0] is None else pipe.sadd)(self._prefix + SPACES, space)
                    pipe.execute()
                    return
                except self._conflict:  # another process changed one of them meanwhile
                    continue

    def spaces(self) -> dict[str, bytes]:
        with self._explained():
            spaces = sorted(space.decode() for space in self._db.smembers(self._prefix + SPACES))
            names = [self._prefix + MARK + space.encode() for space in spaces]
            found = self._wholes(names, self._db.mget(names)) if names else []
        return {space: data for space, data in zip(spaces, found, strict=True) if data is not None}

    def settle(self) -> None:
        """Nothing is to be done."""

    def purge(self) -> bool:
        """What is deleted is gone from memory; what the server wrote to disk, it rewrites at its own times."""
        return True

    def keep(self, spaces: Collection[str]) -> None:
        kept = {space[:16].encode() for space in spaces}
        with self._explained():
            gone = [space for space in self._db.smembers(self._prefix + SPACES) if space[:16] not in kept]
            if gone:
                self._db.srem(self._prefix + SPACES, *gone)
            start = len(self._prefix)
            names = (name for name in self._scan(self._prefix) if name[start:] != SPACES)
            self._unlink(name for name in names if name[start:].removeprefix(MARK)[:16] not in kept)

    def drop(self, space: str) -> None:
        mark = self._prefix + MARK + space.encode()
        with self._explained():
            while True:
                with self._db.pipeline(transaction=True) as pipe:
                    pipe.unlink(mark).srem(self._prefix + SPACES, space).execute()
                self._unlink(self._scan(self._name(space, "")))
                if not self._db.exists(mark):  # else somebody began it anew meanwhile, some of whose states may be gone
                    return

    def _scan(self, start: bytes) -> Iterator[bytes]:
        """The names that begin so; what a prefix is quoted to has no signs of patterns."""
        found: Iterator[bytes] = self._db.scan_iter(start + b"*", count=AT_ONCE)
        return found

    def _unlink(self, names: Iterable[bytes]) -> None:
        gone = list[bytes]()
        for name in names:
            gone.append(name)
            if len(gone) >= AT_ONCE:
                self._db.unlink(*gone)
                gone.clear()
        if gone:
            self._db.unlink(*gone)

    def _wholes(self, names: Sequence[bytes], stored: Sequence[bytes | None]) -> list[bytes | None]:
        return [self._whole(name, data) for name, data in zip(names, stored, strict=True)]

    def _whole(self, name: bytes, stored: bytes | None) -> bytes | None:
        if stored is None:
            return None
        if not is_whole(name, stored):
            raise self._damaged()
        return stored[:-CHECKSUM]

    def _damaged(self) -> Damaged:
        hint = f"delete what begins with {self._prefix.decode()!r} there: it is a cache, and `tidemill up` makes it anew"
        return Damaged("the online store is damaged: a value is not what was written", where=self._where, hint=hint)

    def close(self) -> None:
        """Close the connections."""
        self._db.close()
