"""Off-target leakage: whether removing what explains one class changes the others too."""

from __future__ import annotations

import numpy as np

from voxplain.assess.curves import Curves
from voxplain.errors import MethodError
from voxplain.records.metric import NO_CHANGE, Measured, Metric

FRACTION = 0.1

LEAKAGE = Metric(
    "leakage", "faithfulness", "lower", "1", 0.0, 1.0,
    "mean relative change of the other targets over that plus the relative change of the "
    "target itself, when the most relevant tenth of the voxels is removed: 0 if the target "
    "alone changes, 1/2 if all change alike, 1 if the others alone do",
    "NaN with a single target: there is no other. NaN and 'no change' where neither changes, or "
    "the target, or every other one, is the same on the filled image; others that are so, are left "
    "out. A constant or empty map is removed in a random order and flagged.",
    "voxplain; removal as in Petsiuk et al. 2018, arXiv 1806.07421, section 4.1",
)  # fmt: skip


def leakage(curves: Curves, target: int, *, fraction: float = FRACTION) -> Measured:
    """Return how much of a removal's effect falls on other targets.

    d_b = |T_b(x) − T_b(removed)| / |T_b(x) − T_b(filled image)|;
    leakage = m / (d_a + m), m the mean of d_b over the targets b other than a.

    Parameters
    ----------
    curves
        Deletion in the order of each target's map, most relevant first.
    target
        a.
    fraction
        Share of the voxels removed, one of the curves' steps.

    Raises
    ------
    MethodError
        If the curves are others, or have no such step.

    Notes
    -----
    No passes: the deletion curve has the values. Targets that overlap, or depend on one another
    through a softmax, change together whatever the map.
    """
    if curves.mode != "deletion" or curves.order != "most":
        raise MethodError(
            "leakage needs the deletion of the most relevant voxels, got "
            f"{curves.mode} of the {curves.order} relevant ones"
        )
    steps = np.flatnonzero(np.isclose(curves.fractions, fraction, rtol=0, atol=1e-9))
    if len(steps) == 0 or fraction <= 0:
        raise MethodError(
            f"leakage at fraction {fraction:g} needs that step, above 0, in the curve; it has "
            f"{', '.join(f'{f:g}' for f in curves.fractions)}"
        )
    flags = curves.flags[target]
    n_targets = len(curves.clean)
    if n_targets == 1:
        return Measured(float("nan"), flags)
    scales = np.array([curves.scale(b) for b in range(n_targets)])
    changes = np.abs((curves.clean - curves.values[target, steps[0]]) / scales)
    others = np.delete(changes, target)
    others = others[~np.isnan(others)]
    own, rest = changes[target], others.mean() if len(others) else np.nan
    if np.isnan(own) or np.isnan(rest) or own + rest == 0:
        return Measured(float("nan"), (*flags, NO_CHANGE))
    return Measured(float(rest / (own + rest)), flags)
