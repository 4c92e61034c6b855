"""Imports of stores that are broken, hostile, or half taken over already. What MLflow's client reads afterwards: tests/clients."""

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import Request, urlopen

import pytest

from disks import unpacked
from processes import served
from tidemill import loop, registry, tracking
from tidemill.core import DataError, MissingFile, StoreError, UnknownName
from tidemill.ledger import Ledger
from tidemill.registry.aliases import set_alias
from tidemill.registry.models import create_model
from tidemill.registry.registered import create_version
from tidemill.tracking import Imported
from tidemill.tracking.experiments import create_experiment, get_experiment_by_name
from tidemill.tracking.metrics import history
from tidemill.tracking.runs import get_run

PACKED = Path(__file__).parents[1] / "clients" / "stores" / "stores.tar.xz"


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    """A folder with a SQLite store (`db`) and a file store (`mlruns`), as MLflow made them."""
    unpacked(PACKED, tmp_path / "stores")
    return tmp_path / "stores"


@pytest.fixture
def ready(ledger: Ledger) -> Ledger:
    return loop.prepare(ledger)


def take(ledger: Ledger, source: Path | str, *, dry: bool = False) -> Imported:
    opened = tracking.open_source(str(source))
    done = Imported(opened.where, dry)
    tracking.import_tracking(ledger, opened, done)
    registry.import_registry(ledger, opened, done)
    done.problems = opened.problems + done.problems
    return done


def whole(stores: Path) -> Path:
    """The folder of the run that has everything."""
    return next(path.parent.parent for path in stores.glob("mlruns/*/*/metrics/loss"))


@pytest.fixture(params=["mlruns", "db/mlflow.db"])
def store(request: pytest.FixtureRequest, stores: Path) -> Path:
    return stores / str(request.param)


def test_all_is_taken_once(ready: Ledger, store: Path) -> None:
    first = take(ready, store)
    assert first.problems == []
    assert (first.new["experiments"], first.new["runs"], first.new["values"], first.new["versions"]) == (2, 5, 1105, 2)
    assert first.known == {"experiments": 1}, "Default was there"
    again = take(ready, store)
    assert again.new == {}
    assert again.known == {key: many for key, many in (first.new | {"experiments": 3}).items() if key not in ("metrics", "values")}


def test_a_dry_run_writes_nothing(ready: Ledger, store: Path) -> None:
    planned = take(ready, store, dry=True)
    done = take(ready, store)
    assert {key: planned.new[key] for key in ("runs", "files", "bytes", "versions", "aliases")} == {
        key: done.new[key] for key in ("runs", "files", "bytes", "versions", "aliases")
    }


def test_the_other_store_is_taken_too(ready: Ledger, stores: Path) -> None:
    """Both have experiments, models and versions of the same names."""
    take(ready, stores / "mlruns")
    done = take(ready, stores / "db/mlflow.db")
    ours = get_experiment_by_name(ready, "first").experiment_id
    assert done.mapped["1"] == ours
    assert done.new["runs"] == 5
    assert sorted(done.problems) == [f"{stores}/db/mlflow.db: parcels/{n}: another version of this number is here" for n in (2, 3)]


def test_an_id_that_is_taken_is_told(ready: Ledger, stores: Path) -> None:
    taken = create_experiment(ready, "something else")
    done = take(ready, stores / "db/mlflow.db")
    assert (taken, done.mapped) == ("1", {"1": "2", "2": "3"})
    assert create_experiment(ready, "one more") == "4"


def test_an_interrupted_import_goes_on(ready: Ledger, store: Path) -> None:
    class Enough(Exception):
        pass

    opened = tracking.open_source(str(store))
    left = iter(range(14))

    def listen(_: Imported) -> None:
        if next(left, None) is None:
            raise Enough

    with pytest.raises(Enough):
        tracking.import_tracking(ready, opened, Imported(opened.where, listen=listen))
    done = take(ready, store)
    assert done.problems == []
    run = next(uid for (uid,) in rows(ready, "SELECT uid FROM run WHERE name = 'whole'"))
    assert len(history(ready, run, "loss")[0]) == 1100
    found = get_run(ready, run)
    assert (found.info.status, found.info.end_time) == ("FINISHED", 1_700_000_100_000)


def rows(ledger: Ledger, query: str) -> list[tuple[str, ...]]:
    with ledger.records.snapshot() as sql:
        return [tuple(map(str, row)) for row in sql.all(query)]


def test_what_was_changed_here_stays(ready: Ledger, store: Path) -> None:
    take(ready, store)
    set_alias(ready, "parcels", "champion", "2", who="ann", why="better")
    take(ready, store)
    assert registry.named_version(ready, "parcels@champion").version == "2"
    assert [move.who for move in registry.alias_history(ready, "parcels", "champion")] == ["import", "ann"]
    assert create_version(ready, "parcels", "s3://there/it/is").version == "4"


