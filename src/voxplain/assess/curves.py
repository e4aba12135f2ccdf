"""Curves of targets while voxels are removed or inserted, and the areas under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voxplain.assess.ranking import Order
from voxplain.errors import MethodError
from voxplain.records.metric import NO_CHANGE, Measured, Metric

Mode = Literal["deletion", "insertion"]

FRACTIONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)

_LEAST = 1e-6  # of the values: what float32 passes do not tell apart


_POLICY = (
    "A constant or empty map is removed in a random order and flagged. NaN and 'no change' where "
    "the target is the same on the filled image, or has no voxel."
)
DELETION_AREA = Metric(
    "deletion_area", "faithfulness", "lower", "1", -np.inf, np.inf,
    "area under the target over the share of voxels removed, most relevant first; the target is "
    "1 on the image and 0 on the filled image", _POLICY,
    "Petsiuk et al. 2018, arXiv 1806.07421, section 4.1; Samek et al. 2017, arXiv 1509.06321",
)  # fmt: skip
INSERTION_AREA = Metric(
    "insertion_area", "faithfulness", "higher", "1", -np.inf, np.inf,
    "area under the target over the share of voxels inserted into the filled image, most relevant "
    "first; the target is 1 on the image and 0 on the filled image", _POLICY,
    "Petsiuk et al. 2018, arXiv 1806.07421, section 4.1",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Curves:
    """Values of all targets while the map of each is followed.

    Parameters
    ----------
    values
        (n_ranked, n_steps, n_targets): [a, s, b] is target b after step s in the order of the
        map of target a. NaN for a target a without a voxel: it is not followed.
    shares
        (n_ranked, n_steps) share of the voxels removed (inserted) by then.
    fractions
        (n_steps,) as asked: `shares` are these, rounded up to whole voxels or cubes.
    clean, empty
        (n_targets,) values on the image and on the filled image.
    mode, order
        What was done.
    flags
        What there is to say of each map.
    """

    values: NDArray[np.float64]
    shares: NDArray[np.float64]
    fractions: NDArray[np.float64]
    clean: NDArray[np.float64]
    empty: NDArray[np.float64]
    mode: Mode
    order: Order
    flags: tuple[tuple[str, ...], ...]

    def scale(self, target: int) -> float:
        """T(x) − T(filled image); NaN if that is nothing beside the values, or they are not."""
        clean, empty = self.clean[target], self.empty[target]
        change = float(clean - empty)
        is_something = abs(change) > _LEAST * max(abs(clean), abs(empty))
        return change if is_something else float("nan")

    def normalised(self, target: int) -> NDArray[np.float64]:
        """Own curve of a target, (n_steps,): 1 as on the image, 0 as on the filled one."""
        own = self.values[target, :, target] - self.empty[target]
        return np.asarray(own / self.scale(target))

    def area(self, target: int) -> Measured:
        """Area under `normalised` over `shares` by the trapezoidal rule, over their span."""
        flags = self.flags[target]
        if np.isnan(self.scale(target)):
            return Measured(float("nan"), (*flags, NO_CHANGE))
        shares = self.shares[target]
        area = np.trapezoid(self.normalised(target), shares) / (shares[-1] - shares[0])
        return Measured(float(area), flags)


def deletion_area(curves: Curves, target: int) -> Measured:
    """Area under the deletion curve of a target, `DELETION_AREA`.

    Raises
    ------
    MethodError
        If the curves are others, or do not reach from 0 to 1.
    """
    return _whole_area(curves, target, "deletion")


def insertion_area(curves: Curves, target: int) -> Measured:
    """Area under the insertion curve of a target, `INSERTION_AREA`.

    Raises
    ------
    MethodError
        If the curves are others, or do not reach from 0 to 1.
    """
    return _whole_area(curves, target, "insertion")


def checked_fractions(fractions: Sequence[float] | int) -> NDArray[np.float64]:
    """Return the steps of a curve.

    Raises
    ------
    MethodError
        If they are fewer than two, outside of 0…1 or do not ascend.
    """
    if isinstance(fractions, int):
        if fractions < 1:
            raise MethodError(f"a curve has at least 1 step, got {fractions}")
        return np.linspace(0, 1, fractions + 1)
    steps = np.asarray(fractions, np.float64)
    is_within = len(steps) > 1 and steps[0] >= 0 and steps[-1] <= 1
    if not (is_within and (np.diff(steps) > 0).all()):
        raise MethodError(
            f"fractions are at least two ascending numbers within 0…1, got {tuple(fractions)}"
        )
    return steps


def _whole_area(curves: Curves, target: int, mode: Mode) -> Measured:
    if curves.mode != mode or curves.order != "most":
        raise MethodError(
            f"{mode} of the most relevant voxels was expected, got {curves.mode} of the "
            f"{curves.order} relevant ones"
        )
    if curves.fractions[0] != 0 or curves.fractions[-1] != 1:
        raise MethodError(
            f"an area needs fractions from 0 to 1, got {curves.fractions[0]:g} to "
            f"{curves.fractions[-1]:g}"
        )
    return curves.area(target)
