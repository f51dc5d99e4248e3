"""Tables and figures."""

from ean_core.show.table import NetworkRow, markdown_table, print_table

__all__ = ["NetworkRow", "markdown_table", "print_table"]
