"""Features of an error detector, and its scores for patients that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.study.feature_values import MAP_FEATURES

N_FOLDS = 5
"""Folds where patients are many."""

MANY_PATIENTS = 10
"""Up to so many, each patient is a fold of its own."""

Floats = NDArray[np.float64]
Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


def detector_features(saliency: pd.DataFrame, shells: pd.DataFrame) -> pd.DataFrame:
    """Lay out what a map tells of each lesion in one row.

    Parameters
    ----------
    saliency, shells
        Of one model and method.

    Returns
    -------
    pandas.DataFrame
        Index case and instance. Per channel the features of `MAP_FEATURES`, and the mean in each
        shell outside of the lesion; missing where a shell is empty or a map zero.
    """
    lesion = ["case", "instance"]
    wide = saliency.pivot(index=lesion, columns="channel", values=list(MAP_FEATURES))
    wide.columns = pd.Index([f"{at[1]} {at[0]}" for at in wide.columns])
    outside = shells[shells["to_mm"] > 0]
    if outside.empty:
        return wide
    rings = outside.pivot(index=lesion, columns=["channel", "from_mm", "to_mm"], values="mean")
    rings.columns = pd.Index([f"{at[0]} mean {at[1]:g}–{at[2]:g} mm" for at in rings.columns])
    return wide.join(rings)


def patient_folds(is_false: NDArray[np.bool_], patient: NDArray[np.str_], seed: int) -> list[Fold]:
    """Split lesions so that no patient is on both sides of a fold.

    Parameters
    ----------
    is_false
        (n,) false positives.
    patient
        (n,) whose each lesion is; at least two with each kind.
    seed
        Shuffles patients.

    Returns
    -------
    list
        Rows to train on and rows held out. Each patient by itself up to `MANY_PATIENTS`, or
        where fewer than `N_FOLDS` patients have one of the kinds; else `N_FOLDS` folds with
        like shares of false positives.
    """
    from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold

    n_all = len(np.unique(patient))
    n_least = min(len(np.unique(patient[is_false])), len(np.unique(patient[~is_false])))
    empty = np.zeros((len(patient), 1))
    if n_all > MANY_PATIENTS and n_least >= N_FOLDS:
        split = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
        folds: list[Fold] = list(split.split(empty, is_false, patient))
        # stratifying is a heuristic: every training side must have both kinds
        if all(0 < is_false[train].sum() < len(train) for train, _ in folds):
            return folds
    return list(LeaveOneGroupOut().split(empty, is_false, patient))


def held_out_scores(
    X: Floats, is_false: NDArray[np.bool_], folds: Sequence[Fold]
) -> tuple[Floats, int]:
    """Train on each fold's other side and score what was held out.

    Parameters
    ----------
    X
        (n, n_features); NaN is filled with the median of the training side, or 0 if that has
        none.
    is_false
        (n,) the positive class.
    folds
        From `patient_folds`.

    Returns
    -------
    scores : numpy.ndarray
        (n,) log-odds of being false.
    n_filled : int
        Values of X that were missing.

    Notes
    -----
    Classes are balanced: else the prevalence of the training side, which is low where that of
    the held-out side is high, would make pooled scores of a useless detector worse than chance.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    missing = ~np.isfinite(X)
    values = np.where(missing, np.nan, X)
    scores = np.zeros(len(X))
    for train, held_out in folds:
        model = make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            StandardScaler(),
            LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000),
        )
        model.fit(values[train], is_false[train])
        scores[held_out] = model.decision_function(values[held_out])
    return scores, int(missing.sum())
