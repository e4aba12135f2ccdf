"""Score-CAM: channels weighted by what the target is worth where they let the image through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.cam_maps import Peaks, stitched, take_layers
from voxplain.attribution.choose_layer import check_layers, choice_passes, chosen_layers
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.errors import MethodError
from voxplain.inference.cells import upsample
from voxplain.inference.pipeline import Input, Job, Passes, Pipeline
from voxplain.inference.rolling import Emit
from voxplain.inference.taps import Taps
from voxplain.records.attribution import Kind
from voxplain.space.box import Box

Weights = Literal["softmax", "probability"]


@dataclass(frozen=True)
class ScoreCam:
    """ReLU(Σ_c w_c·A_c), w = softmax_c of T(x⊙M_c): masks M_c are the layer's own channels.

    M_c is A_c interpolated to the voxels and scaled to [0, 1]; 0 where A_c is constant.

    Parameters
    ----------
    layers, relu
        As for `grad_cam`.
    weights
        ``softmax`` over the channels of T(x⊙M_c) − T(0), the paper's; the baseline's value is
        the same for all channels and drops out of the softmax, so it is not computed.
        ``probability``: T(x⊙M_c) itself, COIN's, with the score ``probability``.

    Notes
    -----
    No gradient of the network is taken. Each view w of each window has weights and a map of its
    own, Σ_w g_w/Σg·up(M_w). Its T is what it adds to the target, Σ_v C·g_w/Σg·ℓ_w(x⊙M_c) with
    C = dT/dL at the clean image: for a score logit the target itself, else its first order.
    Where one window holds everything (all classifiers), T is the target's value at the logits
    with this view's exchanged, whatever the score.

    x⊙M_c takes the image to 0 in the model's intensities, which is air only where the
    preprocessing makes it so. The softmax of a sum over thousands of voxels picks one channel:
    with segmentation use reduction ``mean``.

    Passes: 1 forward and one a channel of the layer for each view of each active window, for
    all targets at once; no backward pass but to choose a layer that is not named. Telling the
    passes before takes one that is not counted (for a word as layer, those of the choice).
    Memory: the maps on the targets' reach, one window's activations of the layer.

    References
    ----------
    Wang et al. 2020, arXiv 1910.01279, eq. 5 to 9.
    """

    layers: str = "auto"
    relu: bool = True
    weights: Weights = "softmax"

    name: ClassVar[str] = "score_cam"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "localisation"
    unit: ClassVar[str] = "{}"
    has_channels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_layers(self.layers)
        if self.weights not in get_args(Weights):
            raise MethodError(
                f"weights is one of {', '.join(get_args(Weights))}; got {self.weights!r}"
            )

    def passes(self, question: Question) -> Passes:
        """One forward pass a channel, and one for the channels, for each window and view."""
        pipeline, names = question.pipeline, check_layers(self.layers)
        active = pipeline.active_windows([cotangent for _, cotangent in question.linear])
        if not active:
            return Passes()
        layers = chosen_layers(pipeline, names)
        with torch.no_grad():
            batch = pipeline.batch([(0, next(iter(active)), 0)], [pipeline.clean])
            maps = _activations(pipeline, layers, batch, 0)[1]
        n_runs = 1 + sum(values.shape[1] for values in maps)
        passes = choice_passes(names)
        passes.n_forward += len(active) * pipeline.model.n_views * n_runs
        return passes

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        pipeline = question.pipeline
        cotangents = [cotangent for _, cotangent in question.linear]
        active = pipeline.active_windows(cotangents)
        if not active:
            return Outcome()
        layers = take_layers(pipeline, check_layers(self.layers))
        total, peaks = MapSum(question, n_channels=1), Peaks(len(cotangents))
        for w in active:
            for view in range(pipeline.model.n_views):
                self._add(question, active, (view, w, 0), layers, total, peaks)
        peaks.note_map(total.values)
        total.emit(emit)
        reached = {t for targets in active.values() for t in targets}
        used = "+".join(layers)
        return Outcome(
            settings={"layers_used": used}, findings=peaks.findings(question, reached, used)
        )

    def _add(
        self, question: Question, active: dict[int, list[int]], job: Job, layers: Sequence[str],
        total: MapSum, peaks: Peaks,
    ) -> None:  # fmt: skip
        """Add one view's maps of one window."""
        pipeline = question.pipeline
        view, w, _ = job
        window, box = pipeline.plan.settings.size, pipeline.plan.box(w)
        flips = [2 + axis for axis in pipeline.model.flips(view)]
        with torch.no_grad():
            batch = pipeline.batch([job], [pipeline.clean])
            logits, of_layers = _activations(pipeline, layers, batch, view)
        pipeline.count(1)
        slab = torch.zeros((len(question.targets), 1, *window), dtype=pipeline.compute.dtype)
        for A in of_layers:
            sources = [
                _masked(pipeline, A[:, c : c + 1].flip(flips) if flips else A[:, c : c + 1])
                for c in range(A.shape[1])
            ]
            values = self._values(question, active, job, sources, logits)
            for t in active[w]:
                scores = torch.from_numpy(values[:, t])
                w_c = torch.softmax(scores, 0) if self.weights == "softmax" else scores
                factors = w_c.to(A).reshape(1, -1, *[1] * len(window))
                cam = (factors * A).sum(1, keepdim=True)
                peaks.note(t, A, factors, cam)
                up = upsample(cam.relu() if self.relu else cam, window)
                slab[t] += stitched(pipeline, [job], up)[0].cpu() / len(of_layers)
        total.add(box, slab)

    def _values(
        self, question: Question, active: dict[int, list[int]], job: Job,
        sources: Sequence[Input], clean: torch.Tensor,
    ) -> NDArray[np.float64]:  # fmt: skip
        """Value of each target where one view sees each of the sources, (n_sources, n_targets)."""
        pipeline = question.pipeline
        view, w, _ = job
        jobs: list[Job] = [(view, w, i) for i in range(len(sources))]
        if len(pipeline.plan) > 1:
            cotangents = [cotangent for _, cotangent in question.linear]
            return pipeline.scores(jobs, sources, cotangents, active)
        found: list[list[float]] = []
        share = pipeline.share(w)

        def run(part: Sequence[Job]) -> None:
            with torch.no_grad():
                logits = pipeline.forward(pipeline.batch(part, sources), view)
            for values in logits:
                change = (values - clean[0]).cpu() * share
                found.append([_value(question, t, change) for t in range(len(question.targets))])
            pipeline.count(len(part))

        pipeline.in_batches(jobs, run)
        return np.array(found)


