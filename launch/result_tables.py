"""Tables for people, on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

# In a file or pipe a row stays one line, however long: other programs read it.
UNLIMITED_WIDTH = 1000
# Spreadsheets take a cell that begins like this for a formula, and carry it out.
FORMULA_SIGNS = ("=", "+", "-", "@")
# Beside the separator: two blanks between columns.
GAP = (0, 1, 0, 0)


def result_console() -> Console:
    """Console on standard output, as wide as the terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = UNLIMITED_WIDTH
    return console


def print_table(
    console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Print a table with a title; see `result_table`."""
    console.print(Text(title, style="bold"))
    console.print(result_table(columns, rows, folds=console.is_terminal))
    console.print()


def result_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, folds: bool = True
) -> Table:
    """A table; a column whose name ends in ``>`` is aligned to the right.

    Cells that are None stay empty; whole numbers get separators between thousands; rich's texts
    keep their colours.

    Parameters
    ----------
    folds
        Whether the last column is folded where the terminal is too narrow.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=GAP, header_style="")
    for place, name in enumerate(columns, start=1):
        right = name.endswith(">")
        table.add_column(
            Text(name.removesuffix(">")),
            justify="right" if right else "left",
            no_wrap=place < len(columns) or not folds,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else Text(_cell(value)) for value in row))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value))


def printable(text: str) -> str:
    """A text without what a terminal would obey."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def cell_text(text: str) -> str:
    """The same for a file that a spreadsheet opens: what it would carry out is quoted."""
    inert = "\n".join(map(printable, text.split("\n")))
    return f"'{inert}" if inert.startswith(FORMULA_SIGNS) else inert


def duration(seconds: float) -> str:
    """A time as a person says it: ``3.2 s``, ``4 min 10 s``, ``2 h 05 min``, ``3 d 4 h``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def clock(moment: datetime) -> str:
    """The time of day here, to the second: ``13:04:59``."""
    return f"{moment.astimezone():%H:%M:%S}"
