"""A report as one page that needs no network: tables that can be sorted, charts that say what a point stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ean_core.scheme import ConnectionScheme
from ean_core.show.strip import scheme_strip
from ean_core.show.table import Row, columns

from .chart import Chart
from .sections import Section, TableSection, TextSection

HERE = Path(__file__).resolve().parent
#: Texts of cells that are longer may be broken.
LONG = 80
_PARTS = re.compile("(`[^`]*`)")
_SCHEME = re.compile("[01]+(-[01]+)+")


def page_text(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """The HTML of a report; equal sections make equal pages.

    Args:
        title: of the page.
        introduction: below it.
        sections: in order.
    """
    charts: list[Chart] = []
    parts = [_section(section, charts) for section in sections]
    links = "\n".join(f'<a href="#{escape(each.name)}">{escape(each.title.partition(":")[0])}</a>' for each in sections)
    data = json.dumps(charts, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{(HERE / "page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="soft">{escape(introduction)}</p>
</header>
<nav aria-label="Sections"><div>
{links}
</div></nav>
<main>
{"".join(parts)}</main>
<div id="tip" role="status" hidden></div>
<script type="application/json" id="charts">{data}</script>
<script>
{(HERE / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _section(section: Section, charts: list[Chart]) -> str:
    """A section; its charts are added to those of the page, and drawn by their number."""
    if isinstance(section, TableSection):
        inner, note = _table(section.title, section.rows), section.note
    elif isinstance(section, TextSection):
        inner, note = "", section.note
    else:
        first, note = len(charts), section.caption
        charts += section.charts
        holders = [f'<div class="chart" data-chart="{k}"></div>\n' for k in range(first, len(charts))]
        inner = f'<div class="charts">\n{"".join(holders)}</div>\n'
    return (
        f'<section id="{escape(section.name)}">\n<h2>{escape(section.title)}</h2>\n{inner}'
        f'<p class="note">{_html(note)}</p>\n</section>\n'
    )


def _table(title: str, rows: Sequence[Row]) -> str:
    titles, texts = columns(rows)
    words = rows[0].words
    head = "".join(
        f'<th scope="col"{word}><button type="button">{escape(name)}</button></th>'
        for name in titles
        for word in [' class="word"' if name in words else ""]
    )
    body = "\n".join(
        f"<tr{_whose(titles, line)}>"
        + "".join(_cell(text, name in words) for name, text in zip(titles, line, strict=True))
        + "</tr>"
        for line in texts
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>\n"
    )


def _whose(titles: Sequence[str], line: Sequence[str]) -> str:
    return ' class="paper"' if dict(zip(titles, line, strict=True)).get("whose", "").startswith("paper") else ""


def _cell(text: str, word: bool) -> str:
    kinds = " ".join(["word"] * word + ["long"] * (len(text) > LONG))
    return f'<td class="{kinds}">{_html(text)}</td>' if kinds else f"<td>{_html(text)}</td>"


def _html(text: str) -> str:
    return "".join(map(_part, _PARTS.split(text)))


def _part(text: str) -> str:
    """A part of a cell: a scheme in backticks with its strip, other code, or words."""
    if not (text.startswith("`") and len(text) > 1):
        return escape(text)
    code = text[1:-1]
    if not _SCHEME.fullmatch(code):
        return f"<code>{escape(code)}</code>"
    return f'<span class="scheme">{scheme_strip(ConnectionScheme.parse(code))}<code>{code}</code></span>'
