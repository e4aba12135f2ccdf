"""Box plots of an assessment: scores by method, and maps of different models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from voxplain.records.assessment import RANDOM_PAIRS, REPEAT, REPRODUCE
from voxplain.report.assess_panels import panels_of, plain_ticks, text_width
from voxplain.report.assess_tables import METHOD, SECOND, Tables, colour, said
from voxplain.report.colours import INK
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.report.lesion_figure import frame_axes
from voxplain.study.score_summary import case_means, case_values

PREVALENCE = {
    "average_precision": "prevalence", "pointing_game": "prevalence",
    "energy_in_mask": "prevalence", "average_precision_outside": "prevalence_outside",
    "energy_in_mask_outside": "prevalence_outside",
}  # fmt: skip
"""Metrics for which a map without meaning reaches, in the mean, the share of the mask."""

CHANCE = {
    "auroc": 0.5, "auroc_outside": 0.5, "normalised_average_precision": 0.0,
    "normalised_average_precision_outside": 0.0,
}  # fmt: skip
"""What a map without meaning reaches in other metrics."""

_QUARTILES = ("n", "lower_quartile", "median", "upper_quartile", "mean")
_N_POINTS = 200  # more of them are a blot
_N_COLUMNS = 3
_ROW = 0.27  # inches of a method
_WIDE = 20.0  # ratio of largest to smallest from which a cost is drawn on a logarithmic axis

Floats = NDArray[np.float64]


def family_boxes(tables: Tables, model: str, family: str) -> Drawing | None:
    """Draw the scores of one model's maps: a panel a metric, a box a method.

    A case has one value, the mean over its targets, as in the summary. Dashes: chance. Metrics
    of the same methods stand beside each other; a method without a value has no row.

    Parameters
    ----------
    tables, model, family
        What is drawn. The share of the mask is the line of chance and has no panel.

    Returns
    -------
    Drawing or None
        Table: ``metric, method, n, lower_quartile, median, upper_quartile, mean, chance``. None
        if nothing has a value.
    """
    means = case_means(case_values(tables.scores(model)))
    means = means[means["value"].notna()]
    metrics = [
        metric.name
        for metric in tables.metrics(list(means["metric"]))
        if metric.family == family and metric.name not in set(PREVALENCE.values())
    ]
    if not metrics:
        return None
    known = set(zip(means["method"], means["metric"], strict=True))
    blocks: dict[tuple[str, ...], list[str]] = {}
    for metric in metrics:
        own = tuple(name for name in tables.labels if (name, metric) in known)
        blocks.setdefault(own, []).append(metric)
    left = text_width(said(name) for labels in blocks for name in labels)
    n_columns = min(_N_COLUMNS, max(map(len, blocks.values())))
    highs = [0.75 + _ROW * len(labels) for labels in blocks]  # of a row of panels
    n_rows = [-(-len(block) // n_columns) for block in blocks.values()]
    size = sum(high * n for high, n in zip(highs, n_rows, strict=True))
    figure = blank(left + 3.0 * n_columns, size)
    table, start = [], 0.0
    for (labels, block), high, n in zip(blocks.items(), highs, n_rows, strict=True):
        panels = panels_of(
            figure, n, n_columns, left, (2.75, high - 0.75), (0.25, 0.75), start + 0.32,
            sharey=True,
        )  # fmt: skip
        start += high * n
        for axes in panels[len(block) :]:
            axes.remove()
        for axes, metric in zip(panels, block, strict=False):
            table += _panel(axes, tables, means[means["metric"] == metric], labels, means)
    columns = ["metric", "method", *_QUARTILES, "chance"]
    return Drawing(figure, pd.DataFrame(table, columns=columns))


def _panel(
    axes: Axes, tables: Tables, own: pd.DataFrame, labels: Sequence[str], means: pd.DataFrame
) -> list[tuple[Any, ...]]:
    """Draw the boxes of one metric; return its rows of the table."""
    metric = str(own["metric"].iloc[0])
    samples = {name: _values(own[own["method"] == name]) for name in labels}
    chance = _chance(means, metric)
    _rows_of_boxes(axes, labels, [(samples, 0.0, 0.6)])
    values = np.concatenate(list(samples.values()))
    is_cost = any(m.family == "efficiency" for m in tables.metrics([metric]))
    if not (is_cost and _stretch(axes, values)):
        plain_ticks(axes.xaxis, values)
    if chance is not None:
        axes.axvline(chance, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.set_title(
        tables.head(metric), loc="left", fontsize=9, color=INK, parse_math=False, wrap=True
    )
    end = np.nan if chance is None else chance
    return [(metric, name, *_five(sample), end) for name, sample in samples.items()]


def pair_boxes(tables: Tables, metric: str) -> Drawing | None:
    """Draw how alike the maps of two models are: two boxes a method.

    One value a case and pair of models, the mean over targets; bar: the mean over random pairs
    of cases.

    Parameters
    ----------
    tables, metric
        What is drawn.

    Returns
    -------
    Drawing or None
        Table: ``stage, method, n, lower_quartile, median, upper_quartile, mean``; for random
        pairs n counts scores. None if nothing has a value.
    """
    scores = tables.assessment.scores
    rows = scores[(scores["metric"] == metric) & (scores["method"] != "") & scores["value"].notna()]
    key = ["stage", "method", "case", "model", "against"]
    pairs = rows[rows["stage"].isin([REPEAT, REPRODUCE])]
    means = pairs.groupby(key, sort=True, as_index=False).agg(value=("value", "mean"))
    labels = [name for name in tables.labels if (means["method"] == name).any()]
    if not labels:
        return None
    stages = {
        stage: shade
        for stage, shade in ((REPEAT, METHOD), (REPRODUCE, SECOND))
        if (means["stage"] == stage).any()
    }
    random = rows[rows["stage"] == RANDOM_PAIRS]
    left, high = text_width(map(said, labels)), 0.42 * len(labels)
    figure = blank(left + 7.2, 0.95 + high)
    axes = panels_of(figure, 1, 1, left, (7.0, high), (0.2, 0.95))[0]
    height = 0.66 / len(stages)
    groups, shades, table = [], [], []
    for i, (stage, shade) in enumerate(stages.items()):
        own = means[means["stage"] == stage]
        samples = {name: _values(own[own["method"] == name]) for name in labels}
        groups.append((samples, (i - (len(stages) - 1) / 2) * height, 0.8 * height))
        shades.append(shade)
        table += [(stage, name, *_five(sample)) for name, sample in samples.items() if len(sample)]
    _rows_of_boxes(axes, labels, groups, shades)
    handles: list[Any] = [Line2D([], [], color=shade, linewidth=5) for shade in stages.values()]
    names = list(stages)
    for at, name in enumerate(labels):
        sample = _values(random[random["method"] == name])
        if len(sample):
            axes.plot([sample.mean()] * 2, [at - 0.42, at + 0.42], color=INK, linewidth=1.6)
            table.append((RANDOM_PAIRS, name, *_five(sample)))
    if len(random):
        handles.append(Line2D([], [], color=INK, linewidth=1.6))
        names.append("mean of random pairs of cases")
    axes.set_xlabel(tables.head(metric), fontsize=8.5, color=MUTED, parse_math=False)
    axes.legend(
        handles, names, fontsize=8, frameon=False, labelcolor=INK, loc="lower left", ncols=3,
        bbox_to_anchor=(0, 1.0), borderaxespad=0.2,
    )  # fmt: skip
    return Drawing(figure, pd.DataFrame(table, columns=["stage", "method", *_QUARTILES]))


def _rows_of_boxes(
    axes: Axes,
    labels: Sequence[str],
    groups: Sequence[tuple[Mapping[str, Floats], float, float]],
    shades: Sequence[str] | None = None,
) -> None:
    """Draw lying boxes; a group has samples by label, a place beside the row, and a height."""
    frame_axes(axes)
    axes.use_sticky_edges = False  # a bar's foot is a quartile here, no end of the axis
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#e3e7ec", linewidth=0.7)
    for i, (samples, beside, height) in enumerate(groups):
        shade_of = [colour(name) if shades is None else shades[i] for name in labels]
        boxes = [
            (at + beside, samples[name], shade)
            for at, (name, shade) in enumerate(zip(labels, shade_of, strict=True))
        ]
        _lying_boxes(axes, boxes, height)
    axes.set_yticks(range(len(labels)), [said(name) for name in labels], parse_math=False)
    axes.set_ylim(len(labels) - 0.4, -0.6)


def _lying_boxes(axes: Axes, samples: Sequence[tuple[float, Floats, str]], height: float) -> None:
    """Draw quartiles, median and whiskers, from three values on, and every value.

    Parameters
    ----------
    axes
        Drawn on.
    samples
        Place, values and colour of each.
    height
        Of a box.
    """
    boxed = [(at, values, shade) for at, values, shade in samples if len(values) > 2]
    if boxed:
        places = np.array([at for at, _, _ in boxed])
        shades = [shade for _, _, shade in boxed]
        lows, middles, highs = np.array(
            [np.quantile(values, [0.25, 0.5, 0.75]) for _, values, _ in boxed]
        ).T
        reaches = 1.5 * (highs - lows)
        inside = [
            values[(values >= low - reach) & (values <= high + reach)]
            for (_, values, _), low, high, reach in zip(boxed, lows, highs, reaches, strict=True)
        ]
        axes.barh(
            places, highs - lows, left=lows, height=height, linewidth=1.0, edgecolor=shades,
            color=[f"{shade}2b" for shade in shades],
        )  # fmt: skip
        axes.hlines(places, [one.min() for one in inside], lows, colors=shades, linewidth=1.0)
        axes.hlines(places, highs, [one.max() for one in inside], colors=shades, linewidth=1.0)
        half = height / 2
        axes.vlines(middles, places - half, places + half, colors=shades, linewidth=2.0)
    for at, values, shade in samples:
        if len(values) <= _N_POINTS:
            # spread in the golden ratio: no two neighbours in order lie on each other
            spread = ((np.arange(len(values)) * 0.618034) % 1 - 0.5) * height * 0.6
            axes.scatter(values, at + spread, s=9, color=shade, alpha=0.75, linewidths=0, zorder=3)


def _stretch(axes: Axes, values: Floats) -> bool:
    """Use a logarithmic axis where costs differ widely, and say whether it was done."""
    is_wide = bool(values.min() > 0 and values.max() > _WIDE * values.min())
    if is_wide:
        axes.set_xscale("log")
        axes.set_xlim(values.min() / 1.5, values.max() * 1.5)
    return is_wide


def _chance(means: pd.DataFrame, metric: str) -> float | None:
    """Return what a map without meaning reaches; of a share of the mask the mean over cases."""
    if metric in CHANCE:
        return CHANCE[metric]
    shares = means[means["metric"] == PREVALENCE.get(metric)]
    if shares.empty:
        return None
    return float(shares.groupby("case")["value"].mean().mean())


def _values(rows: pd.DataFrame) -> Floats:
    return rows["value"].to_numpy(dtype=np.float64)


def _five(values: Floats) -> tuple[int, float, float, float, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return len(values), float(low), float(middle), float(high), float(values.mean())
