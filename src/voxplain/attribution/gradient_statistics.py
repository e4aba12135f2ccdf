"""Statistics over the gradients of the single voxels of a target's mask."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from voxplain.attribution.method import Outcome
from voxplain.attribution.question import Question
from voxplain.attribution.smoothgrad import noisy
from voxplain.attribution.unit_statistics import Units, unit_passes, unit_statistics
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Passes
from voxplain.inference.rolling import Emit
from voxplain.inference.voxel_gradients import (
    Largest,
    Quantile,
    Unit,
    support_voxels,
)
from voxplain.records.attribution import Kind
from voxplain.space.box import Box

_STREAM = 0x6AD5  # of the generator that draws voxels
_QUANTILE_GROUPS = 4  # for the jackknife; each holds maps of its own
_MAX_GROUPS = 8


@dataclass(frozen=True)
class GradientQuantile:
    """Quantile, over voxels v of the mask, of the gradient of each one's own score.

    Per input voxel u: the q-quantile over v of ∂s_v/∂x(u), s_v the part of the target at v.

    Parameters
    ----------
    q
        0 to 1; linear between order statistics.
    n
        Voxels drawn from the mask without replacement; 0: all of them.
    splits
        Cut the mask into `n` parts of equal size, in array order, and take the gradient of each
        part's sum in place of single voxels.

    Notes
    -----
    Passes: one backward for each voxel (or part), window that holds it, and view; one forward
    for up to 16 voxels that lie in the same windows. Memory: the ⌈(1 − q)·(n − 1)⌉ + 1 largest
    maps (or smallest, q < 1/2) on the target's reach, and 4 to 16 on the windows of a voxel. Where
    voxels are drawn, four times more of the largest maps, each of three quarters of them, for
    the errors of the shares: the root of a jackknife's squared bias and variance over four
    groups of at least two drawn voxels, times √(1 − drawn/all).

    The mask: the voxels where the target depends on the logits of the clean image. An input
    voxel that no window shares with v counts as a zero.

    Differs from Agg²Exp in nothing but the exact gradient; its preset
    ``agg2exp-gradient_quantiles`` has q=0.9, n=100.

    References
    ----------
    Chrabąszcz et al. 2025, arXiv 2407.16653.
    """

    q: float = 0.9
    n: int = 100
    splits: bool = False

    name: ClassVar[str] = "gradient_quantile"
    kind: ClassVar[Kind] = "sensitivity"
    unit: ClassVar[str] = "{} per intensity"
    has_channels: ClassVar[bool] = True
    is_adaptive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.q <= 1:
            raise MethodError(f"q is a share from 0 to 1, got {self.q}")
        if self.n < 0 or (self.splits and self.n < 1):
            raise MethodError(
                f"n is a number of voxels, 0 for all (of parts: at least 1), got {self.n}"
            )

    def passes(self, question: Question) -> Passes:
        """One pass back for each drawn voxel, window that holds it, and view."""
        return unit_passes(self._units(question), question, together=False)

    def _units(self, question: Question) -> list[Units]:
        found: list[Units] = []
        for t, (_, cotangent) in enumerate(question.linear):
            voxels = support_voxels(cotangent)
            if self.splits:
                n = min(self.n, len(voxels))
                found.append((np.array_split(voxels, n) if n else [], n))
            else:
                found.append(_drawn(question, t, voxels, self.n))
        return found

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        pipeline = question.pipeline

        def make(box: Box, n: int) -> Quantile:
            n_channels = pipeline.image.n_channels
            return Quantile(box, n_channels, pipeline.compute.dtype, q=self.q, n=n)

        units = self._units(question)
        return unit_statistics(
            question, units, make, [pipeline.clean], emit, n_groups=_QUANTILE_GROUPS, together=False
        )


@dataclass(frozen=True)
class GradientMax:
    """The strongest gradient of any voxel of the mask, with its sign: IES's max version.

    Per input voxel u: ∂s_v/∂x(u) of the v in the mask for which it is largest in magnitude, s_v
    the part of the target at v; then the mean over noisy copies of the image.

    Parameters
    ----------
    n
        Noise copies; 0: the clean image alone.
    noise
        σ as a share of each channel's range.
    voxels
        Voxels drawn from the mask without replacement; 0: all of them, as defined.
    first_channel
        Take σ from the first channel's range for all channels, as IES does.

    Notes
    -----
    Passes: one backward for each noise copy, voxel, window that holds it, and view; one forward
    for up to 16 voxels, of whichever targets, that lie in the same windows; other targets than
    logits over a held mask also need their logits at each copy. Memory: two maps on the targets'
    reach for each (18 where voxels are drawn), and 4 to 16 on the windows of a voxel.

    The mask: the voxels where the target depends on the logits of the clean image, at every
    copy. Over drawn voxels the magnitude is a lower bound at each copy; the error of the shares
    is the root of a jackknife's squared bias and variance over eight groups of at least two of
    them, times √(1 − drawn/all); 2.5 errors held the share over all voxels in 9 of 10 regions of
    random networks.

    Differs from IES in σ, per channel by default; the preset ``ies-max`` is the paper's, n=50,
    noise=0.05. The program's variant that takes the maximum over sums of 512 voxels is another
    quantity and not offered.

    References
    ----------
    Spagnolo et al. 2026, arXiv 2406.09335.
    """

    n: int = 0
    noise: float = 0.05
    voxels: int = 0
    first_channel: bool = False

    name: ClassVar[str] = "gradient_max"
    kind: ClassVar[Kind] = "sensitivity"
    unit: ClassVar[str] = "{} per intensity"
    has_channels: ClassVar[bool] = True
    is_adaptive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.n < 0 or self.voxels < 0:
            raise MethodError(
                f"n copies and voxels are at least 0, got n={self.n}, voxels={self.voxels}"
            )
        if not 0 < self.noise < 10:
            raise MethodError(
                f"noise is a share of the intensity range, 0 < noise < 10; got {self.noise}"
            )

    def passes(self, question: Question) -> Passes:
        """One pass back for each copy, voxel, window that holds it, and view."""
        one = unit_passes(self._units(question), question, together=True)
        n = max(1, self.n)
        moving = question.passes_for(1).n_forward - question.passes_for(0, n_clean=1).n_forward
        return Passes(n * one.n_forward + self.n * moving, n * one.n_backward)

    def _units(self, question: Question) -> list[Units]:
        return [
            _drawn(question, t, support_voxels(cotangent), self.voxels)
            for t, (_, cotangent) in enumerate(question.linear)
        ]

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        pipeline = question.pipeline
        copies = [
            noisy(question, i, self.noise, first_channel=self.first_channel) for i in range(self.n)
        ]

        def make(box: Box, n: int) -> Largest:
            return Largest(box, pipeline.image.n_channels, pipeline.compute.dtype)

        units = self._units(question)
        sources = copies or [pipeline.clean]
        return unit_statistics(
            question, units, make, sources, emit, n_groups=_MAX_GROUPS, together=True
        )


def _drawn(question: Question, t: int, voxels: Unit, n: int) -> Units:
    """Units of one voxel each: `n` of them drawn, in the order of drawing, or all.

    The draw goes by the target's name, so that it is the same whichever others are asked.
    """
    n_all = len(voxels)
    if 0 < n < n_all:
        name = question.targets[t].name.encode()
        rng = question.noise.generator(_STREAM, zlib.crc32(name))
        voxels = voxels[rng.choice(n_all, n, replace=False)]
    return [voxel[None] for voxel in voxels], n_all
