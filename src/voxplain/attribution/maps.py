"""Maps of a question's targets on the model's grid, for those who go on computing with them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.method import Method, Outcome, channels_of
from voxplain.attribution.question import Question
from voxplain.inference.pipeline import Passes
from voxplain.records.attribution import Kind
from voxplain.space.box import Box


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of one method, one a target of the question.

    Parameters
    ----------
    values
        (n_targets, n_channels, *image shape) on the model's grid; scale and sign as the method
        defines them. One channel where the method cannot tell channels apart.
    kind
        What the values mean.
    outcome
        What the method told beside.
    passes
        Windows run for them, without the clean prediction.
    seconds
        Time that it took.
    """

    values: NDArray[np.floating]
    kind: Kind
    outcome: Outcome
    passes: Passes
    seconds: float

    def signed(self) -> NDArray[np.float64]:
        """Sum over channels, (n_targets, *image shape): for sums over voxels."""
        return np.asarray(self.values.sum(axis=1, dtype=np.float64))

    def magnitude(self) -> NDArray[np.float64]:
        """Sum of magnitudes over channels, (n_targets, *image shape), at least 0: for ranks."""
        return np.asarray(np.abs(self.values).sum(axis=1, dtype=np.float64))


def compute_maps(question: Question, method: Method) -> Maps:
    """Attribute all targets of a question.

    Parameters
    ----------
    question
        Bound targets; its clean prediction is made now if it was not yet.
    method
        Any method.

    Returns
    -------
    Maps
        In float32, or float64 where the passes are.

    Notes
    -----
    Memory: n_targets × n_channels × the image on the model's grid.
    """
    _ = question.regions, question.linear
    pipeline = question.pipeline
    before = Passes(pipeline.passes.n_forward, pipeline.passes.n_backward)
    start = time.perf_counter()
    inner = pipeline.plan.inner()
    dtype = np.float64 if pipeline.compute.dtype == torch.float64 else np.float32
    shape = (len(question.targets), len(channels_of(method, question)), *inner.shape)
    values = np.zeros(shape, dtype)

    def add(box: Box, slab: torch.Tensor) -> None:
        common = box.intersect(inner)
        if common is not None:
            every = (slice(None), slice(None))
            part = slab[(*every, *common.within(box))]
            values[(*every, *common.within(inner))] = part.cpu().numpy()

    outcome = method.attribute(question, add)
    passes = Passes(
        pipeline.passes.n_forward - before.n_forward, pipeline.passes.n_backward - before.n_backward
    )
    return Maps(values, method.kind, outcome, passes, time.perf_counter() - start)
