"""The tables of experiments and runs. A run is an execution of the ledger: `run.execution` is its number, and its status, start and end
stand there. Instants are milliseconds since 1970, as in MLflow's protocol; those of the ledger are microseconds."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, Table, Text, func

tables = MetaData()


def _pairs(name: str, owner: str, kind: type[Integer] | type[Text] = Integer) -> Table:
    """A table of key and value for each owner."""
    return Table(
        name,
        tables,
        Column(owner, kind, primary_key=True),
        Column("key", Text, primary_key=True),
        Column("value", Text, nullable=False),
        sqlite_with_rowid=False,
    )


experiment = Table(
    "experiment",
    tables,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("location", Text, nullable=False),
    Column("stage", Text, nullable=False),  # active, deleted
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
experiment_tag = _pairs("experiment_tag", "experiment")

run = Table(
    "run",
    tables,
    Column("execution", Integer, primary_key=True, autoincrement=False),
    Column("uid", Text, nullable=False, unique=True),
    Column("experiment", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("stage", Text, nullable=False),  # active, deleted
    Column("started_at", BigInteger, nullable=False),  # as of the execution; it stands here too, since runs are listed by it
    Column("location", Text, nullable=False),
    Column("deleted_at", BigInteger),
)
Index("run_by_start", run.c.experiment, run.c.started_at.desc(), run.c.uid)
param = _pairs("param", "run")
tag = _pairs("tag", "run")
for pairs in (param, tag):  # by the start of the value: a tag may hold a page of text
    Index(f"{pairs.name}_by_value", pairs.c.key, func.substr(pairs.c.value, 1, 64), pairs.c.run)

metric_name = Table("metric_name", tables, Column("id", Integer, primary_key=True), Column("name", Text, nullable=False, unique=True))
metric = Table(
    "metric",
    tables,
    Column("run", Integer, primary_key=True),
    Column("name", Integer, primary_key=True),
    Column("timestamp", BigInteger, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("value", Float, primary_key=True),
    Column("nan", Integer, primary_key=True),  # 1: not a number, and `value` is 0
    sqlite_with_rowid=False,
)
latest = Table(
    "metric_latest",
    tables,
    Column("run", Integer, primary_key=True),
    Column("name", Integer, primary_key=True),
    Column("experiment", Integer, nullable=False),
    Column("value", Float, nullable=False),
    Column("nan", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
Index("latest_by_value", latest.c.experiment, latest.c.name, latest.c.nan, latest.c.value, latest.c.run)

segment = Table(
    "segment",  # what native clients ship: how many bytes of each segment are here
    tables,
    Column("id", Text, primary_key=True),
    Column("run", Integer, nullable=False),
    Column("shipped", BigInteger, nullable=False),
)

dataset = Table(
    "run_dataset",
    tables,
    Column("id", Integer, primary_key=True),
    Column("experiment", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("source_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("schema", Text),
    Column("profile", Text),
)
Index("dataset_by_name", dataset.c.experiment, dataset.c.name, dataset.c.digest, unique=True)
run_input = Table(
    "run_input",
    tables,
    Column("run", Integer, primary_key=True),
    Column("dataset", Integer, primary_key=True),
    Column("tags", Text, nullable=False),
    Column("context", Text, nullable=False),  # of the tags, since runs are searched by it
)
run_model = Table(
    "run_model",
    tables,
    Column("run", Integer, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("role", Text, primary_key=True),  # input, output
    Column("step", BigInteger, nullable=False),
)

logged_model = Table(
    "logged_model",
    tables,
    Column("id", Text, primary_key=True),
    Column("experiment", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("run", Text, nullable=False),  # uid of the run that made it
    Column("status", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("location", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
Index("logged_model_by_experiment", logged_model.c.experiment, logged_model.c.created_at)
model_param = _pairs("logged_model_param", "model", Text)
model_tag = _pairs("logged_model_tag", "model", Text)
model_metric = Table(
    "logged_model_metric",
    tables,
    Column("model", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("timestamp", BigInteger, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("run", Text, primary_key=True),
    Column("value", Float, nullable=False),
    Column("nan", Integer, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("digest", Text, nullable=False),
)

trace = Table(
    "trace",
    tables,
    Column("id", Text, primary_key=True),
    Column("experiment", Integer, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("requested_at", BigInteger, nullable=False),
    Column("took", BigInteger),  # milliseconds
    Column("state", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("response", Text, nullable=False),
    Column("assessments", Text, nullable=False),
)
Index("trace_by_time", trace.c.experiment, trace.c.requested_at.desc(), trace.c.id)
trace_tag = _pairs("trace_tag", "trace", Text)
trace_metadata = _pairs("trace_metadata", "trace", Text)

file = Table(
    "artifact_file",
    tables,
    Column("path", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

upload = Table(
    "upload",
    tables,
    Column("id", Text, primary_key=True),
    Column("path", Text, nullable=False),
    Column("parts", Integer, nullable=False),
    Column("begun_at", BigInteger, nullable=False),
)
upload_part = Table(
    "upload_part",
    tables,
    Column("upload", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
)
