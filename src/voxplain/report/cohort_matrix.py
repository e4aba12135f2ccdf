"""Heat maps of a cohort: mean shares, and differences of two models or cohorts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from voxplain.errors import LabelError
from voxplain.report.colours import INK, SHARES
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.study.contributor_graph import wrapped

DIFFERENCES = LinearSegmentedColormap.from_list(
    "voxplain_differences",
    ["#0b4a80", "#4f9ad0", "#c5dff1", "#ffffff", "#f8d3b4", "#dd7a2c", "#8a3105"],
)
"""Blue below zero, white at zero, orange above."""

MARKED = ("target", "region", "difference", "q")
"""Columns that `difference_matrix` needs."""

_WIDE = 9.2  # inches; larger maps get small cells and then more inches
_MANY = 20  # rows or columns, beyond which no numbers are written
_LINE = 26
_GAP = 0.22  # inches between parts and extra regions

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Look:
    """What the cells of a heat map look like."""

    colours: Colormap
    norm: Normalize
    title: str
    dark_from: float
    """|value| from which numbers are white."""
    is_signed: bool = False


def cohort_matrix(
    importance: pd.DataFrame,
    *,
    order: Sequence[str] | None = None,
    extra_regions: Sequence[str] = (),
    title: str = "mean share of each target's |a|, %",
) -> Drawing:
    """Draw the mean share of every region in every target as a heat map.

    Parameters
    ----------
    importance
        Targets × regions, 0…1 or missing. The cell of a target's region of its own name is framed.
    order
        Targets from top to bottom, e.g. the order of `voxplain.study.clustering.Clusters`; those
        that are not in it come after. Regions with the name of a target follow them. None: as
        given.
    extra_regions
        Those that overlap the others; they are drawn apart, to the right.
    title
        Above the map.

    Returns
    -------
    Drawing
        Table: the matrix as it is drawn.

    Raises
    ------
    LabelError
        If there is no target or no region.
    """
    table = _ordered(importance, order, extra_regions)
    values = table.to_numpy(np.float64)
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    # the root lets small shares be seen beside a large one
    norm = PowerNorm(0.5, vmin=0.0, vmax=top or 1.0)
    n_parts = sum(region not in set(extra_regions) for region in table.columns)
    return _heat_map(table, n_parts, _Look(SHARES, norm, title, 0.3 * top))


def difference_matrix(
    differences: pd.DataFrame,
    labels: tuple[str, str] = ("a", "b"),
    *,
    order: Sequence[str] | None = None,
    extra_regions: Sequence[str] = (),
    level: float = 0.05,
) -> Drawing:
    """Draw how far the shares of two models or cohorts differ; a frame marks q ≤ level.

    Parameters
    ----------
    differences
        Columns `MARKED`, a row a target and region; difference: share of the first less that of
        the second; q: corrected p, missing where nothing was tested.
    labels
        Of the two.
    order, extra_regions
        As in `cohort_matrix`.
    level
        Of the marks.

    Returns
    -------
    Drawing
        Table: columns `MARKED` and ``is_marked``, as drawn, row by row.

    Raises
    ------
    LabelError
        If a column is missing, or there is nothing to draw.
    """
    absent = [name for name in MARKED if name not in differences]
    if absent:
        raise LabelError(f"a difference matrix needs the columns {', '.join(absent)}")
    targets, regions = (list(dict.fromkeys(differences[c].astype(str))) for c in MARKED[:2])
    wide = differences.set_index(["target", "region"])
    table, q = (wide[name].unstack().reindex(index=targets, columns=regions) for name in MARKED[2:])
    table = _ordered(table, order, extra_regions)
    is_marked = (q.reindex_like(table) <= level).to_numpy(bool)
    values = table.to_numpy(np.float64)
    limit = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    norm = Normalize(-(limit or 1.0), limit or 1.0)
    title = f"share in {labels[0]} − share in {labels[1]}, percentage points"
    if differences["q"].notna().any():
        title += f"; frame: q ≤ {level:g}"
    n_parts = sum(region not in set(extra_regions) for region in table.columns)
    look = _Look(DIFFERENCES, norm, title, 0.62 * limit, is_signed=True)
    drawn = _heat_map(table, n_parts, look, is_marked)
    n_rows, n_columns = table.shape
    rows = pd.DataFrame(
        {
            "target": np.repeat(table.index.to_numpy(), n_columns),
            "region": np.tile(table.columns.to_numpy(), n_rows),
            "difference": values.ravel(),
            "q": q.reindex_like(table).to_numpy(np.float64).ravel(),
            "is_marked": is_marked.ravel(),
        }
    )
    return Drawing(drawn.figure, rows)


def _ordered(
    table: pd.DataFrame, order: Sequence[str] | None, extra_regions: Sequence[str]
) -> pd.DataFrame:
    if table.empty:
        raise LabelError("a matrix needs at least one target and one region, got none")
    rows, columns = (list(map(str, axis)) for axis in (table.index, table.columns))
    named = table.set_axis(rows, axis=0).set_axis(columns, axis=1)
    extra = [name for name in columns if name in set(extra_regions)]
    parts = [name for name in columns if name not in set(extra)]
    if order is not None:
        known = [name for name in order if name in rows]
        rows = known + [name for name in rows if name not in set(known)]
        parts = [n for n in rows if n in parts] + [n for n in parts if n not in set(rows)]
    return named.loc[rows, parts + extra]


def _heat_map(
    table: pd.DataFrame, n_parts: int, look: _Look, is_marked: NDArray[np.bool_] | None = None
) -> Drawing:
    n_rows, n_columns = table.shape
    names = {n: wrapped(n, _LINE) for n in (*table.index, *table.columns)}
    is_large = max(n_rows, n_columns) > 30
    size = 6.5 if is_large else 8.0
    gap = _GAP if 0 < n_parts < n_columns else 0.0
    left = 0.15 + 0.0095 * size * _longest(names[n] for n in table.index)
    bottom = 0.15 + 0.0095 * size * _longest(names[n] for n in table.columns)
    right = 0.85
    cell = (_WIDE - left - right - gap) / n_columns
    cell = max(0.13 if is_large else 0.3, min(0.62, cell))
    row = min(cell, 0.42)
    row = max(row, 0.0175 * size * max(names[n].count("\n") + 1 for n in table.index))
    # lines of the names under narrow columns need room too
    cell = max(cell, 0.0175 * size * max(names[n].count("\n") + 1 for n in table.columns))
    wide, high = cell * n_columns + gap, row * n_rows
    words = 0.3 + 0.066 * len(look.title)
    figure = blank(max(left + wide + right, words), bottom + high + 0.5)
    width, height = (float(v) for v in figure.get_size_inches())
    values = table.to_numpy(np.float64)
    at = left
    has_numbers = max(n_rows, n_columns) <= _MANY
    for start, stop in ((0, n_parts), (n_parts, n_columns)):
        if start == stop:
            continue
        box = (at / width, bottom / height, cell * (stop - start) / width, high / height)
        axes = figure.add_axes(box)
        part = table.iloc[:, start:stop]
        _cells(axes, values[:, start:stop], look, has_numbers, is_large)
        _name_cells(axes, part, names, size, at == left)
        marked = _own(part) if is_marked is None else is_marked[:, start:stop]
        _frame(axes, marked, 1.1 if is_marked is None else 1.5)
        if gap and start:
            axes.set_title("extra", fontsize=8, color=MUTED, pad=4)
        at += cell * (stop - start) + gap
    figure.text(
        0.12 / width, 1 - 0.2 / height, look.title, fontsize=9, color=MUTED, va="center",
        parse_math=False,
    )  # fmt: skip
    tall = min(high, 2.6)
    bar = figure.add_axes(
        ((left + wide + 0.2) / width, (bottom + high - tall) / height, 0.13 / width, tall / height)
    )
    scale = figure.colorbar(ScalarMappable(look.norm, look.colours), cax=bar)
    scale.outline.set_visible(False)
    scale.formatter = FuncFormatter(lambda value, _: f"{100 * value:g}".replace("-", "−"))
    scale.ax.tick_params(labelsize=8, length=0, colors=MUTED)
    return Drawing(figure, table)


def _longest(names: Iterable[str]) -> int:
    return max(len(line) for name in names for line in name.split("\n"))


def _cells(axes: Axes, values: Floats, look: _Look, has_numbers: bool, is_large: bool) -> None:
    axes.imshow(values, cmap=look.colours, norm=look.norm, aspect="auto")
    axes.set_facecolor("#e9ecf0")  # of cells without a value
    n_rows, n_columns = values.shape
    axes.set_xticks(np.arange(n_columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n_rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#eef1f4", linewidth=0.4 if is_large else 1.0)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.spines[:].set_visible(False)
    if not has_numbers:
        return
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            axes.text(column, row, "–", ha="center", va="center", fontsize=6.5, color=MUTED)
        elif abs(value) >= 0.0005:
            axes.text(
                column, row, _number(value, look.is_signed), ha="center", va="center",
                fontsize=7, color="white" if abs(value) > look.dark_from else INK,
            )  # fmt: skip


def _number(value: float, is_signed: bool) -> str:
    percent = 100 * value
    text = f"{percent:.0f}" if abs(percent) >= 9.95 else f"{percent:.1f}"
    return text.replace("-", "−") if not is_signed or value < 0 else f"+{text}"


def _name_cells(
    axes: Axes, table: pd.DataFrame, names: dict[str, str], size: float, has_rows: bool
) -> None:
    axes.set_xticks(
        range(table.shape[1]), [names[n] for n in table.columns], rotation=90, fontsize=size,
        linespacing=1.05, parse_math=False,
    )  # fmt: skip
    axes.set_yticks(
        range(table.shape[0]), [names[n] if has_rows else "" for n in table.index],
        fontsize=size, linespacing=1.05, parse_math=False,
    )  # fmt: skip


def _own(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Cells of a target and the region of its name."""
    return np.asarray(table.index.to_numpy()[:, None] == table.columns.to_numpy()[None, :])


def _frame(axes: Axes, marked: NDArray[np.bool_], width: float) -> None:
    for row, column in np.argwhere(marked):
        axes.add_patch(
            Rectangle(
                (column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=INK,
                linewidth=width, zorder=5, clip_on=False,
            )
        )  # fmt: skip
