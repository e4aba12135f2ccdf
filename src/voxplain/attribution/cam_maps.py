"""Maps from a layer's activations and gradients, window by window, stitched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.choose_layer import choice_passes, chosen_layers
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import Question
from voxplain.errors import MethodError
from voxplain.inference.cells import Upsampling, upsample, upsample_tf1
from voxplain.inference.pipeline import Job, Passes, Pipeline, targets_in
from voxplain.inference.rolling import Emit
from voxplain.inference.taps import Taps
from voxplain.records.finding import Finding, finding
from voxplain.space.box import Box

Weigh = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Makes a signed map (n, *cells) of activations and gradients, both (n, channels, *cells)."""


def cam_passes(question: Question, names: Sequence[str]) -> Passes:
    """Count the passes of `emit_cams`."""
    once, choice = question.passes_for(0, n_clean=1), choice_passes(names)
    if not question.pipeline.active_windows([cotangent for _, cotangent in question.linear]):
        return once
    return Passes(once.n_forward + choice.n_forward, once.n_backward + choice.n_backward)


def emit_cams(
    question: Question, names: Sequence[str], weigh: Weigh, emit: Emit, *, relu: bool,
    decisive: slice = slice(None), upsampling: Upsampling = "half_pixel",
) -> Outcome:  # fmt: skip
    """Emit the stitched map of each target and layer.

    Parameters
    ----------
    question
        Targets at the clean input.
    names
        Layers, or words for them.
    weigh
        The formula, for one layer.
    emit
        Receives slabs (n_targets, n_layers, *box.shape).
    relu
        Whether negative values of each window's map become 0, before it is interpolated.
    decisive
        Layers without whose maps there is none.
    upsampling
        How cells become voxels.

    Returns
    -------
    Outcome
        The layers that were taken, and VX107 for each target whose map is zero everywhere.
    """
    pipeline = question.pipeline
    cotangents = [cotangent for _, cotangent in question.linear]
    active = pipeline.active_windows(cotangents)
    if not active:
        return Outcome()
    layers = take_layers(pipeline, names)
    window = pipeline.plan.settings.size
    peaks = Peaks(len(cotangents))
    to_voxels = upsample_tf1 if upsampling == "tf1" else upsample

    def maps(jobs: Sequence[Job]) -> list[tuple[int, torch.Tensor]]:
        view = jobs[0][0]
        with torch.enable_grad():
            leaf = pipeline.batch(jobs, [pipeline.clean]).requires_grad_()
            with Taps(pipeline.model.network(view), layers) as taps:
                logits = pipeline.forward_with_graph(leaf, view)
        outputs, places = taps.outputs, taps.arrangements(len(jobs), window)
        for name, output in zip(layers, outputs, strict=True):
            if not output.requires_grad:
                raise MethodError(f"the layer {name} does not depend on the image")
        targets, found = targets_in(jobs, active), []
        for t in targets:
            weighted = torch.stack(
                [cotangents[t].crop(pipeline.output_box(w)) for _, w, _ in jobs]
            ).to(logits)
            scale = pipeline.loss_scale(weighted)
            with torch.enable_grad():
                part = logits[:, cotangents[t].channels]
            gradients = torch.autograd.grad(
                part, outputs, weighted * scale, retain_graph=t != targets[-1], allow_unused=True
            )
            of_layers: list[torch.Tensor] = []
            for place, output, gradient in zip(places, outputs, gradients, strict=True):
                given = torch.zeros_like(output) if gradient is None else gradient
                A = place.place(output.detach()).to(pipeline.compute.dtype)
                G = place.place(given).to(pipeline.compute.dtype) / scale
                cam = weigh(A, G)[:, None]
                if len(of_layers) in range(len(layers))[decisive]:
                    peaks.note(t, A, G, cam)
                of_layers.append(to_voxels(cam.relu() if relu else cam, window))
            found.append((t, stitched(pipeline, jobs, torch.cat(of_layers, 1))))
        return found

    def watched(box: Box, values: torch.Tensor) -> None:
        peaks.note_map(values[:, decisive])
        emit(box, values)

    pipeline.sum_windows(active, len(cotangents), len(layers), 1, maps, watched)
    reached = {t for targets in active.values() for t in targets}
    return Outcome(
        settings={"layers_used": "+".join(layers)},
        findings=peaks.findings(question, reached, "+".join(layers[decisive])),
    )


def take_layers(pipeline: Pipeline, names: Sequence[str]) -> list[str]:
    """Choose the layers, and count the passes that it takes."""
    layers = chosen_layers(pipeline, names)
    passes = choice_passes(names)
    if passes.total:
        pipeline.count(passes.n_forward, passes.n_backward)
    return layers


def stitched(pipeline: Pipeline, jobs: Sequence[Job], maps: torch.Tensor) -> torch.Tensor:
    """Mirror maps (n_jobs, n_layers, *window) of one view back, and weight them by their share."""
    flips = pipeline.model.flips(jobs[0][0])
    if flips:
        maps = maps.flip([2 + axis for axis in flips])
    shares = torch.stack([pipeline.share(w) for _, w, _ in jobs]).to(maps.device)
    return maps * shares[:, None]


def mean_of_layers(emit: Emit) -> Emit:
    """Return an `Emit` that takes the mean over the layers."""
    return lambda box, values: emit(box, values.mean(1, keepdim=True))


class Peaks:
    """Largest magnitudes on the way to a map, to tell why one is zero everywhere.

    Parameters
    ----------
    n_targets
        Number of maps.
    """

    def __init__(self, n_targets: int) -> None:
        self._activations: NDArray[np.float64] = np.zeros(n_targets)
        self._gradients: NDArray[np.float64] = np.zeros(n_targets)
        self._signed: NDArray[np.float64] = np.zeros(n_targets)
        self._maps: NDArray[np.float64] = np.zeros(n_targets)

    def note(self, t: int, A: torch.Tensor, G: torch.Tensor, cam: torch.Tensor) -> None:
        """Take activations, gradients and the signed map of one target in some windows."""
        for kept, values in (
            (self._activations, A),
            (self._gradients, G),
            (self._signed, cam),
        ):
            kept[t] = max(kept[t], float(values.abs().amax()))

    def note_map(self, values: torch.Tensor) -> None:
        """Take a part (n_targets, …) of the stitched maps."""
        found = values.flatten(1).abs().amax(1).cpu().numpy()
        np.maximum(self._maps, found, out=self._maps)

    def findings(self, question: Question, reached: set[int], layers: str) -> tuple[Finding, ...]:
        """VX107 for each target that windows reach and whose map is zero everywhere."""
        return tuple(
            finding("VX107", "issue", self._cause(t, layers), question.targets[t].name)
            for t in sorted(reached)
            if self._maps[t] == 0.0
        )

    def _cause(self, t: int, layers: str) -> str:
        if self._activations[t] == 0.0:
            return f"every activation of {layers} is 0: take another layer"
        if self._gradients[t] == 0.0:
            return (
                f"the gradient of the target at {layers} is 0: the target does not depend on this "
                "layer, or its score is saturated; take another layer or the score logit"
            )
        if self._signed[t] > 0.0:
            return (
                f"no cell of {layers} speaks for the target: the largest magnitude is "
                f"{self._signed[t]:.3g}, and all of it is negative; relu=false shows it"
            )
        return f"the channels of {layers} cancel, or have weight 0, in every cell"
