"""Two variants of the randomisation test: rise of entropy, and maps averaged over noise."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxplain.attribution.maps import Maps, compute_maps
from voxplain.attribution.method import Method
from voxplain.attribution.question import Question
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Passes
from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP, Measured, Metric

ENTROPY_RISE = Metric(
    "entropy_rise", "randomisation", "higher", "1", -1.0, float("inf"),
    "(H' − H) / H of the entropy H of the histogram of a map's magnitudes on the trained network "
    "and H' on the random one.",
    "Empty or constant map on the trained network (H = 0): NaN, flagged; on the random one: −1, "
    "flagged.",
    "Hedström et al. 2024, arXiv 2401.06465, eMPRT",
)  # fmt: skip

_DRAWS = zlib.crc32(b"voxplain.assess.random_entropy")


def histogram_entropy(values: NDArray[np.floating], n_bins: int = 100) -> Measured:
    """Return −Σ_b p_b ln p_b of the shares p_b of voxels in equal bins from least to largest.

    Parameters
    ----------
    values
        Finite, any shape.
    n_bins
        At least 2.

    Returns
    -------
    Measured
        In nats, 0 … ln n_bins; 0 and a flag for an empty or a constant map.

    Raises
    ------
    MethodError
        If `n_bins` is out of range.
    """
    if n_bins < 2:
        raise MethodError(f"n_bins is at least 2, got {n_bins}")
    low, high = float(values.min()), float(values.max())
    if low == high:
        return Measured(0.0, (CONSTANT_MAP if high else EMPTY_MAP,))
    placed = (np.asarray(values, np.float64) - low) / (high - low)
    counts, _ = np.histogram(placed, bins=n_bins, range=(0.0, 1.0))
    shares = counts[counts > 0] / values.size
    return Measured(float(-(shares * np.log(shares)).sum()))


def entropy_rise(
    trained: NDArray[np.floating], random: NDArray[np.floating], *, n_bins: int = 100
) -> Measured:
    """Return the relative rise of the histogram entropy, (H' − H) / H; see `ENTROPY_RISE`.

    Parameters
    ----------
    trained, random
        Magnitudes of one target, (*image shape), at least 0: on the trained network, and on
        the one whose layers are all random.
    n_bins
        Of each histogram; each spans its own map's values.

    Notes
    -----
    No passes beyond the two maps; the scale of the maps does not matter. Quantus can
    choose the number of bins from the maps of the whole data set; here, as in Quantus without
    a rule, it is fixed, so that a case's value does not depend on the others.

    References
    ----------
    Hedström et al. 2024, arXiv 2401.06465 (eMPRT).
    """
    before, after = histogram_entropy(trained, n_bins), histogram_entropy(random, n_bins)
    if before.value == 0:
        return Measured(float("nan"), before.flags)
    return Measured((after.value - before.value) / before.value, after.flags)


@dataclass(frozen=True)
class Smoothed:
    """A method averaged over noisy copies of the image: Σ_i A(x + σ ε_i) / n, with ε_0 = 0.

    For the smooth randomisation test (sMPRT): use it as a source of
    `voxplain.assess.cascade.run_cascade`. Signed maps are averaged, channel by channel.

    Parameters
    ----------
    method
        Any method.
    n
        Copies, the image itself being the first; 1 is the method alone.
    noise
        σ as a share of each channel's range.

    Raises
    ------
    MethodError
        If a setting is out of range.

    Notes
    -----
    Targets, masks and regions stay those of the question; the draws depend on its noise field
    alone, so that a trained and a random network see the same copies. Memory: two sets of maps.

    Quantus takes one range over all channels, and draws anew for every network.

    References
    ----------
    Hedström et al. 2024, arXiv 2401.06465 (sMPRT).
    """

    method: Method
    n: int = 20
    noise: float = 0.1

    def __post_init__(self) -> None:
        if self.n < 1:
            raise MethodError(f"n is at least 1 copy, got {self.n}")
        if not 0 < self.noise < 10:
            raise MethodError(
                f"noise is a share of the intensity range, 0 < noise < 10; got {self.noise}"
            )

    def passes(self, question: Question) -> Passes:
        """Those of the method n times, and the values of the targets at each noisy copy."""
        one = self.method.passes(question)
        values = question.passes_for(0, n_values=self.n - 1)
        return Passes(self.n * one.n_forward + values.n_forward, self.n * one.n_backward)

    def __call__(self, question: Question) -> Maps:
        """Return the mean maps; kind and outcome are those on the image itself."""
        first = compute_maps(question, self.method)
        total = first.values.astype(np.float64)
        passes, seconds = Passes(first.passes.n_forward, first.passes.n_backward), first.seconds
        for copy in range(1, self.n):
            changed = question.pipeline.changed(self.noisy(question, copy))
            maps = compute_maps(question.on(changed), self.method)
            total += maps.values
            passes.n_forward += maps.passes.n_forward
            passes.n_backward += maps.passes.n_backward
            seconds += maps.seconds
        mean = (total / self.n).astype(first.values.dtype)
        return Maps(mean, first.kind, first.outcome, passes, seconds)

    def noisy(self, question: Question, copy: int) -> NDArray[np.floating]:
        """Return copy number `copy` of the image, (n_channels, *image shape)."""
        data = question.pipeline.image.data
        sigma = self.noise * question.intensity_range.reshape(-1, *[1] * (data.ndim - 1))
        field = question.noise.generator(_DRAWS, copy).standard_normal(data.shape)
        return np.asarray(data + sigma * field, data.dtype)
