"""A model without an exact form answers from a process of its own, as it did where it was trained, whatever happens to that process."""

import gc
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.ensemble import AdaBoostClassifier
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures
from sklearn.svm import LinearSVC

from models.fitted import SIGNATURE, labels, matrix
from processes import other, run_python
from tidemill.core import Damaged, DataError, Floats, MissingExtra, NoExactForm, Ref, Refused, Unavailable
from tidemill.ledger import Artifact, Made
from tidemill.models import Isolated, Kept, keep, load_model, store_model
from tidemill.models.isolated import Original
from toy import in_memory

REASON = NoExactForm("it has no exact form", hint="use another")
X = matrix(600)
Y = labels(X)


def kept(model: Any, folder: Path = Path("/nowhere"), *, pickled: bool = False) -> Kept:
    return keep(model, SIGNATURE, X, REASON, folder=folder, pickled=pickled, label="model:m")


def behind(*steps: Any) -> Any:
    return make_pipeline(SimpleImputer(), *steps).fit(X, Y)


def pid_of(predictor: Isolated) -> int:
    begun = predictor._process._begun
    assert begun is not None
    return begun.result(60)._process.pid


def gone(pid: int) -> bool:
    try:
        psutil.Process(pid).wait(30)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


# ── what answers ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "steps",
    [
        (PolynomialFeatures(2), AdaBoostClassifier(n_estimators=5, random_state=1)),
        (MLPClassifier((20,), max_iter=40, random_state=1),),
        (MLPClassifier((3,), max_iter=9, random_state=1),),  # rounds otherwise only among some thirty rows and more
    ],
    ids=["votes", "network", "small network"],
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_it_answers_as_the_estimator_itself_and_a_row_as_it_is_alone(steps: tuple[Any, ...]) -> None:
    model = behind(*steps)
    found = kept(model)
    assert found.predictor.original.format == "skops"
    assert found.why == "it has no exact form"
    asked = matrix(3_000, seed=4)
    given = found.predictor.predict(asked)
    np.testing.assert_allclose(given, model.predict_proba(asked)[:, 1], rtol=0, atol=1e-9)
    alone = np.concatenate([found.predictor.predict(asked[i : i + 1]) for i in range(100)])
    assert alone.tobytes() == given[:100].tobytes()
    assert found.parity["labels_differ"] == 0
    assert found.predictor.original.libraries["scikit-learn"] == importlib.metadata.version("scikit-learn")


def test_more_rows_than_one_question_holds() -> None:
    model = behind(GaussianNB())
    asked, predictor = matrix(25_000, seed=2), kept(model).predictor
    np.testing.assert_allclose(predictor.predict(asked), model.predict_proba(asked)[:, 1], rtol=0, atol=1e-9)
    assert predictor.predict(asked[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: behind(LinearSVC()), "gives no probabilities"),
        (
            lambda: KNeighborsClassifier(3).fit(np.nan_to_num(X), Y),
            "KNeighborsClassifier fails on recorded rows: ValueError: Input X contains NaN",
        ),
        (lambda: behind(FunctionTransformer(lambda values: values), KNeighborsClassifier(3)), r"pickle=True"),
    ],
    ids=["votes only", "no holes", "a lambda"],
)
def test_what_cannot_be_kept_is_refused_with_the_reason(model: Any, said: str) -> None:
    with pytest.raises(NoExactForm) as error:
        kept(model())
    assert said.replace("\\", "") in str(error.value)


class Table:
    """One that knows only what it has seen."""

    def predict(self, rows: Floats) -> list[float]:
        known = {one: 0.5 for one in X[:, 1].tolist() if one == one}
        return [0.0 if code != code else known[code] for code in rows[:, 1].tolist()]


def test_whatever_it_raises_is_told_but_that_it_was_not_fitted_is_another_fault() -> None:
    with pytest.raises(NoExactForm, match=r"Table fails on hostile rows: KeyError: \d"):
        kept(Table(), pickled=True)
    with pytest.raises(NotFittedError):
        kept(MLPClassifier())


