"""All values and events of one entity, erased: first a plan of what there is, then its steps, and a report of what went and what remains.

`plan` only reads. `apply` changes the records in one transaction, then deletes bytes; killed between, the same call again goes on.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, assert_never

import msgspec

from tidemill.core import Damaged, DataError, Event, MissingFile, Ref, Refused, StoreError, UnknownName, show, unpack
from tidemill.data import (
    Dataset,
    Key,
    erase_pushed,
    known_types,
    push_tables,
    pushed,
    pushed_datasets,
    pushed_rows,
    remember,
    rows_in,
    rows_in_files,
    shared_since,
    unfinished,
)
from tidemill.features.declarations import FeatureView, from_definition
from tidemill.features.keys import joined_text
from tidemill.features.online import Mark, OnlineStore, gone_as
from tidemill.features.pushing import Feed
from tidemill.features.saved import KIND as SAVED
from tidemill.ledger import Artifact, Ledger, descendants

TOLD = ("profile", "first_event", "last_event", "last_known")  # of an artifact's meta: what tells of values in it
ROWS = ("dataset", "rows", SAVED)  # kinds that are Parquet files
NEVER_LOOKED_AT = (
    ("predictions", "the loop's own segments of answers name requests by their keys"),
    ("errors", "the text of a step that failed may quote a value"),
    ("processes", "a server or session that has a version open goes on with it: start it again"),
    ("backups", "copies of the project's state are not known here"),
)


IN_USE = "somebody else has it open, so its free pages still hold what was deleted; erase again when it is closed"


@dataclass(frozen=True)
class EraseBytes:
    """Delete the blobs of an artifact, which then says that it was erased; `rows` of it are of the entity, None where others tell so."""

    ref: Ref
    rows: int | None
    blobs: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True)
class ErasePushed:
    """Empty rows of the log of a dataset."""

    dataset: str
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class EraseOnline:
    """Take the state of the entity, as it is called there, out of a space; `whole`: the space itself, for words of categories that lie
    there may be the entity's alone."""

    space: str
    view: str
    entity: str
    whole: bool
    upto: int  # rows that were pushed behind it are new


@dataclass(frozen=True)
class LeaveOut:
    """Leave rows of files, or of another project, out of each later version."""

    dataset: str
    files: tuple[str, ...]
    rows: int
    types: Mapping[str, str]
    theirs: bool = False


@dataclass(frozen=True)
class GoOn:
    """Delete blobs that an erasure which did not come to its end has left."""

    blobs: tuple[str, ...]


@dataclass(frozen=True)
class EraseLines:
    """Delete lines of a log of a deployment (`what`: answers, feedback, shadow). Who knows the logs does it, first."""

    deployment: str
    what: str
    rows: int


@dataclass(frozen=True)
class Stays:
    """What is not erased, and why."""

    what: str
    why: str


Action = EraseBytes | ErasePushed | EraseOnline | EraseLines | LeaveOut | GoOn | Stays


@dataclass(frozen=True)
class Erasure:
    """What was found of an entity, and what became of it. `done`: erased; otherwise this is the plan."""

    entity: str
    key: Key
    actions: Sequence[Action]
    done: bool = False
    at: int = 0
    remains: Sequence[Stays] = field(default=())

    @property
    def found(self) -> bool:
        """Whether there is anything to erase."""
        return any(not isinstance(one, Stays) for one in self.actions)

    @property
    def stays(self) -> list[Stays]:
        """What is not erased."""
        return [*(one for one in self.actions if isinstance(one, Stays)), *self.remains]

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        told = [told_of(one) for one in self.actions if not isinstance(one, Stays)]
        found = [dict(zip(("place", "what", "rows", "outcome"), one, strict=True)) for one in told]
        stays = [{"what": one.what, "why": one.why} for one in self.stays]
        at = show(self.at) if self.done else None
        return {"entity": self.entity, "digest": self.key.digest, "done": self.done, "at": at, "found": found, "stays": stays}

    def __repr__(self) -> str:
        head = f"{self.entity} {', '.join(self.key.parts)}: "
        if not self.found and not self.done:
            return f"{head}nothing found"
        lines = [f"{head}{'erased' if self.done else 'this is there; nothing is erased yet'}"]
        for place, what, rows, outcome in (told_of(one) for one in self.actions if not isinstance(one, Stays)):
            many = "" if rows is None else f"{rows:,} row{'' if rows == 1 else 's'}; "
            lines.append(f"  {place}  {what}: {many}{outcome}")
        return "\n".join([*lines, *(f"  stays  {one.what}: {one.why}" for one in self.stays)])


