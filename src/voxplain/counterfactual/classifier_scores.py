"""How good the classifier and the judge are on the test slices, with intervals by patients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.counterfactual.classifier import Classifier, auroc, picture_logits
from voxplain.counterfactual.overlap import LEVEL
from voxplain.counterfactual.slices import Slices
from voxplain.errors import ModelError
from voxplain.records.counterfactual_evaluation import SHARES
from voxplain.study.bootstrap import PatientDraws, interval

LEAST_PATIENTS = 5
"""Of each class that a share is of: fewer give no interval."""

Floats = NDArray[np.float64]
_ENDS = ("", "_low", "_high")
_SIDES = (("normal", False), ("abnormal", True))


def classifier_row(
    by: str, classifier: Classifier, slices: Slices, n_boot: int, seed: int, batch: int
) -> dict[str, Any]:
    """Measure a classifier on slices; the columns of the table `CLASSIFIERS`.

    Parameters
    ----------
    by
        What it is called in tables.
    classifier
        On the device to run on.
    slices
        All of the test part.
    n_boot, seed
        Draws of patients, and their seed.
    batch
        Slices in a pass.

    Raises
    ------
    ModelError
        If a logit is not a number.
    """
    logits = picture_logits(classifier.network, slices.images, batch)
    if not np.isfinite(logits).all():
        raise ModelError(
            f"{classifier.name}: {int((~np.isfinite(logits)).sum())} of {len(logits)} test slices "
            "have a logit that is not a number; its weights are broken, or it overflows"
        )
    draws = PatientDraws([str(p) for p in slices.table["patient"]], n_boot, seed)
    n_abnormal = int(np.count_nonzero(slices.labels))
    return {
        "by": by, "n_slices": len(slices), "n_abnormal": n_abnormal,
        "n_patients": len(draws.names), **quality(logits, slices.labels, draws),
    }  # fmt: skip


def quality(logits: Floats, labels: NDArray[Any], draws: PatientDraws) -> dict[str, Any]:
    """AUROC, accuracy, sensitivity and specificity of logits, with intervals by patients.

    Called abnormal is what has a logit above 0, a probability above 0.5. In a draw of patients
    AUROC is (1 + δ)/2 with Cliff's δ of the drawn slices, ties half.

    Parameters
    ----------
    logits
        (n,) of abnormal, finite.
    labels
        (n,) 0 or 1.
    draws
        Of the patients of these slices.

    Returns
    -------
    dict
        Each of `SHARES` with ``…_low`` and ``…_high``, and ``note``; NaN where one class is
        missing, and for an interval of fewer than `LEAST_PATIENTS` patients of a class: drawn
        from two slices that are both right, it would claim to be certain.
    """
    abnormal, owner = np.asarray(labels) > 0, draws.owner
    right = ((logits > 0) == abnormal).astype(np.float64)
    row: dict[str, Any] = {f"{name}{end}": np.nan for name in SHARES for end in _ENDS}
    missing = [word for word, is_it in _SIDES if not (abnormal == is_it).any()]
    if not missing:
        rivals = logits[abnormal], owner[abnormal], logits[~abnormal], owner[~abnormal]
        drawn = (1 + draws.deltas(*rivals)) / 2
        row |= _named(
            "auroc", auroc(logits, labels, "test"), _ends(drawn, len(draws.names), *rivals[1::2])
        )
    chosen = {
        "accuracy": np.ones_like(abnormal), "sensitivity": abnormal, "specificity": ~abnormal
    }  # fmt: skip
    for name, where in chosen.items():
        if where.any():
            drawn = draws.means(right[where], owner[where])
            row |= _named(
                name,
                float(right[where].mean()),
                _ends(drawn, len(np.unique(owner[where])), owner[where]),
            )
    notes = [f"the test part has no {' and no '.join(missing)} slice"] if missing else []
    for word, is_it in _SIDES:
        n = len(np.unique(owner[abnormal == is_it]))
        if 0 < n < LEAST_PATIENTS:
            notes.append(
                f"{n} {'patient' if n == 1 else 'patients'} with {word} slices: too few for an "
                f"interval, which takes {LEAST_PATIENTS}"
            )
    row["note"] = "; ".join(notes)
    return row


def _named(name: str, value: float, ends: tuple[float, float]) -> dict[str, float]:
    return dict(zip((f"{name}{end}" for end in _ENDS), (value, *ends), strict=True))


def _ends(drawn: Floats, n: int, *owners: NDArray[Any]) -> tuple[float, float]:
    """Return the interval of drawn values; NaN where a class has too few patients."""
    least = min(len(np.unique(owner)) for owner in owners)
    return (np.nan, np.nan) if least < LEAST_PATIENTS else interval(drawn, n, LEVEL)
