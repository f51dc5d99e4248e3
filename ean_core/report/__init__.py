"""Tables and figures."""

from .table import NetworkRow, markdown_table, print_table

__all__ = ["NetworkRow", "markdown_table", "print_table"]
