"""Expected gradients: integrated gradients from several references at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from voxplain.attribution.baselines import Baseline, Blurred, MeanImage
from voxplain.attribution.integrated import integrate
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind


@dataclass(frozen=True)
class ExpectedGradients:
    """E over references r and α ~ U(0, 1) of (x − r)·∂T/∂x at r + α(x − r).

    The mean of integrated gradients over several references, with drawn points: no single
    image has to stand for absence.

    Parameters
    ----------
    n
        Draws in all, at least one a reference; they are dealt to the references in turn.
    references
        Each counts alike. Default: the mean, and the image under three blurs; for the
        method's own meaning give images of other people on the same grid.

    Notes
    -----
    Passes: n gradients, and one value at each reference. Memory: one map a target (two for a
    target that is not linear in the logits), one reference at a time.

    The maps sum to T(x) minus the mean of T(r), up to the error of the draws, which is the
    completeness gap. α is stratified: of the m draws of a reference, number j lies in
    [j/m, (j + 1)/m), uniformly, so that the variance falls with m⁻³ rather than m⁻¹ for a
    smooth target. Draws depend on the seed only.

    Differs from the paper, which draws a reference out of a training set and α anew for every
    sample: here each reference is used equally often.

    References
    ----------
    Erion et al. 2021, arXiv 1906.10670.
    """

    n: int = 40
    references: tuple[Baseline, ...] = (MeanImage(), Blurred(5.0), Blurred(10.0), Blurred(20.0))

    name: ClassVar[str] = "expected_gradients"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "contribution"
    unit: ClassVar[str] = "{}"
    has_channels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.references, tuple) or not self.references:
            raise MethodError(
                "references is a tuple of at least one baseline, e.g. (MeanImage(), "
                f"Blurred(10.0)); got {self.references!r}"
            )
        if self.n < len(self.references):
            raise MethodError(
                f"n is at least one draw a reference, {len(self.references)}; got {self.n}"
            )

    def passes(self, question: Question) -> Passes:
        """`n` gradients, one value at each reference."""
        return question.passes_for(self.n, n_values=len(self.references))

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        total = MapSum(question)
        n_references = len(self.references)
        values = np.zeros(len(question.targets))
        for number, baseline in enumerate(self.references):
            reference = baseline.input(question)
            n = len(range(number, self.n, n_references))
            points = (np.arange(n) + question.noise.generator(number).random(n)) / n
            weights = np.full(n, 1 / (n * n_references))
            integrate(question, reference, question.pipeline.clean, points, weights, total.add)
            values += np.array(question.values(reference)) / n_references
        total.emit(emit)
        return Outcome(baseline_values=values.tolist())
