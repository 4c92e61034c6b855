"""Features that are the output of a registered model: offline, for one request, materialised and pushed, all as onnxruntime says."""

import gc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from models import foreign
from models.fitted import CATEGORIES, SIGNATURE, boosted, matrix
from tidemill import cli, loop, tracking
from tidemill.core import Damaged, Floats, Ref, UnknownName
from tidemill.ledger import Artifact
from tidemill.models import Compiled, compile_model, store_model
from tidemill.registry.models import create_model
from tidemill.registry.registered import create_version
from tidemill.session import Session, now
from tidemill.tracking.runs import create_run, log_inputs
from tidemill.tracking.values import Dataset, DatasetInput
from tidemill.web.app import make_app

FILES = """
import tidemill as tm

flights = tm.Dataset("flights", {{"s": tm.Source("flights.csv", null_values=["NA"])}}, event_time="landed", known_at="told")
takes = {{"delay": "late", "origin": "origin", "hour": "hour * 1", "wind": '"wind"', "seen": "CASE WHEN seen > 0 THEN seen END"}}
risk = tm.RequestView("risk", flights, features=tm.output_of("{0}", columns=takes, returns=["score"]))
newest = tm.FeatureView("newest", flights, tm.Entity("plane", key="plane"), ttl="36000d", filter="hour >= 0",
    features=tm.output_of("{0}", columns=takes, returns=["score"]))
"""
NAMES = ("id", "plane", "landed", "told", "late", "origin", "hour", "wind", "seen")
ROWS = 300


def flights(count: int = ROWS, seed: int = 3) -> list[dict[str, Any]]:
    """Rows for the model, some with nothing, and some with an airport that it never saw."""
    random, found = np.random.default_rng(seed), []
    for i, values in enumerate(matrix(count, seed)):
        plain = [None if value != value else value for value in values.tolist()]
        origin = None if plain[1] is None else [*CATEGORIES, "XXX"][int(random.integers(0, len(CATEGORIES) + 1))]
        time = f"2024-03-{10 + i % 5:02}T{i % 24:02}:{i % 60:02}:00Z"
        row = (i, f"N{i % 40}", time, time, plain[0], origin, plain[2], plain[3], plain[4])
        found.append(dict(zip(NAMES, row, strict=True)))
    return found


def scored(onnx: bytes, rows: list[dict[str, Any]]) -> Floats:
    """What onnxruntime says of rows, each in a block of its own: of less than eight it rounds another way."""
    session = onnxruntime.InferenceSession(bytes(onnx), providers=["CPUExecutionProvider"])
    found = []
    for row in rows:
        origin = float(CATEGORIES.index(row["origin"])) if row["origin"] in CATEGORIES else np.nan
        seen = row["seen"] if row["seen"] is not None and row["seen"] > 0 else None
        asked = [row["late"], origin, row["hour"], row["wind"], seen]
        given = np.array([[np.nan if value is None else value for value in asked]] * 8, dtype=np.float64)
        found.append(session.run(["probability"], {"features": given})[0][0, 0])
    return np.array(found)


def put_model(folder: Path, compiled: Compiled, name: str = "boosted") -> Artifact:
    """A model in the ledger of a project, as training leaves it."""
    with Session(folder).project.writing("test") as ledger:
        model = store_model(loop.prepare(ledger), name, compiled, SIGNATURE, matrix(50), {})
        ledger.put_artifact(model)
    return model


def write(folder: Path, ref: str, rows: list[dict[str, Any]], files: str = FILES) -> None:
    lines = [",".join(NAMES), *(",".join("NA" if value is None else str(value) for value in row.values()) for row in rows)]
    (folder / "flights.csv").write_text("\n".join(lines) + "\n")
    (folder / "views.py").write_text(files.format(ref))
    (folder / "tidemill.toml").write_text('[project]\nname = "air"\n')


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_model(boosted(), SIGNATURE, matrix(200))


@pytest.fixture
def air(tmp_path: Path, compiled: Compiled) -> tuple[Path, Artifact]:
    (tmp_path / "tidemill.toml").write_text('[project]\nname = "air"\n')
    model = put_model(tmp_path, compiled)
    write(tmp_path, str(model.ref), flights())
    return tmp_path, model


def columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: np.array([row[name] for row in rows], dtype=object if name in ("plane", "landed", "told", "origin") else float)
        for name in NAMES
    }


def same(one: Any, two: Any) -> bool:
    """To the last bit."""
    return bool(np.asarray(one, dtype=np.float64).tobytes() == np.asarray(two, dtype=np.float64).tobytes())


