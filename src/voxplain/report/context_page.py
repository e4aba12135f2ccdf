"""One self-contained page about how many millimetres of surroundings models need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from voxplain.records.lesion_tables import CONTEXT, check_columns
from voxplain.records.provenance import Provenance
from voxplain.report.colours import INK
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.report.html import plain, provenance_rows, write_page
from voxplain.report.lesion_figure import figure_of, frame_axes
from voxplain.report.lesion_types import style
from voxplain.report.wording import percent

_NEED = ("case", "model", "instance", "type", "mode", "fill", "share", "probability_final",
         "need_mm", "is_reached")  # fmt: skip
_CONTROL = "TN"
_LINES = ("#0072b2", "#d55e00", "#009e73", "#b8579a", "#e69f00", "#56b4e9", "#3d4854")
_MODES = {
    "keep": "Only the lesion and its surroundings up to a distance are kept",
    "remove": "The surroundings up to a distance are taken away",
}
_CURVE_WORDS = (
    "Line: mean over the lesions of their predicted probability; band: ± one standard deviation; "
    "steps (right axis): lesions of which some voxel is still detected. Control regions are left "
    "out."
)


def write_context_report(
    frame: pd.DataFrame,
    need: pd.DataFrame,
    path: Path | str,
    provenance: Provenance | Sequence[Provenance],
    *,
    medians: pd.DataFrame | None = None,
) -> Path:
    """Write a page with the context curves of one or several models.

    Parameters
    ----------
    frame
        Columns `voxplain.records.lesion_tables.CONTEXT`.
    need
        Millimetres of each lesion, from ``voxplain.study.context_need``.
    path
        File to write; replaced whole or not at all.
    provenance
        How it was made, one a model.
    medians
        Median need of each model with its interval, from ``context_medians``; None: the page
        shows the lesions alone.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    LabelError
        If a table lacks a column.
    OutputError
        If the file cannot be written.
    """
    check_columns(frame, CONTEXT, "context")
    check_columns(need, _NEED, "context_need")
    records = [provenance] if isinstance(provenance, Provenance) else list(provenance)
    models = [str(m) for m in dict.fromkeys(frame["model"])]
    cases = [str(c) for c in dict.fromkeys(frame["case"])]
    page = {
        "template": "context.html.j2",
        "styles": ("lesions.css",),
        "case": cases[0] if len(cases) == 1 else f"{len(cases)} cases",
        "models": models,
        "facts": [
            ("models", len(models), ""),
            ("cases", len(cases), ""),
            ("lesions", len(frame[["case", "instance"]].drop_duplicates()), ""),
            ("distances", *_distances(frame)),
            ("fill", ", ".join(dict.fromkeys(frame["fill"].astype(str))) or "–", ""),
        ],
        "parts": [
            {"mode": str(mode), "fill": str(fill),
             "figure": figure_of(f"{_MODES.get(str(mode), str(mode))}; fill: {fill}",
                                 _CURVE_WORDS, context_figure(part))}
            for (mode, fill), part in frame.groupby(["mode", "fill"], sort=False)
        ],
        "share": _share(need),
        "medians": [_median(row) for row in _rows(medians)],
        "lesions": [_lesion(row) for row in _rows(need)],
        "provenance": [
            (f"{record.model}: {name}" if len(records) > 1 else name, value)
            for record in records for name, value in provenance_rows(record)
        ],
        "version": records[0].versions.get("voxplain", "") if records else "",
    }  # fmt: skip
    return write_page(plain(page, ("page.js",)), path)


def context_figure(frame: pd.DataFrame) -> Drawing:
    """Draw the context curves of several models.

    Parameters
    ----------
    frame
        Columns `CONTEXT`, of one mode and fill. An infinite distance, the whole image, is drawn
        at the right end.

    Returns
    -------
    Drawing
        Table: ``model, distance_mm, n_lesions, mean, sd, n_detected``; sd of the sample, n - 1.
    """
    lesions = frame[frame["type"] != _CONTROL]
    distances = np.unique(lesions["distance_mm"].to_numpy(dtype=np.float64))
    finite = distances[np.isfinite(distances)]
    end = float(finite[-1]) if len(finite) else 0.0
    at_whole = end + max(1.0, 0.1 * end)
    figure = blank(8.6, 3.7)
    axes = figure.add_subplot()
    counts = axes.twinx()
    rows: list[tuple[object, ...]] = []
    models = [str(m) for m in dict.fromkeys(lesions["model"])]
    for i, model in enumerate(models):
        own = _curve(lesions[lesions["model"] == model])
        rows += [(model, *row) for row in own.itertuples(index=False)]
        _draw(axes, counts, own, _LINES[i % len(_LINES)], at_whole)
    _label(axes, counts, models, at_whole if np.isinf(distances).any() else None)
    most = max((int(str(row[2])) for row in rows), default=1)
    counts.set_ylim(0, most * 1.08)
    figure.tight_layout()
    names = ["model", "distance_mm", "n_lesions", "mean", "sd", "n_detected"]
    return Drawing(figure, pd.DataFrame(rows, columns=names))


def _curve(rows: pd.DataFrame) -> pd.DataFrame:
    of = rows.assign(is_detected=rows["is_detected"].astype(bool)).groupby("distance_mm")
    return pd.DataFrame(
        {
            "n": of.size(),
            "mean": of["probability_mean"].mean(),
            "sd": of["probability_mean"].std(ddof=1),
            "n_detected": of["is_detected"].sum(),
        }
    ).reset_index()


def _draw(axes: Axes, counts: Axes, own: pd.DataFrame, colour: str, at_whole: float) -> None:
    at = own["distance_mm"].to_numpy(dtype=np.float64)
    x = np.where(np.isinf(at), at_whole, at)
    mean, sd = own["mean"].to_numpy(dtype=np.float64), own["sd"].fillna(0).to_numpy()
    finite = np.isfinite(at)
    axes.plot(x[finite], mean[finite], color=colour, linewidth=1.8, marker="o", markersize=3)
    axes.fill_between(
        x[finite], (mean - sd)[finite], (mean + sd)[finite], color=colour, alpha=0.14, linewidth=0
    )
    axes.errorbar(
        x[~finite], mean[~finite], yerr=sd[~finite], color=colour, marker="o", markersize=4,
        linewidth=0, elinewidth=1.2, capsize=2,
    )  # fmt: skip
    counts.step(
        x, own["n_detected"], where="post", color=colour, linewidth=1.0, linestyle=(0, (3, 2)),
        alpha=0.85,
    )  # fmt: skip


def _label(axes: Axes, counts: Axes, models: Sequence[str], at_whole: float | None) -> None:
    for one in (axes, counts):
        frame_axes(one)
    counts.grid(visible=False)
    axes.set_ylim(-0.02, 1.05)
    axes.set_xlabel("distance from the lesion, mm", fontsize=8.5, color=MUTED)
    axes.set_ylabel("predicted probability", fontsize=8.5, color=MUTED)
    counts.set_ylabel("lesions detected", fontsize=8.5, color=MUTED)
    if at_whole is not None:
        ticks = [t for t in axes.get_xticks() if 0 <= t < at_whole - 0.02 * at_whole]
        axes.set_xticks([*ticks, at_whole], [*(f"{t:g}" for t in ticks), "whole\nimage"])
    lines = [
        Line2D([], [], color=_LINES[i % len(_LINES)], linewidth=1.8) for i in range(len(models))
    ]
    legend = axes.legend(
        lines, models, fontsize=8, frameon=False, labelcolor=INK, loc="lower left",
        bbox_to_anchor=(0, 1.0), ncols=4, borderaxespad=0.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _distances(frame: pd.DataFrame) -> tuple[str, str]:
    known = np.unique(frame["distance_mm"].to_numpy(dtype=np.float64))
    finite = known[np.isfinite(known)]
    if not len(finite):
        return "–", ""
    return f"{finite[0]:g} to {finite[-1]:g} mm", f"{len(finite)} of them"


def _share(need: pd.DataFrame) -> str:
    shares = need["share"].unique()
    return percent(float(shares[0])).replace(".0 %", " %") if len(shares) == 1 else "a share"


def _rows(table: pd.DataFrame | None) -> list[dict[Any, Any]]:
    return [] if table is None else table.to_dict("records")


def _mm(value: float) -> str:
    return "not reached" if np.isinf(value) or np.isnan(value) else f"{value:.1f}"


def _median(row: dict[Any, Any]) -> dict[str, Any]:
    low, high = float(row["low_mm"]), float(row["high_mm"])
    ends = "–" if np.isnan(low) or np.isnan(high) else f"{_mm(low)} to {_mm(high)}"
    return {
        **{k: row[k] for k in ("model", "mode", "fill", "type", "n_lesions", "n_patients")},
        "n_reached": row["n_reached"],
        "median": float(row["median_mm"]),
        "median_text": _mm(float(row["median_mm"])),
        "interval": ends,
        "level": percent(float(row["level"])).replace(".0 %", " %"),
    }


def _lesion(row: dict[Any, Any]) -> dict[str, Any]:
    kind = str(row["type"])
    return {
        **{name: row[name] for name in ("case", "model", "instance", "mode", "fill")},
        "type": kind,
        "colour": style(kind).colour,
        "words": style(kind).words,
        "final": float(row["probability_final"]),
        "need": float(row["need_mm"]),
        "need_text": _mm(float(row["need_mm"])),
    }