def told_of(action: Action) -> tuple[str, str, int | None, str]:
    """Place, thing, rows of the entity, and what happens to them."""
    match action:
        case EraseBytes(ref, rows, _, why):
            return "offline", str(ref), rows, why or "its bytes are deleted"
        case ErasePushed(dataset, numbers):
            return "pushed", f"dataset:{dataset}", len(numbers), "emptied in the log, which keeps numbers and offsets"
        case EraseOnline(_, view, _, whole):
            return (
                "online",
                f"view:{view}",
                None,
                "the space is dropped; `tidemill up` or `features materialise` makes it anew" if whole else "its state is deleted",
            )
        case EraseLines(deployment, what, rows):
            return "log", f"{what} of deployment {deployment}", rows, "deleted, in the table and in the files of the log"
        case LeaveOut(dataset, files, rows, _, True):
            stay = "they stay with their owner, who is to be asked; each later version here leaves them out"
            return "elsewhere", f"{', '.join(files)} (dataset:{dataset})", rows, stay
        case LeaveOut(dataset, files, rows):
            return "files", f"{', '.join(files)} (dataset:{dataset})", rows, "they stay in the file, and each later version leaves them out"
        case GoOn(blobs):
            return "offline", f"{len(blobs)} blobs", None, "left by an erasure that was cut off; deleted"
        case Stays(what, why):
            return "stays", what, None, why
        case _:
            assert_never(action)


# ── the plan ────────────────────────────────────────────────────────────────────────────────────────────────────────


def plan_erasure(ledger: Ledger, key: Key, datasets: Sequence[Dataset], store: OnlineStore) -> list[Action]:
    """What there is of an entity: in all versions, in the logs, in the online store, and in the files of declared datasets. Raises
    StoreError where the online store is away."""
    ledger.records.ensure(push_tables)
    artifacts = ledger.artifacts()
    offline = list(_offline(ledger, artifacts, key))
    hit = _sharing(artifacts, {one.ref: one for one in offline if isinstance(one, EraseBytes)})
    left = [blob for one in artifacts if one.erased for blob in one.meta["erased"]["blobs"] if ledger.blobs.has(blob)]
    kept = {blob for one in artifacts for blob in one.meta.get("blobs", {}).values()}
    more = [GoOn(tuple(gone))] if (gone := sorted({*left} - kept)) else []
    stays = [one for one in offline if isinstance(one, Stays)]
    logs = list(_logs(ledger, key))
    datasets_hit = {ref.name for ref in hit if ref.kind == "dataset"} | {one.dataset for one in logs}
    if unfinished(ledger, key):
        datasets_hit |= {one.ref.name for one in artifacts if one.erased and one.ref.kind == "dataset"}
    online = list(_online(ledger, key, store, datasets_hit))
    files = list(_files(datasets, key))
    datasets_hit |= {one.dataset for one in files if isinstance(one, LeaveOut)}
    actions = [*hit.values(), *more, *logs, *online, *files, *stays]
    return [*actions, *_made_from(ledger, list(hit)), *_taken(ledger, datasets_hit)]


