"""Numbers with their nouns, and foreign text in output.

Foreign text, in names of files and values of records, could act on what displays it. Names may hold escape sequences,
newlines and characters that reverse the reading direction; Markdown and spreadsheets take some characters for markup
and formulas. Each kind of output has one function here.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterable
from typing import Any

#: Code between backticks, which Markdown does not interpret.
_CODE = re.compile("(`[^`\n]*`)")
#: Beginnings of HTML, links and images.
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])|[\[\]]")
#: Numbers as spreadsheets and tables write them, also with unit and interval: ``+1.2 (+1.0 to +2.0)``, ``-3.4e-05``.
_NUMBER = re.compile(
    r"[+-]?(\d[\d,.]*(e[+-]?\d+)?( ?(%|M|MB|ms))?|inf|nan)"
    r"( ± \d[\d,.]*| \([+-]?\d[\d,.]*( ± \d[\d,.]*| to [+-]?\d[\d,.]*)?\))?",
    re.IGNORECASE,
)
#: Places where spreadsheets begin a formula: at the start of a cell, and where they may see one, after a separator.
_BEGINS = r"(?:^|(?<=[;\t\r\n]))"
_FORMULA = re.compile(rf"{_BEGINS}(?='*[=+\-@\t\r\n＝＋－＠])")
_MARKED = re.compile(rf"{_BEGINS}'(?='*[=+\-@\t\r\n＝＋－＠])")


def number_of(number: int, what: str) -> str:
    """Return a number and what it counts, in the plural unless it is one.

    Examples:
        >>> number_of(1, 'epoch'), number_of(20_000, 'iteration'), number_of(0, 'image')
        ('1 epoch', '20,000 iterations', '0 images')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"


def visible(text: str, keep: str = "") -> str:
    """Escape what terminals and logs would interpret: control characters, newlines, changes of the reading direction.

    Args:
        text: any text; undecodable bytes of file names are escaped, too.
        keep: characters to keep, such as newlines.

    Examples:
        >>> visible('a\\x1b[31mb\\n'), visible('ab\\u202egpj.exe'), visible('café 東京')
        ('a\\\\x1b[31mb\\\\n', 'ab\\\\u202egpj.exe', 'café 東京')
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep or char in "\xa0\u200d" else repr(char)[1:-1] for char in text
    )


def markdown(text: str) -> str:
    """Escape HTML, links, images and invisible characters for Markdown; code in backticks stays code.

    Examples:
        >>> markdown('`a[0]` is <b>5</b> < 6, ![x](y)')
        '`a[0]` is &lt;b>5&lt;/b> < 6, !\\\\[x\\\\](y)'
    """
    parts = _CODE.split(visible(text, "\n"))
    return "".join(part if number % 2 else _MARKUP.sub(_escaped, part) for number, part in enumerate(parts))


def markdown_cell(text: str) -> str:
    """As :func:`markdown`, for a cell of a table, on one line.

    Examples:
        >>> markdown_cell('a|b')
        'a\\\\|b'
    """
    return markdown(" ".join(text.split("\n"))).replace("|", "\\|")


def markdown_code(text: str) -> str:
    """Format a text as code in a cell of a Markdown table, whatever it contains.

    Examples:
        >>> markdown_code('a'), markdown_code('a `b`')
        ('`a`', "`a 'b'`")
    """
    return f"`{visible(' '.join(text.split())).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def csv_cell(value: Any) -> Any:
    """Mark text that a spreadsheet would take for a formula by an apostrophe, as OWASP recommends; numbers stay.

    Examples:
        >>> csv_cell('=cmd()'), csv_cell('-1.5'), csv_cell('+1.2 (+1.0 to +2.0)'), csv_cell(-3), csv_cell('a.jpg')
        ("'=cmd()", '-1.5', '+1.2 (+1.0 to +2.0)', -3, 'a.jpg')
    """
    if value is None or isinstance(value, (int, float)):
        return value
    text = str(value)
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub("'", text)


def csv_line(cells: Iterable[Any]) -> str:
    """Format a line of comma-separated values, with formulas marked.

    Examples:
        >>> csv_line([1, 'x', '=z', None])
        "1,x,'=z,\\n"
    """
    line = io.StringIO(newline="")
    csv.writer(line).writerow(
        map(csv_cell, cells)
    )  # before Python 3.13, another line end leaves "\r" in names unquoted
    return line.getvalue().removesuffix("\r\n") + "\n"


def from_csv_cell(text: str) -> str:
    """Undo :func:`csv_cell`.

    Examples:
        >>> from_csv_cell("'=cmd()"), from_csv_cell('-1.5'), from_csv_cell("it's")
        ('=cmd()', '-1.5', "it's")
    """
    return _MARKED.sub("", text)


class VisibleRecord(logging.LogRecord):
    """Log record whose message is :func:`visible`, except for newlines and tabs."""

    def getMessage(self) -> str:  # noqa: N802
        return visible(super().getMessage(), "\n\t")


def _escaped(match: re.Match[str]) -> str:
    return "&lt;" if match[0] == "<" else f"\\{match[0]}"
