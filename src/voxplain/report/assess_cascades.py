"""What randomising a model layer by layer did to its maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from voxplain.records.assessment import RANDOM_PAIRS
from voxplain.report.assess_panels import panels_of, plain_ticks
from voxplain.report.assess_summary import spread
from voxplain.report.assess_tables import METHOD, SECOND, Tables, colour, is_trivial, said
from voxplain.report.colours import INK
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.report.lesion_figure import frame_axes

SIMILARITIES = ("ssim", "spearman", "legacy_ssim", "entropy_rise")
"""What is drawn, of what was computed; other measures are in the table of scores."""

_STAGE = re.compile(r"(.+):(\d+)")
_COLUMNS = ("method", "metric", "step", "n", "n_patients", "mean", "sd")
_MOST_COLUMNS = 4


def orders(tables: Tables, model: str) -> list[str]:
    """Return the orders in which a model's layers were randomised."""
    rows = tables.assessment.scores
    stages = dict.fromkeys(rows[rows["model"] == model]["stage"])
    found = [match[1] for match in map(_STAGE.fullmatch, map(str, stages)) if match]
    return list(dict.fromkeys(found))


def steps(tables: Tables, model: str, order: str) -> list[dict[str, Any]]:
    """Give what each step of a cascade randomised."""
    rows = tables.assessment.stages
    own = rows[(rows["model"] == model) & (rows["order"] == order)].sort_values("number")
    return [
        {"number": int(row["number"]), "layers": str(row["layers"] or ""),
         "n_parameters": int(row["n_parameters"])}
        for row in own.to_dict("records")
    ]  # fmt: skip


def drawn_similarities(tables: Tables, model: str, order: str) -> list[str]:
    """Return the measures of similarity that are drawn for a cascade."""
    points = cascade_points(tables, model, order)
    known = set(points[(points["method"] != "") & points["mean"].notna()]["metric"])
    return [name for name in SIMILARITIES if name in known]


def cascade_points(tables: Tables, model: str, order: str) -> pd.DataFrame:
    """Tabulate a cascade: the mean of a measure at each step and its spread.

    Parameters
    ----------
    tables, model, order
        Which.

    Returns
    -------
    pandas.DataFrame
        ``method, metric, step, n, n_patients, mean, sd``: method empty for what the model's
        output did. One value a case and seed, the mean over targets; n: how many; sd: theirs,
        divided by n − 1; mean: over cases, of the mean over a case's seeds and targets, as in
        the summary.
    """
    scores = tables.assessment.scores
    step = scores["stage"].astype(str).str.extract(f"^{re.escape(order)}:(\\d+)$")[0]
    own = scores.assign(step=step)[(scores["model"] == model) & step.notna()]
    own = own[own["value"].notna()].astype({"step": int})
    key = ["method", "metric", "step"]
    targets = own.groupby([*key, "case", "patient", "seed", "target"], as_index=False)["value"]
    values = targets.mean()
    single = values.groupby([*key, "case", "patient", "seed"], as_index=False)["value"].mean()
    cases = values.groupby([*key, "case", "target"], as_index=False)["value"].mean()
    cases = cases.groupby([*key, "case"], as_index=False)["value"].mean()
    means = cases.groupby(key, as_index=False).agg(mean=("value", "mean"))
    ends: pd.DataFrame = single.groupby(key, as_index=False).agg(
        n=("value", "size"), n_patients=("patient", "nunique"), sd=("value", "std")
    )
    found: pd.DataFrame = means.merge(ends, on=key)
    return found[list(_COLUMNS)]


def cascade_curves(tables: Tables, model: str, order: str, metric: str) -> Drawing:
    """Draw similarity to the trained network's map against the step: a panel a method.

    Line: mean; band: one standard deviation over cases and seeds to either side; dashes: mean
    over random pairs of cases of the same method, what maps have in common that share nothing
    but the method; a panel without says so.

    Parameters
    ----------
    tables, model, order, metric
        What is drawn.

    Returns
    -------
    Drawing
        Table: ``method, metric, step, n, n_patients, mean, sd, random_pairs``.
    """
    points = cascade_points(tables, model, order)
    own = points[(points["metric"] == metric) & (points["method"] != "")]
    labels = [name for name in tables.labels if (own["method"] == name).any()]
    figure, panels, n_columns = _panels(len(labels))
    random = {name: _random_pairs(tables, model, name, metric) for name in labels}
    has_random = bool(np.isfinite(list(random.values())).any())
    low, high = _ends(own, list(random.values()))
    for at, (axes, name) in enumerate(zip(panels, labels, strict=False)):
        line = own[own["method"] == name].sort_values("step")
        _panel(axes, said(name), line["step"])
        _curve(axes, line, colour(name))
        if not np.isnan(random[name]):
            axes.axhline(random[name], color=SECOND, linewidth=1.3, linestyle=(0, (4, 3)))
        elif has_random:
            why = "random pairs: of methods only" if is_trivial(name) else "no random pairs"
            axes.text(0.03, 0.05, why, transform=axes.transAxes, fontsize=7.5, color=MUTED)
        axes.set_ylim(low, high)
        plain_ticks(axes.yaxis, (low, high))
        if at % n_columns == 0:
            axes.set_ylabel(tables.head(metric), fontsize=8.5, color=MUTED, parse_math=False)
    handles = [Line2D([], [], color=METHOD, linewidth=1.8)]
    words = ["mean ± sd over cases and seeds"]
    if has_random:
        handles.append(Line2D([], [], color=SECOND, linewidth=1.3, linestyle=(0, (4, 3))))
        words.append("random pairs of cases")
    figure.legend(
        handles, words, fontsize=8, frameon=False, labelcolor=INK, loc="upper left", ncols=2,
        borderaxespad=0.1,
    )  # fmt: skip
    return Drawing(figure, own.assign(random_pairs=own["method"].map(random)))


