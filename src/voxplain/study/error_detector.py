"""Is saliency an error detector: false positives told from true ones, for patients not seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.records.lesion_tables import INSTANCES, SALIENCY, SHELLS, check_columns
from voxplain.study.bootstrap import PatientDraws, check_level, interval
from voxplain.study.error_folds import Floats, detector_features, held_out_scores, patient_folds

DETECTOR = (
    "model", "method", "predictor", "n_fp", "n_tp", "n_patients", "n_folds", "n_features",
    "n_filled", "auroc", "auroc_low", "auroc_high", "precision_average", "precision_low",
    "precision_high", "prevalence", "auroc_gain", "auroc_gain_low", "auroc_gain_high",
    "precision_gain", "precision_gain_low", "precision_gain_high", "level", "note",
)  # fmt: skip
"""One row a model, method and predictor. The positive class is the false positive.
precision_average of a useless detector is the prevalence; gains are over `BASELINE`; n_filled:
missing features that were filled; note: why there is nothing else."""

ROC = ("model", "method", "predictor", "threshold", "false_alarm_rate", "hit_rate")
"""One row a threshold. hit_rate: share of false positives with a score at or above it;
false_alarm_rate: of true positives."""

PR = ("model", "method", "predictor", "threshold", "recall", "precision")
"""One row a threshold. precision: share of false positives among lesions at or above it."""

SCORES = ("model", "method", "predictor", "case", "patient", "instance", "type", "fold", "score")
"""One row a lesion and predictor: its score when its patient was not trained on. fold: from 1."""

BASELINE = "probability_mean"
PREDICTORS = (BASELINE, "probability_max", "saliency", "saliency + probability")
"""Two that need no training, low probability being suspect, and two that are trained."""

_PROBABILITIES = ("probability_mean", "probability_max")


class ErrorDetector(NamedTuple):
    """Tables of a detector; columns `DETECTOR`, `ROC`, `PR`, `SCORES`."""

    detector: pd.DataFrame
    roc: pd.DataFrame
    pr: pd.DataFrame
    scores: pd.DataFrame


def error_detector(
    instances: pd.DataFrame,
    saliency: pd.DataFrame,
    shells: pd.DataFrame,
    *,
    methods: Sequence[str] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> ErrorDetector:
    """Predict which predicted lesions are false, from saliency and from plain probability.

    Parameters
    ----------
    instances, saliency, shells
        From `voxplain.study.gather.gather`. Only TP and FP lesions are used: missed lesions,
        controls and under-segmented ones are not errors of this kind.
    methods
        As in `saliency`; None: all.
    n_boot, seed
        Draws of whole patients behind the intervals; the seed also shuffles the folds.
    level
        Of the intervals.

    Returns
    -------
    ErrorDetector
        For each model and method. A detector that cannot be trained is a row with a reason in
        ``note``.

    Raises
    ------
    DataError
        If `n_boot` or `level` is out of its range.
    LabelError
        If a column is missing.

    Notes
    -----
    Trained predictors: logistic regression with L2 penalty and balanced classes on standardised
    features, trained on the other folds; see `voxplain.study.error_folds`. All lesions' held-out
    scores are pooled into one curve. Probabilities are taken as they are, negated.

    Intervals draw patients with their held-out scores and do not train again. The folds share
    what they were trained on, so that scores of a useless detector vary more than that from
    study to study; intervals of trained predictors, and of their gains, are therefore widened
    by √(1 + k/(k − 1)), k folds (Nadeau and Bengio, Machine Learning 52, 2003: variance
    1/k + n_test/n_train in place of 1/k). A good detector varies less, and its interval is then
    too wide rather than too narrow.
    """
    for frame, columns, name in (
        (instances, INSTANCES, "instances"), (saliency, SALIENCY, "saliency"),
        (shells, SHELLS, "shells"),
    ):  # fmt: skip
        check_columns(frame, columns, name)
    check_level(level)
    known = saliency if methods is None else saliency[saliency["method"].isin(methods)]
    rows: dict[str, list[Any]] = {"detector": [], "roc": [], "pr": [], "scores": []}
    for names, maps in known.groupby(["model", "method"], sort=False):
        model, method = map(str, names)
        key = {"model": model, "method": method}
        lesions = instances[
            (instances["model"] == model) & instances["type"].isin(["TP", "FP"])
        ].sort_values(["case", "instance"])
        around = shells[(shells["model"] == model) & (shells["method"] == method)]
        features = detector_features(maps, around)
        # lesions that this method did not explain have no place in its comparison
        lesions = lesions[
            pd.MultiIndex.from_frame(lesions[["case", "instance"]]).isin(features.index)
        ]
        found = _one(lesions, features, n_boot, seed, level)
        for name, table in found.items():
            rows[name] += [{**key, **row} for row in table]
    return ErrorDetector(
        pd.DataFrame(rows["detector"], columns=list(DETECTOR)),
        pd.DataFrame(rows["roc"], columns=list(ROC)),
        pd.DataFrame(rows["pr"], columns=list(PR)),
        pd.DataFrame(rows["scores"], columns=list(SCORES)),
    )


def _one(
    lesions: pd.DataFrame, features: pd.DataFrame, n_boot: int, seed: int, level: float
) -> dict[str, list[dict[str, Any]]]:
    is_false = (lesions["type"] == "FP").to_numpy()
    patient = lesions["patient"].to_numpy(str)
    same = {
        "n_fp": int(is_false.sum()), "n_tp": int((~is_false).sum()),
        "n_patients": len(np.unique(patient)), "level": level,
    }  # fmt: skip
    obstacle = _obstacle(is_false, patient)
    if obstacle:
        rows = [{**same, "predictor": name, "note": obstacle} for name in PREDICTORS]
        return {"detector": rows, "roc": [], "pr": [], "scores": []}
    folds = patient_folds(is_false, patient, seed)
    fold = np.zeros(len(lesions), int)
    for i, (_, held_out) in enumerate(folds, 1):
        fold[held_out] = i
    draws = PatientDraws(patient.tolist(), n_boot, seed)
    about: list[dict[str, Any]] = [
        {str(column): value for column, value in row.items()}
        for row in lesions[["case", "patient", "instance", "type"]].to_dict("records")
    ]
    tables: dict[str, list[dict[str, Any]]] = {"detector": [], "roc": [], "pr": [], "scores": []}
    n_unknown = int(lesions[list(_PROBABILITIES)].isna().any(axis=1).sum())
    baseline: _Quality | None = None
    for name, X in _inputs(lesions, features):
        row = {**same, "predictor": name, "n_folds": len(folds)}
        if name != "saliency" and n_unknown:
            row["note"] = f"not computed: {n_unknown} lesions have no probability"
            tables["detector"].append(row)
            continue
        if name in _PROBABILITIES:
            score, n_filled, used, spread = -X[:, 0], 0, 1, 1.0
        else:
            score, n_filled = held_out_scores(X, is_false, folds)
            used, spread = X.shape[1], float(np.sqrt(1 + len(folds) / (len(folds) - 1)))
        quality = _Quality.of(score, is_false, draws)
        if name == BASELINE:
            baseline = quality
        row |= {
            "n_features": used, "n_filled": n_filled, "prevalence": float(is_false.mean()),
            **quality.described(
                baseline if name != BASELINE else None, len(draws.names), level, spread
            ),
            "note": "",
        }  # fmt: skip
        tables["detector"].append(row)
        roc, pr = curves(score, is_false)
        tables["roc"] += [{"predictor": name, **point} for point in roc]
        tables["pr"] += [{"predictor": name, **point} for point in pr]
        tables["scores"] += [
            {"predictor": name, **one, "fold": int(f), "score": float(s)}
            for one, f, s in zip(about, fold, score, strict=True)
        ]
    return tables


def _obstacle(is_false: NDArray[np.bool_], patient: NDArray[np.str_]) -> str:
    """Why there is no detector; empty if there is one."""
    for kind, chosen in (("false", is_false), ("true", ~is_false)):
        n = len(np.unique(patient[chosen]))
        if n < 2:
            return (
                f"not computed: {n} patients with a {kind} positive, 2 are needed to train on "
                "one and look at the other"
            )
    return ""


def _inputs(lesions: pd.DataFrame, features: pd.DataFrame) -> Iterator[tuple[str, Floats]]:
    """Name and (n, n_features) values of each predictor."""
    chance = lesions[list(_PROBABILITIES)].to_numpy(float)
    of_map = features.loc[pd.MultiIndex.from_frame(lesions[["case", "instance"]])].to_numpy(float)
    yield "probability_mean", chance[:, :1]
    yield "probability_max", chance[:, 1:]
    yield "saliency", of_map
    yield "saliency + probability", np.column_stack([of_map, chance])


class _Quality(NamedTuple):
    """AUROC and average precision of a predictor, and of each draw of patients."""

    auroc: float
    precision: float
    aurocs: Floats
    precisions: Floats

    @classmethod
    def of(cls, score: Floats, is_false: NDArray[np.bool_], draws: PatientDraws) -> _Quality:
        from sklearn.metrics import average_precision_score, roc_auc_score

        owner = draws.owner
        deltas = draws.deltas(score[is_false], owner[is_false], score[~is_false], owner[~is_false])
        return cls(
            float(roc_auc_score(is_false, score)),
            float(average_precision_score(is_false, score)),
            (deltas + 1) / 2,  # AUROC is Cliff's delta on another scale
            np.where(np.isnan(deltas), np.nan, draws.average_precisions(score, is_false, owner)),
        )

    def described(
        self, baseline: _Quality | None, n_patients: int, level: float, spread: float
    ) -> dict[str, float]:
        """Columns of `DETECTOR`; gains only over a baseline."""
        found = {"auroc": self.auroc, "precision_average": self.precision}
        draws = {"auroc": self.aurocs, "precision": self.precisions}
        if baseline is not None:
            found |= {
                "auroc_gain": self.auroc - baseline.auroc,
                "precision_gain": self.precision - baseline.precision,
            }
            # the same patients are drawn for both, so their difference is that of one draw
            draws |= {
                "auroc_gain": self.aurocs - baseline.aurocs,
                "precision_gain": self.precisions - baseline.precisions,
            }
        for name, values in draws.items():
            found[f"{name}_low"], found[f"{name}_high"] = interval(
                values, n_patients, level, spread
            )
        return found


def curves(
    score: Floats, is_positive: NDArray[np.bool_]
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Return the points of the ROC and the precision-recall curve, by falling threshold.

    Parameters
    ----------
    score
        (n,); higher is more suspect.
    is_positive
        (n,) false positives.

    Returns
    -------
    roc, pr
        Points with the columns `ROC` and `PR`. ROC starts at (0, 0) with the threshold inf.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    alarms, hits, cuts = roc_curve(is_positive, score, drop_intermediate=False)
    roc = [
        {"threshold": float(c), "false_alarm_rate": float(a), "hit_rate": float(h)}
        for a, h, c in zip(alarms, hits, cuts, strict=True)
    ]
    # the library's last point, precision 1 at recall 0, belongs to no threshold
    precision, recall, at = precision_recall_curve(is_positive, score)
    pr = [
        {"threshold": float(c), "recall": float(r), "precision": float(p)}
        for p, r, c in zip(precision[:-1], recall[:-1], at, strict=True)
    ]
    return roc, pr[::-1]
