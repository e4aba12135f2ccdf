"""Are subgroups treated differently: importance, and being an outlier, against metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import DataError, MethodError
from voxplain.records.cohort_table import CohortTable, CohortValue
from voxplain.study.bias_tests import (
    Tested,
    association,
    many_groups,
    proportions,
    trend,
    two_groups,
    welch,
)
from voxplain.study.bootstrap import check_level
from voxplain.study.false_discovery import adjusted
from voxplain.study.patient_values import (
    MISSING,
    SMALL,
    Column,
    PatientRows,
    patient_column,
    small_note,
)

BIAS = (
    "column", "kind", "groups", "feature", "test", "statistic", "p", "q", "effect", "effect_name",
    "low", "high", "n_patients", "n_missing", "smallest_effect", "note",
)  # fmt: skip
"""One row a test. column: of the metadata. kind: ``groups`` or ``number``. groups: with their
patients in this test, e.g. ``F (40), M (38)``; effects are of the first over the second. q: p by
Benjamini and Hochberg over all tests of the table. n_missing: patients without a value of the
column or the feature; those of groups that are too small are in neither number.
smallest_effect: what this test would have seen with probability 0.8 at level 0.05, before any
correction for the number of tests. A column that cannot be tested has one row, with a note."""

OUTLIER = "outlier"
"""Feature of the rows of `outlier_bias`."""

BiasPreset = Literal["voxplain", "agg2exp"]

_BLOCK = 16  # features that are brought to one value a patient together
_LEAST_NUMBERS = 6  # patients of a rank correlation

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


def bias_table(
    features: pd.DataFrame,
    metadata: pd.DataFrame,
    patients: Sequence[str],
    *,
    min_group: int = 5,
    level: float = 0.95,
) -> pd.DataFrame:
    """Test each number of a cohort against each column of its metadata.

    Two groups: Mann–Whitney and Cliff's delta. More: Kruskal–Wallis and epsilon². Numbers (six
    different values or more): Spearman's rho. Everything else is groups. Each patient counts
    once: with the mean of its cases for numbers, with the group that most of them name for
    groups (not at all where that is a draw).

    Parameters
    ----------
    features
        Index ``case``, columns of numbers; NaN where not known.
    metadata
        Index ``case``; cases that it lacks are missing.
    patients
        Of each row of `features`.
    min_group
        Patients that a group needs; smaller ones are left out and counted in ``note``.
    level
        Of the intervals.

    Returns
    -------
    pandas.DataFrame
        Columns `BIAS`; column by column, features in their order.

    Raises
    ------
    DataError
        If rows and patients disagree, a case is listed twice, a number is infinite or `level` is
        out of range.
    MethodError
        If `min_group` is below 2.

    Notes
    -----
    Memory beside `features` is small: they are taken in blocks. No draws: intervals have closed
    forms, see `voxplain.study.effects` for each.
    """
    rows = _rows(features.index, metadata, patients, min_group, level)
    columns = list(_columns(rows, metadata, min_group))
    found = [[_untested(column, len(rows))] if column.fault else [] for column in columns]
    for start in range(0, features.shape[1], _BLOCK):
        block = features.iloc[:, start : start + _BLOCK]
        numbers = np.ascontiguousarray(rows.means(block).T)
        for feature, values in zip(map(str, block), numbers, strict=True):
            for column, tests in zip(columns, found, strict=True):
                if not column.fault:
                    row = _feature(column, values, min_group, level)
                    tests.append({"feature": feature, **row})
    return _finished([row for tests in found for row in tests])


def outlier_bias(
    is_outlier: pd.Series[Any],
    metadata: pd.DataFrame,
    patients: Sequence[str],
    *,
    min_group: int = 5,
    level: float = 0.95,
    n_draws: int = 9999,
    seed: int = 0,
    preset: BiasPreset = "voxplain",
) -> pd.DataFrame:
    """Test whether outliers differ from the other patients in each column of the metadata.

    Groups: Fisher's exact test for two, else χ² (Fisher, Freeman and Halton where a count below
    5 is expected), and Cramér's V. Numbers: Mann–Whitney and Cliff's delta of outliers over the
    others. A patient is an outlier if most of its cases are, and is left out if half of them
    are.

    Parameters
    ----------
    is_outlier
        Index ``case``; true, false or missing.
    metadata
        Index ``case``; cases that it lacks are missing.
    patients
        Of each row of `is_outlier`.
    min_group
        Patients that a group needs, outliers and the others too.
    level
        Of the intervals.
    n_draws, seed
        Random tables of the test of Fisher, Freeman and Halton.
    preset
        ``agg2exp`` adds the tests of that paper, each as a row: Welch's t-test of numbers, two
        proportions for two groups.

    Returns
    -------
    pandas.DataFrame
        Columns `BIAS`; ``groups`` of a column of groups counts outliers: ``F (3 of 40), …``.

    Raises
    ------
    DataError
        If rows and patients disagree, a case is listed twice, a number is infinite or `level` is
        out of range.
    MethodError
        If `min_group` is below 2, `n_draws` below 1, or there is no such preset.

    Notes
    -----
    The paper compares cases, and corrects for nothing; here patients are compared, and q counts
    the added tests.
    """
    if n_draws < 1:
        raise MethodError(f"n_draws, the random tables of a test, is at least 1, got {n_draws}")
    if preset not in get_args(BiasPreset):
        raise MethodError(f"preset is one of {', '.join(get_args(BiasPreset))}, got {preset!r}")
    rows = _rows(is_outlier.index, metadata, patients, min_group, level)
    flags = rows.majority(_flags(is_outlier))
    found: list[dict[str, Any]] = []
    for column in _columns(rows, metadata, min_group):
        if column.fault:
            found.append(_untested(column, len(rows)))
            continue
        if column.is_number:
            tests = _outlier_number(column, flags, min_group, level, preset)
        else:
            tests = _outlier_groups(column, flags, min_group, level, n_draws, seed, preset)
        found.extend({"feature": OUTLIER, **row} for row in tests)
    return _finished(found)


def importance_features(table: CohortTable, value: CohortValue = "share") -> pd.DataFrame:
    """Lay the importance of every region for every target side by side.

    Parameters
    ----------
    table
        A cohort.
    value
        Which number.

    Returns
    -------
    pandas.DataFrame
        Index ``case``, columns ``target · region``; those that are one number in all cases, or
        never known, are left out.

    Raises
    ------
    LabelError
        If the value was not loaded.
    """
    parts = []
    for target in table.targets:
        part = table.of_target(target, value)
        lowest, highest = part.min(), part.max()
        part = part.loc[:, (lowest < highest).to_numpy()]
        parts.append(part.set_axis([f"{target} · {region}" for region in part], axis=1))
    if not parts:
        return pd.DataFrame(index=table.cases.index)
    return pd.concat(parts, axis=1)


def _rows(
    cases: pd.Index[Any],
    metadata: pd.DataFrame,
    patients: Sequence[str],
    min_group: int,
    level: float,
) -> PatientRows:
    check_level(level)
    if min_group < 2:
        raise MethodError(f"min_group, patients that a group needs, is at least 2, got {min_group}")
    if not metadata.index.is_unique:
        raise DataError("a case is listed twice in the metadata; keep one row a case")
    return PatientRows(cases, patients)


def _columns(rows: PatientRows, metadata: pd.DataFrame, min_group: int) -> Iterator[Column]:
    known = metadata.reindex(rows.cases)
    for name in known:
        yield patient_column(str(name), known[name], rows, min_group)


def _feature(column: Column, values: Floats, min_group: int, level: float) -> dict[str, Any]:
    known = np.isfinite(values)
    if column.is_number:
        use = known & np.isfinite(column.numbers)
        n_missing = len(values) - int(use.sum())
        if use.sum() < max(_LEAST_NUMBERS, min_group):
            least = max(_LEAST_NUMBERS, min_group)
            tested = Tested("", note=f"no test: fewer than {least} patients")
        else:
            tested = trend(values[use], column.numbers[use], level)
        return _row(column, tested, "", int(use.sum()), n_missing)
    codes, n_missing, small = _grouped(column, known, min_group)
    use = codes >= 0
    kept, groups = np.unique(codes[use], return_inverse=True)
    sizes = np.bincount(groups, minlength=len(kept))
    told = ", ".join(f"{column.names[k]} ({n})" for k, n in zip(kept, sizes, strict=True))
    if len(kept) < 2:
        tested = Tested("", note=f"no test: fewer than two groups of {min_group} patients")
    elif len(kept) == 2:
        tested = two_groups(values[use], groups == 0, level)
    else:
        tested = many_groups(values[use], groups, level)
    return _row(column, tested, told, int(use.sum()), n_missing, small)


def _grouped(column: Column, known: NDArray[np.bool_], min_group: int) -> tuple[Codes, int, str]:
    """Tell each patient's group where something is known, who is missing, what was dropped."""
    codes = np.where(known, column.codes, MISSING)
    sizes = np.bincount(codes[codes >= 0], minlength=len(column.names))
    short = np.flatnonzero((sizes < min_group) & (column.sizes >= min_group))
    n_missing = int((codes == MISSING).sum())
    codes = np.where(np.isin(codes, short), SMALL, codes)
    return codes, n_missing, small_note(sizes[short], min_group)


