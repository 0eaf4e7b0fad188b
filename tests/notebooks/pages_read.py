"""What a browser would fetch for a page."""

import re
from html.parser import HTMLParser
from pathlib import Path


class _Reader(HTMLParser):
    """Scripts, and what tags other than links to click on refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.fetched: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in ("src", "srcset", "href", "xlink:href", "data", "poster") and value:
                (self.links if tag == "a" else self.fetched).append(value)
            if name.startswith("on"):
                self.scripts += 1


def fetched(page: Path) -> list[str]:
    """All that a page fetches beside itself; a script, wherever it is from, is refused here."""
    text = page.read_text()
    reader = _Reader()
    reader.feed(text)
    assert reader.scripts == 0, page
    styles = re.findall(r"url\(\s*['\"]?([^'\")]+)", text) + re.findall(r"@import\s+(\S+)", text)
    return [at for at in (*reader.fetched, *styles) if not at.startswith(("data:", "#"))]


def links(page: Path) -> list[str]:
    """Where a reader can go from a page."""
    reader = _Reader()
    reader.feed(page.read_text())
    return reader.links
