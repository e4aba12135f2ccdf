"""A lesion drawn into healthy tissue: its shape in mm, and its intensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxplain.errors import GridError, LabelError
from voxplain.lesions.intensity import LesionIntensity
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume

_N_WAVES = 5  # of an irregular border
MOST_IRREGULAR = 0.5
"""Largest relative change of the radius."""


@dataclass(frozen=True, eq=False)
class LesionShape:
    """A ball, or a ball whose radius changes with the direction.

    The radius in direction u is diameter/2 · (1 + irregularity · mean_k cos(w_k·u + f_k)).

    Parameters
    ----------
    centre_mm
        Position, one number an axis, in mm of the grid's world.
    diameter_mm
        Mean diameter.
    irregularity
        Largest relative change of the radius, 0 (a ball) to 0.5.
    waves
        (n, rank) vectors w_k.
    phases
        (n,) angles f_k.

    Raises
    ------
    LabelError
        If the diameter is not positive, the irregularity out of range, or waves are missing.
    """

    centre_mm: tuple[float, ...]
    diameter_mm: float
    irregularity: float = 0.0
    waves: NDArray[np.float64] | None = None
    phases: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.diameter_mm) and self.diameter_mm > 0):
            raise LabelError(f"a lesion's diameter is more than 0 mm, got {self.diameter_mm}")
        if not 0 <= self.irregularity <= MOST_IRREGULAR:
            raise LabelError(
                f"irregularity is 0 (a ball) to {MOST_IRREGULAR}, got {self.irregularity}"
            )
        if self.irregularity and (self.waves is None or self.phases is None):
            raise LabelError(
                "an irregular border is drawn at random; give rng, or irregularity=0 for a ball"
            )

    @classmethod
    def draw(
        cls,
        centre_mm: Sequence[float],
        diameter_mm: float,
        irregularity: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> LesionShape:
        """Draw the waves of the border.

        Parameters
        ----------
        centre_mm, diameter_mm, irregularity
            See the class.
        rng
            Needed where irregularity is above 0; not touched otherwise.
        """
        centre = tuple(float(mm) for mm in centre_mm)
        if not irregularity or rng is None:
            return cls(centre, float(diameter_mm), irregularity)
        waves = rng.normal(0, 3, (_N_WAVES, len(centre)))
        return cls(
            centre, float(diameter_mm), irregularity, waves, rng.uniform(0, 2 * np.pi, _N_WAVES)
        )

    @property
    def reach_mm(self) -> float:
        """Distance from the centre that no voxel of the lesion exceeds."""
        return self.diameter_mm / 2 * (1 + self.irregularity)

    def distance_mm(self, points_mm: ArrayLike) -> NDArray[np.float64]:
        """Distance to the border along the line to the centre, negative inside.

        Parameters
        ----------
        points_mm
            (..., rank) positions in mm.

        Returns
        -------
        numpy.ndarray
            (...); the distance to the nearest point of the border for a ball.
        """
        offset = np.asarray(points_mm, np.float64) - np.asarray(self.centre_mm)
        length = np.linalg.norm(offset, axis=-1)
        radius = np.full(length.shape, self.diameter_mm / 2)
        if self.irregularity and self.waves is not None and self.phases is not None:
            unit = offset / np.where(length > 0, length, 1)[..., None]
            bumps = np.cos(unit @ self.waves.T + self.phases).mean(axis=-1)
            radius = radius * (1 + self.irregularity * bumps)
        return np.asarray(length - radius)

    def around(self, grid: Grid, margin_mm: float = 0.0) -> tuple[Box, NDArray[np.float64]] | None:
        """Distances of the voxels of a grid near the lesion.

        Parameters
        ----------
        grid
            Any, also oblique or sheared.
        margin_mm
            Beyond the border.

        Returns
        -------
        tuple or None
            Box that holds every voxel of the grid within the margin, and `distance_mm` of its
            voxel centres; None if the grid has none.

        Raises
        ------
        GridError
            If the centre has not one number for each axis of the grid.
        """
        if len(self.centre_mm) != grid.rank:
            raise GridError(
                f"the centre of a lesion has {grid.rank} numbers on this grid, got {self.centre_mm}"
            )
        centre = grid.to_index(self.centre_mm)
        inverse = np.linalg.inv(grid.affine)[: grid.rank, : grid.rank]
        half = np.linalg.norm(inverse, axis=1) * (self.reach_mm + margin_mm)
        start = np.ceil(centre - half - 1e-9).astype(int)
        stop = np.floor(centre + half + 1e-9).astype(int) + 1
        whole = Box.whole(grid.shape)
        box = Box(tuple(start.tolist()), tuple(stop.tolist())).intersect(whole)
        if box is None:
            return None
        index = np.stack(np.meshgrid(*map(np.arange, box.start, box.stop), indexing="ij"), -1)
        return box, self.distance_mm(grid.to_world(index))

    def voxels(self, grid: Grid) -> NDArray[np.bool_]:
        """Voxels of a grid whose centre is in the lesion, (*grid.shape)."""
        mask = np.zeros(grid.shape, bool)
        near = self.around(grid)
        if near is not None:
            mask[near[0].slices] = near[1] <= 0
        return mask


def insert_lesion(
    image: Volume,
    centre_mm: Sequence[float],
    diameter_mm: float,
    intensity: LesionIntensity,
    *,
    contrast: float = 1.0,
    rng: np.random.Generator | None = None,
    irregularity: float = 0.0,
    within: NDArray[np.bool_] | None = None,
) -> tuple[Volume, NDArray[np.bool_]]:
    """Add a lesion to an image.

    I'(v) = I(v) + contrast · profile(d(v)) · (difference + texture_sd · n(v)) in each channel,
    with d the signed distance in mm to the border and n standard normal noise.

    Parameters
    ----------
    image
        As it was read, before a model's preprocessing; on any grid.
    centre_mm
        Where, in mm of the image's grid; 2 or 3 numbers.
    diameter_mm
        Mean diameter.
    intensity
        What lesions look like, in the image's units.
    contrast
        Factor of the change; 0 gives the image back, negative values turn it round.
    rng
        Draws border and texture; None draws a smooth ball.
    irregularity
        See `LesionShape`.
    within
        (*image.grid.shape) voxels that may change, such as the brain: a background that is
        exactly 0 stays so. Default: all.

    Returns
    -------
    image
        Same grid, type, channels and name. Anatomy shows through, since the change is added.
    mask
        (*grid.shape) voxels with d ≤ 0.

    Raises
    ------
    LabelError
        If the channels are not the model's, or no voxel centre lies in the lesion.

    Notes
    -----
    The profile is taken at voxel centres: partial volume is what the profile holds of it.
    """
    shape = LesionShape.draw(centre_mm, diameter_mm, irregularity, rng)
    mask = shape.voxels(image.grid)
    if not mask.any():
        raise LabelError(
            f"no voxel centre lies in a lesion of {diameter_mm:g} mm at "
            f"{tuple(round(float(mm), 2) for mm in centre_mm)} mm; the image has "
            f"{image.grid.describe()}: choose another centre or a larger diameter"
        )
    return draw_lesion(image, shape, intensity, contrast=contrast, rng=rng, within=within), mask


def draw_lesion(
    image: Volume,
    shape: LesionShape,
    intensity: LesionIntensity,
    *,
    contrast: float = 1.0,
    rng: np.random.Generator | None = None,
    within: NDArray[np.bool_] | None = None,
) -> Volume:
    """Add a lesion of a shape that is known; see `insert_lesion`.

    Parameters
    ----------
    image, intensity, contrast, within
        See `insert_lesion`.
    shape
        Where and how large; may hold no voxel centre of a coarse image, and changes it then by
        the border's profile alone.
    rng
        Draws the texture; None draws none.

    Raises
    ------
    LabelError
        If the channels are not the model's.
    """
    if len(intensity.difference) != image.n_channels:
        raise LabelError(
            f"the lesion's intensities are of {len(intensity.difference)} channels "
            f"({', '.join(intensity.channels)}), the image has {image.n_channels} "
            f"({', '.join(image.channels)}); learn them from images with the same channels"
        )
    near = shape.around(image.grid, intensity.reach_mm)
    if near is None:
        return image
    box, distance = near
    part = intensity.profile_at(distance)
    if within is not None:
        part = np.where(within[box.slices], part, 0.0)
    change = np.multiply.outer(np.asarray(intensity.difference), part)
    if rng is not None:
        noise = rng.standard_normal(change.shape)
        sd = np.asarray(intensity.texture_sd).reshape(-1, *[1] * image.grid.rank)
        change = change + sd * noise * part
    data = image.data.copy()
    data[(slice(None), *box.slices)] += contrast * change
    return image.with_data(data)
