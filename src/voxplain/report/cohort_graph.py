"""Directed graph of a cohort: which regions each target draws on most."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.path import Path
from numpy.typing import NDArray

from voxplain.errors import DataError
from voxplain.report.colours import INK
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.study.anatomy import colours_of
from voxplain.study.contributor_graph import EDGES, box_of, layout, wrapped

_THICK = 5.5  # points of the heaviest of at most _FEW arrows
_FEW = 20

Floats = NDArray[np.float64]


def contributor_figure(edges: pd.DataFrame, groups: Mapping[str, str] | None = None) -> Drawing:
    """Draw arrows from regions to the targets that draw on them.

    Width of an arrow: mean share; colour: group of the region it starts from. A number in a
    node: what the target draws on itself, where that is among the edges.

    Parameters
    ----------
    edges
        Columns `voxplain.study.contributor_graph.EDGES`.
    groups
        The user's own groups; see `voxplain.study.anatomy.group_of`.

    Returns
    -------
    Drawing
        Table: `edges`.

    Raises
    ------
    DataError
        If there is no edge.
    """
    if edges.empty:
        raise DataError("a graph needs at least one edge: lower min_weight, or count self")
    places = layout(edges, groups)
    colours = colours_of(places["group"])
    n_columns = min(5, len(colours))
    foot = 0.35 + 0.2 * -(-len(colours) // n_columns)
    centres = places[["x", "y"]].to_numpy(np.float64)
    at = dict(zip(map(str, places["node"]), centres, strict=True))
    half = {node: np.array(box_of(node)) / 2 for node in at}
    ends = np.array([at[n] + half[n] for n in at])
    wide, high = ends[:, 0].max() + 0.3, ends[:, 1].max() + 0.3
    figure = blank(max(wide, 5.6), high + foot)
    width, height = (float(v) for v in figure.get_size_inches())
    axes = figure.add_axes(((1 - wide / width) / 2, foot / height, wide / width, high / height))
    axes.set_xlim(-0.15, wide - 0.15)
    axes.set_ylim(-0.15, high - 0.15)
    axes.set_axis_off()
    group = dict(zip(places["node"], places["group"], strict=True))
    between = edges[edges["source"] != edges["target"]]
    top = float(between["weight"].max()) if len(between) else 0.0
    thick = _THICK * min(1.0, (_FEW / max(len(between), 1)) ** 0.5)
    middle = (np.array([wide, high]) - 0.3) / 2
    own = {}
    # light arrows first, so that heavy ones lie on them
    ranked = edges.sort_values(["weight", "source", "target"])
    names = (ranked[end].astype(str) for end in ("source", "target"))
    for source, target, weight in zip(*names, ranked["weight"].to_numpy(np.float64), strict=True):
        if source == target:
            own[target] = float(weight)
            continue
        _arrow(axes, (at[source], at[target]), (half[source], half[target]), middle,
               colours[group[source]], (thick, float(weight) / top))  # fmt: skip
    for node, centre in at.items():
        _node(axes, node, centre, half[node], colours[group[node]])
        if node in own:
            x, y = centre + half[node] - (0.14, 0.02)
            axes.text(
                x, y, f"{100 * own[node]:.0f} %", fontsize=7, color=INK, ha="center", va="center",
                zorder=6, bbox={"boxstyle": "round,pad=0.12", "fc": "white", "ec": "#c3cbd4",
                                "lw": 0.5},
            )  # fmt: skip
    _key(figure, colours, n_columns, top, height)
    return Drawing(figure, edges[list(EDGES)].reset_index(drop=True))


def _node(axes: Axes, node: str, at: Floats, half: Floats, colour: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (at[0] - half[0] + 0.05, at[1] - half[1] + 0.05), 2 * half[0] - 0.1, 2 * half[1] - 0.1,
            boxstyle="round,pad=0.05,rounding_size=0.09", facecolor="white", edgecolor=colour,
            linewidth=1.8, zorder=4,
        )
    )  # fmt: skip
    axes.text(
        at[0], at[1], wrapped(node), ha="center", va="center", fontsize=8.5, color=INK, zorder=5,
        linespacing=1.08, parse_math=False,
    )  # fmt: skip


def _arrow(
    axes: Axes, ends: tuple[Floats, Floats], halves: tuple[Floats, Floats], centre: Floats,
    colour: str, looks: tuple[float, float],
) -> None:  # fmt: skip
    """Draw an arrow that bends to the centre, and a little to its right: two ways, two lines."""
    along = ends[1] - ends[0]
    aside = np.array([along[1], -along[0]]) / np.hypot(*along)
    middle = (ends[0] + ends[1]) / 2
    bend = middle + 0.45 * (centre - middle) + 0.16 * aside
    start = _border(ends[0], halves[0], bend)
    stop = _border(ends[1], halves[1] + 0.03, bend)
    width, share = looks
    thick = max(0.5, width * share)
    axes.add_patch(
        FancyArrowPatch(
            path=Path([start, bend, stop], [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
            arrowstyle=f"-|>,head_length={2.5 + 0.5 * thick},head_width={1.2 + 0.45 * thick}",
            mutation_scale=1.0, linewidth=thick, color=colour, alpha=0.4 + 0.45 * share,
            zorder=2 + share, fill=True, capstyle="butt", joinstyle="miter",
        )
    )  # fmt: skip


def _border(centre: Floats, half: Floats, other: Floats) -> Floats:
    """Where the line to another point leaves a box."""
    way = other - centre
    with np.errstate(divide="ignore"):
        return np.asarray(centre + way * np.min(half / np.abs(way)))


def _key(
    figure: Figure, colours: Mapping[str, str], n_columns: int, top: float, height: float
) -> None:
    legend = figure.legend(
        [Patch(color=colour) for colour in colours.values()], list(colours), fontsize=8,
        ncols=n_columns, frameon=False, labelcolor=INK, loc="lower left", handlelength=1.1,
        bbox_to_anchor=(0.01, 0.02 / height), borderaxespad=0.0, columnspacing=1.6,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    rows = -(-len(colours) // n_columns)
    thickest = f"; thickest: {100 * top:.1f} %" if top else ""
    said = f"arrow: region → target that draws on it{thickest}; number: target on itself"
    figure.text(
        0.015, (0.16 + 0.2 * rows) / height,
        said,
        fontsize=8, color=MUTED, va="center",
    )  # fmt: skip
