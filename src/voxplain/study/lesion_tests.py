"""Do types of lesions differ in a feature, and by how much."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from voxplain.records.lesion_tables import check_columns
from voxplain.regions.lesion import TYPES
from voxplain.study.bootstrap import PatientDraws, check_level, interval
from voxplain.study.feature_values import KEY, VALUES

TESTS = (*KEY, "types", "n", "n_patients", "statistic", "p", "note")
"""One row a feature: Kruskal–Wallis over all types. types: joined by ``;``. note: why p is
missing, or what is special."""

EFFECTS = (
    *KEY, "type_a", "type_b", "n_a", "n_b", "n_patients", "median_difference", "u", "p", "p_holm",
    "n_family", "cliffs_delta", "low", "high", "level", "note",
)  # fmt: skip
"""One row a feature and pair of types: Mann–Whitney, corrected, with Cliff's delta of a over b
and its interval. n_family: tests that the correction counts; see `pair_effects`."""

UNKNOWN = "lesion"
"""Type of lesions without truth: described, never compared."""

Floats = NDArray[np.float64]


def cliffs_delta(a: Floats, b: Floats) -> float:
    """Compare two samples: P(a > b) − P(a < b) over all pairs; ties count for neither.

    Parameters
    ----------
    a, b
        (n_a,), (n_b,) finite values.

    Returns
    -------
    float
        In [−1, 1]; 2·AUROC − 1 of `a` as the positive class. NaN if a sample is empty.

    References
    ----------
    Cliff, Dominance statistics, Psychological Bulletin 114 (1993).
    """
    if not len(a) or not len(b):
        return float("nan")
    rivals = np.sort(b)
    below = np.searchsorted(rivals, a, "left")
    above = len(rivals) - np.searchsorted(rivals, a, "right")
    return float((below - above).sum() / (len(a) * len(b)))


def holm(p: Floats) -> Floats:
    """Correct p-values of one family so that the chance of any false one is at most the level.

    With p sorted upwards, the i-th (from 0) of m becomes max over j ≤ i of min(1, (m − j)·p_j).

    Parameters
    ----------
    p
        (m,) p-values; NaN is a test that was not made and does not count.

    Returns
    -------
    numpy.ndarray
        (m,), in the order given; NaN stays.

    References
    ----------
    Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    values = np.asarray(p, np.float64)
    done = np.flatnonzero(np.isfinite(values))
    order = done[np.argsort(values[done], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    found = np.full(len(values), np.nan)
    found[order] = np.minimum(1, np.maximum.accumulate(factors * values[order]))
    return found


def type_tests(values: pd.DataFrame) -> pd.DataFrame:
    """Test for each feature whether any type of lesion differs (Kruskal–Wallis).

    Parameters
    ----------
    values
        From `voxplain.study.feature_values.feature_values`.

    Returns
    -------
    pandas.DataFrame
        Columns `TESTS`. Lesions without truth, and missing values, are left out. p by the χ²
        approximation with correction for ties.

    Notes
    -----
    Every lesion counts as independent, which lesions of one patient are not; where patients
    have many lesions read `voxplain.study.mixed_model` beside it.
    """
    check_columns(values, VALUES, "feature_values")
    rows = []
    for names, part in _known(values).groupby(list(KEY), sort=False):
        groups = _groups(part)
        statistic, p, note = np.nan, np.nan, ""
        if len(groups) < 2:
            note = "fewer than two types of lesions"
        elif part["value"].nunique() < 2:
            statistic, p, note = 0.0, 1.0, "all values are equal"
        else:
            statistic, p = map(float, stats.kruskal(*(g["value"] for g in groups.values())))
        rows.append(
            {
                **dict(zip(KEY, names, strict=True)), "types": ";".join(groups), "n": len(part),
                "n_patients": part["patient"].nunique(), "statistic": statistic, "p": p,
                "note": note,
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(TESTS))


def pair_effects(
    values: pd.DataFrame, *, n_boot: int = 2000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Compare each pair of types in each feature: Mann–Whitney, Holm, Cliff's delta.

    Parameters
    ----------
    values
        From `voxplain.study.feature_values.feature_values`.
    n_boot, seed
        Draws of whole patients behind the intervals.
    level
        Of the intervals.

    Returns
    -------
    pandas.DataFrame
        Columns `EFFECTS`. p: two-sided; exact where a side has 8 lesions or fewer and nothing
        is tied, else normal with corrections for ties and continuity. p_holm: corrected over the
        family of *all pairs of types, channels and features of one model and method*
        (features without a map are a family of their own). An interval needs two patients with
        lesions of each side.

    Raises
    ------
    DataError
        If `n_boot` or `level` is out of its range.

    Notes
    -----
    p counts lesions as independent; the interval does not: it draws whole patients.
    """
    check_columns(values, VALUES, "feature_values")
    check_level(level)
    rows = []
    for names, part in _known(values).groupby(list(KEY), sort=False):
        groups = _groups(part)
        draws = PatientDraws(part["patient"].tolist(), n_boot, seed)
        for (type_a, a), (type_b, b) in combinations(groups.items(), 2):
            row = _pair(a, b, draws, level)
            rows.append(
                {
                    **dict(zip(KEY, names, strict=True)), "type_a": type_a, "type_b": type_b,
                    **row, "level": level,
                }
            )  # fmt: skip
    found = pd.DataFrame(rows, columns=list(EFFECTS))
    for _, family in found.groupby(["model", "method"], sort=False):
        found.loc[family.index, "p_holm"] = holm(family["p"].to_numpy(float))
        found.loc[family.index, "n_family"] = int(family["p"].notna().sum())
    return found


def _pair(a: pd.DataFrame, b: pd.DataFrame, draws: PatientDraws, level: float) -> dict[str, object]:
    x, y = a["value"].to_numpy(float), b["value"].to_numpy(float)
    owner_a = np.searchsorted(draws.names, a["patient"].to_numpy(str))
    owner_b = np.searchsorted(draws.names, b["patient"].to_numpy(str))
    if len(np.unique(np.concatenate([x, y]))) < 2:
        # every order of equal values is as extreme as this one
        u, p, note = len(x) * len(y) / 2, 1.0, "all values are equal"
    else:
        u, p = map(float, stats.mannwhitneyu(x, y, alternative="two-sided"))
        note = ""
    fewest = min(len(np.unique(owner_a)), len(np.unique(owner_b)))
    if fewest < 2:
        note = "; ".join(filter(None, (note, "no interval: one side has one patient")))
    low, high = interval(draws.deltas(x, owner_a, y, owner_b), fewest, level)
    return {
        "n_a": len(x), "n_b": len(y),
        "n_patients": len(np.unique(np.concatenate([owner_a, owner_b]))),
        "median_difference": float(np.median(x) - np.median(y)), "u": u, "p": p,
        "cliffs_delta": cliffs_delta(x, y), "low": low, "high": high, "note": note,
    }  # fmt: skip


def _known(values: pd.DataFrame) -> pd.DataFrame:
    return values[(values["type"] != UNKNOWN) & values["value"].notna()]


def _groups(part: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows by type, in the order of `TYPES`; types without rows left out."""
    return {kind: part[part["type"] == kind] for kind in TYPES if (part["type"] == kind).any()}
