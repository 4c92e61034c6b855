"""The ledger: what exists, what ran, what was made from what, and what was decided.

`once(kind, name, inputs, make)` runs a step only when no finished execution has the same key, and can say what changed.
Every stage records through here; reading never waits for writing.
"""

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, bindparam, insert, not_, select, update

from tidemill.core import Ref, StoreError, canonical, differences, digest_value, show
from tidemill.ledger import tables as t
from tidemill.ledger.code import environment
from tidemill.ledger.journal import Journal, as_artifact
from tidemill.ledger.values import Artifact, Edge, Execution, Made, Once, Step
from tidemill.store import Blobs, Driver, Records, upsert

# A step that is known is asked for again and again: its statements are built once.
_FINISHED = (
    select(t.execution.c.id, t.execution.c.outputs)
    .where(t.execution.c.key == bindparam("key"), t.execution.c.status == "finished")
    .order_by(t.execution.c.id.desc())
    .limit(1)
)
_BEGIN = """INSERT INTO execution
(key, kind, name, branch, status, started_at, pid, inputs, outputs, params, metrics, code, environment, error)
VALUES ('', ?, ?, '', ?, ?, ?, '{}', '{}', '{}', '{}', '', '', '') RETURNING id"""
ELSEWHERE = 0  # the process of what runs elsewhere: nobody can see here whether it is gone
_NEWEST = (t.execution.c.status == "finished").desc(), t.execution.c.id.desc()  # what failed is no state to compare with
_ARTIFACT = select(t.artifact).where(*(column == bindparam(column.name) for column in t.artifact.primary_key))


def _json(value: Any) -> str:
    return canonical(value).decode()


