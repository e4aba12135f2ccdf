"""What is done to intensities before the network sees them; numpy, pure functions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from voxplain.errors import ImageError
from voxplain.space.labelmap import nearest
from voxplain.space.volume import Volume

Array = NDArray[np.floating[Any]]
Over = Literal["all", "nonzero"]


def rising(pair: tuple[float, float]) -> tuple[float, float]:
    """Check that the first of two numbers is below the second, for pydantic."""
    if not pair[0] < pair[1]:
        raise ValueError(f"expected [low, high] with low < high, got {list(pair)}")
    return pair


def _finite(pair: tuple[float, float]) -> tuple[float, float]:
    if not all(map(math.isfinite, pair)):
        raise ValueError(f"expected two finite numbers, got {list(pair)}")
    return pair


Range = Annotated[tuple[float, float], AfterValidator(rising)]
FiniteRange = Annotated[tuple[float, float], AfterValidator(_finite), AfterValidator(rising)]
Pair = Annotated[tuple[float, float], AfterValidator(_finite)]


class IntensityStep(BaseModel, ABC):
    """One step, applied to each of its channels on its own.

    Parameters
    ----------
    channels
        Names of the channels it changes; None changes every channel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: tuple[str, ...] | None = None

    def apply(self, image: Volume) -> Volume:
        """Image with changed intensities; its type is kept, the argument is not changed.

        Raises
        ------
        ImageError
            If the step is undefined for the image (e.g. the z-score of a constant channel).
        """
        data = np.array(image.data)
        for index, name in enumerate(image.channels):
            if self.channels is None or name in self.channels:
                data[index] = self._channel(image.data[index], index, name)
        return image.with_data(data)

    @abstractmethod
    def _channel(self, values: Array, index: int, name: str) -> Array: ...


class Clip(IntensityStep):
    """Intensities limited to ``[low, high]``; ``.inf`` leaves one side open."""

    step: Literal["clip"] = "clip"
    bounds: Range

    def _channel(self, values: Array, index: int, name: str) -> Array:
        return np.clip(values, *self.bounds)


class Scale(IntensityStep):
    """The straight line that takes ``from`` to ``to``; nothing is clipped."""

    step: Literal["scale"] = "scale"
    from_: FiniteRange = Field(validation_alias=AliasChoices("from", "from_"))
    to: Pair = (0.0, 1.0)

    def _channel(self, values: Array, index: int, name: str) -> Array:
        return _line(values, self.from_, self.to)


