"""Features of lesions by type, over many patients: how they lie and whether they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from voxplain.records.lesion_tables import check_columns
from voxplain.regions.lesion import TYPES
from voxplain.study.bootstrap import PatientDraws, interval
from voxplain.study.feature_values import FEATURES, KEY, VALUES, feature_values
from voxplain.study.lesion_tests import pair_effects, type_tests
from voxplain.study.mixed_model import mixed_models

DISTRIBUTIONS = (
    *KEY, "unit", "type", "n", "n_missing", "n_patients", "median", "low", "high", "level",
    "quartile_1", "quartile_3", "mean", "sd",
)  # fmt: skip
"""One row a feature and type. n: lesions with a value; n_missing: without; low, high: interval
of the median."""


class LesionStatistics(NamedTuple):
    """Tables of a study; columns `DISTRIBUTIONS`, `TESTS`, `EFFECTS`, `MIXED`."""

    distributions: pd.DataFrame
    tests: pd.DataFrame
    effects: pd.DataFrame
    mixed: pd.DataFrame


def lesion_statistics(
    instances: pd.DataFrame,
    saliency: pd.DataFrame,
    *,
    features: Sequence[str] = FEATURES,
    methods: Sequence[str] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> LesionStatistics:
    """Describe and compare the features of lesions by type.

    Parameters
    ----------
    instances, saliency
        From `voxplain.study.gather.gather`.
    features, methods
        See `voxplain.study.feature_values.feature_values`.
    n_boot, seed
        Draws of whole patients behind the intervals.
    level
        Of the intervals.

    Returns
    -------
    LesionStatistics
        From `distributions`, and `type_tests`, `pair_effects` and `mixed_models` of
        `voxplain.study.lesion_tests` and `voxplain.study.mixed_model`.

    Raises
    ------
    DataError, LabelError
        See there.
    """
    values = feature_values(instances, saliency, features=features, methods=methods)
    return LesionStatistics(
        distributions(values, n_boot=n_boot, seed=seed, level=level),
        type_tests(values),
        pair_effects(values, n_boot=n_boot, seed=seed, level=level),
        mixed_models(values, level=level),
    )


def distributions(
    values: pd.DataFrame, *, n_boot: int = 2000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Describe each feature of each type of lesion.

    Parameters
    ----------
    values
        From `voxplain.study.feature_values.feature_values`.
    n_boot, seed
        Draws of whole patients behind the interval of the median.
    level
        Of the interval.

    Returns
    -------
    pandas.DataFrame
        Columns `DISTRIBUTIONS`. Quartiles are linear between values; sd is of the sample
        (n − 1), NaN for one lesion. The interval is NaN where the type has one patient.

    Raises
    ------
    DataError
        If `n_boot` or `level` is out of its range.
    """
    check_columns(values, VALUES, "feature_values")
    rows = []
    for names, whole in values.groupby(list(KEY), sort=False):
        known = whole[whole["value"].notna()]
        draws = PatientDraws(known["patient"].tolist(), n_boot, seed)
        for kind in TYPES:
            part = known[known["type"] == kind]
            n_all = int((whole["type"] == kind).sum())
            if not n_all:
                continue
            row = {
                **dict(zip(KEY, names, strict=True)), "unit": whole["unit"].iloc[0], "type": kind,
                "n": len(part), "n_missing": n_all - len(part),
                "n_patients": part["patient"].nunique(), "level": level,
            }  # fmt: skip
            if len(part):
                found = part["value"].to_numpy(float)
                owner = np.searchsorted(draws.names, part["patient"].to_numpy(str))
                low, high = interval(draws.medians(found, owner), row["n_patients"], level)
                first, middle, third = np.quantile(found, [0.25, 0.5, 0.75])
                sd = float(found.std(ddof=1)) if len(found) > 1 else np.nan
                row |= {
                    "median": middle, "low": low, "high": high, "quartile_1": first,
                    "quartile_3": third, "mean": float(found.mean()), "sd": sd,
                }  # fmt: skip
            rows.append(row)
    return pd.DataFrame(rows, columns=list(DISTRIBUTIONS))
