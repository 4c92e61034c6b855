"""How long a model's runs usually take."""


class Pace:
    """The usual nanoseconds of a run: a quick one counts at once, a slow one may be the machine's fault and counts little.

    >>> pace = Pace()
    >>> for run in (50_000, 20_000, 9_000_000):
    ...     pace.note(run)
    >>> pace.usual
    22000.0
    """

    def __init__(self) -> None:
        self.usual = 0.0  # before the first run

    def note(self, run: int) -> None:
        """A run took so many nanoseconds."""
        self.usual = min(run, self.usual * 1.1) or run

    def within(self, most: float) -> bool:
        """Whether a run is known to take no more than so many nanoseconds."""
        return 0 < self.usual <= most