def _offline(ledger: Ledger, artifacts: Sequence[Artifact], key: Key) -> Iterator[EraseBytes | Stays]:
    hit = set[str]()
    for one in sorted(artifacts, key=lambda one: one.ref.kind not in ROWS):  # what is made from datasets behind them
        blobs = tuple(sorted(one.meta.get("blobs", {}).values()))
        if one.ref.kind not in (*ROWS, "feature view", "requests") or one.erased or not all(map(ledger.blobs.has, blobs)) or not blobs:
            continue
        try:
            rows = _rows(ledger, one, key, hit)
        except (Damaged, MissingFile) as error:
            yield Stays(str(one.ref), f"it cannot be looked into: {error.what}")
            continue
        if rows:
            hit.add(str(one.ref))
            yield EraseBytes(one.ref, None if rows < 0 else rows, blobs)


def _rows(ledger: Ledger, one: Artifact, key: Key, hit: set[str]) -> int:
    """How many rows of an artifact are of the entity; −1: some."""
    if one.ref.kind in ROWS:
        return rows_in(ledger.blobs.path(one.blob("rows")), key)
    parents = ledger.parents(one.ref)
    some = -1 if hit & {edge.parent for edge in parents} else 0  # rows of the entity, whatever they are looked up by
    if one.ref.kind == "requests":
        return some
    columns = ledger.execution(max(edge.execution for edge in parents)).inputs["definition"]["entity"]
    arrays, meta = unpack(ledger.blobs.get(one.blob("events")))
    text = _called(key, _columns(columns), one)
    if text not in meta["entities"]:
        return some
    return int((arrays["entity"] == meta["entities"].index(text)).sum())


def _called(key: Key, columns: tuple[str, ...], version: Artifact | None) -> str | None:
    """What the entity is called in a view over these columns; None where it cannot be there."""
    types = version.meta.get("types", {}) if version else {}
    parts = key.spelled([types.get(name, "VARCHAR") for name in columns]) if columns in key.columns else None
    return joined_text(parts) if parts else None


def _columns(plain: str | Sequence[str]) -> tuple[str, ...]:
    return (plain,) if isinstance(plain, str) else tuple(plain)


def _sharing(artifacts: Sequence[Artifact], hit: Mapping[Ref, EraseBytes]) -> dict[Ref, EraseBytes]:
    """What is hit, and what has bytes in common with it."""
    found = dict(hit)
    while True:
        gone = {blob for one in found.values() for blob in one.blobs}
        more = [one for one in artifacts if one.ref not in found and gone & set(one.meta.get("blobs", {}).values())]
        if not more:
            return found
        for one in more:
            found[one.ref] = EraseBytes(one.ref, None, tuple(sorted(one.meta["blobs"].values())), "it shares bytes with these; deleted")


def _logs(ledger: Ledger, key: Key) -> Iterator[ErasePushed]:
    for dataset in pushed_datasets(ledger):
        types = {name: kind for name, kind in (known_types(ledger, dataset) or {}).items() if not name.startswith("__")}
        numbers = pushed_rows(ledger, dataset, types, key)
        if numbers:
            yield ErasePushed(dataset, tuple(numbers))


def _online(ledger: Ledger, key: Key, store: OnlineStore, hit: Collection[str]) -> Iterator[EraseOnline]:
    """Spaces with a state of the entity; and those of other entities with rows of it in theirs, from datasets that have such rows."""
    for space, data in store.spaces().items():
        mark = Mark.of(data)
        if mark is None:
            continue
        view = mark.view
        columns, dataset = _columns(view["entity"]), view["dataset"]
        version = ledger.artifact(Ref("feature view", view["name"], "", mark.version)) if mark.version else None
        text, own = _called(key, columns, version), columns in key.columns
        if store.read([(space, [text])])[0][1] != [None] if own and version and text is not None else dataset in hit:
            whole = bool(not own or mark.words or mark.making or not mark.version)
            yield EraseOnline(space, view["name"], text or "", whole, pushed(ledger, dataset).last)


