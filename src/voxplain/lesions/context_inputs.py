"""A lesion with so many millimetres of its surroundings: the inputs that the model is shown."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from voxplain.attribution.baselines import Baseline, whole_input
from voxplain.attribution.fills import Inpainted, PartFill
from voxplain.attribution.methods import setting_text
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input
from voxplain.lesions.case import LesionCase
from voxplain.regions.distances import around, dilate_steps, distance_mm
from voxplain.regions.lesion import Lesion
from voxplain.space.box import Box

Mode = Literal["keep", "remove"]

_SLACK_MM = 1e-5  # as in `dilate_mm`: affines in files are rounded
_LEAST = 1e-2  # weight of healthy tissue below which a blur has not reached a voxel
_WIDTHS = 4  # of a Gaussian, where it ends


@dataclass(frozen=True)
class Amount:
    """How much of the surroundings is kept, or removed.

    Parameters
    ----------
    mode
        ``keep``: the lesion and what is near it stand, all else is filled. ``remove``: what is
        near it is filled, lesion and all else stand.
    distance_mm
        How far *near* reaches; inf for the whole image.
    n_steps
        Voxel steps that it was asked in; None: in mm.
    """

    mode: Mode
    distance_mm: float
    n_steps: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether this is the image as it is."""
        return self.distance_mm == (math.inf if self.mode == "keep" else 0)

    @property
    def reach(self) -> float:
        """Largest value of the field of `Surroundings` that is near."""
        return self.distance_mm + _SLACK_MM if self.n_steps is None else float(self.n_steps)


