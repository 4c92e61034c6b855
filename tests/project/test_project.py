"""A folder of files → declarations; what is wrong in them is said with the user's file and line."""

import os
from pathlib import Path

import pytest

from processes import other
from tidemill.core import Busy, Damaged, Declaration, DefinitionError, MissingFile, UnknownName
from tidemill.data import Dataset, Source
from tidemill.features import Entity, FeatureView
from tidemill.ledger import Made
from tidemill.project import FILE, Project, load

FLIGHTS = '''"""A toy."""
import tidemill as tm

file = tm.Source("flights.csv")
flights = tm.Dataset("flights", {"file": file}, event_time="departed")
airport = tm.Entity("airport", key="origin")
delays = tm.FeatureView("delays", flights, entity=airport, windows=["1h"], features={"mean": tm.mean("delay")})
'''


def project(folder: Path, **files: str) -> Project:
    """A project of these files."""
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_text('[project]\nname = "toy"\n')
    for name, text in files.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return load(folder)


def test_declarations_are_found_with_file_and_line(tmp_path: Path) -> None:
    found = project(tmp_path / "p", flights=FLIGHTS)
    assert [(d.kind, d.where.line) for d in found.declarations] == [("source", 4), ("dataset", 5), ("entity", 6), ("feature view", 7)]
    assert {d.where.file for d in found.declarations} == {str(tmp_path / "p" / "flights.py")}
    assert found.name == "toy"
    assert found.get(Dataset, "flights").event_time == "departed"
    assert [view.name for view in found.all(FeatureView)] == ["delays"]


def test_declarations_inside_others_and_in_containers_are_found(tmp_path: Path) -> None:
    text = 'import tidemill as tm\nall = [tm.Dataset("d", {"s": tm.Source("x.csv")}, event_time="t")]\n'
    assert {d.kind for d in project(tmp_path / "p", x=text).declarations} == {"source", "dataset"}


def test_a_container_may_hold_itself_and_a_value_lack_a_field(tmp_path: Path) -> None:
    odd = """import dataclasses
import tidemill as tm
@dataclasses.dataclass
class Odd:
    later: object = dataclasses.field(init=False)
odd, loop = Odd(), {"e": tm.Entity("e", key="e")}
loop["self"] = [loop]
"""
    assert [one.name for one in project(tmp_path / "p", odd=odd).all(Entity)] == ["e"]


def test_files_of_a_project_import_each_other(tmp_path: Path) -> None:
    found = project(tmp_path / "p", trips=FLIGHTS, more="from trips import flights\nsame = flights\n")
    assert len(found.all(Dataset)) == 1


def test_two_projects_in_one_process_keep_their_own_files(tmp_path: Path) -> None:
    use = "import tidemill as tm\nfrom helper import PATH\ns = tm.Source(PATH)\n"
    one = project(tmp_path / "one", use=use, helper='PATH = "one.csv"')
    two = project(tmp_path / "two", use=use, helper='PATH = "two.csv"')
    assert [one.all(Source)[0].path, two.all(Source)[0].path] == ["one.csv", "two.csv"]


def test_a_folder_that_becomes_a_package_is_read_anew(tmp_path: Path) -> None:
    files = {"use": "import tidemill as tm\nfrom parts import one\ns = tm.Source(one.PATH)\n", "parts/one": 'PATH = "one.csv"'}
    assert project(tmp_path / "p", **files).all(Source)[0].path == "one.csv"
    files = {"use": "import tidemill as tm\nfrom parts import PATH\ns = tm.Source(PATH)\n", "parts/__init__": 'PATH = "two.csv"'}
    assert project(tmp_path / "p", **files).all(Source)[0].path == "two.csv"


def test_a_file_that_opens_its_own_project_is_told_where_to_go(tmp_path: Path) -> None:
    script = "import tidemill as tm\n\np = tm.open({!r})\ntm.fresh('1d')".format(str(tmp_path / "p"))
    with pytest.raises(DefinitionError, match=r"nb\.py opens the project that it is a part of") as error:
        project(tmp_path / "p", flights=FLIGHTS, nb=script)
    assert error.value.where == f"{tmp_path / 'p' / 'nb.py'}:3"
    assert "subfolder" in error.value.hint
    guarded = script.replace("p = ", 'if __name__ == "__main__":\n    p = ')
    assert len(project(tmp_path / "p", nb=guarded).all(Dataset)) == 1


