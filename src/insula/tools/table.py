"""Tables as the qvm-* commands print them (qvm-tools.md section 1.5)."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as text: a cell is as wide as its column's widest, but not the last."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1:] = [0]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + "\n"
        for row in rows
    )


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a table."""
    print(table(rows), end="")
