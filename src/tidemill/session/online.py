"""The views that are asked online: as they were built last where the online store has them, so that nothing is read but the store."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from tidemill import features
from tidemill.core import Ref, StoreError
from tidemill.features import Chosen, Computed, FeatureView, Looked, OnlineStore, Opened, View, catch_up, open_online, space_of
from tidemill.ledger import Ledger
from tidemill.project import Project
from tidemill.session.catalogue import Past
from tidemill.session.retrieval import opened_views


def online_store(declared: Project) -> OnlineStore:
    """The project's online store; it is a cache, and a folder that is damaged is begun anew."""
    settings = declared.settings
    return open_online(settings.online, prefix=f"tidemill:{settings['project.name']}", gigabytes=settings["store.online_gigabytes"])


def opened_online(
    ledger: Ledger, declared: Project, chosen: Sequence[Chosen], store: OnlineStore
) -> tuple[dict[str, Opened], dict[str, Computed]]:
    """The views that are chosen, for reading online. What is not in the store is built over the newest data: it is answered from there."""
    try:
        spaces = store.spaces()
    except StoreError:  # it is said with the answers, which come from elsewhere
        spaces = {}
    views = {one.view.name: one.view for one in chosen}
    there = [view for view in views.values() if isinstance(view, FeatureView) and space_of(view) in spaces]
    stored = {view.name: found for view in there if (found := opened_as_built(ledger, declared, view))}
    opened, computed = opened_views(ledger, [one for one in chosen if one.view.name not in stored])
    return {name: (stored | opened)[name] for name in views if name not in computed}, computed


def beside(opened: Mapping[str, Opened], ledger: Ledger, store: OnlineStore) -> dict[str, Looked]:
    """Opened views, each beside its space in the store, which is brought up to what was pushed: its server may have begun with an earlier
    copy."""
    looked = {name: Looked.of(one, ledger) for name, one in opened.items()}
    with suppress(StoreError):  # it is said with the answers
        for one in looked.values():
            if one.feed:
                catch_up(store, one.feed)
    return looked


def opened_as_built(ledger: Ledger, declared: Project, view: FeatureView) -> Opened | None:
    """A view as it is declared, in the newest version that was built of it; None where none is. Nothing is built."""
    past = Past(declared, ledger, {}, 0)
    ref = past.built(view)
    artifact = past.artifact(ref) if ref else None
    return Opened(features.load(ledger, view, artifact), types_of(ledger, view), artifact) if artifact else None


def types_of(ledger: Ledger, view: View) -> Mapping[str, str]:
    """The types of the columns of a view's dataset, in its newest version. Raises UnknownName where there is none."""
    types: Mapping[str, str] = ledger.artifact(Ref("dataset", view.dataset.name)).meta["types"]
    return types
