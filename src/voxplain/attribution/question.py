"""The one door of every method: values and gradients of targets, whatever is behind them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import numpy as np
import torch

from voxplain.attribution.bound import BoundTarget, predicted_mask
from voxplain.attribution.targets import Target
from voxplain.errors import TargetError
from voxplain.inference.cotangent import Cotangent
from voxplain.inference.noise import NoiseField
from voxplain.inference.pipeline import Input, Passes, Pipeline
from voxplain.inference.rolling import Emit
from voxplain.models.model import ModelInfo, decide
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap


class Question:
    """Targets, bound to a model and an image.

    Parameters
    ----------
    pipeline
        Model and prepared image.
    targets
        What is explained.
    image_grid
        Grid of the image as it was read, for voxel indices.
    noise
        Random field of methods that draw.
    regions
        Regions on the model's grid; None: the predicted classes.

    Attributes
    ----------
    targets
        The bound targets, in the order asked.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        targets: Sequence[Target],
        image_grid: Grid,
        noise: NoiseField,
        regions: LabelMap | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.info: ModelInfo = pipeline.info
        self.image_grid = image_grid
        self.noise = noise
        self._regions = regions
        self._n_clean = 0  # windows run for parts of the clean image
        self.targets: list[BoundTarget] = [target.bind(self) for target in targets]

    def on(self, pipeline: Pipeline) -> Question:
        """Ask the same of another image, or of changed weights: the targets stay as bound here.

        Parameters
        ----------
        pipeline
            Of the same model and grid (see `Pipeline.changed`). Held masks are those of this
            question; the noise draws are the same, and so are the regions.

        Returns
        -------
        Question
            Its clean prediction is that of the other pipeline.
        """
        other = Question(pipeline, (), self.image_grid, self.noise, self.regions)
        other.targets = self.targets
        return other

    @cached_property
    def intensity_range(self) -> np.ndarray:
        """Largest minus smallest intensity of each channel of the prepared image."""
        data = self.pipeline.image.data.reshape(self.pipeline.image.n_channels, -1)
        return np.asarray(data.max(1) - data.min(1))

    # -- the clean input ------------------------------------------------------------
    @cached_property
    def prediction_logits(self) -> torch.Tensor:
        """Stitched logits of the whole clean image, (n_classes, *inner.shape)."""
        return self.pipeline.logits(self.pipeline.clean, self.pipeline.inner)

    @property
    def has_prediction(self) -> bool:
        """Whether the whole clean image has been predicted."""
        return "prediction_logits" in self.__dict__

    def clean_logits(self, box: Box) -> torch.Tensor:
        """Stitched logits of the clean image on a box of the padded volume.

        Runs the windows of the box, until that has cost as much as all of them would: then
        the whole image is predicted and kept.
        """
        n_windows = len(self.pipeline.windows_for(box))
        is_spent = self._n_clean + n_windows >= len(self.pipeline.plan)
        if self.has_prediction or is_spent:
            index = box.within(self.pipeline.inner)
            return self.prediction_logits[(slice(None), *index)]
        self._n_clean += n_windows
        return self.pipeline.logits(self.pipeline.clean, box)

    @cached_property
    def support(self) -> Box | None:
        """Smallest box that holds the support of every target."""
        box: Box | None = None
        for target in self.targets:
            if target.support is not None:
                box = target.support.union(box or target.support)
        return box

    @cached_property
    def support_logits(self) -> torch.Tensor:
        """Stitched logits of the clean image on `support`, kept."""
        if self.support is None:
            return torch.zeros((self.info.n_classes, 0), dtype=self.pipeline.compute.dtype)
        return self.clean_logits(self.support)

    def predicted_mask(self, index: int) -> torch.Tensor:
        """Voxels of the clean image that the model gives to a class."""
        return predicted_mask(self.prediction_logits, index, self.info)

    def dominant_class(self, mask: torch.Tensor) -> int:
        """Return the class predicted most often in a mask, background only for want of others."""
        box = Box.around(mask.numpy())
        assert box is not None
        logits = self.clean_logits(box.shift(self.pipeline.inner.start))[:, mask[box.slices]]
        if not self.info.is_exclusive:
            n_predicted = (logits > 0).sum(1)
            if self.info.n_classes > 1 and not bool(n_predicted.any()):
                raise TargetError(
                    "the model predicts no class there; name one, e.g. "
                    f"class:{self.info.class_names[0]}@…"
                )
            return int(n_predicted.argmax())
        counts = torch.bincount(logits.argmax(0), minlength=self.info.n_classes)
        foreground = int(counts[1:].argmax()) + 1
        return foreground if int(counts[foreground]) else 0

    def prediction(self) -> LabelMap:
        """Return what the model predicts, on the model's grid."""
        logits = self.prediction_logits
        layers = decide(logits.numpy(), self.info)
        return LabelMap(layers, self.pipeline.image.grid, self.info.label_names)

    @cached_property
    def regions(self) -> LabelMap:
        """Regions that importance is summed over, on the model's grid."""
        return self.prediction() if self._regions is None else self._regions

    @cached_property
    def linear(self) -> list[tuple[float, Cotangent]]:
        """Value and cotangent of each target at the clean input."""
        return self._linearise(self.targets, self.pipeline.clean)

    # -- values and gradients -------------------------------------------------------
    def values(self, source: Input) -> list[float]:
        """Value of each target at another input, with masks held as the targets say."""
        return [value for value, _ in self._linearise(self.targets, source)]

    def _linearise(
        self, targets: Sequence[BoundTarget], source: Input
    ) -> list[tuple[float, Cotangent]]:
        """Value and cotangent of targets at an input; logits are computed once where shared."""
        is_clean = source == self.pipeline.clean
        stitch = self.clean_logits if is_clean else partial(self.pipeline.logits, source)
        shared, _ = self._shared_box(targets)
        if shared is not None:
            logits = stitch(shared)

            def stitch(box: Box) -> torch.Tensor:
                return logits[(slice(None), *box.within(shared))]

        return [
            target.linearise(
                torch.zeros((self.info.n_classes, 0))
                if target.support is None
                else stitch(target.support)
            )
            for target in targets
        ]

    def _shared_box(self, targets: Sequence[BoundTarget]) -> tuple[Box | None, int]:
        """Box to stitch for all targets at once (None: one by one is cheaper), and its windows."""
        boxes = [target.support for target in targets if target.support is not None]
        if not boxes:
            return None, 0
        union = boxes[0]
        for box in boxes[1:]:
            union = union.union(box)
        n_union = len(self.pipeline.windows_for(union))
        n_single = sum(len(self.pipeline.windows_for(box)) for box in boxes)
        return (union, n_union) if n_union <= n_single else (None, n_single)

    @property
    def is_fixed(self) -> bool:
        """Whether no target's cotangent depends on the input."""
        return all(target.is_fixed for target in self.targets)

    def gradient_sum(self, sources: Sequence[Input], weights: Sequence[float], emit: Emit) -> None:
        """Emit Σ_i weight_i · ∂T/∂x at input i, for every target.

        Parameters
        ----------
        sources, weights
            Inputs and their factors.
        emit
            Receives final slabs (see `Pipeline.gradients`).

        Notes
        -----
        Fixed cotangents (logits over a held mask): one sweep over the windows for all inputs.
        Otherwise each input needs its own stitched logits first, and sums are kept for the
        whole reach of the targets.
        """
        clean = self.pipeline.clean
        if self.is_fixed or list(sources) == [clean]:
            cotangents = [cotangent for _, cotangent in self.linear]
            self.pipeline.gradients(sources, weights, cotangents, emit)
            return
        if len(sources) == 1:
            self.pipeline.gradients(sources, weights, self.cotangents(sources[0]), emit)
            return
        sums = MapSum(self)
        for source, weight in zip(sources, weights, strict=True):
            self.pipeline.gradients([source], [weight], self.cotangents(source), sums.add)
        sums.emit(emit)

    def gradient(self, source: Input, emit: Emit) -> None:
        """Emit ∂T/∂x at one input, for every target."""
        self.gradient_sum([source], [1.0], emit)

    def cotangents(self, source: Input) -> list[Cotangent]:
        """Cotangent of each target at an input; only those that depend on it are made anew."""
        if source == self.pipeline.clean:
            return [cotangent for _, cotangent in self.linear]
        moving = iter(self._linearise([t for t in self.targets if not t.is_fixed], source))
        return [
            clean if target.is_fixed else next(moving)[1]
            for target, (_, clean) in zip(self.targets, self.linear, strict=True)
        ]

    def passes_for(self, n_inputs: int, *, n_clean: int = 0, n_values: int = 0) -> Passes:
        """Count the passes that a method takes, beside those for the clean input's logits.

        Parameters
        ----------
        n_inputs
            Gradients at changed (noisy, interpolated) inputs.
        n_clean
            Gradients at the clean input, whose logits are known.
        n_values
            Values at changed inputs.

        Notes
        -----
        For a mask that is taken anew at each input the number is that of the clean mask.
        """
        n_views = self.pipeline.model.n_views
        active = self.pipeline.active_windows([cotangent for _, cotangent in self.linear])
        _, n_value = self._shared_box(self.targets)
        _, n_moving = self._shared_box([t for t in self.targets if not t.is_fixed])
        n_gradients = n_inputs + n_clean
        return Passes(
            n_forward=n_views
            * (n_gradients * len(active) + n_inputs * n_moving + n_values * n_value),
            n_backward=n_views * n_gradients * sum(map(len, active.values())),
        )


