"""The online store in LMDB, a folder: no server."""

from collections.abc import Collection, Sequence
from pathlib import Path
from zlib import crc32

from tidemill.features._lmdb_folder import entered, explained, said
from tidemill.features.online import CHECKSUM, MARK, WHOLE, Asked, Change, Name, Stored, named

Known = tuple[bytes, bytes, bytes | None, bytes | None]  # of a space: how its keys begin, the key of its mark, what lies there, the mark


class LmdbOnline:
    """LMDB in a folder: one writer, any number of reading processes, no server. Behind each value lies its checksum: LMDB has none.

    Opened twice in a process it is the same store. A folder that is damaged, or that was open when the machine went down, is begun anew."""

    def __init__(self, folder: Path, *, gigabytes: float = 16) -> None:
        import lmdb

        self._error, self._known = lmdb.Error, dict[str, Known]()
        self._folder, self._leave = entered(self, folder, gigabytes)

    def settle(self) -> None:
        """Sum the file, where no other process has it open."""
        self._folder.settle()

    @staticmethod
    def _key(space: str, entity: str) -> bytes:
        return space[:16].encode() + b"/" + named(entity)

    def read(self, asked: Sequence[Asked]) -> list[Stored]:
        before: Sequence[Name | None] | None = None
        found: list[Stored] = []
        names: list[bytes] = []
        try:
            with self._folder.db.begin() as transaction:
                get, whole, sum_ = transaction.get, WHOLE, crc32
                for space, entities in asked:
                    if entities is not before:
                        before, names = entities, [named(entity) for entity in entities]
                    start, mark, before_mark, whole_mark = self._known.get(space) or self._know(space)
                    states: list[bytes | None] = []
                    for name in names:
                        key = start + name
                        data = get(key)
                        if data is None:
                            states.append(None)
                        elif sum_(data, sum_(key)) == whole:
                            states.append(data[:-CHECKSUM])
                        else:
                            raise self._folder.damaged()
                    data = get(mark)
                    found.append((whole_mark if data == before_mark else self._read_mark(space, data), states))
        except self._error as error:
            raise said(error, self._folder.path) from error
        return found

    def _know(self, space: str) -> Known:
        return self._known.setdefault(space, (self._key(space, ""), MARK + space.encode(), None, None))

    def _read_mark(self, space: str, stored: bytes | None) -> bytes | None:
        """The mark of a space, which is not the last that was read."""
        start, key, *_ = self._know(space)
        mark = self._folder.whole(key, stored)
        self._known[space] = (start, key, stored, mark)  # another thread may read a newer one at once
        return mark

    def update(self, space: str, entities: Sequence[Name], change: Change) -> None:
        with self._folder.writing() as transaction:
            start = self._key(space, "")
            keys = [MARK + space.encode(), *(start + named(entity) for entity in entities)]
            mark, *stored = [self._folder.whole(key, transaction.get(key)) for key in keys]
            found = change(mark, stored)
            if found is None:
                return
            states = [(keys[0], found[0]), *((start + named(one), data) for one, data in found[1].items())]
            sum_ = crc32  # `checksum`, without a call for each
            whole = ((key, data + sum_(data, sum_(key)).to_bytes(CHECKSUM, "little")) for key, data in states if data is not None)
            transaction.cursor().putmulti(whole)
            for key, data in states:
                if data is None:
                    transaction.delete(key)

    def spaces(self) -> dict[str, bytes]:
        with explained(self._folder.path), self._folder.db.begin() as transaction:
            return self._folder.marks(transaction)

    def keep(self, spaces: Collection[str]) -> None:
        kept = {space[:16].encode() for space in spaces}
        with self._folder.writing() as transaction:
            cursor = transaction.cursor()
            cursor.first()
            while key := cursor.key():  # empty behind the last
                if key.removeprefix(MARK)[:16] not in kept:
                    cursor.delete()  # and go on to the next
                elif key.startswith(MARK):
                    cursor.next()
                else:
                    cursor.set_range(key[:16] + b"0")  # behind all rows of a space that is kept: "0" follows "/"

    def drop(self, space: str) -> None:
        start = self._key(space, "")
        with self._folder.writing() as transaction:
            transaction.delete(MARK + space.encode())
            cursor = transaction.cursor()
            cursor.set_range(start)
            while cursor.key().startswith(start):  # empty behind the last
                cursor.delete()  # and go on to the next

    def purge(self) -> bool:
        """Write the file anew without its free pages. False where somebody else has it open, who would go on with the old one."""
        return self._folder.purge()

    def close(self) -> None:
        """Let go of it: the last user of a process closes and sums it. A second time changes nothing."""
        self._leave()
