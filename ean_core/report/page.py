"""A report as one self-contained HTML page with inline figures and sortable tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape as escape_html
from itertools import takewhile
from pathlib import Path

from ean_core.common.text import visible
from ean_core.scheme import ConnectionScheme
from ean_core.show.strip import scheme_strip
from ean_core.show.table import Cells, are_numbers, columns

from .results import BORROWED
from .section import Section

HERE = Path(__file__).resolve().parent
#: Cells with more characters may wrap.
LONG = 80
#: Columns that name a row: those that a table begins with stay in view when it is scrolled.
KEPT = ("source", "method", "network", "connection", "compared", "record")
#: Columns of times, and the form that each is of.
TIMED = {"increment (%)": "eager", "eager (%)": "eager", "deployed (%)": "deployed"}
#: Further columns of names, which wrap on narrow screens.
NAMES = ("data",)
#: Columns of paths, which wrap anywhere on narrow screens.
PATHS = ("record", "timed in")
_PARTS = re.compile("(`[^`]*`)")
#: The interval or deviation after a number, which has its own line on narrow screens.
_INTERVAL = re.compile(r" (\([^()]+\)|± [\d.,]+)$")
_SCHEME = re.compile("[01c]+(-[01c]+)+")
#: Ids in an SVG, and references to them.
_NAME = re.compile(r'(\bid="|href="#|url\(#)')


def page_text(title: str, introduction: str, sections: Sequence[Section], figures: Mapping[str, str]) -> str:
    """Return the HTML of a report; equal sections give equal pages.

    Args:
        title: page title.
        introduction: paragraph below the title.
        sections: sections in order.
        figures: SVG text by section name, for sections with a figure.
    """
    parts = [_section(section, figures.get(section.name)) for section in sections]
    links = "\n".join(
        f'<a href="#{escape(each.name)}">{escape(text)}</a>'
        for each, text in zip(sections, link_texts([each.title for each in sections]), strict=True)
    )
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
<script>
{(HERE / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def link_texts(titles: Sequence[str]) -> list[str]:
    """Shorten distinct titles to the part before the colon where that tells them apart.

    Examples:
        >>> link_texts(['Figure 4: a', 'Figure 5: b', 'Figure 4: c'])
        ['Figure 4: a', 'Figure 5', 'Figure 4: c']
    """
    short = Counter(title.partition(":")[0] for title in titles)
    return [title if short[title.partition(":")[0]] > 1 else title.partition(":")[0] for title in titles]


def escape(text: str) -> str:
    """Escape markup, and characters that are invisible or reverse the reading direction."""
    return escape_html(visible(text, "\n"))


def _section(section: Section, figure: str | None) -> str:
    inner = ""
    if figure is not None:
        inner = _scrolled("figure", section.title, inline_svg(figure, section.name, section.title))
    elif section.rows:
        inner = _scrolled("table", section.title, _table(section.rows))
    notes = "".join(f'<p class="note">{_html(paragraph)}</p>\n' for paragraph in section.note.split("\n\n"))
    return f'<section id="{escape(section.name)}">\n<h2>{escape(section.title)}</h2>\n{inner}{notes}</section>\n'


def _scrolled(kind: str, title: str, inner: str) -> str:
    """Wrap wide content in a scrollable box that can be focused with the keyboard."""
    return f'<div class="scroll {kind}" tabindex="0" role="region" aria-label="{escape(title)}">\n{inner}</div>\n'


def inline_svg(text: str, name: str, title: str) -> str:
    """Prepare an SVG of Matplotlib for inlining: prefix its ids to make them unique on the page, drop its style sheet.

    Examples:
        >>> inline_svg('<?xml?><svg width="1pt"><g id="a"/><use href="#a"/></svg>', 'one', 'A picture')
        '<svg role="img" aria-label="A picture" width="1pt"><g id="one-a"/><use href="#one-a"/></svg>'
    """
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = _NAME.sub(rf"\g<1>{name}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def _table(rows: Sequence[Cells]) -> str:
    titles, texts = columns(rows)
    kept = sum(1 for _ in takewhile(KEPT.__contains__, titles))
    kinds = [
        " ".join(
            ["kept"] * (place < kept)
            + ["word"] * (not are_numbers(line[place] for line in texts))
            + ["name"] * (place < kept or title in NAMES)
            + ["path"] * (title in PATHS)
        )
        for place, title in enumerate(titles)
    ]
    head = "".join(
        f'<th scope="col"{_class(kind)}><button type="button">{escape(name)}</button></th>'
        for name, kind in zip(titles, kinds, strict=True)
    )
    lines = [(_row_class(titles, line), map(_cell, _marked(titles, line), kinds)) for line in texts]
    body = "\n".join(f"<tr{kind}>{''.join(cells)}</tr>" for kind, cells in lines)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"


def _marked(titles: Sequence[str], line: Sequence[str]) -> list[str]:
    """Texts of a row with the mark of borrowed times beside each such number, not only where they were timed."""
    places = dict(zip(titles, line, strict=True)).get("timed in", "")

    def mark(title: str, text: str) -> str:
        form = TIMED.get(title)
        if not (text and form and (places.startswith(BORROWED) or f"{form}: {BORROWED}" in places)):
            return text
        number, space, interval = text.partition(" ")
        return f"{number}{BORROWED}{space}{interval}"

    return list(map(mark, titles, line))


def _row_class(titles: Sequence[str], line: Sequence[str]) -> str:
    """Class of a row by its source: ours or the paper's, in tables with both."""
    source = dict(zip(titles, line, strict=True)).get("source", "")
    return _class("paper" if source.startswith("paper") else "here" if source else "")


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _cell(text: str, kinds: str) -> str:
    inner = _html(text)
    if "word" not in kinds.split():
        inner = _INTERVAL.sub(r' <span class="interval">\1</span>', inner)
    return f"<td{_class(f'{kinds} long'.strip() if len(text) > LONG else kinds)}>{inner}</td>"


def _html(text: str) -> str:
    return "".join(map(_part, _PARTS.split(text)))


def _part(text: str) -> str:
    """Part of a cell: a scheme in backticks with its strip, other code, or plain text."""
    if not (text.startswith("`") and len(text) > 1):
        return escape(text)
    code = text[1:-1]
    if not _SCHEME.fullmatch(code):
        return f"<code>{escape(code)}</code>"
    return f'<span class="scheme">{scheme_strip(ConnectionScheme.parse(code))}<code>{code}</code></span>'
