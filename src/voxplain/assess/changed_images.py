"""Harmless changes of the prepared image, and explanations of what they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from voxplain.assess.flipped_model import FlippedModel
from voxplain.attribution.maps import Maps, compute_maps
from voxplain.attribution.method import Method
from voxplain.attribution.question import Question
from voxplain.errors import MethodError
from voxplain.inference.noise import NoiseField
from voxplain.inference.pipeline import Passes, Pipeline

_STREAM, _FRESH = 0x57AB1E, 0xF4E54  # of the generators: noise on the image, a method's new draws


class Change(Protocol):
    """A change of the prepared image: a frozen dataclass of its settings.

    Contract: `changed` gives a pipeline of the same grid and weights, whose passes count with the
    question's; the same question, change and k give the same image. Maps lie on clean voxels.
    """

    name: ClassVar[str]

    @property
    def n_copies(self) -> int:
        """Number of changed images."""

    @property
    def text(self) -> str:
        """What is done, in words."""

    def changed(self, question: Question, k: int) -> Pipeline:
        """Return the pipeline of changed image k."""


@dataclass(frozen=True)
class Noise:
    """Add noise, uniform in [-radius, radius), independent for each voxel and channel.

    Parameters
    ----------
    radius
        In the model's intensities, after `Model.prepare` (e.g. standard deviations for a
        z-scored image), the same for every channel.
    n
        Noisy copies.

    Raises
    ------
    MethodError
        If radius is not positive and finite, or n is less than 1.

    Notes
    -----
    Agg²Exp: three copies, ±0.1. Padding is not changed. The draws depend on the seed, the case
    and k alone: every method is asked of the same noisy images.
    """

    radius: float = 0.1
    n: int = 3

    name: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        if not 0 < self.radius < np.inf:
            raise MethodError(f"radius is a positive intensity, got {self.radius}")
        if self.n < 1:
            raise MethodError(f"n is at least 1 noisy copy, got {self.n}")

    @property
    def n_copies(self) -> int:
        """`n`."""
        return self.n

    @property
    def text(self) -> str:
        """What is done, in words."""
        return f"noise, uniform within ±{self.radius:g} of the model's intensities"

    def changed(self, question: Question, k: int) -> Pipeline:
        """Return the pipeline of noisy copy k."""
        data = question.pipeline.image.data
        noise = question.noise.generator(_STREAM, k).random(data.shape, dtype=np.float32)
        noise *= np.float32(2 * self.radius)
        noise -= np.float32(self.radius)
        return question.pipeline.changed(data + noise)


@dataclass(frozen=True)
class Shift:
    """Add one number to every voxel of every channel.

    Parameters
    ----------
    amount
        In the model's intensities, after `Model.prepare`; may be negative.

    Raises
    ------
    MethodError
        If it is 0 or not finite.
    """

    amount: float = 0.05

    name: ClassVar[str] = "shift"
    n_copies: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not np.isfinite(self.amount) or self.amount == 0:
            raise MethodError(f"amount is an intensity other than 0, got {self.amount}")

    @property
    def text(self) -> str:
        """What is done, in words."""
        return f"{self.amount:+g} of the model's intensities everywhere"

    def changed(self, question: Question, k: int) -> Pipeline:
        """Return the pipeline of the shifted image."""
        data = question.pipeline.image.data
        return question.pipeline.changed(data + data.dtype.type(self.amount))


@dataclass(frozen=True)
class Flip:
    """Show the network mirrored windows and mirror its logits back.

    Parameters
    ----------
    axis
        Spatial axis of the model's grid.

    Raises
    ------
    MethodError
        If it is negative.

    Notes
    -----
    Image, masks and baselines stay where they are, and so does the map; a network that commutes
    with the mirror gives the very same one. Each window is mirrored in its place: no voxel
    changes its window, as it can where a whole image is mirrored.
    """

    axis: int

    name: ClassVar[str] = "flip"
    n_copies: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.axis < 0:
            raise MethodError(f"axis is at least 0, got {self.axis}")

    @property
    def text(self) -> str:
        """What is done, in words."""
        return f"windows mirrored along axis {self.axis} of the model's grid"

    def changed(self, question: Question, k: int) -> Pipeline:
        """Return the pipeline of the mirrored model; MethodError for an axis of one voxel."""
        size = question.pipeline.plan.settings.size
        if self.axis >= len(size) or size[self.axis] == 1:
            raise MethodError(
                f"windows of {size} voxels cannot be mirrored along axis {self.axis}; take one of "
                f"{', '.join(map(str, _long_axes(size)))}"
            )
        other = question.pipeline.changed(question.pipeline.image.data)
        other.model = FlippedModel(question.pipeline.model, self.axis)
        return other


def all_changes(question: Question, noise: Noise, shift: Shift) -> tuple[Change, ...]:
    """Return noise, shift, and `Flip` along each axis longer than one voxel."""
    size = question.pipeline.plan.settings.size
    return noise, shift, *(Flip(axis) for axis in _long_axes(size))


def reexplained(
    question: Question, method: Method, change: Change, k: int = 0, *, fresh_draws: bool = False
) -> Maps:
    """Explain a changed image with the targets of the clean one.

    Parameters
    ----------
    question
        Of the clean image. Its targets stay as bound: held masks, and the class where it was
        taken from the prediction.
    method
        Any method.
    change, k
        What is changed, and number of the copy, 0 … n_copies - 1.
    fresh_draws
        Whether the method draws anew (SmoothGrad's noise, coalitions). By default its draws are
        those of the clean explanation, so that its own randomness is not part of the answer.

    Returns
    -------
    Maps
        On the voxels of the clean image, also for a `Flip`.

    Raises
    ------
    MethodError
        If there is no copy k.

    Notes
    -----
    Passes: those of the method and of the targets' values at the changed image, or of the whole
    changed image where a target is not linear in the logits; see `stability_passes`.
    """
    if not 0 <= k < change.n_copies:
        raise MethodError(f"{change.name} has copies 0 to {change.n_copies - 1}, got {k}")
    other = question.on(change.changed(question, k))
    if fresh_draws:
        seed = question.noise.generator(_FRESH, k).integers(np.iinfo(np.int64).max)
        other.noise = NoiseField(int(seed))
    if not other.is_fixed:  # methods may ask for the same logits again: they are kept
        _ = other.prediction_logits
    return compute_maps(other, method)


def stability_passes(question: Question, method: Method, changes: Sequence[Change]) -> Passes:
    """Count the passes of re-explaining every copy of every change.

    Parameters
    ----------
    question
        Of the clean image.
    method
        Any method; for an adaptive one the count is the most it can take.
    changes
        What is changed.
    """
    once = method.passes(question)
    n_values = question.pipeline.n_passes
    if question.is_fixed:
        n_values = question.passes_for(0, n_values=1).n_forward
    n = sum(change.n_copies for change in changes)
    return Passes(n * (once.n_forward + n_values), n * once.n_backward)


def _long_axes(size: Sequence[int]) -> list[int]:
    return [axis for axis, n in enumerate(size) if n > 1]
