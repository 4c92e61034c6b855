"""Who pushes and who materialises are killed at random times: nothing acknowledged is lost, nothing counts twice, online is offline."""

import os
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from features.test_pushing import NOW, Shops, asked
from processes import Other, other
from redis_server import ADDRESS, new_prefix
from tidemill.core import DAY
from tidemill.data import pushed, pushed_offset
from tidemill.features import open_online
from tidemill.ledger import Ledger
from tidemill.store import FolderBlobs, Records

pytestmark = pytest.mark.torture
TESTS = Path(__file__).parents[1]

BEGIN = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from features.test_pushing import NOW, Shops, sale
from tidemill.data import pushed, pushed_offset
from tidemill.features import materialising, open_online
from tidemill.ledger import Ledger
from tidemill.store import FolderBlobs, Records
folder = Path(sys.argv[2])
ledger = Ledger(Records(folder / "records.db"), FolderBlobs(folder / "blobs"), lambda: 0)
shops = Shops(folder, ledger)
store = open_online(sys.argv[3], prefix=sys.argv[4]) if sys.argv[4] else open_online(Path(sys.argv[3]))
materialising.PART = 1
"""
PUSH = (
    BEGIN
    + """
pusher, source = shops.pusher(store), sys.argv[5]
while True:
    last = pushed_offset(ledger, "sales", source) or 0
    offsets = list(range(max(last - 1, 1), last + 3))
    rows = [sale(1 + one % 3, NOW - one * 60_000_000, 1.5 + one % 7, "new") for one in offsets]
    found = pusher.push(rows, NOW + last, source=source, offsets=offsets)
    os.write(1, f"{offsets[-1]}\\n".encode())
"""
)
MATERIALISE = (
    BEGIN
    + """
while True:
    reader = shops.reader(store)
    reader.materialise(NOW + pushed(ledger, "sales").last)
    os.write(1, b"done\\n")
"""
)


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_whoever_is_killed_nothing_acknowledged_is_lost_and_nothing_counts_twice(tmp_path: Path, kind: str) -> None:
    """Two sources push and one materialises, all at once. Waiting is the point here, so this sleeps."""
    chance = random.Random(kind)
    with ExitStack() as stack:
        prefix = stack.enter_context(new_prefix()) if kind == "redis" else ""
        place = ADDRESS if kind == "redis" else str(tmp_path / "online")
        ledger = Ledger(Records(tmp_path / "records.db"), FolderBlobs(tmp_path / "blobs"), lambda: 0)
        shops = Shops(tmp_path, ledger)
        shops.reader()
        acknowledged = {"one": 0, "two": 0}
        for _ in range(6):
            with ExitStack() as running:
                calls = [(PUSH, "one"), (PUSH, "two"), (MATERIALISE, "")]
                at_work = [running.enter_context(other(code, TESTS, tmp_path, place, prefix, source)) for code, source in calls]
                assert all(process.says() for process in at_work)
                for process in chance.sample(at_work, 3):
                    time.sleep(chance.uniform(0.0, 1.0))
                    os.kill(process.pid, signal.SIGKILL)
                for source, process in zip(acknowledged, at_work, strict=False):
                    acknowledged[source] = max(acknowledged[source], _last(process))
            store = open_online(place, prefix=prefix) if prefix else open_online(Path(place))
            reader = shops.reader(store)
            reader.materialise(NOW + DAY)
            offsets = [pushed_offset(ledger, "sales", source) or 0 for source in acknowledged]
            assert all(there >= told for there, told in zip(offsets, acknowledged.values(), strict=True))
            assert pushed(ledger, "sales").last == sum(offsets), "each offset once"
            requests = asked(NOW + DAY, "123")
            online, offline = (one.read(requests, requests.at) for one in (reader, shops.reader()))
            assert online.online.all()
            assert (online.values.tobytes(), online.status.tobytes()) == (offline.values.tobytes(), offline.status.tobytes())
            counts = online.values[:, online.names.index("recent__n_lifetime")]
            assert counts.sum() == 3 + sum(offsets), "the three sales of the file, and each that was pushed"
            store.close()
        ledger.records.close()


def _last(process: Other) -> int:
    assert process.process.stdout is not None
    return max((int(line) for line in process.process.stdout if line.endswith("\n")), default=0)
