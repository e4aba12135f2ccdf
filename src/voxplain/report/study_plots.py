"""Figures of a study of lesions: features by type, curves of the error detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from voxplain.report.colours import INK
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.report.lesion_figure import frame_axes
from voxplain.report.lesion_plots import draw_box
from voxplain.report.lesion_types import in_order, style
from voxplain.report.wording import number

FEATURES = {
    "peak_positive": "largest positive value",
    "peak_negative": "largest negative value",
    "share": "share of the channel",
}
"""Features that are drawn, in their order, and their words."""

_BOXES = (
    "channel", "feature", "type", "n", "lower_quartile", "median", "upper_quartile",
    "cliffs_delta", "low", "high", "p_holm",
)  # fmt: skip
_NO_EFFECT = (np.nan,) * 4
_POINTS = ("predictor", "threshold", "false_alarm_rate", "hit_rate", "precision")
_COLOURS = {
    "probability_mean": "#3d4854",
    "probability_max": "#8b949e",
    "saliency": "#0072b2",
    "saliency + probability": "#d55e00",
}
_OTHERS = ("#009e73", "#b8579a", "#e69f00", "#56b4e9")


class _Effect(NamedTuple):
    """Cliff's delta of TP over FP, its interval, and the corrected p."""

    delta: float
    low: float
    high: float
    p: float

    @property
    def words(self) -> str:
        ends = "" if np.isnan(self.low) else f" ({self.low:.2f} to {self.high:.2f})"
        chance = "not tested" if np.isnan(self.p) else f"p {number(self.p, 2)}"
        return f"TP over FP: δ {self.delta:.2f}{ends}\n{chance}".replace("-", "−")


def feature_boxes(values: pd.DataFrame, effects: pd.DataFrame | None = None) -> Drawing:
    """Draw how features of lesions are distributed by type, for each channel.

    Boxes: quartiles and median; whiskers: the outermost lesion within 1.5 times the box; every
    lesion is a point.

    Parameters
    ----------
    values
        Of one model and method: columns `voxplain.study.feature_values.VALUES`. Features other
        than `FEATURES`, and lesions without a value, are left out.
    effects
        Of the same model and method: columns `voxplain.study.lesion_tests.EFFECTS`. TP against
        FP is written above its boxes; None: nothing is.

    Returns
    -------
    Drawing
        Table: ``channel, feature, type, n, lower_quartile, median, upper_quartile,
        cliffs_delta, low, high, p_holm``; the last four, of TP over FP, in the row of FP.
    """
    channels = list(dict.fromkeys(values["channel"]))
    features = [name for name in FEATURES if (values["feature"] == name).any()]
    types = in_order(values["type"])
    width = max(2.7, 0.55 * len(types) + 1.0) * len(features)
    figure = blank(min(10.8, max(4.6, width)), 2.9 * len(channels))
    panels = figure.subplots(len(channels), len(features), squeeze=False)
    table: list[tuple[object, ...]] = []
    for axes, (channel, feature) in zip(
        panels.flat, ((c, f) for c in channels for f in features), strict=True
    ):
        own = values[(values["channel"] == channel) & (values["feature"] == feature)]
        effect = _effect(effects, channel, feature)
        samples = {t: _finite(own[own["type"] == t]["value"]) for t in types}
        for kind, sample in samples.items():
            quartiles = np.quantile(sample, [0.25, 0.5, 0.75]) if len(sample) else [np.nan] * 3
            beside = effect if effect is not None and kind == "FP" else _NO_EFFECT
            table.append((channel, feature, kind, len(sample), *quartiles, *beside))
        _draw_boxes(axes, samples)
        title = f"{channel}, {FEATURES[feature]}"
        axes.set_title(
            title, loc="left", fontsize=9, color=INK, parse_math=False, pad=31 if effect else 6
        )
        if effect is not None:
            axes.text(
                0, 1.04, effect.words, transform=axes.transAxes, fontsize=8, color=MUTED,
                parse_math=False,
            )  # fmt: skip
        unit = (
            "share of Σ|values| of all channels" if feature == "share" else str(own["unit"].iloc[0])
        )
        axes.set_ylabel(unit, fontsize=8.5, color=MUTED, parse_math=False)
    figure.tight_layout(w_pad=1.6, h_pad=1.4)
    return Drawing(figure, pd.DataFrame(table, columns=list(_BOXES)))


def _draw_boxes(axes: Axes, samples: dict[str, np.ndarray]) -> None:
    frame_axes(axes)
    for at, (kind, sample) in enumerate(samples.items()):
        if len(sample):
            draw_box(axes, sample, at, style(kind).colour)
    axes.axhline(0.0, color=MUTED, linewidth=0.7)
    axes.set_xlim(-0.6, len(samples) - 0.4)
    names = [f"{kind}\n{len(sample)}" for kind, sample in samples.items()]
    axes.set_xticks(range(len(samples)), names, parse_math=False)


