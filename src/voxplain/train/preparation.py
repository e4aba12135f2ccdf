"""What is done to every image before the network: one definition for training and bundle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from voxplain.models.intensity import Clip, IntensityStep, Percentiles, Scale, ZScore
from voxplain.train.recipe import InputRecipe

TRANSFORMS = "monai.transforms"
_RAS_LABELS = [["L", "R"], ["P", "A"], ["I", "S"]]
_INTERPOLATION = {"image": "bilinear", "label": "nearest"}


def preparation(recipe: InputRecipe, keys: Sequence[str] = ("image",)) -> list[dict[str, Any]]:
    """Return MONAI's transforms from an image as it was read to what the network sees.

    Parameters
    ----------
    recipe
        Orientation, intensity, spacing.
    keys
        ``image``, or ``image`` and ``label``: labels are placed alike, with the nearest label.

    Returns
    -------
    list[dict[str, Any]]
        As a bundle writes them: ``_target_`` and plain arguments. Orientation, then intensity
        steps, then spacing.
    """
    names = list(keys)
    made = [
        _transform("Orientationd", names, axcodes=recipe.orientation, labels=_RAS_LABELS),
        *_intensities(recipe.intensity),
    ]
    if recipe.spacing is not None:
        modes = [_INTERPOLATION[key] for key in names]
        made.append(_transform("Spacingd", names, pixdim=list(recipe.spacing), mode=modes))
    return made


def reading() -> list[dict[str, Any]]:
    """Return the transforms with which a bundle reads an image of one or several NIfTI files."""
    return [
        _transform("LoadImaged", ["image"], reader="NibabelReader", image_only=True),
        _transform("EnsureChannelFirstd", ["image"]),
    ]


def _transform(name: str, keys: Sequence[str], **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{TRANSFORMS}.{name}", "keys": list(keys), **arguments}


def _intensities(steps: Sequence[IntensityStep]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    left = list(steps)
    while left:
        step, *left = left
        if isinstance(step, Clip) and left and isinstance(left[0], Scale):
            scale = left[0]
            if scale.from_ == step.bounds:  # the pair that MONAI has one transform for
                made.append(_range(scale, is_clipped=True))
                left = left[1:]
                continue
        made += _intensity(step)
    return made


def _intensity(step: IntensityStep) -> list[dict[str, Any]]:
    match step:
        case Clip():
            return [
                _transform("ThresholdIntensityd", ["image"], threshold=end, above=above, cval=end)
                for end, above in zip(step.bounds, (True, False), strict=True)
                if math.isfinite(end)
            ]
        case Scale():
            return [_range(step, is_clipped=False)]
        case ZScore():
            return [_transform(
                "NormalizeIntensityd", ["image"], subtrahend=step.mean, divisor=step.std,
                nonzero=step.over == "nonzero", channel_wise=step.mean is None,
            )]  # fmt: skip
        case Percentiles():
            return [_transform(
                "ScaleIntensityRangePercentilesd", ["image"], lower=step.low, upper=step.high,
                b_min=step.to[0], b_max=step.to[1], clip=True, channel_wise=True,
            )]  # fmt: skip
    raise AssertionError(f"no transform for {type(step).__name__}")


def _range(step: Scale, *, is_clipped: bool) -> dict[str, Any]:
    return _transform(
        "ScaleIntensityRanged", ["image"], a_min=step.from_[0], a_max=step.from_[1],
        b_min=step.to[0], b_max=step.to[1], clip=is_clipped,
    )  # fmt: skip
