"""Views that other projects share, as plain data: which there are, in which words are found, and all that is known of one.

The ledgers of their owners are read. One that cannot be reached is told in a warning, unless it is asked about by its name.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tidemill import features
from tidemill.core import MissingFile, Refused, StoreError, TidemillError, UnknownName, show
from tidemill.data import Publication, ingest, publications
from tidemill.features import Chosen, SharedView
from tidemill.ledger import Artifact, Ledger
from tidemill.project import Elsewhere, Project, elsewhere

log = logging.getLogger(__name__)
Plain = dict[str, Any]


@dataclass(frozen=True)
class Offer:
    """A view that another project shares, as it would be declared here, and the version of its dataset."""

    other: Elsewhere
    published: Publication
    view: SharedView
    rows: Artifact

    @property
    def name(self) -> str:
        """What people say: `project/view`."""
        return f"{self.other.name}/{self.published.view}"

    def plain(self, used_as: list[str], now: int) -> Plain:
        """What a list tells of it."""
        view, newest = self.view, self.rows.meta.get("last_known")
        fresh = {"newest": None if newest is None else show(newest), "seconds": None if newest is None else (now - newest) / 1e6}
        about = {"name": self.name, "project": self.other.name, "view": view.theirs, "entity": _entity(view), "used_as": used_as}
        words = {"description": view.description, "owner": view.owner or _owner(self.other), "tags": list(view.tags)}
        rows = {"dataset": self.rows.ref.name, "version": self.rows.ref.version, "recorded": show(self.published.at)}
        return {**about, "features": list(features.made_by(view)), "values": len(view.names), **words, **rows, "freshness": fresh}


def _entity(view: SharedView) -> Plain:
    return {"name": view.entity.name, "key": list(view.entity.keys)}


def _owner(other: Elsewhere) -> str:
    try:
        return other.owner
    except TidemillError:  # it is where it was, and its settings are wrong by now
        return ""


class Offers:
    """The views that the projects of `[shared]` share, at a moment (microseconds UTC)."""

    def __init__(self, declared: Project, now: int) -> None:
        self._declared, self._now = declared, now

    def offered(self, project: str = "") -> list[Plain]:
        """Each view in short, by project and name, of all projects or of one. Raises UnknownName, and of one project StoreError."""
        return [one.plain(self._used_as(one), self._now) for one in self._all(project)]

    def search(self, text: str) -> list[Plain]:
        """Views and features in which words are found, without those that are used here already."""
        found = list[Plain]()
        for one in self._all():
            if not self._used_as(one):
                hits = [hit.plain() for hit in features.search([one.view], text)]
                found += [{**hit, "name": f"{one.other.name}/{hit['name']}", "project": one.other.name} for hit in hits]
        return found

    @contextmanager
    def opened(self, name: str) -> Iterator[tuple[Ledger, Offer, SharedView]]:
        """The ledger of the owner of `project/view`, what it offers, and the view as it is named there. Raises UnknownName."""
        project, _, view = name.partition("/")
        with elsewhere(self._declared.settings, project).opened() as theirs:
            offers = {one.published.view: one for one in _offers(elsewhere(self._declared.settings, project), theirs)}
            if view not in offers:
                raise UnknownName(f"project {project} shares no view {view!r}", available=sorted(offers), hint="`features list --shared`")
            one = offers[view]
            yield theirs, one, replace(one.view, dataset=replace(one.view.dataset, name=one.published.dataset))

    def of(self, view: SharedView) -> Plain:
        """What its owner says of a view that is used here: `version` of its rows, None where it is not told, and why."""
        found: Plain = {"project": view.project, "view": view.theirs, "version": None, "why": ""}
        try:
            with self.opened(f"{view.project}/{view.theirs}") as (_, one, _):
                return found | {"version": one.rows.ref.version, "owner": one.view.owner or _owner(one.other)}
        except TidemillError as error:
            return found | {"owner": view.owner, "why": error.what}

    def _all(self, project: str = "") -> Iterator[Offer]:
        for name in [project] if project else sorted(self._declared.settings.shared):
            other = elsewhere(self._declared.settings, name)
            try:
                with other.opened() as theirs:
                    yield from list(_offers(other, theirs))
            except TidemillError as error:
                if project:
                    raise
                log.warning("project=%s is not reached: %s", name, error.what)

    def _used_as(self, offer: Offer) -> list[str]:
        return [one.name for one in self._used if (one.project, one.theirs) == (offer.other.name, offer.published.view)]

    @cached_property
    def _used(self) -> list[SharedView]:
        with suppress(TidemillError):  # who names a view wrongly looks here for the right one
            return self._declared.all(SharedView)
        return []


def up_to_date(ledger: Ledger, chosen: Sequence[Chosen]) -> list[Chosen]:
    """What is chosen without the views of other projects whose rows cannot be had: each is told in a warning."""
    away = dict[str, TidemillError]()
    for dataset in {one.view.dataset.name: one.view.dataset for one in chosen if one.view.dataset.elsewhere}.values():
        try:
            ingest(ledger, dataset)
        except (MissingFile, Refused, StoreError) as error:
            away[dataset.name] = error
    for one in chosen:
        if one.view.dataset.name in away:
            log.warning("view=%s is left as it is: %s", one.view.name, away[one.view.dataset.name].what)
    return [one for one in chosen if one.view.dataset.name not in away]


def _offers(other: Elsewhere, theirs: Ledger) -> Iterator[Offer]:
    for one in sorted(publications(theirs), key=lambda one: one.view):
        if not one.withdrawn:
            yield Offer(other, one, features.as_declared(one.plain, other, other.where), theirs.artifact(one.rows))