def _plain(value: Any) -> Any:
    """Inputs as they enter a key: a ref by its name and digest."""
    if isinstance(value, Ref):
        return f"{value.kind}:{value.name}#{value.digest}"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class Ledger(Journal):
    """Records and blobs of one project. `wall` is the clock (microseconds UTC) by which things are recorded, begin and end."""

    def __init__(self, records: Records, blobs: Blobs, wall: Callable[[], int], *, read_only: bool = False) -> None:
        super().__init__(records, wall)
        self.blobs, self._opened = blobs, wall()
        if not read_only:
            records.ensure(t.tables)

    # ── artifacts and executions ────────────────────────────────────────────────────────────────────────────────

    def once(
        self,
        kind: str,
        name: str,
        inputs: Mapping[str, Any],
        make: Step,
        *,
        branch: str = "",
        code: str = "",
        on_start: Callable[[int], None] = lambda execution: None,
    ) -> Once:
        """The artifacts of a step: from the cache where its inputs are known, otherwise made and recorded.

        `inputs` are refs and plain values by name; they are the key, together with `kind`, `name` and `code`. `on_start`
        is told the number of the execution before the step is made.
        """
        plain = {**_plain(inputs), "code": code} if code else _plain(inputs)
        key = digest_value([kind, name, plain])
        found = self._finished(key)
        if found is not None:
            return Once(found[1], found[0], cached=True, why="nothing changed")
        why = self._why(kind, name, plain)
        started = time.monotonic()
        execution = self._start(key, kind, name, branch, plain, code)
        try:
            on_start(execution)
            made = make()
            self._finish(execution, inputs, made)
        except BaseException as error:
            with suppress(StoreError):  # the first error is the one to show; what stays open is closed by the next start
                self._fail(execution, error)
            raise
        return Once(dict(made.outputs), execution, cached=False, why=why, seconds=time.monotonic() - started)

    def _finished(self, key: str) -> tuple[int, dict[str, Artifact]] | None:
        with self.records.read() as connection:
            row = connection.execute(_FINISHED, {"key": key}).first()
            if row is None:
                return None
            refs = msgspec.json.decode(row.outputs)
            outputs = {role: as_artifact(connection.execute(_ARTIFACT, ref).one()) for role, ref in refs.items()}
        blobs = [digest for made in outputs.values() for digest in made.meta.get("blobs", {}).values()]
        whole = not any(made.erased for made in outputs.values()) and all(self.blobs.has(digest) for digest in blobs)
        return (row.id, outputs) if whole else None

    def _why(self, kind: str, name: str, plain: dict[str, Any]) -> str:
        query = select(t.execution.c.inputs, t.execution.c.status).where(t.execution.c.kind == kind, t.execution.c.name == name)
        with self.records.read() as connection:
            row = connection.execute(query.order_by(*_NEWEST).limit(1)).first()
        if row is None:
            return "first time"
        changed = differences(msgspec.json.decode(row.inputs), msgspec.json.decode(_json(plain)))
        if not changed:
            return "its result was not kept" if row.status == "finished" else f"it was {row.status} before"
        return told(changed)

    def changed(self, execution: Execution) -> str:
        """What differed from the last finished execution of the same name before it: why it ran."""
        query = select(t.execution.c.inputs).where(t.execution.c.kind == execution.kind, t.execution.c.name == execution.name)
        with self.records.read() as connection:
            earlier = query.where(t.execution.c.id < execution.id).order_by(*_NEWEST).limit(1)
            row = connection.execute(earlier).first()
        if row is None:
            return "first time"
        found = differences(msgspec.json.decode(row.inputs), execution.inputs)
        return told(found) or "its result was not kept"

    def _start(self, key: str, kind: str, name: str, branch: str, inputs: dict[str, Any], code: str) -> int:
        row = {"key": key, "kind": kind, "name": name, "branch": branch, "status": "running", "started_at": self.wall()}
        row |= {"pid": os.getpid(), "inputs": _json(inputs), "outputs": "{}", "params": "{}", "metrics": "{}", "code": code}
        row |= {"environment": digest_value(environment()), "error": ""}
        with self.records.begin() as connection:
            return int((connection.execute(insert(t.execution).values(row)).inserted_primary_key or (0,))[0])

    def begin_execution(self, sql: Driver, kind: str, name: str, *, started_at: int, status: str = "running") -> int:
        """Record something that runs elsewhere, whose end somebody will tell; returns its number."""
        row = sql.one(_BEGIN, (kind, name, status, started_at, ELSEWHERE))
        assert row is not None
        return int(row[0])

    def end_execution(self, sql: Driver, number: int, status: str, ended_at: int | None) -> None:
        """What has become of something that runs elsewhere."""
        sql.run("UPDATE execution SET status = ?, ended_at = coalesce(?, ended_at) WHERE id = ?", (status, ended_at, number))

    def _fail(self, execution: int, error: BaseException) -> None:
        status = "failed" if isinstance(error, Exception) else "interrupted"
        changes = {"status": status, "ended_at": self.wall(), "error": str(error)[:2000]}
        with self.records.begin() as connection:
            connection.execute(update(t.execution).where(t.execution.c.id == execution).values(changes))

    def _finish(self, execution: int, inputs: Mapping[str, Any], made: Made) -> None:
        lock = self._environment_blob()
        refs = {role: {s: getattr(a.ref, s) for s in ("kind", "name", "version", "digest")} for role, a in made.outputs.items()}
        changes = {"status": "finished", "ended_at": self.wall(), "outputs": _json(refs), "environment": lock}
        changes |= {"params": _json(made.params), "metrics": _json(made.metrics)}
        with self.records.begin() as connection:
            for artifact in made.outputs.values():
                self._put_artifact(connection, artifact)
                self._put_edges(connection, [Edge(execution, role, str(p), str(artifact.ref)) for role, p in _refs(inputs)])
            connection.execute(update(t.execution).where(t.execution.c.id == execution).values(changes))

    def _environment_blob(self) -> str:
        return self.blobs.put(canonical(environment()))

    def put_artifact(self, artifact: Artifact, parents: Mapping[str, Ref] | None = None) -> Ref:
        """Record an artifact that no step made (a source file, a declaration), with what it came from."""
        if not parents and self._known(artifact.ref):
            return artifact.ref  # nothing to write: who only reads may ask for it too
        with self.records.begin() as connection:
            self._put_artifact(connection, artifact)
            self._put_edges(connection, [Edge(0, role, str(ref), str(artifact.ref)) for role, ref in (parents or {}).items()])
        return artifact.ref

    def _known(self, ref: Ref) -> bool:
        with self.records.read() as connection:
            own = {name: getattr(ref, name) for name in ("kind", "name", "version", "digest")}
            return connection.execute(_ARTIFACT, own).first() is not None

    def _put_artifact(self, connection: Connection, artifact: Artifact) -> None:
        ref = artifact.ref
        row: dict[str, Any] = {"kind": ref.kind, "name": ref.name, "version": ref.version, "digest": ref.digest}
        row |= {"recorded_at": self.wall(), "meta": _json(artifact.meta)}
        insertion = upsert(connection, t.artifact).values(row).on_conflict_do_nothing().returning(t.artifact.c.digest)
        if connection.execute(insertion).first() is None:
            own = [column == row[column.name] for column in t.artifact.primary_key]
            before = as_artifact(connection.execute(select(t.artifact).where(*own)).one())
            if before.erased:  # the same content again, in which nothing was to be erased
                connection.execute(update(t.artifact).where(*own).values(meta=row["meta"]))

    def erase(self, connection: Connection, ref: Ref, *, at: int, why: str, without: Collection[str] = ()) -> None:
        """Record that the bytes of an artifact are erased, with the parts of its meta that tell of them; who opens it is told when and why.
        Deleting its blobs, which are noted, is up to the caller."""
        own = [column == getattr(ref, column.name) for column in t.artifact.primary_key]
        meta = as_artifact(connection.execute(select(t.artifact).where(*own)).one()).meta
        gone = {"at": at, "why": why, "blobs": sorted(meta.get("blobs", {}).values())}
        kept = {name: value for name, value in meta.items() if name not in ("blobs", *without)}
        connection.execute(update(t.artifact).where(*own).values(meta=_json({**kept, "erased": gone})))

    def _put_edges(self, connection: Connection, edges: list[Edge]) -> None:
        rows = [{"execution": e.execution, "role": e.role, "parent": e.parent, "child": e.child} for e in edges if e.parent != e.child]
        if rows:
            connection.execute(upsert(connection, t.edge).on_conflict_do_nothing(), rows)

    def close_dead(self) -> int:
        """Mark executions of processes that are gone as interrupted; returns how many. The writer's lock must be held."""
        changes = {"status": "interrupted", "ended_at": self.wall()}
        with self.records.begin() as connection:
            # In a container every process may have the same number, so one more thing tells ours: it began with this ledger open.
            ours = and_(t.execution.c.pid == os.getpid(), t.execution.c.started_at >= self._opened)
            dead = t.execution.c.status == "running", not_(ours), t.execution.c.pid != ELSEWHERE
            return int(connection.execute(update(t.execution).where(*dead).values(changes)).rowcount)


