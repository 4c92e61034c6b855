"""What the log says of an online store that cannot be read: each change once, not with every request."""

import logging

from tidemill.core import Damaged, StoreError

log = logging.getLogger(__name__)


class Outage:
    """What was said of one store. It is away as a whole, and then back; damage of one value is met by those who ask for that value, so it
    counts as there until the store is brought up anew."""

    def __init__(self) -> None:
        self._away = ""
        self._damage: dict[str, object] = {}

    def begin(self, error: StoreError, made: object) -> None:
        """It could not be read; `made` tells apart what it was brought up to."""
        damaged = isinstance(error, Damaged)
        known = self._damage.get(error.what) == (made,) if damaged else self._away == error.what
        if damaged:
            self._damage[error.what] = (made,)
        else:
            self._away = error.what
        if not known:
            log.warning("online_store=%s answered_from=offline error=%s", "damaged" if damaged else "away", error.what)

    def end(self) -> None:
        """It was read."""
        if self._away:
            log.warning("online_store=back answered_from=online")
            self._away = ""
