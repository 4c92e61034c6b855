"""The files of a new project as text: they parse, stay short, and say what the plan says, whatever the names are."""

import ast
import sqlite3
import tomllib
from dataclasses import replace
from typing import Any

import pytest

from tidemill.project import Item, Names, Scaffold, Sizes, files, window_line

SIZES = Sizes("28d", 20, 0.03, 500, 500, 5000, "7d", ["1d", "7d"], 0.2, 150, 15, 100)
PLAN = Scaffold(
    name="shop",
    task="bought",
    module="shop",
    source="../shop.csv",
    table="shop",
    null_values=["NA"],
    timezone="UTC",
    keys=[Item("id", "id")],
    asked=Item("at", "at"),
    known=Item("paid_at", '"Paid at"'),
    label=Item("bought", "(bought = 'yes')"),
    none_after="7d",
    entities=[Item("city", "city", "group")],
    columns=[Item("price", "price", "number"), Item("city", "city", "category"), Item("joined", "joined", "since")],
    left_out=[("note", "too many texts")],
    slices=["city"],
    hour=True,
    boosted=True,
    sizes=SIZES,
    client_time=True,
    replay=("2024-07-01", "2025-01-01"),
)


def declared(plan: Scaffold) -> str:
    return files(plan)[f"{plan.module}.py"]


def calls(plan: Scaffold) -> set[str]:
    """Names of what the declarations call."""
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(declared(plan))) if isinstance(node, ast.Call)}


def test_the_files_of_a_project() -> None:
    assert sorted(files(PLAN)) == [".gitignore", "labels.sql", "requests.sql", "shop.py", "tidemill.toml"]
    assert {"tm.Dataset", "tm.Task", "tm.Deployment", "tm.Monitor", "tm.RetrainPolicy", "tm.gates.calibration"} <= calls(PLAN)
    settings = tomllib.loads(files(PLAN)["tidemill.toml"])
    assert settings["replay"]["train_until"].isoformat() == "2024-07-01"
    assert settings["serve"]["client_time"] is True


def test_the_request_holds_neither_label_nor_what_is_known_with_it() -> None:
    code = "\n".join(line for line in files(PLAN)["requests.sql"].splitlines() if not line.startswith("--"))
    assert "bought" not in code
    assert "paid" not in code.casefold()


def test_a_label_is_only_there_once_it_is_known() -> None:
    assert 'AND "Paid at" > at' in files(PLAN)["labels.sql"]
    later = replace(PLAN, known=Item("known_at", "at + INTERVAL 7 DAY"))
    assert files(later)["labels.sql"].rstrip().endswith("IS NOT NULL")


def test_the_line_to_change_first_is_the_one_with_windows() -> None:
    number, line = window_line(PLAN)
    assert declared(PLAN).splitlines()[number - 1].strip() == line == 'windows=["1d", "7d"],'


@pytest.mark.parametrize(
    "changes",
    [
        {"boosted": False},
        {"replay": None, "no_replay": "too short"},
        {"none_after": "", "slices": [], "hour": False, "null_values": []},
        {"entities": [Item("everyone", "'all'", "everyone")]},
        {"timezone": "Europe/Berlin"},
        {"keys": [Item("row_id", "row_id")], "row_order": ["at", "price"]},
        {"name": 'a "quoted" \\ name\n', "source": "../a\"b'.csv", "left_out": [("new\nline", "why")]},
        {"columns": [Item("客户", '"客户"', "number"), Item("class", '"class"', "category"), Item("weekday", "weekday", "number")]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_plan_gives_files_that_parse(changes: dict[str, Any]) -> None:
    plan = replace(PLAN, **changes)
    tree = ast.parse(declared(plan))
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            assert len(keys) == len(set(keys))
    assert max(map(len, declared(plan).splitlines())) <= 140
    tomllib.loads(files(plan)["tidemill.toml"])
    for name in ("requests.sql", "labels.sql"):
        assert all(not line or line.lstrip()[0] != "\n" for line in files(plan)[name].splitlines())
        assert sqlite3.complete_statement(files(plan)[name] + ";")


def test_names_are_plain_and_differ() -> None:
    names = Names({"select"})
    given = [names.give(text) for text in ("Select", "select", "a b", "a_b", "A-B", "1st", "", "Ünïcode", "日付", "id")]
    assert given == ["select_", "select_2", "a_b", "a_b_2", "a_b_3", "c_1st", "column", "unicode", "日付", "id"]
    assert all(name.isidentifier() for name in given)
