"""The commands over answers that were given: `predictions list`, `trace`, `feedback`. What they do is imported when they run."""

from pathlib import Path
from typing import Any

import click

from tidemill.cli.options import with_json


@click.group(short_help="`predictions list`, `compact`: answers of the log, the hard ones first; into their table.")
def predictions() -> None:
    """Answers that were given."""


@predictions.command("list")
@click.argument("deployment")
@click.option("--unsure", type=click.FloatRange(0, 1), default=None, help="Those whose probability is so near to the threshold.")
@click.option("--wrong", is_flag=True, help="Those that a label says otherwise of.")
@click.option("--out-of-range", is_flag=True, help="Those where a feature or the probability was not as expected.")
@click.option("--rung", default="", help="Only those of this rung, for example constant.")
@click.option("--since", default=None, help="Only those asked since then: a date, or a time with its zone.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="From which probability on the answer is yes."
)
@click.option("--limit", type=click.IntRange(1), default=None, help="At most so many. Default: 20; with --export all.")
@click.option(
    "--export", type=click.Path(path_type=Path), default=None, help="Write them to a file (.csv, .parquet, .jsonl), to be labelled."
)
@with_json
@click.pass_obj
def list_predictions(obj: dict[str, Any], /, deployment: str, limit: int | None, export: Path | None, as_json: bool, **wanted: Any) -> None:
    """Answers of DEPLOYMENT: the unsure, the wrong and those out of range, as asked for, the hardest first; without any, the newest."""
    from tidemill.cli.predictions import list_predictions

    list_predictions(obj["folder"], deployment, limit, export, wanted, as_json=as_json)


@predictions.command("compact")
@click.argument("deployment", default="")
@click.option(
    "--wait", type=click.FloatRange(0), default=60, show_default=True, help="Seconds to wait for another process that does the same."
)
@with_json
@click.pass_obj
def compact_predictions(obj: dict[str, Any], deployment: str, wait: float, as_json: bool) -> None:
    """Move the logs of answers and of feedback, of DEPLOYMENT or of all, into their tables (Delta Lake). `tidemill run` does so too, and
    `tidemill up` from time to time."""
    from tidemill.cli.predictions import compact

    compact(obj["folder"], deployment, wait, as_json=as_json)


@click.command(short_help="One answer step by step: request, features, model input, score, rung, feedback.")
@click.argument("prediction")
@with_json
@click.pass_obj
def trace(obj: dict[str, Any], prediction: str, as_json: bool) -> None:
    """One answer step by step, by its id (PREDICTION): request, features and what they were read from, what the model saw, score, rung."""
    from tidemill.cli.predictions import trace

    trace(obj["folder"], prediction, as_json=as_json)


@click.group("feedback", short_help="`feedback add`, `export`: labels and comments on predictions, by their id.")
def feedback() -> None:
    """What people say of predictions: labels and comments by the id of an answer."""


@feedback.command("add")
@click.argument("deployment")
@click.argument("file", type=click.Path(path_type=Path))
@with_json
@click.pass_obj
def add_feedback(obj: dict[str, Any], deployment: str, file: Path, as_json: bool) -> None:
    """Add the labels (0 or 1) and comments of FILE to the answers of DEPLOYMENT: CSV with the columns id, label and comment, or
    JSON, a list or one object on each line. Rows with neither are skipped; of something wrong none is added."""
    from tidemill.cli.feedback import add

    add(obj["folder"], deployment, file, as_json=as_json)


@feedback.command("export")
@click.argument("deployment")
@click.argument("file", type=click.Path(path_type=Path))
@with_json
@click.pass_obj
def export_feedback(obj: dict[str, Any], deployment: str, file: Path, as_json: bool) -> None:
    """Write what was said of the answers of DEPLOYMENT to FILE (.csv, .parquet or .jsonl), one row for each."""
    from tidemill.cli.feedback import export

    export(obj["folder"], deployment, file, as_json=as_json)
