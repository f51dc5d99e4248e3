"""A report as one page that needs no network: figures as they are written, tables that can be sorted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ean_core.scheme import ConnectionScheme
from ean_core.show.strip import scheme_strip
from ean_core.show.table import Cells, are_numbers, columns

from .sections import Section

HERE = Path(__file__).resolve().parent
#: Texts of cells that are longer may be broken.
LONG = 80
_PARTS = re.compile("(`[^`]*`)")
_SCHEME = re.compile("[01]+(-[01]+)+")
#: Names in a picture, and where it refers to them.
_NAME = re.compile(r'(\bid="|href="#|url\(#)')


def page_text(title: str, introduction: str, sections: Sequence[Section], figures: Mapping[str, str]) -> str:
    """The HTML of a report; equal sections make equal pages.

    Args:
        title: of the page.
        introduction: below it.
        sections: in order.
        figures: the pictures of those that have one, as SVG, by the sections' names.
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


def _section(section: Section, figure: str | None) -> str:
    inner = ""
    if figure is not None:
        inner = _scrolled("figure", section.title, inline_svg(figure, section.name, section.title))
    elif section.rows:
        inner = _scrolled("table", section.title, _table(section.rows))
    notes = "".join(f'<p class="note">{_html(paragraph)}</p>\n' for paragraph in section.note.split("\n\n"))
    return f'<section id="{escape(section.name)}">\n<h2>{escape(section.title)}</h2>\n{inner}{notes}</section>\n'


def _scrolled(kind: str, title: str, inner: str) -> str:
    """What may be wider than a screen, in a box of its own that the keyboard reaches."""
    return f'<div class="scroll {kind}" tabindex="0" role="region" aria-label="{escape(title)}">\n{inner}</div>\n'


def inline_svg(text: str, name: str, title: str) -> str:
    """A picture of Matplotlib as a part of a page, beside others: its names begin with its own, its style is the
    page's.

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
    body = "\n".join(f"<tr{_whose(titles, line)}>{''.join(map(_cell, line, words))}</tr>" for line in texts)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"


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
