"""Integrated gradients with a quadrature that is exact for polynomials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.baselines import Baseline, Constant
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input, Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind
from voxplain.records.finding import finding
from voxplain.space.box import Box

Rule = Literal["gauss_legendre", "midpoint", "agg2exp"]


def quadrature(rule: Rule, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points and weights on [0, 1].

    Parameters
    ----------
    rule
        ``gauss_legendre``: exact for polynomials of degree 2n − 1. ``midpoint``:
        (i + 1/2)/n. ``agg2exp``: the paper's program, n points from 0 to 1 with both ends,
        each with weight 1/n: a biased sum.
    n
        Number of points.

    Returns
    -------
    tuple
        Points and weights, (n,) each; weights sum to 1.
    """
    if rule == "gauss_legendre":
        points, weights = np.polynomial.legendre.leggauss(n)
        return (points + 1) / 2, weights / 2
    if rule == "midpoint":
        return (np.arange(n) + 0.5) / n, np.full(n, 1 / n)
    return np.linspace(0, 1, n), np.full(n, 1 / n)


def integrate(
    question: Question,
    start: Input,
    end: Input,
    points: Sequence[float] | NDArray[np.float64],
    weights: Sequence[float] | NDArray[np.float64],
    emit: Emit,
) -> None:
    """Emit (e − s)·Σ_i weight_i · ∂T/∂x at s + point_i·(e − s), for every target.

    Parameters
    ----------
    question
        Its targets and windows.
    start, end
        The ends s and e of a straight path.
    points, weights
        Of the quadrature (see `quadrature`); each point is one gradient.
    emit
        Receives final slabs.
    """

    def at(point: float) -> Input:
        def crop(box: Box) -> torch.Tensor:
            first = start(box)
            return first + point * (end(box) - first)

        return crop

    def scaled(box: Box, values: torch.Tensor) -> None:
        emit(box, values * (end(box) - start(box)).to(values.device))

    question.gradient_sum([at(float(p)) for p in points], [float(w) for w in weights], scaled)


@dataclass(frozen=True)
class IntegratedGradients:
    """(x − b)·∫₀¹ ∂T/∂x at b + α(x − b) dα.

    The contributions of all voxels sum to T(x) − T(b) up to the quadrature's error, which the
    result carries as its completeness gap.

    Parameters
    ----------
    n
        Points on the path.
    rule
        See `quadrature`.
    baseline
        b; default 0 in the model's intensities.
    gap_tolerance
        Relative gap |Σ − ΔT| / |ΔT| to be met by every target: the number of points is
        doubled from `n` until it is, at most to `max_n` (then finding VX102).
    max_n
        Most points with a tolerance.

    Notes
    -----
    Differs from Agg²Exp, whose sum includes the right end and has no completeness check; the
    rule ``agg2exp`` with n=20 gives the paper's.

    References
    ----------
    Sundararajan et al. 2017, arXiv 1703.01365, eq. 1.
    """

    n: int = 20
    rule: Rule = "gauss_legendre"
    baseline: Baseline = field(default_factory=Constant)
    gap_tolerance: float | None = None
    max_n: int = 320

    name: ClassVar[str] = "integrated_gradients"
    kind: ClassVar[Kind] = "contribution"
    unit: ClassVar[str] = "{}"
    has_channels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise MethodError(f"rule is one of {', '.join(get_args(Rule))}; got {self.rule!r}")
        if self.n < 1 or self.max_n < self.n:
            raise MethodError(f"1 <= n <= max_n is needed, got n={self.n}, max_n={self.max_n}")
        if self.gap_tolerance is not None and not self.gap_tolerance > 0:
            raise MethodError(f"gap_tolerance is positive, got {self.gap_tolerance}")

    def passes(self, question: Question) -> Passes:
        """`n` gradients, one value at the baseline; with a tolerance the most it can take."""
        n = total = self.n
        while self.is_adaptive and 2 * n <= self.max_n:
            n *= 2
            total += n
        return question.passes_for(total, n_values=1)

    @property
    def is_adaptive(self) -> bool:
        """Whether the number of points follows from the gap."""
        return self.gap_tolerance is not None

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        baseline = self.baseline.input(question)
        start = question.values(baseline)
        if self.gap_tolerance is None:
            self._integrate(question, baseline, self.n, emit)
            return Outcome(baseline_values=start)
        change = np.array([value for value, _ in question.linear]) - np.array(start)
        n = self.n
        while True:
            maps = MapSum(question)
            self._integrate(question, baseline, n, maps.add)
            _, values = maps.inner()
            sums = values.flatten(1).sum(1, dtype=torch.float64).numpy()
            gaps = np.abs(sums - change) / np.maximum(np.abs(change), np.finfo(np.float64).tiny)
            gaps[(sums == 0) & (change == 0)] = 0.0
            if gaps.max(initial=0.0) <= self.gap_tolerance or 2 * n > self.max_n:
                break
            n *= 2
        maps.emit(emit)
        missed = tuple(
            finding(
                "VX102",
                "issue",
                f"relative gap {gap:.2e} with {n} points, asked for {self.gap_tolerance:.2e}; "
                "raise max_n",
                target.name,
            )
            for target, gap in zip(question.targets, gaps, strict=True)
            if gap > self.gap_tolerance
        )
        return Outcome(baseline_values=start, settings={"n": n}, findings=missed)

    def _integrate(self, question: Question, baseline: Input, n: int, emit: Emit) -> None:
        points, weights = quadrature(self.rule, n)
        integrate(question, baseline, question.pipeline.clean, points, weights, emit)
