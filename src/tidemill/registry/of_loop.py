"""The models that the loop trains, under the names that clients of MLflow's protocol see: a view of the loop's own versions.

A model is seen under its own name on the branch that serves a deployment: the live one, or the newest finished replay where nothing live
exists. Where a client or another deployment has the name, it is `MODEL.DEPLOYMENT`. What clients say about such versions (descriptions,
stages, tags, aliases of their own) lies beside them; versions, runs, files and a deployment's aliases are the loop's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from tidemill.core import Refused, UnknownName
from tidemill.store import Driver
from tidemill.tracking import FROZEN, ROOT, Sql

COLUMNS = "name, number, created_at, updated_at, who, stage, description, source, run, status, message, run_link, model"
FOLLOWED = ("champion", "challenger")  # the aliases that a deployment follows
_SERVING = (
    "SELECT id, kind, name, created_at FROM branch WHERE (kind = 'live' AND state != '{}') OR (kind = 'replay' AND status = 'finished') "
    "ORDER BY kind, coalesce(finished_at, 0) DESC, created_at DESC"
)
# The run that made a version; its source, which is told as if a client of MLflow had put it there; and where its files lie, which no
# client writes.
_RUN = (
    "SELECT {what} FROM edge AS e JOIN run AS r ON r.execution = e.execution "
    "WHERE e.child = 'model:' || m.name || '@' || substr(m.digest, 1, 12) ORDER BY e.execution DESC LIMIT 1"
)
_SOURCE = f"coalesce(({_RUN.format(what='r.location')}) || '/model', 'mlflow-artifacts:/models/' || m.digest)"
_PLACE = f"'{ROOT}{FROZEN}loop/' || coalesce(({_RUN.format(what='r.uid')}), m.digest)"
_VERSIONS = (
    "SELECT CAST(? AS TEXT) AS name, m.number, m.at / 1000 AS created_at, coalesce(l.updated_at, m.at / 1000) AS updated_at, "
    "'loop' AS who, coalesce(l.stage, 'None') AS stage, coalesce(l.description, '') AS description, "
    f"{_SOURCE} AS source, coalesce(({_RUN.format(what='r.uid')}), '') AS run, 'READY' AS status, '' AS message, '' AS run_link, "
    f"'' AS model, CAST(? AS TEXT) AS owner, {_PLACE} AS location "
    "FROM model_version AS m LEFT JOIN version_label AS l ON l.branch = m.branch AND l.name = m.name AND l.number = m.number "
    "WHERE m.branch = ? AND m.name = ?"
)
_MODELS = (
    "SELECT CAST(? AS TEXT) AS name, coalesce(min(l.description), '') AS description, '' AS job, min(m.at) / 1000 AS created_at, "
    "coalesce(max(l.updated_at), max(m.at) / 1000) AS updated_at, CAST(? AS TEXT) AS owner "
    "FROM model_version AS m LEFT JOIN version_label AS l ON l.branch = m.branch AND l.name = m.name AND l.number = 0 "
    "WHERE m.branch = ? AND m.name = ?"
)


@dataclass(frozen=True)
class Looped:
    """A model of the loop: the name that clients see, its branch, its own name, and the deployment that it was trained for."""

    name: str
    branch: str
    kind: str
    model: str
    deployment: str

    @property
    def owner(self) -> str:
        """What its labels belong to: a name that no client can give."""
        return f"{self.branch}/{self.model}"

    @property
    def values(self) -> tuple[str, str, str, str]:
        """The values of the marks of a query."""
        return self.name, self.owner, self.branch, self.model


Found = Mapping[str, Looped]


def looped(sql: Driver) -> dict[str, Looped]:
    """The models of the loop by the name that clients see."""
    branches: dict[str, tuple[str, str, int]] = {}
    for branch, kind, deployment, created in sql.all(_SERVING):
        branches.setdefault(deployment, (branch, kind, created))  # live comes before replay
    found: dict[str, Looped] = {}
    for deployment, (branch, kind, _) in sorted(branches.items(), key=lambda one: one[1][2]):
        for (model,) in sql.all("SELECT DISTINCT name FROM model_version WHERE branch = ? ORDER BY name", (branch,)):
            taken = model in found or sql.one("SELECT 1 FROM registered_model WHERE name = ?", (model,))
            name = f"{model}.{deployment}" if taken else model
            found[name] = Looped(name, branch, kind, model, deployment)
    return found


def all_versions(found: Found, alias: str = "v") -> Sql:
    """The versions of clients and of the loop as one table; `owner` is what labels belong to."""
    own = f"SELECT {COLUMNS}, name AS owner, location FROM registered_version"
    return _table(own, _VERSIONS, found.values(), alias)


def loop_versions(found: Found) -> Sql | None:
    """The loop's versions alone, as the same table; None where there is none."""
    several = list(found.values())
    text = " UNION ALL ".join([_VERSIONS] * len(several))
    return Sql(f"({text}) AS v", tuple(value for one in several for value in one.values)) if several else None