def _outlier_number(
    column: Column, flags: Codes, min_group: int, level: float, preset: BiasPreset
) -> Iterator[dict[str, Any]]:
    use = (flags >= 0) & np.isfinite(column.numbers)
    values, is_first = column.numbers[use], flags[use] == 1
    n, n_first = int(use.sum()), int(is_first.sum())
    told = f"outliers ({n_first}), others ({n - n_first})"
    if min(n_first, n - n_first) < min_group:
        note = f"no test: outliers or others are fewer than {min_group} patients"
        yield _row(column, Tested("", note=note), told, n, len(use) - n)
        return
    yield _row(column, two_groups(values, is_first, level), told, n, len(use) - n)
    if preset == "agg2exp":
        yield _row(column, welch(values, is_first, level), told, n, len(use) - n)


def _outlier_groups(
    column: Column,
    flags: Codes,
    min_group: int,
    level: float,
    n_draws: int,
    seed: int,
    preset: BiasPreset,
) -> Iterator[dict[str, Any]]:
    codes, n_missing, small = _grouped(column, flags >= 0, min_group)
    use = codes >= 0
    kept, groups = np.unique(codes[use], return_inverse=True)
    table = np.zeros((len(kept), 2), np.intp)
    np.add.at(table, (groups, 1 - flags[use]), 1)
    names = tuple(column.names[k] for k in kept)
    told = ", ".join(
        f"{name} ({row[0]} of {row.sum()})" for name, row in zip(names, table, strict=True)
    )
    place = (told, int(use.sum()), n_missing, small)
    if len(kept) < 2 or table.sum(axis=0).min() < min_group:
        what = "two groups" if len(kept) < 2 else "outliers or others"
        note = f"no test: {what} of at least {min_group} patients are missing"
        yield _row(column, Tested("", note=note), *place)
        return
    yield _row(column, association(table, names, level, n_draws, seed), *place)
    if preset == "agg2exp" and len(kept) == 2:
        yield _row(column, proportions(table, names, level), *place)


