"""Where findings were in the training cases: a map that knows nothing of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxplain.data.case import Case
from voxplain.errors import DataError
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import resample
from voxplain.space.volume import Volume

SHAPES = {2: (256, 256), 3: (96, 96, 96)}
"""Common shape by rank, unless another is asked for."""


@dataclass(frozen=True, eq=False)
class AverageMask:
    """Voxelwise mean of true masks, each stretched to one shape.

    Parameters
    ----------
    values
        (*shape) from 0 to 1; axes point to right, anterior and superior (2D: to the first two).
    n
        Cases behind it.
    """

    values: NDArray[np.float64]
    n: int

    def on(self, grid: Grid) -> NDArray[np.float64]:
        """Stretch it over an image.

        Parameters
        ----------
        grid
            Of an image of the same rank; the mean covers its extent, whatever its size in mm.

        Returns
        -------
        numpy.ndarray
            (*grid.shape) from 0 to 1.
        """
        upright = grid.reorient("RAS"[: grid.rank])
        data = stretched(self.values, upright.shape)[None]
        return np.asarray(resample(Volume(data, upright), grid, order=0).data[0], np.float64)


def average_masks(
    train: Sequence[Case],
    test: Sequence[Case],
    structures: Sequence[str],
    *,
    read: Callable[[Case], LabelMap] = Case.read_labels,
    shape: Sequence[int] | None = None,
) -> dict[str, AverageMask]:
    """Average the true masks of training cases, once none of them is a test case.

    Mean over cases of the share of each voxel of the common shape that the case's mask covers,
    index i of n standing for the part from i/n to (i + 1)/n of the image's side.

    Parameters
    ----------
    train
        Cases to average; those without labels are left out.
    test
        Cases that the mean is to be held against.
    structures
        Regions of the labels, one mean each.
    read
        How a case's labels are read, e.g. `voxplain.data.Cohort.read_labels`, which knows the
        names of structures that a case does not have.
    shape
        Common shape; default `SHAPES`.

    Returns
    -------
    dict
        Mean by structure.

    Raises
    ------
    DataError
        If a training case is a test case by name, by patient or by the image's values, if no
        training case has labels, or if 2D and 3D are mixed.
    LabelError
        If a case's labels have no such structure.

    Notes
    -----
    Reads every image once, for its hash, and every label map once. Memory: one case, and for
    each structure one map of the common shape. Stretched by index and not by mm: bodies of
    different size fall upon one another only roughly, as in the paper, where all pictures had
    one shape. Scaling a map does not change its ranks, so cases without a finding would change
    no metric of ranks.

    References
    ----------
    Arun et al., Radiology: Artificial Intelligence 3(6), 2021: average mask, over training and
    validation cases.
    """
    _refuse_overlap(train, test)
    sums: dict[str, NDArray[np.float64]] = {}
    n = 0
    for case in train:
        if case.labels is None:
            continue
        labels = read(case)
        rank = labels.grid.rank
        common = SHAPES[rank] if shape is None else tuple(shape)
        if len(common) != rank or any(s.ndim != rank for s in sums.values()):
            raise DataError(
                f"an average mask needs cases of one rank, that of its shape {common}; "
                f"{case.name} has {rank} axes; give cases of one kind"
            )
        upright = labels.grid.reorient("RAS"[:rank])
        for name in structures:
            mask = Volume(labels.mask(name)[None].astype(np.float32), labels.grid)
            share = stretched(resample(mask, upright, order=0).data[0], common)
            sums[name] = sums[name] + share if name in sums else share
        n += 1
    if not n:
        raise DataError(
            f"none of {len(train)} training cases has labels to average; leave out the baseline "
            "average_mask, or give labels"
        )
    return {name: AverageMask(total / n, n) for name, total in sums.items()}


def stretched(values: NDArray[np.floating], shape: Sequence[int]) -> NDArray[np.float64]:
    """Give an array another shape: each new voxel is the mean of what it covers of the old.

    Parameters
    ----------
    values
        Any shape.
    shape
        As many lengths.

    Returns
    -------
    numpy.ndarray
        Of `shape`, with the same mean.
    """
    found = np.asarray(values, np.float64)
    for axis, n in enumerate(shape):
        if found.shape[axis] != n:
            shares = _shares(found.shape[axis], n)
            found = np.moveaxis(np.tensordot(shares, found, axes=(1, axis)), 0, axis)
    return found


def _shares(n_old: int, n_new: int) -> NDArray[np.float64]:
    """(n_new, n_old) share of each old interval in each new one; rows add up to 1."""
    # whole numbers on a scale of n_old·n_new, so that equal ends are equal
    old, new = np.arange(n_old + 1) * n_new, np.arange(n_new + 1) * n_old
    high = np.minimum(new[1:, None], old[None, 1:])
    low = np.maximum(new[:-1, None], old[None, :-1])
    return np.asarray(np.maximum(high - low, 0) / n_old, np.float64)


def _refuse_overlap(train: Sequence[Case], test: Sequence[Case]) -> None:
    names = {case.name for case in test}
    patients = {case.patient for case in test if case.patient is not None}
    images = {case.read_image().sha256() for case in test}
    by_name = [case.name in names for case in train]
    by_patient = [case.patient in patients for case in train]
    by_image = [case.read_image().sha256() in images for case in train]
    n = sum(map(any, zip(by_name, by_patient, by_image, strict=True)))
    if n:
        raise DataError(
            f"an average mask is made of cases that are not tested: {n} of {len(train)} training "
            f"cases are among the {len(test)} tested ones ({sum(by_name)} by name, "
            f"{sum(by_patient)} by patient, {sum(by_image)} by the image itself); take them out of "
            "one of the two"
        )
