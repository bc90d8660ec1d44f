"""Reading a page with an HTML parser of the standard library."""

from html.parser import HTMLParser
from pathlib import Path

from glassbox.report.page import write_report

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Every element with its ancestors' tags, attributes and text; fails on badly nested markup."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[tuple[str, list[str]]] = []
        self.feed(html)
        assert [tag for tag, _ in self.open] == [], "elements left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text: list[str] = []
        self.elements.append((tag, {name: value or "" for name, value in attrs}, text))
        if tag not in VOID:
            self.open.append((tag, text))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for _, text in self.open:
            text.append(data)

    def find(self, tag: str, **attributes: str) -> list[str]:
        """Text of the elements with this tag and these attributes (`class_` for class, one of its words)."""
        found = []
        for name, attrs, text in self.elements:
            if name == tag and all(
                value in attrs.get(key.rstrip("_"), "").split() for key, value in attributes.items()
            ):
                found.append(" ".join(" ".join(text).split()))
        return found

    def one(self, tag: str, **attributes: str) -> str:
        (text,) = self.find(tag, **attributes)
        return text


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))
