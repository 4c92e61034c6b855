"""`tidemill.toml`: what is wrong in it is said with the file, what was meant, and what there is."""

from pathlib import Path

import pytest

from tidemill.core import DefinitionError, MissingFile, UnknownName, instant
from tidemill.project import FILE, SETTINGS, Settings, elsewhere, read_settings

NAMED = '[project]\nname = "p"\n'


def read(folder: Path, text: str) -> Settings:
    (folder / FILE).write_text(text)
    return read_settings(folder)


def test_what_is_not_set_has_its_default(tmp_path: Path) -> None:
    settings = read(tmp_path, NAMED)
    assert settings["project.timezone"] == "UTC"
    assert settings["serve.host"] == "127.0.0.1"
    assert settings.path("store.records") == tmp_path / ".tidemill" / "records.db"


def test_what_is_set_counts(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        NAMED + 'timezone = "America/New_York"\n[serve]\nport = 1234\n[replay]\ntrain_until = 2013-04-01\nend = 2014-01-01T05:00:00Z',
    )
    assert settings["serve.port"] == 1234
    assert settings.instant("replay.train_until") == instant("2013-04-01T04:00:00Z")
    assert settings.instant("replay.end") == instant("2014-01-01T05:00:00Z")


def test_other_projects_are_named_with_the_line_that_says_where_they_are(tmp_path: Path) -> None:
    settings = read(tmp_path, NAMED + '\n[shared]\nairports = "../a"  # the owner\n[shared.trains]\nrecords = "r.db"\nblobs = "/b"\n')
    assert settings.shared == {"airports": "../a", "trains": {"records": "r.db", "blobs": "/b"}}
    assert [str(elsewhere(settings, name).where) for name in settings.shared] == [f"{tmp_path / FILE}:{line}" for line in (5, 6)]
    with pytest.raises(UnknownName, match="no other project is named 'train'") as error:
        elsewhere(settings, "train")
    assert error.value.available == ["airports", "trains"]


def test_a_folder_without_settings_says_how_to_make_a_project(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"no tidemill\.toml here") as error:
        read_settings(tmp_path)
    assert error.value.where == str(tmp_path)
    assert "tidemill init" in error.value.hint


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "has no name"),
        ('[project]\nname = ""', "has no name"),
        (NAMED + "[serve]\nprot = 1", "no setting 'serve.prot'"),
        (NAMED + "[sevre]\nport = 1", "no setting 'sevre.port'"),
        ('name = "p"\n' + NAMED, "no setting 'name'"),
        (NAMED + "[project.more]\nx = 1", "no setting 'project.more'"),
        (NAMED + "[store]\nonline_gigabytes = 0", "store.online_gigabytes = 0 is no size"),
        (NAMED + "[store]\nonline_gigabytes = nan", "store.online_gigabytes = nan is no size"),
        (NAMED + '[serve]\nport = "8642"', "serve.port = '8642' has the wrong type"),
        (NAMED + "[serve]\nport = true", "has the wrong type"),
        (NAMED + "[serve]\nport = 99999", "serve.port = 99999 is no port"),
        (NAMED + "[serve]\ngrpc_port = 65536", "serve.grpc_port = 65536 is no port"),
        (NAMED + "[serve]\nmost_under_way = 0", "serve.most_under_way = 0 lets no request in"),
        (NAMED + '[serve]\ngrpc_port = "8643"', "serve.grpc_port = '8643' is no port"),
        (NAMED + "[serve]\nport = -1", "serve.port = -1 is no port"),
        (NAMED + "[serve]\nclient_time = 1", "has the wrong type"),
        (NAMED + "[replay]\nend = 2013-04-01T00:00:00", "has no time zone"),
        (NAMED + '[retention]\ndeleted = "banana"', "retention.deleted: 'banana' is not a duration"),
        (NAMED + "[shared]\nairports = 7", "shared.airports = 7 has the wrong type"),
        (NAMED + '[shared]\nairports = ""', "shared.airports names no place"),
        (NAMED + '[shared]\nairports = "."', "shared.airports is this project itself"),
        (NAMED + '[shared]\nairports = "postgresql://h/d"', "shared.airports is an address alone"),
        (NAMED + '[shared]\nairports = {records = "a"}', "shared.airports has no 'blobs'"),
        (NAMED + '[shared.airports]\nrecords = "a"\nblobs = "b"\nbytes = "c"', "shared.airports knows no 'bytes'"),
        (NAMED + '[shared.airports]\nrecords = "a"\nblobs = 7', "shared.airports names no place"),
        (NAMED + '[shared]\n"air.ports" = "a"', "the shared project's name 'air.ports' has '.'"),
        (NAMED + '[replay]\nend = "soon"', "replay.end = 'soon' is not a time"),
        (
            NAMED + "[replay]\ntrain_until = 2013-04-01\nend = 2013-04-01",
            "replay.end = 2013-04-01T00:00:00Z is not after replay.train_until",
        ),
        (NAMED + 'timezone = "Europe/Atlantis"', "is not a time zone"),
        (NAMED + 'timezone = "../etc/passwd"', "is not a time zone"),
        ("[project\nname", "cannot be read"),
        ("\ufeff\x00", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(DefinitionError, match=what.replace("(", r"\(")) as error:
        read(tmp_path, text)
    assert error.value.where == str(tmp_path / FILE)


def test_an_unknown_setting_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as error:
        read(tmp_path, NAMED + "[serve]\nprot = 1")
    assert error.value.available == sorted(SETTINGS)


def test_a_time_that_is_needed_and_not_set_says_what_it_is_for(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"replay\.end is not set") as error:
        read(tmp_path, NAMED).instant("replay.end")
    assert "the replay ends here" in error.value.hint


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_line_of_help(name: str) -> None:
    assert "." in name
    assert SETTINGS[name][2]
