"""What an online store holds, as tests look at it."""

from collections.abc import Sequence

from tidemill.features import OnlineStore


def states_of(store: OnlineStore, space: str, entities: Sequence[str]) -> list[bytes | None]:
    """What is stored for each entity."""
    return store.read([(space, entities)])[0][1]
