"""Gradients averaged over noisy copies: SmoothGrad, its square, VarGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.method import Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input, Passes, Pipeline
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind
from voxplain.records.finding import Finding, finding
from voxplain.regions.sums import RegionSums
from voxplain.space.box import Box

_GROUPS = 4  # of noise copies, for the jackknife


def noisy(
    question: Question, draw: int, noise: float, sign: float = 1.0, *, first_channel: bool = False
) -> Input:
    """Return x + sign·N(0, σ²), σ = noise·(max x − min x) of each channel of the image.

    Parameters
    ----------
    question
        Image and noise field.
    draw
        Number of the copy.
    noise
        σ as a share of the channel's range, in the model's intensities.
    sign
        −1 for the antithetic partner.
    first_channel
        Take σ from the first channel's range for all channels.
    """
    pipeline: Pipeline = question.pipeline
    ranges = question.intensity_range
    sigma = sign * noise * (np.full_like(ranges, ranges[0]) if first_channel else ranges)
    shift = [-n for n in pipeline.plan.pad_before]

    def crop(box: Box) -> torch.Tensor:
        clean = pipeline.clean(box)
        field = torch.from_numpy(question.noise.crop(draw, len(clean), box.shift(shift)))
        factors = torch.from_numpy(sigma).to(clean.dtype).reshape(-1, *[1] * (clean.ndim - 1))
        return clean + factors * field.to(clean.dtype)

    return crop


@dataclass(frozen=True)
class SmoothGrad:
    """Mean of ∂T/∂x at n noisy copies of the image.

    Parameters
    ----------
    n
        Noise copies; with a tolerance, the most.
    noise
        σ as a share of each channel's range (max − min) after preprocessing.
    antithetic
        Draw pairs x + ε, x − ε: odd terms cancel, the mean converges faster. `n` is even.
    tolerance
        Standard error of every region share to be met. Antithetic pairs are drawn, in four
        groups, until the jackknife over the groups says so; with n reached, finding VX106.

    Notes
    -----
    Padding added around a small image is noisy too, as in the network's field of view, and
    does not appear in the map. Agg²Exp: n=20, noise=0.1. With a tolerance four maps a target
    are kept.

    References
    ----------
    Smilkov et al. 2017, arXiv 1706.03825.
    """

    n: int = 20
    noise: float = 0.1
    antithetic: bool = False
    tolerance: float | None = None

    name: ClassVar[str] = "smoothgrad"
    kind: ClassVar[Kind] = "sensitivity"
    unit: ClassVar[str] = "{} per intensity"
    has_channels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.n, self.noise)
        if self.antithetic and self.n % 2:
            raise MethodError(f"antithetic pairs need an even n, got {self.n}")
        if self.tolerance is not None:
            if not self.tolerance > 0:
                raise MethodError(f"tolerance is positive, got {self.tolerance}")
            if self.n < 2 * _GROUPS:
                raise MethodError(f"a tolerance needs n of at least {2 * _GROUPS}, got {self.n}")

    def passes(self, question: Question) -> Passes:
        """`n` gradients; with a tolerance the most it can take."""
        n_round = 2 * _GROUPS
        return question.passes_for(self.n // n_round * n_round if self.is_adaptive else self.n)

    @property
    def is_adaptive(self) -> bool:
        """Whether the number of copies follows from the tolerance."""
        return self.tolerance is not None

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        if self.tolerance is not None:
            return self._until(question, emit, self.tolerance)
        if self.antithetic:
            copies = [c for i in range(self.n // 2) for c in self._pair(question, i)]
        else:
            copies = [noisy(question, i, self.noise) for i in range(self.n)]
        question.gradient_sum(copies, [1 / self.n] * self.n, emit)
        return Outcome()

    def _pair(self, question: Question, draw: int) -> list[Input]:
        return [noisy(question, draw, self.noise, sign) for sign in (1.0, -1.0)]

    def _until(self, question: Question, emit: Emit, tolerance: float) -> Outcome:
        groups = [MapSum(question) for _ in range(_GROUPS)]
        n_rounds = 0
        while True:
            for g, group in enumerate(groups):
                pair = self._pair(question, n_rounds * _GROUPS + g)
                question.gradient_sum(pair, [0.5, 0.5], group.add)
            n_rounds += 1
            errors = jackknife_errors(question, groups)
            worst = float(np.nanmax(errors, initial=0.0))
            n_next = 2 * _GROUPS * (n_rounds + 1)
            if worst <= tolerance or n_next > self.n:
                break
        n = 2 * _GROUPS * n_rounds
        total = MapSum(question)
        total.values = sum(g.values for g in groups[1:]) + groups[0].values
        total.values /= _GROUPS * n_rounds
        total.emit(emit)
        missed: tuple[Finding, ...] = ()
        if worst > tolerance:
            evidence = (
                f"largest standard error of a region share is {worst:.2e} with {n} copies, "
                f"asked for {tolerance:.2e}; raise n"
            )
            missed = (finding("VX106", "issue", evidence),)
        return Outcome(share_errors=errors, settings={"n": n}, findings=missed)


@dataclass(frozen=True)
class SmoothGradSquared:
    """Mean of (∂T/∂x)² at n noisy copies of the image; not signed.

    Parameters
    ----------
    n, noise
        As for `SmoothGrad`.

    Notes
    -----
    Unit: that of a gradient, squared. The whole gradient of each copy is squared, not that
    of each window.

    References
    ----------
    Hooker et al. 2019, arXiv 1806.10758.
    """

    n: int = 20
    noise: float = 0.1

    name: ClassVar[str] = "smoothgrad_squared"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "sensitivity"
    unit: ClassVar[str] = "({} per intensity)²"
    has_channels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.n, self.noise)

    def passes(self, question: Question) -> Passes:
        """`n` gradients."""
        return question.passes_for(self.n)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        total = MapSum(question)
        for i in range(self.n):
            question.gradient(
                noisy(question, i, self.noise),
                lambda box, values: total.add(box, values.square() / self.n),
            )
        total.emit(emit)
        return Outcome()


@dataclass(frozen=True)
class VarGrad:
    """Variance of ∂T/∂x over n noisy copies of the image: mean (g − mean g)²; not signed.

    Parameters
    ----------
    n, noise
        As for `SmoothGrad`; n at least 2.

    Notes
    -----
    Computed by Welford's update, so a large mean does not drown a small variance. Divides by
    n, as the reference does.

    References
    ----------
    Adebayo et al. 2018, arXiv 1810.03292.
    """

    n: int = 20
    noise: float = 0.1

    name: ClassVar[str] = "vargrad"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "sensitivity"
    unit: ClassVar[str] = "({} per intensity)²"
    has_channels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.n, self.noise, least=2)

    def passes(self, question: Question) -> Passes:
        """`n` gradients."""
        return question.passes_for(self.n)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        mean, spread = MapSum(question), MapSum(question)
        for i in range(self.n):
            copy = MapSum(question)
            question.gradient(noisy(question, i, self.noise), copy.add)
            difference = copy.values - mean.values
            mean.values += difference / (i + 1)
            spread.values += difference * (copy.values - mean.values)
        spread.values /= self.n
        spread.emit(emit)
        return Outcome()


def jackknife_errors(question: Question, sums: list[MapSum]) -> NDArray[np.float64]:
    """Return standard errors of the region shares of a mean map, by leaving one group out.

    Parameters
    ----------
    question
        Its regions and targets.
    sums
        Map sums of G groups of equal size.

    Returns
    -------
    numpy.ndarray
        sqrt((G−1)/G · Σ_g (θ_g − mean θ)²) of the shares θ_g without group g,
        (n_targets, n_regions, n_channels); NaN for a map that is zero everywhere.
    """
    total = sums[0].inner()[1].clone()
    for group in sums[1:]:
        total += group.inner()[1]
    shares = []
    for group in sums:
        box, values = group.inner()
        shares.append(region_shares(question, box, total - values))
    n = len(sums)
    return np.asarray(np.sqrt((n - 1) * np.var(np.stack(shares), axis=0)))


def region_shares(question: Question, box: Box | None, values: torch.Tensor) -> NDArray[np.float64]:
    """Return the region shares of maps, (n_targets, n_regions, n_channels).

    Parameters
    ----------
    question
        Its regions and targets.
    box, values
        Part of the image, and maps there, (n_targets, n_channels, *box.shape); see
        `MapSum.inner`.
    """
    names = [target.name for target in question.targets]
    regions = RegionSums(question.regions, names, question.pipeline.image.channels)
    if box is not None:
        for t in range(len(names)):
            regions.add(t, values[t].numpy(), box)
    return np.asarray(regions.shares())


def _check(n: int, noise: float, least: int = 1) -> None:
    if n < least:
        raise MethodError(f"n is at least {least} noise copies, got {n}")
    if not 0 < noise < 10:
        raise MethodError(f"noise is a share of the intensity range, 0 < noise < 10; got {noise}")
