"""The command ``ean report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from ean_core.common.record import csv_text, write_text
from ean_core.common.text import markdown, visible
from ean_core.report.gathered import Records
from ean_core.report.page import page_text
from ean_core.report.records import LeaveOut, label, refuse
from ean_core.report.section import Section
from ean_core.report.sections import sections
from ean_core.show.table import columns, markdown_table

TITLE = "Efficient attention networks: results"


def write_report(folders: Sequence[Path], out: Path, leave_out: LeaveOut = refuse) -> list[Section]:
    """Write tables and figures of run records, next to the results in the paper.

    Files: ``index.html``, which is self-contained and works offline, ``README.md``, each table as CSV, and each figure
    as SVG with its data as CSV. The text depends only on the records.

    Args:
        folders: folders to search for records and the ledgers next to them.
        out: folder of the report.
        leave_out: called for a record that is damaged or belongs to a different run than those next to it; by default
            it raises, and the old report is kept.

    Returns:
        The sections of the report.

    Raises:
        FileNotFoundError: if a folder is missing, or there is nothing to report.
        ValueError: by default, see ``leave_out``.
    """
    found = sections(Records.read(folders, leave_out))
    places = [label(folder / "record.json", folders) for folder in folders]
    names = places if len(folders) > 1 else [folders[0].resolve().name]
    introduction = (
        f"Results from the run records in {' and '.join(names)}, which contain command, seed, versions and machine, "
        "next to those in the paper (Huang et al., arXiv 2011.14058)."
    )
    browser = "`ean report` writes this page and `index.html`, the same content with sortable tables."
    parts = [f"# {TITLE}", f"{markdown(introduction)} {browser}"]
    for section in found:
        parts += [f"## {markdown(section.title)}", *_write(section, out)]
    write_text(out / "README.md", "\n\n".join(part for part in parts if part) + "\n")
    figures = {each.name: (out / f"{each.name}.svg").read_text(encoding="utf-8") for each in found if each.draw}
    write_text(out / "index.html", page_text(TITLE, introduction, found, figures))
    return found


def _write(section: Section, out: Path) -> list[str]:
    """Write the files of a section and return its parts as Markdown."""
    note = markdown(section.note)
    table, figure = out / f"{section.name}.csv", out / f"{section.name}.svg"
    if section.draw is not None:
        write_text(table, csv_text(section.rows[0], (row.values() for row in section.rows)))
        section.draw(figure)
        return [f"![{markdown(section.title)}]({figure.name})", note]
    if section.rows:
        write_text(table, csv_text(*columns(section.rows)))
        return [markdown_table(section.rows), note]
    return [note]


def report(
    work_dirs: list[Path],
    out: Path,
) -> None:
    """Do the work of the command; :mod:`ean_core.commands.cli` declares its arguments and options."""
    found = write_report(
        work_dirs, out, leave_out=lambda path, reason: typer.echo(visible(f"skipped {path}: {reason}"), err=True)
    )
    typer.echo(f"{', '.join(section.name for section in found)}: {out / 'index.html'}, {out / 'README.md'}")
