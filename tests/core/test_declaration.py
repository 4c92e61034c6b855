"""Declarations know where they were made; their version is their content."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidemill.core import Declaration, Where, definition, version_of, walk


@dataclass(frozen=True)
class Part(Declaration):
    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Whole(Declaration):
    name: str
    parts: Mapping[str, Part] = field(default_factory=dict)
    more: tuple[Part, ...] = ()


def test_the_place_is_the_users_line() -> None:
    part = Part("a")
    assert part.where.file == __file__
    assert part.where.line == test_the_place_is_the_users_line.__code__.co_firstlineno + 1
    assert str(part.where).endswith(f"test_declaration.py:{part.where.line}")


def test_moving_a_declaration_changes_nothing() -> None:
    here, there = Part("a", where=Where("x.py", 1)), Part("a", where=Where("y.py", 99))
    assert here == there
    assert version_of(here) == version_of(there)
    assert version_of(here) != version_of(Part("a", 2.0))


def test_a_definition_is_plain_data_all_the_way_down() -> None:
    whole = Whole("w", {"x": Part("a")}, (Part("b"),))
    assert definition(whole) == {
        "type": "Whole",
        "name": "w",
        "parts": {"x": {"type": "Part", "name": "a", "weight": 1.0}},
        "more": [{"type": "Part", "name": "b", "weight": 1.0}],
    }


def test_walk_gives_the_innermost_first() -> None:
    whole = Whole("w", {"x": Part("a")}, (Part("b"),))
    assert [found.name for found in walk([whole, 3, "text"])] == ["a", "b", "w"]  # type: ignore[attr-defined]
