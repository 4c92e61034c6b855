"""A deployment with a function of the project's files: its record holds a digest, and today's function answers while it is that."""

from pathlib import Path

import pytest

from tidemill import loop, project
from tidemill.core import DefinitionError, show
from tidemill.features import functions_of
from tidemill.monitoring import Skew
from tidemill.serving import AnswerLog, sample_answers
from tidemill.session.session import open_endpoint
from toy import DECLARATIONS, open_toy, write_project

LOAD = """@tm.request_view(bookings, columns=["weight", "sent"], returns=["heavy"])
def load(parcel):
    return {"heavy": parcel["weight"] > 2}


late = tm.Task("""
WITH_FUNCTION = DECLARATIONS.replace("late = tm.Task(", LOAD).replace("features=[booking,", "features=[booking, load,")


def test_a_function_answers_while_it_is_the_one_of_which_the_model_learned(tmp_path: Path) -> None:
    toy = open_toy(write_project(tmp_path / "parcels", declarations=WITH_FUNCTION))
    branch = toy.replay(end="2024-03-05")
    endpoint = open_endpoint(toy.ledger, toy.declared, branch)
    known = endpoint.rows.known.keys[0].decode()
    at = [int(endpoint.rows.known.at[0])]
    (by_key,) = endpoint.answer([{"parcel": known}], at, explain=True)
    texts = {name: endpoint.rows.known.texts[name].texts()[0] for name in ("depot", "courier", "grade")}
    assert by_key.inputs is not None
    row = {"parcel": known, "weight": by_key.inputs["booking__weight"], **texts}
    row |= {name: show(int(value[0])) for name, value in (("sent", endpoint.rows.known.event), ("booked", endpoint.rows.known.known))}
    (by_columns,) = endpoint.answer([row], at, explain=True)
    assert by_columns.inputs == by_key.inputs
    assert by_columns.probability == by_key.probability
    assert by_columns.inputs["load__heavy"] == float(row["weight"] > 2)

    log = AnswerLog(tmp_path / "late.jsonl")
    log.append(endpoint.answer([{"parcel": known}, row], at * 2, keep=1.0), 5, branch.id)
    sample = sample_answers(log.path, branch.id, 0, 6, 10)
    same = loop.measure(toy.ledger, branch.id, "late", sample, Skew(), functions_of(toy.built.task.features)).found
    assert (same.rows, {one.equal for one in same.features}) == (2, {2}), "the function is asked again for what it was asked"
    without = loop.measure(toy.ledger, branch.id, "late", sample, Skew()).found
    assert (without.rows, list(without.left_out.values())) == (1, [1])

    write_project(tmp_path / "parcels", [], declarations=WITH_FUNCTION.replace("> 2", "> 3"))
    changed = open_endpoint(toy.ledger, project.load(tmp_path / "parcels"), branch)
    assert changed.answer([{"parcel": known}], at, explain=True) == [by_key]
    with pytest.raises(DefinitionError, match="the function of view 'load' is not here as it was when its model was trained"):
        changed.answer([row], at)
