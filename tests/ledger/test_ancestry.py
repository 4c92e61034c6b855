"""What was made from a thing, through models too whose output something is; and a tree that leaves out what such models were made from."""

from tidemill.core import Ref
from tidemill.ledger import Artifact, Ledger, descendants, lineage, nodes

CHAIN = ("dataset:a", "feature view:b", "model:first", "feature view:c", "model:second")


def test_a_model_whose_output_is_learned_from_is_on_the_way(ledger: Ledger) -> None:
    refs = [Ref.of(*text.split(":"), digest=str(i) * 40) for i, text in enumerate(CHAIN)]
    for before, ref in zip([None, *refs], refs, strict=False):
        ledger.put_artifact(Artifact(ref, {}), {"made from": before} if before else {})
    dataset, first, second = (str(refs[i]) for i in (0, 2, 4))
    assert descendants(ledger, [dataset], "model") == [(dataset, first), (dataset, second)]
    assert descendants(ledger, [dataset], "model", through=False) == [(dataset, first)]
    assert descendants(ledger, [first], "model", through=False) == [(first, second)]
    assert descendants(ledger, [str(refs[3])], "model", through=False) == [(str(refs[3]), second)]
    assert [node.ref for node in nodes(lineage(ledger, refs[4]))] == [refs[4], refs[3], refs[2]]
    assert [node.ref for node in nodes(lineage(ledger, refs[2]))] == [refs[2], refs[1], refs[0]]
