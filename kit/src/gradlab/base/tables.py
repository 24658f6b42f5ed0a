"""What is set out to be read: rows in columns, words as a list, nested settings by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .terminal import printable

WIDEST = 60  # characters that a table's column is padded to: one long cell fills no others
MOST_LISTED = 20  # words of a list in a table
Row = Sequence[object]


def row(cells: Row, widths: Iterable[int]) -> str:
    """Set cells side by side, each padded to its width."""
    texts = (printable(str(cell)) for cell in cells)
    return "  ".join(map(str.ljust, texts, widths)).rstrip()


def columns(rows: Sequence[Row]) -> list[str]:
    """Set rows in columns; what is wide stands out by itself."""
    widths = _widths(rows)
    return [row(cells, widths) for cells in rows]


def table(rows: Sequence[Row]) -> list[str]:
    """Set rows, the first of them the heading, in columns, with a line below the heading."""
    widths, lines = _widths(rows), columns(rows)
    rule = "-" * min(max(map(len, lines)), sum(widths) + 2 * len(widths))
    return [lines[0], rule, *lines[1:]]


def _widths(rows: Sequence[Row]) -> list[int]:
    texts = [[printable(str(cell)) for cell in cells] for cells in rows]
    return [min(max(map(len, column)), WIDEST) for column in zip(*texts, strict=True)]


def listed(words: Sequence[str]) -> str:
    """Give words as a list that stays readable: the first ones, and how many more there are."""
    if len(words) <= MOST_LISTED + 1:
        return ", ".join(words)
    return f"{', '.join(words[:MOST_LISTED])} and {len(words) - MOST_LISTED:,} more"


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name nested settings as the command line does: model.width."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, dict)
        found |= flat(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return found
