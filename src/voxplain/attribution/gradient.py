"""The gradient, and input times gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from voxplain.attribution.baselines import Baseline, Constant, times_difference
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import Question
from voxplain.inference.pipeline import Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind


@dataclass(frozen=True)
class Gradient:
    """∂T/∂x, the gradient of the whole sliding-window pipeline (Agg²Exp's VG).

    Differs from the paper's program, which adds up window gradients without their blend
    weights, so that voxels under overlaps count up to eight times.

    References
    ----------
    Simonyan et al. 2014, arXiv 1312.6034; Chrabąszcz et al. 2025, arXiv 2407.16653.
    """

    name: ClassVar[str] = "gradient"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "sensitivity"
    unit: ClassVar[str] = "{} per intensity"
    has_channels: ClassVar[bool] = True

    def passes(self, question: Question) -> Passes:
        """One gradient at the clean input."""
        return question.passes_for(0, n_clean=1)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        question.gradient(question.pipeline.clean, emit)
        return Outcome()


@dataclass(frozen=True)
class InputXGradient:
    """(x − b)·∂T/∂x: the first-order contribution of each voxel against a baseline.

    Parameters
    ----------
    baseline
        b; default 0 in the model's intensities, the usual input × gradient.

    References
    ----------
    Shrikumar et al. 2016, arXiv 1605.01713.
    """

    baseline: Baseline = field(default_factory=Constant)

    name: ClassVar[str] = "input_x_gradient"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "contribution"
    unit: ClassVar[str] = "{}"
    has_channels: ClassVar[bool] = True

    def passes(self, question: Question) -> Passes:
        """One gradient at the clean input, one value at the baseline."""
        return question.passes_for(0, n_clean=1, n_values=1)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        baseline = self.baseline.input(question)
        question.gradient(
            question.pipeline.clean, times_difference(question.pipeline, baseline, emit)
        )
        return Outcome(baseline_values=question.values(baseline))
