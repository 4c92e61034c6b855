"""The documentation cannot lag: what a person can set, call, import, ask for or be told is mentioned; links lead somewhere; code runs."""

import doctest
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import click
import pytest

import tidemill
from architecture.house import ROOT
from tidemill import core
from tidemill.cli import tidemill as command_line
from tidemill.core import TidemillError
from tidemill.features import STATUS
from tidemill.ledger import Artifact, Branch, Decision, Edge, Execution, Ledger
from tidemill.project import SETTINGS
from tidemill.serving import REQUIRES, Answer, Gateway, gateway_routes
from tidemill.store import Blobs, Records
from tidemill.web import app

REFERENCE = (ROOT / "docs" / "reference.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def commands(group: click.Command = command_line, name: str = "tidemill") -> Iterator[tuple[str, click.Command]]:
    """Every command with its whole name."""
    yield name, group
    if isinstance(group, click.Group):
        context = click.Context(group)
        for word in group.list_commands(context):
            command = group.get_command(context, word)
            assert command is not None
            yield from commands(command, f"{name} {word}")


def section(name: str) -> str:
    """What the reference says of a command: its own section, or the head of all commands."""
    heading = "## Commands" if name == "tidemill" else f"### `{name}"
    assert heading in REFERENCE, f"docs/reference.md has no section {heading}…`"
    return REFERENCE.split(heading, 1)[1].split("\n##", 1)[0]


def rows_of(heading: str) -> set[str]:
    """The first cells of the table below a heading."""
    text = REFERENCE.split(f"# {heading}\n", 1)[1].split("\n#", 1)[0]
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))


def test_settings_and_only_they_are_listed() -> None:
    assert rows_of("Settings: `tidemill.toml`") == set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_default_of_a_setting_is_the_one_stated(name: str) -> None:
    line = next(line for line in REFERENCE.splitlines() if line.startswith(f"| `{name}` |"))
    default = SETTINGS[name][1]
    if default != "":
        assert str(default).lower() in line.split("|")[2].lower(), line


@pytest.mark.parametrize(("name", "command"), [pytest.param(*found, id=found[0]) for found in commands() if found[0] != "tidemill policy"])
def test_commands_are_described_with_their_options(name: str, command: click.Command) -> None:
    text = section(name)
    for option in command.params:
        for spelled in option.opts if isinstance(option, click.Option) else [option.human_readable_name]:
            missing = f"docs/reference.md does not mention {spelled} of `{name}`"
            assert re.search(rf"(?<![\w-]){re.escape(spelled)}(?![\w-])", text + name_line(name)), missing


def name_line(name: str) -> str:
    """The heading of a command, which holds its arguments."""
    return next((line for line in REFERENCE.splitlines() if line.startswith(f"### `{name}")), "")


def test_no_command_is_described_that_is_not_there() -> None:
    described = {re.sub(r"[ \[]+[A-Z\[].*", "", name) for name in re.findall(r"^### `(tidemill [^`]+)`", REFERENCE, re.MULTILINE)}
    assert described == {name for name, command in commands() if not isinstance(command, click.Group)}


@pytest.mark.parametrize("name", tidemill.__all__)
def test_public_names_are_described(name: str) -> None:
    assert re.search(rf"\btm\.{re.escape(name)}\b", REFERENCE), f"docs/reference.md does not mention tm.{name}"


def parameters(text: str) -> dict[str, inspect.Parameter]:
    """What a page says of a function's parameters; `…` stands for any value."""
    scope: dict[str, Any] = {"tm": tidemill}
    exec(f"def said({text.replace('…', '...')}): ...", scope)
    return dict(inspect.signature(scope["said"]).parameters)


SIGNATURES = re.findall(r"`@?tm\.([\w.]+)\(([^`]*)\)`", REFERENCE.split("\n## Names", 1)[1])


@pytest.mark.parametrize(("name", "text"), SIGNATURES, ids=[name for name, _ in SIGNATURES])
def test_signatures_are_those_of_the_code(name: str, text: str) -> None:
    """Names in their order, those that must be named after a star, and the defaults."""
    said, code = parameters(text), inspect.signature(attrgetter(name)(tidemill)).parameters
    unsaid = {word for word, parameter in code.items() if parameter.default is not parameter.empty} - said.keys()
    assert [(word, code[word].kind) for word in code if word not in unsaid] == [(word, found.kind) for word, found in said.items()]
    for word, found in said.items():
        default = tuple(found.default) if isinstance(found.default, list) else found.default
        assert default in (code[word].default, ...), word


def errors() -> dict[str, type[TidemillError]]:
    found = {name: getattr(core, name) for name in core.__all__}
    return {name: value for name, value in found.items() if isinstance(value, type) and issubclass(value, TidemillError)}


def test_errors_are_described_with_their_exit_codes() -> None:
    described = {name: int(code) for name, code in re.findall(r"^\| `(\w+)` \| `\w+` \| (\d+) \|", REFERENCE, re.MULTILINE)}
    assert described == {name: error.code for name, error in errors().items()}


