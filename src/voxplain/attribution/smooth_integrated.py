"""Integrated gradients averaged over noisy copies: Smooth IG and its square."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, get_args

from voxplain.attribution.baselines import Baseline, Constant
from voxplain.attribution.integrated import Rule, integrate, quadrature
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.attribution.smoothgrad import noisy
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind


@dataclass(frozen=True)
class SmoothIG:
    """Mean over n noisy copies x + ε of the integrated gradients of x + ε.

    (1/n)·Σ_i (x + ε_i − b)·∫₀¹ ∂T/∂x at b + α(x + ε_i − b) dα, ε_i normal with
    σ = noise·(max x − min x) of each channel.

    Parameters
    ----------
    n
        Noise copies, at least 1.
    noise
        σ as a share of each channel's range (max − min) after preprocessing, 0 < noise < 10.
    points
        Points on the path of each copy, at least 1.
    rule
        See `quadrature`.
    baseline
        b, without noise; default 0 in the model's intensities.

    Notes
    -----
    Passes: n·points gradients and one value at the baseline. Memory: one map a target, with a
    target that is not linear in the logits two.

    The maps sum to the mean of T(x + ε) − T(b), up to the quadrature's error. The completeness
    gap is told against T(x) − T(b): it holds what the noise itself does to the score, which
    more points do not change and a smaller `noise` does. Padding added around a small image is
    noisy too and does not appear in the map.

    Differs from SmoothGrad's paper, which proposes averaging for any gradient map and draws
    noise of one width for the whole image: here each channel has its own.

    References
    ----------
    Smilkov et al. 2017, arXiv 1706.03825; Sundararajan et al. 2017,
    arXiv 1703.01365, eq. 1.
    """

    n: int = 25
    noise: float = 0.15
    points: int = 10
    rule: Rule = "gauss_legendre"
    baseline: Baseline = field(default_factory=Constant)

    name: ClassVar[str] = "smooth_ig"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "contribution"
    unit: ClassVar[str] = "{}"
    has_channels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self)

    def passes(self, question: Question) -> Passes:
        """`points` gradients for each of `n` copies, one value at the baseline."""
        return question.passes_for(self.n * self.points, n_values=1)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        total = MapSum(question)
        for draw in range(self.n):
            _integrated(self, question, draw, lambda box, values: total.add(box, values / self.n))
        total.emit(emit)
        return Outcome(baseline_values=question.values(self.baseline.input(question)))


@dataclass(frozen=True)
class SmoothIGSquared:
    """Mean over n noisy copies x + ε of the squared integrated gradients of x + ε; not signed.

    (1/n)·Σ_i IG(x + ε_i)², see `SmoothIG`: Arun's SIG.

    Parameters
    ----------
    n, noise, points, rule, baseline
        As for `SmoothIG`.

    Notes
    -----
    Passes: n·points gradients. Memory: as for `SmoothIG`. Unit: that of the target, squared. A
    square tells where contributions are large and neither their sign nor a part of the score.
    The whole map of each copy is squared, not that of each window.

    Differs from Arun's program, whose sum over 10 points holds both ends and whose noise has
    one width for all channels: SmoothIGSquared(n=25, noise=0.15, points=10, rule="agg2exp",
    baseline=Constant(-1)) gives the paper's for images of one channel in [−1, 1].

    References
    ----------
    Arun et al. 2021, Radiology: Artificial Intelligence 3(6) e200267; the square: Hooker et
    al. 2019, arXiv 1806.10758.
    """

    n: int = 25
    noise: float = 0.15
    points: int = 10
    rule: Rule = "gauss_legendre"
    baseline: Baseline = field(default_factory=Constant)

    name: ClassVar[str] = "smooth_ig_squared"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "localisation"
    unit: ClassVar[str] = "({})²"
    has_channels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self)

    def passes(self, question: Question) -> Passes:
        """`points` gradients for each of `n` copies."""
        return question.passes_for(self.n * self.points)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        total = MapSum(question)
        for draw in range(self.n):
            _integrated(
                self, question, draw, lambda box, values: total.add(box, values.square() / self.n)
            )
        total.emit(emit)
        return Outcome()


def _integrated(
    method: SmoothIG | SmoothIGSquared, question: Question, draw: int, emit: Emit
) -> None:
    """Emit the integrated gradients of one noisy copy."""
    copy = noisy(question, draw, method.noise)
    points, weights = quadrature(method.rule, method.points)
    integrate(question, method.baseline.input(question), copy, points, weights, emit)


def _check(method: SmoothIG | SmoothIGSquared) -> None:
    if method.n < 1:
        raise MethodError(f"n is at least 1 noise copy, got {method.n}")
    if not 0 < method.noise < 10:
        raise MethodError(
            f"noise is a share of the intensity range, 0 < noise < 10; got {method.noise}"
        )
    if method.points < 1:
        raise MethodError(f"points is at least 1 point on each path, got {method.points}")
    if method.rule not in get_args(Rule):
        raise MethodError(f"rule is one of {', '.join(get_args(Rule))}; got {method.rule!r}")
