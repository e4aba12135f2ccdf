"""ROAD: removed voxels imputed from their neighbours, so that no new edges are made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, cg

from voxplain.assess.curves import Curves, checked_fractions
from voxplain.assess.ranking import Order, RankBy, Ranking
from voxplain.assess.removal_curves import Curver, curve_passes
from voxplain.attribution.baselines import whole_input
from voxplain.attribution.maps import Maps
from voxplain.attribution.question import Question
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Passes
from voxplain.records.metric import NO_CHANGE, Measured, Metric
from voxplain.space.box import Box

FRACTIONS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
NOISE = 0.01

_DRAW = 1 << 41  # of the noise field, apart from noise copies and noise fills

ROAD = Metric(
    "road", "faithfulness", "higher", "1", -np.inf, np.inf,
    "mean over the share removed of the target with the least relevant voxels imputed less that "
    "with the most relevant ones, over T(x) − T(filled image)",
    "A constant or empty map is removed in one random order both times: 0, flagged. NaN and 'no "
    "change' where the target is the same on the filled image, or has no voxel.",
    "Rong et al. 2022, arXiv 2202.00449, section 4 and appendix",
)  # fmt: skip


def imputed(
    data: NDArray[np.floating], is_removed: NDArray[np.bool_], *, tolerance: float = 1e-6
) -> NDArray[np.float64]:
    """Replace removed voxels by the weighted mean of their neighbours, all at once.

    Σ_n w_n (x_v − x_n) = 0 over the neighbours n of each removed voxel v, whether they are
    removed too or not; neighbours outside of the image are left out. Weights in 2D: 1/6 across
    an edge, 1/12 across a corner. In 3D: 1/14 across a face, 1/28 an edge, 1/56 a corner; so an
    image that is the same in every slice gets what its slices get, and so does a single slice.

    Parameters
    ----------
    data
        (n_channels, *shape), each on its own.
    is_removed
        (*shape), not everything.
    tolerance
        Residual of the linear system over its right side, where conjugate gradients stop.

    Returns
    -------
    numpy.ndarray
        (n_channels, *shape).

    Raises
    ------
    MethodError
        If everything is removed, or the system is not solved in 10 000 steps.

    Notes
    -----
    Voxels count by their index, whatever their spacing, as the paper's pixels do. Memory: some
    five images in float64; the matrix is not formed. Time: a million voxels removed take 1 s as
    speckle and 5 s in blobs of an image of 1.7 million, 19 s in one of 10 million (one core).

    References
    ----------
    Rong et al. 2022, arXiv 2202.00449, appendix on noisy linear imputation.
    """
    if is_removed.all():
        raise MethodError(
            "linear imputation needs a voxel that is not removed; take fractions below 1"
        )
    values = np.array(data, np.float64)
    if not is_removed.any():
        return values
    full = np.zeros(is_removed.shape)
    weight = _neighbours(np.ones(is_removed.shape))[is_removed]

    def residual(x: NDArray[np.float64]) -> NDArray[np.float64]:
        full[is_removed] = x.ravel()
        return np.asarray(weight * x.ravel() - _neighbours(full)[is_removed])

    system = LinearOperator((len(weight),) * 2, matvec=residual, dtype=np.float64)
    for channel in values:
        level = channel[~is_removed].mean()
        known = np.where(is_removed, 0.0, channel - level)
        found, fault = cg(
            system, _neighbours(known)[is_removed], rtol=tolerance, atol=0.0, maxiter=10_000
        )
        if fault:
            raise MethodError(
                f"linear imputation of {len(weight)} voxels did not come to a tolerance of "
                f"{tolerance:g} in 10000 steps; take a larger one"
            )
        channel[is_removed] = level + found
    return values


def _neighbours(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted sum of the neighbours inside the image; weights as powers of 2, not normalised."""
    total = values
    for axis in range(values.ndim):
        before, total = np.moveaxis(total, axis, 0), 2 * total
        after = np.moveaxis(total, axis, 0)
        after[1:] += before[:-1]
        after[:-1] += before[1:]
    total -= 2.0**values.ndim * values
    return total


