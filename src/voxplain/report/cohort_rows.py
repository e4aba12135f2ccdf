"""Tables of a cohort's page: which columns are shown, how their cells are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from voxplain.report.wording import number, percent

N_ROWS = 300
"""Rows of a table that are shown; the rest is counted."""

Kind = Literal["text", "number", "share", "points", "p", "count", "flag"]


@dataclass(frozen=True)
class Column:
    """A column as it is shown.

    Parameters
    ----------
    name
        Of the frame; a column that is not there is not shown.
    head
        Above it; the name with spaces if it is empty.
    kind
        ``share`` 0…1 in percent, ``points`` a difference of shares, ``p`` a probability that
        tells little beyond two digits, ``flag`` yes or nothing.
    low, high
        Columns of the ends of its interval, shown behind it.
    """

    name: str
    head: str = ""
    kind: Kind = "number"
    low: str = ""
    high: str = ""


def rows_table(
    frame: pd.DataFrame,
    columns: Sequence[Column],
    *,
    limit: int = N_ROWS,
    empty: str = "There is nothing to show.",
) -> dict[str, Any]:
    """Give what ``cohort_table.html.j2`` shows.

    Parameters
    ----------
    frame
        Rows in the order of the page.
    columns
        What is shown; a column that holds no value at all is left out.
    limit
        Most rows shown.
    empty
        What is said where the frame has no row.

    Returns
    -------
    dict
        ``heads``: text and whether it is text; ``rows``: text, value to sort by, whether it is
        text; ``rest``: how many more, or empty; ``empty``.
    """
    shown = [c for c in columns if c.name in frame.columns and _tells(frame[c.name])]
    head = frame.head(limit)
    cells = [_cells(head, column) for column in shown]
    more = len(frame) - len(head)
    return {
        "heads": [(c.head or c.name.replace("_", " "), _is_text(c)) for c in shown],
        "rows": [list(row) for row in zip(*cells, strict=True)] if cells else [],
        "rest": f"and {counted(more, 'more row')}" if more else "",
        "empty": empty,
    }


def counted(n: int, word: str) -> str:
    """Write how many: ``1 case``, ``12 cases``."""
    return f"{spaced(n)} {word}" if n == 1 else f"{spaced(n)} {word}s"


def spaced(n: int) -> str:
    """Write a whole number with thin spaces between its thousands."""
    return f"{n:,}".replace(",", "\u202f")


def probability(value: float) -> str:
    """Write a p or q value: two digits, ``< 0.001`` below that, – for none."""
    if not np.isnan(value) and value < 0.001:
        return "< 0.001"
    return number(value, 2)


def points(value: float) -> str:
    """Write a difference of shares in percentage points, with its sign."""
    return "–" if np.isnan(value) else f"{100 * value:+.1f}".replace("-", "−")


def between(low: float, high: float, kind: Kind = "number") -> str:
    """Write the ends of an interval; empty if there is none."""
    if np.isnan(low) or np.isnan(high):
        return ""
    if kind == "share":
        return f"{100 * low:.1f} to {100 * high:.1f} %".replace("-", "−")
    write = points if kind == "points" else number
    return f"{write(low)} to {write(high)}"


def _is_text(column: Column) -> bool:
    return column.kind in ("text", "flag")


def _tells(column: pd.Series) -> bool:
    return bool((column.notna() & (column.astype(str) != "")).any())


def _cells(frame: pd.DataFrame, column: Column) -> list[tuple[str, str, Any, bool]]:
    values = frame[column.name].tolist()
    ends: list[str] = [""] * len(values)
    if column.low and {column.low, column.high} <= set(frame.columns):
        pairs = zip(frame[column.low].tolist(), frame[column.high].tolist(), strict=True)
        ends = [between(float(low), float(high), column.kind) for low, high in pairs]
    is_text = _is_text(column)
    return [
        (_written(value, column.kind), end, "" if is_text else value, is_text)
        for value, end in zip(values, ends, strict=True)
    ]


def _written(value: Any, kind: Kind) -> str:
    if kind == "flag":
        return "yes" if value is True or value == 1 else ""
    if kind == "text":
        return "" if pd.isna(value) else str(value)
    found = float(value)
    if kind == "count":
        return "–" if np.isnan(found) else spaced(int(found))
    if kind == "share":
        return percent(found)
    if kind == "points":
        return points(found)
    return probability(found) if kind == "p" else number(found)
