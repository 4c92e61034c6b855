"""The status page: what is served, which versions there are and why, what was noticed, and where the champion comes from."""

from typing import Any

from tidemill.web.report import icons
from tidemill.web.templates import fill, number, percent

SHOWN = 10  # alerts on the page; all of them are in the ledger


def render_status(status: dict[str, Any]) -> str:
    """The page of one project. Any key of `status` may be missing or None; times are ISO 8601 text and are shown in
    `project.timezone`, or in UTC."""
    return fill(
        "status.html",
        **{name: status.get(name) or {} for name in ("project", "served")},
        deployments=[_deployment(one) for one in status.get("deployments") or []],
        views=status.get("views") or [],
        rungs=_rungs(status.get("served") or {}),
        icons=icons(),
        timezone=(status.get("project") or {}).get("timezone") or "UTC",
        positive=(status.get("project") or {}).get("positive") or "true",
    )


def _newest(rows: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Rows, the newest first; of equal times the one told last first."""
    return sorted(rows or [], key=lambda row: str(row.get("at") or ""))[::-1]


def _verdict(passed: Any) -> tuple[str, str]:
    """A verdict as class and words; the words carry it, the colour helps."""
    return ("good", "✓ passed") if passed is True else ("bad", "✗ refused") if passed is False else ("", "no verdict")


def _share(part: float) -> str:
    """A share of the keys, to a tenth of a percent where that tells more."""
    return percent(part, 0 if abs(part * 100 - round(part * 100)) < 0.05 else 1)


def _deployment(one: dict[str, Any]) -> dict[str, Any]:
    """A deployment with the versions that it knows, each with its role and weight, and what was noticed of it."""
    candidate, weighted = one.get("candidate"), one.get("weighted") or []
    weight = number((candidate or {}).get("weight")) or 0.0
    given = {label: number(part) or 0.0 for label, part in (one.get("shares") or {}).items()}
    roles = [
        ("champion", one.get("champion"), _share(given.get((one.get("champion") or {}).get("label"), 1 - weight))),
        ("candidate", candidate, _share(weight)),
        *(("weighted", version, _share(given.get(version.get("label"), 0.0))) for version in weighted),
        *([("previous", one.get("previous"), "0 %")] if (one.get("previous") or {}).get("label") not in given else []),
    ]
    alerts, retrainings = _newest(one.get("alerts")), _newest(one.get("retrainings"))
    return {
        **one,
        **{name: one.get(name) or {} for name in ("branch", "lineage", "mean", "gain", "cost", "watched", "compared", "isolated")},
        "roles": [{**version, "role": role, "share": share} for role, version, share in roles if version],
        "versions": [{**version, "said": _verdict(version.get("passed"))} for version in _newest(one.get("versions"))],
        "alerts": alerts[:SHOWN],
        "more": max(len(alerts) - SHOWN, 0),
        "retrained": retrainings[0] if retrainings else None,
        "months": one.get("months") or [],
        "waiting": one.get("waiting") or [],
    }


def _rungs(served: dict[str, Any]) -> list[tuple[str, Any, str]]:
    """Answers by the rung of the ladder that gave them: name, count, share; and what else was counted, which has no share."""
    counts, total = served.get("by_rung") or {}, number(served.get("requests")) or 0.0
    shares = {rung: percent((number(count) or 0.0) / total, 1) for rung, count in counts.items() if total and ":" not in str(rung)}
    return [(str(rung), count, shares.get(rung, "")) for rung, count in sorted(counts.items(), key=lambda one: ":" in str(one[0]))]
