"""Which version answers a request: weights over versions, sticky by key. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

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


def weighed(weights: Mapping[str, float], salt: str, keys: Sequence[str]) -> list[str]:
    """Which of several names each key belongs to, in proportion to their weights (weighted rendezvous hashing, Schindelhauer and Schomaker
    2005: no table of who belongs where). Where one weight grows and no other does, its keys stay, and where one is taken out, only its own
    keys move.

    >>> weighed({"late/3": 0.8, "late/2": 0.2}, "late", ["N123", "N124", "N123"])
    ['late/3', 'late/3', 'late/3']
    """
    names = [name for name, weight in weights.items() if weight > 0]

    def found(key: str) -> str:
        own = {name: -weights[name] / log((share(key, f"{salt}/{name}") * 16**13 + 0.5) / 16**13) for name in names}
        return max(names, key=lambda name: (own[name], name))  # weights next to nothing are all alike: their order must not tell

    chosen = {key: found(key) for key in set(keys)}
    return [chosen[key] for key in keys]


def shares(champion: str, challenger: str, weight: float, weights: Mapping[str, float]) -> dict[str, float]:
    """The share of the keys that each version answers: the challenger its weight, of the rest the others theirs, the champion what is left.

    >>> shares("late/3", "late/4", 0.5, {"late/2": 0.2})
    {'late/3': 0.4, 'late/4': 0.5, 'late/2': 0.1}
    """
    rest = 1.0 - weight if challenger else 1.0
    found = {champion: rest * max(1.0 - sum(weights.values()), 0.0)} | ({challenger: weight} if challenger else {})
    return found | {name: rest * one for name, one in weights.items()}
