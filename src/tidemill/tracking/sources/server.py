"""A server that speaks MLflow's protocol, MLflow's own or another Tidemill, read page by page. Whom it knows by name and password, or by a
token, is named as for MLflow's client: MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN."""

import base64
import json
import os
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import msgspec

from tidemill.core import DataError, StoreError, UnknownName
from tidemill.tracking.experiments import ROOT
from tidemill.tracking.models import LoggedModel
from tidemill.tracking.values import Experiment, Metric, Run

API, PROXY = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"
CHUNK = 1 << 20
WAIT = 120  # seconds, as MLflow's client
Answer = dict[str, Any]


class Server:
    """A server by its address."""

    def __init__(self, address: str) -> None:
        self.where = address.rstrip("/")
        self.problems: list[str] = []

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _open(self, method: str, call: str, /, body: Answer | None = None, **query: Any) -> Any:
        given = {name: value for name, value in query.items() if value not in (None, "")}
        url = f"{self.where}{call}" + (f"?{urlencode(given, errors='replace')}" if given else "")
        headers = {"content-type": "application/json", **_identity()}
        request = Request(url, None if body is None else json.dumps(body).encode(), headers, method=method)  # noqa: S310 – http only
        try:
            return urlopen(request, timeout=WAIT)  # noqa: S310 – `open_source` lets http and https through
        except HTTPError as error:
            said = error.read(2_000).decode(errors="replace")
            kind = UnknownName if error.code == 404 else StoreError
            raise kind(f"{method} {call} was answered with {error.code}: {said[:300]}", where=self.where) from error
        except (OSError, HTTPException) as error:
            raise StoreError(f"the server does not answer: {error}", where=self.where, hint="is the address right?") from error

    def _ask(self, method: str, call: str, /, body: Answer | None = None, **query: Any) -> Answer:
        with self._open(method, call, body, **query) as answer:
            try:
                found = json.loads(answer.read())
            except (OSError, ValueError, HTTPException) as error:
                raise DataError(f"{call} was not answered with JSON: {error}", where=self.where) from error
        return found if isinstance(found, dict) else {}

    def _posted(self, call: str, name: str, /, **body: Any) -> Iterator[Any]:
        """Every item of a search, page by page."""
        token = ""
        while True:
            found = self._ask("POST", f"{API}/{call}", {**body, **({"page_token": token} if token else {})})
            yield from found.get(name) or []
            token = self._next(found, token)
            if not token:
                return

    def _next(self, found: Answer, before: str) -> str:
        """The token of the next page; raises DataError for a server that gives the same page again and again."""
        token = str(found.get("next_page_token") or "")
        if token and token == before:
            raise DataError("the server's pages lead in a circle", where=self.where)
        return token

    def _got(self, call: str, name: str, /, **query: Any) -> Iterator[Any]:
        token = ""
        while True:
            found = self._ask("GET", f"{API}/{call}", page_token=token, **query)
            yield from found.get(name) or []
            token = self._next(found, token)
            if not token:
                return

    def _as(self, kind: Any, plain: Any, what: str) -> Any:
        """A value of the protocol, or None for one that is not as it should be, which is told."""
        try:
            return msgspec.convert(plain, kind, strict=False)
        except msgspec.ValidationError as error:
            self.problems.append(f"{self.where}: {what}: {error}")
            return None

    # ── experiments and runs ────────────────────────────────────────────────────────────────────────────────────

    def experiments(self) -> Iterator[Experiment]:
        for plain in self._posted("experiments/search", "experiments", max_results=1_000, view_type="ALL"):
            found = self._as(Experiment, {"creation_time": 0, "last_update_time": 0, **plain}, "an experiment")
            if found is not None:
                yield found

    def runs(self, experiment: Experiment) -> Iterator[Run]:
        body = {"experiment_ids": [experiment.experiment_id], "run_view_type": "ALL", "max_results": 500}
        for found in self._posted("runs/search", "runs", **body):
            plain = self._whole(found)
            info = plain.get("info") or {}
            info = {"run_name": "", "user_id": "", "artifact_uri": "", "start_time": 0, **info, "run_uuid": info.get("run_id", "")}
            data = plain.get("data") or {}
            data = {**data, "metrics": [{"key": one["key"]} for one in data.get("metrics") or []]}
            run = self._as(Run, {"inputs": {}, **plain, "info": info, "data": data}, f"run {info['run_uuid']}")
            if run is not None:
                yield run

    def _whole(self, found: Answer) -> Answer:
        """A run with its inputs: MLflow's search leaves out models that a run read."""
        try:
            return dict(self._ask("GET", f"{API}/runs/get", run_id=(found.get("info") or {}).get("run_id"))["run"])
        except (KeyError, UnknownName):
            return found

    def history(self, run: Run, keys: list[str]) -> Iterator[Metric]:
        for key in keys:
            query = {"run_id": run.info.run_id, "metric_key": key, "max_results": 25_000}
            for plain in self._got("metrics/get-history", "metrics", **query):
                yield Metric(key, float(plain["value"]), int(plain["timestamp"]), int(plain.get("step") or 0))

    def logged_models(self, experiment: Experiment) -> Iterator[LoggedModel]:
        try:
            for plain in self._posted("logged-models/search", "models", experiment_ids=[experiment.experiment_id], max_results=50):
                info, data = dict(plain["info"]), dict(plain.get("data") or {})
                info = {"name": "", "artifact_uri": "", **info, "status": _status(info.get("status"))}
                for one in data.get("metrics") or []:
                    one["value"] = float(one["value"])
                found = self._as(LoggedModel, {"info": info, "data": data}, "a logged model")
                if found is not None:
                    yield found
        except UnknownName:  # a server before MLflow 3
            return

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────

    def files(self, kind: str, owner: str, uri: str) -> Iterator[tuple[str, int]]:
        waiting, seen = [""], {""}
        while waiting:
            folder = waiting.pop()
            for one in self._list(kind, owner, uri, folder):
                path = str(one.get("path", ""))
                path = f"{folder}/{path}" if folder and kind == "version" else path  # the proxy tells names in the folder
                if not one.get("is_dir"):
                    yield path, int(one.get("file_size") or 0)
                elif path not in seen:  # a server that leads in circles
                    seen.add(path)
                    waiting.append(path)

    def _list(self, kind: str, owner: str, uri: str, path: str) -> list[Answer]:
        if kind == "version":
            found = self._ask("GET", PROXY, path="/".join(filter(None, [_proxied(uri), path])))
            return list(found.get("files") or [])
        if kind == "run":
            return list(self._got("artifacts/list", "files", run_id=owner, path=path))
        return list(self._got(f"logged-models/{quote(owner, safe='')}/artifacts/directories", "files", artifact_directory_path=path))

    def read(self, kind: str, owner: str, uri: str, path: str) -> Iterator[bytes]:
        if kind == "run":
            opened = self._open("GET", "/get-artifact", run_uuid=owner, run_id=owner, path=path)
        elif kind == "version":
            opened = self._open("GET", f"{PROXY}/{quote(f'{_proxied(uri)}/{path}', errors='replace')}")
        else:
            place = f"/ajax-api/2.0/mlflow/logged-models/{quote(owner, safe='')}/artifacts/files"
            opened = self._open("GET", place, artifact_file_path=path)
        with opened as answer:
            try:
                while piece := answer.read(CHUNK):
                    yield piece
                if answer.length:  # the end of a stream is no error of its own
                    raise HTTPException(f"{answer.length} bytes are missing")
            except (OSError, HTTPException) as error:
                raise StoreError(f"{path} of {kind} {owner} broke off: {error}", where=self.where) from error

    # ── the registry ────────────────────────────────────────────────────────────────────────────────────────────

    def registered(self) -> Iterator[dict[str, Any]]:
        seen = set[str]()
        for only in ("", "tags.`mlflow.prompt.is_prompt` = 'true'"):
            for plain in self._got("registered-models/search", "registered_models", max_results=1_000, filter=only):
                if plain["name"] not in seen:
                    seen.add(plain["name"])
                    aliases = {one["alias"]: str(one["version"]) for one in plain.get("aliases") or []}
                    yield {**plain, "tags": _tags(plain), "aliases": aliases}

    def versions(self, name: str) -> Iterator[dict[str, Any]]:
        sign = '"' if "'" in name else "'"
        for only in ("", " AND tags.`mlflow.prompt.is_prompt` = 'true'"):
            found = list(
                self._got("model-versions/search", "model_versions", filter=f"name = {sign}{name}{sign}{only}", max_results=10_000)
            )
            for plain in found:
                yield {**plain, "version": str(plain["version"]), "tags": _tags(plain), "location": self._location(name, plain)}
            if found:
                return

    def _location(self, name: str, plain: Answer) -> str | None:
        try:
            found = self._ask("GET", f"{API}/model-versions/get-download-uri", name=name, version=plain["version"])
        except (StoreError, UnknownName):
            return None
        return str(found.get("artifact_uri") or "") or None


def _proxied(uri: str) -> str:
    """The path of a URI below the root of the server's artifact proxy. Raises UnknownName for one of another place."""
    if not uri.startswith(ROOT):
        raise UnknownName(f"{uri[:300]} is not read through the server", hint="its files stay there")
    return uri.removeprefix(ROOT).strip("/")


def _tags(plain: Answer) -> dict[str, str]:
    return {str(one["key"]): str(one.get("value", "")) for one in plain.get("tags") or []}


def _status(found: Any) -> Any:
    """`READY` of some servers is `LOGGED_MODEL_READY` of the protocol."""
    return f"LOGGED_MODEL_{found}" if isinstance(found, str) and not found.startswith("LOGGED_MODEL_") else found or "LOGGED_MODEL_READY"


def _identity() -> dict[str, str]:
    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    if user:
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {"authorization": f"Bearer {token}"} if token else {}