def routes() -> set[tuple[str, str]]:
    """Method and path of every route: the gateway's as they are made, the pages' as `web.app` writes them."""
    source = Path(app.__file__).read_text()
    own = set(re.findall(r'route\("([A-Z]+)", "([^"]+)"', source))
    made = gateway_routes(Gateway({}, {}, lambda: 0, False))
    served = {(method, route.path) for route in made for method in (route.methods or ()) if method != "HEAD"}
    assert own
    return own | served


def test_routes_and_only_they_are_listed() -> None:
    described = set(re.findall(r"^\| `([A-Z]+) (/[^`]*)` \| (?:open|read|predict) \|", REFERENCE, re.MULTILINE))
    assert described == routes()


def test_routes_are_listed_with_what_they_require() -> None:
    for route in gateway_routes(Gateway({}, {}, lambda: 0, False)):
        assert re.search(rf"{re.escape(route.path)}` \| {route.name.split(':')[0]} \|", REFERENCE), route.path


def test_methods_of_grpc_are_listed_with_what_they_require() -> None:
    rows = re.findall(r"^\| ((?:`[A-Z]\w+`(?:, )?)+)[^|]*\| (open|read|predict) \|", REFERENCE, re.MULTILINE)
    described = {(name, right) for names, right in rows for name in re.findall(r"\w+", names)}
    assert described == {(path.rpartition("/")[2], right) for path, right in REQUIRES.items()}


def test_fields_of_an_answer_are_described() -> None:
    whole = Answer(
        "k",
        0.5,
        "m/1",
        "champion",
        0,
        "offline",
        {"view": "expired"},
        {"view__x": 1.0},
        given=0,
        unexpected={"view__x": "1, above 0: counted"},
        cached=True,
    ).plain(1)
    assert {"note", "note_features", "inputs"} <= set(whole)
    assert rows_of("The answer of `/predict/{name}`") == {"id", *whole}


def test_statuses_are_described() -> None:
    assert rows_of("Statuses of a view") == set(STATUS)


def block(heading: str) -> str:
    """The first block of text below a heading of the ledger's page."""
    return (ROOT / "docs" / "design" / "ledger.md").read_text().split(f"## {heading}\n", 1)[1].split("```", 2)[1]


def test_values_of_the_ledger_have_the_fields_of_the_code() -> None:
    said = dict(re.findall(r"^(\w+)\(([^)]*)\)", block("Values"), re.MULTILINE))
    assert {name: fields.split(", ") for name, fields in said.items()} == {
        value.__name__: list(inspect.signature(value).parameters) for value in (core.Ref, Artifact, Execution, Edge, Decision, Branch)
    }


def test_verbs_of_the_ledger_and_only_they_are_listed() -> None:
    text = block("Verbs")
    for kind, verbs in (
        (Ledger, re.findall(r"ledger\.(\w+)", text)),
        (Records, re.findall(r"records\.(\w+)", text)),
        (Blobs, re.findall(r"\.(\w+)", text.split("\nblobs", 1)[1].split("\n", 1)[0])),
    ):
        assert set(verbs) == {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("verb", "words"), re.findall(r"ledger\.(\w+)\(([^)…]+)\)", block("Verbs")))
def test_parameters_of_a_verb_are_those_of_the_code(verb: str, words: str) -> None:
    said = re.findall(r"\w+(?=\W|$)", re.sub(r'"[^"]*"|=[^,]*', "", words))
    assert said == [word for word in inspect.signature(getattr(Ledger, verb)).parameters if word in said]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links, with the heading that they name."""
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text())):
        if "://" in target or target.startswith("mailto:"):
            continue
        place, _, heading = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        assert file.exists(), f"{page.relative_to(ROOT)} links to {target}, which is not there"
        assert file.is_relative_to(ROOT), f"{page.relative_to(ROOT)} links to {target}, which is outside"
        if heading and file.suffix == ".md":
            assert heading in anchors(file), f"{page.relative_to(ROOT)} links to {target}; {file.name} has {sorted(anchors(file))}"


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def blocks() -> list[tuple[str, str]]:
    """Python blocks that begin with the comment `# runnable`, by page and line."""
    pattern = re.compile(r"^```python\n(# runnable\n.*?)^```$", re.DOTALL | re.MULTILINE)
    texts = {page.relative_to(ROOT): page.read_text() for page in PAGES}
    return [(f"{name}:{text.count(chr(10), 0, at.start()) + 1}", at[1]) for name, text in texts.items() for at in pattern.finditer(text)]


@pytest.mark.parametrize(("where", "code"), [pytest.param(*block, id=block[0]) for block in blocks()])
def test_runnable_blocks_run(where: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, where, "exec"), {"__name__": "docs"})


EXAMPLES = [path for path in sorted((ROOT / "src").rglob("*.py")) if "    >>> " in path.read_text()]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_in_docstrings_run(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    found = doctest.testmod(import_module(name))
    assert found.attempted
    assert not found.failed


def test_some_blocks_run() -> None:
    assert len(blocks()) >= 2
