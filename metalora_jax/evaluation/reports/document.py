"""A report as a list of blocks, written once and rendered as HTML and as Markdown."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote


class Heading(NamedTuple):
    """A section's title; level 1 is the document's own."""

    text: str
    level: int = 2


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Bullets(NamedTuple):
    """A list of sentences; `caution` sets it apart as a warning."""

    items: Sequence[str]
    caution: bool = False


class Table(NamedTuple):
    """Rows of text under a header; a newline in a cell starts a second, smaller line. `shade` in [0, 1] tints cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    shade: Sequence[Sequence[float | None]] | None = None
    folded: str | None = None  # title of a table that is closed until asked for


class Picture(NamedTuple):
    """A PNG file beside the document."""

    name: str
    alt: str


class Links(NamedTuple):
    """Files to open, as (text, path relative to the document)."""

    targets: Sequence[tuple[str, str]]


class Code(NamedTuple):
    """Text shown as it is, closed until asked for."""

    text: str
    title: str


Block = Heading | Text | Bullets | Table | Picture | Links | Code

CSS = """
:root { color-scheme: light; }
body { font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #222; background: #fff;
       max-width: 70rem; margin: 2.5rem auto 5rem; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .6rem; padding-top: 1rem; border-top: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
ul { padding-left: 1.2rem; } li { margin: .25rem 0; }
ul.caution { list-style: none; padding: .6rem 1rem; background: #fff8e6; border-left: 3px solid #e6a700;
             font-size: .9rem; }
figure { margin: 1.2rem 0; } img { max-width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eee; }
th { font-weight: 600; border-bottom: 1px solid #999; } td:first-child, th:first-child { text-align: left; }
td small { color: #666; } td:first-child { font-weight: 600; }
details { margin: 1rem 0; } summary { cursor: pointer; color: #0072b2; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .82rem; }
"""


def to_html(title: str, blocks: Sequence[Block], pictures: Mapping[str, bytes]) -> str:
    """One HTML page that needs nothing but itself: style and pictures (name -> PNG bytes) are inside."""
    body = "\n".join(_html(block, pictures) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{CSS}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def to_markdown(blocks: Sequence[Block]) -> str:
    """The same report as Markdown, with its pictures beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _html(block: Block, pictures: Mapping[str, bytes]) -> str:
    e = html.escape
    match block:
        case Heading(text, level):
            return f"<h{level}>{e(text)}</h{level}>"
        case Text(text):
            return f"<p>{e(text)}</p>"
        case Bullets(items, caution):
            mark = ' class="caution"' if caution else ""
            return f"<ul{mark}>{''.join(f'<li>{e(item)}</li>' for item in items)}</ul>"
        case Table(folded=folded):
            table = f'<div class="scroll">{_html_table(block)}</div>'
            return f"<details><summary>{e(folded)}</summary>{table}</details>" if folded else table
        case Picture(name, alt):
            data = base64.b64encode(pictures[name]).decode()
            return f'<figure><img alt="{e(alt)}" src="data:image/png;base64,{data}"></figure>'
        case Links(targets):
            links = (f'<li><a href="{quote(path)}">{e(text)}</a></li>' for text, path in targets)
            return f"<ul>{''.join(links)}</ul>"
        case Code(text, title):
            return f"<details><summary>{e(title)}</summary><pre>{e(text)}</pre></details>"


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = []
    for i, row in enumerate(table.rows):
        cells = []
        for j, cell in enumerate(row):
            first, *rest = html.escape(cell).split("\n")
            tint = table.shade[i][j] if table.shade else None
            style = "" if tint is None else f' style="background: rgba(0, 114, 178, {0.24 * tint:.3f})"'
            cells.append(f"<td{style}>{first}{''.join(f'<br><small>{line}</small>' for line in rest)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Text(text):
            return _plain(text)
        case Bullets(items, _):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case Table(header, rows, _, folded):
            lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
            table = "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)
            return f"<details><summary>{_plain(folded)}</summary>\n\n{table}\n\n</details>" if folded else table
        case Picture(name, alt):
            return f"![{_plain(alt)}]({quote(name)})"
        case Links(targets):
            return "\n".join(f"- [{_plain(text)}]({quote(path)})" for text, path in targets)
        case Code(text, title):
            return f"{_plain(title)}:\n\n" + "\n".join(f"    {line}" for line in text.splitlines())


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: no tags, no table borders, no emphasis out of file names."""
    for mark in ("\\", "|", "*", "_", "`", "[", "]"):
        text = text.replace(mark, "\\" + mark)
    return html.escape(text, quote=False).replace("\n", "<br>")
