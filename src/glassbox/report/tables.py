"""What a table of the page is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows."""

    columns: list[str]
    rows: list[list[str]]
    shown: int = 25
    """Rows that are not folded away."""
    words: bool = False
    """Whether the last column is running text."""
