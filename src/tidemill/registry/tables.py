"""The registry's tables: the versions of the loop, and the models that clients of MLflow's protocol register by name."""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

tables = MetaData()
version_table = Table(
    "model_version",
    tables,
    Column("branch", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("at", Integer, nullable=False),
    Column("verdict", Text, nullable=False),
)
model = Table(
    "registered_model",
    tables,
    Column("name", Text, primary_key=True),
    Column("description", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("newest", Integer, nullable=False),  # the greatest number ever given: none is given twice
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
model_tag = Table(
    "registered_model_tag",
    tables,
    Column("name", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
registered_version = Table(
    "registered_version",
    tables,
    Column("name", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("description", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("stage", Text, nullable=False),  # None, Staging, Production, Archived: a label of clients that still use it
    Column("source", Text, nullable=False),
    Column("location", Text, nullable=False),  # where its files lie
    Column("run", Text, nullable=False),
    Column("run_link", Text, nullable=False),
    Column("model", Text, nullable=False),  # id of the logged model
    Column("status", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
Index("registered_version_by_run", registered_version.c.run)
version_tag = Table(
    "registered_version_tag",
    tables,
    Column("name", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
version_label = Table(  # what clients say of a version of the loop; number 0: of the model
    "version_label",
    tables,
    Column("branch", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("stage", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
