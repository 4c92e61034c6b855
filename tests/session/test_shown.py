"""What `features show` says of a view: types, its entity, and who holds its values."""

from pathlib import Path

from click.testing import CliRunner

from tidemill import cli
from tidemill.session import Session

VIEWS = """
import tidemill as tm

sales = tm.Dataset("sales", {"s": tm.Source("sales.csv")}, event_time="sold")
shop = tm.Entity("shop", key="shop", owner="bea", description="where we sell")
newest = tm.FeatureView("newest", sales, shop, features={"amount": tm.last("amount"), "kind": tm.category("kind")})
day = tm.FeatureView("day", sales, shop, features={"n": tm.count(), "sum": tm.sum("amount")}, windows=["24h"])
own = tm.RequestView("own", sales, features={"big": "amount > 10"})
"""


def test_a_view_tells_types_its_entitys_owner_and_the_rows_that_hold_it(tmp_path: Path) -> None:
    (tmp_path / "tidemill.toml").write_text('[project]\nname = "shops"\n')
    (tmp_path / "views.py").write_text(VIEWS)
    (tmp_path / "sales.csv").write_text("shop,sold,amount,kind\n9,2024-03-10T10:00:00Z,1.5,x\n")
    session = Session(tmp_path)
    rows = [{"shop": 9, "event_timestamp": "2024-03-10T11:00:00Z", "amount": 1, "sold": "2024-03-10T11:00:00Z"}]
    for view in ("newest", "own"):
        session.historical_features(rows, [view], save="orders")
    newest, day, own = (session.features.show(name) for name in ("newest", "day", "own"))
    types = {name: one["type"] for shown in (newest, day, own) for name, one in shown["definition"]["features"].items()}
    assert types == {"amount": "number", "kind": "category", "n": "whole number", "sum": "number", "big": "number"}
    assert (newest["entity"]["owner"], newest["entity"]["description"], own["entity"]) == ("bea", "where we sell", None)
    assert [len(shown["saved"]) for shown in (newest, day, own)] == [1, 0, 1]
    page = CliRunner().invoke(cli.tidemill, ["-C", str(tmp_path), "features", "show", "newest"]).output
    for said in ("category", "where we sell; owner bea", f"saved rows {newest['saved'][0]}"):
        assert said in page, page
    assert "nothing yet" not in page
    told = CliRunner().invoke(cli.tidemill, ["-C", str(tmp_path), "features", "materialise", "own", "day"]).output
    assert told == "day: 1 entities written\nown: computed from the request; the dataset whose columns it reads is built\n"
