"""Shares that sum to 1: closed, freed of zeros, and as log-ratios."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import DataError

Floats = NDArray[np.float64]


def closed(shares: Floats) -> Floats:
    """Divide the parts of each composition by their sum: x_i / Σ_j x_j.

    Parameters
    ----------
    shares
        (..., n_parts) ≥ 0 with a positive sum; NaN rows stay NaN.

    Returns
    -------
    numpy.ndarray
        Same shape; each row sums to 1.

    Raises
    ------
    DataError
        If a part is negative, or a row has only zeros.
    """
    _not_negative(shares)
    total = shares.sum(axis=-1, keepdims=True)
    if (total == 0).any():
        raise DataError(
            f"{int((total == 0).sum())} compositions have no part above 0 and cannot be closed; "
            "leave them out"
        )
    found: Floats = shares / total
    return found


def smallest_shares(shares: Floats) -> Floats:
    """Learn what a zero of each part is replaced by: half of its smallest positive share.

    Parameters
    ----------
    shares
        (n, n_parts) ≥ 0, finite.

    Returns
    -------
    numpy.ndarray
        (n_parts,) > 0. A part that is never above 0 takes the smallest number of the others.

    Raises
    ------
    DataError
        If a part is negative, or none is ever above 0.
    """
    _not_negative(shares)
    least = shares.min(axis=0, where=shares > 0, initial=np.inf)
    if not np.isfinite(least).any():
        raise DataError("no share is above 0, so nothing tells how small a share can be")
    found: Floats = np.where(np.isfinite(least), least, least.min()) / 2
    return found


def replace_zeros(shares: Floats, delta: Floats) -> Floats:
    """Replace zeros so that the ratios of the other parts stay as they are.

    x_i = 0 becomes delta_i; x_i > 0 becomes x_i · (1 − Σ delta_j over the zeros of the row).

    Parameters
    ----------
    shares
        (n, n_parts), each row summing to 1; NaN rows stay NaN.
    delta
        (n_parts,) > 0, e.g. of `smallest_shares` of the cohort that a detector is fitted on.

    Returns
    -------
    numpy.ndarray
        (n, n_parts) > 0; each row sums to 1.

    Raises
    ------
    DataError
        If a share is negative, a delta is not positive, or those of a row's zeros sum to 1 or
        more.

    References
    ----------
    Martín-Fernández, Barceló-Vidal & Pawlowsky-Glahn, Mathematical Geology 35 (2003), eq. 6.
    """
    _not_negative(shares)
    if not (delta > 0).all():
        raise DataError(f"delta, what replaces a zero, is above 0; the least is {delta.min()}")
    found = shares.copy()
    rows = np.flatnonzero((shares == 0).any(axis=1))
    is_zero = shares[rows] == 0
    taken = is_zero.astype(np.float64) @ delta
    if (taken >= 1).any():
        raise DataError(
            f"what replaces the zeros of one row sums to {taken.max():g}; it has to be below 1"
        )
    found[rows] = np.where(is_zero, delta, shares[rows] * (1 - taken)[:, None])
    return found


def clr(shares: Floats) -> Floats:
    """Return centred log-ratios log x_i − mean_j log x_j.

    Parameters
    ----------
    shares
        (..., n_parts) > 0, on any scale; NaN rows stay NaN.

    Returns
    -------
    numpy.ndarray
        Same shape; each row sums to 0. ``closed(exp(clr(x)))`` is ``closed(x)``.

    Raises
    ------
    DataError
        If a part is 0 or below.

    References
    ----------
    Aitchison, The statistical analysis of compositional data (1986).
    """
    if (shares <= 0).any():
        raise DataError(
            f"log-ratios need shares above 0, the least is {np.nanmin(shares):g}; replace_zeros "
            "first"
        )
    logs = np.log(shares)
    found: Floats = logs - logs.mean(axis=-1, keepdims=True)
    return found


def _not_negative(shares: Floats) -> None:
    if (shares < 0).any():
        raise DataError(f"shares are 0 or above, the least is {np.nanmin(shares):g}")
