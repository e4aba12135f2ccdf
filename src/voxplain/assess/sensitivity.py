"""How far a map moves when the image moves a little."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.records.metric import EMPTY_MAP, Measured, Metric

_POLICY = (
    "NaN and 'empty map' where the map of the clean image is zero everywhere; 1 and 'empty map' "
    "where only that of a changed image is"
)
_YEH = "Yeh et al. 2019, arXiv 1901.09392, def. 2"

AVERAGE_SENSITIVITY = Metric(
    "average_sensitivity", "stability", "lower", "1", 0.0, math.inf,
    "Mean over noisy images x' of ‖a(x) - a(x')‖₂ / ‖a(x)‖₂.",
    _POLICY, _YEH,
)  # fmt: skip
MAX_SENSITIVITY = Metric(
    "max_sensitivity", "stability", "lower", "1", 0.0, math.inf,
    "Largest of ‖a(x) - a(x')‖₂ / ‖a(x)‖₂ over noisy images x'.",
    _POLICY, _YEH,
)  # fmt: skip
AVERAGE_SENSITIVITY_AGG2EXP = Metric(
    "average_sensitivity_agg2exp", "stability", "lower", "1", 0.0, math.inf,
    "Mean over noisy images of ‖b(x) - b(x')‖₂ / ‖b(x)‖₂, b = a / max |a| of each map.",
    _POLICY, "Chrabąszcz et al. 2025, arXiv 2407.16653; AvgSensitivity of Quantus",
)  # fmt: skip
METRICS = (AVERAGE_SENSITIVITY, MAX_SENSITIVITY, AVERAGE_SENSITIVITY_AGG2EXP)

Values = NDArray[np.floating[Any]]


def relative_change(clean: Values, changed: Values) -> Measured:
    """Return ‖a - a'‖₂ / ‖a‖₂, summed over voxels and channels.

    Parameters
    ----------
    clean, changed
        Signed maps a, a' of one target, of one shape, (n_channels, *shape).

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if clean.shape != changed.shape:
        raise ValueError(f"maps of one shape are compared, got {clean.shape} and {changed.shape}")
    a, b = _flat(clean), _flat(changed)
    if not a.any():
        return Measured(math.nan, (EMPTY_MAP,))
    value = float(np.linalg.norm(a - b) / np.linalg.norm(a))
    return Measured(value, () if b.any() else (EMPTY_MAP,))


def relative_change_agg2exp(clean: Values, changed: Values) -> Measured:
    """Return `relative_change` of the maps divided by their own largest magnitude.

    Parameters
    ----------
    clean, changed
        As in `relative_change`. A map that is zero everywhere stays so.
    """
    return relative_change(_over_max(clean), _over_max(changed))


def average_sensitivity(clean: Values, changed: Iterable[Values]) -> Measured:
    """Return the mean over changed images of ‖a - a'‖₂ / ‖a‖₂.

    Parameters
    ----------
    clean
        Map of the clean image, (n_channels, *shape), of one target.
    changed
        Maps of the changed images; may be made one after the other.

    Returns
    -------
    Measured
        At least 0; 0 where no map moved.

    Raises
    ------
    ValueError
        If there is no changed map.

    Notes
    -----
    Quantus' AvgSensitivity (normalise=False, abs=False) with one image a batch.

    References
    ----------
    Yeh et al. 2019, arXiv 1901.09392, def. 2 (there the maximum, not divided).
    """
    return mean_of([relative_change(clean, one) for one in changed])


def max_sensitivity(clean: Values, changed: Iterable[Values]) -> Measured:
    """Return the largest ‖a - a'‖₂ / ‖a‖₂ over changed images.

    Parameters
    ----------
    clean, changed
        As in `average_sensitivity`.

    Raises
    ------
    ValueError
        If there is no changed map.

    Notes
    -----
    captum's sensitivity_max and Quantus' MaxSensitivity, save that captum divides by 1 where the
    clean map is zero everywhere; here the value is NaN. The paper does not divide: the unit of
    a map then decides. Drawn from few copies, it is below the maximum over the whole ball.

    References
    ----------
    Yeh et al. 2019, arXiv 1901.09392, def. 2.
    """
    return max_of([relative_change(clean, one) for one in changed])


def average_sensitivity_agg2exp(clean: Values, changed: Iterable[Values]) -> Measured:
    """Return the mean over changed images, after each map was divided by its largest magnitude.

    Parameters
    ----------
    clean, changed
        As in `average_sensitivity`.

    Raises
    ------
    ValueError
        If there is no changed map.

    Notes
    -----
    Quantus' AvgSensitivity (normalise=True, normalise_by_max, abs=False) with one image a batch;
    Quantus takes the largest magnitude over a whole batch, so its value changes with the batch.
    A map that only changes its scale has the value 0, and one outlier moves it much.

    References
    ----------
    Chrabąszcz et al. 2025, arXiv 2407.16653.
    """
    return mean_of([relative_change_agg2exp(clean, one) for one in changed])


def mean_of(parts: Sequence[Measured]) -> Measured:
    """Return the mean of values over copies; NaN if one is, with every flag of any.

    Raises
    ------
    ValueError
        If there is none.
    """
    _some(parts)
    return Measured(math.fsum(part.value for part in parts) / len(parts), _flags(parts))


def max_of(parts: Sequence[Measured]) -> Measured:
    """Return the largest of values over copies; NaN if one is, with every flag of any.

    Raises
    ------
    ValueError
        If there is none.
    """
    _some(parts)
    return Measured(float(np.max([part.value for part in parts])), _flags(parts))


def _some(parts: Sequence[Measured]) -> None:
    if not parts:
        raise ValueError("no map of a changed image to compare with")


def _flags(parts: Sequence[Measured]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(flag for part in parts for flag in part.flags))


def _flat(values: Values) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(-1)


def _over_max(values: Values) -> Values:
    largest = np.abs(values).max(initial=0.0)
    return values / largest if largest > 0 else values
