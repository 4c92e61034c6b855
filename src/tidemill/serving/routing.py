"""Which version answers a request: weights over versions, sticky by key. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.core import Bools, digest_bytes


@dataclass(frozen=True)
class Route:
    """The weight of the challenger; the champion has the rest. `salt` makes each rollout draw its own sample of keys."""

    champion: str
    challenger: str = ""
    weight: float = 0.0
    salt: str = ""


def share(key: str, salt: str) -> float:
    """A key's place in [0, 1), the same every time.

    >>> share("N123", "late/2") == share("N123", "late/2")
    True
    """
    return int(digest_bytes(salt.encode(), key.encode())[:13], 16) / 16**13


def to_challenger(route: Route, keys: Sequence[str]) -> Bools:
    """Which keys the challenger answers: those whose share lies below its weight, so a key never returns when the weight grows."""
    if not route.challenger or route.weight <= 0:
        return np.zeros(len(keys), dtype=bool)
    if route.weight >= 1:
        return np.ones(len(keys), dtype=bool)
    shares = {key: share(key, route.salt) for key in set(keys)}
    return np.fromiter((shares[key] < route.weight for key in keys), dtype=bool, count=len(keys))
