"""What differs between runs, as plain data: values by name of any number of runs, the text of code and the versions of libraries of two.

Pure functions; what a run is made of is read in `recorded.py`.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One name whose values differ: `values` by run, in their order, None where a run lacks it."""

    section: str
    name: str
    values: tuple[Any, ...]


def comparison_rows(runs: Sequence[Mapping[str, Values]], *, everything: bool = False) -> list[Row]:
    """The names of each section (params, metrics, …) whose values are not the same for all runs, or all names.

    >>> [(row.name, row.values) for row in comparison_rows([{"params": {"a": 1, "b": 2}}, {"params": {"a": 1}}])]
    [('b', (2, None))]
    """
    found = []
    for section in dict.fromkeys(name for run in runs for name in run):
        for name in sorted({name for run in runs for name in run.get(section, {})}):
            values = tuple(run.get(section, {}).get(name) for run in runs)
            if everything or not all(same(values[0], value) for value in values[1:]):
                found.append(Row(section, name, values))
    return found


def changes(one: Values, two: Values) -> list[dict[str, Any]]:
    """What differs by name between two; None where one side lacks it.

    >>> changes({"a": 1, "b": 2}, {"b": 3, "c": 4})
    [{'name': 'a', 'one': 1, 'two': None}, {'name': 'b', 'one': 2, 'two': 3}, {'name': 'c', 'one': None, 'two': 4}]
    """
    names = sorted({*one, *two})
    return [{"name": name, "one": one.get(name), "two": two.get(name)} for name in names if not same(one.get(name), two.get(name))]


def same(one: Any, two: Any) -> bool:
    """Whether two values are one; not a number is the same as itself."""
    return bool(one == two or (one != one and two != two))


def text_diff(one: Mapping[str, str], two: Mapping[str, str], names: tuple[str, str] = ("one", "two")) -> str:
    """The unified diff of two sets of files by path; empty when they are equal.

    >>> print(text_diff({"a.py": "x = 1"}, {"a.py": "x = 2"}), end="")
    --- one/a.py
    +++ two/a.py
    @@ -1 +1 @@
    -x = 1
    +x = 2
    """
    found: list[str] = []
    for path in sorted({*one, *two}):
        before, after = one.get(path), two.get(path)
        if before != after:
            sides = [f"{name}/{path}" if text is not None else "/dev/null" for name, text in zip(names, (before, after), strict=True)]
            found += difflib.unified_diff((before or "").splitlines(), (after or "").splitlines(), sides[0], sides[1], lineterm="")
    return "".join(f"{line}\n" for line in found)