class ZScore(IntensityStep):
    """(x - mean) / standard deviation, of the image's own voxels or of fixed numbers.

    Parameters
    ----------
    over
        ``nonzero``: statistics of the voxels that are not zero, and only these are changed.
    mean, std
        Fixed numbers, one or one a channel of the image; None takes the image's own.
    """

    step: Literal["zscore"] = "zscore"
    over: Over = "all"
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> ZScore:
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both mean and std, or neither (then the image's own are used)")
        numbers = (*self.fixed[0], *self.fixed[1])
        if not all(map(math.isfinite, numbers)) or not all(s > 0 for s in self.fixed[1]):
            raise ValueError(
                f"mean is finite and std is above 0, got mean {self.mean} and std {self.std}"
            )
        return self

    @property
    def fixed(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Fixed mean and std, one number or one a channel each; empty if the image's own."""
        return _each(self.mean), _each(self.std)

    @property
    def lengths(self) -> set[int]:
        """Numbers of channels that fixed statistics are given for; empty if one fits all."""
        return {len(v) for v in (self.mean, self.std) if isinstance(v, tuple)}

    def _channel(self, values: Array, index: int, name: str) -> Array:
        chosen = _chosen(values, self.over)
        if self.mean is None or self.std is None:
            voxels = values[chosen].astype(np.float64)
            mean, std = _mean_std(voxels, name)
        else:
            mean, std = _of(self.mean, index), _of(self.std, index)
        return np.where(chosen, (values - mean) / std, values)


class Percentiles(IntensityStep):
    """Percentiles of the image taken to ``to`` along a straight line, the rest clipped.

    Parameters
    ----------
    low, high
        Percentiles, 0 to 100.
    to
        Where they go.
    over
        ``nonzero``: percentiles of the voxels that are not zero, and only these are changed.
    """

    step: Literal["percentiles"] = "percentiles"
    low: float = Field(default=0.5, ge=0, le=100)
    high: float = Field(default=99.5, ge=0, le=100)
    to: FiniteRange = (0.0, 1.0)
    over: Over = "all"

    @model_validator(mode="after")
    def _check(self) -> Percentiles:
        if not self.low < self.high:
            raise ValueError(f"low is below high, got low {self.low} and high {self.high}")
        return self

    def _channel(self, values: Array, index: int, name: str) -> Array:
        chosen = _chosen(values, self.over)
        voxels = values[chosen].astype(np.float64)
        low, high = np.percentile(voxels, [self.low, self.high]) if voxels.size else (0.0, 0.0)
        if not low < high:
            raise ImageError(
                f"channel {name!r}: percentiles {self.low:g} and {self.high:g} are both {low:g} "
                f"over {voxels.size} voxels, so it cannot be scaled; is the channel empty?"
            )
        scaled = np.clip(_line(values, (float(low), float(high)), self.to), *self.to)
        return np.where(chosen, scaled, values)


def _line(values: Array, source: tuple[float, float], to: tuple[float, float]) -> Array:
    slope = (to[1] - to[0]) / (source[1] - source[0])
    return (values - source[0]) * slope + to[0]


def _chosen(values: Array, over: Over) -> NDArray[np.bool_]:
    return np.ones(values.shape, bool) if over == "all" else np.asarray(values != 0)


def _mean_std(voxels: NDArray[np.float64], name: str) -> tuple[float, float]:
    mean, std = (float(voxels.mean()), float(voxels.std())) if voxels.size else (0.0, 0.0)
    if not std > 1e-8 * abs(mean):
        raise ImageError(
            f"channel {name!r}: {voxels.size} voxels have mean {mean:g} and standard deviation "
            f"{std:g}, so a z-score is undefined; is the channel empty?"
        )
    return mean, std


def _each(value: float | tuple[float, ...] | None) -> tuple[float, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def _of(value: float | tuple[float, ...], index: int) -> float:
    return value[index] if isinstance(value, tuple) else value


_STEPS: dict[str, type[IntensityStep]] = {
    "clip": Clip,
    "scale": Scale,
    "zscore": ZScore,
    "percentiles": Percentiles,
}


def _tagged(raw: Any) -> Any:
    """Turn the card's ``{clip: [a, b]}`` into the fields of a step."""
    if isinstance(raw, IntensityStep):
        return raw
    if isinstance(raw, str):
        raw = {raw: None}
    if not isinstance(raw, Mapping) or not raw:
        raise ValueError(f"expected a step such as 'clip: [0, 1]', got {raw!r}")
    unknown = [str(key) for key in raw if key not in (*_STEPS, "channels")]
    if unknown:
        raise ValueError(f"unknown step {unknown[0]!r}{nearest(unknown[0], tuple(_STEPS))}")
    found = [key for key in raw if key in _STEPS]
    if len(found) != 1:
        raise ValueError(f"expected one step an item, got {found or 'only channels'}")
    body = raw[found[0]]
    if found[0] == "clip":
        body = {"bounds": body}
    if not isinstance(body, Mapping | None):
        raise ValueError(  # noqa: TRY004 (pydantic collects ValueError)
            f"expected '{found[0]}: {{name: value, …}}', got {body!r}"
        )
    fields = {**(body or {}), "step": found[0]}
    return {**fields, "channels": raw["channels"]} if "channels" in raw else fields


Step = Annotated[
    Annotated[Clip | Scale | ZScore | Percentiles, Field(discriminator="step")],
    BeforeValidator(_tagged),
]


def apply_steps(image: Volume, steps: Sequence[IntensityStep]) -> Volume:
    """Image after every step in order; the argument is not changed."""
    for step in steps:
        image = step.apply(image)
    return image
