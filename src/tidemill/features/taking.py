"""The other half of sharing: a view that another project shares, declared here as its owner's ledger describes it.

What was found last is kept in `.tidemill/shared`, a cache: where the owner's ledger cannot be reached, or the view is withdrawn, that is
taken, and a warning says so.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tidemill.core import DefinitionError, TidemillError, Where, caller, odd_name, show
from tidemill.data import SHARED, Check, Dataset, Publication, Source, publications
from tidemill.features.declarations import Entity, FeatureView, from_definition
from tidemill.project import Elsewhere, elsewhere, importing, settings_around

log = logging.getLogger(__name__)
CACHE = "a cache of what another project shares, for when its ledger cannot be reached; it can be deleted"
Plain = Mapping[str, Any]


@dataclass(frozen=True)
class SharedView(FeatureView):
    """A view of another project, over its rows: `project` is what that is named here, `theirs` the view's name there."""

    project: str = field(default="", compare=False, repr=False, kw_only=True)
    theirs: str = field(default="", compare=False, repr=False, kw_only=True)


def shared(project: str, view: str, *, name: str = "", entity: str = "") -> FeatureView:
    """A view that another project shares, to be used like one of this project: over the rows of its owner, as its owner defines it.

    Its dataset is named `project.dataset`. `project` is a name of `[shared]` in the settings; `name` and `entity` are other names for the
    view and its entity here. Raises UnknownName and DefinitionError, and StoreError where the owner's ledger was never reached."""
    where = caller()
    try:
        for problem in (*odd_name("shared project", project), *odd_name("view", view)):
            raise problem
        other = elsewhere(settings_around(*([at] if (at := importing()) else []), Path(where.file), Path.cwd() / "notebook"), project)
        return as_declared(_found(other, view), other, where, name=name, entity=entity)
    except TidemillError as error:
        if not error.where.startswith(where.file):
            error.hint = f"{error.hint} ({error.where})" if error.where and error.hint else error.hint or error.where
            error.where = str(where)
        raise


def as_declared(plain: Plain, other: Elsewhere, where: Where, *, name: str = "", entity: str = "") -> SharedView:
    """A view from what its owner's ledger says of it. Raises DefinitionError for what another version of Tidemill wrote."""
    try:
        return _as_declared(plain, other, where, name, entity)
    except (AttributeError, KeyError, TypeError) as error:
        what = f"what project {other.name} says of a view cannot be read: {error}"
        raise DefinitionError(what, where=str(where), hint="use the Tidemill of its owner here") from error


def _as_declared(plain: Plain, other: Elsewhere, where: Where, name: str, entity: str) -> SharedView:
    said, about, they = plain["definition"], plain["about"], plain["entity"]
    key = they["key"] if len(they["key"]) > 1 else they["key"][0]
    view = from_definition(said)
    assert isinstance(view, FeatureView)
    features = {feature: one.described(about["features"].get(feature, "")) for feature, one in view.columns.items()}
    given: dict[str, Any] = {"windows": view.windows, "ttl": view.ttl, "filter": view.filter, "where": where, **_words(about)}
    whose = Entity(entity or they["name"], key, where=where, **_words(they))
    given |= {"project": other.name, "theirs": view.name}
    return SharedView(name or view.name, _dataset(plain["dataset"], other, where), whose, features, **given)


def _words(plain: Plain) -> dict[str, Any]:
    return {"description": plain["description"], "owner": plain["owner"], "tags": tuple(plain["tags"])}


def _dataset(plain: Plain, other: Elsewhere, where: Where) -> Dataset:
    texts = {name: plain[name] for name in ("event_time", "query", "known_at", "timezone")}
    checks = [Check(**{name: value for name, value in one.items() if name != "type"}, where=where) for one in plain["checks"]]
    source = Source(f"{other.name}/{plain['name']}", SHARED, where=other.where)
    return Dataset(f"{other.name}.{plain['name']}", {other.name: source}, key=tuple(plain["key"]), checks=checks, where=where, **texts)


# ── what the owner says, or said last ───────────────────────────────────────────────────────────────────────────────


def _found(other: Elsewhere, view: str) -> Plain:
    """What the owner's ledger says of a view, or said last. Raises what is wrong where it never said anything here."""
    kept = other.ours.folder / ".tidemill" / "shared" / f"{other.name}.{view}.json"
    before = _read(kept)
    try:
        with other.opened() as theirs:
            now = publications(theirs)
        found = next((one.plain for one in now if one.view == view and not one.withdrawn), None)
        if found is None:
            raise _not_shared(other, view, now)
        found = _over_newest(found, now)
    except TidemillError as error:
        if before is None:
            raise
        log.warning("view=%s/%s as it was shared before: %s", other.name, view, error.what)
        return before
    if found != before:
        _write(kept, found)
    return found


def _over_newest(plain: Plain, now: Sequence[Publication]) -> Plain:
    """What declares a view, its dataset as that was recorded last: several views over one are built one after the other."""
    newest = [one for one in now if one.dataset == plain["dataset"]["name"]][-1]
    return {"definition": plain["definition"], "about": plain["about"], "entity": plain["entity"], "dataset": newest.plain["dataset"]}


def _not_shared(other: Elsewhere, view: str, now: Sequence[Publication]) -> DefinitionError:
    available = sorted(one.view for one in now if not one.withdrawn)
    gone = next((one for one in now if one.view == view), None)
    why = f"has not shared view {view!r} since {show(gone.at)}" if gone else f"shares no view {view!r}"
    hint = f"ask {other.owner or 'its owner'} to declare it with shared=True and build it, or use one that is shared"
    return DefinitionError(f"project {other.name} {why}", available=available, hint=hint)


def _read(kept: Path) -> Plain | None:
    with suppress(OSError, msgspec.DecodeError, KeyError, TypeError):
        return dict(msgspec.json.decode(kept.read_bytes())["view"])
    return None


def _write(kept: Path, plain: Plain) -> None:
    """Keep what was found; where that cannot be, it is looked up again the next time."""
    part = kept.with_suffix(f".{os.getpid()}.part")
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.json.format(msgspec.json.encode({"what": CACHE, "view": plain})))
        part.replace(kept)
