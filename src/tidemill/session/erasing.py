"""One entity of a project erased: what its key is, and where the rows may lie."""

from collections.abc import Callable, Sequence

from tidemill import data, features, serving
from tidemill.core import DataError, UnknownName
from tidemill.data import Dataset, Key
from tidemill.features import Entity, EraseLines, Erasure, OnlineStore
from tidemill.ledger import Ledger, user
from tidemill.project import Project
from tidemill.serving import Deployment
from tidemill.session.answered import log_of
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
    store, datasets, folder = open_store(), declared.all(Dataset), log_of(declared, "any").parent
    try:
        if dry_run:
            ledger = declared.ledger()
            try:
                return Erasure(entity, key, [*features.plan_erasure(ledger, key, datasets, store), *_logged(ledger, declared, key)[0]])
            finally:
                ledger.records.close()
        with declared.writing("features erase", wait=60) as ledger:
            logged, told = _logged(ledger, declared, key)
            actions = [*features.plan_erasure(ledger, key, datasets, store), *logged]
            forget_scores(declared)
            if logged:  # first: the keys of requests are found by the rows that go next
                serving.erase_lines(folder, told, wait=60)
            return features.apply_erasure(ledger, entity, key, actions, store, at=now, who=user(), why=why)
    finally:
        store.close()


def _logged(ledger: Ledger, declared: Project, key: Key) -> tuple[list[EraseLines], dict[str, serving.Told]]:
    """What the logs hold of an entity, and how their lines tell of it."""
    folder = log_of(declared, "any").parent
    requests = {one.name: one.model.task.request for one in declared.all(Deployment)}
    versions = [one for one in ledger.artifacts() if one.ref.kind == "dataset" and not one.erased]
    forms = key.forms([one.meta["types"] for one in versions if "types" in one.meta])
    told = {}
    for name in serving.deployments_in(folder):
        keys = set[str]()
        if name not in requests or requests[name].keys in key.columns:
            keys |= {text for parts in forms if (text := features.joined_text(parts))}
        if name in requests:
            for one in (one for one in versions if one.ref.name == requests[name].name and key.among(one.meta.get("types", ()))):
                keys |= data.texts_in(ledger.blobs.path(one.blob("rows")), features.key_sql(requests[name]), key)
        told[name] = serving.Told(keys, key.columns, forms, serving.secret_of(folder))
    return [EraseLines(one.deployment, one.what, one.rows) for one in serving.lines_of(folder, told)], told