def newest(rows: list[dict[str, Any]], scores: Floats) -> dict[str, float]:
    """The output of the newest row of each plane; of rows of one time the last."""
    found: dict[str, tuple[str, float]] = {}
    for row, score in zip(rows, scores.tolist(), strict=True):
        if row["hour"] is not None and row["landed"] >= found.get(row["plane"], ("", 0.0))[0]:
            found[row["plane"]] = (row["landed"], score)
    return {plane: score for plane, (_, score) in found.items()}


def test_the_same_bits_offline_for_one_request_materialised_and_pushed(air: tuple[Path, Artifact], compiled: Compiled) -> None:
    folder, _ = air
    session, rows, end = Session(folder), flights(), "2024-03-15T00:00:00Z"
    expected = scored(compiled.onnx, rows)
    found = session.historical_features(columns(rows), ["risk"])
    assert same(found.columns["risk__score"], expected)
    getter = session.online(["risk"])
    assert same([getter.get(row)["risk__score"] for row in rows[:20]], expected[:20])

    planes = newest(rows, expected)
    asked = [{"plane": plane} for plane in planes]
    history = session.historical_features({"plane": np.array(list(planes), dtype=object), "at": [end] * len(planes)}, ["newest"], at="at")
    assert same(history.columns["newest__score"], list(planes.values()))
    session.materialise()
    prepared = session.online(["newest"])
    online = prepared.read(asked, at=end)
    assert (online.offline, same([row[0] for row in online.rows], list(planes.values()))) == ({}, True)

    more = [row | {"id": 1000 + i, "landed": f"2024-03-15T{i:02}:00:00Z"} for i, row in enumerate(flights(20, seed=9))]
    session.push("flights", [row | {"told": row["landed"]} for row in more[:7]])
    session.push("flights", more[7])
    for row in more[8:]:
        session.push("flights", row)
    planes |= newest(more, scored(compiled.onnx, more))
    pushed = prepared.read(asked)
    assert (pushed.offline, same([row[0] for row in pushed.rows], list(planes.values()))) == ({}, True)
    again = session.historical_features({"plane": list(planes), "at": ["2100-01-01T00:00:00Z"] * len(planes)}, ["newest"], at="at")
    assert same(again.columns["newest__score"], list(planes.values())), "the next version has what was pushed"


def test_a_view_is_bound_to_one_version(air: tuple[Path, Artifact], compiled: Compiled) -> None:
    folder, model = air
    rows = columns(flights(30))
    ask: dict[str, Any] = {"at": "landed", "save": "scored"}
    first = Session(folder).historical_features(rows, ["risk", "newest"], **ask)
    other = put_model(folder, compile_model(boosted(n_estimators=5), SIGNATURE, matrix(50)))
    assert other.ref.name == model.ref.name
    assert Session(folder).historical_features(rows, ["risk", "newest"], **ask).why == "", "a new version of the model changes nothing"
    write(folder, str(other.ref), flights())
    session = Session(folder)
    second = session.historical_features(rows, ["risk", "newest"], **ask)
    assert (str(model.ref) in second.why, str(other.ref) in second.why, second.ref == first.ref) == (True, True, False)
    assert session.saved_rows(f"scored@{first.ref.version}", again=True).ref == first.ref, "with the model of then"  # type: ignore[union-attr]
    assert len(session.features.show("newest")["versions"]) == 2


def test_what_is_gone_or_damaged_is_said_with_its_view(air: tuple[Path, Artifact]) -> None:
    folder, model = air
    rows = columns(flights(10))
    write(folder, "model:boosted@000000000000", flights())
    with pytest.raises(UnknownName, match="the model of view 'risk' is not in this ledger") as unknown:
        Session(folder).historical_features(rows, ["risk"])
    assert (unknown.value.where, unknown.value.available) == (f"{folder / 'views.py'}:6", ["model:boosted"])
    write(folder, str(model.ref), flights())
    session = Session(folder)
    session.materialise()
    blob = session.ledger.blobs.path(model.meta["blobs"]["onnx"])
    gc.collect()  # whoever holds a model that was loaded goes on with it
    blob.chmod(0o600)
    blob.write_bytes(b"x" * blob.stat().st_size)
    for view in ("risk", "newest"):
        write(folder, str(model.ref), flights(20))
        with pytest.raises(Damaged, match=f"the model of view '{view}', {model.ref}, cannot be read") as damaged:
            Session(folder).historical_features(rows, [view], at="landed")
        assert damaged.value.where.startswith(str(folder / "views.py"))
    told = Session(folder).push("flights", flights(1)[0] | {"id": 9000})
    assert told["rows"] == 1, "what is pushed is in the log, and counts once the view can be built"


