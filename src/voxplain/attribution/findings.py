"""Coded remarks that cost nothing: what is seen while a case is explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxplain.attribution.bound import BoundCombination
from voxplain.attribution.scores import ScoreCotangent
from voxplain.inference.cotangent import DenseCotangent, SumCotangent
from voxplain.records.finding import Finding, finding
from voxplain.space.labelmap import BACKGROUND

if TYPE_CHECKING:
    from voxplain.attribution.method import Outcome
    from voxplain.attribution.question import Question

_SLOPE = 1e-3  # of probability; 2p(1-p) at p = 0.9995
_GAP = 0.01
_IN_BODY = 0.5


def findings_of(
    question: Question,
    outcome: Outcome,
    totals: NDArray[np.float64],
    peaks: NDArray[np.float64],
    gaps: list[float | None],
    energy: NDArray[np.float64] | None = None,
) -> tuple[Finding, ...]:
    """Return the remarks on one case.

    Parameters
    ----------
    question
        Targets at the clean input.
    outcome
        What the method told.
    totals, peaks
        Sum and largest magnitude of each target's map.
    gaps
        Completeness gap of each target, None where undefined.
    energy
        (2, n_targets) sum of each map's magnitudes, and that over the body; 0 where no body is
        told from the air around it; None: not looked at.
    """
    found = list(outcome.findings)
    known = {(f.code, f.target) for f in found}
    for t, target in enumerate(question.targets):
        score, cotangent = question.linear[t]
        name = target.name
        if cotangent.support is None and not isinstance(cotangent, DenseCotangent):
            found.append(
                finding("VX103", "not applicable", "the model predicts no voxel of it", name)
            )
            continue
        if isinstance(target, BoundCombination) and target.absent:
            absent = " and ".join(target.absent)
            evidence = f"the model predicts no voxel of {absent}; only the rest is explained"
            found.append(finding("VX103", "not applicable", evidence, name))
        parts = [cotangent]
        if isinstance(cotangent, SumCotangent):
            parts = [term for _, term in cotangent.terms]
        slopes = [part.slope() for part in parts if isinstance(part, ScoreCotangent)]
        if slopes and max(slopes) < _SLOPE:
            found.append(
                finding(
                    "VX101",
                    "issue",
                    f"on average the score moves by {max(slopes):.1e} per unit of logit: "
                    "it is saturated and its gradient says little; explain the logit, margin or "
                    "log-odds instead",
                    name,
                )
            )
        if peaks[t] == 0.0 and ("VX107", name) not in known:
            found.append(
                finding("VX104", "issue", f"score {score:.6g}, every voxel's value is 0", name)
            )
        total, inside = (0.0, 0.0) if energy is None else energy[:, t]
        if inside < _IN_BODY * total and name.partition("@")[0] != BACKGROUND:
            evidence = (
                f"{inside / total:.1%} of the map lies in the body: the model uses what is "
                "outside (a marker, the table, a border), or the map does not show what it uses"
            )
            found.append(finding("VX204", "issue", evidence, name))
        gap = gaps[t]
        if gap is not None and ("VX102", name) not in known:
            change = totals[t] - gap
            if abs(gap) > _GAP * abs(change):
                found.append(
                    finding(
                        "VX102",
                        "issue",
                        f"the map sums to {totals[t]:.6g}, the score changes by {change:.6g} from "
                        "the baseline; use more points or draws (see the method's page)",
                        name,
                    )
                )
    return tuple(found)
