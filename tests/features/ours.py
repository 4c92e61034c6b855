"""Tidemill as the conformance suite asks it: a project in a folder, its data in Parquet files, asked by `historical_features`."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

import tidemill as tm
from redis_server import ADDRESS, new_prefix
from tidemill.core import Coded, Ref, Where, instant
from tidemill.data import ingest
from tidemill.features import Feed, OnlineStore, Pusher, Reader, Requests, build, load, open_online
from tidemill.features.conformance import History, View
from tidemill.ledger import Ledger
from tidemill.store import FolderBlobs, Records

PROJECT = '[project]\nname = "cases"\n'
HEAD = "import tidemill as tm\n"


def write_table(file: Path, types: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> None:
    """A Parquet file of these rows, in their order."""
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone = 'UTC'; CREATE TABLE t ({', '.join(f'{name} {kind}' for name, kind in types.items())})")
        if rows:
            connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(types))})", [list(row) for row in rows])
        connection.execute(f"COPY t TO '{file}' (FORMAT parquet)")


def key_type(parts: Sequence[object]) -> str:
    return "BIGINT" if any(isinstance(part, int) for part in parts) else "VARCHAR"


class Ours:
    """A `Store` of the suite."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cases-"))
        (self.folder / "tidemill.toml").write_text(PROJECT)
        (self.folder / "views.py").write_text(HEAD)

    def define(self, view: View) -> None:
        ttl = f"{int(view.ttl.total_seconds())}s" if view.ttl else ""
        source = f'{{"s": tm.Source("{view.name}.parquet", format="parquet")}}'
        with (self.folder / "views.py").open("a") as file:
            file.write(f'{view.name} = tm.Dataset("{view.name}", {source}, event_time="event", known_at="known")\n')
            entity = f'tm.Entity("{"-".join(view.keys)}", key={list(view.keys)!r})'
            file.write(f'{view.name}_view = tm.FeatureView("{view.name}", {view.name}, {entity}, ["x", "y"], ttl="{ttl}")\n')

    def write(self, view: View) -> None:
        """`place` is the first column: of rows that are equal in both times the last in the order of all columns counts."""
        keys = {name: key_type([row.key[i] for row in view.rows]) for i, name in enumerate(view.keys)}
        types = {"place": "INT", **keys, "event": "TIMESTAMPTZ", "known": "TIMESTAMPTZ", "x": "DOUBLE", "y": "DOUBLE"}
        rows = [(place, *row.key, row.event, row.known, *row.values) for place, row in enumerate(view.rows)]
        write_table(self.folder / f"{view.name}.parquet", types, rows)

    def read(self, rows: Sequence[Mapping[str, Any]], views: Sequence[str], *, as_known: bool) -> Sequence[Sequence[tuple[Any, Any]]]:
        found = tm.open(self.folder).historical_features(self.given(rows, views), views, at="at", as_known=as_known)
        return [list(zip(*(found.columns[f"{view}__{name}"].tolist() for name in ("x", "y")), strict=True)) for view in views]

    def given(self, rows: Sequence[Mapping[str, Any]], views: Sequence[str]) -> Any:
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else {"k": 0, "l": 0, "at": 0})}
        kinds = {"at": "TIMESTAMPTZ"} | {name: key_type(columns[name]) for name in columns if name != "at"}
        file = self.folder / "asked.parquet"
        write_table(file, {f'"{name}"': kinds[name] for name in columns}, list(zip(*columns.values(), strict=True)))
        return file

    def close(self) -> None:
        shutil.rmtree(self.folder)


class OursByArrays(Ours):
    """The same, asked with a dict of arrays."""

    def given(self, rows: Sequence[Mapping[str, Any]], views: Sequence[str]) -> Any:
        names = rows[0] if rows else {"k": 0, "l": 0, "at": 0}
        return {
            name: np.array([row[name].replace(tzinfo=None) for row in rows], dtype="datetime64[us]")
            if name == "at"
            else np.array([row[name] for row in rows], dtype=object)
            for name in names
        }


class OursOnline:
    """Our online half, as a gateway and a pusher use it: an `Online` of the suite. A subclass says where the store lies."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="probes-"))
        self.ledger = Ledger(Records(self.folder / "records.db"), FolderBlobs(self.folder / "blobs"), lambda: 0)

    store: OnlineStore

    def define(self, view: View) -> None:
        where = Where(str(self.folder / "views.py"), 1)
        source = {"s": tm.Source("rows.parquet", format="parquet", where=where)}
        self.dataset = tm.Dataset("rows", source, event_time="event", known_at="known", where=where)
        ttl = f"{int(view.ttl.total_seconds())}s" if view.ttl else ""
        self.view = tm.FeatureView(view.name, self.dataset, tm.Entity("e", key=list(view.keys)), ["x", "y"], ttl=ttl, where=where)

    def write(self, view: View) -> None:
        Ours.write(self, view)  # type: ignore[arg-type]  # a file in the folder
        (self.folder / f"{view.name}.parquet").rename(self.folder / "rows.parquet")

    @cached_property
    def reader(self) -> Reader:
        version = build(self.ledger, self.view, ingest(self.ledger, self.dataset).output).output
        log, feed = load(self.ledger, self.view, version), Feed.of(self.ledger, self.view, version)
        return Reader([self.view], {self.view.name: log}, {self.view.name: version.ref.digest}, self.store, {self.view.name: feed})

    def materialise(self, until: datetime) -> None:
        self.reader.materialise(instant(until))

    def push(self, rows: Sequence[History], at: datetime, offsets: Sequence[int]) -> None:
        types = self.ledger.artifact(Ref("dataset", "rows")).meta["types"]
        names = self.view.entity.keys
        given = [
            {
                "place": 0,
                **dict(zip(names, row.key, strict=True)),
                "event": row.event,
                "known": row.known,
                "x": row.values[0],
                "y": row.values[1],
            }
            for row in rows
        ]
        Pusher(self.ledger, self.dataset, types, self.store).push(given, instant(at), source="source" if offsets else "", offsets=offsets)

    def online(self, keys: Sequence[tuple[Any, ...]], features: Sequence[str], at: datetime) -> Sequence[Sequence[Any]]:
        when = np.full(len(keys), instant(at))
        texts = {name: Coded.of(None if key[i] is None else str(key[i]) for key in keys) for i, name in enumerate(self.view.entity.keys)}
        bare = np.empty((len(keys), 0))
        found = self.reader.read(Requests(np.array([b""] * len(keys)), when, when, when, texts, [], bare, {}), when)
        assert found.online.all(), "answered offline"
        return found.values[:, [found.names.index(f"{self.view.name}__{name}") for name in features]].tolist()

    def close(self) -> None:
        self.store.close()
        self.ledger.records.close()
        shutil.rmtree(self.folder)


class OursInLmdb(OursOnline):
    def __init__(self) -> None:
        super().__init__()
        self.store = open_online(self.folder / "online")


class OursInRedis(OursOnline):
    def __init__(self) -> None:
        super().__init__()
        self.prefix = new_prefix()
        self.store = open_online(ADDRESS, prefix=self.prefix.__enter__())

    def close(self) -> None:
        super().close()
        self.prefix.__exit__(None, None, None)