def _refs(inputs: Any, role: str = "") -> list[tuple[str, Ref]]:
    if isinstance(inputs, Ref):
        return [(role, inputs)]
    if isinstance(inputs, Mapping):
        return [found for key, value in inputs.items() for found in _refs(value, role or str(key))]
    if isinstance(inputs, (list, tuple)):
        return [found for value in inputs for found in _refs(value, role)]
    return []


def told(changed: list[tuple[str, Any, Any]]) -> str:
    """Differences in words.

    >>> told([("until", 1364788800000000, 1364875200000000)])
    'until: 2013-04-01T04:00:00Z → 2013-04-02T04:00:00Z'
    >>> told([("query", "SELECT a FROM t WHERE " + "x OR " * 20 + "y", "SELECT a FROM t WHERE " + "x OR " * 20 + "z")])
    'query: …x OR x OR x OR x OR y → …x OR x OR x OR x OR z'
    """
    texts = [f"{path}: {' → '.join(_briefly(path, before, after))}" for path, before, after in changed if path != "code"]
    own = [] if len(texts) == len(changed) else ["Tidemill's own code for it, or a library's version"]
    return "; ".join([*texts[:4], *own])


def _briefly(path: str, before: Any, after: Any) -> tuple[str, str]:
    """Two values for people: of long ones, from a little before where they begin to differ."""
    if path.endswith("until") and all(isinstance(value, int | None) for value in (before, after)):
        first, then = ("nothing" if value is None else show(value) for value in (before, after))
        return first, then
    one, two = (value if isinstance(value, str) or value is None else _json(value) for value in (before, after))
    same = next((i for i, pair in enumerate(zip(one or "", two or "", strict=False)) if len(set(pair)) > 1), 0) - 20
    if one and two and same > 0 and max(len(one), len(two)) > 60 and "#" not in one:
        return _brief(f"…{one[same:]}"), _brief(f"…{two[same:]}")
    return _brief(one), _brief(two)


def _brief(text: str | None) -> str:
    if text is None:
        return "nothing"
    head, mark, digest = text.partition("#")
    return f"{head}@{digest[:12]}" if mark else text if len(text) <= 60 else text[:57] + "…"