def test_a_model_of_the_same_name_is_not_mixed_up(ready: Ledger, store: Path) -> None:
    create_model(ready, "parcels")
    create_version(ready, "parcels", "s3://ours")
    create_version(ready, "parcels", "s3://ours")
    done = take(ready, store)
    assert [problem.rpartition("parcels")[2] for problem in done.problems] == [
        "/2: another version of this number is here",
        ": the alias 'old' is of version 2, which was not taken over",
    ]
    assert registry.named_version(ready, "parcels@champion").version == "3"
    with pytest.raises(UnknownName):
        registry.alias_history(ready, "parcels", "old")


# ── broken and hostile ──────────────────────────────────────────────────────────────────────────────────────────────


BROKEN = {
    "no yaml": b"a: [1, 2",
    "no mapping": b"- 1",
    "an object": b"!!python/object/apply:os.system ['touch /tmp/there/was-here']",
    "bytes": b"\xff\xfe\x00\x01",
    "lacks its id": b"name: x",
    "ids that are none": b"run_id: ../../x\nexperiment_id: 1\nstart_time: soon",
    "nested": b"[" * 5_000,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_meta_file_is_told_and_the_rest_goes_on(ready: Ledger, stores: Path, text: bytes) -> None:
    meta = whole(stores) / "meta.yaml"
    meta.write_bytes(text)
    done = take(ready, stores / "mlruns")
    assert len(done.problems) == 1
    assert str(meta) in done.problems[0]
    assert done.new["runs"] == 4
    assert not Path("/tmp/there/was-here").exists()


def test_lines_that_are_no_values_are_told_once(ready: Ledger, stores: Path) -> None:
    path = whole(stores) / "metrics" / "odd"
    path.write_text("1 2.0 3\nnonsense\n5 x 6\n\n7 8.0 9\n")
    done = take(ready, stores / "mlruns")
    assert done.problems == [f"{path}:2: 'nonsense' is no value of a metric"]
    assert [one.value for one in history(ready, whole(stores).name, "odd")[0]] == [2.0, 8.0]


def test_links_and_pipes_are_not_followed(ready: Ledger, stores: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    files = whole(stores) / "artifacts"
    (files / "link").symlink_to(secret / "key")
    (files / "folder").symlink_to(secret)
    os.mkfifo(files / "pipe")
    (whole(stores) / "params" / "stolen").symlink_to(secret / "key")
    done = take(ready, stores / "mlruns")
    said = sorted(problem.removeprefix(str(whole(stores))) for problem in done.problems)
    assert said == [
        "/artifacts/folder: a symbolic link is not followed",
        "/artifacts/link: a symbolic link is not followed",
        "/artifacts/pipe: neither a file nor a folder",
        "/params/stolen: a symbolic link is not followed",
    ]
    assert "secret" not in str(get_run(ready, whole(stores).name).data.params)
    assert done.new["files"] == 7


@pytest.mark.parametrize("uri", ["/etc", "file:///etc", "../../secret", "mlflow-artifacts:/../../secret", "{stores}/secret", "/"])
def test_files_outside_the_store_are_not_read(ready: Ledger, stores: Path, uri: str) -> None:
    (stores / "secret").mkdir()
    (stores / "secret" / "passwd").write_text("secret")
    sql = sqlite3.connect(stores / "db" / "mlflow.db")
    with sql:
        sql.execute("UPDATE runs SET artifact_uri = ? WHERE name = 'whole'", (uri.format(stores=stores),))
    sql.close()
    done = take(ready, stores / "db" / "mlflow.db")
    assert done.new["files"] == 4, "those of the logged model, and those of the version, which lie in the store"
    assert "passwd" not in str(rows(ready, "SELECT path FROM artifact_file"))
    assert tracking.frozen_place(registry.download_uri(ready, "parcels", "3"))
    assert take(ready, stores / "db" / "mlflow.db").new == {}


def test_files_that_lie_elsewhere_stay_there(ready: Ledger, stores: Path) -> None:
    sql = sqlite3.connect(stores / "db" / "mlflow.db")
    with sql:
        sql.execute("UPDATE runs SET artifact_uri = 's3://bucket/of/run' WHERE name = 'whole'")
        sql.execute("UPDATE model_versions SET source = 's3://bucket/of/run/model', storage_location = NULL WHERE version = 3")
    sql.close()
    done = take(ready, stores / "db" / "mlflow.db")
    assert ["s3://bucket/of/run lies elsewhere: its files stay there" in problem for problem in done.problems] == [True]
    assert registry.download_uri(ready, "parcels", "3") == "s3://bucket/of/run/model"


def test_a_file_that_is_no_store_is_refused(ready: Ledger, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, but text of some length" * 100)
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE t (a)").connection.close()
    for name, said in (("text", "no SQLite database"), ("other.db", "no store of MLflow")):
        with pytest.raises(DataError, match=said) as error:
            tracking.open_source(str(tmp_path / name))
        assert str(tmp_path / name) in str(error.value)
    with pytest.raises(MissingFile, match="nothing to import"):
        tracking.open_source(str(tmp_path / "none"))
    with pytest.raises(StoreError, match="does not answer"):
        take(ready, "http://127.0.0.1:9")  # type: ignore[arg-type]


def test_an_older_store_without_newer_tables(ready: Ledger, stores: Path) -> None:
    sql = sqlite3.connect(stores / "db" / "mlflow.db")
    with sql:
        for table in ("logged_models", "inputs", "datasets", "registered_model_aliases"):
            sql.execute(f"DROP TABLE {table}")
    sql.close()
    done = take(ready, stores / "db" / "mlflow.db")
    assert (done.problems, done.new["runs"], done.new["versions"]) == ([], 5, 2)


class Hostile(BaseHTTPRequestHandler):
    """A server that names files outside, leads in circles, and sends what is no protocol."""

    answers: ClassVar[dict[str, Any]] = {
        "experiments/search": {"experiments": [{"experiment_id": "7", "name": "e", "artifact_location": "x", "lifecycle_stage": "active"}]},
        "runs/search": {
            "runs": [
                {"info": {"run_id": "../../up", "experiment_id": "7", "status": "FINISHED", "lifecycle_stage": "active"}},
                {"info": {"run_id": ["no", "text"], "experiment_id": "7"}},
                {
                    "info": {"run_id": "sound", "experiment_id": "7", "status": "FINISHED", "lifecycle_stage": "active", "end_time": 5},
                    "data": {"metrics": [{"key": "../m"}, {"key": "fine"}], "params": [{"key": "p", "value": "1"}]},
                },
            ]
        },
        "metrics/get-history": {"metrics": [{"key": "fine", "value": "NaN", "timestamp": 1, "step": 2}]},
        "artifacts/list": {
            "files": [
                {"path": "../../../etc/passwd", "is_dir": False, "file_size": 1},
                {"path": "/etc/passwd", "is_dir": False, "file_size": 1},
                {"path": "loop", "is_dir": True},
                {"path": "fine.txt", "is_dir": False, "file_size": 4},
            ]
        },
        "registered-models/search": {"registered_models": [{"name": "a/b"}], "next_page_token": "again"},
    }

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        known = next((answer for call, answer in self.answers.items() if path.endswith(call)), None)
        body = b"data" if path == "/get-artifact" else json.dumps(known or {}).encode()
        self.send_response(200 if known or path == "/get-artifact" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


def test_a_hostile_server_harms_nothing(ready: Ledger) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        opened = tracking.open_source(f"http://127.0.0.1:{server.server_port}")
        done = Imported(opened.where)
        tracking.import_tracking(ready, opened, done)
        with pytest.raises(DataError, match="lead in a circle"):
            registry.import_registry(ready, opened, done)
        server.shutdown()
    said = "\n".join(opened.problems + done.problems)
    for text in ("Invalid run ID", "../m", "/etc/passwd", "'a/b'"):
        assert text in said
    assert rows(ready, "SELECT uid FROM run") == [("sound",)]
    assert rows(ready, "SELECT path, size FROM artifact_file") == [(f"{done.mapped.get('7', '7')}/sound/artifacts/fine.txt", "4")]
    assert [one.step for one in history(ready, "sound", "fine")[0]] == [2]


class Broken(Hostile):
    """A server whose frozen files end before their end."""

    cut: ClassVar[int]
    answers: ClassVar[dict[str, Any]] = {
        "experiments/search": {"experiments": []},
        "registered-models/search": {"registered_models": [{"name": "m"}]},
        "model-versions/search": {"model_versions": [{"version": "1", "source": "s3://a/b", "creation_timestamp": 5}]},
        "get-download-uri": {"artifact_uri": f"mlflow-artifacts:/registered/{'0' * 32}"},
        "mlflow-artifacts/artifacts": {"files": [{"path": "MLmodel", "is_dir": False, "file_size": 4}] * 2},
    }

    def do_GET(self) -> None:
        if not self.path.endswith("/MLmodel"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"data"[: self.cut])
        return None


def test_a_version_whose_files_break_off_is_taken_by_the_next_import(ready: Ledger) -> None:
    Broken.cut = 2
    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = take(ready, url)
        assert ["m/1" in problem and "2 bytes are missing" in problem for problem in done.problems] == [True]
        assert rows(ready, "SELECT name, number FROM registered_version") == []
        Broken.cut = 4
        assert take(ready, url).problems == []
        server.shutdown()
    assert registry.download_uri(ready, "m", "1") != Broken.answers["get-download-uri"]["artifact_uri"], "no name of theirs is one here"
    assert [size for _, size in rows(ready, "SELECT path, size FROM artifact_file")] == ["4"]


# ── another Tidemill ────────────────────────────────────────────────────────────────────────────────────────────────


def asked(url: str, method: str, call: str, body: Any = None) -> Any:
    """The answer of a server; bytes are sent as they are, as a file."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    path = f"/api/2.0/mlflow{'-artifacts/artifacts' if isinstance(body, bytes) else ''}/{call}"
    with urlopen(Request(f"{url}{path}", data, {"content-type": "application/json"}, method=method)) as answer:
        return json.load(answer)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[str]:
    """A server whose run was written again after versions were made of it: a folder, one file, and one that its run still writes."""
    with served("server", "--home", str(tmp_path / "other"), "--port", "0", "--json") as (_, url):
        run = asked(url, "POST", "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
        going = asked(url, "POST", "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
        asked(url, "POST", "registered-models/create", {"name": "m"})
        sources = (f"runs:/{run}/model", f"mlflow-artifacts:/0/{run}/artifacts/one.onnx", f"runs:/{going}/model")
        for text in (b"as it was", b"changed"):
            for path in (f"{run}/artifacts/model/deep/MLmodel", f"{run}/artifacts/model/b", f"{run}/artifacts/one.onnx"):
                asked(url, "PUT", f"0/{path}", text)
            for source in sources if text == b"as it was" else ():
                asked(url, "POST", "model-versions/create", {"name": "m", "source": source, "run_id": source.split("/")[1]})
        asked(url, "POST", "registered-models/alias", {"name": "m", "alias": "best", "version": "2"})
        asked(url, "PUT", f"0/{going}/artifacts/model/MLmodel", b"so far")
        asked(url, "POST", "runs/update", {"run_id": run, "status": "FINISHED", "end_time": 5})
        yield url


def test_the_frozen_files_of_another_tidemill_come_as_they_were_registered(ready: Ledger, other: str, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    planned = take(ready, other, dry=True)
    opened, seen = tracking.open_source(other), list[str]()

    def listen(imported: Imported) -> None:
        if imported.new.get("versions", 0) == 2 and imported.new.get("files", 0) == 6:
            raise Enough

    done = Imported(opened.where, listen=listen)
    tracking.import_tracking(ready, opened, done)
    with pytest.raises(Enough):
        registry.import_registry(ready, opened, done)
    assert sorted(rows(ready, "SELECT number FROM registered_version")) == [("2",), ("3",)]
    again = take(ready, other)
    assert (again.problems, again.new["versions"], again.new["files"], again.new["aliases"]) == ([], 1, 2, 1)
    assert (planned.problems, planned.new["files"]) == ([], 7)
    for number in "123":
        registry.export(ready, "m", number, tmp_path / number)
        seen += [f"{number}/{path.relative_to(tmp_path / number)}" for path in (tmp_path / number).rglob("*") if path.is_file()]
    assert sorted(seen) == ["1/b", "1/deep/MLmodel", "2/one.onnx", "3/MLmodel"]
    assert {path: (tmp_path / path).read_bytes() for path in seen} == {path: b"so far" if path[0] == "3" else b"as it was" for path in seen}
    before = rows(ready, "SELECT path, digest FROM artifact_file")
    assert len([path for path, _ in before if path.startswith("registered/")]) == 3
    assert (take(ready, other).new, rows(ready, "SELECT path, digest FROM artifact_file")) == ({}, before)


# ── pickles ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def exported(ready: Ledger, store: Path, tmp_path: Path) -> Iterator[Path]:
    """A version whose pickle would run a command when it is loaded, taken over and handed back."""
    take(ready, store)
    registry.export(ready, "parcels", "3", tmp_path / "out")
    yield tmp_path / "out"
    shutil.rmtree(tmp_path / "out")


def test_a_pickle_comes_and_goes_byte_for_byte_and_is_never_loaded(ready: Ledger, stores: Path, exported: Path) -> None:
    original = whole(stores) / "artifacts" / "model"
    assert b"touch" in (original / "model.pkl").read_bytes()
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == {path.name: path.read_bytes() for path in original.iterdir()}
    registry.diff(registry.facts_of(ready, "parcels/2"), registry.facts_of(ready, "parcels/3"))
    assert not Path("/tmp/there/was-here").exists()
