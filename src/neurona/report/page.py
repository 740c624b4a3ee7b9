"""A document of headings, paragraphs, tables and pictures, as text, Markdown and one self-contained HTML page."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Code:
    """Text to be typed."""

    text: str


@dataclass(frozen=True)
class Link:
    """text: what is shown; path: where it leads, relative to the page."""

    text: str
    path: str

    def __str__(self) -> str:
        return self.text


Cell = str | Link | Code


@dataclass(frozen=True)
class Table:
    """numbers: the columns that hold numbers. is_long: folded until asked for."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: range = range(0)
    is_long: bool = False


@dataclass(frozen=True)
class Picture:
    """file: a PNG beside the page; description: what it shows, for those who do not see it."""

    file: Path
    description: str
    caption: str

    @property
    def data(self) -> str:
        """The picture itself, in base64."""
        return base64.b64encode(self.file.read_bytes()).decode()


Block = Heading | Paragraph | Table | Picture


def plain(blocks: Iterable[Block], max_rows: int | None = None) -> list[str]:
    """The document for the terminal, which shows no pictures."""
    return [
        aligned(block, max_rows) if isinstance(block, Table) else block.text
        for block in blocks
        if not isinstance(block, Picture)
    ]


def aligned(table: Table, max_rows: int | None = None) -> str:
    """A table for the terminal; what it leaves out is counted."""
    rows = [[_in_one_line(cell) for cell in row] for row in (table.header, *table.rows[:max_rows])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [">" if index in table.numbers else "<" for index in range(len(widths))]
    lines = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]
    hidden = len(table.rows) - len(rows) + 1
    return "\n".join([*lines, *([f"… {hidden} more"] if hidden else [])])


def markdown(blocks: Iterable[Block]) -> str:
    """The document in GitHub's Markdown; pictures are linked."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {escaped(block.text)}")
        elif isinstance(block, Paragraph):
            parts.append(escaped(block.text))
        elif isinstance(block, Picture):
            parts.append(f"![{escaped(block.description)}]({quote(block.file.name)})\n\n{escaped(block.caption)}")
        else:
            header = map(escaped, block.header)
            marks = ("--:" if index in block.numbers else "---" for index in range(len(block.header)))
            rows = (map(_in_markdown, row) for row in block.rows)
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in (header, marks, *rows)))
    return "\n\n".join(parts) + "\n"


def html(title: str, blocks: Iterable[Block]) -> str:
    """The document as one page that needs no other file: pictures are inside. What comes from a run stays text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(title=title, blocks=blocks, quote=quote) + "\n"


def _in_markdown(cell: Cell) -> str:
    if isinstance(cell, Link):
        return f"[{escaped(cell.text)}]({quote(cell.path)})"
    if isinstance(cell, Code):
        fence = "`" * (1 + max(map(len, re.findall("`+", cell.text)), default=0))
        return f"{fence} {_in_one_line(cell).replace('|', chr(92) + '|')} {fence}"
    return escaped(cell)


def fenced(kind: str, text: str) -> str:
    """A block of Markdown that shows a text as it is, whatever is in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{kind}\n{text}\n{fence}"


def _in_one_line(cell: Cell) -> str:
    return " ".join((cell.text if isinstance(cell, Link | Code) else cell).split())


def escaped(text: str) -> str:
    """A text for Markdown, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", _in_one_line(text))
