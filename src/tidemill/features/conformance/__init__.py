"""Cases for any feature store, worked by hand: what was known about an entity at a row's time, and what its online half answers.

Comes in: an adapter, a class with the four methods of `Store`, or with the six of `Online`. Goes out: what each case gave. Nothing here
knows Tidemill's own store.

    python -m tidemill.features.conformance my_module:MyStore [--online]
"""

from tidemill.features.conformance.cases import CASES
from tidemill.features.conformance.check import Cannot, Online, Outcome, Store, check, check_online, random_cases, run, run_probe
from tidemill.features.conformance.probes import PROBES, Ask, Materialise, Probe, Push
from tidemill.features.conformance.values import Case, History, View, expected

__all__ = [
    "CASES",
    "PROBES",
    "Ask",
    "Cannot",
    "Case",
    "History",
    "Materialise",
    "Online",
    "Outcome",
    "Probe",
    "Push",
    "Store",
    "View",
    "check",
    "check_online",
    "expected",
    "random_cases",
    "run",
    "run_probe",
]
