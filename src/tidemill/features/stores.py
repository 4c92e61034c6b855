"""Where the online store lies: the adapters, and which one a place means."""

from pathlib import Path

from tidemill.features._lmdb import open_folder
from tidemill.features.online import OnlineStore


def open_online(place: Path | str, *, prefix: str = "tidemill") -> OnlineStore:
    """The online store in a folder, or at the address of a Redis, whose names then begin with a prefix. A folder that is damaged, or whose
    last writer did not come to its end, is begun anew. Raises MissingExtra, DefinitionError and StoreError."""
    if isinstance(place, str):
        from tidemill.features._redis import RedisOnline

        return RedisOnline(place, prefix)
    return open_folder(place)
