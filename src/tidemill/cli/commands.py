"""The commands with their arguments and options. What a command does is imported when it runs, so that its help comes at once."""

from pathlib import Path
from typing import Any, BinaryIO

import click

from tidemill import __version__
from tidemill.cli.answers import feedback, predictions, trace
from tidemill.cli.options import with_json, with_workers


class Ordered(click.Group):
    """Lists its commands as they stand in this file, in the order of a project's life; click would go by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Ordered, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tidemill")
@click.option("-C", "--folder", default=".", show_default=True, help="The project's folder.")
@click.option("-v", "--verbose", is_flag=True, help="Say everything: show tracebacks; a server logs each request.")
@click.pass_context
def tidemill(ctx: click.Context, folder: str, verbose: bool) -> None:
    """Tidemill closes the MLOps loop: data, features, training, gates, deployment, monitoring, retraining."""
    ctx.obj = {"folder": folder, "verbose": verbose}


@tidemill.command(short_help="Make a project from a CSV file: trained, gated, ready to serve.")
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--into", type=click.Path(path_type=Path), default=None, help="Folder of the project. Default: the file's name without ending."
)
@click.option("--label", default=None, help="What to predict: a column with two values, or an SQL expression such as 'amount > 100'.")
@click.option("--time", default=None, help="The column with the time of the request: when a prediction would be asked.")
@click.option("--label-known", "known", default=None, help="When the label is known: a column with that time, or a time later such as 7d.")
@click.option("--key", "keys", multiple=True, help="The column that names a row; several make one key; '' for none: rows are numbered.")
@click.option("--timezone", default="UTC", show_default=True, help="The zone of times that state none.")
@click.option(
    "--null", multiple=True, help="A text that stands for nothing, besides NA, N/A, null, NaN, - and ?; may be given several times."
)
@click.option("--yes", is_flag=True, help="Take the guesses; ask nothing.")
@with_json
@click.pass_obj
def init(obj: dict[str, Any], /, data: Path, into: Path | None, as_json: bool, **given: Any) -> None:
    """Make a project from the CSV file DATA: declarations to go on editing, a trained and gated model, and what to do next."""
    from tidemill.cli.init import Given, init

    init(Path(obj["folder"]) / (into or data.name.split(".")[0]), data, Given(**given), as_json=as_json)


@tidemill.command(short_help="One pass of the loop: build, train, gate, promote; says what was cached and why the rest ran.")
@click.option("--deployment", default="", help="Which deployment, where the project has several.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as one object.")
@click.pass_obj
def run(obj: dict[str, Any], deployment: str, as_json: bool) -> None:
    """One pass of the loop at this moment: build, train if there is a reason, gate, promote."""
    from tidemill.cli import start

    start.run(obj["folder"], deployment, as_json=as_json)


@tidemill.command(short_help="Replay the past: a model kept in the loop against the same model left alone.")
@click.option("--deployment", default="", help="Which deployment, where the project has several.")
@with_json
@click.pass_obj
def replay(obj: dict[str, Any], deployment: str, as_json: bool) -> None:
    """Replay the past: the model in the loop against the same model left alone."""
    from tidemill.cli import history

    history.replay(obj["folder"], deployment, as_json=as_json, whole=obj["verbose"])


@tidemill.group(short_help="`policy compare`: replay the same history under several policies.")
def policy() -> None:
    """Retraining policies."""


@policy.command()
@with_json
@click.pass_obj
def compare(obj: dict[str, Any], as_json: bool) -> None:
    """Replay the same history under several policies and models; what is each worth? What serves is not touched."""
    from tidemill.cli import history

    history.compare(obj["folder"], as_json=as_json)


@tidemill.command(short_help="Serve the champion and the status page.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Port; 0 takes a free one. Default: serve.port.")
@click.option(
    "--grpc-port", type=click.IntRange(0, 65535), default=None, help="Port of gRPC; 0 takes a free one. Default: serve.grpc_port."
)
@with_workers("serve.workers")
@click.option("--json", "as_json", is_flag=True, help="Print the address as one object.")
@click.pass_obj
def up(obj: dict[str, Any], port: int | None, grpc_port: int | None, workers: int | str | None, as_json: bool) -> None:
    """Serve the champion and the status page until Ctrl-C."""
    from tidemill.cli.serve import up

    up(obj["folder"], port, grpc_port, workers, as_json=as_json, access=obj["verbose"])


@tidemill.command(short_help="Answer many rows into a Parquet file by what serves: resumable, and only what is new.")
@click.argument("deployment")
@click.argument("rows")
@click.option("--to", required=True, type=click.Path(path_type=Path), help="The Parquet file to write.")
@click.option("--at", default="", help="A column of times, one time or date, or 'now'. Default: each row's prediction time, at most now.")
@click.option(
    "--by", type=click.Choice(["key", "columns", "features"]), default=None, help="What rows ask by, where several could be meant."
)
@click.option("--version", default="", help="The version that answers alone (boosted/3). Default: as a request is answered.")
@click.option("--chunk", type=click.IntRange(0), default=0, help="How many rows are held at once. Default: as many as fit well.")
@click.option("--explain", is_flag=True, help="Add a column for each feature.")
@click.option("--keep-going", is_flag=True, help="Write null and the reason for a row that cannot be answered.")
@click.option("--timezone", default="", help="The zone of times that state none; without it they are refused.")
@with_json
@click.pass_obj
def score(obj: dict[str, Any], /, deployment: str, as_json: bool, **given: Any) -> None:
    """Answer ROWS (a .parquet or .csv file, or dataset:NAME) by DEPLOYMENT, as requests are answered, one row out for each row in."""
    from tidemill.cli.score import score

    score(obj["folder"], deployment, as_json=as_json, **given)


@tidemill.command(short_help="Serve an ONNX file, or a registered version, by the Open Inference Protocol.")
@click.argument("model")
@click.option("--name", default="", help="What the model is called. Default: the name of the file, or of the registered model.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to bind.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 takes a free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=None, help="Serve over gRPC too, at this port; 0 takes a free one.")
@click.option(
    "--cache", default="", metavar="SIZE", help="Keep so much of answers to say them again to equal tensors: 64MB. Default: none."
)
@click.option(
    "--log", default=None, type=click.Path(path_type=Path), help="Write each request with its answer to NAME.jsonl in this folder."
)
@click.option("--deadline", default="60s", show_default=True, help="The most that an answer may take; then it is 504.")
@with_workers("1", 1)
@click.option("--json", "as_json", is_flag=True, help="Print the address as one object.")
@click.pass_obj
def serve(obj: dict[str, Any], /, model: str, name: str, host: str, port: int, as_json: bool, **given: Any) -> None:
    """Serve MODEL until Ctrl-C: an ONNX file, or a registered version of the project (late@champion, models:/late/3)."""
    from tidemill.cli.bare import serve_model

    serve_model(obj["folder"], model, name, host, port, as_json=as_json, access=obj["verbose"], **given)


@tidemill.command(short_help="Track experiments and register models: MLflow's clients work unchanged.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to bind.")
@click.option("--port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="Port; 0 takes a free one.")
@click.option("--home", type=click.Path(path_type=Path), default=None, help="The project's folder; made when it is not there.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as one object.")
@click.pass_obj
def server(obj: dict[str, Any], host: str, port: int, home: Path | None, as_json: bool) -> None:
    """Speak MLflow's tracking and registry protocol over a project until Ctrl-C."""
    from tidemill.cli.server import server

    server(home or Path(obj["folder"]), host, port, as_json=as_json)


