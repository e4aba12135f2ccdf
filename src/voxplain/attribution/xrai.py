"""XRAI: integrated gradients, told by segments of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.baselines import between, times_difference
from voxplain.attribution.integrated import Rule, quadrature
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input, Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind
from voxplain.regions.segments import most_telling_first, multi_scale
from voxplain.space.box import Box

Extremes = Literal["channel", "image"]


@dataclass(frozen=True)
class XRAI:
    """Segments of the image, those with the largest mean integrated gradients first.

    a(v) = max over channels of the mean of two integrated gradients, from a black image (the
    smallest intensity everywhere) and from a white one (the largest). The image is divided
    into overlapping segments at six scales (see `regions.segments.multi_scale`: Felzenszwalb
    in 2D, SLIC supervoxels in 3D). Starting from nothing, the segment whose new voxels have the
    largest mean of a is added, again and again. A voxel's value is that mean at the step that
    covered it; voxels never covered get the mean of a over them. The sum of a is kept.

    Parameters
    ----------
    n
        Points on each of the two paths, at least 1.
    rule
        See `quadrature`.
    extremes
        Black and white, and the scale on which segments are sought: of each ``channel``, or of
        the whole ``image`` over all channels.
    area
        Stop once more than this share of the image is covered, 0 to 1.
    min_voxels
        A segment that adds fewer is dropped, at least 1.

    Notes
    -----
    Passes: 2·n gradients. Memory: one map a target with all channels, and some 250 bytes a
    voxel for the segments of the whole image, which all targets share. Intensities are those
    of the prepared image; padding around a small image is in no segment and equal in all
    inputs.

    Differs from the authors' program (PAIR), which XRAI(n=100, rule="agg2exp",
    extremes="image") gives in 2D: by default the quadrature is exact for polynomials, so fewer
    points do, and channels of different scales are not mixed. The paper and its program have no
    3D: the supervoxels are ours, and `min_voxels` is the program's number of pixels. Maps keep
    their sign and scale.

    References
    ----------
    Kapishnikov et al. 2019, arXiv 1906.02825, algorithm 1.
    """

    n: int = 20
    rule: Rule = "gauss_legendre"
    extremes: Extremes = "channel"
    area: float = 1.0
    min_voxels: int = 50

    name: ClassVar[str] = "xrai"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "localisation"
    unit: ClassVar[str] = "{}"
    has_channels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise MethodError(f"n is at least 1 point on each path, got {self.n}")
        if self.rule not in get_args(Rule):
            raise MethodError(f"rule is one of {', '.join(get_args(Rule))}; got {self.rule!r}")
        if self.extremes not in get_args(Extremes):
            raise MethodError(
                f"extremes is {' or '.join(get_args(Extremes))}, got {self.extremes!r}"
            )
        if not 0 <= self.area <= 1:
            raise MethodError(f"area is a share of the image, 0 <= area <= 1; got {self.area}")
        if self.min_voxels < 1:
            raise MethodError(f"min_voxels is at least 1, got {self.min_voxels}")

    def passes(self, question: Question) -> Passes:
        """`n` gradients on each of two paths."""
        return question.passes_for(2 * self.n)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        image = question.pipeline.image
        lowest, highest = self._extremes(question)
        span = np.maximum(highest - lowest, np.finfo(np.float32).tiny)
        columns = (-1, *[1] * image.grid.rank)
        scaled = 2 * (image.data - lowest.reshape(columns)) / span.reshape(columns) - 1
        segments = multi_scale(scaled, image.grid.spacing)
        total = self._integrated(question, [lowest, highest])
        maps = torch.zeros(
            (len(question.targets), 1, *image.grid.shape), dtype=question.pipeline.compute.dtype
        )
        box, values = total.inner()
        if box is not None:
            for t, contributions in enumerate(values):
                pixels = np.zeros(image.grid.shape)
                pixels[box.slices] = contributions.amax(0).numpy()
                told = most_telling_first(segments, pixels, self.area, self.min_voxels)
                maps[t, 0] = torch.from_numpy(told)
        emit(question.pipeline.plan.inner(), maps)
        return Outcome(settings={"n_segments": len(segments)})

    def _extremes(self, question: Question) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Smallest and largest intensity, one number a channel."""
        data = question.pipeline.image.data
        data = data.reshape(len(data), -1)
        lowest, highest = data.min(1).astype(np.float64), data.max(1).astype(np.float64)
        if self.extremes == "image":
            lowest[:], highest[:] = lowest.min(), highest.max()
        return lowest, highest

    def _integrated(self, question: Question, levels: list[NDArray[np.float64]]) -> MapSum:
        """Mean of the integrated gradients from one baseline a level."""
        pipeline = question.pipeline
        total = MapSum(question)
        points, weights = quadrature(self.rule, self.n)
        for level in levels:
            baseline = _flat(question, level)
            path = [between(pipeline, baseline, float(alpha)) for alpha in points]
            question.gradient_sum(
                path, (weights / len(levels)).tolist(),
                times_difference(pipeline, baseline, total.add),
            )  # fmt: skip
        return total


def _flat(question: Question, level: NDArray[np.float64]) -> Input:
    """One intensity for each channel, everywhere but in the padding."""
    pipeline = question.pipeline
    inner = pipeline.plan.inner()
    values = torch.from_numpy(level).to(pipeline.compute.dtype)
    values = values.reshape(-1, *[1] * pipeline.image.grid.rank)

    def crop(box: Box) -> torch.Tensor:
        window = pipeline.clean(box).clone()
        common = box.intersect(inner)
        if common is not None:
            window[(slice(None), *common.within(box))] = values
        return window

    return crop
