"""Where the checks of an assessment draw their lines."""

from __future__ import annotations

from dataclasses import dataclass

from voxplain.study.score_comparison import LEAST_PATIENTS


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Limits of the checks VX201 to VX212; each is told on the check's page.

    Parameters
    ----------
    similarity
        Metric by which two maps are alike (VX201, VX212).
    order
        Order of the cascade that is judged, by its last step (VX201).
    deciding
        Metrics by which a trivial map is to be beaten, those of them that were computed (VX202).
    high_baselines
        Baselines that are no trivial maps, by the start of their name, and decide nothing (VX202).
    average_sensitivity
        Largest mean change of a map, relative to its size (VX203).
    stability
        Least mean rank correlation of a map with that of a changed image (VX203).
    energy_in_body
        Least share of the map in the body (VX204).
    fill_agreement
        Least agreement between two fills (VX206).
    n_patients
        Least number of patients for a verdict by an interval (VX207).
    leakage
        Largest off-target leakage (VX208).
    completeness_gap
        Largest gap, relative to the score's change (VX210).
    flagged_share
        Share of maps without a value of their own from which on this is an issue, below it is a
        tip (VX211).
    """

    similarity: str = "ssim"
    order: str = "top_down"
    deciding: tuple[str, ...] = ("average_precision", "faithfulness_correlation")
    high_baselines: tuple[str, ...] = ("given:",)
    average_sensitivity: float = 1.0
    stability: float = 0.5
    energy_in_body: float = 0.5
    fill_agreement: float = 0.5
    n_patients: int = LEAST_PATIENTS
    leakage: float = 0.5
    completeness_gap: float = 0.05
    flagged_share: float = 0.05


DEFAULTS = Thresholds()
