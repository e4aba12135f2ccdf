"""Histograms of shares between related classes, e.g. heart, aorta and pulmonary vein."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from voxplain.errors import DataError, TargetError
from voxplain.records.cohort_table import CohortTable
from voxplain.report.assess_panels import panels_of, text_width
from voxplain.report.colours import INK
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.report.lesion_figure import frame_axes
from voxplain.space.labelmap import nearest
from voxplain.study.anatomy import colours_of, group_of
from voxplain.study.contributor_graph import wrapped

HISTOGRAM = ("target", "region", "from_share", "to_share", "n_cases", "median")
"""One row a target, region and bin. The last bin holds its upper end. median: of target and region,
the same in all its rows."""

MOST = 6
"""Targets, and regions, of one figure."""


def histogram_numbers(
    table: CohortTable, targets: Sequence[str], regions: Sequence[str], n_bins: int = 30
) -> pd.DataFrame:
    """Count cases by their share, in bins that all targets and regions have in common.

    Parameters
    ----------
    table
        Needs ``share``.
    targets, regions
        Which; bins reach from 0 to the largest share of any of them.
    n_bins
        Their number.

    Returns
    -------
    pandas.DataFrame
        Columns `HISTOGRAM`; missing shares are not counted.

    Raises
    ------
    TargetError
        If there is no such target or region.
    LabelError
        If shares were not loaded.
    DataError
        If `n_bins` is below 1 or a share is below 0.
    """
    if n_bins < 1:
        raise DataError(f"n_bins is at least 1, got {n_bins}")
    for name in regions:
        if name not in table.regions:
            raise TargetError(f"no region {name!r}{nearest(name, table.regions)}")
    shares = {target: table.of_target(target, "share") for target in targets}
    found = {
        (target, region): frame[region].dropna().to_numpy(np.float64)
        for target, frame in shares.items()
        for region in regions
    }
    known = [values for values in found.values() if len(values)]
    if any(values.min() < 0 for values in known):
        raise DataError("shares are not below 0")
    top = max((float(values.max()) for values in known), default=0.0)
    edges = np.linspace(0.0, top or 1.0, n_bins + 1)
    frames = []
    for (target, region), values in found.items():
        counts, _ = np.histogram(values, bins=edges)
        median = float(np.median(values)) if len(values) else np.nan
        columns = (target, region, edges[:-1], edges[1:], counts, median)
        frames.append(pd.DataFrame(dict(zip(HISTOGRAM, columns, strict=True))))
    return pd.concat(frames) if frames else pd.DataFrame(columns=list(HISTOGRAM))


def share_histograms(histogram: pd.DataFrame, groups: Mapping[str, str] | None = None) -> Drawing:
    """Draw a histogram for each target (row) and region (column); axes are shared.

    A line and its number: the median.

    Parameters
    ----------
    histogram
        Columns `HISTOGRAM`.
    groups
        The user's own groups; see `voxplain.study.anatomy.group_of`. Colours are of the region.

    Returns
    -------
    Drawing
        Table: `histogram`.

    Raises
    ------
    DataError
        If there are no targets or regions, or more than `MOST` of either.
    """
    targets = list(dict.fromkeys(histogram["target"]))
    regions = list(dict.fromkeys(histogram["region"]))
    if not 0 < len(targets) <= MOST or not 0 < len(regions) <= MOST:
        raise DataError(
            f"histograms are drawn of 1 to {MOST} targets and regions, got {len(targets)} and "
            f"{len(regions)}; choose related ones"
        )
    names = {name: wrapped(name, 18) for name in (*targets, *regions)}
    left = text_width(line for t in targets for line in names[t].split("\n")) + 0.45
    n_lines = max(names[region].count("\n") + 1 for region in regions)
    wide = min(2.4, (8.9 - left - 0.14 * (len(regions) - 1)) / len(regions))
    top = 0.2 + 0.15 * n_lines
    n_rows = len(targets)
    figure = blank(
        left + max(wide * len(regions) + 0.14 * (len(regions) - 1) + 0.2, 4.9),
        top + 1.05 * n_rows + 0.14 * (n_rows - 1) + 0.5,
    )
    width = figure.get_size_inches()[0]
    panels = panels_of(figure, n_rows, len(regions), left, (wide, 1.05), (0.14, 0.14), top)
    end = float(histogram["to_share"].max())
    for at, axes in enumerate(panels):
        target, region = targets[at // len(regions)], regions[at % len(regions)]
        own = histogram[(histogram["target"] == target) & (histogram["region"] == region)]
        frame_axes(axes)
        counts = own["n_cases"].to_numpy(np.float64)
        starts = own["from_share"].to_numpy(np.float64)
        group = group_of(region, groups)
        colour = colours_of([group])[group]
        axes.bar(starts, counts, own["to_share"] - starts, align="edge", color=colour, linewidth=0)
        axes.set_xlim(-0.02 * end, 1.02 * end)
        # each row has its own height: a target in few cases would vanish beside the others
        highest = histogram.loc[histogram["target"] == target, "n_cases"].max()
        axes.set_ylim(0, 1.22 * max(highest, 1))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
        axes.tick_params(labelbottom=at >= len(panels) - len(regions),
                         labelleft=at % len(regions) == 0)  # fmt: skip
        if not counts.sum():
            axes.text(0.5, 0.5, "no case", transform=axes.transAxes, ha="center", fontsize=8,
                      color=MUTED)  # fmt: skip
        else:
            _mark(axes, float(own["median"].iloc[0]), end)
        if at < len(regions):
            axes.set_title(names[region], fontsize=8.5, color=INK, pad=5, parse_math=False)
        if at % len(regions) == 0:
            axes.text(
                -(0.45 / wide), 0.5, names[target], transform=axes.transAxes, ha="right",
                va="center", fontsize=8.5, color=INK, parse_math=False,
            )  # fmt: skip
    figure.supxlabel(
        "share of the region (column) in the target (row), %; height: cases",
        fontsize=8.5, color=MUTED, x=max(left / width, 0.0), ha="left",
    )  # fmt: skip
    return Drawing(figure, histogram.reset_index(drop=True))


def _mark(axes: Axes, median: float, end: float) -> None:
    axes.axvline(median, color=INK, linewidth=1.0)
    is_right = median > 0.6 * end
    axes.annotate(
        f"{100 * median:.1f}", (median, 1.0), xycoords=("data", "axes fraction"),
        xytext=(-3 if is_right else 3, -3), textcoords="offset points", va="top",
        ha="right" if is_right else "left", fontsize=7.5, color=INK,
    )  # fmt: skip