def _value(question: Question, t: int, change: torch.Tensor) -> float:
    """Value of a target where the stitched logits of the only window change."""
    target, pipeline = question.targets[t], question.pipeline
    if target.support is None:
        return 0.0
    place = (slice(None), *target.support.within(pipeline.output_box(0)))
    return target.linearise(question.clean_logits(target.support) + change[place])[0]


def _masked(pipeline: Pipeline, channel: torch.Tensor) -> Input:
    """Return the window times a channel (1, 1, *cells), interpolated and scaled to [0, 1]."""

    def crop(box: Box) -> torch.Tensor:
        mask = upsample(channel, box.shape)[0]
        low, high = mask.min(), mask.max()
        scaled = (mask - low) / (high - low) if high > low else torch.zeros_like(mask)
        return pipeline.clean(box) * scaled.cpu()

    return crop


def _activations(
    pipeline: Pipeline, layers: Sequence[str], batch: torch.Tensor, view: int
) -> tuple[torch.Tensor, list[torch.Tensor]]:  # fmt: skip
    """Logits of one window, and each layer's activations, (1, channels, *cells)."""
    with Taps(pipeline.model.network(view), layers) as taps:
        logits = pipeline.forward(batch, view)
    window = pipeline.plan.settings.size
    return logits, [
        place.place(output).to(pipeline.compute.dtype)
        for place, output in zip(taps.arrangements(1, window), taps.outputs, strict=True)
    ]
