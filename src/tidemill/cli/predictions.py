"""`tidemill predictions list`, the hard cases of a log, and `compact`; `tidemill trace`, one answer step by step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from tidemill.cli.console import fitting, lines, out, print_json, progress
from tidemill.cli.exported import write_rows
from tidemill.serving import COLUMNS
from tidemill.session import Session

Plain = Mapping[str, Any]
SHOWN = 20


def list_predictions(folder: str, deployment: str, limit: int | None, export: Path | None, wanted: Plain, *, as_json: bool) -> None:
    """Print answers, or write them to a file. Raises UnknownName, and DataError for a file of no known kind."""
    found = Session(folder).predictions(deployment, **wanted)
    cases = found[: limit or (None if export else SHOWN)]
    if export:
        columns = dict.fromkeys((*COLUMNS, *(name for case in cases for name in case)))
        write_rows(export, [*columns], cases)
    if as_json:
        print_json({"deployment": deployment, "found": len(found), "file": str(export) if export else None, "predictions": cases})
    elif export:
        out.print(f"{len(cases):,} predictions in {export}: fill in `label` (0 or 1), then tidemill feedback add {deployment} {export}")
    elif cases:
        out.print(fitting(lambda left_out: _table(cases, left_out), len(LEFT_OUT)))
        out.print(f"[dim]{len(cases):,} of {len(found):,}; `tidemill trace ID` shows one step by step[/]")
    else:
        out.print("no prediction is one of these")


LEFT_OUT = ("comment", "rung", "version", "why", "label")  # where it is narrow: ids and keys are there to be copied


def _table(cases: list[dict[str, Any]], left_out: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    names = [name for name in ("id", "key", "version", "rung", "probability", "label", "why", "comment") if name not in LEFT_OUT[:left_out]]
    for name in names:
        words = [word for case in cases for word in str(case[name]).split()] if name in ("why", "comment") else []
        folds = bool(words) or (name == "key" and left_out == len(LEFT_OUT))
        right: Any = "right" if name == "probability" else "left"
        width = max(len(name), *map(len, words), 0)
        table.add_column(name, justify=right, no_wrap=not folds, overflow="fold" if folds else "ellipsis", min_width=width)
    for case in cases:
        table.add_row(*(escape(_text(case[name])) for name in names))
    return table


def compact(folder: str, deployment: str, wait: float, *, as_json: bool) -> None:
    """Move the logs into their tables and say what was moved. Raises UnknownName, Busy, StoreError and Damaged."""
    session = Session(folder)
    with progress(quiet=as_json) as bar:
        task = bar.add_task("lines", total=None)
        found = session.compact(deployment, wait=wait, listen=lambda lines: bar.advance(task, lines))
    state = session.project.state / "log"
    if as_json:
        print_json({"folder": str(state / "delta"), "logs": found})
        return
    for one in found:
        if one["rows"] or one["bytes"]:
            rows = f"{one['rows']:,} there now, {one['stored'] / 1e6:,.2f} MB" if one["rows"] else "none there"
            moved = f"{one['what']}: {one['lines']:,} lines moved, {one['bytes'] / 1e6:,.2f} MB; {rows}"
            out.print(f"[bold]{escape(one['deployment'])}[/]  {moved}")
        if one["damaged"]:
            kept = state / "damaged" if one["what"] == "predictions" else state / one["what"] / "damaged"
            out.print(f"  [yellow]{one['damaged']:,} damaged[/], kept in {escape(str(kept))}")
    for what in ("predictions", "feedback"):
        dropped = max((one["dropped"] for one in found if one["what"] == what), default=0)
        if dropped:
            out.print(f"{what}: {dropped:,} rows older than {session.project.settings['serve.log_keep']} deleted")
    if not found:
        out.print("there is no log of answers yet")
        return
    out.print(f"[dim]the tables are in {escape(str(state / 'delta'))}[/]", soft_wrap=True)


def trace(folder: str, prediction: str, *, as_json: bool) -> None:
    """Print one answer step by step. Raises DataError and UnknownName."""
    found = Session(folder).trace(prediction)
    if as_json:
        print_json(found)
        return
    out.print(f"[bold]{escape(found['deployment'])}[/]  {escape(found['id'])}\n")
    out.print(lines(*_request(found)))
    out.print()
    if found["features"]:
        out.print(fitting(lambda left_out: _features(found, left_out), 2))
        out.print()
    out.print(lines(*_model(found)))


def _request(found: Plain) -> list[tuple[str, str]]:
    asked = found["request"]
    took = "" if asked["latency_us"] is None else f", answered in {asked['latency_us']:,} µs"
    told = [("request", escape(f"asked {asked['asked']} by {asked['route'] or 'unknown'}{took}"))]
    told += [("", escape(f"its id at the client {asked['request']}"))] if asked["request"] else []
    told += [("", f"in the trace {asked['trace']}")] if asked["trace"] else []
    told += [("", f"as of {asked['at']}")] if asked["at"] != asked["asked"] else []
    told += [("", escape(f"key {asked['key']}"))] if asked["key"] else []
    told += [("", "it brought its features")] if found["features_from"] == "request" else []
    sent = asked["sent"] or {}
    told += [("", "sent " + escape(", ".join(f"{name} {_text(value)}" for name, value in sent.items())))] if sent else []
    for part, names in found["withheld"].items():
        told.append(("", f"[yellow]withheld[/] of {'features' if part == 'inputs' else 'what was sent'}: {escape(', '.join(names))}"))
    return told


def _features(found: Plain, left_out: int) -> Table:
    """Each feature, its value, what the model saw where that is something else, and where it came from."""
    rows, names = found["features"], ["feature", "value", "view", "version", "status", "from"]
    names.remove("view")
    changed = any(row["seen"] != row["value"] for row in rows)
    names[2:2] = ["model saw"] if changed else []
    names = [name for name in names if name not in ("version", "from")[:left_out]]
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, justify="right" if name in ("value", "model saw") else "left", overflow="fold")
    for row in rows:
        seen = f"[yellow]{escape(_text(row['seen']))}[/]" if row["seen"] != row["value"] else escape(_text(row["value"]))
        status = row["status"] if row["status"] == "present" else f"[yellow]{escape(row['status'])}[/]"
        cells = {"feature": escape(row["name"]), "value": escape(_text(row["value"])), "model saw": seen, "version": row["version"]}
        cells |= {"status": status, "from": row["from"]}
        table.add_row(*(cells[name] for name in names))
    return table


def _model(found: Plain) -> list[tuple[str, str]]:
    told = [("features", f"[yellow]{escape(found['not_kept'])}[/]")] if found["not_kept"] else []
    if found["features_missing"] and not found["features"]:
        told.append(("missing", escape(", ".join(f"{view} {status}" for view, status in found["features_missing"].items()))))
    told += [("", escape(f"{name} {text}")) for name, text in found["unexpected"].items()]
    ref = f"  [dim]{escape(found['model'])}[/]" if found["model"] else ""
    told.append(("model", f"{escape(found['version']) or 'none'}{ref}"))
    again = found["again"]
    equal = "" if again is None else "computed again: equal" if again == found["probability"] else f"[yellow]computed again: {again:g}[/]"
    told.append(("score", f"[bold]{found['probability']:.6g}[/]  {equal}"))
    given = f", first given {found['given_at']}" if found["given_at"] else ", known" if found["cached"] else ""
    told.append(("rung", escape(found["rung"]) + given))
    for one in found["feedback"]:
        label = "" if one["label"] is None else f"label {one['label']}  "
        told.append(("feedback", f"{label}{escape(one['comment'])}  [dim]{one['labelled_at']}[/]"))
    return told if found["feedback"] else [*told, ("feedback", "[dim]none[/]")]


def _text(value: Any) -> str:
    """A value for people.

    >>> _text(None), _text(0.30000000000000004), _text("JFK")
    ('–', '0.3', 'JFK')
    """
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