def _effect(effects: pd.DataFrame | None, channel: str, feature: str) -> _Effect | None:
    if effects is None:
        return None
    row = effects[
        (effects["channel"] == channel) & (effects["feature"] == feature)
        & (effects["type_a"] == "TP") & (effects["type_b"] == "FP")
    ]  # fmt: skip
    names = ("cliffs_delta", "low", "high", "p_holm")
    return _Effect(*(float(row[name].iloc[0]) for name in names)) if len(row) else None


def _finite(values: pd.Series[float]) -> np.ndarray:
    found = values.to_numpy(dtype=np.float64)
    return found[np.isfinite(found)]


def detector_curves(roc: pd.DataFrame, pr: pd.DataFrame, detector: pd.DataFrame) -> Drawing:
    """Draw ROC and precision–recall curves of an error detector and its baselines.

    The positive class is the false positive. Precision is drawn as steps, whose area is the
    average precision. Dashes: what chance gives, the diagonal and the share of false positives.

    Parameters
    ----------
    roc, pr, detector
        Of one model and method: columns `ROC`, `PR` and `DETECTOR` of
        `voxplain.study.error_detector`.

    Returns
    -------
    Drawing
        Table: ``predictor, threshold, false_alarm_rate, hit_rate, precision``, a row a
        threshold; recall is the hit rate.
    """
    known = detector[detector["auroc"].notna()]
    colours = _colours(list(known["predictor"]))
    height = 5.5 + 0.2 * len(known)
    figure = blank(9.6, height)
    # tight_layout does not see that equal axes shrink; the legends take what is below them
    below = (height - 4.4) / height
    left, right = figure.subplots(
        1, 2, gridspec_kw={"left": 0.07, "right": 0.99, "bottom": below, "top": 0.94, "wspace": 0.2}
    )
    for axes in (left, right):
        frame_axes(axes)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_aspect("equal")
    left.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    for prevalence in known["prevalence"].unique():
        right.axhline(prevalence, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    for name, colour in colours.items():
        line: dict[str, Any] = {"color": colour, "linewidth": 1.7}
        points = roc[roc["predictor"] == name]
        left.plot(points["false_alarm_rate"], points["hit_rate"], **line)
        points = pr[pr["predictor"] == name]
        # a step is as high as the precision at its right end; so is the first, from recall 0
        recall = [0.0, *points["recall"]]
        precision = [*points["precision"].head(1), *points["precision"]]
        right.plot(recall[-len(precision) :], precision, drawstyle="steps-pre", **line)
    records = known.to_dict("records")
    for axes, title, x, y, key, ends, words in (
        (left, "ROC", "false alarms, share of true positives", "hits, share of false positives",
         "auroc", "auroc", "AUROC"),
        (right, "Precision and recall", "recall, share of false positives found",
         "precision, share of those found that are false", "precision_average", "precision",
         "average precision"),
    ):  # fmt: skip
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        axes.set_xlabel(x, fontsize=8.5, color=MUTED)
        axes.set_ylabel(y, fontsize=8.5, color=MUTED)
        said = [f"{r['predictor']}: {_quality(r, key, ends)}" for r in records]
        _legend(axes, list(colours.values()), [*said, _chance(key, known)], words)
    return Drawing(figure, _points(roc, pr, list(colours)))


def _colours(names: Sequence[str]) -> dict[str, str]:
    strange = [name for name in names if name not in _COLOURS]
    spare = {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(strange)}
    return {name: _COLOURS.get(name) or spare[name] for name in names}


def _quality(row: dict[Any, Any], key: str, ends: str) -> str:
    low, high = float(row[f"{ends}_low"]), float(row[f"{ends}_high"])
    interval = "no interval" if np.isnan(low) or np.isnan(high) else f"{low:.2f} to {high:.2f}"
    return f"{row[key]:.2f} ({interval})"


def _chance(key: str, known: pd.DataFrame) -> str:
    if key == "auroc":
        return "chance: 0.50"
    shares = ", ".join(f"{p:.2f}" for p in known["prevalence"].unique())
    return f"chance: {shares}, the share of false positives"


def _legend(axes: Axes, colours: Sequence[str], said: Sequence[str], title: str) -> None:
    lines = [Line2D([], [], color=colour, linewidth=1.7) for colour in colours]
    dashes = Line2D([], [], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    legend = axes.legend(
        [*lines, dashes], said, title=f"{title} (interval)", fontsize=8.5, title_fontsize=8.5,
        alignment="left", frameon=False, labelcolor=INK, loc="upper left",
        bbox_to_anchor=(-0.02, -0.13), borderaxespad=0.0,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _points(roc: pd.DataFrame, pr: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Both curves in one table: they share their thresholds, and recall is the hit rate."""
    rates = pr.rename(columns={"recall": "hit_rate"})
    key = ["predictor", "threshold"]
    both = roc[[*key, "false_alarm_rate", "hit_rate"]].merge(
        rates[[*key, "hit_rate", "precision"]], on=key, how="outer", suffixes=("", "_of_pr")
    )
    both["hit_rate"] = both["hit_rate"].fillna(both["hit_rate_of_pr"])
    both["place"] = both["predictor"].map({name: i for i, name in enumerate(names)})
    ordered = both.sort_values(["place", "threshold"], ascending=[True, False])
    return ordered[list(_POINTS)].reset_index(drop=True)