def output_curves(tables: Tables, model: str, order: str) -> Drawing | None:
    """Draw what the model's output did while its layers were randomised: a panel a measure.

    Parameters
    ----------
    tables, model, order
        What is drawn.

    Returns
    -------
    Drawing or None
        Table: ``metric, step, n, n_patients, mean, sd``. None if nothing tells it.
    """
    points = cascade_points(tables, model, order)
    points = points[points["method"] == ""].drop(columns="method")
    names = list(dict.fromkeys(points["metric"]))
    if not names:
        return None
    figure, panels, _ = _panels(len(names), top=0.3)
    for axes, name in zip(panels, names, strict=False):
        line = points[points["metric"] == name].sort_values("step")
        _panel(axes, tables.head(name), line["step"])
        _curve(axes, line, INK)
        plain_ticks(axes.yaxis, line["mean"])
    return Drawing(figure, points)


def reading(tables: Tables, metric: str) -> str:
    """Say how a measure is to be read when layers are randomised, by its direction.

    Parameters
    ----------
    tables
        Tell the direction and family.
    metric
        Of a map on the randomised network, against the one on the trained network.
    """
    (known,) = tables.metrics([metric])
    summary = known.summary.rstrip(".")
    if known.direction == "none":
        return (
            "How alike the map is to the trained model’s. It should fall to what maps of "
            "different cases have in common (dashes), or below; where it stays above, the map "
            "shows the image rather than the model."
        )
    goes = "rise" if known.direction == "higher" else "fall"
    return (
        f"{summary}. No similarity: {known.direction} is better. It should {goes} as the network "
        "forgets; where it does not, the map hardly tells the trained network from a random one. "
        "Dashes: the same between maps of different cases by the trained network, to compare "
        "sizes; it need not come near them."
    )


def _panels(n: int, top: float = 0.55) -> tuple[Figure, list[Axes], int]:
    """Make n panels of curves in as many rows as needed; the last value: how many a row."""
    n_rows = -(-n // _MOST_COLUMNS)
    n_columns = -(-n // n_rows)
    figure = blank(max(0.3 + 2.6 * n_columns, 4.0), top - 0.25 + 2.2 * n_rows)
    panels = panels_of(figure, n_rows, n_columns, 0.55, (2.15, 1.5), (0.45, 0.7), top)
    for axes in panels[n:]:
        axes.remove()
    return figure, panels[:n], n_columns


def areas(tables: Tables, model: str, order: str) -> dict[str, Any] | None:
    """Give the mean over each cascade's steps as a table: methods against measures."""
    own = tables.summary(model, stage=order)
    metrics = tables.metrics(list(own["metric"]))
    if not metrics:
        return None
    known = {(row["method"], row["metric"]): spread(row) for row in own.to_dict("records")}
    labels = [name for name in tables.labels if name in set(own["method"])]
    return {
        "heads": [
            {"text": tables.head(metric.name), "summary": metric.summary} for metric in metrics
        ],
        "rows": [
            {"label": said(name), "cells": [known.get((name, m.name), "") for m in metrics]}
            for name in labels
        ],
    }


def _random_pairs(tables: Tables, model: str, method: str, metric: str) -> float:
    """Mean over random pairs of cases, as the checks take it; NaN without."""
    rows = tables.scores(model, RANDOM_PAIRS)
    return float(rows[(rows["method"] == method) & (rows["metric"] == metric)]["value"].mean())


def _ends(points: pd.DataFrame, more: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the axis that all panels share: everything that is drawn, and 0 and 1."""
    beside = points["sd"].fillna(0.0)
    values = [0.0, 1.0, *(points["mean"] - beside), *(points["mean"] + beside), *more]
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def _panel(axes: Axes, title: str, numbers: pd.Series[int]) -> None:
    frame_axes(axes)
    axes.set_title(title, loc="left", fontsize=9, color=INK, parse_math=False)
    axes.set_xlim(-0.15, max(1, int(numbers.max())) + 0.15)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("step", fontsize=8, color=MUTED, labelpad=1)


def _curve(axes: Axes, line: pd.DataFrame, shade: str) -> None:
    axes.plot(line["step"], line["mean"], color=shade, marker="o", markersize=3.4, linewidth=1.6)
    low, high = line["mean"] - line["sd"], line["mean"] + line["sd"]
    axes.fill_between(
        line["step"], low, high, where=line["sd"].notna().to_numpy(), color=shade, alpha=0.15,
        linewidth=0,
    )  # fmt: skip