class ContextFill:
    """What stands in place of what is taken away, for all lesions of a case.

    Parameters
    ----------
    case
        Model, image, lesions.
    fill
        Any baseline. `Inpainted` is local inpainting from healthy tissue: each voxel takes
        blur(x·h) / blur(h) with a Gaussian of its width, h = 1 in tissue without a lesion,
        predicted or true; voxels that this does not reach take the nearest one's that it does.
        Where the surroundings are removed, h = 0 there too. Any other `PartFill`, e.g.
        `LearnedInpainting`, continues the image without lesions and what is removed.

    Raises
    ------
    MethodError
        If the fill does not fit the image.

    Notes
    -----
    What is kept outside of a shell is the image; so a removed shell is continued from around it.
    Around a kept lesion nothing is left to continue from: the fill is then the local mean of the
    whole image's healthy tissue, the same for every distance, of `Inpainted`; a learned fill
    serves removed shells only.
    """

    def __init__(self, case: LesionCase, fill: Baseline) -> None:
        self.case = case
        self.fill = fill
        self.is_inpainted = isinstance(fill, PartFill)
        if isinstance(fill, PartFill):
            fill.check(case.pipeline.image)
        self._kept: Input | None = None
        self._healthy: NDArray[np.bool_] | None = None

    def check(self, amounts: Sequence[Amount]) -> None:
        """Refuse amounts that the fill cannot serve.

        Raises
        ------
        MethodError
            If surroundings are kept, and the fill needs what is around a part.
        """
        if not isinstance(self.fill, PartFill) or isinstance(self.fill, Inpainted):
            return
        if any(one.mode == "keep" for one in amounts):
            raise MethodError(
                f"the fill {fill_name(self.fill)} continues what is around a part, and around a "
                "kept lesion nothing is left; take the mode remove, or another fill: a number, "
                "mean, blur:MM, noise or inpaint:MM"
            )

    @property
    def healthy(self) -> NDArray[np.bool_]:
        """Tissue without a lesion, on the case's grid."""
        if self._healthy is None:
            self._healthy = self.case.tissue & ~self.sick
        return self._healthy

    @cached_property
    def sick(self) -> NDArray[np.bool_]:
        """Lesions, predicted or true, on the case's grid."""
        case = self.case
        found = case.detected(case.logits)
        return found if case.truth is None else found | case.truth

    @property
    def everywhere(self) -> Input:
        """Fill of the whole image, in the pipeline's coordinates."""
        if self._kept is None:
            if isinstance(self.fill, Inpainted):
                whole = Box.whole(self.case.grid.shape)
                self._kept = whole_input(
                    self.case.pipeline, self.from_healthy(whole, np.zeros(whole.shape, bool))
                )
            else:
                self._kept = self.fill.input(self.case.question([]))
        return self._kept

    def reach(self, box: Box) -> Box:
        """Box, on the case's grid, from which a part within `box` is continued."""
        grid = self.case.grid
        if isinstance(self.fill, Inpainted):
            return around(box, _WIDTHS * self.fill.width_mm, grid.spacing, grid.shape)
        assert isinstance(self.fill, PartFill)
        return self.fill.near(box, grid)

    def from_healthy(self, box: Box, removed: NDArray[np.bool_]) -> NDArray[np.floating]:
        """Continue healthy tissue over a box of the prepared image.

        Parameters
        ----------
        box
            On the case's grid.
        removed
            (*box.shape) voxels from which nothing is taken.

        Returns
        -------
        numpy.ndarray
            (n_channels, *box.shape); of `Inpainted` everywhere, else in removed voxels and
            lesions, and the image as it is in others.

        Raises
        ------
        MethodError
            If no healthy tissue is left in the box.
        """
        source = self.healthy[box.slices] & ~removed
        if not source.any():
            raise MethodError(
                "inpainting: no healthy tissue is left around a lesion; ask for smaller "
                "distances, or take the fill mean, blur:MM, noise or a constant"
            )
        image = self.case.pipeline.image.data[(slice(None), *box.slices)]
        if not isinstance(self.fill, Inpainted):
            assert isinstance(self.fill, PartFill)
            hole = removed | self.sick[box.slices]
            return np.stack([self.fill.around(own, hole, self.case.grid) for own in image])
        spacing = np.asarray(self.case.grid.spacing)
        sigma = self.fill.width_mm / spacing
        weight = gaussian_filter(
            source.astype(np.float64), sigma, mode="constant", truncate=_WIDTHS
        )
        is_reached = source | (weight > _LEAST)
        nearest = tuple(
            distance_transform_edt(
                ~is_reached, sampling=spacing, return_distances=False, return_indices=True
            )
        )
        filled = np.empty(image.shape)
        for channel, values in enumerate(image):
            mixed = gaussian_filter(
                np.where(source, values, 0.0).astype(np.float64), sigma, mode="constant",
                truncate=_WIDTHS,
            )  # fmt: skip
            filled[channel] = (mixed / np.where(is_reached, weight, 1.0))[nearest]
        return filled


