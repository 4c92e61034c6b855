"""`Ref`: how any thing names any other thing."""

from dataclasses import dataclass

from tidemill.core.errors import UnknownName


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Kind, name, version and digest of one thing. `version` is what people say; `digest` is what is meant.

    >>> ref = Ref("model", "boosted", "4f1c", "4f1c99aa")
    >>> str(ref)
    'model:boosted@4f1c'
    >>> Ref.parse("model:boosted@4f1c").name
    'boosted'
    """

    kind: str
    name: str
    version: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" + (f"@{self.version}" if self.version else "")

    @classmethod
    def parse(cls, text: str) -> "Ref":
        """The ref that `kind:name@version` spells; raises UnknownName for another form."""
        kind, colon, rest = text.partition(":")
        name, _, version = rest.rpartition("@") if "@" in rest else (rest, "", "")
        if not colon or not kind or not name:
            raise UnknownName(f"{text!r} is not a ref", hint="write kind:name or kind:name@version, for example model:boosted@3")
        return cls(kind, name, version)

    @classmethod
    def of(cls, kind: str, name: str, digest: str) -> "Ref":
        """A ref whose version is the start of its digest."""
        return cls(kind, name, digest[:12], digest)
