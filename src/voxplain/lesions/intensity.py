"""What lesions look like: contrast to the tissue around them, border and texture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxplain.errors import GridError, LabelError, RecordError
from voxplain.lesions.intensity_samples import falling_profile, samples_of, scale_of
from voxplain.records.archive import read_json, write_json
from voxplain.space.volume import Volume

_FORM, _VERSION = "voxplain lesion intensity", 1
_STEP_MM = 0.5  # between places where the profile is known


@dataclass(frozen=True)
class LesionIntensity:
    """Change of each channel that makes a lesion of healthy tissue.

    Parameters
    ----------
    channels
        Names.
    difference
        Mean over a lesion minus mean over its surroundings, one number a channel, in the
        image's units.
    texture_sd
        Standard deviation inside that the surroundings do not have, likewise.
    at_mm
        Signed distances to the border, rising, negative inside.
    profile
        Share of the difference at these distances, never rising; linear between, constant
        further inside, 0 further outside. Its mean over a lesion is about 1, so that it may
        exceed 1 at the core.
    scale
        Standard deviation of healthy tissue, one number a channel: the yardstick between images
        whose units differ, as those of MR do.
    n_lesions, n_voxels
        What it was learned from.

    Raises
    ------
    LabelError
        If lengths disagree, or a value is out of range.
    """

    channels: tuple[str, ...]
    difference: tuple[float, ...]
    texture_sd: tuple[float, ...]
    at_mm: tuple[float, ...]
    profile: tuple[float, ...]
    scale: tuple[float, ...]
    n_lesions: int = 0
    n_voxels: int = 0

    def __post_init__(self) -> None:
        n = len(self.channels)
        if not 0 < n == len(self.difference) == len(self.texture_sd) == len(self.scale):
            raise LabelError(
                f"difference, texture_sd and scale have one number for each of the {n} channels, "
                f"got {len(self.difference)}, {len(self.texture_sd)} and {len(self.scale)}"
            )
        values = [*self.difference, *self.texture_sd, *self.at_mm, *self.profile, *self.scale]
        if not np.isfinite(values).all() or min(self.texture_sd) < 0 or min(self.scale) <= 0:
            raise LabelError(
                "intensities are finite, texture_sd at least 0 and scale more than 0; got "
                f"difference {self.difference}, texture_sd {self.texture_sd}, scale {self.scale}"
            )
        is_rising = (np.diff(self.at_mm) > 0).all()
        is_falling = (np.diff(self.profile) <= 0).all()
        if len(self.at_mm) != len(self.profile) or len(self.at_mm) < 2 or not is_rising:
            raise LabelError(
                f"a profile has 2 or more rising distances and as many values, got {self.at_mm} "
                f"and {self.profile}"
            )
        if not is_falling or self.profile[-1] < 0:
            raise LabelError(
                f"a profile never rises outwards and ends at 0 or above, got {self.profile}"
            )

    @property
    def reach_mm(self) -> float:
        """Distance outside beyond which nothing is changed."""
        return max(0.0, self.at_mm[-1])

    def profile_at(self, distance_mm: ArrayLike) -> NDArray[np.float64]:
        """Share of the difference at signed distances to the border; same shape."""
        return np.asarray(np.interp(np.asarray(distance_mm), self.at_mm, self.profile, right=0.0))

    def fitted(self, image: Volume, tissue: NDArray[np.bool_]) -> LesionIntensity:
        """Return it in the units of another image: multiplied by the ratio of the scales.

        Parameters
        ----------
        image
            With the same channels.
        tissue
            (*image.grid.shape) healthy tissue.

        Raises
        ------
        LabelError
            If the number of channels differs, or tissue is empty or of one value.
        """
        if image.n_channels != len(self.channels):
            raise LabelError(
                f"the lesion's intensities are of {len(self.channels)} channels, the image has "
                f"{image.n_channels}; learn them from images with the same channels"
            )
        scale = scale_of(image, tissue)
        ratio = np.divide(scale, self.scale)
        return LesionIntensity(
            image.channels, _floats(np.multiply(self.difference, ratio)),
            _floats(np.multiply(self.texture_sd, ratio)), self.at_mm, self.profile,
            _floats(scale), self.n_lesions, self.n_voxels,
        )  # fmt: skip

    @classmethod
    def learn(
        cls,
        image: Volume,
        mask: NDArray[np.bool_],
        *,
        tissue: NDArray[np.bool_] | None = None,
        border_mm: float = 3.0,
        ring_mm: tuple[float, float] = (2.0, 6.0),
    ) -> LesionIntensity:
        """Learn from the lesions of one image.

        Each component of the mask is compared with its ring: tissue between the two distances of
        `ring_mm` from it and farther than the first from every other lesion. With D_c(v) the
        intensity of channel c minus the ring's mean and s_c the standard deviation in rings: the
        difference Δ_c is the mean of D_c over all voxels inside; the profile at distance d is the
        weighted least-squares factor Σ_c Δ_c D_c(d) / s_c² over Σ_c Δ_c² / s_c², made
        non-increasing, and 0 where the ring begins.

        Parameters
        ----------
        image
            As it was read.
        mask
            (*image.grid.shape) lesions.
        tissue
            (*image.grid.shape) body, lesions included or not; default: everywhere.
        border_mm
            Depth inside from which on the profile is constant.
        ring_mm
            Where the surroundings begin and end, in mm from the lesion's border.

        Raises
        ------
        LabelError
            If there is no lesion, none has surroundings, or no channel differs.
        GridError
            If a mask is of another shape.

        Notes
        -----
        Distances are those of the voxel spacing: a shear of the grid is left out. The border
        lies on the faces of the mask's voxels.
        """
        inside = np.asarray(mask, bool)
        body = np.ones(image.grid.shape, bool) if tissue is None else np.asarray(tissue, bool)
        for one, word in ((inside, "mask"), (body, "tissue")):
            if one.shape != image.grid.shape:
                raise GridError(
                    f"the {word} must have the image's shape {image.grid.shape}, got {one.shape}"
                )
        if border_mm <= 0 or not 0 <= ring_mm[0] < ring_mm[1]:
            raise LabelError(
                "border_mm is more than 0 and ring_mm two rising distances of at least 0, got "
                f"{border_mm} and {ring_mm}"
            )
        if not inside.any():
            raise LabelError(
                f"{image.name}: there is no lesion to learn from; give a truth with lesions, or "
                "an intensity model learned from another image"
            )
        found = samples_of(image, inside, body, ring_mm)
        if not found:
            raise LabelError(
                f"{image.name}: no lesion has healthy tissue {ring_mm[0]:g} to {ring_mm[1]:g} mm "
                "around it; give a larger region with --within, or another ring"
            )
        distance = np.concatenate([one[0] for one in found])
        values = np.concatenate([one[1] for one in found], axis=1)
        variance = np.average([one[2] for one in found], axis=0, weights=[one[3] for one in found])
        is_in = distance <= 0
        difference = values[:, is_in].mean(axis=1)
        if not difference.any():
            raise LabelError(
                f"{image.name}: lesions have the intensities of their surroundings, so nothing can "
                "be learned from them"
            )
        weight = difference / np.where(variance > 0, variance, difference**2 + 1e-300)
        shares = weight @ values / float(weight @ difference)
        at = np.arange(-np.ceil(border_mm / _STEP_MM), np.ceil(ring_mm[0] / _STEP_MM) + 1)
        at = at * _STEP_MM
        profile = falling_profile(distance, shares, at)
        share_in = np.interp(distance[is_in], at, profile)
        rest = values[:, is_in] - np.multiply.outer(difference, share_in)
        excess = (rest**2).mean(axis=1) - variance
        return cls(
            channels=image.channels,
            difference=_floats(difference),
            texture_sd=_floats(np.sqrt(np.maximum(excess, 0))),
            at_mm=_floats(at),
            profile=_floats(profile),
            scale=_floats(scale_of(image, body & ~inside)),
            n_lesions=len(found),
            n_voxels=int(is_in.sum()),
        )

    @classmethod
    def pool(cls, models: Sequence[LesionIntensity]) -> LesionIntensity:
        """Average models of several patients, each by its number of voxels.

        Differences and textures are averaged in units of each patient's scale, and given in
        those of the mean scale; bring the result to an image with `fitted`.

        Parameters
        ----------
        models
            One or more, with the same channels.

        Raises
        ------
        LabelError
            If there is none, or channels differ.
        """
        if not models or any(one.channels != models[0].channels for one in models):
            raise LabelError(
                "models of the same channels are pooled, at least one; got "
                f"{[one.channels for one in models]}"
            )
        weights = np.array([max(1, one.n_voxels) for one in models], np.float64)
        at = np.unique(np.concatenate([one.at_mm for one in models]))
        scale = np.average([one.scale for one in models], axis=0, weights=weights)
        units = [np.divide(one.difference, one.scale) for one in models]
        variances = [np.divide(one.texture_sd, one.scale) ** 2 for one in models]
        return cls(
            channels=models[0].channels,
            difference=_floats(np.average(units, axis=0, weights=weights) * scale),
            texture_sd=_floats(np.sqrt(np.average(variances, axis=0, weights=weights)) * scale),
            at_mm=_floats(at),
            profile=_floats(
                np.average([one.profile_at(at) for one in models], axis=0, weights=weights)
            ),
            scale=_floats(scale),
            n_lesions=sum(one.n_lesions for one in models),
            n_voxels=sum(one.n_voxels for one in models),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, ready for JSON."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LesionIntensity:
        """Inverse of `to_dict`.

        Raises
        ------
        RecordError
            If a field is missing or unknown.
        """
        try:
            lists = [key for key, value in values.items() if isinstance(value, list)]
            return cls(**{**values, **{key: tuple(values[key]) for key in lists}})
        except TypeError as error:
            raise RecordError(f"a lesion's intensities are incomplete: {error}") from error

    def save(self, path: Path) -> None:
        """Write JSON."""
        write_json(path, {"format": _FORM, "version": _VERSION, **self.to_dict()})

    @classmethod
    def load(cls, path: Path) -> LesionIntensity:
        """Read what `save` wrote.

        Raises
        ------
        RecordError
            If the file is missing, or holds something else.
        """
        values = read_json(path, _FORM, _VERSION)
        return cls.from_dict({k: v for k, v in values.items() if k not in ("format", "version")})


def _floats(values: ArrayLike) -> tuple[float, ...]:
    return tuple(float(v) for v in np.asarray(values, np.float64))
