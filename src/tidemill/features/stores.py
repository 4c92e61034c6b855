"""Where the online store lies: the adapters, and which one a place means."""

import os
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from tidemill.features._lmdb import LmdbOnline, open_folder
from tidemill.features.online import OnlineStore

_OPEN: WeakValueDictionary[tuple[int, str], LmdbOnline] = WeakValueDictionary()  # LMDB lets a process open a folder but once
_OPENING = Lock()


def open_online(place: Path | str, *, prefix: str = "tidemill") -> OnlineStore:
    """The online store in a folder, or at the address of a Redis, whose names then begin with a prefix. A folder that is damaged, or whose
    last writer did not come to its end, is begun anew; opened twice in a process it is the same store. Raises MissingExtra,
    DefinitionError and StoreError."""
    if isinstance(place, str):
        from tidemill.features._redis import RedisOnline

        return RedisOnline(place, prefix)
    key = (os.getpid(), os.path.realpath(place))
    with _OPENING:
        found = _OPEN.get(key)
        if found is None or not found.share():
            found = _OPEN[key] = open_folder(place)
    return found
