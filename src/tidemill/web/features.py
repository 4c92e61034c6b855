"""The views that the gateway gives by entity keys: those that the project declares, and those that serve."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock

from tidemill import features
from tidemill.core import MissingFile, Ref, StoreError, UnknownName, definition
from tidemill.features import Computed, FeatureView, Getter, Looked, OnlineStore, Opened, RequestView, View
from tidemill.serving import Endpoint
from tidemill.session import Session, opened_as_built, types_of

KEPT = 200  # that are prepared


class Getters:
    """What answers for views, opened on first use. Nothing is built: what was built last is read."""

    def __init__(self, session: Session, store: OnlineStore, endpoints: Mapping[str, Endpoint], clock: Callable[[], int]) -> None:
        self._session, self._store, self._endpoints, self._clock = session, store, endpoints, clock
        self._kept, self._opened, self._lock = dict[tuple[str, ...], Getter](), dict[str, Looked](), Lock()
        self._tried = dict[str, str]()  # the version of which a space was when it was opened anew

    def prepared(self, views: tuple[str, ...]) -> Getter | None:
        """What was opened before for some views, unless the store holds other versions of them now."""
        found = self._kept.get(views)
        return None if found and any(map(self._is_past, found.looked.values())) else found

    def open(self, views: tuple[str, ...]) -> Getter:
        """What answers for some views. Raises UnknownName, DefinitionError, and StoreError for a view that was never built."""
        with self._lock:
            chosen = features.choose(views, self._known())
            looked, computed = dict[str, Looked](), dict[str, Computed]()
            for view in {one.view.name: one.view for one in chosen}.values():
                if isinstance(view, RequestView):
                    ledger = self._session.ledger
                    computed[view.name] = Computed.of(features.bound(ledger, view), self._types(view))
                else:
                    looked[view.name] = self._looked(view)
            self._opened |= looked
            if len(self._kept) >= KEPT:
                self._kept.clear()
            found = Getter(chosen, looked, computed, self._store, self._clock, self._session.project.timezone)
            self._kept[views] = found
            return found

    def forget(self) -> None:
        """Open all anew: something newer serves."""
        with self._lock:
            self._kept.clear()
            self._opened.clear()
            self._tried.clear()

    def _known(self) -> dict[str, View]:
        """The views by name; one that is declared before one that serves."""
        served: list[View] = [view for endpoint in self._endpoints.values() for view in endpoint.reader.views]
        declared: list[View] = [*self._session.project.all(FeatureView), *self._session.project.all(RequestView)]
        return {view.name: view for view in [*served, *declared]}

    def _types(self, view: RequestView) -> Mapping[str, str]:
        try:
            return types_of(self._session.ledger, view)
        except UnknownName:
            raise _not_built(view) from None

    def _is_past(self, one: Looked) -> bool:
        """Whether the store holds another version than is open, and it was not tried to open that."""
        return one.made[0] not in ("", one.version, self._tried.get(one.space))

    def _looked(self, view: FeatureView) -> Looked:
        """A view as it was opened before, or where the store holds another version by now, in that."""
        before = self._opened.get(view.name)
        if before is None:
            return self._open(view)
        if not self._is_past(before):
            return before
        self._tried[before.space] = before.made[0]
        return self._of_version(view, before.made[0]) or self._open(view)

    def _of_version(self, view: FeatureView, version: str) -> Looked | None:
        """A view in a version; None where that cannot be read."""
        ledger = self._session.ledger
        with suppress(UnknownName, MissingFile, StoreError):
            artifact = ledger.artifact(Ref("feature view", view.name, "", version))
            return Looked.of(Opened(features.load(ledger, view, artifact), types_of(ledger, view), artifact), ledger)
        return None

    def _open(self, view: FeatureView) -> Looked:
        """A view as it serves, where that is as it is declared; else as it was built last."""
        served = [one for endpoint in self._endpoints.values() for one in endpoint.reader.looked.values()]
        serves = next((one for one in served if definition(one.view) == definition(view)), None)
        ledger = self._session.ledger
        if serves:
            return Looked(serves.log, serves.version, types_of(ledger, view), serves.feed)
        found = opened_as_built(ledger, self._session.project, view)
        if found is None:
            raise _not_built(view)
        return Looked.of(found, ledger)


def _not_built(view: View) -> StoreError:
    hint = f"run `tidemill features materialise {view.name}`"
    return StoreError(f"view {view.name!r} is declared and not built yet", where=str(view.where), hint=hint)
