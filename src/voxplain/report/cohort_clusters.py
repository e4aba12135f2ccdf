"""Tree of targets that draw on the same regions, beside how well each linkage keeps distances."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from voxplain.report.assess_panels import text_width
from voxplain.report.colours import INK
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.report.lesion_figure import frame_axes
from voxplain.study.anatomy import colours_of, group_of
from voxplain.study.clustering import Clusters
from voxplain.study.contributor_graph import wrapped

_CHOSEN, _REST = "#0059a8", "#b4bcc5"


def cluster_figure(clusters: Clusters, groups: Mapping[str, str] | None = None) -> Drawing:
    """Draw the tree of targets and the cophenetic correlation of every linkage.

    Parameters
    ----------
    clusters
        From `voxplain.study.clustering.cluster`.
    groups
        The user's own groups; see `voxplain.study.anatomy.group_of`. They colour the leaves.

    Returns
    -------
    Drawing
        Table: columns `voxplain.study.clustering.MERGES`. The correlations are
        `clusters.cophenetic`.
    """
    from scipy.cluster.hierarchy import dendrogram

    names = [wrapped(name, 28) for name in clusters.order]
    left = text_width(line for name in names for line in name.split("\n")) + 0.15
    row = max(0.27, 0.05 + 0.135 * max(name.count("\n") + 1 for name in names))
    high = max(1.35, row * len(names))
    figure = blank(9.0, high + 0.95)
    width, height = (float(v) for v in figure.get_size_inches())
    wide = width - left - 2.75
    axes = figure.add_axes((left / width, 0.55 / height, wide / width, high / height))
    frame_axes(axes)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#e3e7ec", linewidth=0.7)
    drawn = dendrogram(clusters.tree, no_plot=True, count_sort=False)
    for places, heights in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        # scipy puts leaf i at 10 i + 5
        axes.plot(heights, (np.asarray(places) - 5) / 10, color=MUTED, linewidth=1.3,
                  solid_joinstyle="miter")  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=8, linespacing=1.05, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1.03 * float(clusters.tree[:, 2].max()) or 1.0)
    kinds = [group_of(name, groups) for name in clusters.order]
    colours = colours_of(kinds)
    axes.scatter([0] * len(names), range(len(names)), s=26, c=[colours[k] for k in kinds],
                 zorder=4, clip_on=False)  # fmt: skip
    axes.set_xlabel("distance of √share", fontsize=8.5, color=MUTED)
    axes.set_title(f"{clusters.linkage} linkage", loc="left", fontsize=9.5, color=INK, pad=7)
    tall = min(high, 1.6)
    beside = figure.add_axes(
        ((left + wide + 0.95) / width, (0.55 + high - tall) / height, 1.5 / width, tall / height)
    )
    _correlations(beside, clusters.cophenetic)
    return Drawing(figure, clusters.merges)


def _correlations(axes: Axes, rows: pd.DataFrame) -> None:
    frame_axes(axes)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    known = rows["cophenetic_r"].to_numpy(np.float64)
    shades = [_CHOSEN if chosen else _REST for chosen in rows["is_chosen"]]
    axes.barh(range(len(rows)), np.nan_to_num(known), color=shades, height=0.62)
    for at, value in enumerate(known):
        text = "–" if np.isnan(value) else f"{value:.2f}".replace("-", "−")
        axes.text(max(np.nan_to_num(value), 0.0) + 0.03, at, text, va="center", fontsize=8,
                  color=INK)  # fmt: skip
    axes.set_yticks(range(len(rows)), list(rows["linkage"]), fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(min(0.0, float(np.nan_to_num(known).min())), 1.25)
    axes.set_xticks([0, 0.5, 1])
    axes.set_title("cophenetic correlation", loc="left", fontsize=9, color=INK, pad=7)