def test_a_lambda_is_no_pickle_either() -> None:
    with pytest.raises(NoExactForm, match="cannot be pickled") as error:
        kept(behind(FunctionTransformer(lambda values: values), KNeighborsClassifier(3)), pickled=True)
    assert "at the top of a file" in error.value.hint


# ── a model of the project's own ───────────────────────────────────────────────────────────────────────────────────────

SHARE = "def share(values):\n    return 1 / (1 + np.exp(-values))\n"
OWN = """import os
import subprocess
import time
from pathlib import Path

import numpy as np
from own_parts.share import share

assert "SECRET" not in os.environ


class Own:
    def __init__(self, weight, mark=""):
        self.weight, self.mark = weight, mark

    def predict(self, X):
        first = np.nan_to_num(X[:, 0])
        if (first == 4e6).any():
            Path(f"{self.mark}-helper").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
        if (first == 1e6).any():
            raise ValueError("too much")
        if (first == 2e6).any():
            time.sleep(600)
        if (first == 3e6).any():
            os._exit(7)
        return share(self.weight * first)

    def __setstate__(self, state):
        self.__dict__.update(state)
        if self.mark:
            with Path(self.mark).open("a") as file:
                file.write(f"{os.getpid()}\\n")
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder with a module and a package that it imports."""
    folder = tmp_path / "project"
    (folder / "own_parts").mkdir(parents=True)
    (folder / "own_parts" / "__init__.py").write_text("")
    (folder / "own_parts" / "share.py").write_text("import numpy as np\n\n\n" + SHARE)
    (folder / "own_model.py").write_text(OWN)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in ("own_model", "own_parts", "own_parts.share"):
        sys.modules.pop(name, None)


@pytest.fixture
def own(project: Path) -> Kept:
    return kept(importlib.import_module("own_model").Own(0.1), project, pickled=True)


def expected(features: Floats) -> Floats:
    return 1 / (1 + np.exp(-0.1 * np.nan_to_num(features[:, 0])))


def row(first: float) -> Floats:
    return np.array([[first, 0, 0, 0, 0]], dtype=np.float64)


def test_a_model_of_the_project_needs_a_declared_pickle_and_brings_its_sources(project: Path) -> None:
    model = importlib.import_module("own_model").Own(0.1)
    with pytest.raises(NoExactForm, match="pickle=True"):
        kept(model, project)
    found = kept(model, project, pickled=True).predictor.original
    assert (found.format, found.library) == ("pickle", "python")
    assert found.sources == {
        "own_model": OWN,
        "own_parts": "",
        "own_parts.share": "import numpy as np\n\n\n" + SHARE,
    }


def test_a_version_answers_by_the_sources_that_it_was_made_with(own: Kept, project: Path) -> None:
    original = own.predictor.original
    (project / "own_parts" / "share.py").write_text("def share(values):\n    return values * 0\n")
    pid = pid_of(own.predictor)
    os.kill(pid, signal.SIGKILL)
    found = Isolated(replace(original, label="again"), SIGNATURE).predict(X)
    np.testing.assert_array_equal(found, expected(X))


def test_only_the_process_reads_the_pickle_and_only_of_a_run_of_this_ledger(project: Path, tmp_path: Path) -> None:
    mark, ledger = tmp_path / "read", in_memory()
    found = kept(importlib.import_module("own_model").Own(0.1, str(mark)), project, pickled=True)
    pids = {int(line) for line in mark.read_text().splitlines()}
    assert pids == {pid_of(found.predictor)}
    assert os.getpid() not in pids

    artifact = store_model(ledger, "own", found, SIGNATURE, X, {})
    ledger.put_artifact(artifact)
    mark.unlink()
    del found
    gc.collect()
    with pytest.raises(Refused, match="was not trained here"):
        load_model(ledger, ledger.artifact(artifact.ref))
    assert not mark.exists()


