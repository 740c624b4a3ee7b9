"""A document of headings, paragraphs, tables and pictures, as text, Markdown and one self-contained HTML page."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
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


STYLE = Path(__file__).with_name("page.css")
Block = Heading | Paragraph | Table | Picture


def aligned(table: Table, most: int | None = None) -> str:
    """A table for the terminal. most: rows shown."""
    rows = [[_plain(cell) for cell in row] for row in ([table.header, *table.rows[:most]])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            f"{c:>{w}}" if i in table.numbers else f"{c:<{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    left = len(table.rows) - len(rows) + 1
    return "\n".join([*lines, *([f"… {left} more"] if left else [])])


def markdown(blocks: Iterable[Block]) -> str:
    """The document in GitHub's Markdown; pictures are linked."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {_escaped(block.text)}")
        elif isinstance(block, Paragraph):
            parts.append(_escaped(block.text))
        elif isinstance(block, Picture):
            parts.append(f"![{_escaped(block.description)}]({quote(block.file.name)})\n\n{_escaped(block.caption)}")
        else:
            marks = ["--:" if index in block.numbers else "---" for index in range(len(block.header))]
            rows = [
                [_escaped(name) for name in block.header],
                marks,
                *([_in_markdown(c) for c in r] for r in block.rows),
            ]
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(parts) + "\n"


def html(title: str, blocks: Iterable[Block]) -> str:
    """The document as one page that needs no other file: pictures are inside."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"<h{block.level}>{escape(block.text)}</h{block.level}>")
        elif isinstance(block, Paragraph):
            parts.append(f"<p>{escape(block.text)}</p>")
        elif isinstance(block, Picture):
            data = base64.b64encode(block.file.read_bytes()).decode()
            image = f'<img alt="{escape(block.description)}" src="data:image/png;base64,{data}">'
            parts.append(f"<figure>{image}<figcaption>{escape(block.caption)}</figcaption></figure>")
        else:
            parts.append(_table_in_html(block))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{STYLE.read_text(encoding='utf-8')}</style>"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><main>\n'
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _table_in_html(table: Table) -> str:
    def row(tag: str, cells: Sequence[Cell]) -> str:
        marks = [' class="n"' if index in table.numbers else "" for index in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{m}>{_in_html(c)}</{tag}>" for m, c in zip(marks, cells, strict=True)) + "</tr>"

    body = "\n".join(row("td", cells) for cells in table.rows)
    whole = f'<div class="scroll"><table><thead>{row("th", table.header)}</thead>\n<tbody>{body}</tbody></table></div>'
    return f"<details><summary>Show {len(table.rows)} rows</summary>{whole}</details>" if table.is_long else whole


def _in_html(cell: Cell) -> str:
    if isinstance(cell, Link):
        return f'<a href="{quote(cell.path)}">{escape(cell.text)}</a>'
    return f"<code>{escape(cell.text)}</code>" if isinstance(cell, Code) else escape(cell)


def _in_markdown(cell: Cell) -> str:
    if isinstance(cell, Link):
        return f"[{_escaped(cell.text)}]({quote(cell.path)})"
    if isinstance(cell, Code):
        fence = "`" * (1 + max(map(len, re.findall("`+", cell.text)), default=0))
        return f"{fence} {_plain(cell).replace('|', chr(92) + '|')} {fence}"
    return _escaped(cell)


def _plain(cell: Cell) -> str:
    return " ".join((cell.text if isinstance(cell, Link | Code) else cell).split())


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", _plain(text))
