"""A figure with the table it was drawn from, as pages about lesions show it."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from voxplain.report.colours import INK
from voxplain.report.drawing import Drawing
from voxplain.report.pictures import picture
from voxplain.report.wording import number


def figure_of(title: str, words: str, drawing: Drawing) -> dict[str, Any]:
    """Give what ``lesions_figure.html.j2`` shows.

    Parameters
    ----------
    title, words
        Above the figure.
    drawing
        The figure and its table.
    """
    drawn = picture(drawing.figure, dpi=160, is_lossless=True)
    table = drawing.table
    return {
        "title": title, "words": words, "uri": drawn.uri, "width": drawn.width,
        "height": drawn.height, **table_of(table),
    }  # fmt: skip


def table_of(table: Any) -> dict[str, Any]:
    """Give head and rows of a table as text; ``values`` are for sorting."""
    rows = [list(row) for row in table.itertuples(index=False)]
    return {
        "columns": [str(c).replace("_", " ") for c in table.columns],
        "rows": [[text_of(value) for value in row] for row in rows],
        "values": rows,
    }


def text_of(value: object) -> str:
    """Write a cell: three digits for a number that is not whole."""
    return number(value) if isinstance(value, float) else str(value)


def frame_axes(axes: Axes) -> None:
    """Leave only pale lines around a plot."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c3cbd4")
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.grid(axis="y", color="#e3e7ec", linewidth=0.7)
    axes.set_axisbelow(True)
