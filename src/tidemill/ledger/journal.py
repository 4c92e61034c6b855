"""Reading the ledger, and its append-only part: aliases, decisions with their chain of hashes, branches."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, func, insert, select, update

from tidemill.core import Busy, Damaged, Ref, UnknownName, canonical, digest_value
from tidemill.ledger import tables as t
from tidemill.ledger.values import Artifact, Branch, Decision, Edge, Execution
from tidemill.store import Driver, Records, upsert


def _decode(text: str) -> Any:
    return msgspec.json.decode(text)


def as_artifact(row: Row[Any]) -> Artifact:
    """A row of the table as a value."""
    return Artifact(Ref(row.kind, row.name, row.version, row.digest), _decode(row.meta), row.recorded_at)


class Journal:
    """What is recorded, as values, and what is only ever appended."""

    def __init__(self, records: Records, wall: Callable[[], int]) -> None:
        self.records, self.wall = records, wall

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with self.records.read() as connection:
            return connection.execute(query).all()

    # ── artifacts ───────────────────────────────────────────────────────────────────────────────────────────────

    def artifact(self, ref: Ref) -> Artifact:
        """The artifact that a ref names: by digest, by version or the start of one, or the newest of that name. Raises UnknownName."""
        query = select(t.artifact).where(t.artifact.c.kind == ref.kind, t.artifact.c.name == ref.name)
        exact = t.artifact.c.version == ref.version
        if ref.digest:
            query = query.where(t.artifact.c.digest == ref.digest)
        elif ref.version:
            query = query.where(t.artifact.c.version.startswith(ref.version, autoescape=True))
        rows = self._rows(query.order_by(exact.desc(), t.artifact.c.recorded_at.desc(), t.artifact.c.digest).limit(2))
        if ref.version and not ref.digest and len(rows) > 1 and ref.version not in {row.version for row in rows}:
            several = sorted(row.version for row in rows)
            raise UnknownName(f"{ref} is the start of several versions", available=several, hint="write more of it")
        if not rows:
            names = self._rows(select(t.artifact.c.name).where(t.artifact.c.kind == ref.kind).distinct())
            raise UnknownName(f"nothing is recorded as {ref}", available=sorted(f"{ref.kind}:{row.name}" for row in names))
        return as_artifact(rows[0])

    def artifact_of(self, kind: str, digest: str) -> Artifact:
        """The artifact of a kind with a digest, whatever its name; raises UnknownName."""
        rows = self._rows(select(t.artifact).where(t.artifact.c.kind == kind, t.artifact.c.digest == digest).limit(1))
        if not rows:
            raise UnknownName(f"no {kind} has the digest {digest[:12]}", where=self.records.where)
        return as_artifact(rows[0])

    def artifacts(self) -> list[Artifact]:
        """All of them, the oldest first."""
        return [as_artifact(row) for row in self._rows(select(t.artifact).order_by(t.artifact.c.recorded_at, t.artifact.c.digest))]

    def named_blobs(self) -> set[str]:
        """The digests of the blobs that are needed: those of every model, and of the newest artifact of each other kind and name."""
        newest: dict[tuple[str, str], Artifact] = {}
        for one in self.artifacts():
            newest[one.ref.kind, one.ref.name if one.ref.kind != "model" else one.ref.digest] = one
        return {digest for one in newest.values() for digest in one.meta.get("blobs", {}).values()}

    def executions(self, *, kind: str = "", name: str = "", status: str = "", limit: int = 1000) -> list[Execution]:
        """Executions, newest first."""
        query = select(t.execution).order_by(t.execution.c.id.desc()).limit(limit)
        for column, value in (("kind", kind), ("name", name), ("status", status)):
            if value:
                query = query.where(t.execution.c[column] == value)
        return [_execution(row) for row in self._rows(query)]

    def execution(self, number: int) -> Execution:
        """One execution by its number; raises UnknownName."""
        rows = self._rows(select(t.execution).where(t.execution.c.id == number))
        if not rows:
            raise UnknownName(f"there is no execution {number}")
        return _execution(rows[0])

    def parents(self, ref: Ref) -> list[Edge]:
        """What a thing was made from."""
        rows = self._rows(select(t.edge).where(t.edge.c.child == str(ref)).order_by(t.edge.c.execution, t.edge.c.role, t.edge.c.parent))
        return [Edge(row.execution, row.role, row.parent, row.child) for row in rows]

    def children(self, ref: Ref) -> list[Edge]:
        """What was made from a thing."""
        rows = self._rows(select(t.edge).where(t.edge.c.parent == str(ref)).order_by(t.edge.c.execution, t.edge.c.role, t.edge.c.child))
        return [Edge(row.execution, row.role, row.parent, row.child) for row in rows]

    # ── aliases ─────────────────────────────────────────────────────────────────────────────────────────────────

    def set_alias(self, connection: Connection, branch: str, name: str, alias: str, target: Ref, *, at: int, who: str, why: str) -> None:
        """Point an alias of a branch at a thing; the earlier target stays in its history."""
        text = f"{target}#{target.digest}"
        row = {"branch": branch, "name": name, "alias": alias, "target": text, "at": at, "who": who, "why": why}
        connection.execute(insert(t.alias).values(row))

    def move_alias(self, sql: Driver, branch: str, name: str, alias: str, target: str, *, at: int, who: str, why: str) -> None:
        """Point an alias at a target, or with an empty one at nothing; the earlier target stays in its history."""
        sql.run(
            "INSERT INTO alias (branch, name, alias, target, at, who, why) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (branch, name, alias, target, at, who, why),
        )

    def aliases(self, sql: Driver, branch: str, name: str) -> dict[str, str]:
        """Where the aliases of a name point now."""
        query = (
            "SELECT a.alias, a.target FROM alias AS a WHERE a.branch = ? AND a.name = ? AND a.target != '' AND a.id = "
            "(SELECT max(b.id) FROM alias AS b WHERE b.branch = a.branch AND b.name = a.name AND b.alias = a.alias) ORDER BY a.alias"
        )
        return {str(alias): str(target) for alias, target in sql.all(query, (branch, name))}

    def alias_history(self, branch: str, name: str, alias: str) -> list[tuple[Ref, int, str]]:
        """(target, at, why), oldest first."""
        query = select(t.alias).where(t.alias.c.branch == branch, t.alias.c.name == name, t.alias.c.alias == alias)
        return [(_target(row), row.at, row.why) for row in self._rows(query.order_by(t.alias.c.id))]

    def alias(self, branch: str, name: str, alias: str) -> Ref | None:
        """Where an alias points now."""
        query = select(t.alias).where(t.alias.c.branch == branch, t.alias.c.name == name, t.alias.c.alias == alias)
        rows = self._rows(query.order_by(t.alias.c.id.desc()).limit(1))
        return _target(rows[0]) if rows else None

    def aliased(self, branch: str, alias: str, name: str = "") -> list[tuple[Ref, int]]:
        """(target, at) of an alias of all names of a branch, or of one, as it points now, by when it was moved."""
        own = t.alias.c.branch == branch, t.alias.c.alias == alias, *([t.alias.c.name == name] if name else [])
        newest = select(func.max(t.alias.c.id)).where(*own).group_by(t.alias.c.name)
        rows = self._rows(select(t.alias).where(t.alias.c.id.in_(newest)).order_by(t.alias.c.id))
        return [(_target(row), row.at) for row in rows]

    # ── decisions ───────────────────────────────────────────────────────────────────────────────────────────────

    def decide(
        self, connection: Connection, branch: str, *, at: int, who: str, kind: str, subject: str, why: str, evidence: dict[str, Any]
    ) -> None:
        """Append a decision. Each row hashes the row before it, so that a changed or removed one is found by `verify_decisions`."""
        newest = connection.execute(select(t.decision.c.hash).order_by(t.decision.c.id.desc()).limit(1)).scalar() or ""
        row = {"branch": branch, "at": at, "recorded_at": self.wall(), "who": who, "kind": kind, "subject": subject}
        row |= {"why": why, "evidence": canonical(evidence).decode(), "previous": newest}
        connection.execute(insert(t.decision).values(row | {"hash": digest_value(row)}))

    def decisions(self, branch: str) -> list[Decision]:
        """The decisions of a branch, oldest first."""
        rows = self._rows(select(t.decision).where(t.decision.c.branch == branch).order_by(t.decision.c.id))
        return [Decision(r.id, r.branch, r.at, r.who, r.kind, r.subject, r.why, _decode(r.evidence)) for r in rows]

    def verify_decisions(self) -> int:
        """Follow the chain of hashes; returns its length, raises Damaged at the first break."""
        previous, length = "", 0
        for row in self._rows(select(t.decision).order_by(t.decision.c.id)):
            content = {c.name: getattr(row, c.name) for c in t.decision.c if c.name not in ("id", "hash")}
            if row.previous != previous or digest_value(content) != row.hash:
                raise Damaged(f"decision {row.id} was changed, or one before it removed", where=self.records.where)
            previous, length = row.hash, length + 1
        return length

    # ── branches ────────────────────────────────────────────────────────────────────────────────────────────────

    def open_branch(self, kind: str, name: str, parts: dict[str, Any]) -> Branch:
        """The branch of these parts, made if it is not there yet."""
        key = digest_value([kind, name, parts])[:16] if kind != "live" else f"live-{name}"
        found = self.branch(key)
        if found is None:
            row = {"id": key, "kind": kind, "name": name, "status": "running", "created_at": self.wall()}
            with self.records.begin() as connection:
                row |= {"parts": canonical(parts).decode(), "state": "{}", "result": "{}"}
                connection.execute(upsert(connection, t.branch).values(row).on_conflict_do_nothing())  # another may have been first
            found = self.branch(key)
        assert found is not None
        return found

    def branch(self, key: str) -> Branch | None:
        """A branch by its key."""
        rows = self._rows(select(t.branch).where(t.branch.c.id == key))
        return _branch(rows[0]) if rows else None

    def branches(self, kind: str = "") -> list[Branch]:
        """Branches, newest finished first, unfinished last."""
        query = select(t.branch).order_by(func.coalesce(t.branch.c.finished_at, 0).desc(), t.branch.c.created_at.desc())
        return [_branch(row) for row in self._rows(query if not kind else query.where(t.branch.c.kind == kind))]

    def save_branch(self, connection: Connection, key: str, before: dict[str, Any], state: dict[str, Any]) -> None:
        """Keep the state of a branch, in the same transaction as what it decided. Raises Busy when it is no longer `before`."""
        same = t.branch.c.id == key, t.branch.c.state == canonical(before).decode()
        changed = connection.execute(update(t.branch).where(*same).values(state=canonical(state).decode()))
        if changed.rowcount != 1:
            raise Busy(
                f"another process moved branch {key} on", where=self.records.where, hint="run the command again: it goes on from there"
            )

    def save_parts(self, connection: Connection, key: str, parts: dict[str, Any]) -> None:
        """What the live branch is made of now, in the same transaction as the state that goes with it."""
        connection.execute(update(t.branch).where(t.branch.c.id == key).values(parts=canonical(parts).decode()))

    def finish_branch(self, key: str, result: dict[str, Any]) -> None:
        """A branch is whole: keep its result. Finishing it again moves it to the front."""
        changes = {"status": "finished", "finished_at": self.wall(), "result": canonical(result).decode()}
        with self.records.begin() as connection:
            connection.execute(update(t.branch).where(t.branch.c.id == key).values(changes))


def _target(row: Row[Any]) -> Ref:
    text, _, digest = row.target.rpartition("#")
    ref = Ref.parse(text)
    return Ref(ref.kind, ref.name, ref.version, digest)


def _execution(row: Row[Any]) -> Execution:
    plain = {c: _decode(getattr(row, c)) for c in ("inputs", "outputs", "params", "metrics")}
    rest = {c.name: getattr(row, c.name) for c in t.execution.c if c.name not in plain}
    return Execution(**rest, **plain)


def _branch(row: Row[Any]) -> Branch:
    plain = {c: _decode(getattr(row, c)) for c in ("parts", "state", "result")}
    return Branch(**{c.name: getattr(row, c.name) for c in t.branch.c if c.name not in plain}, **plain)
