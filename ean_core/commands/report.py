"""The command ``ean report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ean_core.common.record import csv_text, write_text
from ean_core.report.page import page_text
from ean_core.report.records import LeaveOut, label, refuse
from ean_core.report.sections import Records, Section, sections
from ean_core.show.table import columns, markdown_table

TITLE = "Efficient attention networks: results"


def write_report(folders: Sequence[Path], out: Path, leave_out: LeaveOut = refuse) -> list[Section]:
    """Write the tables and figures of run records, ours beside the paper's.

    It is ``index.html``, which holds all of it and needs no network, ``README.md``, and each table as CSV, each figure
    as SVG with its data as CSV. Equal records make equal texts.

    Args:
        folders: searched for records, with the ledgers beside them.
        out: folder of the report.
        leave_out: what to do with a record that is damaged, or belongs to another run than its neighbours; by default
            it is an error, and the old report stays.

    Returns:
        What the report holds.

    Raises:
        FileNotFoundError: if a folder is missing, or nothing is there to report.
        ValueError: by default, see ``leave_out``.
    """
    found = sections(Records.read(folders, leave_out))
    places = [label(folder / "record.json", folders) for folder in folders]
    names = places if len(folders) > 1 else [folders[0].resolve().name]
    introduction = (
        f"From the run records in {' and '.join(names)}, each of which names its "
        "command, seed, versions and machine; beside them what the paper (Huang et al., arXiv 2011.14058) prints."
    )
    browser = "`ean report` writes this page, and `index.html`: the same for a browser, with tables that can be sorted."
    parts = [f"# {TITLE}", f"{introduction} {browser}"]
    for section in found:
        parts += [f"## {section.title}", *_write(section, out)]
    write_text(out / "README.md", "\n\n".join(part for part in parts if part) + "\n")
    figures = {each.name: (out / f"{each.name}.svg").read_text(encoding="utf-8") for each in found if each.draw}
    write_text(out / "index.html", page_text(TITLE, introduction, found, figures))
    return found


def _write(section: Section, out: Path) -> list[str]:
    """Write the files of a section, and give it as Markdown."""
    table, figure = out / f"{section.name}.csv", out / f"{section.name}.svg"
    if section.draw is not None:
        write_text(table, csv_text(section.rows[0], (row.values() for row in section.rows)))
        section.draw(figure)
        return [f"![{section.title}]({figure.name})", section.note]
    if section.rows:
        write_text(table, csv_text(*columns(section.rows)))
        return [markdown_table(section.rows), section.note]
    return [section.note]


def report(
    work_dirs: Annotated[list[Path], typer.Argument(help="Folders with run records, ledgers and timing files.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
) -> None:
    """Tables and figures of the paper out of run records, ours beside the paper's."""
    found = write_report(
        work_dirs, out, leave_out=lambda path, reason: typer.echo(f"left out {path}: {reason}", err=True)
    )
    typer.echo(f"{', '.join(section.name for section in found)}: {out / 'index.html'}, {out / 'README.md'}")
