"""How strange cases are looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from voxplain.errors import MethodError
from voxplain.space.labelmap import nearest

Detector = Literal["mahalanobis", "isolation_forest", "lof"]
Features = Literal["clr", "share"]
Tail = Literal["pareto", "none"]
Rule = Literal["fdr", "predict"]


@dataclass(frozen=True)
class AnomalySettings:
    """Everything that decides which cases are called outliers.

    Parameters
    ----------
    detector
        ``mahalanobis``: squared distance from the median with a shrunk covariance;
        ``isolation_forest``: the paper's; ``lof``: local outlier factor.
    features
        ``clr``: centred log-ratios of the shares, zeros replaced; ``share``: as they are.
    level
        False discovery rate at which a case is called an outlier.
    n_trees
        Of the isolation forest.
    n_neighbours
        Of the local outlier factor; no more than there are cases to fit on, less one.
    min_cases
        Fewest patients with a target; with fewer it is skipped.
    tail
        ``pareto``: p-values beyond the largest calibration scores follow their tail; ``none``:
        they end at one over the number of patients. See `voxplain.study.conformal`.
    rule
        ``fdr``: outliers have q ≤ level; ``predict``: those that scikit-learn's ``predict``
        calls so, whatever p says (not with ``mahalanobis``).
    seed
        Of the split into folds and of the trees.

    Raises
    ------
    MethodError
        If a setting is out of its range.
    """

    detector: Detector = "mahalanobis"
    features: Features = "clr"
    level: float = 0.05
    n_trees: int = 100
    n_neighbours: int = 20
    min_cases: int = 20
    tail: Tail = "pareto"
    rule: Rule = "fdr"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in _WORDS.items():
            value, known = getattr(self, name), get_args(kind)
            if value not in known:
                raise MethodError(f"no {name} {value!r}{nearest(str(value), known)}")
        if not 0 < self.level < 1:
            raise MethodError(f"level is between 0 and 1, e.g. 0.05; got {self.level}")
        for name, least in (("n_trees", 1), ("n_neighbours", 1), ("min_cases", 8), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise MethodError(f"{name} is a whole number from {least}, got {value!r}")
        if self.rule == "predict" and self.detector == "mahalanobis":
            raise MethodError(
                "rule predict is scikit-learn's own threshold, which mahalanobis has not; use "
                "rule fdr, or the detector isolation_forest or lof"
            )


_WORDS: Mapping[str, Any] = MappingProxyType(
    {"detector": Detector, "features": Features, "tail": Tail, "rule": Rule}
)

PRESETS: Mapping[str, AnomalySettings] = MappingProxyType(
    {
        "default": AnomalySettings(),
        "agg2exp": AnomalySettings(detector="isolation_forest", features="share", rule="predict"),
    }
)
"""``agg2exp``: Chrabąszcz et al., WACV 2025: an isolation forest on raw shares, fitted on every
case of the first cohort."""
