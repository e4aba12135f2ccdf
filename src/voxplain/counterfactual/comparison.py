"""The overlap of every method's masks with the lesions, by the same rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.counterfactual.config import EvaluationConfig, PostFilterConfig
from voxplain.counterfactual.mask import mask_of
from voxplain.counterfactual.overlap import (
    METRICS,
    THRESHOLDS,
    Counts,
    OverlapDraws,
    mask_counts,
    overlap,
    overlap_row,
    threshold_counts,
    tuned,
)
from voxplain.counterfactual.slices import Slices
from voxplain.records.counterfactual_evaluation import (
    CLASSIFIER,
    JUDGE,
    TABLES,
    TEST,
    VALIDATION,
)
from voxplain.study.bootstrap import PatientDraws

N_PICTURES = 8
_COARSE = 5  # with a post filter every so-manyth threshold is tried

Masks = NDArray[np.bool_]
Maps = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Scored:
    """A method's maps of abnormal test slices and of validation slices with a known lesion.

    ``asked_as``: the text of ``evaluation.methods`` that gives it, of attribution methods.
    """

    name: str
    kind: str
    test: Maps
    validation: Maps
    fixed: float
    seconds: float = 0.0
    n_forward: int = 0
    n_backward: int = 0
    asked_as: str = ""


class Comparison:
    """Measures method after method on the same slices, and collects their rows.

    Parameters
    ----------
    config
        Thresholds, post filter, draws.
    abnormal, normal
        Slices of the test part.
    validation
        Abnormal slices of the validation part.
    seed
        Of the draws of patients.

    Attributes
    ----------
    known_validation
        Validation slices whose lesion is known: what thresholds are tuned on.
    rows
        Of each table.
    pictures
        See `voxplain.records.counterfactual_evaluation.Evaluation`.
    """

    def __init__(
        self, config: EvaluationConfig, abnormal: Slices, normal: Slices, validation: Slices,
        seed: int,
    ) -> None:  # fmt: skip
        self.config, self.abnormal, self.normal = config, abnormal, normal
        self.known = _has_truth(abnormal)
        self.known_validation = validation.at(np.flatnonzero(_has_truth(validation)))
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        self.seconds: dict[str, float] = {}
        self.table = pd.concat([abnormal.table, normal.table], ignore_index=True)
        self.labels = np.repeat([1, 0], [len(abnormal), len(normal)])
        self.images = np.concatenate([abnormal.images, normal.images])
        patients = abnormal.table["patient"].to_numpy()[self.known]
        self.draws = OverlapDraws(patients, config.n_boot, seed) if len(patients) else None
        self.all_draws = PatientDraws([str(p) for p in self.table["patient"]], config.n_boot, seed)
        self.before: dict[str, NDArray[np.float64]] = {}
        """Probabilities of all slices as they are, by `CLASSIFIER` and `JUDGE`."""
        self.counts: dict[str, Counts] = {}  # at the tuned threshold
        places = np.flatnonzero(self.known) if self.known.any() else np.arange(len(abnormal))
        spread = np.linspace(0, len(places) - 1, min(N_PICTURES, len(places)))
        self.shown = places[spread.round().astype(int)]
        shown = abnormal.at(self.shown)
        self.pictures: dict[str, NDArray[Any]] = {
            "slice": self.shown, "image": shown.images[:, 0], "truth": shown.truth,
            "organ": shown.organ, "inside": shown.inside,
        }  # fmt: skip
        if shown.clean is not None:
            self.pictures["clean"] = shown.clean[:, 0]

    def add(
        self,
        scored: Scored,
        answers: Mapping[str, NDArray[np.float64]] | None = None,
        change: NDArray[np.float32] | None = None,
    ) -> dict[str, Any]:
        """Measure the overlap of one method's masks; returns its row of the table methods."""
        post, truth = self.config.post_filter, self.abnormal.truth[self.known]
        levels = _levels(post)
        notes, best, at_best, value = [], np.nan, None, np.nan
        if not self.known.any():
            notes.append("no lesion is known in the test slices")
        if len(self.known_validation):
            known = self.known_validation.truth
            counts = _counts(scored.validation, known, levels, post)
            best, value = _best(levels, counts)
            self._curve(scored.name, VALIDATION, levels, counts)
        else:
            notes.append("no lesion is known in the validation slices, so no threshold is tuned")
        if np.isnan(scored.fixed):
            notes.append("the paper fixes no threshold for it")
        at_fixed = self._counts_at(scored, scored.fixed)
        if self.known.any():
            self._curve(
                scored.name, TEST, levels, _counts(scored.test[self.known], truth, levels, post)
            )
            at_best = self._counts_at(scored, best)
        if at_best is not None:
            self.counts[scored.name] = at_best
        row = {
            "method": scored.name, "kind": scored.kind, "n_slices": int(self.known.sum()),
            "n_patients": 0 if self.draws is None else self.draws.n_patients,
            "threshold_tuned": best, **overlap_row(at_best, self.draws, "tuned"),
            "threshold_fixed": scored.fixed, **overlap_row(at_fixed, self.draws, "fixed"),
            "iou_validation": value, "seconds": scored.seconds, "n_forward": scored.n_forward,
            "n_backward": scored.n_backward, "asked_as": scored.asked_as,
            "note": "; ".join(notes),
        }  # fmt: skip
        self.rows["methods"].append(row)
        self.seconds[scored.name] = scored.seconds
        self._tell_slices(scored.name, at_fixed if at_best is None else at_best, answers, change)
        self.pictures[f"map/{scored.name}"] = scored.test[self.shown]
        level = first_finite(best, scored.fixed)
        if np.isfinite(level):
            self.pictures[f"mask/{scored.name}"] = mask_of(scored.test[self.shown], level, post)
        return row

    def compare(self) -> None:
        """Take the differences of the best generator and every other method."""
        found = [row for row in self.rows["methods"] if row["method"] in self.counts]
        own = [row for row in found if row["kind"] == "counterfactual"]
        if not own or self.draws is None:
            return
        best = max(own, key=lambda row: row["iou_validation"])["method"]
        for row in found:
            rival = row["method"]
            if rival == best:
                continue
            for metric in METRICS:
                for word, per_slice in (("", False), ("_mean", True)):
                    difference, low, high = self.draws.difference(
                        self.counts[best], self.counts[rival], metric, per_slice=per_slice
                    )
                    self.rows["differences"].append({
                        "method": best, "rival": rival, "metric": f"{metric}{word}_tuned",
                        "difference": difference, "low": low, "high": high,
                    })  # fmt: skip

    def _counts_at(self, scored: Scored, level: float) -> Counts | None:
        if np.isnan(level) or not self.known.any():
            return None
        masks = mask_of(scored.test[self.known], level, self.config.post_filter)
        return mask_counts(masks, self.abnormal.truth[self.known])

    def _curve(self, name: str, part: str, levels: Maps, counts: Counts) -> None:
        summed = counts.sum(0)
        values = zip(levels, overlap(summed, "iou"), overlap(summed, "dice"), strict=True)
        self.rows["curves"] += [
            {
                "method": name,
                "part": part,
                "threshold": round(float(t), 6),
                "iou": iou,
                "dice": dice,
            }
            for t, iou, dice in values
        ]

    def _tell_slices(
        self, name: str, counts: Counts | None, answers: Mapping[str, NDArray[np.float64]] | None,
        change: NDArray[np.float32] | None,
    ) -> None:  # fmt: skip
        n = len(self.abnormal) if answers is None else len(self.table)
        each = np.full((2, n), np.nan)
        if counts is not None:
            each[:, np.flatnonzero(self.known)] = [overlap(counts, m) for m in METRICS]
        told = {
            "iou": each[0], "dice": each[1],
            "change": np.full(n, np.nan) if change is None else change,
        }  # fmt: skip
        for by, word in ((CLASSIFIER, "probability"), (JUDGE, "judge")):
            is_asked = by in self.before
            told[f"{word}_before"] = self.before[by][:n] if is_asked else np.full(n, np.nan)
            found = (answers or {}).get(by)
            told[f"{word}_after"] = np.full(n, np.nan) if found is None else found
        frame = self.table[:n][["case", "patient", "index"]].assign(
            method=name, slice=range(n), label=self.labels[:n], **told
        )
        self.rows["slices"] += [
            {str(column): value for column, value in row.items()}
            for row in frame.to_dict("records")
        ]


