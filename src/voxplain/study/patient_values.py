"""One value a patient: numbers by their mean, groups by what most cases say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import DataError

MISSING = -1
"""Code of a patient without a group."""

SMALL = -2
"""Code of a patient whose group is too small."""

_FEWEST_NUMBERS = 6  # different values that make numbers of a column, not groups

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


class PatientMeans:
    """One value a patient: the mean over the patient's cases.

    Parameters
    ----------
    cases
        As `voxplain.records.cohort_table.CohortTable.cases`.
    """

    def __init__(self, cases: pd.DataFrame) -> None:
        owner, names = pd.factorize(cases["patient"].astype(str), sort=True)
        rank, _ = pd.factorize(cases.index.astype(str), sort=True)
        self.names: NDArray[Any] = np.asarray(names, dtype=object)
        """(n_patients,) sorted."""
        # by name, so that no rounding depends on the order of cases
        self._order = np.lexsort((rank, owner))
        self._starts = np.flatnonzero(np.diff(owner[self._order], prepend=-1))

    def of(self, values: Floats) -> Floats:
        """Return means of the known values.

        Parameters
        ----------
        values
            (n_cases, n); NaN where not known.

        Returns
        -------
        numpy.ndarray
            (n_patients, n); NaN where no case of the patient is known.
        """
        rows = values[self._order]
        if len(self._starts) == len(rows):
            return rows
        known = ~np.isnan(rows)
        n = np.add.reduceat(known, self._starts, axis=0, dtype=np.int64)
        sums = np.add.reduceat(np.where(known, rows, 0.0), self._starts, axis=0)
        means: Floats = np.divide(sums, n, out=np.full(sums.shape, np.nan), where=n > 0)
        return means


class PatientRows:
    """Which rows are of which patient.

    Parameters
    ----------
    cases
        Name of each row, each once.
    patients
        Whose each row is.

    Raises
    ------
    DataError
        If there are not as many of both, or a case is there twice.
    """

    def __init__(self, cases: pd.Index[Any], patients: Sequence[str]) -> None:
        if len(cases) != len(patients):
            raise DataError(
                f"one patient a case is expected, got {len(cases)} cases and {len(patients)} "
                "patients"
            )
        if not cases.is_unique:
            raise DataError(
                f"case {cases[cases.duplicated()][0]!r} is listed twice; keep one row a case"
            )
        self.cases = cases
        names, self.owner = np.unique(np.asarray(patients, str), return_inverse=True)
        self._n = len(names)
        self._means = PatientMeans(pd.DataFrame({"patient": np.asarray(patients, str)}, cases))

    def __len__(self) -> int:
        return self._n

    def means(self, frame: pd.DataFrame) -> Floats:
        """Mean over the rows of each patient that are known.

        Parameters
        ----------
        frame
            Rows in the order of the cases, columns of numbers.

        Returns
        -------
        numpy.ndarray
            (n_patients, n_columns); NaN where nothing is known.

        Raises
        ------
        DataError
            If a column is not of numbers, or holds an infinite one.
        """
        for name, kind in frame.dtypes.items():
            if not pd.api.types.is_numeric_dtype(kind):
                raise DataError(f"column {name!r} holds {kind}, and numbers are expected")
        values = frame.to_numpy(np.float64, na_value=np.nan)
        if np.isinf(values).any():
            raise DataError("a feature is infinite; take such a case out, or give it as missing")
        return self._means.of(values)

    def majority(self, codes: Codes) -> Codes:
        """Code that most rows of each patient have.

        Parameters
        ----------
        codes
            A row each; `MISSING` does not count.

        Returns
        -------
        numpy.ndarray
            (n_patients,); `MISSING` where there is none, or two are equally common.
        """
        known = codes >= 0
        width = int(codes.max(initial=0)) + 1
        pairs, counts = np.unique(self.owner[known] * width + codes[known], return_counts=True)
        owner = pairs // width
        most = np.zeros(self._n, np.intp)
        np.maximum.at(most, owner, counts)
        is_best = counts == most[owner]
        found = np.full(self._n, MISSING, np.intp)
        found[owner[is_best]] = pairs[is_best] % width
        found[np.bincount(owner[is_best], minlength=self._n) > 1] = MISSING
        return found


@dataclass(frozen=True, eq=False)
class Column:
    """A column of metadata, one value a patient.

    Parameters
    ----------
    name
        Of the column.
    kind
        ``groups``, ``number``, or empty where nothing is known.
    names
        Groups, numbers by size and text by alphabet.
    codes
        (n_patients,) index into `names`, `MISSING` or `SMALL`; of groups.
    numbers
        (n_patients,), NaN where not known; of numbers.
    sizes
        Patients of each group.
    note
        What was left out.
    fault
        Why the column cannot be tested.
    """

    name: str
    kind: str
    names: tuple[str, ...] = ()
    codes: Codes = field(default_factory=lambda: np.empty(0, np.intp))
    numbers: Floats = field(default_factory=lambda: np.empty(0))
    sizes: Codes = field(default_factory=lambda: np.empty(0, np.intp))
    note: str = ""
    fault: str = ""

    @property
    def is_number(self) -> bool:
        """Whether values are numbers on a scale."""
        return self.kind == "number"


def small_note(sizes: Sequence[int] | Codes, min_group: int) -> str:
    """Say how many groups are left out and how large they are.

    Parameters
    ----------
    sizes
        Patients of each of them.
    min_group
        Patients that a group needs.

    Notes
    -----
    Their names stay out: a value that few patients have may tell who they are.
    """
    if not len(sizes):
        return ""
    groups = "1 group" if len(sizes) == 1 else f"{len(sizes)} groups"
    return f"left out: {groups} of fewer than {min_group} patients, {int(np.sum(sizes))} in all"


def patient_column(name: str, values: pd.Series[Any], rows: PatientRows, min_group: int) -> Column:
    """Bring a column of metadata to one value a patient.

    Parameters
    ----------
    name
        Of the column.
    values
        Rows in the order of the cases. Numbers with six different values or more are numbers;
        everything else is groups.
    rows
        Whose they are.
    min_group
        Patients that a group needs.

    Raises
    ------
    DataError
        If a number is infinite.
    """
    known = values.notna().to_numpy(bool)
    if not known.any():
        return Column(name, "", fault="no test: no value is known")
    held = values[known]
    is_number = _holds_numbers(held)
    if is_number and held.nunique() >= _FEWEST_NUMBERS:
        full = pd.to_numeric(values).to_frame()
        return Column(name, "number", numbers=rows.means(full)[:, 0])
    held = held.astype(float) if is_number else held.astype(str)
    kinds, own = np.unique(held.to_numpy(), return_inverse=True)
    codes = np.full(len(values), MISSING, np.intp)
    codes[known] = own
    return _groups(name, tuple(map(_text, kinds)), codes, rows, min_group)


def _groups(
    name: str, names: tuple[str, ...], codes: Codes, rows: PatientRows, min_group: int
) -> Column:
    found = rows.majority(codes)
    sizes = np.bincount(found[found >= 0], minlength=len(names))
    named = np.bincount(rows.owner[codes >= 0], minlength=len(rows)) > 0
    n_drawn = int((named & (found == MISSING)).sum())
    note = f"patients left out, their cases disagree evenly: {n_drawn}" if n_drawn else ""
    short = np.flatnonzero((sizes < min_group) & (sizes > 0))
    codes = np.where(np.isin(found, short), SMALL, found)
    is_kept = sizes >= min_group
    if is_kept.sum() < 2:
        fault = (
            f"no test: of its different values ({len(names)}), {int(is_kept.sum())} have at least "
            f"{min_group} patients; two are needed"
        )
        return Column(name, "groups", names, codes, sizes=sizes, note=note, fault=fault)
    note = "; ".join(filter(None, (small_note(sizes[short], min_group), note)))
    return Column(name, "groups", names, codes, sizes=sizes, note=note)


def _holds_numbers(held: pd.Series[Any]) -> bool:
    if pd.api.types.is_bool_dtype(held.dtype):
        return False
    if pd.api.types.is_numeric_dtype(held.dtype):
        return True
    return bool(
        held.dtype == object
        and held.map(lambda v: isinstance(v, Real) and not isinstance(v, bool)).all()
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(float(value))
    return str(value)
