"""Options that many commands have."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class Workers(click.ParamType):  # type: ignore[type-arg]
    """A number of processes, or as many as there are cores."""

    name = "number|cores"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Raises UsageError for anything else."""
        if value == "cores":
            return value
        if not str(value).isdecimal() or not int(value):
            self.fail(f"{value!r} is neither a number from 1 nor 'cores'", param, ctx)
        return int(value)


def with_workers(told: str, default: int | None = None) -> Callable[[Command], Command]:
    """The option of those that serve, with what is told of where it is not given."""
    meaning = f"Processes that answer at one port: a number, or cores. Default: {told}."
    return click.option("--workers", type=Workers(), default=default, help=meaning)


with_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one object.")
