"""What a section of a cohort's page is made of: figures, tables, words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from voxplain.report.cohort_rows import Column, rows_table
from voxplain.report.drawing import Drawing
from voxplain.report.pictures import picture

_MOST_ROWS = 120  # of the table below a figure


def figure_block(title: str, words: str, drawing: Drawing) -> dict[str, Any]:
    """Give a figure with its table folded below it."""
    return {"kind": "figure", "figure": figure(title, words, drawing)}


def figures_block(title: str, figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Give figures that are folded away below a title."""
    return {"kind": "figures", "title": title, "figures": list(figures)}


def figure(title: str, words: str, drawing: Drawing) -> dict[str, Any]:
    """Give what ``cohort_figure.html.j2`` shows."""
    drawn = picture(drawing.figure, dpi=160, is_lossless=True)
    return {
        "title": title, "words": words, "alt": title or words, "uri": drawn.uri,
        "width": drawn.width, "height": drawn.height,
        "table": rows_table(_flat(drawing.table), _columns(drawing.table), limit=_MOST_ROWS),
    }  # fmt: skip


def table_block(
    title: str, words: str, frame: pd.DataFrame, columns: Sequence[Column], empty: str = ""
) -> dict[str, Any]:
    """Give a table below a title."""
    table = rows_table(frame, columns, empty=empty or "There is nothing to show.")
    return {"kind": "table", "title": title, "words": words, "table": table}


def words_block(title: str, words: str) -> dict[str, Any]:
    """Give a sentence where a figure or a table would stand."""
    return {"kind": "words", "title": title, "words": words}


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Put a named index of a drawing's table into columns."""
    is_plain = isinstance(table.index, pd.RangeIndex)
    flat = (
        table
        if is_plain
        else table.rename_axis(index=str(table.index.name or "target")).reset_index()
    )
    return flat.rename(columns=str)


def _columns(table: pd.DataFrame) -> list[Column]:
    flat = _flat(table)
    return [
        Column(str(name), str(name).replace("_", " ") or " ", _kind(flat[name]))
        for name in flat.columns
    ]


def _kind(column: pd.Series) -> Any:
    if pd.api.types.is_bool_dtype(column):
        return "flag"
    if pd.api.types.is_integer_dtype(column):
        return "count"
    return "number" if pd.api.types.is_numeric_dtype(column) else "text"