@tidemill.group(short_help="Runs: list, show, compare side by side, diff of code and environment.")
def runs() -> None:
    """Runs of every experiment: the loop's, and those of any client."""


@runs.command("list")
@click.argument("text", metavar="[FILTER]", required=False, default="")
@click.option("--experiment", "experiments", multiple=True, help="Only this experiment; may be given again.")
@click.option("--order-by", "order_by", multiple=True, help="For example 'metrics.auc DESC'; may be given again. Default: newest first.")
@click.option("--limit", type=click.IntRange(1), default=25, show_default=True, help="How many at most.")
@with_json
@click.pass_obj
def list_(obj: dict[str, Any], text: str, experiments: tuple[str, ...], order_by: tuple[str, ...], limit: int, as_json: bool) -> None:
    """The runs that FILTER leaves, for example "metrics.auc > 0.7 and params.depth = '3'"."""
    from tidemill.cli.runs import list_runs

    list_runs(obj["folder"], text, experiments, order_by, limit, as_json=as_json)


@runs.command()
@click.argument("run")
@with_json
@click.pass_obj
def show(obj: dict[str, Any], run: str, as_json: bool) -> None:
    """What RUN (an id, the beginning of one, or a name) has logged."""
    from tidemill.cli.runs import show_run

    show_run(obj["folder"], run, as_json=as_json)


