"""The loop over records in PostgreSQL decides what it decides in memory."""

from itertools import count
from pathlib import Path

from tidemill import loop
from tidemill.ledger import Ledger
from tidemill.store import FolderBlobs, Records
from toy import Toy, open_toy


def test_a_replay_over_a_database_is_the_one_in_memory(toy: Toy, postgres: str, tmp_path: Path) -> None:
    records = Records(postgres)
    other = open_toy(toy.declared.folder, loop.prepare(Ledger(records, FolderBlobs(tmp_path / "blobs"), count().__next__)))
    one, two = toy.replay(end="2024-04-02"), other.replay(end="2024-04-02")
    assert (one.id, one.state, one.result) == (two.id, two.state, two.result)
    assert toy.kinds(one) == other.kinds(two)
    assert other.ledger.verify_decisions() == len(other.decisions(two))
    records.close()