def test_a_stored_model_answers_as_it_did(own: Kept) -> None:
    ledger, made = in_memory(), list[Artifact]()

    def make() -> Made:
        made.append(store_model(ledger, "own", own, SIGNATURE, X, {}))
        return Made({"model": made[0]}, {}, {})

    ledger.once("training run", "own", {"training set": ledger.put_artifact(Artifact(Ref.of("training set", "own", "1" * 40), {}))}, make)
    predictor = load_model(ledger, ledger.artifact(made[0].ref))
    assert isinstance(predictor, Isolated)
    assert predictor.original.libraries == own.predictor.original.libraries
    assert pid_of(predictor) == pid_of(own.predictor)  # one process for all who ask the same model
    np.testing.assert_array_equal(predictor.predict(X), expected(X))


# ── what happens to its process ────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_model_refuses_is_told_and_it_goes_on(own: Kept) -> None:
    with pytest.raises(DataError, match="ValueError: too much"):
        own.predictor.predict(row(1e6))
    np.testing.assert_array_equal(own.predictor.predict(X), expected(X))


def test_one_that_leaves_its_process_is_begun_anew(own: Kept) -> None:
    with pytest.raises(Unavailable):
        own.predictor.predict(row(3e6))  # twice: who can wait asks once more
    np.testing.assert_array_equal(own.predictor.predict(X), expected(X))


def test_killed_while_many_ask_nobody_gets_a_wrong_answer(own: Kept) -> None:
    stop, predictor = threading.Event(), own.predictor

    def ask(seed: int) -> int:
        asked, away = matrix(20, seed), 0
        while not stop.is_set():
            try:
                np.testing.assert_array_equal(predictor.predict_within(asked, 30), expected(asked))
            except Unavailable:
                away += 1
        return away

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, seed) for seed in range(4)]
        for _ in range(3):
            pid = pid_of(predictor)
            os.kill(pid, signal.SIGKILL)
            np.testing.assert_array_equal(predictor.predict(X), expected(X))  # it waits until there is another
            assert pid_of(predictor) != pid
        stop.set()
        assert sum(one.result(60) for one in asking) > 0


def test_one_that_hangs_is_ended_and_begun_anew(own: Kept) -> None:
    pid = pid_of(own.predictor)
    with pytest.raises(Unavailable, match="did not answer 1 rows within 1 s"):
        own.predictor.predict_within(row(2e6), 0.01)
    assert gone(pid)
    np.testing.assert_array_equal(own.predictor.predict(X), expected(X))


def test_it_ends_with_the_last_who_holds_it(own: Kept, project: Path) -> None:
    again = Isolated(own.predictor.original, SIGNATURE)
    alone = kept(importlib.import_module("own_model").Own(0.5), project, pickled=True)
    pid, others = pid_of(alone.predictor), pid_of(again)
    del alone
    gc.collect()
    assert gone(pid)
    assert psutil.pid_exists(others)


def test_what_the_model_has_begun_ends_with_it(project: Path, tmp_path: Path) -> None:
    found = kept(importlib.import_module("own_model").Own(0.1, str(tmp_path / "mark")), project, pickled=True)
    found.predictor.predict(row(4e6))
    pid = int((tmp_path / "mark-helper").read_text())
    assert psutil.pid_exists(pid)
    with pytest.raises(Unavailable):
        found.predictor.predict_within(row(2e6), 0.01)
    assert gone(pid)


HOLDER = """
import sys
from tidemill.models import Isolated
from tidemill.models.isolated import Original
from tidemill.models.signature import Signature

source = "import time\\nclass Busy:\\n    def predict(self, X):\\n        while X[0, 0]: pass\\n        return X[:, 0] + helper.pid\\n"
source = "import subprocess\\nhelper = subprocess.Popen(['sleep', '600'])\\n" + source
data = b"\\x80\\x04\\x8c\\x04busy\\x8c\\x04Busy\\x93)\\x81."
model = Isolated(Original(data, "pickle", {"busy": source}, "busy", "python"), Signature(("a",)))
import numpy as np
print(int(model.predict(np.zeros((1, 1)))[0]), flush=True)
print(sorted({"sklearn", "pandas", "scipy", "joblib", "skops", "pickle"} & set(sys.modules)), flush=True)
print(model._process._begun.result()._process.pid, flush=True)
model.predict(np.ones((1, 1)))
"""


