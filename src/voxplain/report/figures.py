"""Figures of the region table: what each target drew on."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from voxplain.records.explanation import Explanation
from voxplain.report.colours import INK, NEGATIVE, POSITIVE, SHARES
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.report.focus import own_region, region_rows
from voxplain.report.wording import percent


def region_matrix(explanation: Explanation) -> Drawing:
    """Draw the share of every region in every target as a heat map.

    Parameters
    ----------
    explanation
        Its region table; channels are summed. The cell of a target's own region is framed.

    Returns
    -------
    Drawing
        Table: targets × regions, shares 0…1 (NaN: the map is zero everywhere).
    """
    table = explanation.table.matrix("share")
    n_rows, n_columns = table.shape
    is_large = max(n_rows, n_columns) > 30
    cell = 0.17 if is_large else 0.42
    size = 6.0 if is_large else 8.5
    # inches: text of this size is about 0.0085 inches a character and point
    left = 0.35 + 0.0085 * size * max(len(str(t)) for t in table.index)
    bottom = 0.35 + 0.0085 * size * max(len(str(r)) for r in table.columns)
    wide, high = cell * n_columns, cell * n_rows
    figure = blank(max(left + wide + 1.1, left + 2.2), bottom + high + 0.45)  # the title's width
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, bottom / height, wide / width, high / height))
    values = table.to_numpy(dtype=np.float64)
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    # the root lets small shares be seen beside a large one
    norm = PowerNorm(0.5, vmin=0.0, vmax=top or 1.0)
    image = axes.imshow(values, cmap=SHARES, norm=norm, aspect="auto")
    axes.set_xticks(
        range(n_columns),
        [str(r) for r in table.columns],
        rotation=90,
        fontsize=size,
        parse_math=False,
    )
    axes.set_yticks(range(n_rows), [str(t) for t in table.index], fontsize=size, parse_math=False)
    axes.set_xticks(np.arange(n_columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n_rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.4 if is_large else 1.2)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.spines[:].set_visible(False)
    axes.set_title("share of each target's |a|, %", loc="left", fontsize=9, color=MUTED, pad=10)
    _annotate(axes, values, top, is_large)
    for row, target in enumerate(table.index):
        own = own_region(explanation, str(target))
        if own is not None and own in table.columns:
            column = list(table.columns).index(own)
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.1,
                    zorder=5, clip_on=False,
                )
            )  # fmt: skip
    tall = min(high, 2.6)
    bar = figure.add_axes(((left + wide + 0.22) / width, (bottom + high - tall) / height,
                      0.14 / width, tall / height))  # fmt: skip
    scale = figure.colorbar(image, cax=bar)
    scale.outline.set_visible(False)
    scale.formatter = FuncFormatter(lambda value, _: f"{100 * value:g}")
    scale.ax.tick_params(labelsize=8, length=0, colors=MUTED)
    return Drawing(figure, table)


def _annotate(axes: Axes, values: np.ndarray[Any, Any], top: float, is_large: bool) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            axes.text(column, row, "–", ha="center", va="center", fontsize=7, color=MUTED)
        elif not is_large and value >= 0.0005:
            axes.text(
                column, row, f"{100 * value:.0f}" if value >= 0.0995 else f"{100 * value:.1f}",
                ha="center", va="center", fontsize=7.5,
                color="white" if value > 0.3 * top else INK,
            )  # fmt: skip


def target_bars(explanation: Explanation, target: str, n_regions: int = 20) -> Drawing:
    """Draw what each region adds for and against one target, largest share first.

    Parameters
    ----------
    explanation, target
        A target of the explanation.
    n_regions
        At most so many regions are drawn; the table holds them all.

    Returns
    -------
    Drawing
        Table: ``region, share, mean, positive, negative, n_voxels``, channels summed.

    Raises
    ------
    TargetError
        If the explanation has no such target.
    """
    table = region_rows(explanation, target)
    drawn = table.head(n_regions)
    figure = blank(7.4, 0.9 + 0.27 * len(drawn))
    longest = max(len(str(r)) for r in drawn["region"])
    left = min(0.45, 0.03 + 0.0105 * longest)
    height = figure.get_size_inches()[1]
    axes = figure.add_axes((left, 0.5 / height, 0.88 - left, (0.27 * len(drawn)) / height))
    at = np.arange(len(drawn))
    axes.barh(at, drawn["positive"], height=0.66, color=POSITIVE)
    axes.barh(at, drawn["negative"], height=0.66, color=NEGATIVE)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set_yticks(at, [str(r) for r in drawn["region"]], fontsize=8.5, parse_math=False)
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    for row, share in enumerate(drawn["share"]):
        axes.text(
            1.012, row, percent(share), transform=axes.get_yaxis_transform(), va="center",
            fontsize=8.5, color=INK,
        )  # fmt: skip
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e3e7ec", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(
        f"sum of negative and of positive a, {explanation.unit}", fontsize=8.5, parse_math=False
    )
    rest = f", {len(drawn)} of {len(table)} regions" if len(drawn) < len(table) else ""
    axes.set_title(f"{target}{rest}", loc="left", fontsize=9.5, color=INK, pad=8, parse_math=False)
    return Drawing(figure, table)
