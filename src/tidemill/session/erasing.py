"""One entity of a project erased: what its key is, and where the rows may lie."""

from collections.abc import Callable, Sequence

from tidemill import features
from tidemill.core import DataError, UnknownName
from tidemill.data import Dataset, Key
from tidemill.features import Entity, Erasure, OnlineStore
from tidemill.ledger import user
from tidemill.project import Project
from tidemill.session.scoring import forget_scores


def key_of(declared: Project, entity: str, parts: Sequence[object]) -> Key:
    """The key of a declared entity, under all columns by which the project knows it. Raises UnknownName and DataError."""
    entities = {one.name: one for one in declared.all(Entity)}
    if entity not in entities:
        raise UnknownName(f"no entity {entity!r} is declared", available=sorted(entities), hint="name one of these")
    names = entities[entity].keys
    if len(parts) != len(names) or not all(map(_text, parts)):
        raise DataError(f"the key of entity {entity!r} is {', '.join(names)}", hint=f"give {len(names)} of them, in this order")
    columns = [one.keys for name, one in entities.items() if name == entity or name.startswith(f"{entity}.")]  # `on` names the others
    return Key(tuple(map(_text, parts)), tuple(dict.fromkeys(columns)))


def _text(part: object) -> str:
    """A part of a key as the engine spells it."""
    return str(part).lower() if isinstance(part, bool) else "" if part is None else str(part)


def erase(declared: Project, entity: str, key: Key, open_store: Callable[[], OnlineStore], *, now: int, why: str, dry_run: bool) -> Erasure:
    """Erase an entity, or only plan it; nobody is waited for then. Raises Busy, StoreError, and MissingFile before anything has run."""
    declared.ledger(read_only=True).records.close()
    store, datasets = open_store(), declared.all(Dataset)
    try:
        if dry_run:
            ledger = declared.ledger()
            try:
                return Erasure(entity, key, features.plan_erasure(ledger, key, datasets, store))
            finally:
                ledger.records.close()
        with declared.writing("features erase", wait=60) as ledger:
            actions = features.plan_erasure(ledger, key, datasets, store)
            forget_scores(declared)
            return features.apply_erasure(ledger, entity, key, actions, store, at=now, who=user(), why=why)
    finally:
        store.close()
