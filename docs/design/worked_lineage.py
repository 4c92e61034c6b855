# ruff: noqa: T201 – an example prints
"""A toy lineage, from a file to an alias: the worked example of ledger.md."""

from pathlib import Path
from tempfile import TemporaryDirectory

from tidemill.core import Ref, digest_bytes
from tidemill.ledger import Artifact, Ledger, Made, Node, lineage
from tidemill.store import FolderBlobs, Records

scratch = TemporaryDirectory()
folder = Path(scratch.name)
ledger = Ledger(Records(folder / "records.db"), FolderBlobs(folder / "blobs"), lambda: 0)
rows = b"id,delay\n1,5\n2,31\n"


def dataset() -> Made:
    blob = ledger.blobs.put(rows)
    version = Artifact(Ref.of("dataset", "arrivals", blob), {"blobs": {"rows": blob}, "rows": 2})
    return Made({"version": version}, metrics={"rows": 2})


def model(limit: int) -> Made:
    blob = ledger.blobs.put(f"delay > {limit}".encode())
    return Made({"model": Artifact(Ref.of("model", "late", blob), {"blobs": {"native": blob}})}, params={"limit": limit})


def run(limit: int) -> Ref:
    source = ledger.put_artifact(Artifact(Ref.of("source", "arrivals.csv", digest_bytes(rows)), {"bytes": len(rows)}))
    data = ledger.once("dataset", "arrivals", {"source": source}, dataset)
    made = ledger.once("training run", "late", {"data": data.output.ref, "params": {"limit": limit}}, lambda: model(limit))
    for step, once in (("dataset", data), ("training run", made)):
        print(f"{step:13} {'cached' if once.cached else 'ran':7} {once.why}")
    return made.output.ref


def show(node: Node, depth: int = 0) -> None:
    ran = f"  by {node.execution.kind} {node.execution.id}" if node.execution else ""
    print(f"{'  ' * depth}{node.role or 'asked for'}: {node.ref}{ran}")
    for parent in node.parents:
        show(parent, depth + 1)


run(15)
run(15)
late = run(30)
show(lineage(ledger, late))
with ledger.records.begin() as connection:  # an alias and the decision behind it, or neither
    ledger.set_alias(connection, "live", "late", "champion", late, at=0, who="loop", why="passed its gates")
    ledger.decide(connection, "live", at=0, who="loop", kind="promoted", subject=str(late), why="passed its gates", evidence={"auc": 0.74})
print("champion:", ledger.alias("live", "late", "champion"), "· decisions that verify:", ledger.verify_decisions())
