"""Box plots of a cohort: what a target draws on, and how that varies from case to case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from voxplain.errors import LabelError
from voxplain.report.assess_panels import text_width
from voxplain.report.colours import INK
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.report.lesion_figure import frame_axes
from voxplain.report.wording import percent
from voxplain.study.anatomy import colours_of, group_of
from voxplain.study.contributor_graph import wrapped

BOX = (
    "region", "n_cases", "mean", "whisker_low", "q1", "median", "q3", "whisker_high", "n_outliers",
    "outliers",
)  # fmt: skip
"""One row a region. Whiskers: the outermost case within 1.5 times the box; n_outliers: cases beyond
them; outliers: tuple of some of their values, the outermost."""

_LINE = 28
Floats = NDArray[np.float64]


def box_numbers(shares: pd.DataFrame, n_outliers: int = 10) -> pd.DataFrame:
    """Return what the boxes of one target are drawn from.

    Parameters
    ----------
    shares
        Cases × regions, e.g. `voxplain.records.cohort_table.CohortTable.of_target`. Missing values
        are left out.
    n_outliers
        Most outliers of a region that are kept, on each side.

    Returns
    -------
    pandas.DataFrame
        Columns `BOX`, regions as given; NaN for a region without a value. Quartiles are
        interpolated (numpy's default).

    Notes
    -----
    One sort of the whole: 100,000 × 17 values take about 0.2 s.
    """
    values = np.sort(shares.to_numpy(np.float64), axis=0)  # NaN last
    n = np.isfinite(values).sum(axis=0)
    q1, median, q3 = (_quantile(values, n, q) for q in (0.25, 0.5, 0.75))
    reach = 1.5 * (q3 - q1)
    first = (values < q1 - reach).sum(axis=0)
    last = (values <= q3 + reach).sum(axis=0)
    rows = []
    for i, region in enumerate(shares.columns):
        if not n[i]:
            rows.append((str(region), 0, *[np.nan] * 6, 0, ()))
            continue
        column = values[: n[i], i]
        low, high = column[: first[i]][:n_outliers], column[last[i] :][::-1][:n_outliers]
        rows.append((
            str(region), int(n[i]), float(column.mean()), float(column[first[i]]), float(q1[i]),
            float(median[i]), float(q3[i]), float(column[last[i] - 1]),
            int(n[i] - last[i] + first[i]), (*low.tolist(), *high.tolist()),
        ))  # fmt: skip
    return pd.DataFrame(rows, columns=list(BOX))


def target_boxes(
    boxes: pd.DataFrame,
    target: str,
    *,
    sort: Literal["median", "mean"] = "median",
    groups: Mapping[str, str] | None = None,
    extra_regions: Sequence[str] = (),
    n_regions: int = 20,
) -> Drawing:
    """Draw the shares of all regions in one target, the largest on top, by anatomical group.

    Line: median; diamond: mean; points: the outermost outliers.

    Parameters
    ----------
    boxes
        Columns `BOX`.
    target
        For the title.
    sort
        What regions are ordered by.
    groups
        The user's own groups; see `voxplain.study.anatomy.group_of`.
    extra_regions
        Those that overlap the others; they are drawn below, apart.
    n_regions
        At most so many regions beside the extra ones are drawn; the table holds them all.

    Returns
    -------
    Drawing
        Table: ``region, group, n_cases, mean, whisker_low, q1, median, q3, whisker_high,
        n_outliers, is_extra``, from the top.

    Raises
    ------
    LabelError
        If no region has a value.
    """
    known = boxes[boxes["n_cases"] > 0]
    if known.empty:
        raise LabelError(f"no case has a share of {target}: there are no boxes to draw")
    known = known.assign(
        group=[group_of(region, groups) for region in known["region"]],
        is_extra=known["region"].isin(extra_regions),
    ).sort_values(["is_extra", sort, "region"], ascending=[True, False, True])
    parts, extra = known[~known["is_extra"]], known[known["is_extra"]]
    drawn = pd.concat([parts.head(n_regions), extra])
    names = [wrapped(region, _LINE) for region in drawn["region"]]
    places = np.arange(len(drawn)) + 0.6 * drawn["is_extra"].to_numpy(float) * bool(len(parts))
    figure, axes = bar_panel(names, float(places[-1]), drawn["group"])
    colours = colours_of(drawn["group"])
    _boxes(axes, drawn, places, [colours[group] for group in drawn["group"]])
    for at, (_, row) in zip(places, drawn.iterrows(), strict=True):
        axes.text(
            1.015, at, percent(float(row[sort])), transform=axes.get_yaxis_transform(),
            va="center", fontsize=8, color=INK,
        )  # fmt: skip
    axes.set_yticks(places, names, fontsize=8, linespacing=1.05, parse_math=False)
    axes.set_xlabel(
        f"share of |a|, %; line: median, diamond: mean; right: {sort}", fontsize=8.5, color=MUTED
    )
    n_cases = int(known["n_cases"].max())
    said = f", {len(parts.head(n_regions))} of {len(parts)} regions" * (len(parts) > n_regions)
    axes.set_title(
        wrapped(f"{target}, {n_cases} cases{said}", 90), loc="left", fontsize=9.5, color=INK, pad=7,
        parse_math=False,
    )  # fmt: skip
    columns = ["region", "group", *BOX[1:-1], "is_extra"]
    return Drawing(figure, known[columns].reset_index(drop=True))


def bar_panel(names: Sequence[str], end: float, groups: Iterable[str]) -> tuple[Figure, Axes]:
    """Make a panel of lying bars with room for names at the left and a key of groups below.

    Parameters
    ----------
    names
        Of the bars, broken into lines.
    end
        Place of the last bar; the first is at 0.
    groups
        Whose colours the key shows.
    """
    lines = [line for name in names for line in name.split("\n")]
    row = max(0.29, 0.05 + 0.135 * max(name.count("\n") + 1 for name in names))
    left = text_width(lines)
    colours = colours_of(groups)
    n_columns = min(5, len(colours))
    key = 0.2 * -(-len(colours) // n_columns)
    high = row * (end + 1.2)
    figure = blank(9.0, high + 0.95 + key)
    width, height = (float(v) for v in figure.get_size_inches())
    box = (left / width, (0.55 + key) / height, (width - left - 0.85) / width, high / height)
    axes = figure.add_axes(box)
    frame_axes(axes)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#e3e7ec", linewidth=0.7)
    axes.set_ylim(end + 0.6, -0.6)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{100 * value:g}".replace("-", "−"))
    )
    legend = figure.legend(
        [Patch(color=colour) for colour in colours.values()], list(colours), fontsize=8,
        ncols=n_columns, frameon=False, labelcolor=INK, loc="lower left", handlelength=1.1,
        bbox_to_anchor=(0.01, 0.02 / height), borderaxespad=0.0, columnspacing=1.6,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure, axes


def _boxes(
    axes: Axes, rows: pd.DataFrame, places: NDArray[np.float64], colours: Sequence[str]
) -> None:
    """Draw all boxes at once, which is much faster than one by one, then colour them."""
    numbers = [
        {
            "whislo": row["whisker_low"], "q1": row["q1"], "med": row["median"], "q3": row["q3"],
            "whishi": row["whisker_high"], "mean": row["mean"],
            "fliers": np.asarray(row["outliers"]),
        }
        for _, row in rows.iterrows()
    ]  # fmt: skip
    made = axes.bxp(
        numbers, positions=list(places), widths=0.6, orientation="horizontal", patch_artist=True,
        showmeans=True, manage_ticks=False, capwidths=0.25,
        medianprops={"color": INK, "linewidth": 1.6},
        meanprops={"marker": "D", "markersize": 3.6, "markerfacecolor": "white",
                   "markeredgecolor": INK, "markeredgewidth": 0.8},
        flierprops={"marker": "o", "markersize": 2.4, "markeredgewidth": 0, "alpha": 0.75},
    )  # fmt: skip
    for i, colour in enumerate(colours):
        made["boxes"][i].set(facecolor=f"{colour}3d", edgecolor=colour, linewidth=1.1)
        made["fliers"][i].set(markerfacecolor=colour)
        for line in (*made["whiskers"][2 * i : 2 * i + 2], *made["caps"][2 * i : 2 * i + 2]):
            line.set(color=colour, linewidth=1.1)


def _quantile(values: Floats, n: NDArray[np.intp], q: float) -> Floats:
    """Quantile of each sorted column with n numbers in front, between neighbours in proportion."""
    place = q * np.maximum(n - 1, 0)
    below = np.floor(place).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(n - 1, 0))
    column = np.arange(values.shape[1])
    low, high = values[below, column], values[above, column]
    return np.asarray(low + (place - below) * (high - low))
