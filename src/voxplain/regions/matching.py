"""Predicted and true lesions: which are found, under-segmented, false or missed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.optimize import linear_sum_assignment

from voxplain.errors import GridError, LabelError
from voxplain.regions.instances import connectivity_of, instances
from voxplain.regions.lesion import Lesion, LesionType
from voxplain.space.box import Box
from voxplain.space.grid import Grid

Rule = Literal["overlap", "iou", "adjusted_iou", "one_to_one"]
"""How a predicted lesion is compared with the true ones; see `find_lesions`."""


def find_lesions(
    predicted: NDArray[np.bool_],
    grid: Grid,
    truth: NDArray[np.bool_] | None = None,
    *,
    neighbours: int | None = None,
    min_voxels: int = 1,
    min_mm3: float = 0.0,
    rule: Rule = "overlap",
    threshold: float = 0.1,
) -> list[Lesion]:
    """Find the connected lesions of a prediction and compare them with the true ones.

    For a predicted lesion c and the true lesions t that share a voxel with it:

    - ``overlap``: number |c ∩ ∪t| / |c|; TP if it is above 0, else FP.
    - ``iou``: number max |c ∩ t| / |c ∪ t|; TP if at least the threshold, US if above 0, else FP.
    - ``adjusted_iou``: number |c ∩ K| / |c ∪ (K minus Q)|, K the union of the t, Q the union of
      all predicted lesions that touch K; types as ``iou``. A true lesion that was predicted in
      pieces does not count against any of them: only its voxels in no piece do. As every
      predicted voxel of K is in Q, the denominator is |c| + |K| - |K ∩ Q|.
    - ``one_to_one``: each predicted and each true lesion have at most one partner. Of all pairs
      with IoU ≥ threshold those are chosen that have the largest sum of IoU. A chosen c is TP,
      with the IoU of its pair; any other has its largest IoU as number and is US if that is
      above 0, else FP.

    So FP touches no true lesion by any rule. A true lesion is FN (missed) where no predicted one
    touches it; by ``one_to_one`` where it was not chosen. The number of a missed one is its
    largest IoU, which is 0 if nothing touches it.

    Parameters
    ----------
    predicted
        (*grid.shape) truth values.
    grid
        Where the voxels lie.
    truth
        (*grid.shape) truth values; None: every predicted lesion has the type ``lesion``.
    neighbours
        Of a voxel in its lesion: 6, 18 or 26 in 3D, 4 or 8 in 2D; None: 18, or 4.
    min_voxels, min_mm3
        Smaller lesions, predicted and true, are left out (2D: mm²). What touches a true lesion
        that is too small, and no other, is no false alarm, and is left out as well.
    rule
        Which number, see above.
    threshold
        Least IoU, 0 < threshold ≤ 1; ``overlap`` does not use it.

    Returns
    -------
    list of Lesion
        Predicted lesions ``P1``, ``P2``, … by size, then the missed of the true lesions ``T1``,
        ``T2``, …. A name is the place by size among all predicted, or all true, lesions that
        are large enough: it depends neither on the rule nor on the other side, so one that is
        left out leaves a gap. `overlap` is the number. `partners` are all lesions of the other
        side that share a voxel with it, also true ones that are not missed. Empty for empty
        masks.

    Raises
    ------
    GridError
        If a mask is not of the grid's shape.
    LabelError
        If a setting is out of range.

    Notes
    -----
    Pairs of lesions are counted where both masks are true: time grows with the voxels, not with
    the number of lesions.

    ``iou`` and ``adjusted_iou`` are the rules of Spagnolo et al., "Instance-level explanation
    saliency", Scientific Reports 2026; ``overlap`` is their ``non_zero``, which has no number.
    The paper has no ``one_to_one`` and keeps what touches only a small true lesion.

    The adjusted IoU: Rottmann et al., "Prediction error meta classification in semantic
    segmentation", IJCNN 2020.
    """
    check_matching(rule, threshold, min_voxels, min_mm3)
    # an affine from a file is rounded: a lesion of just min_mm3 stays
    least = max(min_voxels, math.ceil(min_mm3 / grid.voxel_mm3 * (1 - 1e-6)))
    ours = _Side.of("P", predicted, grid, neighbours)
    if truth is None:
        return [ours.lesion(p, "lesion") for p in range(1, ours.count_of(least) + 1)]
    theirs = _Side.of("T", truth, grid, neighbours)
    n_p, n_t = ours.count_of(least), theirs.count_of(least)

    every = _shared(ours.labels, theirs.labels)
    large = (every[:, 0] <= n_p) & (every[:, 1] <= n_t)
    p_of, t_of, shared = every[large].T
    pairs = _Pairs(p_of, t_of, shared, ours.sizes[: n_p + 1], theirs.sizes[: n_t + 1])
    touches_small = set(every[every[:, 1] > n_t, 0].tolist()) - set(pairs.p.tolist())
    numbers, is_found, is_missed = pairs.judge(rule, threshold)

    touched_by: dict[int, list[str]] = {}
    touches: dict[int, list[str]] = {}
    for p, t in zip(p_of.tolist(), t_of.tolist(), strict=True):
        touches.setdefault(p, []).append(f"T{t}")
        touched_by.setdefault(t, []).append(f"P{p}")
    lesions = []
    for p in range(1, n_p + 1):
        if p in touches_small:
            continue
        partners = tuple(touches.get(p, ()))
        kind: LesionType = "TP" if is_found[p] else "US" if partners else "FP"
        lesions.append(ours.lesion(p, kind, float(numbers[p]), partners))
    best = pairs.largest(pairs.iou, pairs.t, n_t)
    for t in (np.flatnonzero(is_missed[1:]) + 1).tolist():
        partners = tuple(touched_by.get(t, ()))
        lesions.append(theirs.lesion(t, "FN", float(best[t]), partners))
    return lesions


def check_matching(rule: str, threshold: float, min_voxels: int, min_mm3: float) -> None:
    """Refuse settings of `find_lesions` that are out of range.

    Raises
    ------
    LabelError
        If one is; the message names it.
    """
    if rule not in get_args(Rule):
        raise LabelError(f"rule is one of {', '.join(get_args(Rule))}, got {rule!r}")
    if not 0 < threshold <= 1:
        raise LabelError(f"the threshold of an IoU is above 0 and at most 1, got {threshold}")
    if not (min_mm3 >= 0 and math.isfinite(min_mm3)):
        raise LabelError(f"min_mm3 is a finite number of at least 0, got {min_mm3}")
    if min_voxels < 1:
        raise LabelError(f"min_voxels is at least 1, got {min_voxels}")


@dataclass(frozen=True, eq=False)
class _Side:
    """Components of one mask by size: their labels, places and sizes."""

    letter: str
    labels: NDArray[np.integer]
    places: list[tuple[slice, ...]]
    sizes: NDArray[np.int64]  # by label; 0 for the background

    @classmethod
    def of(cls, letter: str, mask: NDArray[np.bool_], grid: Grid, neighbours: int | None) -> _Side:
        if mask.shape != grid.shape:
            side = {"P": "predicted", "T": "truth"}[letter]
            raise GridError(
                f"{side} must have the shape of the grid {grid.shape}, got {mask.shape}; resample "
                "it"
            )
        steps = connectivity_of(neighbours, grid.rank)
        labels = instances(mask, grid, connectivity=steps).layers[0]
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        return cls(letter, labels, ndimage.find_objects(labels), sizes)

    def count_of(self, least: int) -> int:
        """Count the components of at least so many voxels; their labels are 1 to the count."""
        return int(np.count_nonzero(self.sizes >= least))

    def lesion(
        self, label: int, kind: LesionType, number: float = math.nan, partners: tuple[str, ...] = ()
    ) -> Lesion:
        place = self.places[label - 1]
        box = Box(tuple(s.start for s in place), tuple(s.stop for s in place))
        mask = self.labels[place] == label
        return Lesion(f"{self.letter}{label}", kind, box, mask, number, partners)


def _shared(a: NDArray[np.integer], b: NDArray[np.integer]) -> NDArray[np.int64]:
    """Rows (label of a, label of b, voxels that have both), sorted; neither label is 0."""
    both = (a != 0) & (b != 0)
    width = int(b.max(initial=0)) + 1
    codes, counts = np.unique(a[both].astype(np.int64) * width + b[both], return_counts=True)
    return np.stack([codes // width, codes % width, counts], axis=1)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Predicted and true lesions that share voxels, one entry a pair, and the sizes of all."""

    p: NDArray[np.int64]
    t: NDArray[np.int64]
    shared: NDArray[np.int64]
    p_sizes: NDArray[np.int64]
    t_sizes: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Shared voxels over those of either, a number a pair."""
        either = self.p_sizes[self.p] + self.t_sizes[self.t] - self.shared
        return np.asarray(self.shared / either)

    @staticmethod
    def largest(
        values: NDArray[np.float64], labels: NDArray[np.int64], n: int
    ) -> NDArray[np.float64]:
        """Largest value of the pairs of each label 0…n; 0 where it is in none."""
        found = np.zeros(n + 1)
        np.maximum.at(found, labels, values)
        return found

    def judge(
        self, rule: Rule, threshold: float
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """By predicted label: the number, is it TP. By true label: is it missed."""
        n_p = len(self.p_sizes) - 1
        is_missed = ~np.isin(np.arange(len(self.t_sizes)), self.t)
        if rule == "overlap":
            shared = np.bincount(self.p, self.shared, n_p + 1)
            numbers = shared / np.maximum(self.p_sizes, 1)
            return numbers, numbers > 0, is_missed
        if rule == "adjusted_iou":
            numbers = self._adjusted()
            return numbers, numbers >= threshold, is_missed
        numbers = self.largest(self.iou, self.p, n_p)
        if rule == "iou":
            return numbers, numbers >= threshold, is_missed
        chosen = self._assignment(threshold)
        is_found = np.isin(np.arange(n_p + 1), self.p[chosen])
        numbers[self.p[chosen]] = self.iou[chosen]
        return numbers, is_found, ~np.isin(np.arange(len(self.t_sizes)), self.t[chosen])

    def _adjusted(self) -> NDArray[np.float64]:
        n_p, n_t = len(self.p_sizes) - 1, len(self.t_sizes) - 1
        not_predicted = self.t_sizes - np.bincount(self.t, self.shared, n_t + 1)
        shared = np.bincount(self.p, self.shared, n_p + 1)
        rest = np.bincount(self.p, not_predicted[self.t], n_p + 1)
        return np.asarray(shared / np.maximum(self.p_sizes + rest, 1))

    def _assignment(self, threshold: float) -> NDArray[np.int64]:
        """Pairs of the one-to-one matching, found apart in each group that is connected."""
        able = np.flatnonzero(self.iou >= threshold)
        n_p = len(self.p_sizes)
        n = n_p + len(self.t_sizes)
        ends = (self.p[able], n_p + self.t[able])
        graph = sparse.coo_array((np.ones(len(able)), ends), shape=(n, n))
        _, group = sparse.csgraph.connected_components(graph, directed=False)
        own = group[self.p[able]]
        order = np.argsort(own, kind="stable")
        cuts = np.flatnonzero(np.diff(own[order])) + 1
        chosen: list[int] = []
        for part in np.split(able[order], cuts):
            rows, row = np.unique(self.p[part], return_inverse=True)
            columns, column = np.unique(self.t[part], return_inverse=True)
            weight = np.zeros((len(rows), len(columns)))
            weight[row, column] = self.iou[part]
            index = np.full(weight.shape, -1)
            index[row, column] = part
            at = linear_sum_assignment(weight, maximize=True)
            chosen += [int(i) for i in index[at] if i >= 0]
        return np.array(sorted(chosen), np.int64)
