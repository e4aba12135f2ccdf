"""A learned fill: an inpainting network continues what surrounds a removed part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, TypeAdapter, ValidationError
from scipy.ndimage import distance_transform_edt
from scipy.special import expit
from torch import nn

from voxplain.attribution.fills import PartFill
from voxplain.errors import MethodError
from voxplain.models.network import build_network
from voxplain.models.weights import fit_weights, read_weights
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.intensity_range import foreign_range
from voxplain.space.plane import Plane
from voxplain.space.volume import Volume

FOLDER = "inpainter"
ABOUT = "inpainter.json"
WEIGHTS = "weights.safetensors"

_CUT_AXIS = {"axial": "IS", "coronal": "PA", "sagittal": "LR"}
_BATCH = 16  # slices in one pass
_MOST_SCALE = 1.25  # between the pixels that were learned on and an image's


@dataclass(frozen=True)
class InpainterAbout:
    """What ``inpainter.json`` says of a network r = tanh(f((1 − h)·x, h)).

    Parameters
    ----------
    target, arguments
        Import path of f within MONAI or torch.nn, and its arguments: two channels in, one out.
    plane
        Of the slices that it takes; of no meaning for 2D images.
    low, high
        Prepared intensities that −1 and 1 stand for.
    multiple
        Rows and columns that it takes are divisible by it.
    name
        For tables.
    pixel_mm
        Size of the pixels that it was trained on; None: slices were fitted into the picture,
        each with a size of its own.
    size
        Rows and columns of the pictures that it was trained on, in whose middle a slice lay,
        −1 around it; smaller slices are put into one. None: they are only padded to `multiple`,
        by their edges, at the end.
    edge_px
        e of h = σ(3.75 − 1.5·d/e) outside of the hole, at a distance of d pixels, for a network
        that was trained on holes with soft edges; 0: h = 0 there.
    """

    target: str
    arguments: dict[str, Any]
    plane: Literal["axial", "coronal", "sagittal"]
    low: Annotated[float, Field(allow_inf_nan=False)]
    high: Annotated[float, Field(allow_inf_nan=False)]
    multiple: Annotated[int, Field(ge=1)]
    name: str
    pixel_mm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    size: tuple[PositiveInt, PositiveInt] | None = None
    edge_px: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


@dataclass(frozen=True)
class LearnedInpainting(PartFill):
    """What a trained inpainting network puts in a removed part, slice by slice.

    With the hole h = 1 in the part and x = 2·(v − low)/(high − low) − 1 the slice, clipped to
    [−1, 1] for the network's eyes alone, the part takes low + (r + 1)/2·(high − low), r =
    tanh(f((1 − h)·x, h)). All else keeps its value.

    Parameters
    ----------
    folder
        Holds ``inpainter.json`` and ``weights.safetensors``, or a folder ``inpainter`` that does:
        what ``voxplain counterfactual train`` writes for each generator ``inpaint-mask``.

    Raises
    ------
    MethodError
        If they are not there.

    Notes
    -----
    Slices are cut upright in the plane that the network was trained on, at the prepared image's
    own resolution, and padded as `InpainterAbout` says. A network that was trained on holes with
    soft edges, where some of the image shines through, is off where edges are hard. So it sees
    a soft edge, laid around the part: what shines through is never the part. Neighbouring slices
    do not see each other; one that the part covers wholly gets what the network makes of nothing.
    Slices without a voxel of the part are not run. Runs on the CPU in
    float32; the files are read once, when they are first needed.

    References
    ----------
    Fills that stay on the data manifold: Chang et al. 2019, arXiv 1807.08024; the network:
    Shvetsov et al. 2024, arXiv 2404.12832, see `voxplain.counterfactual.inpaint_mask`.
    """

    folder: Path

    def __post_init__(self) -> None:
        missing = [str(self.place / n) for n in (ABOUT, WEIGHTS) if not (self.place / n).is_file()]
        if missing:
            raise MethodError(
                f"{self.text}: expected a width in mm, e.g. inpaint:5, or a folder with {ABOUT} "
                f"and {WEIGHTS} (or with a folder {FOLDER} that holds them), as voxplain "
                f"counterfactual train writes it for a generator inpaint-mask; missing: "
                f"{', '.join(missing)}"
            )

    @property
    def place(self) -> Path:
        """Folder of the files."""
        folder = Path(self.folder)
        return folder / FOLDER if (folder / FOLDER).is_dir() else folder

    @property
    def text(self) -> str:
        """As `voxplain.attribution.methods.baseline_of` takes it."""
        return f"inpaint:{self.folder}"

    def __str__(self) -> str:
        return f"LearnedInpainting({self.about.name}, sha256={self.sha256[:12]})"

    @cached_property
    def sha256(self) -> str:
        """Hash of both files."""
        digest = hashlib.sha256()
        for name in (ABOUT, WEIGHTS):
            digest.update((self.place / name).read_bytes())
        return digest.hexdigest()

    @cached_property
    def about(self) -> InpainterAbout:
        """What ``inpainter.json`` says.

        Raises
        ------
        MethodError
            If it cannot be understood.
        """
        path = self.place / ABOUT
        try:
            about = TypeAdapter(InpainterAbout).validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise MethodError(f"{path}: does not describe an inpainting network: {error}") from None
        if not about.low < about.high:
            raise MethodError(f"{path}: expected low < high, got {about.low:g} and {about.high:g}")
        return about

    @cached_property
    def network(self) -> nn.Module:
        """The network with its weights, on the CPU.

        Raises
        ------
        ModelError
            If it cannot be built, or the weights do not fit.
        TrustError
            If it is code from outside of MONAI and torch.
        """
        about, path = self.about, self.place / WEIGHTS
        with torch.random.fork_rng(devices=[]):
            network = build_network(about.target, about.arguments, self.place)
        fit_weights(network, read_weights(path), str(path))
        return network.float().eval().requires_grad_(False)

    def check(self, image: Volume) -> None:
        """Refuse a prepared image that the network was not made for.

        Raises
        ------
        MethodError
            If it has several channels; other intensities: those from its 1st to its 99th
            percentile, without the lowest value (background), and those that the network
            knows share less than 2 % of what both span; or pixels whose size, in the plane of
            the slices, differs by more than 25 % from what the network was trained on.
        """
        if image.n_channels != 1:
            raise MethodError(
                f"{self.text} was learned on one channel, and the model takes {image.n_channels} "
                f"({', '.join(image.channels)}); take mean, blur:MM, noise, inpaint:MM or a number"
            )
        faults = [*self._intensity_faults(image.data), *self._pixel_faults(image.grid)]
        if faults:
            raise MethodError("\n".join(f"{self.text} {fault}" for fault in faults))

    def _intensity_faults(self, data: NDArray[np.floating]) -> list[str]:
        about = self.about
        foreign = foreign_range(data, about.low, about.high)
        if foreign is None:
            return []
        first, last = foreign
        return [
            f"was learned on intensities {about.low:g} to {about.high:g}, and the "
            f"image as the model sees it has {first:g} to {last:g} (1st to 99th percentile); "
            "train the inpainting network on images as this model prepares them "
            "(data.intensity.model), or take mean, blur:MM, noise, inpaint:MM or a number"
        ]

    def _pixel_faults(self, grid: Grid) -> list[str]:
        known, cut = self.about.pixel_mm, self._cut_axis(grid)
        pixel = [mm for axis, mm in enumerate(grid.spacing) if axis != cut]
        if known is None or all(max(mm / known, known / mm) <= _MOST_SCALE for mm in pixel):
            return []
        own = " × ".join(f"{mm:.3g}" for mm in pixel)
        return [
            f"was learned on pixels of {known:.3g} mm, and the image as the model sees it has "
            f"{own} mm in its slices; train the inpainting network with data.pixel_mm set to the "
            "spacing that this model prepares images to (and data.size large enough to hold "
            "them), or take mean, blur:MM, noise, inpaint:MM or a number"
        ]

    def near(self, box: Box, grid: Grid) -> Box:
        """Return the whole slices that the box touches."""
        whole = Box.whole(grid.shape)
        axis = self._cut_axis(grid)
        if axis is None:
            return whole
        start, stop = list(whole.start), list(whole.stop)
        start[axis], stop[axis] = box.start[axis], box.stop[axis]
        return Box(tuple(start), tuple(stop))

    def around(
        self, values: NDArray[np.floating], is_part: NDArray[np.bool_], grid: Grid
    ) -> NDArray[np.floating]:
        """Return a channel (*shape) with a part (*shape) filled by the network.

        Raises
        ------
        MethodError
            If the part is everything, or the network gives NaN or not one channel.
        ModelError
            If the network cannot be built, or its weights do not fit.
        TrustError
            If its code is not trusted.
        """
        if is_part.all():
            raise MethodError("inpainting: a part is the whole image and has no surroundings")
        about = self.about
        step = (about.high - about.low) / 2
        filled = values.copy()
        places = [at for at in self._slices(Grid(values.shape, grid.affine)) if is_part[at].any()]
        for first in range(0, len(places), _BATCH):
            some = places[first : first + _BATCH]
            pictures = np.stack([values[at] for at in some])
            holes = np.stack([is_part[at] for at in some])
            scaled = np.clip((pictures.astype(np.float64) - about.low) / step - 1, -1, 1)
            found = about.low + (self._run(scaled, holes).astype(np.float64) + 1) * step
            for at, hole, own, picture in zip(some, holes, found, pictures, strict=True):
                filled[at] = np.where(hole, own, picture).astype(values.dtype)
        return filled

    def _run(self, pictures: NDArray[np.float64], holes: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return r of slices (n, rows, columns) in [−1, 1]."""
        rows, columns = holes.shape[1:]
        soft = self._softened(holes)
        seen = np.stack([(1 - soft) * np.where(holes, 0, pictures), soft], axis=1)
        padded, top, left = self._padded(seen.astype(np.float32))
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            found = self.network(torch.from_numpy(padded))
        shape = getattr(found, "shape", None)
        if shape != (len(padded), 1, *padded.shape[2:]):
            raise MethodError(
                f"{self.text}: the network should give one channel, "
                f"{(len(padded), 1, *padded.shape[2:])}, and gave {shape}"
            )
        filled = found[:, 0, top : top + rows, left : left + columns].tanh().numpy()
        if not np.isfinite(filled).all():
            raise MethodError(f"{self.text}: the network gives NaN; train it again")
        return np.asarray(filled)

    def _softened(self, holes: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return h of holes (n, rows, columns)."""
        edge = self.about.edge_px
        if edge == 0:
            return holes.astype(np.float64)
        distance = np.stack([distance_transform_edt(~hole) for hole in holes])
        return np.where(holes, 1.0, expit(3.75 - 1.5 * distance / edge))

    def _padded(self, seen: NDArray[np.float32]) -> tuple[NDArray[np.float32], int, int]:
        """Return what the network takes (n, 2, rows, columns), and where the slices begin in it."""
        size, multiple = self.about.size, self.about.multiple
        own = seen.shape[2:]
        if size is None:
            ends = [(0, -n % multiple) for n in own]
            return np.pad(seen, [(0, 0), (0, 0), *ends], mode="edge"), 0, 0
        whole = [
            -(-max(n, least) // multiple) * multiple for n, least in zip(own, size, strict=True)
        ]
        top, left = ((w - n) // 2 for w, n in zip(whole, own, strict=True))
        padded = np.zeros((*seen.shape[:2], *whole), np.float32)
        padded[:, 0] = -1
        padded[:, :, top : top + own[0], left : left + own[1]] = seen
        return padded, top, left

    def _slices(self, grid: Grid) -> Iterator[tuple[NDArray[np.intp], ...]]:
        """Index each upright slice of an array on the grid: one array (rows, columns) an axis."""
        shape = grid.shape
        cut = self._cut_axis(grid)
        name = "picture" if cut is None else self.about.plane
        axes = [np.arange(n).reshape(-1, *[1] * (grid.rank - i - 1)) for i, n in enumerate(shape)]
        for number in range(1 if cut is None else shape[cut]):
            at = tuple(number if axis == cut else 0 for axis in range(grid.rank))
            plane = Plane(name, grid, at)
            yield tuple(plane.take(np.broadcast_to(axis, shape)) for axis in axes)

    def _cut_axis(self, grid: Grid) -> int | None:
        """Axis of an array across the slices; None in 2D."""
        if grid.rank == 2:
            return None
        pair = _CUT_AXIS[self.about.plane]
        return next(i for i, side in enumerate(grid.orientation) if side in pair)
