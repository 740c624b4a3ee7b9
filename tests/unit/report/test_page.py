"""A document in its three forms; what comes from a run is text in all of them."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import pytest

from neurona.report.page import Block, Code, Heading, Link, Paragraph, Picture, Table, aligned, html, markdown, plain

HOSTILE = """<script>alert("1")</script>'"><img src=x onerror=alert(1)>{{ 7 * 7 }}|`x`"""


class Reader(HTMLParser):
    """The tags of a page, their attributes, and its text, as a browser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    (tmp_path / "a b.png").write_bytes(b"\x89PNG and more")
    return tmp_path / "a b.png"


def test_a_runs_text_never_becomes_html(picture: Path) -> None:
    blocks: list[Block] = [
        Heading(HOSTILE),
        Paragraph(HOSTILE),
        Table([HOSTILE], [[HOSTILE], [Code(HOSTILE)], [Link(HOSTILE, f"javascript:{HOSTILE}")]]),
        Picture(picture, HOSTILE, HOSTILE),
    ]
    page = Reader(html(HOSTILE, blocks))
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert page.text.count(HOSTILE) == 8  # title, heading, paragraph, header, three cells, caption
    assert dict(page.attributes)["alt"] == HOSTILE
    assert not {name for name, _ in page.attributes if name.startswith("on")}
    assert str(dict(page.attributes)["href"]).startswith("javascript%3A")  # a path, no scheme


def test_a_page_holds_its_pictures_and_folds_long_tables(picture: Path) -> None:
    data = base64.b64encode(picture.read_bytes()).decode()
    table = Table(["name", "value"], [["a", "1"]] * 3, numbers=range(1, 2), is_long=True)
    page = html("title", [Picture(picture, "what", "caption"), table])
    assert f'<img alt="what" src="data:image/png;base64,{data}">' in page
    assert "<summary>Show 3 rows</summary>" in page
    assert page.count('<td>a</td><td class="n">1</td>') == 3
    assert "<details>" not in html("title", [Table(["a"], [["b"]])])


def test_markdown_escapes_what_would_be_markup(picture: Path) -> None:
    text = markdown([Paragraph("a*b_c|<d>"), Table(["n"], [[Code("x|y``z")], [Link("f|g", "../a b")]], range(1))])
    assert text == "a\\*b\\_c\\|\\<d\\>\n\n| n |\n| --: |\n| ``` x\\|y``z ``` |\n| [f\\|g](../a%20b) |\n"
    assert markdown([Picture(picture, "what", "caption")]) == "![what](a%20b.png)\n\ncaption\n"


def test_the_terminal_has_columns_and_counts_what_it_leaves_out(picture: Path) -> None:
    table = Table(["name", "n"], [["a", "10"], ["longer\nname", "9"], ["c", "8"]], numbers=range(1, 2))
    assert aligned(table) == "name          n\na            10\nlonger name   9\nc             8"
    shown = plain([Heading("title"), Picture(picture, "what", "caption"), table], max_rows=1)
    assert shown == ["title", "name   n\na     10\n… 2 more"]
