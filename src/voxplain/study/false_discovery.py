"""False discovery rate over many tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values adjusted by Benjamini and Hochberg over all that are known.

    q_(i) = min over j ≥ i of p_(j) · m / j, with the m known p-values in rising order: calling
    every test with q ≤ 0.05 a finding keeps the expected share of false ones among the findings
    at 5 %, for independent or positively dependent tests.

    Parameters
    ----------
    p
        Any shape, 0…1; NaN where there was no test.

    Returns
    -------
    numpy.ndarray
        Same shape; NaN stays.

    References
    ----------
    Benjamini & Hochberg, Journal of the Royal Statistical Society B 57 (1995).
    """
    from scipy.stats import false_discovery_control  # heavy, and a page needs none of it

    q = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = false_discovery_control(p[known])
    return q
