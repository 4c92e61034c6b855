"""The ledger's tables. Refs are stored as text with their digest; plain values as JSON."""

from sqlalchemy import Column, Index, Integer, MetaData, Table, Text

tables = MetaData()

artifact = Table(
    "artifact",
    tables,
    Column("digest", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("recorded_at", Integer, nullable=False),
    Column("meta", Text, nullable=False),
)
Index("artifact_by_name", artifact.c.kind, artifact.c.name, artifact.c.version)

execution = Table(
    "execution",
    tables,
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("branch", Text, nullable=False),
    Column("status", Text, nullable=False),  # running, finished, failed, interrupted
    Column("started_at", Integer, nullable=False),
    Column("ended_at", Integer),
    Column("pid", Integer, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("outputs", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("error", Text, nullable=False),
)
Index("execution_by_key", execution.c.key, execution.c.status)
Index("execution_by_name", execution.c.kind, execution.c.name, execution.c.id)
Index("execution_by_end", execution.c.ended_at // 1000)  # milliseconds, as runs are listed

edge = Table(
    "edge",
    tables,
    Column("execution", Integer, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("parent", Text, primary_key=True),
    Column("child", Text, primary_key=True),
)
Index("edge_by_child", edge.c.child)
Index("edge_by_parent", edge.c.parent)

alias = Table(
    "alias",
    tables,
    Column("id", Integer, primary_key=True),
    Column("branch", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("alias", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("at", Integer, nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
)
Index("alias_by_name", alias.c.branch, alias.c.name, alias.c.alias, alias.c.id)

decision = Table(
    "decision",
    tables,
    Column("id", Integer, primary_key=True),
    Column("branch", Text, nullable=False),
    Column("at", Integer, nullable=False),  # when it was decided, by the clock of its branch
    Column("recorded_at", Integer, nullable=False),
    Column("who", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
)
Index("decision_by_branch", decision.c.branch, decision.c.id)

branch = Table(
    "branch",
    tables,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # live, replay, comparison
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),  # running, finished
    Column("created_at", Integer, nullable=False),
    Column("finished_at", Integer),
    Column("parts", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("result", Text, nullable=False),
)
