"""What an online store holds, as tests look at it."""

from collections.abc import Sequence

from tidemill.features import OnlineStore
from tidemill.features.online import Mark, Name, mark_of
from tidemill.features.words import SpaceWords


def states_of(store: OnlineStore, space: str, entities: Sequence[Name]) -> list[bytes | None]:
    """What is stored for each entity."""
    return store.read([(space, entities)])[0][1]


def words_of(store: OnlineStore, space: str, feature: str) -> list[str]:
    """The words of a feature by their numbers, as who opens the store reads them."""
    data = mark_of(store, space)
    mark = Mark.of(data)
    return SpaceWords(space).read(store, data, mark.words)[feature].words if mark and feature in mark.words else []
