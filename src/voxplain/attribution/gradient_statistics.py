"""Statistics over the gradients of the single voxels of a target's mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.method import Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.attribution.smoothgrad import noisy
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input, Passes
from voxplain.inference.rolling import Emit
from voxplain.inference.voxel_gradients import (
    Unit,
    support_voxels,
    voxel_gradients,
    voxel_passes,
)
from voxplain.records.attribution import Kind
from voxplain.regions.sums import RegionSums

Taken = tuple[MapSum, "_Statistic", NDArray[np.bool_]]
"""Where a statistic goes, the statistic, and which units it is over."""

_STREAM = 0x6AD5  # of the generator that draws voxels
_GROUPS = 4  # of drawn voxels, for the jackknife


class _Statistic(Protocol):
    """Taken over maps that come a few at a time."""

    def add(self, maps: torch.Tensor) -> None:
        """Take (n, n_channels, *box.shape)."""

    def result(self) -> torch.Tensor:
        """Return (n_channels, *box.shape)."""


class _Largest:
    """Value of largest magnitude, with its sign."""

    def __init__(self) -> None:
        self._best: torch.Tensor | None = None

    def add(self, maps: torch.Tensor) -> None:
        held = maps if self._best is None else torch.cat([self._best[None], maps])
        self._best = held.gather(0, held.abs().argmax(0, keepdim=True))[0]

    def result(self) -> torch.Tensor:
        assert self._best is not None
        return self._best


class _Quantile:
    """Exact q-quantile of n values, linear between order statistics; keeps the needed tail."""

    def __init__(self, q: float, n: int) -> None:
        self._sign = 1.0 if q >= 0.5 else -1.0
        place = (n - 1) * (q if q >= 0.5 else 1 - q)
        low = int(np.floor(place))
        self._n_kept, self._part = n - low, place - low
        self._kept: torch.Tensor | None = None

    def add(self, maps: torch.Tensor) -> None:
        held = self._sign * maps
        if self._kept is not None:
            held = torch.cat([self._kept, held])
        self._kept = held.topk(min(self._n_kept, len(held)), dim=0).values

    def result(self) -> torch.Tensor:
        assert self._kept is not None
        low, high = self._kept[-1], self._kept[max(0, len(self._kept) - 2)]
        return self._sign * (low + self._part * (high - low))


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
    Passes: one forward and one backward for each voxel (or part), window that holds it, and
    view. Memory: the ⌈(1 − q)·n⌉ + 1 largest maps (or smallest, q < 1/2) on the target's reach;
    where voxels are drawn five times that, for the standard errors of the shares: a jackknife
    over four groups of drawn voxels.

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
        """One pass forward and back for each drawn voxel, window that holds it, and view."""
        return _passes([self._units(question, t) for t in range(len(question.targets))], question)

    def _units(self, question: Question, t: int) -> list[Unit]:
        voxels = support_voxels(question.linear[t][1])
        if self.splits:
            return np.array_split(voxels, min(self.n, len(voxels))) if len(voxels) else []
        return _drawn(question, t, voxels, self.n)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        units = [self._units(question, t) for t in range(len(question.targets))]
        is_drawn = self.n > 0 and not self.splits
        return _statistics(
            question, units, lambda n: _Quantile(self.q, n), [question.pipeline.clean], emit,
            is_drawn=is_drawn,
        )  # fmt: skip


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
    Passes: one forward and one backward for each noise copy, voxel, window that holds it, and
    view; other targets than logits over a held mask also need their logits at each copy.
    Memory: about ten maps on the target's reach.

    Over drawn voxels the magnitude is a lower bound, and the standard error of the shares, a
    jackknife over four groups of them, tells the scatter of that bound, not its distance.

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
        """One pass forward and back for each copy, voxel, window that holds it, and view."""
        one = _passes(self._units(question), question)
        n = max(1, self.n)
        moving = question.passes_for(1).n_forward - question.passes_for(0, n_clean=1).n_forward
        return Passes(n * one.n_forward + self.n * moving, n * one.n_backward)

    def _units(self, question: Question) -> list[list[Unit]]:
        cotangents = [cotangent for _, cotangent in question.linear]
        return [
            _drawn(question, t, support_voxels(cotangent), self.voxels)
            for t, cotangent in enumerate(cotangents)
        ]

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        copies = [
            noisy(question, i, self.noise, first_channel=self.first_channel) for i in range(self.n)
        ]
        return _statistics(
            question, self._units(question), lambda _: _Largest(),
            copies or [question.pipeline.clean], emit, is_drawn=self.voxels > 0,
        )  # fmt: skip


def _drawn(question: Question, t: int, voxels: Unit, n: int) -> list[Unit]:
    """Units of one voxel each: `n` of them drawn, or all."""
    if 0 < n < len(voxels):
        rng = question.noise.generator(_STREAM, t)
        voxels = voxels[np.sort(rng.choice(len(voxels), n, replace=False))]
    return [voxel[None] for voxel in voxels]


def _passes(units: Sequence[Sequence[Unit]], question: Question) -> Passes:
    each = [voxel_passes(question.pipeline, of_target) for of_target in units]
    return Passes(sum(p.n_forward for p in each), sum(p.n_backward for p in each))


def _statistics(
    question: Question,
    units: Sequence[Sequence[Unit]],
    statistic: Callable[[int], _Statistic],
    sources: Sequence[Input],
    emit: Emit,
    *,
    is_drawn: bool,
) -> Outcome:
    """Emit the mean over sources of a statistic over units, with its error where drawn."""
    pipeline = question.pipeline
    n_groups = _GROUPS if is_drawn and min((len(u) for u in units if u), default=0) > 8 else 0
    total = MapSum(question)
    without = [MapSum(question) for _ in range(n_groups)]
    for source in sources:
        cotangents = question.cotangents(source)
        for t, of_target in enumerate(units):
            if not of_target:
                continue
            groups = np.arange(len(of_target)) % max(1, n_groups)
            taken: list[Taken] = [(total, statistic(len(of_target)), np.ones(len(of_target), bool))]
            taken += [
                (sums, statistic(int((groups != g).sum())), groups != g)
                for g, sums in enumerate(without)
            ]

            def visit(
                numbers: Sequence[int], maps: torch.Tensor, taken: list[Taken] = taken
            ) -> None:
                for _, kept, is_in in taken:
                    chosen = is_in[list(numbers)]
                    if chosen.any():
                        kept.add(maps[torch.from_numpy(chosen)])

            voxel_gradients(pipeline, source, cotangents[t], of_target, total.box, visit)
            for sums, kept, _ in taken:
                sums.values[t] += kept.result() / len(sources)
    total.emit(emit)
    settings = {"n_voxels": [len(of_target) for of_target in units]}
    errors = _errors(question, without) if without else None
    return Outcome(share_errors=errors, settings=settings)


def _errors(question: Question, without: Sequence[MapSum]) -> NDArray[np.float64]:
    """Jackknife of the region shares from maps that leave out one group each."""
    names = [target.name for target in question.targets]
    shares = []
    for sums in without:
        regions = RegionSums(question.regions, names, question.pipeline.image.channels)
        box, values = sums.inner()
        if box is not None:
            for t in range(len(names)):
                regions.add(t, values[t].numpy(), box)
        shares.append(regions.shares())
    n = len(shares)
    return np.asarray(np.sqrt((n - 1) * np.var(np.stack(shares), axis=0)))
