"""Where the online store lies: the adapters, and which one a place means."""

from pathlib import Path

from tidemill.features._lmdb import LmdbOnline
from tidemill.features.online import OnlineStore


def open_online(place: Path | str, *, prefix: str = "tidemill", gigabytes: float = 16) -> OnlineStore:
    """The online store in a folder, which may become so large, or at the address of a Redis, whose names then begin with a prefix. Whoever
    opens it closes it; what is forgotten is closed too. Raises MissingExtra, DefinitionError and StoreError."""
    if isinstance(place, str):
        from tidemill.features._redis import RedisOnline

        return RedisOnline(place, prefix)
    return LmdbOnline(place, gigabytes=gigabytes)