def test_it_ends_with_the_server_even_in_the_middle_of_a_computation() -> None:
    with other(HOLDER) as holder:
        helper = int(holder.says())
        loaded = holder.says()
        pid = int(holder.says())
        holder.kill()
    assert gone(pid)
    assert gone(helper), "what the model has begun ends too"
    assert not {"sklearn", "pandas", "scipy", "joblib", "skops"} & set(eval(loaded))


# ── other versions, other bytes ────────────────────────────────────────────────────────────────────────────────────────

BUSY = b"\x80\x04\x8c\x04busy\x8c\x04Busy\x93)\x81."  # an object of the class Busy in the module busy


def test_other_versions_than_it_was_made_with_are_told(caplog: pytest.LogCaptureFixture) -> None:
    source, made = (
        "class Busy:\n    def predict(self, X): return X[:, 1] * 0",
        {"python": "3.1.4", "scikit-learn": "0.17", "unknown-thing": "1"},
    )
    with caplog.at_level(logging.WARNING):
        assert not Isolated(Original(BUSY, "pickle", {"busy": source}, "old", "python", made), SIGNATURE).predict(row(1)).any()
    assert "made_with=python:3.1.4,scikit-learn:0.17,unknown-thing:1 here=python:" in caplog.text
    assert "unknown-thing:none" in caplog.text


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ("import there_is_no_such_library", MissingExtra, "No module named 'there_is_no_such_library'"),
        ("x = 1", DataError, "Can't get attribute 'Busy'"),
    ],
)
def test_one_that_cannot_be_loaded_says_what_it_was_made_with(source: str, kind: type[Exception], said: str) -> None:
    made = {"python": "3.11.7", "scikit-learn": "1.2.3"}
    predictor = Isolated(Original(BUSY, "pickle", {"busy": source}, "model:m", "python", made), SIGNATURE)
    with pytest.raises(kind) as error:
        predictor.predict(X)
    assert said in str(error.value)
    assert "made with python 3.11.7, scikit-learn 1.2.3" in str(error.value)


def test_one_whose_process_ends_while_it_is_loaded_is_begun_once_more_for_who_waits(tmp_path: Path) -> None:
    here = f"import os\nfound = os.path.exists({str(tmp_path / 'mark')!r})\nopen({str(tmp_path / 'mark')!r}, 'w').close()\n"
    ends = "if {}: os._exit(3)\nclass Busy:\n    def predict(self, X): return X[:, 1] * 0"
    once, always = (Original(BUSY, "pickle", {"busy": here + ends.format(when)}, "mine", "python") for when in ("not found", "True"))
    assert not Isolated(once, SIGNATURE).predict(row(1)).any()
    with pytest.raises(Unavailable, match="the process of mine does not start: it ended with code 3"):
        Isolated(always, SIGNATURE).predict(row(1))


def test_what_a_model_began_ends_with_a_process_that_ends_while_it_is_loaded(tmp_path: Path) -> None:
    told = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(helper.pid))"
    source = f"import os, subprocess\nhelper = subprocess.Popen(['sleep', '600'])\n{told}\nos._exit(3)"
    with pytest.raises(Unavailable, match="it ended with code 3"):
        Isolated(Original(BUSY, "pickle", {"busy": source}, "mine", "python"), SIGNATURE).predict(row(1))
    assert gone(int((tmp_path / "pid").read_text()))


def test_bytes_that_somebody_has_replaced_are_not_loaded(own: Kept) -> None:
    """A blob of the ledger lies in a file, which is read again when the process is begun anew."""
    original = own.predictor.original
    file = bytearray(original.data)
    predictor = Isolated(replace(original, data=memoryview(file), sources={**original.sources, "one.more": ""}), SIGNATURE)
    np.testing.assert_array_equal(predictor.predict(X), expected(X))
    file[:2] = b"xx"
    os.kill(pid_of(predictor), signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(Damaged, match="is not what was written"):
            predictor.predict(X)


def test_its_process_is_a_program_of_its_own_that_says_nothing_by_itself() -> None:
    assert run_python("import tidemill.models._apart as a, sys; print('pickle' in a.__dict__)").stdout == "False\n"
