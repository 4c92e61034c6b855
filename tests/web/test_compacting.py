"""What `tidemill up` does beside answering: the logs are moved into their tables by a process of its own."""

from pathlib import Path

import pytest

from serving.test_compaction import fill, keys
from tidemill.core import DefinitionError
from tidemill.project import find, read_settings
from tidemill.session import log_of
from tidemill.web.compacting import compacting


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tidemill.toml").write_text('[project]\nname = "logs"\n[serve]\ncompact_after = "1m"\n')
    return tmp_path


def test_an_old_log_is_moved_and_the_end_is_not_waited_for(folder: Path) -> None:
    path = log_of(find(folder), "late")
    fill(path, range(3))
    with compacting(find(folder), looks=0.05):
        while path.exists() or ((path.parent / "sealed" / "late").exists() and list((path.parent / "sealed" / "late").iterdir())):
            pass
    assert keys(path) == ["key-0", "key-1", "key-2"]
    assert (path.parent / "delta" / "predictions").is_dir()


def test_zero_megabytes_leaves_it_to_others(folder: Path) -> None:
    (folder / "tidemill.toml").write_text('[project]\nname = "logs"\n[serve]\ncompact_megabytes = 0\n')
    path = log_of(find(folder), "late")
    fill(path, range(3))
    with compacting(find(folder), looks=0.0):
        assert path.exists()


@pytest.mark.parametrize("line", ["compact_megabytes = -1", 'compact_after = "soon"', 'log_keep = "long"'])
def test_settings_that_say_nothing_are_refused(folder: Path, line: str) -> None:
    (folder / "tidemill.toml").write_text(f'[project]\nname = "logs"\n[serve]\n{line}\n')
    with pytest.raises(DefinitionError, match=line.split(" ")[0]):
        read_settings(folder)
