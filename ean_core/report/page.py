"""A report as one self-contained HTML page with inline figures and sortable tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape as escape_html
from pathlib import Path

from ean_core.common.text import visible
from ean_core.scheme import ConnectionScheme
from ean_core.show.strip import scheme_strip
from ean_core.show.table import Cells, are_numbers, columns

from .sections import Section

HERE = Path(__file__).resolve().parent
#: Cells with more characters may wrap.
LONG = 80
_PARTS = re.compile("(`[^`]*`)")
_SCHEME = re.compile("[01]+(-[01]+)+")
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
    links = "\n".join(f'<a href="#{escape(each.name)}">{escape(each.title.partition(":")[0])}</a>' for each in sections)
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
    words = [not are_numbers(line[place] for line in texts) for place in range(len(titles))]
    head = "".join(
        f'<th scope="col"{" class=word" * word}><button type="button">{escape(name)}</button></th>'
        for name, word in zip(titles, words, strict=True)
    )
    body = "\n".join(f"<tr{_row_class(titles, line)}>{''.join(map(_cell, line, words))}</tr>" for line in texts)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"


def _row_class(titles: Sequence[str], line: Sequence[str]) -> str:
    return ' class="paper"' if dict(zip(titles, line, strict=True)).get("source", "").startswith("paper") else ""


def _cell(text: str, word: bool) -> str:
    kinds = " ".join(["word"] * word + ["long"] * (len(text) > LONG))
    return f'<td class="{kinds}">{_html(text)}</td>' if kinds else f"<td>{_html(text)}</td>"


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