@runs.command("compare")
@click.argument("names", metavar="RUNS", nargs=-1, required=True)
@click.option("--html", type=click.Path(path_type=Path), default=None, help="Write a page: differences, curves, diff of the code.")
@with_json
@click.pass_obj
def compare_runs(obj: dict[str, Any], names: tuple[str, ...], html: Path | None, as_json: bool) -> None:
    """RUNS (two or more) side by side, with only what differs."""
    from tidemill.cli.runs import compare

    compare(obj["folder"], names, html, as_json=as_json)


@runs.command("diff")
@click.argument("one")
@click.argument("two")
@with_json
@click.pass_obj
def diff_runs(obj: dict[str, Any], one: str, two: str, as_json: bool) -> None:
    """What differs in the code and the environment from run ONE to run TWO."""
    from tidemill.cli.runs import diff

    diff(obj["folder"], one, two, as_json=as_json)


@tidemill.command(short_help="Send what runs have logged and no server or project has taken yet.")
@click.argument("spools", nargs=-1, type=click.Path(path_type=Path))
@click.option("--to", default="", help="A server's address or a project's folder, in place of where the runs wanted to go.")
@click.option("--again", is_flag=True, help="Also what lies aside because it was refused or damaged.")
@with_json
@click.pass_obj
def sync(obj: dict[str, Any], spools: tuple[Path, ...], to: str, again: bool, as_json: bool) -> None:
    """Send the segments that wait in SPOOLS (folders); by default in the project's state and in the user's. Exits with 1 when some stay."""
    from tidemill.cli.sync import sync

    if not sync(obj["folder"], spools, to, again=again, as_json=as_json):
        raise SystemExit(1)


@tidemill.command()
@with_json
@click.pass_obj
def status(obj: dict[str, Any], as_json: bool) -> None:
    """Deployments, versions, alerts, the last retraining."""
    from tidemill.cli import show

    show.status(obj["folder"], as_json=as_json, whole=obj["verbose"])


@tidemill.command(short_help="The way back from a prediction, a version or a dataset to its sources.")
@click.argument("ref")
@click.option("--forward", is_flag=True, help="What was made from it instead, down to deployments and monitors.")
@with_json
@click.pass_obj
def lineage(obj: dict[str, Any], ref: str, forward: bool, as_json: bool) -> None:
    """The way back from REF: prediction:KEY or prediction:DEPLOYMENT/KEY, a deployment, a version such as boosted/3, models:/NAME@ALIAS, or
    kind:name@version."""
    from tidemill.cli import show

    show.lineage(obj["folder"], ref, forward=forward, as_json=as_json)


@tidemill.command(short_help="Why a version serves, a candidate was refused, or a step ran.")
@click.argument("what", required=False, default="")
@with_json
@click.pass_obj
def why(obj: dict[str, Any], what: str, as_json: bool) -> None:
    """Why a version serves or was refused (WHAT: a version), or why each step ran the last time (no WHAT, or its name)."""
    from tidemill.cli import show

    show.why(obj["folder"], what, as_json=as_json)


@tidemill.group(short_help="`models list`, `show`, `history`, `diff`, `adopt`: registered models and what differs between versions.")
def models() -> None:
    """Registered models: those of the loop and those that MLflow's clients registered."""


@models.command("list")
@with_json
@click.pass_obj
def list_models(obj: dict[str, Any], as_json: bool) -> None:
    """Registered models with their newest version and their aliases."""
    from tidemill.cli import models

    models.list_models(obj["folder"], as_json=as_json)


