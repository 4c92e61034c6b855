"""The format of skops: fitted models without a pickle. Reading it makes objects of types that it names, and these are looked at."""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

from tidemill.core import MissingExtra, NoExactForm

KNOWN = ("numpy.", "scipy.", "sklearn.")  # what lies in these packages is their own


def dumped(model: Any) -> bytes:
    """The bytes of a model; equal models give equal ones. Raises MissingExtra, and what skops raises of a model that it cannot keep."""
    try:
        import skops.io
    except ImportError as error:
        raise MissingExtra("skops is not installed", hint="pip install 'tidemill[sklearn]'") from error
    return _without_addresses(skops.io.dumps(model))


def loaded(data: bytes | bytearray) -> Any:
    """The model of some bytes. Raises NoExactForm for types that are not known."""
    import skops.io

    return skops.io.load(io.BytesIO(data), trusted=known_types(data))


def known_types(data: bytes | bytearray) -> list[str]:
    """The types in some bytes that skops itself does not know. Raises NoExactForm where they are not those of numpy and the like."""
    import skops.io

    found = [str(one) for one in skops.io.get_untrusted_types(data=bytes(data))]
    odd = [name for name in found if not name.startswith(KNOWN)]
    if odd:
        raise NoExactForm(f"without a pickle it cannot be kept: skops does not know {', '.join(odd[:3])}")
    return found


def modules_in(data: bytes) -> set[str]:
    """The modules of all types that some bytes name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return set(_modules(json.loads(archive.read("schema.json"))))


def _modules(node: Any) -> Iterator[str]:
    if isinstance(node, dict) and isinstance(node.get("__module__"), str):
        yield node["__module__"]
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _modules(part)


def _without_addresses(archive: bytes) -> bytes:
    """A skops archive with objects numbered in their order (skops writes memory addresses) and files without times."""
    with zipfile.ZipFile(io.BytesIO(archive)) as before:
        files = {name: before.read(name) for name in before.namelist()}
    schema = json.loads(files.pop("schema.json"))
    names: dict[str, str] = {}
    _number(schema, {}, names)
    renamed = {names[name]: data for name, data in files.items()}
    after = io.BytesIO()
    with zipfile.ZipFile(after, "w", zipfile.ZIP_DEFLATED) as made:
        for name in sorted(renamed):
            made.writestr(zipfile.ZipInfo(name), renamed[name])
        made.writestr(zipfile.ZipInfo("schema.json"), json.dumps(schema, indent=2))
    return after.getvalue()


def _number(node: Any, numbers: dict[int, int], names: dict[str, str]) -> None:
    if isinstance(node, dict):
        if "__id__" in node:
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers) + 1)
        if isinstance(node.get("file"), str):
            suffix = node["file"].rpartition(".")[2]
            node["file"] = names.setdefault(node["file"], f"{len(names) + 1}.{suffix}")
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _number(part, numbers, names)
