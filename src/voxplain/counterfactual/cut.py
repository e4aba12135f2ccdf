"""Slices of an image, and how each is fitted into the picture of a network, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize

from voxplain.errors import DataError, GridError
from voxplain.space.grid import Grid
from voxplain.space.plane import Plane

_CUT_AXIS = {"axial": "IS", "coronal": "PA", "sagittal": "LR"}
PICTURE = "picture"


def planes_of(grid: Grid, plane: str) -> list[Plane]:
    """Return every slice of a grid, along increasing RAS+ coordinate of the axis that is cut.

    Parameters
    ----------
    grid
        3D, of any orientation; or 2D, which is one slice, the whole picture.
    plane
        ``axial`` (from the feet), ``coronal`` (from the back), ``sagittal`` (from the left);
        of no meaning in 2D.

    Raises
    ------
    GridError
        If there is no such plane.
    """
    middle = [n // 2 for n in grid.shape]
    if grid.rank == 2:
        return [Plane(PICTURE, grid, tuple(middle))]
    if plane not in _CUT_AXIS:
        raise GridError(f"a 3D image has the planes {', '.join(_CUT_AXIS)}, not {plane!r}")
    axis = next(i for i, side in enumerate(grid.orientation) if side in _CUT_AXIS[plane])
    order = range(grid.shape[axis])
    if grid.orientation[axis] not in "RAS":
        order = order[::-1]
    return [Plane(plane, grid, (*middle[:axis], i, *middle[axis + 1 :])) for i in order]


def place(plane: Plane, array: NDArray[Any], picture: NDArray[Any]) -> None:
    """Write an upright picture into a slice of an array, in place: `plane.take` turned round.

    Parameters
    ----------
    plane
        Which slice.
    array
        (*plane.grid.shape), changed.
    picture
        As `plane.take` gives it.

    Raises
    ------
    GridError
        If a shape is not that of the grid or of its slice.
    """
    shape = plane.grid.shape
    if array.shape != shape:
        raise GridError(f"expected an array of shape {shape}, got {array.shape}")
    axes = [np.arange(n).reshape(-1, *[1] * (len(shape) - i - 1)) for i, n in enumerate(shape)]
    index = tuple(plane.take(np.broadcast_to(axis, shape)) for axis in axes)
    if picture.shape != index[0].shape:
        raise GridError(f"expected a picture of shape {index[0].shape}, got {picture.shape}")
    array[index] = picture


@dataclass(frozen=True)
class Fit:
    """Where the pixels of a slice lie in a picture of fixed size.

    Native pixel row i covers rows [i, i + 1)·scaled/native + offset of the picture, columns alike.

    Parameters
    ----------
    native
        Rows and columns of the slice.
    scaled
        Rows and columns that the whole slice has in the pixels of the picture.
    offset
        Row and column of the picture where the scaled slice begins; negative: it is cropped.
    size
        Rows and columns of the picture.
    """

    native: tuple[int, int]
    scaled: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]

    def put(self, picture: NDArray[Any], outside: float) -> NDArray[np.float32]:
        """Fit a slice into the picture.

        Parameters
        ----------
        picture
            (*native).
        outside
            Value of the padding.

        Returns
        -------
        ndarray
            (*size) float32: linear interpolation, smoothed first along axes that shrink
            (Gaussian of σ = (native/scaled − 1)/2 pixels); bit-exact where nothing is scaled.
        """
        self._check(picture, self.native)
        out = np.full(self.size, outside, np.float32)
        target, source = self._shared()
        out[target] = _resized(picture.astype(np.float32), self.scaled)[source]
        return out

    def put_mask(self, mask: NDArray[Any]) -> NDArray[np.bool_]:
        """Fit a mask (*native) into the picture: the nearest pixel's value; false outside."""
        self._check(mask, self.native)
        rows, columns = (
            ((np.arange(n) + 0.5) * have / n).astype(np.intp)
            for n, have in zip(self.scaled, self.native, strict=True)
        )
        out = np.zeros(self.size, np.bool_)
        target, source = self._shared()
        out[target] = mask[np.ix_(rows[source[0]], columns[source[1]])]
        return out

    def inside(self) -> NDArray[np.bool_]:
        """Pixels of the picture, (*size), that are of the slice and not padding."""
        out = np.zeros(self.size, np.bool_)
        out[self._shared()[0]] = True
        return out

    def back(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Bring values of the picture to the slice's own pixels.

        Parameters
        ----------
        array
            (*size); what lies in the padding is not used.

        Returns
        -------
        ndarray
            (*native) float32, interpolated as in `put`; zero in pixels whose centre was cut off
            by the crop.
        """
        self._check(array, self.size)
        target, source = self._shared()
        ends = [(part.start, n - part.stop) for part, n in zip(source, self.scaled, strict=True)]
        whole = np.pad(array[target].astype(np.float32), ends, mode="edge")
        out = _resized(whole, self.native)
        for axis, (part, n, have) in enumerate(zip(source, self.scaled, self.native, strict=True)):
            centre = (np.arange(have) + 0.5) * n / have
            np.moveaxis(out, axis, 0)[(centre < part.start) | (centre > part.stop)] = 0
        return out

    def _shared(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Rows and columns that picture and scaled slice share, in each one's own count."""
        target, source = [], []
        for n, at, have in zip(self.scaled, self.offset, self.size, strict=True):
            start, stop = max(0, at), min(have, at + n)
            target.append(slice(start, stop))
            source.append(slice(start - at, stop - at))
        return (target[0], target[1]), (source[0], source[1])

    @staticmethod
    def _check(array: NDArray[Any], shape: tuple[int, int]) -> None:
        if array.shape != shape:
            raise DataError(f"expected an array of shape {shape}, got {array.shape}")


def fit_of(plane: Plane, size: tuple[int, int], pixel_mm: float | None) -> Fit:
    """Fit a slice into a picture, centred, its aspect ratio in mm kept.

    Parameters
    ----------
    plane
        The slice.
    size
        Rows and columns of the picture.
    pixel_mm
        Pixel size of the picture, both ways; a slice that is larger is cropped around its
        centre. None: max(height/rows, width/columns) in mm, so that the whole slice just fits.

    Returns
    -------
    Fit
        Scaled lengths are rounded to whole pixels, at least one.
    """
    shape = (plane.grid.shape[0], plane.grid.shape[1])
    if plane.grid.rank == 3:
        rows, columns = plane.take(np.broadcast_to(np.uint8(0), plane.grid.shape)).shape
        shape = (rows, columns)
    lengths = plane.size_mm
    step = pixel_mm or max(mm / n for mm, n in zip(lengths, size, strict=True))
    high, wide = (max(1, round(mm / step)) for mm in lengths)
    offset = ((size[0] - high) // 2, (size[1] - wide) // 2)
    return Fit(shape, (high, wide), offset, size)


def _resized(picture: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    if picture.shape == shape:
        return picture
    resized = resize(picture, shape, order=1, mode="edge", anti_aliasing=True, preserve_range=True)
    return np.asarray(resized, np.float32)