def test_its_lineage_goes_both_ways_and_the_catalogue_tells_it(air: tuple[Path, Artifact]) -> None:
    folder, model = air
    Session(folder).historical_features(columns(flights(10)), ["risk", "newest"], at="landed", save="scored")
    run = CliRunner().invoke

    def told(*words: str) -> Any:
        found = run(cli.tidemill, ["-C", str(folder), *words])
        assert found.exit_code == 0, found.output
        return found.output

    def refs(tree: Mapping[str, Any]) -> list[str]:
        return [tree["ref"], *(ref for parent in tree["parents"] for ref in refs(parent))]

    shown = json.loads(told("features", "show", "newest", "--json"))
    bound = {"ref": str(model.ref), "digest": model.ref.digest, "versions": [], "learned_until": None}
    assert shown["output_of"] == bound | {"wrong": ""}
    assert shown["definition"]["features"]["score"]["made_by"].startswith(f"{model.ref}(delay = late, ")
    assert f"output of {model.ref}" in told("features", "show", "newest")
    saved = json.loads(told("features", "saved", "scored", "--json"))["ref"]
    back, forward = (refs(json.loads(told("lineage", *words, "--json"))) for words in ((saved,), (str(model.ref), "--forward")))
    assert str(model.ref) in back
    assert {f"feature view:newest@{shown['newest']['version']}", saved} <= set(forward)
    assert "risk" in told("features", "search", model.ref.digest[:12])
    write(folder, str(model.ref), flights(), FILES.replace('"delay": "late"', '"dely": "late"'))
    wrong = f"{model.ref} takes 'delay', which view 'newest' does not give it"
    assert json.loads(told("features", "show", "newest", "--json"))["output_of"] == bound | {"wrong": wrong}
    assert "not in this ledger" not in told("features", "show", "newest")


EMBEDDED = """
import tidemill as tm

flights = tm.Dataset("flights", {{"s": tm.Source("flights.csv", null_values=["NA"])}}, event_time="landed", known_at="told")
plane = tm.Entity("plane", key="plane")
takes = {{"x_0": "late / 10", "x_1": "hour", "x_2": "wind", "x_3": "CASE WHEN origin = 'JFK' THEN 1 ELSE 0 END"}}
vector = tm.output_of("{0}", columns=takes, returns=["a", "b", "c", "d", "e", "f"])
asked = tm.RequestView("asked", flights, features=vector)
seen = tm.FeatureView("seen", flights, plane, features=vector)
"""


def registered(folder: Path, onnx: bytes, read: Ref) -> None:
    """A model that a client of MLflow logged and registered, with what its run read."""
    with Session(folder).project.writing("test") as ledger:
        info = create_run(loop.prepare(ledger), "0").info
        log_inputs(ledger, info.run_id, [DatasetInput(Dataset(read.name, read.digest, "tidemill", str(read)))])
        part = ledger.blobs.part()
        part.write(onnx)
        tracking.put_file(ledger, tracking.place_of(f"{info.artifact_uri}/model.onnx"), part)
        create_model(ledger, "embedder")
        create_version(ledger, "embedder", f"{info.artifact_uri}/model.onnx", run_id=info.run_id)


def embedded(onnx: bytes, rows: list[dict[str, Any]]) -> Floats:
    """What onnxruntime says of rows, each in a block of eight."""
    session, found = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]), []
    for row in rows:
        late = None if row["late"] is None else row["late"] / 10
        number = [late, row["hour"], row["wind"], float(row["origin"] == "JFK")]
        block = np.zeros((8, 4), dtype=np.float32)
        block[0] = [np.nan if value is None else value for value in number]
        found.append(session.run(["embedding"], {"x": block})[0][0])
    return np.array(found, dtype=np.float64)