def _files(datasets: Sequence[Dataset], key: Key) -> Iterator[LeaveOut | Stays]:
    for dataset in datasets:
        files = tuple(source.path for source in dataset.sources.values())
        try:
            rows, types = rows_in_files(dataset, key)
        except (DataError, MissingFile, Refused, StoreError, UnknownName) as error:
            yield Stays(f"{', '.join(files)} (dataset:{dataset.name})", f"it cannot be read: {error.what}")
            continue
        if rows:
            yield LeaveOut(dataset.name, files, rows, types, dataset.elsewhere is not None)


def _taken(ledger: Ledger, hit: Collection[str]) -> Iterator[Stays]:
    """What other projects may have taken, by the datasets with rows of the entity."""
    for dataset, views in shared_since(ledger).items():
        if dataset in hit:
            why = f"shared with other projects ({', '.join(views)}): who took its rows erases the entity there too"
            yield Stays(f"dataset:{dataset}", why)


def _made_from(ledger: Ledger, refs: Sequence[Ref]) -> Iterator[Stays]:
    texts = [str(ref) for ref in refs]
    for kind in ("model", "skew report"):
        for ref in sorted({ref for _, ref in descendants(ledger, texts, kind)}) if texts else ():
            yield Stays(ref, "it was made from what is erased, and was not looked at")


# ── the steps ───────────────────────────────────────────────────────────────────────────────────────────────────────


def apply_erasure(
    ledger: Ledger, entity: str, key: Key, actions: Sequence[Action], store: OnlineStore, *, at: int, who: str, why: str
) -> Erasure:
    """Carry a plan out, if there is anything to erase. The project's writer lock must be held."""
    planned = Erasure(entity, key, actions)
    if not planned.found and not unfinished(ledger, key):
        return planned
    shapes = [one.meta["types"] for one in ledger.artifacts() if "types" in one.meta]
    forms = key.forms([*shapes, *(one.types for one in actions if isinstance(one, LeaveOut))])
    with ledger.records.begin() as connection:
        remember(connection, key, forms, at, done=False)
        for one in actions:
            match one:
                case EraseBytes(ref):
                    ledger.erase(connection, ref, at=at, why=why, without=TOLD)
                case ErasePushed(dataset, numbers):
                    erase_pushed(connection, dataset, numbers)
        told = {"digest": key.digest, "columns": key.columns, "found": planned.plain()["found"]}
        ledger.decide(connection, "", at=at, who=who, kind=Event.ERASED, subject=f"entity:{entity}", why=why, evidence=told)
    for blob in chain.from_iterable(one.blobs for one in actions if isinstance(one, EraseBytes | GoOn)):
        ledger.blobs.delete(blob)
    for one in actions:
        if isinstance(one, EraseOnline):
            _take_out(ledger, store, one)
    away = [name for name, purge in (("records", ledger.records.purge), ("online store", store.purge)) if not purge()]
    with ledger.records.begin() as connection:
        remember(connection, key, forms, at, done=not away)
    remains = [Stays(name, IN_USE) for name in away]
    return Erasure(entity, key, actions, True, at, [*remains, *(Stays(*one) for one in NEVER_LOOKED_AT)])


def _take_out(ledger: Ledger, store: OnlineStore, one: EraseOnline) -> None:
    """What was pushed since the log was emptied is new, and stays. Who still reads the version before is told that it is not lost."""
    if one.whole:
        store.drop(one.space)
        return

    def change(data: bytes | None, _: list[bytes | None]) -> tuple[bytes, dict[str, bytes | None]] | None:
        mark = Mark.of(data)
        if mark is None or data is None:
            return None
        view = from_definition(mark.view)
        assert isinstance(view, FeatureView)
        feed = Feed.of(ledger, view, ledger.artifact(Ref("feature view", view.name, "", mark.version)))
        later = feed.rows(feed.between(one.upto, mark.pushed), {}) if mark.pushed > one.upto else {}
        after = msgspec.structs.replace(mark, gone=sorted({*mark.gone, gone_as(one.entity)})) if one.entity not in later else mark
        return after.bytes(), {one.entity: feed.form.added(None, later[one.entity]) if one.entity in later else None}

    store.update(one.space, [one.entity], change)
