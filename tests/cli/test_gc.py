"""`tidemill gc` at the command line: a plan that waits for nobody, then the deletion."""

import json
from pathlib import Path

from tidemill import project, tracking
from tidemill.cli.console import out
from tidemill.cli.gc import gc
from tidemill.tracking.runs import create_run, delete_run


def test_a_plan_waits_for_no_writer_and_yes_carries_it_out(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    home = tmp_path / "home"
    found = project.ensure(home)
    (home / "tidemill.toml").write_text('[project]\nname = "home"\n[retention]\ndeleted = "0s"\n')
    ledger = found.ledger()
    tracking.prepare(ledger)
    run = create_run(ledger, "0", name="old").info
    delete_run(ledger, run.run_id)
    with found.writing("somebody else"):
        gc(str(home), yes=False, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["plan"], told["done"]) == ([{"kind": "run", "what": f"old ({run.run_id})", "why": "deleted"}], False)
    assert ledger.executions(kind="run")
    with out.capture() as shown:
        gc(str(home), yes=True, as_json=False)
    assert "deleted  1 things" in shown.get()
    assert not ledger.executions(kind="run")
    ledger.records.close()