def test_a_script_that_ends_itself_does_not_end_the_command(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"job\.py cannot be imported: SystemExit: 0") as error:
        project(tmp_path / "p", flights=FLIGHTS, job="import sys\n\nfrom tidemill import fresh\n\nsys.exit(0)\n")
    assert error.value.where == f"{tmp_path / 'p' / 'job.py'}:5"
    assert "subfolder" in error.value.hint


def test_a_script_that_declares_nothing_is_not_run(tmp_path: Path) -> None:
    train = "import tidemill as tm\nfrom flights import flights\n\nwith tm.run('fares'):\n    raise ValueError\n"
    look = "from tidemill import open, run\n\nopen('.').status()\n"
    peer = "import mlflow  # of the peer's\n\nmlflow.set_tracking_uri('tidemill:.')\nraise ValueError\n"
    uses = "from helper import f  # nothing of tidemill\n\nraise ValueError\n"
    files = {"train": train, "look": look, "peer": peer, "uses": uses, "helper": "def f(): ...\n"}
    assert len(project(tmp_path / "p", flights=FLIGHTS, **files).all(Dataset)) == 1
    derived = "from flights import flights\n\nagain = flights\nraise ValueError\n"
    with pytest.raises(DefinitionError, match=r"derived\.py cannot be imported"):
        project(tmp_path / "q", flights=FLIGHTS, derived=derived)
    both = "import tidemill as tm\n\nday = tm.fresh('1d')\nwith tm.run('fares'):\n    raise ValueError\n"
    with pytest.raises(DefinitionError, match=r"both\.py begins a run while the project's files are imported") as error:
        project(tmp_path / "p", flights=FLIGHTS, both=both)
    assert error.value.where == f"{tmp_path / 'p' / 'both.py'}:4"
    assert "subfolder" in error.value.hint


@pytest.mark.parametrize(
    ("script", "beside"),
    [
        ("from setuptools import setup\nsetup(install_requires=['tidemill'])\n", {}),
        ("import mlflow\nmlflow.set_experiment('tidemill')\n", {}),
        ("\ufeffimport tidemill as tm\nwith tm.run('x'): ...\n", {}),
        ("import tidemill as tm\ntm.convert(1, 2)\n", {}),
        ("import tidemill as tm\nfrom tidemill.core import MissingFile\ntm.open('.')\n", {}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from flights import flights\n    from tidemill import Dataset\n", {}),
        ("import nothing\n", {"script/job": FLIGHTS}),
        ("from source.clean import f\n", {"source/clean": "def f(): ...\n", "source/trips": FLIGHTS}),
        ("from source.work import f\n", {"source/work": "import tidemill as tm\ndef f(): return tm.run('x')\n"}),
    ],
    ids=["setup", "word", "mark", "convert", "error", "types", "folder", "sibling", "helper"],
)
def test_a_script_is_known_by_what_it_imports(tmp_path: Path, script: str, beside: dict[str, str]) -> None:
    files = {"flights": FLIGHTS, "script": f"{script}raise ValueError\n", **beside}
    assert len(project(tmp_path / "p", **files).all(Dataset)) == 1


@pytest.mark.parametrize(
    "files",
    [
        {"a": "import tidemill\n\ntm = tidemill\na = tm.Entity('a', key='a')\n"},
        {"a": "import importlib\n\ntm = importlib.import_module('tidemill')\na = tm.Entity('a', key='a')\n"},
        {"a": "from tidemill import *\n\na = Entity('a', key='a')\n"},
        {"a": "try:\n    import json, tidemill.features as f\nfinally: ...\na = f.Entity('a', key='a')\n"},
        {"a": "from common import tm\n\na = tm.Entity('a', key='a')\n", "common": "import tidemill as tm\n"},
        {"top": "from defs.core import a\n", "defs/core": "import json, tidemill as tm\n\na = tm.Entity('a', key='a')\n"},
        {
            "top": "import defs\nfrom defs import *\n",
            "defs/__init__": "from . import core\nfrom .core import *\n",
            "defs/core": "from common import tm\n\na = tm.Entity('a', key='a')\n",
            "common": "import tidemill as tm\n",
        },
    ],
    ids=["alias", "named", "star", "inner", "common", "package", "through"],
)
def test_a_file_that_imports_tidemill_in_any_way_is_read(tmp_path: Path, files: dict[str, str]) -> None:
    assert [one.name for one in project(tmp_path / "p", **files).all(Entity)] == ["a"]


def test_what_is_no_file_of_python_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    (folder / "archive.py").mkdir(parents=True)
    (folder / ".#flights.py").symlink_to("me@host.1")  # an editor's lock
    (folder / "._flights.py").write_bytes(b"\0tidemill")  # what a Mac leaves on a foreign disk
    assert len(project(folder, flights=FLIGHTS).all(Dataset)) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    project(folder, flights=FLIGHTS)
    (folder / "away.py").symlink_to("nowhere.py")
    with pytest.raises(DefinitionError, match=r"away\.py cannot be imported: FileNotFoundError") as error:
        load(folder)
    assert error.value.where == str(folder / "away.py")
    (folder / "away.py").unlink()
    for encoding in ("utf-16", "cp1252"):
        (folder / "wide.py").write_text(f"{FLIGHTS}name = 'é'\n", encoding=encoding)
        with pytest.raises(DefinitionError, match=r"wide\.py cannot be imported") as error:
            load(folder)
        assert "UTF-8" in error.value.hint


def test_a_file_may_change_where_python_looks(tmp_path: Path) -> None:
    assert project(tmp_path / "p", flights=f"import sys\nsys.path.pop(0)\n{FLIGHTS}").all(Dataset)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("from tidemill import Entty\n", "correct the file"),
        ("import tidemill\nfrom .y import z\n", "correct the file"),
        ("import tidemill, no_such_library\n", "install what it needs"),
        ("import tidemill\n%matplotlib inline\n", "correct the file; or, where it declares nothing, put it into a subfolder"),
    ],
)
def test_what_to_do_about_an_import_is_said(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(DefinitionError, match=r"x\.py cannot be imported") as error:
        project(tmp_path / "p", x=text)
    assert error.value.hint.startswith(hint)


def test_a_file_that_no_compiler_reads_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"deep\.py cannot be imported: (Memory|Recursion)Error"):
        project(tmp_path / "p", deep=f"import tidemill as tm\nx = int{'()' * 100_000}\n")