def noisily_imputed(
    question: Question, is_removed: NDArray[np.bool_], *, noise: float = NOISE
) -> NDArray[np.float64]:
    """Impute the prepared image and add Gaussian noise in the removed voxels.

    Parameters
    ----------
    question
        Image and noise field: a voxel's noise is the same in every step, method and order.
    is_removed
        (*image shape).
    noise
        Standard deviation, in those of each channel of the image: the paper's 0.01 is of
        images brought to a standard deviation of about 1.

    Returns
    -------
    numpy.ndarray
        (n_channels, *image shape).
    """
    data = question.pipeline.image.data
    values = imputed(data, is_removed)
    field = question.noise.crop(_DRAW, len(data), Box.whole(is_removed.shape))
    spread = noise * data.reshape(len(data), -1).std(axis=1, dtype=np.float64)
    for channel, drawn, sd in zip(values, field, spread, strict=True):
        channel[is_removed] += sd * drawn[is_removed]
    return values


def road_curve(
    curver: Curver,
    maps: Maps,
    *,
    fractions: Sequence[float] = FRACTIONS,
    order: Order = "most",
    noise: float = NOISE,
    block: int = 1,
    by: RankBy = "kind",
) -> Curves:
    """Follow each target's map; what is removed is imputed.

    Parameters
    ----------
    curver
        Of this question; its fill gives `Curves.empty`, for the whole image has no imputation.
    maps, order, block, by
        See `Curver.curves`.
    fractions
        Shares of the voxels, ascending, from 0 on and below 1.
    noise
        See `noisily_imputed`.

    Raises
    ------
    MethodError
        If a setting is out of range.

    Notes
    -----
    Passes: as a deletion curve; imputed neighbours change windows like removed ones. Memory: an
    image in float64 beside that of `imputed`. One linear system a step, target and channel.
    """
    steps = checked_fractions(fractions)
    if steps[-1] >= 1:
        raise MethodError(
            f"linear imputation needs voxels that are left: fractions below 1, got {steps[-1]:g}"
        )
    if noise < 0:
        raise MethodError(f"noise is a standard deviation of at least 0, got {noise}")
    question = curver.question

    def along(ranking: Ranking, counts: Sequence[int]) -> NDArray[np.float64]:
        found = np.empty((len(counts), len(curver.clean)))
        for step, n in enumerate(counts):
            data = noisily_imputed(question, ranking.place < n, noise=noise)
            source = whole_input(question.pipeline, data)
            found[step] = curver.values([curver.change(source)])[0]
        return found

    return curver.follow(maps, steps, along, mode="deletion", order=order, block=block, by=by)


def road(most: Curves, least: Curves, target: int) -> Measured:
    """Return how much later the least relevant voxels hurt than the most relevant ones, `ROAD`.

    1/(f₁ − f₀) ∫ (T(least, f) − T(most, f)) df / (T(x) − T(filled image)), by the trapezoidal
    rule over the share f removed; 0 for a map that tells nothing.

    Parameters
    ----------
    most, least
        Curves of the two orders, with the same steps.
    target
        Which map and target.

    Raises
    ------
    MethodError
        If the curves are others.

    Notes
    -----
    The paper tells accuracies at each share over many images; a target's value needs a scale,
    which is that of the deletion curve.
    """
    orders = (most.mode, most.order, least.mode, least.order)
    if orders != ("deletion", "most", "deletion", "least"):
        raise MethodError(
            f"road needs deletions of the most and of the least relevant voxels, got {orders}"
        )
    if not np.array_equal(most.fractions, least.fractions):
        raise MethodError(
            f"road needs two curves of the same steps, got {most.fractions} and {least.fractions}"
        )
    flags = most.flags[target]
    if np.isnan(most.scale(target)):
        return Measured(float("nan"), (*flags, NO_CHANGE))
    return Measured(least.area(target).value - most.area(target).value, flags)


def road_passes(
    question: Question, *, n_methods: int = 1, fractions: Sequence[float] = FRACTIONS
) -> Passes:
    """Count the most passes of both orders; filled and clean windows are those of the curver."""
    return curve_passes(question, n_curves=2 * n_methods, fractions=fractions)
