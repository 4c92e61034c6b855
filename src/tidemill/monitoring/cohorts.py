"""Cohorts by day of event, and when one can be counted. Late labels belong to late things: a fresh day looks too good."""

from dataclasses import dataclass
from datetime import date

import numpy as np

from tidemill.core import DAY, Bools, Floats, Instants, Ints, midnights, moment


def local_days(at: Instants, timezone: str) -> Ints:
    """The local day (proleptic ordinal, as `date.toordinal`) of each instant (n,)."""
    if not len(at):
        return np.empty(0, dtype=np.int64)
    low, high = int(at.min()), int(at.max())
    edges = np.array(midnights(low - 2 * DAY, high + 2 * DAY, timezone)[:-1])
    first = moment(int(edges[0]), timezone).date().toordinal()
    return np.asarray(first + np.searchsorted(edges, at, side="right") - 1, dtype=np.int64)


def months_of(days: Ints) -> list[str]:
    """The month of each ordinal day, as 2013-04."""
    return [date.fromordinal(int(day)).strftime("%Y-%m") for day in days]


@dataclass(frozen=True)
class Cohorts:
    """Days (d,) with the number of requests, how many are resolved (labelled, or known to get no label), and which are mature."""

    days: Ints
    rows: Ints
    resolved: Ints
    mature: Bools


def cohorts(days: Ints, resolved: Instants, now: int, maturity: float) -> Cohorts:
    """Cohorts of requests with event days (n,) and resolution times (n,), as seen at `now`."""
    found, codes = np.unique(days, return_inverse=True)
    rows = np.bincount(codes, minlength=len(found))
    done = np.bincount(codes, weights=(resolved <= now).astype(np.float64), minlength=len(found)).astype(np.int64)
    return Cohorts(found, rows, done, done >= maturity * rows)


def mature_rows(days: Ints, label: Floats, resolved: Instants, now: int, maturity: float) -> Bools:
    """Labelled rows (n,) whose label is known at `now` and whose day is mature."""
    seen = cohorts(days, resolved, now, maturity)
    whole = seen.mature[np.searchsorted(seen.days, days)] if len(days) else np.empty(0, dtype=bool)
    return whole & (resolved <= now) & ~np.isnan(label)