def test_a_file_that_does_not_speak_of_tidemill_is_not_run(tmp_path: Path) -> None:
    assert len(project(tmp_path / "p", flights=FLIGHTS, clean='raise SystemExit("a script")\n').all(Dataset)) == 1


def test_an_edit_is_seen_at_once(tmp_path: Path) -> None:
    """Within the same second, and of the same length, as Python's cache of byte code would not notice."""
    folder = tmp_path / "p"
    use = "from helper import PATH\nimport tidemill as tm\ns = tm.Source(PATH)\n"
    paths = [project(folder, use=use, helper=f'PATH = "{i}.csv"').all(Source)[0].path for i in range(5)]
    assert paths == [f"{i}.csv" for i in range(5)]
    assert not (folder / "__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("x = 1\ny = = 2  # tidemill\n", "SyntaxError", 2),
        ("import tidemill as tm\ntm.fresh('1d')\nimport no_such_library\n", "No module named 'no_such_library'", 3),
        ("def f():\n    return 1 / 0\n\nf()\nfrom tidemill import fresh\n", "ZeroDivisionError", 2),
        ('import tidemill as tm\ntm.Source("x", format="xls")\n', "source format 'xls' is not known", 2),
        ('import tidemill as tm\ntm.fresh("soon")\n', "'soon' is not a duration", 2),
        ("import tidemill as tm\ntm.Datset\n", "has no attribute 'Datset'", 2),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(tmp_path: Path, text: str, what: str, line: int) -> None:
    with pytest.raises(DefinitionError, match=what) as error:
        project(tmp_path / "p", flights=text)
    assert error.value.where == f"{tmp_path / 'p' / 'flights.py'}:{line}"


def test_what_is_wrong_in_an_imported_file_is_said_with_that_files_line(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="ZeroDivisionError") as error:
        project(tmp_path / "p", flights="import zelper\n", zelper="from tidemill import fresh\ny = 1 / 0\n")
    assert error.value.where == f"{tmp_path / 'p' / 'zelper.py'}:2"


def test_a_file_that_fails_can_be_mended(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError):
        project(tmp_path / "p", flights="import helper\n", helper="from tidemill import fresh\n1 / 0\n")
    assert project(tmp_path / "p", flights=FLIGHTS, helper="x = 1\n").all(Dataset)


def test_one_name_for_two_things_is_refused_with_both_places(tmp_path: Path) -> None:
    text = 'import tidemill as tm\na = tm.Entity("airport", key="origin")\nb = tm.Entity("airport", key="dest")\n'
    with pytest.raises(DefinitionError, match="the entity 'airport' is declared in two different ways") as error:
        project(tmp_path / "p", flights=text)
    file = tmp_path / "p" / "flights.py"
    assert error.value.where == f"{file}:2 and {file}:3"


def test_a_feature_view_and_a_request_view_have_two_names(tmp_path: Path) -> None:
    text = """import tidemill as tm
d = tm.Dataset("d", {"s": tm.Source("x.csv")}, event_time="t")
a = tm.FeatureView("late", d, tm.Entity("airport", key="origin"), features=["x"])
b = tm.RequestView("late", d, features={"y": "y"})
"""
    with pytest.raises(DefinitionError, match="a feature view and a request view are named 'late'") as error:
        project(tmp_path / "p", flights=text)
    file = tmp_path / "p" / "flights.py"
    assert error.value.where == f"{file}:3 and {file}:4"


def test_one_thing_said_twice_is_one(tmp_path: Path) -> None:
    text = 'import tidemill as tm\na = tm.Entity("airport", key="origin")\nb = tm.Entity("airport", key="origin")\n'
    assert len(project(tmp_path / "p", flights=text).all(Entity)) == 1


def test_checks_with_one_limit_each_are_two(tmp_path: Path) -> None:
    text = 'import tidemill as tm\nchecks = [tm.in_range("x", low=0), tm.in_range("x", high=0)]\n'
    assert len(project(tmp_path / "p", flights=text).declarations) == 2


def test_an_unknown_name_lists_those_there_are(tmp_path: Path) -> None:
    found = project(tmp_path / "p", flights=FLIGHTS)
    with pytest.raises(UnknownName, match="no dataset is named 'flihgts'") as error:
        found.get(Dataset, "flihgts")
    assert error.value.available == ["flights"]


def test_the_only_one_needs_no_name(tmp_path: Path) -> None:
    found = project(tmp_path / "p", flights=FLIGHTS)
    assert found.only(Dataset).name == "flights"
    assert found.only(Dataset, "flights").name == "flights"
    with pytest.raises(DefinitionError, match="declares 4 of Declaration"):
        found.only(Declaration)


def test_the_ledger_is_there_after_the_first_writer(tmp_path: Path) -> None:
    found = project(tmp_path / "p")
    with pytest.raises(MissingFile, match="no ledger yet"):
        found.ledger(read_only=True)
    with found.writing("run") as ledger:
        ledger.once("step", "s", {}, lambda: Made({}))
        assert found.writer() == {"pid": os.getpid(), "command": "run"}
        reader = found.ledger(read_only=True)
        assert [execution.name for execution in reader.executions()] == ["s"]
        with pytest.raises(Busy), found.writing("run"):
            pass


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_lost_ledger_is_said_where_its_blobs_are_there(tmp_path: Path, how: str) -> None:
    found = project(tmp_path / "p")
    with found.writing("run") as ledger:
        ledger.blobs.put(b"whole")
    place = found.settings.records
    assert isinstance(place, Path)
    kept = place.read_bytes()
    place.unlink() if how == "missing" else place.write_bytes(b"")
    with pytest.raises(Damaged, match=f"the ledger file is {how}, but there are blobs"), found.writing("run"):
        pass
    assert place.exists() == (how == "empty"), "nothing is begun anew"
    place.write_bytes(kept)
    with found.writing("run") as ledger:
        assert list(ledger.blobs.digests())


def test_a_writer_puts_in_order_what_a_killed_one_left(tmp_path: Path) -> None:
    found = project(tmp_path / "p")
    code = """
import sys
from tidemill.project import load
with load(sys.argv[1]).writing("replay") as ledger:
    whole = ledger.blobs.path(ledger.blobs.put(b"whole"))
    whole.with_name(".part-x").write_bytes(b"who")
    ledger.once("step", "s", {}, lambda: (print("running"), input()))
"""
    with other(code, found.folder) as process:
        assert process.says() == "running"
        with pytest.raises(Busy, match=f"process {process.pid} \\(replay\\)"), found.writing("run"):
            pass
        process.kill()
    assert list(found.state.rglob(".part-*"))
    with found.writing("run") as ledger:
        assert [execution.status for execution in ledger.executions()] == ["interrupted"]
        assert not list(found.state.rglob(".part-*"))
        assert [bytes(ledger.blobs.get(digest)) for digest in ledger.blobs.digests()] == [b"whole"]
