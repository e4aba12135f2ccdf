"""Panels of a figure, placed in inches: nothing is drawn twice to find out how large text is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter
from numpy.typing import ArrayLike

from voxplain.report.wording import number


def panels_of(
    figure: Figure,
    n_rows: int,
    n_columns: int,
    left: float,
    size: tuple[float, float],
    gaps: tuple[float, float],
    top: float = 0.32,
    *,
    sharey: bool = False,
) -> list[Axes]:
    """Make axes of one size, row by row.

    Parameters
    ----------
    figure
        Where they are put.
    n_rows, n_columns
        How many.
    left, top
        Inches left of the first column and above the first row.
    size
        Inches of a panel: width, height.
    gaps
        Inches between columns and between rows.
    sharey
        Whether all have one vertical axis, labelled on the left.
    """
    width, height = figure.get_size_inches()
    wide, high = size
    across = n_columns * wide + (n_columns - 1) * gaps[0]
    down = n_rows * high + (n_rows - 1) * gaps[1]
    axes = figure.subplots(
        n_rows, n_columns, squeeze=False, sharey=sharey,
        gridspec_kw={
            "left": left / width, "right": (left + across) / width,
            "top": 1 - top / height, "bottom": 1 - (top + down) / height,
            "wspace": gaps[0] / wide, "hspace": gaps[1] / high,
        },
    )  # fmt: skip
    return list(axes.flat)


def text_width(texts: Iterable[str]) -> float:
    """Return the inches that a column of texts of eight points needs at most."""
    return 0.2 + 0.072 * max(map(len, texts), default=0)


def plain_ticks(axis: Axis, values: ArrayLike) -> None:
    """Write every tick in full: no power of ten or offset that stands apart at the axis' end.

    Parameters
    ----------
    axis
        Linear.
    values
        What is drawn: very large and very small numbers have their power of ten at each tick.
    """
    largest = float(np.nanmax(np.abs(np.asarray(values, np.float64)), initial=0.0))
    if largest == 0 or 1e-3 <= largest < 1e5:
        axis.set_major_formatter(ScalarFormatter(useOffset=False))
        return
    axis.set_major_locator(MaxNLocator(3))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _tick(value: float) -> str:
    mantissa, cross, power = number(value, 4).partition(" × ")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return mantissa + cross + power
