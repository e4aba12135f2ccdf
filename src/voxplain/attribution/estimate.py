"""What an explanation will cost, told before it is spent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from voxplain.attribution.ask import ask
from voxplain.attribution.method import Method
from voxplain.attribution.methods import method_of
from voxplain.attribution.parse import targets_of
from voxplain.attribution.targets import Target
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import Passes, Pipeline, open_pipeline
from voxplain.models.model import Model
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

_EXACT_SECONDS = 20.0


@dataclass(frozen=True)
class Estimate:
    """Cost of an explanation.

    Parameters
    ----------
    n_windows
        Windows over the image.
    n_forward, n_backward
        Passes of one view of one window, the prediction's included.
    is_upper_bound
        Whether fewer passes may do: the predicted masks are not known yet, so that every window
        is counted for every target, or the method stops when its tolerance is met.
    seconds
        Passes times the measured time of one.
    memory_bytes
        Graph of one batch, stitched logits, sums and kept maps; not the program itself.
    """

    n_windows: int
    n_forward: int
    n_backward: int
    is_upper_bound: bool
    seconds: float
    memory_bytes: int


class _EveryWindow:
    """Stands in for a `Question` whose masks are not known: every window for every target."""

    def __init__(self, n_passes: int, n_targets: int) -> None:
        self._n_passes = n_passes
        self._n_targets = n_targets

    def passes_for(self, n_inputs: int, *, n_clean: int = 0, n_values: int = 0) -> Passes:
        n_gradients = n_inputs + n_clean
        return Passes(
            n_forward=self._n_passes * (n_gradients + n_inputs + n_values),
            n_backward=self._n_passes * n_gradients * self._n_targets,
        )


def estimate_one(
    model: Model,
    image: Volume,
    targets: str | Target | Sequence[str | Target],
    method: str | Method,
    *,
    regions: LabelMap | None,
    compute: Compute,
) -> Estimate:
    """Tell what an explanation by one model will cost; see `voxplain.attribution.estimate`."""
    chosen = method_of(method)
    with open_pipeline(model, image, compute) as pipeline:
        forward_s, backward_s = _time_one(pipeline)
        wanted = targets_of(targets, model.answers)
        n_passes = pipeline.n_passes
        is_exact = forward_s * n_passes < _EXACT_SECONDS
        if is_exact:
            question = ask(pipeline, image, wanted, regions, seed=0)
            _ = question.regions
            passes = chosen.passes(question)
            before = pipeline.passes
        else:
            everything = _EveryWindow(n_passes, len(wanted))
            passes = chosen.passes(everything)  # type: ignore[arg-type]
            before = Passes(n_forward=2 * n_passes)  # parts of the clean image, then all of it
        n_forward = passes.n_forward + before.n_forward
        return Estimate(
            n_windows=len(pipeline.plan),
            n_forward=n_forward,
            n_backward=passes.n_backward,
            is_upper_bound=not is_exact or chosen.is_adaptive,
            seconds=n_forward * forward_s + passes.n_backward * backward_s,
            memory_bytes=_memory(pipeline, len(wanted), image.grid.n_voxels),
        )


def estimate_prediction(model: Model, image: Volume, compute: Compute) -> Estimate:
    """Tell what predicting the whole image will cost."""
    with open_pipeline(model, image, compute) as pipeline:
        forward_s, _ = _time_one(pipeline)
        return Estimate(
            n_windows=len(pipeline.plan),
            n_forward=pipeline.n_passes,
            n_backward=0,
            is_upper_bound=False,
            seconds=pipeline.n_passes * forward_s,
            memory_bytes=_memory(pipeline, 0, image.grid.n_voxels),
        )


def _time_one(pipeline: Pipeline) -> tuple[float, float]:
    """Seconds of one window forward and backward, after a first run to warm up."""
    seconds = (0.0, 0.0)
    for _ in range(2):
        start = _now(pipeline.device)
        logits, leaf = pipeline.one_window()
        middle = _now(pipeline.device)
        torch.autograd.grad(logits.sum(), leaf)
        seconds = (middle - start, _now(pipeline.device) - middle)
    return seconds


def _now(device: torch.device) -> float:
    """Time at which all work given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _memory(pipeline: Pipeline, n_targets: int, n_image_voxels: int) -> int:
    n_voxels = pipeline.image.grid.n_voxels
    n_bytes = pipeline.compute.dtype.itemsize
    n_channels = pipeline.image.n_channels
    logits = pipeline.info.n_classes * (n_voxels if pipeline.is_dense else 1)
    # rolling sums, maps on the model's grid and on the image's, at most
    maps = n_targets * n_channels * (2 * n_voxels + n_image_voxels)
    graph = 2 * (pipeline.graph_bytes or 0) * pipeline.batch_size(with_graph=True)
    return int(graph + n_bytes * (logits + maps))
