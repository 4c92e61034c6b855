"""The example of flights: the whole year built in memory, and a spring of it replayed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tidemill import loop, project
from tidemill.core import instant
from tidemill.ledger import Branch, Ledger
from tidemill.loop import Built, Replay, RetrainPolicy
from tidemill.project import Project
from toy import in_memory, with_deployment

EXAMPLE = Path(__file__).parents[2] / "examples" / "flights"
ZONE = "America/New_York"


@dataclass(frozen=True)
class Flights:
    """The example over a ledger in memory."""

    declared: Project
    ledger: Ledger
    built: Built

    @property
    def policy(self) -> RetrainPolicy:
        return self.declared.only(RetrainPolicy)

    def replay(self, start: str, end: str, **deployment: Any) -> Branch:
        """A replay of some days; `deployment` are changes of it."""
        policy = with_deployment(self.policy, **deployment)
        branch, _ = loop.replay(self.ledger, Replay(self.built, policy, instant(start, ZONE), instant(end, ZONE), ZONE))
        return branch


def open_flights(folder: Path) -> Flights:
    """Build the project of a folder."""
    declared, ledger = project.load(folder), in_memory()
    return Flights(declared, ledger, loop.build(ledger, declared.only(RetrainPolicy).monitor.deployment.model.task))


@pytest.fixture(scope="session")
def year() -> Iterator[Flights]:
    """All flights of 2013."""
    found = open_flights(EXAMPLE)
    yield found
    found.ledger.records.close()


@pytest.fixture(scope="session")
def spring(year: Flights) -> Branch:
    """April and the first days of May, replayed."""
    return year.replay("2013-04-01", "2013-05-05")