def test_an_embedding_of_an_adopted_model_is_the_same_everywhere(tmp_path: Path) -> None:
    (tmp_path / "tidemill.toml").write_text('[project]\nname = "air"\n')
    onnx, run, rows = foreign.embedder(), CliRunner().invoke, flights(100)
    write(tmp_path, "", rows, EMBEDDED.partition("takes")[0] + 'late = tm.FeatureView("late", flights, plane, features=["late"])')
    learned = Session(tmp_path).historical_features(columns(rows[:9]), ["late"], at="landed", save="seen", until="2024-03-12T00:00:00Z")
    assert learned.ref is not None
    registered(tmp_path, onnx, learned.ref)
    told = run(cli.tidemill, ["-C", str(tmp_path), "models", "adopt", "models:/embedder/1", "--json"])
    assert told.exit_code == 0, told.output
    plain = json.loads(told.output)
    assert (plain["features"], plain["output"], plain["width"]) == (["x_0", "x_1", "x_2", "x_3"], "embedding", 6)
    shown = run(cli.tidemill, ["-C", str(tmp_path), "models", "adopt", "embedder/1"])
    assert f"{plain['ref']}\ntakes    x_0, x_1, x_2, x_3\ngives    embedding: 6 numbers for a row\n" in shown.output
    listed = json.loads(run(cli.tidemill, ["-C", str(tmp_path), "models", "show", "embedder", "--json"]).output)
    assert listed["versions"][0]["ref"] == plain["ref"]

    write(tmp_path, plain["ref"], rows, EMBEDDED)
    session, expected = Session(tmp_path), embedded(onnx, rows)
    found = session.historical_features(columns(rows), ["asked"])
    assert same(np.stack(list(found.columns.values()), axis=1), expected)
    counted = session.historical_features(columns(rows), ["asked"], at="landed").report.learned["asked"].rows
    assert counted == sum(row["landed"] < "2024-03-12" for row in rows), "its run read rows as known until then"
    assert np.isnan(expected).any(axis=1).sum() > 10, "where there is nothing, the model says so"
    getter = session.online(["asked"])
    assert same([[np.nan if v is None else v for v in getter.get(row).values()] for row in rows[:30]], expected[:30])
    assert set(session.materialise()) == {"seen"}
    prepared, last = session.online(["seen"]), {row["plane"]: i for i, row in sorted(enumerate(rows), key=lambda one: one[1]["landed"])}
    session.push("flights", rows[7] | {"landed": "2024-03-20T00:00:00Z"})
    last["N7"] = 7
    read = prepared.read([{"plane": plane} for plane in last])
    assert read.offline == {}
    assert same([[np.nan if v is None else v for v in row] for row in read.rows], expected[list(last.values())])
    app = TestClient(make_app(Session(tmp_path), "http://127.0.0.1", clock=now), base_url="http://127.0.0.1")
    told = app.post("/features", json={"views": ["asked", "seen"], "rows": [rows[7]]}).json()
    assert same([np.nan if v is None else v for v in told["rows"][0]], [*expected[7], *expected[7]])
    lineage = run(cli.tidemill, ["-C", str(tmp_path), "lineage", plain["ref"]])
    assert "registered model:embedder@1" in lineage.output
    forward = run(cli.tidemill, ["-C", str(tmp_path), "lineage", "models:/embedder/1", "--forward"])
    assert f"{plain['ref']}" in forward.output
    assert "feature view:seen@" in forward.output


STACKED = """
takes = {"booking__grade": "grade", "booking__weight": "weight", "booking__hour": "hour(sent)", "courier_last__late": "NULL",
    **{f"depot_recent__{name}": "NULL" for name in ("late_share_12h", "delivered_12h", "late_share_3d", "delivered_3d")}}
first = tm.RequestView("first", bookings, features=tm.output_of("model:trees@DIGEST", columns=takes, returns=["score"]))
"""


def test_rows_are_counted_that_the_model_may_have_learned_from(copied: Path) -> None:
    session = Session(copied)
    shown = CliRunner().invoke(cli.tidemill, ["-C", str(copied), "models", "show", "trees", "--json"])
    ref = json.loads(shown.output)["versions"][-1]["ref"]
    assert ref.startswith("model:trees@")
    files = copied / "parcels.py"
    files.write_text(files.read_text() + STACKED.replace("model:trees@DIGEST", ref))
    times = ["2024-02-01T12:00:00Z", "2024-03-01T04:59:00Z", "2024-03-01T05:00:00Z", "2024-04-01T00:00:00Z"]
    rows = {"grade": ["x", "y", "z", None], "weight": [1.0, 2.0, 3.0, np.nan], "sent": times, "asked": times}
    session = Session(copied)
    found = session.historical_features(rows, ["first"], at="asked")
    assert (np.isfinite(found.columns["first__score"]).all(), found.report.learned["first"].rows) == (True, 2)
    assert "first: 2 rows are before 2024-03-01T05:00:00Z, up to which the model has learned" in repr(found.report)
    assert found.report.plain()["learned"] == {"first": {"until": "2024-03-01T05:00:00Z", "rows": 2}}
    saved = session.historical_features(rows, ["first"], at="asked", save="stacked")
    assert saved.report.learned == found.report.learned
    assert session.historical_features(rows, ["first"]).report.learned == {}, "rows need no time"
    told = session.features.show("first")["output_of"]
    assert (told["versions"], told["learned_until"]) == (["trees/1"], "2024-03-01T05:00:00Z")
