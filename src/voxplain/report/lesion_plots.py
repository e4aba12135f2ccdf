"""Figures over all lesions: peaks by type, means by distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from voxplain.report.colours import INK
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.report.lesion_figure import frame_axes
from voxplain.report.lesion_types import in_order, style

_PEAKS = {"peak_positive": "largest positive value", "peak_negative": "largest negative value"}


def peak_boxes(rows: pd.DataFrame, unit: str) -> Drawing:
    """Draw the distribution of the peaks of each channel by type of lesion.

    Boxes: quartiles and median; whiskers: the outermost lesion within 1.5 times the box; every
    lesion is a point.

    Parameters
    ----------
    rows
        Of one method: ``type, channel, peak_positive, peak_negative``, a row a lesion and
        channel.
    unit
        Of the values.

    Returns
    -------
    Drawing
        Table: ``channel, feature, type, n, lower_quartile, median, upper_quartile``.
    """
    channels = list(dict.fromkeys(rows["channel"]))
    types = in_order(rows["type"])
    figure = blank(min(9.2, max(5.2, 2 * (0.62 * len(types) + 1.0))), 2.5 * len(channels))
    table = []
    panels = figure.subplots(len(channels), 2, squeeze=False)
    for axes, (channel, feature) in zip(
        panels.flat, ((c, f) for c in channels for f in _PEAKS), strict=True
    ):
        frame_axes(axes)
        for at, kind in enumerate(types):
            chosen = rows[(rows["channel"] == channel) & (rows["type"] == kind)][feature]
            values = chosen.to_numpy(dtype=np.float64)
            values = values[np.isfinite(values)]
            quartiles = np.quantile(values, [0.25, 0.5, 0.75]) if len(values) else [np.nan] * 3
            table.append((channel, feature, kind, len(values), *quartiles))
            if len(values):
                draw_box(axes, values, at, style(kind).colour)
        axes.axhline(0.0, color=MUTED, linewidth=0.7)
        axes.set_xlim(-0.6, len(types) - 0.4)
        counts = [int(((rows["channel"] == channel) & (rows["type"] == t)).sum()) for t in types]
        axes.set_xticks(
            range(len(types)),
            [f"{t}\n{n}" for t, n in zip(types, counts, strict=True)],
            parse_math=False,
        )
        axes.set_title(
            f"{channel}, {_PEAKS[feature]}", loc="left", fontsize=9, color=INK, parse_math=False
        )
    for axes in panels[:, 0]:
        axes.set_ylabel(unit, fontsize=8.5, color=MUTED, parse_math=False)
    figure.tight_layout(w_pad=1.6, h_pad=1.4)
    names = ["channel", "feature", "type", "n", "lower_quartile", "median", "upper_quartile"]
    return Drawing(figure, pd.DataFrame(table, columns=names))


def draw_box(axes: Axes, values: np.ndarray, at: int, colour: str) -> None:
    """Draw a box of quartiles at a place along x, from three values on, and every value."""
    if len(values) > 2:
        axes.boxplot(
            [values], positions=[at], widths=0.56, showfliers=False, patch_artist=True,
            boxprops={"facecolor": f"{colour}2b", "edgecolor": colour, "linewidth": 1.0},
            medianprops={"color": colour, "linewidth": 2.0},
            whiskerprops={"color": colour}, capprops={"color": colour},
        )  # fmt: skip
    # spread over the width in the golden ratio: no two neighbours in order lie on each other
    spread = ((np.arange(len(values)) * 0.618034) % 1 - 0.5) * 0.36
    axes.scatter(at + spread, values, s=11, color=colour, alpha=0.75, linewidths=0, zorder=3)


def shell_lines(rows: pd.DataFrame, unit: str) -> Drawing:
    """Draw the mean of the maps inside the lesions and in shells around them, by type.

    Line: mean over the lesions of a type; band: their quartiles, where there are three or more.

    Parameters
    ----------
    rows
        Of one method: ``type, channel, from_mm, to_mm, mean``, a row a lesion, channel and
        shell; ``to_mm`` 0 is the lesion itself.
    unit
        Of the values.

    Returns
    -------
    Drawing
        Table: ``channel, type, from_mm, to_mm, n, lower_quartile, mean, upper_quartile``.
    """
    channels = list(dict.fromkeys(rows["channel"]))
    types = in_order(rows["type"])
    shells = rows[["from_mm", "to_mm"]].drop_duplicates().sort_values(["to_mm", "from_mm"])
    ends = [(float(a), float(b)) for a, b in shells.itertuples(index=False)]
    figure = blank(max(3.6, min(4.6, 9.2 / len(channels))) * len(channels), 2.9)
    table = []
    panels = figure.subplots(1, len(channels), squeeze=False, sharey=True)[0]
    for axes, channel in zip(panels, channels, strict=True):
        frame_axes(axes)
        for kind in types:
            chosen = rows[(rows["channel"] == channel) & (rows["type"] == kind)]
            points = [_shell(chosen, low, high) for low, high in ends]
            table += [(channel, kind, *end, *p) for end, p in zip(ends, points, strict=True)]
            n, lower, mean, upper = np.asarray(points).T
            at, colour = np.arange(len(ends)), style(kind).colour
            axes.plot(at, mean, color=colour, marker="o", markersize=3.4, linewidth=1.5)
            axes.fill_between(at, lower, upper, where=n > 2, color=colour, alpha=0.13, linewidth=0)
        axes.axhline(0.0, color=MUTED, linewidth=0.7)
        names = ["inside" if high == 0 else f"{low:g}–{high:g}" for low, high in ends]
        is_dense = len(ends) > 8
        axes.set_xticks(
            range(len(ends)), names, fontsize=7 if is_dense else 8, rotation=45 if is_dense else 0
        )
        axes.set_xlabel("distance from the lesion, mm", fontsize=8.5, color=MUTED)
        axes.set_title(channel, loc="left", fontsize=9, color=INK, parse_math=False)
    panels[0].set_ylabel(f"mean, {unit}", fontsize=8.5, color=MUTED, parse_math=False)
    lines = [Line2D([], [], color=style(t).colour, marker="o", markersize=3.4) for t in types]
    panels[-1].legend(lines, types, fontsize=8, frameon=False, labelcolor=INK)
    figure.tight_layout(w_pad=1.6)
    names = ["channel", "type", "from_mm", "to_mm", "n", "lower_quartile", "mean", "upper_quartile"]
    return Drawing(figure, pd.DataFrame(table, columns=names))


def _shell(rows: pd.DataFrame, low: float, high: float) -> Sequence[float]:
    of = rows[(rows["from_mm"] == low) & (rows["to_mm"] == high)]["mean"].dropna()
    if of.empty:
        return 0, np.nan, np.nan, np.nan
    values = of.to_numpy(dtype=np.float64)
    return (
        len(values),
        float(np.quantile(values, 0.25)),
        float(values.mean()),
        float(np.quantile(values, 0.75)),
    )
