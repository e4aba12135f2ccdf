"""One case against its cohort: where does its importance differ from what is usual."""

from __future__ import annotations

import numpy as np
import pandas as pd

from voxplain.errors import DataError
from voxplain.records.cohort_table import CohortTable, CohortValue
from voxplain.space.labelmap import nearest
from voxplain.study.importance import Floats, known_quantile

LOCAL = (
    "model", "method", "case", "target", "region", "value", "mean", "median", "percentile", "z",
    "n", "note",
)  # fmt: skip
_SD = 1.4826  # of a normal distribution, over its median absolute deviation


def local_against_global(
    table: CohortTable, case: str, value: CohortValue = "share"
) -> pd.DataFrame:
    """Compare one case with the cases of all other patients.

    z = (x − median) / (1.4826 · MAD), MAD = median |y − median| over the others' values y;
    percentile = 100 · (number of y < x + ½ · number of y = x) / n.

    Parameters
    ----------
    table
        Of one model and method.
    case
        Name of the case.
    value
        Which number: ``share`` (0…1), ``mean``, ``positive`` or ``negative``.

    Returns
    -------
    pandas.DataFrame
        Columns `LOCAL`, a row each target and region, in the order of the table. value: of the
        case. mean, median: of the n known cases of other patients; they, the percentile (0…100)
        and the robust z (in standard deviations) leave out every case of the patient at hand.
        note: why something is NaN.

    Raises
    ------
    DataError
        If there is no such case.
    LabelError
        If the table does not hold the value.

    Notes
    -----
    A MAD that is not above the rounding of the values counts as 0.

    References
    ----------
    Rousseeuw & Croux, Alternatives to the median absolute deviation, Journal of the American
    Statistical Association 88 (1993).
    """
    if case not in table.cases.index:
        raise DataError(f"no case {case!r}{nearest(case, tuple(map(str, table.cases.index)))}")
    row = table.cases.index.get_loc(case)
    patients = table.cases["patient"].astype(str).to_numpy()
    others = patients != patients[row]
    frames = []
    for target in table.targets:
        values = table.of_target(target, value).to_numpy()
        found = _compared(values[row], values[others]).assign(
            model=table.model, method=table.method, case=case, target=target,
            region=[*table.regions],
        )  # fmt: skip
        frames.append(found)
    if not frames:
        return pd.DataFrame(columns=[*LOCAL])
    return pd.concat(frames, ignore_index=True)[[*LOCAL]]


def _compared(own: Floats, others: Floats) -> pd.DataFrame:
    """Compare values of one case (n_regions,) with others (n, n_regions)."""
    # sorted, so that the mean does not depend on the order of cases
    ranked = np.sort(np.ascontiguousarray(others.T), axis=1)
    n = (~np.isnan(ranked)).sum(axis=1)
    median = known_quantile(ranked, n, 0.5)
    far = np.sort(np.abs(ranked - median[:, None]), axis=1)
    mad = known_quantile(far, n, 0.5)
    largest = np.abs(ranked).max(axis=1, initial=0, where=~np.isnan(ranked))
    mad[mad <= 8 * np.finfo(float).eps * largest] = 0.0
    is_known = ~np.isnan(own) & (n > 0)
    below = (ranked < own[:, None]).sum(axis=1) + (ranked == own[:, None]).sum(axis=1) / 2
    nothing = np.full(len(own), np.nan)
    z = np.divide(own - median, _SD * mad, out=nothing.copy(), where=is_known & (mad > 0))
    notes = np.select(
        [n == 0, np.isnan(own), mad == 0],
        [
            "no case of another patient with this target and region",
            "not in this case",
            "no z: at least half of the others are equal (MAD 0)",
        ],
        "",
    )
    return pd.DataFrame(
        {
            "value": own,
            "mean": np.divide(np.nansum(ranked, axis=1), n, out=nothing.copy(), where=n > 0),
            "median": median,
            "percentile": np.divide(100 * below, n, out=nothing.copy(), where=is_known),
            "z": z,
            "n": n,
            "note": notes,
        }
    )