class Surroundings:
    """Inputs in which one lesion keeps, or loses, so much of what is around it.

    Parameters
    ----------
    case
        Model and image.
    lesion
        On the case's grid.
    fill
        What stands in place of what is taken away.
    amounts
        All that will be asked; all in mm, or all in voxel steps.

    Attributes
    ----------
    near
        Box, in the pipeline's coordinates, that holds every voxel within the largest finite
        distance.
    field
        (*near.shape) distance of each voxel to the lesion, 0 in it: in mm from centre to centre,
        or the number of steps of the 18-neighbour element (2D: 8) that reach it.
    """

    def __init__(
        self, case: LesionCase, lesion: Lesion, fill: ContextFill, amounts: list[Amount]
    ) -> None:
        self._pipeline = case.pipeline
        self._fill = fill
        self._inpainted: dict[Amount, torch.Tensor] = {}
        finite = [a for a in amounts if math.isfinite(a.distance_mm)]
        steps = max((a.n_steps or 0 for a in finite), default=0)
        furthest = max((a.distance_mm for a in finite), default=0.0) + _SLACK_MM
        grid = case.grid
        if any(a.n_steps is not None for a in finite):
            box = around(lesion.box, steps, (1.0,) * grid.rank, grid.shape)  # in voxels
        else:
            box = around(lesion.box, furthest, grid.spacing, grid.shape)
        mask = np.zeros(box.shape, np.bool_)
        mask[lesion.box.within(box)] = lesion.mask
        if any(a.n_steps is not None for a in finite):
            self.field = _steps_to(mask, steps)
        else:
            self.field = distance_mm(mask, grid.spacing)
        self._box = box
        self.near = case.padded(box)

    def key(self, window: int, amount: Amount) -> Hashable:
        """Tell what a window sees: equal for equal contents, None for the image as it is.

        Larger distances hold all that smaller ones do, so the number of voxels tells contents
        apart; an inpainted shell also depends on what lies outside of the window. A lesion that
        lost everything in the window is one that keeps nothing.
        """
        if amount.is_whole:
            return None
        visible = self._pipeline.plan.box(window).intersect(self._pipeline.plan.inner())
        assert visible is not None
        common = visible.intersect(self.near)
        assert common is not None  # the window holds the lesion
        part = self.field[common.within(self.near)]
        n_near = int(np.count_nonzero(part <= amount.reach))
        if amount.mode == "keep":
            return None if n_near == visible.n_voxels else ("keep", n_near)
        n_own = int(np.count_nonzero(part == 0))
        if n_near == n_own:
            return None
        if self._fill.is_inpainted:
            return ("remove", amount.reach)
        return ("keep", n_own) if n_near == visible.n_voxels else ("remove", n_near)

    def source(self, amount: Amount) -> Input:
        """Return the input with so much of the surroundings."""
        pipeline = self._pipeline

        def kept(box: Box) -> torch.Tensor:
            values = self._fill.everywhere(box).clone()
            common = box.intersect(self.near)
            if common is not None:
                is_near = torch.from_numpy(self.field[common.within(self.near)] <= amount.reach)
                place = (slice(None), *common.within(box))
                values[place] = torch.where(is_near, pipeline.clean(common), values[place])
            return values

        def removed(box: Box) -> torch.Tensor:
            values = pipeline.clean(box).clone()
            common = box.intersect(self.near)
            if common is not None:
                field = self.field[common.within(self.near)]
                is_shell = torch.from_numpy((field > 0) & (field <= amount.reach))
                place = (slice(None), *common.within(box))
                values[place] = torch.where(is_shell, self._shell(amount, common), values[place])
            return values

        if amount.is_whole:
            return pipeline.clean
        return kept if amount.mode == "keep" else removed

    def _shell(self, amount: Amount, box: Box) -> torch.Tensor:
        """Fill of a removed shell on a part of `near`."""
        if not self._fill.is_inpainted:
            return self._fill.everywhere(box)
        if amount not in self._inpainted:
            wide = self._fill.reach(self._box)
            is_near = np.zeros(wide.shape, np.bool_)
            is_near[self._box.within(wide)] = self.field <= amount.reach
            values = self._fill.from_healthy(wide, is_near)
            part = values[(slice(None), *self._box.within(wide))]
            self._inpainted[amount] = torch.from_numpy(part.copy()).to(self._pipeline.compute.dtype)
        return self._inpainted[amount][(slice(None), *box.within(self.near))]


def fill_name(fill: Baseline) -> str:
    """Return a fill as the text that `voxplain.attribution.methods.baseline_of` takes."""
    return setting_text(fill)


def _steps_to(mask: NDArray[np.bool_], steps: int) -> NDArray[np.floating]:
    """Count the dilations that reach each voxel; inf beyond `steps`."""
    field = np.where(mask, 0.0, np.inf)
    held = mask
    for step in range(1, steps + 1):
        grown = dilate_steps(held, 1, 18 if mask.ndim == 3 else 8)
        field[grown & ~held] = step
        held = grown
    return field