def tuned_threshold(scores: Maps, truth: Masks, post: PostFilterConfig) -> float:
    """Return the threshold whose masks, after the post filter, have the largest pooled IoU.

    Parameters
    ----------
    scores
        (n, rows, columns) of validation slices.
    truth
        Their lesions, each with at least one pixel.
    post
        What is done to masks.
    """
    levels = _levels(post)
    return _best(levels, _counts(scores, truth, levels, post))[0]


def _best(levels: Maps, counts: Counts) -> tuple[float, float]:
    """Threshold of the largest pooled IoU, and that IoU."""
    chosen = tuned(counts)
    # 0.26, not the float32's 0.25999999
    return round(float(levels[chosen]), 6), float(overlap(counts[:, chosen].sum(0), "iou"))


def _levels(post: PostFilterConfig) -> Maps:
    return THRESHOLDS if post == PostFilterConfig() else THRESHOLDS[::_COARSE]


def _counts(scores: Maps, truth: Masks, levels: Maps, post: PostFilterConfig) -> Counts:
    """Count (n, k, 3); after a post filter mask by mask."""
    if post == PostFilterConfig():
        return threshold_counts(scores, truth, levels)
    return np.stack([mask_counts(mask_of(scores, float(t), post), truth) for t in levels], axis=1)


def first_finite(*values: float) -> float:
    """Return the first value that is a number; NaN if none is."""
    return next((value for value in values if np.isfinite(value)), np.nan)


def _has_truth(slices: Slices) -> Masks:
    """Whether each slice's lesion is known; an abnormal slice without one is not known."""
    return np.asarray(slices.truth.any(axis=(1, 2)))
