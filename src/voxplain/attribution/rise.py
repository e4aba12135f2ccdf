"""RISE: the mean target over images of which random parts are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from voxplain.attribution.baselines import Baseline, Constant
from voxplain.attribution.changed import Change, ChangedValues
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import Question
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input, Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind
from voxplain.space.box import Box

_AT_ONCE = 16  # masks held together
_STREAM = 0x7215E  # of the generator, apart from those of games


@dataclass(frozen=True)
class Rise:
    """The mean target over randomly masked images, given that a voxel was shown.

    S(v) = 1/(N·p) Σ_i T(x⊙M_i + b⊙(1 − M_i))·M_i(v). M_i: a coarse grid of cells, each shown
    with probability p, interpolated linearly and shifted at random.

    Parameters
    ----------
    n
        N, masks.
    grid
        Cells along each axis of the image.
    keep
        p, 0 < p < 1.
    fill
        b; default 0 in the model's intensities.

    Notes
    -----
    Passes: N for each view of each window that matters to a target. Masks are drawn by number,
    so neither batch nor order matters, and at most 16 are held at once. Memory: those masks
    and one map a target. The standard error of S(v) falls with 1/√N.

    A voxel that does not matter has the value E[T], not 0: look at differences. COIN's preset
    ``coin-rise`` has n=6000, grid=8, keep=0.1, to be used with the score ``probability``; its
    program keeps all masks in memory (3 GB) and squeezes the map to [0, 1]; here it keeps
    its scale. In 3D the cells are cuboids.

    References
    ----------
    Petsiuk et al. 2018, arXiv 1806.07421, eq. 6.
    """

    n: int = 1000
    grid: int = 8
    keep: float = 0.5
    fill: Baseline = field(default_factory=Constant)

    name: ClassVar[str] = "rise"
    kind: ClassVar[Kind] = "localisation"
    unit: ClassVar[str] = "{}"
    has_channels: ClassVar[bool] = False
    is_adaptive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.n < 1 or self.grid < 1:
            raise MethodError(
                f"n masks and grid cells are at least 1, got n={self.n}, grid={self.grid}"
            )
        if not 0 < self.keep < 1:
            raise MethodError(f"keep is a probability between 0 and 1, got {self.keep}")

    def passes(self, question: Question) -> Passes:
        """`n` passes for each view of each window that a target depends on."""
        n_windows = len(ChangedValues(question).windows)
        return Passes(n_forward=self.n * n_windows * question.pipeline.model.n_views)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        pipeline = question.pipeline
        inner = pipeline.plan.inner()
        fill = self.fill.input(question)
        dtype = pipeline.compute.dtype
        changed = ChangedValues(question)
        maps = torch.zeros((len(question.targets), 1, *inner.shape), dtype=dtype)
        for first in range(0, self.n, _AT_ONCE):
            numbers = range(first, min(self.n, first + _AT_ONCE))
            masks = torch.stack([self.mask(question, i, inner.shape) for i in numbers]).to(dtype)
            values = changed.all_changed([_shown(question, mask, fill) for mask in masks])
            weights = torch.from_numpy(values.T / (self.n * self.keep)).to(dtype)
            maps[:, 0] += torch.tensordot(weights, masks, dims=1)
        if changed.windows:
            emit(inner, maps)
        return Outcome()

    def mask(self, question: Question, number: int, shape: tuple[int, ...]) -> torch.Tensor:
        """Return mask `number` on the image, values 0…1, float32."""
        rng = question.noise.generator(_STREAM, number)
        cells = [min(self.grid, n) for n in shape]
        sides = [-(-n // k) for n, k in zip(shape, cells, strict=True)]
        shown = (rng.random([k + 1 for k in cells]) < self.keep).astype(np.float32)
        starts = [int(rng.integers(side)) for side in sides]
        size = [(k + 1) * side for k, side in zip(cells, sides, strict=True)]
        mode = "trilinear" if len(shape) == 3 else "bilinear"
        large = F.interpolate(
            torch.from_numpy(shown)[None, None], size=size, mode=mode, align_corners=False
        )[0, 0]
        return large[tuple(slice(a, a + n) for a, n in zip(starts, shape, strict=True))]


def _shown(question: Question, mask: torch.Tensor, fill: Input) -> Change:
    """Return the image where the mask is 1, the fill where it is 0; padding stays."""
    pipeline = question.pipeline
    inner = pipeline.plan.inner()

    def source(box: Box) -> torch.Tensor:
        values = pipeline.clean(box).clone()
        common = box.intersect(inner)
        if common is not None:
            index = (slice(None), *common.within(box))
            part = mask[common.within(inner)]
            values[index] = values[index] * part + fill(box)[index] * (1 - part)
        return values

    return Change(source, lambda window: 0)