def _row(
    column: Column, tested: Tested, groups: str, n_patients: int, n_missing: int, small: str = ""
) -> dict[str, Any]:
    row = asdict(tested)
    row["note"] = "; ".join(filter(None, (tested.note, small, column.note)))
    return {
        "column": column.name, "kind": column.kind, "groups": groups, **row,
        "n_patients": n_patients, "n_missing": n_missing,
    }  # fmt: skip


def _untested(column: Column, n_patients: int) -> dict[str, Any]:
    n_missing = int((column.codes == MISSING).sum()) if len(column.codes) else n_patients
    row = _row(column, Tested("", note=column.fault), "", 0, n_missing)
    return {"feature": "", **row}


def _flags(is_outlier: pd.Series[Any]) -> Codes:
    known = is_outlier.notna().to_numpy(bool)
    if not is_outlier[known].map(lambda flag: isinstance(flag, bool | np.bool_)).all():
        raise DataError(
            "is_outlier holds true, false or nothing for each case, got "
            f"{is_outlier.dtype}; compare first, e.g. prediction == -1"
        )
    codes = np.full(len(known), MISSING, np.intp)
    codes[known] = is_outlier[known].to_numpy(bool)
    return codes


def _finished(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows).reindex(columns=list(BIAS))
    table["q"] = adjusted(table["p"].to_numpy(np.float64))
    return table
