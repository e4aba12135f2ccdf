"""Guided integrated gradients: a path that keeps away from steep directions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.baselines import Baseline, Constant
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.errors import MethodError
from voxplain.inference.cotangent import Cotangent
from voxplain.inference.pipeline import Input, Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind
from voxplain.space.box import Box

_CLOSE = 1e-9  # share of the whole distance that a step may miss
_TIE = 64  # units in the last place within which partial derivatives count as equal


@dataclass(frozen=True)
class GuidedIG:
    """Σ_k ∂T/∂x at z_k · (z_{k+1} − z_k) along a path from b to x of the target's own choice.

    Each step shortens the distance Σ|x − z| by 1/n of that from b to x. Those voxels with the
    smallest |∂T/∂x| move first: a fraction of them, then of the others, until the step's
    length is met. No voxel is further than `max_distance` from the straight path, so those
    left behind are pulled along. So gradients that are large along the straight path by
    accident, and not where the path can go around them, count for little.

    Parameters
    ----------
    n
        Steps, at least 1.
    fraction
        Share of voxels and channels that move together, 0 < fraction <= 1.
    max_distance
        Most that a voxel may lead or lag the straight path, as a share of |x − b|, 0 to 1; 0
        is the straight path.
    baseline
        b; default 0 in the model's intensities.

    Notes
    -----
    Passes: n gradients for *each target*, since its path is its own, and one value at the
    baseline. Memory: some ten volumes of the box of a target's windows with all channels, and one
    map a target.

    The maps sum to T(x) − T(b) up to a gap that falls with 1/n: the gradient is taken at the
    start of each step. Voxels in the box of windows that reach the target take part, also
    those that have no gradient (they move first); voxels elsewhere and padding do not matter.

    Differs from the authors' program (PAIR; there n=200): partial derivatives that are equal
    but for rounding move together, so that the map does not hang on the order of sums. The
    paper's anchor points are, as in its program, replaced by `max_distance`.

    References
    ----------
    Kapishnikov et al. 2021, arXiv 2106.09788.
    """

    n: int = 50
    fraction: float = 0.25
    max_distance: float = 0.02
    baseline: Baseline = field(default_factory=Constant)

    name: ClassVar[str] = "guided_ig"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "contribution"
    unit: ClassVar[str] = "{}"
    has_channels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n < 1:
            raise MethodError(f"n is at least 1 step, got {self.n}")
        if not 0 < self.fraction <= 1:
            raise MethodError(f"fraction is a share, 0 < fraction <= 1; got {self.fraction}")
        if not 0 <= self.max_distance <= 1:
            raise MethodError(
                f"max_distance is a share, 0 <= max_distance <= 1; got {self.max_distance}"
            )

    def passes(self, question: Question) -> Passes:
        """`n` gradients for each target, one value at the baseline."""
        pipeline = question.pipeline
        total = question.passes_for(0, n_values=1)
        for target, (_, cotangent) in zip(question.targets, question.linear, strict=True):
            if target.support is None:
                continue
            n_active = len(pipeline.active_windows([cotangent]))
            n_moving = 0 if target.is_fixed else len(pipeline.windows_for(target.support))
            total.n_forward += self.n * pipeline.model.n_views * (n_active + n_moving)
            total.n_backward += self.n * pipeline.model.n_views * n_active
        return total

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        baseline = self.baseline.input(question)
        total = MapSum(question)
        for t, target in enumerate(question.targets):
            if target.support is None:
                continue
            pipeline = question.pipeline
            box = pipeline.reach([target.support]).intersect(pipeline.plan.inner())
            assert box is not None  # windows hold their target, which lies in the image
            index = (slice(None), *box.within(total.box))
            total.values[t][index] = self._guided(question, t, baseline, box)
        total.emit(emit)
        return Outcome(baseline_values=question.values(baseline))

    def _guided(self, question: Question, t: int, baseline: Input, box: Box) -> torch.Tensor:
        """Map of one target on the box of its voxels, (n_channels, *box.shape)."""
        start = baseline(box)
        difference = question.pipeline.clean(box) - start
        lengths = difference.abs().double().numpy()
        done = np.zeros(lengths.shape)  # share of its way that each voxel has gone
        found = torch.zeros_like(start)
        for step in range(1, self.n + 1):
            z = start + torch.from_numpy(done).to(start.dtype) * difference
            gradient = _gradient(question, t, _pasted(question, box, z), box)
            steepness = gradient.abs().numpy()
            moved = self._moved(done, lengths, steepness, step)
            found += torch.from_numpy(moved - done).to(start.dtype) * difference * gradient
            done = moved
        return found

    def _moved(
        self,
        done: NDArray[np.float64],
        lengths: NDArray[np.float64],
        steepness: NDArray[np.floating],
        step: int,
    ) -> NDArray[np.float64]:
        """Shares of the way after a step, each in [0, 1]."""
        if step == self.n:
            return np.ones_like(done)
        share = step / self.n
        last, first = max(share - self.max_distance, 0.0), min(share + self.max_distance, 1.0)
        moved = np.maximum(done, last)
        whole = float(lengths.sum())
        wanted = whole * (1 - share)
        steepness = np.where(lengths > 0, steepness, np.inf)
        tie = 1 + _TIE * np.finfo(steepness.dtype).eps
        while True:
            missing = float((lengths * (1 - moved)).sum()) - wanted
            steepness[moved >= first] = np.inf
            threshold = np.quantile(steepness, self.fraction, method="lower") * tie
            chosen = (steepness <= threshold) & np.isfinite(steepness)
            possible = float((lengths[chosen] * (first - moved[chosen])).sum())
            if missing <= _CLOSE * whole or not possible > 0:
                return moved
            if missing <= possible:
                moved[chosen] += missing / possible * (first - moved[chosen])
                return moved
            moved[chosen] = first


def _pasted(question: Question, box: Box, values: torch.Tensor) -> Input:
    """Return the image with other values on a box."""
    pipeline = question.pipeline

    def crop(wanted: Box) -> torch.Tensor:
        common = wanted.intersect(box)
        window = pipeline.clean(wanted).clone()
        if common is not None:
            part = values[(slice(None), *common.within(box))]
            window[(slice(None), *common.within(wanted))] = part
        return window

    return crop


def _gradient(question: Question, t: int, source: Input, box: Box) -> torch.Tensor:
    """∂T/∂x of one target at an input, on a box in the image, (n_channels, *box.shape)."""
    pipeline, target = question.pipeline, question.targets[t]
    cotangent: Cotangent
    if target.is_fixed:
        _, cotangent = question.linear[t]
    else:
        ((_, cotangent),) = question._linearise([target], source)
    gradient = torch.zeros((pipeline.image.n_channels, *box.shape), dtype=pipeline.compute.dtype)

    def keep(slab: Box, values: torch.Tensor) -> None:
        common = slab.intersect(box)
        if common is not None:
            part = values[0][(slice(None), *common.within(slab))].cpu()
            gradient[(slice(None), *common.within(box))] = part

    pipeline.gradients([source], [1.0], [cotangent], keep)
    return gradient
