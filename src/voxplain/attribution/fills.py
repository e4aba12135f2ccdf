"""Fills: what stands where a part of the image is removed, beside the plain baselines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from voxplain.attribution.baselines import Baseline, whole_input
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume

if TYPE_CHECKING:
    from voxplain.attribution.players import Players
    from voxplain.attribution.question import Question

_DRAW = 1 << 40  # of the noise field, beyond the numbers of noise copies
_LEAST = 1e-2  # of the weight outside of the part that an endless blur has


@dataclass(frozen=True)
class NoiseFill:
    """Each channel's mean and Gaussian noise of its standard deviation.

    Parameters
    ----------
    scale
        Factor of the standard deviation, positive.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise MethodError(f"scale of a noise fill is positive, got {self.scale}")

    def input(self, question: Question) -> Input:
        """Baseline of one image; equal for equal seeds, whichever window asks."""
        pipeline = question.pipeline
        inner = pipeline.plan.inner()
        data = pipeline.image.data.reshape(pipeline.image.n_channels, -1)
        shape = (-1, *[1] * pipeline.image.grid.rank)
        mean = torch.from_numpy(data.mean(1, dtype=np.float64)).reshape(shape)
        spread = torch.from_numpy(data.std(1, dtype=np.float64)).reshape(shape) * self.scale

        def crop(box: Box) -> torch.Tensor:
            values = pipeline.clean(box).clone()
            common = box.intersect(inner)
            if common is not None:
                place = common.shift([-a for a in inner.start])
                noise = torch.from_numpy(question.noise.crop(_DRAW, len(data), place))
                index = (slice(None), *common.within(box))
                values[index] = (mean + spread * noise).to(values.dtype)
            return values

        return crop


class PartFill(ABC):
    """A fill that continues what surrounds a removed part into it.

    Contract: a part is filled from the rest of the image alone, whichever other parts are
    absent, so that the fill does not depend on the coalition.
    """

    def input(self, question: Question) -> Input:
        """Refuse: there is nothing around a whole image.

        Raises
        ------
        MethodError
            Always.
        """
        raise MethodError(
            "inpainting fills a removed part from its surroundings, and this method removes no "
            "parts; take mean, blur:MM, noise or a constant"
        )

    @abstractmethod
    def check(self, image: Volume) -> None:
        """Refuse, with a `MethodError`, a prepared image that it cannot fill."""

    @abstractmethod
    def near(self, box: Box, grid: Grid) -> Box:
        """Box of the grid whose voxels decide what stands in a part that `box` holds."""

    @abstractmethod
    def around(
        self, values: NDArray[np.floating], is_part: NDArray[np.bool_], grid: Grid
    ) -> NDArray[np.floating]:
        """Return a channel with a part filled from the rest.

        Parameters
        ----------
        values
            (*shape) the channel, or `near` of it.
        is_part
            (*shape) what is removed; its values are not used.
        grid
            Of which directions and spacing count.

        Returns
        -------
        numpy.ndarray
            (*shape), unchanged outside of the part.

        Raises
        ------
        MethodError
            If the part is everything.
        """


@dataclass(frozen=True)
class Inpainted(PartFill):
    """The tissue around the removed part, blurred into it: local inpainting.

    Inside a part P the fill is blur(x·o) / blur(o), o = 1 outside of P, with a Gaussian of
    `width_mm`; deeper voxels, which this width does not reach, take the next, twice as wide.

    Parameters
    ----------
    width_mm
        Standard deviation of the first Gaussian, the same in every direction of the patient.

    Notes
    -----
    A baseline of a whole image has no surroundings.
    """

    width_mm: float = 5.0

    def __post_init__(self) -> None:
        if not self.width_mm > 0:
            raise MethodError(f"width_mm of inpainting is positive, got {self.width_mm}")

    def check(self, image: Volume) -> None:
        """Refuse no image."""

    def near(self, box: Box, grid: Grid) -> Box:
        """Return the box and eight widths around it, where the blur looks."""
        margin = np.ceil(8 * self.width_mm / np.asarray(grid.spacing)).astype(int)
        grown = Box(
            tuple(int(a - m) for a, m in zip(box.start, margin, strict=True)),
            tuple(int(b + m) for b, m in zip(box.stop, margin, strict=True)),
        ).intersect(Box.whole(grid.shape))
        assert grown is not None
        return grown

    def around(
        self, values: NDArray[np.floating], is_part: NDArray[np.bool_], grid: Grid
    ) -> NDArray[np.floating]:
        """Return a channel (*shape) with a part (*shape) filled from the rest.

        Raises
        ------
        MethodError
            If the part is everything.
        """
        if is_part.all():
            raise MethodError("inpainting: a part is the whole image and has no surroundings")
        filled = values.copy()
        outside = (~is_part).astype(np.float64)
        # an endless blur, reflected at the borders, has the mean of `outside` everywhere
        left, width, least = is_part.copy(), self.width_mm, _LEAST * float(outside.mean())
        while left.any():
            sigma = width / np.asarray(grid.spacing)
            weight = gaussian_filter(outside, sigma, mode="reflect")
            reached = left & (weight > least)
            mixed = gaussian_filter(values * outside, sigma, mode="reflect")
            filled[reached] = (mixed[reached] / weight[reached]).astype(values.dtype)
            left &= ~reached
            width *= 2
        return filled


def fill_for(fill: Baseline, question: Question, players: Players) -> Input:
    """Return what stands in voxels of absent players.

    Parameters
    ----------
    fill
        Any baseline; of a `PartFill` every player is filled from around itself.
    question, players
        Image and parts.

    Raises
    ------
    MethodError
        If players overlap and are to be inpainted: what surrounds one is inside the other. If
        the fill does not fit the image.
    """
    if not isinstance(fill, PartFill):
        return fill.input(question)
    if bool(((players.index >= 0).sum(axis=0) > 1).any()):
        raise MethodError(
            "inpainting fills each part from its surroundings, and these parts overlap; take mean, "
            "blur:MM, noise or a constant"
        )
    image = question.pipeline.image
    fill.check(image)
    data = image.data.copy()
    for layer in players.index:
        for channel in range(image.n_channels):
            held = layer[channel if players.has_channels else 0]
            for player in np.unique(held[held >= 0]):
                part = held == player
                box = Box.around(part)
                assert box is not None
                near = fill.near(box, image.grid).slices
                inside = part[near]
                around = fill.around(image.data[channel][near], inside, image.grid)
                data[channel][near][inside] = around[inside]
    return whole_input(question.pipeline, data)