def all_models(found: Found, alias: str = "m") -> Sql:
    """The models of clients and of the loop as one table."""
    own = "SELECT name, description, job, created_at, updated_at, name AS owner FROM registered_model"
    return _table(own, _MODELS, found.values(), alias)


def _table(own: str, theirs: str, found: Iterable[Looped], alias: str) -> Sql:
    several = list(found)
    text = " UNION ALL ".join([own, *[theirs] * len(several)])
    return Sql(f"({text}) AS {alias}", tuple(value for one in several for value in one.values))


def owner_of(found: Found, name: str) -> str:
    """What the labels of a name belong to."""
    return found[name].owner if name in found else name


def refuse(found: Found, name: str, what: str) -> None:
    """Raise Refused for what a client may not do with a model of the loop."""
    if name in found:
        one = found[name]
        hint = f"`tidemill run` makes versions of it; `tidemill rollback {one.deployment}` lets an earlier one serve again"
        raise Refused(f"{name} is a model of the loop, for deployment {one.deployment}: {what}. {hint[0].upper()}{hint[1:]}.", hint=hint)


def refuse_followed(found: Found, name: str, alias: str) -> None:
    """Raise Refused for a direct write to an alias that a deployment follows; the error names the command."""
    if name in found and alias in FOLLOWED:
        one = found[name].deployment
        hint = f"`tidemill run --deployment {one}` moves it when the gates pass; `tidemill rollback {one}` moves it back"
        raise Refused(
            f"deployment {one} follows the alias {alias!r} of {name}: it is not set by hand. {hint[0].upper()}{hint[1:]}.", hint=hint
        )


def followed(sql: Driver, one: Looped) -> dict[str, str]:
    """Where the aliases point that the deployment of a model follows: a challenger that became the champion is none any more."""
    query = (
        "SELECT a.alias, a.target FROM alias AS a WHERE a.branch = ? AND a.name = ? AND a.id = "
        "(SELECT max(b.id) FROM alias AS b WHERE b.branch = a.branch AND b.name = a.name AND b.alias = a.alias)"
    )
    start = f"model:{one.model}@"
    there = {str(alias): str(target) for alias, target in sql.all(query, (one.branch, one.deployment)) if str(target).startswith(start)}
    if there.get("challenger") == there.get("champion"):
        there.pop("challenger", None)
    return {alias: target.removeprefix(start).partition("#")[0] for alias, target in there.items() if alias in FOLLOWED}


def digest_of(sql: Driver, one: Looped, number: int) -> str:
    """The digest of the model of a version; raises UnknownName."""
    row = sql.one("SELECT digest FROM model_version WHERE branch = ? AND name = ? AND number = ?", (one.branch, one.model, number))
    if row is None:
        raise UnknownName(f"Model Version (name={one.name}, version={number}) not found")
    return str(row[0])


def known_of(sql: Driver, one: Looped, number: int) -> dict[str, str]:
    """What the loop knows of a version, as tags that no client changes."""
    query = "SELECT digest, verdict FROM model_version WHERE branch = ? AND name = ? AND number = ?"
    digest, verdict = sql.one(query, (one.branch, one.model, number)) or ("", "")
    passed = all(result["passed"] for result in msgspec.json.decode(verdict)["results"]) if verdict else None
    said = {True: "passed", False: "refused", None: "none"}[passed]
    told = {"deployment": one.deployment, "branch": one.branch, "digest": str(digest), "verdict": said}
    kept = sql.one("SELECT meta FROM artifact WHERE kind = 'model' AND digest = ? AND meta LIKE ?", (digest, '%"isolated":%'))
    isolated = msgspec.json.decode(kept[0]).get("isolated") if kept else None  # a feature may have this name
    told |= {"isolated": str(isolated["why"])} if isolated else {}
    return {f"tidemill.{key}": value for key, value in told.items()}
