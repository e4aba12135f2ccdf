"""Figures of counterfactuals: IoU against threshold, IoU with intervals, training, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from voxplain.report.assess_panels import panels_of, text_width
from voxplain.report.colours import INK
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.report.lesion_figure import frame_axes

KINDS = {
    "counterfactual": "counterfactuals: threshold on |x − x′|/2",
    "attribution": "maps: threshold on the map, 0 to 1",
    "intensity": "maps: threshold on the map, 0 to 1",
}
"""Kinds of methods, and what their threshold is put on."""

TRAIN, VALIDATION = "#0072b2", "#d55e00"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8579a", "#e69f00", "#56b4e9", "#3d4854")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_KIND_COLOURS = {"counterfactual": "#d55e00", "attribution": "#0072b2", "intensity": "#8b949e"}
_N_COLUMNS = 4  # panels of a training side by side
_N_POINTS = 400  # more of them of one term are not drawn

_CURVE = ("method", "threshold", "iou")
_BARS = (
    "method", "kind", "iou_tuned", "iou_tuned_low", "iou_tuned_high", "iou_fixed",
    "iou_fixed_low", "iou_fixed_high",
)  # fmt: skip


def iou_curves(curves: pd.DataFrame, methods: pd.DataFrame) -> Drawing | None:
    """Draw pooled IoU of the test slices against the threshold, one line a method.

    Counterfactuals and maps have a panel each, for their thresholds mean different things. Disc:
    the threshold chosen on validation slices; ring: the fixed one; both at the nearest
    threshold of the curve.

    Parameters
    ----------
    curves
        ``method, threshold, iou`` of the test slices.
    methods
        ``method, kind, threshold_tuned, threshold_fixed``, in the order of the legend.

    Returns
    -------
    Drawing or None
        Table: ``method, threshold, iou``. None if no IoU has a value.
    """
    known = curves[curves["iou"].notna()]
    if known.empty:
        return None
    kinds = dict(zip(methods["method"], methods["kind"], strict=True))
    panels: dict[str, list[str]] = {}
    for name in methods["method"]:
        if (known["method"] == name).any():
            panels.setdefault(KINDS[kinds[name]], []).append(name)
    n = len(panels)
    longest = max(len(names) for names in panels.values())
    high = 3.2
    below = 0.75 + 0.19 * longest
    figure = blank(0.6 + 4.9 * n, 0.35 + high + below)
    thresholds = methods.set_index("method").to_dict("index")
    for axes, (words, names) in zip(
        panels_of(figure, 1, n, 0.6, (4.5, high), (0.4, 0.0), 0.35, sharey=True),
        panels.items(),
        strict=True,
    ):
        frame_axes(axes)
        lines = [
            _curve(axes, known[known["method"] == name], thresholds[name], name, at)
            for at, name in enumerate(names)
        ]
        axes.set_title(words, loc="left", fontsize=9, color=INK, parse_math=False)
        axes.set_xlabel("threshold", fontsize=8.5, color=MUTED)
        axes.set_xlim(0.0, 1.0)
        axes.set_ylim(0.0, max(0.1, 1.05 * float(known["iou"].max())))
        _legend(axes, lines, -0.5 / high)
    figure.axes[0].set_ylabel("IoU of all pixels, test slices", fontsize=8.5, color=MUTED)
    return Drawing(figure, known[list(_CURVE)].reset_index(drop=True))


def _curve(axes: Axes, own: pd.DataFrame, row: dict[Any, Any], name: str, at: int) -> Line2D:
    """Draw the line of a method and mark its two thresholds."""
    colour = _COLOURS[at % len(_COLOURS)]
    dashes = _DASHES[at // len(_COLOURS) % len(_DASHES)]
    own = own.sort_values("threshold")
    x, y = (own[column].to_numpy(dtype=np.float64) for column in ("threshold", "iou"))
    (line,) = axes.plot(x, y, color=colour, linestyle=dashes, linewidth=1.5, label=name)
    for column, fill in (("threshold_tuned", colour), ("threshold_fixed", "white")):
        threshold = float(row[column])
        if np.isfinite(threshold):
            nearest = int(np.abs(x - threshold).argmin())
            axes.plot(
                x[nearest], y[nearest], "o", color=colour, markerfacecolor=fill, markersize=5.5,
                markeredgewidth=1.3, zorder=4, clip_on=False,
            )  # fmt: skip
    return line


def _legend(axes: Axes, lines: Sequence[Line2D], top: float) -> None:
    legend = axes.legend(
        handles=list(lines), loc="upper left", bbox_to_anchor=(0.0, top), frameon=False,
        fontsize=8, borderaxespad=0.0, handlelength=2.6, labelcolor=INK,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def iou_bars(methods: pd.DataFrame) -> Drawing | None:
    """Draw the pooled IoU of each method with its interval, the best first.

    Disc: at the threshold chosen on validation slices; ring: at the fixed one.

    Parameters
    ----------
    methods
        ``method, kind``, and ``iou_tuned``, ``iou_fixed`` each with ``_low`` and ``_high``.

    Returns
    -------
    Drawing or None
        Table: what was given, sorted. None if no IoU has a value.
    """
    known = methods[methods["iou_tuned"].notna() | methods["iou_fixed"].notna()]
    if known.empty:
        return None
    rows = known.sort_values(["iou_tuned", "iou_fixed"], ascending=False, kind="stable")
    left = text_width(rows["method"])
    high = 0.3 * len(rows)
    figure = blank(left + 6.0, high + 1.0)
    (axes,) = panels_of(figure, 1, 1, left, (5.7, high), (0.0, 0.0), 0.42)
    frame_axes(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#e3e7ec", linewidth=0.7)
    for at, row in enumerate(rows.to_dict("records")):
        colour = _KIND_COLOURS[row["kind"]]
        for name, shift, fill in (("iou_tuned", -0.14, colour), ("iou_fixed", 0.2, "white")):
            ends = [row[f"{name}_low"], row[f"{name}_high"]]
            if np.isfinite(ends).all():
                axes.plot(ends, [at + shift] * 2, color=colour, linewidth=1.6, alpha=0.75)
            axes.plot(
                row[name], at + shift, "o", color=colour, markerfacecolor=fill, markersize=5.5,
                markeredgewidth=1.3,
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), list(rows["method"]), parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=0.0)
    axes.set_xlabel("IoU of all pixels, test slices", fontsize=8.5, color=MUTED)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=kind)
        for kind, colour in _KIND_COLOURS.items()
        if (rows["kind"] == kind).any()
    ]
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False,
        fontsize=8, borderaxespad=0.0, labelcolor=INK,
    )  # fmt: skip
    return Drawing(figure, rows[list(_BARS)].reset_index(drop=True))


def training_curves(log: pd.DataFrame) -> Drawing | None:
    """Draw every column of a training log against the step, one panel each.

    A term and the same on validation slices (``val_`` before its name) share a panel.

    Parameters
    ----------
    log
        ``step`` and numbers; ``seconds`` is left out. Missing where not measured.

    Returns
    -------
    Drawing or None
        Table: at most `_N_POINTS` rows of the log, evenly spread. None for an empty log.
    """
    terms = list(
        dict.fromkeys(
            str(name).removeprefix("val_")
            for name in log.columns
            if name not in ("step", "seconds") and log[name].notna().any()
        )
    )
    if not terms:
        return None
    n_columns = min(_N_COLUMNS, len(terms))
    n_rows = -(-len(terms) // n_columns)
    figure = blank(0.55 + 2.75 * n_columns, 0.35 + 1.95 * n_rows)
    size, gaps = (2.1, 1.3), (0.65, 0.65)
    panels = panels_of(figure, n_rows, n_columns, 0.55, size, gaps, 0.3)
    for axes in panels[len(terms) :]:
        axes.remove()
    for axes, term in zip(panels, terms, strict=False):
        frame_axes(axes)
        for name, colour in ((term, TRAIN), (f"val_{term}", VALIDATION)):
            if name in log:
                own = log[log[name].notna()]
                marker = "o" if len(own) == 1 else ""
                axes.plot(
                    own["step"], own[name], color=colour, linewidth=1.2, marker=marker, markersize=3
                )
        axes.set_title(term.replace("_", " "), loc="left", fontsize=9, color=INK, parse_math=False)
        axes.tick_params(labelsize=7.5)
        axes.locator_params(nbins=4)
    chosen = np.linspace(0, len(log) - 1, min(len(log), _N_POINTS)).round().astype(int)
    return Drawing(figure, log.iloc[chosen].reset_index(drop=True))


def reliability(calibration: pd.DataFrame) -> Drawing | None:
    """Draw the share of abnormal slices against the mean probability of each bin.

    Parameters
    ----------
    calibration
        ``mean_probability, share_abnormal, n``, a row a bin; the first two missing in
        empty bins.

    Returns
    -------
    Drawing or None
        Table: what was given. None if every bin is empty.
    """
    known = calibration[
        calibration["mean_probability"].notna() & calibration["share_abnormal"].notna()
    ]
    if known.empty:
        return None
    figure = blank(4.0, 3.9)
    (axes,) = panels_of(figure, 1, 1, 0.62, (3.2, 3.2), (0.0, 0.0), 0.15)
    frame_axes(axes)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.plot(
        known["mean_probability"], known["share_abnormal"], color=TRAIN, linewidth=1.3, zorder=3
    )
    sizes = 14 + 110 * known["n"] / known["n"].max()
    axes.scatter(
        known["mean_probability"], known["share_abnormal"], s=sizes, color=TRAIN, alpha=0.8,
        zorder=4, clip_on=False, linewidths=0,
    )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("mean probability of being abnormal", fontsize=8.5, color=MUTED)
    axes.set_ylabel("share of slices that are abnormal", fontsize=8.5, color=MUTED)
    return Drawing(figure, calibration.reset_index(drop=True))
