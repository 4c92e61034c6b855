"""The online store in Redis, for gateways on several machines. All names begin with the store's prefix, so that projects share a server."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tidemill.core import Damaged, DefinitionError, MissingExtra, StoreError, digest_bytes
from tidemill.features.online import CHECKSUM, MARK, checksum

SOON = 0.5  # seconds that a server may take for an answer, unless the address says otherwise: a request waits for it
AT_ONCE = 1_000  # names in one command


class RedisOnline:
    """Redis, or what speaks its protocol. One transaction for each write; behind each value lies its checksum, as in LMDB."""

    def __init__(self, address: str, prefix: str) -> None:
        try:
            import redis
        except ImportError as error:
            raise MissingExtra("the library of Redis is not installed", hint="pip install 'tidemill[redis]'") from error
        self._error, self._conflict = redis.RedisError, redis.WatchError
        try:
            parts = urlsplit(address)
            asked = dict(parse_qsl(parts.query, keep_blank_values=True))
            self._prefix = asked.pop("prefix", prefix).encode() + b":"
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
            hint = "start it, or set store.online to another; until then features are read offline"
            raise StoreError(f"the online store cannot be used: {error}", where=self._where, hint=hint) from error

    def _name(self, version: str, entity: str) -> bytes:
        text = entity.encode()
        return b"%s%s/%s" % (self._prefix, version[:16].encode(), text if len(text) < 400 else digest_bytes(text).encode())

    def _mark(self, version: str) -> bytes:
        return self._prefix + MARK + version.encode()

    def get(self, version: str, entities: Sequence[str]) -> list[bytes | None]:
        if not entities:
            return []
        names = [self._name(version, entity) for entity in entities]
        with self._explained():
            return [self._whole(name, stored) for name, stored in zip(names, self._db.mget(names), strict=True)]

    def watermark(self, version: str) -> int | None:
        name = self._mark(version)
        with self._explained():
            found = self._whole(name, self._db.get(name))
        return int.from_bytes(found, "little", signed=True) if found else None

    def write(self, version: str, rows: Iterable[tuple[str, bytes]], watermark: int) -> None:
        name, found = self._mark(version), list(rows)
        values = {self._name(version, entity): data for entity, data in found} | {name: watermark.to_bytes(8, "little", signed=True)}
        with self._explained(), self._db.pipeline(transaction=True) as pipe:
            while True:
                try:
                    pipe.watch(name)
                    stored = self._whole(name, pipe.get(name))
                    if stored and int.from_bytes(stored, "little", signed=True) > watermark:
                        return
                    pipe.multi()
                    pipe.mset({one: data + checksum(one, data) for one, data in values.items()})
                    pipe.execute()
                    return
                except self._conflict:  # another process moved the watermark meanwhile
                    continue

    def keep(self, versions: Collection[str]) -> None:
        kept = {version[:16].encode() for version in versions}
        with self._explained():
            gone = []
            for name in self._db.scan_iter(_pattern(self._prefix), count=AT_ONCE):
                if name[len(self._prefix) :].removeprefix(MARK)[:16] not in kept:
                    gone.append(name)
                if len(gone) >= AT_ONCE:
                    self._db.unlink(*gone)
                    gone = []
            if gone:
                self._db.unlink(*gone)

    def _whole(self, name: bytes, stored: bytes | None) -> bytes | None:
        if stored is None:
            return None
        if stored[-CHECKSUM:] != checksum(name, stored[:-CHECKSUM]):
            hint = f"delete what begins with {self._prefix.decode()!r} there: it is a cache, and `tidemill up` makes it anew"
            raise Damaged("the online store is damaged: a value is not what was written", where=self._where, hint=hint)
        return stored[:-CHECKSUM]

    def close(self) -> None:
        """Close the connections."""
        self._db.close()


def _pattern(prefix: bytes) -> bytes:
    """What begins with a prefix, as Redis matches it."""
    return b"".join(b"\\" + bytes([sign]) if sign in rb"*?[]\^" else bytes([sign]) for sign in prefix) + b"*"
