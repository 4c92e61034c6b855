"""MLflow's plugin: the scheme `tidemill` writes to an embedded project with no server. Loaded by MLflow's client, in its process.

`MLFLOW_TRACKING_URI=tidemill:///path/to/project` is all it takes. The stores are MLflow's own for servers, whose requests are answered
here by the calls that our server answers, without HTTP; so both behave the same.
"""

import json
import os
import posixpath
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository as Repository
from mlflow.store.model_registry.rest_store import RestStore as RegistryRestStore
from mlflow.store.tracking.rest_store import RestStore as TrackingRestStore
from mlflow.utils.proto_json_utils import parse_dict
from mlflow.utils.rest_utils import MlflowHostCreds, verify_rest_response
from packaging.version import Version

from tidemill import project
from tidemill.ledger import Ledger
from tidemill.tracking import check_path, delete_files, find_file, list_files, put_file
from tidemill.web.protocol import Protocol
from tidemill.web.tracking import MLFLOW, protocol

_ARTIFACTS, _PROXIED = "/.tidemill/artifacts/", "mlflow-artifacts:/"
_open: dict[tuple[int, str], tuple[Ledger, Protocol]] = {}  # by process, since a connection does not go over a fork


def home_of(uri: str) -> str:
    """The folder of the project that a URI names, absolute; `tidemill:here` is relative to the working folder."""
    parts = urlsplit(uri)
    return str(Path(unquote(f"{parts.netloc}{parts.path}") or ".").expanduser().resolve())


def opened(home: str) -> tuple[Ledger, Protocol]:
    """A project's ledger and the protocol over it; the project is made where there is none."""
    key = (os.getpid(), home)
    if key not in _open:
        ledger = project.ensure(Path(home)).ledger()
        _open[key] = ledger, protocol(ledger)
    return _open[key]


class _Response:
    """An answer as `verify_rest_response` reads it."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status_code, self.text = status, body.decode()


class _Embedded:
    """What both stores share: requests are answered in this process, and locations told as this plugin's own."""

    home: str

    def ask(self, method: str, path: str, body: str | None, response: Any) -> Any:
        """Answer a request and read the answer into a message; raises MlflowException and RestException as for a server."""
        plain = self._translated(json.loads(body or "{}"), self._root, _PROXIED)
        query = urlencode(plain, doseq=True) if method == "GET" else ""
        status, answer = opened(self.home)[1].ask(method, path, query, json.dumps(plain).encode())
        verify_rest_response(_Response(status, answer), path)
        parse_dict(js_dict=self._translated(json.loads(answer), _PROXIED, self._root), message=response)
        return response

    @property
    def _root(self) -> str:
        return f"tidemill://{quote(self.home)}{_ARTIFACTS}"

    def _translated(self, value: Any, before: str, after: str) -> Any:
        """Locations of files, which a server would hand out by its proxy."""
        if isinstance(value, dict):
            return {key: self._translated(item, before, after) for key, item in value.items()}
        if isinstance(value, list):
            return [self._translated(item, before, after) for item in value]
        return f"{after}{value[len(before) :]}" if isinstance(value, str) and value.startswith(before) else value

    def _creds(self) -> Any:
        return MlflowHostCreds(f"tidemill://{quote(self.home)}")


class TrackingStore(_Embedded, TrackingRestStore):  # type: ignore[misc] # MLflow's classes are not typed
    """Experiments, runs and traces of an embedded project."""

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        self.home = home_of(store_uri)
        super().__init__(self._creds)

    @staticmethod
    def _get_server_version(host_creds: Any) -> Version:
        return Version(MLFLOW)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str | None = None,
        endpoint: str | None = None,
        retry_timeout_seconds: Any = None,
        response_proto: Any = None,
    ) -> Any:
        table = self._V3_METHOD_TO_INFO if api in self._V3_APIS else self._METHOD_TO_INFO
        path, method = table[api]
        return self.ask(method, endpoint or path, json_body, response_proto or api.Response())


class RegistryStore(_Embedded, RegistryRestStore):  # type: ignore[misc]
    """Registered models of an embedded project."""

    def __init__(self, store_uri: str, tracking_uri: str | None = None) -> None:
        self.home = home_of(store_uri)
        super().__init__(self._creds)

    def _call_endpoint(self, api: Any, json_body: str, call_all_endpoints: bool = False, extra_headers: Any = None) -> Any:
        pairs = self._get_all_endpoints_from_method(api) if call_all_endpoints else [self._get_endpoint_from_method(api)]
        path, method = pairs[0]
        return self.ask(method, path, json_body, self._get_response_from_method(api))


class ArtifactRepository(Repository):  # type: ignore[misc]
    """Files of an embedded project: `tidemill:///path/to/project/.tidemill/artifacts/1/RUN/artifacts`."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        home, _, place = urlsplit(artifact_uri).path.partition(_ARTIFACTS)
        self.home, self.place = str(Path(unquote(home)).resolve()), check_path(place)

    @property
    def ledger(self) -> Ledger:
        """The project's ledger."""
        return opened(self.home)[0]

    def _path(self, *parts: str | None) -> str:
        return check_path(posixpath.join(self.place, *(part for part in parts if part)))

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Keep one file."""
        part = self.ledger.blobs.part()
        try:
            with Path(local_file).open("rb") as file:
                while data := file.read(1 << 20):
                    part.write(data)
            put_file(self.ledger, self._path(artifact_path, Path(local_file).name), part)
        finally:
            part.discard()

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Keep every file below a folder."""
        for file in sorted(path for path in Path(local_dir).rglob("*") if path.is_file()):
            folder = file.relative_to(local_dir).parent.as_posix()
            self.log_artifact(str(file), posixpath.join(artifact_path or "", folder) if folder != "." else artifact_path)

    def list_artifacts(self, path: str | None = None) -> Sequence[Any]:
        """What lies directly in a folder."""
        return [FileInfo(one.path, one.is_dir, one.file_size) for one in list_files(self.ledger, self.place, path or "")]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        digest, _ = find_file(self.ledger, self._path(remote_file_path))
        shutil.copyfile(self.ledger.blobs.path(digest), local_path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Take a file or a folder away."""
        delete_files(self.ledger, self._path(artifact_path))
