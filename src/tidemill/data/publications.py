"""What a project shares with others, as data in its ledger: by view the definition, what is said of it, and the version of the dataset
that it is over. An alias points at the newest record of each view; one that says so withdraws it, and all of before stays.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

from tidemill.core import Ref, UnknownName, canonical, digest_value
from tidemill.ledger import Artifact, Ledger, user

KIND, NEWEST = "shared view", "newest"  # of the artifact, which is the branch of its alias too
WITHDRAWN = {"withdrawn": True}
DECLARED = ("definition", "about", "entity", "dataset")
MEANS = ("event_time", "known_at", "timezone", "query", "key")  # of a dataset's definition: which rows it has, and when


@dataclass(frozen=True)
class Publication:
    """A view that is shared since `at` (microseconds UTC) as `plain` says: `definition`, `about`, `entity`, `dataset` (its definition),
    `rows` and `version`: what the dataset and the view gave, as refs in text."""

    view: str
    at: int
    plain: Mapping[str, Any]

    @property
    def withdrawn(self) -> bool:
        """Whether it is shared no longer."""
        return "withdrawn" in self.plain

    @property
    def dataset(self) -> str:
        """The dataset that it is over; empty where it is withdrawn."""
        return "" if self.withdrawn else str(self.plain["dataset"]["name"])

    @property
    def rows(self) -> Ref:
        """The version of its dataset."""
        return Ref.parse(self.plain["rows"])

    def says(self, plain: Mapping[str, Any]) -> bool:
        """Whether it is declared so, whatever versions it has."""
        return all(self.plain.get(name) == msgspec.json.decode(canonical(plain[name])) for name in DECLARED)

    def means(self, dataset: Mapping[str, Any]) -> bool:
        """Whether its dataset has the same rows as one that is defined so."""
        return all(self.plain["dataset"][name] == dataset[name] for name in MEANS)


def publish(ledger: Ledger, view: str, plain: Mapping[str, Any], why: str) -> None:
    """Record what is shared of a view, if that is not what was recorded last."""
    ref = Ref.of(KIND, view, digest_value(plain))
    if ledger.alias(KIND, view, NEWEST) == ref:
        return
    ledger.put_artifact(Artifact(ref, dict(plain)))
    with ledger.records.begin() as connection:
        ledger.set_alias(connection, KIND, view, NEWEST, ref, at=ledger.wall(), who=user(), why=why)


def withdraw(ledger: Ledger, view: str, why: str) -> None:
    """Record that a view is shared no longer."""
    publish(ledger, view, WITHDRAWN, why)


def publications(ledger: Ledger, view: str = "") -> list[Publication]:
    """All views that are or were shared, or one, as they are now, those that were recorded last at the end."""
    return [_publication(ledger, ref, at) for ref, at in ledger.aliased(KIND, NEWEST, view)]


def published_before(ledger: Ledger, view: str) -> Iterator[Publication]:
    """All records of a view, the newest first."""
    for ref, at, _ in reversed(ledger.alias_history(KIND, view, NEWEST)):
        yield _publication(ledger, ref, at)


def shared_since(ledger: Ledger) -> dict[str, list[str]]:
    """By dataset the views over it that are or were shared: others may have taken its rows."""
    found = dict[str, set[str]]()
    for view in {ref.name for ref, _ in ledger.aliased(KIND, NEWEST)}:
        for one in published_before(ledger, view):
            found.setdefault(one.dataset, set()).add(view)
    return {dataset: sorted(views) for dataset, views in found.items() if dataset}


def shared_rows(ledger: Ledger, dataset: str, definition: Mapping[str, Any]) -> Publication | None:
    """The newest publication of a dataset's rows as it is defined, though another definition be shared by now. None where no view over it
    is shared any more. Raises UnknownName where none ever was over rows of this definition."""
    now = [one for one in reversed(publications(ledger)) if one.dataset == dataset]
    before = (one for view in now for one in published_before(ledger, view.view) if one.dataset == dataset)
    found = next((one for one in chain(now, before) if one.means(definition)), None)
    if now and found is None:
        raise UnknownName(f"no view over dataset {dataset!r} as it is defined here is shared")
    return found


def _publication(ledger: Ledger, ref: Ref, at: int) -> Publication:
    return Publication(ref.name, at, ledger.artifact(ref).meta)