@models.command("show")
@click.argument("name")
@with_json
@click.pass_obj
def show_model(obj: dict[str, Any], name: str, as_json: bool) -> None:
    """The versions of the model NAME, with run, verdict, aliases and tags."""
    from tidemill.cli import models

    models.show_model(obj["folder"], name, as_json=as_json)


@models.command("adopt")
@click.argument("version")
@click.option("--output", default="", help="The output to take, of a model with several.")
@click.option("--features", default="", help="Names of the columns that it takes, in their order, with commas between.")
@with_json
@click.pass_obj
def adopt_model(obj: dict[str, Any], version: str, output: str, features: str, as_json: bool) -> None:
    """Make the ONNX of VERSION (models:/embedder/2, embedder@champion), which a client of MLflow registered, a model for features."""
    from tidemill.cli import models

    models.adopt(obj["folder"], version, output, features, as_json=as_json)


@models.command("history")
@click.argument("name")
@click.argument("alias", required=False, default="")
@with_json
@click.pass_obj
def model_history(obj: dict[str, Any], name: str, alias: str, as_json: bool) -> None:
    """Where the aliases of the model NAME pointed, or its ALIAS: when it moved, who moved it, and why."""
    from tidemill.cli import models

    models.history(obj["folder"], name, alias, as_json=as_json)


@models.command("diff")
@click.argument("one")
@click.argument("two")
@with_json
@click.pass_obj
def diff_models(obj: dict[str, Any], one: str, two: str, as_json: bool) -> None:
    """What differs from version ONE to version TWO (boosted/2, boosted@champion), their predictions on golden cases included."""
    from tidemill.cli import models

    models.diff(obj["folder"], one, two, as_json=as_json)


@tidemill.group(short_help="`features list`, `show`, `search`: what there is; `get`: features of your rows; `skew`: served against learnt.")
def features() -> None:
    """Features: what there is, how it is made, who uses it; features of rows that you bring; and whether they are served as learnt."""


@features.command("list")
@click.option("--shared", is_flag=False, flag_value="", default=None, metavar="[PROJECT]", help="Those that other projects share instead.")
@with_json
@click.pass_obj
def list_features(obj: dict[str, Any], shared: str | None, as_json: bool) -> None:
    """The views with entity, nulls, age of the newest row, newest version, and the deployments that they serve."""
    from tidemill.cli.features import list_views
    from tidemill.cli.sharing import list_shared

    if shared is not None:
        list_shared(obj["folder"], shared, as_json=as_json)
        return
    list_views(obj["folder"], as_json=as_json)


@features.command("show")
@click.argument("name")
@with_json
@click.pass_obj
def show_features(obj: dict[str, Any], name: str, as_json: bool) -> None:
    """All that is known of NAME, a view or VIEW:FEATURE: definition, what it is made from, who uses it, statistics, cost."""
    from tidemill.cli.features import show_view

    show_view(obj["folder"], name, as_json=as_json)


@features.command("search")
@click.argument("text", nargs=-1, required=True)
@with_json
@click.pass_obj
def search_features(obj: dict[str, Any], text: tuple[str, ...], as_json: bool) -> None:
    """Views and features with all words of TEXT in names, descriptions, owners, tags or expressions, the best first."""
    from tidemill.cli.features import search

    search(obj["folder"], " ".join(text), as_json=as_json)


@features.command("skew")
@click.argument("deployment", default="")
@click.option("--since", default=None, help="Answers given since then: a date, or a time with its zone. Default: all of the log.")
@click.option(
    "--rows",
    type=click.IntRange(1, 1_000_000),
    default=None,
    help="Compare at most so many of them. Default: what the monitor says, or 1000.",
)
@with_json
@click.pass_obj
def skew_of_features(obj: dict[str, Any], deployment: str, since: str | None, rows: int | None, as_json: bool) -> None:
    """Features that were served, beside the same features computed offline as known then. Exits with 1 where too many differ."""
    from tidemill.cli.skew import skew

    skew(obj["folder"], deployment, since, rows, as_json=as_json)


