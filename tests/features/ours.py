"""Tidemill as the conformance suite asks it: a project in a folder, its data in Parquet files, asked by `historical_features`."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

import tidemill as tm
from tidemill.features.conformance import View

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
