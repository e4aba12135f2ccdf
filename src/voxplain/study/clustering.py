"""Targets joined into a tree by what they draw on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import DataError, MethodError

Linkage = Literal["average", "complete", "ward", "single"]

COPHENETIC = ("linkage", "cophenetic_r", "is_chosen", "note")
"""One row a linkage: correlation of distances in its tree with those of the data."""

MERGES = ("step", "left", "right", "distance", "n_targets")
"""One row a join, nearest first. left, right: a target, or ``step k`` for what that one joined."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """A tree of targets.

    Parameters
    ----------
    targets
        By name; the leaves 0, 1, … of `tree`.
    linkage
        How distances between groups were measured.
    tree
        (n − 1, 4) as scipy's linkage gives it.
    order
        Targets from one end of the tree to the other, neighbours alike.
    cophenetic
        Columns `COPHENETIC`.
    left_out
        Targets without numbers (in no case).
    """

    targets: tuple[str, ...]
    linkage: str
    tree: NDArray[np.float64]
    order: tuple[str, ...]
    cophenetic: pd.DataFrame
    left_out: tuple[str, ...] = ()

    @property
    def merges(self) -> pd.DataFrame:
        """The tree as a table, columns `MERGES`."""
        n = len(self.targets)
        name = [*self.targets, *(f"step {k}" for k in range(1, n))]
        rows = [
            (step, name[int(left)], name[int(right)], distance, int(size))
            for step, (left, right, distance, size) in enumerate(self.tree, 1)
        ]
        return pd.DataFrame(rows, columns=list(MERGES))


def cluster(importance: pd.DataFrame, linkage: Linkage | None = None) -> Clusters:
    """Join targets that draw on the same regions.

    Distance of targets a and b: √Σ_r (√m_ar − √m_br)² with the mean shares m, √2 times the
    Hellinger distance.

    Parameters
    ----------
    importance
        Targets × regions, mean shares, not below 0. A target with a missing share is left out.
        Leave out extra regions, which are no parts of a whole.
    linkage
        Distance between groups of targets. None: the one whose tree keeps the distances best,
        by cophenetic correlation; the first of average, complete, ward, single among equals.

    Returns
    -------
    Clusters
        Does not depend on the order of rows and columns, but where distances are equal.

    Raises
    ------
    MethodError
        If the linkage is not known.
    DataError
        If a share is below 0, or fewer than two targets have numbers.

    References
    ----------
    Sokal and Rohlf, The comparison of dendrograms by objective methods, Taxon 11 (1962).
    """
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import pdist

    linkages = get_args(Linkage)
    if linkage is not None and linkage not in linkages:
        raise MethodError(f"linkage is one of {', '.join(linkages)}, got {linkage!r}")
    ordered = importance.sort_index().sort_index(axis=1)
    is_known = ordered.notna().all(axis=1)
    known = ordered[is_known]
    values = known.to_numpy(np.float64)
    if (values < 0).any():
        raise DataError("shares to cluster by are not below 0; give the means of share")
    if len(known) < 2:
        raise DataError(
            f"a tree needs two targets with numbers, got {len(known)} of {len(importance)}; "
            "the others are in no case"
        )
    distances = pdist(np.sqrt(values))
    trees = {name: hierarchy.linkage(distances, name, optimal_ordering=True) for name in linkages}
    kept = {name: _correlation(distances, hierarchy.cophenet(t)) for name, t in trees.items()}
    chosen: str = linkage or max(kept, key=lambda name: np.nan_to_num(kept[name], nan=-2.0))
    note = "" if np.isfinite(kept[chosen]) else "all distances are equal: no correlation"
    rows = [(name, r, name == chosen, note) for name, r in kept.items()]
    targets = tuple(map(str, known.index))
    return Clusters(
        targets,
        chosen,
        trees[chosen],
        tuple(targets[i] for i in hierarchy.leaves_list(trees[chosen])),
        pd.DataFrame(rows, columns=list(COPHENETIC)),
        tuple(map(str, ordered.index[~is_known])),
    )


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's correlation; NaN where one of them does not vary."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])
