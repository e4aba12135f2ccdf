"""Baselines: the image in which nothing is present, for contributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input, Pipeline
from voxplain.inference.rolling import Emit
from voxplain.space.box import Box
from voxplain.space.volume import Volume

if TYPE_CHECKING:
    from voxplain.attribution.question import Question


class Baseline(Protocol):
    """An input that stands for absence, in the model's (preprocessed) intensities.

    Contract: `input` gives an input volume like ``pipeline.clean``; where the image is padded
    to the window, baseline and image are equal.
    """

    def input(self, question: Question) -> Input:
        """Baseline of one image."""


@dataclass(frozen=True)
class Constant:
    """One value everywhere.

    Parameters
    ----------
    value
        In the model's intensities, e.g. 0 for a CT scaled from [-1024, 1024] HU to [0, 1]: air.
    """

    value: float = 0.0

    def input(self, question: Question) -> Input:
        """Baseline of one image."""
        pipeline = question.pipeline
        inner = pipeline.plan.inner()

        def crop(box: Box) -> torch.Tensor:
            values = pipeline.clean(box).clone()
            common = box.intersect(inner)
            if common is not None:
                values[(slice(None), *common.within(box))] = self.value
            return values

        return crop


@dataclass(frozen=True)
class MeanImage:
    """Each channel's mean over the image."""

    def input(self, question: Question) -> Input:
        """Baseline of one image."""
        pipeline = question.pipeline
        data = pipeline.image.data
        means = data.reshape(len(data), -1).mean(1, dtype=np.float64)
        return whole_input(
            pipeline, np.broadcast_to(means.reshape(-1, *[1] * (data.ndim - 1)), data.shape)
        )


@dataclass(frozen=True)
class Blurred:
    """The image under a Gaussian blur.

    Parameters
    ----------
    sigma_mm
        Width of the blur, the same in every direction of the patient.
    """

    sigma_mm: float = 15.0

    def __post_init__(self) -> None:
        if not self.sigma_mm > 0:
            raise MethodError(f"sigma_mm of a blurred baseline is positive, got {self.sigma_mm}")

    def input(self, question: Question) -> Input:
        """Baseline of one image."""
        pipeline = question.pipeline
        sigma = [self.sigma_mm / s for s in pipeline.image.grid.spacing]
        data = pipeline.image.data
        return whole_input(
            pipeline, np.stack([gaussian_filter(c, sigma, mode="nearest") for c in data])
        )


@dataclass(frozen=True, eq=False)
class GivenImage:
    """An image of your own, e.g. the mean of healthy cases.

    Parameters
    ----------
    image
        As it was read; prepared like the explained image, whose grid it must share.
    """

    image: Volume

    def __str__(self) -> str:
        return f"GivenImage({self.image.name}, sha256={self.image.sha256()[:12]})"

    def input(self, question: Question) -> Input:
        """Baseline of one image."""
        pipeline = question.pipeline
        prepared = pipeline.model.prepare(self.image)
        if not prepared.grid.matches(pipeline.image.grid):
            raise MethodError(
                "the baseline image lies on another grid than the image: "
                f"{prepared.grid.describe()} against {pipeline.image.grid.describe()}; "
                "resample it with voxplain.space.resample(baseline, like=image.grid)"
            )
        return whole_input(pipeline, prepared.data)


def whole_input(pipeline: Pipeline, data: NDArray[np.floating]) -> Input:
    """Return values on the image, (n_channels, *image shape), as an input; padding stays."""
    everything = Box.whole(pipeline.plan.padded_shape)
    padded = pipeline.clean(everything).clone()
    padded[(slice(None), *pipeline.plan.inner().slices)] = torch.from_numpy(np.array(data)).to(
        padded.dtype
    )
    return lambda box: padded[(slice(None), *box.slices)]


def between(pipeline: Pipeline, baseline: Input, alpha: float) -> Input:
    """Return the input b + alpha·(x − b)."""

    def crop(box: Box) -> torch.Tensor:
        start = baseline(box)
        return start + alpha * (pipeline.clean(box) - start)

    return crop


def times_difference(pipeline: Pipeline, baseline: Input, emit: Emit) -> Emit:
    """Return an `Emit` that multiplies what it gets by x − b."""

    def scaled(box: Box, values: torch.Tensor) -> None:
        emit(box, values * (pipeline.clean(box) - baseline(box)).to(values.device))

    return scaled
