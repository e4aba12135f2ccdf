"""Blur integrated gradients: from a blurred image to the sharp one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from voxplain.attribution.baselines import Blurred
from voxplain.attribution.integrated import integrate
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input, Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind

Spacing = Literal["sigma", "variance"]


@dataclass(frozen=True)
class BlurIG:
    """∫ ∂T/∂x(v) dx(v) along the path of Gaussian blurs of x, from σ_max to 0.

    Σ_k ∂T/∂x at (x_k + x_{k+1})/2 · (x_k − x_{k+1}), x_k the image under a blur of σ_k,
    0 = σ_0 < … < σ_n = σ_max. Every image on the path has the anatomy in it; what is lost and
    comes back is detail.

    Parameters
    ----------
    n
        Steps, at least 1.
    max_sigma_mm
        σ_max, positive; the same in every direction of the patient.
    spacing
        σ_k in equal steps of ``sigma``, or of the ``variance`` σ² with its finer steps where the
        blur is wide, and mostly the larger gap for as many steps.

    Notes
    -----
    Passes: n gradients and one value at the blurred image; n blurs of the whole image on the
    CPU. Memory: two blurred images, one map a target. Beyond its edge the image is continued
    by the value there; padding around a small image is not blurred.

    The maps sum to T(x) − T(x blurred by σ_max), up to a gap that falls with n⁻² where T is
    smooth, and is 0 for a T that is quadratic.

    Differs from the paper's program (PAIR), which takes the gradient at the sharp end of each
    step, times a numerical derivative of the blur, and lets the image fall to 0 beyond its
    edge: both go to the same integral. There σ_max is 50 pixels and n is 100.

    References
    ----------
    Xu et al. 2020, arXiv 2004.03383.
    """

    n: int = 20
    max_sigma_mm: float = 15.0
    spacing: Spacing = "sigma"

    name: ClassVar[str] = "blur_ig"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "contribution"
    unit: ClassVar[str] = "{}"
    has_channels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n < 1:
            raise MethodError(f"n is at least 1 step, got {self.n}")
        if not 0 < self.max_sigma_mm < float("inf"):
            raise MethodError(f"max_sigma_mm is positive and finite, got {self.max_sigma_mm}")
        if self.spacing not in get_args(Spacing):
            raise MethodError(f"spacing is {' or '.join(get_args(Spacing))}, got {self.spacing!r}")

    def passes(self, question: Question) -> Passes:
        """`n` gradients, one value at the blurred image."""
        return question.passes_for(self.n, n_values=1)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        total = MapSum(question)
        blurred = self._at(question, self.n)
        start = question.values(blurred)
        for k in reversed(range(self.n)):
            sharper = self._at(question, k)
            integrate(question, blurred, sharper, [0.5], [1.0], total.add)
            blurred = sharper
        total.emit(emit)
        return Outcome(baseline_values=start)

    def _at(self, question: Question, k: int) -> Input:
        """Image at σ_k."""
        if k == 0:
            return question.pipeline.clean
        share = k / self.n if self.spacing == "sigma" else (k / self.n) ** 0.5
        return Blurred(self.max_sigma_mm * share).input(question)