class MapSum:
    """Sums of attributions over all windows that reach a target, for several sweeps.

    Memory: that box, for each target and channel.

    Parameters
    ----------
    question
        Its targets and windows.
    n_channels
        Channels of the maps; default those of the image.

    Attributes
    ----------
    box
        Where the values lie in the padded volume; empty if no target has a voxel.
    values
        (n_targets, n_channels, *box.shape).
    """

    def __init__(self, question: Question, n_channels: int | None = None) -> None:
        pipeline = question.pipeline
        self._inner = pipeline.plan.inner()
        self.box = pipeline.reach([t.support for t in question.targets if t.support is not None])
        n_channels = pipeline.image.n_channels if n_channels is None else n_channels
        shape = (len(question.targets), n_channels, *self.box.shape)
        self.values = torch.zeros(shape, dtype=pipeline.compute.dtype)

    def add(self, box: Box, values: torch.Tensor) -> None:
        """Add a slab."""
        self.values[(slice(None), slice(None), *box.within(self.box))] += values.cpu()

    def emit(self, emit: Emit) -> None:
        """Give everything out as one slab."""
        if self.box.n_voxels:
            emit(self.box, self.values)

    def inner(self) -> tuple[Box | None, torch.Tensor]:
        """Part without padding: its box in voxels of the image (None: empty) and its values."""
        common = self.box.intersect(self._inner)
        if common is None:
            return None, self.values[..., :0]
        part = self.values[(slice(None), slice(None), *common.within(self.box))]
        return common.shift([-a for a in self._inner.start]), part
