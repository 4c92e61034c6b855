"""A page taken apart: a strict reader of HTML that says which elements, attributes and texts a page holds."""

from collections.abc import Iterator
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """Elements (name, attributes), texts with the names of the elements around them, and tags that do not close as they should."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.wrong += [f"<{name}> is never closed" for name in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((tuple(self._open), data.strip()))

    @property
    def text(self) -> str:
        """All that a person may read, in order."""
        return " ".join(" ".join(data.split()) for around, data in self.texts if "style" not in around)

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    def addresses(self) -> Iterator[str]:
        """Whatever could make a browser ask for something."""
        for _, attributes in self.elements:
            yield from (value or "" for key, value in attributes.items() if key in {"src", "href", "srcset", "action", "data", "poster"})
