"""Where the aliases of a registered model pointed, since when, by whom and why; and the way back for aliases that clients set."""

from dataclasses import dataclass
from typing import Any

from tidemill.core import DataError, Refused, UnknownName, show
from tidemill.ledger import Ledger
from tidemill.registry.names import aliases_of, exists, touch
from tidemill.registry.of_loop import Found, all_versions, looped, owner_of, refuse_followed
from tidemill.registry.registered import get_version, one_version
from tidemill.registry.values import ModelVersion, check_name, number_of
from tidemill.store import Driver


@dataclass(frozen=True)
class Move:
    """An alias came to point at a version, or at none (an empty one). `at` is microseconds UTC, by the clock of its branch."""

    alias: str
    version: str
    at: int
    who: str
    why: str

    def plain(self) -> dict[str, Any]:
        return {"alias": self.alias, "version": self.version, "at": show(self.at), "who": self.who, "why": self.why}


def alias_history(ledger: Ledger, name: str, alias: str = "") -> list[Move]:
    """Every move of the aliases of a model, or of one of them, oldest first. Raises UnknownName for what never was."""
    with ledger.records.snapshot() as sql:
        found = looped(sql)
        moves = [move for move in _moves(sql, found, name) if alias in ("", move.alias)]
        known = exists(sql, found, name)
    if not moves and (alias or not known):
        what = f"no alias {alias!r} was ever set of {name!r}" if alias and known else f"no registered model is named {name!r}"
        raise UnknownName(what, hint="`tidemill models list` shows what there is")
    return moves


def _moves(sql: Driver, found: Found, name: str) -> list[Move]:
    """Those that clients made, and those of the deployment of a model of the loop."""
    query = "SELECT alias, target, at, who, why FROM alias WHERE branch = ? AND name = ? ORDER BY id"
    moves = [Move(*row) for row in sql.all(query, ("", owner_of(found, name)))]
    if name in found:
        one = found[name]
        start = f"model:{one.model}@"
        for alias, target, at, who, why in sql.all(query, (one.branch, one.deployment)):
            if str(target).startswith(start):
                moves.append(Move(alias, target.removeprefix(start).partition("#")[0], at, who, why))
    return sorted(moves, key=lambda move: move.at)


def named_version(ledger: Ledger, text: str) -> ModelVersion:
    """The version that `boosted/3` or `boosted@champion` names, with or without `models:/` before it. Raises UnknownName."""
    plain = text.removeprefix("models:/")
    name, at, alias = plain.rpartition("@")
    if not at:
        name, slash, number = plain.rpartition("/")
        if not slash or not number.isdecimal():
            raise UnknownName(
                f"{text!r} names no version", hint="write NAME/NUMBER or NAME@ALIAS, for example boosted/3 or boosted@champion"
            )
        return get_version(ledger, name, number)
    with ledger.records.snapshot() as sql:
        found = looped(sql)
        aliases = aliases_of(ledger, sql, found, name) if exists(sql, found, name) else {}
    if alias not in aliases:
        raise UnknownName(f"{name!r} has no alias {alias!r}", available=sorted(aliases), hint="`tidemill models list` shows what there is")
    return get_version(ledger, name, aliases[alias])


def restore_alias(ledger: Ledger, name: str, alias: str, *, to: str = "", who: str, why: str) -> tuple[str, str]:
    """Point an alias at the version that it pointed at before, or at `to`; returns the version before and now. Raises Refused for an alias
    that a deployment follows, and where there is nothing to go back to."""
    with ledger.records.transaction() as sql:
        found = looped(sql)
        refuse_followed(found, check_name(name), alias)
        past = [move.version for move in _moves(sql, found, name) if move.alias == alias]
        if not past:
            raise UnknownName(f"no alias {alias!r} was ever set of {name!r}", hint="`tidemill models history NAME` shows what was")
        wanted = to or version_before(past)
        there = _numbers(sql, found, name)
        if not wanted or wanted not in there:
            what = f"version {wanted} of {name} is not there any more" if wanted else f"{name}@{alias} has no earlier version to go back to"
            raise Refused(what, available=there, hint="name one with --to")
        one_version(ledger, sql, found, name, number_of(wanted))
        ledger.move_alias(sql, "", owner_of(found, name), alias, wanted, at=ledger.wall(), who=who, why=why)
        touch(ledger, sql, name)
    return past[-1], wanted


def version_before(past: list[str]) -> str:
    """The newest version in an alias's past that is not what it points at now. Going back twice goes back further.

    >>> version_before(["1", "2", "3"]), version_before(["1", "2", "3", "2"]), version_before(["1", "1"])
    ('2', '1', '')
    """
    stack: list[str] = []
    for version in past:
        if version in stack:
            del stack[stack.index(version) + 1 :]  # a way back: what came after it is undone
        else:
            stack.append(version)
    return next((version for version in reversed(stack[:-1]) if version), "")


def _numbers(sql: Driver, found: Found, name: str) -> list[str]:
    there = all_versions(found)
    return [str(row[0]) for row in sql.all(f"SELECT number FROM {there.text} WHERE name = ? ORDER BY number", (*there.values, name))]


def split_alias(text: str) -> tuple[str, str]:
    """Name and alias of `models:/NAME@ALIAS`; raises DataError."""
    name, at, alias = text.removeprefix("models:/").rpartition("@")
    if not at or not name or not alias:
        raise DataError(f"{text!r} names no alias of a registered model", hint="write models:/NAME@ALIAS")
    return name, alias
