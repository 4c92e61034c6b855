"""What is refused before a replay or a run begins: it would show only at the end of a training, or never."""

from pathlib import Path

import numpy as np

from tidemill.features import SEPARATOR
from tidemill.loop.replay import check
from tidemill.loop.world import World
from toy import DECLARATIONS, ZONE, open_toy, write_project


def test_a_canary_by_a_part_of_the_key_keeps_that_part_together(tmp_path: Path) -> None:
    declarations = DECLARATIONS.replace('key="parcel"', 'key=["parcel", "grade"]').replace('sticky_by="courier"', 'sticky_by="grade"')
    declarations = declarations.replace("SELECT parcel, arrived", "SELECT parcel, grade, arrived")
    toy = open_toy(write_project(tmp_path / "p", declarations=declarations))
    check(toy.policy, toy.built)
    world = World(toy.ledger, "x", toy.policy.monitor.deployment, toy.built.examples, ZONE, 0.9)
    keys = toy.built.examples.requests.keys[:9].tolist()
    assert world.sticky("grade", np.arange(9)) == [key.decode().split(SEPARATOR)[1] for key in keys]