@features.command("push")
@click.argument("dataset")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--source", default="", help="Where the rows come from, with --offset: what it gave before is skipped.")
@click.option("--offset", type=int, default=None, help="The number of the first row in its source; those of the others follow it.")
@with_json
@click.pass_obj
def push_rows(obj: dict[str, Any], dataset: str, file: BinaryIO, source: str, offset: int | None, as_json: bool) -> None:
    """Add rows to DATASET, known from now on: JSON, a list or one object on each line, of FILE or of standard input."""
    from tidemill.cli.push import push

    push(obj["folder"], dataset, file, source, offset, as_json=as_json)


@features.command("erase")
@click.argument("entity")
@click.argument("key", nargs=-1, required=True)
@click.option("--why", default="", help="What the record of the erasure says.")
@click.option("--yes", is_flag=True, help="Erase; without it what there is is printed and nothing happens.")
@with_json
@click.pass_obj
def erase_entity(obj: dict[str, Any], entity: str, key: tuple[str, ...], why: str, yes: bool, as_json: bool) -> None:
    """Erase all values and events of one entity, whose KEY has a value for each column of its key, offline and online."""
    from tidemill.cli.erase import erase

    erase(obj["folder"], entity, key, why=why, yes=yes, as_json=as_json)


@features.command("saved")
@click.argument("name", required=False, default="")
@click.option("--again", is_flag=True, help="Make the rows anew from what the ledger recorded of them, and compare.")
@click.option("--to", default=None, type=click.Path(path_type=Path), help="A Parquet file to write a copy to.")
@with_json
@click.pass_obj
def saved_rows(obj: dict[str, Any], name: str, again: bool, to: Path | None, as_json: bool) -> None:
    """The rows that `features get --save` recorded: all of them, or those of NAME (orders, or one version: orders@1f3c)."""
    from tidemill.cli.features import saved

    saved(obj["folder"], name, again=again, to=to, as_json=as_json)


@features.command("materialise")
@click.argument("view", nargs=-1)
@click.option("--until", default=None, help="As far as was known then: a date, or a time with its zone. Default: all that is known now.")
@with_json
@click.pass_obj
def materialise_features(obj: dict[str, Any], view: tuple[str, ...], until: str | None, as_json: bool) -> None:
    """Put VIEWs into the online store, or bring them up to date there; without one all that are declared. A killed one goes on."""
    from tidemill.cli.features import materialise

    materialise(obj["folder"], view, until, as_json=as_json)


@features.command("get")
@click.argument("rows")
@click.option("--views", default="", help="Views, or VIEW:FEATURE, with commas between: weather,delays:mean.")
@click.option("--model", default="", help="In place of views: the features of a model as it was trained (boosted/3, boosted@champion).")
@click.option("--at", default="", help="The column with the time of each row. Default: event_timestamp; of a dataset its event time.")
@click.option("--until", default=None, help="Use nothing that became known later: a date, or a time with its zone.")
@click.option("--to", default=None, type=click.Path(path_type=Path), help="The Parquet file to write.")
@click.option("--save", default="", help="Record the rows under this name as an artifact, with their lineage.")
@click.option("--chunk", type=click.IntRange(0), default=0, help="How many rows are read at once. Default: as many as fit well.")
@click.option("--timezone", default="", help="The zone of times that state none; without it they are refused.")
@click.option("--status", is_flag=True, help="Add a column with the status of each view.")
@click.option("--plain", "plainly", is_flag=True, help="Read by event time alone: use also what was not known yet.")
@with_json
@click.pass_obj
def get_features(obj: dict[str, Any], /, plainly: bool, as_json: bool, **given: Any) -> None:
    """Features for ROWS (a .parquet or .csv file, or dataset:NAME), one row out for each row in; tells how many would have used what was
    not known yet."""
    from tidemill.cli.features import get

    get(obj["folder"], as_known=not plainly, as_json=as_json, **given)


for command in (predictions, trace, feedback):
    tidemill.add_command(command)


@tidemill.command("import", short_help="Take over experiments, runs and models of MLflow, with their ids.")
@click.argument("source")
@click.option(
    "--artifacts", type=click.Path(path_type=Path), default=None, help="The folder of a SQLite store's files; by default its own."
)
@click.option("--dry-run", "dry", is_flag=True, help="Say what is new; take nothing over.")
@with_json
@click.pass_obj
def import_mlflow(obj: dict[str, Any], source: str, artifacts: Path | None, dry: bool, as_json: bool) -> None:
    """Take over experiments, runs, files and registered models from SOURCE: an MLflow server's address, a folder mlruns, a SQLite file."""
    from tidemill.cli.transfer import import_mlflow

    import_mlflow(obj["folder"], source, artifacts, dry=dry, as_json=as_json)


