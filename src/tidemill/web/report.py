"""The report of a replay: its result in, one self-contained HTML page out.

`result` is what `tidemill.loop` found (months, mean, gain, daily, calibration, events, cost, maturity). The page loads nothing, runs no
script, and escapes all text of the data.
"""

from collections import Counter
from typing import Any

from markupsafe import Markup

from tidemill.core import Event
from tidemill.web.templates import figure, fill, number, percent, plots, signed

WIDE, NARROW = 900, 340  # each plot is drawn for a desk and for a telephone; the style shows one of them


def render_report(result: dict[str, Any], *, project: dict[str, str], policy: str, model: str, timezone: str) -> str:
    """The page of one replay.

    `project` may hold `name`, `objective`, `owner`, and `positive`: the word for rows of the positive class. `timezone` is that
    of the months and days.
    """
    positive = project.get("positive") or "true"
    events = result.get("events") or []
    cost = result.get("cost") or {}
    return fill(
        "report.html",
        **{name: result.get(name) for name in ("months", "mean", "champion")},
        **_plots(result, events, positive, timezone),
        project=project,
        policy=policy,
        model=model,
        timezone=timezone,
        positive=positive,
        period=_period(result),
        headline=headline(result),
        tiles=tiles(result),
        maturity=_maturity(result.get("maturity") or {}),
        happened=_happened(events),
        events=events,
        cost=cost,
        each=_each(cost),
        icons=icons(),
    )


def icons() -> dict[str, Markup]:
    """The mark of each kind of event, as in the plots."""
    shapes = {kind: plots.mark(shape, 7, 7, f"mark {class_}") for kind, (class_, shape) in plots.KINDS.items()}
    return {kind: plots.tag("svg", shape, viewBox="0 0 14 14", aria_hidden="true") for kind, shape in shapes.items()}


def headline(result: dict[str, Any]) -> str:
    """What the loop gained, in one line that says no more than the interval does.

    >>> both = {"frozen": {"roc_auc": 0.707}, "loop": {"roc_auc": 0.723}}
    >>> headline({"mean": both, "gain": {"roc_auc": {"estimate": 0.016, "low": -0.001, "high": 0.02}}})
    'No sure difference between the loop and the frozen model: mean monthly ROC AUC 0.707 → 0.723'
    """
    frozen, loop = (_mean(result, who, "roc_auc") for who in plots.WHO)
    if number(frozen) is None or number(loop) is None:
        return "Nothing to compare yet: no month has labelled rows of both classes"
    gain = _gain(result, "roc_auc")
    low, high = number(gain.get("low")), number(gain.get("high"))
    if low is not None and low > 0:
        said = "The model in the loop beats the same model left alone"
    elif high is not None and high < 0:
        said = "The model left alone beats the model in the loop"
    else:
        said = "No sure difference between the loop and the frozen model"
    return f"{said}: mean monthly ROC AUC {figure(frozen)} → {figure(loop)}"


def tiles(result: dict[str, Any]) -> list[dict[str, str]]:
    """The headline figures: name, before, now, gain with its interval, and what the figure means."""
    both = [
        _tile(result, "ROC AUC", "roc_auc", "Ranking, higher is better. Unweighted mean of the months."),
        _tile(
            result,
            "Log loss",
            "log_loss",
            "Price of wrong probabilities, lower is better. Mean of the months; the difference is over all rows.",
        ),
        _tile(
            result,
            "Calibration error",
            "calibration_error",
            "Mean distance of predicted from observed share, lower is better. No interval.",
        ),
    ]
    moves = Counter(event.get("kind") for event in result.get("events") or [])
    cost = result.get("cost") or {}
    work = number(cost.get("row_rounds"))
    price = {
        "name": "Price",
        "now": f"{figure(cost.get('trainings'), 0)} trainings",
        "gain": "" if work is None else f"{figure(work / 1e6, 1)} million row-rounds",
        "means": f"{moves['promoted']} promoted, {moves['gate refused']} refused by a gate, {moves['rolled back']} rolled back.",
    }
    return [*both, price]


def _tile(result: dict[str, Any], name: str, metric: str, means: str) -> dict[str, str]:
    frozen, loop = (_mean(result, who, metric) for who in plots.WHO)
    return {"name": name, "before": figure(frozen), "now": figure(loop), **_difference(result, metric), "means": means}


def _difference(result: dict[str, Any], metric: str) -> dict[str, str]:
    """The difference loop − frozen, and its interval. A gain in log loss is a lower one, so its signs turn."""
    gain = _gain(result, metric)
    found = [number(gain.get(edge)) for edge in ("estimate", "low", "high")]
    if None in found:
        return {}
    estimate, low, high = ((-value if metric == "log_loss" else value) for value in found if value is not None)
    low, high = min(low, high), max(low, high)
    return {"gain": signed(estimate), "interval": f"{signed(low)} to {signed(high)}"}


def _gain(result: dict[str, Any], metric: str) -> dict[str, Any]:
    return (result.get("gain") or {}).get(metric) or {}


def _mean(result: dict[str, Any], who: str, metric: str) -> Any:
    return ((result.get("mean") or {}).get(who) or {}).get(metric)


def _period(result: dict[str, Any]) -> str:
    months = [str(row.get("month")) for row in result.get("months") or []]
    return "" if not months else months[0] if len(months) == 1 else f"{months[0]} to {months[-1]}"


def _maturity(maturity: dict[str, Any]) -> str:
    days, mature = number(maturity.get("days")), number(maturity.get("mature"))
    if not days or mature is None:
        return ""
    late = " Rows whose label takes long may differ from the rest, so read days that are not mature with care." if mature < days else ""
    return f"{mature:.0f} of {days:.0f} days are mature ({percent(mature / days, 1)}): nearly all of their labels are in.{late}"


def _happened(events: list[dict[str, Any]]) -> str:
    counts = Counter(str(event.get("kind")) for event in events)
    if not counts:
        return "Nothing: no drift was found, no quality drop, and nothing was retrained."
    return "Counted: " + ", ".join(f"{kind} {count}" for kind, count in counts.most_common()) + "."


def _each(cost: dict[str, Any]) -> float | None:
    trainings, work = number(cost.get("trainings")), number(cost.get("row_rounds"))
    return work / trainings if trainings and work is not None else None


def _plots(result: dict[str, Any], events: list[dict[str, Any]], positive: str, timezone: str) -> dict[str, Any]:
    """Every plot in both widths, with its legend."""
    span = plots.span_of(result)
    daily, curves = result.get("daily") or [], result.get("calibration") or {}
    months = {**result, "months": result.get("months") or []}
    kinds = {event.get("kind") for event in events}
    moved: dict[str, str] = {kind: kind for kind in (Event.PROMOTED, Event.ROLLED_BACK) if kind in kinds}
    lines = {name: who for who, name in plots.WHO.items()}
    both = (WIDE, NARROW)
    return {
        "auc": [plots.auc_plot(months, span, timezone, width) if span else "" for width in both],
        "loss": [plots.loss_plot(daily, span, positive, width) if span else "" for width in both],
        "calibration": [plots.calibration_plot(curves, positive, width) for width in (560, NARROW)],
        "timeline": [plots.timeline(events, span, timezone, width) if span else "" for width in both],
        "legends": {
            "auc": plots.legend({**lines, **moved}),
            "loss": plots.legend({**lines, f"share {positive}": "shade"}),
            "calibration": plots.legend({**lines, "predictions mean what they say": "ideal"}),
        },
    }
