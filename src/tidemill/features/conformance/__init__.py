"""Point-in-time cases for any feature store: what was known about an entity at a row's time, worked by hand.

Comes in: an adapter, a class with the four methods of `Store`. Goes out: what each case gave. Nothing here knows Tidemill's own store.

    python -m tidemill.features.conformance my_module:MyStore
"""

from tidemill.features.conformance.cases import CASES
from tidemill.features.conformance.check import Outcome, Store, check, random_cases, run
from tidemill.features.conformance.values import Case, History, View, expected

__all__ = ["CASES", "Case", "History", "Outcome", "Store", "View", "check", "expected", "random_cases", "run"]