@tidemill.command(short_help="Write a registered version as an MLflow model directory.")
@click.argument("version")
@click.argument("into", type=click.Path(path_type=Path))
@with_json
@click.pass_obj
def export(obj: dict[str, Any], version: str, into: Path, as_json: bool) -> None:
    """Write VERSION (models:/boosted/3, boosted@champion) into the folder INTO as an MLflow model directory."""
    from tidemill.cli.transfer import export

    export(obj["folder"], version, into, as_json=as_json)


@tidemill.command(short_help="Share a deployment's requests between versions, by weights.")
@click.argument("deployment")
@click.argument("weights", nargs=-1)
@click.option("--why", default="", help="The reason, for the record.")
@click.option("--who", default="", help="Your name; the user of this machine by default, who is written down beside it anyway.")
@with_json
@click.pass_obj
def traffic(obj: dict[str, Any], deployment: str, weights: tuple[str, ...], why: str, who: str, as_json: bool) -> None:
    """Give versions weights (boosted/12=0.2 boosted/9=0.1): shares of the keys of DEPLOYMENT, each of which stays with its version. The
    champion answers what is left; champion=1 gives it all again. Without weights: who answers which share."""
    from tidemill.cli import models

    models.traffic(obj["folder"], deployment, weights, who, why, as_json=as_json)


@tidemill.command(short_help="Let an earlier version serve again, at once.")
@click.argument("what")
@click.option("--to", default="", help="The version to go back to; by default the one before.")
@click.option("--why", required=True, help="The reason, for the record.")
@click.option("--who", default="", help="Your name; the user of this machine by default, who is written down beside it anyway.")
@with_json
@click.pass_obj
def rollback(obj: dict[str, Any], what: str, to: str, why: str, who: str, as_json: bool) -> None:
    """Let an earlier version serve again. WHAT is a deployment, or models:/NAME@ALIAS for an alias that a client of MLflow set."""
    from tidemill.cli import models

    models.rollback(obj["folder"], what, to, who, why, as_json=as_json)


@tidemill.command(short_help="Agree that a version may go live.")
@click.argument("version")
@click.option("--who", default="", help="Your name; the user of this machine by default, who is written down beside it anyway.")
@click.option("--why", default="", help="The reason, for the record.")
@click.pass_obj
def approve(obj: dict[str, Any], version: str, who: str, why: str) -> None:
    """Agree that VERSION (for example boosted/3) may go live. The next `tidemill run` acts on it."""
    from tidemill.cli import start

    start.approve(obj["folder"], version, who, why)


@tidemill.command(short_help="Bring the ledger to the format of this version, its data in place.")
@with_json
@click.pass_obj
def migrate(obj: dict[str, Any], as_json: bool) -> None:
    """Bring the ledger to the format of this version, with its data in place. Any command that writes does so too."""
    from tidemill.cli.server import migrate

    migrate(obj["folder"], as_json=as_json)


@tidemill.command(short_help="Delete what the retention rules no longer keep; without --yes only the plan.")
@click.option("--yes", is_flag=True, help="Delete; without it the plan is printed and nothing happens.")
@with_json
@click.pass_obj
def gc(obj: dict[str, Any], yes: bool, as_json: bool) -> None:
    """Delete runs, logged models, experiments and files that were deleted long enough ago or to which nothing refers, bytes included."""
    from tidemill.cli.gc import gc

    gc(obj["folder"], yes=yes, as_json=as_json)


@tidemill.command(short_help="Check the ledger, the blobs and the environment.")
@with_json
@click.pass_obj
def doctor(obj: dict[str, Any], as_json: bool) -> None:
    """Check the ledger, the blobs, the declarations and the environment. Exits with 1 when something is wrong."""
    from tidemill.cli import show

    show.doctor(obj["folder"], as_json=as_json)
